//! Starting from given features: those of an earlier fit, more of them, fewer of them, or with some
//! of them locked. Knows nothing of how a sweep works.

use std::time::Instant;

use super::Factoriser;
use crate::activations::ActivationSource;
use crate::error::{Error, Result};
use crate::factor::device::Accelerator;
use crate::factor::panels::Panels;
use crate::factor::pass::PassSums;
use crate::factor::state::State;
use crate::factor::{Factors, FitConfig, Solver, SparseColumns, incremental, init, merge};
use crate::matrix::panel::{self, PANEL};
use crate::task::TaskCtx;

impl<'a> Factoriser<'a> {
    /// Starts from the factors of an earlier fit to these activations or to their first rows.
    /// Further rows are folded in. If more features are configured, the new ones start at the worst
    /// explained rows at the next sweep; if fewer, the most similar ones are merged. `locked` names
    /// features of `factors` that stay unchanged.
    ///
    /// # Errors
    /// [`Error::Usage`] for factors of other neurons or of more rows, for a locked feature that
    /// does not exist, for more locked features than configured ones, and for a solver other than
    /// `bcd`, since the multiplicative rule cannot move a coefficient away from zero; what
    /// [`Self::start`] returns.
    pub fn warm_start(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        factors: &Factors,
        locked: &[usize],
        ctx: &TaskCtx,
    ) -> Result<Self> {
        Self::warm_start_on(source, config, factors, locked, None, ctx)
    }

    /// Does the same as [`Self::warm_start`], on a device if one is given (see [`Self::start_on`]).
    ///
    /// # Errors
    /// What [`Self::warm_start`] and [`Self::start_on`] return.
    pub fn warm_start_on(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        factors: &Factors,
        locked: &[usize],
        device: Option<Accelerator>,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let started = Instant::now();
        require_bcd(&config)?;
        incremental::check_factors(factors, source.shape())?;
        let mut is_locked = vec![false; factors.features.columns()];
        for &j in locked {
            *is_locked
                .get_mut(j)
                .ok_or_else(|| no_such_feature(j, factors.features.columns()))? = true;
        }
        let mut fit = Self::prepare(source, config, ctx)?;
        device.map_or(Ok(()), |device| fit.compute_on(device))?;
        let k = fit.config.features;
        let (prepared, scales) = fit.stream.preprocessing.prepare_features(&factors.features);
        let earlier = (&factors.coefficients, &scales[..]);
        let merged = fit.threads.run(|| {
            merge::merge_down_to(
                &prepared,
                earlier,
                k,
                &is_locked,
                fit.stream.scratch.as_deref(),
                ctx,
            )
        })?;
        let coefficients = merged
            .as_ref()
            .map_or(factors.coefficients.as_slice(), |m| &m.coefficients);
        let scales = if merged.is_some() {
            vec![1.0; k]
        } else {
            scales
        };
        let features = merged.as_ref().map_or(&prepared, |m| &m.features);
        fit.progress.locked = merged.as_ref().map_or(is_locked, |m| m.locked.clone());
        fit.progress.locked.resize(k, false);
        incremental::check_locked(features, &fit.progress.locked, fit.support_size)?;
        let features = incremental::resize_columns(features, k, fit.support_size);
        fit.state = fit.threads.run(|| {
            let mut y = fit.stream.zero_coefficients(k)?;
            y.fill_features(coefficients, factors.coefficients.rows);
            fit.scale_coefficients(&mut y, &scales);
            incremental::fold_in(&fit.problem(), features, y, ctx)
        })?;
        fit.spare.y = fit.stream.zero_coefficients(k)?;
        fit.progress.seconds[1] = started.elapsed().as_secs_f64().to_bits();
        Ok(fit)
    }

    /// Starts from features of the original neurons alone; one pass finds the coefficients of every
    /// row.
    ///
    /// # Errors
    /// What [`Self::start`] returns.
    pub(crate) fn from_features(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        features: &SparseColumns,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let mut fit = Self::prepare(source, config, ctx)?;
        let k = fit.config.features;
        let (features, _) = fit.stream.preprocessing.prepare_features(features);
        fit.state = fit.threads.run(|| {
            incremental::fold_in(
                &fit.problem(),
                features,
                fit.stream.zero_coefficients(k)?,
                ctx,
            )
        })?;
        fit.spare.y = fit.stream.zero_coefficients(k)?;
        Ok(fit)
    }

    /// Adds `count` features, which start at the worst explained rows at the next sweep; the others
    /// stay. [`Factoriser::config`] then has the new number of features.
    ///
    /// # Errors
    /// [`Error::Usage`] for more features than rows or for a solver other than `bcd`; errors of the
    /// source; [`Error::Cancelled`].
    pub fn add_features(&mut self, count: usize, ctx: &TaskCtx) -> Result<()> {
        require_bcd(&self.config)?;
        let config = FitConfig {
            features: self.config.features + count,
            ..self.config.clone()
        };
        config.check((self.stream.n, self.stream.d))?;
        let k = config.features;
        self.state.copy_coefficients_to_host()?;
        let state = self.threads.run(|| {
            let mut y = self.stream.zero_coefficients(k)?;
            y.copy_from(&self.state.y);
            if self.state.features.columns() == 0 {
                return init::from_coefficients(&self.stream, y, self.device.as_ref(), ctx);
            }
            let features = incremental::resize_columns(&self.state.features, k, self.support_size);
            incremental::fold_in(&self.problem(), features, y, ctx)
        })?;
        self.state = state;
        self.config = config;
        self.spare = State::new(self.stream.zero_coefficients(k)?, PassSums::default());
        // The errors so far are those of a smaller model: the stop rule considers only the
        // following ones.
        self.progress.history.clear();
        self.progress.locked.resize(k, false);
        self.progress.stopped = None;
        self.last_snapshot = None;
        Ok(())
    }

    /// Locks these features and unlocks all others: sweeps leave the neurons and weights of a
    /// locked feature unchanged and update only its coefficients.
    ///
    /// # Errors
    /// [`Error::Usage`] for a feature that does not exist, for a fit without features, and for a
    /// solver other than `bcd`.
    pub fn lock(&mut self, features: &[usize]) -> Result<()> {
        require_bcd(&self.config)?;
        let k = self.config.features;
        if let Some(&j) = features.iter().find(|j| **j >= k) {
            return Err(no_such_feature(j, k));
        }
        if self.state.features.columns() == 0 && !features.is_empty() {
            return Err(Error::usage(
                "there are no features to lock before the first sweep",
            ));
        }
        self.progress.locked = (0..k).map(|j| features.contains(&j)).collect();
        Ok(())
    }

    /// Converts coefficients of A to those of the prepared rows: those of feature j are multiplied
    /// by `scales[j]`, those of each row by its weight.
    fn scale_coefficients(&self, y: &mut Panels, scales: &[f32]) {
        for panel in y.data.chunks_exact_mut((y.k * PANEL).max(1)) {
            panel::scale_lines(panel, scales);
        }
        let Some(weights) = &self.stream.preprocessing.weights else {
            return;
        };
        for (panel, weights) in y
            .data
            .chunks_exact_mut((y.k * PANEL).max(1))
            .zip(weights.chunks(PANEL))
        {
            for line in panel.chunks_exact_mut(PANEL) {
                line.iter_mut().zip(weights).for_each(|(v, w)| *v *= w);
            }
        }
    }
}

fn no_such_feature(j: usize, k: usize) -> Error {
    Error::usage(format!(
        "feature {j} cannot be locked: there are 0 to {}",
        k.saturating_sub(1)
    ))
}

fn require_bcd(config: &FitConfig) -> Result<()> {
    match config.solver {
        Solver::Bcd => Ok(()),
        Solver::Mu => Err(Error::usage(
            "a multiplicative fit cannot go on from other factors; use --solver bcd",
        )),
    }
}
