//! Made-up groups of features: the dendrogram, levels, what features and fits have in common.

use super::{CONCEPTS, FakeEngine, noise};
use crate::analysis::matching::{FitComparison, Match, Unmatched};
use crate::analysis::{
    ComparedText, Comparison, Context, LevelInfo, LevelNode, Levels, SharedNeurons, Tree, TreeNode,
};
use crate::engine::{FeatureList, SetInfo, SetKind};

impl FakeEngine {
    /// A set of directions: one a concept.
    pub fn set(&self, kind: &SetKind) -> FeatureList {
        let mut list = self.list(0, true);
        list.rows.truncate(CONCEPTS.len());
        for row in &mut list.rows {
            row.neurons = 1536;
            row.name = kind.supervised().then(|| CONCEPTS[row.id].0.to_owned());
        }
        (list.fit, list.relative_error, list.explained_variance) =
            (kind.to_string(), f64::NAN, f64::NAN);
        list.set = Some(SetInfo {
            kind: kind.clone(),
            hook: Self::hook(),
            fit: Some("bcd-k40".to_owned()),
        });
        list
    }

    /// A dendrogram: features of one concept join one by one, some concepts join, the last three
    /// share nothing.
    pub fn tree(&self) -> Tree {
        let mut nodes: Vec<TreeNode> = (0..self.features)
            .map(|id| TreeNode {
                id,
                children: Vec::new(),
                height: 0.0,
                features: vec![id],
            })
            .collect();
        let features_of = |concept: usize| (concept..self.features).step_by(CONCEPTS.len());
        // (height, what joins): named by the feature that each side began with.
        let mut merges: Vec<(f32, usize, usize)> = Vec::new();
        for concept in 0..CONCEPTS.len() - 3 {
            let first = concept;
            for (i, id) in features_of(concept).skip(1).enumerate() {
                let height = 0.42 + 0.05 * i as f32 + 0.1 * noise(id, 3) + 0.03 * concept as f32;
                merges.push((height.min(0.93), first, id));
            }
        }
        if self.features > CONCEPTS.len() {
            merges.extend([(0.94, 0, 1), (0.955, 4, 5), (0.962, 0, 3), (0.981, 6, 7)]);
        }
        merges.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut place: Vec<usize> = (0..self.features).collect();
        let mut join = |height: f32, a: usize, b: usize, nodes: &mut Vec<TreeNode>| {
            let id = nodes.len();
            let children = vec![place[a], place[b]];
            let features = children
                .iter()
                .flat_map(|&c| nodes[c].features.clone())
                .collect::<Vec<_>>();
            for &feature in &features {
                place[feature] = id;
            }
            nodes.push(TreeNode {
                id,
                children,
                height,
                features,
            });
        };
        for (height, a, b) in merges {
            join(height, a, b, &mut nodes);
        }
        // What is left shares nothing: it joins at 1.
        for id in 1..self.features {
            let root = nodes.len() - 1;
            if !nodes[root].features.contains(&id) || nodes[root].features.len() < 2 {
                let with = nodes[root].features[0];
                join(1.0, with, id, &mut nodes);
            }
        }
        Tree {
            nodes,
            measure: "weighted Jaccard, average linkage".to_owned(),
        }
    }

    /// Two levels over the features: a concept each, then pairs of concepts.
    pub fn levels(&self) -> Levels {
        let base = |id: usize, level: usize, feature: usize| {
            let row = self.row(feature % CONCEPTS.len());
            LevelNode {
                id,
                level,
                feature,
                children: Vec::new(),
                shares: Vec::new(),
                features: vec![id],
                neurons: 16 << level,
                top_tokens: row.top_tokens,
                promoted: row.promoted,
                purity: row.purity,
                contexts: (0..3).map(|i| Self::context(feature, i, 6.0)).collect(),
            }
        };
        let mut nodes: Vec<LevelNode> = (0..self.features).map(|id| base(id, 0, id)).collect();
        let info = |features, sparsity, relative_error| LevelInfo {
            features,
            sparsity,
            relative_error,
            joint: None,
        };
        let mut levels = vec![info(self.features, 0.01, 0.322)];
        let mut below: Vec<usize> = (0..self.features).collect();
        for (level, wanted) in [(1, CONCEPTS.len()), (2, CONCEPTS.len() / 2)] {
            let count = wanted.min(below.len());
            let first = nodes.len();
            for feature in 0..count {
                let mut node = base(first + feature, level, feature);
                node.children = below
                    .iter()
                    .copied()
                    .skip(feature)
                    .step_by(count.max(1))
                    .take(3)
                    .collect();
                node.shares = (0..node.children.len())
                    .map(|i| 1.0 - 0.3 * i as f32)
                    .collect();
                node.features = node
                    .children
                    .iter()
                    .flat_map(|&c| nodes[c].features.clone())
                    .collect();
                nodes.push(node);
            }
            below = (first..first + count).collect();
            levels.push(info(count, 0.02 * level as f64, 0.2 + 0.1 * level as f64));
        }
        Levels {
            levels,
            nodes,
            growth: "growing".to_owned(),
        }
    }

    /// Features side by side.
    pub fn comparison(&self, ids: &[usize]) -> Comparison {
        let m = ids.len();
        let matrix = |seed: usize| {
            let value = |i: usize, j: usize| {
                if i == j {
                    1.0
                } else {
                    noise(i.min(j) + seed, i.max(j)) - 0.3
                }
            };
            (0..m * m)
                .map(|at| value(at / m, at % m))
                .collect::<Vec<f32>>()
        };
        let text = |id: usize| {
            let windows: Vec<Context> = ids
                .iter()
                .map(|other| Self::context(id, other % 3, 8.0))
                .collect();
            let values = windows.iter().enumerate().map(|(i, w)| {
                w.values
                    .iter()
                    .enumerate()
                    .map(|(t, v)| {
                        if t % m.max(1) == i || t == w.peak {
                            *v
                        } else {
                            0.0
                        }
                    })
                    .collect()
            });
            ComparedText {
                tokens: windows[0].tokens.clone(),
                cut: windows[0].cut,
                label: windows[0].label.clone(),
                peak: windows[0].peak,
                values: values.collect(),
            }
        };
        Comparison {
            features: ids.to_vec(),
            shared: Self::shared(ids),
            neurons: (0..20)
                .map(|n| {
                    let weight = |i: usize| {
                        if n < 3 || n % m.max(1) == i {
                            noise(n, i) - 0.4
                        } else {
                            0.0
                        }
                    };
                    (n * 61, (0..m).map(weight).collect())
                })
                .collect(),
            cosines: matrix(1),
            residual: Some(matrix(2)),
            together: matrix(3),
            peaks: vec![8.0; m],
            texts: ids.iter().map(|&id| text(id)).collect(),
        }
    }

    /// Two fits side by side: all but the last five are found again.
    pub fn fits_compared(&self, a: &str, b: &str) -> FitComparison {
        let kept = self.features - self.features.min(5);
        let matched = (0..kept).map(|i| Match {
            a: i,
            b: (i + 3) % kept.max(1),
            cosine: 1.0 - 0.007 * i as f32,
        });
        let alone = |i: usize| Unmatched {
            id: i,
            nearest: 0.5 * noise(i, 8),
        };
        FitComparison {
            b_words: Vec::new(),
            a: a.to_owned(),
            b: b.to_owned(),
            matched: matched.collect(),
            lost: (kept..self.features).map(alone).collect(),
            appeared: (kept..self.features).rev().map(alone).collect(),
            stability: 0.83,
            found_again: kept as f64 / self.features.max(1) as f64,
        }
    }

    /// The neurons that the features `ids` share.
    pub fn shared(ids: &[usize]) -> SharedNeurons {
        SharedNeurons {
            features: ids.to_vec(),
            core: (0..6)
                .map(|i| {
                    (
                        100 + i * 37,
                        0.4 - 0.05 * i as f32,
                        ids.len().max(1) - usize::from(i > 3),
                    )
                })
                .collect(),
            exclusive: ids
                .iter()
                .map(|id| {
                    (
                        *id,
                        (0..3)
                            .map(|i| (id * 11 + i, 0.2 - 0.06 * i as f32))
                            .collect(),
                    )
                })
                .collect(),
        }
    }
}
