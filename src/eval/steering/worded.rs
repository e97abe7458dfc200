//! Prompting beside steering: the model is asked in words to speak of a concept, and steered with
//! nothing. It is what steering has to be held against (AxBench, arXiv 2501.17148).
//!
//! Owns the wording, and what is measured of it: texts from the same beginnings with the same draws, and
//! where words stand as the next token. It has neither α nor a KL that is sought, so it has one cell,
//! at target 0; the KL that it comes to is measured.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::judge::TextJudge;
use super::rise::Percentiles;
use super::run::{Run, RunProgress, TextGroup, groups_in_batch};
use super::{RunEvent, StrengthRecord, TextKey};
use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::chat::Turn;
use crate::model::{Batch, BosRule, Logits, Model, NoTap, Phase};
use crate::steering::change::changes;
use crate::task::TaskCtx;

/// The method's name, in what is typed and in the log.
pub const PROMPT: &str = "prompt";

/// The target under which its texts are kept: no KL is sought.
pub const NO_TARGET: f64 = 0.0;

/// A concept that the model is asked to speak of.
#[derive(Debug, Clone, PartialEq)]
pub struct WordedConcept {
    /// What its texts are kept under.
    pub label: String,
    /// The concept in words, as it is asked for.
    pub concept: String,
    /// The first tokens of the label's own words.
    pub words: Vec<u32>,
}

/// A label as it is said in a sentence: `weekday/Monday` is "Monday (weekday)", `body_parts` "body
/// parts".
pub fn concept_of(label: &str) -> String {
    let plain = label.replace('_', " ");
    match plain.rsplit_once('/') {
        Some((family, member)) if !family.is_empty() && !member.is_empty() => {
            format!("{member} ({})", family.replace('/', ", "))
        }
        _ => plain,
    }
}

/// What a person is told of how the model is asked.
pub fn how_asked(model: &Model) -> String {
    match model.tokenizer().chat() {
        Some(_) => format!(
            "{PROMPT}: the model is asked through its own chat template, and its answer begins with each prompt"
        ),
        None => format!(
            "{PROMPT}: the model has no chat template, so a plain instruction goes before each prompt"
        ),
    }
}

/// The ids that a text which begins with `beginning` is asked for with.
///
/// # Errors
/// A chat template that cannot be rendered, and what the tokenizer cannot encode.
pub fn asked_ids(model: &Model, concept: &str, beginning: &str, bos: BosRule) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer();
    match tokenizer.chat() {
        Some(chat) => {
            let request = format!(
                "Write about this: {concept}. Use words that belong to it. Begin with \"{beginning}\", and write nothing but the \
                 text."
            );
            let text = chat.render_answer(&[Turn::user(&request)], beginning)?;
            // A template writes what begins a text itself.
            tokenizer.encode(&text, BosRule::Never)
        }
        None => tokenizer.encode(
            &format!("A text about {concept}, in words that belong to it.\n\n{beginning}"),
            bos,
        ),
    }
}

impl Run<'_> {
    /// Asks for, generates and judges the texts that the log lacks, and measures where words stand as
    /// the next token.
    ///
    /// # Errors
    /// What the model, the log, the judge and `on_event` return; [`Error::Cancelled`]. The log
    /// keeps what was done.
    pub fn ask_in_words(
        &mut self,
        concepts: &[WordedConcept],
        judge: &mut dyn TextJudge,
        on_event: &mut dyn FnMut(RunEvent<'_>) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<()> {
        let have: HashSet<String> = self.log.texts().iter().map(|t| t.key.id()).collect();
        let of_concept = self.prompts.len() * self.config.samples;
        let (each, unit) = match of_concept {
            0 => (1, "concepts"),
            texts => (texts, "texts"),
        };
        let mut progress = RunProgress {
            done: 0,
            total: concepts.len() * each,
            unit,
            ctx,
        };
        let quiet = ctx.without_progress();
        let mut base = None;
        let mut pending: Vec<TextGroup> = Vec::new();
        for (number, concept) in concepts.iter().enumerate() {
            let asked = self.asked(concept)?;
            let found = self.measured_in_words(number, concept, &asked, &mut base, &quiet)?;
            on_event(RunEvent::Strengths(std::slice::from_ref(&found)))?;
            let groups = self.groups_in_words(&found, asked, &have);
            let missing: usize = groups.iter().map(|g| g.samples.len()).sum();
            progress.done += of_concept - missing;
            pending.extend(groups);
            if of_concept == 0 {
                progress.add(1)?;
            }
            let last = number + 1 == concepts.len();
            let waiting =
                |pending: &[TextGroup]| -> usize { pending.iter().map(|g| g.samples.len()).sum() };
            while waiting(&pending) >= self.config.batch || last && !pending.is_empty() {
                let count = groups_in_batch(&pending, self.config.batch);
                let batch: Vec<TextGroup> = pending.drain(..count).collect();
                progress.add(self.batch(&batch, judge, on_event, &quiet)?)?;
            }
        }
        Ok(())
    }

    /// What is read for each prompt.
    fn asked(&self, concept: &WordedConcept) -> Result<Vec<Arc<Vec<u32>>>> {
        let prompts = self.config.prompts.iter();
        let ids = prompts.map(|p| asked_ids(self.model, &concept.concept, p, self.config.bos));
        ids.map(|ids| Ok(Arc::new(ids?))).collect()
    }

    /// The record of a concept, measured where the log lacks it.
    fn measured_in_words(
        &mut self,
        number: usize,
        concept: &WordedConcept,
        asked: &[Arc<Vec<u32>>],
        base: &mut Option<Tensor>,
        ctx: &TaskCtx,
    ) -> Result<StrengthRecord> {
        let known = self.log.strengths().iter();
        let mut known = known.filter(|s| s.method == PROMPT && s.label == concept.label);
        if let Some(known) = known.next_back() {
            return Ok(known.clone());
        }
        let plain = match base {
            Some(base) => &*base,
            None => &*base.insert(last_logits(self.model, self.prompts.clone(), ctx)?),
        };
        let rows = asked.iter().map(|ids| ids.to_vec()).collect();
        let told = last_logits(self.model, rows, ctx)?;
        let found = changes(self.model, plain, &told)?.into_iter().next();
        let change = found.ok_or_else(|| Error::refused("the model gave no logits"))?;
        let ranks = Percentiles::of(&change.log_probs);
        let own = concept
            .words
            .iter()
            .filter_map(|&w| change.log_probs.get(w as usize));
        let rise = ranks.mean(&concept.words);
        let record = StrengthRecord {
            method: PROMPT.to_owned(),
            label: concept.label.clone(),
            direction: number,
            sign: 1,
            target: NO_TARGET,
            alpha: 0.0,
            kl: change.kl,
            reached: true,
            note: None,
            rise,
            nats: rise.map(|_| own.sum::<f64>() / concept.words.len() as f64),
            places: self.watched.places(&self.watched.words, &ranks),
            new_places: BTreeMap::new(),
        };
        self.log.add_strengths(std::slice::from_ref(&record))?;
        Ok(record)
    }

    /// One group a prompt, of the samples that the log lacks.
    fn groups_in_words(
        &self,
        found: &StrengthRecord,
        asked: Vec<Arc<Vec<u32>>>,
        have: &HashSet<String>,
    ) -> Vec<TextGroup> {
        let group = |(prompt, read): (usize, Arc<Vec<u32>>)| {
            let key = |sample| TextKey {
                method: PROMPT.to_owned(),
                label: found.label.clone(),
                target: NO_TARGET,
                sign: 1,
                prompt,
                sample,
            };
            let missing = |&sample: &usize| !have.contains(&key(sample).id());
            TextGroup {
                intervention: None,
                read: Some(read),
                key: key(0),
                direction: found.direction,
                alpha: 0.0,
                kl: found.kl,
                samples: (0..self.config.samples).filter(missing).collect(),
            }
        };
        let groups = asked.into_iter().enumerate().map(group);
        groups.filter(|g| !g.samples.is_empty()).collect()
    }
}

/// The logits of the next token after each row.
fn last_logits(model: &Model, rows: Vec<Vec<u32>>, ctx: &TaskCtx) -> Result<Tensor> {
    let batch = Batch {
        rows,
        samples: Vec::new(),
    };
    let logits = model.forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::Last, ctx)?;
    logits.ok_or_else(|| Error::refused("the model gave no logits for the prompt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_said_in_words() {
        for (label, said) in [
            ("months", "months"),
            ("body_parts", "body parts"),
            ("weekday/Monday", "Monday (weekday)"),
            ("a/b/c", "c (a, b)"),
            ("and/", "and/"),
            ("/", "/"),
        ] {
            assert_eq!(concept_of(label), said);
        }
    }
}
