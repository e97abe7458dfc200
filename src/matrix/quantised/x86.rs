//! The kernels of x86-64: with AVX-512 VNNI if the processor has it, otherwise with AVX2.

use std::arch::x86_64::*;

use super::{BLOCK, BlockFormat, QuantisedRows};

/// Runs the best kernel for this processor; returns `false` if there is none.
pub(super) fn products(
    format: BlockFormat,
    weights: &[u8],
    x: &QuantisedRows,
    out: &mut [f32],
) -> bool {
    if !(is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c"))
    {
        return false;
    }
    if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl") {
        // SAFETY: the features were just found; lengths were checked by the caller.
        unsafe { with_vnni(format, weights, x, out) };
    } else {
        // SAFETY: as above.
        unsafe { with_avx2(format, weights, x, out) };
    }
    true
}

/// # Safety
/// The features must be there; `weights`, `x` and `out` must fit each other.
#[target_feature(enable = "avx512vnni,avx512vl,avx2,fma,f16c")]
unsafe fn with_vnni(format: BlockFormat, weights: &[u8], x: &QuantisedRows, out: &mut [f32]) {
    let dot = |q, v| _mm256_dpbusd_epi32(_mm256_setzero_si256(), q, v);
    // SAFETY: as the caller vouches.
    unsafe { dispatch(format, weights, x, out, dot) };
}

/// # Safety
/// As [`with_vnni`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn with_avx2(format: BlockFormat, weights: &[u8], x: &QuantisedRows, out: &mut [f32]) {
    let dot = |q, v| {
        // Pairs of products reach 2 · 255 · 127, beyond 16 bits: halves of at most 7 bits do not.
        let low = _mm256_and_si256(q, _mm256_set1_epi8(0x7f));
        let high = _mm256_and_si256(_mm256_srli_epi16::<7>(q), _mm256_set1_epi8(1));
        let ones = _mm256_set1_epi16(1);
        let low = _mm256_madd_epi16(_mm256_maddubs_epi16(low, v), ones);
        let high = _mm256_madd_epi16(_mm256_maddubs_epi16(high, v), ones);
        _mm256_add_epi32(low, _mm256_slli_epi32::<7>(high))
    };
    // SAFETY: as the caller vouches.
    unsafe { dispatch(format, weights, x, out, dot) };
}

/// Runs the loop over rows with the unpacking of `format` and the byte dot product `dot`.
#[inline(always)]
unsafe fn dispatch(
    format: BlockFormat,
    weights: &[u8],
    x: &QuantisedRows,
    out: &mut [f32],
    dot: impl Fn(__m256i, __m256i) -> __m256i + Copy,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        match format {
            BlockFormat::Q4_0 => all_products::<18>(weights, x, out, dot, |b| unpack_4(b, 2, -8.0)),
            BlockFormat::Q4_1 => all_products::<20>(weights, x, out, dot, |b| unpack_4(b, 4, 0.0)),
            BlockFormat::Q5_0 => {
                all_products::<22>(weights, x, out, dot, |b| unpack_5(b, 2, -16.0))
            }
            BlockFormat::Q5_1 => all_products::<24>(weights, x, out, dot, |b| unpack_5(b, 4, 0.0)),
            BlockFormat::Q8_0 => all_products::<34>(weights, x, out, dot, |b| unpack_8(b)),
        }
    }
}

/// Returns d in lane 0 and m in lane 1. With `zero` = 0 both are read from the block, otherwise m =
/// zero · d.
#[inline(always)]
unsafe fn scale(block: *const u8, zero: f32) -> __m128 {
    // SAFETY: every block begins with at least four bytes; the features are the caller's.
    unsafe {
        let both = _mm_cvtph_ps(_mm_cvtsi32_si128(block.cast::<i32>().read_unaligned()));
        if zero == 0.0 {
            both
        } else {
            _mm_mul_ps(_mm_moveldup_ps(both), _mm_setr_ps(1.0, zero, 0.0, 0.0))
        }
    }
}

/// The low four bits of 16 bytes, then their high four bits, as 32 bytes.
#[inline(always)]
unsafe fn nibbles(from: *const u8) -> __m256i {
    // SAFETY: the block holds 16 bytes from here on.
    unsafe {
        let packed = _mm_loadu_si128(from.cast());
        let both = _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed);
        _mm256_and_si256(both, _mm256_set1_epi8(15))
    }
}

/// The scales and the 32 values of a block of four-bit values that begin at byte `at`.
#[inline(always)]
unsafe fn unpack_4(block: *const u8, at: usize, zero: f32) -> (__m128, __m256i) {
    // SAFETY: as the caller vouches.
    unsafe { (scale(block, zero), nibbles(block.add(at))) }
}

/// The scales and the 32 values of a block of five-bit values; the high bits begin at byte `at`.
#[inline(always)]
unsafe fn unpack_5(block: *const u8, at: usize, zero: f32) -> (__m128, __m256i) {
    // SAFETY: four bytes of high bits lie at `at`, then sixteen of nibbles.
    unsafe {
        let bits = _mm256_set1_epi32(block.add(at).cast::<i32>().read_unaligned());
        // Byte i of the result looks at byte i / 8 of the bits, and there at bit i % 8.
        let spread = _mm256_setr_epi64x(
            0,
            0x0101_0101_0101_0101,
            0x0202_0202_0202_0202,
            0x0303_0303_0303_0303,
        );
        let bytes = _mm256_shuffle_epi8(bits, spread);
        let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
        let high = _mm256_and_si256(set, _mm256_set1_epi8(16));
        (
            scale(block, zero),
            _mm256_or_si256(nibbles(block.add(at + 4)), high),
        )
    }
}

/// The scales and the 32 values of a block of bytes, made unsigned.
#[inline(always)]
unsafe fn unpack_8(block: *const u8) -> (__m128, __m256i) {
    // SAFETY: 32 bytes follow the two of d.
    unsafe {
        let q = _mm256_loadu_si256(block.add(2).cast());
        (
            scale(block, -128.0),
            _mm256_xor_si256(q, _mm256_set1_epi8(-128)),
        )
    }
}

#[inline(always)]
unsafe fn all_products<const BYTES: usize>(
    weights: &[u8],
    x: &QuantisedRows,
    out: &mut [f32],
    dot: impl Fn(__m256i, __m256i) -> __m256i + Copy,
    unpack: impl Fn(*const u8) -> (__m128, __m256i) + Copy,
) {
    let m = x.rows();
    for (row, out) in weights
        .chunks_exact(x.blocks * BYTES)
        .zip(out.chunks_exact_mut(m))
    {
        let mut r = 0;
        // SAFETY: rows r.. of x exist in each call; a weight row has x.blocks blocks.
        unsafe {
            while r + 4 <= m {
                out[r..r + 4].copy_from_slice(&row_products::<4, BYTES>(row, x, r, dot, unpack));
                r += 4;
            }
            if r + 2 <= m {
                out[r..r + 2].copy_from_slice(&row_products::<2, BYTES>(row, x, r, dot, unpack));
                r += 2;
            }
            if r < m {
                out[r] = row_products::<1, BYTES>(row, x, r, dot, unpack)[0];
            }
        }
    }
}

/// The products of one weight row with M rows of activations, from row `first` on.
#[inline(always)]
unsafe fn row_products<const M: usize, const BYTES: usize>(
    row: &[u8],
    x: &QuantisedRows,
    first: usize,
    dot: impl Fn(__m256i, __m256i) -> __m256i,
    unpack: impl Fn(*const u8) -> (__m128, __m256i),
) -> [f32; M] {
    // SAFETY: block b < x.blocks lies in the row and in each of the M rows of x.
    unsafe {
        let mut sums = [_mm256_setzero_ps(); M];
        let mut offsets = [_mm_setzero_ps(); M];
        let (values, scales) = (x.values.as_ptr(), x.scales.as_ptr());
        for b in 0..x.blocks {
            let (scale, q) = unpack(row.as_ptr().add(b * BYTES));
            for r in 0..M {
                let at = (first + r) * x.blocks + b;
                let v = _mm256_loadu_si256(values.add(at * BLOCK).cast());
                // Lane 0: d · dx; lane 1: m · dx Σ.
                let pair = _mm_castsi128_ps(_mm_loadl_epi64(scales.add(at).cast()));
                let both = _mm_mul_ps(scale, pair);
                let whole = _mm256_cvtepi32_ps(dot(q, v));
                sums[r] = _mm256_fmadd_ps(whole, _mm256_broadcastss_ps(both), sums[r]);
                offsets[r] = _mm_add_ps(offsets[r], both);
            }
        }
        let mut out = [0.0; M];
        for ((out, sum), offset) in out.iter_mut().zip(sums).zip(offsets) {
            let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            let one = _mm_add_ss(two, _mm_movehdup_ps(two));
            *out = _mm_cvtss_f32(_mm_add_ss(one, _mm_movehdup_ps(offset)));
        }
        out
    }
}

#[cfg(test)]
pub(super) fn narrow(format: BlockFormat, weights: &[u8], x: &QuantisedRows, out: &mut [f32]) {
    // SAFETY: tests run it where AVX2, FMA and F16C are, with fitting slices.
    unsafe { with_avx2(format, weights, x, out) }
}
