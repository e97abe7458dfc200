//! Models that lie on this machine: a directory in Hugging Face layout, or one GGUF file.
//!
//! Tells a complete model from a broken one without reading its weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::entries;
use crate::error::{Error, Result};
use crate::lfs;
use crate::model::ordered::Pairs;
use crate::model::{ModelFiles, ModelLayout, gguf};

/// Longest safetensors header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// The files of the model at a path that a user typed.
pub(super) fn open(path: &Path) -> Result<ModelFiles> {
    let absolute = std::path::absolute(path).map_err(Error::io("read", path))?;
    let id = absolute
        .to_str()
        .ok_or_else(|| Error::file(path, "has a name that is not UTF-8; rename it"))?
        .to_owned();
    if absolute.is_dir() {
        return Ok(ModelFiles {
            id,
            origin: "directory".to_owned(),
            layout: layout(&absolute)?,
        });
    }
    if has_extension(&absolute, "safetensors") {
        let problem =
            "holds weights alone: pass the directory with its config.json and tokenizer.json";
        return Err(Error::file(path, problem));
    }
    Ok(ModelFiles {
        id,
        origin: "file".to_owned(),
        layout: gguf_file(&absolute)?,
    })
}

/// The layout of a directory, in which every file exists and is complete; the tokenizer alone may
/// be missing ([`has_tokenizer`]).
pub(super) fn layout(dir: &Path) -> Result<ModelLayout> {
    refuse_dangling(dir)?;
    let config = dir.join("config.json");
    let weights = weights(dir)?;
    if weights.is_empty() || !config.is_file() {
        return single_gguf(dir, config.is_file(), !weights.is_empty());
    }
    let tokenizer = dir.join("tokenizer.json");
    check_json(&config)?;
    if tokenizer.is_file() {
        check_json(&tokenizer)?;
    }
    for shard in &weights {
        check_safetensors(shard)?;
    }
    Ok(ModelLayout::HuggingFace {
        config,
        tokenizer,
        weights,
    })
}

/// Whether the files of a layout say how text becomes ids. Those of a model that is run on ids
/// alone need not.
pub(super) fn has_tokenizer(layout: &ModelLayout) -> bool {
    match layout {
        ModelLayout::HuggingFace { tokenizer, .. } => tokenizer.is_file(),
        ModelLayout::Gguf(_) => true,
    }
}

/// Refuses a link whose target does not exist, as in a cache whose blobs were deleted or are on
/// another disk: it would be taken for a missing file.
fn refuse_dangling(dir: &Path) -> Result<()> {
    let paths = entries(dir);
    let other_gguf = paths
        .iter()
        .any(|path| has_extension(path, "gguf") && path.exists());
    // The targets of files that are not read do not matter.
    let read = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = [
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "added_tokens.json",
        ]
        .contains(&&*name)
            || [
                "special_tokens_map.json",
                "chat_template.jinja",
                "generation_config.json",
                "model.safetensors.index.json",
            ]
            .contains(&&*name);
        text || has_extension(path, "safetensors") && name.starts_with("model")
            || has_extension(path, "gguf") && !other_gguf
    };
    let dangling = |path: &PathBuf| read(path) && path.is_symlink() && !path.exists();
    match paths.into_iter().find(dangling) {
        Some(link) => Err(Error::file(
            link,
            "is a link to a file that is not there: fetch the model again",
        )),
        None => Ok(()),
    }
}

/// The safetensors files of a directory; none where it has none.
fn weights(dir: &Path) -> Result<Vec<PathBuf>> {
    let single = dir.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join("model.safetensors.index.json");
    if !index.is_file() {
        return Ok(Vec::new());
    }
    let shards = shards(&index)?;
    if let Some(missing) = shards.iter().find(|name| !dir.join(name).is_file()) {
        let problem = format!(
            "{missing} is missing ({} shards in model.safetensors.index.json)",
            shards.len()
        );
        return Err(Error::file(dir, problem));
    }
    Ok(shards.into_iter().map(|name| dir.join(name)).collect())
}

/// The shards that an index names, in its order (they are numbered).
pub(super) fn shards(index: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: Pairs<String>,
    }
    let bytes = std::fs::read(index).map_err(Error::io("read", index))?;
    lfs::refuse_pointer(&bytes, index)?;
    let parsed: Index = serde_json::from_slice(&bytes)
        .map_err(|e| Error::file(index, format!("is not an index of shards: {e}")))?;
    let Pairs(mut pairs) = parsed.weight_map;
    pairs.sort();
    if let Some([(tensor, a), (_, b)]) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
        let problem = format!(
            "names the tensor '{}' twice, in {a} and in {b}: fetch it again",
            tensor.escape_debug()
        );
        return Err(Error::file(index, problem));
    }
    let shards: BTreeSet<String> = pairs.into_iter().map(|(_, shard)| shard).collect();
    if let Some(bad) = shards
        .iter()
        .find(|name| name.contains(['/', '\\']) || name.starts_with('.'))
    {
        return Err(Error::file(
            index,
            format!(
                "names the shard '{}', which is no file name",
                bad.escape_debug()
            ),
        ));
    }
    if shards.is_empty() {
        return Err(Error::file(index, "names no shards"));
    }
    Ok(shards.into_iter().collect())
}

/// The one GGUF file of a directory that holds no complete Hugging Face model.
fn single_gguf(dir: &Path, has_config: bool, has_weights: bool) -> Result<ModelLayout> {
    let ggufs: Vec<PathBuf> = entries(dir)
        .into_iter()
        .filter(|p| has_extension(p, "gguf") && p.is_file())
        .collect();
    match ggufs.as_slice() {
        [one] => gguf_file(one),
        [] => {
            let problem = match (has_config, has_weights) {
                (true, _)
                    if entries(dir).iter().any(|p| {
                        has_extension(p, "bin") || has_extension(p, "pt") || has_extension(p, "pth")
                    }) =>
                {
                    "has weights in PyTorch's format only: convert them to safetensors (save_pretrained(…, \
                     safe_serialization=True))"
                }
                (true, _) => {
                    "has a config.json but no model.safetensors, no model.safetensors.index.json and no .gguf"
                }
                (false, true) => "has weights but no config.json",
                (false, false) => {
                    "holds no model: no config.json with model.safetensors (or its index and shards), and no .gguf file"
                }
            };
            Err(Error::file(dir, problem))
        }
        many => {
            let names: Vec<_> = many
                .iter()
                .filter_map(|p| p.file_name()?.to_str())
                .collect();
            Err(Error::file(
                dir,
                format!(
                    "holds {} GGUF files: pass one of them ({})",
                    many.len(),
                    names.join(", ")
                ),
            ))
        }
    }
}

/// The layout of a GGUF file that is as long as its header says.
pub(super) fn gguf_file(path: &Path) -> Result<ModelLayout> {
    let header = gguf::Header::read(path)?;
    if header.uint("split.count").is_some_and(|n| n > 1) {
        return Err(Error::file(
            path,
            "is one part of a split GGUF: join the parts with llama-gguf-split --merge",
        ));
    }
    if header.tensors.is_empty() {
        return Err(Error::file(
            path,
            "holds no tensors (a vocabulary or a template alone is no model)",
        ));
    }
    Ok(ModelLayout::Gguf(path.to_path_buf()))
}

/// The summed size of a layout's weights.
pub(super) fn weight_bytes(layout: &ModelLayout) -> u64 {
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
    match layout {
        ModelLayout::HuggingFace { weights, .. } => weights.iter().map(size).sum(),
        ModelLayout::Gguf(path) => size(path),
    }
}

/// Checks that a JSON file ends with `}`: one whose download stopped half-way does not.
fn check_json(path: &Path) -> Result<()> {
    lfs::refuse_pointer_at(path)?;
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let mut tail = Vec::new();
    let read = file
        .seek(SeekFrom::Start(length.saturating_sub(256)))
        .and_then(|_| file.read_to_end(&mut tail));
    read.map_err(Error::io("read", path))?;
    if tail.trim_ascii_end().last() == Some(&b'}') {
        return Ok(());
    }
    Err(Error::file(path, "is empty or truncated; fetch it again"))
}

/// Checks that a safetensors file is as long as its header says.
fn check_safetensors(path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Entry {
        data_offsets: Option<(u64, u64)>,
    }
    lfs::refuse_pointer_at(path)?;
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    let mut prefix = [0; 8];
    if length < 8 {
        return Err(Error::file(path, "is empty or truncated; fetch it again"));
    }
    file.read_exact(&mut prefix)
        .map_err(Error::io("read", path))?;
    let header = u64::from_le_bytes(prefix);
    if header > MAX_HEADER {
        return Err(Error::file(
            path,
            "is not a safetensors file (its header would be too long)",
        ));
    }
    if header > length - 8 {
        return Err(Error::file(
            path,
            "is truncated within its header; fetch it again",
        ));
    }
    let mut json = vec![0; header as usize];
    file.read_exact(&mut json)
        .map_err(Error::io("read", path))?;
    let entries: BTreeMap<String, Entry> = serde_json::from_slice(&json).map_err(|e| {
        Error::file(
            path,
            format!("is not a safetensors file (its header is no JSON: {e})"),
        )
    })?;
    let data = entries
        .values()
        .filter_map(|e| e.data_offsets)
        .map(|(_, end)| end)
        .max()
        .unwrap_or(0);
    let needed = data.saturating_add(8 + header);
    if length < needed {
        let problem = format!("is truncated: {length} of {needed} bytes; fetch it again");
        return Err(Error::file(path, problem));
    }
    Ok(())
}

/// Whether a file name ends in `.extension`, whatever its case.
pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case(extension))
}
