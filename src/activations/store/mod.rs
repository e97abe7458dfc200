//! The memory-mapped cache: append-only shards of rows, each with a header and a checksum.
//!
//! Knows nothing of tokens, samples or models. Invariant: a shard file is complete, checksummed and
//! never changed in place (it may be replaced by a rename or removed), so that a mapping of it
//! stays valid.

mod mapped;
mod read_ahead;
mod reader;
mod shard;
mod writer;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use crate::error::Error;

pub use mapped::MappedF32;
pub use reader::CacheReader;
pub(crate) use reader::convert_to_f32;
pub use writer::CacheWriter;

// Values are little-endian on disk and are borrowed from the mapping without conversion.
#[cfg(target_endian = "big")]
compile_error!(
    "mlpeek maps little-endian files as they are and does not support big-endian machines"
);

/// The type of the values in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum CacheDtype {
    /// f32, 4 bytes.
    #[default]
    F32,
    /// IEEE half precision, 2 bytes.
    F16,
    /// bfloat16, 2 bytes.
    Bf16,
}

impl CacheDtype {
    /// The number of bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name on the command line and in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Whether `value` is finite after it is rounded to this type.
    pub(crate) fn can_hold(self, value: f32) -> bool {
        match self {
            Self::F32 => value.is_finite(),
            Self::F16 => f16::from_f32(value).is_finite(),
            Self::Bf16 => bf16::from_f32(value).is_finite(),
        }
    }

    /// The error for an activation `value` of which [`Self::can_hold`] is false.
    pub(crate) fn too_large(self, value: f32, neuron: usize) -> Error {
        Error::refused(format!(
            "the activation {value} of neuron {neuron} is beyond the range of {}: collect with --dtype f32",
            self.name()
        ))
    }
}

#[cfg(test)]
mod tests;
