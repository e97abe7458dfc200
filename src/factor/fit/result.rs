//! What a fit has come to: snapshots, and the end with its error taken anew.

use std::sync::{Arc, PoisonError};

use rayon::prelude::*;

use super::Factoriser;
use crate::error::{Error, Result};
use crate::factor::state::State;
use crate::factor::stream::Stream;
use crate::factor::survey::Survey;
use crate::factor::{Coding, Coefficients, Factors, SparseColumns};
use crate::task::TaskCtx;

impl Factoriser<'_> {
    /// The best factors so far, immutable. Before the first sweep: the coefficients of the start
    /// and no features.
    ///
    /// # Errors
    /// Coefficients that have to lie in a file, and no room for them.
    pub fn snapshot(&self) -> Result<Arc<Factors>> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let sweep = self.progress.best_sweep;
        if let Some((at, factors)) = &*shown
            && *at == sweep
        {
            return Ok(Arc::clone(factors));
        }
        // What was shown before makes room, where no one looks at it any more.
        *shown = None;
        let factors = self.threads.run(|| {
            let mut factors = self.factors()?;
            if self.config.scale_neurons {
                // The sweeps know how far the neurons are explained as they weigh them.
                let left = self.errors(&factors, &TaskCtx::silent())?;
                self.tell(&mut factors, left);
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
    /// [`Survey::base`](crate::factor::survey::Survey); before the first sweep nothing is
    /// explained.
    fn best_error(&self) -> f64 {
        let error = self.best_state().error;
        if error.is_finite() {
            error
        } else {
            self.survey.base
        }
    }

    /// The best factors, with their errors by the identity: of the rows as they are, where it knows
    /// it.
    fn factors(&self) -> Result<Factors> {
        let best = self.best_state();
        let frame = &self.stream.frame;
        let (features, mut coefficients) = best.factors(frame, self.stream.scratch.as_deref())?;
        if let Some(weights) = &frame.weights {
            for line in coefficients.chunks_exact_mut(self.stream.n) {
                // A row of zeros has the weight 0 and no coefficient.
                line.iter_mut()
                    .zip(weights)
                    .filter(|(v, _)| **v != 0.0)
                    .for_each(|(v, w)| *v /= w);
            }
        }
        if coefficients.par_iter().any(|v| !v.is_finite()) {
            return Err(self.overflow());
        }
        let features = if features.columns() == 0 {
            unset(self.config.features, self.stream.d)
        } else {
            features
        };
        let mut factors = Factors {
            features,
            coefficients: Coefficients::of(self.stream.n, coefficients),
            coding: Coding {
                centre: frame.centre.clone(),
                neuron_weights: frame.units.neurons.clone(),
                row_cap: self.config.row_cap,
            },
            relative_error: f64::NAN,
            weighted_error: None,
            explained_variance: f64::NAN,
            sweep: self.progress.best_sweep,
            seconds: self.init_seconds() + f64::from_bits(self.progress.seconds[2]),
        };
        let seen = best.seen(self.penalty);
        let seen = if seen.is_finite() {
            seen
        } else {
            self.survey.square
        };
        let as_they_are = if self.config.scale_neurons {
            f64::NAN
        } else {
            self.best_error()
        };
        self.tell(&mut factors, Squares { as_they_are, seen });
        Ok(factors)
    }

    /// Writes squared errors into factors, relative to what there was.
    fn tell(&self, factors: &mut Factors, left: Squares) {
        let Survey {
            whole,
            square,
            variance,
            ..
        } = self.survey;
        factors.relative_error = left.as_they_are / whole;
        factors.explained_variance = if variance > 0.0 {
            1.0 - left.as_they_are / variance
        } else {
            0.0
        };
        let weighs = self.config.scale_neurons || self.config.scale_rows;
        factors.weighted_error = weighs.then(|| left.seen / square);
    }

    /// The best factors, their error recomputed directly from A − YZᵀ in f64 over row blocks.
    pub fn finish(mut self, ctx: &TaskCtx) -> Result<Arc<Factors>> {
        // Its room is for the factors.
        self.spare = State::default();
        self.threads.run(|| {
            let mut factors = self.factors()?;
            let left = self.errors(&factors, ctx)?;
            let (error, by_identity) = (
                if self.config.scale_neurons {
                    left.seen
                } else {
                    left.as_they_are
                },
                self.best_error(),
            );
            if (error - by_identity).abs() > 1e-4 * self.survey.base {
                tracing::warn!(
                    error,
                    by_identity,
                    "the error by the identity differs from the direct residual"
                );
            }
            self.tell(&mut factors, left);
            Ok(Arc::new(factors))
        })
    }

    /// The squared errors of factors from the residual itself, in f64.
    fn errors(&self, factors: &Factors, ctx: &TaskCtx) -> Result<Squares> {
        const ROWS: usize = 16;
        let stream = Stream::new(self.stream.source);
        let d = stream.d;
        let wide =
            |values: &Arc<Vec<f32>>| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
        let centre = factors.coding.centre.as_ref().map(wide);
        let frame = &self.stream.frame;
        let (neurons, weights) = (
            frame.units.neurons.as_ref().map(wide),
            frame.weights.as_deref(),
        );
        let (z, y) = (&factors.features, &factors.coefficients);
        let mut total = Squares::default();
        stream.blocks(ctx, |range, block| {
            let parts: Vec<Squares> = block
                .data
                .par_chunks(ROWS * d)
                .enumerate()
                .map(|(i, rows)| {
                    let first = range.start + i * ROWS;
                    let residual = residual(rows, first, centre.as_deref(), z, y);
                    let mut sum = Squares::default();
                    for (row, residual) in residual.chunks_exact(d).enumerate() {
                        let plain = residual.iter().map(|v| v * v).sum::<f64>();
                        sum.as_they_are += plain;
                        let seen = neurons.as_ref().map_or(plain, |neurons| {
                            residual
                                .iter()
                                .zip(neurons)
                                .map(|(v, w)| (v * w).powi(2))
                                .sum()
                        });
                        sum.seen +=
                            seen * weights.map_or(1.0, |w| f64::from(w[first + row]).powi(2));
                    }
                    sum
                })
                .collect();
            for part in parts {
                total.as_they_are += part.as_they_are;
                total.seen += part.seen;
            }
            Ok(())
        })?;
        let scale = f64::from(frame.units.scale).powi(2);
        Ok(Squares {
            as_they_are: total.as_they_are * scale,
            seen: total.seen * scale,
        })
    }
}

/// Squared errors in the units of a survey.
#[derive(Debug, Clone, Copy, Default)]
struct Squares {
    /// ‖A − YZᵀ‖², less the centre.
    as_they_are: f64,
    /// With neurons and rows times their weights.
    seen: f64,
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
fn unset(k: usize, d: usize) -> SparseColumns {
    SparseColumns {
        rows: d,
        offsets: vec![0; k + 1],
        indices: Vec::new(),
        values: Vec::new(),
    }
}
