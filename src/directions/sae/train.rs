//! Trains a TopK autoencoder on an activation source, in steps; the training can be stopped after
//! any step.
//!
//! Loss of a batch: (Σ‖x − x̂‖² + α·s·Σ‖e − ê‖²) / Σ‖x − x̄‖², with e = x − x̂ held fixed and ê its
//! reconstruction by the `aux_k` strongest of the latents that have been silent for `dead_after`
//! rows, s = min(silent / aux_k, 1) (Gao et al. 2024, arXiv 2406.04093, in the form of EleutherAI's
//! sparsify). Adam (Kingma, Ba 2015); decoder rows keep unit norm, and the part of their gradient
//! along themselves is left out. Rows are scaled to the mean square d while training.
//!
//! Invariant: the same source, configuration and seed give the same autoencoder, to the bit, on any
//! number of threads and however often the training was interrupted.

mod batches;
mod checkpoint;
mod gradient;

use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Gate, Normalise, Sae};
use crate::activations::ActivationSource;
use crate::error::{Error, Result};
use crate::matrix::adam::Adam;
use crate::matrix::vector::norm;
use crate::task::{Progress, TaskCtx};
pub use batches::BatchPosition;
use batches::Batches;
use gradient::Gradient;

/// The learning rate falls linearly to 0 over this share of the steps, the last ones.
const DECAY: f64 = 0.2;
/// Weight α of the auxiliary loss.
const AUX: f32 = 1.0 / 32.0;
/// The smallest scale of rows, so that it and its inverse are normal numbers in single precision.
const LEAST_SCALE: f64 = 1.0 / (1u128 << 125) as f64;
/// The least variance of rows, as a share of their mean square, which avoids a division by zero if
/// all rows are equal.
const ROUNDING: f64 = 1e-6;
/// A latent counts as dead after it was inactive for all rows of one epoch, or for this many rows
/// if that is fewer.
const MOST_DEAD_AFTER: u64 = 10_000_000;

/// The configuration of a training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// The number of latents.
    pub latents: usize,
    /// k, the number of active latents of a row.
    pub top_k: usize,
    /// The number of passes over all rows.
    pub epochs: usize,
    /// The number of rows of a step.
    pub batch: usize,
    /// The learning rate; `None`: 2e-4 / √(latents / 2¹⁴).
    pub learning_rate: Option<f64>,
    /// The seed of the initial weights and of the order of rows.
    pub seed: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            latents: 2048,
            top_k: 32,
            epochs: 60,
            batch: 512,
            learning_rate: None,
            seed: 42,
        }
    }
}

impl TrainConfig {
    fn rate(&self) -> f64 {
        self.learning_rate
            .unwrap_or_else(|| 2e-4 / (self.latents as f64 / f64::from(1 << 14)).sqrt())
    }

    /// The memory in bytes of a training on n rows of d values: the weights with a copy for saving,
    /// the moments, a batch with its gradient, and the rows that are shuffled together.
    pub fn memory_bytes(&self, n: usize, d: usize) -> u64 {
        const F32: u64 = 4;
        let [k, n, d, batch] = [self.latents, n, d, self.batch].map(|v| v as u64);
        let product = |a: u64, b: u64, times: u64| a.saturating_mul(b).saturating_mul(times * F32);
        let weights = product(k, d, 8);
        let step = product(batch, k, 1).saturating_add(product(batch, d, 4));
        // A pool is in memory twice: in the order in which it is read, and shuffled.
        let rows = product(n, d, 2).min(2 * batches::POOL_BYTES as u64);
        weights.saturating_add(step).saturating_add(rows)
    }

    /// Refuses a configuration that cannot be trained on rows of d values.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the option to change.
    pub fn check(&self, d: usize) -> Result<()> {
        let refuse = |what: &str| Err(Error::usage(what.to_owned()));
        match () {
            () if self.latents == 0 || self.latents.checked_mul(d).is_none_or(|n| n > 1 << 32) => {
                refuse("--latents must be above 0 and fit into memory")
            }
            () if self.top_k == 0 || self.top_k > self.latents => {
                refuse("--top-k must be from 1 to the latents")
            }
            () if self.epochs == 0 || self.batch == 0 => {
                refuse("--epochs and --batch must be above 0")
            }
            () if !(self.rate() > 0.0 && self.rate().is_finite()) => {
                refuse("--learning-rate must be above 0")
            }
            () => Ok(()),
        }
    }
}

/// The report of a finished pass over the rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Passes done, this one included.
    pub epoch: usize,
    /// Steps done since the training was started.
    pub step: u64,
    /// Σ‖x − x̂‖² / Σ‖x − x̄‖² over the pass, each batch as it was before its step.
    pub fvu: f64,
    /// Latents that are dead at its end.
    pub dead: usize,
}

/// Statistics of all rows, computed before training.
#[derive(Debug, Clone, PartialEq)]
struct RowStats {
    mean: Vec<f64>,
    /// The mean of ‖x‖² over all rows.
    square: f64,
    fingerprint: u64,
}

/// Everything that a step changes and a checkpoint saves.
#[derive(Debug, Clone, PartialEq)]
struct State {
    /// The autoencoder for scaled rows.
    sae: Sae,
    /// First and second moments of encoder, decoder, b_enc and b_dec.
    moments: [[Vec<f32>; 2]; 4],
    /// Rows since each latent was last active.
    silent: Vec<u64>,
    step: u64,
    position: BatchPosition,
    /// Σ‖x − x̂‖² and Σ‖x − x̄‖² of the present pass.
    sums: (f64, f64),
    /// Seconds of training in earlier processes.
    seconds: f64,
}

/// A training in progress.
pub struct Trainer<'a> {
    config: TrainConfig,
    batches: Batches<'a>,
    row_stats: RowStats,
    state: State,
    gradient: Gradient,
    /// Σ‖x − x̂‖² and Σ‖x − x̄‖² since [`Trainer::recent`] was last called.
    recent: (f64, f64),
}

impl<'a> Trainer<'a> {
    /// Starts a training. Decoder rows are random points on the unit sphere, the encoder is their
    /// transpose, b_dec is the mean row.
    ///
    /// # Errors
    /// [`Error::Usage`] for a configuration that cannot be trained; [`Error::Refused`] for fewer than
    /// two rows, rows that are all zero, and a row that is not finite; what the source returns;
    /// [`Error::Cancelled`].
    pub fn start(
        source: &'a dyn ActivationSource,
        config: TrainConfig,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let mut trainer = Self::new(source, config, ctx)?;
        let (d, k) = (source.shape().1, trainer.config.latents);
        let mut rng = Pcg64Mcg::seed_from_u64(trainer.config.seed);
        let mut decoder: Vec<f32> = (0..k * d).map(|_| rng.sample(StandardNormal)).collect();
        decoder.chunks_exact_mut(d).for_each(normalise);
        let scale = trainer.batches.scale;
        let sae = &mut trainer.state.sae;
        sae.encoder.clone_from(&decoder);
        sae.decoder = decoder;
        sae.decoder_bias = trainer
            .row_stats
            .mean
            .iter()
            .map(|&m| m as f32 * scale)
            .collect();
        Ok(trainer)
    }

    /// Continues a training from its checkpoint.
    ///
    /// # Errors
    /// What [`Self::start`] returns, and [`Error::File`] for a checkpoint that is damaged, or of
    /// other rows or another configuration.
    pub fn resume(
        source: &'a dyn ActivationSource,
        config: TrainConfig,
        path: &Path,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let mut trainer = Self::new(source, config, ctx)?;
        trainer.state = checkpoint::read(
            path,
            &trainer.config,
            source.shape(),
            trainer.row_stats.fingerprint,
        )?;
        trainer.batches.seek(trainer.state.position);
        Ok(trainer)
    }

    fn new(source: &'a dyn ActivationSource, config: TrainConfig, ctx: &TaskCtx) -> Result<Self> {
        let (n, d) = source.shape();
        config.check(d)?;
        if n < 2 {
            return Err(Error::refused(format!(
                "{n} rows are too few to train on: collect more"
            )));
        }
        let row_stats = read_row_stats(source, ctx)?;
        if row_stats.square <= 0.0 {
            return Err(Error::refused(
                "every row is zero: there is nothing to train on",
            ));
        }
        // For very small rows this scale would exceed single precision, so they get a mean square
        // below d.
        let scale = (d as f64 / row_stats.square)
            .sqrt()
            .clamp(LEAST_SCALE, LEAST_SCALE.recip()) as f32;
        let k = config.latents;
        let sae = Sae {
            width: d,
            encoder: vec![0.0; k * d],
            encoder_bias: vec![0.0; k],
            decoder: vec![0.0; k * d],
            decoder_bias: vec![0.0; d],
            centred: true,
            gate: Gate::TopK {
                k: config.top_k,
                by_norm: false,
            },
            normalise: Normalise::None,
        };
        let moments = [k * d, k * d, k, d].map(|n| [vec![0.0; n], vec![0.0; n]]);
        let state = State {
            sae,
            moments,
            silent: vec![0; k],
            step: 0,
            position: BatchPosition::default(),
            sums: (0.0, 0.0),
            seconds: 0.0,
        };
        let batches = Batches::new(source, config.batch, config.seed, scale);
        let mean_square: f64 = row_stats.mean.iter().map(|m| m * m).sum();
        let variance = (row_stats.square - mean_square).max(0.0) * f64::from(scale).powi(2);
        let gradient = Gradient::new(variance.max(ROUNDING * d as f64));
        Ok(Self {
            config,
            batches,
            row_stats,
            state,
            gradient,
            recent: (0.0, 0.0),
        })
    }

    /// The number of steps of the whole training.
    pub fn total_steps(&self) -> u64 {
        self.batches.steps_per_epoch() * self.config.epochs as u64
    }

    /// The number of steps done so far.
    pub fn steps(&self) -> u64 {
        self.state.step
    }

    /// The number of passes done so far.
    pub fn passes(&self) -> usize {
        self.state.position.epoch
    }

    /// The seconds of training of earlier runs.
    pub fn earlier_seconds(&self) -> f64 {
        self.state.seconds
    }

    /// Whether every pass is done.
    pub fn is_done(&self) -> bool {
        self.state.position.epoch >= self.config.epochs
    }

    /// Takes one step on the next batch; returns the report of the pass where the step ends it.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Usage`] if weights are no longer finite because the steps are
    /// too large; what reading the rows returns.
    pub fn step(&mut self, ctx: &TaskCtx) -> Result<Option<Epoch>> {
        ctx.check()?;
        let (batch, position) = self.batches.next()?;
        let dead = self.dead();
        let d = self.state.sae.width;
        let rows = batch.len() / d;
        let sums = self
            .gradient
            .compute(&self.state.sae, &batch, self.config.top_k, &dead);
        let silent = &mut self.state.silent;
        silent.iter_mut().for_each(|s| *s += rows as u64);
        self.gradient.active().for_each(|j| silent[j] = 0);
        self.state.step += 1;
        self.adam_step();
        let ended = position.epoch > self.state.position.epoch;
        let weights = [&self.state.sae.encoder, &self.state.sae.decoder];
        let finite = |values: &&Vec<f32>| values.iter().all(|v| v.is_finite());
        // The loss of a batch shows whether the previous step left finite weights. After the last
        // step of a pass the weights themselves are checked.
        if !sums.0.is_finite() || (ended && !weights.iter().all(finite)) {
            return Err(Error::usage(format!(
                "the weights are no numbers any more after step {}: lower --learning-rate",
                self.state.step
            )));
        }
        self.state.position = position;
        self.state.sums = (self.state.sums.0 + sums.0, self.state.sums.1 + sums.1);
        self.recent = (self.recent.0 + sums.0, self.recent.1 + sums.1);
        let total = self.total_steps();
        // Cancelling takes effect at the start of the next step, since this one has been taken.
        ctx.checkpoint(Progress::new("training", self.state.step, total, "steps"))
            .ok();
        Ok(ended.then(|| {
            let (error, variance) = std::mem::take(&mut self.state.sums);
            let dead = self.dead().len();
            Epoch {
                epoch: self.state.position.epoch,
                step: self.state.step,
                fvu: error / variance.max(f64::MIN_POSITIVE),
                dead,
            }
        }))
    }

    /// Σ‖x − x̂‖² / Σ‖x − x̄‖² over the steps since the last call, each batch as it was before its
    /// step.
    pub fn recent(&mut self) -> f64 {
        let (error, variance) = std::mem::take(&mut self.recent);
        error / variance.max(f64::MIN_POSITIVE)
    }

    /// The latents that are dead: silent for the rows of one epoch.
    pub fn dead(&self) -> Vec<u32> {
        let after = (self.batches.rows() as u64).min(MOST_DEAD_AFTER);
        (0u32..)
            .zip(&self.state.silent)
            .filter(|(_, s)| **s >= after)
            .map(|(j, _)| j)
            .collect()
    }

    /// One step of Adam on every weight; decoder rows are then scaled back to unit norm.
    fn adam_step(&mut self) {
        let (state, gradient) = (&mut self.state, &self.gradient);
        let total = self.batches.steps_per_epoch() * self.config.epochs as u64;
        let left = total.saturating_sub(state.step - 1) as f64 / total.max(1) as f64;
        let rate = self.config.rate() * (left / DECAY).min(1.0);
        let adam = Adam::for_step(state.step, rate as f32);
        let d = state.sae.width;
        let [[em, ev], [dm, dv], [bm, bv], [cm, cv]] = &mut state.moments;
        let sae = &mut state.sae;
        let encoder = sae
            .encoder
            .par_chunks_exact_mut(d)
            .zip(em.par_chunks_exact_mut(d))
            .zip(ev.par_chunks_exact_mut(d));
        let decoder = sae
            .decoder
            .par_chunks_exact_mut(d)
            .zip(dm.par_chunks_exact_mut(d))
            .zip(dv.par_chunks_exact_mut(d));
        encoder.zip(decoder).enumerate().for_each_init(
            || (vec![0.0; d], vec![0.0; d]),
            |(ge, gd), (j, (((w, m), v), ((wd, md), vd)))| {
                gradient.gradient_of_latent(j, wd, ge, gd);
                adam.update(w, m, v, ge);
                adam.update(wd, md, vd, gd);
                normalise(wd);
            },
        );
        adam.update(&mut sae.encoder_bias, bm, bv, &gradient.encoder_bias);
        adam.update(&mut sae.decoder_bias, cm, cv, &gradient.decoder_bias);
    }

    /// Saves a checkpoint. `seconds` is the time that this run has taken so far.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn checkpoint(&self, path: &Path, seconds: f64) -> Result<()> {
        let mut header = self.state.small_state();
        header.seconds += seconds;
        checkpoint::write(
            path,
            &self.config,
            self.batches.shape(),
            self.row_stats.fingerprint,
            &header,
            &self.state,
        )
    }

    /// The present autoencoder, converted to the units of the source's rows.
    pub fn sae(&self) -> Sae {
        let inverse = 1.0 / self.batches.scale;
        let mut sae = self.state.sae.clone();
        // Encoding and decoding are homogeneous, so that scaling the rows scales the latents alike
        // and only the biases change.
        sae.encoder_bias
            .iter_mut()
            .chain(&mut sae.decoder_bias)
            .for_each(|b| *b *= inverse);
        sae
    }
}

/// Scales a row to unit norm; a row of zeros stays.
fn normalise(row: &mut [f32]) {
    let norm = norm(row);
    if norm > 0.0 {
        let scale = (1.0 / norm) as f32;
        row.iter_mut().for_each(|v| *v *= scale);
    }
}

/// Reads all rows once, for their statistics.
fn read_row_stats(source: &dyn ActivationSource, ctx: &TaskCtx) -> Result<RowStats> {
    const BLOCK: usize = 1024;
    let (n, d) = source.shape();
    let (mut mean, mut square) = (vec![0.0f64; d], 0.0f64);
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for start in (0..n).step_by(BLOCK) {
        ctx.checkpoint(Progress::new(
            "checking the activations",
            start as u64,
            n as u64,
            "rows",
        ))?;
        let block = source.rows(start..n.min(start + BLOCK))?;
        hash.update(bytemuck::cast_slice(&block.data));
        for i in 0..block.rows {
            let row = block.row(i);
            if row.iter().any(|v| !v.is_finite()) {
                return Err(Error::refused(format!(
                    "{} is not finite: collect the activations again or leave that text out",
                    source.describe_row(start + i)
                )));
            }
            for (m, &v) in mean.iter_mut().zip(row) {
                *m += f64::from(v);
                square += f64::from(v) * f64::from(v);
            }
        }
    }
    mean.iter_mut().for_each(|m| *m /= n as f64);
    Ok(RowStats {
        mean,
        square: square / n as f64,
        fingerprint: hash.digest(),
    })
}

#[cfg(test)]
mod tests;
