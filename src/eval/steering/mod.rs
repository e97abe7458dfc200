//! Causal evaluation: does steering with a direction make the model speak of a concept, and still
//! speak well?
//!
//! Directions × KL targets × signs × prompts × samples, each text judged. The one room of `eval`
//! that runs a model. Owns the plan, the log of what was done ([`log`]) and the run, which goes on
//! from any instant at which it was killed. Invariant: every method's texts have the same prompts,
//! draws and KL targets, so that methods compare.

mod config;
pub mod endpoint;
pub mod judge;
pub mod log;
pub mod perplexity;
mod record;
pub mod report;
pub mod rise;

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::generate::{Arithmetic, Continuation, generate};
use crate::steering::calibrate::{Aim, calibrate, each_change};
use crate::steering::search::Calibration;
use crate::steering::tap::{SteerTap, Steering, Touch};
use crate::steering::{Mode, Positions, Push, SteerTerm};
use crate::task::{Progress, TaskCtx};
pub use config::{Protocol, SteeringConfig, texts_of, unsteered_of};
use judge::{Case, Judge, Judgement};
use log::Log;
pub use record::{JudgedRecord, Key, StrengthRecord, TextRecord, unreached};

/// The method under which unsteered texts are kept.
pub const UNSTEERED: &str = "unsteered";
/// Directions and signs whose α are searched together.
const AIMS: usize = 16;

/// A direction that a method offers for a label.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// The method: "k100", "diffmean", "random".
    pub method: String,
    /// The concept that it should make the model speak of.
    pub label: String,
    /// Its number in its set.
    pub direction: usize,
    /// What is added.
    pub term: SteerTerm,
    /// The first tokens of the label's own words.
    pub words: Vec<u32>,
}

impl Subject {
    fn push(&self) -> Result<Arc<Push>> {
        Ok(Arc::new(Push::new(
            std::slice::from_ref(&self.term),
            Mode::Add,
        )?))
    }

    fn strength(&self, sign: i8, target: f64, found: Calibration) -> StrengthRecord {
        StrengthRecord {
            method: self.method.clone(),
            label: self.label.clone(),
            direction: self.direction,
            sign,
            target,
            alpha: f64::from(sign) * found.alpha,
            kl: found.kl,
            reached: found.reached,
            note: found.note,
            rise: None,
        }
    }
}

/// What happens while a run goes on, for whoever watches.
#[derive(Debug)]
pub enum Happened<'a> {
    /// α were found for one direction and sign.
    Strengths(&'a [StrengthRecord]),
    /// Texts with what was judged of them.
    Texts(&'a [TextRecord], &'a [JudgedRecord]),
}

/// A run: the model, what is asked of it, and the log that it goes on from.
pub struct Run<'a> {
    model: &'a Model,
    config: &'a SteeringConfig,
    prompts: Vec<Vec<u32>>,
    log: &'a mut Log,
}

/// Texts to generate that differ in nothing but their draws: they share the prompt's cache.
struct Group {
    push: Option<Arc<Push>>,
    key: Key,
    direction: usize,
    alpha: f64,
    kl: f64,
    samples: Vec<usize>,
}

impl<'a> Run<'a> {
    /// # Errors
    /// [`Error::Usage`] for a configuration that asks for nothing or for a KL that is no positive
    /// number.
    pub fn new(model: &'a Model, config: &'a SteeringConfig, log: &'a mut Log) -> Result<Self> {
        config.check()?;
        let encode = |text: &String| model.tokenizer().encode(text, config.bos);
        let prompts = config
            .prompts
            .iter()
            .map(encode)
            .collect::<Result<Vec<_>>>()?;
        if let Some(at) = prompts.iter().position(Vec::is_empty) {
            return Err(Error::usage(format!(
                "prompt {} has no tokens: give a text such as 'I think that'",
                at + 1
            )));
        }
        Ok(Self {
            model,
            config,
            prompts,
            log,
        })
    }

    /// Where everything is kept.
    pub fn dir(&self) -> &std::path::Path {
        self.log.dir()
    }

    /// The unsteered texts, generated where the log lacks them.
    pub fn unsteered(&mut self, ctx: &TaskCtx) -> Result<Vec<TextRecord>> {
        let have: HashSet<String> = self.log.texts().iter().map(|t| t.key.id()).collect();
        let mut groups = Vec::new();
        for prompt in 0..self.prompts.len() {
            let key = |sample| Key {
                method: UNSTEERED.to_owned(),
                label: String::new(),
                target: 0.0,
                sign: 0,
                prompt,
                sample,
            };
            let samples = (0..unsteered_of(self.config) / self.prompts.len())
                .filter(|&s| !have.contains(&key(s).id()));
            let samples: Vec<usize> = samples.collect();
            groups.push(Group {
                push: None,
                key: key(0),
                direction: 0,
                alpha: 0.0,
                kl: 0.0,
                samples,
            });
        }
        groups.retain(|g| !g.samples.is_empty());
        let all = groups.iter().map(|g| g.samples.len()).sum::<usize>();
        let mut done = 0;
        while !groups.is_empty() {
            ctx.checkpoint(Progress::new(
                "unsteered texts",
                done as u64,
                all as u64,
                "texts",
            ))?;
            let batch: Vec<Group> = groups.drain(..full(&groups, self.config.batch)).collect();
            let texts = self.generate(&batch, ctx)?;
            done += texts.len();
            self.log.add_texts(&texts)?;
        }
        Ok(self
            .log
            .texts()
            .iter()
            .filter(|t| t.key.method == UNSTEERED)
            .cloned()
            .collect())
    }

    /// Generates and judges what the log lacks; hands on what was done, piece by piece.
    pub fn go(
        &mut self,
        subjects: &[Subject],
        judge: &mut dyn Judge,
        seen: &mut dyn FnMut(Happened<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let have: HashSet<String> = self.log.texts().iter().map(|t| t.key.id()).collect();
        self.judge_missing(judge, seen, ctx)?;
        let of_cell = self.prompts.len() * self.config.samples;
        // Without texts only what rises is looked at.
        let (signs, unit): (&[i8], _) = if of_cell == 0 {
            (&[1], "directions")
        } else {
            (&[1, -1], "texts")
        };
        let aims: Vec<(&Subject, i8)> = subjects
            .iter()
            .flat_map(|s| signs.iter().map(move |&g| (s, g)))
            .collect();
        let total = if of_cell == 0 {
            aims.len()
        } else {
            texts_of(subjects.len(), self.config)
        };
        let mut standing = Standing {
            done: 0,
            total,
            unit,
            ctx,
        };
        let quiet = ctx.without_progress();
        let mut pending: Vec<Group> = Vec::new();
        for aims in aims.chunks(AIMS) {
            let pushes: Vec<Arc<Push>> = aims
                .iter()
                .map(|(subject, _)| subject.push())
                .collect::<Result<_>>()?;
            let strengths = self.strengths(aims, &pushes, &quiet)?;
            for (((subject, _), push), strengths) in aims.iter().zip(&pushes).zip(&strengths) {
                seen(Happened::Strengths(strengths))?;
                for found in strengths.iter().filter(|s| s.reached) {
                    let groups = self.groups(subject, found, push, &have);
                    // What an earlier run has done counts as done, and sets no rate.
                    let missing: usize = groups.iter().map(|g| g.samples.len()).sum();
                    standing.done += of_cell - missing;
                    pending.extend(groups);
                }
                // A target out of reach has no texts to wait for.
                standing.add(strengths.iter().filter(|s| !s.reached).count() * of_cell)?;
            }
            if of_cell == 0 {
                standing.add(aims.len())?;
            }
            while pending.iter().map(|g| g.samples.len()).sum::<usize>() >= self.config.batch {
                let count = full(&pending, self.config.batch);
                let batch: Vec<Group> = pending.drain(..count).collect();
                standing.add(self.batch(&batch, judge, seen, &quiet)?)?;
            }
        }
        while !pending.is_empty() {
            let count = full(&pending, self.config.batch);
            let batch: Vec<Group> = pending.drain(..count).collect();
            standing.add(self.batch(&batch, judge, seen, &quiet)?)?;
        }
        Ok(())
    }

    /// The α of every target of each aim, found where the log lacks them.
    fn strengths(
        &mut self,
        aims: &[(&Subject, i8)],
        pushes: &[Arc<Push>],
        ctx: &TaskCtx,
    ) -> Result<Vec<Vec<StrengthRecord>>> {
        let targets = &self.config.targets;
        let known = |(subject, sign): &(&Subject, i8)| -> Option<Vec<StrengthRecord>> {
            let all = self.log.strengths().iter();
            let of = all.filter(|s| {
                s.method == subject.method && s.label == subject.label && s.sign == *sign
            });
            let of: Vec<StrengthRecord> = of.cloned().collect();
            targets
                .iter()
                .all(|t| of.iter().any(|k| k.target == *t))
                .then_some(of)
        };
        let mut out: Vec<Option<Vec<StrengthRecord>>> = aims.iter().map(known).collect();
        let missing: Vec<usize> = (0..aims.len()).filter(|&i| out[i].is_none()).collect();
        let wanted: Vec<Aim> = missing
            .iter()
            .map(|&i| Aim {
                push: pushes[i].clone(),
                negative: aims[i].1 < 0,
            })
            .collect();
        if !wanted.is_empty() {
            let found = calibrate(
                self.model,
                &wanted,
                &self.prompts,
                targets,
                Positions::All,
                ctx,
            )?;
            for (&i, found) in missing.iter().zip(found) {
                let (subject, sign) = aims[i];
                let records = found
                    .into_iter()
                    .zip(targets)
                    .map(|(c, &target)| subject.strength(sign, target, c));
                out[i] = Some(records.collect());
            }
            let fresh = out
                .iter_mut()
                .enumerate()
                .filter(|(i, _)| missing.contains(i));
            let records = fresh.flat_map(|(i, of)| {
                of.iter_mut()
                    .flatten()
                    .map(move |r| (aims[i].0, &pushes[i], r))
            });
            self.rises(records.collect(), ctx)?;
            for i in missing {
                self.log
                    .add_strengths(out[i].as_deref().unwrap_or_default())?;
            }
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// Adds where each label's own words stand at the α that were found.
    fn rises(
        &self,
        found: Vec<(&Subject, &Arc<Push>, &mut StrengthRecord)>,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let mut found = found;
        found.retain(|(subject, _, record)| record.reached && !subject.words.is_empty());
        if found.is_empty() {
            return Ok(());
        }
        let steering = |push: &Arc<Push>, alpha| Steering {
            push: push.clone(),
            alpha,
        };
        let steerings: Vec<Steering> = found
            .iter()
            .map(|(_, push, record)| steering(push, record.alpha))
            .collect();
        each_change(
            self.model,
            &steerings,
            &self.prompts,
            Positions::All,
            ctx,
            |i, changes| {
                let (subject, _, record) = &mut found[i];
                record.rise = rise::percentile(changes, &subject.words);
            },
        )
    }

    /// A group a prompt, of the samples that the log lacks.
    fn groups(
        &self,
        subject: &Subject,
        found: &StrengthRecord,
        push: &Arc<Push>,
        have: &HashSet<String>,
    ) -> Vec<Group> {
        let key = |prompt, sample| Key {
            method: subject.method.clone(),
            label: subject.label.clone(),
            target: found.target,
            sign: found.sign,
            prompt,
            sample,
        };
        let group = |prompt| Group {
            push: Some(push.clone()),
            key: key(prompt, 0),
            direction: subject.direction,
            alpha: found.alpha,
            kl: found.kl,
            samples: (0..self.config.samples)
                .filter(|&s| !have.contains(&key(prompt, s).id()))
                .collect(),
        };
        (0..self.prompts.len())
            .map(group)
            .filter(|g| !g.samples.is_empty())
            .collect()
    }

    /// Generates, keeps and judges; gives the number of texts.
    fn batch(
        &mut self,
        groups: &[Group],
        judge: &mut dyn Judge,
        seen: &mut dyn FnMut(Happened<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<usize> {
        let texts = self.generate(groups, ctx)?;
        self.log.add_texts(&texts)?;
        self.judge(&texts, judge, seen, ctx)?;
        Ok(texts.len())
    }

    /// Judges texts of an earlier run that was stopped before their judgement, and those that a
    /// judge gave no rating.
    fn judge_missing(
        &mut self,
        judge: &mut dyn Judge,
        seen: &mut dyn FnMut(Happened<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let judged = self.log.judged(judge.name())?;
        let rated: HashSet<String> = judged
            .iter()
            .filter(|j| j.judgement.is_rated())
            .map(|j| j.key.id())
            .collect();
        let missing = |t: &&TextRecord| t.key.sign != 0 && !rated.contains(&t.key.id());
        let missing: Vec<TextRecord> = self.log.texts().iter().filter(missing).cloned().collect();
        missing
            .chunks(self.config.batch)
            .try_for_each(|texts| self.judge(texts, judge, seen, ctx))
    }

    fn judge(
        &mut self,
        texts: &[TextRecord],
        judge: &mut dyn Judge,
        seen: &mut dyn FnMut(Happened<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let case = |t: &TextRecord| Case {
            label: t.key.label.clone(),
            prompt: self.config.prompts[t.key.prompt].clone(),
            text: t.text.clone(),
            nll: t.nll,
            distinct: t.distinct,
        };
        let cases: Vec<Case> = texts.iter().map(case).collect();
        let said = judge.rate(&cases, ctx)?;
        let record = |(t, judgement): (&TextRecord, Judgement)| JudgedRecord {
            key: t.key.clone(),
            judgement,
        };
        let judged: Vec<JudgedRecord> = texts.iter().zip(said).map(record).collect();
        self.log.add_judged(judge.name(), &judged)?;
        seen(Happened::Texts(texts, &judged))
    }

    fn generate(&self, groups: &[Group], ctx: &TaskCtx) -> Result<Vec<TextRecord>> {
        let stream = |g: &Group, sample: usize| (g.key.prompt * 1000 + sample) as u64;
        let continuation = |g: &Group| Continuation {
            prompt: self.prompts[g.key.prompt].clone(),
            streams: g.samples.iter().map(|&s| stream(g, s)).collect(),
        };
        let continuations: Vec<Continuation> = groups.iter().map(continuation).collect();
        let steering = |g: &Group| {
            g.push.clone().map(|push| Steering {
                push,
                alpha: g.alpha,
            })
        };
        let rows = groups
            .iter()
            .flat_map(|g| std::iter::repeat_n(steering(g), g.samples.len()))
            .collect();
        let mut tap = SteerTap::new(rows, Touch::All)?;
        let made = generate(
            self.model,
            &continuations,
            &self.config.sampling,
            Arithmetic::Widened,
            &mut tap,
            &mut |_| {},
            ctx,
        )?;
        let places: Vec<(&Group, usize)> = groups
            .iter()
            .flat_map(|g| g.samples.iter().map(move |&s| (g, s)))
            .collect();
        let rows: Vec<(&[u32], &[u32])> = places
            .iter()
            .zip(&made)
            .map(|((g, _), m)| (&self.prompts[g.key.prompt][..], &m.ids[..]))
            .collect();
        let nll = perplexity::mean_nll(self.model, &rows, ctx)?;
        let record = |(((group, sample), made), nll): (
            (&(&Group, usize), crate::model::generate::GeneratedRow),
            f64,
        )| TextRecord {
            key: Key {
                sample: *sample,
                ..group.key.clone()
            },
            direction: group.direction,
            alpha: group.alpha,
            kl: group.kl,
            tokens: made.ids.len(),
            distinct: perplexity::distinct_share(&made.ids),
            text: made.text,
            nll,
        };
        Ok(places.iter().zip(made).zip(nll).map(record).collect())
    }
}

/// How far a run is.
struct Standing<'a> {
    done: usize,
    total: usize,
    unit: &'static str,
    ctx: &'a TaskCtx,
}

impl Standing<'_> {
    fn add(&mut self, count: usize) -> Result<()> {
        self.done += count;
        self.ctx.checkpoint(Progress::new(
            "steering",
            self.done as u64,
            self.total as u64,
            self.unit,
        ))
    }
}

/// How many of the first groups fill a batch: at least one.
fn full(groups: &[Group], batch: usize) -> usize {
    let mut rows = 0;
    let count = groups.iter().take_while(|g| {
        rows += g.samples.len();
        rows <= batch
    });
    count.count().max(1)
}
