//! How much of a model's predictions is recovered when a reconstruction replaces an activation.
//!
//! CE recovered = (CE_zero − CE_rec) / (CE_zero − CE_orig), with the activation set to zero as the
//! floor; KL recovered = (KL_zero − KL_rec) / KL_zero, both KLs from the model's own predictions
//! (SAEBench's core evaluation). BOS keeps its own activation, as it is no row of a study, and the
//! prediction made at BOS is not counted.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::Serialize;

use crate::activations::Block;
use crate::corpus::TokenTable;
use crate::directions::reconstruction::Reconstruct;
use crate::error::{Error, Result};
use crate::model::{Batch, HookPoint, Logits, Model, NoTap, Pass, Phase, Portion, Tap, likelihood};
use crate::task::{Progress, TaskCtx};

/// Tokens of a batch: logits of a large vocabulary are held for each.
const BATCH_TOKENS: usize = 512;

/// What replacing an activation costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recovered {
    /// Predictions that were scored.
    pub predictions: usize,
    /// Mean cross-entropy of the model, nats a token.
    pub ce_original: f64,
    /// Mean cross-entropy with the reconstruction in place of the activation.
    pub ce_reconstructed: f64,
    /// Mean cross-entropy with zero in its place.
    pub ce_zero: f64,
    /// (CE_zero − CE_rec) / (CE_zero − CE_orig); `None` when zero costs nothing.
    pub ce_recovered: Option<f64>,
    /// Mean KL(original ‖ reconstructed).
    pub kl_reconstructed: f64,
    /// Mean KL(original ‖ zero).
    pub kl_zero: f64,
    /// (KL_zero − KL_rec) / KL_zero; `None` where zero costs nothing.
    pub kl_recovered: Option<f64>,
}

/// Texts as ids, each at most a context long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    rows: Vec<Vec<u32>>,
    /// Leading tokens (BOS) that are no rows.
    skip: usize,
}

impl Windows {
    /// The windows that the rows of a study were collected in, evenly thinned to about `most`
    /// tokens.
    pub fn of(tokens: &TokenTable, bos: Option<u32>, context: usize, most: usize) -> Self {
        // Positions count BOS: a study without one begins at 0.
        let skip = tokens
            .rows
            .iter()
            .map(|r| r.position as usize)
            .min()
            .unwrap_or(0)
            .min(1);
        let bos = bos.filter(|_| skip == 1);
        let room = context.saturating_sub(skip).max(1);
        let mut rows: Vec<Vec<u32>> = Vec::new();
        let mut last = None;
        for row in &tokens.rows {
            let place = (
                row.sample,
                (row.position as usize - skip.min(row.position as usize)) / room,
            );
            if last != Some(place) {
                rows.push(bos.into_iter().collect());
                last = Some(place);
            }
            if let Some(window) = rows.last_mut() {
                window.push(row.id);
            }
        }
        // A window predicts from its second row on.
        rows.retain(|w| w.len() > skip + 1);
        let all: usize = rows.iter().map(Vec::len).sum();
        let every = (all as f64 / most.max(1) as f64).max(1.0);
        let kept = (rows.len() as f64 / every).ceil() as usize;
        let rows = (0..kept)
            .map(|i| rows[((i as f64 * every) as usize).min(rows.len() - 1)].clone())
            .collect();
        Self { rows, skip }
    }
}

/// Measures the cross-entropy and KL of each of `methods` on the same windows.
///
/// # Errors
/// [`Error::Refused`] without a window that predicts anything; what the model and the methods
/// return; [`Error::Cancelled`].
pub fn recovered(
    model: &Model,
    hook: HookPoint,
    methods: &[&dyn Reconstruct],
    windows: &Windows,
    ctx: &TaskCtx,
) -> Result<Vec<Recovered>> {
    if windows.rows.is_empty() {
        return Err(Error::refused(
            "no text has two tokens: there is nothing to predict",
        ));
    }
    let mut order: Vec<&Vec<u32>> = windows.rows.iter().collect();
    order.sort_by_key(|w| std::cmp::Reverse(w.len()));
    let mut sums = Sums {
        original: PredictionSums::default(),
        zero: PredictionSums::default(),
        methods: vec![PredictionSums::default(); methods.len()],
    };
    let mut portion = Portion::new(BATCH_TOKENS);
    let mut rest = order.as_slice();
    let total = order.iter().map(|w| w.len() as u64).sum::<u64>();
    let mut done = 0;
    while let Some(longest) = rest.first() {
        let length = longest.len();
        let (now, later) = rest.split_at((portion.most() / length).clamp(1, rest.len()));
        let batch = Batch {
            rows: now.iter().map(|w| w.to_vec()).collect(),
            samples: Vec::new(),
        };
        // A batch that does not fit has added nothing.
        let mut with = sums.clone();
        match with.add(model, hook, methods, &batch, windows.skip, ctx) {
            Ok(()) => (sums, rest) = (with, later),
            Err(error) => {
                let taken = (now.len() * length, length);
                portion.shrink(error, model.device(), taken, "tokens")?;
                continue;
            }
        }
        done += now.iter().map(|w| w.len() as u64).sum::<u64>();
        ctx.checkpoint(Progress::new(
            "predicting with replaced activations",
            done,
            total,
            "tokens",
        ))?;
    }
    let of = |s: &PredictionSums| s.against(&sums.original, &sums.zero);
    Ok(sums.methods.iter().map(of).collect())
}

/// What was predicted with the activations as they are, as 0, and as each method gives them back.
#[derive(Clone)]
struct Sums {
    original: PredictionSums,
    zero: PredictionSums,
    methods: Vec<PredictionSums>,
}

impl Sums {
    /// Adds what is predicted on a batch.
    fn add(
        &mut self,
        model: &Model,
        hook: HookPoint,
        methods: &[&dyn Reconstruct],
        batch: &Batch,
        skip: usize,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let predictions = Predictions::of(batch, skip);
        let base = log_probabilities(model, batch, &predictions, &mut NoTap, ctx)?;
        self.original.add(&predictions, &base, &base)?;
        let with = |method: Option<&dyn Reconstruct>, sums: &mut PredictionSums| -> Result<()> {
            let mut tap = ReplaceTap {
                hooks: [hook],
                method,
                skip,
                ctx,
            };
            let now = log_probabilities(model, batch, &predictions, &mut tap, ctx)?;
            sums.add(&predictions, &base, &now)
        };
        with(None, &mut self.zero)?;
        for (method, sums) in methods.iter().zip(&mut self.methods) {
            with(Some(*method), sums)?;
        }
        Ok(())
    }
}

/// Sums of cross-entropy and KL over predictions, in nats.
#[derive(Debug, Clone, Copy, Default)]
struct PredictionSums {
    predictions: usize,
    cross_entropy: f64,
    divergence: f64,
}

impl PredictionSums {
    fn add(
        &mut self,
        predictions: &Predictions,
        base: &LogProbabilities,
        now: &LogProbabilities,
    ) -> Result<()> {
        let each = match (base, now) {
            (LogProbabilities::OnHost { .. }, LogProbabilities::OnHost { .. }) => {
                let change_at = |(&place, &target): (&usize, &u32)| {
                    let (p, q) = (base.position(place), now.position(place));
                    let terms = p.iter().zip(q);
                    let divergence: f64 = terms
                        .map(|(p, q)| f64::from(p.exp()) * f64::from(p - q))
                        .sum();
                    (-f64::from(q[target as usize]), divergence)
                };
                let all = predictions.places.par_iter().zip(&predictions.targets);
                all.map(change_at).collect::<Vec<_>>()
            }
            (LogProbabilities::OnDevice(p), LogProbabilities::OnDevice(q)) => {
                let likelihoods = likelihood::log_likelihoods(q, &predictions.targets)?;
                let each = likelihoods.into_iter().map(|l| -l);
                each.zip(likelihood::divergences(p, q)?).collect()
            }
            _ => return Err(Error::refused("one model computed in two places")),
        };
        for (ce, kl) in each {
            self.predictions += 1;
            self.cross_entropy += ce;
            self.divergence += kl;
        }
        Ok(())
    }

    fn against(&self, original: &Self, zero: &Self) -> Recovered {
        let mean = |sum: f64| sum / self.predictions.max(1) as f64;
        let (ce, rec, floor) = (
            mean(original.cross_entropy),
            mean(self.cross_entropy),
            mean(zero.cross_entropy),
        );
        let (kl, kl_floor) = (mean(self.divergence), mean(zero.divergence));
        Recovered {
            predictions: self.predictions,
            ce_original: ce,
            ce_reconstructed: rec,
            ce_zero: floor,
            ce_recovered: (floor > ce).then(|| (floor - rec) / (floor - ce)),
            kl_reconstructed: kl,
            kl_zero: kl_floor,
            kl_recovered: (kl_floor > 0.0).then(|| (kl_floor - kl) / kl_floor),
        }
    }
}

/// The tokens of a batch that predict another, and what they predict.
struct Predictions {
    /// Of each: row · tokens + token.
    places: Vec<usize>,
    targets: Vec<u32>,
}

impl Predictions {
    fn of(batch: &Batch, skip: usize) -> Self {
        let tokens = batch.rows.iter().map(Vec::len).max().unwrap_or(0);
        let (mut places, mut targets) = (Vec::new(), Vec::new());
        for (r, row) in batch.rows.iter().enumerate() {
            for t in skip..row.len() - 1 {
                places.push(r * tokens + t);
                targets.push(row[t + 1]);
            }
        }
        Self { places, targets }
    }
}

/// Log-probabilities of a batch.
enum LogProbabilities {
    /// Of all tokens, `[rows * tokens, vocab]`.
    OnHost { vocab: usize, values: Vec<f32> },
    /// Of the tokens that predict another, where the model computes.
    OnDevice(Tensor),
}

impl LogProbabilities {
    fn position(&self, place: usize) -> &[f32] {
        match self {
            Self::OnHost { vocab, values } => &values[place * vocab..][..*vocab],
            Self::OnDevice(_) => &[],
        }
    }
}

fn log_probabilities(
    model: &Model,
    batch: &Batch,
    predictions: &Predictions,
    tap: &mut dyn Tap,
    ctx: &TaskCtx,
) -> Result<LogProbabilities> {
    let logits = model.forward(batch, Phase::Prompt, None, tap, Logits::All, ctx)?;
    let logits = logits.ok_or_else(|| Error::refused("the model returned no logits"))?;
    let vocab = logits.dim(2)?;
    if !model.decoder().is_mapped() {
        let ids: Vec<u32> = predictions.places.iter().map(|&p| p as u32).collect();
        let logits = logits.flatten(0, 1)?;
        let logits = logits.index_select(&Tensor::new(ids, logits.device())?, 0)?;
        return Ok(LogProbabilities::OnDevice(likelihood::log_softmax(
            &logits,
        )?));
    }
    let mut values = logits.flatten_all()?.to_vec1::<f32>()?;
    values.par_chunks_exact_mut(vocab).for_each(|row| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&v| f64::from((v - most).exp())).sum();
        let log = most + sum.ln() as f32;
        row.iter_mut().for_each(|v| *v -= log);
    });
    Ok(LogProbabilities::OnHost { vocab, values })
}

/// The tap that replaces the activations at a hook by reconstructions, or by zero.
struct ReplaceTap<'a> {
    hooks: [HookPoint; 1],
    method: Option<&'a dyn Reconstruct>,
    skip: usize,
    ctx: &'a TaskCtx,
}

impl Tap for ReplaceTap<'_> {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }

    fn intercept(&mut self, pass: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        let (rows, tokens, width) = x.dims3()?;
        let mut values = x
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let spans: Vec<_> = (0..rows)
            .map(|row| {
                (row * tokens + self.skip) * width
                    ..(row * tokens + pass.lengths[row].max(self.skip)) * width
            })
            .collect();
        match self.method {
            None => spans.into_iter().for_each(|span| values[span].fill(0.0)),
            Some(method) => {
                let data: Vec<f32> = spans
                    .iter()
                    .flat_map(|span| values[span.clone()].iter().copied())
                    .collect();
                let block = Block {
                    rows: data.len() / width,
                    cols: width,
                    data: data.into(),
                };
                let back = method.reconstruct(&block, self.ctx)?.values;
                let mut at = 0;
                for span in spans {
                    let length = span.len();
                    values[span].copy_from_slice(&back[at..at + length]);
                    at += length;
                }
            }
        }
        let replaced = Tensor::from_vec(values, (rows, tokens, width), &Device::Cpu)?;
        Ok(Some(replaced.to_dtype(x.dtype())?.to_device(x.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::TokenRow;

    #[test]
    fn windows_are_those_of_collecting() {
        let row = |sample, position| TokenRow {
            id: 10 * sample + position,
            sample,
            position,
        };
        let rows = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 1), (2, 1), (2, 2)].map(|(s, p)| row(s, p));
        let tokens = TokenTable {
            rows: rows.to_vec(),
            ..TokenTable::default()
        };
        let windows = Windows::of(&tokens, Some(7), 3, 1000);
        // Context 3 leaves room for two rows beside BOS; a window of one row predicts nothing.
        assert_eq!(
            windows.rows,
            [vec![7, 1, 2], vec![7, 3, 4], vec![7, 21, 22]]
        );
        assert_eq!(windows.skip, 1);
        assert_eq!(Windows::of(&tokens, Some(7), 3, 3).rows.len(), 1);
        let bare = TokenTable {
            rows: vec![row(0, 0), row(0, 1)],
            ..TokenTable::default()
        };
        assert_eq!(Windows::of(&bare, Some(7), 3, 1000).rows, [vec![0, 1]]);
    }

    #[test]
    fn recovered_shares_equal_those_computed_by_hand() {
        let sums = |ce, kl| PredictionSums {
            predictions: 2,
            cross_entropy: ce,
            divergence: kl,
        };
        let found = sums(5.0, 1.0).against(&sums(4.0, 0.0), &sums(8.0, 4.0));
        assert_eq!(
            (found.ce_recovered, found.kl_recovered, found.ce_zero),
            (Some(0.75), Some(0.75), 4.0)
        );
        assert_eq!(
            sums(5.0, 1.0)
                .against(&sums(4.0, 0.0), &sums(4.0, 0.0))
                .ce_recovered,
            None
        );
    }
}
