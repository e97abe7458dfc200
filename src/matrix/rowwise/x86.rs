//! The register tiles of x86-64.

use std::arch::x86_64::*;

use super::{MR, NR};

/// Transposes the first `rows` × `cols` values (multiples of 8) of the row-major `from` into lines
/// of NR values, in blocks of 8 × 8.
///
/// # Safety
/// AVX2 must be there, `rows` ≤ NR, `cols` ≤ k, and both slices hold what that means.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose(
    from: &[f32],
    k: usize,
    panel: &mut [f32],
    rows: usize,
    cols: usize,
) {
    for p in (0..cols).step_by(8) {
        for j in (0..rows).step_by(8) {
            // SAFETY: rows j..j + 8 have k ≥ p + 8 values; lines p..p + 8 of the panel have NR ≥ j
            // + 8.
            unsafe {
                let line = |i: usize| _mm256_loadu_ps(from.as_ptr().add((j + i) * k + p));
                let pair = |i: usize| {
                    let (a, b) = (line(i), line(i + 1));
                    (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
                };
                let four = |i: usize| {
                    let ((a, b), (c, d)) = (pair(i), pair(i + 2));
                    [
                        _mm256_shuffle_ps::<0x44>(a, c),
                        _mm256_shuffle_ps::<0xee>(a, c),
                        _mm256_shuffle_ps::<0x44>(b, d),
                        _mm256_shuffle_ps::<0xee>(b, d),
                    ]
                };
                let (top, bottom) = (four(0), four(4));
                for i in 0..4 {
                    let low = _mm256_permute2f128_ps::<0x20>(top[i], bottom[i]);
                    let high = _mm256_permute2f128_ps::<0x31>(top[i], bottom[i]);
                    _mm256_storeu_ps(panel.as_mut_ptr().add((p + i) * NR + j), low);
                    _mm256_storeu_ps(panel.as_mut_ptr().add((p + i + 4) * NR + j), high);
                }
            }
        }
    }
}

/// Computes a tile of H × 32 with at most 24 accumulators of 512 bits.
///
/// # Safety
/// AVX-512F must be there and `out` valid for the tile, of at most H rows.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile_512<const H: usize>(
    a: &[f32],
    b: &[f32],
    out: *mut f32,
    stride: usize,
    size: (usize, usize),
    add: bool,
) {
    let steps = a.len() / MR;
    let (mut a, mut b) = (a.as_ptr(), b.as_ptr());
    let mut sums = [[_mm512_setzero_ps(); 2]; H];
    for _ in 0..steps {
        // SAFETY: `a` and `b` hold `steps` groups of MR and NR values.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
            for (i, sum) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i));
                sum[0] = _mm512_fmadd_ps(x, low, sum[0]);
                sum[1] = _mm512_fmadd_ps(x, high, sum[1]);
            }
            a = a.add(MR);
            b = b.add(NR);
        }
    }
    let mask = |from: usize| {
        let left = size.1.saturating_sub(from).min(16) as u32;
        ((1u32 << left) - 1) as u16
    };
    for (i, sum) in sums.iter().enumerate().take(size.0) {
        for (half, &sum) in sum.iter().enumerate() {
            let mask = mask(16 * half);
            // SAFETY: the mask keeps to the columns that the caller vouches for.
            unsafe {
                let to = out.add(i * stride + 16 * half);
                let old = if add {
                    _mm512_maskz_loadu_ps(mask, to)
                } else {
                    _mm512_setzero_ps()
                };
                _mm512_mask_storeu_ps(to, mask, _mm512_add_ps(old, sum));
            }
        }
    }
}

/// Computes a tile of 12 × 32 as tiles of at most 6 × 16, with 12 accumulators of 256 bits.
///
/// # Safety
/// AVX2 and FMA must be there and `out` valid for the tile.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_256(
    a: &[f32],
    b: &[f32],
    out: *mut f32,
    stride: usize,
    size: (usize, usize),
    add: bool,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        match size.0 {
            1 => tiles_256::<1>(a, b, out, stride, size, add),
            2 => tiles_256::<2>(a, b, out, stride, size, add),
            3 | 4 => tiles_256::<4>(a, b, out, stride, size, add),
            _ => tiles_256::<6>(a, b, out, stride, size, add),
        }
    }
}

/// # Safety
/// As [`tile_256`].
#[target_feature(enable = "avx2,fma")]
unsafe fn tiles_256<const ROWS: usize>(
    a: &[f32],
    b: &[f32],
    out: *mut f32,
    stride: usize,
    size: (usize, usize),
    add: bool,
) {
    let steps = a.len() / MR;
    for top in (0..size.0).step_by(ROWS) {
        for left in (0..size.1).step_by(16) {
            let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
            for p in 0..steps {
                // SAFETY: top + ROWS ≤ MR and left + 16 ≤ NR.
                unsafe {
                    let (a, b) = (a.as_ptr().add(p * MR + top), b.as_ptr().add(p * NR + left));
                    let (low, high) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(*a.add(i));
                        sum[0] = _mm256_fmadd_ps(x, low, sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, high, sum[1]);
                    }
                }
            }
            for (i, sum) in sums.iter().enumerate().take(size.0 - top) {
                let mut line = [0.0f32; 16];
                // SAFETY: `line` has room for both halves; the loop keeps to the columns vouched
                // for.
                unsafe {
                    _mm256_storeu_ps(line.as_mut_ptr(), sum[0]);
                    _mm256_storeu_ps(line.as_mut_ptr().add(8), sum[1]);
                    let to = out.add((top + i) * stride + left);
                    for (j, v) in line.iter().enumerate().take(size.1 - left) {
                        let to = &mut *to.add(j);
                        *to = if add { *to + v } else { *v };
                    }
                }
            }
        }
    }
}
