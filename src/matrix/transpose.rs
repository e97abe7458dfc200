//! Transposes rows into a panel: the only place where the layout of activations changes. Knows
//! nothing of what the values mean.

use super::panel::PANEL;
use super::simd::{Vector, WIDTH, kernel};

/// Transposes `rows` (row-major, `d` values each, at most [`PANEL`] of them) into `panel`
/// `[d][PANEL]`; rows beyond the last are zero.
///
/// # Panics
/// If there are more than [`PANEL`] rows, or if the lengths do not agree with `d`.
pub fn transpose(panel: &mut [f32], rows: &[f32], d: usize) {
    let count = rows.len() / d.max(1);
    assert!(
        count <= PANEL && panel.len() == d * PANEL && rows.len() == count * d,
        "rows and panel must agree"
    );
    transpose_rows(panel, rows, d);
}

kernel! {
    fn transpose_rows(panel: &mut [f32], rows: &[f32], d: usize) = transpose_rows_body;
}

#[inline(always)]
fn transpose_rows_body<V: Vector>(panel: &mut [f32], rows: &[f32], d: usize) {
    let (count, whole) = (rows.len() / d.max(1), d - d % WIDTH);
    // Sixteen rows at a time: about as many streams as the hardware prefetcher follows.
    for r in (0..PANEL).step_by(WIDTH) {
        for first in (0..whole).step_by(WIDTH) {
            let mut square = [V::splat(0.0); WIDTH];
            for (i, v) in square.iter_mut().enumerate() {
                if r + i < count {
                    *v = V::load(&rows[(r + i) * d + first..]);
                }
            }
            for (i, v) in V::transpose(square).iter().enumerate() {
                v.store(&mut panel[(first + i) * PANEL + r..]);
            }
        }
    }
    for (i, line) in panel.chunks_exact_mut(PANEL).enumerate().skip(whole) {
        for (r, v) in line.iter_mut().enumerate() {
            *v = if r < count { rows[r * d + i] } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_at_its_transposed_place() {
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
