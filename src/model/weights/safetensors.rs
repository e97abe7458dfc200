//! One safetensors file: its header, checked against the file, and its tensors.

use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use safetensors::{Dtype, SafeTensors};

use super::{Mapped, StoredTensor};
use crate::error::{Error, Result};

/// The tensors of `path` by name, and its bytes. Integer tensors (masks, position ids) are left
/// out.
pub(super) fn open(path: &Path) -> Result<(Vec<(String, StoredTensor)>, u64)> {
    if !path.exists() {
        return Err(Error::file(
            path,
            "this shard is missing: download the model again",
        ));
    }
    let bytes = Arc::new(Mapped::open(path)?);
    let file: Arc<Path> = Arc::from(path);
    let total = bytes.as_slice().len() as u64;
    let (header, metadata) = SafeTensors::read_metadata(bytes.as_slice()).map_err(|e| {
        Error::file(
            path,
            format!("not a whole safetensors file ({e}): download it again"),
        )
    })?;
    let start = header + 8;
    let mut out = Vec::new();
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            Dtype::F32 => GgmlDType::F32,
            Dtype::F16 => GgmlDType::F16,
            Dtype::BF16 => GgmlDType::BF16,
            Dtype::BOOL
            | Dtype::U8
            | Dtype::I8
            | Dtype::I16
            | Dtype::I32
            | Dtype::I64
            | Dtype::U32
            | Dtype::U64
                if is_buffer(&name) =>
            {
                continue;
            }
            other => {
                let problem =
                    format!("tensor {name} is stored as {other:?}; f32, f16 and bf16 can be read");
                return Err(Error::file(path, problem));
            }
        };
        let range = start + info.data_offsets.0..start + info.data_offsets.1;
        let tensor = StoredTensor::new(&bytes, range, dtype, info.shape.clone(), &file)
            .map_err(|e| Error::file(path, format!("tensor {name}: {e}")))?;
        out.push((name, tensor));
    }
    Ok((out, total))
}

/// Masks and positions that old checkpoints carry.
fn is_buffer(name: &str) -> bool {
    name.ends_with(".bias") || name.ends_with("masked_bias") || name.ends_with("position_ids")
}
