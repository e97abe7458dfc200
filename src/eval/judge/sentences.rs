//! A description put to the test by the model itself: a judge writes sentences that fit it and
//! sentences that do not, and the direction is to tell them apart (concept detection of arXiv
//! 2506.10920, with sentences by a language model).
//!
//! Owns the questions and the score. Knows no model: the caller computes how strongly a sentence
//! expresses a direction.

use serde::{Deserialize, Serialize};

use super::prompts;
use super::readers::read_sentences;
use super::{Answer, JudgeClient, Question};
use crate::error::Result;
use crate::eval::detection;
use crate::task::TaskCtx;

/// Sentences of each kind.
const SENTENCES: usize = 5;

/// A sentence of a judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sentence {
    /// The sentence as the judge wrote it, without its number.
    pub text: String,
    /// How strongly it expresses the direction: the largest cosine of its tokens.
    pub score: f64,
}

/// How well a direction separates sentences that fit its description from others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sentences {
    /// The sentences that were written to fit the description.
    pub activating: Vec<Sentence>,
    /// Those that have nothing to do with it.
    pub neutral: Vec<Sentence>,
    /// ln(mean score of the activating / mean score of the neutral sentences); `None` where it is
    /// undefined.
    pub s_cd: Option<f64>,
}

/// The scores of sentences on the direction of that place in what is described.
pub type Scorer<'a> = dyn FnMut(usize, &[String]) -> Result<Vec<f64>> + 'a;

impl Sentences {
    fn of(activating: Vec<Sentence>, neutral: Vec<Sentence>) -> Self {
        let s_cd = detection::s_cd(mean(&activating), mean(&neutral));
        Self {
            activating,
            neutral,
            s_cd,
        }
    }

    /// The reason why S_CD is undefined, where it is.
    pub fn why_undefined(&self) -> Option<String> {
        let (activating, neutral) = (mean(&self.activating), mean(&self.neutral));
        self.s_cd.is_none().then(|| {
            format!(
                "S_CD is undefined: the mean scores, {activating:.3} and {neutral:.3} (neutral), are not both above 0"
            )
        })
    }

    /// The means of both kinds.
    pub fn means(&self) -> (f64, f64) {
        (mean(&self.activating), mean(&self.neutral))
    }
}

fn mean(sentences: &[Sentence]) -> f64 {
    sentences.iter().map(|s| s.score).sum::<f64>() / sentences.len().max(1) as f64
}

/// The questions of a description: activating, then neutral sentences.
pub(super) fn questions(description: &str) -> [Question; 2] {
    [false, true].map(|neutral| prompts::sentences(description, SENTENCES, neutral))
}

/// Asks the judge for sentences on each description, and scores them; returns each result with its
/// errors, one line each.
///
/// # Errors
/// As [`JudgeClient::ask`], and what `score` returns.
pub(super) fn score_written_sentences(
    judge: &mut JudgeClient,
    descriptions: &[Option<&str>],
    score: &mut Scorer<'_>,
    ctx: &TaskCtx,
) -> Result<Vec<(Option<Sentences>, Vec<String>)>> {
    let asked: Vec<Question> = descriptions
        .iter()
        .flatten()
        .flat_map(|d| questions(d))
        .collect();
    let mut answers = judge.ask(&asked, ctx)?.into_iter();
    let mut out = Vec::with_capacity(descriptions.len());
    for (i, description) in descriptions.iter().enumerate() {
        let mut errors = Vec::new();
        let mut kinds = Vec::new();
        for kind in ["activating", "neutral"]
            .into_iter()
            .filter(|_| description.is_some())
        {
            let texts = answers.next().map_or_else(Vec::new, |answer| {
                parse_sentences(answer, kind, SENTENCES, &mut errors)
            });
            let scores = if texts.is_empty() {
                Vec::new()
            } else {
                score(i, &texts)?
            };
            let sentences = texts
                .into_iter()
                .zip(scores)
                .map(|(text, score)| Sentence { text, score });
            kinds.push(sentences.collect::<Vec<_>>());
        }
        let found = match (kinds.pop(), kinds.pop()) {
            (Some(neutral), Some(activating)) if !neutral.is_empty() && !activating.is_empty() => {
                Some(Sentences::of(activating, neutral))
            }
            _ => None,
        };
        errors.extend(found.as_ref().and_then(Sentences::why_undefined));
        out.push((found, errors));
    }
    Ok(out)
}

/// Sentences for a description that nothing has been scored on yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WrittenSentences {
    /// Those that fit the description.
    pub activating: Vec<String>,
    /// Those that have nothing to do with it.
    pub neutral: Vec<String>,
    /// What is missing and why, one line each.
    pub errors: Vec<String>,
}

/// The questions for `count` sentences of each kind: what fits, then what does not.
pub fn writing_questions(description: &str, count: usize) -> [Question; 2] {
    [false, true].map(|neutral| prompts::sentences(description, count, neutral))
}

/// Has `count` sentences of each kind written for each description.
///
/// # Errors
/// As [`JudgeClient::ask`]; what a single answer lacks is in [`WrittenSentences::errors`].
pub fn write(
    judge: &mut JudgeClient,
    descriptions: &[&str],
    count: usize,
    ctx: &TaskCtx,
) -> Result<Vec<WrittenSentences>> {
    let asked: Vec<Question> = descriptions
        .iter()
        .flat_map(|d| writing_questions(d, count))
        .collect();
    let mut answers = judge.ask(&asked, ctx)?.into_iter();
    let mut out = Vec::with_capacity(descriptions.len());
    for _ in descriptions {
        let mut found = WrittenSentences::default();
        let errors = &mut found.errors;
        let mut next = |kind: &str| {
            let answer = answers.next();
            answer.map_or_else(Vec::new, |a| parse_sentences(a, kind, count, errors))
        };
        (found.activating, found.neutral) = (next("activating"), next("neutral"));
        out.push(found);
    }
    Ok(out)
}

/// The sentences of an answer, no more than were asked for.
fn parse_sentences(
    answer: Result<Answer, String>,
    kind: &str,
    wanted: usize,
    errors: &mut Vec<String>,
) -> Vec<String> {
    let texts = match answer {
        Ok(answer) => read_sentences(&answer.text),
        Err(why) => {
            errors.push(format!("{kind} sentences: {why}"));
            return Vec::new();
        }
    };
    if texts.len() < wanted {
        errors.push(format!(
            "{kind} sentences: the answer holds {} of {wanted}",
            texts.len()
        ));
    }
    texts.into_iter().take(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(scores: &[f64]) -> Vec<Sentence> {
        scores
            .iter()
            .map(|&score| Sentence {
                text: "a".to_owned(),
                score,
            })
            .collect()
    }

    #[test]
    fn the_score_is_the_logarithm_of_the_ratio_of_means() {
        let found = Sentences::of(scored(&[0.2, 0.4]), scored(&[0.1, 0.05]));
        assert!((found.s_cd.unwrap() - 4f64.ln()).abs() < 1e-12 && found.why_undefined().is_none());
        let none = Sentences::of(scored(&[0.2]), scored(&[0.1, -0.3]));
        assert!(
            none.s_cd.is_none()
                && none
                    .why_undefined()
                    .unwrap()
                    .contains("0.200 and -0.100 (neutral)")
        );
    }

    #[test]
    fn no_more_sentences_than_were_asked_for_and_fewer_are_told() {
        let mut errors = Vec::new();
        let answer = |text: &str| {
            Ok(Answer {
                text: text.to_owned(),
                prompt_tokens: 0,
                completion_tokens: 0,
            })
        };
        let many = "Here are some sentences:\n".to_owned() + &"The tide came in.\n".repeat(9);
        assert_eq!(
            parse_sentences(answer(&many), "neutral", SENTENCES, &mut errors),
            vec!["The tide came in."; 5]
        );
        assert!(errors.is_empty());
        assert_eq!(
            parse_sentences(
                answer("1. The tide came in."),
                "neutral",
                SENTENCES,
                &mut errors
            )
            .len(),
            1
        );
        parse_sentences(
            Err("status 500".to_owned()),
            "neutral",
            SENTENCES,
            &mut errors,
        );
        assert_eq!(
            errors,
            [
                "neutral sentences: the answer holds 1 of 5",
                "neutral sentences: status 500"
            ]
        );
    }
}
