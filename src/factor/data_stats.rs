//! Statistics of a source before a fit: norms, means and a fingerprint, and the preprocessing that
//! follows from them. Refuses values that are not finite. Knows nothing of solvers.

use std::sync::Arc;

use rayon::prelude::*;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::FitConfig;
use super::preprocessing::{self, SharedScaling};
use super::stream::Stream;
use crate::activations::ActivationSource;
use crate::activations::energy::{Concentration, Energy};
use crate::error::{Error, Result};
use crate::task::{Progress, TaskCtx};

/// The statistics of A that a fit needs before it starts. Squares are those of A multiplied by the
/// power of two of the preprocessing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DataStats {
    /// ‖A‖² of the prepared rows.
    pub(crate) prepared_square: f64,
    /// The root mean square of the prepared values, to which absolute constants of a solver are
    /// relative.
    pub(crate) rms: f64,
    /// ‖A‖² of the original rows.
    pub(crate) original_square: f64,
    /// The square that the errors of sweeps are relative to: that of the original rows, or of the
    /// prepared rows if neurons are scaled.
    pub(crate) error_base: f64,
    /// ‖A − mean‖² of the original rows, with their mean row.
    pub(crate) variance: f64,
    /// The squared norm of each prepared row.
    pub(crate) row_squares: Vec<f64>,
    /// A hash of every original value.
    pub(crate) fingerprint: u64,
    mean: Vec<f32>,
    /// The sum of squares of each neuron over the prepared rows, before rows are weighted.
    column_squares: Vec<f64>,
    /// The energy of the neurons and rows of the original activations.
    pub(crate) energy: Energy,
}

impl DataStats {
    /// Computes the statistics of a source and sets the stream's preprocessing as configured.
    /// `shared` is the scaling to use; `None`: it is computed from this source.
    ///
    /// # Errors
    /// [`Error::Refused`] for a row that is not finite or too large; errors of the source;
    /// [`Error::Cancelled`].
    pub(crate) fn prepare(
        stream: &mut Stream<'_>,
        config: &FitConfig,
        shared: Option<&SharedScaling>,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let values = (stream.n * stream.d) as f64;
        let mut stats = Self::read(stream, ctx)?;
        stats.check_range(stream)?;
        stats.energy = Energy::from_sums(stats.column_squares.clone(), &stats.row_squares);
        let rms = (stats.prepared_square / values).sqrt();
        let scale = shared.map_or_else(|| preprocessing::safe_scale(rms), |shared| shared.scale);
        stream.preprocessing.scaling.scale = scale;
        stats.rescale(f64::from(scale).powi(2));
        if config.centre {
            stream.preprocessing.centre = Some(Arc::new(std::mem::take(&mut stats.mean)));
            stats.refresh_squares(stream, ctx)?;
        }
        if config.scale_neurons {
            let mean_square = |&square: &f64| preprocessing::inverse_root(square / stream.n as f64);
            let own = || {
                Some(Arc::new(
                    stats.column_squares.iter().map(mean_square).collect(),
                ))
            };
            stream.preprocessing.scaling.neurons =
                shared.map_or_else(own, |shared| shared.neurons.clone());
            stats.refresh_squares(stream, ctx)?;
        }
        if config.scale_rows {
            let weights: Vec<f32> = stats
                .row_squares
                .iter()
                .map(|&square| preprocessing::inverse_root(square))
                .collect();
            let squares = stats.row_squares.iter_mut().zip(&weights);
            squares.for_each(|(square, &weight)| *square = if weight > 0.0 { 1.0 } else { 0.0 });
            stats.prepared_square = stats.row_squares.iter().sum();
            stream.preprocessing.weights = Some(weights);
        }
        stats.rms = (stats.prepared_square / values).sqrt();
        stats.error_base = if config.scale_neurons {
            stats.prepared_square
        } else {
            stats.original_square
        };
        Ok(stats)
    }

    /// Refuses a row whose norm is beyond single precision, since its coefficients can be as large
    /// as the norm.
    fn check_range(&self, stream: &Stream<'_>) -> Result<()> {
        let largest = f64::from(f32::MAX / 4.0).powi(2);
        match self.row_squares.iter().position(|&square| square > largest) {
            Some(row) => Err(too_large(stream.source, row)),
            None => Ok(()),
        }
    }

    /// Multiplies all squares by `factor`, the square of the power of two of the preprocessing.
    fn rescale(&mut self, factor: f64) {
        let squares = [
            &mut self.prepared_square,
            &mut self.original_square,
            &mut self.variance,
        ];
        let all = squares
            .into_iter()
            .chain(&mut self.row_squares)
            .chain(&mut self.column_squares);
        all.for_each(|v| *v *= factor);
    }

    /// Recomputes the squares of the rows with the present preprocessing.
    fn refresh_squares(&mut self, stream: &Stream<'_>, ctx: &TaskCtx) -> Result<()> {
        let fresh = Self::read(stream, ctx)?;
        (self.prepared_square, self.row_squares, self.column_squares) = (
            fresh.prepared_square,
            fresh.row_squares,
            fresh.column_squares,
        );
        Ok(())
    }

    /// Reads A once. The hash and the sums are combined from pieces of fixed length in order, so
    /// that they do not depend on the number of threads.
    ///
    /// # Errors
    /// [`Error::Refused`] for a row with NaN or infinity, which is named; errors of the source;
    /// [`Error::Cancelled`].
    pub(crate) fn read(stream: &Stream<'_>, ctx: &TaskCtx) -> Result<Self> {
        const PIECE: usize = 64;
        let d = stream.d;
        let mut hash = Xxh3::new();
        let mut row_squares = Vec::with_capacity(stream.n);
        let mut sums = vec![0.0f64; d];
        let mut column_squares = vec![0.0f64; d];
        stream.for_each_block(ctx, |range, block| {
            ctx.checkpoint(Progress::new(
                "checking the activations",
                range.start as u64,
                stream.n as u64,
                "rows",
            ))?;
            let pieces: Vec<(u64, Vec<f64>, [Vec<f64>; 2])> = block
                .data
                .par_chunks(PIECE * d)
                .map(|rows| {
                    let squares = rows.chunks_exact(d).map(square).collect();
                    (
                        xxh3_64(bytemuck::cast_slice(rows)),
                        squares,
                        column_sums(rows, d),
                    )
                })
                .collect();
            for (digest, squares, by_neuron) in &pieces {
                hash.update(&digest.to_le_bytes());
                row_squares.extend_from_slice(squares);
                for (totals, values) in [&mut sums, &mut column_squares].into_iter().zip(by_neuron)
                {
                    totals
                        .iter_mut()
                        .zip(values)
                        .for_each(|(total, v)| *total += v);
                }
            }
            match row_squares[range.start..]
                .iter()
                .position(|v| !v.is_finite())
            {
                Some(i) => Err(not_finite(stream.source, range.start + i, block.row(i))),
                None => Ok(()),
            }
        })?;
        let square: f64 = row_squares.iter().sum();
        let mean_square = sums.iter().map(|s| s * s).sum::<f64>() / stream.n.max(1) as f64;
        let mean = sums
            .iter()
            .map(|s| (s / stream.n.max(1) as f64) as f32)
            .collect();
        // A smaller difference can only be rounding: the rows are then all equal.
        let variance = if square - mean_square > 1e-12 * square {
            square - mean_square
        } else {
            0.0
        };
        let fingerprint = hash.digest();
        let (rms, energy) = (0.0, Energy::default());
        Ok(Self {
            prepared_square: square,
            rms,
            original_square: square,
            error_base: square,
            variance,
            row_squares,
            fingerprint,
            mean,
            column_squares,
            energy,
        })
    }

    /// The few neurons or rows, if any, that have much of the energy of the prepared rows. The
    /// energy of neurons is that before rows are weighted; weighted rows all have the same energy
    /// and are not considered.
    pub(crate) fn concentrations(&self, stream: &Stream<'_>) -> Vec<Concentration> {
        let row_squares = if stream.preprocessing.weights.is_some() {
            &[]
        } else {
            &self.row_squares[..]
        };
        let energy = Energy::from_sums(self.column_squares.clone(), row_squares);
        energy.concentrations(|row| stream.source.describe_row(row))
    }

    /// The median norm of the prepared rows.
    pub(crate) fn median_norm(&self) -> f64 {
        let mut squares = self.row_squares.clone();
        let n = squares.len();
        if n == 0 {
            return 0.0;
        }
        let (below, mid, _) = squares.select_nth_unstable_by(n / 2, f64::total_cmp);
        let upper = mid.sqrt();
        if n % 2 == 1 {
            upper
        } else {
            (below.iter().copied().fold(0.0, f64::max).sqrt() + upper) / 2.0
        }
    }
}

/// The error for a row with a value that is not finite.
pub(super) fn not_finite(source: &dyn ActivationSource, row: usize, values: &[f32]) -> Error {
    let neuron = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Error::refused(format!(
        "{} holds {} at neuron {neuron}; collect the activations again or leave that text out",
        source.describe_row(row),
        values[neuron],
    ))
}

/// Σ v² in f64, in eight partial sums of fixed order, which the compiler vectorises.
fn square(row: &[f32]) -> f64 {
    let mut parts = [0.0f64; 8];
    let chunks = row.chunks_exact(8);
    let tail: f64 = chunks
        .remainder()
        .iter()
        .map(|&v| f64::from(v) * f64::from(v))
        .sum();
    for chunk in chunks {
        for (p, &v) in parts.iter_mut().zip(chunk) {
            *p += f64::from(v) * f64::from(v);
        }
    }
    parts.iter().sum::<f64>() + tail
}

/// The error for a row that is too large for single precision.
pub(super) fn too_large(source: &dyn ActivationSource, row: usize) -> Error {
    Error::refused(format!(
        "the activations are beyond single precision: {} is the largest row; scale them down, or leave that text out",
        source.describe_row(row)
    ))
}

/// Σ v and Σ v² of each neuron over the rows, in f64.
fn column_sums(rows: &[f32], d: usize) -> [Vec<f64>; 2] {
    let (mut sums, mut squares) = (vec![0.0; d], vec![0.0; d]);
    for row in rows.chunks_exact(d) {
        for ((s, q), &v) in sums.iter_mut().zip(&mut squares).zip(row) {
            let v = f64::from(v);
            *s += v;
            *q += v * v;
        }
    }
    [sums, squares]
}
