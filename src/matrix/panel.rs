//! Kernels over a panel: [`PANEL`] token rows stored such that the values of one neuron (or one
//! feature) at all of them are contiguous.
//!
//! A panel of activations is `[d][PANEL]`, one of coefficients or projections `[k][PANEL]`; rows beyond
//! the last are zero. Sparse columns of Z then need whole lines of the panel and no gather of single
//! values. Knows nothing of solvers.

pub use super::coordinate::{Gram, hals_sweep, multiplicative_step, quadratic_forms};
pub use super::transpose::transpose;

use super::simd::{Vector, WIDTH, kernel};

/// The number of token rows in a panel: four vectors of sixteen, so that a line is four cache lines
/// and four sums fit in registers beside other operands.
pub const PANEL: usize = 64;

/// The number of vectors in a line of a panel, 4.
pub(super) const VECTORS: usize = PANEL / WIDTH;

/// Loads line `j` of a panel into registers.
#[inline(always)]
pub(super) fn load_line<V: Vector>(panel: &[f32], j: usize) -> [V; VECTORS] {
    let line = &panel[j * PANEL..j * PANEL + PANEL];
    let mut out = [V::splat(0.0); VECTORS];
    for (c, v) in out.iter_mut().enumerate() {
        *v = V::load(&line[c * WIDTH..]);
    }
    out
}

/// Stores registers into line `j` of a panel.
#[inline(always)]
pub(super) fn store_line<V: Vector>(panel: &mut [f32], j: usize, values: [V; VECTORS]) {
    let line = &mut panel[j * PANEL..j * PANEL + PANEL];
    for (c, v) in values.iter().enumerate() {
        v.store(&mut line[c * WIDTH..]);
    }
}

kernel! {
    /// P = A Z on one panel: `out[j] = Σ_q values[j][q] · panel[indices[j][q]]` for each sparse
    /// column j. `offsets`, `indices` and `values` are those of a matrix whose columns are sparse.
    pub fn project(out: &mut [f32], panel: &[f32], offsets: &[usize], indices: &[u32], values: &[f32]) = project_body;
}

#[inline(always)]
fn project_body<V: Vector>(
    out: &mut [f32],
    panel: &[f32],
    offsets: &[usize],
    indices: &[u32],
    values: &[f32],
) {
    for (j, span) in offsets.windows(2).enumerate() {
        let (indices, values) = (&indices[span[0]..span[1]], &values[span[0]..span[1]]);
        // Two independent sums for each vector: the processor starts a second multiply-add before the
        // first has finished.
        let mut sums = [[V::splat(0.0); VECTORS]; 2];
        let pairs = indices.chunks_exact(2).zip(values.chunks_exact(2));
        for (i, v) in pairs {
            for t in 0..2 {
                let (row, v) = (load_line::<V>(panel, i[t] as usize), V::splat(v[t]));
                for c in 0..VECTORS {
                    sums[t][c] = sums[t][c].add_product(row[c], v);
                }
            }
        }
        if indices.len() % 2 == 1 {
            let last = indices.len() - 1;
            let (row, v) = (
                load_line::<V>(panel, indices[last] as usize),
                V::splat(values[last]),
            );
            for c in 0..VECTORS {
                sums[0][c] = sums[0][c].add_product(row[c], v);
            }
        }
        let mut total = sums[0];
        for c in 0..VECTORS {
            total[c] = total[c].add(sums[1][c]);
        }
        store_line(out, j, total);
    }
}

kernel! {
    /// The entries of AᵀY on the supports only: `out[j][q] += Σ_rows panel[indices[j][q]] · y[j]`.
    pub fn gather_products(
        out: &mut [f32], panel: &[f32], y: &[f32], offsets: &[usize], indices: &[u32],
    ) = gather_products_body;
}

#[inline(always)]
fn gather_products_body<V: Vector>(
    out: &mut [f32],
    panel: &[f32],
    y: &[f32],
    offsets: &[usize],
    indices: &[u32],
) {
    for (j, span) in offsets.windows(2).enumerate() {
        let coefficients = load_line::<V>(y, j);
        let entries = indices[span[0]..span[1]].chunks(WIDTH);
        for (indices, out) in entries.zip(out[span[0]..span[1]].chunks_mut(WIDTH)) {
            // Sixteen entries have their lanes summed at once, which takes fewer shuffles than sixteen
            // sums of one vector each.
            let mut square = [V::splat(0.0); WIDTH];
            for (t, &i) in indices.iter().enumerate() {
                let row = load_line::<V>(panel, i as usize);
                let mut sums = [row[0].mul(coefficients[0]), row[1].mul(coefficients[1])];
                for c in 2..VECTORS {
                    sums[c % 2] = sums[c % 2].add_product(row[c], coefficients[c]);
                }
                square[t] = sums[0].add(sums[1]);
            }
            let mut sums = [0.0; WIDTH];
            V::sum_each(square).store(&mut sums);
            out.iter_mut().zip(sums).for_each(|(o, v)| *o += v);
        }
    }
}

kernel! {
    /// Σ_j y_j p_j of each row, for `y` and `p` `[k][PANEL]`; `rows` has PANEL values.
    pub fn row_dots(rows: &mut [f32], y: &[f32], p: &[f32]) = row_dots_body;
}

#[inline(always)]
fn row_dots_body<V: Vector>(rows: &mut [f32], y: &[f32], p: &[f32]) {
    let mut sums = [V::splat(0.0); VECTORS];
    for j in 0..y.len() / PANEL {
        let (y, p) = (load_line::<V>(y, j), load_line::<V>(p, j));
        for c in 0..VECTORS {
            sums[c] = sums[c].add_product(y[c], p[c]);
        }
    }
    store_line(rows, 0, sums);
}

kernel! {
    /// The sum of each line of `y` `[k][PANEL]`; `out` has k values.
    pub fn line_sums(out: &mut [f32], y: &[f32]) = line_sums_body;
}

#[inline(always)]
fn line_sums_body<V: Vector>(out: &mut [f32], y: &[f32]) {
    for (out, lines) in out.chunks_mut(WIDTH).zip(y.chunks(WIDTH * PANEL)) {
        let mut square = [V::splat(0.0); WIDTH];
        for i in 0..out.len() {
            let line = load_line::<V>(lines, i);
            square[i] = line[0].add(line[1]).add(line[2].add(line[3]));
        }
        let mut sums = [0.0; WIDTH];
        V::sum_each(square).store(&mut sums);
        out.copy_from_slice(&sums[..out.len()]);
    }
}

kernel! {
    /// Prefetches `values` into the first-level cache, ahead of their use.
    pub fn prefetch(values: &[f32]) = prefetch_body;
}

#[inline(always)]
fn prefetch_body<V: Vector>(values: &[f32]) {
    values.chunks(WIDTH).for_each(|v| V::prefetch(v.as_ptr()));
}

/// Multiplies line j of a panel by `factors[j]`; a factor of 1 is skipped.
pub fn scale_lines(lines: &mut [f32], factors: &[f32]) {
    for (line, &f) in lines.chunks_exact_mut(PANEL).zip(factors) {
        if f != 1.0 {
            for v in line {
                *v *= f;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::simd::Portable;

    #[test]
    fn sparse_products_follow_the_formulas() {
        let (d, k) = (9, 3);
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
        let panel: Vec<f32> = (0..d * PANEL).map(value).collect();
        let y: Vec<f32> = (0..k * PANEL).map(|i| value(i + 5)).collect();
        let (offsets, indices, values) = (
            [0, 4, 4, 9],
            [0u32, 2, 5, 8, 0, 1, 3, 4, 7],
            [1.0f32, -2.0, 0.5, 3.0, 1.5, -0.25, 2.0, 1.0, -1.0],
        );
        let mut p = vec![f32::NAN; k * PANEL];
        project(&mut p, &panel, &offsets, &indices, &values);
        let mut sums = vec![1.0f32; 9];
        gather_products(&mut sums, &panel, &y, &offsets, &indices);
        let mut rows = vec![0.0f32; PANEL];
        row_dots(&mut rows, &y, &p);
        for j in 0..k {
            for r in 0..PANEL {
                let want: f32 = (offsets[j]..offsets[j + 1])
                    .map(|q| values[q] * panel[indices[q] as usize * PANEL + r])
                    .sum();
                assert!((p[j * PANEL + r] - want).abs() < 1e-5);
            }
            for q in offsets[j]..offsets[j + 1] {
                let want: f32 = (0..PANEL)
                    .map(|r| panel[indices[q] as usize * PANEL + r] * y[j * PANEL + r])
                    .sum();
                assert!((sums[q] - 1.0 - want).abs() < 1e-4);
            }
        }
        for r in 0..PANEL {
            let want: f32 = (0..k).map(|j| y[j * PANEL + r] * p[j * PANEL + r]).sum();
            assert!((rows[r] - want).abs() < 1e-5);
        }
        let mut lines = vec![f32::NAN; k];
        line_sums(&mut lines, &y);
        for (computed, line) in lines.iter().zip(y.chunks(PANEL)) {
            assert!((computed - line.iter().sum::<f32>()).abs() < 1e-4);
        }
        let (mut base_p, mut base_sums, mut base_rows) =
            (vec![0.0; k * PANEL], vec![1.0; 9], vec![0.0; PANEL]);
        project_body::<Portable>(&mut base_p, &panel, &offsets, &indices, &values);
        gather_products_body::<Portable>(&mut base_sums, &panel, &y, &offsets, &indices);
        row_dots_body::<Portable>(&mut base_rows, &y, &p);
        for (a, b) in p
            .iter()
            .chain(&sums)
            .chain(&rows)
            .zip(base_p.iter().chain(&base_sums).chain(&base_rows))
        {
            assert!((a - b).abs() < 1e-4);
        }
    }

    #[test]
    fn columns_with_more_entries_than_a_vector_are_gathered_completely() {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
        let (panel, y): (Vec<f32>, Vec<f32>) = (
            (0..40 * PANEL).map(value).collect(),
            (0..2 * PANEL).map(|i| value(i + 5)).collect(),
        );
        let (offsets, indices): (_, Vec<u32>) = ([0, 37, 39], (0..37).chain([3, 39]).collect());
        let mut sums = vec![0.0f32; 39];
        gather_products(&mut sums, &panel, &y, &offsets, &indices);
        for (q, (computed, &i)) in sums.iter().zip(&indices).enumerate() {
            let j = usize::from(q >= 37);
            let want: f32 = (0..PANEL)
                .map(|r| panel[i as usize * PANEL + r] * y[j * PANEL + r])
                .sum();
            assert!((computed - want).abs() < 1e-4, "entry {q}");
        }
    }
}
