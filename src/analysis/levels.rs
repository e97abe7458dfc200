//! Describes levels of recursive semi-NMF as trees: the finer features that make up a coarse
//! feature, and the tokens on which it fires.
//!
//! Invariant of [`Levels`]: children lie one level below their parent and come before it.

use rayon::prelude::*;

use super::contexts::{context, top_contexts, top_tokens};
use super::labels::LabelBase;
use super::lens;
use super::neurons::nonzeros;
use super::scan::sum_and_max;
use super::{LevelInfo, LevelNode, Levels};
use crate::corpus::TokenTable;
use crate::error::Result;
use crate::factor::recursive::{ChildRule, Growth, Level, MIN_CHILD_SHARE, weights};
use crate::factor::{Factors, SparseColumns};
use crate::model::{HookPoint, Model};

/// The number of promoted tokens of a node.
const PROMOTED: usize = 6;
/// The number of contexts of a node.
const CONTEXTS: usize = 4;

/// The levels over a fit as plain data. `sparsity` is the p of the fit, `tuned` holds each level's
/// error before and after the levels were tuned together (empty if they were not), and `child_rule`
/// chooses the children of a node.
pub fn describe(
    factors: &Factors,
    levels: &[Level],
    growth: Growth,
    sparsity: f64,
    tuned: &[(f64, f64)],
    child_rule: ChildRule,
    tokens: &TokenTable,
) -> Levels {
    let k = factors.features.columns();
    let reader = NodeReader {
        factors,
        tokens,
        labels: LabelBase::new(tokens, factors.coefficients.rows),
    };
    let unit_vector = |j: usize| {
        let mut weights = vec![0.0; k];
        weights[j] = 1.0;
        weights
    };
    let mut infos = vec![LevelInfo {
        features: k,
        sparsity,
        relative_error: factors.relative_error,
        joint: None,
    }];
    let mut nodes: Vec<LevelNode> = (0..k)
        .into_par_iter()
        .map(|j| reader.node(j, 0, j, &factors.features, &unit_vector(j)))
        .collect();
    nodes
        .iter_mut()
        .for_each(|node| node.features = vec![node.id]);
    let mut below = 0;
    for (l, level) in levels.iter().enumerate() {
        let count = level.features.columns();
        let LevelInfo {
            features: finer, ..
        } = infos[l];
        let Level {
            sparsity,
            relative_error,
            ..
        } = *level;
        infos.push(LevelInfo {
            features: count,
            sparsity,
            relative_error,
            joint: tuned.get(l).copied(),
        });
        let first = below + finer;
        let mut level_nodes: Vec<LevelNode> = (0..count)
            .into_par_iter()
            .map(|j| reader.node(first + j, l + 1, j, &level.features, &weights(levels, l, j)))
            .collect();
        for node in &mut level_nodes {
            (node.children, node.shares) = level
                .children(node.feature, child_rule)
                .into_iter()
                .map(|(i, s)| (below + i, s))
                .unzip();
            node.features = node
                .children
                .iter()
                .flat_map(|&c| nodes[c].features.iter().copied())
                .collect();
            node.features.sort_unstable();
            node.features.dedup();
        }
        nodes.extend(level_nodes);
        below = first;
    }
    Levels {
        levels: infos,
        nodes,
        growth: growth.name().to_owned(),
    }
}

/// Adds the tokens that the features above the fit promote; `found` are the levels from which
/// `levels` was made.
///
/// # Errors
/// What [`lens::promoted_tokens`] returns.
pub fn promote(levels: &mut Levels, found: &[Level], model: &Model, hook: HookPoint) -> Result<()> {
    let mut at = levels.levels[0].features;
    for level in found {
        let directions: Vec<Vec<f32>> = (0..level.features.columns())
            .map(|j| level.features.dense_column(j))
            .collect();
        for (top, _) in lens::promoted_tokens(model, hook, &directions, PROMOTED)? {
            levels.nodes[at].promoted = top;
            at += 1;
        }
    }
    Ok(())
}

/// Makes the nodes of the levels over one fit.
struct NodeReader<'a> {
    factors: &'a Factors,
    tokens: &'a TokenTable,
    labels: LabelBase<'a>,
}

impl NodeReader<'_> {
    /// The node whose token coefficients are Y₁ · `weights`, without its children.
    fn node(
        &self,
        id: usize,
        level: usize,
        feature: usize,
        features: &SparseColumns,
        weights: &[f32],
    ) -> LevelNode {
        let values = self.values(weights);
        let (_, peak) = sum_and_max(&values);
        let rows: Vec<usize> = top_contexts(&values, peak, self.tokens)
            .iter()
            .map(|p| p.row)
            .collect();
        let strong = rows
            .iter()
            .take_while(|&&row| values[row] >= MIN_CHILD_SHARE * peak)
            .count();
        LevelNode {
            id,
            level,
            feature,
            children: Vec::new(),
            shares: Vec::new(),
            features: Vec::new(),
            neurons: nonzeros(features, feature).count(),
            top_tokens: top_tokens(self.tokens, &rows[..strong]),
            promoted: Vec::new(),
            purity: self.labels.purity(&rows),
            contexts: rows
                .iter()
                .take(CONTEXTS)
                .map(|&row| context(self.tokens, &values, row))
                .collect(),
        }
    }

    /// Y₁ · weights: one value per token row.
    fn values(&self, weights: &[f32]) -> Vec<f32> {
        let mut values = vec![0f32; self.factors.coefficients.rows];
        for (j, &weight) in weights.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            values
                .iter_mut()
                .zip(self.factors.coefficients.feature(j))
                .for_each(|(v, &y)| *v += weight * y);
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{columns, factors, table};
    use super::*;
    use crate::factor::FitConfig;
    use crate::factor::recursive;
    use crate::task::TaskCtx;

    #[test]
    fn a_parent_fires_where_its_children_do() {
        // Days share neuron 0, months neuron 3.
        let z = columns(
            6,
            &[
                vec![0.8, 0.6, 0.0, 0.0, 0.0, 0.0],
                vec![0.8, 0.0, 0.6, 0.0, 0.0, 0.0],
                vec![0.0, 0.0, 0.0, 0.8, 0.6, 0.0],
                vec![0.0, 0.0, 0.0, 0.8, 0.0, 0.6],
            ],
        );
        let tokens = table(&[
            (&["Mon"], Some("day")),
            (&["Tue"], Some("day")),
            (&["May"], Some("month")),
            (&["Jun"], Some("month")),
        ]);
        let mut by_feature = vec![0.0; 16];
        (0..4).for_each(|j| by_feature[j * 4 + j] = 2.0);
        let fit = factors(z, 4, by_feature);
        let config = FitConfig {
            features: 4,
            sparsity: Some(0.34),
            l1: 0.0,
            ..FitConfig::default()
        };
        let found = recursive::levels(
            &fit.features,
            &[2],
            Growth::Growing,
            &config,
            &TaskCtx::silent(),
        )
        .unwrap();
        let levels = describe(
            &fit,
            &found,
            Growth::Growing,
            0.34,
            &[],
            ChildRule::default(),
            &tokens,
        );
        assert_eq!(
            levels.levels.iter().map(|l| l.features).collect::<Vec<_>>(),
            [4, 2]
        );
        assert_eq!(levels.nodes.len(), 6);
        let mut tops: Vec<(Vec<usize>, String, f32)> = levels.nodes[4..]
            .iter()
            .map(|n| {
                let purity = n.purity.clone().unwrap();
                (n.features.clone(), purity.label, purity.share)
            })
            .collect();
        tops.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            tops,
            [
                (vec![0, 1], "day".to_owned(), 1.0),
                (vec![2, 3], "month".to_owned(), 1.0)
            ]
        );
        for node in &levels.nodes[4..] {
            let mut tokens = node.top_tokens.clone();
            tokens.sort();
            let expected = if node.features[0] == 0 {
                ["Mon", "Tue"]
            } else {
                ["Jun", "May"]
            };
            assert_eq!(tokens, expected);
            assert!(
                node.shares
                    .iter()
                    .all(|s| *s >= MIN_CHILD_SHARE && *s <= 1.0)
            );
            assert!(
                node.children
                    .iter()
                    .all(|&c| c < node.id && levels.nodes[c].level + 1 == node.level)
            );
        }
        assert_eq!(levels.nodes[0].top_tokens, ["Mon"]);
    }
}
