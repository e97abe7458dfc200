//! Who rates a text: the trait, the score, and the judge that needs nobody else.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

use super::TextRecord;
use crate::error::{Error, Result};
use crate::eval::rank::auroc_by_group;
use crate::task::TaskCtx;

/// The name of [`OfflineJudge`].
pub const OFFLINE: &str = "offline";

/// A text to be rated.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The concept.
    pub label: String,
    /// What the text continues.
    pub prompt: String,
    /// The text.
    pub text: String,
    /// Mean negative log-likelihood of its tokens under the unsteered model.
    pub nll: f64,
    /// Distinct runs of three tokens among all.
    pub distinct: f64,
}

/// What a judge said of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Judgement {
    /// Both ratings, each in 0..=2.
    Rated {
        /// How much the text is about the concept.
        concept: f64,
        /// How well it reads.
        fluency: f64,
    },
    /// No rating came, and why: such a text is in no mean, and is asked about again by the next
    /// run.
    Unrated {
        /// The reason.
        unrated: String,
    },
}

impl Judgement {
    /// Whether there is a rating.
    pub fn is_rated(&self) -> bool {
        matches!(self, Self::Rated { .. })
    }

    /// The harmonic mean of concept and fluency, 0 where either is 0 (arXiv 2506.10920); `None`
    /// without a rating.
    pub fn score(&self) -> Option<f64> {
        let Self::Rated { concept, fluency } = self else {
            return None;
        };
        Some(if *concept > 0.0 && *fluency > 0.0 {
            2.0 / (1.0 / concept + 1.0 / fluency)
        } else {
            0.0
        })
    }
}

/// Rates texts. Two judges' words are never mixed in one table: each has a name and a log of its
/// own.
pub trait Judge {
    /// For the log and the table.
    fn name(&self) -> &str;

    /// What its ratings mean, in a line.
    fn describe(&self) -> String;

    /// One judgement a case, in their order. A case it cannot rate is [`Judgement::Unrated`], never
    /// 0.
    fn rate(&mut self, cases: &[Case], ctx: &TaskCtx) -> Result<Vec<Judgement>>;
}

/// A label's words are those whose log-odds stand out by this many standard deviations.
const STANDS_OUT: f64 = 1.96;
/// And that at least this many of its sentences have.
const SENTENCES: usize = 2;
/// Prior counts, as a share of the corpus, spread over its words by how frequent they are.
const PRIOR: f64 = 0.1;
/// Its words must tell its sentences from other labels' at least so well (AUROC, on sentences that
/// they were not learnt from).
const TELLS: f64 = 0.7;
/// A text this many times as perplexing as unsteered ones reads not at all.
const PERPLEXITY: f64 = 10.0;

/// The judge that asks nobody. Concept: the share of a text's words that belong to the concept's
/// own vocabulary, from what unsteered texts have (0) to what the concept's own sentences have (2),
/// linear between and cut at both ends. Fluency: 2 at the unsteered texts' mean log-perplexity
/// under the unsteered model or below, falling linearly to 0 at ten times the perplexity; times the
/// share of distinct runs of three tokens, in units of the unsteered texts', because a loop is
/// likely but not fluent.
pub struct OfflineJudge {
    concepts: HashMap<String, Concept>,
    nll: f64,
    distinct: f64,
}

/// A concept's words and its scale.
#[derive(Debug, Clone, PartialEq)]
struct Concept {
    words: HashSet<String>,
    /// Their share in unsteered texts.
    base: f64,
    /// Their share in the concept's own sentences, other ones than they were learnt from.
    own: f64,
}

/// A sentence with its concept.
pub type Labelled<'a> = (&'a str, &'a str);

impl OfflineJudge {
    /// Learns each concept's words from `learn`, and from `scale`, as (label, text), how many of
    /// them its sentences have and whether they tell its sentences from the others' (AUROC of 0.7
    /// or more); `unsteered` sets the zero of the concepts and the scale of fluency. Returns the
    /// labels that it cannot judge, with reasons, beside the judge.
    ///
    /// # Errors
    /// [`Error::Refused`] when no label can be judged.
    pub fn learn(
        learn: &[Labelled<'_>],
        scale: &[Labelled<'_>],
        unsteered: &[TextRecord],
    ) -> Result<(Self, Vec<(String, String)>)> {
        let mut labels: Vec<&str> = learn.iter().map(|s| s.0).collect();
        labels.sort_unstable();
        labels.dedup();
        let counts = Counts::of(learn);
        let groups: Vec<Option<u32>> = scale
            .iter()
            .map(|s| labels.binary_search(&s.0).ok().map(|l| l as u32))
            .collect();
        let (mut concepts, mut left_out) = (HashMap::new(), Vec::new());
        for (l, &label) in labels.iter().enumerate() {
            let words = counts.words_of(label);
            let shares: Vec<f64> = scale.iter().map(|s| share(s.1, &words)).collect();
            let own: Vec<f64> = shares
                .iter()
                .zip(scale)
                .filter(|(_, s)| s.0 == label)
                .map(|(&v, _)| v)
                .collect();
            let scores: Vec<f32> = shares.iter().map(|&v| v as f32).collect();
            let tells = auroc_by_group(&scores, &groups, labels.len())[l].unwrap_or(0.5);
            let base: Vec<f64> = unsteered.iter().map(|t| share(&t.text, &words)).collect();
            let concept = Concept {
                base: mean(&base),
                own: mean(&own),
                words,
            };
            let problem = if concept.words.is_empty() {
                "no words set its sentences apart".to_owned()
            } else if own.is_empty() {
                "no sentence is left to scale its words by".to_owned()
            } else if tells < TELLS {
                format!(
                    "its words do not tell sentences that they were not learnt from (AUROC {tells:.2}, wanted {TELLS})"
                )
            } else if concept.own <= concept.base {
                "unsteered texts use its words as much as its own sentences do".to_owned()
            } else {
                concepts.insert(label.to_owned(), concept);
                continue;
            };
            left_out.push((label.to_owned(), problem));
        }
        if concepts.is_empty() {
            return Err(Error::refused(
                "no label can be judged offline: give a corpus with at least two labels and several sentences of each",
            ));
        }
        let nll = mean(&unsteered.iter().map(|t| t.nll).collect::<Vec<_>>());
        let distinct = mean(&unsteered.iter().map(|t| t.distinct).collect::<Vec<_>>());
        Ok((
            Self {
                concepts,
                nll,
                distinct,
            },
            left_out,
        ))
    }

    /// Whether it knows a label's words.
    pub fn knows(&self, label: &str) -> bool {
        self.concepts.contains_key(label)
    }

    /// A label's words, the longest first: for a person to see what is counted.
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

    fn judge(&self, case: &Case) -> Judgement {
        let Some(concept) = self.concepts.get(&case.label) else {
            return Judgement::Unrated {
                unrated: format!("the judge knows no words of '{}'", case.label),
            };
        };
        let share = share(&case.text, &concept.words);
        let about = ((share - concept.base) / (concept.own - concept.base)).clamp(0.0, 1.0);
        let likely = (1.0 - (case.nll - self.nll) / PERPLEXITY.ln()).clamp(0.0, 1.0);
        let varied = if self.distinct > 0.0 {
            (case.distinct / self.distinct).min(1.0)
        } else {
            1.0
        };
        Judgement::Rated {
            concept: 2.0 * about,
            fluency: 2.0 * likely * varied,
        }
    }
}

impl Judge for OfflineJudge {
    fn name(&self) -> &str {
        OFFLINE
    }

    fn describe(&self) -> String {
        format!(
            "offline judge: concept 0 to 2 by the share of the concept's own words between unsteered texts and its \
             sentences, fluency 2 to 0 by perplexity between the unsteered model's {:.1} and ten times that, times distinct \
             3-token runs",
            self.nll.exp()
        )
    }

    fn rate(&mut self, cases: &[Case], ctx: &TaskCtx) -> Result<Vec<Judgement>> {
        ctx.check()?;
        Ok(cases.iter().map(|case| self.judge(case)).collect())
    }
}

/// Words of a text, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.unicode_words().map(str::to_lowercase)
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

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The words of each label that stand out against the other labels' sentences, in the order of the
/// alphabet.
pub fn vocabulary(sentences: &[Labelled<'_>], labels: &[String]) -> Vec<Vec<String>> {
    let counts = Counts::of(sentences);
    let words = |label: &String| {
        let mut words: Vec<String> = counts.words_of(label).into_iter().collect();
        words.sort_unstable();
        words
    };
    labels.iter().map(words).collect()
}

/// The same as its sentences mostly write them: "Monday", not "monday".
pub fn written(sentences: &[Labelled<'_>], labels: &[String]) -> Vec<Vec<String>> {
    let forms_of = |label: &String| {
        let mut forms: HashMap<String, BTreeMap<&str, usize>> = HashMap::new();
        for form in sentences
            .iter()
            .filter(|s| s.0 == label)
            .flat_map(|s| s.1.unicode_words())
        {
            *forms
                .entry(form.to_lowercase())
                .or_default()
                .entry(form)
                .or_default() += 1;
        }
        forms
    };
    let usual = |forms: &BTreeMap<&str, usize>| {
        forms
            .iter()
            .max_by_key(|(_, count)| **count)
            .map(|(f, _)| (*f).to_owned())
    };
    let words = vocabulary(sentences, labels);
    let written = |(label, words): (&String, Vec<String>)| {
        let forms = forms_of(label);
        words.iter().filter_map(|w| usual(forms.get(w)?)).collect()
    };
    labels.iter().zip(words).map(written).collect()
}

/// How often each label uses each word.
struct Counts<'a> {
    by_label: HashMap<&'a str, HashMap<String, f64>>,
    /// Sentences of a label that have a word.
    sentences: HashMap<&'a str, HashMap<String, usize>>,
    all: HashMap<String, f64>,
    total: f64,
}

impl<'a> Counts<'a> {
    fn of(sentences: &[Labelled<'a>]) -> Self {
        let mut out = Self {
            by_label: HashMap::new(),
            sentences: HashMap::new(),
            all: HashMap::new(),
            total: 0.0,
        };
        for (label, text) in sentences {
            let mut here = HashSet::new();
            for word in words(text) {
                *out.by_label
                    .entry(label)
                    .or_default()
                    .entry(word.clone())
                    .or_default() += 1.0;
                *out.all.entry(word.clone()).or_default() += 1.0;
                out.total += 1.0;
                here.insert(word);
            }
            for word in here {
                *out.sentences
                    .entry(label)
                    .or_default()
                    .entry(word)
                    .or_default() += 1;
            }
        }
        out
    }

    /// Words whose log-odds against the other labels, with an informative Dirichlet prior, stand
    /// out (Monroe, Colaresi, Quinn, "Fightin' Words", 2008).
    fn words_of(&self, label: &str) -> HashSet<String> {
        let Some(of) = self.by_label.get(label) else {
            return HashSet::new();
        };
        let inside: f64 = of.values().sum();
        let outside = self.total - inside;
        let stands_out = |word: &str, count: f64| {
            let all = self.all.get(word).copied().unwrap_or(count);
            let prior = PRIOR * all;
            let odds = |count: f64, total: f64| {
                ((count + prior) / (total + PRIOR * self.total - count - prior)).ln()
            };
            let deviation = (1.0 / (count + prior) + 1.0 / (all - count + prior)).sqrt();
            (odds(count, inside) - odds(all - count, outside)) / deviation > STANDS_OUT
        };
        let in_several = |word: &str| {
            self.sentences
                .get(label)
                .and_then(|s| s.get(word))
                .is_some_and(|&sentences| sentences >= SENTENCES)
        };
        of.iter()
            .filter(|(w, c)| in_several(w) && stands_out(w, **c))
            .map(|(w, _)| w.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Key;
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

    fn unsteered(text: &str, nll: f64, distinct: f64) -> TextRecord {
        let key = Key {
            method: "unsteered".into(),
            label: String::new(),
            target: 0.0,
            sign: 0,
            prompt: 0,
            sample: 0,
        };
        TextRecord {
            key,
            direction: 0,
            alpha: 0.0,
            kl: 0.0,
            text: text.to_owned(),
            tokens: 9,
            nll,
            distinct,
        }
    }

    fn judge() -> (OfflineJudge, Vec<(String, String)>) {
        let corpus = corpus();
        let pairs: Vec<Labelled<'_>> = corpus
            .iter()
            .map(|(l, t)| (l.as_str(), t.as_str()))
            .collect();
        let base = [
            unsteered("and then we met again", 1.0, 0.8),
            unsteered("it is so", 3.0, 1.0),
        ];
        OfflineJudge::learn(&pairs, &pairs, &base).unwrap()
    }

    fn rate(label: &str, text: &str, nll: f64, distinct: f64) -> (f64, f64) {
        let case = Case {
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
        let pairs: Vec<Labelled<'_>> = corpus
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
        let pairs = |of: &'static str, text: &'static str| (0..6).map(move |_| (of, text));
        let scale: Vec<Labelled<'_>> = pairs("days", "a day of other words")
            .chain(pairs("sea", "the boat and the harbour"))
            .collect();
        let learn: Vec<Labelled<'_>> = learn
            .iter()
            .map(|(l, t)| (l.as_str(), t.as_str()))
            .collect();
        let (judge, left_out) =
            OfflineJudge::learn(&learn, &scale, &[unsteered("it is so", 1.0, 1.0)]).unwrap();
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
    fn a_score_is_the_harmonic_mean() {
        let score = |concept, fluency| Judgement::Rated { concept, fluency }.score().unwrap();
        assert_eq!(
            (score(2.0, 2.0), score(0.0, 2.0), score(1.0, 0.0)),
            (2.0, 0.0, 0.0)
        );
        assert!((score(1.0, 2.0) - 4.0 / 3.0).abs() < 1e-12);
        let none = Judgement::Unrated {
            unrated: "silence".into(),
        };
        assert_eq!((none.score(), none.is_rated()), (None, false));
        let said = serde_json::to_string(&none).unwrap();
        assert_eq!(serde_json::from_str::<Judgement>(&said).unwrap(), none);
    }

    #[test]
    fn nothing_to_judge_is_said() {
        assert!(OfflineJudge::learn(&[], &[], &[]).is_err());
        let pairs = [("a", "one two"), ("a", "three")];
        assert!(
            OfflineJudge::learn(&pairs, &pairs, &[]).is_err(),
            "a single label has nothing to stand out from"
        );
        let mut judge = judge().0;
        let case = Case {
            label: "x".into(),
            prompt: String::new(),
            text: "y".into(),
            nll: 0.0,
            distinct: 1.0,
        };
        assert!(!judge.rate(&[case], &TaskCtx::silent()).unwrap()[0].is_rated());
    }
}
