//! The run of a causal evaluation: it searches strengths, generates texts and has them judged, where
//! the log does not hold them yet.
//!
//! Knows directions and a judge, not where they come from. Invariant: what an event reports is in the
//! log before it is reported.

use std::collections::HashSet;
use std::sync::Arc;

use super::judge::{Judgement, RatingCase, TextJudge};
use super::log::Log;
use super::{
    JudgedRecord, LabelDirection, RunEvent, SteeringConfig, StrengthRecord, TextKey, TextRecord,
    UNSTEERED, WatchedWords, perplexity, texts_of, unsteered_of,
};
use crate::error::{Error, Result};
use crate::model::generate::{Arithmetic, Continuation, generate};
use crate::model::{Model, Portion};
use crate::steering::Intervention;
use crate::steering::tap::{SteerTap, Steering, TokenSelection};
use crate::task::{Progress, TaskCtx};

/// Number of directions and signs whose α are searched together.
pub(super) const SEARCHED_TOGETHER: usize = 16;

/// A run: the model, the configuration, and the log that it continues from.
pub struct Run<'a> {
    pub(super) model: &'a Model,
    pub(super) config: &'a SteeringConfig,
    pub(super) prompts: Vec<Vec<u32>>,
    pub(super) watched: &'a WatchedWords,
    pub(super) log: &'a mut Log,
    /// The texts that are generated at once.
    pub(super) portion: Portion,
}

/// Texts to generate that differ in their draws alone: they share the prompt's key-value cache.
pub(super) struct TextGroup {
    pub intervention: Option<Arc<Intervention>>,
    /// What is read in place of the prompt, where the model is asked in words; it ends with the
    /// prompt.
    pub read: Option<Arc<Vec<u32>>>,
    pub key: TextKey,
    pub direction: usize,
    pub alpha: f64,
    pub kl: f64,
    pub samples: Vec<usize>,
}

impl<'a> Run<'a> {
    /// A run of `config` that continues from `log`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a configuration that asks for nothing or for a KL that is no positive
    /// number, and for a prompt without tokens.
    pub fn new(
        model: &'a Model,
        config: &'a SteeringConfig,
        watched: &'a WatchedWords,
        log: &'a mut Log,
    ) -> Result<Self> {
        config.check()?;
        let prompts = model.tokenizer().encode_all(&config.prompts, config.bos)?;
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
            watched,
            log,
            portion: Portion::unlimited(),
        })
    }

    /// The directory of the log.
    pub fn dir(&self) -> &std::path::Path {
        self.log.dir()
    }

    /// The unsteered texts, generated where the log lacks them.
    ///
    /// # Errors
    /// What the model and the log return; [`Error::Cancelled`].
    pub fn unsteered(&mut self, ctx: &TaskCtx) -> Result<Vec<TextRecord>> {
        let have: HashSet<String> = self.log.texts().iter().map(|t| t.key.id()).collect();
        let mut groups = Vec::new();
        for prompt in 0..self.prompts.len() {
            let key = |sample| TextKey {
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
            groups.push(TextGroup {
                intervention: None,
                read: None,
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
            let batch: Vec<TextGroup> = groups
                .drain(..groups_in_batch(&groups, self.config.batch))
                .collect();
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

    /// Generates and judges the texts that the log lacks; gives each batch to `on_event`.
    ///
    /// # Errors
    /// What the model, the log, the judge and `on_event` return; [`Error::Cancelled`]. The log
    /// keeps what was done, and another run continues from it.
    pub fn generate_and_judge(
        &mut self,
        subjects: &[LabelDirection],
        judge: &mut dyn TextJudge,
        on_event: &mut dyn FnMut(RunEvent<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let have: HashSet<String> = self.log.texts().iter().map(|t| t.key.id()).collect();
        self.judge_missing(judge, on_event, ctx)?;
        let of_cell = self.prompts.len() * self.config.samples;
        // Without texts only the rise of the labels' words is measured, for which α is positive.
        let (signs, unit): (&[i8], _) = if of_cell == 0 {
            (&[1], "directions")
        } else {
            (&[1, -1], "texts")
        };
        let signed: Vec<(&LabelDirection, i8)> = subjects
            .iter()
            .flat_map(|s| signs.iter().map(move |&g| (s, g)))
            .collect();
        let total = if of_cell == 0 {
            signed.len()
        } else {
            texts_of(subjects.len(), self.config)
        };
        let mut progress = RunProgress {
            done: 0,
            total,
            unit,
            ctx,
        };
        let quiet = ctx.without_progress();
        let mut pending: Vec<TextGroup> = Vec::new();
        for signed in signed.chunks(SEARCHED_TOGETHER) {
            let interventions: Vec<Arc<Intervention>> = signed
                .iter()
                .map(|(subject, _)| subject.intervention())
                .collect::<Result<_>>()?;
            let strengths = self.strengths(signed, &interventions, &quiet)?;
            for (((subject, _), intervention), strengths) in
                signed.iter().zip(&interventions).zip(&strengths)
            {
                on_event(RunEvent::Strengths(strengths))?;
                for found in strengths.iter().filter(|s| s.reached) {
                    let groups = self.groups(subject, found, intervention, &have);
                    // What an earlier run has done counts as done, and has no part in the rate.
                    let missing: usize = groups.iter().map(|g| g.samples.len()).sum();
                    progress.done += of_cell - missing;
                    pending.extend(groups);
                }
                // A target out of reach has no texts, which count as done.
                progress.add(strengths.iter().filter(|s| !s.reached).count() * of_cell)?;
            }
            if of_cell == 0 {
                progress.add(signed.len())?;
            }
            while pending.iter().map(|g| g.samples.len()).sum::<usize>() >= self.config.batch {
                let count = groups_in_batch(&pending, self.config.batch);
                let batch: Vec<TextGroup> = pending.drain(..count).collect();
                progress.add(self.batch(&batch, judge, on_event, &quiet)?)?;
            }
        }
        while !pending.is_empty() {
            let count = groups_in_batch(&pending, self.config.batch);
            let batch: Vec<TextGroup> = pending.drain(..count).collect();
            progress.add(self.batch(&batch, judge, on_event, &quiet)?)?;
        }
        Ok(())
    }

    /// One group a prompt, of the samples that the log lacks.
    fn groups(
        &self,
        subject: &LabelDirection,
        found: &StrengthRecord,
        intervention: &Arc<Intervention>,
        have: &HashSet<String>,
    ) -> Vec<TextGroup> {
        let key = |prompt, sample| TextKey {
            method: subject.method.clone(),
            label: subject.label.clone(),
            target: found.target,
            sign: found.sign,
            prompt,
            sample,
        };
        let group = |prompt| TextGroup {
            intervention: Some(intervention.clone()),
            read: None,
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

    /// Generates, logs and judges a batch; returns the number of texts.
    pub(super) fn batch(
        &mut self,
        groups: &[TextGroup],
        judge: &mut dyn TextJudge,
        on_event: &mut dyn FnMut(RunEvent<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<usize> {
        let texts = self.generate(groups, ctx)?;
        self.log.add_texts(&texts)?;
        self.judge(&texts, judge, on_event, ctx)?;
        Ok(texts.len())
    }

    /// Judges texts of an earlier run that was stopped before their judgement, and those that a
    /// judge gave no rating.
    fn judge_missing(
        &mut self,
        judge: &mut dyn TextJudge,
        on_event: &mut dyn FnMut(RunEvent<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let rated = self.log.rated(judge.name())?;
        let missing = |t: &&TextRecord| {
            t.key.sign != 0 && judge.knows(&t.key.label) && !rated.contains(&t.key.id())
        };
        let missing: Vec<TextRecord> = self.log.texts().iter().filter(missing).cloned().collect();
        missing
            .chunks(self.config.batch)
            .try_for_each(|texts| self.judge(texts, judge, on_event, ctx))
    }

    fn judge(
        &mut self,
        texts: &[TextRecord],
        judge: &mut dyn TextJudge,
        on_event: &mut dyn FnMut(RunEvent<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let case = |t: &TextRecord| RatingCase {
            label: t.key.label.clone(),
            prompt: self.config.prompts[t.key.prompt].clone(),
            text: t.text.clone(),
            nll: t.nll,
            distinct: t.distinct,
        };
        // What a judge does not know is another's to rate, of the same log.
        let known = texts.iter().filter(|t| judge.knows(&t.key.label));
        let texts = &known.cloned().collect::<Vec<TextRecord>>()[..];
        let cases: Vec<RatingCase> = texts.iter().map(case).collect();
        let judgements = judge.rate(&cases, ctx)?;
        let record = |(t, judgement): (&TextRecord, Judgement)| JudgedRecord {
            key: t.key.clone(),
            judgement,
        };
        let judged: Vec<JudgedRecord> = texts.iter().zip(judgements).map(record).collect();
        self.log.add_judged(judge.name(), &judged)?;
        on_event(RunEvent::Texts(judge.name(), texts, &judged))
    }

    fn generate(&mut self, groups: &[TextGroup], ctx: &TaskCtx) -> Result<Vec<TextRecord>> {
        let stream = |g: &TextGroup, sample: usize| (g.key.prompt * 1000 + sample) as u64;
        let continuation = |g: &TextGroup| Continuation {
            prompt: match &g.read {
                Some(read) => read.to_vec(),
                None => self.prompts[g.key.prompt].clone(),
            },
            streams: g.samples.iter().map(|&s| stream(g, s)).collect(),
        };
        let continuations: Vec<Continuation> = groups.iter().map(continuation).collect();
        let steering = |g: &TextGroup| {
            g.intervention.clone().map(|intervention| Steering {
                intervention,
                alpha: g.alpha,
            })
        };
        let rows = groups
            .iter()
            .flat_map(|g| std::iter::repeat_n(steering(g), g.samples.len()))
            .collect();
        let mut tap = SteerTap::new(rows, TokenSelection::All)?;
        let made = generate(
            self.model,
            &continuations,
            &self.config.sampling,
            Arithmetic::Widened,
            &mut self.portion,
            &mut tap,
            &mut |_| {},
            ctx,
        )?;
        let places: Vec<(&TextGroup, usize)> = groups
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
            (&(&TextGroup, usize), crate::model::generate::GeneratedRow),
            f64,
        )| TextRecord {
            key: TextKey {
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

/// Turns the tokens that are generated batch by batch into the progress of the whole run.
pub(super) struct RunProgress<'a> {
    pub done: usize,
    pub total: usize,
    pub unit: &'static str,
    pub ctx: &'a TaskCtx,
}

impl RunProgress<'_> {
    pub(super) fn add(&mut self, count: usize) -> Result<()> {
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
pub(super) fn groups_in_batch(groups: &[TextGroup], batch: usize) -> usize {
    let mut rows = 0;
    let count = groups.iter().take_while(|g| {
        rows += g.samples.len();
        rows <= batch
    });
    count.count().max(1)
}
