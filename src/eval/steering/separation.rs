//! How well a judge's values of texts set a label's sentences apart from other labels' and from
//! unsteered texts: where they do not, the label is left out of what the judge rates.
//!
//! Knows values, not what a judge takes them from. Invariant: the sentences measured here are not
//! those from which a judge learnt the label.

use super::fluency::mean;
use super::vocabulary::LabelledText;
use crate::eval::rank::auroc_by_group;

/// A label is judged only where its values separate its sentences from other labels' with at least
/// this AUROC.
const LEAST_AUROC: f64 = 0.7;

/// Sentences of several labels, by the places of their labels.
pub(super) struct LabelledScale {
    groups: Vec<Option<u32>>,
    labels: usize,
}

/// The scale of a label's values.
pub(super) struct Separation {
    /// The mean value of unsteered texts.
    pub base: f64,
    /// The mean value of the label's own sentences.
    pub own: f64,
    /// How well the values tell the label's sentences from the others: 0.5 is chance.
    pub auroc: f64,
    has_sentences: bool,
}

/// What is said of a label for each way in which it cannot be judged.
pub(super) struct Reasons {
    /// No sentence of it is left.
    pub no_sentences: &'static str,
    /// Its sentences are not separated from the others'; the AUROC is added.
    pub not_separated: &'static str,
    /// Unsteered texts have values as large as its sentences.
    pub not_above_unsteered: &'static str,
}

impl LabelledScale {
    /// The labels of `texts`, where `labels` are all that are judged, in ascending order.
    pub fn new(labels: &[&str], texts: &[LabelledText<'_>]) -> Self {
        let group = |text: &LabelledText<'_>| labels.binary_search(&text.0).ok().map(|l| l as u32);
        Self {
            groups: texts.iter().map(group).collect(),
            labels: labels.len(),
        }
    }

    /// The separation of the label at place `label` by the values of these sentences and those of
    /// `unsteered` texts.
    pub fn separation(&self, label: usize, values: &[f64], unsteered: &[f64]) -> Separation {
        let own: Vec<f64> = values
            .iter()
            .zip(&self.groups)
            .filter(|(_, group)| **group == Some(label as u32))
            .map(|(&value, _)| value)
            .collect();
        let single: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        Separation {
            base: mean(unsteered),
            own: mean(&own),
            auroc: auroc_by_group(&single, &self.groups, self.labels)[label].unwrap_or(0.5),
            has_sentences: !own.is_empty(),
        }
    }
}

impl Separation {
    /// Why the label cannot be judged; `None` where it can.
    pub fn problem(&self, reasons: &Reasons) -> Option<String> {
        if !self.has_sentences {
            Some(reasons.no_sentences.to_owned())
        } else if self.auroc < LEAST_AUROC {
            Some(format!(
                "{} (AUROC {:.2}, wanted {LEAST_AUROC})",
                reasons.not_separated, self.auroc
            ))
        } else if self.own <= self.base {
            Some(reasons.not_above_unsteered.to_owned())
        } else {
            None
        }
    }
}
