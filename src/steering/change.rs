//! What steering changes in the distribution of the next token: its KL, and by how much each token's
//! log-probability rises.
//!
//! In f64 on the host for this crate's kernels; elsewhere in f32 where the logits lie, so that of
//! `prompts` rows of logits one number or one row comes back.

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::Positions;
use super::calibrate::CalibrationPrompts;
use super::intervention::Intervention;
use super::tap::Steering;
use crate::error::{Error, Result};
use crate::model::likelihood::{divergences, log_softmax, not_negative};
use crate::model::{Model, host};
use crate::task::TaskCtx;

/// KL(p ‖ q) = Σ p (log p − log q) in nats, computed in f64, of two next-token distributions given
/// as logits of one length.
pub fn kl(base: &[f32], steered: &[f32]) -> f64 {
    BaseDistribution::of(base).kl(steered)
}

/// The unsteered next-token distribution p, prepared to be compared with many others.
struct BaseDistribution {
    /// (token, p, ln p), where p is not 0.
    terms: Vec<(usize, f64, f64)>,
}

impl BaseDistribution {
    fn of(logits: &[f32]) -> Self {
        let norm = log_sum_exp(logits);
        let term = |(i, &l): (usize, &f32)| {
            let log_p = f64::from(l) - norm;
            (i, log_p.exp(), log_p)
        };
        // 0 · log 0 = 0, also where a logit is −∞ in both.
        Self {
            terms: logits
                .iter()
                .enumerate()
                .map(term)
                .filter(|t| t.1 > 0.0)
                .collect(),
        }
    }

    fn kl(&self, steered: &[f32]) -> f64 {
        let norm = log_sum_exp(steered);
        let term =
            |&(i, p, log_p): &(usize, f64, f64)| p * (log_p - (f64::from(steered[i]) - norm));
        not_negative(self.terms.iter().map(term).sum::<f64>())
    }
}

/// ln Σ exp of logits, in f64.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits
        .iter()
        .map(|&l| (f64::from(l) - max).exp())
        .sum::<f64>()
        .ln()
}

/// What one steering changes at the last token, as means over the prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// KL(base ‖ steered) in nats.
    pub kl: f64,
    /// The change of each token's log-probability as the next token, in nats.
    pub log_probs: Vec<f64>,
    /// What all raw logits rise by beside that.
    pub shared: f64,
}

/// Gives `on_change` what each steering changes, by its index.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt; what the model returns; [`Error::Cancelled`].
pub fn for_each_change(
    model: &Model,
    steerings: &[Steering],
    prompts: &[Vec<u32>],
    positions: Positions,
    ctx: &TaskCtx,
    mut on_change: impl FnMut(usize, &Change),
) -> Result<()> {
    let interventions: Vec<&Arc<Intervention>> =
        steerings.iter().map(|s| &s.intervention).collect();
    let read = CalibrationPrompts::read(model, prompts, &interventions, positions, ctx)?;
    let mut steering = 0;
    read.for_each_pass(steerings, ctx, |base, steered| {
        for change in &changes(model, base, steered)? {
            on_change(steering, change);
            steering += 1;
        }
        Ok(())
    })
}

/// What an intervention changes at one signed strength. With [`Positions::Generated`] the last
/// prompt token alone is steered, as the first generated one would be.
///
/// # Errors
/// As [`for_each_change`].
pub fn change_at(
    model: &Model,
    intervention: &Arc<Intervention>,
    prompts: &[Vec<u32>],
    alpha: f64,
    positions: Positions,
    ctx: &TaskCtx,
) -> Result<Change> {
    let steering = Steering {
        intervention: intervention.clone(),
        alpha,
    };
    let mut found = None;
    for_each_change(model, &[steering], prompts, positions, ctx, |_, change| {
        found = Some(change.clone());
    })?;
    found.ok_or_else(|| Error::refused("the model gave no logits for the prompt"))
}

/// What stands between `base`, a row of logits for each prompt, and `steered`, as many rows for each
/// steering.
///
/// # Errors
/// What the device returns.
pub fn changes(model: &Model, base: &Tensor, steered: &Tensor) -> Result<Vec<Change>> {
    match model.decoder().is_mapped() {
        true => Ok(changes_on_host(&host::rows(base)?, &host::rows(steered)?)),
        false => changes_on_device(base, steered),
    }
}

fn changes_on_host(base: &[Vec<f32>], steered: &[Vec<f32>]) -> Vec<Change> {
    let kls = mean_kls_on_host(base, steered);
    let of_steering = |(steered, kl): (&[Vec<f32>], f64)| {
        let shared = |(b, s): (&Vec<f32>, &Vec<f32>)| log_sum_exp(s) - log_sum_exp(b);
        let shared: Vec<f64> = base.iter().zip(steered).map(shared).collect();
        let count = base.len() as f64;
        let mut log_probs = vec![0.0f64; base[0].len()];
        for ((b, s), shared) in base.iter().zip(steered).zip(&shared) {
            for (change, (b, s)) in log_probs.iter_mut().zip(b.iter().zip(s)) {
                *change += (f64::from(*s) - f64::from(*b) - shared) / count;
            }
        }
        Change {
            kl,
            log_probs,
            shared: shared.iter().sum::<f64>() / count,
        }
    };
    let each = steered.chunks(base.len()).zip(kls);
    each.map(of_steering).collect()
}

/// [`changes_on_host`] where the logits lie.
fn changes_on_device(base: &Tensor, steered: &Tensor) -> Result<Vec<Change>> {
    let prompts = base.dim(0)?;
    let (before, before_norms) = (log_softmax(base)?, base.log_sum_exp(1)?);
    let kls = mean_kls_on_device(base, steered)?;
    let of_steering = |(i, kl): (usize, f64)| {
        let steered = steered.narrow(0, i * prompts, prompts)?;
        let shared = (steered.log_sum_exp(1)? - &before_norms)?;
        let log_probs = (log_softmax(&steered)? - &before)?.mean(0)?;
        Ok(Change {
            kl,
            log_probs: wide(&log_probs)?,
            shared: wide(&shared.mean_keepdim(0)?)?[0],
        })
    };
    kls.into_iter().enumerate().map(of_steering).collect()
}

fn wide(x: &Tensor) -> Result<Vec<f64>> {
    Ok(host::values(x)?.into_iter().map(f64::from).collect())
}

/// Logits of the last token of each prompt without steering and at each signed α: `[prompts][1 +
/// alphas][vocab]`. With [`Positions::Generated`] the last prompt token alone is steered, as the
/// first generated one would be.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt; what the model returns; [`Error::Cancelled`].
pub fn last_logits(
    model: &Model,
    intervention: &Arc<Intervention>,
    prompts: &[Vec<u32>],
    alphas: &[f64],
    positions: Positions,
    ctx: &TaskCtx,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let read = CalibrationPrompts::read(model, prompts, &[intervention], positions, ctx)?;
    let steerings: Vec<Steering> = alphas
        .iter()
        .map(|&alpha| Steering {
            intervention: intervention.clone(),
            alpha,
        })
        .collect();
    let mut out: Vec<Vec<Vec<f32>>> = vec![Vec::new(); prompts.len()];
    read.for_each_pass(&steerings, ctx, |base, steered| {
        let (base, steered) = (host::rows(base)?, host::rows(steered)?);
        out.iter_mut()
            .zip(&base)
            .filter(|(logits, _)| logits.is_empty())
            .for_each(|(logits, base)| logits.push(base.clone()));
        steered
            .into_iter()
            .enumerate()
            .for_each(|(row, logits)| out[row % prompts.len()].push(logits));
        Ok(())
    })?;
    Ok(out)
}

/// For each steering the mean over the prompts of KL(base ‖ steered), of logits of the last tokens:
/// `[prompts, vocab]` and `[steering · prompts, vocab]`.
pub(super) fn mean_kls(model: &Model, base: &Tensor, steered: &Tensor) -> Result<Vec<f64>> {
    match model.decoder().is_mapped() {
        true => Ok(mean_kls_on_host(&host::rows(base)?, &host::rows(steered)?)),
        false => mean_kls_on_device(base, steered),
    }
}

/// [`mean_kls`] in f64.
pub(super) fn mean_kls_on_host(base: &[Vec<f32>], steered: &[Vec<f32>]) -> Vec<f64> {
    let base: Vec<BaseDistribution> = base
        .par_iter()
        .map(|logits| BaseDistribution::of(logits))
        .collect();
    let mean = |steered: &[Vec<f32>]| {
        steered.iter().zip(&base).map(|(s, b)| b.kl(s)).sum::<f64>() / base.len() as f64
    };
    steered.par_chunks(base.len()).map(mean).collect()
}

/// The same where the logits lie, in f32: one number a row comes back.
pub(super) fn mean_kls_on_device(base: &Tensor, steered: &Tensor) -> Result<Vec<f64>> {
    let prompts = base.dim(0)?;
    let repeated = log_softmax(base)?.repeat((steered.dim(0)? / prompts, 1))?;
    let each = divergences(&repeated, &log_softmax(steered)?)?;
    let mean = |kls: &[f64]| kls.iter().sum::<f64>() / prompts as f64;
    Ok(each.chunks(prompts).map(mean).collect())
}

#[cfg(test)]
mod tests;
