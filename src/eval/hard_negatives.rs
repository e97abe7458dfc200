//! Hard negatives: detection of a label's sentences among those of the most similar labels.
//!
//! Sees activations only through scores of sentences.

use serde::{Deserialize, Serialize};

use super::detection::LabelDetection;
use super::rank::auroc_by_group;
use super::score::each_strip;
use super::split::Split;
use crate::activations::ActivationSource;
use crate::directions::Directions;
use crate::error::Result;
use crate::task::TaskCtx;

/// How well a label's direction separates its sentences from its rivals'.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HardNegatives {
    /// AUROC on held-out sentences, the label's against its rivals'.
    pub auroc: f64,
    /// (TPR + TNR) / 2 on them at the threshold that is best on the training sentences (argmax TPR
    /// − FPR, as AxBench has it).
    pub accuracy: f64,
}

/// The `count` scored labels most like each, by the cosine of their differences in means (`means`:
/// one column a scored label), nearest first.
pub fn rivals(means: &Directions, count: usize) -> Vec<Vec<usize>> {
    let k = means.count();
    let units: Vec<Vec<f32>> = (0..k).map(|j| means.unit_by_neuron(j..j + 1)).collect();
    let cosine = |i: usize, j: usize| {
        units[i]
            .iter()
            .zip(&units[j])
            .map(|(a, b)| f64::from(a * b))
            .sum::<f64>()
    };
    let nearest = |i: usize| {
        let mut others: Vec<(f64, usize)> = (0..k)
            .filter(|&j| j != i)
            .map(|j| (cosine(i, j), j))
            .collect();
        others.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        others.into_iter().take(count).map(|(_, j)| j).collect()
    };
    (0..k).map(nearest).collect()
}

/// Scores the direction that was chosen for each label once more, against its rivals alone; an
/// entry for each of `found`, `None` where one side of a label has no sentence.
///
/// # Errors
/// What [`each_strip`] returns.
pub fn against_rivals(
    source: &dyn ActivationSource,
    split: &Split,
    directions: &Directions,
    found: &[LabelDetection],
    rivals: &[Vec<usize>],
    ctx: &TaskCtx,
) -> Result<Vec<Option<HardNegatives>>> {
    let chosen = Directions::Dense {
        d: directions.height(),
        columns: found
            .iter()
            .flat_map(|f| directions.column(f.feature))
            .collect(),
    };
    let place = |label: u32| split.labels.binary_search(&label).ok();
    let mut out = vec![None; found.len()];
    each_strip(source, &split.sentences, &chosen, ctx, |scores| {
        for (c, at) in scores.columns.clone().enumerate() {
            let Some(own) = place(found[at].label) else {
                continue;
            };
            let side = |held_out: bool| -> Vec<(f32, bool)> {
                let sentences = split
                    .sentences
                    .iter()
                    .enumerate()
                    .filter(|(_, s)| s.held_out == held_out);
                sentences
                    .filter_map(|(i, s)| {
                        let label = place(s.label?)?;
                        (label == own || rivals[own].contains(&label))
                            .then(|| (scores.at(i, c).0, label == own))
                    })
                    .collect()
            };
            out[at] = judge(&side(false), &side(true));
        }
        Ok(())
    })?;
    Ok(out)
}

fn judge(train: &[(f32, bool)], held: &[(f32, bool)]) -> Option<HardNegatives> {
    let threshold = youden_threshold(train)?;
    let scores: Vec<f32> = held.iter().map(|s| s.0).collect();
    let groups: Vec<Option<u32>> = held.iter().map(|s| s.1.then_some(0)).collect();
    let auroc = auroc_by_group(&scores, &groups, 1)[0]?;
    let right = |own: bool| {
        let correct: Vec<bool> = held
            .iter()
            .filter(|s| s.1 == own)
            .map(|s| (s.0 >= threshold) == own)
            .collect();
        correct.iter().filter(|&&r| r).count() as f64 / correct.len() as f64
    };
    Some(HardNegatives {
        auroc,
        accuracy: (right(true) + right(false)) / 2.0,
    })
}

/// The score at which TPR − FPR is largest, the highest of equals; `None` where one kind is
/// missing.
fn youden_threshold(scores: &[(f32, bool)]) -> Option<f32> {
    let positives = scores.iter().filter(|s| s.1).count();
    let negatives = scores.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut alarms, mut best) = (0usize, 0usize, (f64::NEG_INFINITY, f32::INFINITY));
    for run in sorted.chunk_by(|a, b| a.0 == b.0) {
        hits += run.iter().filter(|s| s.1).count();
        alarms += run.iter().filter(|s| !s.1).count();
        let gain = hits as f64 / positives as f64 - alarms as f64 / negatives as f64;
        if gain > best.0 {
            best = (gain, run[0].0);
        }
    }
    Some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::InMemory;
    use crate::eval::split::{Holdout, tests::table};

    #[test]
    fn the_nearest_labels_are_rivals() {
        let columns = vec![1.0, 0.0, 0.9, 0.1, -1.0, 0.0, 0.0, 5.0];
        let found = rivals(&Directions::Dense { d: 2, columns }, 2);
        assert_eq!(found, [[1, 3], [0, 3], [3, 1], [1, 0]]);
    }

    #[test]
    fn the_threshold_is_the_best_of_all() {
        let train = [
            (0.9, true),
            (0.7, false),
            (0.6, true),
            (0.5, true),
            (0.1, false),
            (0.0, false),
        ];
        assert_eq!(youden_threshold(&train), Some(0.5));
        let held = [(0.8, true), (0.4, true), (0.6, false), (0.2, false)];
        assert_eq!(
            judge(&train, &held),
            Some(HardNegatives {
                auroc: 0.75,
                accuracy: 0.5
            })
        );
        assert_eq!(youden_threshold(&train[..1]), None);
    }

    #[test]
    fn a_direction_that_only_knows_the_family_fails_against_its_rivals() {
        // Labels 0 and 1 share neuron 0; label 2 has neuron 2; neuron 1 is label 0's own.
        let samples: Vec<_> = (0..30).map(|i| (2, Some(i % 3))).collect();
        let split = Split::new(&table(&samples), &Holdout::default()).unwrap();
        let data: Vec<f32> = (0..30)
            .flat_map(|i| {
                let jitter = 0.01 * ((i * 7) % 5) as f32;
                let row = match i % 3 {
                    0 => [1.0, 1.0 + jitter, 0.0],
                    1 => [1.0, jitter, 0.0],
                    _ => [0.0, 0.0, 1.0 + jitter],
                };
                [row, row].concat()
            })
            .collect();
        let source = InMemory::new(60, 3, data);
        let means = Directions::Dense {
            d: 3,
            columns: vec![1.0, 0.5, -1.0, 1.0, -0.5, -1.0, -1.0, -0.2, 2.0],
        };
        let rivals = rivals(&means, 1);
        assert_eq!(rivals[0], [1]);
        let found = |feature| LabelDetection {
            label: 0,
            feature,
            train_auroc: 1.0,
            auroc: 1.0,
            activating: 1.0,
            neutral: 0.0,
        };
        let judged = |feature| {
            let found = [found(feature)];
            let ctx = TaskCtx::silent();
            against_rivals(
                &source,
                &split,
                &Directions::Neurons(3),
                &found,
                &rivals,
                &ctx,
            )
            .unwrap()[0]
                .unwrap()
        };
        assert_eq!(
            judged(1),
            HardNegatives {
                auroc: 1.0,
                accuracy: 1.0
            }
        );
        assert!(
            judged(0).auroc < 0.5,
            "the family's neuron is even stronger in the rival"
        );
    }
}
