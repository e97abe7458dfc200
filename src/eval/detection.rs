//! Concept detection: which direction separates a label's sentences from the others, and how well on
//! sentences that were not used to choose it.
//!
//! Sees scores of sentences ([`Scores`]), never activations.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::rank::auroc_by_group;
use super::score::Scores;
use super::split::Split;

/// The direction that detects a label, and how well it does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LabelDetection {
    /// The label's number in the token table.
    pub label: u32,
    /// The direction chosen for it.
    pub feature: usize,
    /// AUROC on the training sentences, by which it was chosen.
    pub train_auroc: f64,
    /// AUROC on the held-out sentences: the label's against all others.
    pub auroc: f64,
    /// Mean score of the label's held-out sentences.
    pub activating: f64,
    /// Mean score of the other held-out sentences.
    pub neutral: f64,
}

impl LabelDetection {
    /// S_CD = ln(mean over activating / mean over neutral sentences), of arXiv 2506.10920. The
    /// paper does not say what it is where a mean is not positive: here it is undefined (`None`)
    /// then, and the share of such labels is reported.
    pub fn s_cd(&self) -> Option<f64> {
        s_cd(self.activating, self.neutral)
    }

    /// Whether the label's sentences score higher on average: S_CD > 0 where it is defined, and as
    /// meaningful where it is not.
    pub fn scores_higher(&self) -> bool {
        self.activating > self.neutral
    }
}

/// ln(mean over activating / mean over neutral sentences) where both are above 0.
pub fn s_cd(activating: f64, neutral: f64) -> Option<f64> {
    (activating > 0.0 && neutral > 0.0).then(|| (activating / neutral).ln())
}

/// How the direction that detects a label is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The one with the best AUROC on the training sentences; the first of equals.
    Best,
    /// Direction l for the l-th scored label: supervised directions.
    Own,
}

/// Chooses a direction for each label, a strip of directions at a time.
pub struct Detector<'a> {
    split: &'a Split,
    choice: Choice,
    train: SideSentences,
    held: SideSentences,
    found: Vec<Option<LabelDetection>>,
}

/// The sentences of one side with their labels' places among the scored ones.
struct SideSentences {
    sentences: Vec<usize>,
    groups: Vec<Option<u32>>,
}

impl SideSentences {
    fn new(split: &Split, held_out: bool) -> Self {
        let sentences: Vec<usize> = (0..split.sentences.len())
            .filter(|&i| split.sentences[i].held_out == held_out)
            .collect();
        let group = |&i: &usize| {
            let label = split.sentences[i].label?;
            split.labels.binary_search(&label).ok().map(|g| g as u32)
        };
        let groups = sentences.iter().map(group).collect();
        Self { sentences, groups }
    }

    fn scores(&self, scores: &Scores, c: usize) -> Vec<f32> {
        self.sentences.iter().map(|&i| scores.at(i, c).0).collect()
    }

    fn aurocs(&self, scores: &Scores, c: usize, labels: usize) -> Vec<Option<f64>> {
        auroc_by_group(&self.scores(scores, c), &self.groups, labels)
    }
}

impl<'a> Detector<'a> {
    /// For the labels that `split` scores.
    pub fn new(split: &'a Split, choice: Choice) -> Self {
        let found = vec![None; split.labels.len()];
        Self {
            split,
            choice,
            train: SideSentences::new(split, false),
            held: SideSentences::new(split, true),
            found,
        }
    }

    /// Adds the scores of a strip of directions.
    pub fn add_strip(&mut self, scores: &Scores) {
        let labels = self.split.labels.len();
        let train: Vec<Vec<Option<f64>>> = (0..scores.columns.len())
            .into_par_iter()
            .map(|c| self.train.aurocs(scores, c, labels))
            .collect();
        for l in 0..labels {
            let mut best: Option<(usize, f64)> = None;
            for (c, aurocs) in train.iter().enumerate() {
                let allowed = self.choice == Choice::Best || scores.columns.start + c == l;
                if let Some(auroc) = aurocs[l].filter(|_| allowed)
                    && best.is_none_or(|(_, b)| auroc > b)
                {
                    best = Some((c, auroc));
                }
            }
            if let Some((c, auroc)) = best
                && self.found[l].is_none_or(|f| auroc > f.train_auroc)
            {
                self.found[l] = self.held_out(scores, c, l, auroc);
            }
        }
    }

    fn held_out(
        &self,
        scores: &Scores,
        c: usize,
        l: usize,
        train_auroc: f64,
    ) -> Option<LabelDetection> {
        let values = self.held.scores(scores, c);
        let auroc = auroc_by_group(&values, &self.held.groups, self.split.labels.len())[l]?;
        let mean = |inside: bool| {
            let side_values = values
                .iter()
                .zip(&self.held.groups)
                .filter(|(_, g)| (**g == Some(l as u32)) == inside);
            let (sum, count) = side_values.fold((0.0, 0usize), |(sum, count), (&v, _)| {
                (sum + f64::from(v), count + 1)
            });
            sum / count.max(1) as f64
        };
        Some(LabelDetection {
            label: self.split.labels[l],
            feature: scores.columns.start + c,
            train_auroc,
            auroc,
            activating: mean(true),
            neutral: mean(false),
        })
    }

    /// One entry a scored label, in their order.
    pub fn finish(self) -> Vec<LabelDetection> {
        self.found.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg64;

    use super::super::score::each_strip;
    use super::super::split::{Holdout, tests::table};
    use super::*;
    use crate::activations::InMemory;
    use crate::directions::Directions;
    use crate::task::TaskCtx;

    /// 8 sentences of each of 3 labels, 6 rows each, noise; label l's sentences have one row with
    /// neuron 2 l + 1 high.
    fn planted(d: usize) -> (InMemory, Split) {
        let samples: Vec<_> = (0..24).map(|i| (6, Some(i % 3))).collect();
        let split = Split::new(&table(&samples), &Holdout::default()).unwrap();
        let mut rng = Pcg64::seed_from_u64(3);
        let mut data: Vec<f32> = (0..24 * 6 * d)
            .map(|_| rng.random_range(-0.1..0.1))
            .collect();
        for (i, s) in split.sentences.iter().enumerate() {
            data[(s.rows.start + i % 6) * d + 2 * (i % 3) + 1] = 1.0;
        }
        (InMemory::new(24 * 6, d, data), split)
    }

    fn detect(
        source: &InMemory,
        split: &Split,
        directions: &Directions,
        choice: Choice,
    ) -> Vec<LabelDetection> {
        let mut detector = Detector::new(split, choice);
        each_strip(
            source,
            &split.sentences,
            directions,
            &TaskCtx::silent(),
            |scores| {
                detector.add_strip(scores);
                Ok(())
            },
        )
        .unwrap();
        detector.finish()
    }

    #[test]
    fn a_planted_concept_is_found_by_its_neuron() {
        let (source, split) = planted(12);
        let found = detect(&source, &split, &Directions::Neurons(12), Choice::Best);
        assert_eq!(
            found.iter().map(|f| f.feature).collect::<Vec<_>>(),
            [1, 3, 5]
        );
        for f in &found {
            assert_eq!((f.train_auroc, f.auroc), (1.0, 1.0));
            assert!(f.s_cd().unwrap() > 0.5 && f.scores_higher());
        }
    }

    #[test]
    fn own_directions_are_not_chosen() {
        let (source, split) = planted(12);
        // Directions 0 and 1 belong to each other's label, 2 to its own.
        let mut columns = vec![0.0f32; 36];
        (columns[3], columns[12 + 1], columns[24 + 5]) = (1.0, 1.0, 1.0);
        let found = detect(
            &source,
            &split,
            &Directions::Dense { d: 12, columns },
            Choice::Own,
        );
        assert_eq!(
            found.iter().map(|f| f.feature).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert!(found[0].auroc < 0.9 && found[1].auroc < 0.9 && found[2].auroc == 1.0);
    }

    #[test]
    fn a_ratio_of_means_that_are_not_positive_is_undefined() {
        let with = |activating, neutral| LabelDetection {
            label: 0,
            feature: 0,
            train_auroc: 1.0,
            auroc: 1.0,
            activating,
            neutral,
        };
        assert_eq!(with(0.2, 0.1).s_cd(), Some(2f64.ln()));
        assert_eq!(
            (
                with(0.2, 0.0).s_cd(),
                with(-0.1, -0.2).s_cd(),
                with(-0.1, 0.2).s_cd()
            ),
            (None, None, None)
        );
        assert!(with(-0.1, -0.2).scores_higher() && !with(-0.1, 0.2).scores_higher());
    }
}
