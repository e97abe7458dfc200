//! Little-endian numbers of a file as f32, a block at a time.

use std::io::Read;
use std::path::Path;

use half::{bf16, f16};

use super::matrix::too_large;
use crate::disk::human_bytes;
use crate::error::{Error, Result};
use crate::memory;

/// Values converted at a time.
const BLOCK: usize = 1 << 16;

/// The type in which a file stores its numbers, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FloatType {
    F16,
    Bf16,
    F32,
    F64,
}

impl FloatType {
    /// Bytes of one number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Bytes of `rows` × `cols` numbers; `None` where the product overflows.
    pub(super) fn matrix_bytes(self, rows: u64, cols: u64) -> Option<u64> {
        rows.checked_mul(cols)?.checked_mul(self.bytes() as u64)
    }

    /// The number in `bytes`, of which there are [`FloatType::bytes`]; f64 is rounded to f32.
    pub(super) fn decode(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
            (Self::Bf16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
            (Self::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (Self::F64, &[a, b, c, d, e, f, g, h]) => {
                f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32
            }
            _ => f32::NAN, // `chunks_exact` gives no other length
        }
    }

    /// Whether `value` is infinite though the number in `raw` is finite: f64 holds numbers that f32
    /// cannot.
    pub(super) fn overflows(self, value: f32, raw: &[u8]) -> bool {
        self == Self::F64 && value.is_infinite() && !is_infinite_f64(raw)
    }
}

/// Reads `rows` × `cols` numbers as row-major f32; the file holds them column by column where
/// `by_column`. The caller has checked that the file is long enough.
///
/// # Errors
/// Too little memory, a file that cannot be read, a finite number that f32 cannot hold.
pub(super) fn read_matrix(
    input: &mut impl Read,
    path: &Path,
    float_type: FloatType,
    (rows, cols): (usize, usize),
    by_column: bool,
) -> Result<Vec<f32>> {
    let count = rows * cols;
    let (needed, free) = (4 * count as u64, memory::available()?.unwrap_or(u64::MAX));
    let mut out: Vec<f32> = Vec::new();
    if needed > free || out.try_reserve_exact(count).is_err() {
        let (needed, free) = (human_bytes(needed), human_bytes(free));
        return Err(Error::file(
            path,
            format!(
                "{rows} × {cols} numbers take {needed} of memory and {free} is free: take fewer rows"
            ),
        ));
    }
    out.resize(count, 0.0);
    let mut bytes = vec![0; BLOCK.min(count) * float_type.bytes()];
    let mut at = 0;
    while at < count {
        let n = BLOCK.min(count - at);
        let bytes = &mut bytes[..n * float_type.bytes()];
        input.read_exact(bytes).map_err(Error::io("read", path))?;
        for (i, raw) in (at..at + n).zip(bytes.chunks_exact(float_type.bytes())) {
            let place = if by_column {
                (i % rows) * cols + i / rows
            } else {
                i
            };
            out[place] = float_type.decode(raw);
            if float_type.overflows(out[place], raw) {
                return Err(too_large(path, place / cols, place % cols));
            }
        }
        at += n;
    }
    Ok(out)
}

fn is_infinite_f64(raw: &[u8]) -> bool {
    raw.try_into()
        .is_ok_and(|raw| f64::from_le_bytes(raw).is_infinite())
}
