//! Where a model comes from: a Hub id, a directory in Hugging Face layout, a GGUF file, or the default model.

pub mod gguf;

use serde::{Deserialize, Serialize};

use super::ModelFiles;
use crate::error::Result;
use crate::task::TaskCtx;

/// The default model's Hub id.
pub const DEFAULT_MODEL: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// Finds (and downloads where needed) the files of `spec`: `None` is the default model, else `owner/name[@revision]`, a
/// directory, or a `.gguf` file.
pub fn resolve(spec: Option<&str>, ctx: &TaskCtx) -> Result<ModelFiles> {
    let _ = (spec, ctx);
    unimplemented!()
}

/// A model that could be opened now, without a download.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// What to pass to [`resolve`].
    pub id: String,
    /// "Hub cache", "mlpeek cache".
    pub place: String,
    /// Bytes of the weights.
    pub bytes: u64,
    /// Family as far as its configuration says, with layers and widths when known ("llama, 30 layers, d_mlp 1536").
    pub summary: String,
    /// Why it cannot be opened, when it cannot.
    pub problem: Option<String>,
}

/// The models on this machine.
pub fn list_local() -> Vec<ModelEntry> {
    unimplemented!()
}
