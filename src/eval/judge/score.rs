//! How well a description tells a feature's texts from others: detection and fuzzing, by balanced
//! accuracy.
//!
//! After EleutherAI's delphi: detection shows plain texts, fuzzing texts with marked words (in the
//! negatives of fuzzing, words that the feature does not respond to); (TPR + TNR) / 2, so that
//! saying no to everything scores ½.

use serde::{Deserialize, Serialize};

/// Verdicts against the truth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// (TPR + TNR) / 2; `None` without a judged text of either kind.
    pub balanced_accuracy: Option<f64>,
    /// Share of the feature's own texts that were recognised.
    pub true_positive_rate: Option<f64>,
    /// Share of the others that were.
    pub true_negative_rate: Option<f64>,
    /// Texts that were judged.
    pub judged: usize,
    /// Texts whose verdict was missing from an answer.
    pub missing: usize,
}

/// Scores batches of verdicts; `None` is a batch whose answer held none.
pub fn score(truth: &[Vec<bool>], verdicts: &[Option<Vec<bool>>]) -> Score {
    let (mut hits, mut totals, mut missing) = ([0usize; 2], [0usize; 2], 0);
    for (truth, verdicts) in truth.iter().zip(verdicts) {
        let Some(verdicts) = verdicts else {
            missing += truth.len();
            continue;
        };
        for (&truth, &verdict) in truth.iter().zip(verdicts) {
            totals[usize::from(truth)] += 1;
            hits[usize::from(truth)] += usize::from(truth == verdict);
        }
    }
    let rate = |kind: usize| (totals[kind] > 0).then(|| hits[kind] as f64 / totals[kind] as f64);
    let (negative, positive) = (rate(0), rate(1));
    Score {
        balanced_accuracy: positive.zip(negative).map(|(p, n)| (p + n) / 2.0),
        true_positive_rate: positive,
        true_negative_rate: negative,
        judged: totals[0] + totals[1],
        missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answering_no_to_everything_scores_one_half() {
        let truth = [vec![true, true, false, false, false], vec![true, false]];
        let no = [Some(vec![false; 5]), Some(vec![false; 2])];
        assert_eq!(score(&truth, &no).balanced_accuracy, Some(0.5));
        let right = [Some(truth[0].clone()), None];
        let found = score(&truth, &right);
        assert_eq!(
            (found.balanced_accuracy, found.judged, found.missing),
            (Some(1.0), 5, 2)
        );
        let none = score(&truth, &[None, None]);
        assert_eq!(
            (none.balanced_accuracy, none.missing),
            (None, 7),
            "a missing verdict is no wrong one"
        );
    }
}
