//! The first look at a source: refuses what is not a number, and takes the norms, the means and a fingerprint that a fit
//! is bound to.

use rayon::prelude::*;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::stream::Stream;
use crate::error::{Error, Result};
use crate::task::{Progress, TaskCtx};

/// What a fit must know of A before it starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Survey {
    /// ‖A‖².
    pub(crate) square: f64,
    /// ‖A − mean‖², the mean taken over rows.
    pub(crate) variance: f64,
    /// Each row's squared norm.
    pub(crate) row_squares: Vec<f64>,
    /// A hash of every value.
    pub(crate) fingerprint: u64,
}

impl Survey {
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
                Some(i) => Err(not_finite(stream, range.start + i, block.row(i))),
                None => Ok(()),
            }
        })?;
        let square: f64 = row_squares.iter().sum();
        let mean_square = sums.iter().map(|s| s * s).sum::<f64>() / stream.n.max(1) as f64;
        Ok(Self { square, variance: (square - mean_square).max(0.0), row_squares, fingerprint: hash.digest() })
    }

    /// The median of the rows' norms.
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

fn not_finite(stream: &Stream<'_>, row: usize, values: &[f32]) -> Error {
    let at = values.iter().position(|v| !v.is_finite()).unwrap_or(0);
    Error::refused(format!(
        "{} holds {} at neuron {at}; collect the activations again or leave that text out",
        stream.source.describe_row(row),
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
