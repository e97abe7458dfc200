//! Directions in the space of a hook's neurons, from any source: features, centroids, concept
//! vectors, decoder rows, single neurons.
//!
//! Owns [`Directions`], the columns that all of them have in common, the computation of the
//! baselines, and [`DirectionSet`], the interface through which any of them is read, used for
//! steering and judged. Knows nothing of how directions are judged. Invariant: the same seed gives
//! the same directions, whatever the number of threads.

pub mod baselines;
mod kind;
pub mod matching;
pub mod mix;
pub mod reconstruction;
pub mod sae;
pub mod set;

use std::ops::Range;

use crate::factor::SparseColumns;
use crate::matrix::vector::norm;

pub use baselines::{Baseline, BaselineData};
pub use kind::{Mix, SetKind};
pub use set::{DirectionSet, FitSet, PlainSet, SaeSet};

/// Directions in R^d: the columns of a d × k matrix, of any length.
#[derive(Debug, Clone, PartialEq)]
pub enum Directions {
    /// Sparse columns: SNMF features, random sparse directions.
    Sparse(SparseColumns),
    /// Dense columns: centroids, differences in means, decoder rows.
    Dense {
        /// d, the length of a column.
        d: usize,
        /// The columns one after the other, `[k][d]`.
        columns: Vec<f32>,
    },
    /// Each of d neurons by itself: the identity.
    Neurons(usize),
}

impl Directions {
    /// d, the length of a column.
    pub fn height(&self) -> usize {
        match self {
            Self::Sparse(z) => z.rows,
            Self::Dense { d, .. } | Self::Neurons(d) => *d,
        }
    }

    /// k, the number of columns.
    pub fn count(&self) -> usize {
        match self {
            Self::Sparse(z) => z.columns(),
            Self::Dense { d, columns } => columns.len() / (*d).max(1),
            Self::Neurons(d) => *d,
        }
    }

    /// Column j with its own norm, d values.
    pub fn column(&self, j: usize) -> Vec<f32> {
        match self {
            Self::Sparse(z) => z.dense_column(j),
            Self::Dense { d, columns } => columns[j * d..(j + 1) * d].to_vec(),
            Self::Neurons(d) => (0..*d).map(|i| f32::from(u8::from(i == j))).collect(),
        }
    }

    /// The columns of `range` scaled to unit norm, by neuron: `[d][range.len()]`. A column of zeros
    /// stays zero.
    pub fn unit_by_neuron(&self, range: Range<usize>) -> Vec<f32> {
        let (d, width) = (self.height(), range.len());
        let mut out = vec![0.0; d * width];
        for (c, j) in range.enumerate() {
            match self {
                Self::Sparse(z) => {
                    let (indices, values) = z.column(j);
                    let scale = unit_scale(values);
                    for (&i, &v) in indices.iter().zip(values) {
                        out[i as usize * width + c] = v * scale;
                    }
                }
                Self::Dense { columns, .. } => {
                    let column = &columns[j * d..(j + 1) * d];
                    let scale = unit_scale(column);
                    for (i, &v) in column.iter().enumerate() {
                        out[i * width + c] = v * scale;
                    }
                }
                Self::Neurons(_) => out[j * width + c] = 1.0,
            }
        }
        out
    }

    /// The directions as sparse columns of unit norm, without zeros.
    pub fn to_sparse(&self) -> SparseColumns {
        let (d, k) = (self.height(), self.count());
        let mut out = SparseColumns {
            rows: d,
            offsets: vec![0],
            ..SparseColumns::default()
        };
        for j in 0..k {
            match self {
                Self::Sparse(z) => {
                    let (indices, values) = z.column(j);
                    push_unit(
                        &mut out,
                        indices.iter().copied().zip(values.iter().copied()),
                        unit_scale(values),
                    );
                }
                Self::Dense { columns, .. } => {
                    let column = &columns[j * d..(j + 1) * d];
                    push_unit(
                        &mut out,
                        (0..).zip(column.iter().copied()),
                        unit_scale(column),
                    );
                }
                Self::Neurons(_) => push_unit(&mut out, std::iter::once((j as u32, 1.0)), 1.0),
            }
        }
        out
    }

    /// The directions reduced to the `entries` values of largest magnitude of each column, as
    /// sparse columns of unit norm.
    pub fn cut(&self, entries: usize) -> Self {
        let (d, k) = (self.height(), self.count());
        let mut out = SparseColumns {
            rows: d,
            offsets: vec![0],
            ..SparseColumns::default()
        };
        let sparse = self.to_sparse();
        for j in 0..k {
            let (indices, values) = sparse.column(j);
            let mut order: Vec<usize> = (0..values.len()).collect();
            // Of equal magnitudes that of the lower neuron is kept.
            order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()).then(a.cmp(&b)));
            order.truncate(entries);
            order.sort_unstable();
            let largest: Vec<f32> = order.iter().map(|&i| values[i]).collect();
            push_unit(
                &mut out,
                order
                    .iter()
                    .map(|&i| indices[i])
                    .zip(largest.iter().copied()),
                unit_scale(&largest),
            );
        }
        Self::Sparse(out)
    }
}

/// 1 / ‖v‖, or 0 for a vector of zeros.
fn unit_scale(values: &[f32]) -> f32 {
    let norm = norm(values);
    if norm > 0.0 { (1.0 / norm) as f32 } else { 0.0 }
}

/// Appends a column of the non-zero `entries` (neuron and value), multiplied by `scale`.
fn push_unit(out: &mut SparseColumns, entries: impl Iterator<Item = (u32, f32)>, scale: f32) {
    for (i, v) in entries.filter(|(_, v)| *v != 0.0) {
        out.indices.push(i);
        out.values.push(v * scale);
    }
    out.offsets.push(out.indices.len());
}

/// ⌈p·d⌉, at least 1 and at most d: the number of neurons of a column with the sparsity p, as in
/// the factoriser.
pub fn support_size(sparsity: f64, d: usize) -> usize {
    ((sparsity * d as f64).ceil() as usize).clamp(1, d.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense() -> Directions {
        Directions::Dense {
            d: 4,
            columns: vec![0.0, 3.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        }
    }

    #[test]
    fn every_kind_reads_the_same() {
        let sparse = Directions::Sparse(dense().to_sparse());
        assert_eq!(
            (dense().height(), dense().count(), sparse.count()),
            (4, 2, 2)
        );
        let expected = vec![0.0, 0.0, 0.6, 0.0, -0.8, 0.0, 0.0, 0.0];
        for directions in [dense(), sparse] {
            let unit = directions.unit_by_neuron(0..2);
            assert!(
                unit.iter()
                    .zip(&expected)
                    .all(|(a, b)| (a - b).abs() < 1e-6),
                "{unit:?}"
            );
        }
        assert_eq!(
            Directions::Neurons(3).unit_by_neuron(1..3),
            [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]
        );
        assert_eq!(Directions::Neurons(2).to_sparse().indices, [0, 1]);
    }

    #[test]
    fn a_cut_keeps_the_largest_and_its_order() {
        let columns = vec![1.0, -5.0, 2.0, 2.0];
        let Directions::Sparse(cut) = (Directions::Dense { d: 4, columns }).cut(2) else {
            panic!("a cut is sparse")
        };
        assert_eq!(
            cut.indices,
            [1, 2],
            "of two equal entries the lower neuron stays"
        );
        let norm: f32 = cut.values.iter().map(|v| v * v).sum();
        assert!((norm - 1.0).abs() < 1e-6);
        assert_eq!(
            dense().cut(1).to_sparse().offsets,
            [0, 1, 1],
            "a column of zeros stays empty"
        );
    }

    #[test]
    fn the_count_of_entries_is_the_factorisers() {
        assert_eq!(
            (
                support_size(0.01, 1536),
                support_size(0.0, 10),
                support_size(1.0, 7)
            ),
            (16, 1, 7)
        );
    }
}
