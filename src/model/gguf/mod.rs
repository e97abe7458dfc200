//! The header of a GGUF file: metadata and the table of tensors, read without trusting a single
//! length in it.
//!
//! Knows nothing of what the keys mean. Invariant: memory taken is at most a small multiple of the
//! bytes that the file really has, whatever its lengths claim; every error names the file.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 1 to 3,
//! little-endian.

mod reader;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use reader::Reader;

use crate::error::{Error, Result};
use crate::lfs;

const MAGIC: [u8; 4] = *b"GGUF";

/// A metadata value. Numbers are widened; arrays of numbers keep one vector for all.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer type (a u64 above `i64::MAX` wraps; no key of ours comes near).
    Int(i64),
    /// An f32 or an f64.
    Float(f64),
    /// A boolean of one byte; any but 0 is true.
    Bool(bool),
    /// Bytes that ought to be UTF-8.
    String(String),
    /// An array of strings.
    Strings(Vec<String>),
    /// An array of integers or flags.
    Ints(Vec<i64>),
    /// An array of floats.
    Floats(Vec<f32>),
    /// An array of arrays, whose content is skipped.
    Nested,
}

impl Value {
    /// A count, or a boolean as 0 or 1; `None` for any other value.
    pub fn as_usize(&self) -> Option<usize> {
        match self {
            Self::Int(v) => usize::try_from(*v).ok(),
            Self::Bool(v) => Some(usize::from(*v)),
            _ => None,
        }
    }

    /// A number as f64, or a boolean as 0 or 1; `None` for any other value.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            Self::Bool(v) => Some(f64::from(u8::from(*v))),
            _ => None,
        }
    }

    /// The text of a string; `None` for any other value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(v) => Some(v),
            _ => None,
        }
    }
}

/// A tensor as the file's table describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorEntry {
    /// The tensor's name, such as "blk.0.ffn_up.weight".
    pub name: String,
    /// Extents, innermost first, as GGUF stores them.
    pub dims: Vec<u64>,
    /// The ggml type's number.
    pub dtype: u32,
    /// Where its data starts, counted from [`Header::data_start`].
    pub offset: u64,
}

/// Metadata and tensor table of a GGUF file.
#[derive(Debug, Clone)]
pub struct Header {
    path: PathBuf,
    /// The metadata by key, such as "general.architecture".
    pub metadata: HashMap<String, Value>,
    /// The tensors, in the file's order.
    pub tensors: Vec<TensorEntry>,
    /// Where tensor data starts in the file.
    pub data_start: u64,
    /// Length of the file.
    pub file_bytes: u64,
}

impl Header {
    /// Reads the header of `path`, and checks that the file is long enough for every tensor that it
    /// names.
    ///
    /// # Errors
    /// A file that is missing, truncated or not GGUF, and values that the format does not allow.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let meta = file.metadata().map_err(Error::io("read", path))?;
        if !meta.is_file() {
            return Err(Error::file(
                path,
                "is not a file; pass a .gguf file or a directory in Hugging Face layout",
            ));
        }
        lfs::refuse_pointer_at(path)?;
        Reader::new(BufReader::with_capacity(1 << 18, file), meta.len(), path).header(meta.len())
    }

    /// Parses a header in memory; `name` stands in for the path in errors.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn parse(bytes: &[u8], name: &Path) -> Result<Self> {
        let length = bytes.len() as u64;
        lfs::refuse_pointer(bytes, name)?;
        Reader::new(bytes, length, name).header(length)
    }

    /// The file that this header was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The string under a key; `None` where there is none.
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::String(s)) => Some(s),
            _ => None,
        }
    }

    /// An integer value that is not negative.
    pub fn uint(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key) {
            Some(Value::Int(i)) => u64::try_from(*i).ok(),
            _ => None,
        }
    }

    /// The boolean under a key; `None` where there is none.
    pub fn flag(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key) {
            Some(Value::Bool(b)) => Some(*b),
            _ => None,
        }
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Option<&[String]> {
        match self.metadata.get(key) {
            Some(Value::Strings(v)) => Some(v),
            _ => None,
        }
    }

    /// An array of integers.
    pub fn ints(&self, key: &str) -> Option<&[i64]> {
        match self.metadata.get(key) {
            Some(Value::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// An array of floats.
    pub fn floats(&self, key: &str) -> Option<&[f32]> {
        match self.metadata.get(key) {
            Some(Value::Floats(v)) => Some(v),
            _ => None,
        }
    }

    /// Fails when the file ends before the data of one of its tensors does: a download that stopped
    /// half-way.
    fn check_extents(&self) -> Result<()> {
        for tensor in &self.tensors {
            let Some((block, bytes)) = block_layout(tensor.dtype) else {
                continue; // a type that we cannot size is refused by name where the weights are read
            };
            let end = tensor
                .dims
                .iter()
                .try_fold(1u64, |n, &d| n.checked_mul(d))
                .and_then(|n| n.div_ceil(block).checked_mul(bytes))
                .and_then(|n| n.checked_add(tensor.offset))
                .and_then(|n| n.checked_add(self.data_start));
            match end {
                Some(end) if end <= self.file_bytes => {}
                Some(end) => {
                    let problem = format!(
                        "is truncated: tensor '{}' ends at byte {end} and the file has {}; fetch it again",
                        tensor.name, self.file_bytes
                    );
                    return Err(Error::file(&self.path, problem));
                }
                None => {
                    return Err(Error::file(
                        &self.path,
                        format!("tensor '{}' has no sane size", tensor.name),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether a file starts as a GGUF does.
pub fn has_magic(path: &Path) -> bool {
    let mut head = [0; 4];
    File::open(path)
        .and_then(|mut f| f.read_exact(&mut head))
        .is_ok()
        && head == MAGIC
}

/// Elements and bytes of a block of a ggml type (ggml's `type_traits` table).
fn block_layout(dtype: u32) -> Option<(u64, u64)> {
    Some(match dtype {
        0 | 26 => (1, 4),      // F32, I32
        1 | 25 | 30 => (1, 2), // F16, I16, BF16
        24 => (1, 1),          // I8
        27 | 28 => (1, 8),     // I64, F64
        2 => (32, 18),         // Q4_0
        3 => (32, 20),         // Q4_1
        6 => (32, 22),         // Q5_0
        7 => (32, 24),         // Q5_1
        8 => (32, 34),         // Q8_0
        9 => (32, 36),         // Q8_1
        10 => (256, 84),       // Q2_K
        11 => (256, 110),      // Q3_K
        12 => (256, 144),      // Q4_K
        13 => (256, 176),      // Q5_K
        14 => (256, 210),      // Q6_K
        15 => (256, 292),      // Q8_K
        20 => (32, 18),        // IQ4_NL
        _ => return None,
    })
}
