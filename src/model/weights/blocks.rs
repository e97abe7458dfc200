//! Blocks of quantised values to f32 and their dot products: this crate's kernels where there are
//! some, else candle's.

use candle_core::quantized::GgmlDType;
use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K,
    BlockQ8_0, BlockQ8_1, BlockQ8K, GgmlType,
};
use half::{bf16, f16};

use crate::matrix::quantised::{self, BlockFormat, QuantisedRows};

/// Runs `$body` with `$T` the block type of `$dtype`.
macro_rules! with_block {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            GgmlDType::F32 => {
                type $T = f32;
                $body
            }
            GgmlDType::F16 => {
                type $T = f16;
                $body
            }
            GgmlDType::BF16 => {
                type $T = bf16;
                $body
            }
            GgmlDType::Q4_0 => {
                type $T = BlockQ4_0;
                $body
            }
            GgmlDType::Q4_1 => {
                type $T = BlockQ4_1;
                $body
            }
            GgmlDType::Q5_0 => {
                type $T = BlockQ5_0;
                $body
            }
            GgmlDType::Q5_1 => {
                type $T = BlockQ5_1;
                $body
            }
            GgmlDType::Q8_0 => {
                type $T = BlockQ8_0;
                $body
            }
            GgmlDType::Q8_1 => {
                type $T = BlockQ8_1;
                $body
            }
            GgmlDType::Q2K => {
                type $T = BlockQ2K;
                $body
            }
            GgmlDType::Q3K => {
                type $T = BlockQ3K;
                $body
            }
            GgmlDType::Q4K => {
                type $T = BlockQ4K;
                $body
            }
            GgmlDType::Q5K => {
                type $T = BlockQ5K;
                $body
            }
            GgmlDType::Q6K => {
                type $T = BlockQ6K;
                $body
            }
            GgmlDType::Q8K => {
                type $T = BlockQ8K;
                $body
            }
        }
    };
}

/// Bytes as blocks of `T`, which must be aligned and complete, as [`super::StoredTensor::new`] saw to.
fn cast<T: GgmlType>(data: &[u8]) -> &[T] {
    let size = std::mem::size_of::<T>();
    assert!(
        data.len().is_multiple_of(size) && data.as_ptr().cast::<T>().is_aligned(),
        "blocks are whole and aligned"
    );
    // SAFETY: length and alignment were just checked; the block types are plain integers and floats
    // without padding or invalid bit patterns; the borrow keeps the bytes alive.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts(data.as_ptr().cast::<T>(), data.len() / size)
    }
}

pub(super) fn is_aligned(dtype: GgmlDType, data: &[u8]) -> bool {
    with_block!(dtype, T => data.as_ptr().cast::<T>().is_aligned())
}

pub(super) fn as_f32(data: &[u8]) -> &[f32] {
    cast(data)
}

/// The format of this crate's kernels for a type; `None` where candle's kernels are used.
fn format(dtype: GgmlDType) -> Option<BlockFormat> {
    Some(match dtype {
        GgmlDType::Q4_0 => BlockFormat::Q4_0,
        GgmlDType::Q4_1 => BlockFormat::Q4_1,
        GgmlDType::Q5_0 => BlockFormat::Q5_0,
        GgmlDType::Q5_1 => BlockFormat::Q5_1,
        GgmlDType::Q8_0 => BlockFormat::Q8_0,
        _ => return None,
    })
}

pub(super) fn dequantise(dtype: GgmlDType, data: &[u8], out: &mut [f32]) {
    if let Some(format) = format(dtype) {
        return quantised::dequantise(format, data, out);
    }
    with_block!(dtype, T => T::to_float(cast::<T>(data), out));
}

/// Rows of activations, quantised for products with weights of one type. The blocks are those of
/// ggml (`ggml-quants.c` of llama.cpp).
pub enum Activations {
    /// Rows quantised to eight bits for this crate's kernels.
    Bytes(QuantisedRows),
    /// In the blocks that candle multiplies a type with, as bytes of an aligned buffer.
    Candle {
        /// The buffer, aligned to 8 bytes.
        words: Vec<u64>,
        /// How many bytes of the buffer are used.
        len: usize,
        /// The type of weights that the blocks are multiplied with.
        dtype: GgmlDType,
    },
}

impl Activations {
    /// Whether weights of `dtype` can be multiplied with these.
    pub fn fits(&self, dtype: GgmlDType) -> bool {
        match self {
            Self::Bytes(_) => format(dtype).is_some(),
            Self::Candle { dtype: own, .. } => *own == dtype,
        }
    }
}

pub(super) fn quantise(dtype: GgmlDType, x: &[f32], cols: usize) -> Activations {
    if format(dtype).is_some() {
        return Activations::Bytes(QuantisedRows::new(x, cols));
    }
    with_block!(dtype, T => {
        type V = <T as GgmlType>::VecDotType;
        let count = x.len() / V::BLCK_SIZE;
        let len = count * std::mem::size_of::<V>();
        let mut typed = vec![V::zeros(); count];
        V::from_float(x, &mut typed);
        let mut words = vec![0u64; len.div_ceil(8)];
        // SAFETY: `typed` holds `len` initialised bytes of plain numeric blocks.
        #[allow(unsafe_code)]
        let raw = unsafe { std::slice::from_raw_parts(typed.as_ptr().cast::<u8>(), len) };
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..len].copy_from_slice(raw);
        Activations::Candle { words, len, dtype }
    })
}

/// `out[c * m + r]` = ⟨row c of `data`, row r of `x`⟩ for rows of `cols` values; `x` must be
/// quantised for `dtype`.
pub(super) fn products(
    dtype: GgmlDType,
    data: &[u8],
    cols: usize,
    x: &Activations,
    out: &mut [f32],
) {
    let (words, len) = match (x, format(dtype)) {
        (Activations::Bytes(x), Some(format)) => return quantised::products(format, data, x, out),
        (
            Activations::Candle {
                words,
                len,
                dtype: own,
            },
            None,
        ) if *own == dtype => (words, *len),
        _ => unreachable!("activations are quantised for the type that they are multiplied with"),
    };
    with_block!(dtype, T => {
        type V = <T as GgmlType>::VecDotType;
        let weights = cast::<T>(data);
        let x = cast::<V>(&bytemuck::cast_slice::<u64, u8>(words)[..len]);
        let (per_row, per_x) = (cols / T::BLCK_SIZE, cols / V::BLCK_SIZE);
        let m = x.len() / per_x;
        for (row, out) in weights.chunks_exact(per_row).zip(out.chunks_exact_mut(m)) {
            for (x, out) in x.chunks_exact(per_x).zip(out) {
                *out = T::vec_dot(cols, row, x);
            }
        }
    });
}
