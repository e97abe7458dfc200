//! Sparse autoencoders: x̂ = f(x) W_dec + b_dec with f(x) sparse and not negative.
//!
//! Owns the autoencoder and its computations, by the formulas of SAELens (`sae_lens/saes/*.py`,
//! version 6). Every published format is converted to these conventions when it is read. Knows no
//! file and no study.

mod of_fit;
pub mod train;

use rayon::prelude::*;

use super::Directions;
use crate::activations::Block;
use crate::error::{Error, Result};
use crate::factor::SparseColumns;
use crate::matrix::gemm::{View, product};
use crate::matrix::vector::norm;

/// Added to a row's standard deviation before the row is divided by it, as in SAELens.
const NORM_EPS: f32 = 1e-5;
/// The largest number of pre-activations in memory at a time.
const CHUNK_VALUES: usize = 1 << 22;

/// The activation function, from pre-activations p = (x − b_dec) W_enc + b_enc to latents.
#[derive(Debug, Clone, PartialEq)]
pub enum Gate {
    /// max(p, 0), componentwise.
    Relu,
    /// max(p, 0) where p > θ, each latent with its own θ (arXiv 2407.14435).
    JumpRelu {
        /// θ, one per latent.
        threshold: Vec<f32>,
    },
    /// The k largest p of a row, at least 0 (arXiv 2406.04093).
    TopK {
        /// k, the number of active latents of a row.
        k: usize,
        /// Whether latents are multiplied by the norms of their decoder rows before the largest are
        /// chosen, as if these rows had unit norm.
        by_norm: bool,
    },
    /// max(eʳ·(x − b_dec) W_enc + b_enc, 0) where (x − b_dec) W_enc + b_gate > 0 (arXiv
    /// 2404.16014).
    Gated {
        /// b_gate, one per latent.
        bias: Vec<f32>,
        /// r, one per latent.
        log_scale: Vec<f32>,
    },
}

impl Gate {
    /// SAELens's name of the architecture.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Relu => "standard",
            Self::JumpRelu { .. } => "jumprelu",
            Self::TopK { .. } => "topk",
            Self::Gated { .. } => "gated",
        }
    }
}

/// The normalisation of a row before it is encoded, which is undone on its reconstruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalise {
    /// Rows are encoded without normalisation.
    None,
    /// Rows are scaled to the norm √d.
    ConstantNorm,
    /// Rows are scaled to the mean 0 and the (unbiased) standard deviation 1.
    LayerNorm,
}

/// A sparse autoencoder of rows of d values.
#[derive(Debug, Clone, PartialEq)]
pub struct Sae {
    /// d, the width of a row.
    pub width: usize,
    /// The encoder W_encᵀ, `[latents][d]`, row-major.
    pub encoder: Vec<f32>,
    /// b_enc (b_mag of a gated autoencoder), one per latent.
    pub encoder_bias: Vec<f32>,
    /// The decoder W_dec, `[latents][d]`, row-major: one direction per latent.
    pub decoder: Vec<f32>,
    /// The bias b_dec of the decoder, d values.
    pub decoder_bias: Vec<f32>,
    /// Whether b_dec is subtracted from a row before it is encoded.
    pub centred: bool,
    /// The activation function of the latents.
    pub gate: Gate,
    /// How rows are normalised.
    pub normalise: Normalise,
}

/// Latents of some rows, and how to undo the rows' normalisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    /// Latents × rows: column i holds the active latents of row i, ascending.
    pub codes: SparseColumns,
    /// (scale, shift) for each row: x̂ = scale · x̂' + shift.
    undo: Vec<(f32, f32)>,
}

impl Sae {
    /// The number of latents.
    pub fn latents(&self) -> usize {
        self.encoder_bias.len()
    }

    /// The rows of the decoder, as directions.
    pub fn directions(&self) -> Directions {
        Directions::Dense {
            d: self.width,
            columns: self.decoder.clone(),
        }
    }

    /// The latents of each row.
    ///
    /// # Errors
    /// [`Error::Usage`] when the rows are not as wide as the autoencoder.
    pub fn encode(&self, block: &Block<'_>) -> Result<Latents> {
        let (d, k) = (self.width, self.latents());
        if block.cols != d {
            return Err(Error::usage(format!(
                "rows of {} values cannot be read by an SAE of width {d}",
                block.cols
            )));
        }
        let norms = self.selection_norms();
        let mut codes = SparseColumns {
            rows: k,
            offsets: vec![0],
            ..SparseColumns::default()
        };
        let mut undo = Vec::with_capacity(block.rows);
        let chunk = (CHUNK_VALUES / k.max(1)).max(1);
        for start in (0..block.rows).step_by(chunk) {
            let rows = chunk.min(block.rows - start);
            let mut input = block.data[start * d..(start + rows) * d].to_vec();
            undo.extend(input.chunks_exact_mut(d).map(|row| self.prepare(row)));
            let mut pre = vec![0.0; rows * k];
            product(
                (rows, d, k),
                View::rows(&input, d),
                View::transposed(&self.encoder, d),
                &mut pre,
                k,
                false,
                true,
            );
            let active: Vec<Vec<(u32, f32)>> = pre
                .par_chunks_exact_mut(k)
                .map(|row| self.active(row, norms.as_deref()))
                .collect();
            for row in active {
                codes.indices.extend(row.iter().map(|(j, _)| *j));
                codes.values.extend(row.iter().map(|(_, v)| *v));
                codes.offsets.push(codes.indices.len());
            }
        }
        Ok(Latents { codes, undo })
    }

    /// The reconstruction of rows from their latents, row-major `[rows, d]`.
    pub fn decode(&self, latents: &Latents) -> Vec<f32> {
        let d = self.width;
        let norms = self.selection_norms();
        let mut out = vec![0.0; latents.undo.len() * d];
        out.par_chunks_exact_mut(d)
            .enumerate()
            .for_each(|(i, row)| {
                row.copy_from_slice(&self.decoder_bias);
                let (indices, values) = latents.codes.column(i);
                for (&j, &value) in indices.iter().zip(values) {
                    let j = j as usize;
                    let value = norms.as_ref().map_or(value, |n| value / n[j]);
                    for (o, w) in row.iter_mut().zip(&self.decoder[j * d..(j + 1) * d]) {
                        *o += value * w;
                    }
                }
                let (scale, shift) = latents.undo[i];
                if (scale, shift) != (1.0, 0.0) {
                    row.iter_mut().for_each(|v| *v = *v * scale + shift);
                }
            });
        out
    }

    /// Normalises and centres a row; returns (scale, shift), which undo the normalisation.
    fn prepare(&self, row: &mut [f32]) -> (f32, f32) {
        let d = self.width as f64;
        let undo = match self.normalise {
            Normalise::None => (1.0, 0.0),
            Normalise::ConstantNorm => {
                let norm = norm(row);
                // A row of zeros has no direction to scale and stays a row of zeros.
                let scale = if norm > 0.0 {
                    (norm / d.sqrt()) as f32
                } else {
                    1.0
                };
                row.iter_mut().for_each(|v| *v /= scale);
                (scale, 0.0)
            }
            Normalise::LayerNorm => {
                let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / d;
                let square = row
                    .iter()
                    .map(|&v| (f64::from(v) - mean).powi(2))
                    .sum::<f64>();
                let (mean, deviation) = (mean as f32, (square / (d - 1.0).max(1.0)).sqrt() as f32);
                row.iter_mut()
                    .for_each(|v| *v = (*v - mean) / (deviation + NORM_EPS));
                (deviation, mean)
            }
        };
        if self.centred {
            row.iter_mut()
                .zip(&self.decoder_bias)
                .for_each(|(v, b)| *v -= b);
        }
        undo
    }

    /// The norms of the decoder's rows if latents are multiplied by them; otherwise `None`.
    fn selection_norms(&self) -> Option<Vec<f32>> {
        matches!(self.gate, Gate::TopK { by_norm: true, .. }).then(|| {
            let rows = self.decoder.chunks_exact(self.width);
            rows.map(|row| norm(row) as f32).collect()
        })
    }

    /// The active latents (index and value above 0) of a row whose products with the encoder are
    /// `pre`.
    fn active(&self, pre: &mut [f32], norms: Option<&[f32]>) -> Vec<(u32, f32)> {
        let bias = &self.encoder_bias;
        match &self.gate {
            Gate::Relu => above(pre.iter().zip(bias).map(|(p, b)| p + b)),
            Gate::JumpRelu { threshold } => {
                let values = pre.iter().zip(bias).map(|(p, b)| p + b).zip(threshold);
                above(values.map(|(p, t)| if p > *t { p } else { 0.0 }))
            }
            Gate::Gated {
                bias: gate,
                log_scale,
            } => {
                let values = pre.iter().zip(bias).zip(gate.iter().zip(log_scale));
                above(
                    values.map(|((p, b), (g, r))| if p + g > 0.0 { p * r.exp() + b } else { 0.0 }),
                )
            }
            Gate::TopK { k, .. } => {
                for (j, (p, b)) in pre.iter_mut().zip(bias).enumerate() {
                    *p = (*p + b) * norms.map_or(1.0, |n| n[j]);
                }
                largest(pre, *k)
            }
        }
    }
}

/// The values above 0, with their indices.
fn above(values: impl Iterator<Item = f32>) -> Vec<(u32, f32)> {
    (0u32..).zip(values).filter(|(_, v)| *v > 0.0).collect()
}

/// The `k` largest of the `values` above 0, sorted by index; of equal values the first are chosen.
fn largest(values: &[f32], k: usize) -> Vec<(u32, f32)> {
    let mut found = above(values.iter().copied());
    if found.len() > k {
        if k > 0 {
            found.select_nth_unstable_by(k - 1, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        }
        found.truncate(k);
        found.sort_unstable_by_key(|(j, _)| *j);
    }
    found
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    /// Two latents on two values: the encoder and decoder are the identity.
    fn identity(gate: Gate) -> Sae {
        Sae {
            width: 2,
            encoder: vec![1.0, 0.0, 0.0, 1.0],
            encoder_bias: vec![0.0, -1.0],
            decoder: vec![1.0, 0.0, 0.0, 1.0],
            decoder_bias: vec![0.5, 0.5],
            centred: true,
            gate,
            normalise: Normalise::None,
        }
    }

    fn codes(sae: &Sae, row: &[f32]) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
        let block = Block {
            rows: 1,
            cols: 2,
            data: Cow::Borrowed(row),
        };
        let latents = sae.encode(&block).unwrap();
        (
            latents.codes.indices.clone(),
            latents.codes.values.clone(),
            sae.decode(&latents),
        )
    }

    #[test]
    fn each_activation_function_equals_its_definition() {
        // Pre-activations of (2.5, 3.5): 2 and 2.
        assert_eq!(
            codes(&identity(Gate::Relu), &[2.5, 3.5]),
            (vec![0, 1], vec![2.0, 2.0], vec![2.5, 2.5])
        );
        let jump = Gate::JumpRelu {
            threshold: vec![2.0, 1.0],
        };
        assert_eq!(
            codes(&identity(jump), &[2.5, 3.5]).0,
            [1],
            "above its threshold, not at it"
        );
        let topk = Gate::TopK {
            k: 1,
            by_norm: false,
        };
        assert_eq!(
            codes(&identity(topk), &[2.5, 3.5]).0,
            [0],
            "of equal ones the first"
        );
        let gated = Gate::Gated {
            bias: vec![-3.0, 0.0],
            log_scale: vec![0.0, 2f32.ln()],
        };
        let (indices, values, _) = codes(&identity(gated), &[2.5, 3.5]);
        assert_eq!(indices, [1]);
        assert!((values[0] - 5.0).abs() < 1e-5, "3·2 − 1");
        assert_eq!(codes(&identity(Gate::Relu), &[-2.5, -3.5]).0, [0u32; 0]);
    }

    #[test]
    fn a_normalised_row_comes_back_in_its_own_scale() {
        for normalise in [Normalise::ConstantNorm, Normalise::LayerNorm] {
            let mut sae = Sae {
                normalise,
                ..identity(Gate::Relu)
            };
            sae.encoder_bias = vec![10.0, 10.0];
            sae.decoder_bias = vec![-10.0, -10.0];
            sae.centred = false;
            let (_, _, back) = codes(&sae, &[30.0, -40.0]);
            assert!(
                (back[0] - 30.0).abs() < 1e-2 && (back[1] + 40.0).abs() < 1e-2,
                "{back:?}"
            );
            assert!(codes(&sae, &[0.0, 0.0]).2.iter().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn rows_of_another_width_are_refused() {
        let block = Block {
            rows: 1,
            cols: 3,
            data: Cow::Borrowed(&[0.0; 3]),
        };
        assert!(
            identity(Gate::Relu)
                .encode(&block)
                .unwrap_err()
                .to_string()
                .contains("width 2")
        );
    }
}
