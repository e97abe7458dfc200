//! The vocabulary of a label: the words by which its sentences differ from other labels'.
//!
//! Knows sentences and labels, nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};

use unicode_segmentation::UnicodeSegmentation;

/// A label's words are those whose log-odds stand out by this many standard deviations.
const STANDS_OUT: f64 = 1.96;
/// They also occur in at least this many of its sentences.
const SENTENCES: usize = 2;
/// The prior counts of the log-odds are this share of the corpus, spread over its words by their
/// frequency.
const PRIOR: f64 = 0.1;

/// A sentence with its concept.
pub type LabelledText<'a> = (&'a str, &'a str);

/// Words of a text, in lower case.
pub(super) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.unicode_words().map(str::to_lowercase)
}

/// The words of each label that stand out against the other labels' sentences, in the order of the
/// alphabet.
pub fn vocabulary(sentences: &[LabelledText<'_>], labels: &[String]) -> Vec<Vec<String>> {
    let counts = WordCounts::of(sentences);
    let words = |label: &String| {
        let mut words: Vec<String> = counts.words_of(label).into_iter().collect();
        words.sort_unstable();
        words
    };
    labels.iter().map(words).collect()
}

/// The words of [`vocabulary`], those first that stand out most and at most `most` of a label, each in
/// the spelling that its sentences use most: "Monday", not "monday".
pub fn leading(sentences: &[LabelledText<'_>], labels: &[String], most: usize) -> Vec<Vec<String>> {
    let counts = WordCounts::of(sentences);
    let words = labels.iter().map(|label| {
        let mut words = counts.scored_words_of(label);
        words.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        words.truncate(most);
        words.into_iter().map(|(word, _)| word).collect()
    });
    as_written(sentences, labels, words.collect())
}

/// [`vocabulary`], each word in the spelling that its sentences use most: "Monday", not "monday".
#[cfg(test)]
pub(super) fn written(sentences: &[LabelledText<'_>], labels: &[String]) -> Vec<Vec<String>> {
    as_written(sentences, labels, vocabulary(sentences, labels))
}

/// Words of labels in the spelling that the labels' sentences use most.
fn as_written(
    sentences: &[LabelledText<'_>],
    labels: &[String],
    words: Vec<Vec<String>>,
) -> Vec<Vec<String>> {
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
    let written = |(label, words): (&String, Vec<String>)| {
        let forms = forms_of(label);
        words.iter().filter_map(|w| usual(forms.get(w)?)).collect()
    };
    labels.iter().zip(words).map(written).collect()
}

/// Counts of words, by label and in all.
pub(super) struct WordCounts<'a> {
    by_label: HashMap<&'a str, HashMap<String, f64>>,
    /// Sentences of a label that have a word.
    sentences: HashMap<&'a str, HashMap<String, usize>>,
    all: HashMap<String, f64>,
    total: f64,
}

impl<'a> WordCounts<'a> {
    pub(super) fn of(sentences: &[LabelledText<'a>]) -> Self {
        let mut out = Self {
            by_label: HashMap::new(),
            sentences: HashMap::new(),
            all: HashMap::new(),
            total: 0.0,
        };
        for (label, text) in sentences {
            let mut distinct = HashSet::new();
            for word in words(text) {
                *out.by_label
                    .entry(label)
                    .or_default()
                    .entry(word.clone())
                    .or_default() += 1.0;
                *out.all.entry(word.clone()).or_default() += 1.0;
                out.total += 1.0;
                distinct.insert(word);
            }
            for word in distinct {
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
    pub(super) fn words_of(&self, label: &str) -> HashSet<String> {
        let words = self.scored_words_of(label).into_iter();
        words.map(|(word, _)| word).collect()
    }

    /// These words, with by how many standard deviations each stands out.
    fn scored_words_of(&self, label: &str) -> Vec<(String, f64)> {
        let Some(counts) = self.by_label.get(label) else {
            return Vec::new();
        };
        let inside: f64 = counts.values().sum();
        let outside = self.total - inside;
        let stands_out = |word: &str, count: f64| {
            let all = self.all.get(word).copied().unwrap_or(count);
            let prior = PRIOR * all;
            let odds = |count: f64, total: f64| {
                ((count + prior) / (total + PRIOR * self.total - count - prior)).ln()
            };
            let deviation = (1.0 / (count + prior) + 1.0 / (all - count + prior)).sqrt();
            (odds(count, inside) - odds(all - count, outside)) / deviation
        };
        let in_several = |word: &str| {
            self.sentences
                .get(label)
                .and_then(|s| s.get(word))
                .is_some_and(|&sentences| sentences >= SENTENCES)
        };
        counts
            .iter()
            .filter(|(w, _)| in_several(w))
            .map(|(w, c)| (w.clone(), stands_out(w, *c)))
            .filter(|(_, by)| *by > STANDS_OUT)
            .collect()
    }
}
