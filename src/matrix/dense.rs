//! Dense products, solves and eigenvectors: products by `gemm`, eigenvectors by `nalgebra`.
//!
//! Owns the division into tiles; knows nothing of features or tokens. Invariant: the tiles follow
//! from the shapes alone and each runs on one thread, so the bits do not depend on the number of
//! threads.

use nalgebra::{DMatrix, SymmetricEigen};
use rayon::prelude::*;

use super::cholesky;
use super::gemm::{View, for_each_strip, product};
use super::panel::PANEL;

/// The neurons in a tile of AᵀY: the 96 columns of the widest micro-kernel of `gemm`.
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
    for_each_strip(out, d, STRIP, |first, mut strip| {
        strip.add_product(b, View::rows(y, stride), View::rows(&a[first..], d));
    });
}

/// Adds YᵀY over the first `b` rows of `y` `[k][stride]` to the entries of `out` (k × k) on and
/// above the diagonal; [`copy_upper_to_lower`] completes it. The products of one block are summed
/// in f32; blocks are added in f64, since the rounding errors of many blocks would add up.
/// `scratch` keeps its memory between calls.
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
    let tiles = scratch
        .par_chunks_mut(LINES * k)
        .zip(out.par_chunks_mut(LINES * k));
    tiles.enumerate().for_each(|(i, (tile, out))| {
        let (first, lines) = (i * LINES, tile.len() / k);
        let y = &y[first * stride..];
        product(
            (lines, b, k - first),
            View::rows(y, stride),
            View::transposed(y, stride),
            &mut tile[first..],
            k,
            false,
            false,
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
    product(
        (k, d, PANEL),
        View::rows(columns, d),
        View::rows(panel, PANEL),
        out,
        PANEL,
        false,
        false,
    );
}

/// `(G + ridge·I)⁻¹ B` in f64 for a symmetric positive semi-definite `G` (k × k) and `B` (k × d),
/// both row-major. If rounding has made G indefinite, the ridge is raised tenfold until the Cholesky
/// factorisation succeeds.
pub fn solve_symmetric(g: &[f64], k: usize, ridge: f64, b: &[f32], d: usize) -> Vec<f32> {
    /// The neurons whose products one task forms in f64.
    const STRIP: usize = 512;
    let inverse = symmetric_inverse(g, k, ridge);
    let mut out = vec![0.0f32; k * d];
    for_each_strip(&mut out, d, STRIP, |first, mut strip| {
        let width = strip.width();
        let right: Vec<f64> = b
            .chunks_exact(d)
            .flat_map(|line| &line[first..first + width])
            .map(|&v| f64::from(v))
            .collect();
        let mut solved = vec![0.0; k * width];
        product(
            (k, k, width),
            View::rows(&inverse, k),
            View::rows(&right, width),
            &mut solved,
            width,
            false,
            false,
        );
        for (i, line) in solved.chunks_exact(width).enumerate() {
            for (v, s) in strip.row_mut(i).iter_mut().zip(line) {
                *v = *s as f32;
            }
        }
    });
    out
}

/// (G + ridge·I)⁻¹, row-major; the inverse is computed once because B has thousands of columns.
fn symmetric_inverse(g: &[f64], k: usize, ridge: f64) -> Vec<f64> {
    let mean = (0..k).map(|i| g[i * k + i]).sum::<f64>() / k.max(1) as f64;
    let mut ridge = ridge.max(f64::MIN_POSITIVE);
    loop {
        let mut factor = g.to_vec();
        (0..k).for_each(|i| factor[i * k + i] += ridge);
        cholesky::factor(&mut factor, k, 0.0);
        // A pivot was set to 0 if rounding had made it negative, or if it was not a number.
        let definite = (0..k).all(|i| factor[i * k + i] > 0.0);
        // A ridge above the mean diagonal is more than rounding can require. A matrix that is not
        // finite never becomes definite, so the loop must end for it too.
        if definite || ridge > mean || !mean.is_finite() {
            return inverse_of_factored(&factor, k);
        }
        ridge = (ridge * 10.0).max(mean * 1e-14);
    }
}

/// (L Lᵀ)⁻¹ = L⁻ᵀ L⁻¹ for a k × k factor L.
fn inverse_of_factored(factor: &[f64], k: usize) -> Vec<f64> {
    let mut columns = vec![0.0; k * k];
    columns
        .par_chunks_mut(k.max(1))
        .enumerate()
        .for_each(|(j, column)| cholesky::invert_column(factor, k, j, column));
    let mut inverse = vec![0.0; k * k];
    product(
        (k, k, k),
        View::rows(&columns, k),
        View::transposed(&columns, k),
        &mut inverse,
        k,
        false,
        false,
    );
    inverse
}

/// The eigenvalues, largest first, and eigenvectors (`[i][component]`, row i the i-th vector) of a
/// symmetric k × k matrix. `None` when it is not finite or the iteration does not converge.
pub fn eigen_symmetric(g: &[f64], k: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    /// The largest number of QR steps per row; two or three are usual.
    const STEPS: usize = 100;
    if g.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let matrix = DMatrix::from_row_slice(k, k, g);
    let decomposition = SymmetricEigen::try_new(matrix, f64::EPSILON, STEPS * k.max(1))?;
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| decomposition.eigenvalues[b].total_cmp(&decomposition.eigenvalues[a]));
    let rows = order
        .iter()
        .flat_map(|&i| {
            decomposition
                .eigenvectors
                .column(i)
                .iter()
                .copied()
                .collect::<Vec<_>>()
        })
        .collect();
    Some((
        order
            .iter()
            .map(|&i| decomposition.eigenvalues[i])
            .collect(),
        rows,
    ))
}

/// Replaces the `count` lines of `lines` `[count][d]` by an orthonormal basis of their span; lines
/// beyond its rank become zero. Computed from the eigenvectors of the lines' Gram matrix in f64.
/// That squares the condition number, so a second round restores orthogonality. `None` if an
/// eigendecomposition does not converge.
pub fn orthonormalise(lines: &mut [f32], count: usize, d: usize) -> Option<()> {
    /// Squared singular values below this share of the largest count as rounding errors.
    const RANK: f64 = 1e-13;
    for _ in 0..2 {
        let in_f64: Vec<f64> = lines.iter().map(|&v| f64::from(v)).collect();
        let mut gram = vec![0.0; count * count];
        product(
            (count, d, count),
            View::rows(&in_f64, d),
            View::transposed(&in_f64, d),
            &mut gram,
            count,
            false,
            true,
        );
        let (values, vectors) = eigen_symmetric(&gram, count)?;
        let scale = |i: usize| {
            if values[i] > RANK * values[0] {
                values[i].sqrt().recip()
            } else {
                0.0
            }
        };
        let rotation: Vec<f64> = vectors
            .chunks_exact(count)
            .enumerate()
            .flat_map(|(i, vector)| vector.iter().map(move |v| (i, v)))
            .map(|(i, v)| v * scale(i))
            .collect();
        let mut result = vec![0.0; count * d];
        product(
            (count, count, d),
            View::rows(&rotation, count),
            View::rows(&in_f64, d),
            &mut result,
            d,
            false,
            true,
        );
        for (v, r) in lines.iter_mut().zip(result) {
            *v = r as f32;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The i-th of a sequence of pseudo-random numbers in [-0.5, 0.5), mixed well enough that
    /// matrices of them have full rank.
    fn number(i: usize) -> f64 {
        let mut bits = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for _ in 0..2 {
            bits = (bits ^ (bits >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
        (bits >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    }

    /// XᵀX of pseudo-random rows X (`rows` × k), which has the rank min(`rows`, k).
    fn gram(rows: usize, k: usize) -> Vec<f64> {
        let entry = |i: usize, j: usize| -> f64 {
            (0..rows)
                .map(|r| number(r * k + i) * number(r * k + j))
                .sum()
        };
        (0..k * k).map(|e| entry(e / k, e % k)).collect()
    }

    #[test]
    fn a_symmetric_system_is_solved_and_a_singular_one_with_a_ridge() {
        let (k, d) = (37, 700);
        let x: Vec<f64> = (0..k * d).map(|i| number(i + 5)).collect();
        let g = gram(90, k);
        let b: Vec<f32> = (0..k * d)
            .map(|e| {
                (0..k)
                    .map(|i| g[e / d * k + i] * x[i * d + e % d])
                    .sum::<f64>() as f32
            })
            .collect();
        let solved = solve_symmetric(&g, k, 0.0, &b, d);
        for (computed, expected) in solved.iter().zip(&x) {
            assert!(
                (f64::from(*computed) - expected).abs() < 1e-4,
                "{computed} {expected}"
            );
        }
        // Rank 5 of 37: without a ridge there is no solution, with the raised one it is finite.
        let solved = solve_symmetric(&gram(5, k), k, 0.0, &b, d);
        assert!(solved.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn eigenvectors_recompose_the_matrix_largest_value_first() {
        let k = 41;
        let g = gram(60, k);
        let (values, vectors) = eigen_symmetric(&g, k).unwrap();
        assert!(values.windows(2).all(|v| v[0] >= v[1]));
        for (e, want) in g.iter().enumerate() {
            let (i, j) = (e / k, e % k);
            let computed: f64 = (0..k)
                .map(|v| values[v] * vectors[v * k + i] * vectors[v * k + j])
                .sum();
            assert!(
                (computed - want).abs() < 1e-12 * values[0],
                "{computed} {want}"
            );
        }
        assert!(eigen_symmetric(&[1.0, f64::NAN, f64::NAN, 1.0], 2).is_none());
    }

    #[test]
    fn an_orthonormal_basis_spans_its_lines_and_has_zeros_beyond_their_rank() {
        let d = 50;
        // The third line is the sum of the first two.
        let mut lines: Vec<f32> = (0..2 * d).map(|i| number(i) as f32).collect();
        lines.extend((0..d).map(|c| lines[c] + lines[d + c]).collect::<Vec<_>>());
        let before = lines.clone();
        orthonormalise(&mut lines, 3, d).unwrap();
        let dot =
            |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum() };
        let basis: Vec<&[f32]> = lines.chunks(d).collect();
        for (i, a) in basis.iter().enumerate() {
            for (j, b) in basis.iter().enumerate() {
                let want = f64::from(u8::from(i == j && i < 2));
                assert!((dot(a, b) - want).abs() < 1e-5, "{i} {j}: {}", dot(a, b));
            }
        }
        for line in before.chunks(d) {
            let kept: f64 = basis.iter().map(|b| dot(b, line).powi(2)).sum();
            assert!((kept / dot(line, line) - 1.0).abs() < 1e-5);
        }
    }
}
