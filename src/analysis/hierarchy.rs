//! Overlap of supports, dendrograms, core and exclusive neurons.

use super::{SharedNeurons, Tree};
use crate::factor::SparseColumns;

/// Average-linkage dendrogram of 1 − weighted Jaccard overlap of same-sign weights.
pub fn tree(features: &SparseColumns) -> Tree {
    let _ = features;
    unimplemented!()
}

/// What a set of features shares and what each has for itself.
pub fn shared(features: &SparseColumns, ids: &[usize]) -> SharedNeurons {
    let _ = (features, ids);
    unimplemented!()
}
