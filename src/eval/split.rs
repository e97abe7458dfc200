//! Which sentences are held out, and a source that shows only some rows of another.
//!
//! Knows samples, labels and row numbers; never a value of the activations. Invariant: a sample's
//! rows are all on one side.

use std::borrow::Cow;
use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};

use crate::activations::{ActivationSource, Block, InMemory};
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::task::TaskCtx;

/// Which sentences are held out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Holdout {
    /// The share of every label's sentences.
    pub share: f64,
    /// At least so many of a label (but never more than half of them).
    pub at_least: usize,
    /// Labels with fewer sentences than this are not scored and lose none.
    pub label_size: usize,
    /// Chooses the sentences; `None` takes the last ones.
    pub seed: Option<u64>,
}

impl Default for Holdout {
    /// A fifth, at least 2, of every label with 4 sentences or more.
    fn default() -> Self {
        Self {
            share: 0.2,
            at_least: 2,
            label_size: 4,
            seed: Some(0),
        }
    }
}

/// A sample that has rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// Its rows in the source.
    pub rows: Range<usize>,
    /// Its label's number in the table.
    pub label: Option<u32>,
    /// Whether it is held out.
    pub held_out: bool,
}

/// The sentences of a corpus, each on one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Samples in the order of their rows; a sample without rows is left out.
    pub sentences: Vec<Sentence>,
    /// The labels that are scored: numbers in the table, ascending.
    pub labels: Vec<u32>,
}

impl Split {
    /// Divides the sentences of `tokens`. Without any label of `label_size` sentences, the share is
    /// taken of all sentences and no label is scored.
    ///
    /// # Errors
    /// [`Error::Usage`] for a share outside \[0, 1), [`Error::Refused`] when nothing would be left
    /// on a side.
    pub fn new(tokens: &TokenTable, holdout: &Holdout) -> Result<Self> {
        if !(0.0..1.0).contains(&holdout.share) {
            return Err(Error::usage(format!(
                "a share of {} cannot be held out: give 0 to below 1",
                holdout.share
            )));
        }
        let mut sentences = sentences(tokens);
        let mut of_label: Vec<Vec<usize>> = vec![Vec::new(); tokens.labels.len()];
        for (i, sentence) in sentences.iter().enumerate() {
            if let Some(samples) = sentence.label.and_then(|l| of_label.get_mut(l as usize)) {
                samples.push(i);
            }
        }
        let mut labels: Vec<u32> = Vec::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (label, group) in (0..).zip(of_label) {
            if group.len() >= holdout.label_size.max(2) {
                labels.push(label);
                groups.push(group);
            }
        }
        if groups.is_empty() {
            groups.push((0..sentences.len()).collect());
        }
        let mut rng = holdout.seed.map(Pcg64::seed_from_u64);
        for mut group in groups {
            if let Some(rng) = &mut rng {
                group.shuffle(rng);
            }
            let wanted =
                ((holdout.share * group.len() as f64).round() as usize).max(holdout.at_least);
            let first = group.len() - wanted.min(group.len() / 2);
            for &i in &group[first..] {
                sentences[i].held_out = true;
            }
        }
        // With a single label there are no other sentences to separate it from.
        if labels.len() < 2 {
            labels.clear();
        }
        let held = sentences.iter().filter(|s| s.held_out).count();
        if held == 0 || held == sentences.len() {
            return Err(Error::refused(format!(
                "{} sentences cannot be divided into two sides: use a corpus of at least 4, or hold out more",
                sentences.len()
            )));
        }
        Ok(Self { sentences, labels })
    }

    /// All sentences on the side that chooses, and no label to score.
    pub(super) fn undivided(tokens: &TokenTable) -> Self {
        Self {
            sentences: sentences(tokens),
            labels: Vec::new(),
        }
    }

    /// The same sides, with the labels of each side shuffled among its sentences.
    pub fn shuffled(&self, seed: u64) -> Self {
        let mut out = self.clone();
        let mut rng = Pcg64::seed_from_u64(seed);
        for side in [false, true] {
            let places: Vec<usize> = (0..self.sentences.len())
                .filter(|&i| self.sentences[i].held_out == side)
                .collect();
            let mut labels: Vec<_> = places.iter().map(|&i| self.sentences[i].label).collect();
            labels.shuffle(&mut rng);
            for (&i, label) in places.iter().zip(labels) {
                out.sentences[i].label = label;
            }
        }
        out
    }

    /// The row ranges of one side, neighbours joined.
    pub fn rows(&self, held_out: bool) -> Vec<Range<usize>> {
        let mut out: Vec<Range<usize>> = Vec::new();
        for sentence in self.sentences.iter().filter(|s| s.held_out == held_out) {
            match out.last_mut() {
                Some(last) if last.end == sentence.rows.start => last.end = sentence.rows.end,
                _ => out.push(sentence.rows.clone()),
            }
        }
        out
    }
}

/// The samples that have rows.
fn sentences(tokens: &TokenTable) -> Vec<Sentence> {
    let mut end = 0;
    tokens
        .rows
        .chunk_by(|a, b| a.sample == b.sample)
        .map(|run| {
            end += run.len();
            let label = tokens
                .sample_labels
                .get(run[0].sample as usize)
                .copied()
                .flatten();
            Sentence {
                rows: end - run.len()..end,
                label,
                held_out: false,
            }
        })
        .collect()
}

/// Some rows of a source, in order, as a source of their own.
pub struct RowView<'a> {
    source: &'a dyn ActivationSource,
    spans: Vec<Range<usize>>,
    /// The view's number of each span's first row; one more for the end.
    starts: Vec<usize>,
}

impl<'a> RowView<'a> {
    /// The rows of `spans`, which must ascend without overlap inside the source.
    pub fn new(source: &'a dyn ActivationSource, spans: Vec<Range<usize>>) -> Self {
        let mut starts = vec![0];
        let mut at = 0;
        for span in &spans {
            at += span.len();
            starts.push(at);
        }
        Self {
            source,
            spans,
            starts,
        }
    }

    /// The source's number of the view's row `row`.
    pub fn source_row(&self, row: usize) -> usize {
        let span = self.span_of(row);
        self.spans[span].start + (row - self.starts[span])
    }

    /// The span that holds a row of the view.
    fn span_of(&self, row: usize) -> usize {
        self.starts.partition_point(|&s| s <= row) - 1
    }

    /// The same rows gathered into memory when they take at most `bytes`: a pass then copies
    /// nothing.
    ///
    /// # Errors
    /// What reading the rows returns; [`Error::Cancelled`].
    pub fn resident(self, bytes: usize, ctx: &TaskCtx) -> Result<ResidentRows<'a>> {
        let (n, d) = self.shape();
        if n.saturating_mul(d).saturating_mul(4) > bytes {
            return Ok(ResidentRows {
                view: self,
                copy: None,
            });
        }
        let mut data = Vec::with_capacity(n * d);
        for span in &self.spans {
            ctx.check()?;
            data.extend_from_slice(&self.source.rows(span.clone())?.data);
        }
        Ok(ResidentRows {
            view: self,
            copy: Some(InMemory::new(n, d, data)),
        })
    }
}

impl ActivationSource for RowView<'_> {
    fn shape(&self) -> (usize, usize) {
        (self.starts[self.spans.len()], self.source.shape().1)
    }

    fn rows(&self, range: Range<usize>) -> Result<Block<'_>> {
        let cols = self.source.shape().1;
        if range.is_empty() {
            return Ok(Block {
                rows: 0,
                cols,
                data: Cow::Borrowed(&[]),
            });
        }
        let (first, last) = (self.span_of(range.start), self.span_of(range.end - 1));
        // A span starts in the source no earlier than in the view.
        let part = |span: usize| {
            let shift = self.spans[span].start - self.starts[span];
            range.start.max(self.starts[span]) + shift..range.end.min(self.starts[span + 1]) + shift
        };
        if first == last {
            return self.source.rows(part(first));
        }
        let mut data = Vec::with_capacity(range.len() * cols);
        for span in first..=last {
            data.extend_from_slice(&self.source.rows(part(span))?.data);
        }
        Ok(Block {
            rows: range.len(),
            cols,
            data: Cow::Owned(data),
        })
    }

    fn describe_row(&self, row: usize) -> String {
        self.source.describe_row(self.source_row(row))
    }
}

/// Some rows of a source, copied into memory where they fit.
pub struct ResidentRows<'a> {
    view: RowView<'a>,
    copy: Option<InMemory>,
}

impl ResidentRows<'_> {
    /// The source's number of row `row`.
    pub fn source_row(&self, row: usize) -> usize {
        self.view.source_row(row)
    }
}

impl ActivationSource for ResidentRows<'_> {
    fn shape(&self) -> (usize, usize) {
        self.view.shape()
    }

    fn rows(&self, range: Range<usize>) -> Result<Block<'_>> {
        self.copy.as_ref().map_or_else(
            || self.view.rows(range.clone()),
            |copy| copy.rows(range.clone()),
        )
    }

    fn describe_row(&self, row: usize) -> String {
        self.view.describe_row(row)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::corpus::TokenRow;

    /// A table of samples of `rows` rows and a label each; every row's token is its sample's label.
    pub(crate) fn table(samples: &[(usize, Option<u32>)]) -> TokenTable {
        let labels = samples
            .iter()
            .filter_map(|s| s.1)
            .max()
            .map_or(0, |m| m + 1);
        let mut table = TokenTable {
            labels: (0..labels).map(|l| format!("label {l}")).collect(),
            ..TokenTable::default()
        };
        for (sample, &(rows, label)) in (0..).zip(samples) {
            let id = label.unwrap_or(1000);
            table
                .pieces
                .entry(id)
                .or_insert_with(|| format!("piece {id}"));
            table.rows.extend((0..rows).map(|p| TokenRow {
                id,
                sample,
                position: p as u32,
            }));
            table.texts.push(format!("text {sample}"));
            table.sample_labels.push(label);
        }
        table
    }

    fn held(split: &Split) -> Vec<usize> {
        (0..split.sentences.len())
            .filter(|&i| split.sentences[i].held_out)
            .collect()
    }

    #[test]
    fn the_last_sentences_of_large_enough_labels_are_held_out() {
        // Sample 2 has no rows; label 2 has three sentences.
        let samples: Vec<_> = (0..12)
            .map(|i| {
                (
                    if i == 2 { 0 } else { 2 },
                    Some(if i < 9 { i % 2 } else { 2 }),
                )
            })
            .collect();
        let holdout = Holdout {
            share: 0.0,
            seed: None,
            ..Holdout::default()
        };
        let split = Split::new(&table(&samples), &holdout).unwrap();
        assert_eq!(split.labels, [0, 1]);
        assert_eq!(split.sentences.len(), 11);
        // Label 0: samples 0, 4, 6, 8 and label 1: samples 1, 3, 5, 7; numbers are one less after
        // the empty sample.
        assert_eq!(held(&split), [4, 5, 6, 7]);
        let held = split.rows(true);
        assert_eq!((held.len(), held[0].clone()), (1, 8..16));
        assert_eq!(split.rows(false), [0..8, 16..22]);
    }

    #[test]
    fn the_seed_chooses_and_the_share_counts() {
        let samples: Vec<_> = (0..60).map(|i| (1, Some(i % 2))).collect();
        let table = table(&samples);
        let split = |seed| {
            Split::new(
                &table,
                &Holdout {
                    seed: Some(seed),
                    ..Holdout::default()
                },
            )
            .unwrap()
        };
        assert_eq!(held(&split(1)).len(), 12, "a fifth of 30, twice");
        assert_eq!(split(1), split(1));
        assert_ne!(held(&split(1)), held(&split(2)));
    }

    #[test]
    fn shuffled_labels_stay_on_their_side() {
        let samples: Vec<_> = (0..40).map(|i| (1, Some(i % 4))).collect();
        let split = Split::new(&table(&samples), &Holdout::default()).unwrap();
        let shuffled = split.shuffled(1);
        assert_eq!(held(&split), held(&shuffled));
        assert_ne!(split, shuffled);
        for side in [false, true] {
            let labels = |s: &Split| {
                let mut side_labels: Vec<_> = s
                    .sentences
                    .iter()
                    .filter(|s| s.held_out == side)
                    .map(|s| s.label)
                    .collect();
                side_labels.sort_unstable();
                side_labels
            };
            assert_eq!(labels(&split), labels(&shuffled));
        }
    }

    #[test]
    fn without_labels_a_share_of_all_is_held_out_and_too_little_is_refused() {
        let split = Split::new(&table(&[(1, None); 10]), &Holdout::default()).unwrap();
        assert_eq!((held(&split).len(), split.labels.len()), (2, 0));
        assert!(matches!(
            Split::new(&table(&[(5, None)]), &Holdout::default()),
            Err(Error::Refused(_))
        ));
        assert!(matches!(
            Split::new(
                &table(&[(1, None); 10]),
                &Holdout {
                    share: 1.0,
                    ..Holdout::default()
                }
            ),
            Err(Error::Usage(_))
        ));
    }

    #[test]
    fn a_view_is_the_chosen_rows_in_order() {
        let source = InMemory::new(10, 2, (0..20).map(|v| v as f32).collect());
        let spans = vec![1..3, 5..6, 8..10];
        let rows = [1, 2, 5, 8, 9];
        let view = RowView::new(&source, spans.clone());
        assert_eq!(view.shape(), (5, 2));
        let kept = RowView::new(&source, spans)
            .resident(1 << 20, &TaskCtx::silent())
            .unwrap();
        for start in 0..=5 {
            for end in start..=5 {
                let expected: Vec<f32> = rows[start..end]
                    .iter()
                    .flat_map(|&r| [2.0 * r as f32, 2.0 * r as f32 + 1.0])
                    .collect();
                assert_eq!(view.rows(start..end).unwrap().data.as_ref(), expected);
                assert_eq!(kept.rows(start..end).unwrap().data.as_ref(), expected);
            }
        }
        assert_eq!(
            rows.map(|r| format!("row {r}")),
            [0, 1, 2, 3, 4].map(|i| view.describe_row(i))
        );
    }
}
