//! What fixed directions leave of rows that they were not fitted to.

use rayon::prelude::*;

use crate::activations::ActivationSource;
use crate::error::Result;
use crate::factor::SparseColumns;
use crate::factor::encode::Encoder;
use crate::task::{Progress, TaskCtx};

const BLOCK_ROWS: usize = 1024;

/// Σ‖a − Zy‖² / Σ‖a‖² with the best y ≥ 0 for each row, in f64 over blocks of rows. `None` when every row is zero.
pub fn relative_error(source: &dyn ActivationSource, features: &SparseColumns, ctx: &TaskCtx) -> Result<Option<f64>> {
    let n = source.shape().0;
    let encoder = Encoder::new(features.clone());
    let (mut residual, mut whole) = (0.0, 0.0);
    for start in (0..n).step_by(BLOCK_ROWS) {
        ctx.checkpoint(Progress::new("held-out error", start as u64, n as u64, "tokens"))?;
        let block = source.rows(start..n.min(start + BLOCK_ROWS))?;
        let k = features.columns();
        let y = encoder.encode(&block, ctx)?;
        let squares: Vec<(f64, f64)> =
            (0..block.rows).into_par_iter().map(|i| squares(block.row(i), &y[i * k..(i + 1) * k], features)).collect();
        for (left, all) in squares {
            residual += left;
            whole += all;
        }
    }
    Ok((whole > 0.0).then(|| residual / whole))
}

/// ‖a − Zy‖² and ‖a‖².
fn squares(a: &[f32], y: &[f32], features: &SparseColumns) -> (f64, f64) {
    let mut left: Vec<f64> = a.iter().map(|&v| f64::from(v)).collect();
    let whole = left.iter().map(|v| v * v).sum();
    for (j, &y) in y.iter().enumerate().filter(|(_, y)| **y != 0.0) {
        let (indices, values) = features.column(j);
        for (&i, &v) in indices.iter().zip(values) {
            left[i as usize] -= f64::from(y) * f64::from(v);
        }
    }
    (left.iter().map(|v| v * v).sum(), whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_measured_against_the_row() {
        let features = SparseColumns { rows: 2, offsets: vec![0, 1], indices: vec![0], values: vec![1.0] };
        assert_eq!(squares(&[3.0, 4.0], &[3.0], &features), (16.0, 25.0));
        assert_eq!(squares(&[3.0, 4.0], &[0.0], &features), (25.0, 25.0));
    }
}
