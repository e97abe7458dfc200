//! The tensors of a GGUF file, mapped; every length is checked against the file before anything is allocated.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;

use super::{Mapped, Stored};
use crate::error::{Error, Result};
use crate::model::gguf::{Header, TensorEntry, Value};

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

/// Tensors by name, metadata, and the file's bytes.
type Opened = (HashMap<String, Stored>, HashMap<String, Value>, u64);

/// The tensors and metadata of `path`, without the tokenizer's.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let bytes = Arc::new(Mapped::open(path)?);
    let file: Arc<Path> = Arc::from(path);
    let mut header = Header::parse(bytes.as_slice(), path)?;
    header.metadata.retain(|key, _| !key.starts_with("tokenizer."));
    let mut tensors = HashMap::new();
    for entry in header.tensors {
        let name = entry.name.clone();
        let tensor = stored(entry, &bytes, header.data_start, &file)
            .map_err(|e| Error::file(path, format!("tensor {name} {e}")))?;
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(Error::file(path, format!("tensor {name} is there twice")));
        }
    }
    Ok((tensors, header.metadata, header.file_bytes))
}

fn stored(entry: TensorEntry, bytes: &Arc<Mapped>, start: u64, file: &Arc<Path>) -> Result<Stored, String> {
    let kind = entry.dtype;
    let dtype = dtype(kind).ok_or_else(|| {
        format!("has GGML type {kind}, which cannot be read: get the file as Q4_K, Q5_K, Q6_K, Q8_0 or f16")
    })?;
    let overflows = || "has no sane size or place".to_owned();
    let axes = entry.dims.iter().rev().map(|&d| usize::try_from(d).ok());
    let shape: Vec<usize> = axes.collect::<Option<_>>().ok_or_else(overflows)?;
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let len = count.and_then(|n| (n / dtype.block_size()).checked_mul(dtype.type_size()));
    let first = start.checked_add(entry.offset).and_then(|s| usize::try_from(s).ok());
    let range = first.zip(len).and_then(|(s, l)| Some(s..s.checked_add(l)?)).ok_or_else(overflows)?;
    Stored::new(bytes, range, dtype, shape, file).map_err(|e| format!("cannot be read: {e}"))
}
