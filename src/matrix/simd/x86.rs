//! The vector types of x86-64. SAFETY of every block here: the instruction set was found on this
//! processor (the invariant of [`super`]), and loads and stores go through slices of sixteen values.
use std::arch::x86_64::*;

use super::{Vector, WIDTH};

/// Sixteen lanes in one 512-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

impl Vector for Avx512 {
    const TILE: usize = 3;

    #[inline(always)]
    fn splat(v: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(v) })
    }
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        Self(unsafe { _mm512_loadu_ps(from[..WIDTH].as_ptr()) })
    }
    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        unsafe { _mm512_storeu_ps(to[..WIDTH].as_mut_ptr(), self.0) }
    }
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn sub_product(self, a: Self, b: Self) -> Self {
        Self(unsafe { _mm512_fnmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let high = _mm512_castpd_ps(_mm512_castpd256_pd512(_mm512_extractf64x4_pd::<1>(
                _mm512_castps_pd(self.0),
            )));
            sum_256(_mm256_add_ps(
                _mm512_castps512_ps256(self.0),
                _mm512_castps512_ps256(high),
            ))
        }
    }
    #[inline(always)]
    fn transpose(x: [Self; WIDTH]) -> [Self; WIDTH] {
        unsafe {
            let zero = _mm512_setzero_ps();
            let mut pairs = [zero; 16];
            for i in 0..8 {
                pairs[2 * i] = _mm512_unpacklo_ps(x[2 * i].0, x[2 * i + 1].0);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i].0, x[2 * i + 1].0);
            }
            // quads[4 i + t] holds, in each 128-bit lane q, column 4 q + t of rows 4 i to 4 i + 3.
            let mut quads = [zero; 16];
            for i in 0..4 {
                let a = _mm512_castps_pd(pairs[4 * i]);
                let b = _mm512_castps_pd(pairs[4 * i + 1]);
                let c = _mm512_castps_pd(pairs[4 * i + 2]);
                let e = _mm512_castps_pd(pairs[4 * i + 3]);
                quads[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
                quads[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
                quads[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, e));
                quads[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, e));
            }
            let mut out = x;
            for t in 0..4 {
                let (a, b, c, e) = (quads[t], quads[4 + t], quads[8 + t], quads[12 + t]);
                let even_low = _mm512_shuffle_f32x4::<0x88>(a, b);
                let odd_low = _mm512_shuffle_f32x4::<0xdd>(a, b);
                let even_high = _mm512_shuffle_f32x4::<0x88>(c, e);
                let odd_high = _mm512_shuffle_f32x4::<0xdd>(c, e);
                out[t] = Self(_mm512_shuffle_f32x4::<0x88>(even_low, even_high));
                out[4 + t] = Self(_mm512_shuffle_f32x4::<0x88>(odd_low, odd_high));
                out[8 + t] = Self(_mm512_shuffle_f32x4::<0xdd>(even_low, even_high));
                out[12 + t] = Self(_mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high));
            }
            out
        }
    }
    #[inline(always)]
    fn sum_each(x: [Self; WIDTH]) -> Self {
        // Half the shuffles of a transposition: pairs are added as soon as they are adjacent.
        unsafe {
            let mut pairs = [_mm512_setzero_ps(); 8];
            for (i, p) in pairs.iter_mut().enumerate() {
                let (a, b) = (x[2 * i].0, x[2 * i + 1].0);
                *p = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            }
            let mut fours = [_mm512_setzero_ps(); 4];
            for (i, f) in fours.iter_mut().enumerate() {
                let (a, b) = (
                    _mm512_castps_pd(pairs[2 * i]),
                    _mm512_castps_pd(pairs[2 * i + 1]),
                );
                let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                *f = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            }
            // Adds the even and the odd 128-bit quarters of two vectors, then does the same with the
            // results.
            for (a, b, to) in [(0, 1, 0), (2, 3, 1), (0, 1, 0)] {
                let (a, b) = (fours[a], fours[b]);
                fours[to] = _mm512_add_ps(
                    _mm512_shuffle_f32x4::<0x88>(a, b),
                    _mm512_shuffle_f32x4::<0xdd>(a, b),
                );
            }
            Self(fours[0])
        }
    }
    #[inline(always)]
    fn prefetch(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    fn prefetch_l2(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
}

/// Sixteen lanes in two 256-bit registers.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

impl Avx2 {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(__m256, __m256) -> __m256) -> Self {
        Self(f(self.0, other.0), f(self.1, other.1))
    }
}

impl Vector for Avx2 {
    const TILE: usize = 1;

    #[inline(always)]
    fn splat(v: f32) -> Self {
        let v = unsafe { _mm256_set1_ps(v) };
        Self(v, v)
    }
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        let at = from[..WIDTH].as_ptr();
        unsafe { Self(_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        let at = to[..WIDTH].as_mut_ptr();
        unsafe {
            _mm256_storeu_ps(at, self.0);
            _mm256_storeu_ps(at.add(8), self.1);
        }
    }
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        unsafe {
            Self(
                _mm256_fmadd_ps(a.0, b.0, self.0),
                _mm256_fmadd_ps(a.1, b.1, self.1),
            )
        }
    }
    #[inline(always)]
    fn sub_product(self, a: Self, b: Self) -> Self {
        unsafe {
            Self(
                _mm256_fnmadd_ps(a.0, b.0, self.0),
                _mm256_fnmadd_ps(a.1, b.1, self.1),
            )
        }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_sub_ps(a, b) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_div_ps(a, b) })
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| unsafe { _mm256_max_ps(a, b) })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { Self(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1)) }
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe { sum_256(_mm256_add_ps(self.0, self.1)) }
    }
    #[inline(always)]
    fn transpose(x: [Self; WIDTH]) -> [Self; WIDTH] {
        let mut out = x;
        // The square in quarters of 8 × 8, each transposed; those off the diagonal are exchanged.
        for half in 0..2 {
            let low: [__m256; 8] = std::array::from_fn(|i| x[8 * half + i].0);
            let high: [__m256; 8] = std::array::from_fn(|i| x[8 * half + i].1);
            let (low, high) = unsafe { (transpose_8(low), transpose_8(high)) };
            for i in 0..8 {
                let (upper, lower) = (&mut out[i], low[i]);
                if half == 0 {
                    upper.0 = lower
                } else {
                    upper.1 = lower
                }
                let (upper, lower) = (&mut out[8 + i], high[i]);
                if half == 0 {
                    upper.0 = lower
                } else {
                    upper.1 = lower
                }
            }
        }
        out
    }
    #[inline(always)]
    fn prefetch(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    fn prefetch_l2(from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
}

/// SAFETY: needs AVX.
#[inline(always)]
unsafe fn transpose_8(x: [__m256; 8]) -> [__m256; 8] {
    unsafe {
        let zero = _mm256_setzero_ps();
        let mut quads = [zero; 8];
        for i in 0..2 {
            let at = 4 * i;
            let a = _mm256_castps_pd(_mm256_unpacklo_ps(x[at], x[at + 1]));
            let b = _mm256_castps_pd(_mm256_unpackhi_ps(x[at], x[at + 1]));
            let c = _mm256_castps_pd(_mm256_unpacklo_ps(x[at + 2], x[at + 3]));
            let e = _mm256_castps_pd(_mm256_unpackhi_ps(x[at + 2], x[at + 3]));
            quads[at] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
            quads[at + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
            quads[at + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, e));
            quads[at + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, e));
        }
        let mut out = [zero; 8];
        for t in 0..4 {
            out[t] = _mm256_permute2f128_ps::<0x20>(quads[t], quads[4 + t]);
            out[4 + t] = _mm256_permute2f128_ps::<0x31>(quads[t], quads[4 + t]);
        }
        out
    }
}

/// SAFETY: needs AVX.
#[inline(always)]
unsafe fn sum_256(v: __m256) -> f32 {
    unsafe {
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
    }
}
