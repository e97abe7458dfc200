//! The files of saved factors: Z as sparse columns in a safetensors file (`offsets`, `indices`,
//! `values`; `rows` in the metadata; `centre` of a centred fit, `neuron_weights` of one that scales
//! neurons), Y as raw f32 by feature. Each is known by name, length and checksum.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::{self, NewFile};
use crate::error::{Error, Result};
use crate::factor::{CENTRE, Coding, NEURON_WEIGHTS, SparseColumns};

/// The record of a file in `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredFile {
    pub file: String,
    pub bytes: u64,
    pub xxh3: String,
}

impl StoredFile {
    /// The path of the file, after a check of its length.
    ///
    /// # Errors
    /// [`Error::File`] for a file of another length, or a name that leads out of `dir`.
    pub fn check_length(&self, dir: &Path) -> Result<PathBuf> {
        // The name comes from a file that may be hostile, so it must not lead out of the directory.
        // No file system has names above 255 bytes.
        let length_valid = self.file.len() <= 255;
        let is_plain_name = length_valid
            && Path::new(&self.file)
                .file_name()
                .is_some_and(|n| n == self.file.as_str());
        let path = dir.join(&self.file);
        if !is_plain_name {
            return Err(Error::file(path, "is no plain file name; fit again"));
        }
        let found = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        if found != self.bytes {
            return Err(Error::file(
                path,
                format!(
                    "truncated or foreign: {found} bytes, not {}; fit again",
                    self.bytes
                ),
            ));
        }
        Ok(path)
    }

    /// Compares a checksum of the file's bytes with the recorded one.
    ///
    /// # Errors
    /// [`Error::File`] where they differ.
    pub fn check(&self, path: &Path, xxh3: u64) -> Result<()> {
        if format!("{xxh3:016x}") != self.xxh3 {
            return Err(Error::file(
                path,
                "damaged (checksum); restore it from a copy or fit again",
            ));
        }
        Ok(())
    }

    /// Reads the file and checks its length and checksum.
    ///
    /// # Errors
    /// What [`Self::check_length`] and [`Self::check`] return.
    pub fn read_checked(&self, dir: &Path) -> Result<Vec<u8>> {
        let path = self.check_length(dir)?;
        let bytes = crate::disk::read_regular(&path).map_err(Error::io("read", &path))?;
        self.check(&path, xxh3_64(&bytes))?;
        Ok(bytes)
    }
}

/// Writes the file `name` into `dir` and returns its record.
pub(super) fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<StoredFile> {
    let mut file = NewFile::create(&dir.join(name))?;
    // The bytes are written in pieces, so that a full disk is noticed early.
    bytes
        .chunks(8 << 20)
        .try_for_each(|chunk| file.write(chunk))?;
    file.commit()?;
    Ok(StoredFile {
        file: name.to_owned(),
        bytes: bytes.len() as u64,
        xxh3: format!("{:016x}", xxh3_64(bytes)),
    })
}

/// Removes the files of saved factors whose names are not in `keep`, and unfinished files.
pub(super) fn remove_others(dir: &Path, keep: &[String]) -> Result<()> {
    disk::remove_unfinished(dir)?;
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = (name.starts_with("Z-") && name.ends_with(".safetensors"))
            || (name.starts_with("Y-") && name.ends_with(".f32"));
        if ours && !keep.contains(&name) {
            fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// Encodes the features and the coding (without its row cap) as a safetensors file.
pub(super) fn encode_features(z: &SparseColumns, coding: &Coding) -> Result<Vec<u8>> {
    let offsets: Vec<u64> = z.offsets.iter().map(|&o| o as u64).collect();
    let view = |dtype, len, bytes| TensorView::new(dtype, vec![len], bytes).map_err(unwritable);
    let mut tensors = vec![
        (
            "offsets",
            view(Dtype::U64, offsets.len(), bytemuck::cast_slice(&offsets))?,
        ),
        (
            "indices",
            view(
                Dtype::U32,
                z.indices.len(),
                bytemuck::cast_slice(&z.indices),
            )?,
        ),
        (
            "values",
            view(Dtype::F32, z.values.len(), bytemuck::cast_slice(&z.values))?,
        ),
    ];
    for (name, values) in coding.neuron_vectors() {
        tensors.push((
            name,
            view(Dtype::F32, values.len(), bytemuck::cast_slice(values))?,
        ));
    }
    let metadata = HashMap::from([
        (
            "format".to_owned(),
            "sparse columns of Z: column j holds offsets[j]..offsets[j+1]".to_owned(),
        ),
        ("rows".to_owned(), z.rows.to_string()),
    ]);
    safetensors::serialize(tensors, Some(metadata)).map_err(unwritable)
}

fn unwritable(e: safetensors::SafeTensorError) -> Error {
    Error::usage(format!("the features cannot be written: {e}"))
}

/// Decodes the features and the coding (without its row cap) from a file's bytes; the error says
/// what is wrong with them.
pub(super) fn decode_features(bytes: &[u8]) -> Result<(SparseColumns, Coding), String> {
    let foreign = |what: &str| format!("not the features of a fit ({what}); fit again");
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| foreign(&e.to_string()))?;
    let rows = metadata
        .metadata()
        .as_ref()
        .and_then(|m| m.get("rows"))
        .and_then(|r| r.parse::<usize>().ok());
    let rows = rows.ok_or_else(|| foreign("no rows"))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| foreign(&e.to_string()))?;
    let tensor = |name: &str, dtype: Dtype| {
        let found = file
            .tensor(name)
            .ok()
            .filter(|t| t.dtype() == dtype && t.shape().len() == 1);
        found.map(|t| t.data()).ok_or_else(|| foreign(name))
    };
    let offsets: Vec<usize> = numbers::<8>(tensor("offsets", Dtype::U64)?)
        .map(|b| u64::from_le_bytes(b) as usize)
        .collect();
    let indices: Vec<u32> = numbers::<4>(tensor("indices", Dtype::U32)?)
        .map(u32::from_le_bytes)
        .collect();
    let values: Vec<f32> = numbers::<4>(tensor("values", Dtype::F32)?)
        .map(f32::from_le_bytes)
        .collect();
    let offsets_valid = offsets.first() == Some(&0)
        && offsets.last() == Some(&indices.len())
        && indices.len() == values.len()
        && offsets.is_sorted();
    if !offsets_valid {
        return Err(foreign("offsets"));
    }
    let column_valid = |span: &[usize]| {
        let column = &indices[span[0]..span[1]];
        column.is_sorted_by(|a, b| a < b)
            && column.last().is_none_or(|&last| (last as usize) < rows)
    };
    if !offsets.windows(2).all(column_valid) || values.iter().any(|v| !v.is_finite()) {
        return Err(foreign("indices or values"));
    }
    let neuron_vector = |name: &str| -> Result<Option<Arc<Vec<f32>>>, String> {
        if file.tensor(name).is_err() {
            return Ok(None);
        }
        let values: Vec<f32> = numbers::<4>(tensor(name, Dtype::F32)?)
            .map(f32::from_le_bytes)
            .collect();
        let valid = values.len() == rows && values.iter().all(|v| v.is_finite());
        if valid {
            Ok(Some(Arc::new(values)))
        } else {
            Err(foreign(name))
        }
    };
    let coding = Coding {
        centre: neuron_vector(CENTRE)?,
        neuron_weights: neuron_vector(NEURON_WEIGHTS)?,
        row_cap: None,
    };
    if coding
        .neuron_weights
        .as_ref()
        .is_some_and(|weights| weights.iter().any(|w| *w < 0.0))
    {
        return Err(foreign(NEURON_WEIGHTS));
    }
    Ok((
        SparseColumns {
            rows,
            offsets,
            indices,
            values,
        },
        coding,
    ))
}

fn numbers<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes
        .chunks_exact(N)
        .filter_map(|chunk| chunk.try_into().ok())
}
