//! The lines of a run's log: strengths, texts, judgements.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_chance;
use super::judge::Judgement;

/// The key of a text: a method's direction for a label, a KL target and sign, a prompt and a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextKey {
    /// Name of the method.
    pub method: String,
    /// The label; empty for unsteered texts.
    pub label: String,
    /// The KL target; 0 for unsteered texts.
    pub target: f64,
    /// 1 promotes, −1 suppresses, 0 is unsteered.
    pub sign: i8,
    /// Index of the prompt in the configuration.
    pub prompt: usize,
    /// The sample of that prompt.
    pub sample: usize,
}

impl TextKey {
    /// The key as a string, for maps: equal for equal keys.
    pub fn id(&self) -> String {
        let Self {
            method,
            label,
            target,
            sign,
            prompt,
            sample,
        } = self;
        format!("{method}\u{1f}{label}\u{1f}{target}\u{1f}{sign}\u{1f}{prompt}\u{1f}{sample}")
    }
}

/// A generated text, as a line of `texts.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextRecord {
    /// The key of the text.
    #[serde(flatten)]
    pub key: TextKey,
    /// The direction's number in its set.
    pub direction: usize,
    /// The strength α with its sign.
    pub alpha: f64,
    /// The KL that α reached on the prompts.
    pub kl: f64,
    /// The new text, without the prompt.
    pub text: String,
    /// Number of new tokens.
    pub tokens: usize,
    /// Mean negative log-likelihood of the new tokens under the unsteered model, nats a token.
    pub nll: f64,
    /// Distinct runs of three tokens among all.
    pub distinct: f64,
}

#[cfg(test)]
impl TextRecord {
    /// An unsteered text of nine tokens.
    pub(super) fn unsteered(text: &str, nll: f64, distinct: f64) -> Self {
        Self {
            key: TextKey {
                method: "unsteered".into(),
                label: String::new(),
                target: 0.0,
                sign: 0,
                prompt: 0,
                sample: 0,
            },
            direction: 0,
            alpha: 0.0,
            kl: 0.0,
            text: text.to_owned(),
            tokens: 9,
            nll,
            distinct,
        }
    }
}

/// The α that was found for a direction, sign and target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StrengthRecord {
    /// Name of the method.
    pub method: String,
    /// The label that the direction was chosen for.
    pub label: String,
    /// Index of the direction in its set.
    pub direction: usize,
    /// The sign of α: 1 promotes, −1 suppresses.
    pub sign: i8,
    /// The KL target in nats.
    pub target: f64,
    /// The strength α with its sign.
    pub alpha: f64,
    /// The KL reached: the largest seen where the target was out of reach.
    pub kl: f64,
    /// Whether the target was reached.
    pub reached: bool,
    /// What a person should know.
    pub note: Option<String>,
    /// Where the label's own words stand among all tokens' changes ([`super::rise::percentile`]).
    #[serde(default)]
    pub rise: Option<f64>,
    /// The mean change of the label's own words' log-probabilities, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<f64>,
    /// Where every label's words stand, its own among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<String, f64>,
    /// The same of the words that the label's choosing sentences lack.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub new_places: BTreeMap<String, f64>,
}

/// What was judged of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JudgedRecord {
    /// The key of the text.
    #[serde(flatten)]
    pub key: TextKey,
    /// What the judge said.
    #[serde(flatten)]
    pub judgement: Judgement,
}

/// Targets that could not be reached: by method, how many of how many, and the largest KL that one
/// of them came to.
pub fn unreached(strengths: &[StrengthRecord]) -> BTreeMap<String, (usize, usize, f64)> {
    let mut out: BTreeMap<String, (usize, usize, f64)> = BTreeMap::new();
    for s in strengths.iter().filter(|s| !is_chance(&s.method)) {
        let entry = out.entry(s.method.clone()).or_default();
        entry.1 += 1;
        if !s.reached {
            entry.0 += 1;
            entry.2 = entry.2.max(s.kl);
        }
    }
    out
}
