//! In which dtype a study stores its activations, and how the user is told.
//!
//! Invariant: unless the user asks for another dtype, nothing is lost between the model and the
//! study.

use crate::activations::store::CacheDtype;
use crate::model::ModelInfo;

/// The dtype that holds a model's activations exactly, in as few bytes as that takes: what it
/// computes in.
pub fn exact_dtype(model: &ModelInfo) -> CacheDtype {
    of_compute(&model.compute_dtype)
}

/// The same by the name of what is computed in.
pub(crate) fn of_compute(dtype: &str) -> CacheDtype {
    match dtype {
        "bf16" => CacheDtype::Bf16,
        "f16" => CacheDtype::F16,
        _ => CacheDtype::F32,
    }
}

/// How activations of `model` are stored, and why so, as a part of a sentence: "stored in bf16 as
/// computed".
pub fn stored_words(stored: CacheDtype, model: &ModelInfo) -> String {
    let (name, computed) = (stored.name(), &model.compute_dtype);
    match stored {
        _ if stored == exact_dtype(model) => format!("stored in {name} as computed"),
        CacheDtype::F32 => format!("stored in {name}, computed in {computed}"),
        _ => format!("stored in {name}, rounded from {computed}"),
    }
}

/// What is said before a new study is collected in half precision because the model computes so;
/// `None` where it is stored in f32.
pub fn stored_remark(model: &ModelInfo) -> Option<String> {
    let dtype = exact_dtype(model);
    (dtype != CacheDtype::F32).then(|| {
        format!(
            "activations are stored in {0}, which the model computes in: exact, in half the bytes of f32 (--dtype f32 \
             computes and stores in f32)",
            dtype.name()
        )
    })
}
