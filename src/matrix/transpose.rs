//! Rows to a panel: the one place where the layout of the activations changes.

use super::panel::PANEL;

/// Lays `rows` (row-major, `d` values each, at most [`PANEL`] of them) into `panel` `[d][PANEL]`; rows that are not there
/// are zero.
pub fn transpose(panel: &mut [f32], rows: &[f32], d: usize) {
    let count = rows.len() / d.max(1);
    assert!(count <= PANEL && panel.len() == d * PANEL && rows.len() == count * d, "rows and panel must agree");
    if count < PANEL {
        panel.fill(0.0);
    }
    let (done_rows, done_cols) = tiles(panel, rows, d, count);
    for (r, row) in rows.chunks_exact(d.max(1)).enumerate() {
        let first = if r < done_rows { done_cols } else { 0 };
        for (c, v) in row.iter().enumerate().skip(first) {
            panel[c * PANEL + r] = *v;
        }
    }
}

/// Moves whole tiles with the widest shuffles there are; returns the rows and columns that they cover.
#[allow(unsafe_code)]
fn tiles(panel: &mut [f32], rows: &[f32], d: usize, count: usize) -> (usize, usize) {
    #[cfg(target_arch = "x86_64")]
    {
        if super::simd::has_avx512() {
            // SAFETY: the instructions were found on this processor; the lengths were checked by the caller.
            return unsafe { x86::tiles_16(panel, rows, d, count) };
        }
        if super::simd::has_avx2() {
            // SAFETY: as above.
            return unsafe { x86::tiles_8(panel, rows, d, count) };
        }
    }
    portable(panel, rows, d, count)
}

/// Tiles of 4 × 4, which a compiler turns into shuffles where it can (NEON).
fn portable(panel: &mut [f32], rows: &[f32], d: usize, count: usize) -> (usize, usize) {
    const T: usize = 4;
    let (done_rows, done_cols) = (count - count % T, d - d % T);
    for r in (0..done_rows).step_by(T) {
        for c in (0..done_cols).step_by(T) {
            let mut tile = [[0.0f32; T]; T];
            for (i, line) in tile.iter_mut().enumerate() {
                let at = (r + i) * d + c;
                line.copy_from_slice(&rows[at..at + T]);
            }
            for i in 0..T {
                let at = (c + i) * PANEL + r;
                panel[at..at + T].copy_from_slice(&[tile[0][i], tile[1][i], tile[2][i], tile[3][i]]);
            }
        }
    }
    (done_rows, done_cols)
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;

    use super::PANEL;

    /// Tiles of 16 × 16.
    ///
    /// # Safety
    /// Needs AVX-512F; `rows` holds `count` rows of `d` values and `panel` `d * PANEL`, `count <= PANEL`.
    #[target_feature(enable = "avx512f,avx2")]
    pub(super) unsafe fn tiles_16(panel: &mut [f32], rows: &[f32], d: usize, count: usize) -> (usize, usize) {
        let (done_rows, done_cols) = (count - count % 16, d - d % 16);
        for r in (0..done_rows).step_by(16) {
            for c in (0..done_cols).step_by(16) {
                // SAFETY: r + 15 < count, c + 15 < d, so every access is inside the two slices.
                unsafe {
                    let from = rows.as_ptr().add(r * d + c);
                    let mut x = [_mm512_setzero_ps(); 16];
                    for (i, v) in x.iter_mut().enumerate() {
                        *v = _mm512_loadu_ps(from.add(i * d));
                    }
                    let y = transpose_16(x);
                    let to = panel.as_mut_ptr().add(c * PANEL + r);
                    for (i, v) in y.iter().enumerate() {
                        _mm512_storeu_ps(to.add(i * PANEL), *v);
                    }
                }
            }
        }
        (done_rows, done_cols)
    }

    #[target_feature(enable = "avx512f,avx2")]
    #[inline]
    fn transpose_16(x: [__m512; 16]) -> [__m512; 16] {
        let zero = _mm512_setzero_ps();
        let mut pairs = [zero; 16];
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
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
        let mut out = [zero; 16];
        for t in 0..4 {
            let (a, b, c, e) = (quads[t], quads[4 + t], quads[8 + t], quads[12 + t]);
            let even_low = _mm512_shuffle_f32x4::<0x88>(a, b);
            let odd_low = _mm512_shuffle_f32x4::<0xdd>(a, b);
            let even_high = _mm512_shuffle_f32x4::<0x88>(c, e);
            let odd_high = _mm512_shuffle_f32x4::<0xdd>(c, e);
            out[t] = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
            out[4 + t] = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
            out[8 + t] = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
            out[12 + t] = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
        }
        out
    }

    /// Tiles of 8 × 8.
    ///
    /// # Safety
    /// Needs AVX2; the slices as in [`tiles_16`].
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn tiles_8(panel: &mut [f32], rows: &[f32], d: usize, count: usize) -> (usize, usize) {
        let (done_rows, done_cols) = (count - count % 8, d - d % 8);
        for r in (0..done_rows).step_by(8) {
            for c in (0..done_cols).step_by(8) {
                // SAFETY: r + 7 < count, c + 7 < d, so every access is inside the two slices.
                unsafe {
                    let from = rows.as_ptr().add(r * d + c);
                    let mut x = [_mm256_setzero_ps(); 8];
                    for (i, v) in x.iter_mut().enumerate() {
                        *v = _mm256_loadu_ps(from.add(i * d));
                    }
                    let y = transpose_8(x);
                    let to = panel.as_mut_ptr().add(c * PANEL + r);
                    for (i, v) in y.iter().enumerate() {
                        _mm256_storeu_ps(to.add(i * PANEL), *v);
                    }
                }
            }
        }
        (done_rows, done_cols)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn transpose_8(x: [__m256; 8]) -> [__m256; 8] {
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

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_narrow_tiles_agree_with_the_plain_ones() {
            if !crate::matrix::simd::has_avx2() {
                return;
            }
            let (count, d) = (29, 21);
            let rows: Vec<f32> = (0..count * d).map(|v| v as f32).collect();
            let (mut got, mut want) = (vec![0.0; d * PANEL], vec![0.0; d * PANEL]);
            // SAFETY: AVX2 was just found, and the lengths are as asked.
            let (r, c) = unsafe { tiles_8(&mut got, &rows, d, count) };
            assert_eq!((r, c), (24, 16));
            super::super::portable(&mut want, &rows, d, count);
            for i in 0..c {
                assert_eq!(got[i * PANEL..i * PANEL + r], want[i * PANEL..i * PANEL + r]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_arrives() {
        for (count, d) in [(64, 48), (64, 35), (17, 16), (1, 1), (63, 33), (3, 100)] {
            let rows: Vec<f32> = (0..count * d).map(|v| v as f32 + 1.0).collect();
            let mut panel = vec![f32::NAN; d * PANEL];
            transpose(&mut panel, &rows, d);
            for c in 0..d {
                for r in 0..PANEL {
                    let want = if r < count { rows[r * d + c] } else { 0.0 };
                    assert_eq!(panel[c * PANEL + r], want, "{count} × {d} at ({r}, {c})");
                }
            }
        }
    }
}
