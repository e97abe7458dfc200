//! A set of directions with what it expresses: as arrays, as a list, as contexts.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::analysis::{Notes, contexts};
use crate::corpus::TokenTable;
use crate::directions::DirectionSet;
use crate::error::Result;
use crate::factor::Factors;
use crate::interop::factor_arrays::FactorArrays;
use crate::interop::{npz, tables, tensors};
use crate::jobs::reading;
use crate::model::{HookPoint, Model};
use crate::study::Study;
use crate::task::{Progress, TaskCtx};

/// What stands in a file beside the numbers: where they come from and what they are called.
pub fn about(
    model: Option<&str>,
    set: &str,
    hook: HookPoint,
    notes: &Notes,
) -> BTreeMap<String, String> {
    let pairs = [
        ("mlpeek", env!("CARGO_PKG_VERSION").to_owned()),
        ("set", set.to_owned()),
        ("hook", hook.to_string()),
        ("layer", hook.layer.to_string()),
        ("model", model.unwrap_or_default().to_owned()),
        ("names", json!(notes.names).to_string()),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What opens the model that a study was collected with.
pub(super) fn model_id(study: &Study) -> Option<&str> {
    study
        .manifest()
        .model
        .as_ref()
        .map(|model| model.id.as_str())
}

/// A set as it is open, with its factors on the study's rows.
pub struct OpenSet<'a> {
    /// The study.
    pub study: &'a Study,
    /// The set.
    pub set: &'a dyn DirectionSet,
    /// Its unit columns with what each row expresses of them.
    pub factors: &'a Factors,
    /// Names that a person gave, or the set.
    pub notes: &'a Notes,
}

impl OpenSet<'_> {
    fn about(&self, rows: Option<&TokenTable>) -> BTreeMap<String, String> {
        let model = model_id(self.study);
        let mut about = about(model, self.set.name(), self.set.hook(), self.notes);
        if let Some(tokens) = rows {
            let more = [
                ("texts", json!(tokens.texts)),
                ("labels", json!(tokens.labels)),
                ("sample_labels", json!(tokens.sample_labels)),
            ];
            about.extend(more.map(|(name, value)| (name.to_owned(), value.to_string())));
        }
        about
    }

    /// Writes Z and Y as safetensors or, where `numpy`, as `.npz`; `rows` come along.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn arrays(&self, path: &Path, rows: Option<&TokenTable>, numpy: bool) -> Result<()> {
        let arrays = FactorArrays::new(self.factors, rows, self.about(rows));
        match numpy {
            true => npz::write_factors(path, &arrays),
            false => tensors::write_factors(path, &arrays),
        }
    }

    /// The list as CSV; with a model the tokens that each direction promotes.
    ///
    /// # Errors
    /// What the model returns.
    pub fn list(&self, tokens: &TokenTable, model: Option<&Model>) -> Result<String> {
        let mut rows = contexts::feature_rows(self.factors, tokens, self.notes);
        if let Some(model) = model {
            let all = 0..self.factors.features.columns();
            let promoted = reading::promoted(model, self.set.hook(), self.factors, all)?;
            for (row, promoted) in rows.iter_mut().zip(promoted) {
                row.promoted = promoted;
            }
        }
        tables::features(self.set.name(), &self.set.hook().to_string(), &rows)
    }

    /// The contexts of every direction as CSV.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn contexts(&self, tokens: &TokenTable, ctx: &TaskCtx) -> Result<String> {
        let rows = contexts::feature_rows(self.factors, tokens, self.notes);
        let total = rows.len() as u64;
        let mut cards = Vec::new();
        for (done, row) in rows.into_iter().enumerate() {
            ctx.checkpoint(Progress::new(
                "reading contexts",
                done as u64,
                total,
                "features",
            ))?;
            cards.push(contexts::card_of_row(row, self.factors, tokens)?);
        }
        tables::contexts(self.set.name(), &self.set.hook().to_string(), &cards)
    }
}
