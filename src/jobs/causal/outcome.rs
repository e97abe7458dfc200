//! What a causal evaluation came to, plain data for whoever shows it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::evaluation;
use super::case_of;
use crate::error::Result;
use crate::eval::steering::TextRecord;
use crate::eval::steering::free_text::FreeText;
use crate::eval::steering::judge::{Judgement, TextJudge};
use crate::eval::steering::measures::MeasureReport;
use crate::eval::steering::report::{ScoreDifference, SteeringReport};
use crate::eval::steering::rise::Rise;
use crate::eval::steering::worded::NO_TARGET;
use crate::task::TaskCtx;

/// What an evaluation came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Causal {
    /// Its name in the study.
    pub name: String,
    /// Where every text is kept.
    pub dir: PathBuf,
    /// The space of the first method.
    pub hook: String,
    /// Who rated: `offline`, `meaning (ENCODER)`, or the model behind an endpoint.
    pub judge: String,
    /// What its ratings mean.
    pub meaning: String,
    /// The labels that the judge can judge.
    pub labels: Vec<String>,
    /// Labels that the judge cannot judge, with reasons.
    #[serde(default)]
    pub not_judged: Vec<(String, String)>,
    /// How well the judge by meaning tells each label's sentences, of those that it was not learnt
    /// from, as AUROC; empty for another judge.
    #[serde(default)]
    pub aurocs: Vec<(String, f64)>,
    /// Why a text has no rating, of the first that has none.
    #[serde(default)]
    pub unrated: Option<String>,
    /// A report a method.
    pub methods: Vec<SteeringReport>,
    /// Where each method lives, in their order; empty for what is asked in words.
    #[serde(default)]
    pub hooks: Vec<String>,
    /// The first against the others.
    pub compared: Vec<ScoreDifference>,
    /// Members of families of which nothing chose; empty where sentences are divided.
    #[serde(default)]
    pub unseen: Vec<String>,
    /// Own words and perplexity of the texts.
    #[serde(default)]
    pub free_texts: Vec<FreeText>,
    /// What becomes of labels' own words.
    #[serde(default)]
    pub rises: Vec<Rise>,
    /// The rises beside what would have raised the words anyway, compared with one method.
    #[serde(default)]
    pub measures: Vec<MeasureReport>,
    /// Stopped before its end: what is told is told of the texts so far.
    #[serde(default)]
    pub stopped: bool,
    /// What unsteered texts get; `None` where none of them has a rating.
    pub unsteered: Option<Scores>,
    /// Methods with targets that were out of reach.
    pub unreached: Vec<Unreached>,
}

impl Causal {
    /// Whether its methods live in different spaces.
    pub fn spaces_differ(&self) -> bool {
        self.hooks.iter().any(|h| *h != self.hook && !h.is_empty())
    }

    /// Where a method lives; `None` for what is asked in words.
    pub fn hook_of(&self, method: &str) -> Option<&str> {
        let at = self.methods.iter().position(|r| r.method == method);
        let hook = at.and_then(|i| self.hooks.get(i)).unwrap_or(&self.hook);
        Some(hook.as_str()).filter(|h| !h.is_empty())
    }

    /// What a method is called in a table: with its hook where hooks differ.
    pub fn shown(&self, method: &str) -> String {
        match self.hook_of(method) {
            Some(hook) => evaluation::shown(method, hook, self.spaces_differ()),
            None => method.to_owned(),
        }
    }

    /// The same at a KL, where one was sought.
    pub fn shown_at(&self, method: &str, target: f64) -> String {
        let name = self.shown(method);
        match target {
            NO_TARGET => name,
            target => format!("{name}, KL {target}"),
        }
    }

    /// Where all of it is, for a title.
    pub fn place(&self) -> &str {
        if self.spaces_differ() {
            "several hooks"
        } else {
            &self.hook
        }
    }
}

/// Means over labels and texts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Scores {
    /// Mean of the harmonic means of concept and fluency, 0 to 2.
    pub score: f64,
    /// Mean rating of the concept, 0 to 2.
    pub concept: f64,
    /// Mean rating of fluency, 0 to 2.
    pub fluency: f64,
}

/// How many of a method's KL targets were out of reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unreached {
    /// The method whose directions these are.
    pub method: String,
    /// How many targets were out of reach.
    pub unreached: usize,
    /// How many targets there were.
    pub targets: usize,
    /// The largest KL that one of these came to.
    pub largest_kl: f64,
}

/// What a judge says of unsteered texts, the mean over labels and texts.
pub(in crate::jobs) fn unsteered_scores(
    texts: &[TextRecord],
    labels: &[String],
    prompts: &[String],
    judge: &mut dyn TextJudge,
    ctx: &TaskCtx,
) -> Result<Option<Scores>> {
    let (mut sums, mut count) = (Scores::default(), 0.0f64);
    for label in labels {
        let case = |t: &TextRecord| case_of(t, label, prompts);
        for judgement in judge.rate(&texts.iter().map(case).collect::<Vec<_>>(), ctx)? {
            if let (Judgement::Rated { concept, fluency }, Some(score)) =
                (&judgement, judgement.score())
            {
                sums = Scores {
                    score: sums.score + score,
                    concept: sums.concept + concept,
                    fluency: sums.fluency + fluency,
                };
                count += 1.0;
            }
        }
    }
    let mean = Scores {
        score: sums.score / count,
        concept: sums.concept / count,
        fluency: sums.fluency / count,
    };
    Ok((count > 0.0).then_some(mean))
}

impl Unreached {
    /// What [`unreached`](crate::eval::steering::unreached) counts, a line a method.
    pub(crate) fn of(counted: BTreeMap<String, (usize, usize, f64)>) -> Vec<Self> {
        let line = |(method, (unreached, targets, largest_kl))| Self {
            method,
            unreached,
            targets,
            largest_kl,
        };
        counted.into_iter().map(line).collect()
    }
}
