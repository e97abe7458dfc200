//! Files for elsewhere: factors, a feature's card, a dendrogram, its clusters, levels.
//!
//! Knows the formats by name and by file ending, and the shapes from `interop`. Invariant: a file
//! that is written appears under its name whole or not at all.

mod checkpoint;
mod control_vector;
mod saelens;
pub mod sets;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::analysis::{FeatureCard, FeatureRow, Tree};
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::interop::factor_arrays::FactorArrays;
use crate::interop::{card, dendrogram, json, tensors};
use crate::model::HookPoint;

pub use checkpoint::checkpoint;
pub use control_vector::control_vector;
pub use saelens::saelens;

/// A dendrogram of `fit` as the text of a file, in the format that the file's ending names; `rows`
/// are the features that are its leaves.
///
/// # Errors
/// [`Error::Usage`] for another ending than .svg, .nwk or .json.
pub fn tree(path: &Path, tree: &Tree, rows: &[FeatureRow], fit: &str) -> Result<String> {
    let label = |id: usize| dendrogram::leaf_label(&rows[id]);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("svg") => Ok(dendrogram::to_svg(tree, &label)),
        Some("nwk") => Ok(dendrogram::to_newick(tree, &label)),
        Some("json") => Ok(line(&json::tree(tree, fit))),
        _ => Err(Error::usage(format!(
            "{} is no .svg, .nwk or .json",
            path.display()
        ))),
    }
}

/// A JSON value as a line of its own.
pub fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// Writes text to a file.
///
/// # Errors
/// A file that cannot be written.
pub fn write(path: &Path, text: &str) -> Result<()> {
    disk::write_atomic(path, text.as_bytes())
}

/// Writes the factors Z and Y as safetensors, with what [`sets::about`] says of them.
///
/// # Errors
/// A file that cannot be written.
pub fn factors(path: &Path, factors: &Factors, about: BTreeMap<String, String>) -> Result<()> {
    tensors::write_factors(path, &FactorArrays::new(factors, None, about))
}

/// Writes a feature's card of `set`, as `format` says: `json` or `markdown`.
///
/// # Errors
/// [`Error::Usage`] for another format; a file that cannot be written.
pub fn feature_card(
    path: &Path,
    card: &FeatureCard,
    set: &str,
    hook: HookPoint,
    format: &str,
) -> Result<()> {
    match format {
        "json" => write(
            path,
            &line(&json::feature_card(card, set, Some(hook), None)),
        ),
        "markdown" => write(path, &card::to_markdown(card, set)),
        other => Err(Error::usage(format!(
            "unknown export format '{other}': use safetensors, json or markdown"
        ))),
    }
}
