//! Reducing the number of features: the pair whose merge loses least is merged, again and again.
//!
//! Two features contribute y_a z_aᵀ + y_b z_bᵀ, of rank two. The best single feature is its leading
//! singular pair, and the loss is the square of its second singular value; both follow from the 2 ×
//! 2 Gram matrices of the pair alone. If the columns have a positive product, that pair is a
//! positive combination of both (Perron), so coefficients stay ≥ 0; otherwise the weaker feature is
//! removed, at the loss of its own square. Knows nothing of activations.

use std::path::Path;

use super::columns;
use super::value_buffer::ValueBuffer;
use super::{Coefficients, SparseColumns};
use crate::error::{Error, Result};
use crate::matrix::dense;
use crate::task::TaskCtx;

/// The remaining features, in their old order.
pub(super) struct MergedFeatures {
    /// Z; every column has as many entries as the longest given one.
    pub(super) features: SparseColumns,
    /// Y by feature, k × n; values after these are unspecified.
    pub(super) coefficients: ValueBuffer,
    pub(super) locked: Vec<bool>,
}

/// The best merge of a pair: the squared error that it adds, and how the two columns combine.
#[derive(Clone, Copy)]
struct PairMerge {
    loss: f64,
    /// Weights of the two columns in the new one, before it is scaled to unit norm; the weight of a
    /// removed feature is 0.
    mix: [f64; 2],
}

/// Reduces the features `z` to `k`; `None` if there are no more than that. The coefficients of
/// feature j are those of `y` multiplied by `scales[j]`. Locked features stay unchanged.
///
/// # Errors
/// [`Error::Usage`] if there are more locked features than `k` allows; [`Error::Io`] for
/// coefficients in a file without space; [`Error::Cancelled`].
pub(super) fn merge_down_to(
    z: &SparseColumns,
    (y, scales): (&Coefficients, &[f32]),
    k: usize,
    locked: &[bool],
    scratch: Option<&Path>,
    ctx: &TaskCtx,
) -> Result<Option<MergedFeatures>> {
    let old = z.columns();
    if old <= k {
        return Ok(None);
    }
    let locked_count = locked.iter().filter(|l| **l).count();
    if locked_count > k || (locked_count == k && k < old) {
        return Err(Error::usage(format!(
            "{locked_count} locked features cannot be among {k}: unlock some or merge fewer"
        )));
    }
    let (n, d) = (y.rows, z.rows);
    let mut columns: Vec<f32> = (0..old).flat_map(|j| z.dense_column(j)).collect();
    let mut coefficients = ValueBuffer::zeros(old * n, scratch)?;
    coefficients.copy_from_slice(y.as_slice());
    for (line, &scale) in coefficients
        .chunks_exact_mut(n.max(1))
        .zip(scales)
        .filter(|(_, s)| **s != 1.0)
    {
        line.iter_mut().for_each(|v| *v *= scale);
    }
    let q = columns::gram(z);
    let mut g = vec![0.0; old * old];
    dense::accumulate_gram(&mut g, &mut Vec::new(), &coefficients, n, n, old);
    dense::copy_upper_to_lower(&mut g, old);
    let mut pairs = PairGrams {
        k: old,
        q,
        g,
        alive: vec![true; old],
    };
    for _ in k..old {
        ctx.check()?;
        let Some((a, b, best)) = pairs.cheapest_pair(locked) else {
            break;
        };
        let [za, zb] = pairs.merge(a, b, best.mix);
        mix_lines(&mut columns, d, a, b, za);
        mix_lines(&mut coefficients, n, a, b, zb);
    }
    let alive: Vec<usize> = (0..old).filter(|&j| pairs.alive[j]).collect();
    for (to, &from) in alive.iter().enumerate() {
        columns.copy_within(from * d..(from + 1) * d, to * d);
        coefficients.copy_within(from * n..(from + 1) * n, to * n);
    }
    columns.truncate(alive.len() * d);
    let support_size = (0..old)
        .map(|j| z.column(j).0.len())
        .max()
        .unwrap_or(1)
        .max(1);
    Ok(Some(MergedFeatures {
        features: columns::truncate(&columns, d, support_size),
        coefficients,
        locked: alive.iter().map(|&j| locked[j]).collect(),
    }))
}

/// Replaces line a of `lines` by w₀ · line a + w₁ · line b.
fn mix_lines(lines: &mut [f32], width: usize, a: usize, b: usize, weights: [f64; 2]) {
    let (head, tail) = lines.split_at_mut(b * width);
    for (x, y) in head[a * width..(a + 1) * width]
        .iter_mut()
        .zip(&tail[..width])
    {
        *x = (weights[0] * f64::from(*x) + weights[1] * f64::from(*y)) as f32;
    }
}

/// ZᵀZ and YᵀY of all features, updated as pairs are merged.
struct PairGrams {
    k: usize,
    /// ZᵀZ, k × k.
    q: Vec<f64>,
    /// YᵀY, k × k.
    g: Vec<f64>,
    /// Whether each feature is still there.
    alive: Vec<bool>,
}

impl PairGrams {
    /// The pair of unlocked features whose merge loses least; `None` if fewer than two are left.
    fn cheapest_pair(&self, locked: &[bool]) -> Option<(usize, usize, PairMerge)> {
        let free: Vec<usize> = (0..self.k)
            .filter(|&j| self.alive[j] && !locked[j])
            .collect();
        let mut best: Option<(usize, usize, PairMerge)> = None;
        for (i, &a) in free.iter().enumerate() {
            for &b in &free[i + 1..] {
                let merge = self.evaluate(a, b);
                if best.is_none_or(|(_, _, found)| merge.loss < found.loss) {
                    best = Some((a, b, merge));
                }
            }
        }
        best
    }

    /// The best merge of the features a and b.
    fn evaluate(&self, a: usize, b: usize) -> PairMerge {
        let at = |m: &[f64]| [m[a * self.k + a], m[a * self.k + b], m[b * self.k + b]];
        let ([qa, qab, qb], [ga, gab, gb]) = (at(&self.q), at(&self.g));
        let (square_a, square_b) = (qa * ga, qb * gb);
        let removal = if square_a < square_b {
            PairMerge {
                loss: square_a,
                mix: [0.0, 1.0],
            }
        } else {
            PairMerge {
                loss: square_b,
                mix: [1.0, 0.0],
            }
        };
        if qab <= 0.0 {
            return removal;
        }
        // For M = YZᵀ restricted to the pair, MᵀM = Z G Zᵀ has the eigenvalues of GQ, and the
        // eigenvector Z e for an eigenvector e of GQ.
        let trace = square_a + 2.0 * qab * gab + square_b;
        let determinant = ((qa * qb - qab * qab) * (ga * gb - gab * gab)).max(0.0);
        let large = (trace + (trace * trace - 4.0 * determinant).max(0.0).sqrt()) / 2.0;
        if large <= 0.0 {
            return removal;
        }
        let (m00, m01, m10, m11) = (
            ga * qa + gab * qab,
            ga * qab + gab * qb,
            gab * qa + gb * qab,
            gab * qab + gb * qb,
        );
        // The eigenvector is taken from the row of GQ − λI with the larger entries, which rounding
        // disturbs less.
        let mix = if m01 + (large - m00).abs() >= m10 + (large - m11).abs() {
            [m01, large - m00]
        } else {
            [large - m11, m10]
        };
        if mix.iter().sum::<f64>() > 0.0 {
            PairMerge {
                loss: determinant / large,
                mix: mix.map(|m| m.max(0.0)),
            }
        } else {
            removal
        }
    }

    /// Merges b into a in both matrices; returns the weights of the two columns in the new column,
    /// and those of the two lines of coefficients in the new line.
    fn merge(&mut self, a: usize, b: usize, mix: [f64; 2]) -> [[f64; 2]; 2] {
        let k = self.k;
        let (qa, qab, qb) = (self.q[a * k + a], self.q[a * k + b], self.q[b * k + b]);
        let size =
            (mix[0] * mix[0] * qa + 2.0 * mix[0] * mix[1] * qab + mix[1] * mix[1] * qb).sqrt();
        let size = if size > 0.0 { size } else { 1.0 };
        let column = mix.map(|m| m / size);
        // The new line is the projection Y (Zᵀz); if one feature is removed, the other keeps its
        // line.
        let line = if mix.contains(&0.0) {
            column.map(|c| if c > 0.0 { 1.0 } else { 0.0 })
        } else {
            [
                column[0] * qa + column[1] * qab,
                column[0] * qab + column[1] * qb,
            ]
        };
        for (matrix, weights) in [(&mut self.q, column), (&mut self.g, line)] {
            let mixed: Vec<f64> = (0..k)
                .map(|l| weights[0] * matrix[a * k + l] + weights[1] * matrix[b * k + l])
                .collect();
            let own = weights[0] * mixed[a] + weights[1] * mixed[b];
            for (l, &v) in mixed.iter().enumerate() {
                (matrix[a * k + l], matrix[l * k + a]) = (v, v);
            }
            matrix[a * k + a] = own;
        }
        self.alive[b] = false;
        [column, line]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(columns: &[[f32; 4]], y: &[[f32; 5]]) -> (SparseColumns, Coefficients) {
        let dense: Vec<f32> = columns.iter().flatten().copied().collect();
        (
            columns::truncate(&dense, 4, 4),
            Coefficients::owned(5, y.iter().flatten().copied().collect()),
        )
    }

    /// The product Y Zᵀ in f64, row-major, to compare factors before and after a merge.
    fn product(z: &SparseColumns, y: &[f32]) -> Vec<f64> {
        let mut out = vec![0.0; 5 * 4];
        for j in 0..z.columns() {
            let column = z.dense_column(j);
            for (at, o) in out.iter_mut().enumerate() {
                *o += f64::from(y[j * 5 + at / 4]) * f64::from(column[at % 4]);
            }
        }
        out
    }

    #[test]
    fn a_feature_split_in_two_is_whole_again_and_a_locked_one_stays() {
        let ctx = TaskCtx::silent();
        let (z, y) = factors(
            &[
                [0.6, 0.8, 0.0, 0.0],
                [0.0, 0.0, 1.0, 0.0],
                [0.6, 0.8, 0.0, 0.0],
                [0.0, 0.0, 0.0, -1.0],
            ],
            &[
                [1.0, 2.0, 0.0, 0.0, 1.0],
                [0.0, 1.0, 5.0, 0.0, 0.0],
                [0.0, 1.0, 3.0, 0.0, 0.0],
                [4.0, 0.0, 0.0, 0.0, 0.0],
            ],
        );
        let before = product(&z, y.as_slice());
        let merged = merge_down_to(
            &z,
            (&y, &[1.0; 4]),
            3,
            &[false, true, false, false],
            None,
            &ctx,
        )
        .unwrap()
        .unwrap();
        assert_eq!(merged.locked, [false, true, false]);
        assert_eq!(merged.features.dense_column(1), [0.0, 0.0, 1.0, 0.0]);
        let after = product(&merged.features, &merged.coefficients);
        assert!(
            before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-5),
            "{before:?} {after:?}"
        );
        assert!(
            merge_down_to(&z, (&y, &[1.0; 4]), 4, &[false; 4], None, &ctx)
                .unwrap()
                .is_none()
        );
        assert!(
            merge_down_to(
                &z,
                (&y, &[1.0; 4]),
                1,
                &[true, true, false, false],
                None,
                &ctx
            )
            .is_err()
        );
    }

    #[test]
    fn the_predicted_loss_of_a_merge_is_its_loss() {
        let ctx = TaskCtx::silent();
        let (z, y) = factors(
            &[
                [0.6, 0.8, 0.0, 0.0],
                [0.8, 0.6, 0.0, 0.0],
                [0.0, 0.0, 0.0, 1.0],
            ],
            &[
                [1.0, 2.0, 0.0, 0.5, 1.0],
                [0.5, 1.0, 0.3, 0.0, 0.0],
                [9.0, 8.0, 9.0, 8.0, 7.0],
            ],
        );
        let g = {
            let mut g = vec![0.0; 9];
            dense::accumulate_gram(&mut g, &mut Vec::new(), y.as_slice(), 5, 5, 3);
            dense::copy_upper_to_lower(&mut g, 3);
            g
        };
        let pairs = PairGrams {
            k: 3,
            q: columns::gram(&z),
            g,
            alive: vec![true; 3],
        };
        let (a, b, best) = pairs.cheapest_pair(&[false; 3]).unwrap();
        assert_eq!((a, b), (0, 1));
        let merged = merge_down_to(&z, (&y, &[1.0; 3]), 2, &[false; 3], None, &ctx)
            .unwrap()
            .unwrap();
        assert!(merged.coefficients.iter().all(|v| *v >= 0.0));
        let (before, after) = (
            product(&z, y.as_slice()),
            product(&merged.features, &merged.coefficients),
        );
        let lost: f64 = before
            .iter()
            .zip(&after)
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        assert!((lost - best.loss).abs() < 1e-5, "{lost} and {}", best.loss);
    }
}
