//! The configuration of a causal evaluation: targets, prompts, samples.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::BosRule;
use crate::model::generate::Sampling;
use crate::steering::calibrate::SearchMethod;

/// Unsteered texts of each prompt: what the offline judge is scaled by.
const UNSTEERED_SAMPLES: usize = 8;

/// A named set of numbers for an evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// A first look, which takes minutes.
    #[default]
    Short,
    /// The paper's: seven KL targets, eight texts of 50 tokens at each and sign. It has one prompt;
    /// here the eight texts are dealt out to the prompts, since the best strength is scored on
    /// others than it is chosen on.
    Paper,
}

/// Texts of a KL target and sign in the paper.
const PAPER_TEXTS: usize = 8;

impl Protocol {
    /// KL targets, texts of each of `prompts` prompts, and new tokens a text.
    pub fn numbers(self, prompts: usize) -> (Vec<f64>, usize, usize) {
        match self {
            Self::Short => (vec![0.1, 0.25, 0.5, 1.0], 1, 30),
            Self::Paper => (
                vec![0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5],
                PAPER_TEXTS.div_ceil(prompts.max(1)),
                50,
            ),
        }
    }
}

/// The configuration that every direction is evaluated with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SteeringConfig {
    /// KL(base ‖ steered) at the prompts' last tokens, the mean over them.
    pub targets: Vec<f64>,
    /// Texts to continue; α is found on all of them.
    pub prompts: Vec<String>,
    /// Texts of each prompt, target and sign; 0: none are written, α alone are found and what
    /// becomes of labels' words.
    pub samples: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The BOS rule of the study.
    pub bos: BosRule,
    /// How α is searched for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub search: SearchMethod,
    /// Whether the negative side takes −α of the positive one in place of a search of its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mirrored: bool,
    /// Rows generated at a time; has no part in what is drawn.
    #[serde(skip)]
    pub batch: usize,
}

/// What is left out of a plan, so that plans of earlier versions stay what they are.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for SteeringConfig {
    fn default() -> Self {
        let prompts = [
            "I think that",
            "The other day",
            "It is well known that",
            "She told me about",
        ];
        let (targets, samples, max_tokens) = Protocol::default().numbers(prompts.len());
        Self {
            targets,
            prompts: prompts.map(str::to_owned).to_vec(),
            samples,
            sampling: Sampling {
                max_tokens,
                ..Sampling::default()
            },
            bos: BosRule::Auto,
            search: SearchMethod::Curve,
            mirrored: false,
            batch: 64,
        }
    }
}

impl SteeringConfig {
    /// The paper's whole: its numbers, its one prompt, its search, the negative side with −α of the
    /// positive one.
    pub fn paper() -> Self {
        let mut out = Self {
            prompts: vec!["I think that".to_owned()],
            search: SearchMethod::Bisection,
            mirrored: true,
            ..Self::default()
        };
        out.by(Protocol::Paper);
        out
    }

    /// The same prompts and draws with a protocol's numbers.
    pub fn by(&mut self, protocol: Protocol) {
        (self.targets, self.samples, self.sampling.max_tokens) =
            protocol.numbers(self.prompts.len());
    }

    /// Refuses a configuration that asks for nothing, or for a KL that is no positive number.
    ///
    /// # Errors
    /// [`Error::Usage`] with what to give.
    pub fn check(&self) -> Result<()> {
        let none = |what: &str| {
            Err(Error::usage(format!(
                "nothing to evaluate: give at least one {what}"
            )))
        };
        if self.targets.is_empty() {
            return none("KL target");
        }
        if let Some(bad) = self.targets.iter().find(|t| !(t.is_finite() && **t > 0.0)) {
            return Err(Error::usage(format!(
                "a KL target must be a positive number, not {bad}: try 0.25"
            )));
        }
        match (self.prompts.len(), self.samples) {
            (0, _) => return none("prompt"),
            (1, 0 | 1) => {
                return Err(Error::usage(
                    "the best strength is chosen on one half of the prompts and reported on the other: give at least two, or \
                     one with several --samples, of which half chooses",
                ));
            }
            _ => {}
        }
        if self.samples > MOST_SAMPLES {
            return Err(Error::usage(format!(
                "--samples {} is too many: give at most {MOST_SAMPLES}",
                self.samples
            )));
        }
        let twice = |i: &usize| self.prompts[..*i].contains(&self.prompts[*i]);
        if let Some(i) = (0..self.prompts.len()).find(twice) {
            return Err(Error::usage(format!(
                "--prompt '{}' is named twice: leave one out",
                self.prompts[i]
            )));
        }
        let twice = |i: &usize| self.targets[..*i].contains(&self.targets[*i]);
        if let Some(i) = (0..self.targets.len()).find(twice) {
            return Err(Error::usage(format!(
                "--kl {} is named twice: leave one out",
                self.targets[i]
            )));
        }
        self.sampling.check()?;
        if self.sampling.max_tokens == 0 || self.batch == 0 {
            return none("token and row a batch");
        }
        Ok(())
    }
}

/// The most texts of a prompt: all of them wait in memory for their judge.
const MOST_SAMPLES: usize = 10_000;

/// Unsteered texts of a run.
pub fn unsteered_of(config: &SteeringConfig) -> usize {
    config.prompts.len() * config.samples.max(UNSTEERED_SAMPLES)
}

/// Texts that so many concepts have that the model is asked for in words.
pub fn asked_texts_of(concepts: usize, config: &SteeringConfig) -> usize {
    concepts * config.prompts.len() * config.samples
}

/// Texts that a run of so many subjects will hold when every target is reached.
pub fn texts_of(subjects: usize, config: &SteeringConfig) -> usize {
    subjects * 2 * config.targets.len() * config.prompts.len() * config.samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_twice_and_too_many_samples_are_refused() {
        let says = |change: fn(&mut SteeringConfig)| {
            let mut config = SteeringConfig::default();
            config.check().unwrap();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(says(|c| c.prompts.push(c.prompts[0].clone())).contains("named twice"));
        assert!(says(|c| c.targets = vec![0.25, 0.5, 0.25]).contains("--kl 0.25 is named twice"));
        assert!(says(|c| c.samples = 2_000_000_000).contains("at most 10000"));
        let most = SteeringConfig {
            samples: MOST_SAMPLES,
            ..SteeringConfig::default()
        };
        most.check().unwrap();
    }

    #[test]
    fn the_papers_numbers_go_by_one_word() {
        let mut config = SteeringConfig::default();
        config.by(Protocol::Paper);
        // 50 directions x 7 targets x 2 signs x 8 texts of 50 tokens.
        assert_eq!(
            (
                texts_of(50, &config),
                texts_of(50, &config) * config.sampling.max_tokens
            ),
            (5_600, 280_000)
        );
        config.prompts.truncate(3);
        config.by(Protocol::Paper);
        assert_eq!(config.samples, 3, "no fewer than eight");
        config.by(Protocol::Short);
        assert_eq!(
            config,
            SteeringConfig {
                prompts: config.prompts.clone(),
                ..SteeringConfig::default()
            }
        );
    }
}
