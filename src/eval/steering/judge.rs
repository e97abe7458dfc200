//! Rating texts: the trait of a judge, what it is given, what it returns, and the score.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::task::TaskCtx;

/// A text to be rated.
#[derive(Debug, Clone, PartialEq)]
pub struct RatingCase {
    /// The label that names the concept.
    pub label: String,
    /// What the text continues.
    pub prompt: String,
    /// The generated text, without the prompt.
    pub text: String,
    /// Mean negative log-likelihood of its tokens under the unsteered model.
    pub nll: f64,
    /// Distinct runs of three tokens among all.
    pub distinct: f64,
}

/// A judge's ratings of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Judgement {
    /// Both ratings, each in 0..=2.
    Rated {
        /// How much the text is about the concept.
        concept: f64,
        /// How well it reads.
        fluency: f64,
    },
    /// No rating, and why: such a text is in no mean, and the next run asks about it again.
    Unrated {
        /// The reason, in one line.
        unrated: String,
    },
}

impl Judgement {
    /// Whether there is a rating.
    pub fn is_rated(&self) -> bool {
        matches!(self, Self::Rated { .. })
    }

    /// The harmonic mean of concept and fluency, 0 where either is 0 (arXiv 2506.10920); `None`
    /// without a rating.
    pub fn score(&self) -> Option<f64> {
        let Self::Rated { concept, fluency } = self else {
            return None;
        };
        Some(if *concept > 0.0 && *fluency > 0.0 {
            2.0 / (1.0 / concept + 1.0 / fluency)
        } else {
            0.0
        })
    }
}

/// Rates texts. Ratings of two judges are never mixed in one table: each judge has a name and a log
/// of its own.
pub trait TextJudge {
    /// The name in the log and in tables.
    fn name(&self) -> &str;

    /// What its ratings mean, in a line.
    fn describe(&self) -> String;

    /// Whether it can rate texts of a label.
    fn knows(&self, _label: &str) -> bool {
        true
    }

    /// One judgement a case, in their order. A case it cannot rate is [`Judgement::Unrated`], never
    /// 0.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled), and a judge that cannot go on.
    fn rate(&mut self, cases: &[RatingCase], ctx: &TaskCtx) -> Result<Vec<Judgement>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_harmonic_mean() {
        let score = |concept, fluency| Judgement::Rated { concept, fluency }.score().unwrap();
        assert_eq!(
            (score(2.0, 2.0), score(0.0, 2.0), score(1.0, 0.0)),
            (2.0, 0.0, 0.0)
        );
        assert!((score(1.0, 2.0) - 4.0 / 3.0).abs() < 1e-12);
        let none = Judgement::Unrated {
            unrated: "silence".into(),
        };
        assert_eq!((none.score(), none.is_rated()), (None, false));
        let json = serde_json::to_string(&none).unwrap();
        assert_eq!(serde_json::from_str::<Judgement>(&json).unwrap(), none);
    }
}
