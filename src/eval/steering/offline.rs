//! The judge that needs no language model: concept by a label's own words, fluency by the perplexity
//! under the unsteered model.
//!
//! Knows sentences, labels and unsteered texts; no model. Invariant: a label's words and the scale of
//! their share are learnt from different sentences.

use std::collections::{HashMap, HashSet};

use super::TextRecord;
use super::fluency::FluencyScale;
use super::judge::{Judgement, RatingCase, TextJudge};
use super::separation::{LabelledScale, Reasons};
use super::vocabulary::{LabelledText, WordCounts, words};
use crate::error::Result;
use crate::task::TaskCtx;

/// The name of [`OfflineJudge`].
pub const OFFLINE: &str = "offline";

/// Why a label is not judged by its words.
const REASONS: Reasons = Reasons {
    no_sentences: "no sentence is left to scale its words by",
    not_separated: "its words do not tell sentences that they were not learnt from",
    not_above_unsteered: "unsteered texts use its words as much as its own sentences do",
};

/// The judge that needs no language model. Concept: the share of a text's words that belong to the concept's
/// own vocabulary, from what unsteered texts have (0) to what the concept's own sentences have (2),
/// linear between and cut at both ends. Fluency: by [`FluencyScale`].
pub struct OfflineJudge {
    concepts: HashMap<String, Concept>,
    fluency: FluencyScale,
}

/// A concept's words and its scale.
#[derive(Debug, Clone, PartialEq)]
struct Concept {
    words: HashSet<String>,
    /// The share of these words in unsteered texts.
    base: f64,
    /// Their share in sentences of the concept that they were not learnt from.
    own: f64,
}

impl OfflineJudge {
    /// Learns each concept's words from `learn`, and from `scale`, as (label, text), how many of
    /// them its sentences have and whether they tell its sentences from the others' (AUROC of 0.7
    /// or more); `unsteered` sets the zero of the concepts and the scale of fluency. Returns the
    /// labels that it cannot judge, which may be all, with reasons, beside the judge.
    pub fn learn(
        learn: &[LabelledText<'_>],
        scale: &[LabelledText<'_>],
        unsteered: &[TextRecord],
    ) -> (Self, Vec<(String, String)>) {
        let mut labels: Vec<&str> = learn.iter().map(|s| s.0).collect();
        labels.sort_unstable();
        labels.dedup();
        let counts = WordCounts::of(learn);
        let scaled = LabelledScale::new(&labels, scale);
        let (mut concepts, mut left_out) = (HashMap::new(), Vec::new());
        for (l, &label) in labels.iter().enumerate() {
            let words = counts.words_of(label);
            let shares: Vec<f64> = scale.iter().map(|s| share(s.1, &words)).collect();
            let base: Vec<f64> = unsteered.iter().map(|t| share(&t.text, &words)).collect();
            let separation = scaled.separation(l, &shares, &base);
            let problem = if words.is_empty() {
                Some("no words set its sentences apart".to_owned())
            } else {
                separation.problem(&REASONS)
            };
            if let Some(problem) = problem {
                left_out.push((label.to_owned(), problem));
                continue;
            }
            let concept = Concept {
                base: separation.base,
                own: separation.own,
                words,
            };
            concepts.insert(label.to_owned(), concept);
        }
        (
            Self {
                concepts,
                fluency: FluencyScale::of(unsteered),
            },
            left_out,
        )
    }

    /// A label's words, the longest first, to be shown.
    pub fn words(&self, label: &str) -> Vec<&str> {
        let mut words: Vec<&str> = self
            .concepts
            .get(label)
            .into_iter()
            .flat_map(|c| c.words.iter().map(String::as_str))
            .collect();
        words.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        words
    }

    fn judge(&self, case: &RatingCase) -> Judgement {
        let Some(concept) = self.concepts.get(&case.label) else {
            return Judgement::Unrated {
                unrated: format!("the judge knows no words of '{}'", case.label),
            };
        };
        let share = share(&case.text, &concept.words);
        let about = ((share - concept.base) / (concept.own - concept.base)).clamp(0.0, 1.0);
        Judgement::Rated {
            concept: 2.0 * about,
            fluency: self.fluency.rating(case),
        }
    }
}

impl TextJudge for OfflineJudge {
    fn name(&self) -> &str {
        OFFLINE
    }

    fn describe(&self) -> String {
        format!(
            "offline judge: concept 0 to 2 by the share of the concept's own words between unsteered texts and its \
             sentences, {}",
            self.fluency.describe()
        )
    }

    fn knows(&self, label: &str) -> bool {
        self.concepts.contains_key(label)
    }

    fn rate(&mut self, cases: &[RatingCase], ctx: &TaskCtx) -> Result<Vec<Judgement>> {
        ctx.check()?;
        Ok(cases.iter().map(|case| self.judge(case)).collect())
    }
}

/// The share of a text's words that are among `own`; 0 for a text without words.
fn share(text: &str, own: &HashSet<String>) -> f64 {
    let (hits, all) = words(text).fold((0usize, 0usize), |(h, n), w| {
        (h + usize::from(own.contains(&w)), n + 1)
    });
    if all == 0 {
        0.0
    } else {
        hits as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::written;
    use super::*;

    fn corpus() -> Vec<(String, String)> {
        let mut out = Vec::new();
        for i in 0..8 {
            out.push((
                "days".to_owned(),
                format!("we met on Monday and then on Friday number {i} again"),
            ));
            out.push((
                "sea".to_owned(),
                format!("the boat and the tide met the harbour number {i} again"),
            ));
            out.push(("once".to_owned(), format!("unique{i} thing{i} other{i}")));
        }
        out
    }

    fn judge() -> (OfflineJudge, Vec<(String, String)>) {
        let corpus = corpus();
        let pairs: Vec<LabelledText<'_>> = corpus
            .iter()
            .map(|(l, t)| (l.as_str(), t.as_str()))
            .collect();
        let base = [
            TextRecord::unsteered("and then we met again", 1.0, 0.8),
            TextRecord::unsteered("it is so", 3.0, 1.0),
        ];
        OfflineJudge::learn(&pairs, &pairs, &base)
    }

    fn rate(label: &str, text: &str, nll: f64, distinct: f64) -> (f64, f64) {
        let case = RatingCase {
            label: label.into(),
            prompt: String::new(),
            text: text.into(),
            nll,
            distinct,
        };
        match judge()
            .0
            .rate(&[case], &TaskCtx::silent())
            .unwrap()
            .remove(0)
        {
            Judgement::Rated { concept, fluency } => (concept, fluency),
            Judgement::Unrated { unrated } => panic!("{unrated}"),
        }
    }

    #[test]
    fn a_concept_is_known_by_its_own_words() {
        let (judge, left_out) = judge();
        let days = judge.words("days");
        assert!(
            days.contains(&"monday") && days.contains(&"friday"),
            "{days:?}"
        );
        assert!(
            !days.contains(&"again") && !days.contains(&"number"),
            "{days:?}"
        );
        assert_eq!(left_out.len(), 1);
        assert_eq!(
            left_out[0].0, "once",
            "words of one sentence each are nobody's vocabulary"
        );
        assert!(judge.knows("sea") && !judge.knows("once"));
        let corpus = corpus();
        let pairs: Vec<LabelledText<'_>> = corpus
            .iter()
            .map(|(l, t)| (l.as_str(), t.as_str()))
            .collect();
        let written = &written(&pairs, &["days".to_owned()])[0];
        assert!(
            written.contains(&"Monday".to_owned()) && written.len() == days.len(),
            "{written:?}"
        );
    }

    #[test]
    fn words_that_do_not_carry_over_judge_nothing() {
        let learn: Vec<(String, String)> = corpus();
        let pairs = |label: &'static str, text: &'static str| (0..6).map(move |_| (label, text));
        let scale: Vec<LabelledText<'_>> = pairs("days", "a day of other words")
            .chain(pairs("sea", "the boat and the harbour"))
            .collect();
        let learn: Vec<LabelledText<'_>> = learn
            .iter()
            .map(|(l, t)| (l.as_str(), t.as_str()))
            .collect();
        let (judge, left_out) = OfflineJudge::learn(
            &learn,
            &scale,
            &[TextRecord::unsteered("it is so", 1.0, 1.0)],
        );
        assert!(judge.knows("sea") && !judge.knows("days"));
        let why = &left_out.iter().find(|(l, _)| l == "days").unwrap().1;
        assert!(why.contains("AUROC 0."), "{why}");
    }

    #[test]
    fn ratings_run_from_unsteered_texts_to_the_concepts_own() {
        assert_eq!(rate("days", "it is so", 2.0, 0.9).0, 0.0);
        assert!(
            (rate(
                "days",
                "we met on Monday and then on Friday number 3 again",
                2.0,
                0.9
            )
            .0 - 2.0)
                .abs()
                < 1e-9
        );
        assert_eq!(
            rate("days", "Monday, Friday!", 2.0, 0.9).0,
            2.0,
            "cut at the top"
        );
        let some = rate(
            "days",
            "on Monday and Friday the weather was quite good",
            2.0,
            0.9,
        )
        .0;
        assert!(some > 0.0 && some < 2.0, "{some}");
        assert_eq!(rate("days", "", 2.0, 0.9), (0.0, 2.0));
    }

    #[test]
    fn fluency_falls_with_perplexity_and_with_repetition() {
        let fluency = |nll, distinct| rate("days", "x", nll, distinct).1;
        assert!((fluency(2.0, 0.9) - 2.0).abs() < 1e-9 && (fluency(0.5, 1.0) - 2.0).abs() < 1e-9);
        assert!((fluency(2.0 + 10f64.sqrt().ln(), 0.9) - 1.0).abs() < 1e-9);
        assert_eq!(fluency(2.0 + 10f64.ln(), 0.9), 0.0);
        assert!(
            (fluency(0.1, 0.09) - 0.2).abs() < 1e-9,
            "a loop is likely, but does not read well"
        );
    }

    #[test]
    fn too_little_to_learn_from_makes_no_concept_and_an_unknown_label_is_not_rated() {
        let pairs = [("a", "one two"), ("a", "three")];
        let (alone, left_out) = OfflineJudge::learn(&pairs, &pairs, &[]);
        assert!(
            !alone.knows("a") && left_out.len() == 1,
            "a single label has nothing to stand out from"
        );
        let mut judge = judge().0;
        let case = RatingCase {
            label: "x".into(),
            prompt: String::new(),
            text: "y".into(),
            nll: 0.0,
            distinct: 1.0,
        };
        assert!(!judge.rate(&[case], &TaskCtx::silent()).unwrap()[0].is_rated());
    }
}
