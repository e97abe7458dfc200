//! Descriptions of features by a judge, from their contexts and from the words that they promote,
//! and how well the first tell the features' texts from others, and the features sentences that
//! were written for the descriptions.
//!
//! A description is written from what [`FeatureMaterial`] shows, and scored on what it holds back.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

pub use super::material::FeatureMaterial;
use super::readers;
use super::score::{Score, score as scored_verdicts};
use super::sentences::{self, Scorer, Sentences};
use super::{Answer, CostEstimate, JudgeClient, Question};
use crate::error::Result;
use crate::task::TaskCtx;

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
    /// The [digest](direction_digest) of the direction that it was made for; `None` in what earlier
    /// versions stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// What is missing and why, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// What tells a direction from another that later stands at its number: of its values, bit for bit.
pub fn direction_digest(column: &[f32]) -> String {
    format!("{:016x}", xxh3_64(bytemuck::cast_slice(column)))
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
        .filter(|&i| !materials[i].promoted().is_empty())
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
            let answers_by_batch: Vec<Vec<_>> = batches
                .iter()
                .map(|b| answers.by_ref().take(b.len()).collect())
                .collect();
            Ok(answers_by_batch)
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
