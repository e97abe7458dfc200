//! The tensors of a GGUF file, mapped; every length is checked against the file before anything is
//! allocated.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;

use super::{Mapped, StoredTensor};
use crate::error::{Error, Result};
use crate::model::gguf::{Header, TensorEntry, Value};

/// The GGML type of a number in the file (`enum ggml_type`); `None` where it cannot be read.
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

/// The number of IQ4_NL, and what its four bits stand for (`kvalues_iq4nl`).
const IQ4_NL: u32 = 20;
const IQ4_NL_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Blocks of IQ4_NL as blocks of Q8_0: both are 32 small integers times one f16, so nothing is
/// rounded.
fn iq4_nl_to_q8_0(blocks: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blocks.len() / 18 * 34);
    for block in blocks.chunks_exact(18) {
        let (scale, nibbles) = block.split_at(2);
        let value = |nibble: u8| IQ4_NL_VALUES[usize::from(nibble)].cast_unsigned();
        out.extend_from_slice(scale);
        out.extend(nibbles.iter().map(|byte| value(byte & 15)));
        out.extend(nibbles.iter().map(|byte| value(byte >> 4)));
    }
    out
}

/// The content of a GGUF file.
pub(super) struct Content {
    pub(super) tensors: HashMap<String, StoredTensor>,
    /// The metadata without the keys of the tokenizer.
    pub(super) metadata: HashMap<String, Value>,
    pub(super) bytes: u64,
    /// How many tensors are held in another type than the file's.
    pub(super) converted: usize,
}

/// The tensors and metadata of `path`.
pub(super) fn open(path: &Path) -> Result<Content> {
    let bytes = Arc::new(Mapped::open(path)?);
    let file: Arc<Path> = Arc::from(path);
    let mut header = Header::parse(bytes.as_slice(), path)?;
    header
        .metadata
        .retain(|key, _| !key.starts_with("tokenizer."));
    let mut tensors = HashMap::new();
    let converted = header
        .tensors
        .iter()
        .filter(|entry| entry.dtype == IQ4_NL)
        .count();
    for entry in header.tensors {
        let name = entry.name.clone();
        let tensor = stored(entry, &bytes, header.data_start, &file)
            .map_err(|e| Error::file(path, format!("tensor {name} {e}")))?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(Error::file(path, format!("tensor {name} is there twice")));
        }
    }
    Ok(Content {
        tensors,
        metadata: header.metadata,
        bytes: header.file_bytes,
        converted,
    })
}

fn stored(
    entry: TensorEntry,
    bytes: &Arc<Mapped>,
    start: u64,
    file: &Arc<Path>,
) -> Result<StoredTensor, String> {
    let kind = entry.dtype;
    let (read_as, block_bytes) = match kind {
        IQ4_NL => (Some(GgmlDType::Q8_0), 18),
        _ => (dtype(kind), dtype(kind).map_or(0, |d| d.type_size())),
    };
    let dtype = read_as.ok_or_else(|| {
        format!("has GGML type {kind}, which cannot be read: get the file as Q4_K, Q5_K, Q6_K, Q8_0 or f16")
    })?;
    let overflows = || "has no sane size or place".to_owned();
    let axes = entry.dims.iter().rev().map(|&d| usize::try_from(d).ok());
    let shape: Vec<usize> = axes.collect::<Option<_>>().ok_or_else(overflows)?;
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let len = count.and_then(|n| (n / dtype.block_size()).checked_mul(block_bytes));
    let first = start
        .checked_add(entry.offset)
        .and_then(|s| usize::try_from(s).ok());
    let range = first
        .zip(len)
        .and_then(|(s, l)| Some(s..s.checked_add(l)?))
        .ok_or_else(overflows)?;
    if kind == IQ4_NL {
        let blocks = bytes
            .as_slice()
            .get(range)
            .ok_or("ends beyond the file: truncated?")?;
        let copy = Arc::new(Mapped::copied(&iq4_nl_to_q8_0(blocks)));
        let range = 0..copy.as_slice().len();
        return StoredTensor::new(&copy, range, dtype, shape, file)
            .map_err(|e| format!("cannot be read: {e}"));
    }
    StoredTensor::new(bytes, range, dtype, shape, file).map_err(|e| format!("cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iq4_nl_is_widened_to_the_values_of_ggml() {
        // d = 0.5 (f16 0x3800), low nibbles first: gguf.quants.dequantize gives these.
        let mut block = vec![0x00, 0x38];
        block.extend((0..16u8).map(|i| i | (15 - i) << 4));
        let q8 = iq4_nl_to_q8_0(&block);
        let mut wide = [0.0; 32];
        super::super::blocks::dequantise(
            GgmlDType::Q8_0,
            Mapped::copied(&q8).as_slice(),
            &mut wide,
        );
        let low: Vec<f32> = IQ4_NL_VALUES.iter().map(|&v| 0.5 * f32::from(v)).collect();
        let high: Vec<f32> = low.iter().rev().copied().collect();
        assert_eq!(wide[..16], low);
        assert_eq!(wide[16..], high);
    }
}
