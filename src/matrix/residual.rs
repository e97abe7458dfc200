//! What sparse columns take away from dense lines, many lines at once: the residuals of a sweep over the columns.

use super::simd::{Vector, WIDTH, kernel};

/// Lines of a block.
pub const LINES: usize = WIDTH;

/// `r[t] -= Σ_j weights[j][t] · z_j` for at most [`LINES`] lines `r` of d values each and sparse columns z with entries
/// `offsets[j]..offsets[j + 1]`; `weights` is `[columns][LINES]`, `scratch` keeps its memory between calls.
pub fn subtract(
    r: &mut [f32],
    d: usize,
    weights: &[f32],
    (offsets, indices, values): (&[usize], &[u32], &[f32]),
    scratch: &mut Vec<f32>,
) {
    assert!(r.len() <= d * LINES && r.len().is_multiple_of(d.max(1)), "whole lines, {LINES} at most");
    scratch.clear();
    scratch.resize(d * LINES, 0.0);
    collect(scratch, weights, offsets, indices, values);
    leave(r, d, scratch);
}

kernel! {
    /// `r[t][i] -= taken[i][t]`.
    fn leave(r: &mut [f32], d: usize, taken: &[f32]) = leave_body;
}

#[inline(always)]
fn leave_body<V: Vector>(r: &mut [f32], d: usize, taken: &[f32]) {
    let whole = d - d % WIDTH;
    for first in (0..whole).step_by(WIDTH) {
        let mut square = [V::splat(0.0); WIDTH];
        for (i, v) in square.iter_mut().enumerate() {
            *v = V::load(&taken[(first + i) * LINES..]);
        }
        for (line, v) in r.chunks_exact_mut(d).zip(V::turn(square)) {
            V::load(&line[first..]).sub(v).store(&mut line[first..]);
        }
    }
    for (t, line) in r.chunks_exact_mut(d).enumerate() {
        for i in whole..d {
            line[i] -= taken[i * LINES + t];
        }
    }
}

kernel! {
    fn collect(out: &mut [f32], weights: &[f32], offsets: &[usize], indices: &[u32], values: &[f32]) = collect_body;
}

/// `out[i] += z_j[i] · weights[j]`: an entry is one product of vectors, whatever the number of lines.
#[inline(always)]
fn collect_body<V: Vector>(out: &mut [f32], weights: &[f32], offsets: &[usize], indices: &[u32], values: &[f32]) {
    for (j, span) in offsets.windows(2).enumerate() {
        let weights = V::load(&weights[j * LINES..]);
        for (&i, &v) in indices[span[0]..span[1]].iter().zip(&values[span[0]..span[1]]) {
            let line = &mut out[i as usize * LINES..(i as usize + 1) * LINES];
            V::load(line).add_product(weights, V::splat(v)).store(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_away_the_weighted_columns() {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
        let z = (vec![0, 2, 2, 5], vec![0u32, 6, 1, 2, 6], vec![1.0f32, -2.0, 0.5, 3.0, 1.5]);
        for (lines, d) in [(1, 7), (5, 19), (LINES, 33)] {
            let weights: Vec<f32> = (0..3 * LINES).map(value).collect();
            let before: Vec<f32> = (0..lines * d).map(|i| value(i + 11)).collect();
            let mut r = before.clone();
            subtract(&mut r, d, &weights, (&z.0, &z.1, &z.2), &mut vec![1.0; 3]);
            for t in 0..lines {
                let mut want = before[t * d..(t + 1) * d].to_vec();
                for j in 0..3 {
                    for p in z.0[j]..z.0[j + 1] {
                        want[z.1[p] as usize] -= weights[j * LINES + t] * z.2[p];
                    }
                }
                assert!(r[t * d..(t + 1) * d].iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-5));
            }
        }
    }
}
