//! Causal evaluation: does steering with a direction make the model speak of a concept, and still
//! speak well?
//!
//! Directions × KL targets × signs × prompts × samples, each text judged. Owns the plan,
//! the log of what was done ([`log`]) and the run, which continues from the log after it was killed
//! at any instant. Invariant: every method's texts have the same prompts,
//! draws and KL targets, so that methods compare.

mod config;
pub mod endpoint;
mod fluency;
pub mod free_text;
pub mod judge;
pub mod log;
pub mod meaning;
pub mod measures;
pub mod offline;
pub mod pace;
pub mod perplexity;
mod record;
pub mod report;
pub mod rise;
mod run;
mod separation;
pub mod side;
mod strengths;
pub mod vocabulary;
pub mod worded;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::steering::search::Calibration;
use crate::steering::{Intervention, Mode, SteerTerm};
pub use config::{Protocol, SteeringConfig, asked_texts_of, texts_of, unsteered_of};
pub use record::{JudgedRecord, StrengthRecord, TextKey, TextRecord, unreached};
use rise::Percentiles;
pub use run::Run;

/// The method under which unsteered texts are kept.
pub const UNSTEERED: &str = "unsteered";

/// The method under which random directions are kept that tell what chance gives a label's words.
pub const CHANCE: &str = "chance";

/// The same at a hook that is not the first method's.
pub fn chance_at(hook: impl std::fmt::Display) -> String {
    format!("{CHANCE} at {hook}")
}

/// Whether a record is of random directions that tell what chance gives.
pub fn is_chance(method: &str) -> bool {
    method
        .strip_prefix(CHANCE)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(" at "))
}

/// The words that are watched under every direction: of each label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchedWords {
    /// Names of the labels, in the order of the corpus.
    pub labels: Vec<String>,
    /// The tokens of each label's own words.
    pub words: Vec<Vec<u32>>,
    /// Those of them that are no words of the sentences that chose.
    pub new: Vec<Vec<u32>>,
}

impl WatchedWords {
    /// Where the words of each label that has any stand.
    fn places(
        &self,
        words_by_label: &[Vec<u32>],
        ranks: &Percentiles<'_>,
    ) -> BTreeMap<String, f64> {
        let each = self.labels.iter().zip(words_by_label);
        each.filter_map(|(label, words)| Some((label.clone(), ranks.mean(words)?)))
            .collect()
    }
}

/// A direction that a method offers for a label.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelDirection {
    /// The method: "k100", "diffmean", "random".
    pub method: String,
    /// The concept that it should make the model speak of.
    pub label: String,
    /// Its number in its set.
    pub direction: usize,
    /// The direction that is added, with its hook.
    pub term: SteerTerm,
    /// The first tokens of the label's own words.
    pub words: Vec<u32>,
}

impl LabelDirection {
    fn intervention(&self) -> Result<Arc<Intervention>> {
        Ok(Arc::new(Intervention::new(
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
            nats: None,
            places: BTreeMap::new(),
            new_places: BTreeMap::new(),
        }
    }
}

/// An event of a run, for its caller to show.
#[derive(Debug)]
pub enum RunEvent<'a> {
    /// α were found for one direction and sign.
    Strengths(&'a [StrengthRecord]),
    /// Texts with what a judge, by its name, said of them.
    Texts(&'a str, &'a [TextRecord], &'a [JudgedRecord]),
}
