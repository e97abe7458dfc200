//! Levels of features: the features of a fit, taken as rows, are factorised again, and again
//! (recursive SNMF: Shafran, Geiger, Geva, arXiv 2506.10920; `guide/method.md`).
//!
//! Z₁ᵀ \[k₁ × d\] ≈ Y₂ Z₂ᵀ, Z₂ᵀ ≈ Y₃ Z₃ᵀ, …: Y_l holds the weights with which finer features make
//! up a coarser one. It works on sparse columns alone. Invariant: level l has as many features as
//! requested, each of unit norm or zero, and its coefficients are ≥ 0.

use serde::{Deserialize, Serialize};

use self::search::LevelSearch;
use super::fit::FitThreads;
use super::{FitConfig, SparseColumns};
use crate::error::{Error, Result};
use crate::task::TaskCtx;

pub mod joint;
mod search;
#[cfg(test)]
mod tests;

/// The default of the smallest coefficient of a child, as a share of its parent's largest one.
pub const MIN_CHILD_SHARE: f32 = 0.3;
/// The default of the largest number of children of a node.
pub const MAX_CHILDREN: usize = 3;

/// The rule that chooses which finer features are shown as children of a coarser one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChildRule {
    /// The largest number of children of a node.
    pub most: usize,
    /// The smallest coefficient of a child, as a share of the largest one of its parent.
    pub share: f32,
}

impl Default for ChildRule {
    fn default() -> Self {
        Self {
            most: MAX_CHILDREN,
            share: MIN_CHILD_SHARE,
        }
    }
}

/// The number of times that the number of features is halved if no levels are given: 400 → 200 →
/// 100 → 50.
const HALVINGS: usize = 3;

/// How the share p of the neurons that a feature may use changes from level to level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Growth {
    /// min(1, p·k₁/k_l): the support of a parent can hold the neurons of all its children.
    #[default]
    Growing,
    /// The same p at every level, as in the paper.
    Fixed,
}

impl Growth {
    /// The share p of a level of `k` features over a fit of `first` features with the share `p`.
    pub fn sparsity(self, p: f64, first: usize, k: usize) -> f64 {
        match self {
            Self::Growing => (p * first as f64 / k.max(1) as f64).min(1.0),
            Self::Fixed => p,
        }
    }

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Growing => "growing",
            Self::Fixed => "fixed",
        }
    }
}

/// One level above the features of a fit.
#[derive(Debug, Clone)]
pub struct Level {
    /// Z_l \[d × k_l\], unit columns.
    pub features: SparseColumns,
    /// Y_l by feature: k_l × k_{l−1}.
    pub coefficients: Vec<f32>,
    /// The share p of neurons that each feature may use.
    pub sparsity: f64,
    /// ‖Z_{l−1}ᵀ − Y_l Z_lᵀ‖² / ‖Z_{l−1}‖².
    pub relative_error: f64,
}

/// The numbers of features of the levels over `k` features if none are given: half as many each
/// time, as long as there are two.
pub fn default_levels(k: usize) -> Vec<usize> {
    (1..=HALVINGS)
        .map(|l| k >> l)
        .take_while(|&k| k >= 2)
        .collect()
}

/// Factorises Z₁ᵀ with `counts[0]` features, those features with `counts[1]`, and so on. Each level
/// is a fit of `config` except for the number of features, the preprocessing, the row cap, and p,
/// which follows `growth`.
///
/// # Errors
/// [`Error::Usage`] for levels that are empty or not smaller than the one below,
/// [`Error::Cancelled`].
pub fn levels(
    first: &SparseColumns,
    counts: &[usize],
    growth: Growth,
    config: &FitConfig,
    ctx: &TaskCtx,
) -> Result<Vec<Level>> {
    let k = first.columns();
    let mut above = k;
    for &count in counts {
        if count == 0 || count >= above {
            return Err(Error::usage(format!(
                "a level of {count} features over one of {above}: each level must have fewer, and at least 1"
            )));
        }
        above = count;
    }
    let search = LevelSearch::new(k, counts, ctx);
    let mut out: Vec<Level> = Vec::with_capacity(counts.len());
    FitThreads::new(config.threads)?.run(|| {
        for (l, &features) in counts.iter().enumerate() {
            let below = out.last().map_or(first, |level| &level.features);
            // The solver's default stop rules apply, since a limit on the sweeps of the fit is not
            // meant for its levels.
            let config = FitConfig {
                max_sweeps: None,
                patience: None,
                threads: None,
                ..config.clone()
            };
            // Features have unit norm already, and their mean is part of what a level explains.
            // Neurons are not weighted, since a level describes how the shown features are
            // composed.
            let config = FitConfig {
                row_cap: None,
                ..config.without_preprocessing()
            };
            let sparsity = growth.sparsity(config.sparsity_at(first.rows), k, features);
            out.push(search.fit_level(
                l,
                below,
                &FitConfig {
                    features,
                    sparsity: Some(sparsity),
                    ..config
                },
            )?);
        }
        Ok(out)
    })
}

impl Level {
    /// The coefficients of feature j at each finer feature: column j of Y_l, k_{l−1} values.
    pub fn column(&self, j: usize) -> &[f32] {
        let below = self.coefficients.len() / self.features.columns().max(1);
        &self.coefficients[j * below..(j + 1) * below]
    }

    /// The children of feature j by `rule`, largest first: pairs of a finer feature and the ratio
    /// of its coefficient to the largest one. A feature whose coefficients are all zero has no
    /// children.
    pub fn children(&self, j: usize, rule: ChildRule) -> Vec<(usize, f32)> {
        let column = self.column(j);
        let largest = column.iter().copied().fold(0f32, f32::max);
        if largest <= 0.0 {
            return Vec::new();
        }
        let mut kept: Vec<(usize, f32)> = column
            .iter()
            .map(|&v| v / largest)
            .enumerate()
            .filter(|(_, share)| *share > 0.0 && *share >= rule.share)
            .collect();
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        kept.truncate(rule.most);
        kept
    }
}

/// The weight of each feature of the fit in feature j of level `l` (from 0, the first level above
/// the fit): column j of Y₂ ⋯ Y_l, k₁ values. The token coefficients of the node are Y₁ times it.
pub fn weights(levels: &[Level], l: usize, j: usize) -> Vec<f32> {
    let mut column: Vec<f64> = levels[l].column(j).iter().map(|&v| f64::from(v)).collect();
    for level in levels[..l].iter().rev() {
        let mut below = vec![0f64; level.coefficients.len() / level.features.columns().max(1)];
        for (i, &weight) in column.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            below
                .iter_mut()
                .zip(level.column(i))
                .for_each(|(b, &y)| *b += weight * f64::from(y));
        }
        column = below;
    }
    column.into_iter().map(|v| v as f32).collect()
}
