//! Measures whether two fits have the same features: the cosines of their columns, and the best
//! one-to-one assignment of one fit's features to the other's.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::directions::Directions;
use crate::matrix::gemm::row_major_product;

/// The |cos| above which two columns of one set count as duplicates.
pub const DUPLICATE: f32 = 0.9;
/// The |cos| from which the features of a matched pair count as the same.
pub const SAME_COSINE: f64 = 0.7;

/// The agreement of fits that differ only in their seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// Mean |cos| of matched columns over all pairs of fits.
    pub mean: f64,
    /// Share of matched columns with |cos| of [`SAME_COSINE`] or more.
    pub found_again: f64,
    /// Number of pairs of fits that were matched.
    pub pairs: usize,
}

/// The |cos| of every column of `a` with every column of `b`, `[a][b]`. A column of zeros has the
/// cosine 0.
pub fn cosines(a: &Directions, b: &Directions) -> Vec<f32> {
    const LINES: usize = 32;
    let (d, width, count) = (a.height(), b.count(), a.count());
    let right = b.unit_by_neuron(0..width);
    let mut out = vec![0.0; count * width];
    out.par_chunks_mut((LINES * width).max(1))
        .enumerate()
        .for_each(|(i, tile)| {
            let columns = i * LINES..i * LINES + tile.len() / width;
            let by_neuron = a.unit_by_neuron(columns.clone());
            let lines = columns.len();
            let mut rows = vec![0.0; lines * d];
            for (neuron, values) in by_neuron.chunks_exact(lines).enumerate() {
                for (line, &v) in values.iter().enumerate() {
                    rows[line * d + neuron] = v;
                }
            }
            row_major_product(tile, &rows, d, &right, width);
            tile.iter_mut().for_each(|v| *v = v.abs());
        });
    out
}

/// The number of columns whose |cos| with an earlier column is above [`DUPLICATE`].
pub fn duplicates(directions: &Directions) -> usize {
    let k = directions.count();
    let cosines = cosines(directions, directions);
    (0..k)
        .filter(|&j| cosines[j * k..j * k + j].iter().any(|&c| c > DUPLICATE))
        .count()
}

/// Matches the columns of every pair of `fits` one to one so that the sum of |cos| is largest.
/// `None` for fewer than two fits.
pub fn stability(fits: &[&Directions]) -> Option<Stability> {
    let mut matched = Vec::new();
    let mut pairs = 0;
    for (i, a) in fits.iter().enumerate() {
        for b in &fits[i + 1..] {
            let (small, large) = if a.count() <= b.count() {
                (a, b)
            } else {
                (b, a)
            };
            let (rows, cols) = (small.count(), large.count());
            let cosines = cosines(small, large);
            let costs: Vec<f64> = cosines.iter().map(|&c| -f64::from(c)).collect();
            let of_row = assign(&costs, rows, cols);
            matched.extend(
                of_row
                    .iter()
                    .enumerate()
                    .map(|(r, &c)| f64::from(cosines[r * cols + c])),
            );
            pairs += 1;
        }
    }
    let count = matched.len() as f64;
    (pairs > 0 && !matched.is_empty()).then(|| Stability {
        mean: matched.iter().sum::<f64>() / count,
        found_again: matched.iter().filter(|&&c| c >= SAME_COSINE).count() as f64 / count,
        pairs,
    })
}

/// The column of each row in the one-to-one assignment of the smallest total cost (Kuhn, Munkres;
/// the form by shortest augmenting paths with potentials, O(rows² · cols)). `costs` is row-major
/// with `rows <= cols`.
///
/// # Panics
/// If a cost is not finite: the search for a path would not end.
pub fn assign(costs: &[f64], rows: usize, cols: usize) -> Vec<usize> {
    debug_assert!(rows <= cols && costs.len() == rows * cols);
    assert!(costs.iter().all(|c| c.is_finite()), "costs are finite");
    // Column 0 stands for the row that is being assigned; columns and rows are counted from 1.
    let (mut row_potential, mut col_potential) = (vec![0.0; rows + 1], vec![0.0; cols + 1]);
    let mut row_of = vec![0usize; cols + 1];
    let mut before = vec![0usize; cols + 1];
    for row in 1..=rows {
        row_of[0] = row;
        let mut column = 0;
        let mut distance = vec![f64::INFINITY; cols + 1];
        let mut done = vec![false; cols + 1];
        while row_of[column] != 0 {
            done[column] = true;
            let from = row_of[column];
            let (mut step, mut next) = (f64::INFINITY, 0);
            for col in 1..=cols {
                if done[col] {
                    continue;
                }
                let reduced =
                    costs[(from - 1) * cols + col - 1] - row_potential[from] - col_potential[col];
                if reduced < distance[col] {
                    (distance[col], before[col]) = (reduced, column);
                }
                if distance[col] < step {
                    (step, next) = (distance[col], col);
                }
            }
            for col in 0..=cols {
                if done[col] {
                    row_potential[row_of[col]] += step;
                    col_potential[col] -= step;
                } else {
                    distance[col] -= step;
                }
            }
            column = next;
        }
        while column != 0 {
            row_of[column] = row_of[before[column]];
            column = before[column];
        }
    }
    let mut out = vec![0; rows];
    for (col, &row) in row_of.iter().enumerate().skip(1) {
        if row > 0 {
            out[row - 1] = col - 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::directions::baselines::random;

    fn cheapest(costs: &[f64], rows: usize, cols: usize, row: usize, used: &mut Vec<bool>) -> f64 {
        if row == rows {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for col in 0..cols {
            if !used[col] {
                used[col] = true;
                best =
                    best.min(costs[row * cols + col] + cheapest(costs, rows, cols, row + 1, used));
                used[col] = false;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_assignment_is_cheaper(
            rows in 1usize..6, more in 0usize..2, costs in proptest::collection::vec(-20i8..20, 42),
        ) {
            // Small whole numbers: ties are common and sums are exact.
            let cols = rows + more;
            let costs: Vec<f64> = costs[..rows * cols].iter().map(|&c| f64::from(c) / 4.0).collect();
            let assigned = assign(&costs, rows, cols);
            let mut seen = vec![false; cols];
            for &col in &assigned {
                prop_assert!(!std::mem::replace(&mut seen[col], true), "column {} twice", col);
            }
            let total: f64 = assigned.iter().enumerate().map(|(r, &c)| costs[r * cols + c]).sum();
            prop_assert_eq!(total, cheapest(&costs, rows, cols, 0, &mut vec![false; cols]));
        }
    }

    #[test]
    fn the_same_features_in_another_order_and_sign_are_the_same() {
        let a = random::directions(200, 40, 10, 3);
        let z = a.to_sparse();
        let shuffled: Vec<f32> = (0..40)
            .flat_map(|j| z.dense_column((j * 7 + 3) % 40))
            .map(|v| -2.0 * v)
            .collect();
        let b = Directions::Dense {
            d: 200,
            columns: shuffled,
        };
        let same = stability(&[&a, &b]).unwrap();
        assert!((same.mean - 1.0).abs() < 1e-5 && same.found_again == 1.0 && same.pairs == 1);
        let other = stability(&[&a, &random::directions(200, 40, 10, 4)]).unwrap();
        assert!(other.mean < 0.6 && other.found_again < 0.2, "{other:?}");
        assert_eq!(stability(&[&a]), None);
    }

    #[test]
    fn duplicates_are_counted_once_and_zeros_never() {
        let columns = vec![1.0, 0.0, -2.0, 0.01, 0.0, 1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(duplicates(&Directions::Dense { d: 2, columns }), 2);
        assert_eq!(duplicates(&Directions::Neurons(5)), 0);
    }
}
