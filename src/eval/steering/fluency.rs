//! Fluency without a language model that is asked: by the perplexity under the unsteered model, and by how
//! much a text repeats itself.

use super::TextRecord;
use super::judge::RatingCase;

/// The fluency of a text falls to 0 at this many times the perplexity of unsteered texts.
const PERPLEXITY: f64 = 10.0;

/// What unsteered texts have: 2 at their mean log-perplexity under the unsteered model or below,
/// falling linearly to 0 at ten times the perplexity; times the share of distinct runs of three
/// tokens, in units of theirs, because a loop is likely but not fluent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FluencyScale {
    nll: f64,
    distinct: f64,
}

impl FluencyScale {
    pub(super) fn of(unsteered: &[TextRecord]) -> Self {
        Self {
            nll: mean(&unsteered.iter().map(|t| t.nll).collect::<Vec<_>>()),
            distinct: mean(&unsteered.iter().map(|t| t.distinct).collect::<Vec<_>>()),
        }
    }

    /// The fluency of a text, from 0 to 2.
    pub(super) fn rating(&self, case: &RatingCase) -> f64 {
        let likely = (1.0 - (case.nll - self.nll) / PERPLEXITY.ln()).clamp(0.0, 1.0);
        let varied = if self.distinct > 0.0 {
            (case.distinct / self.distinct).min(1.0)
        } else {
            1.0
        };
        2.0 * likely * varied
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "fluency 2 to 0 by perplexity between the unsteered model's {:.1} and ten times that, times distinct 3-token runs",
            self.nll.exp()
        )
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
