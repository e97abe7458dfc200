//! The rise of a label's own words: their percentile among the changes of all tokens'
//! log-probability at the next token. It needs no text and no judge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::StrengthRecord;
use super::report::{MeanInterval, RESAMPLES, ReportLine, interval, mean_by_label};
use crate::eval::bootstrap::{Difference, paired};

/// A method at one KL target, promoting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rise {
    /// Name of the method.
    pub method: String,
    /// The KL target in nats.
    pub target: f64,
    /// The mean over labels of [`percentile`].
    pub rise: MeanInterval,
    /// Labels that have words and for which the target was reached.
    pub labels: usize,
    /// The first method's minus this one's, paired over labels.
    pub first_minus: Option<Difference>,
}

/// The mean over `words` (tokens) of the share of the other tokens whose change is smaller, equal
/// ones counted half: 1 where the words rise most, ½ by chance, 0 where they fall most; `None`
/// without words.
pub fn percentile(changes: &[f64], words: &[u32]) -> Option<f64> {
    let others = changes.len().checked_sub(1).filter(|&n| n > 0)? as f64;
    let place = |word: &u32| {
        let own = *changes.get(*word as usize)?;
        let half = |&c: &f64| usize::from(c < own) + usize::from(c <= own);
        // The word itself is among the equal ones.
        Some((changes.iter().map(half).sum::<usize>() - 1) as f64 / 2.0 / others)
    };
    let places: Vec<f64> = words.iter().filter_map(place).collect();
    (!places.is_empty()).then(|| places.iter().sum::<f64>() / places.len() as f64)
}

/// The changes of all tokens in order, by which many words are placed at once.
pub struct Percentiles<'a> {
    changes: &'a [f64],
    ascending: Vec<f64>,
}

impl<'a> Percentiles<'a> {
    /// Of the changes of all tokens.
    pub fn of(changes: &'a [f64]) -> Self {
        let mut ascending = changes.to_vec();
        ascending.sort_unstable_by(f64::total_cmp);
        Self { changes, ascending }
    }

    /// [`percentile`] of these words.
    pub fn mean(&self, words: &[u32]) -> Option<f64> {
        let others = self.changes.len().checked_sub(1).filter(|&n| n > 0)? as f64;
        let place = |word: &u32| {
            let own = *self.changes.get(*word as usize)?;
            let below = self.ascending.partition_point(|c| *c < own);
            let upto = self.ascending.partition_point(|c| *c <= own);
            Some((below + upto - 1) as f64 / 2.0 / others)
        };
        let places: Vec<f64> = words.iter().filter_map(place).collect();
        (!places.is_empty()).then(|| places.iter().sum::<f64>() / places.len() as f64)
    }
}

/// Each line at each target, in the order of `lines`.
pub fn rises(strengths: &[StrengthRecord], lines: &[ReportLine], seed: u64) -> Vec<Rise> {
    let mut targets: Vec<f64> = strengths.iter().map(|s| s.target).collect();
    targets.sort_by(f64::total_cmp);
    targets.dedup();
    let mut out = Vec::new();
    for target in targets {
        let of_one = |method: &String| -> BTreeMap<&str, f64> {
            let mine = strengths
                .iter()
                .filter(|s| s.method == *method && s.target == target && s.sign > 0);
            mine.filter_map(|s| Some((s.label.as_str(), s.rise.filter(|_| s.reached)?)))
                .collect()
        };
        let rises_of = |line: &ReportLine| mean_by_label(line.members.iter().map(of_one));
        let first = lines.first().map(rises_of).unwrap_or_default();
        for (i, line) in lines.iter().enumerate() {
            let own = rises_of(line);
            let pairs: Vec<(f64, f64)> = first
                .iter()
                .filter_map(|(label, &a)| own.get(label).map(|&b| (a, b)))
                .collect();
            let Some(rise) = interval(&own.values().copied().collect::<Vec<_>>(), seed) else {
                continue;
            };
            let first_minus = if i == 0 {
                None
            } else {
                paired(&pairs, RESAMPLES, seed)
            };
            out.push(Rise {
                method: line.name.clone(),
                target,
                rise,
                labels: own.len(),
                first_minus,
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_ranks_follow_the_changes() {
        let changes = [0.3, -1.0, 0.3, 2.0, 0.0];
        let near = |words: &[u32], at: f64| {
            assert!(
                (percentile(&changes, words).unwrap() - at).abs() < 1e-12,
                "{words:?}"
            );
            assert_eq!(
                Percentiles::of(&changes).mean(words),
                percentile(&changes, words)
            );
        };
        near(&[3], 1.0);
        near(&[1], 0.0);
        // Two are smaller, one is equal, of four others.
        near(&[0], 2.5 / 4.0);
        near(&[3, 1], 0.5);
        near(&[4, 99], 0.25);
        assert_eq!(
            (percentile(&changes, &[]), percentile(&[1.0], &[0])),
            (None, None)
        );
    }

    #[test]
    fn methods_are_compared_on_the_labels_that_both_have() {
        let record = |method: &str, label: &str, sign, rise, reached| StrengthRecord {
            method: method.into(),
            label: label.into(),
            direction: 0,
            sign,
            target: 0.25,
            alpha: f64::from(sign),
            kl: 0.25,
            reached,
            note: None,
            rise,
            nats: None,
            places: BTreeMap::new(),
            new_places: BTreeMap::new(),
        };
        let all = [
            record("a", "x", 1, Some(0.9), true),
            record("a", "x", -1, Some(0.1), true),
            record("a", "y", 1, Some(0.7), true),
            record("b", "x", 1, Some(0.5), true),
            record("b", "y", 1, Some(0.5), true),
            record("b", "z", 1, Some(0.1), false),
            record("c", "x", 1, None, true),
        ];
        let found = rises(&all, &["a", "b", "c"].map(ReportLine::one), 1);
        assert_eq!(
            found
                .iter()
                .map(|r| (r.method.as_str(), r.labels))
                .collect::<Vec<_>>(),
            [("a", 2), ("b", 2)]
        );
        assert!((found[0].rise.mean - 0.8).abs() < 1e-12 && found[0].first_minus.is_none());
        assert!((found[1].first_minus.as_ref().unwrap().mean - 0.3).abs() < 1e-12);
        let both = ReportLine {
            name: "a+b".into(),
            members: vec!["a".into(), "b".into()],
        };
        let pooled = &rises(&all, &[both], 1)[0];
        assert!((pooled.rise.mean - 0.65).abs() < 1e-12 && pooled.labels == 2);
    }
}
