//! The judge by meaning: concept by where a text's embedding stands between the label's sentences and all
//! others', fluency as the offline judge has it.
//!
//! Knows sentences, labels, unsteered texts and an encoder; no language model. Invariant: what a label's
//! meaning is and the scale of its scores are learnt from different sentences.

use std::collections::HashMap;

use super::TextRecord;
use super::fluency::FluencyScale;
use super::judge::{Judgement, RatingCase, TextJudge};
use super::separation::{LabelledScale, Reasons};
use super::vocabulary::LabelledText;
use crate::error::{Error, Result};
use crate::model::encoder::SentenceEncoder;
use crate::task::TaskCtx;

/// What the name of every [`MeaningJudge`] begins with; that of the default encoder is no more.
pub const MEANING: &str = "meaning (";

/// A label is told well where its sentences are told from the others with this AUROC.
const WELL: f64 = 0.9;

/// Why a label is not judged by its meaning.
const REASONS: Reasons = Reasons {
    no_sentences: "no sentence is left to scale its meaning by",
    not_separated: "its sentences are not told from the others by meaning",
    not_above_unsteered: "unsteered texts are as near to it as its own sentences are",
};

/// A label's meaning and the scale of its scores.
#[derive(Debug, Clone, PartialEq)]
struct Concept {
    /// Unit mean of its sentences' embeddings, minus the mean of all labels' such means: what a
    /// text's embedding is multiplied with.
    direction: Vec<f64>,
    /// The mean score of unsteered texts.
    base: f64,
    /// The mean score of the label's sentences that it was not learnt from.
    own: f64,
}

/// The judge by meaning. A text's score for a label is ⟨x, c − c̄⟩, where x is the text's embedding,
/// c the unit mean of the label's sentences' embeddings and c̄ the mean of all labels' c: how much
/// nearer the text is to this label than to labels at large. Concept: the score from what unsteered
/// texts have (0) to what the label's own sentences have (2), linear between and cut at both ends.
pub struct MeaningJudge<'a> {
    encoder: &'a SentenceEncoder,
    name: String,
    concepts: HashMap<String, Concept>,
    fluency: FluencyScale,
    /// How well each label's sentences are told from the others', of those not learnt from.
    aurocs: Vec<(String, f64)>,
    /// Embeddings of texts that were rated: an unsteered text is rated for every label.
    known: HashMap<String, Vec<f32>>,
}

impl<'a> MeaningJudge<'a> {
    /// Learns each label's meaning from `learn`, and from `scale`, as (label, text), what scores
    /// its sentences have and whether they tell them from the others' (AUROC of 0.7 or more);
    /// `unsteered` sets the zero of the concepts and the scale of fluency. Returns the labels that it
    /// cannot judge, with reasons, beside the judge.
    ///
    /// # Errors
    /// [`Error::Refused`] when no label can be judged; what the encoder returns.
    pub fn learn(
        encoder: &'a SentenceEncoder,
        learn: &[LabelledText<'_>],
        scale: &[LabelledText<'_>],
        unsteered: &[TextRecord],
        ctx: &TaskCtx,
    ) -> Result<(Self, Vec<(String, String)>)> {
        let mut labels: Vec<&str> = learn.iter().map(|s| s.0).collect();
        labels.sort_unstable();
        labels.dedup();
        let embedded = |texts: &[LabelledText<'_>]| {
            encoder.embed(&texts.iter().map(|s| s.1).collect::<Vec<_>>(), ctx)
        };
        let (learnt, scaled) = (embedded(learn)?, embedded(scale)?);
        let texts: Vec<&str> = unsteered.iter().map(|t| t.text.as_str()).collect();
        let bare = encoder.embed(&texts, ctx)?;
        let centres: Vec<Vec<f64>> = labels
            .iter()
            .map(|label| {
                let own = learn.iter().zip(&learnt).filter(|(s, _)| s.0 == *label);
                unit_mean(own.map(|(_, x)| x.as_slice()), encoder.width())
            })
            .collect();
        let middle: Vec<f64> = (0..encoder.width())
            .map(|i| centres.iter().map(|c| c[i]).sum::<f64>() / centres.len().max(1) as f64)
            .collect();
        let by_label = LabelledScale::new(&labels, scale);
        let (mut concepts, mut left_out, mut aurocs) = (HashMap::new(), Vec::new(), Vec::new());
        for (l, &label) in labels.iter().enumerate() {
            let direction: Vec<f64> = centres[l].iter().zip(&middle).map(|(c, m)| c - m).collect();
            let scores: Vec<f64> = scaled.iter().map(|x| score(x, &direction)).collect();
            let base: Vec<f64> = bare.iter().map(|x| score(x, &direction)).collect();
            let separation = by_label.separation(l, &scores, &base);
            aurocs.push((label.to_owned(), separation.auroc));
            if let Some(problem) = separation.problem(&REASONS) {
                left_out.push((label.to_owned(), problem));
                continue;
            }
            let concept = Concept {
                direction,
                base: separation.base,
                own: separation.own,
            };
            concepts.insert(label.to_owned(), concept);
        }
        if concepts.is_empty() {
            return Err(Error::refused(
                "no label can be judged by meaning: give a corpus with at least two labels and several sentences of each",
            ));
        }
        let judge = Self {
            encoder,
            name: format!("{MEANING}{})", encoder.name()),
            concepts,
            fluency: FluencyScale::of(unsteered),
            aurocs,
            known: HashMap::new(),
        };
        Ok((judge, left_out))
    }

    /// How well each label's sentences that were not learnt from are told from the others', as
    /// AUROC.
    pub fn aurocs(&self) -> &[(String, f64)] {
        &self.aurocs
    }

    fn judge(&self, case: &RatingCase) -> Judgement {
        let Some(concept) = self.concepts.get(&case.label) else {
            return Judgement::Unrated {
                unrated: format!("the judge knows no meaning of '{}'", case.label),
            };
        };
        // A text of nothing is about nothing, whatever its embedding.
        let text = self
            .known
            .get(&case.text)
            .filter(|_| !case.text.trim().is_empty());
        let score = text.map_or(concept.base, |x| score(x, &concept.direction));
        let about = ((score - concept.base) / (concept.own - concept.base)).clamp(0.0, 1.0);
        Judgement::Rated {
            concept: 2.0 * about,
            fluency: self.fluency.rating(case),
        }
    }
}

impl TextJudge for MeaningJudge<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        let well = self.aurocs.iter().filter(|(_, a)| *a >= WELL).count();
        format!(
            "judge by meaning, {} from {}: concept 0 to 2 by where the text's embedding stands between unsteered texts and \
             the label's sentences (it tells sentences that it was not learnt from at AUROC {WELL} or more for {well} of {} \
             labels), {}",
            self.encoder.name(),
            self.encoder.origin(),
            self.aurocs.len(),
            self.fluency.describe()
        )
    }

    fn knows(&self, label: &str) -> bool {
        self.concepts.contains_key(label)
    }

    fn rate(&mut self, cases: &[RatingCase], ctx: &TaskCtx) -> Result<Vec<Judgement>> {
        let mut new: Vec<&str> = cases
            .iter()
            .map(|case| case.text.as_str())
            .filter(|text| !self.known.contains_key(*text))
            .collect();
        new.sort_unstable();
        new.dedup();
        let embeddings = self.encoder.embed(&new, ctx)?;
        self.known
            .extend(new.into_iter().map(str::to_owned).zip(embeddings));
        Ok(cases.iter().map(|case| self.judge(case)).collect())
    }
}

/// The unit vector along the mean of embeddings; zero without any.
pub(crate) fn unit_mean<'x>(embeddings: impl Iterator<Item = &'x [f32]>, width: usize) -> Vec<f64> {
    let mut sum = vec![0.0f64; width];
    for embedding in embeddings {
        sum.iter_mut()
            .zip(embedding)
            .for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
    if norm > 0.0 {
        sum.iter_mut().for_each(|v| *v /= norm);
    }
    sum
}

/// The inner product of a text's embedding and a label's direction, both of the encoder's width.
pub(crate) fn score(embedding: &[f32], direction: &[f64]) -> f64 {
    let products = embedding.iter().zip(direction);
    products.map(|(&x, &d)| f64::from(x) * d).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::encoder::tests::{real, tiny};

    fn corpus() -> Vec<(&'static str, String)> {
        let sentences = |label: &'static str, words: [&'static str; 3]| {
            (0..6).map(move |i| {
                (
                    label,
                    format!("the {} and the {}", words[i % 3], words[(i + 1) % 3]),
                )
            })
        };
        sentences("sea", ["boat", "tide", "harbour"])
            .chain(sentences("days", ["monday", "met", "longer"]))
            .collect()
    }

    fn case(label: &str, text: &str) -> RatingCase {
        RatingCase {
            label: label.into(),
            prompt: String::new(),
            text: text.into(),
            nll: 2.0,
            distinct: 0.9,
        }
    }

    fn concept(judge: &mut MeaningJudge<'_>, label: &str, text: &str) -> Option<f64> {
        let judgements = judge.rate(&[case(label, text)], &TaskCtx::silent());
        match judgements.unwrap().remove(0) {
            Judgement::Rated { concept, .. } => Some(concept),
            Judgement::Unrated { .. } => None,
        }
    }

    /// The score by the plain formula, in f64.
    fn plain(
        encoder: &SentenceEncoder,
        texts: &[LabelledText<'_>],
        label: &str,
        text: &str,
    ) -> f64 {
        let embed = |text: &str| -> Vec<f64> {
            let found = encoder
                .embed(&[text], &TaskCtx::silent())
                .unwrap()
                .remove(0);
            found.into_iter().map(f64::from).collect()
        };
        let centre = |label: &str| {
            let own: Vec<Vec<f64>> = texts
                .iter()
                .filter(|t| t.0 == label)
                .map(|t| embed(t.1))
                .collect();
            let sum: Vec<f64> = (0..own[0].len())
                .map(|i| own.iter().map(|x| x[i]).sum())
                .collect();
            let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
            sum.into_iter().map(|v| v / norm).collect::<Vec<f64>>()
        };
        let (sea, days, own) = (centre("sea"), centre("days"), centre(label));
        let x = embed(text);
        let each = (0..x.len()).map(|i| x[i] * (own[i] - (sea[i] + days[i]) / 2.0));
        each.sum()
    }

    #[test]
    fn ratings_run_from_unsteered_texts_to_the_labels_own() {
        let encoder = tiny();
        let corpus = corpus();
        let pairs: Vec<LabelledText<'_>> = corpus.iter().map(|(l, t)| (*l, t.as_str())).collect();
        let base = [
            TextRecord::unsteered("so it was, nobody saw it", 2.0, 0.9),
            TextRecord::unsteered("a text", 2.0, 0.9),
        ];
        let ctx = TaskCtx::silent();
        let (mut judge, left_out) =
            MeaningJudge::learn(&encoder, &pairs, &pairs, &base, &ctx).unwrap();
        assert!(left_out.is_empty(), "{left_out:?}");
        assert!(
            judge.name().starts_with("meaning (encoder "),
            "{}",
            judge.name()
        );
        assert!(
            judge.aurocs().iter().all(|(_, a)| *a > 0.8),
            "{:?}",
            judge.aurocs()
        );
        let score = |text: &str| plain(&encoder, &pairs, "sea", text);
        let zero = (score(&base[0].text) + score(&base[1].text)) / 2.0;
        let own: Vec<f64> = pairs
            .iter()
            .filter(|p| p.0 == "sea")
            .map(|p| score(p.1))
            .collect();
        let own = own.iter().sum::<f64>() / own.len() as f64;
        for text in [
            "the boat and the tide",
            "we met on a monday",
            "nobody saw it",
            "harbour",
        ] {
            let wanted = 2.0 * ((score(text) - zero) / (own - zero)).clamp(0.0, 1.0);
            let rating = concept(&mut judge, "sea", text).unwrap();
            assert!((rating - wanted).abs() < 1e-5, "{text}: {rating} {wanted}");
        }
        assert_eq!(
            concept(&mut judge, "sea", " \n"),
            Some(0.0),
            "nothing is about nothing"
        );
        assert_eq!(concept(&mut judge, "food", "bread"), None);
        assert!(judge.knows("sea") && !judge.knows("food"));
        // Beside others a text is rated as alone.
        let both = judge
            .rate(&[case("days", "we met"), case("sea", "a boat")], &ctx)
            .unwrap();
        let alone = judge.rate(&[case("sea", "a boat")], &ctx).unwrap();
        assert_eq!(both[1], alone[0]);
    }

    #[test]
    fn what_cannot_be_told_is_left_out_with_the_reason() {
        let encoder = tiny();
        let corpus = corpus();
        let learn: Vec<LabelledText<'_>> = corpus.iter().map(|(l, t)| (*l, t.as_str())).collect();
        let ctx = TaskCtx::silent();
        // Of one label there is no sentence to scale by; of the other the sentences are another's.
        let one: Vec<LabelledText<'_>> = learn.iter().filter(|p| p.0 == "sea").copied().collect();
        let base = [TextRecord::unsteered("a text", 2.0, 0.9)];
        let refused = |scale: &[LabelledText<'_>]| {
            MeaningJudge::learn(&encoder, &learn, scale, &base, &ctx).err()
        };
        assert!(
            refused(&one)
                .unwrap()
                .to_string()
                .contains("no label can be judged by meaning")
        );
        let swapped: Vec<LabelledText<'_>> = learn
            .iter()
            .map(|p| (if p.0 == "sea" { "days" } else { "sea" }, p.1))
            .collect();
        assert!(refused(&swapped).is_some());
    }

    /// Labels whose sentences the judge tells at AUROC 0.9 or more, both ways round, of all.
    fn told(corpus: &str) -> (usize, usize) {
        let encoder = real();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("data")
            .join(corpus);
        let corpus = crate::corpus::Corpus::open(&path).unwrap();
        let sentences_of = |half: usize| -> Vec<LabelledText<'_>> {
            let mut seen: HashMap<&str, usize> = HashMap::new();
            let samples = corpus.samples.iter().filter_map(|s| {
                let label = s.label.as_deref()?;
                let rank = seen.entry(label).or_default();
                *rank += 1;
                (*rank % 2 == half).then_some((label, s.text.as_str()))
            });
            samples.collect()
        };
        let (one, other) = (sentences_of(0), sentences_of(1));
        let (base, ctx) = (
            [TextRecord::unsteered("I think that", 2.0, 0.9)],
            TaskCtx::silent(),
        );
        let each = [(&one, &other), (&other, &one)].map(|(learn, scale)| {
            MeaningJudge::learn(&encoder, learn, scale, &base, &ctx)
                .unwrap()
                .0
                .aurocs
        });
        let both = each[0].iter().zip(&each[1]);
        let well = both.filter(|(a, b)| (a.1 + b.1) / 2.0 >= WELL).count();
        (well, each[0].len())
    }

    #[test]
    #[ignore = "needs all-MiniLM-L6-v2: MLPEEK_TEST_ENCODER names its directory"]
    fn the_default_encoder_tells_labels_apart() {
        let (concepts, hierarchy) = (told("concepts.json"), told("hierarchy.json"));
        assert_eq!((concepts.1, hierarchy.1), (28, 51));
        assert!(
            concepts.0 >= 26 && hierarchy.0 >= 50,
            "{concepts:?} {hierarchy:?}"
        );
    }
}
