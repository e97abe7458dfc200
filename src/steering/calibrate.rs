//! α for a wanted KL: a search over α that asks for several candidates at a time, for one target or several at once.
//!
//! [`search`] and [`kl`] know numbers only; [`last_logits`] and [`calibrate`] run a model. Invariant: the KL reported is
//! one that was computed at the α reported, never interpolated.

use std::sync::Arc;

use candle_core::DType;
use rayon::prelude::*;

use super::Positions;
use super::push::{Mode, Push};
use super::tap::{SteerTap, Steering, Touch};
use crate::error::{Error, Result};
use crate::model::{Batch, Logits, Model, Phase};
use crate::task::{Progress, TaskCtx};

/// The largest α that is tried.
pub const MAX_ALPHA: f64 = 1e5;
/// Candidates of one forward pass; with the baseline row a short prompt fills one matrix pass.
const CANDIDATES: usize = 8;
/// Fewest candidates of a target in a pass that several share.
const FEWEST: usize = 2;
/// Refinements of a bracket at most: each divides it by four or more.
const MAX_REFINEMENTS: usize = 16;
/// Rows of one forward pass at most.
const PASS_ROWS: usize = 64;
/// KL counts as saturated when the last three doublings of α change it by less than this share.
const SATURATION: f64 = 5e-3;

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// α ≥ 0, before the sign.
    pub alpha: f64,
    /// KL(base ‖ steered) that was computed at it.
    pub kl: f64,
    /// Whether it lies within [`tolerance`] of the target.
    pub reached: bool,
    /// What a person should know: a target out of reach, a curve that is not monotone.
    pub note: Option<String>,
}

/// How near to a target a KL must come: 0.01 or 2 % of it, whichever is smaller.
pub fn tolerance(target: f64) -> f64 {
    (0.02 * target).min(0.01)
}

/// KL(p ‖ q) = Σ p (log p − log q) in nats of two next-token distributions given as logits, in f64.
pub fn kl(base: &[f32], steered: &[f32]) -> f64 {
    let (base_norm, steered_norm) = (log_sum_exp(base), log_sum_exp(steered));
    let term = |(&b, &s): (&f32, &f32)| {
        let log_p = f64::from(b) - base_norm;
        let p = log_p.exp();
        // 0 · log 0 = 0, also where a logit is −∞ in both.
        if p > 0.0 { p * (log_p - (f64::from(s) - steered_norm)) } else { 0.0 }
    };
    // The sum of a distribution with itself may round below 0.
    base.iter().zip(steered).map(term).sum::<f64>().max(0.0)
}

/// ln Σ exp of logits, in f64.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|&l| (f64::from(l) - max).exp()).sum::<f64>().ln()
}

/// Searches for each target the smallest α > 0 at which `evaluate` (KLs of several α) comes to it: doubling from 1 until the
/// largest target lies in a bracket, then dividing each target's bracket, with a candidate where a power law through its
/// ends meets the target. Stops at [`MAX_ALPHA`] or where KL saturates, and then gives the α of the largest KL seen, with
/// a note. KL need not be monotone in α. All targets share what was evaluated.
///
/// # Errors
/// [`Error::Usage`] for a target that is no positive number; what `evaluate` returns.
pub fn search(targets: &[f64], evaluate: &mut dyn FnMut(&[f64]) -> Result<Vec<f64>>) -> Result<Vec<Calibration>> {
    if let Some(target) = targets.iter().find(|t| !(t.is_finite() && **t > 0.0)) {
        return Err(Error::usage(format!("the KL target must be a positive number, not {target}: try 0.25")));
    }
    let mut points = vec![(0.0, 0.0)];
    let largest = targets.iter().copied().fold(0.0, f64::max);
    let mut next = 1.0;
    loop {
        let curve = Curve { target: largest, points: &points };
        if curve.bracket().is_some() || next > MAX_ALPHA || curve.saturated() {
            break;
        }
        let candidates: Vec<f64> = (0..CANDIDATES)
            .map(|i| next * f64::from(1u32 << i))
            .take_while(|&a| a < 2.0 * MAX_ALPHA)
            .map(|a| a.min(MAX_ALPHA))
            .collect();
        next *= f64::from(1u32 << CANDIDATES);
        add(&mut points, &candidates, evaluate)?;
    }
    let share = (CANDIDATES / targets.len().max(1)).max(FEWEST);
    for _ in 0..MAX_REFINEMENTS {
        let mut candidates: Vec<f64> =
            targets.iter().flat_map(|&target| Curve { target, points: &points }.candidates(share)).collect();
        if candidates.is_empty() {
            break;
        }
        candidates.sort_by(f64::total_cmp);
        candidates.dedup();
        add(&mut points, &candidates, evaluate)?;
    }
    Ok(targets.iter().map(|&target| Curve { target, points: &points }.verdict()).collect())
}

fn add(
    points: &mut Vec<(f64, f64)>,
    alphas: &[f64],
    evaluate: &mut dyn FnMut(&[f64]) -> Result<Vec<f64>>,
) -> Result<()> {
    let found = alphas.iter().copied().zip(evaluate(alphas)?);
    // An α that overflows the compute dtype says nothing about the curve.
    points.extend(found.filter(|(_, kl)| kl.is_finite()));
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(())
}

/// KL at every α seen, ascending in α, from (0, 0), as one target sees it.
struct Curve<'a> {
    target: f64,
    points: &'a [(f64, f64)],
}

impl Curve<'_> {
    /// Where to look next: inside the bracket, or nowhere when the target is reached or out of reach.
    fn candidates(&self, count: usize) -> Vec<f64> {
        let Some((low, high)) = self.bracket().filter(|(low, high)| high - low > 1e-9 * high) else {
            return Vec::new();
        };
        if self.reached() {
            return Vec::new();
        }
        let step = (high - low) / count as f64;
        // From 0 the right α may be of any size.
        let inside = |i: usize| if low > 0.0 { low + step * i as f64 } else { high * 8f64.powi(-(i as i32)) };
        let mut out: Vec<f64> = (1..count).map(inside).collect();
        out.push(self.power_law(low, high).unwrap_or(low + 0.5 * step));
        out
    }

    /// The α at which KL = c·α^p through both ends meets the target (p = 2 near 0).
    fn power_law(&self, low: f64, high: f64) -> Option<f64> {
        let at = |alpha: f64| self.points.iter().find(|p| p.0 == alpha).map(|p| p.1);
        let (below, above) = (at(low)?, at(high)?);
        let power = if low > 0.0 && below > 0.0 { (above / below).ln() / (high / low).ln() } else { 2.0 };
        Some(high * (self.target / above).powf(1.0 / power)).filter(|&a| a > low && a < high)
    }

    /// The first pair of neighbours between which the target is crossed upwards.
    fn bracket(&self) -> Option<(f64, f64)> {
        let above = self.points.iter().position(|p| p.1 >= self.target)?;
        Some((self.points[above.checked_sub(1)?].0, self.points[above].0))
    }

    /// Of the points near the first crossing the one nearest to the target.
    fn nearest(&self) -> (f64, f64) {
        let end = self.points.iter().position(|p| p.1 >= self.target).map_or(self.points.len(), |i| i + 1);
        let distance = |p: &(f64, f64)| (p.1 - self.target).abs();
        let near = self.points[..end].iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        near.unwrap_or((0.0, 0.0))
    }

    fn reached(&self) -> bool {
        (self.nearest().1 - self.target).abs() < tolerance(self.target)
    }

    /// Whether the last three doublings changed the KL, which is not zero, by next to nothing.
    fn saturated(&self) -> bool {
        let Some(last) = self.points.last_chunk::<4>() else { return false };
        let (low, high) = last.iter().fold((f64::INFINITY, 0f64), |(l, h), p| (l.min(p.1), h.max(p.1)));
        last[0].0 > 0.0 && high > 0.0 && high - low < SATURATION * high
    }

    /// Whether the curve falls below the target again after it has crossed it.
    fn falls_again(&self) -> bool {
        let above = self.points.iter().position(|p| p.1 >= self.target);
        above.is_some_and(|i| self.points[i..].iter().any(|p| p.1 < self.target - tolerance(self.target)))
    }

    fn verdict(&self) -> Calibration {
        let target = self.target;
        let (alpha, kl) = self.nearest();
        let reached = self.reached();
        let note = if !reached && self.bracket().is_none() {
            Some(format!(
                "KL {target} cannot be reached with this sign: the largest KL seen is {kl:.4} at |α| = {alpha:.4}"
            ))
        } else if !reached {
            Some(format!("KL jumps past {target} near |α| = {alpha:.4}: the nearest that was reached is {kl:.4}"))
        } else if self.falls_again() {
            Some(format!("KL is not monotone in α here: {alpha:.4} is the smallest |α| found that reaches {target}"))
        } else {
            None
        };
        Calibration { alpha, kl, reached, note }
    }
}

/// Logits of the last token of each prompt without steering and at each signed α: `[prompts][1 + alphas][vocab]`; the rows
/// of a prompt share a batch, so that each is computed the same way. With [`Positions::Generated`] the last prompt token
/// alone is steered, as the first generated one would be.
pub fn last_logits(
    model: &Model,
    push: &Arc<Push>,
    prompts: &[Vec<u32>],
    alphas: &[f64],
    positions: Positions,
    ctx: &TaskCtx,
) -> Result<Vec<Vec<Vec<f32>>>> {
    let of_prompt = 1 + alphas.len();
    let touch = match positions {
        Positions::All => Touch::All,
        Positions::Generated => Touch::LastOfPrompt,
        Positions::Span { from, to } => Touch::Span { from, to },
    };
    let row = |alpha: Option<f64>| alpha.map(|alpha| Steering { push: push.clone(), alpha });
    let mut out = Vec::with_capacity(prompts.len());
    for prompts in prompts.chunks((PASS_ROWS / of_prompt).max(1)) {
        let rows: Vec<Vec<u32>> = prompts.iter().flat_map(|p| std::iter::repeat_n(p.clone(), of_prompt)).collect();
        let steered = prompts.iter().flat_map(|_| std::iter::once(None).chain(alphas.iter().copied().map(Some)));
        let mut tap = SteerTap::new(steered.map(row).collect(), touch)?;
        let batch = Batch { samples: (0..rows.len()).collect(), rows };
        let logits = model.forward(&batch, Phase::Prompt, None, &mut tap, Logits::Last, ctx)?;
        let logits = logits.ok_or_else(|| Error::refused("the model gave no logits for the prompt"))?;
        let mut logits = logits.to_dtype(DType::F32)?.to_vec2()?.into_iter();
        out.extend((0..prompts.len()).map(|_| logits.by_ref().take(of_prompt).collect()));
    }
    Ok(out)
}

/// The change of each token's log-probability, the mean over prompts of (base, steered) logits: what all
/// tokens share has no part in it.
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

/// Searches for each target the α at which the mean over `prompts` (token ids each) of KL(base ‖ steered) at the last
/// token comes to it, on the side of `negative`. The α given back are unsigned, in the order of the targets.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt, a target that is no positive number, and for [`Mode::Set`], whose KL does not
/// begin at 0.
pub fn calibrate(
    model: &Model,
    push: &Arc<Push>,
    prompts: &[Vec<u32>],
    targets: &[f64],
    negative: bool,
    positions: Positions,
    ctx: &TaskCtx,
) -> Result<Vec<Calibration>> {
    if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
        return Err(Error::usage("α cannot be calibrated on an empty prompt: give a text such as 'I think that'"));
    }
    if push.mode() == Mode::Set {
        return Err(Error::usage("setting a component has no KL to aim for, as α = 0 changes it too: give --alpha"));
    }
    let sign = if negative { -1.0 } else { 1.0 };
    let mut tried = 0;
    search(targets, &mut |alphas| {
        let signed: Vec<f64> = alphas.iter().map(|a| sign * a).collect();
        ctx.checkpoint(Progress::new("calibrating", tried, None, "strengths"))?;
        let logits = last_logits(model, push, prompts, &signed, positions, ctx)?;
        tried += alphas.len() as u64;
        let mean = |i: usize| logits.iter().map(|of| kl(&of[0], &of[1 + i])).sum::<f64>() / prompts.len() as f64;
        Ok((0..alphas.len()).into_par_iter().map(mean).collect())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn on(curve: impl Fn(f64) -> f64, target: f64) -> (Calibration, usize) {
        let mut passes = 0;
        let found = search(&[target], &mut |alphas| {
            passes += 1;
            Ok(alphas.iter().map(|&a| curve(a)).collect())
        });
        (found.unwrap().remove(0), passes)
    }

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

        #[test]
        fn every_reachable_target_on_a_rising_curve_is_reached(scale in -4f64..4.0, target in 0.02f64..0.6) {
            let scale = 10f64.powf(scale);
            let curve = |a: f64| 1.0 - (-(a / scale).powi(2)).exp();
            let (found, passes) = on(curve, target);
            prop_assert!(found.reached && found.note.is_none(), "{:?}", found);
            prop_assert!((found.kl - target).abs() < tolerance(target));
            prop_assert_eq!(found.kl, curve(found.alpha));
            prop_assert!(passes <= 12);
        }

        #[test]
        fn several_targets_share_a_search(scale in -2f64..3.0, power in 0.5f64..3.0) {
            let scale = 10f64.powf(scale);
            let curve = |a: f64| 1.0 - (-(a / scale).powf(power)).exp();
            let targets = [0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5];
            let mut passes = 0;
            let found = search(&targets, &mut |alphas| {
                passes += 1;
                Ok(alphas.iter().map(|&a| curve(a)).collect())
            }).unwrap();
            for (f, target) in found.iter().zip(targets) {
                prop_assert!(f.reached && (f.kl - target).abs() < tolerance(target), "{:?}", f);
            }
            prop_assert!(found.windows(2).all(|w| w[0].alpha < w[1].alpha));
            prop_assert!(passes <= 18, "{}", passes);
        }
    }

    #[test]
    fn what_all_tokens_share_is_no_change() {
        let shifts = mean_shifts(&[vec![vec![0.0, 1.0, 2.0], vec![7.0, 8.0, 9.0]]]);
        assert!(shifts.iter().all(|s| s.abs() < 1e-9), "{shifts:?}");
    }

    #[test]
    fn kl_survives_logits_that_underflow() {
        assert_eq!(kl(&[0.0, f32::NEG_INFINITY], &[0.0, f32::NEG_INFINITY]), 0.0);
        assert!((kl(&[1000.0, 0.0], &[0.0, 1000.0]) - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn a_target_out_of_reach_gives_the_largest_kl_seen() {
        let (found, passes) = on(|a| 0.2 * a / (a + 1.0), 0.5);
        assert!(!found.reached && found.kl < 0.2 && found.kl > 0.19);
        assert!(found.note.as_deref().unwrap().contains("cannot be reached"), "{found:?}");
        assert!(passes <= 2, "a saturated curve is not followed to the end");
        let (none, _) = on(|_| 0.0, 0.5);
        assert_eq!((none.alpha, none.kl, none.reached), (0.0, 0.0, false));
        let (falling, _) = on(|a| 0.3 * (a / 8.0) * (1.0 - a / 8.0).exp(), 0.5);
        assert!((falling.kl - 0.3).abs() < 1e-9 && falling.alpha == 8.0, "{falling:?}");
    }

    #[test]
    fn of_a_curve_that_is_not_monotone_the_first_crossing_counts() {
        let (found, _) = on(|a| if a < 20.0 { a / 20.0 } else { 0.05 }, 0.4);
        assert!(found.reached && (found.alpha - 8.0).abs() < 0.2, "{found:?}");
        assert!(found.note.as_deref().unwrap().contains("not monotone"));
    }

    #[test]
    fn a_jump_past_the_target_is_told() {
        let (found, _) = on(|a| if a < 3.0 { 0.1 } else { 2.0 }, 0.5);
        assert!(!found.reached && found.kl == 0.1, "{found:?}");
        assert!(found.note.as_deref().unwrap().contains("jumps past"));
    }

    #[test]
    fn strengths_that_overflow_are_left_out() {
        let (found, _) = on(|a| if a > 100.0 { f64::NAN } else { a / 1000.0 }, 0.5);
        assert!(!found.reached && (found.alpha - 64.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_target_that_is_no_positive_number_is_refused() {
        for target in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = search(&[0.1, target], &mut |a| Ok(vec![0.0; a.len()])).unwrap_err();
            assert_eq!(error.exit_code(), 2);
        }
    }
}
