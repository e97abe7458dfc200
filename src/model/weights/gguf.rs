//! One GGUF file: its metadata and tensors, every length checked against the file before anything is allocated.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. The tokenizer's long lists are skipped here.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;

use super::{Mapped, Stored};
use crate::error::{Error, Result};

/// Longest array of numbers that is kept; longer ones (token types, scores) are the tokenizer's.
const KEPT_ARRAY: u64 = 4096;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Meta {
    /// Any integer or boolean.
    Int(i64),
    /// Any float.
    Float(f64),
    /// Text.
    Text(String),
    /// An array of numbers or booleans.
    Numbers(Vec<f64>),
    /// An array that was passed over.
    Skipped,
}

impl Meta {
    /// As a count.
    pub fn as_usize(&self) -> Option<usize> {
        match self {
            Self::Int(v) => usize::try_from(*v).ok(),
            _ => None,
        }
    }

    /// As a number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            _ => None,
        }
    }

    /// As text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(v) => Some(v),
            _ => None,
        }
    }
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    wide: bool,
}

type Parsed<T> = std::result::Result<T, String>;

impl<'a> Reader<'a> {
    fn take(&mut self, len: u64) -> Parsed<&'a [u8]> {
        let rest = (self.data.len() - self.at) as u64;
        if len > rest {
            return Err(format!("{len} bytes are declared at byte {}, {rest} are left: truncated?", self.at));
        }
        let out = &self.data[self.at..self.at + len as usize];
        self.at += len as usize;
        Ok(out)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length: 32 bits in version 1, 64 since.
    fn len(&mut self) -> Parsed<u64> {
        if self.wide { self.u64() } else { Ok(u64::from(self.u32()?)) }
    }

    fn text(&mut self) -> Parsed<String> {
        let len = self.len()?;
        Ok(String::from_utf8_lossy(self.take(len)?).trim_end_matches('\0').to_owned())
    }

    fn value(&mut self, kind: u32) -> Parsed<Meta> {
        Ok(match kind {
            0 => Meta::Int(i64::from(self.array::<1>()?[0])),
            1 => Meta::Int(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Meta::Int(i64::from(u16::from_le_bytes(self.array()?))),
            3 => Meta::Int(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Meta::Int(i64::from(self.u32()?)),
            5 => Meta::Int(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Meta::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Meta::Int(i64::from(self.array::<1>()?[0] != 0)),
            8 => Meta::Text(self.text()?),
            9 => self.list()?,
            10 => Meta::Int(i64::try_from(self.u64()?).unwrap_or(i64::MAX)),
            11 => Meta::Int(i64::from_le_bytes(self.array()?)),
            12 => Meta::Float(f64::from_le_bytes(self.array()?)),
            _ => return Err(format!("metadata of unknown type {kind} at byte {}", self.at)),
        })
    }

    fn list(&mut self) -> Parsed<Meta> {
        let kind = self.u32()?;
        let len = self.len()?;
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                for _ in 0..len {
                    let len = self.len()?;
                    self.take(len)?;
                }
                return Ok(Meta::Skipped);
            }
            _ => return Err(format!("an array of unknown type {kind} at byte {}", self.at)),
        };
        if len > KEPT_ARRAY {
            self.take(len.checked_mul(width).ok_or("an array's length overflows")?)?;
            return Ok(Meta::Skipped);
        }
        let mut out = Vec::new();
        for _ in 0..len {
            out.push(self.value(kind)?.as_f64().ok_or("an array of numbers holds none")?);
        }
        Ok(Meta::Numbers(out))
    }
}

struct Entry {
    name: String,
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

struct Header {
    meta: HashMap<String, Meta>,
    entries: Vec<Entry>,
    start: u64,
}

fn header(data: &[u8]) -> Parsed<Header> {
    let mut r = Reader { data, at: 0, wide: true };
    if r.take(4)? != b"GGUF" {
        return Err("not a GGUF file (it does not begin with 'GGUF')".into());
    }
    let version = r.u32()?;
    if !(1..=3).contains(&version) {
        return Err(format!("GGUF version {version} cannot be read (1 to 3 can; big-endian files cannot)"));
    }
    r.wide = version > 1;
    let (tensors, values) = (r.len()?, r.len()?);
    let mut meta = HashMap::new();
    for _ in 0..values {
        let key = r.text()?;
        let kind = r.u32()?;
        let value = r.value(kind).map_err(|e| format!("metadata {key}: {e}"))?;
        meta.insert(key, value);
    }
    let mut entries = Vec::new();
    for _ in 0..tensors {
        let name = r.text()?;
        let axes = r.u32()?;
        if axes > 4 {
            return Err(format!("tensor {name} has {axes} axes, at most 4 are possible"));
        }
        let mut shape = Vec::new();
        for _ in 0..axes {
            shape.push(usize::try_from(r.len()?).map_err(|_| format!("tensor {name}: its shape overflows"))?);
        }
        shape.reverse();
        entries.push(Entry { name, shape, kind: r.u32()?, offset: r.u64()? });
    }
    let align = meta.get("general.alignment").and_then(Meta::as_usize).unwrap_or(32) as u64;
    if align == 0 || !align.is_power_of_two() {
        return Err(format!("general.alignment is {align}, no power of two"));
    }
    Ok(Header { meta, entries, start: (r.at as u64).next_multiple_of(align) })
}

/// Numbers of the GGML types that can be read.
fn dtype(kind: u32) -> Option<GgmlDType> {
    Some(match kind {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        9 => GgmlDType::Q8_1,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        15 => GgmlDType::Q8K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

type Opened = (HashMap<String, Stored>, HashMap<String, Meta>, u64);

/// The tensors and metadata of `path`, and its bytes.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let bytes = Arc::new(Mapped::open(path)?);
    let file: Arc<Path> = Arc::from(path);
    let total = bytes.as_slice().len() as u64;
    let wrong = |problem: String| Error::file(path, problem);
    let header = header(bytes.as_slice()).map_err(wrong)?;
    let mut tensors = HashMap::new();
    for Entry { name, shape, kind, offset } in header.entries {
        let Some(dtype) = dtype(kind) else {
            return Err(wrong(format!("tensor {name} is quantised as GGML type {kind}, which cannot be read")));
        };
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let len = count.and_then(|n| (n / dtype.block_size()).checked_mul(dtype.type_size()));
        let start = header.start.checked_add(offset).and_then(|s| usize::try_from(s).ok());
        let range = start.zip(len).and_then(|(s, l)| Some(s..s.checked_add(l)?));
        let Some(range) = range else {
            return Err(wrong(format!("tensor {name}: its place in the file overflows")));
        };
        let tensor =
            Stored::new(&bytes, range, dtype, shape, &file).map_err(|e| wrong(format!("tensor {name}: {e}")))?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(wrong(format!("tensor {name} is there twice")));
        }
    }
    Ok((tensors, header.meta, total))
}
