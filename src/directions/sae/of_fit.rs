//! A fit as a standard sparse autoencoder: the decoder is Z, the encoder is a ridge regression on
//! Z, and ReLU makes the coefficients non-negative.
//!
//! The coefficients of a fit solve a least squares problem with y ≥ 0 for each row, which no linear
//! map followed by ReLU can do. W_enc = W²Z (ZᵀW²Z + λI)⁻¹ approximates it, and the error of the
//! approximation is measured.

use rayon::prelude::*;

use super::{Gate, Normalise, Sae};
use crate::activations::{ActivationSource, Block};
use crate::directions::reconstruction::Reconstruct;
use crate::error::Result;
use crate::factor::Factors;
use crate::matrix::cholesky;
use crate::task::TaskCtx;

/// The values of λ that are compared, relative to the mean of the diagonal of ZᵀW²Z.
const RIDGES: [f64; 7] = [1e-6, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0];
/// The number of rows on which they are compared, spread over the source.
const SAMPLE_ROWS: usize = 2048;
/// The number of neighbouring rows of the sample that are read together.
const RUN: usize = 32;

impl Sae {
    /// The autoencoder of a fit with the λ that reconstructs a sample of rows best, and that λ
    /// (relative to the mean squared norm of a feature).
    ///
    /// # Errors
    /// Rows of another width than the fit's; what `source` returns.
    pub fn of_fit(
        factors: &Factors,
        source: &dyn ActivationSource,
        ctx: &TaskCtx,
    ) -> Result<(Self, f64)> {
        let mut best: Option<(f64, f64, Self)> = None;
        for ridge in RIDGES {
            let sae = Self::with_ridge(factors, ridge);
            let mut error = 0.0;
            for block in sample(source)? {
                ctx.check()?;
                let values = sae.reconstruct(&block, ctx)?.values;
                error += block
                    .data
                    .iter()
                    .zip(&values)
                    .map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2))
                    .sum::<f64>();
            }
            if best.as_ref().is_none_or(|(least, ..)| error < *least) {
                best = Some((error, ridge, sae));
            }
        }
        let (_, ridge, sae) =
            best.unwrap_or_else(|| (0.0, RIDGES[0], Self::with_ridge(factors, RIDGES[0])));
        Ok((sae, ridge))
    }

    /// The autoencoder of a fit with λ = `ridge` times the mean of the diagonal of ZᵀW²Z.
    pub fn with_ridge(factors: &Factors, ridge: f64) -> Self {
        let z = &factors.features;
        let (d, k) = (z.rows, z.columns());
        let weights = factors.coding.neuron_weights.as_ref();
        let squared = |i: usize| weights.map_or(1.0, |w| f64::from(w[i]).powi(2));
        let columns: Vec<Vec<f64>> = (0..k)
            .map(|j| z.dense_column(j).into_iter().map(f64::from).collect())
            .collect();
        let weighted: Vec<Vec<f64>> = columns
            .iter()
            .map(|column| {
                let pairs = column.iter().enumerate();
                pairs.map(|(i, v)| v * squared(i)).collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let mut gram: Vec<f64> = (0..k * k)
            .into_par_iter()
            .map(|at| dot(&weighted[at / k], &columns[at % k]))
            .collect();
        let mean = (0..k).map(|j| gram[j * k + j]).sum::<f64>() / k.max(1) as f64;
        (0..k).for_each(|j| gram[j * k + j] += ridge * mean);
        cholesky::factor(&mut gram, k, 1e-12 * mean.max(f64::MIN_POSITIVE));
        // Column by column of the rows' space: (ZᵀW²Z + λI) w = W²Zᵀ e_i.
        let by_neuron: Vec<Vec<f64>> = (0..d)
            .into_par_iter()
            .map(|i| {
                let mut column: Vec<f64> = weighted.iter().map(|feature| feature[i]).collect();
                cholesky::solve(&gram, k, &mut column);
                column
            })
            .collect();
        let encoder = (0..k * d)
            .map(|at| by_neuron[at % d.max(1)][at / d.max(1)] as f32)
            .collect();
        Self {
            width: d,
            encoder,
            encoder_bias: vec![0.0; k],
            decoder: columns.into_iter().flatten().map(|v| v as f32).collect(),
            decoder_bias: factors
                .coding
                .centre
                .as_ref()
                .map_or_else(|| vec![0.0; d], |centre| centre.to_vec()),
            centred: factors.coding.centre.is_some(),
            gate: Gate::Relu,
            normalise: Normalise::None,
        }
    }
}

/// Reads runs of rows that are spread evenly over the source.
fn sample(source: &dyn ActivationSource) -> Result<Vec<Block<'_>>> {
    let n = source.shape().0;
    let runs = (SAMPLE_ROWS / RUN).min(n.div_ceil(RUN));
    (0..runs)
        .map(|i| {
            let start = i * n / runs.max(1);
            source.rows(start..n.min(start + RUN))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::factor::{Coding, Coefficients, SparseColumns};

    /// Z of 5 neurons and 2 features, with weights and a centre.
    fn factors(coding: Coding) -> Factors {
        Factors {
            features: SparseColumns {
                rows: 5,
                offsets: vec![0, 2, 4],
                indices: vec![0, 2, 2, 4],
                values: vec![0.6, 0.8, 0.8, -0.6],
            },
            coefficients: Coefficients::owned(0, vec![]),
            coding,
            relative_error: 0.0,
            weighted_error: None,
            explained_variance: 0.0,
            sweep: 0,
            seconds: 0.0,
        }
    }

    #[test]
    fn the_encoder_is_the_ridge_regression_on_the_features() {
        let weights = vec![1.0f32, 2.0, 0.5, 1.0, 3.0];
        let coding = Coding {
            neuron_weights: Some(Arc::new(weights.clone())),
            centre: Some(Arc::new(vec![0.5; 5])),
            ..Coding::default()
        };
        let factors = factors(coding);
        let sae = Sae::with_ridge(&factors, 0.1);
        let z: Vec<Vec<f64>> = (0..2)
            .map(|j| {
                factors
                    .features
                    .dense_column(j)
                    .into_iter()
                    .map(f64::from)
                    .collect()
            })
            .collect();
        let product = |a: &[f64], b: &[f64]| -> f64 {
            (0..5)
                .map(|i| f64::from(weights[i]).powi(2) * a[i] * b[i])
                .sum()
        };
        let gram = [
            [product(&z[0], &z[0]), product(&z[0], &z[1])],
            [product(&z[1], &z[0]), product(&z[1], &z[1])],
        ];
        let ridge = 0.1 * (gram[0][0] + gram[1][1]) / 2.0;
        // The normal equations hold for each neuron: (ZᵀW²Z + λI) w_i = W²Zᵀ e_i.
        for i in 0..5 {
            let w = [0, 1].map(|j| f64::from(sae.encoder[j * 5 + i]));
            for j in 0..2 {
                let left = gram[j][0] * w[0] + gram[j][1] * w[1] + ridge * w[j];
                let right = f64::from(weights[i]).powi(2) * z[j][i];
                assert!((left - right).abs() < 1e-6, "{i} {j}: {left} {right}");
            }
        }
        assert!(sae.centred && sae.decoder_bias == [0.5; 5]);
        assert_eq!(sae.decoder[..5], factors.features.dense_column(0));
    }
}
