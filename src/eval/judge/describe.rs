//! Descriptions of features by a judge, from their contexts and from the words that they promote,
//! and how well the first tell the features' texts from others, and the features sentences that
//! were written for the descriptions.
//!
//! A description is written from every other context, and scored on the remaining contexts and on as
//! many texts where the feature is silent.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::prompts::{self, MARKS};
use super::readers;
use super::score::{Score, score as scored_verdicts};
use super::sentences::{self, Scorer, Sentences};
use super::{Answer, CostEstimate, JudgeClient, Question};
use crate::analysis::{Context, FeatureCard};
use crate::corpus::TokenTable;
use crate::error::Result;
use crate::factor::Factors;
use crate::pieces;
use crate::task::TaskCtx;

/// A token counts as active from this share of its context's peak (as in delphi).
const ACTIVE: f32 = 0.3;
/// A text where the feature stays below this share of its largest coefficient is one of the others.
const SILENT: f32 = 0.05;
/// Texts of one question.
const BATCH: usize = 5;
/// Longest text of the others, in tokens, as contexts are.
const WINDOW: usize = 32;
/// Words of the logit lens that are shown.
const PROMOTED: usize = 20;

/// A text that a description is scored on.
#[derive(Debug, Clone, PartialEq)]
struct ScoringText {
    plain: String,
    marked: String,
    /// Whether the feature fires in it.
    own: bool,
}

/// All that a judge is shown of a feature.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureMaterial {
    /// The id of the feature.
    pub id: usize,
    shown: Vec<String>,
    trials: Vec<Vec<ScoringText>>,
    promoted: Vec<String>,
    suppressed: Vec<String>,
}

/// A judge's descriptions of a feature and their scores, as a study stores them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// From the texts that excite it.
    pub input: Option<String>,
    /// From the words that it promotes.
    pub output: Option<String>,
    /// How well `input` separates the feature's texts from others.
    pub detection: Option<Score>,
    /// How well `input` separates the feature's words from others.
    pub fuzzing: Option<Score>,
    /// How well the direction separates sentences written for `input` from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_sentences: Option<Sentences>,
    /// How well it separates sentences written for `output` from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_sentences: Option<Sentences>,
    /// The judge's name: model and address.
    pub judge: String,
    /// What is missing and why, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

impl FeatureMaterial {
    /// Takes a feature's material from its card (with its logit lens, where there is one) and the
    /// study's texts.
    pub fn of(card: &FeatureCard, factors: &Factors, tokens: &TokenTable) -> Self {
        let id = card.row.id;
        let mut rng = Pcg64Mcg::seed_from_u64(id as u64);
        let (shown, held): (Vec<_>, Vec<_>) = card
            .contexts
            .iter()
            .enumerate()
            .partition(|(i, _)| i % 2 == 0);
        let mut trials: Vec<ScoringText> =
            held.into_iter().map(|(_, context)| own(context)).collect();
        let marks = trials
            .iter()
            .map(|t| t.marked.matches(MARKS.0).count())
            .sum::<usize>();
        let marks = marks.div_ceil(trials.len().max(1)).max(1);
        trials.extend(others(card, factors, tokens, trials.len(), marks, &mut rng));
        trials.shuffle(&mut rng);
        let words = |list: &[crate::analysis::ScoredToken]| -> Vec<String> {
            list.iter()
                .take(PROMOTED)
                .map(|t| t.token.trim().to_owned())
                .filter(|t| !t.is_empty())
                .collect()
        };
        Self {
            id,
            shown: shown
                .into_iter()
                .map(|(_, context)| own(context).marked)
                .collect(),
            trials: trials.chunks(BATCH).map(<[ScoringText]>::to_vec).collect(),
            promoted: words(&card.promoted),
            suppressed: words(&card.suppressed),
        }
    }

    fn inputs(&self) -> Question {
        prompts::describe_inputs(&self.shown)
    }

    fn outputs(&self) -> Option<Question> {
        (!self.promoted.is_empty())
            .then(|| prompts::describe_outputs(&self.promoted, &self.suppressed))
    }

    fn detection(&self, description: &str) -> Vec<Question> {
        let plain =
            |batch: &Vec<ScoringText>| batch.iter().map(|t| t.plain.clone()).collect::<Vec<_>>();
        self.trials
            .iter()
            .map(|batch| prompts::detect(description, &plain(batch)))
            .collect()
    }

    fn fuzzing(&self, description: &str) -> Vec<Question> {
        let marked =
            |batch: &Vec<ScoringText>| batch.iter().map(|t| t.marked.clone()).collect::<Vec<_>>();
        self.trials
            .iter()
            .map(|batch| prompts::fuzz(description, &marked(batch)))
            .collect()
    }

    fn truth(&self) -> Vec<Vec<bool>> {
        self.trials
            .iter()
            .map(|batch| batch.iter().map(|t| t.own).collect())
            .collect()
    }
}

fn own(context: &Context) -> ScoringText {
    let floor = ACTIVE * context.values.get(context.peak).copied().unwrap_or(0.0);
    let active: Vec<bool> = context
        .values
        .iter()
        .map(|&v| v > 0.0 && v >= floor)
        .collect();
    ScoringText {
        plain: context.tokens.concat(),
        marked: mark(&context.tokens, &active),
        own: true,
    }
}

/// Texts where the feature is silent, each with `marks` tokens marked at random.
fn others(
    card: &FeatureCard,
    factors: &Factors,
    tokens: &TokenTable,
    count: usize,
    marks: usize,
    rng: &mut Pcg64Mcg,
) -> Vec<ScoringText> {
    let values = factors.coefficients.feature(card.row.id);
    let floor = SILENT * card.peak;
    let mut start = 0;
    let mut silent: Vec<std::ops::Range<usize>> = Vec::new();
    for run in
        tokens.rows[..values.len().min(tokens.rows.len())].chunk_by(|a, b| a.sample == b.sample)
    {
        let rows = start..start + run.len();
        start = rows.end;
        if rows.len() > 2 && values[rows.clone()].iter().all(|&v| v <= floor) {
            silent.push(rows);
        }
    }
    silent.shuffle(rng);
    let trial = |rows: std::ops::Range<usize>, rng: &mut Pcg64Mcg| {
        let length = rows.len().min(WINDOW);
        let first = rng.random_range(rows.start..=rows.end - length);
        let pieces: Vec<String> = (first..first + length)
            .map(|row| tokens.piece(row).to_owned())
            .collect();
        let pieces = pieces::join_characters(&pieces);
        let mut places: Vec<usize> = (0..length).collect();
        places.shuffle(rng);
        let mut active = vec![false; length];
        places.iter().take(marks).for_each(|&i| active[i] = true);
        ScoringText {
            plain: pieces.concat(),
            marked: mark(&pieces, &active),
            own: false,
        }
    };
    silent
        .into_iter()
        .take(count)
        .map(|rows| trial(rows, rng))
        .collect()
}

/// A text with its active tokens marked, neighbours together, white space outside.
fn mark(pieces: &[String], active: &[bool]) -> String {
    let mut out = String::new();
    let mut inside = false;
    // Of a character that is split over tokens the first one shows it.
    let mut shown = vec![false; pieces.len()];
    active
        .iter()
        .enumerate()
        .filter(|(_, now)| **now)
        .for_each(|(i, _)| shown[pieces::shown_at(pieces, i)] = true);
    for (piece, now) in pieces
        .iter()
        .zip(shown)
        .filter(|(piece, _)| !piece.is_empty())
    {
        let word = piece.trim_start();
        if inside && !now {
            out.push_str(MARKS.1);
        }
        if now && !inside {
            out.push_str(&piece[..piece.len() - word.len()]);
            out.push_str(MARKS.0);
            out.push_str(word);
        } else {
            out.push_str(piece);
        }
        inside = now;
    }
    if inside {
        out.push_str(MARKS.1);
    }
    out
}

/// The placeholder for a description that is not known yet, of the usual length.
const USUAL: &str = "words of one kind in texts of another kind, as far as known";

/// The cost of describing, estimated in advance; `scored` with detection and fuzzing, `sentences` with sentences for
/// each description. What is asked of descriptions is not known before them and is counted with one
/// of the usual length.
pub fn estimate(
    judge: &JudgeClient,
    materials: &[FeatureMaterial],
    scored: bool,
    sentences: bool,
) -> CostEstimate {
    let mut sum = CostEstimate::default();
    for material in materials {
        let first: Vec<Question> = std::iter::once(material.inputs())
            .chain(material.outputs())
            .collect();
        sum += judge.estimate(&first);
        let cached_answer = |q: &Question| {
            judge
                .cached_answer(q)
                .and_then(|a| readers::read_description(&a.text))
        };
        let descriptions: Vec<String> = first
            .iter()
            .map(|q| cached_answer(q).unwrap_or_else(|| USUAL.to_owned()))
            .collect();
        if sentences {
            descriptions
                .iter()
                .for_each(|d| sum += judge.estimate(&sentences::questions(d)));
        }
        if scored {
            let description = &descriptions[0];
            sum += judge.estimate(&material.detection(description));
            sum += judge.estimate(&material.fuzzing(description));
        }
    }
    sum
}

/// Describes features, in the order of `materials`; with `score`, sentences are written for each
/// description and scored by it.
///
/// # Errors
/// As [`JudgeClient::ask`]; what a single answer lacks is in [`Description::errors`].
pub fn describe(
    judge: &mut JudgeClient,
    materials: &[FeatureMaterial],
    scored: bool,
    score: Option<&mut Scorer<'_>>,
    ctx: &TaskCtx,
) -> Result<Vec<Description>> {
    let who = judge.endpoint().name();
    let mut out: Vec<Description> = materials
        .iter()
        .map(|_| Description {
            judge: who.clone(),
            ..Description::default()
        })
        .collect();
    let questions: Vec<Question> = materials.iter().map(FeatureMaterial::inputs).collect();
    for (description, answer) in out.iter_mut().zip(judge.ask(&questions, ctx)?) {
        description.input = take(answer, "description of its inputs", &mut description.errors);
    }
    let with_lens: Vec<usize> = (0..materials.len())
        .filter(|&i| !materials[i].promoted.is_empty())
        .collect();
    let questions: Vec<Question> = with_lens
        .iter()
        .filter_map(|&i| materials[i].outputs())
        .collect();
    for (&i, answer) in with_lens.iter().zip(judge.ask(&questions, ctx)?) {
        out[i].output = take(answer, "description of its outputs", &mut out[i].errors);
    }
    if scored {
        let ask = |judge: &mut JudgeClient,
                   out: &[Description],
                   kind: fn(&FeatureMaterial, &str) -> Vec<Question>|
         -> Result<_> {
            let batches: Vec<Vec<Question>> = materials
                .iter()
                .zip(out)
                .map(|(m, d)| {
                    d.input
                        .as_deref()
                        .map_or_else(Vec::new, |text| kind(m, text))
                })
                .collect();
            let mut answers = judge.ask(&batches.concat(), ctx)?.into_iter();
            let of: Vec<Vec<_>> = batches
                .iter()
                .map(|b| answers.by_ref().take(b.len()).collect())
                .collect();
            Ok(of)
        };
        for (i, answers) in ask(judge, &out, FeatureMaterial::detection)?
            .into_iter()
            .enumerate()
        {
            out[i].detection = judged(&materials[i], answers, "detection", &mut out[i].errors);
        }
        for (i, answers) in ask(judge, &out, FeatureMaterial::fuzzing)?
            .into_iter()
            .enumerate()
        {
            out[i].fuzzing = judged(&materials[i], answers, "fuzzing", &mut out[i].errors);
        }
    }
    if let Some(score) = score {
        let inputs: Vec<Option<&str>> = out.iter().map(|d| d.input.as_deref()).collect();
        let of_inputs = sentences::score_written_sentences(judge, &inputs, score, ctx)?;
        let outputs: Vec<Option<&str>> = out.iter().map(|d| d.output.as_deref()).collect();
        let of_outputs = sentences::score_written_sentences(judge, &outputs, score, ctx)?;
        for (description, (input, output)) in
            out.iter_mut().zip(of_inputs.into_iter().zip(of_outputs))
        {
            (description.input_sentences, description.output_sentences) = (input.0, output.0);
            description
                .errors
                .extend(input.1.into_iter().map(|e| format!("of its inputs: {e}")));
            description
                .errors
                .extend(output.1.into_iter().map(|e| format!("of its outputs: {e}")));
        }
    }
    Ok(out)
}

fn take(answer: Result<Answer, String>, what: &str, errors: &mut Vec<String>) -> Option<String> {
    match answer.map(|a| readers::read_description(&a.text)) {
        Ok(Some(text)) => return Some(text),
        Ok(None) => errors.push(format!("{what}: the answer holds none")),
        Err(why) => errors.push(format!("{what}: {why}")),
    }
    None
}

fn judged(
    material: &FeatureMaterial,
    answers: Vec<Result<Answer, String>>,
    what: &str,
    errors: &mut Vec<String>,
) -> Option<Score> {
    if answers.is_empty() {
        return None;
    }
    let truth = material.truth();
    let mut verdicts = Vec::with_capacity(answers.len());
    for (answer, truth) in answers.into_iter().zip(&truth) {
        verdicts.push(
            match answer.map(|a| readers::read_verdicts(&a.text, truth.len())) {
                Ok(Some(verdicts)) => Some(verdicts),
                Ok(None) => {
                    errors.push(format!(
                        "{what}: the answer holds no {} verdicts",
                        truth.len()
                    ));
                    None
                }
                Err(why) => {
                    errors.push(format!("{what}: {why}"));
                    None
                }
            },
        );
    }
    Some(scored_verdicts(&truth, &verdicts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_around_active_words() {
        let pieces = ["It", " was", " No", "vember", " then", "."].map(str::to_owned);
        let active = [false, false, true, true, false, true];
        assert_eq!(mark(&pieces, &active), "It was <<November>> then<<.>>");
        let context = Context {
            row: 0,
            sample: 0,
            tokens: pieces.to_vec(),
            values: vec![0.0, 0.1, 1.0, 0.4, 0.2, 0.0],
            peak: 2,
            label: None,
        };
        assert_eq!(own(&context).marked, "It was <<November>> then.");
        assert_eq!(own(&context).plain, "It was November then.");
    }
}
