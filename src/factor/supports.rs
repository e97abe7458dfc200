//! The choice of supports: a sweep over the columns of Z that sets each to the s largest entries of
//! its residual.
//!
//! The residuals of a block of columns are first taken with respect to all columns outside the
//! block, sixteen at once; the other columns of the block are then subtracted in order, so that the
//! sweep stays sequential. Knows nothing of solvers.

use super::SparseColumns;
use super::columns::norm;
use super::pass::PassSums;
use crate::error::Result;
use crate::matrix::residual::{self, GramRows};
use crate::matrix::select;
use crate::task::TaskCtx;

/// One sweep over the columns, each with a new support; `sums` hold all of AᵀY, and `weights` is
/// their YᵀY in f32. With `unit` the new columns have unit norm (the step under a penalty),
/// otherwise their values are the least squares solution. Locked columns are not changed.
///
/// # Errors
/// [`crate::Error::Cancelled`].
pub(crate) fn sweep(
    columns: &mut SparseColumns,
    sums: &PassSums,
    weights: &GramRows,
    unit: bool,
    locked: &[bool],
    ctx: &TaskCtx,
) -> Result<()> {
    let (k, d) = (columns.columns(), columns.rows);
    let (mut residuals, mut scratch) = (Vec::new(), Vec::new());
    let mut selector = SupportSelector::default();
    for first in (0..k).step_by(residual::BLOCK_LINES) {
        ctx.check()?;
        let block = first..k.min(first + residual::BLOCK_LINES);
        let lines = &sums.products[block.start * d..block.end * d];
        let entries = (
            &columns.offsets[..],
            &columns.indices[..],
            &columns.values[..],
        );
        let outside = [0..block.start, block.end..k];
        residual::subtract_columns(
            &mut residuals,
            lines,
            d,
            (weights, first),
            outside,
            entries,
            &mut scratch,
        );
        for (j, r) in block.clone().zip(residuals.chunks_exact_mut(d)) {
            let diagonal = sums.gram[j * k + j];
            if diagonal > f64::MIN_POSITIVE && !locked[j] {
                for l in block.clone().filter(|&l| l != j) {
                    subtract(r, weights.row(j)[l], columns.column(l));
                }
                selector.select(columns, j, r, (!unit).then_some(diagonal));
            }
        }
    }
    Ok(())
}

/// `r -= weight · column`.
fn subtract(r: &mut [f32], weight: f32, (indices, values): (&[u32], &[f32])) {
    for (&i, &v) in indices.iter().zip(values) {
        r[i as usize] -= weight * v;
    }
}

/// Chooses the support of a column, in memory that is reused from column to column.
#[derive(Default)]
struct SupportSelector {
    scratch: Vec<(u32, u32)>,
    chosen: Vec<u32>,
}

impl SupportSelector {
    /// Replaces column j by the largest entries of `r`, divided by `size`, or by their own norm if
    /// it is `None`. The old support is the guess that makes the selection fast.
    fn select(&mut self, columns: &mut SparseColumns, j: usize, r: &[f32], size: Option<f64>) {
        let span = columns.offsets[j]..columns.offsets[j + 1];
        self.chosen.resize(span.len(), 0);
        select::largest(
            r,
            span.len(),
            &columns.indices[span.clone()],
            &mut self.scratch,
            &mut self.chosen,
        );
        let size = size.unwrap_or_else(|| norm(self.chosen.iter().map(|&i| r[i as usize])));
        if size > 0.0 {
            columns.indices[span.clone()].copy_from_slice(&self.chosen);
            for (v, &i) in columns.values[span].iter_mut().zip(&self.chosen) {
                *v = (f64::from(r[i as usize]) / size) as f32;
            }
        }
    }
}
