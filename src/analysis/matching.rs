//! Finds the features of one fit that correspond to those of another, by a one-to-one matching with
//! the cosine of their columns.
//!
//! Sees sparse columns alone. The cosine is signed: coefficients are ≥ 0, so −z is another feature
//! than z. Invariant: a feature is in at most one pair.

use serde::{Deserialize, Serialize};

use super::neurons::{NeuronIndex, Overlap};
use crate::directions::matching::{SAME_COSINE, assign};
use crate::factor::SparseColumns;

/// The cosine below which the features of a matched pair count as different.
pub const MIN_COSINE: f32 = 0.3;

/// A pair of matched features of two fits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// The id in the first fit.
    pub a: usize,
    /// The id in the second fit.
    pub b: usize,
    /// The signed cosine of their columns.
    pub cosine: f32,
}

/// A feature without a counterpart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Unmatched {
    /// The number of the feature in its own fit.
    pub id: usize,
    /// The largest cosine with any feature of the other fit, matched or not.
    pub nearest: f32,
}

/// The comparison of two fits.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FitComparison {
    /// The first fit's name.
    pub a: String,
    /// The second fit's name.
    pub b: String,
    /// The matched pairs with a cosine of 0.7 or more, the largest first.
    pub matched: Vec<Match>,
    /// Features of the first without a counterpart.
    pub lost: Vec<Unmatched>,
    /// Features of the second without a counterpart.
    pub appeared: Vec<Unmatched>,
    /// The mean cosine over all pairs of the assignment, whose number is that of the features of
    /// the smaller fit.
    pub stability: f64,
    /// The share of those pairs that are in `matched`.
    pub found_again: f64,
    /// A short description of each feature of the second fit; empty if it was not requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub b_words: Vec<String>,
}

/// The cosines of every column of `a` with every column of `b`, `[a][b]`, computed in f64; 0 for a
/// column of zeros.
fn cosines(a: &SparseColumns, b: &SparseColumns) -> Vec<f64> {
    let index = NeuronIndex::new(b);
    let sizes: Vec<f64> = (0..b.columns())
        .map(|j| Overlap::Cosine.size(b.column(j).1))
        .collect();
    let mut out = Vec::with_capacity(a.columns() * b.columns());
    for i in 0..a.columns() {
        let sums = index.shared_sums_with(a, i, b.columns(), Overlap::Cosine);
        let own = Overlap::Cosine.size(a.column(i).1);
        out.extend(
            sums.iter()
                .zip(&sizes)
                .map(|(&sum, &size)| Overlap::Cosine.normalise(sum, own, size)),
        );
    }
    out
}

/// The one-to-one assignment with the largest sum of cosines (Kuhn, Munkres), in which negative
/// cosines count as 0. It has as many pairs as the smaller set has features, sorted by the ids of
/// `a`. Features of different widths have no match.
pub fn assignment(a: &SparseColumns, b: &SparseColumns) -> Vec<Match> {
    if a.rows != b.rows {
        return Vec::new();
    }
    pairs(&cosines(a, b), a.columns(), b.columns())
}

/// The pairs of the best assignment for the `cosines` `[rows][cols]`, by row.
fn pairs(cosines: &[f64], rows: usize, cols: usize) -> Vec<Match> {
    let pair = |a: usize, b: usize| Match {
        a,
        b,
        cosine: cosines[a * cols + b] as f32,
    };
    if rows <= cols {
        let costs: Vec<f64> = cosines.iter().map(|c| -c.max(0.0)).collect();
        return assign(&costs, rows, cols)
            .into_iter()
            .enumerate()
            .map(|(a, b)| pair(a, b))
            .collect();
    }
    let costs: Vec<f64> = (0..rows * cols)
        .map(|i| -cosines[i % rows * cols + i / rows].max(0.0))
        .collect();
    let mut out: Vec<Match> = assign(&costs, cols, rows)
        .into_iter()
        .enumerate()
        .map(|(b, a)| pair(a, b))
        .collect();
    out.sort_by_key(|m| m.a);
    out
}

/// Compares two fits, each given as (name, features).
pub fn compare(a: (&str, &SparseColumns), b: (&str, &SparseColumns)) -> FitComparison {
    let (rows, cols) = (a.1.columns(), b.1.columns());
    let cosines = if a.1.rows == b.1.rows {
        cosines(a.1, b.1)
    } else {
        vec![0.0; rows * cols]
    };
    let all = pairs(&cosines, rows, cols);
    let mut matched: Vec<Match> = all
        .iter()
        .copied()
        .filter(|m| f64::from(m.cosine) >= SAME_COSINE)
        .collect();
    matched.sort_by(|x, y| y.cosine.total_cmp(&x.cosine).then(x.a.cmp(&y.a)));
    let nearest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max) as f32;
    let lost = (0..rows)
        .filter(|i| !matched.iter().any(|m| m.a == *i))
        .map(|i| Unmatched {
            id: i,
            nearest: nearest(&mut (0..cols).map(|j| cosines[i * cols + j])),
        });
    let appeared = (0..cols)
        .filter(|j| !matched.iter().any(|m| m.b == *j))
        .map(|j| Unmatched {
            id: j,
            nearest: nearest(&mut (0..rows).map(|i| cosines[i * cols + j])),
        });
    let count = all.len().max(1) as f64;
    FitComparison {
        a: a.0.to_owned(),
        b: b.0.to_owned(),
        lost: lost.collect(),
        appeared: appeared.collect(),
        stability: all.iter().map(|m| f64::from(m.cosine)).sum::<f64>() / count,
        found_again: matched.len() as f64 / count,
        b_words: Vec::new(),
        matched,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::columns;
    use super::*;

    #[test]
    fn a_fit_in_another_order_matches_and_one_of_opposite_sign_does_not() {
        let a = columns(
            4,
            &[
                vec![0.6, 0.8, 0.0, 0.0],
                vec![0.0, 0.0, 1.0, 0.0],
                vec![0.0, 0.0, 0.0, 1.0],
            ],
        );
        let b = columns(
            4,
            &[
                vec![0.0, 0.0, 0.0, -1.0],
                vec![0.0, 0.1, 0.995, 0.0],
                vec![0.6, 0.8, 0.0, 0.0],
            ],
        );
        let same = compare(("a", &a), ("b", &b));
        assert_eq!(
            same.matched.iter().map(|m| (m.a, m.b)).collect::<Vec<_>>(),
            [(0, 2), (1, 1)]
        );
        assert_eq!(same.lost.iter().map(|l| l.id).collect::<Vec<_>>(), [2]);
        assert_eq!(
            same.appeared,
            [Unmatched {
                id: 0,
                nearest: 0.0
            }]
        );
        assert!((same.found_again - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn fits_of_different_size_or_width_compare() {
        let a = columns(2, &[vec![1.0, 0.0], vec![0.0, 1.0], vec![0.0, 0.0]]);
        let b = columns(2, &[vec![0.0, 1.0]]);
        for (x, y) in [(&a, &b), (&b, &a)] {
            let c = compare(("x", x), ("y", y));
            assert_eq!(
                (
                    c.matched.len(),
                    c.lost.len() + c.appeared.len(),
                    c.stability
                ),
                (1, 2, 1.0)
            );
        }
        let wide = columns(3, &[vec![1.0, 0.0, 0.0]]);
        assert!(compare(("a", &a), ("wide", &wide)).matched.is_empty());
        assert!(assignment(&a, &wide).is_empty());
        assert_eq!(compare(("a", &columns(2, &[])), ("b", &b)).stability, 0.0);
    }

    proptest! {
        #[test]
        fn every_feature_is_matched_or_listed_as_unmatched(
            a in proptest::collection::vec(proptest::collection::vec(-2i8..3, 6), 0..6),
            b in proptest::collection::vec(proptest::collection::vec(-2i8..3, 6), 0..6),
        ) {
            let dense = |m: &[Vec<i8>]| -> Vec<Vec<f32>> {
                m.iter().map(|c| c.iter().map(|&v| f32::from(v)).collect()).collect()
            };
            let (x, y) = (columns(6, &dense(&a)), columns(6, &dense(&b)));
            let c = compare(("a", &x), ("b", &y));
            prop_assert_eq!(c.matched.len() + c.lost.len(), a.len());
            prop_assert_eq!(c.matched.len() + c.appeared.len(), b.len());
            for m in &c.matched {
                let dot: f64 = dense(&a)[m.a].iter().zip(&dense(&b)[m.b]).map(|(p, q)| f64::from(p * q)).sum();
                let norm = |v: &[f32]| v.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt();
                let cosine = dot / (norm(&dense(&a)[m.a]) * norm(&dense(&b)[m.b]));
                prop_assert!((f64::from(m.cosine) - cosine).abs() < 1e-6);
            }
        }
    }
}
