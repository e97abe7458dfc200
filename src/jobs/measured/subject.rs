//! What decides every number that is asked of a model: its weights and how they are read, how texts
//! begin, what is computed in, and how it is measured.

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::model::{Model, ModelInfo};
use crate::study::Study;

/// Of the way in which gradients and effects are measured and kept; another number measures anew.
const VERSION: u32 = 2;
/// What may be computed in.
const DTYPES: [&str; 3] = ["f32", "bf16", "f16"];

/// What is measured of, and the sizes of a measurement.
pub(super) struct Subject {
    pub about: Value,
    pub d_model: usize,
    pub vocab: usize,
}

/// A study's model in one dtype: its weights, the switches of its configuration, its tokenizer.
pub fn identity(model: &ModelInfo, dtype: &str) -> Value {
    // Studies of versions that recorded no identity have the tokenizer's file.
    let read = model.identity.as_ref().map_or_else(
        || json!({"tokenizer": model.tokenizer_sha256}),
        |identity| json!(identity),
    );
    json!({"weights": model.weights_sha256, "read": read, "dtype": dtype})
}

/// What decides the numbers of a study's model as it is open: for plans that are kept.
pub fn computed(study: &Study, model: &Model) -> Value {
    let own = study.manifest().model.as_ref();
    let dtype = &model.info().compute_dtype;
    identity(own.unwrap_or(model.info()), dtype)
}

/// What the model measures; without one, what may have been measured, as the study was collected
/// first.
///
/// # Errors
/// [`Error::Usage`] for a study without a model.
pub(super) fn subjects(study: &Study, model: Option<&Model>) -> Result<Vec<Subject>> {
    let manifest = study.manifest();
    let own = manifest.model.as_ref().ok_or_else(|| {
        Error::usage(
            "an imported matrix has no model that could be asked: collect a study with one",
        )
    })?;
    let mut dtypes = match model {
        Some(model) => vec![model.info().compute_dtype.as_str()],
        None => vec![own.compute_dtype.as_str()],
    };
    if model.is_none() {
        dtypes.extend(DTYPES.iter().filter(|d| **d != own.compute_dtype));
    }
    let subject = |dtype: &str| Subject {
        about: json!({"version": VERSION, "of": identity(own, dtype), "bos": manifest.bos}),
        d_model: own.d_model,
        vocab: own.vocab,
    };
    Ok(dtypes.into_iter().map(subject).collect())
}
