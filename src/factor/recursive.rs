//! Levels of features: the features of a fit, as rows, are factorised again, and again (method,
//! section 7).
//!
//! Z₁ᵀ \[k₁ × d\] ≈ Y₂ Z₂ᵀ, Z₂ᵀ ≈ Y₃ Z₃ᵀ, …: Y_l says which finer features a coarser one is made
//! of. Sees sparse columns alone. Invariant: level l has as many features as asked for, each of
//! unit norm or zero, and its coefficients are ≥ 0.

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

/// A child is kept where its coefficient is at least this share of the largest of its parent.
pub const KEPT_SHARE: f32 = 0.3;
/// Children of a node at most.
pub const MOST_CHILDREN: usize = 3;
/// How often the number of features is halved when no levels are named: 400 → 200 → 100 → 50.
const HALVINGS: usize = 3;

/// The share p of neurons that the features of a level may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Growth {
    /// min(1, p·k₁/k_l): a parent has room for the neurons of all that it stands for.
    #[default]
    Growing,
    /// The same p at every level, as in the paper.
    Fixed,
}

impl Growth {
    /// p of a level of `k` features over a fit of `first` features with `p`.
    pub fn sparsity(self, p: f64, first: usize, k: usize) -> f64 {
        match self {
            Self::Growing => (p * first as f64 / k.max(1) as f64).min(1.0),
            Self::Fixed => p,
        }
    }

    /// Its name.
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
    /// Z_l \[d × k_l\].
    pub features: SparseColumns,
    /// Y_l by feature: k_l × k_{l−1}.
    pub coefficients: Vec<f32>,
    /// The share of neurons that a feature was allowed.
    pub sparsity: f64,
    /// ‖Z_{l−1}ᵀ − Y_l Z_lᵀ‖² / ‖Z_{l−1}‖².
    pub relative_error: f64,
}

/// The levels over `k` features when none are named: half as many each time, as long as there are
/// two.
pub fn default_levels(k: usize) -> Vec<usize> {
    (1..=HALVINGS)
        .map(|l| k >> l)
        .take_while(|&k| k >= 2)
        .collect()
}

/// Factorises Z₁ᵀ with `counts[0]` features, its features with `counts[1]`, and so on, each as
/// `config` says but for the number of features and p, which follows `growth`.
///
/// # Errors
/// Levels that are empty or do not shrink, [`Error::Cancelled`].
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
            // The stop rules are those of the solver: what the fit itself was bounded to says
            // nothing of its levels.
            let config = FitConfig {
                max_sweeps: None,
                patience: None,
                threads: None,
                ..config.clone()
            };
            // Features have unit norm already, and their mean is a part of what the levels explain.
            // Neurons count as they are shown: what a level says is how features are made of finer
            // ones.
            let config = FitConfig {
                row_cap: None,
                ..config.without_preprocessing()
            };
            let sparsity = growth.sparsity(config.sparsity_at(first.rows), k, features);
            out.push(search.level(
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
    /// How much of each finer feature feature j is made of: column j of Y_l.
    pub fn column(&self, j: usize) -> &[f32] {
        let below = self.coefficients.len() / self.features.columns().max(1);
        &self.coefficients[j * below..(j + 1) * below]
    }

    /// The children of feature j: (finer feature, share of the column's largest coefficient),
    /// largest first. A child is kept from [`KEPT_SHARE`] on, [`MOST_CHILDREN`] at most; a feature
    /// that nothing expresses has none.
    pub fn children(&self, j: usize) -> Vec<(usize, f32)> {
        let column = self.column(j);
        let largest = column.iter().copied().fold(0f32, f32::max);
        if largest <= 0.0 {
            return Vec::new();
        }
        let mut kept: Vec<(usize, f32)> = column
            .iter()
            .map(|&v| v / largest)
            .enumerate()
            .filter(|(_, share)| *share >= KEPT_SHARE)
            .collect();
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        kept.truncate(MOST_CHILDREN);
        kept
    }
}

/// How much of each feature of the fit feature j of level `l` is made of (levels from 0, the first
/// above the fit): column j of Y₂ ⋯ Y_l, k₁ values. The token coefficients of the node are Y₁ times
/// it.
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
