//! Dense products, solves and eigenvectors, by the `faer` crate.
//!
//! Owns the cut into tiles; knows nothing of features or tokens. Invariant: the tiles follow from the
//! shapes alone and each runs on one thread, so the bits do not depend on the number of threads.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::panel::PANEL;

/// Neurons in a tile of AᵀY: the 96 rows that faer's widest micro-kernel takes at once.
const STRIP: usize = 96;

/// `out[k × d] += Yᵀ A` for a block of b rows: `a` is row-major `[b × d]`, and `y` is `[k][stride]`
/// with the block's rows first in each line. Tiles of neurons run in parallel; each adds the rows in
/// order.
pub fn accumulate_products(
    out: &mut [f32],
    a: &[f32],
    d: usize,
    y: &[f32],
    stride: usize,
    k: usize,
) {
    let b = a.len() / d;
    if b == 0 || k == 0 {
        return;
    }
    // As column-major views the neurons run fastest both in the left side and in the result, which is
    // the layout that faer multiplies without packing.
    let left = MatRef::from_row_major_slice(a, b, d).transpose();
    let right = MatRef::from_column_major_slice_with_stride(y, b, k, stride);
    let result = MatMut::from_column_major_slice_mut(out, d, k);
    result
        .par_row_chunks_mut(STRIP)
        .enumerate()
        .with_max_len(1)
        .for_each(|(i, tile)| {
            let rows = tile.nrows();
            matmul(
                tile,
                Accum::Add,
                left.subrows(i * STRIP, rows),
                right,
                1.0,
                Par::Seq,
            );
        });
}

/// Adds YᵀY over the first `b` rows of `y` `[k][stride]` to the entries of `out` (k × k) on and above
/// the diagonal; [`copy_upper_to_lower`] completes it. The products of one block are summed in f32,
/// and blocks are added in f64, where the rounding of many blocks would otherwise add up. `scratch`
/// keeps its memory between calls.
pub fn accumulate_gram(
    out: &mut [f64],
    scratch: &mut Vec<f32>,
    y: &[f32],
    stride: usize,
    b: usize,
    k: usize,
) {
    /// Lines of the result in a tile.
    const LINES: usize = 64;
    if k == 0 || b == 0 {
        return;
    }
    scratch.resize(k * k, 0.0);
    let lines = MatRef::from_column_major_slice_with_stride(y, b, k, stride);
    let tiles = scratch
        .par_chunks_mut(LINES * k)
        .zip(out.par_chunks_mut(LINES * k));
    tiles.enumerate().for_each(|(i, (tile, out))| {
        let (first, columns) = (i * LINES, tile.len() / k);
        let mut result = MatMut::from_column_major_slice_mut(&mut *tile, k, columns);
        let left = lines.subcols(first, k - first).transpose();
        let result = result.as_mut().subrows_mut(first, k - first);
        matmul(
            result,
            Accum::Replace,
            left,
            lines.subcols(first, columns),
            1.0,
            Par::Seq,
        );
        for (j, (sum, v)) in out
            .chunks_exact_mut(k)
            .zip(tile.chunks_exact(k))
            .enumerate()
        {
            for (s, v) in sum.iter_mut().zip(v).skip(first + j) {
                *s += f64::from(*v);
            }
        }
    });
}

/// Copies the entries above the diagonal of a k × k matrix below it.
pub fn copy_upper_to_lower(matrix: &mut [f64], k: usize) {
    for i in 0..k {
        for j in 0..i {
            matrix[i * k + j] = matrix[j * k + i];
        }
    }
}

/// Copies the entries below the diagonal of a k × k matrix above it.
pub fn copy_lower_to_upper(matrix: &mut [f64], k: usize) {
    for j in 0..k {
        for i in 0..j {
            matrix[i * k + j] = matrix[j * k + i];
        }
    }
}

/// P = A C on one panel for k dense columns: `out` is `[k][PANEL]`, `panel` `[d][PANEL]` and `columns`
/// `[k][d]`.
pub fn project(out: &mut [f32], panel: &[f32], columns: &[f32], d: usize) {
    let k = columns.len() / d;
    let left = MatRef::from_column_major_slice(panel, PANEL, d);
    let right = MatRef::from_column_major_slice(columns, d, k);
    let result = MatMut::from_column_major_slice_mut(out, PANEL, k);
    matmul(result, Accum::Replace, left, right, 1.0, Par::Seq);
}

/// `(G + ridge·I)⁻¹ B` in f64 for a symmetric positive semi-definite `G` (k × k) and `B` (k × d),
/// both row-major. If rounding has made G indefinite, the ridge is raised tenfold until the Cholesky
/// factorisation succeeds.
pub fn solve_symmetric(g: &[f64], k: usize, ridge: f64, b: &[f32], d: usize) -> Vec<f32> {
    const STRIP: usize = 512;
    let inverse = symmetric_inverse(g, k, ridge);
    let mut out = vec![0.0f32; k * d];
    let result = MatMut::from_row_major_slice_mut(&mut out, k, d);
    result
        .transpose_mut()
        .par_row_chunks_mut(STRIP)
        .enumerate()
        .for_each(|(s, mut tile)| {
            let first = s * STRIP;
            let columns = tile.nrows();
            let right = Mat::<f64>::from_fn(k, columns, |i, j| f64::from(b[i * d + first + j]));
            let mut product = Mat::<f64>::zeros(k, columns);
            matmul(
                product.as_mut(),
                Accum::Replace,
                inverse.as_ref(),
                right.as_ref(),
                1.0,
                Par::Seq,
            );
            for j in 0..columns {
                for i in 0..k {
                    tile[(j, i)] = product[(i, j)] as f32;
                }
            }
        });
    out
}

/// (G + ridge·I)⁻¹; the inverse is computed once because B has thousands of columns.
fn symmetric_inverse(g: &[f64], k: usize, ridge: f64) -> Mat<f64> {
    use faer::linalg::cholesky::llt;
    let mean = (0..k).map(|i| g[i * k + i]).sum::<f64>() / k.max(1) as f64;
    let mut ridge = ridge.max(f64::MIN_POSITIVE);
    let mut memory = MemBuffer::new(
        llt::factor::cholesky_in_place_scratch::<f64>(k, Par::Seq, Default::default())
            .or(llt::inverse::inverse_scratch::<f64>(k, Par::Seq)),
    );
    loop {
        let mut factor =
            Mat::<f64>::from_fn(k, k, |i, j| g[i * k + j] + if i == j { ridge } else { 0.0 });
        let stack = MemStack::new(&mut memory);
        let done = llt::factor::cholesky_in_place(
            factor.as_mut(),
            Default::default(),
            Par::Seq,
            stack,
            Default::default(),
        );
        // A ridge above the mean diagonal is more than rounding requires; a matrix that is not finite must end here too.
        if done.is_ok() || ridge > mean || !mean.is_finite() {
            let mut lower = Mat::<f64>::zeros(k, k);
            llt::inverse::inverse(
                lower.as_mut(),
                factor.as_ref(),
                Par::Seq,
                MemStack::new(&mut memory),
            );
            return Mat::from_fn(
                k,
                k,
                |i, j| if i >= j { lower[(i, j)] } else { lower[(j, i)] },
            );
        }
        ridge = (ridge * 10.0).max(mean * 1e-14);
    }
}

/// The eigenvalues, largest first, and eigenvectors (`[i][component]`, row i the i-th vector) of a
/// symmetric k × k matrix. `None` when the iteration does not converge.
pub fn eigen_symmetric(g: &[f64], k: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    use faer::linalg::evd;
    let matrix = Mat::<f64>::from_fn(k, k, |i, j| g[i * k + j]);
    let mut values = faer::diag::Diag::<f64>::zeros(k);
    let mut vectors = Mat::<f64>::zeros(k, k);
    let mut memory = MemBuffer::new(evd::self_adjoint_evd_scratch::<f64>(
        k,
        evd::ComputeEigenvectors::Yes,
        Par::Seq,
        Default::default(),
    ));
    evd::self_adjoint_evd(
        matrix.as_ref(),
        values.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .ok()?;
    let ascending: Vec<f64> = (0..k).map(|i| values.column_vector()[i]).collect();
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| ascending[b].total_cmp(&ascending[a]));
    let rows = order
        .iter()
        .flat_map(|&i| (0..k).map(|c| vectors[(c, i)]).collect::<Vec<_>>())
        .collect();
    Some((order.iter().map(|&i| ascending[i]).collect(), rows))
}

/// The same consecutive neurons of every line of a `[k][d]` matrix, which one task changes.
pub struct NeuronStrip<'m>(MatMut<'m, f32>);

impl NeuronStrip<'_> {
    /// Adds the first values of `row`, as many as the strip is wide, to line `j`.
    pub fn add(&mut self, j: usize, row: &[f32]) {
        let rows = self.0.nrows();
        if let Some(line) = self.0.as_mut().col_mut(j).try_as_col_major_mut() {
            for (v, a) in line.as_slice_mut().iter_mut().zip(&row[..rows]) {
                *v += a;
            }
        }
    }
}

/// Calls `f(first neuron, strip)` in parallel for strips of `width` neurons of `out` `[k][d]`.
pub fn for_each_strip(
    out: &mut [f32],
    d: usize,
    width: usize,
    f: impl Fn(usize, NeuronStrip<'_>) + Sync + Send,
) {
    let k = out.len() / d;
    let result = MatMut::from_column_major_slice_mut(out, d, k);
    result
        .par_row_chunks_mut(width)
        .enumerate()
        .for_each(|(i, tile)| f(i * width, NeuronStrip(tile)));
}

/// Replaces the `count` lines of `lines` `[count][d]` by an orthonormal basis of their span; lines
/// beyond its rank become zero. Taken by the eigenvectors of their Gram matrix in f64, which squares
/// the condition number; a second round restores orthogonality. `None` if an eigendecomposition does
/// not converge.
pub fn orthonormalise(lines: &mut [f32], count: usize, d: usize) -> Option<()> {
    /// Squared singular values below this share of the largest are taken for rounding.
    const RANK: f64 = 1e-13;
    for _ in 0..2 {
        let wide = Mat::<f64>::from_fn(d, count, |c, i| f64::from(lines[i * d + c]));
        let mut gram = Mat::<f64>::zeros(count, count);
        matmul(
            gram.as_mut(),
            Accum::Replace,
            wide.transpose(),
            wide.as_ref(),
            1.0,
            Par::Seq,
        );
        let flat: Vec<f64> = (0..count * count)
            .map(|i| gram[(i / count, i % count)])
            .collect();
        let (values, vectors) = eigen_symmetric(&flat, count)?;
        let scale = |i: usize| {
            if values[i] > RANK * values[0] {
                values[i].sqrt().recip()
            } else {
                0.0
            }
        };
        let rotation = Mat::<f64>::from_fn(count, count, |l, i| vectors[i * count + l] * scale(i));
        let mut result = Mat::<f64>::zeros(d, count);
        matmul(
            result.as_mut(),
            Accum::Replace,
            wide.as_ref(),
            rotation.as_ref(),
            1.0,
            Par::Seq,
        );
        for (i, line) in lines.chunks_exact_mut(d).enumerate() {
            line.iter_mut()
                .enumerate()
                .for_each(|(c, v)| *v = result[(c, i)] as f32);
        }
    }
    Some(())
}
