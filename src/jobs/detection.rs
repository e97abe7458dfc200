//! What directions detect: for each label a direction chosen on the training sentences, judged on the
//! held-out ones.
//!
//! Knows no table. Invariant: held-out sentences choose nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::directions::HookSelection;
use super::evaluation::{
    Asked, Choices, Method, MethodDirections, choose_all, spaces_note, supervised,
};
use super::measured::EffectRequest;
use crate::directions::{Baseline, DirectionSet};
use crate::error::Result;
use crate::eval::bootstrap::{Difference, paired};
use crate::eval::detection::LabelDetection;
use crate::eval::hard_negatives::{HardNegatives, against_rivals, rivals};
use crate::eval::steering::report::{MeanInterval, interval};
use crate::eval::unseen::Divided;
use crate::model::HookPoint;
use crate::study::Study;
use crate::task::TaskCtx;

/// Draws of the bootstrap.
const RESAMPLES: usize = 10_000;

/// What is asked of an evaluation of detection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectionRequest {
    /// The methods; none means [`super::evaluation::usual_of`] the study.
    pub methods: Vec<Method>,
    /// Where in the study directions are taken from that name no hook.
    pub place: HookSelection,
    /// How many labels most like a label its hard sentences are taken from.
    pub rivals: usize,
    /// Of shuffling and the bootstrap.
    pub seed: u64,
}

/// A label under one method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectedLabel {
    /// The label as the corpus calls it.
    pub label: String,
    /// The direction chosen for it, one a member: a line may be of several seeds, and its other
    /// values are their means.
    pub directions: Vec<usize>,
    /// AUROC on the training sentences, by which the direction was chosen.
    pub train_auroc: f64,
    /// AUROC on the held-out sentences.
    pub auroc: f64,
    /// S_CD, where it is defined.
    pub s_cd: Option<f64>,
    /// Share of members for which it is not.
    pub s_cd_undefined: f64,
    /// Share of members for which the label's sentences score higher on average.
    pub above_0: f64,
    /// Against the sentences of the labels most like it.
    pub hard: Option<HardNegatives>,
}

/// The mean of what there is.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

impl DetectedLabel {
    fn new(label: &str, members: &[(&LabelDetection, Option<HardNegatives>)]) -> Option<Self> {
        let over =
            |value: &dyn Fn(&LabelDetection) -> f64| mean(members.iter().map(|m| value(m.0)));
        let hard = |value: fn(&HardNegatives) -> f64| {
            mean(members.iter().filter_map(|m| m.1.as_ref().map(value)))
        };
        Some(Self {
            label: label.to_owned(),
            directions: members.iter().map(|m| m.0.feature).collect(),
            train_auroc: over(&|m| m.train_auroc)?,
            auroc: over(&|m| m.auroc)?,
            s_cd: mean(members.iter().filter_map(|m| m.0.s_cd())),
            s_cd_undefined: over(&|m| f64::from(m.s_cd().is_none()))?,
            above_0: over(&|m| f64::from(m.scores_higher()))?,
            hard: hard(|h| h.auroc)
                .zip(hard(|h| h.accuracy))
                .map(|(auroc, accuracy)| HardNegatives { auroc, accuracy }),
        })
    }
}

/// A method over all labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectedMethod {
    /// The method's name.
    pub method: String,
    /// The hook of its directions.
    pub hook: String,
    /// AUROC with its interval over labels.
    pub auroc: Option<MeanInterval>,
    /// Mean S_CD over the labels where it is defined.
    pub s_cd: Option<f64>,
    /// Share of labels where it is not.
    pub s_cd_undefined: f64,
    /// Share of labels whose sentences score higher on average.
    pub above_0: f64,
    /// AUROC against the sentences of the labels most like each, with its interval.
    pub hard_auroc: Option<MeanInterval>,
    /// Accuracy against the same sentences, from 0 to 1, mean over labels; `None` where no label
    /// has any.
    pub hard_accuracy: Option<f64>,
    /// What was found for each label, in the order of the corpus.
    pub labels: Vec<DetectedLabel>,
}

/// An evaluation whose directions are chosen.
pub struct Detection<'a> {
    divided: &'a Divided<'a>,
    choices: Choices,
    /// Of each scored label the labels most like it.
    rivals: Vec<Vec<usize>>,
    seed: u64,
}

impl<'a> Detection<'a> {
    /// Chooses each method's directions on the training sentences of `divided`.
    ///
    /// # Errors
    /// What [`choose_all`] and [`supervised`] return.
    pub fn prepare(
        study: &Study,
        divided: &'a Divided<'a>,
        request: &DetectionRequest,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let place = &request.place;
        // What a model would have to be asked for is said with the command that asks it.
        let effects = EffectRequest::default();
        let asked = Asked {
            model: None,
            effects: &effects,
        };
        let choices = choose_all(
            study,
            &request.methods,
            place,
            divided,
            request.seed,
            asked,
            ctx,
        )?;
        let means = supervised(study, Baseline::DiffMean, None, place, divided, ctx)?;
        Ok(Self {
            divided,
            choices,
            rivals: rivals(means.directions(), request.rivals),
            seed: request.seed,
        })
    }

    /// Where each line's directions live, in the order of the lines.
    pub fn hooks(&self) -> Vec<(String, HookPoint)> {
        self.choices.hooks()
    }

    /// What a person is told where methods do not live in one space.
    pub fn spaces_note(&self) -> Option<String> {
        spaces_note(&self.hooks())
    }

    /// Judges each method on the held-out sentences; `seen` gets each as it is there.
    ///
    /// # Errors
    /// Activations that cannot be read, [`crate::Error::Cancelled`]; what `seen` returns.
    pub fn run(
        &self,
        study: &Study,
        seen: &mut dyn FnMut(&DetectedMethod) -> Result<()>,
        ctx: &TaskCtx,
    ) -> Result<Vec<DetectedMethod>> {
        let labels = &self.divided.tokens.labels;
        let mut rows = Vec::new();
        for (reported, (_, hook)) in self.choices.reported.iter().zip(self.hooks()) {
            let source = study.activations(hook)?;
            let with_hard = |member: &MethodDirections| {
                let hard = against_rivals(
                    source.as_ref(),
                    &self.divided.split,
                    member.set.directions(),
                    &member.found,
                    &self.rivals,
                    ctx,
                )?;
                Ok(member.found.clone().into_iter().zip(hard).collect())
            };
            let members = self.choices.members(reported).map(with_hard);
            let members = members.collect::<Result<Vec<_>>>()?;
            let row = row_of(&reported.name, hook, &members, labels, self.seed);
            seen(&row)?;
            rows.push(row);
        }
        Ok(rows)
    }
}

/// `members`: for each method of the line what was found for each label.
fn row_of(
    name: &str,
    hook: HookPoint,
    members: &[Vec<(LabelDetection, Option<HardNegatives>)>],
    names: &[String],
    seed: u64,
) -> DetectedMethod {
    let mut found: BTreeMap<u32, Vec<(&LabelDetection, Option<HardNegatives>)>> = BTreeMap::new();
    for (detection, hard) in members.iter().flatten() {
        found
            .entry(detection.label)
            .or_default()
            .push((detection, *hard));
    }
    let labels: Vec<DetectedLabel> = found
        .iter()
        .filter_map(|(&label, members)| DetectedLabel::new(&names[label as usize], members))
        .collect();
    let values = |value: &dyn Fn(&DetectedLabel) -> Option<f64>| {
        labels.iter().filter_map(value).collect::<Vec<f64>>()
    };
    let over =
        |value: &dyn Fn(&DetectedLabel) -> Option<f64>| mean(labels.iter().filter_map(value));
    DetectedMethod {
        method: name.to_owned(),
        hook: hook.to_string(),
        auroc: interval(&values(&|l| Some(l.auroc)), seed),
        s_cd: over(&|l| l.s_cd),
        s_cd_undefined: over(&|l| Some(l.s_cd_undefined)).unwrap_or(0.0),
        above_0: over(&|l| Some(l.above_0)).unwrap_or(0.0),
        hard_auroc: interval(&values(&|l| l.hard.map(|h| h.auroc)), seed),
        hard_accuracy: over(&|l| l.hard.map(|h| h.accuracy)),
        labels,
    }
}

/// The first method's AUROC minus each other's, by name, over the labels that both have.
pub fn differences(rows: &[DetectedMethod], seed: u64) -> Vec<(String, Difference)> {
    let Some((first, others)) = rows.split_first() else {
        return Vec::new();
    };
    let auroc = |row: &DetectedMethod, label: &str| {
        row.labels
            .iter()
            .find(|l| l.label == label)
            .map(|l| l.auroc)
    };
    let compared = |other: &DetectedMethod| {
        let pairs: Vec<(f64, f64)> = first
            .labels
            .iter()
            .filter_map(|l| Some((l.auroc, auroc(other, &l.label)?)))
            .collect();
        Some((other.method.clone(), paired(&pairs, RESAMPLES, seed)?))
    };
    others.iter().filter_map(compared).collect()
}
