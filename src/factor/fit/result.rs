//! The results of a fit: snapshots, and the final factors with their error computed from the
//! residual. Knows nothing of how a sweep works.

use std::sync::Arc;

use rayon::prelude::*;

use super::Factoriser;
use crate::error::{Error, Result};
use crate::factor::data_stats::DataStats;
use crate::factor::state::State;
use crate::factor::stream::Stream;
use crate::factor::{Coding, Coefficients, Factors, SparseColumns};
use crate::task::TaskCtx;

impl Factoriser<'_> {
    /// The best factors so far, immutable. Before the first sweep they hold the initial
    /// coefficients and empty features.
    ///
    /// # Errors
    /// [`Error::Io`] if the coefficients lie in a file and there is no space for a copy;
    /// [`Error::Refused`] if they leave the range of f32; errors of the device that holds them.
    pub fn snapshot(&mut self) -> Result<Arc<Factors>> {
        let sweep = self.progress.best_sweep;
        if let Some((saved_sweep, factors)) = &self.last_snapshot
            && *saved_sweep == sweep
        {
            return Ok(Arc::clone(factors));
        }
        // Drops the previous snapshot before the new one is made, so that its memory is free unless
        // a caller still holds it.
        self.last_snapshot = None;
        self.state.copy_coefficients_to_host()?;
        let factors = self.threads.run(|| {
            let mut factors = self.best_factors()?;
            if self.config.scale_neurons {
                // With scaled neurons the sweeps only compute the error of the prepared rows.
                let errors = self.residual_errors(&factors, &TaskCtx::silent())?;
                self.set_errors(&mut factors, errors);
            }
            Ok::<_, Error>(Arc::new(factors))
        })?;
        self.last_snapshot = Some((sweep, Arc::clone(&factors)));
        Ok(factors)
    }

    fn best_state(&self) -> &State {
        self.best.as_ref().unwrap_or(&self.state)
    }

    /// The squared error of the best state by the identity of [`State::update_errors`], relative to
    /// [`DataStats::error_base`](crate::factor::data_stats::DataStats); before the first sweep
    /// nothing is explained.
    fn best_error(&self) -> f64 {
        let error = self.best_state().error;
        if error.is_finite() {
            error
        } else {
            self.stats.error_base
        }
    }

    /// The best factors with their errors by the identity. If neurons are scaled, the identity does
    /// not give the error of the original rows, which is then NaN.
    fn best_factors(&self) -> Result<Factors> {
        let best = self.best_state();
        let preprocessing = &self.stream.preprocessing;
        let (features, mut coefficients) =
            best.factors(preprocessing, self.stream.scratch.as_deref())?;
        if let Some(weights) = &preprocessing.weights {
            for line in coefficients.chunks_exact_mut(self.stream.n) {
                // A row of zeros has the weight 0 and only zero coefficients.
                line.iter_mut()
                    .zip(weights)
                    .filter(|(v, _)| **v != 0.0)
                    .for_each(|(v, w)| *v /= w);
            }
        }
        if coefficients.par_iter().any(|v| !v.is_finite()) {
            return Err(self.overflow_error());
        }
        let features = if features.columns() == 0 {
            empty_columns(self.config.features, self.stream.d)
        } else {
            features
        };
        let mut factors = Factors {
            features,
            coefficients: Coefficients::from_buffer(self.stream.n, coefficients),
            coding: Coding {
                centre: preprocessing.centre.clone(),
                neuron_weights: preprocessing.scaling.neurons.clone(),
                row_cap: self.config.row_cap,
            },
            relative_error: f64::NAN,
            weighted_error: None,
            explained_variance: f64::NAN,
            sweep: self.progress.best_sweep,
            seconds: self.init_seconds() + f64::from_bits(self.progress.seconds[2]),
        };
        let prepared = best.prepared_error(self.penalty);
        let prepared = if prepared.is_finite() {
            prepared
        } else {
            self.stats.prepared_square
        };
        let original = if self.config.scale_neurons {
            f64::NAN
        } else {
            self.best_error()
        };
        self.set_errors(&mut factors, SquaredErrors { original, prepared });
        Ok(factors)
    }

    /// Sets the relative errors of `factors` from their squared errors.
    fn set_errors(&self, factors: &mut Factors, errors: SquaredErrors) {
        let DataStats {
            original_square,
            prepared_square,
            variance,
            ..
        } = self.stats;
        factors.relative_error = errors.original / original_square;
        factors.explained_variance = if variance > 0.0 {
            1.0 - errors.original / variance
        } else {
            0.0
        };
        let weighted = self.config.scale_neurons || self.config.scale_rows;
        factors.weighted_error = weighted.then(|| errors.prepared / prepared_square);
    }

    /// The best factors, with their errors recomputed from A − YZᵀ over blocks of rows: the identity
    /// subtracts large numbers that nearly cancel.
    ///
    /// # Errors
    /// Errors of the source, [`Error::Cancelled`], and what [`Self::snapshot`] returns.
    pub fn finish(mut self, ctx: &TaskCtx) -> Result<Arc<Factors>> {
        self.state.copy_coefficients_to_host()?;
        self.state.on_device = None;
        // The spare state is not needed any more; its memory is used for the factors.
        self.spare = State::default();
        self.threads.run(|| {
            let mut factors = self.best_factors()?;
            let errors = self.residual_errors(&factors, ctx)?;
            let (error, by_identity) = (
                if self.config.scale_neurons {
                    errors.prepared
                } else {
                    errors.original
                },
                self.best_error(),
            );
            if (error - by_identity).abs() > 1e-4 * self.stats.error_base {
                tracing::warn!(
                    error,
                    by_identity,
                    "the error by the identity differs from the direct residual"
                );
            }
            self.set_errors(&mut factors, errors);
            Ok(Arc::new(factors))
        })
    }

    /// The squared errors of `factors`, computed from the residual: on the CPU in f64, on a device
    /// in f32 with the sums over rows in f64.
    fn residual_errors(&self, factors: &Factors, ctx: &TaskCtx) -> Result<SquaredErrors> {
        const ROWS: usize = 16;
        if let Some(device) = &self.device {
            let [original, prepared] = device.residual_errors(&self.stream, factors, ctx)?;
            return Ok(SquaredErrors { original, prepared });
        }
        let stream = Stream::new(self.stream.source);
        let d = stream.d;
        let to_f64 =
            |values: &Arc<Vec<f32>>| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
        let centre = factors.coding.centre.as_ref().map(to_f64);
        let preprocessing = &self.stream.preprocessing;
        let (neurons, weights) = (
            preprocessing.scaling.neurons.as_ref().map(to_f64),
            preprocessing.weights.as_deref(),
        );
        let (z, y) = (&factors.features, &factors.coefficients);
        let mut total = SquaredErrors::default();
        stream.for_each_block(ctx, |range, block| {
            let parts: Vec<SquaredErrors> = block
                .data
                .par_chunks(ROWS * d)
                .enumerate()
                .map(|(i, rows)| {
                    let first = range.start + i * ROWS;
                    let residual = residual(rows, first, centre.as_deref(), z, y);
                    let mut sum = SquaredErrors::default();
                    for (row, residual) in residual.chunks_exact(d).enumerate() {
                        let plain = residual.iter().map(|v| v * v).sum::<f64>();
                        sum.original += plain;
                        let prepared = neurons.as_ref().map_or(plain, |neurons| {
                            residual
                                .iter()
                                .zip(neurons)
                                .map(|(v, w)| (v * w).powi(2))
                                .sum()
                        });
                        sum.prepared +=
                            prepared * weights.map_or(1.0, |w| f64::from(w[first + row]).powi(2));
                    }
                    sum
                })
                .collect();
            for part in parts {
                total.original += part.original;
                total.prepared += part.prepared;
            }
            Ok(())
        })?;
        let scale = f64::from(preprocessing.scaling.scale).powi(2);
        Ok(SquaredErrors {
            original: total.original * scale,
            prepared: total.prepared * scale,
        })
    }
}

/// Squared errors, in units of the square of the power of two of [`DataStats`].
#[derive(Debug, Clone, Copy, Default)]
struct SquaredErrors {
    /// ‖A − centre − YZᵀ‖² of the original rows.
    original: f64,
    /// The same with neurons and rows multiplied by their weights.
    prepared: f64,
}

/// The residual A − centre − YZᵀ of some rows, the first of which has the index `first`; row-major,
/// d values each.
fn residual(
    rows: &[f32],
    first: usize,
    centre: Option<&[f64]>,
    z: &SparseColumns,
    y: &Coefficients,
) -> Vec<f64> {
    let d = z.rows;
    let mut residual: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
    if let Some(centre) = centre {
        residual
            .chunks_exact_mut(d)
            .for_each(|r| r.iter_mut().zip(centre).for_each(|(v, c)| *v -= c));
    }
    for j in 0..z.columns() {
        let (indices, values) = z.column(j);
        let line = &y.feature(j)[first..first + rows.len() / d];
        for (r, &c) in residual
            .chunks_exact_mut(d)
            .zip(line)
            .filter(|(_, c)| **c != 0.0)
        {
            for (&i, &v) in indices.iter().zip(values) {
                r[i as usize] -= f64::from(c) * f64::from(v);
            }
        }
    }
    residual
}

/// k features without neurons, for a snapshot before the first sweep.
fn empty_columns(k: usize, d: usize) -> SparseColumns {
    SparseColumns {
        rows: d,
        offsets: vec![0; k + 1],
        indices: Vec::new(),
        values: Vec::new(),
    }
}
