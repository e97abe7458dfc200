//! What a feature's strongest sentences have in common, and how many features are active at a token.
//!
//! A feature's contexts here are its 25 strongest training sentences, each by its strongest token:
//! a sentence counts once, however many of its tokens are strong.

use std::collections::HashMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::score::Scores;
use super::split::{ResidentRows, Split};
use crate::corpus::TokenTable;
use crate::factor::Factors;

/// The number of contexts of a feature that its purity is of.
pub const CONTEXTS: usize = 25;
/// A feature with fewer contexts above zero than this has no purity.
const FEWEST: usize = 5;
/// A feature is active at a token above this share of its own largest coefficient.
pub const ACTIVE: f32 = 0.05;

/// Means over features of the largest share of their contexts that have one thing in common.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ContextPurity {
    /// Share of the contexts with the commonest label; `None` in a corpus without labels.
    pub label: Option<f64>,
    /// Share of the contexts whose strongest token is the commonest one, whatever its case and
    /// leading space.
    pub token: f64,
    /// Features with enough contexts to be counted.
    pub features: usize,
}

/// A feature's label share and token share.
pub type Shares = (f64, f64);

/// Measures the purity of features, a strip of them at a time.
pub struct PurityMeter<'a> {
    tokens: &'a TokenTable,
    train: Vec<usize>,
    split: &'a Split,
    words: HashMap<u32, u32>,
    each: Vec<Shares>,
}

impl<'a> PurityMeter<'a> {
    /// Over the training sentences of `split`.
    pub fn new(tokens: &'a TokenTable, split: &'a Split) -> Self {
        let train = (0..split.sentences.len())
            .filter(|&i| !split.sentences[i].held_out)
            .collect();
        Self {
            tokens,
            train,
            split,
            words: words(tokens),
            each: Vec::new(),
        }
    }

    /// Adds the directions of a strip.
    pub fn add_strip(&mut self, scores: &Scores) {
        let purities: Vec<_> = (0..scores.columns.len())
            .into_par_iter()
            .map(|c| {
                let peaks = self.train.iter().map(|&i| {
                    let (score, row) = scores.at(i, c);
                    (score, i, row)
                });
                self.purity(peaks.collect())
            })
            .collect();
        self.add(&purities);
    }

    /// Adds the features of a fit on the training rows, by their coefficients.
    pub fn add_coefficients(&mut self, factors: &Factors, rows: &ResidentRows<'_>) {
        let mut sentence_of = vec![0u32; factors.coefficients.rows];
        let mut starts = Vec::with_capacity(self.train.len());
        let mut at = 0;
        for &i in &self.train {
            let end = (at + self.split.sentences[i].rows.len()).min(sentence_of.len());
            sentence_of[at..end].fill(i as u32);
            starts.push(at..end);
            at = end;
        }
        let purities: Vec<_> = (0..factors.features.columns())
            .into_par_iter()
            .map(|j| {
                let y = factors.coefficients.feature(j);
                let peaks = starts.iter().filter_map(|span| {
                    let row = span
                        .clone()
                        .max_by(|&a, &b| y[a].total_cmp(&y[b]).then(b.cmp(&a)))?;
                    Some((y[row], sentence_of[row] as usize, rows.source_row(row)))
                });
                self.purity(peaks.collect())
            })
            .collect();
        self.add(&purities);
    }

    /// (label share, token share) of (value, sentence, row) peaks.
    fn purity(&self, mut peaks: Vec<(f32, usize, usize)>) -> Option<Shares> {
        peaks.retain(|p| p.0 > 0.0);
        peaks.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        peaks.truncate(CONTEXTS);
        if peaks.len() < FEWEST {
            return None;
        }
        let label = commonest(peaks.iter().filter_map(|p| self.split.sentences[p.1].label));
        let token = commonest(
            peaks
                .iter()
                .filter_map(|p| self.words.get(&self.tokens.rows[p.2].id).copied()),
        );
        let count = peaks.len() as f64;
        Some((label as f64 / count, token as f64 / count))
    }

    fn add(&mut self, purities: &[Option<Shares>]) {
        self.each.extend(purities.iter().flatten());
    }

    /// The means, `None` when no feature has enough contexts, and each feature that has.
    pub fn finish(self) -> (Option<ContextPurity>, Vec<Shares>) {
        let (label, token) = self
            .each
            .iter()
            .fold((0.0, 0.0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
        let (features, count) = (self.each.len(), self.each.len() as f64);
        let means = (features > 0).then(|| ContextPurity {
            label: (!self.tokens.labels.is_empty()).then_some(label / count),
            token: token / count,
            features,
        });
        (means, self.each)
    }
}

/// A number for each token id, the same for tokens that differ in case or surrounding space alone.
fn words(tokens: &TokenTable) -> HashMap<u32, u32> {
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let mut ids: Vec<_> = tokens.pieces.iter().collect();
    ids.sort();
    ids.into_iter()
        .map(|(&id, piece)| {
            let word =
                piece.trim_matches(|c: char| c.is_whitespace() || matches!(c, '·' | '▁' | 'Ġ'));
            let word = if word.is_empty() {
                piece.clone()
            } else {
                word.to_lowercase()
            };
            let next = numbers.len() as u32;
            (id, *numbers.entry(word).or_insert(next))
        })
        .collect()
}

fn commonest(values: impl Iterator<Item = u32>) -> usize {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

/// How many features are active at a token (above [`ACTIVE`] of their own maximum) on average, and
/// how many are dead (no coefficient above zero, or no neuron).
pub fn activity(factors: &Factors) -> (f64, usize) {
    let counts: Vec<(usize, bool)> = (0..factors.features.columns())
        .into_par_iter()
        .map(|j| {
            let y = factors.coefficients.feature(j);
            let peak = y.iter().copied().fold(0.0f32, f32::max);
            let empty = factors.features.column(j).1.iter().all(|&v| v == 0.0);
            let active = if peak > 0.0 {
                y.iter().filter(|&&v| v > ACTIVE * peak).count()
            } else {
                0
            };
            (active, peak <= 0.0 || empty)
        })
        .collect();
    let active: usize = counts.iter().map(|c| c.0).sum();
    let dead = counts.iter().filter(|c| c.1).count();
    (
        active as f64 / factors.coefficients.rows.max(1) as f64,
        dead,
    )
}

#[cfg(test)]
mod tests {
    use super::super::score::each_strip;
    use super::super::split::{Holdout, RowView, tests::table};
    use super::*;
    use crate::activations::{ActivationSource, InMemory};
    use crate::directions::Directions;
    use crate::factor::Coefficients;
    use crate::task::TaskCtx;

    fn factors(columns: &[Vec<f32>], y: Vec<f32>, rows: usize) -> Factors {
        let d = columns[0].len();
        let features = Directions::Dense {
            d,
            columns: columns.concat(),
        }
        .to_sparse();
        let coefficients = Coefficients::owned(rows, y);
        Factors {
            features,
            coefficients,
            coding: Default::default(),
            relative_error: 0.0,
            weighted_error: None,
            explained_variance: 0.0,
            sweep: 1,
            seconds: 0.0,
        }
    }

    #[test]
    fn active_and_dead_are_counted_by_each_features_own_maximum() {
        let y = vec![
            10.0, 0.4, 0.6, 0.0, 0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0,
        ];
        let columns = [
            vec![1.0, 0.0],
            vec![0.0, 1.0],
            vec![1.0, 1.0],
            vec![0.0, 0.0],
        ];
        let (active, dead) = activity(&factors(&columns, y, 4));
        assert_eq!(dead, 2, "one never used, one without neurons");
        assert!((active - (2.0 + 1.0 + 4.0) / 4.0).abs() < 1e-9, "{active}");
    }

    /// 20 sentences of 3 rows of two labels; neuron 0 is high in label 0, neuron 1 in every other
    /// sentence of each.
    #[test]
    fn purity_is_of_labels_and_tokens_in_distinct_sentences() {
        let samples: Vec<_> = (0..20).map(|i| (3, Some(i % 2))).collect();
        let mut tokens = table(&samples);
        tokens.pieces.insert(0, "·Monday".into());
        tokens.pieces.insert(1, "monday".into());
        let split = Split::new(
            &tokens,
            &Holdout {
                seed: None,
                ..Holdout::default()
            },
        )
        .unwrap();
        let mut data = vec![0.0f32; 60 * 2];
        for (i, line) in data.chunks_exact_mut(2).enumerate() {
            let sentence = i / 3;
            line[0] = if sentence % 2 == 0 { 1.0 } else { -1.0 };
            line[1] = if sentence % 4 < 2 { 0.5 } else { -0.5 };
        }
        let source = InMemory::new(60, 2, data);
        let mut meter = PurityMeter::new(&tokens, &split);
        each_strip(
            &source,
            &split.sentences,
            &Directions::Neurons(2),
            &TaskCtx::silent(),
            |scores| {
                meter.add_strip(scores);
                Ok(())
            },
        )
        .unwrap();
        let purity = meter.finish().0.unwrap();
        assert_eq!((purity.label, purity.features), (Some(0.75), 2));
        assert_eq!(
            purity.token, 1.0,
            "the two tokens differ in case and space alone"
        );

        // The same by coefficients: feature 0 on label 0's rows, feature 1 on one sentence only,
        // which is too few.
        let rows = RowView::new(&source, split.rows(false))
            .resident(1 << 20, &TaskCtx::silent())
            .unwrap();
        let n = rows.shape().0;
        let mut y = vec![0.0; 2 * n];
        for row in 0..n {
            y[row] = if (rows.source_row(row) / 3).is_multiple_of(2) {
                1.0
            } else {
                0.0
            };
        }
        y[n] = 1.0;
        let mut meter = PurityMeter::new(&tokens, &split);
        meter.add_coefficients(&factors(&[vec![1.0, 0.0], vec![0.0, 1.0]], y, n), &rows);
        assert_eq!(
            meter.finish(),
            (
                Some(ContextPurity {
                    label: Some(1.0),
                    token: 1.0,
                    features: 1
                }),
                vec![(1.0, 1.0)]
            )
        );
    }
}
