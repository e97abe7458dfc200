//! The search for one level: several random starts are swept a few times, and the best one is
//! continued. A level has only as many rows as there are finer features, so a poor start is common
//! and another one is cheap. This file also reports the progress of all levels together.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::Level;
use crate::activations::InMemory;
use crate::error::{Error, Result};
use crate::factor::{Factoriser, FitConfig, SparseColumns};
use crate::task::{Progress, TaskCtx};

/// The number of random starts of each level.
const STARTS: usize = 6;
/// The number of sweeps of each start before all but the best are dropped.
const TRIAL_SWEEPS: usize = 8;
/// The number of sweeps after which a level has mostly converged; it only serves the progress
/// report.
const TYPICAL_SWEEPS: usize = 100;

/// The search for all levels above one fit.
pub(super) struct LevelSearch<'c> {
    ctx: &'c TaskCtx,
    /// The numbers of features of the fit and of each level.
    counts: Vec<usize>,
}

impl<'c> LevelSearch<'c> {
    pub(super) fn new(first: usize, counts: &[usize], ctx: &'c TaskCtx) -> Self {
        Self {
            ctx,
            counts: [&[first], counts].concat(),
        }
    }

    /// Fits level `l` (from 0) to the features `below`.
    ///
    /// # Errors
    /// [`Error::Cancelled`], and what a fit returns.
    pub(super) fn fit_level(
        &self,
        l: usize,
        below: &SparseColumns,
        config: &FitConfig,
    ) -> Result<Level> {
        let rows: Vec<f32> = (0..below.columns())
            .flat_map(|j| below.dense_column(j))
            .collect();
        let source = InMemory::new(below.columns(), below.rows, rows);
        let silent = self.ctx.without_progress();
        let sweeps_done = AtomicUsize::new(0);
        let step = |fit: &mut Factoriser<'_>| {
            let sweep = fit.step(&silent)?;
            self.report_progress(l, sweeps_done.fetch_add(1, Ordering::Relaxed) + 1)?;
            Ok::<_, Error>(sweep.stop.is_some())
        };
        self.report_progress(l, 0)?;
        let trials: Result<Vec<(Factoriser<'_>, bool)>> = (0..STARTS as u64)
            .into_par_iter()
            .map(|start| {
                let config = FitConfig {
                    seed: config.seed.wrapping_add(start),
                    ..config.clone()
                };
                let mut fit = Factoriser::start(&source, config, &silent)?;
                let mut ended = false;
                for _ in 0..TRIAL_SWEEPS {
                    ended = ended || step(&mut fit)?;
                }
                Ok((fit, ended))
            })
            .collect();
        let best = trials?
            .into_iter()
            .min_by(|a, b| a.0.objective().total_cmp(&b.0.objective()));
        let (mut fit, mut ended) = best.ok_or_else(|| Error::refused("a level needs a start"))?;
        while !ended {
            ended = step(&mut fit)?;
        }
        let factors = fit.finish(&silent)?;
        Ok(Level {
            features: factors.features.clone(),
            coefficients: factors.coefficients.as_slice().to_vec(),
            sparsity: config.sparsity_at(below.rows),
            relative_error: factors.relative_error,
        })
    }

    /// Reports the progress of all levels after `sweeps_done` sweeps of level `l`; the cost of a
    /// sweep is estimated as k_{l−1}·k_l.
    fn report_progress(&self, l: usize, sweeps_done: usize) -> Result<()> {
        let sweeps = (STARTS * TRIAL_SWEEPS + TYPICAL_SWEEPS) as f64;
        let cost = |l: usize| (self.counts[l] * self.counts[l + 1]) as f64;
        let all: f64 = (0..self.counts.len() - 1).map(cost).sum();
        let done = cost(l) * (sweeps_done as f64 / sweeps).min(1.0);
        let share = ((0..l).map(cost).sum::<f64>() + done) / all;
        let stage = format!(
            "level {} of {}: {} features",
            l + 1,
            self.counts.len() - 1,
            self.counts[l + 1]
        );
        self.ctx
            .checkpoint(Progress::new(stage, (share * 100.0) as u64, 100, "%"))
    }
}
