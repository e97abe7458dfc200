//! From a feature to its neurons, from a neuron to its features, and how much two features overlap.
//!
//! Sees sparse columns alone. Invariant: an overlap is symmetric, and 1 for a feature with itself
//! unless the feature is empty.

use serde::{Deserialize, Serialize};

use super::{NeuronWeight, Related};
use crate::factor::SparseColumns;

/// How the overlap of two features is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Σ min / Σ max of |z| with the positive and the negative part of a neuron as two coordinates:
    /// a neuron with opposite signs is not shared. In 0..=1.
    #[default]
    WeightedJaccard,
    /// |supports' intersection| / |union|, whatever the signs. In 0..=1.
    Jaccard,
    /// Cosine of the columns, in −1..=1.
    Cosine,
}

impl Overlap {
    /// The name of the overlap in [`super::Tree::measure`].
    pub fn name(self) -> &'static str {
        match self {
            Self::WeightedJaccard => "weighted Jaccard",
            Self::Jaccard => "Jaccard",
            Self::Cosine => "cosine",
        }
    }

    /// The term of one shared neuron in the shared sum.
    fn term(self, a: f32, b: f32) -> f64 {
        match self {
            Self::WeightedJaccard if (a > 0.0) == (b > 0.0) => f64::from(a.abs().min(b.abs())),
            Self::WeightedJaccard => 0.0,
            Self::Jaccard => 1.0,
            Self::Cosine => f64::from(a) * f64::from(b),
        }
    }

    /// The size of a column: Σ|z|, the support's size, Σz².
    pub(super) fn size(self, weights: &[f32]) -> f64 {
        match self {
            Self::WeightedJaccard => weights.iter().map(|&w| f64::from(w.abs())).sum(),
            Self::Jaccard => weights.iter().filter(|&&w| w != 0.0).count() as f64,
            Self::Cosine => weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum(),
        }
    }

    /// The overlap from the shared sum and the sizes of both columns, by Σmax = |a| + |b| − Σmin. An
    /// empty feature has overlap 0 with every other.
    pub(super) fn normalise(self, shared: f64, a: f64, b: f64) -> f64 {
        let total = if self == Self::Cosine {
            (a * b).sqrt()
        } else {
            a + b - shared
        };
        if total > 0.0 { shared / total } else { 0.0 }
    }
}

/// Z by neuron: which features use each, with their weights.
pub struct NeuronIndex {
    /// Neuron i holds entries `offsets[i]..offsets[i + 1]`.
    offsets: Vec<usize>,
    /// (feature, weight), features ascending.
    entries: Vec<(u32, f32)>,
}

impl NeuronIndex {
    /// Transposes the columns: two passes over the non-zeros.
    pub fn new(features: &SparseColumns) -> Self {
        let mut offsets = vec![0; features.rows + 1];
        for j in 0..features.columns() {
            for (neuron, _) in nonzeros(features, j) {
                offsets[neuron + 1] += 1;
            }
        }
        for i in 0..features.rows {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let mut entries = vec![(0, 0.0); offsets[features.rows]];
        for j in 0..features.columns() {
            for (neuron, weight) in nonzeros(features, j) {
                entries[next[neuron]] = (j as u32, weight);
                next[neuron] += 1;
            }
        }
        Self { offsets, entries }
    }

    /// The features that use a neuron, ascending, with their weights; none for a neuron that does
    /// not exist.
    pub fn users(&self, neuron: usize) -> &[(u32, f32)] {
        match self.offsets.get(neuron..neuron.saturating_add(2)) {
            Some(&[start, end]) => &self.entries[start..end],
            _ => &[],
        }
    }

    /// The shared sums of feature j with every feature (its own included).
    fn shared_sums(&self, features: &SparseColumns, j: usize, overlap: Overlap) -> Vec<f64> {
        self.shared_sums_with(features, j, features.columns(), overlap)
    }

    /// The shared sums of feature j of `features` with each of the `count` features of this index,
    /// which may be those of another fit.
    pub(super) fn shared_sums_with(
        &self,
        features: &SparseColumns,
        j: usize,
        count: usize,
        overlap: Overlap,
    ) -> Vec<f64> {
        let mut sums = vec![0f64; count];
        for (neuron, weight) in nonzeros(features, j) {
            for &(other, value) in self.users(neuron) {
                sums[other as usize] += overlap.term(weight, value);
            }
        }
        sums
    }
}

/// The number of neurons that every two features share, and on the diagonal the number of each
/// feature: Z̄ᵀZ̄, where Z̄ is Z with 1 for every weight that is not zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedCounts {
    features: usize,
    /// k × k, row-major.
    counts: Vec<u32>,
}

impl SharedCounts {
    /// Counts the shared neurons of all pairs of features.
    pub fn new(features: &SparseColumns) -> Self {
        let (k, index) = (features.columns(), NeuronIndex::new(features));
        let mut counts = vec![0u32; k * k];
        for (j, row) in counts.chunks_exact_mut(k.max(1)).enumerate() {
            for (neuron, _) in nonzeros(features, j) {
                for &(other, _) in index.users(neuron) {
                    row[other as usize] += 1;
                }
            }
        }
        Self {
            features: k,
            counts,
        }
    }

    /// The number of features.
    pub fn features(&self) -> usize {
        self.features
    }

    /// The number of neurons that two features share.
    pub fn count(&self, a: usize, b: usize) -> u32 {
        self.counts[a * self.features + b]
    }

    /// The largest number of neurons that two different features share.
    pub fn largest_of_pairs(&self) -> u32 {
        let pairs = self.counts.iter().enumerate();
        let pairs = pairs.filter(|(at, _)| at / self.features != at % self.features);
        pairs.map(|(_, &count)| count).max().unwrap_or(0)
    }
}

/// The neurons of feature j whose weight is not zero, with their weights.
pub(super) fn nonzeros(
    features: &SparseColumns,
    j: usize,
) -> impl Iterator<Item = (usize, f32)> + '_ {
    let (indices, values) = features.column(j);
    indices
        .iter()
        .zip(values)
        .filter(|(_, v)| **v != 0.0)
        .map(|(&i, &v)| (i as usize, v))
}

/// The neurons of feature j by |weight|, largest first, with how many features use each.
pub fn weights_by_magnitude(
    features: &SparseColumns,
    index: &NeuronIndex,
    j: usize,
) -> Vec<NeuronWeight> {
    let mut neurons: Vec<NeuronWeight> = nonzeros(features, j)
        .map(|(i, weight)| NeuronWeight {
            index: i,
            weight,
            used_by: index.users(i).len(),
        })
        .collect();
    neurons.sort_by(|a, b| {
        b.weight
            .abs()
            .total_cmp(&a.weight.abs())
            .then(a.index.cmp(&b.index))
    });
    neurons
}

/// The `count` other features with the largest overlap above 0.
pub fn related(
    features: &SparseColumns,
    index: &NeuronIndex,
    j: usize,
    overlap: Overlap,
    count: usize,
) -> Vec<Related> {
    let sums = index.shared_sums(features, j, overlap);
    let size = |i: usize| overlap.size(features.column(i).1);
    let own = size(j);
    let mut out: Vec<Related> = (0..features.columns())
        .filter(|&i| i != j && sums[i] > 0.0)
        .map(|i| Related {
            id: i,
            overlap: overlap.normalise(sums[i], own, size(i)) as f32,
        })
        .collect();
    out.sort_by(|a, b| b.overlap.total_cmp(&a.overlap).then(a.id.cmp(&b.id)));
    out.truncate(count);
    out
}

/// The cosine of feature j with every feature (itself included), by id.
pub fn cosines_with(features: &SparseColumns, j: usize) -> Vec<f32> {
    let sums = NeuronIndex::new(features).shared_sums(features, j, Overlap::Cosine);
    let size = |i: usize| Overlap::Cosine.size(features.column(i).1);
    sums.iter()
        .enumerate()
        .map(|(i, &sum)| Overlap::Cosine.normalise(sum, size(j), size(i)) as f32)
        .collect()
}

/// The overlaps of all pairs i < j in the order (0,1), (0,2), …, (1,2), …: k(k − 1)/2 values. The
/// cost is one visit for each neuron and each pair of features that share it.
pub fn pairwise(features: &SparseColumns, overlap: Overlap) -> Vec<f64> {
    let k = features.columns();
    let index = NeuronIndex::new(features);
    let sizes: Vec<f64> = (0..k).map(|j| overlap.size(features.column(j).1)).collect();
    let mut out = Vec::with_capacity(k * k.saturating_sub(1) / 2);
    for i in 0..k {
        let sums = index.shared_sums(features, i, overlap);
        out.extend((i + 1..k).map(|j| overlap.normalise(sums[j], sizes[i], sizes[j])));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::columns;
    use super::*;

    /// Weighted Jaccard on dense columns in f64, from the definition.
    fn plain(a: &[f32], b: &[f32]) -> f64 {
        let (mut low, mut high) = (0f64, 0f64);
        for (&x, &y) in a.iter().zip(b) {
            let parts = [(x.max(0.0), y.max(0.0)), ((-x).max(0.0), (-y).max(0.0))];
            for (x, y) in parts {
                low += f64::from(x.min(y));
                high += f64::from(x.max(y));
            }
        }
        if high > 0.0 { low / high } else { 0.0 }
    }

    #[test]
    fn shared_neurons_are_the_product_of_the_binary_matrix_with_itself() {
        let (d, k) = (23, 9);
        let dense: Vec<Vec<f32>> = (0..k)
            .map(|j| {
                let value = |i: usize| match (i * 7 + j * j * 5) % 11 {
                    n if n < 4 => n as f32 - 1.5,
                    _ => 0.0,
                };
                (0..d).map(value).collect()
            })
            .collect();
        let counts = SharedCounts::new(&columns(d, &dense));
        let binary = |v: f32| f64::from(u8::from(v != 0.0));
        let mut most = 0.0f64;
        for a in 0..k {
            for b in 0..k {
                let each = (0..d).map(|i| binary(dense[a][i]) * binary(dense[b][i]));
                let wanted: f64 = each.sum();
                assert_eq!(f64::from(counts.count(a, b)), wanted, "{a} {b}");
                if a != b {
                    most = most.max(wanted);
                }
            }
        }
        assert_eq!(
            (counts.features(), f64::from(counts.largest_of_pairs())),
            (k, most)
        );
        assert!(most > 0.0);
    }

    proptest! {
        #[test]
        fn pairwise_overlaps_match_the_definition(
            dense in proptest::collection::vec(proptest::collection::vec(-3i8..4, 12), 0..7)
        ) {
            let dense: Vec<Vec<f32>> =
                dense.into_iter().map(|c| c.into_iter().map(|v| f32::from(v) * 0.25).collect()).collect();
            let features = columns(12, &dense);
            let (weighted, cosines) =
                (pairwise(&features, Overlap::WeightedJaccard), pairwise(&features, Overlap::Cosine));
            let jaccards = pairwise(&features, Overlap::Jaccard);
            let mut at = 0;
            for i in 0..dense.len() {
                for j in i + 1..dense.len() {
                    prop_assert!((weighted[at] - plain(&dense[i], &dense[j])).abs() < 1e-12);
                    let dot = |a: &[f32], b: &[f32]| -> f64 {
                        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
                    };
                    let norms = (dot(&dense[i], &dense[i]) * dot(&dense[j], &dense[j])).sqrt();
                    let cosine = if norms > 0.0 { dot(&dense[i], &dense[j]) / norms } else { 0.0 };
                    prop_assert!((cosines[at] - cosine).abs() < 1e-12);
                    let both = (0..12).filter(|&n| dense[i][n] != 0.0 && dense[j][n] != 0.0).count();
                    let any = (0..12).filter(|&n| dense[i][n] != 0.0 || dense[j][n] != 0.0).count();
                    prop_assert!((jaccards[at] - both as f64 / any.max(1) as f64).abs() < 1e-12);
                    at += 1;
                }
            }
            prop_assert_eq!(weighted.len(), at);
        }
    }

    #[test]
    fn neurons_come_by_magnitude_with_their_users() {
        let features = columns(
            4,
            &[
                vec![0.6, 0.0, -0.8, 0.0],
                vec![1.0, 0.0, 0.0, 0.0],
                vec![0.0; 4],
            ],
        );
        let index = NeuronIndex::new(&features);
        let neurons = weights_by_magnitude(&features, &index, 0);
        assert_eq!(
            neurons,
            [
                NeuronWeight {
                    index: 2,
                    weight: -0.8,
                    used_by: 1
                },
                NeuronWeight {
                    index: 0,
                    weight: 0.6,
                    used_by: 2
                }
            ]
        );
        assert_eq!(index.users(0), [(0, 0.6), (1, 1.0)]);
        assert!(index.users(1).is_empty());
        assert!(
            index.users(4).is_empty() && index.users(usize::MAX).is_empty(),
            "no such neuron"
        );
        assert!(weights_by_magnitude(&features, &index, 2).is_empty());
    }

    #[test]
    fn related_leaves_out_itself_and_those_without_overlap() {
        let features = columns(
            3,
            &[
                vec![1.0, 0.0, 0.0],
                vec![0.6, 0.8, 0.0],
                vec![-1.0, 0.0, 0.0],
                vec![0.9, 0.0, 0.1],
            ],
        );
        let index = NeuronIndex::new(&features);
        let related = related(&features, &index, 0, Overlap::WeightedJaccard, 10);
        assert_eq!(
            related.iter().map(|r| r.id).collect::<Vec<_>>(),
            [3, 1],
            "the opposite sign shares nothing"
        );
        assert!((related[0].overlap - 0.9 / 1.1).abs() < 1e-6);
    }
}
