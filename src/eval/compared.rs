//! The uncertainty of a method's measures: their 95 % intervals, and those of the first fit's
//! measures minus every other method's.
//!
//! AUROC and S_CD are means over labels, which two methods share: their differences are paired.
//! Purity is a mean over features, which they do not: each method's features are resampled
//! independently. Features of several seeds are much the same ones, so a resample draws as many as
//! one seed has, and more seeds do not narrow the interval.

use serde::{Deserialize, Serialize};

use super::bootstrap::{Difference, Pool, paired, unpaired};
use super::report::{MethodKind, MethodReport};
use super::steering::report::{MeanInterval, interval};

/// Resamples of features, fewer than of labels, since a basis of single neurons has thousands.
const FEATURE_RESAMPLES: usize = 2_000;

/// A measure that methods are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// AUROC of concept detection on held-out sentences.
    Auroc,
    /// S_CD of held-out sentences, of labels where it is defined.
    SCd,
    /// Share of a feature's contexts with the commonest label.
    LabelPurity,
    /// The same of tokens.
    TokenPurity,
}

/// All measures, in the order in which they are reported.
pub const MEASURES: [Measure; 4] = [
    Measure::Auroc,
    Measure::SCd,
    Measure::LabelPurity,
    Measure::TokenPurity,
];

/// The values by which the contexts of a feature are ordered; two methods are compared by the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextOrder {
    /// Cosines with the activations, which every direction has.
    Cosines,
    /// The coefficients of a fit.
    Coefficients,
}

/// A measure of a fit minus that of another method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodDifference {
    /// Name of the fit.
    pub method: String,
    /// Name of the method that is subtracted.
    pub against: String,
    /// What is compared, or averaged, in its own unit.
    pub measure: Measure,
    /// By what contexts are ordered, where the measure is a purity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ContextOrder>,
    /// Over labels, or over features.
    #[serde(flatten)]
    pub difference: Difference,
}

/// A method's measure with its interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasureInterval {
    /// Name of the method.
    pub method: String,
    /// What is compared, or averaged, in its own unit.
    pub measure: Measure,
    /// By what contexts are ordered, where the measure is a purity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<ContextOrder>,
    /// Over labels, or over features.
    #[serde(flatten)]
    pub mean: MeanInterval,
}

impl Measure {
    /// The value of each label; `None` for a measure of features.
    fn of_labels(self, method: &MethodReport) -> Option<Vec<(&str, f64)>> {
        let labels = method.detection.as_ref()?.labels.iter();
        match self {
            Self::Auroc => Some(labels.map(|l| (l.label.as_str(), l.auroc)).collect()),
            Self::SCd => Some(
                labels
                    .filter_map(|l| Some((l.label.as_str(), l.s_cd?)))
                    .collect(),
            ),
            Self::LabelPurity | Self::TokenPurity => None,
        }
    }

    /// The values of the features; `None` for a measure of labels.
    fn of_features(self, method: &MethodReport, by: ContextOrder) -> Option<Pool> {
        let shares = match by {
            ContextOrder::Cosines => &method.shares,
            ContextOrder::Coefficients => &method.coefficient_shares,
        };
        let values: Vec<f64> = match self {
            // Without labels it would be 0 of every feature.
            Self::LabelPurity => method
                .contexts
                .and_then(|c| c.label)
                .map(|_| shares.iter().map(|s| s.0).collect())?,
            Self::TokenPurity => shares.iter().map(|s| s.1).collect(),
            Self::Auroc | Self::SCd => return None,
        };
        let draws = values.len().div_ceil(method.seeds.max(1));
        (!values.is_empty()).then_some(Pool { values, draws })
    }

    fn of(self, method: &MethodReport, resamples: usize, seed: u64) -> Option<MeasureInterval> {
        let measured = |by, mean| MeasureInterval {
            method: method.name.clone(),
            measure: self,
            by,
            mean,
        };
        if let Some(labels) = self.of_labels(method) {
            let values: Vec<f64> = labels.into_iter().map(|l| l.1).collect();
            return interval(&values, seed).map(|mean| measured(None, mean));
        }
        let by = if method.coefficient_shares.is_empty() {
            ContextOrder::Cosines
        } else {
            ContextOrder::Coefficients
        };
        let pool = self.of_features(method, by)?;
        let zero = Pool {
            values: vec![0.0],
            draws: 1,
        };
        let d = unpaired(&pool, &zero, resamples.min(FEATURE_RESAMPLES), seed)?;
        Some(measured(
            Some(by),
            MeanInterval {
                mean: d.mean,
                low: d.low,
                high: d.high,
            },
        ))
    }

    fn compare(
        self,
        first: &MethodReport,
        other: &MethodReport,
        resamples: usize,
        seed: u64,
    ) -> Option<MethodDifference> {
        let compared = |by, difference| MethodDifference {
            method: first.name.clone(),
            against: other.name.clone(),
            measure: self,
            by,
            difference,
        };
        if let (Some(own), Some(theirs)) = (self.of_labels(first), self.of_labels(other)) {
            let pairs: Vec<_> = own
                .iter()
                .filter_map(|a| theirs.iter().find(|b| b.0 == a.0).map(|b| (a.1, b.1)))
                .collect();
            return paired(&pairs, resamples, seed).map(|d| compared(None, d));
        }
        let bare = first.coefficient_shares.is_empty() || other.coefficient_shares.is_empty();
        let by = if bare {
            ContextOrder::Cosines
        } else {
            ContextOrder::Coefficients
        };
        let (own, theirs) = (self.of_features(first, by)?, self.of_features(other, by)?);
        unpaired(&own, &theirs, resamples.min(FEATURE_RESAMPLES), seed)
            .map(|d| compared(Some(by), d))
    }
}

/// Every measure of every method with its interval.
pub fn intervals(methods: &[MethodReport], resamples: usize, seed: u64) -> Vec<MeasureInterval> {
    methods
        .iter()
        .flat_map(|m| {
            MEASURES
                .iter()
                .filter_map(move |measure| measure.of(m, resamples, seed))
        })
        .collect()
}

/// The first fit of each number of features and sparsity against every method of the same, one
/// measure after the other.
pub fn differences(
    methods: &[MethodReport],
    any_number: &str,
    resamples: usize,
    seed: u64,
) -> Vec<MethodDifference> {
    let mut led: Vec<(usize, Option<f64>)> = Vec::new();
    let mut out = Vec::new();
    for first in methods.iter().filter(|m| m.kind == MethodKind::Fit) {
        if led.contains(&(first.features, first.sparsity)) {
            continue;
        }
        led.push((first.features, first.sparsity));
        // Single neurons and supervised directions are as many as there are; dense ones have no
        // sparsity.
        let any_number =
            |m: &MethodReport| m.kind == MethodKind::Supervised || m.name == any_number;
        let alike = |m: &&MethodReport| {
            m.name != first.name
                && (m.features == first.features || any_number(m))
                && (m.sparsity.is_none() || m.sparsity == first.sparsity)
        };
        for measure in MEASURES {
            let others = methods.iter().filter(alike);
            out.extend(others.filter_map(|other| measure.compare(first, other, resamples, seed)));
        }
    }
    out
}
