//! What fixed directions leave of rows that they were not fitted to.

use rayon::prelude::*;

use crate::activations::ActivationSource;
use crate::error::Result;
use crate::factor::encode::Encoder;
use crate::factor::{Coding, SparseColumns};
use crate::task::{Progress, TaskCtx};

const BLOCK_ROWS: usize = 1024;

/// Σ‖a − Zy‖² / Σ‖a‖² with the best y ≥ 0 for each row as `coding` writes it, in f64 over blocks of rows. `None` when
/// every row is zero.
pub fn relative_error(
    source: &dyn ActivationSource,
    features: &SparseColumns,
    coding: &Coding,
    ctx: &TaskCtx,
) -> Result<Option<f64>> {
    let n = source.shape().0;
    let encoder = Encoder::with(features.clone(), coding);
    let (mut residual, mut whole) = (0.0, 0.0);
    for start in (0..n).step_by(BLOCK_ROWS) {
        ctx.checkpoint(Progress::new("held-out error", start as u64, n as u64, "tokens"))?;
        let block = source.rows(start..n.min(start + BLOCK_ROWS))?;
        let k = features.columns();
        let y = encoder.encode(&block, ctx)?;
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let squares: Vec<(f64, f64)> = (0..block.rows)
            .into_par_iter()
            .map(|i| {
                let left = coding.residual(features, block.row(i), &y[i * k..(i + 1) * k]);
                (square(&mut left.into_iter()), square(&mut block.row(i).iter().map(|&v| f64::from(v))))
            })
            .collect();
        for (left, all) in squares {
            residual += left;
            whole += all;
        }
    }
    Ok((whole > 0.0).then(|| residual / whole))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::activations::InMemory;

    #[test]
    fn what_is_left_is_measured_against_the_row() {
        let features = SparseColumns { rows: 2, offsets: vec![0, 1], indices: vec![0], values: vec![1.0] };
        let source = InMemory::new(2, 2, vec![3.0, 4.0, -3.0, 4.0]);
        let error = |coding: &Coding| relative_error(&source, &features, coding, &TaskCtx::silent()).unwrap().unwrap();
        // The first row leaves its 4, the second everything: its coefficient would be negative.
        assert!((error(&Coding::default()) - (16.0 + 25.0) / 50.0).abs() < 1e-12);
        let centred = Coding { centre: Some(Arc::new(vec![-3.0, 4.0])), row_cap: None };
        assert!(error(&centred) < 1e-12);
    }
}
