//! What directions do: the change of every token's log-probability when each steers alone, all at
//! one KL.
//!
//! Knows directions, not where they come from, and no study. The search for α is a short one, by
//! secants in the logarithms from where the directions before were: a choice among many directions
//! wants each of them at about the KL, not one of them at exactly it. Invariant: the KL told is that
//! of the change told.

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::calibrate::{CalibrationPrompts, SignedIntervention, calibrate};
use super::change::{log_sum_exp, mean_kls_on_device, mean_kls_on_host};
use super::tap::Steering;
use super::{Intervention, Mode, Positions, SteerTerm};
use crate::error::{Error, Result};
use crate::model::likelihood::log_softmax;
use crate::model::{HookSite, Model, host};
use crate::task::TaskCtx;
use std::sync::Arc;

/// Directions that share a forward pass.
pub const TOGETHER: usize = 16;
/// Strengths that are tried for a direction at most.
const ROUNDS: usize = 6;
/// |ln(KL / target)| at which the search ends, and up to which its result counts.
const NEAR: f64 = 0.1;
const COUNTS: f64 = 0.3;
/// |ln| by which α moves at most in a round.
const STEP: f64 = 2.0;

/// What one direction does.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The strength α > 0.
    pub alpha: f64,
    /// KL(base ‖ steered) at that strength, the mean over the prompts.
    pub kl: f64,
    /// The change of each token's log-probability as the next token in nats, by prompt.
    pub shifts: Vec<Vec<f32>>,
}

/// Measures directions of one hook on prompts that were read once up to its layer.
pub struct EffectPass<'a> {
    model: &'a Model,
    prompts: CalibrationPrompts<'a>,
    target: f64,
    /// Length of a push of the residual stream at which each search begins.
    length: f64,
}

impl<'a> EffectPass<'a> {
    /// For steering towards a mean KL of `target`. `first` are some directions of the set, by whose
    /// careful search the others begin: the same ones give the same results, whatever was measured
    /// before.
    ///
    /// # Errors
    /// [`Error::Usage`] for an empty prompt, for no first direction, and for a target that is no
    /// positive number; what the model returns.
    pub fn new(
        model: &'a Model,
        prompts: &[Vec<u32>],
        first: &[SteerTerm],
        target: f64,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        if !(target.is_finite() && target > 0.0) {
            return Err(Error::usage(format!(
                "the KL target must be a positive number, not {target}: try 0.25"
            )));
        }
        let Some(layer) = first.iter().map(|term| term.hook.layer).min() else {
            return Err(Error::usage(
                "there is no direction whose effect could be measured",
            ));
        };
        let read = CalibrationPrompts::read_to(model, prompts, layer, Positions::All, ctx)?;
        let mut out = Self {
            model,
            prompts: read.tolerant(),
            target,
            length: 0.0,
        };
        out.length = out.first_length(prompts, first, ctx)?;
        Ok(out)
    }

    /// The unsteered log-probabilities of the next token, by prompt.
    ///
    /// # Errors
    /// What the model returns; [`Error::Cancelled`].
    pub fn unsteered(&self, term: &SteerTerm, ctx: &TaskCtx) -> Result<Vec<Vec<f32>>> {
        let mut out = Vec::new();
        let steering = Steering {
            intervention: Arc::new(Intervention::new(std::slice::from_ref(term), Mode::Add)?),
            alpha: 0.0,
        };
        self.prompts.for_each_pass(&[steering], ctx, |base, _| {
            let base = host::rows(base)?;
            out = base.iter().map(|logits| log_probs(logits)).collect();
            Ok(())
        })?;
        Ok(out)
    }

    /// What each term pushes the residual stream by at α = 1.
    ///
    /// # Errors
    /// What the model returns.
    pub fn pushes(&self, terms: &[SteerTerm]) -> Result<Vec<Vec<f32>>> {
        let push = |term: &SteerTerm| {
            if term.hook.site != HookSite::MlpPost {
                return Ok(term.direction.clone());
            }
            let row = (1, term.direction.len());
            let z = Tensor::from_slice(&term.direction, row, self.model.device())?;
            let u = self.model.residual_direction(term.hook, &z)?;
            Ok(u.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
        };
        terms.iter().map(push).collect()
    }

    /// What each term does at about the target; `None` for one that does not come near it.
    /// `pushes` are [`Self::pushes`] of the terms.
    ///
    /// # Errors
    /// What the model returns; [`Error::Cancelled`].
    pub fn measure(
        &self,
        terms: &[SteerTerm],
        pushes: &[Vec<f32>],
        ctx: &TaskCtx,
    ) -> Result<Vec<Option<Effect>>> {
        let interventions = terms
            .iter()
            .map(|term| {
                Ok(Arc::new(Intervention::new(
                    std::slice::from_ref(term),
                    Mode::Add,
                )?))
            })
            .collect::<Result<Vec<_>>>()?;
        let begin = |push: &Vec<f32>| Search::from(self.length / norm(push).max(1e-30));
        let mut searches: Vec<Search> = pushes.iter().map(begin).collect();
        let mut found: Vec<Option<Effect>> = vec![None; terms.len()];
        for _ in 0..ROUNDS {
            ctx.check()?;
            let open: Vec<usize> = (0..terms.len()).filter(|&i| !searches[i].done).collect();
            if open.is_empty() {
                break;
            }
            let steerings: Vec<Steering> = open
                .iter()
                .map(|&i| Steering {
                    intervention: interventions[i].clone(),
                    alpha: searches[i].alpha,
                })
                .collect();
            let mut at = 0;
            self.prompts
                .for_each_pass(&steerings, ctx, |base, steered| {
                    let count = steered.dim(0)? / base.dim(0)?;
                    let chunk = &open[at..at + count];
                    let best: Vec<f64> = chunk.iter().map(|&i| searches[i].nearest).collect();
                    let seen = match self.model.decoder().is_mapped() {
                        true => {
                            let (base, steered) = (host::rows(base)?, host::rows(steered)?);
                            see(&base, &steered, self.target, &best)
                        }
                        false => see_on_device(base, steered, self.target, &best)?,
                    };
                    at += count;
                    for (&i, (kl, shifts)) in chunk.iter().zip(seen) {
                        if let Some(shifts) = shifts {
                            let alpha = searches[i].alpha;
                            found[i] = Some(Effect { alpha, kl, shifts });
                        }
                        searches[i].observe(kl, self.target);
                    }
                    Ok(())
                })?;
        }
        Ok(found)
    }

    /// The median length of the first directions' pushes at the target, by the careful search.
    fn first_length(
        &self,
        prompts: &[Vec<u32>],
        first: &[SteerTerm],
        ctx: &TaskCtx,
    ) -> Result<f64> {
        let signed = |term: &SteerTerm| {
            let terms = std::slice::from_ref(term);
            Ok(SignedIntervention {
                intervention: Arc::new(Intervention::new(terms, Mode::Add)?),
                negative: false,
            })
        };
        let signed = first.iter().map(signed).collect::<Result<Vec<_>>>()?;
        let (targets, quiet) = ([self.target], ctx.without_progress());
        let found = calibrate(
            self.model,
            &signed,
            prompts,
            &targets,
            Positions::All,
            &quiet,
        )?;
        let pushes = self.pushes(first)?;
        let each = found.into_iter().flatten().zip(&pushes);
        let mut lengths: Vec<f64> = each.map(|(c, u)| c.alpha.max(1e-6) * norm(u)).collect();
        lengths.sort_by(f64::total_cmp);
        Ok(lengths[lengths.len() / 2])
    }
}

/// The KL of a steering, and its changes by prompt where they were looked at.
type Seen = (f64, Option<Vec<Vec<f32>>>);

/// Whether a KL is nearer to the target than `best`, and near enough.
fn counts(kl: f64, target: f64, best: f64) -> bool {
    let off = (kl.max(1e-9) / target).ln().abs();
    kl.is_finite() && off < best && off < COUNTS
}

/// The KL of each steering, and its changes where they count.
fn see(base: &[Vec<f32>], steered: &[Vec<f32>], target: f64, best: &[f64]) -> Vec<Seen> {
    let change = |(b, s): (&Vec<f32>, &Vec<f32>)| {
        let shared = log_sum_exp(s) - log_sum_exp(b);
        let difference = |(s, b): (&f32, &f32)| (f64::from(*s) - f64::from(*b) - shared) as f32;
        s.iter().zip(b).map(difference).collect()
    };
    let all = mean_kls_on_host(base, steered);
    let all = all.into_par_iter().zip(steered.par_chunks(base.len()));
    let seen = all.zip(best).map(|((kl, steered), &best)| {
        let shifts = || base.iter().zip(steered).map(change).collect();
        (kl, counts(kl, target, best).then(shifts))
    });
    seen.collect()
}

/// [`see`] where the logits lie: changes that do not count stay there.
fn see_on_device(base: &Tensor, steered: &Tensor, target: f64, best: &[f64]) -> Result<Vec<Seen>> {
    let (prompts, before) = (base.dim(0)?, log_softmax(base)?);
    let seen = |(i, kl): (usize, f64)| {
        if !counts(kl, target, best[i]) {
            return Ok((kl, None));
        }
        let after = log_softmax(&steered.narrow(0, i * prompts, prompts)?)?;
        Ok((kl, Some(host::rows(&(after - &before)?)?)))
    };
    let kls = mean_kls_on_device(base, steered)?;
    kls.into_iter().enumerate().map(seen).collect()
}

/// Secants in ln α and ln KL: near 0 the KL grows as α².
struct Search {
    alpha: f64,
    /// ln α and ln KL of the round before.
    before: Option<(f64, f64)>,
    /// |ln(KL / target)| of the best round.
    nearest: f64,
    done: bool,
}

impl Search {
    fn from(alpha: f64) -> Self {
        Self {
            alpha,
            before: None,
            nearest: f64::INFINITY,
            done: false,
        }
    }

    fn observe(&mut self, kl: f64, target: f64) {
        // Logits that overflow say only that α is far too large.
        let kl = if kl.is_finite() { kl.max(1e-9) } else { 1e9 };
        let off = (kl / target).ln();
        self.nearest = self.nearest.min(off.abs());
        self.done = off.abs() < NEAR;
        let (x, y) = (self.alpha.ln(), kl.ln());
        let slope = match self.before {
            Some((x0, y0)) if (x - x0).abs() > 1e-6 => ((y - y0) / (x - x0)).clamp(0.7, 4.0),
            _ => 2.0,
        };
        self.before = Some((x, y));
        self.alpha = (x + (-off / slope).clamp(-STEP, STEP)).exp();
    }
}

fn log_probs(logits: &[f32]) -> Vec<f32> {
    let norm = log_sum_exp(logits);
    logits
        .iter()
        .map(|&l| (f64::from(l) - norm) as f32)
        .collect()
}

fn norm(values: &[f32]) -> f64 {
    values
        .iter()
        .map(|&v| f64::from(v) * f64::from(v))
        .sum::<f64>()
        .sqrt()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_search_reaches_the_target_on_curves_that_are_no_parabola() {
        for (target, curve) in [
            (0.25, (|a: f64| 0.02 * a * a) as fn(f64) -> f64),
            (0.25, |a| 0.5 * (a / 30.0).powf(1.3)),
            (1.0, |a| 3.0 * (1.0 - (-a * a / 900.0).exp())),
        ] {
            for from in [0.4, 3.0, 60.0] {
                let mut search = Search::from(from);
                let mut rounds = 0;
                while !search.done && rounds < ROUNDS {
                    let kl = curve(search.alpha);
                    search.observe(kl, target);
                    rounds += 1;
                }
                assert!(search.nearest < COUNTS, "from {from}: {}", search.nearest);
            }
        }
    }

    #[test]
    fn changes_are_those_of_log_probabilities() {
        let base = vec![vec![0.0f32, 1.0, 2.0]];
        let steered = vec![vec![5.0f32, 6.5, 7.0]];
        let far = [f64::INFINITY];
        let tensor = |rows: &[Vec<f32>]| Tensor::new(rows.to_vec(), &Device::Cpu).unwrap();
        let on_device = |target, best: &[f64]| {
            see_on_device(&tensor(&base), &tensor(&steered), target, best).unwrap()
        };
        let p = |l: &[f32]| {
            let sum: f64 = l.iter().map(|&v| f64::from(v).exp()).sum();
            l.iter()
                .map(|&v| f64::from(v).exp() / sum)
                .collect::<Vec<_>>()
        };
        let (p, q) = (p(&base[0]), p(&steered[0]));
        let plain: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        let all = [
            (see(&base, &steered, 0.02, &far), 1e-9),
            (on_device(0.02, &far), 1e-6),
        ];
        for (mut seen, near) in all {
            let (kl, shifts) = seen.remove(0);
            assert!((kl - plain).abs() < near);
            for (i, shift) in shifts.unwrap()[0].iter().enumerate() {
                assert!((f64::from(*shift) - (q[i] / p[i]).ln()).abs() < 1e-6);
            }
        }
        // One that is nearer was seen, and a KL that is too far from the target to count.
        for (target, best) in [(0.02, 1e-9), (9.0, f64::INFINITY)] {
            assert!(see(&base, &steered, target, &[best])[0].1.is_none());
            let before = host::copied();
            assert!(on_device(target, &[best])[0].1.is_none());
            assert_eq!(host::copied() - before, 1);
        }
    }
}
