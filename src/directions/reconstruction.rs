//! Measures how well an SNMF fit or a sparse autoencoder reconstructs rows of activations.
//!
//! Formulas (`src/guide/evaluation.md`): FVU = Σ‖x − x̂‖² / Σ‖x − μ‖² with μ the mean of all rows,
//! L0 = mean number of active units per row. (Several published "explained variances" are means of
//! ratios per row, or use the μ of a batch; these are not.)

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::activations::{ActivationSource, Block};
use crate::directions::sae::Sae;
use crate::error::Result;
use crate::factor::encode::Encoder;
use crate::factor::{Coding, SparseColumns};
use crate::task::{Progress, TaskCtx};

const BLOCK_ROWS: usize = 1024;

/// The active units of some rows, and the rows as reconstructed from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconstruction {
    /// Units × rows: column i holds the active units of row i, each above 0.
    pub codes: SparseColumns,
    /// x̂, row-major `[rows][d]`.
    pub values: Vec<f32>,
}

/// A model that encodes rows as a few active units and reconstructs them.
pub trait Reconstruct: Sync {
    /// (number of units, width d of a row).
    fn shape(&self) -> (usize, usize);

    /// Encodes and reconstructs the rows of a block.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) for rows of another width;
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    fn reconstruct(&self, block: &Block<'_>, ctx: &TaskCtx) -> Result<Reconstruction>;
}

impl Reconstruct for Sae {
    fn shape(&self) -> (usize, usize) {
        (self.latents(), self.width)
    }

    fn reconstruct(&self, block: &Block<'_>, _: &TaskCtx) -> Result<Reconstruction> {
        let latents = self.encode(block)?;
        let values = self.decode(&latents);
        Ok(Reconstruction {
            codes: latents.codes,
            values,
        })
    }
}

/// The features Z of an SNMF fit, with the least-squares y ≥ 0 for each row.
impl Reconstruct for Encoder {
    fn shape(&self) -> (usize, usize) {
        (self.features().columns(), self.features().rows)
    }

    fn reconstruct(&self, block: &Block<'_>, ctx: &TaskCtx) -> Result<Reconstruction> {
        let (k, d) = Reconstruct::shape(self);
        let y = self.encode(block, ctx)?;
        let mut codes = SparseColumns {
            rows: k,
            offsets: vec![0],
            ..SparseColumns::default()
        };
        for row in y.chunks_exact(k.max(1)).take(block.rows) {
            let active = (0u32..).zip(row).filter(|(_, v)| **v > 0.0);
            active.for_each(|(j, &v)| {
                codes.indices.push(j);
                codes.values.push(v);
            });
            codes.offsets.push(codes.indices.len());
        }
        codes.offsets.resize(block.rows + 1, codes.indices.len());
        let mut values = vec![0.0; block.rows * d];
        values
            .par_chunks_exact_mut(d.max(1))
            .enumerate()
            .for_each(|(i, row)| {
                if let Some(centre) = self.centre() {
                    row.copy_from_slice(centre);
                }
                let (units, sizes) = codes.column(i);
                for (&j, &y) in units.iter().zip(sizes) {
                    let (indices, weights) = self.features().column(j as usize);
                    indices
                        .iter()
                        .zip(weights)
                        .for_each(|(&c, &w)| row[c as usize] += y * w);
                }
            });
        Ok(Reconstruction { codes, values })
    }
}

/// The quality of a reconstruction, and the number of units that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReconstructionMetrics {
    /// The number of units: features or latents.
    pub units: usize,
    /// The number of rows.
    pub rows: usize,
    /// Σ‖x − x̂‖² / Σ‖x − μ‖²; `None` when the rows do not vary.
    pub fvu: Option<f64>,
    /// Σ‖x − x̂‖² / Σ‖x‖²; `None` when every row is zero.
    pub relative_error: Option<f64>,
    /// The mean number of active units per row.
    pub l0: f64,
    /// Share of units that no row uses.
    pub dead: f64,
}

/// Reconstructs every row of a source, in one pass, and measures the result.
///
/// # Errors
/// What `source` and `model` return; [`Error::Cancelled`](crate::Error::Cancelled).
pub fn reconstruction_metrics(
    source: &dyn ActivationSource,
    model: &dyn Reconstruct,
    ctx: &TaskCtx,
) -> Result<ReconstructionMetrics> {
    let (n, d) = source.shape();
    let units = model.shape().0;
    let (mut residual, mut square, mut sums) = (0.0f64, 0.0f64, vec![0.0f64; d]);
    let (mut active, mut used) = (0usize, vec![false; units]);
    for start in (0..n).step_by(BLOCK_ROWS) {
        ctx.checkpoint(Progress::new(
            "reconstructing",
            start as u64,
            n as u64,
            "tokens",
        ))?;
        let block = source.rows(start..n.min(start + BLOCK_ROWS))?;
        let reconstruction = model.reconstruct(&block, ctx)?;
        active += reconstruction.codes.indices.len();
        reconstruction
            .codes
            .indices
            .iter()
            .for_each(|&j| used[j as usize] = true);
        let squares = |i: usize| {
            let pairs = block
                .row(i)
                .iter()
                .zip(&reconstruction.values[i * d..(i + 1) * d]);
            pairs.fold((0.0, 0.0), |(left, all): (f64, f64), (&x, &y)| {
                (
                    left + (f64::from(x) - f64::from(y)).powi(2),
                    all + f64::from(x) * f64::from(x),
                )
            })
        };
        for (left, all) in (0..block.rows)
            .into_par_iter()
            .map(squares)
            .collect::<Vec<_>>()
        {
            residual += left;
            square += all;
        }
        for row in block.data.chunks_exact(d.max(1)) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(s, &v)| *s += f64::from(v));
        }
    }
    let variance = square - sums.iter().map(|s| s * s).sum::<f64>() / n.max(1) as f64;
    // A smaller variance is a rounding error: the rows are then all equal.
    let varies = variance > 1e-12 * square;
    Ok(ReconstructionMetrics {
        units,
        rows: n,
        fvu: varies.then(|| residual / variance),
        relative_error: (square > 0.0).then(|| residual / square),
        l0: active as f64 / n.max(1) as f64,
        dead: used.iter().filter(|u| !**u).count() as f64 / units.max(1) as f64,
    })
}

/// Σ‖a − Zy‖² / Σ‖a‖² with the best y ≥ 0 for each row under `coding`, with sums in f64. `None` if
/// every row is zero.
///
/// # Errors
/// What `source` returns; [`Error::Cancelled`](crate::Error::Cancelled).
pub fn relative_error(
    source: &dyn ActivationSource,
    features: &SparseColumns,
    coding: &Coding,
    ctx: &TaskCtx,
) -> Result<Option<f64>> {
    reconstruction_metrics(source, &Encoder::with_coding(features.clone(), coding), ctx)
        .map(|f| f.relative_error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::activations::InMemory;
    use crate::directions::sae::{Gate, Normalise};

    #[test]
    fn what_is_left_is_measured_against_the_row() {
        let features = SparseColumns {
            rows: 2,
            offsets: vec![0, 1],
            indices: vec![0],
            values: vec![1.0],
        };
        let source = InMemory::new(2, 2, vec![3.0, 4.0, -3.0, 4.0]);
        let error = |coding: &Coding| {
            relative_error(&source, &features, coding, &TaskCtx::silent())
                .unwrap()
                .unwrap()
        };
        // The first row leaves its 4, the second everything: its coefficient would be negative.
        assert!((error(&Coding::default()) - (16.0 + 25.0) / 50.0).abs() < 1e-12);
        let centred = Coding {
            centre: Some(Arc::new(vec![-3.0, 4.0])),
            row_cap: None,
            ..Default::default()
        };
        assert!(error(&centred) < 1e-12);
    }

    #[test]
    fn the_reconstruction_figures_equal_those_computed_by_hand() {
        // One feature along the first value; rows (3, 4) and (−1, 2).
        let features = SparseColumns {
            rows: 2,
            offsets: vec![0, 1, 2],
            indices: vec![0, 0],
            values: vec![1.0, -0.0],
        };
        let features = SparseColumns {
            offsets: vec![0, 1, 1],
            indices: vec![0],
            values: vec![1.0],
            ..features
        };
        let source = InMemory::new(2, 2, vec![3.0, 4.0, -1.0, 2.0]);
        let found =
            reconstruction_metrics(&source, &Encoder::new(features), &TaskCtx::silent()).unwrap();
        // Left: 16 of the first row, 5 of the second; around the mean (1, 3): 5 + 5.
        let expected = ReconstructionMetrics {
            units: 2,
            rows: 2,
            fvu: Some(2.1),
            relative_error: Some(0.7),
            l0: 0.5,
            dead: 0.5,
        };
        assert!(
            (found.fvu.unwrap() - 2.1).abs() < 1e-9
                && (found.relative_error.unwrap() - 0.7).abs() < 1e-9
        );
        assert_eq!(
            ReconstructionMetrics {
                fvu: expected.fvu,
                relative_error: expected.relative_error,
                ..found
            },
            expected
        );
    }

    #[test]
    fn the_mean_row_leaves_all_of_the_variance() {
        let source = InMemory::new(3, 2, vec![1.0, 0.0, 2.0, 5.0, 3.0, 1.0]);
        let sae = Sae {
            width: 2,
            encoder: vec![0.0; 2],
            encoder_bias: vec![0.0],
            decoder: vec![0.0; 2],
            decoder_bias: vec![2.0, 2.0],
            centred: true,
            gate: Gate::Relu,
            normalise: Normalise::None,
        };
        let found = reconstruction_metrics(&source, &sae, &TaskCtx::silent()).unwrap();
        assert!((found.fvu.unwrap() - 1.0).abs() < 1e-9);
        assert_eq!((found.l0, found.dead), (0.0, 1.0));
        let alike =
            reconstruction_metrics(&InMemory::new(2, 2, vec![2.0; 4]), &sae, &TaskCtx::silent())
                .unwrap();
        assert_eq!((alike.fvu, alike.relative_error), (None, Some(0.0)));
    }
}
