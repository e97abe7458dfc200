//! What can be counted in the texts themselves, whoever judges them: in how many a word of the label
//! stands, and how likely they are to the unsteered model.
//!
//! Knows texts and words, no judge. Invariant: the words are of sentences that chose nothing.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::report::{MeanInterval, RESAMPLES, ReportLine, interval, mean_by_label};
use super::vocabulary::words;
use super::{TextRecord, UNSTEERED};
use crate::eval::bootstrap::{Difference, paired};

/// The texts of a line at one KL target, promoting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FreeText {
    /// Name of the line, or [`UNSTEERED`].
    pub method: String,
    /// The KL target in nats; 0 of unsteered texts.
    pub target: f64,
    /// Share of a label's texts in which one of its own words stands, over labels.
    pub own_word: MeanInterval,
    /// exp of the mean negative log-likelihood of a token under the unsteered model; `None` where no
    /// text has a token.
    pub perplexity: Option<f64>,
    /// Labels that have texts here.
    pub labels: usize,
    /// Texts.
    pub texts: usize,
    /// The share minus that of the line that all are compared with, paired over labels.
    pub minus: Option<Difference>,
}

/// Every line at each target, unsteered texts first; a text of these counts for every label.
/// `own_words`: of each label the words that are searched for.
pub fn free_texts(
    texts: &[TextRecord],
    lines: &[ReportLine],
    own_words: &BTreeMap<String, Vec<String>>,
    against: &str,
    seed: u64,
) -> Vec<FreeText> {
    let wanted: BTreeMap<&str, HashSet<String>> = own_words
        .iter()
        .filter(|(_, words)| !words.is_empty())
        .map(|(label, words)| {
            let lower = words.iter().map(|word| word.to_lowercase());
            (label.as_str(), lower.collect())
        })
        .collect();
    let bare: Vec<&TextRecord> = texts.iter().filter(|t| t.key.method == UNSTEERED).collect();
    let steered: Vec<&TextRecord> = texts
        .iter()
        .filter(|t| t.key.sign > 0 && wanted.contains_key(t.key.label.as_str()))
        .collect();
    let mut targets: Vec<f64> = steered.iter().map(|t| t.key.target).collect();
    targets.sort_by(f64::total_cmp);
    targets.dedup();
    if targets.is_empty() {
        return Vec::new();
    }
    let of_label = |label: &str, of: &[&TextRecord]| -> Option<f64> {
        let has = |t: &&&TextRecord| words(&t.text).any(|w| wanted[label].contains(&w));
        (!of.is_empty()).then(|| of.iter().filter(has).count() as f64 / of.len() as f64)
    };
    let shares = |member: &str, target: f64| -> BTreeMap<String, f64> {
        let here = |label: &str| -> Vec<&TextRecord> {
            let of = steered.iter().filter(|t| {
                t.key.method == member && t.key.target == target && t.key.label == label
            });
            of.copied().collect()
        };
        wanted
            .keys()
            .filter_map(|label| Some(((*label).to_owned(), of_label(label, &here(label))?)))
            .collect()
    };
    let line = |method: &str, target: f64, own: &BTreeMap<String, f64>, of: &[&TextRecord]| {
        let values: Vec<f64> = own.values().copied().collect();
        Some(FreeText {
            method: method.to_owned(),
            target,
            own_word: interval(&values, seed)?,
            perplexity: perplexity(of),
            labels: own.len(),
            texts: of.len(),
            minus: None,
        })
    };
    let unsteered: BTreeMap<String, f64> = wanted
        .keys()
        .filter_map(|label| Some(((*label).to_owned(), of_label(label, &bare)?)))
        .collect();
    let mut out: Vec<FreeText> = line(UNSTEERED, 0.0, &unsteered, &bare)
        .into_iter()
        .collect();
    for &target in &targets {
        let of_line = |l: &ReportLine| mean_by_label(l.members.iter().map(|m| shares(m, target)));
        let base = lines.iter().find(|l| l.name == against).map(of_line);
        for of in lines {
            let own = of_line(of);
            let texts: Vec<&TextRecord> = steered
                .iter()
                .filter(|t| t.key.target == target && of.members.contains(&t.key.method))
                .copied()
                .collect();
            let Some(found) = line(&of.name, target, &own, &texts) else {
                continue;
            };
            let minus = base.as_ref().filter(|_| of.name != against);
            let minus = minus.and_then(|base| {
                let pair = |(label, &a): (&String, &f64)| Some((a, *base.get(label)?));
                let pairs: Vec<(f64, f64)> = own.iter().filter_map(pair).collect();
                paired(&pairs, RESAMPLES, seed)
            });
            out.push(FreeText { minus, ..found });
        }
    }
    out
}

/// Every token counts the same, so that short texts do not weigh more.
fn perplexity(texts: &[&TextRecord]) -> Option<f64> {
    let tokens: usize = texts.iter().map(|t| t.tokens).sum();
    let nll: f64 = texts.iter().map(|t| t.nll * t.tokens as f64).sum();
    (tokens > 0).then(|| (nll / tokens as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::super::TextKey;
    use super::*;

    fn text(
        method: &str,
        label: &str,
        sign: i8,
        text: &str,
        (tokens, nll): (usize, f64),
    ) -> TextRecord {
        TextRecord {
            key: TextKey {
                method: method.into(),
                label: label.into(),
                target: if sign == 0 { 0.0 } else { 0.25 },
                sign,
                prompt: 0,
                sample: 0,
            },
            direction: 0,
            alpha: 1.0,
            kl: 0.25,
            text: text.into(),
            tokens,
            nll,
            distinct: 1.0,
        }
    }

    #[test]
    fn texts_with_an_own_word_are_counted_by_label() {
        let plain = (2, 1.0);
        let all = [
            text(UNSTEERED, "", 0, "the tide of Monday", (4, 2.0)),
            text(UNSTEERED, "", 0, "nothing", (1, 2.0)),
            text("m", "sea", 1, "A TIDE, a boat", (3, 1.0)),
            text("m", "sea", 1, "tides", (1, 3.0)),
            text("m", "day", 1, "on monday.", plain),
            // What suppresses, and a label that is not asked for, are in no share.
            text("m", "sea", -1, "tide", plain),
            text("m", "other", 1, "tide", plain),
            text("diffmean", "sea", 1, "tide", plain),
            text("diffmean", "day", 1, "tide", plain),
        ];
        let own = |label: &str, words: &[&str]| {
            let words = words.iter().map(|w| (*w).to_owned()).collect();
            (label.to_owned(), words)
        };
        let words = BTreeMap::from([
            own("sea", &["tide", "boat"]),
            own("day", &["Monday"]),
            own("none", &[]),
        ]);
        let lines = ["m", "diffmean"].map(ReportLine::one);
        let found = free_texts(&all, &lines, &words, "diffmean", 1);
        let of = |method: &str| found.iter().find(|f| f.method == method).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!((of(UNSTEERED).own_word.mean, of(UNSTEERED).texts), (0.5, 2));
        // Of the sea one of two, of days one of one.
        assert_eq!(
            (of("m").own_word.mean, of("m").labels, of("m").texts),
            (0.75, 2, 3)
        );
        let tokens = [(3.0, 1.0), (1.0, 3.0), (2.0, 1.0)];
        let nll: f64 = tokens.iter().map(|(n, nll)| n * nll).sum::<f64>() / 6.0;
        assert!((of("m").perplexity.unwrap() - nll.exp()).abs() < 1e-12);
        assert_eq!(of("m").minus.as_ref().unwrap().mean, 0.25);
        assert!(of("diffmean").minus.is_none());
        assert!(free_texts(&all[..2], &lines, &words, "diffmean", 1).is_empty());
    }
}
