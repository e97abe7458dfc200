//! Clusters features by the neurons they share: dendrograms, cuts, core and exclusive neurons.
//!
//! Sees sparse columns alone. Invariant of a [`Tree`]: leaves `0..k` first, then k − 1 merges with
//! heights that never fall; a merge's children come before it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::neurons::{Overlap, nonzeros, pairwise};
use super::{SharedNeurons, Tree, TreeNode};
use crate::factor::SparseColumns;

/// How the dissimilarity of two clusters follows from that of their members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Linkage {
    /// The mean dissimilarity over all pairs of members.
    #[default]
    Average,
    /// The largest dissimilarity of a pair of members.
    Complete,
    /// The smallest dissimilarity of a pair of members.
    Single,
}

impl Linkage {
    /// The name of the linkage in [`Tree::measure`].
    pub fn name(self) -> &'static str {
        match self {
            Self::Average => "average linkage",
            Self::Complete => "complete linkage",
            Self::Single => "single linkage",
        }
    }

    fn method(self) -> kodama::Method {
        match self {
            Self::Average => kodama::Method::Average,
            Self::Complete => kodama::Method::Complete,
            Self::Single => kodama::Method::Single,
        }
    }
}

/// The average-linkage dendrogram of 1 − weighted Jaccard overlap of same-sign weights.
pub fn tree(features: &SparseColumns) -> Tree {
    tree_by(features, Overlap::WeightedJaccard, Linkage::Average)
}

/// The dendrogram of 1 − `overlap` by the given linkage. Heights lie in 0..=1, for the cosine in
/// 0..=2. One feature gives one leaf, no feature gives no node.
pub fn tree_by(features: &SparseColumns, overlap: Overlap, linkage: Linkage) -> Tree {
    let k = features.columns();
    let measure = format!("{}, {}", overlap.name(), linkage.name());
    let mut nodes: Vec<TreeNode> = (0..k)
        .map(|id| TreeNode {
            id,
            children: Vec::new(),
            height: 0.0,
            features: vec![id],
        })
        .collect();
    if k > 1 {
        let mut dissimilarities: Vec<f64> = pairwise(features, overlap)
            .into_iter()
            .map(|o| (1.0 - o).max(0.0))
            .collect();
        for step in kodama::linkage(&mut dissimilarities, k, linkage.method()).steps() {
            let mut below = [
                &nodes[step.cluster1].features[..],
                &nodes[step.cluster2].features[..],
            ]
            .concat();
            below.sort_unstable();
            nodes.push(TreeNode {
                id: nodes.len(),
                children: vec![step.cluster1, step.cluster2],
                height: step.dissimilarity as f32,
                features: below,
            });
        }
    }
    Tree { nodes, measure }
}

/// The features in an order in which the tree can be drawn without crossings: of each merge the
/// child with the smaller height comes first, of equal ones that with the lower feature id.
pub fn leaf_order(tree: &Tree) -> Vec<usize> {
    let mut order = Vec::new();
    let mut open: Vec<&TreeNode> = tree.nodes.last().into_iter().collect();
    while let Some(node) = open.pop() {
        if node.children.is_empty() {
            order.extend(&node.features);
        }
        let mut children: Vec<&TreeNode> = node.children.iter().map(|&c| &tree.nodes[c]).collect();
        children.sort_by(|a, b| {
            b.height
                .total_cmp(&a.height)
                .then(b.features.cmp(&a.features))
        });
        open.extend(children);
    }
    order
}

/// The clusters that are left when every merge above `height` is undone, in the order of
/// [`leaf_order`]; a cluster's features ascend.
pub fn cut(tree: &Tree, height: f32) -> Vec<Vec<usize>> {
    // Heights never fall, so the last cluster below the cut that contains a leaf is the largest
    // one.
    let mut cluster: BTreeMap<usize, usize> = BTreeMap::new();
    for node in tree
        .nodes
        .iter()
        .filter(|n| n.children.is_empty() || n.height <= height)
    {
        cluster.extend(node.features.iter().map(|&f| (f, node.id)));
    }
    let mut ids: Vec<usize> = leaf_order(tree).iter().map(|f| cluster[f]).collect();
    ids.dedup();
    ids.into_iter()
        .map(|id| tree.nodes[id].features.clone())
        .collect()
}

/// The neurons that the features `ids` share, and those that only one of them uses. Core neurons
/// are in more than half of the members' supports, sorted by the number of members, then by |mean
/// weight| over the members that have them. Exclusive neurons are in the support of one member
/// only, sorted by |weight|. A repeated id counts once; an id that is not in the fit is left out.
pub fn shared_neurons(features: &SparseColumns, ids: &[usize]) -> SharedNeurons {
    let mut members: Vec<usize> = Vec::with_capacity(ids.len());
    for &id in ids {
        if id < features.columns() && !members.contains(&id) {
            members.push(id);
        }
    }
    let mut uses: BTreeMap<usize, (usize, f64)> = BTreeMap::new();
    for &id in &members {
        for (neuron, weight) in nonzeros(features, id) {
            let (count, sum) = uses.entry(neuron).or_default();
            *count += 1;
            *sum += f64::from(weight);
        }
    }
    let mut core: Vec<(usize, f32, usize)> = uses
        .iter()
        .filter(|(_, (count, _))| 2 * count > members.len())
        .map(|(&neuron, &(count, sum))| (neuron, (sum / count as f64) as f32, count))
        .collect();
    core.sort_by(|a, b| b.2.cmp(&a.2).then(b.1.abs().total_cmp(&a.1.abs())));
    let exclusive = members
        .iter()
        .map(|&id| {
            let mut own: Vec<(usize, f32)> = nonzeros(features, id)
                .filter(|(n, _)| uses[n].0 == 1)
                .collect();
            own.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
            (id, own)
        })
        .collect();
    SharedNeurons {
        features: members,
        core,
        exclusive,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::columns;
    use super::*;

    /// Two days that share neuron 0, two months that share neuron 4, and an empty feature.
    fn calendar() -> SparseColumns {
        columns(
            8,
            &[
                vec![0.8, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
                vec![0.0, 0.0, 0.0, 0.0, 0.9, 0.4, 0.0, 0.0],
                vec![0.8, 0.0, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0],
                vec![0.0, 0.0, 0.0, 0.0, 0.9, 0.0, 0.4, 0.0],
                vec![0.0; 8],
            ],
        )
    }

    #[test]
    fn features_that_share_neurons_merge_first() {
        let tree = tree(&calendar());
        assert_eq!(tree.measure, "weighted Jaccard, average linkage");
        assert_eq!(tree.nodes.len(), 9);
        assert!(
            tree.nodes[..5]
                .iter()
                .all(|n| n.children.is_empty() && n.features == [n.id])
        );
        // Overlaps 0.9 / 1.7 and 0.8 / 2.0.
        assert_eq!(tree.nodes[5].features, [1, 3]);
        assert!((f64::from(tree.nodes[5].height) - (1.0 - 0.9 / 1.7)).abs() < 1e-6);
        assert_eq!(tree.nodes[6].features, [0, 2]);
        assert!((f64::from(tree.nodes[6].height) - (1.0 - 0.8 / 2.0)).abs() < 1e-6);
        assert_eq!(tree.nodes[8].features, [0, 1, 2, 3, 4]);
        assert_eq!(tree.nodes[8].height, 1.0);
    }

    #[test]
    fn a_cut_gives_the_clusters_below_it() {
        let tree = tree(&calendar());
        let mut clusters = cut(&tree, 0.7);
        clusters.sort();
        assert_eq!(clusters, [vec![0, 2], vec![1, 3], vec![4]]);
        assert_eq!(
            cut(&tree, -1.0).len(),
            5,
            "below every merge each feature is alone"
        );
        assert_eq!(cut(&tree, 1.0), [vec![0, 1, 2, 3, 4]]);
    }

    #[test]
    fn no_features_and_one_feature_are_trees() {
        let none = tree(&SparseColumns::default());
        assert!(
            none.nodes.is_empty() && leaf_order(&none).is_empty() && cut(&none, 0.5).is_empty()
        );
        let one = tree(&columns(2, &[vec![1.0, 0.0]]));
        assert_eq!(one.nodes.len(), 1);
        assert_eq!((leaf_order(&one), cut(&one, 0.5)), (vec![0], vec![vec![0]]));
    }

    #[test]
    fn shared_neurons_are_core_or_exclusive_or_neither() {
        let features = columns(
            5,
            &[
                vec![0.5, 0.2, 0.0, 0.1, 0.0],
                vec![0.7, 0.0, -0.3, 0.1, 0.0],
                vec![0.6, 0.0, 0.0, 0.0, 0.9],
                vec![0.2, 0.0, 0.0, 0.0, 0.0],
            ],
        );
        let found = shared_neurons(&features, &[0, 1, 2, 3, 1, 99]);
        assert_eq!(found.features, [0, 1, 2, 3]);
        assert_eq!(found.core.len(), 1, "two of four are not more than half");
        let (neuron, mean, members) = found.core[0];
        assert_eq!((neuron, members), (0, 4));
        assert!((mean - 0.5).abs() < 1e-6);
        assert_eq!(
            found.exclusive,
            [
                (0, vec![(1, 0.2)]),
                (1, vec![(2, -0.3)]),
                (2, vec![(4, 0.9)]),
                (3, vec![])
            ]
        );
        let alone = shared_neurons(&features, &[2]);
        assert_eq!((alone.core.len(), alone.exclusive[0].1.len()), (2, 2));
        assert_eq!(shared_neurons(&features, &[]), SharedNeurons::default());
    }

    /// Average linkage from its definition: merge the pair of clusters with the least mean
    /// dissimilarity.
    fn plain_heights(k: usize, pairs: &[f64]) -> Vec<f64> {
        let at = |i: usize, j: usize| {
            let (i, j) = (i.min(j), i.max(j));
            pairs[i * k - i * (i + 1) / 2 + j - i - 1]
        };
        let mut clusters: Vec<Vec<usize>> = (0..k).map(|i| vec![i]).collect();
        let mut heights = Vec::new();
        while clusters.len() > 1 {
            let mut best = (f64::INFINITY, 0, 0);
            for a in 0..clusters.len() {
                for b in a + 1..clusters.len() {
                    let sum: f64 = clusters[a]
                        .iter()
                        .flat_map(|&i| clusters[b].iter().map(move |&j| at(i, j)))
                        .sum();
                    let mean = sum / (clusters[a].len() * clusters[b].len()) as f64;
                    if mean < best.0 {
                        best = (mean, a, b);
                    }
                }
            }
            let merged = clusters.remove(best.2);
            clusters[best.1].extend(merged);
            heights.push(best.0);
        }
        heights
    }

    proptest! {
        #[test]
        fn a_tree_is_whole_and_its_heights_never_fall(
            dense in proptest::collection::vec(proptest::collection::vec(-1f32..1.0, 10), 2..9),
            height in 0f32..1.0,
        ) {
            let k = dense.len();
            let features = columns(10, &dense);
            let tree = tree(&features);
            prop_assert_eq!(tree.nodes.len(), 2 * k - 1);
            for (id, node) in tree.nodes.iter().enumerate() {
                prop_assert_eq!(node.id, id);
                prop_assert!(node.children.iter().all(|&c| c < id && tree.nodes[c].height <= node.height));
            }
            for pair in tree.nodes[k..].windows(2) {
                prop_assert!(pair[0].height <= pair[1].height);
            }
            let pairs: Vec<f64> = pairwise(&features, Overlap::WeightedJaccard).iter().map(|o| 1.0 - o).collect();
            for (node, plain) in tree.nodes[k..].iter().zip(plain_heights(k, &pairs)) {
                prop_assert!((f64::from(node.height) - plain).abs() < 1e-6);
            }
            let mut order = leaf_order(&tree);
            let mut cells: Vec<usize> = cut(&tree, height).concat();
            order.sort_unstable();
            cells.sort_unstable();
            prop_assert_eq!(&order, &(0..k).collect::<Vec<_>>());
            prop_assert_eq!(cells, order);
        }
    }
}
