//! Published sparse autoencoders, one file a format, all brought to SAELens's conventions.
//!
//! | format | recognised by |
//! | --- | --- |
//! | SAELens, both generations of its configuration | `cfg.json` with `sae_weights.safetensors` |
//! | sparsify | `cfg.json` with `sae.safetensors` |
//! | Gemma Scope | `params.npz` |
//! | Llama Scope | `hyperparams.json` with `checkpoints/final.safetensors` |
//! | Gemma Scope 2 | `params.safetensors`, with `config.json` |
//! | dictionary_learning | `ae.pt` with `config.json` |
//! | OpenAI's GPT-2, Qwen-Scope, Goodfire | one file, `.pt` or `.safetensors`, by the names of its tensors |
//!
//! Invariant: an autoencoder that is returned has the shapes that it claims and finite values; what
//! cannot be brought to the conventions is refused, never approximated.

mod dictionary_learning;
mod gemma_scope;
mod llama_scope;
mod one_file;
mod openai;
pub mod saelens;
mod sparsify;

use std::path::Path;

use serde_json::Value;

use super::archive::Archive;
use crate::directions::sae::{Gate, Normalise, Sae};
use crate::error::{Error, Result};

pub use saelens::write;

/// The greatest product of latents and width that is accepted from a file's header.
const MAX_WEIGHTS: usize = 1 << 34;
/// The longest configuration that is read, in bytes.
const MAX_JSON: u64 = 16 << 20;
/// Every file that one of the formats reads, relative to its directory.
pub const FILES: [&str; 10] = [
    "config.json",
    "params.safetensors",
    dictionary_learning::WEIGHTS,
    "cfg.json",
    "sae_weights.safetensors",
    "sae.safetensors",
    "params.npz",
    "hyperparams.json",
    "checkpoints/final.safetensors",
    "autoencoder.safetensors",
];

/// An autoencoder as it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The autoencoder in SAELens's conventions.
    pub sae: Sae,
    /// The format's name, to show.
    pub format: &'static str,
    /// The model that the files name.
    pub model: Option<String>,
    /// The hook that the files (or, failing that, their path) name, in TransformerLens's words.
    pub hook: Option<String>,
    /// Remarks for the user, a line each.
    pub notes: Vec<String>,
}

/// Reads the autoencoder in a directory, or in a file of one. `name` is where it came from, which
/// may say what the files do not: Gemma Scope's repository and folder name the site and the layer.
///
/// # Errors
/// No autoencoder at `path`, or one whose format, shapes or values cannot be brought to the
/// conventions.
pub fn open(path: &Path, name: &str) -> Result<Published> {
    let dir = if path.is_dir() {
        path
    } else {
        crate::disk::parent(path)
    };
    let has = |file: &str| dir.join(file).is_file();
    let named = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    if path.is_file()
        && !FILES
            .iter()
            .any(|f| f.rsplit('/').next() == Some(named.as_str()))
    {
        return one_file::read(path, name);
    }
    if has("params.npz") {
        gemma_scope::read(&dir.join("params.npz"), name)
    } else if has("params.safetensors") {
        gemma_scope::read_second(dir, name)
    } else if has(dictionary_learning::WEIGHTS) {
        dictionary_learning::read(dir)
    } else if has("hyperparams.json") {
        llama_scope::read(dir)
    } else if has("cfg.json") && has("sae.safetensors") {
        sparsify::read(dir, name)
    } else if has("cfg.json") {
        saelens::read(dir)
    } else if has("autoencoder.safetensors") {
        one_file::read(&dir.join("autoencoder.safetensors"), name)
    } else if !path.exists() {
        Err(Error::usage(format!("there is no {}", path.display())))
    } else {
        Err(Error::usage(format!(
            "{} holds no sparse autoencoder that can be read: cfg.json with sae_weights.safetensors (SAELens) or \
             sae.safetensors (sparsify), params.npz (Gemma Scope), params.safetensors (Gemma Scope 2), ae.pt with config.json (dictionary_learning), or \
             hyperparams.json with checkpoints/final.safetensors (Llama Scope) is due",
            dir.display()
        )))
    }
}

/// The JSON object in a configuration file.
fn read_json(path: &Path) -> Result<Value> {
    let length = std::fs::metadata(path)
        .map_err(Error::io("read", path))?
        .len();
    if length > MAX_JSON {
        return Err(Error::file(path, "is too long for a configuration"));
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::file(path, format!("is not JSON: {e}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Error::file(path, "is not a JSON object"))
    }
}

/// A whole number of a configuration, at least 1.
fn count(config: &Value, key: &str, path: &Path) -> Result<usize> {
    let value = &config[key];
    let whole = value.as_u64().or_else(|| {
        value
            .as_f64()
            .filter(|v| v.fract() == 0.0 && *v > 0.0)
            .map(|v| v as u64)
    });
    whole
        .filter(|&v| v > 0)
        .and_then(|v| usize::try_from(v).ok())
        .ok_or_else(|| {
            Error::file(
                path,
                format!(
                    "has no whole number above 0 as '{key}' (it has {})",
                    short(value)
                ),
            )
        })
}

/// A finite number of a configuration.
fn number(config: &Value, key: &str, path: &Path) -> Result<f32> {
    let value = config[key]
        .as_f64()
        .map(|v| v as f32)
        .filter(|v| v.is_finite());
    value.ok_or_else(|| {
        Error::file(
            path,
            format!("has no number as '{key}' (it has {})", short(&config[key])),
        )
    })
}

/// A value shortened for one line of a message.
fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// The extents of a matrix, after a check that they are not zero and not too large.
fn shape(archive: &mut Archive, name: &str) -> Result<(usize, usize)> {
    let found = archive.shape(name)?;
    let sizes: Option<Vec<usize>> = found
        .iter()
        .map(|&s| usize::try_from(s).ok().filter(|&s| s > 0))
        .collect();
    match sizes.as_deref() {
        Some(&[rows, cols]) if rows.checked_mul(cols).is_some_and(|n| n <= MAX_WEIGHTS) => {
            Ok((rows, cols))
        }
        _ => Err(Error::file(
            archive.path(),
            format!("tensor '{name}' is {found:?} where a matrix is due"),
        )),
    }
}

/// Refuses a `scaling_factor` other than 1, be it one number for all latents or one each.
fn check_scaling(archive: &mut Archive, latents: usize) -> Result<()> {
    const NAME: &str = "scaling_factor";
    if !archive.has(NAME) {
        return Ok(());
    }
    let shape: &[usize] = match archive.shape(NAME)?[..] {
        [] => &[],
        [1] => &[1],
        _ => &[latents],
    };
    match archive
        .read(NAME, shape)?
        .iter()
        .all(|&s| (s - 1.0).abs() <= 1e-5)
    {
        true => Ok(()),
        false => Err(Error::file(
            archive.path(),
            "has a scaling_factor that is not 1, which cannot be read",
        )),
    }
}

/// The transpose of row-major `[rows, cols]`.
fn transpose(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    for r in (0..rows).step_by(TILE) {
        for c in (0..cols).step_by(TILE) {
            for i in r..(r + TILE).min(rows) {
                for j in c..(c + TILE).min(cols) {
                    out[j * rows + i] = values[i * cols + j];
                }
            }
        }
    }
    out
}

/// The layer in a name such as `layer_12/width_16k`, `layers.5.mlp`, `h.3`.
fn layer_in(name: &str, before: &[&str]) -> Option<usize> {
    before.iter().find_map(|word| {
        name.match_indices(word).find_map(|(at, _)| {
            let digits: String = name[at + word.len()..]
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            let starts = at == 0 || !name.as_bytes()[at - 1].is_ascii_alphanumeric();
            digits.parse().ok().filter(|_| starts)
        })
    })
}

#[cfg(test)]
mod tests;
