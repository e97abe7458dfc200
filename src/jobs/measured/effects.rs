//! What each direction of a set does at one KL, kept in the study.

use candle_core::Tensor;
use half::f16;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use xxhash_rust::xxh3::Xxh3;

use super::need;
use super::subject::{Subject, subjects};
use crate::analysis::ScoredToken;
use crate::analysis::lens::extreme_tokens;
use crate::directions::DirectionSet;
use crate::disk::human_bytes;
use crate::error::{Error, Result};
use crate::eval::steering::rise::Percentiles;
use crate::matrix::gemm::{View, product};
use crate::model::{Model, Tokenizer};
use crate::steering::effects::{EffectPass, TOGETHER};
use crate::steering::{SteerTerm, direction_term, unit};
use crate::study::{Measured, Study};
use crate::task::{Progress, TaskCtx};

/// Directions by which the search of the others begins.
const FIRST: usize = 3;

/// The record of the unsteered model.
const UNSTEERED: u32 = u32::MAX;
/// Numbers of a record before the push: α, KL, whether it came near the KL, and what the norm of the
/// MLP's output multiplies it by.
const HEAD: usize = 4;
/// Tokens whose changes are held as f32 at a time, of all directions.
const STRIP: usize = 4096;

/// How effects are measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EffectRequest {
    /// KL(base ‖ steered) at the prompts' last tokens, the mean over them.
    pub kl: f64,
    /// Texts whose next token is watched: others than those that an evaluation reports on.
    pub prompts: Vec<String>,
}

impl Default for EffectRequest {
    fn default() -> Self {
        Self {
            kl: 0.25,
            prompts: ["In the morning,", "She said that the"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

/// What each direction of a set does.
pub struct Effects {
    kept: Measured,
    count: usize,
    d_model: usize,
    prompts: usize,
    vocab: usize,
}

/// The set as it is typed.
fn typed(study: &Study, set: &dyn DirectionSet) -> Result<String> {
    let is_fit = study.fits()?.iter().any(|fit| fit.name == set.name());
    Ok(match is_fit {
        true => format!("fit:{}", set.name()),
        false => set.name().to_owned(),
    })
}

/// By what the norm of the MLP's output multiplies each of some directions at unit length.
fn scales(model: &Model, set: &dyn DirectionSet, ids: &[u32]) -> Result<Vec<f64>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let width = set.directions().height();
    let mut z = Vec::with_capacity(ids.len() * width);
    for &j in ids {
        z.extend(unit(&set.directions().column(j as usize))?);
    }
    let z = Tensor::from_vec(z, (ids.len(), width), model.device())?;
    model.decoder().output_scales(set.hook(), &z)
}

impl Effects {
    /// What the study holds, and what the model says of the directions that it lacks.
    ///
    /// # Errors
    /// [`Error::Refused`] without a model where it has to be asked, and where no direction comes
    /// near the KL; [`Error::Usage`] for a prompt without tokens or a KL that is no positive number;
    /// [`Error::Cancelled`], after which what was measured is kept.
    pub fn of(
        study: &Study,
        set: &dyn DirectionSet,
        ask: &EffectRequest,
        model: Option<&Model>,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let mut out = Self::kept(study, set, ask, model)?;
        let missing = out.missing();
        if !missing.is_empty() {
            let model = need(model, study, &typed(study, set)?)?;
            out.measure(study, set, ask, model, &missing, ctx)?;
        }
        if !(0..out.count).any(|j| out.reached(j)) {
            let (name, kl) = (set.name(), ask.kl);
            return Err(Error::refused(format!(
                "no direction of {name} comes near a KL of {kl}: try a smaller one (--kl)"
            )));
        }
        Ok(out)
    }

    /// What the study holds of a set, where that is all of it.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn stored(
        study: &Study,
        set: &dyn DirectionSet,
        ask: &EffectRequest,
    ) -> Result<Option<Self>> {
        if study.manifest().model.is_none() {
            return Ok(None);
        }
        let out = Self::kept(study, set, ask, None)?;
        Ok(out.missing().is_empty().then_some(out))
    }

    /// The directions of which nothing is known.
    fn missing(&self) -> Vec<u32> {
        let all = 0..self.count as u32;
        all.filter(|&j| !self.kept.has(j)).collect()
    }

    /// What is kept; without a model of any dtype in which all was measured, or else the study's.
    fn kept(
        study: &Study,
        set: &dyn DirectionSet,
        ask: &EffectRequest,
        model: Option<&Model>,
    ) -> Result<Self> {
        let each = subjects(study, model)?.into_iter();
        let each = each.map(|subject| Self::kept_of(study, set, ask, subject));
        let mut found = each.collect::<Result<Vec<_>>>()?;
        let whole = found.iter().position(|found| found.missing().is_empty());
        Ok(found.swap_remove(whole.unwrap_or(0)))
    }

    fn kept_of(
        study: &Study,
        set: &dyn DirectionSet,
        ask: &EffectRequest,
        subject: Subject,
    ) -> Result<Self> {
        let Subject {
            about,
            d_model,
            vocab,
        } = subject;
        let (count, prompts) = (set.directions().count(), ask.prompts.len());
        if prompts == 0 {
            return Err(Error::usage(
                "effects are measured on prompts: give at least one",
            ));
        }
        let mut digest = Xxh3::new();
        for j in 0..count {
            digest.update(bytemuck::cast_slice(&set.directions().column(j)));
        }
        let about = json!({"effects": set.name(), "hook": set.hook().to_string(),
            "columns": format!("{:016x}", digest.digest()), "ask": ask, "of": about});
        let size = 4 * (HEAD + d_model) + 2 * prompts * vocab;
        Ok(Self {
            kept: study.measured("effects", &about, size)?,
            count,
            d_model,
            prompts,
            vocab,
        })
    }

    fn measure(
        &mut self,
        study: &Study,
        set: &dyn DirectionSet,
        ask: &EffectRequest,
        model: &Model,
        missing: &[u32],
        ctx: &TaskCtx,
    ) -> Result<()> {
        let (hook, bos) = (set.hook(), study.manifest().bos);
        let encode = |text: &String| model.tokenizer().encode(text, bos);
        let prompts = ask.prompts.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let term = |j: usize| direction_term(model, hook, &set.directions().column(j), 1.0);
        // A direction of zeros has no term.
        let first: Vec<SteerTerm> = (0..self.count)
            .filter_map(|j| term(j).ok())
            .take(FIRST)
            .collect();
        let bytes = human_bytes(self.kept.check_space_for(missing.len() + 1)?);
        let pass = EffectPass::new(model, &prompts, &first, ask.kl, ctx)?;
        let quiet = ctx.without_progress();
        let (total, known) = (self.count as u64, self.count - missing.len());
        for (at, ids) in missing.chunks(TOGETHER).enumerate() {
            let words = format!("measuring what {} does ({bytes} to keep)", set.name());
            let done = (known + at * TOGETHER) as u64;
            ctx.checkpoint(Progress::new(words, done, total, "directions"))?;
            let mut records = Vec::with_capacity(ids.len() + 1);
            let mut terms = Vec::with_capacity(ids.len());
            for &j in ids {
                // A direction of zeros does nothing, and is kept as one that does not reach the KL.
                match term(j as usize) {
                    Ok(term) => terms.push((j, term)),
                    Err(Error::Usage(_)) => records.push((j, self.record([0.0; HEAD], None, None))),
                    Err(e) => return Err(e),
                }
            }
            let (numbers, terms): (Vec<u32>, Vec<_>) = terms.into_iter().unzip();
            if let (false, Some(first)) = (self.kept.has(UNSTEERED), terms.first()) {
                let base = pass.unsteered(first, &quiet)?;
                records.push((UNSTEERED, self.record([0.0; HEAD], None, Some(&base))));
            }
            let pushes = pass.pushes(&terms)?;
            let scales = scales(model, set, &numbers)?;
            let found = pass.measure(&terms, &pushes, &quiet)?;
            for (((j, push), scale), effect) in
                numbers.into_iter().zip(&pushes).zip(scales).zip(found)
            {
                let record = match &effect {
                    Some(e) => {
                        let head = [e.alpha as f32, e.kl as f32, 1.0, scale as f32];
                        self.record(head, Some(push), Some(&e.shifts))
                    }
                    None => self.record([0.0, 0.0, 0.0, scale as f32], Some(push), None),
                };
                records.push((j, record));
            }
            self.kept.add(records)?;
        }
        Ok(())
    }

    fn record(
        &self,
        head: [f32; HEAD],
        push: Option<&[f32]>,
        shifts: Option<&[Vec<f32>]>,
    ) -> Vec<u8> {
        let size = 4 * (HEAD + self.d_model) + 2 * self.prompts * self.vocab;
        let mut out = Vec::with_capacity(size);
        out.extend(head.iter().flat_map(|v| v.to_le_bytes()));
        out.extend(
            push.unwrap_or_default()
                .iter()
                .flat_map(|v| v.to_le_bytes()),
        );
        out.resize(4 * (HEAD + self.d_model), 0);
        for shifts in shifts.unwrap_or_default() {
            out.extend(shifts.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
        }
        out.resize(size, 0);
        out
    }

    fn number(&self, j: usize, at: usize) -> f32 {
        let bytes = self
            .kept
            .get(j as u32)
            .and_then(|r| r.get(4 * at..4 * at + 4));
        bytes.map_or(0.0, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The number of directions.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The strength at which a direction was measured.
    pub fn alpha(&self, j: usize) -> f64 {
        f64::from(self.number(j, 0))
    }

    /// The KL that it came to.
    pub fn kl(&self, j: usize) -> f64 {
        f64::from(self.number(j, 1))
    }

    /// Whether it came near the KL: otherwise nothing is known of what it does.
    pub fn reached(&self, j: usize) -> bool {
        self.number(j, 2) == 1.0
    }

    /// By what the norm of the MLP's output multiplies the direction at unit length, where it has one:
    /// the push of a sum is the sum of the pushes of what is multiplied so.
    pub fn scale(&self, j: usize) -> f64 {
        f64::from(self.number(j, 3))
    }

    /// What it pushes the residual stream by at α = 1.
    pub fn push(&self, j: usize) -> Vec<f32> {
        (0..self.d_model)
            .map(|i| self.number(j, HEAD + i))
            .collect()
    }

    /// The changes of all tokens' log-probabilities at one prompt.
    fn shifts(&self, record: u32, prompt: usize, tokens: std::ops::Range<usize>) -> Vec<f32> {
        let from = 4 * (HEAD + self.d_model) + 2 * prompt * self.vocab;
        let bytes = self.kept.get(record).unwrap_or_default();
        let part = bytes.get(from + 2 * tokens.start..from + 2 * tokens.end);
        let each = part.unwrap_or_default().chunks_exact(2);
        each.map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect()
    }

    /// The changes of all tokens' log-probabilities, the mean over the prompts.
    pub fn mean_shifts(&self, j: usize) -> Vec<f64> {
        let mut out = vec![0.0f64; self.vocab];
        for prompt in 0..self.prompts {
            let shifts = self.shifts(j as u32, prompt, 0..self.vocab);
            let share = 1.0 / self.prompts as f64;
            let each = out.iter_mut().zip(shifts);
            each.for_each(|(o, v)| *o += share * f64::from(v));
        }
        out
    }

    /// The tokens that it raises most and those that it lowers most; none where it did not come near
    /// the KL.
    pub fn moves(
        &self,
        j: usize,
        most: usize,
        tokenizer: &Tokenizer,
    ) -> (Vec<ScoredToken>, Vec<ScoredToken>) {
        if !self.reached(j) {
            return (Vec::new(), Vec::new());
        }
        let shifts: Vec<f32> = self.mean_shifts(j).into_iter().map(|v| v as f32).collect();
        extreme_tokens(&shifts, most, tokenizer)
    }

    /// For each list of tokens the direction, with its sign, that raises them most among all tokens;
    /// `None` for an empty list. A direction that lowers them raises them when it is turned round.
    pub fn best(&self, tokens: &[Vec<u32>]) -> Vec<Option<(usize, f32)>> {
        let of_direction = |j: usize| -> Vec<Option<f64>> {
            let shifts = self.mean_shifts(j);
            let ranks = Percentiles::of(&shifts);
            tokens.iter().map(|tokens| ranks.mean(tokens)).collect()
        };
        let all: Vec<(usize, Vec<Option<f64>>)> = (0..self.count)
            .into_par_iter()
            .filter(|&j| self.reached(j))
            .map(|j| (j, of_direction(j)))
            .collect();
        let best = |l: usize| {
            let mut best: Option<(usize, f64)> = None;
            for (j, places) in &all {
                let Some(off) = places[l].map(|p| p - 0.5) else {
                    continue;
                };
                if best.is_none_or(|(_, most)| off.abs() > most.abs()) {
                    best = Some((*j, off));
                }
            }
            best.map(|(j, off)| (j, if off < 0.0 { -1.0 } else { 1.0 }))
        };
        (0..tokens.len()).map(best).collect()
    }

    /// The directions that came near the KL, and the covariance of their changes under the unsteered
    /// probabilities, the mean over the prompts.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn covariance(&self, ctx: &TaskCtx) -> Result<(Vec<usize>, Vec<f64>)> {
        let ids: Vec<usize> = (0..self.count).filter(|&j| self.reached(j)).collect();
        let n = ids.len();
        let mut f = vec![0.0f64; n * n];
        for prompt in 0..self.prompts {
            let base = self.shifts(UNSTEERED, prompt, 0..self.vocab);
            let p: Vec<f32> = base.iter().map(|l| l.exp()).collect();
            let mean = |&j: &usize| -> f64 {
                let shifts = self.shifts(j as u32, prompt, 0..self.vocab);
                let each = shifts.iter().zip(&p);
                each.map(|(s, p)| f64::from(*s) * f64::from(*p)).sum()
            };
            let means: Vec<f64> = ids.par_iter().map(mean).collect();
            let mut sums = vec![0.0f32; n * n];
            for from in (0..self.vocab).step_by(STRIP) {
                ctx.check()?;
                let tokens = from..self.vocab.min(from + STRIP);
                let width = tokens.len();
                let row = |(&j, mean): (&usize, &f64)| -> Vec<f32> {
                    let shifts = self.shifts(j as u32, prompt, tokens.clone());
                    let each = shifts.iter().zip(&p[tokens.clone()]);
                    each.map(|(s, p)| (s - *mean as f32) * p.sqrt()).collect()
                };
                let rows: Vec<Vec<f32>> = ids.par_iter().zip(&means).map(row).collect();
                let x = rows.concat();
                let (a, b) = (View::rows(&x, width), View::transposed(&x, width));
                product((n, width, n), a, b, &mut sums, n, true, true);
            }
            for (f, sum) in f.iter_mut().zip(sums) {
                *f += f64::from(sum) / self.prompts as f64;
            }
        }
        Ok((ids, f))
    }
}

#[cfg(test)]
impl Effects {
    /// Of directions whose α, scale, push and changes at one prompt are given, after the unsteered
    /// log-probabilities.
    pub(super) fn made(base: &[f32], each: &[(f64, f64, Vec<f32>, Vec<f32>)]) -> Self {
        let (vocab, d_model) = (base.len(), each[0].2.len());
        let size = 4 * (HEAD + d_model) + 2 * vocab;
        let mut out = Self {
            kept: Measured::of_records(size, []),
            count: each.len(),
            d_model,
            prompts: 1,
            vocab,
        };
        let record = |(alpha, scale, push, shifts): &(f64, f64, Vec<f32>, Vec<f32>)| {
            let head = [*alpha as f32, 0.25, 1.0, *scale as f32];
            out.record(head, Some(push), Some(std::slice::from_ref(shifts)))
        };
        let mut records: Vec<(u32, Vec<u8>)> = (0..).zip(each.iter().map(record)).collect();
        let base = out.record([0.0; HEAD], None, Some(&[base.to_vec()]));
        records.push((UNSTEERED, base));
        out.kept = Measured::of_records(size, records);
        out
    }
}
