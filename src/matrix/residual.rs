//! Residuals of lines of AᵀY after weighted sparse columns are subtracted, sixteen lines at a time,
//! for the sweep that chooses supports. Knows nothing of supports.
//!
//! Sixteen lines are computed together because an entry of a sparse column is then one fused
//! multiply-add of a vector; line by line it would be a scattered scalar access for each line.

use std::ops::Range;

use super::simd::{Vector, WIDTH, kernel};

/// The number of lines of a block, one for each lane of a vector.
pub const BLOCK_LINES: usize = WIDTH;

/// G = YᵀY in f32 with its rows padded to whole vectors, so that a kernel loads sixteen entries of a
/// row from any multiple of sixteen.
#[derive(Debug, Default)]
pub struct GramRows {
    values: Vec<f32>,
    width: usize,
}

impl GramRows {
    /// Rounds the row-major k × k matrix `gram` to f32.
    pub fn new(gram: &[f64], k: usize) -> Self {
        let width = k.next_multiple_of(WIDTH);
        let mut values = vec![0.0; k * width];
        for (to, from) in values
            .chunks_exact_mut(width.max(1))
            .zip(gram.chunks_exact(k.max(1)))
        {
            to.iter_mut().zip(from).for_each(|(to, v)| *to = *v as f32);
        }
        Self { values, width }
    }

    /// The length of a padded row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row j, padded with zeros.
    #[inline(always)]
    pub fn row(&self, j: usize) -> &[f32] {
        &self.values[j * self.width..(j + 1) * self.width]
    }
}

/// The arrays of sparse columns: `offsets`, `indices` and `values` as in
/// [`crate::factor::SparseColumns`].
pub type SparseEntries<'e> = (&'e [usize], &'e [u32], &'e [f32]);

/// `out[t] = lines[t] − Σ_j weights[j][first + t] · z_j` over the columns j in both ranges of
/// `columns`, for at most [`BLOCK_LINES`] lines of d values each; `scratch` keeps its memory between
/// calls.
///
/// # Panics
/// If `lines` does not hold whole lines, or holds more than [`BLOCK_LINES`].
pub fn subtract_columns(
    out: &mut Vec<f32>,
    lines: &[f32],
    d: usize,
    (weights, first): (&GramRows, usize),
    columns: [Range<usize>; 2],
    entries: SparseEntries<'_>,
    scratch: &mut Vec<f32>,
) {
    assert!(
        lines.len() <= d * BLOCK_LINES && lines.len().is_multiple_of(d.max(1)),
        "whole lines, {BLOCK_LINES} at most"
    );
    scratch.clear();
    scratch.resize(d * BLOCK_LINES, 0.0);
    for columns in columns {
        accumulate_columns(scratch, weights, first, columns, entries);
    }
    out.resize(lines.len(), 0.0);
    subtract_transposed(out, lines, d, scratch);
}

kernel! {
    /// `out[t][i] = lines[t][i] − subtrahend[i][t]`.
    fn subtract_transposed(out: &mut [f32], lines: &[f32], d: usize, subtrahend: &[f32]) = subtract_transposed_body;
}

#[inline(always)]
fn subtract_transposed_body<V: Vector>(
    out: &mut [f32],
    lines: &[f32],
    d: usize,
    subtrahend: &[f32],
) {
    let whole = d - d % WIDTH;
    for first in (0..whole).step_by(WIDTH) {
        let mut square = [V::splat(0.0); WIDTH];
        for (i, v) in square.iter_mut().enumerate() {
            *v = V::load(&subtrahend[(first + i) * BLOCK_LINES..]);
        }
        for ((to, line), v) in out
            .chunks_exact_mut(d)
            .zip(lines.chunks_exact(d))
            .zip(V::transpose(square))
        {
            // The same values of the next block, which the caller processes next.
            V::prefetch_l2(line[first..].as_ptr().wrapping_add(d * BLOCK_LINES));
            V::load(&line[first..]).sub(v).store(&mut to[first..]);
        }
    }
    for (t, (to, line)) in out
        .chunks_exact_mut(d)
        .zip(lines.chunks_exact(d))
        .enumerate()
    {
        for i in whole..d {
            to[i] = line[i] - subtrahend[i * BLOCK_LINES + t];
        }
    }
}

kernel! {
    /// `out[i] += z_j[i] · weights[j][first..]` for all lines of the block, stored `[d][BLOCK_LINES]`:
    /// one multiply-add of vectors for each entry.
    fn accumulate_columns(
        out: &mut [f32], weights: &GramRows, first: usize, columns: Range<usize>, entries: SparseEntries<'_>,
    ) = accumulate_columns_body;
}

#[inline(always)]
fn accumulate_columns_body<V: Vector>(
    out: &mut [f32],
    weights: &GramRows,
    first: usize,
    columns: Range<usize>,
    (offsets, indices, values): SparseEntries<'_>,
) {
    for j in columns {
        let weights = V::load(&weights.row(j)[first..]);
        let span = offsets[j]..offsets[j + 1];
        for (&i, &v) in indices[span.clone()].iter().zip(&values[span]) {
            let line = &mut out[i as usize * BLOCK_LINES..(i as usize + 1) * BLOCK_LINES];
            V::load(line).add_product(weights, V::splat(v)).store(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtracts_the_weighted_columns() {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
        let z = (
            vec![0, 2, 2, 5],
            vec![0u32, 6, 1, 2, 6],
            vec![1.0f32, -2.0, 0.5, 3.0, 1.5],
        );
        for (first, d) in [(0, 7), (16, 19), (0, 33)] {
            // The block consists of the first sixteen of twenty lines, or of the last four.
            let (k, gram) = (
                20,
                (0..400)
                    .map(|i| value(i / 20 + i % 20 + 5) as f64)
                    .collect::<Vec<_>>(),
            );
            let weights = GramRows::new(&gram, k);
            let count = BLOCK_LINES.min(k - first);
            let before: Vec<f32> = (0..count * d).map(|i| value(i + 11)).collect();
            let (mut out, entries) = (vec![f32::NAN; 3], (&z.0[..], &z.1[..], &z.2[..]));
            for columns in [[0..3, 3..3], [0..1, 2..3]] {
                subtract_columns(
                    &mut out,
                    &before,
                    d,
                    (&weights, first),
                    columns.clone(),
                    entries,
                    &mut vec![1.0; 3],
                );
                for t in 0..count {
                    let mut want = before[t * d..(t + 1) * d].to_vec();
                    for j in columns.iter().cloned().flatten() {
                        for p in z.0[j]..z.0[j + 1] {
                            want[z.1[p] as usize] -= gram[j * k + first + t] as f32 * z.2[p];
                        }
                    }
                    assert!(
                        out[t * d..(t + 1) * d]
                            .iter()
                            .zip(&want)
                            .all(|(a, b)| (a - b).abs() < 1e-5)
                    );
                }
            }
        }
    }
}
