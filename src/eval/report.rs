//! The report on a method: its candidates' measures as means over seeds.

use serde::{Deserialize, Serialize};

use super::bench::{Candidate, CandidateMeasures};
use super::bootstrap::mean_and_error;
use super::contexts::{ContextPurity, Shares};
use super::detection::LabelDetection;
use crate::corpus::TokenTable;
use crate::directions::Directions;
use crate::directions::matching::{Stability, stability};
use crate::factor::FitConfig;

/// The kind of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodKind {
    /// Features of a semi-NMF fit.
    Fit,
    /// Directions to compare features with.
    Control,
    /// Directions that were made from the labels.
    Supervised,
}

/// How well one method detects a label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelScore {
    /// The label as the corpus calls it.
    pub label: String,
    /// Held-out AUROC, mean over seeds.
    pub auroc: f64,
    /// Training AUROC of the chosen direction, mean over seeds.
    pub train_auroc: f64,
    /// S_CD on held-out sentences, mean over the seeds where it is defined.
    pub s_cd: Option<f64>,
    /// The direction chosen with the first seed.
    pub feature: usize,
}

/// Concept detection over all scored labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DetectionReport {
    /// Held-out AUROC, mean over labels.
    pub auroc: f64,
    /// Its standard error over labels.
    pub standard_error: f64,
    /// Training AUROC of the chosen directions, mean over labels.
    pub train_auroc: f64,
    /// S_CD, mean over labels and seeds where it is defined.
    pub s_cd: Option<f64>,
    /// Share of labels (and seeds) where it is not.
    pub s_cd_undefined: f64,
    /// Share of labels (and seeds) whose held-out sentences score higher on average than the
    /// others.
    pub above_0: f64,
    /// The scored labels, in the order of the corpus.
    pub labels: Vec<LabelScore>,
}

/// The measures of a method, as means over its seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodReport {
    /// The name that is shown.
    pub name: String,
    /// Whether it is a fit, a control or supervised.
    pub kind: MethodKind,
    /// The number of directions of each of its candidates.
    pub features: usize,
    /// The share of neurons that a direction may use; `None` for dense ones and single neurons.
    pub sparsity: Option<f64>,
    /// The configuration, where the method is a fit.
    pub config: Option<FitConfig>,
    /// Seeds that the means are over.
    pub seeds: usize,
    /// ‖A − YZᵀ‖²/‖A‖² of the fit on its training rows.
    pub relative_error: Option<f64>,
    /// The same on held-out rows with the best coefficients for fixed features.
    pub held_out_error: Option<f64>,
    /// Features above 5 % of their own maximum at a training token.
    pub active: Option<f64>,
    /// Number of features that no training token uses.
    pub dead: Option<f64>,
    /// Features with |cos| above 0.9 to an earlier one.
    pub duplicates: f64,
    /// Concept detection; `None` where no label has enough sentences.
    pub detection: Option<DetectionReport>,
    /// Purity of the sentences with the largest cosines.
    pub contexts: Option<ContextPurity>,
    /// Purity of the sentences with the largest coefficients.
    pub coefficient_contexts: Option<ContextPurity>,
    /// The features that `contexts` is the mean of, of all seeds.
    #[serde(skip)]
    pub shares: Vec<Shares>,
    /// The features that `coefficient_contexts` is the mean of, of all seeds.
    #[serde(skip)]
    pub coefficient_shares: Vec<Shares>,
    /// Agreement over seeds; `None` with one seed or where none is used.
    pub stability: Option<Stability>,
    /// Sweeps of the fit.
    pub sweeps: Option<f64>,
    /// Seconds to make the directions.
    pub seconds: f64,
}

impl MethodReport {
    /// From one candidate a seed and what was measured of each.
    pub fn new(
        name: String,
        kind: MethodKind,
        sparsity: Option<f64>,
        config: Option<FitConfig>,
        candidates: &[Candidate],
        judged: &[CandidateMeasures],
        tokens: &TokenTable,
    ) -> Self {
        let directions: Vec<&Directions> = candidates.iter().map(|c| &c.directions).collect();
        let detections: Vec<_> = judged.iter().map(|j| j.detection.clone()).collect();
        let sweeps = candidates
            .iter()
            .filter_map(|c| c.factors.as_ref().map(|f| f.sweep as f64));
        let mean_of = |value: &dyn Fn(&CandidateMeasures) -> Option<f64>| {
            mean(judged.iter().filter_map(value))
        };
        Self {
            name,
            kind,
            features: directions.first().map_or(0, |d| d.count()),
            sparsity: sparsity.or(config.as_ref().and_then(|c| c.sparsity)),
            config,
            seeds: candidates.len(),
            relative_error: mean_of(&|j| j.relative_error),
            held_out_error: mean_of(&|j| j.held_out_error),
            active: mean_of(&|j| j.active),
            dead: mean_of(&|j| j.dead.map(|d| d as f64)),
            duplicates: mean_of(&|j| Some(j.duplicates as f64)).unwrap_or(0.0),
            detection: DetectionReport::new(&detections, tokens),
            contexts: mean_purity(judged.iter().filter_map(|j| j.contexts)),
            coefficient_contexts: mean_purity(judged.iter().filter_map(|j| j.coefficient_contexts)),
            shares: judged
                .iter()
                .flat_map(|j| j.shares.iter().copied())
                .collect(),
            coefficient_shares: judged
                .iter()
                .flat_map(|j| j.coefficient_shares.iter().copied())
                .collect(),
            stability: stability(&directions),
            sweeps: mean(sweeps),
            seconds: mean(candidates.iter().map(|c| c.seconds)).unwrap_or(0.0),
        }
    }
}

impl DetectionReport {
    /// From one list of labels a seed. `None` when no label was scored.
    pub fn new(seeds: &[Vec<LabelDetection>], tokens: &TokenTable) -> Option<Self> {
        let labels: Vec<LabelScore> = seeds
            .first()?
            .iter()
            .map(|first| label_score(first, seeds, tokens))
            .collect();
        let aurocs: Vec<f64> = labels.iter().map(|l| l.auroc).collect();
        let (auroc, standard_error) = mean_and_error(&aurocs)?;
        let all: Vec<&LabelDetection> = seeds.iter().flatten().collect();
        let share = |count: usize| count as f64 / all.len() as f64;
        Some(Self {
            auroc,
            standard_error,
            train_auroc: mean(labels.iter().map(|l| l.train_auroc)).unwrap_or(0.0),
            s_cd: mean(all.iter().filter_map(|l| l.s_cd())),
            s_cd_undefined: share(all.iter().filter(|l| l.s_cd().is_none()).count()),
            above_0: share(all.iter().filter(|l| l.scores_higher()).count()),
            labels,
        })
    }
}

fn label_score(
    first: &LabelDetection,
    seeds: &[Vec<LabelDetection>],
    tokens: &TokenTable,
) -> LabelScore {
    let same_label: Vec<_> = seeds
        .iter()
        .flatten()
        .filter(|l| l.label == first.label)
        .collect();
    LabelScore {
        label: tokens
            .labels
            .get(first.label as usize)
            .cloned()
            .unwrap_or_default(),
        auroc: mean(same_label.iter().map(|l| l.auroc)).unwrap_or(first.auroc),
        train_auroc: mean(same_label.iter().map(|l| l.train_auroc)).unwrap_or(first.train_auroc),
        s_cd: mean(same_label.iter().filter_map(|l| l.s_cd())),
        feature: first.feature,
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

fn mean_purity(values: impl Iterator<Item = ContextPurity>) -> Option<ContextPurity> {
    let all: Vec<_> = values.collect();
    Some(ContextPurity {
        label: mean(all.iter().filter_map(|p| p.label)),
        token: mean(all.iter().map(|p| p.token))?,
        features: all.iter().map(|p| p.features).sum::<usize>() / all.len(),
    })
}
