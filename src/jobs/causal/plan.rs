//! What an evaluation will take, told before it begins: directions, texts, questions to a judge.

use serde::Serialize;

use super::{Prepared, case_of};
use crate::error::Result;
use crate::eval::judge::CostEstimate;
use crate::eval::steering::endpoint::EndpointJudge;
use crate::eval::steering::judge::{RatingCase, TextJudge};
use crate::eval::steering::report::ReportLine;
use crate::eval::steering::{JudgedRecord, UNSTEERED, asked_texts_of, texts_of, unsteered_of};

/// How much an evaluation generates at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Directions: one a method and label.
    pub directions: usize,
    /// Labels that the model is asked for in words.
    pub asked: usize,
    /// Steered texts when every KL target is reached.
    pub texts: usize,
    /// Those of them that the log has.
    pub written: usize,
    /// Tokens of a text.
    pub tokens: usize,
}

/// ", 8 labels asked in words", where there are any.
pub fn beside(asked: usize) -> String {
    match asked {
        0 => String::new(),
        n => format!(", {n} labels asked for in words"),
    }
}

impl Prepared {
    /// How much there is to generate, whatever labels a judge will leave out.
    pub fn plan(&self) -> Plan {
        let written = self
            .log
            .texts()
            .iter()
            .filter(|t| t.key.method != UNSTEERED)
            .count();
        let directions = self.directions.len();
        Plan {
            directions,
            asked: self.asked(),
            texts: self.all_texts(),
            written,
            tokens: self.config.sampling.max_tokens,
        }
    }

    fn asked(&self) -> usize {
        if self.asks { self.labels.len() } else { 0 }
    }

    /// Texts when every KL target is reached.
    fn all_texts(&self) -> usize {
        texts_of(self.directions.len(), &self.config) + asked_texts_of(self.asked(), &self.config)
    }

    /// What is reported on.
    pub fn reported(&self) -> &[ReportLine] {
        &self.reported
    }

    /// What a judge has said in earlier runs.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn judged(&self, judge: &str) -> Result<Vec<JudgedRecord>> {
        self.log.judged(judge)
    }

    /// What an endpoint would be asked at most, less the texts that it has rated.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn estimate(&self, judge: &EndpointJudge) -> Result<(usize, CostEstimate)> {
        let rated = self.log.rated(judge.name())?;
        // What is written is asked as it is, so what was answered is known; of the rest only the
        // number is.
        let (unsteered, steered): (Vec<_>, Vec<_>) = self
            .log
            .texts()
            .iter()
            .partition(|t| t.key.method == UNSTEERED);
        let open = steered.iter().filter(|t| !rated.contains(&t.key.id()));
        let mut cases: Vec<RatingCase> = open
            .map(|t| case_of(t, &t.key.label, &self.config.prompts))
            .collect();
        let of_label = |label: &String| {
            unsteered
                .iter()
                .map(|t| case_of(t, label, &self.config.prompts))
                .collect::<Vec<_>>()
        };
        cases.extend(self.labels.iter().flat_map(of_label));
        // A target that is known to be out of reach will have no texts.
        let unreached = self.log.strengths().iter().filter(|s| !s.reached).count();
        let none = unreached * self.config.prompts.len() * self.config.samples;
        let texts = self.all_texts().saturating_sub(steered.len() + none);
        let bare = unsteered_of(&self.config).saturating_sub(unsteered.len());
        let longest = self
            .config
            .prompts
            .iter()
            .map(|p| p.len().div_ceil(4))
            .max()
            .unwrap_or(0);
        let tokens = longest + self.config.sampling.max_tokens;
        Ok((
            rated.len(),
            judge.estimate(&cases, texts, bare, self.labels.len(), tokens),
        ))
    }
}
