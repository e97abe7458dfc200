//! The bytes of a header, one value after another.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use super::{Header, MAGIC, TensorEntry, Value};
use crate::error::{Error, Result};

/// The longest key or tensor name that is accepted (the format allows 65,535 and 64 bytes).
const MAX_NAME: u64 = 65_535;
const MAX_DIMS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;

/// Reads little-endian values and counts down what the file still holds.
pub(super) struct Reader<'a, R> {
    inner: R,
    left: u64,
    path: &'a Path,
    /// Lengths are 64 bits wide (version 2 and later).
    wide_lengths: bool,
}

impl<'a, R: Read> Reader<'a, R> {
    /// A reader of the `length` bytes of `inner`; `path` is named in errors.
    pub(super) fn new(inner: R, length: u64, path: &'a Path) -> Self {
        Self {
            inner,
            left: length,
            path,
            wide_lengths: true,
        }
    }

    pub(super) fn header(mut self, file_bytes: u64) -> Result<Header> {
        if file_bytes < 4 || self.array::<4>()? != MAGIC {
            return Err(self.error("is not a GGUF file (it does not start with 'GGUF')"));
        }
        let version = self.u32()?;
        if version.swap_bytes() <= 3 && version > 3 {
            return Err(
                self.error("is a big-endian GGUF file; only little-endian ones can be read")
            );
        }
        if !(1..=3).contains(&version) {
            return Err(self.error(format!(
                "has GGUF version {version}; versions 1 to 3 can be read"
            )));
        }
        self.wide_lengths = version > 1;
        let tensor_count = self.length()?;
        let key_count = self.length()?;
        // A tensor's entry takes at least a name's length, a dimension count, a type and an offset;
        // a key a length, a type and a byte.
        self.check_count(tensor_count, 20, "tensors")?;
        self.check_count(key_count, 9, "metadata keys")?;
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
            Some(Value::Int(a)) => u64::try_from(*a)
                .ok()
                .filter(|a| a.is_power_of_two() && *a <= 1 << 20),
            Some(_) => None,
            None => Some(DEFAULT_ALIGNMENT),
        };
        let Some(alignment) = alignment else {
            return Err(self.error("general.alignment is not a power of two"));
        };
        let data_start = (file_bytes - self.left).next_multiple_of(alignment);
        let header = Header {
            path: self.path.to_path_buf(),
            metadata,
            tensors,
            data_start,
            file_bytes,
        };
        header.check_extents()?;
        Ok(header)
    }

    fn tensor(&mut self) -> Result<TensorEntry> {
        let name = self.string(MAX_NAME)?;
        let rank = self.u32()?;
        if rank > MAX_DIMS {
            return Err(self.error(format!(
                "tensor '{name}' has {rank} dimensions; at most {MAX_DIMS} are allowed"
            )));
        }
        let dims = (0..rank).map(|_| self.length()).collect::<Result<_>>()?;
        Ok(TensorEntry {
            name,
            dims,
            dtype: self.u32()?,
            offset: self.u64()?,
        })
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
            _ => return Err(self.error(format!("key '{key}' has the unknown type {kind}"))),
        };
        self.check_count(count, least, key)?;
        Ok(match kind {
            6 => Value::Floats(self.collect(count, |r| Ok(f32::from_bits(r.u32()?)))?),
            12 => Value::Floats(self.collect(count, |r| Ok(f64::from_bits(r.u64()?) as f32))?),
            7 => Value::Ints(self.collect(count, |r| Ok(i64::from(r.array::<1>()?[0] != 0)))?),
            8 => Value::Strings(self.collect(count, |r| r.string(u64::MAX))?),
            9 if depth > 4 => {
                return Err(self.error(format!("key '{key}' nests arrays too deeply")));
            }
            9 => {
                for _ in 0..count {
                    self.list(key, depth + 1)?;
                }
                Value::Nested
            }
            _ => Value::Ints(self.collect(count, |r| r.int(kind, key))?),
        })
    }

    /// `count` items. The vector grows with what is read, so that a wrong count allocates nothing.
    fn collect<T>(
        &mut self,
        count: u64,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
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
            _ => return Err(self.error(format!("key '{key}' has the unknown type {kind}"))),
        })
    }

    fn string(&mut self, most: u64) -> Result<String> {
        let length = self.length()?;
        if length > most {
            return Err(self.error(format!(
                "a name of {length} bytes; at most {most} are allowed"
            )));
        }
        self.check_count(length, 1, "bytes of a string")?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.error("holds a string that is not UTF-8"))
    }

    /// Refuses a count whose items, of `least_bytes` or more each, exceed what is left of the file.
    fn check_count(&self, count: u64, least_bytes: u64, what: &str) -> Result<()> {
        if count.checked_mul(least_bytes).is_none_or(|n| n > self.left) {
            let left = self.left;
            return Err(self.error(format!(
                "is damaged or truncated: it claims {count} {what}, with {left} bytes left"
            )));
        }
        Ok(())
    }

    fn length_bytes(&self) -> u64 {
        if self.wide_lengths { 8 } else { 4 }
    }

    fn length(&mut self) -> Result<u64> {
        if self.wide_lengths {
            self.u64()
        } else {
            self.u32().map(u64::from)
        }
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
            return Err(self.error("is truncated: it ends within its header; fetch it again"));
        }
        self.inner
            .read_exact(bytes)
            .map_err(Error::io("read", self.path))?;
        self.left -= wanted;
        Ok(())
    }

    fn error(&self, problem: impl Into<String>) -> Error {
        Error::file(self.path, problem)
    }
}
