//! Label purity: how a feature's coefficients and contexts are distributed over the labels of the
//! corpus.
//!
//! Knows token tables and rows, not the source of the rows' values. Shares are of *all* rows or
//! contexts, labelled or not, so in a partly labelled corpus they sum to less than 1.

use rayon::prelude::*;

use super::{LabelMatrix, LabelShare, Purity};
use crate::corpus::TokenTable;
use crate::factor::Factors;

/// The labels of a corpus with their base rates; made once for all features of a fit.
pub struct LabelBase<'a> {
    tokens: &'a TokenTable,
    /// The share of all rows that have label l.
    base: Vec<f32>,
}

impl<'a> LabelBase<'a> {
    /// Counts the first `rows` rows by label, in one pass over the table.
    pub fn new(tokens: &'a TokenTable, rows: usize) -> Self {
        let mut counts = vec![0u64; tokens.labels.len()];
        for (sample, run) in sample_runs(tokens, rows) {
            if let Some(label) = label_of_sample(tokens, sample) {
                counts[label] += run.len() as u64;
            }
        }
        let base = counts
            .into_iter()
            .map(|c| (c as f64 / rows.max(1) as f64) as f32)
            .collect();
        Self { tokens, base }
    }

    /// The label with the largest share of `rows` (the top contexts of a feature); of equal shares
    /// the rarer label. `None` if no row has a label.
    pub fn purity(&self, rows: &[usize]) -> Option<Purity> {
        let counts = self.count(rows);
        let rank = |l: &usize| {
            (
                counts[*l],
                std::cmp::Reverse(self.base[*l].to_bits()),
                std::cmp::Reverse(*l),
            )
        };
        let best = (0..counts.len()).max_by_key(rank)?;
        (counts[best] > 0).then(|| Purity {
            label: self.tokens.labels[best].clone(),
            share: counts[best] as f32 / rows.len() as f32,
            base: self.base[best],
        })
    }

    /// Each label's share of a feature's mass ΣY and of its top contexts, largest mass first;
    /// labels with neither are left out. `coefficients` holds one value per row.
    pub fn shares(&self, coefficients: &[f32], contexts: &[usize]) -> Vec<LabelShare> {
        let (masses, total) = self.masses(coefficients);
        let counts = self.count(contexts);
        let share = |part: f64, whole: f64| {
            if whole > 0.0 {
                (part / whole) as f32
            } else {
                0.0
            }
        };
        let mut shares: Vec<LabelShare> = (0..self.base.len())
            .filter(|&l| masses[l] > 0.0 || counts[l] > 0)
            .map(|l| LabelShare {
                label: self.tokens.labels[l].clone(),
                mass: share(masses[l], total),
                contexts: share(counts[l] as f64, contexts.len() as f64),
                base: self.base[l],
            })
            .collect();
        shares.sort_by(|a, b| b.mass.total_cmp(&a.mass));
        shares
    }

    /// The sum of the coefficients over each label's rows, and that over all rows.
    fn masses(&self, coefficients: &[f32]) -> (Vec<f64>, f64) {
        let mut masses = vec![0f64; self.base.len()];
        let mut total = 0f64;
        for (sample, run) in sample_runs(self.tokens, coefficients.len()) {
            let mass: f64 = coefficients[run].iter().map(|&v| f64::from(v)).sum();
            total += mass;
            if let Some(label) = label_of_sample(self.tokens, sample) {
                masses[label] += mass;
            }
        }
        // Rows beyond the table have no sample; their coefficients still count in the total.
        total += coefficients
            .iter()
            .skip(self.tokens.rows.len())
            .map(|&v| f64::from(v))
            .sum::<f64>();
        (masses, total)
    }

    fn count(&self, rows: &[usize]) -> Vec<u64> {
        let mut counts = vec![0; self.base.len()];
        for label in rows.iter().filter_map(|&row| label_of(self.tokens, row)) {
            counts[label] += 1;
        }
        counts
    }
}

/// For each feature the share of its ΣY on the labels whose name contains `text`, ignoring case.
pub fn mass_shares(factors: &Factors, tokens: &TokenTable, text: &str) -> Vec<f32> {
    let found = matrix(factors, tokens);
    let text = text.to_lowercase();
    let wanted: Vec<bool> = found
        .labels
        .iter()
        .map(|label| label.to_lowercase().contains(&text))
        .collect();
    let sum = |shares: &Vec<f32>| {
        shares
            .iter()
            .zip(&wanted)
            .filter(|(_, w)| **w)
            .map(|(s, _)| s)
            .sum()
    };
    found.shares.iter().map(sum).collect()
}

/// Every feature's share of ΣY on every label: one pass over the coefficients, features in
/// parallel.
pub fn matrix(factors: &Factors, tokens: &TokenTable) -> LabelMatrix {
    let labels = LabelBase::new(tokens, factors.coefficients.rows);
    let shares = (0..factors.features.columns()).into_par_iter().map(|id| {
        let (masses, total) = labels.masses(factors.coefficients.feature(id));
        masses
            .into_iter()
            .map(|mass| {
                if total > 0.0 {
                    (mass / total) as f32
                } else {
                    0.0
                }
            })
            .collect()
    });
    LabelMatrix {
        labels: tokens.labels.clone(),
        shares: shares.collect(),
        base: labels.base.clone(),
    }
}

/// The label number of a row's sample.
fn label_of(tokens: &TokenTable, row: usize) -> Option<usize> {
    label_of_sample(tokens, tokens.rows.get(row)?.sample)
}

fn label_of_sample(tokens: &TokenTable, sample: u32) -> Option<usize> {
    let label = (*tokens.sample_labels.get(sample as usize)?)? as usize;
    (label < tokens.labels.len()).then_some(label)
}

/// The runs of rows of one sample among the first `rows` rows, so that labels are looked up once
/// per sample instead of once per row.
fn sample_runs(
    tokens: &TokenTable,
    rows: usize,
) -> impl Iterator<Item = (u32, std::ops::Range<usize>)> {
    let table = &tokens.rows[..rows.min(tokens.rows.len())];
    let mut end = 0;
    table.chunk_by(|a, b| a.sample == b.sample).map(move |run| {
        end += run.len();
        (run[0].sample, end - run.len()..end)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::table;
    use super::*;

    /// Three samples of 4, 2 and 2 rows: "day", unlabelled, "month".
    fn labelled() -> TokenTable {
        table(&[
            (&["a"; 4], Some("day")),
            (&["b"; 2], None),
            (&["c"; 2], Some("month")),
        ])
    }

    #[test]
    fn purity_is_the_largest_share_with_its_base_rate() {
        let tokens = labelled();
        let base = LabelBase::new(&tokens, 8);
        let purity = base.purity(&[0, 1, 6, 4]).unwrap();
        assert_eq!(
            (purity.label.as_str(), purity.share, purity.base),
            ("day", 0.5, 0.5)
        );
        // One context each: the rarer label is the more informative one.
        assert_eq!(base.purity(&[0, 6]).unwrap().label, "month");
        assert_eq!(base.purity(&[4, 5]), None, "no context has a label");
        assert_eq!(base.purity(&[]), None);
    }

    #[test]
    fn masses_are_shares_of_everything() {
        let tokens = labelled();
        let base = LabelBase::new(&tokens, 8);
        let shares = base.shares(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0], &[6, 0]);
        assert_eq!(
            shares,
            [
                LabelShare {
                    label: "month".into(),
                    mass: 0.5,
                    contexts: 0.5,
                    base: 0.25
                },
                LabelShare {
                    label: "day".into(),
                    mass: 0.25,
                    contexts: 0.5,
                    base: 0.5
                },
            ]
        );
        assert!(base.shares(&[0.0; 8], &[]).is_empty());
    }

    #[test]
    fn the_matrix_holds_every_features_shares() {
        let tokens = labelled();
        let z = super::super::tests::columns(1, &[vec![1.0], vec![1.0]]);
        let y = [&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0, 0.0][..], &[0.0; 8]].concat();
        let matrix = matrix(&super::super::tests::factors(z, 8, y), &tokens);
        assert_eq!(matrix.labels, ["day", "month"]);
        assert_eq!(matrix.shares, [[0.25, 0.5], [0.0, 0.0]]);
        assert_eq!(matrix.base, [0.5, 0.25]);
    }

    #[test]
    fn a_corpus_without_labels_has_no_purity() {
        let tokens = table(&[(&["a", "b"], None)]);
        let base = LabelBase::new(&tokens, 2);
        assert_eq!(base.purity(&[0, 1]), None);
        assert!(base.shares(&[1.0, 2.0], &[1]).is_empty());
    }

    #[test]
    fn a_table_without_rows_has_no_purity() {
        let tokens = TokenTable::default();
        let base = LabelBase::new(&tokens, 3);
        assert_eq!(base.purity(&[0, 2]), None);
        assert!(base.shares(&[1.0, 2.0, 3.0], &[2]).is_empty());
    }
}
