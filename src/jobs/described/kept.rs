//! Under what the texts of an evaluation by descriptions are kept and found: its log, and the description
//! that each key stands for.

use std::collections::HashMap;

use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::super::causal::asked_digests;
use super::super::measured::computed;
use super::subjects::{Offered, halves};
use super::units::{Concept, distinct};
use super::{PreparedUnits, SENTENCES};
use crate::error::Result;
use crate::eval::judge::sentences::WrittenSentences;
use crate::eval::steering::judge::TextJudge;
use crate::eval::steering::log::Log;
use crate::eval::steering::side::Side;
use crate::eval::steering::vocabulary::LabelledText;
use crate::eval::steering::worded::WordedConcept;
use crate::model::Model;
use crate::study::Study;

impl PreparedUnits {
    /// Opens the log of just this evaluation.
    pub(super) fn log(
        &self,
        study: &Study,
        model: &Model,
        concepts: &[Concept],
        offered: &[Offered],
    ) -> Result<(String, Log)> {
        let asked = match self.units.asks {
            true => Some(asked_digests(model, &self.ask.config, distinct(concepts))?),
            false => None,
        };
        let model = computed(study, model);
        let keys = concepts
            .iter()
            .map(|c| json!([self.units.key(c.unit), c.side, c.text]));
        let mut plan = json!({"config": self.ask.config, "model": model, "seed": self.ask.seed,
            "concepts": keys.collect::<Vec<_>>(),
            "directions": offered.iter().map(|o| json!([o.subject.method, o.subject.label, o.subject.direction,
                format!("{:016x}", xxh3_64(bytemuck::cast_slice::<f32, u8>(&o.subject.term.direction)))])).collect::<Vec<_>>()});
        // Another number of sentences teaches the judge otherwise.
        if self.ask.sentences != SENTENCES {
            plan["sentences"] = json!(self.ask.sentences);
        }
        if let Some(asked) = asked {
            plan["asked"] = json!(asked);
        }
        let name =
            self.ask.name.clone().unwrap_or_else(|| {
                format!("described-{:016x}", xxh3_64(plan.to_string().as_bytes()))
            });
        let log = Log::open(&study.evaluation_dir(&name)?, &plan)?;
        Ok((name, log))
    }

    /// The descriptions of a side that the model is asked to speak of: those of the first set.
    pub(super) fn worded(
        &self,
        concepts: &[Concept],
        side: Side,
        judge: &dyn TextJudge,
    ) -> Vec<WordedConcept> {
        let of_side = concepts
            .iter()
            .filter(|c| c.side == side && self.units.in_first(c.unit));
        let worded = of_side.map(|c| WordedConcept {
            label: format!("{}{}", self.units.key(c.unit), side.suffix()),
            concept: c.text.clone(),
            words: Vec::new(),
        });
        worded.filter(|c| judge.knows(&c.label)).collect()
    }

    /// Which description each key stands for on a side.
    pub(super) fn descriptions(&self, concepts: &[Concept], side: Side) -> HashMap<String, String> {
        let of_side = concepts.iter().filter(|c| c.side == side);
        let both = |c: &Concept| {
            let key = self.units.key(c.unit);
            let own = format!("{key}{}", side.suffix());
            [(key, c.text.clone()), (own, c.text.clone())]
        };
        of_side.flat_map(both).collect()
    }
}

/// What the judge by meaning learns a description from, and what it is scaled by: the description and
/// the sentences that differences in means are made from, then those that S_CD is measured on.
pub(super) fn examples<'a>(
    concepts: &'a [Concept],
    written: &'a HashMap<String, WrittenSentences>,
) -> (Vec<LabelledText<'a>>, Vec<LabelledText<'a>>) {
    let (mut learn, mut scale) = (Vec::new(), Vec::new());
    for text in distinct(concepts) {
        learn.push((text, text));
        if let Some(sentences) = written.get(text) {
            let (first, second) = halves(&sentences.activating);
            learn.extend(first.map(|s| (text, s.as_str())));
            scale.extend(second.map(|s| (text, s.as_str())));
        }
    }
    (learn, scale)
}
