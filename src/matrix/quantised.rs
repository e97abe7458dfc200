//! Dot products of quantised weight rows with activations quantised to eight bits: the products
//! that generate one token.
//!
//! Owns the kernels of GGML's block formats of 32 values (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0); knows
//! nothing of tensors or files. Every format is read as w = d·q + m with q an unsigned byte (Q8_0:
//! q − 128, so m = −128 d), because the byte dot products of x86 multiply unsigned by signed bytes.
//! Invariant: a product has the same bits, whichever other rows are computed in the same call.
//!
//! Formats: <https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h>.

use half::f16;

use super::simd::vectorised;

/// The number of values in a block.
pub const BLOCK: usize = 32;

/// A block format of GGML that these kernels read; d and m are half-precision floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockFormat {
    /// d, then 32 × 4 bits; m = −8 d.
    Q4_0,
    /// d and m, then 32 × 4 bits.
    Q4_1,
    /// d, the high bits of the 32 values, then their low 4 bits; m = −16 d.
    Q5_0,
    /// d and m, the high bits of the 32 values, then their low 4 bits.
    Q5_1,
    /// d, then 32 signed bytes; m = −128 d after the bytes are made unsigned.
    Q8_0,
}

impl BlockFormat {
    /// The number of bytes in a block.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
        }
    }

    /// Decodes one block: d, m and the 32 unsigned values.
    fn decode(self, block: &[u8]) -> (f32, f32, [u8; BLOCK]) {
        let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        let d = half(0);
        let mut q = [0u8; BLOCK];
        let nibbles = |q: &mut [u8; BLOCK], from: &[u8]| {
            for (i, &b) in from[..BLOCK / 2].iter().enumerate() {
                (q[i], q[i + BLOCK / 2]) = (b & 15, b >> 4);
            }
        };
        let high = |q: &mut [u8; BLOCK], from: &[u8]| {
            for (i, v) in q.iter_mut().enumerate() {
                *v |= (from[i / 8] >> (i % 8) & 1) << 4;
            }
        };
        let m = match self {
            Self::Q4_0 => {
                nibbles(&mut q, &block[2..]);
                -8.0 * d
            }
            Self::Q4_1 => {
                nibbles(&mut q, &block[4..]);
                half(2)
            }
            Self::Q5_0 => {
                nibbles(&mut q, &block[6..]);
                high(&mut q, &block[2..]);
                -16.0 * d
            }
            Self::Q5_1 => {
                nibbles(&mut q, &block[8..]);
                high(&mut q, &block[4..]);
                half(2)
            }
            Self::Q8_0 => {
                for (v, &b) in q.iter_mut().zip(&block[2..]) {
                    *v = b ^ 0x80;
                }
                -128.0 * d
            }
        };
        (d, m, q)
    }
}

/// Rows of activations quantised to signed bytes, in blocks of 32.
pub struct QuantisedRows {
    values: Vec<i8>,
    /// For each block its scale d, and d · Σ values, the factor of the weights' offset m in a
    /// product.
    scales: Vec<[f32; 2]>,
    blocks: usize,
}

impl QuantisedRows {
    /// Quantises rows of `k` values: in each block of 32 the largest magnitude becomes 127, so d =
    /// max|x| / 127.
    ///
    /// # Panics
    /// If `k` is not a positive multiple of 32, or if `x` does not hold whole rows.
    pub fn new(x: &[f32], k: usize) -> Self {
        assert!(
            k.is_multiple_of(BLOCK) && k > 0 && x.len().is_multiple_of(k),
            "whole rows of whole blocks"
        );
        let mut out = Self {
            values: vec![0; x.len()],
            scales: vec![[0.0; 2]; x.len() / BLOCK],
            blocks: k / BLOCK,
        };
        vectorised(|| {
            let blocks = x
                .chunks_exact(BLOCK)
                .zip(out.values.chunks_exact_mut(BLOCK))
                .zip(&mut out.scales);
            for ((x, q), scale) in blocks {
                quantise_block(x, q, scale);
            }
        });
        out
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.scales.len() / self.blocks
    }
}

/// Quantises one block of 32 values to `q`, with the scale d and d · Σ q in `scale`.
#[inline(always)]
fn quantise_block(x: &[f32], q: &mut [i8], scale: &mut [f32; 2]) {
    let mut largest = [0.0f32; 8];
    for part in x.chunks_exact(8) {
        for (t, v) in largest.iter_mut().zip(part) {
            *t = if v.abs() > *t { v.abs() } else { *t };
        }
    }
    let largest = largest
        .iter()
        .fold(0.0f32, |a, &b| if b > a { b } else { a });
    let d = largest / 127.0;
    let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
    let mut sum = 0i32;
    for (q, v) in q.iter_mut().zip(x) {
        // Adding and subtracting 1.5 · 2²³ rounds to the nearest integer by two additions, which the
        // compiler vectorises.
        let rounded = (v * inverse + 12_582_912.0) - 12_582_912.0;
        *q = rounded as i8;
        sum += i32::from(*q);
    }
    *scale = [d, d * sum as f32];
}

/// `out[c * m + r] = ⟨weight row c, x row r⟩` for the rows in `weights` and the m rows of `x`.
///
/// # Panics
/// If `weights` does not hold whole rows, or if the length of `out` is not the number of products.
pub fn products(format: BlockFormat, weights: &[u8], x: &QuantisedRows, out: &mut [f32]) {
    let (row, m) = (x.blocks * format.bytes(), x.rows());
    assert!(
        weights.len().is_multiple_of(row) && out.len() == weights.len() / row * m,
        "whole rows, one result each"
    );
    #[cfg(target_arch = "x86_64")]
    if x86::products(format, weights, x, out) {
        return;
    }
    portable(format, weights, x, out);
}

/// [`products`] without vector instructions, for processors that have no kernel of their own.
fn portable(format: BlockFormat, weights: &[u8], x: &QuantisedRows, out: &mut [f32]) {
    let m = x.rows();
    for (row, out) in weights
        .chunks_exact(x.blocks * format.bytes())
        .zip(out.chunks_exact_mut(m))
    {
        for (r, out) in out.iter_mut().enumerate() {
            *out = 0.0;
            for (b, block) in row.chunks_exact(format.bytes()).enumerate() {
                let (d, min, q) = format.decode(block);
                let at = r * x.blocks + b;
                let [dx, sum] = x.scales[at];
                let values = &x.values[at * BLOCK..(at + 1) * BLOCK];
                let dot: i32 = q
                    .iter()
                    .zip(values)
                    .map(|(&q, &v)| i32::from(q) * i32::from(v))
                    .sum();
                *out += d * dx * dot as f32 + min * sum;
            }
        }
    }
}

/// Dequantises whole blocks to f32, 32 values a block.
///
/// # Panics
/// If the length of `out` is not 32 values for each block.
pub fn dequantise(format: BlockFormat, blocks: &[u8], out: &mut [f32]) {
    assert!(
        blocks.len() / format.bytes() * BLOCK == out.len(),
        "32 values a block"
    );
    vectorised(|| {
        for (block, out) in blocks
            .chunks_exact(format.bytes())
            .zip(out.chunks_exact_mut(BLOCK))
        {
            let (d, m, q) = format.decode(block);
            if matches!(
                format,
                BlockFormat::Q8_0 | BlockFormat::Q4_0 | BlockFormat::Q5_0
            ) {
                // The format defines these values as d · (q − zero); d·q + m could differ in the
                // last bit.
                let zero = (-m / if d == 0.0 { 1.0 } else { d }) as i32;
                for (o, &q) in out.iter_mut().zip(&q) {
                    *o = d * (i32::from(q) - zero) as f32;
                }
            } else {
                for (o, &q) in out.iter_mut().zip(&q) {
                    *o = d * f32::from(q) + m;
                }
            }
        }
    });
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86;

#[cfg(test)]
mod tests {
    use candle_core::quantized::k_quants::{
        BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, GgmlType, matmul,
    };

    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| {
                ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 40_503) >> 8) % 2000) as f32
                    / 1000.0
                    - 1.0
            })
            .collect()
    }

    const K: usize = 192;

    /// Rows quantised by candle: their bytes, their values, and candle's own products with `x`.
    fn candle<T: GgmlType>(w: &[f32], x: &[f32]) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
        let mut blocks = vec![T::zeros(); w.len() / BLOCK];
        T::from_float(w, &mut blocks);
        let mut wide = vec![0.0; w.len()];
        T::to_float(&blocks, &mut wide);
        let (m, n) = (x.len() / K, w.len() / K);
        let mut out = vec![0.0; m * n];
        matmul((m, K, n), x, &blocks, &mut out).unwrap();
        // SAFETY: blocks are plain numbers without padding.
        #[allow(unsafe_code)]
        let bytes = unsafe {
            std::slice::from_raw_parts(blocks.as_ptr().cast::<u8>(), size_of_val(&blocks[..]))
        };
        (bytes.to_vec(), wide, out)
    }

    fn check(format: BlockFormat, make: impl Fn(&[f32], &[f32]) -> (Vec<u8>, Vec<f32>, Vec<f32>)) {
        for m in [1, 2, 3, 4, 7] {
            let (w, x) = (values(5 * K, 7), values(m * K, 8));
            let (bytes, wide, theirs) = make(&w, &x);
            assert_eq!(bytes.len(), 5 * K / BLOCK * format.bytes());
            let mut ours_wide = vec![0.0; w.len()];
            dequantise(format, &bytes, &mut ours_wide);
            assert!(
                ours_wide
                    .iter()
                    .zip(&wide)
                    .all(|(a, b)| (a - b).abs() <= 1e-6),
                "{format:?} widens as candle"
            );
            let x = QuantisedRows::new(&x, K);
            let mut ours = vec![0.0; 5 * m];
            products(format, &bytes, &x, &mut ours);
            for c in 0..5 {
                for r in 0..m {
                    let (a, b) = (ours[c * m + r], theirs[r * 5 + c]);
                    assert!(
                        (a - b).abs() < 2e-2,
                        "{format:?} ({c}, {r}) of {m}: {a} against candle's {b}"
                    );
                }
            }
            let mut plain = vec![0.0; 5 * m];
            portable(format, &bytes, &x, &mut plain);
            assert!(
                ours.iter().zip(&plain).all(|(a, b)| (a - b).abs() < 1e-4),
                "{format:?}: {ours:?} {plain:?}"
            );
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                let mut narrow = vec![0.0; 5 * m];
                x86::narrow(format, &bytes, &x, &mut narrow);
                assert!(
                    ours.iter().zip(&narrow).all(|(a, b)| (a - b).abs() < 1e-4),
                    "{format:?} on AVX2"
                );
            }
        }
    }

    #[test]
    fn every_format_equals_candle() {
        check(BlockFormat::Q4_0, candle::<BlockQ4_0>);
        check(BlockFormat::Q4_1, candle::<BlockQ4_1>);
        check(BlockFormat::Q5_0, candle::<BlockQ5_0>);
        check(BlockFormat::Q5_1, candle::<BlockQ5_1>);
        check(BlockFormat::Q8_0, candle::<BlockQ8_0>);
    }

    #[test]
    fn zeros_and_extreme_values_are_quantised_without_nan() {
        let x = QuantisedRows::new(&[0.0; 64], 64);
        assert!(x.scales.iter().all(|s| *s == [0.0, 0.0]));
        let x = QuantisedRows::new(&[-3e38; 32], 32);
        assert!(x.values.iter().all(|&v| v == -127));
        let mut weights = vec![0xffu8; 34];
        weights[..2].copy_from_slice(&f16::from_f32(1.0).to_le_bytes());
        let mut out = [0.0];
        products(
            BlockFormat::Q8_0,
            &weights,
            &QuantisedRows::new(&[1.0; 32], 32),
            &mut out,
        );
        assert!((out[0] + 32.0).abs() < 1e-3);
    }
}
