//! Reading: the header once, then any tensor of it as f32.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::interop::floats::{FloatType, read_matrix as read_floats};
use crate::interop::matrix::Matrix;

/// Longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// Opens the one two-dimensional tensor of a file (or the one named `name`), to be read by blocks of
/// rows.
///
/// # Errors
/// A file that is not safetensors or is truncated; no such tensor, or several; a type that cannot be
/// read.
pub fn open_matrix(path: &Path, name: Option<&str>) -> Result<Matrix<File>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let length = file.metadata().map_err(Error::io("read", path))?.len();
    matrix(file, length, path, name)
}

/// A tensor as the header describes it.
#[derive(Debug, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header of a file, and how much data follows it.
#[derive(Debug)]
pub(in crate::interop) struct Header {
    entries: BTreeMap<String, Entry>,
    /// `__metadata__`: strings by name.
    pub(in crate::interop) metadata: BTreeMap<String, String>,
    /// The offset of the data in the file.
    start: u64,
    /// How many bytes of data follow the header.
    data: u64,
}

impl Header {
    /// Reads the header of a file of `length` bytes.
    pub(in crate::interop) fn read(
        input: &mut impl Read,
        length: u64,
        path: &Path,
    ) -> Result<Self> {
        let bad = |problem: String| Error::file(path, problem);
        let mut prefix = [0; 8];
        if length < 8 || input.read_exact(&mut prefix).is_err() {
            return Err(bad("is not a safetensors file (it is too short)".to_owned()));
        }
        let size = u64::from_le_bytes(prefix);
        if size > MAX_HEADER || size > length - 8 {
            return Err(bad(format!(
                "is not a whole safetensors file (its header would take {size} bytes)"
            )));
        }
        let mut json = vec![0; size as usize];
        input
            .read_exact(&mut json)
            .map_err(Error::io("read", path))?;
        let mut header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&json)
            .map_err(|e| bad(format!("is not a safetensors file (its header: {e})")))?;
        let metadata = header
            .remove("__metadata__")
            .and_then(|m| serde_json::from_value(m).ok())
            .unwrap_or_default();
        let entries = header.into_iter().map(|(name, value)| {
            let entry: Entry =
                serde_json::from_value(value).map_err(|e| bad(format!("tensor '{name}': {e}")))?;
            Ok((name, entry))
        });
        Ok(Self {
            entries: entries.collect::<Result<_>>()?,
            metadata,
            start: 8 + size,
            data: length - 8 - size,
        })
    }

    /// The names of all tensors, sorted.
    pub(in crate::interop) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor that is there.
    pub(in crate::interop) fn shape(&self, name: &str) -> Option<&[u64]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// The values of a tensor that is there, row-major.
    pub(in crate::interop) fn values(
        &self,
        input: &mut (impl Read + Seek),
        path: &Path,
        name: &str,
    ) -> Result<Vec<f32>> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| Error::file(path, format!("has no tensor '{name}'")))?;
        let cols = entry.shape.last().copied().unwrap_or(1);
        let rows = entry
            .shape
            .iter()
            .rev()
            .skip(1)
            .try_fold(1u64, |n, &s| n.checked_mul(s))
            .unwrap_or(u64::MAX);
        let (float_type, shape, start) = self.locate(path, (name, entry), (rows, cols))?;
        input
            .seek(SeekFrom::Start(start))
            .map_err(Error::io("read", path))?;
        read_floats(input, path, float_type, shape, false)
    }

    /// The type, the (rows, columns) and the offset of a tensor's numbers, after a check that the file
    /// holds them.
    fn locate(
        &self,
        path: &Path,
        (name, entry): (&str, &Entry),
        (rows, cols): (u64, u64),
    ) -> Result<(FloatType, (usize, usize), u64)> {
        let bad = |problem: String| Error::file(path, problem);
        let float_type = entry.float_type(name).map_err(bad)?;
        let (start, end) = entry.data_offsets;
        if end.checked_sub(start).is_none()
            || float_type.matrix_bytes(rows, cols) != end.checked_sub(start)
        {
            let dtype = &entry.dtype;
            return Err(bad(format!(
                "tensor '{name}' has {rows} × {cols} values of {dtype} in bytes {start} to {end}"
            )));
        }
        if end > self.data {
            return Err(bad(format!(
                "is truncated: tensor '{name}' ends at byte {end} of {} of data",
                self.data
            )));
        }
        let (Ok(row_count), Ok(col_count)) = (usize::try_from(rows), usize::try_from(cols)) else {
            return Err(bad(format!(
                "tensor '{name}' of {rows} × {cols} does not fit into memory"
            )));
        };
        Ok((float_type, (row_count, col_count), self.start + start))
    }
}

impl Entry {
    fn float_type(&self, name: &str) -> Result<FloatType, String> {
        match self.dtype.as_str() {
            "F16" => Ok(FloatType::F16),
            "BF16" => Ok(FloatType::Bf16),
            "F32" => Ok(FloatType::F32),
            "F64" => Ok(FloatType::F64),
            other => Err(format!(
                "tensor '{name}' holds {other}; F16, BF16, F32 and F64 can be read"
            )),
        }
    }
}

pub(super) fn matrix<R: Read + Seek>(
    mut input: R,
    length: u64,
    path: &Path,
    name: Option<&str>,
) -> Result<Matrix<R>> {
    let bad = |problem: String| Error::file(path, problem);
    // The header is read in small pieces, the numbers in large ones.
    let header = Header::read(&mut BufReader::new(&mut input), length, path)?;
    let (name, entry) = choose(&header.entries, name).map_err(bad)?;
    entry.float_type(name).map_err(bad)?;
    let &[rows, cols] = entry.shape.as_slice() else {
        return Err(bad(format!(
            "tensor '{name}' has the shape {:?}; a matrix (rows × columns) is needed",
            entry.shape
        )));
    };
    let (float_type, shape, start) = header.locate(path, (name, entry), (rows, cols))?;
    Ok(Matrix {
        input,
        path: path.to_path_buf(),
        float_type,
        shape,
        start,
        by_column: false,
    })
}

/// The tensor that was asked for, or the only matrix.
fn choose<'a>(
    entries: &'a BTreeMap<String, Entry>,
    name: Option<&str>,
) -> Result<(&'a str, &'a Entry), String> {
    let listed = |wanted: &dyn Fn(&Entry) -> bool| {
        let all = entries
            .iter()
            .filter(|(_, e)| wanted(e))
            .map(|(n, e)| format!("'{n}' {:?}", e.shape));
        let all: Vec<String> = all.collect();
        let more = all.len().saturating_sub(12);
        let shown = all[..all.len() - more].join(", ");
        if more == 0 {
            shown
        } else {
            format!("{shown} and {more} more")
        }
    };
    if let Some(name) = name {
        let found = entries
            .get_key_value(name)
            .map(|(name, entry)| (name.as_str(), entry));
        return found
            .ok_or_else(|| format!("has no tensor '{name}'; it has {}", listed(&|_| true)));
    }
    let mut matrices = entries.iter().filter(|(_, e)| e.shape.len() == 2);
    match (matrices.next(), matrices.next()) {
        (Some((name, entry)), None) => Ok((name, entry)),
        (None, _) if entries.is_empty() => Err("holds no tensors".to_owned()),
        (None, _) => Err(format!("holds no matrix; it has {}", listed(&|_| true))),
        _ => Err(format!(
            "holds several matrices: say which one ({})",
            listed(&|e| e.shape.len() == 2)
        )),
    }
}
