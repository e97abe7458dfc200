//! Levels of features: the features of a fit, as rows, are factorised again, and again (method, section 7).
//!
//! Z₁ᵀ \[k₁ × d\] ≈ Y₂ Z₂ᵀ, Z₂ᵀ ≈ Y₃ Z₃ᵀ, …: Y_l says which finer features a coarser one is made of. Sees sparse columns
//! alone. Invariant: level l has as many features as asked for, each of unit norm or zero, and its coefficients are ≥ 0.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Factoriser, Factors, FitConfig, SparseColumns};
use crate::activations::InMemory;
use crate::error::{Error, Result};
use crate::task::{Progress, TaskCtx};

/// A child is kept where its coefficient is at least this share of the largest of its parent.
pub const KEPT_SHARE: f32 = 0.3;
/// Children of a node at most.
pub const MOST_CHILDREN: usize = 3;
/// How often the number of features is halved when no levels are named: 400 → 200 → 100 → 50.
const HALVINGS: usize = 3;

/// Starts tried at each level, the best being kept: with a row a feature, a poor start is common and another one cheap.
const STARTS: u64 = 6;

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

/// The levels over `k` features when none are named: half as many each time, as long as there are two.
pub fn default_levels(k: usize) -> Vec<usize> {
    (1..=HALVINGS).map(|l| k >> l).take_while(|&k| k >= 2).collect()
}

/// Factorises Z₁ᵀ with `counts[0]` features, its features with `counts[1]`, and so on, each as `config` says but for the
/// number of features and p, which follows `growth`.
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
    let mut out: Vec<Level> = Vec::with_capacity(counts.len());
    for (l, &count) in counts.iter().enumerate() {
        ctx.checkpoint(Progress::new("finding levels", l as u64, counts.len() as u64, "levels"))?;
        let below = out.last().map_or(first, |level| &level.features);
        let sparsity = growth.sparsity(config.share(first.rows), k, count);
        // The stop rules are those of the solver: what the fit itself was bounded to says nothing of its levels.
        // Features have unit norm already, and their mean is a part of what the levels explain.
        let config = FitConfig { scale_rows: false, centre: false, row_cap: None, ..config.clone() };
        let config =
            FitConfig { features: count, sparsity: Some(sparsity), max_sweeps: None, patience: None, ..config };
        out.push(level(below, config, ctx)?);
    }
    Ok(out)
}

fn level(below: &SparseColumns, config: FitConfig, ctx: &TaskCtx) -> Result<Level> {
    let rows: Vec<f32> = (0..below.columns()).flat_map(|j| below.dense_column(j)).collect();
    let source = InMemory::new(below.columns(), below.rows, rows);
    let sparsity = config.share(below.rows);
    let silent = TaskCtx::new(ctx.cancel_token().clone(), |_| {});
    let mut best: Option<Arc<Factors>> = None;
    for start in 0..STARTS {
        let config = FitConfig { seed: config.seed.wrapping_add(start), ..config.clone() };
        let mut fit = Factoriser::start(&source, config, &silent)?;
        while fit.step(&silent)?.stop.is_none() {}
        let factors = fit.finish(&silent)?;
        if best.as_ref().is_none_or(|b| factors.relative_error < b.relative_error) {
            best = Some(factors);
        }
    }
    let factors = best.ok_or_else(|| Error::refused("a level needs a start"))?;
    Ok(Level {
        features: factors.features.clone(),
        coefficients: factors.coefficients.as_slice().to_vec(),
        sparsity,
        relative_error: factors.relative_error,
    })
}

impl Level {
    /// How much of each finer feature feature j is made of: column j of Y_l.
    pub fn column(&self, j: usize) -> &[f32] {
        let below = self.coefficients.len() / self.features.columns().max(1);
        &self.coefficients[j * below..(j + 1) * below]
    }

    /// The children of feature j: (finer feature, share of the column's largest coefficient), largest first. A child is
    /// kept from [`KEPT_SHARE`] on, [`MOST_CHILDREN`] at most; a feature that nothing expresses has none.
    pub fn children(&self, j: usize) -> Vec<(usize, f32)> {
        let column = self.column(j);
        let largest = column.iter().copied().fold(0f32, f32::max);
        if largest <= 0.0 {
            return Vec::new();
        }
        let mut kept: Vec<(usize, f32)> =
            column.iter().map(|&v| v / largest).enumerate().filter(|(_, share)| *share >= KEPT_SHARE).collect();
        kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        kept.truncate(MOST_CHILDREN);
        kept
    }
}

/// How much of each feature of the fit feature j of level `l` is made of (levels from 0, the first above the fit):
/// column j of Y₂ ⋯ Y_l, k₁ values. The token coefficients of the node are Y₁ times it.
pub fn weights(levels: &[Level], l: usize, j: usize) -> Vec<f32> {
    let mut column: Vec<f64> = levels[l].column(j).iter().map(|&v| f64::from(v)).collect();
    for level in levels[..l].iter().rev() {
        let mut below = vec![0f64; level.coefficients.len() / level.features.columns().max(1)];
        for (i, &weight) in column.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            below.iter_mut().zip(level.column(i)).for_each(|(b, &y)| *b += weight * f64::from(y));
        }
        column = below;
    }
    column.into_iter().map(|v| v as f32).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::factor::{Init, Solver};

    /// Twelve features in six pairs that share all but one neuron, the pairs in three groups: the levels to find.
    fn nested() -> SparseColumns {
        let d = 60;
        let mut out = SparseColumns { rows: d, offsets: vec![0], ..SparseColumns::default() };
        for f in 0..12u32 {
            let (pair, group) = (f / 2, f / 4);
            let mut entries = [(group, 0.5f32), (10 + pair * 2, 0.6), (11 + pair * 2, 0.6), (40 + f, 0.17)];
            entries.sort_by_key(|e| e.0);
            let norm = entries.iter().map(|e| e.1 * e.1).sum::<f32>().sqrt();
            out.indices.extend(entries.iter().map(|e| e.0));
            out.values.extend(entries.iter().map(|e| e.1 / norm));
            out.offsets.push(out.indices.len());
        }
        out
    }

    fn config() -> FitConfig {
        FitConfig { features: 12, sparsity: Some(4.0 / 60.0), l1: 0.0, ..FitConfig::default() }
    }

    /// The relative error of the paper's updates in plain f64, the best of several random starts.
    fn plain(z: &SparseColumns, k: usize, keep: usize) -> f64 {
        let (n, d) = (z.columns(), z.rows);
        let a: Vec<Vec<f64>> = (0..n).map(|j| z.dense_column(j).into_iter().map(f64::from).collect()).collect();
        let square: f64 = a.iter().flatten().map(|v| v * v).sum();
        (0..8).map(|seed| plain_from(&a, (n, d, k), keep, seed) / square).fold(f64::INFINITY, f64::min)
    }

    fn plain_from(a: &[Vec<f64>], (n, d, k): (usize, usize, usize), keep: usize, seed: u64) -> f64 {
        let mut rng = rand_pcg::Pcg64::seed_from_u64(seed);
        let mut y: Vec<Vec<f64>> = (0..n).map(|_| (0..k).map(|_| rng.random::<f64>() + 0.01).collect()).collect();
        let mut best = f64::INFINITY;
        for _ in 0..300 {
            // Z ← Aᵀ Y (YᵀY + εI)⁻¹ by Gauss–Jordan, then the `keep` largest of each column.
            let gram = |i: usize, j: usize| (0..n).map(|r| y[r][i] * y[r][j]).sum::<f64>();
            let mut system: Vec<Vec<f64>> = (0..k)
                .map(|i| {
                    let mut line: Vec<f64> = (0..k).map(|j| gram(i, j) + if i == j { 1e-6 } else { 0.0 }).collect();
                    line.extend((0..d).map(|c| (0..n).map(|r| y[r][i] * a[r][c]).sum::<f64>()));
                    line
                })
                .collect();
            for i in 0..k {
                let pivot = (i..k).max_by(|&p, &q| system[p][i].abs().total_cmp(&system[q][i].abs())).unwrap();
                system.swap(i, pivot);
                let scale = system[i][i];
                system[i].iter_mut().for_each(|v| *v /= scale);
                let line = system[i].clone();
                for (_, other) in system.iter_mut().enumerate().filter(|(r, _)| *r != i) {
                    let factor = other[i];
                    other.iter_mut().zip(&line).for_each(|(o, l)| *o -= factor * l);
                }
            }
            let mut z: Vec<Vec<f64>> = system.iter().map(|line| line[k..].to_vec()).collect();
            for column in &mut z {
                let mut sizes: Vec<f64> = column.iter().map(|v| v.abs()).collect();
                sizes.sort_by(|a, b| b.total_cmp(a));
                let least = sizes[keep - 1];
                column.iter_mut().filter(|v| v.abs() < least).for_each(|v| *v = 0.0);
            }
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| a * b).sum::<f64>();
            for (row, line) in a.iter().zip(&mut y) {
                let old = line.clone();
                for j in 0..k {
                    let p = dot(row, &z[j]);
                    let (mut up, mut down) = (p.max(0.0), (-p).max(0.0) + 1e-6);
                    for i in 0..k {
                        let q = dot(&z[i], &z[j]);
                        up += old[i] * (-q).max(0.0);
                        down += old[i] * q.max(0.0);
                    }
                    line[j] = old[j] * (up / down).sqrt();
                }
            }
            let error = a.iter().zip(&y).map(|(row, y)| {
                (0..d).map(|c| (row[c] - (0..k).map(|j| y[j] * z[j][c]).sum::<f64>()).powi(2)).sum::<f64>()
            });
            best = best.min(error.sum());
        }
        best
    }

    #[test]
    fn levels_are_no_worse_than_the_plain_formulas_and_find_the_groups() {
        let z = nested();
        let found = levels(&z, &[6, 3], Growth::Fixed, &config(), &TaskCtx::silent()).unwrap();
        let reference = plain(&z, 6, 4);
        assert!(found[0].relative_error <= reference + 1e-4, "{} against {reference}", found[0].relative_error);
        // Every pair is one coarser feature.
        let mut pairs: Vec<Vec<usize>> = (0..6)
            .map(|j| {
                let mut ids: Vec<usize> = found[0].children(j).into_iter().map(|(i, _)| i).collect();
                ids.sort_unstable();
                ids
            })
            .collect();
        pairs.sort();
        assert_eq!(pairs, (0..6).map(|p| vec![2 * p, 2 * p + 1]).collect::<Vec<_>>());
        // With room for it, a level of three holds the groups.
        let grown = levels(&z, &[6, 3], Growth::Growing, &config(), &TaskCtx::silent()).unwrap();
        assert!((grown[1].sparsity - 16.0 / 60.0).abs() < 1e-12);
        assert!(grown[1].relative_error <= found[1].relative_error);
        let mut groups: Vec<Vec<usize>> = (0..3)
            .map(|j| {
                let column = weights(&grown, 1, j);
                let largest = column.iter().copied().fold(0.0, f32::max);
                (0..12).filter(|&i| column[i] >= KEPT_SHARE * largest).collect()
            })
            .collect();
        groups.sort();
        assert_eq!(groups, (0..3).map(|g| (4 * g..4 * g + 4).collect::<Vec<_>>()).collect::<Vec<_>>());
    }

    #[test]
    fn the_error_told_is_that_of_the_residual() {
        let z = nested();
        for level in levels(&z, &[5], Growth::Growing, &config(), &TaskCtx::silent()).unwrap() {
            let (mut error, mut square) = (0f64, 0f64);
            for i in 0..12 {
                let mut left: Vec<f64> = z.dense_column(i).into_iter().map(f64::from).collect();
                square += left.iter().map(|v| v * v).sum::<f64>();
                for j in 0..5 {
                    let y = f64::from(level.column(j)[i]);
                    left.iter_mut().zip(level.features.dense_column(j)).for_each(|(l, v)| *l -= y * f64::from(v));
                }
                error += left.iter().map(|v| v * v).sum::<f64>();
            }
            assert!((level.relative_error - error / square).abs() < 1e-6);
            assert!(level.coefficients.iter().all(|&y| y >= 0.0));
        }
    }

    #[test]
    fn levels_that_do_not_shrink_are_refused() {
        for counts in [&[12][..], &[0], &[6, 6], &[3, 6]] {
            let refused = levels(&nested(), counts, Growth::Fixed, &config(), &TaskCtx::silent());
            assert!(matches!(refused, Err(Error::Usage(_))), "{counts:?}");
        }
        let multiplicative = FitConfig { solver: Solver::Mu, init: Init::Random, ..config() };
        assert_eq!(levels(&nested(), &[3], Growth::Fixed, &multiplicative, &TaskCtx::silent()).unwrap().len(), 1);
        assert!(levels(&nested(), &[], Growth::Fixed, &config(), &TaskCtx::silent()).unwrap().is_empty());
    }

    #[test]
    fn default_levels_halve_what_is_there() {
        assert_eq!(default_levels(400), [200, 100, 50]);
        assert_eq!(default_levels(5), [2]);
        assert!(default_levels(1).is_empty());
    }

    proptest! {
        #[test]
        fn weights_are_the_plain_product(
            y2 in proptest::collection::vec(0u8..5, 5 * 3), y3 in proptest::collection::vec(0u8..5, 3 * 2)
        ) {
            let level = |y: &[u8], k: usize| Level {
                features: SparseColumns { rows: 1, offsets: vec![0; k + 1], ..SparseColumns::default() },
                coefficients: y.iter().map(|&v| f32::from(v) * 0.5).collect(),
                sparsity: 1.0,
                relative_error: 0.0,
            };
            let both = [level(&y2, 3), level(&y3, 2)];
            for j in 0..2 {
                let plain: Vec<f32> = (0..5)
                    .map(|i| (0..3).map(|m| f32::from(y2[m * 5 + i]) * f32::from(y3[j * 3 + m]) * 0.25).sum())
                    .collect();
                prop_assert_eq!(weights(&both, 1, j), plain);
                let kept = both[1].children(j);
                let largest = both[1].column(j).iter().copied().fold(0.0, f32::max);
                prop_assert!(kept.len() <= MOST_CHILDREN);
                prop_assert!(kept.iter().all(|&(i, s)| both[1].column(j)[i] >= KEPT_SHARE * largest && s <= 1.0));
                prop_assert_eq!(kept.is_empty(), largest == 0.0);
            }
        }
    }
}
