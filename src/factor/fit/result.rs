//! What a fit has come to: snapshots, and the end with its error taken anew.

use std::sync::{Arc, PoisonError};

use rayon::prelude::*;

use super::Factoriser;
use crate::activations::ActivationSource;
use crate::error::Result;
use crate::factor::state::State;
use crate::factor::stream::Stream;
use crate::factor::{Coding, Coefficients, Factors, SparseColumns};
use crate::task::TaskCtx;

impl Factoriser<'_> {
    /// The best factors so far, immutable. Before the first sweep: the coefficients of the start and no features.
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
        let factors = Arc::new(self.threads.run(|| self.factors(self.best_error()))?);
        *shown = Some((sweep, Arc::clone(&factors)));
        Ok(factors)
    }

    fn best_state(&self) -> &State {
        self.best.as_ref().unwrap_or(&self.state)
    }

    /// ‖A − YZᵀ‖² of the best state by the identity; before the first sweep nothing is explained.
    fn best_error(&self) -> f64 {
        let error = self.best_state().error;
        if error.is_finite() { error } else { self.survey.whole }
    }

    fn factors(&self, error: f64) -> Result<Factors> {
        let best = self.best_state();
        let (features, mut coefficients) = best.factors(self.stream.scratch.as_deref())?;
        if let Some(weights) = &self.stream.frame.weights {
            for line in coefficients.chunks_exact_mut(self.stream.n) {
                // A row of zeros has the weight 0 and no coefficient.
                line.iter_mut().zip(weights).filter(|(v, _)| **v != 0.0).for_each(|(v, w)| *v /= w);
            }
        }
        let features = if features.columns() == 0 { unset(self.config.features, self.stream.d) } else { features };
        let variance = self.survey.variance;
        Ok(Factors {
            features,
            coefficients: Coefficients::of(self.stream.n, coefficients),
            coding: Coding { centre: self.stream.frame.centre.clone(), row_cap: self.config.row_cap },
            relative_error: self.relative(error),
            explained_variance: if variance > 0.0 { 1.0 - error / variance } else { 0.0 },
            sweep: self.progress.best_sweep,
            seconds: self.init_seconds() + f64::from_bits(self.progress.seconds[2]),
        })
    }

    /// The best factors, their error recomputed directly from A − YZᵀ in f64 over row blocks.
    pub fn finish(mut self, ctx: &TaskCtx) -> Result<Arc<Factors>> {
        // Its room is for the factors.
        self.spare = State::default();
        self.threads.run(|| {
            let mut factors = self.factors(self.best_error())?;
            let error = direct_error(self.stream.source, &factors, ctx)?;
            let by_identity = self.best_error();
            if (error - by_identity).abs() > 1e-4 * self.survey.whole {
                tracing::warn!(error, by_identity, "the error by the identity differs from the direct residual");
            }
            factors.relative_error = self.relative(error);
            if self.survey.variance > 0.0 {
                factors.explained_variance = 1.0 - error / self.survey.variance;
            }
            Ok(Arc::new(factors))
        })
    }
}

/// ‖A − YZᵀ‖² of the rows as they are, from the residual itself, in f64.
fn direct_error(source: &dyn ActivationSource, factors: &Factors, ctx: &TaskCtx) -> Result<f64> {
    const ROWS: usize = 16;
    let stream = Stream::new(source);
    let d = stream.d;
    let centre: Option<Vec<f64>> = factors.coding.centre.as_ref().map(|c| c.iter().map(|&v| f64::from(v)).collect());
    let (z, y) = (&factors.features, &factors.coefficients);
    let mut total = 0.0;
    stream.blocks(ctx, |range, block| {
        let parts: Vec<f64> = block
            .data
            .par_chunks(ROWS * d)
            .enumerate()
            .map(|(i, rows)| {
                let mut residual: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
                if let Some(centre) = &centre {
                    residual.chunks_exact_mut(d).for_each(|r| r.iter_mut().zip(centre).for_each(|(v, c)| *v -= c));
                }
                let first = range.start + i * ROWS;
                for j in 0..z.columns() {
                    let (indices, values) = z.column(j);
                    let line = &y.feature(j)[first..first + rows.len() / d];
                    for (r, &c) in residual.chunks_exact_mut(d).zip(line).filter(|(_, c)| **c != 0.0) {
                        for (&i, &v) in indices.iter().zip(values) {
                            r[i as usize] -= f64::from(c) * f64::from(v);
                        }
                    }
                }
                residual.iter().map(|v| v * v).sum()
            })
            .collect();
        total += parts.iter().sum::<f64>();
        Ok(())
    })?;
    Ok(total)
}

/// Features before any sweep: none has a neuron yet.
fn unset(k: usize, d: usize) -> SparseColumns {
    SparseColumns { rows: d, offsets: vec![0; k + 1], indices: Vec::new(), values: Vec::new() }
}
