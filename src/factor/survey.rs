//! The first look at a source: refuses what is not a number, and takes the norms, the means and a fingerprint that a fit
//! is bound to.

use std::sync::Arc;

use rayon::prelude::*;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::FitConfig;
use super::stream::Stream;
use crate::activations::ActivationSource;
use crate::error::{Error, Result};
use crate::task::{Progress, TaskCtx};

/// What a fit must know of A before it starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Survey {
    /// The square of the rows as the fit sees them: ‖A‖², but for its frame.
    pub(crate) square: f64,
    /// ‖A‖² of the rows as they are.
    pub(crate) whole: f64,
    /// ‖A − mean‖² of the rows as they are, the mean taken over rows.
    pub(crate) variance: f64,
    /// Each row's squared norm as the fit sees it.
    pub(crate) row_squares: Vec<f64>,
    /// A hash of every value as it is.
    pub(crate) fingerprint: u64,
    mean: Vec<f32>,
}

impl Survey {
    /// Surveys a source and puts the stream into the frame that `config` asks for.
    pub(crate) fn frame(stream: &mut Stream<'_>, config: &FitConfig, ctx: &TaskCtx) -> Result<Self> {
        let mut survey = Self::take(stream, ctx)?;
        if config.centre {
            stream.frame.centre = Some(Arc::new(std::mem::take(&mut survey.mean)));
            let centred = Self::take(stream, ctx)?;
            (survey.square, survey.row_squares) = (centred.square, centred.row_squares);
        }
        if config.scale_rows {
            let weight = |&square: &f64| if square > 0.0 { square.sqrt().recip() as f32 } else { 0.0 };
            stream.frame.weights = Some(survey.row_squares.iter().map(weight).collect());
            survey.row_squares.iter_mut().for_each(|square| *square = if *square > 0.0 { 1.0 } else { 0.0 });
            survey.square = survey.row_squares.iter().sum();
        }
        Ok(survey)
    }

    /// Reads A once; a row that holds NaN or infinity is named.
    pub(crate) fn take(stream: &Stream<'_>, ctx: &TaskCtx) -> Result<Self> {
        const PIECE: usize = 64;
        let d = stream.d;
        let mut hash = Xxh3::new();
        let mut row_squares = Vec::with_capacity(stream.n);
        let mut sums = vec![0.0f64; d];
        stream.blocks(ctx, |range, block| {
            ctx.checkpoint(Progress::new("checking the activations", range.start as u64, stream.n as u64, "rows"))?;
            let pieces: Vec<(u64, Vec<f64>, Vec<f64>)> = block
                .data
                .par_chunks(PIECE * d)
                .map(|rows| {
                    let squares = rows.chunks_exact(d).map(square).collect();
                    (xxh3_64(bytemuck::cast_slice(rows)), squares, column_sums(rows, d))
                })
                .collect();
            for (digest, squares, columns) in &pieces {
                hash.update(&digest.to_le_bytes());
                row_squares.extend_from_slice(squares);
                for (total, v) in sums.iter_mut().zip(columns) {
                    *total += v;
                }
            }
            match row_squares[range.start..].iter().position(|v| !v.is_finite()) {
                Some(i) => Err(not_finite(stream.source, range.start + i, block.row(i))),
                None => Ok(()),
            }
        })?;
        let square: f64 = row_squares.iter().sum();
        let mean_square = sums.iter().map(|s| s * s).sum::<f64>() / stream.n.max(1) as f64;
        let mean = sums.iter().map(|s| (s / stream.n.max(1) as f64) as f32).collect();
        // Below this it is the rounding of two equal sums.
        let variance = if square - mean_square > 1e-12 * square { square - mean_square } else { 0.0 };
        Ok(Self { square, whole: square, variance, row_squares, fingerprint: hash.digest(), mean })
    }

    /// The median of the rows' norms, as the fit sees them.
    pub(crate) fn median_norm(&self) -> f64 {
        let mut squares = self.row_squares.clone();
        let n = squares.len();
        if n == 0 {
            return 0.0;
        }
        let (below, mid, _) = squares.select_nth_unstable_by(n / 2, f64::total_cmp);
        let upper = mid.sqrt();
        if n % 2 == 1 { upper } else { (below.iter().copied().fold(0.0, f64::max).sqrt() + upper) / 2.0 }
    }
}

/// What to say of a row with a value that is no number.
pub(super) fn not_finite(source: &dyn ActivationSource, row: usize, values: &[f32]) -> Error {
    let at = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Error::refused(format!(
        "{} holds {} at neuron {at}; collect the activations again or leave that text out",
        source.describe_row(row),
        values[at],
    ))
}

/// Σ v² in f64, in eight fixed partial sums.
fn square(row: &[f32]) -> f64 {
    let mut parts = [0.0f64; 8];
    let chunks = row.chunks_exact(8);
    let tail: f64 = chunks.remainder().iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    for chunk in chunks {
        for (p, &v) in parts.iter_mut().zip(chunk) {
            *p += f64::from(v) * f64::from(v);
        }
    }
    parts.iter().sum::<f64>() + tail
}

fn column_sums(rows: &[f32], d: usize) -> Vec<f64> {
    let mut sums = vec![0.0; d];
    for row in rows.chunks_exact(d) {
        for (s, &v) in sums.iter_mut().zip(row) {
            *s += f64::from(v);
        }
    }
    sums
}
