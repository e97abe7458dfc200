//! A checkpoint in Hugging Face layout with some tensors changed: everything else is copied as it
//! stands, so that whatever runs the model runs the copy.
//!
//! Invariant: the configuration, without which a directory is no model, is written last.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::disk::{self, NewFile};
use crate::error::{Error, Result};

/// Longest header that the format of safetensors allows.
const MAX_HEADER: u64 = 100_000_000;
/// The endings of the small files that belong to a model: configuration, tokenizer, template.
const SMALL_FILES: [&str; 4] = ["json", "txt", "model", "jinja"];
const INDEX: &str = "model.safetensors.index.json";

/// A tensor that a checkpoint gets beside its own.
#[derive(Debug, Clone, PartialEq)]
pub struct AddedTensor {
    /// Its name.
    pub name: String,
    /// The name of its type in safetensors: `BF16`.
    pub dtype: &'static str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its bytes, little-endian.
    pub bytes: Vec<u8>,
}

/// What differs from a checkpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits {
    /// New bytes of tensors, by shard and name.
    pub changed: BTreeMap<PathBuf, BTreeMap<String, Vec<u8>>>,
    /// Tensors that the last shard gets.
    pub added: Vec<AddedTensor>,
    /// Members of `config.json` that are replaced.
    pub config: BTreeMap<String, Value>,
}

/// Writes the checkpoint of `config` and `shards` with `edits` into `dir`, which exists.
///
/// # Errors
/// [`Error::Usage`] for the directory of the checkpoint itself, and for one that holds files of which
/// this checkpoint has none; a shard that is not whole, a tensor that it does not have or of another length; a file that
/// cannot be read or written.
pub fn write(config: &Path, shards: &[PathBuf], edits: &Edits, dir: &Path) -> Result<()> {
    let new_config = edited_config(config, edits)?;
    let from = disk::parent(config);
    check_target(from, shards, dir)?;
    let is_config = Path::new("config.json");
    let target = dir.join(is_config);
    if target.exists() {
        fs::remove_file(&target).map_err(Error::io("replace", &target))?;
    }
    for (i, shard) in shards.iter().enumerate() {
        let none = BTreeMap::new();
        let changed = edits.changed.get(shard).unwrap_or(&none);
        let added: &[AddedTensor] = if i + 1 == shards.len() {
            &edits.added
        } else {
            &[]
        };
        let name = shard.file_name().unwrap_or_default();
        write_shard(shard, &dir.join(name), changed, added)?;
    }
    for entry in fs::read_dir(from).map_err(Error::io("read", from))? {
        let path = entry.map_err(Error::io("read", from))?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        let is_small = path
            .extension()
            .is_some_and(|e| SMALL_FILES.iter().any(|small| e == *small));
        if !is_small || !path.is_file() || name == "config.json" {
            continue;
        }
        let mut bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        if name == INDEX
            && !edits.added.is_empty()
            && let Some(last) = shards.last()
        {
            bytes = index(&path, &bytes, &edits.added, last)?;
        }
        disk::write_atomic(&dir.join(name), &bytes)?;
    }
    disk::write_atomic(&target, &new_config)
}

/// Refuses to write over the checkpoint that is read, or among files of another: a loader would take
/// weights of both.
fn check_target(from: &Path, shards: &[PathBuf], dir: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().map_err(Error::io("read", path));
    let target = real(dir)?;
    for source in shards.iter().map(|shard| disk::parent(shard)).chain([from]) {
        if real(source)? == target {
            return Err(Error::usage(format!(
                "{} is the model that is read: name another directory",
                dir.display()
            )));
        }
    }
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let name = entry.map_err(Error::io("read", dir))?.file_name();
        let is_shard = shards.iter().any(|shard| shard.file_name() == Some(&name));
        if !is_shard && !from.join(&name).exists() {
            return Err(Error::usage(format!(
                "{} holds {}, which this model does not have: name an empty directory",
                dir.display(),
                name.display()
            )));
        }
    }
    Ok(())
}

fn edited_config(path: &Path, edits: &Edits) -> Result<Vec<u8>> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    if edits.config.is_empty() {
        return Ok(bytes);
    }
    let mut value: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::file(path, format!("is not JSON: {e}")))?;
    let members = value
        .as_object_mut()
        .ok_or_else(|| Error::file(path, "is not a JSON object"))?;
    members.extend(edits.config.clone());
    Ok(format!("{value:#}\n").into_bytes())
}

/// The index of shards with the added tensors in the last of them.
fn index(path: &Path, bytes: &[u8], added: &[AddedTensor], last: &Path) -> Result<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(bytes)
        .map_err(|e| Error::file(path, format!("is not JSON: {e}")))?;
    let map = value["weight_map"]
        .as_object_mut()
        .ok_or_else(|| Error::file(path, "has no weight_map"))?;
    let shard = last.file_name().unwrap_or_default().to_string_lossy();
    map.extend(
        added
            .iter()
            .map(|tensor| (tensor.name.clone(), json!(shard))),
    );
    Ok(format!("{value:#}\n").into_bytes())
}

/// Copies a shard with tensors changed in place and others behind its own.
fn write_shard(
    from: &Path,
    to: &Path,
    changed: &BTreeMap<String, Vec<u8>>,
    added: &[AddedTensor],
) -> Result<()> {
    let bad = |problem: String| Error::file(from, problem);
    let file = File::open(from).map_err(Error::io("open", from))?;
    let length = file.metadata().map_err(Error::io("read", from))?.len();
    let mut input = BufReader::new(file);
    let mut size = [0; 8];
    input
        .read_exact(&mut size)
        .map_err(Error::io("read", from))?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER || size > length.saturating_sub(8) {
        return Err(bad("is not a whole safetensors file".to_owned()));
    }
    let mut header = vec![0; size as usize];
    input
        .read_exact(&mut header)
        .map_err(Error::io("read", from))?;
    let mut header: serde_json::Map<String, Value> = serde_json::from_slice(&header)
        .map_err(|e| bad(format!("is not a safetensors file (its header: {e})")))?;
    let mut end = length - 8 - size;
    let mut places = Vec::new();
    for (name, bytes) in changed {
        let offsets = &header
            .get(name)
            .ok_or_else(|| bad(format!("has no tensor '{name}'")))?["data_offsets"];
        let (start, stop) = (offsets[0].as_u64(), offsets[1].as_u64());
        match (start, stop) {
            (Some(start), Some(stop))
                if stop <= end && stop.checked_sub(start) == Some(bytes.len() as u64) =>
            {
                places.push((start, bytes));
            }
            _ => {
                return Err(bad(format!(
                    "tensor '{name}' is in {offsets}, where {} bytes are due",
                    bytes.len()
                )));
            }
        }
    }
    for tensor in added {
        let stop = end + tensor.bytes.len() as u64;
        let entry =
            json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [end, stop]});
        if header.insert(tensor.name.clone(), entry).is_some() {
            return Err(bad(format!("has a tensor '{}' already", tensor.name)));
        }
        end = stop;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = BufWriter::new(NewFile::create(to)?);
    let written = (|| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        std::io::copy(&mut input, &mut out)?;
        added
            .iter()
            .try_for_each(|tensor| out.write_all(&tensor.bytes))?;
        for (start, bytes) in places {
            out.seek(SeekFrom::Start(8 + header.len() as u64 + start))?;
            out.write_all(bytes)?;
        }
        out.flush()
    })();
    written.map_err(Error::io("write", to))?;
    out.into_parts().0.commit()
}
