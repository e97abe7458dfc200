//! The header of a GGUF file: metadata and the table of tensors, read without trusting a single length in it.
//!
//! Knows nothing of what the keys mean. Invariant: memory taken is at most a small multiple of the bytes that the file
//! really has, whatever its lengths claim; every error names the file.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 1 to 3, little-endian.

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const MAGIC: [u8; 4] = *b"GGUF";
/// Longest key or tensor name that we believe (the format allows 65,535 and 64 bytes).
const MAX_NAME: u64 = 65_535;
const MAX_DIMS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// A metadata value. Numbers are widened; arrays of numbers keep one vector for all.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer type (a u64 above `i64::MAX` wraps; no key of ours comes near).
    Int(i64),
    /// f32 or f64.
    Float(f64),
    /// A flag.
    Bool(bool),
    /// Bytes that ought to be UTF-8.
    String(String),
    /// An array of strings.
    Strings(Vec<String>),
    /// An array of integers or flags.
    Ints(Vec<i64>),
    /// An array of floats.
    Floats(Vec<f32>),
    /// An array of arrays: read over, not kept.
    Nested,
}

/// A tensor as the file's table describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorEntry {
    /// Its name: "blk.0.ffn_up.weight".
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
    /// Values by key.
    pub metadata: HashMap<String, Value>,
    /// The tensors, in the file's order.
    pub tensors: Vec<TensorEntry>,
    /// Where tensor data starts in the file.
    pub data_start: u64,
    /// Length of the file.
    pub file_bytes: u64,
}

impl Header {
    /// Reads the header of `path`, and checks that the file is long enough for every tensor that it names.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let meta = file.metadata().map_err(Error::io("read", path))?;
        if !meta.is_file() {
            return Err(Error::file(path, "is not a file; pass a .gguf file or a directory in Hugging Face layout"));
        }
        let reader = Reader { inner: BufReader::with_capacity(1 << 18, file), left: meta.len(), path, long: true };
        reader.header(meta.len())
    }

    /// The same from bytes in memory; `name` stands in for the path in errors.
    pub fn parse(bytes: &[u8], name: &Path) -> Result<Self> {
        let length = bytes.len() as u64;
        Reader { inner: bytes, left: length, path: name, long: true }.header(length)
    }

    /// The file that this header was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A string value.
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

    /// A flag.
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

    /// Fails when the file ends before the data of one of its tensors does: a download that stopped half-way.
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
                None => return Err(Error::file(&self.path, format!("tensor '{}' has no sane size", tensor.name))),
            }
        }
        Ok(())
    }
}

/// Whether a file starts as a GGUF does.
pub fn has_magic(path: &Path) -> bool {
    let mut head = [0; 4];
    File::open(path).and_then(|mut f| f.read_exact(&mut head)).is_ok() && head == MAGIC
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
        _ => return None,
    })
}

/// Reads little-endian values and counts down what the file still holds.
struct Reader<'a, R> {
    inner: R,
    left: u64,
    path: &'a Path,
    /// Lengths are 64 bits wide (version 2 and later).
    long: bool,
}

impl<R: Read> Reader<'_, R> {
    fn header(mut self, file_bytes: u64) -> Result<Header> {
        if file_bytes < 4 || self.array::<4>()? != MAGIC {
            return Err(self.bad("is not a GGUF file (it does not start with 'GGUF')"));
        }
        let version = self.u32()?;
        if version.swap_bytes() <= 3 && version > 3 {
            return Err(self.bad("is a big-endian GGUF file; only little-endian ones can be read"));
        }
        if !(1..=3).contains(&version) {
            return Err(self.bad(format!("has GGUF version {version}; versions 1 to 3 can be read")));
        }
        self.long = version > 1;
        let tensor_count = self.length()?;
        let key_count = self.length()?;
        // A tensor's entry takes at least a name's length, a dimension count, a type and an offset; a key a length,
        // a type and a byte.
        self.plausible(tensor_count, 20, "tensors")?;
        self.plausible(key_count, 9, "metadata keys")?;
        let mut metadata = HashMap::new();
        for _ in 0..key_count {
            let key = self.string(MAX_NAME)?;
            let kind = self.u32()?;
            let value = self.value(kind, &key)?;
            metadata.insert(key, value);
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(self.tensor()?);
        }
        let alignment = match metadata.get("general.alignment") {
            Some(Value::Int(a)) => u64::try_from(*a).ok().filter(|a| a.is_power_of_two() && *a <= 1 << 20),
            Some(_) => None,
            None => Some(DEFAULT_ALIGNMENT),
        };
        let Some(alignment) = alignment else {
            return Err(self.bad("general.alignment is not a power of two"));
        };
        let data_start = (file_bytes - self.left).next_multiple_of(alignment);
        let header = Header { path: self.path.to_path_buf(), metadata, tensors, data_start, file_bytes };
        header.check_extents()?;
        Ok(header)
    }

    fn tensor(&mut self) -> Result<TensorEntry> {
        let name = self.string(MAX_NAME)?;
        let rank = self.u32()?;
        if rank > MAX_DIMS {
            return Err(self.bad(format!("tensor '{name}' has {rank} dimensions; at most {MAX_DIMS} are allowed")));
        }
        let dims = (0..rank).map(|_| self.length()).collect::<Result<_>>()?;
        Ok(TensorEntry { name, dims, dtype: self.u32()?, offset: self.u64()? })
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value> {
        Ok(match kind {
            6 => Value::Float(f64::from(f32::from_bits(self.u32()?))),
            12 => Value::Float(f64::from_bits(self.u64()?)),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::String(self.string(u64::MAX)?),
            9 => return self.list(key, 0),
            _ => Value::Int(self.int(kind, key)?),
        })
    }

    fn list(&mut self, key: &str, depth: u32) -> Result<Value> {
        let kind = self.u32()?;
        let count = self.length()?;
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => self.length_bytes(),
            9 => 4 + self.length_bytes(),
            _ => return Err(self.bad(format!("key '{key}' has the unknown type {kind}"))),
        };
        self.plausible(count, least, key)?;
        Ok(match kind {
            6 => Value::Floats(self.collect(count, |r| Ok(f32::from_bits(r.u32()?)))?),
            12 => Value::Floats(self.collect(count, |r| Ok(f64::from_bits(r.u64()?) as f32))?),
            7 => Value::Ints(self.collect(count, |r| Ok(i64::from(r.array::<1>()?[0] != 0)))?),
            8 => Value::Strings(self.collect(count, |r| r.string(u64::MAX))?),
            9 if depth > 4 => return Err(self.bad(format!("key '{key}' nests arrays too deeply"))),
            9 => {
                for _ in 0..count {
                    self.list(key, depth + 1)?;
                }
                Value::Nested
            }
            _ => Value::Ints(self.collect(count, |r| r.int(kind, key))?),
        })
    }

    /// `count` items; the vector grows with what is really read.
    fn collect<T>(&mut self, count: u64, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(item(self)?);
        }
        Ok(out)
    }

    fn int(&mut self, kind: u32, key: &str) -> Result<i64> {
        Ok(match kind {
            0 => i64::from(self.array::<1>()?[0]),
            1 => i64::from(i8::from_le_bytes(self.array()?)),
            2 => i64::from(u16::from_le_bytes(self.array()?)),
            3 => i64::from(i16::from_le_bytes(self.array()?)),
            4 => i64::from(self.u32()?),
            5 => i64::from(i32::from_le_bytes(self.array()?)),
            10 => self.u64()? as i64,
            11 => i64::from_le_bytes(self.array()?),
            _ => return Err(self.bad(format!("key '{key}' has the unknown type {kind}"))),
        })
    }

    fn string(&mut self, most: u64) -> Result<String> {
        let length = self.length()?;
        if length > most {
            return Err(self.bad(format!("a name of {length} bytes; at most {most} are allowed")));
        }
        self.plausible(length, 1, "bytes of a string")?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.bad("holds a string that is not UTF-8"))
    }

    /// Refuses a count whose items cannot fit in what is left of the file.
    fn plausible(&self, count: u64, least_bytes: u64, what: &str) -> Result<()> {
        if count.checked_mul(least_bytes).is_none_or(|n| n > self.left) {
            let left = self.left;
            return Err(self.bad(format!("is damaged or truncated: it claims {count} {what}, with {left} bytes left")));
        }
        Ok(())
    }

    fn length_bytes(&self) -> u64 {
        if self.long { 8 } else { 4 }
    }

    fn length(&mut self) -> Result<u64> {
        if self.long { self.u64() } else { self.u32().map(u64::from) }
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        let wanted = bytes.len() as u64;
        if wanted > self.left {
            return Err(self.bad("is truncated: it ends within its header; fetch it again"));
        }
        self.inner.read_exact(bytes).map_err(Error::io("read", self.path))?;
        self.left -= wanted;
        Ok(())
    }

    fn bad(&self, problem: impl Into<String>) -> Error {
        Error::file(self.path, problem)
    }
}
