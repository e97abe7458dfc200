//! The gradient of a batch's loss (the formula is in [`super`]). It is sparse, since a latent's
//! gradient only depends on the rows where it is active.

use rayon::prelude::*;

use super::AUX;
use crate::directions::sae::{Sae, largest};
use crate::matrix::gemm::{View, product};

/// The least variance of a batch, as a share of the average variance of as many rows.
const LEAST_VARIANCE: f64 = 0.1;

/// A row where a latent is active.
#[derive(Debug, Clone, Copy)]
struct LatentUse {
    row: u32,
    value: f32,
    /// Whether the auxiliary loss used it, not the main one.
    aux: bool,
}

/// The gradient of the last batch, with the buffers that it is computed in.
#[derive(Debug, Default)]
pub(super) struct Gradient {
    d: usize,
    /// Mean of ‖x − μ‖² over all rows of the source.
    row_variance: f64,
    /// x − b_dec, `[rows][d]`.
    centred: Vec<f32>,
    /// The loss's gradient by x̂ and by ê, `[rows][d]`.
    by_output: Vec<f32>,
    by_aux: Vec<f32>,
    pre: Vec<f32>,
    /// The uses of latent j are `uses[offsets[j]..offsets[j + 1]]`, in the order of rows.
    uses: Vec<LatentUse>,
    offsets: Vec<usize>,
    pub(super) encoder_bias: Vec<f32>,
    pub(super) decoder_bias: Vec<f32>,
}

impl Gradient {
    /// An empty gradient for a source whose rows have the mean ‖x − μ‖² `row_variance`.
    pub(super) fn new(row_variance: f64) -> Self {
        Self {
            row_variance,
            ..Self::default()
        }
    }

    /// Computes the gradient of a batch; returns Σ‖x − x̂‖² and Σ‖x − x̄‖². `dead` are the silent
    /// latents, ascending.
    pub(super) fn compute(
        &mut self,
        sae: &Sae,
        batch: &[f32],
        top_k: usize,
        dead: &[u32],
    ) -> (f64, f64) {
        let (d, k) = (sae.width, sae.latents());
        let rows = batch.len() / d;
        self.d = d;
        self.centred.clear();
        self.centred.extend(
            batch
                .chunks_exact(d)
                .flat_map(|row| row.iter().zip(&sae.decoder_bias).map(|(x, b)| x - b)),
        );
        self.pre.resize(rows * k, 0.0);
        let (x, w) = (
            View::rows(&self.centred, d),
            View::transposed(&sae.encoder, d),
        );
        product((rows, d, k), x, w, &mut self.pre, k, false, true);

        // A last batch of one row has no variance of its own, and neither have rows that happen to
        // be equal: the loss divides by the variance.
        let variance = variance(batch, d).max(LEAST_VARIANCE * rows as f64 * self.row_variance);
        let aux_k = (d / 2).max(1);
        let share = (dead.len() as f32 / aux_k as f32).min(1.0);
        let step = BatchLoss {
            sae,
            top_k,
            dead,
            aux_k,
            main: (2.0 / variance) as f32,
            aux: (2.0 / variance) as f32 * AUX * share,
        };
        self.by_output.resize(rows * d, 0.0);
        self.by_aux
            .resize(if dead.is_empty() { 0 } else { rows * d }, 0.0);
        let outputs = self
            .by_output
            .par_chunks_exact_mut(d)
            .zip(self.pre.par_chunks_exact_mut(k));
        let inputs = self.centred.par_chunks_exact(d);
        let row_results: Vec<(Active, f64)> = if dead.is_empty() {
            outputs
                .zip(inputs)
                .map(|((out, pre), x)| step.row(x, pre, out, &mut []))
                .collect()
        } else {
            let aux = self.by_aux.par_chunks_exact_mut(d);
            outputs
                .zip(inputs)
                .zip(aux)
                .map(|(((out, pre), x), aux)| step.row(x, pre, out, aux))
                .collect()
        };
        let error = row_results.iter().map(|(_, e)| e).sum();
        self.group_by_latent(k, &row_results);
        self.compute_biases(sae);
        (error, variance)
    }

    /// Sorts the rows' active latents by latent.
    fn group_by_latent(&mut self, k: usize, row_results: &[(Active, f64)]) {
        let all = || {
            (0u32..).zip(row_results).flat_map(|(row, (active, _))| {
                let uses_of = move |aux| {
                    move |&(j, value): &(u32, f32)| (j as usize, LatentUse { row, value, aux })
                };
                active
                    .main
                    .iter()
                    .map(uses_of(false))
                    .chain(active.aux.iter().map(uses_of(true)))
            })
        };
        self.offsets.clear();
        self.offsets.resize(k + 1, 0);
        all().for_each(|(j, _)| self.offsets[j + 1] += 1);
        for j in 0..k {
            self.offsets[j + 1] += self.offsets[j];
        }
        let mut next = self.offsets.clone();
        self.uses.clear();
        self.uses.resize(
            self.offsets[k],
            LatentUse {
                row: 0,
                value: 0.0,
                aux: false,
            },
        );
        for (j, used) in all() {
            self.uses[next[j]] = used;
            next[j] += 1;
        }
    }

    fn uses(&self, j: usize) -> impl Iterator<Item = (&LatentUse, &[f32])> {
        let d = self.d;
        self.uses[self.offsets[j]..self.offsets[j + 1]]
            .iter()
            .map(move |used| {
                let by = if used.aux {
                    &self.by_aux
                } else {
                    &self.by_output
                };
                (
                    used,
                    &by[used.row as usize * d..(used.row as usize + 1) * d],
                )
            })
    }

    /// The latents that the main loss of the batch used.
    pub(super) fn active(&self) -> impl Iterator<Item = usize> {
        let used = |j: &usize| {
            self.uses[self.offsets[*j]..self.offsets[j + 1]]
                .iter()
                .any(|u| !u.aux)
        };
        (0..self.offsets.len().saturating_sub(1)).filter(used)
    }

    fn compute_biases(&mut self, sae: &Sae) {
        let d = self.d;
        let bias_of = |j: usize| {
            let row = &sae.decoder[j * d..(j + 1) * d];
            self.uses(j).map(|(_, by)| dot(row, by)).sum::<f32>()
        };
        self.encoder_bias = (0..sae.latents()).into_par_iter().map(bias_of).collect();
        // b_dec is added to x̂ and subtracted from the row before it is encoded.
        let mut sums = vec![0.0f32; d];
        for by in self.by_output.chunks_exact(d) {
            sums.iter_mut().zip(by).for_each(|(s, v)| *s += v);
        }
        for (row, &g) in sae.encoder.chunks_exact(d).zip(&self.encoder_bias) {
            if g != 0.0 {
                sums.iter_mut().zip(row).for_each(|(s, w)| *s -= g * w);
            }
        }
        self.decoder_bias = sums;
    }

    /// The gradients by the encoder's and the decoder's row of latent j. The component along the
    /// decoder's row is left out, since that row keeps unit norm.
    pub(super) fn gradient_of_latent(
        &self,
        j: usize,
        decoder: &[f32],
        encoder_out: &mut [f32],
        decoder_out: &mut [f32],
    ) {
        let d = self.d;
        encoder_out.fill(0.0);
        decoder_out.fill(0.0);
        for (used, by) in self.uses(j) {
            let by_value = dot(decoder, by);
            let x = &self.centred[used.row as usize * d..(used.row as usize + 1) * d];
            encoder_out
                .iter_mut()
                .zip(x)
                .for_each(|(o, x)| *o += by_value * x);
            decoder_out
                .iter_mut()
                .zip(by)
                .for_each(|(o, g)| *o += used.value * g);
        }
        let along = dot(decoder_out, decoder);
        decoder_out
            .iter_mut()
            .zip(decoder)
            .for_each(|(o, w)| *o -= along * w);
    }
}

/// The active latents of a row, with their values: those of the main and of the auxiliary loss.
struct Active {
    main: Vec<(u32, f32)>,
    aux: Vec<(u32, f32)>,
}

/// The loss of a batch: the values that are the same for all of its rows.
struct BatchLoss<'a> {
    sae: &'a Sae,
    top_k: usize,
    dead: &'a [u32],
    aux_k: usize,
    /// The factors of x̂ − x and of ê − e in the gradients.
    main: f32,
    aux: f32,
}

impl BatchLoss<'_> {
    /// Encodes, decodes and differentiates one row; returns its active latents and ‖x − x̂‖².
    fn row(
        &self,
        centred: &[f32],
        pre: &mut [f32],
        by_output: &mut [f32],
        by_aux: &mut [f32],
    ) -> (Active, f64) {
        pre.iter_mut()
            .zip(&self.sae.encoder_bias)
            .for_each(|(p, b)| *p += b);
        let main = largest(pre, self.top_k);
        // x̂ − x = Σ z w − (x − b_dec).
        by_output.iter_mut().zip(centred).for_each(|(o, x)| *o = -x);
        self.add(&main, by_output);
        let error = by_output.iter().map(|&e| f64::from(e) * f64::from(e)).sum();
        let mut aux = Vec::new();
        if !by_aux.is_empty() {
            let silent: Vec<f32> = self.dead.iter().map(|&j| pre[j as usize]).collect();
            aux = largest(&silent, self.aux_k);
            aux.iter_mut()
                .for_each(|(j, _)| *j = self.dead[*j as usize]);
            // ê − e, where e = x − x̂.
            by_aux.copy_from_slice(by_output);
            self.add(&aux, by_aux);
            by_aux.iter_mut().for_each(|v| *v *= self.aux);
        }
        by_output.iter_mut().for_each(|v| *v *= self.main);
        (Active { main, aux }, error)
    }

    fn add(&self, latents: &[(u32, f32)], out: &mut [f32]) {
        let d = self.sae.width;
        for &(j, value) in latents {
            let row = &self.sae.decoder[j as usize * d..(j as usize + 1) * d];
            out.iter_mut().zip(row).for_each(|(o, w)| *o += value * w);
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight partial sums in a fixed order are vectorised, and round the same on every machine.
    let mut parts = [0.0f32; 8];
    let (left, right) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f32 = left
        .remainder()
        .iter()
        .zip(right.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in left.zip(right) {
        parts
            .iter_mut()
            .zip(x.iter().zip(y))
            .for_each(|(p, (x, y))| *p += x * y);
    }
    parts.iter().sum::<f32>() + tail
}

/// Σ‖x − x̄‖² of a batch.
fn variance(batch: &[f32], d: usize) -> f64 {
    let rows = (batch.len() / d) as f64;
    let (mut sums, mut square) = (vec![0.0f64; d], 0.0);
    for row in batch.chunks_exact(d) {
        for (s, &v) in sums.iter_mut().zip(row) {
            *s += f64::from(v);
            square += f64::from(v) * f64::from(v);
        }
    }
    square - sums.iter().map(|s| s * s).sum::<f64>() / rows
}
