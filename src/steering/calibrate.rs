//! KL of steered next-token distributions, and the α for a wanted one.
//!
//! Many strengths and directions share a pass: they differ only above the first layer that is
//! steered, so what lies below is read once. Invariant: every pass holds the unsteered prompts too,
//! so that both sides of a KL are computed the same way.

use std::sync::Arc;

use candle_core::DType;
use rayon::prelude::*;

use super::Positions;
use super::push::{Mode, Push};
use super::search::{Calibration, Search};
use super::tap::{SteerTap, Steering, Touch};
use crate::error::{Error, Result};
use crate::model::{LayerInput, Logits, Model};
use crate::task::{Progress, TaskCtx};

/// Rows and tokens of one forward pass at most.
const PASS_ROWS: usize = 128;
const PASS_TOKENS: usize = 4096;

/// KL(p ‖ q) = Σ p (log p − log q) in nats of two next-token distributions given as logits, in f64.
pub fn kl(base: &[f32], steered: &[f32]) -> f64 {
    Base::of(base).kl(steered)
}

/// A distribution that others are compared with.
struct Base {
    /// (token, p, ln p), where p is not 0.
    terms: Vec<(usize, f64, f64)>,
}

impl Base {
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
        // The sum of a distribution with itself may round below 0.
        self.terms.iter().map(term).sum::<f64>().max(0.0)
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

/// Prompts that steering is measured on.
struct Prompts<'a> {
    model: &'a Model,
    /// What lies below the first steered layer.
    input: LayerInput,
    touch: Touch,
}

impl<'a> Prompts<'a> {
    fn read(
        model: &'a Model,
        prompts: &[Vec<u32>],
        pushes: &[&Arc<Push>],
        positions: Positions,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
            return Err(Error::usage(
                "steering cannot be measured on an empty prompt: give a text such as 'I think that'",
            ));
        }
        let layer = pushes
            .iter()
            .flat_map(|p| p.hooks())
            .map(|h| h.layer)
            .min()
            .unwrap_or(0);
        let touch = match positions {
            Positions::All => Touch::All,
            Positions::Generated => Touch::LastOfPrompt,
            Positions::Span { from, to } => Touch::Span { from, to },
        };
        Ok(Self {
            model,
            input: model.layer_input(prompts, layer, ctx)?,
            touch,
        })
    }

    /// For as many steerings at a time as a pass holds the last tokens' logits: the unsteered ones
    /// of each prompt, then of each steering those of each prompt.
    fn each_pass(
        &self,
        steerings: &[Steering],
        ctx: &TaskCtx,
        mut seen: impl FnMut(&[Vec<f32>], Vec<Vec<f32>>),
    ) -> Result<()> {
        let prompts = self.input.rows();
        let rows = (PASS_TOKENS / self.input.tokens().max(1)).min(PASS_ROWS);
        for steerings in steerings.chunks((rows / prompts).saturating_sub(1).max(1)) {
            let all = std::iter::once(None).chain(steerings.iter().cloned().map(Some));
            let each = all
                .flat_map(|s| std::iter::repeat_n(s, prompts))
                .collect::<Vec<_>>();
            let places: Vec<usize> = (0..each.len()).map(|row| row % prompts).collect();
            let mut tap = SteerTap::new(each, self.touch)?;
            let logits =
                self.model
                    .forward_from(&self.input, &places, &mut tap, Logits::Last, ctx)?;
            let logits =
                logits.ok_or_else(|| Error::refused("the model gave no logits for the prompt"))?;
            let mut base: Vec<Vec<f32>> = logits.to_dtype(DType::F32)?.to_vec2()?;
            let steered = base.split_off(prompts);
            seen(&base, steered);
        }
        Ok(())
    }
}

/// Logits of the last token of each prompt without steering and at each signed α: `[prompts][1 +
/// alphas][vocab]`. With [`Positions::Generated`] the last prompt token alone is steered, as the
/// first generated one would be.
pub fn last_logits(
    model: &Model,
    push: &Arc<Push>,
    prompts: &[Vec<u32>],
    alphas: &[f64],
    positions: Positions,
    ctx: &TaskCtx,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let read = Prompts::read(model, prompts, &[push], positions, ctx)?;
    let steerings: Vec<Steering> = alphas
        .iter()
        .map(|&alpha| Steering {
            push: push.clone(),
            alpha,
        })
        .collect();
    let mut out: Vec<Vec<Vec<f32>>> = vec![Vec::new(); prompts.len()];
    read.each_pass(&steerings, ctx, |base, steered| {
        out.iter_mut()
            .zip(base)
            .filter(|(of, _)| of.is_empty())
            .for_each(|(of, base)| of.push(base.clone()));
        steered
            .into_iter()
            .enumerate()
            .for_each(|(row, logits)| out[row % prompts.len()].push(logits));
    })?;
    Ok(out)
}

/// Hands on, for each steering by its place, the change of each token's log-probability as the next
/// token: the mean over prompts.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt.
pub fn each_change(
    model: &Model,
    steerings: &[Steering],
    prompts: &[Vec<u32>],
    positions: Positions,
    ctx: &TaskCtx,
    mut seen: impl FnMut(usize, &[f64]),
) -> Result<()> {
    let pushes: Vec<&Arc<Push>> = steerings.iter().map(|s| &s.push).collect();
    let mut place = 0;
    Prompts::read(model, prompts, &pushes, positions, ctx)?.each_pass(
        steerings,
        ctx,
        |base, steered| {
            for steered in steered.chunks(base.len()) {
                let pairs: Vec<_> = base
                    .iter()
                    .zip(steered)
                    .map(|(b, s)| vec![b.clone(), s.clone()])
                    .collect();
                seen(place, &mean_shifts(&pairs));
                place += 1;
            }
        },
    )
}

/// The change of each token's log-probability, the mean over prompts of (base, steered) logits:
/// what all tokens share has no part in it.
pub fn mean_shifts(logits: &[Vec<Vec<f32>>]) -> Vec<f64> {
    let mut out = vec![0.0f64; logits.first().map_or(0, |pair| pair[0].len())];
    for pair in logits {
        let shared = log_sum_exp(&pair[1]) - log_sum_exp(&pair[0]);
        for (shift, (base, steered)) in out.iter_mut().zip(pair[0].iter().zip(&pair[1])) {
            *shift += (f64::from(*steered) - f64::from(*base) - shared) / logits.len() as f64;
        }
    }
    out
}

/// A push on one side of 0.
#[derive(Debug, Clone)]
pub struct Aim {
    /// Along which directions.
    pub push: Arc<Push>,
    /// Suppress instead of promote.
    pub negative: bool,
}

/// Searches for each aim and target the α at which the mean over `prompts` (token ids each) of
/// KL(base ‖ steered) at the last token comes to it. The α given back are unsigned: a list an aim,
/// in the order of the targets. What is found for an aim does not depend on the others.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt, a target that is no positive number, and for
/// [`Mode::Set`], whose KL does not begin at 0.
pub fn calibrate(
    model: &Model,
    aims: &[Aim],
    prompts: &[Vec<u32>],
    targets: &[f64],
    positions: Positions,
    ctx: &TaskCtx,
) -> Result<Vec<Vec<Calibration>>> {
    if aims.iter().any(|aim| aim.push.mode() == Mode::Set) {
        return Err(Error::usage(
            "setting a component has no KL to aim for, as α = 0 changes it too: give --alpha",
        ));
    }
    let pushes: Vec<&Arc<Push>> = aims.iter().map(|a| &a.push).collect();
    let read = Prompts::read(model, prompts, &pushes, positions, ctx)?;
    let mut searches = aims
        .iter()
        .map(|_| Search::new(targets))
        .collect::<Result<Vec<_>>>()?;
    let mut tried = 0;
    loop {
        let asked: Vec<Vec<f64>> = searches.iter_mut().map(Search::ask).collect();
        let steering = |(aim, alpha): (&Aim, f64)| Steering {
            push: aim.push.clone(),
            alpha: if aim.negative { -alpha } else { alpha },
        };
        let steerings: Vec<Steering> = aims
            .iter()
            .zip(&asked)
            .flat_map(|(aim, of)| of.iter().map(move |&a| (aim, a)))
            .map(steering)
            .collect();
        if steerings.is_empty() {
            return Ok(searches.iter().map(Search::found).collect());
        }
        ctx.checkpoint(Progress::new("calibrating", tried, None, "strengths"))?;
        tried += steerings.len() as u64;
        let mut kls: Vec<f64> = Vec::with_capacity(steerings.len());
        read.each_pass(&steerings, ctx, |base, steered| {
            let base: Vec<Base> = base.par_iter().map(|logits| Base::of(logits)).collect();
            let mean = |of: &[Vec<f32>]| {
                of.iter().zip(&base).map(|(s, b)| b.kl(s)).sum::<f64>() / base.len() as f64
            };
            kls.par_extend(steered.par_chunks(base.len()).map(mean));
        })?;
        let mut kls = &kls[..];
        for (search, alphas) in searches.iter_mut().zip(&asked) {
            let (of, rest) = kls.split_at(alphas.len());
            search.tell(alphas, of);
            kls = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn kl_matches_the_definition_on_probabilities(
            pairs in proptest::collection::vec((-4f32..4.0, -4f32..4.0), 1..30), shift in -50f32..50.0
        ) {
            let (p, q): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let softmax = |l: &[f32]| -> Vec<f64> {
                let sum: f64 = l.iter().map(|&v| f64::from(v).exp()).sum();
                l.iter().map(|&v| f64::from(v).exp() / sum).collect()
            };
            let plain: f64 = softmax(&p).iter().zip(softmax(&q)).map(|(p, q)| p * (p / q).ln()).sum();
            prop_assert!((kl(&p, &q) - plain).abs() < 1e-9);
            prop_assert!(kl(&p, &p).abs() < 1e-12);
            let moved: Vec<f32> = q.iter().map(|v| v + shift).collect();
            prop_assert!((kl(&p, &moved) - plain).abs() < 1e-4, "a shift of all logits changes nothing");
        }
    }

    #[test]
    fn what_all_tokens_share_is_no_change() {
        let shifts = mean_shifts(&[vec![vec![0.0, 1.0, 2.0], vec![7.0, 8.0, 9.0]]]);
        assert!(shifts.iter().all(|s| s.abs() < 1e-9), "{shifts:?}");
    }

    #[test]
    fn kl_survives_logits_that_underflow() {
        assert_eq!(
            kl(&[0.0, f32::NEG_INFINITY], &[0.0, f32::NEG_INFINITY]),
            0.0
        );
        assert!((kl(&[1000.0, 0.0], &[0.0, 1000.0]) - 1000.0).abs() < 1e-6);
    }
}
