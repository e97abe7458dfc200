//! What a fit has come to: snapshots, and the end with its error taken anew.

use std::sync::{Arc, PoisonError};

use rayon::prelude::*;

use super::Factoriser;
use crate::error::{Error, Result};
use crate::factor::data_stats::DataStats;
use crate::factor::state::State;
use crate::factor::stream::Stream;
use crate::factor::{Coding, Coefficients, Factors, SparseColumns};
use crate::task::TaskCtx;

impl Factoriser<'_> {
    /// The best factors so far, immutable. Before the first sweep: the coefficients of the start
    /// and no features.
    ///
    /// # Errors
    /// Coefficients that have to lie in a file, and no room for them.
    pub fn snapshot(&self) -> Result<Arc<Factors>> {
        let mut shown = self
            .snapshot_cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let sweep = self.progress.best_sweep;
        if let Some((at, factors)) = &*shown
            && *at == sweep
        {
            return Ok(Arc::clone(factors));
        }
        // What was shown before makes room, where no one looks at it any more.
        *shown = None;
        let factors = self.threads.run(|| {
            let mut factors = self.best_factors()?;
            if self.config.scale_neurons {
                // The sweeps know how far the neurons are explained as they weigh them.
                let left = self.residual_errors(&factors, &TaskCtx::silent())?;
                self.set_errors(&mut factors, left);
            }
            Ok::<_, Error>(Arc::new(factors))
        })?;
        *shown = Some((sweep, Arc::clone(&factors)));
        Ok(factors)
    }

    fn best_state(&self) -> &State {
        self.best.as_ref().unwrap_or(&self.state)
    }

    /// The squared error of the best state by the identity, relative to
    /// [`DataStats::base`](crate::factor::data_stats::DataStats); before the first sweep nothing is
    /// explained.
    fn best_error(&self) -> f64 {
        let error = self.best_state().error;
        if error.is_finite() {
            error
        } else {
            self.stats.error_base
        }
    }

    /// The best factors, with their errors by the identity: of the rows as they are, where it knows
    /// it.
    fn best_factors(&self) -> Result<Factors> {
        let best = self.best_state();
        let preprocessing = &self.stream.preprocessing;
        let (features, mut coefficients) =
            best.factors(preprocessing, self.stream.scratch.as_deref())?;
        if let Some(weights) = &preprocessing.weights {
            for line in coefficients.chunks_exact_mut(self.stream.n) {
                // A row of zeros has the weight 0 and no coefficient.
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
            coefficients: Coefficients::of(self.stream.n, coefficients),
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

    /// Writes squared errors into factors, relative to what there was.
    fn set_errors(&self, factors: &mut Factors, left: SquaredErrors) {
        let DataStats {
            original_square,
            prepared_square,
            variance,
            ..
        } = self.stats;
        factors.relative_error = left.original / original_square;
        factors.explained_variance = if variance > 0.0 {
            1.0 - left.original / variance
        } else {
            0.0
        };
        let weighs = self.config.scale_neurons || self.config.scale_rows;
        factors.weighted_error = weighs.then(|| left.prepared / prepared_square);
    }

    /// The best factors, their error recomputed directly from A − YZᵀ in f64 over row blocks.
    pub fn finish(mut self, ctx: &TaskCtx) -> Result<Arc<Factors>> {
        // Its room is for the factors.
        self.spare = State::default();
        self.threads.run(|| {
            let mut factors = self.best_factors()?;
            let left = self.residual_errors(&factors, ctx)?;
            let (error, by_identity) = (
                if self.config.scale_neurons {
                    left.prepared
                } else {
                    left.original
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
            self.set_errors(&mut factors, left);
            Ok(Arc::new(factors))
        })
    }

    /// The squared errors of factors from the residual itself, in f64.
    fn residual_errors(&self, factors: &Factors, ctx: &TaskCtx) -> Result<SquaredErrors> {
        const ROWS: usize = 16;
        let stream = Stream::new(self.stream.source);
        let d = stream.d;
        let wide =
            |values: &Arc<Vec<f32>>| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
        let centre = factors.coding.centre.as_ref().map(wide);
        let preprocessing = &self.stream.preprocessing;
        let (neurons, weights) = (
            preprocessing.scaling.neurons.as_ref().map(wide),
            preprocessing.weights.as_deref(),
        );
        let (z, y) = (&factors.features, &factors.coefficients);
        let mut total = SquaredErrors::default();
        stream.blocks(ctx, |range, block| {
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

/// Squared errors in the units of a stats.
#[derive(Debug, Clone, Copy, Default)]
struct SquaredErrors {
    /// ‖A − YZᵀ‖², less the centre.
    original: f64,
    /// With neurons and rows times their weights.
    prepared: f64,
}

/// Some rows, the first of number `first`, − centre − YZᵀ.
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

/// Features before any sweep: none has a neuron yet.
fn empty_columns(k: usize, d: usize) -> SparseColumns {
    SparseColumns {
        rows: d,
        offsets: vec![0; k + 1],
        indices: Vec::new(),
        values: Vec::new(),
    }
}
