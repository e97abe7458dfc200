//! The filter of the list: words that are all to be found, comparisons of columns, and questions
//! for the engine.
//!
//! Grammar: words apart by blanks, `"…"` for one with blanks, `-` before one for its opposite.
//! `word` is looked for (fuzzy) in everything, contexts too, which are the engine's; `label:`
//! `tag:` `name:` `note:` `token:` `promotes:` in one place; `share>1` `purity>=60` `density<5`
//! `neurons<20` `rating>3` compare (shares in per cent); `like:14` `fires:"a text"` `context:word`
//! are the engine's.

use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Matcher, Utf32Str};

use crate::analysis::FeatureRow;
use crate::engine::Probe;

/// The grammar in a line, for help.
pub(super) const GRAMMAR: &str = "label: tag: token: promotes: note:  share>1 purity>60 rating>3  like:14 fires:\"text\" context:word  -not";

/// The least score with which a feature answers a question.
const MIN_ANSWER: f32 = 0.05;

/// The share of contexts in which a plain word is written, from which on it is found there.
const MIN_CONTEXT_SHARE: f32 = 0.1;

/// The share of ΣY on a label from which on a feature has it.
const MIN_LABEL_SHARE: f32 = 0.1;

/// A parsed filter.
#[derive(Debug, Default)]
pub(super) struct Filter {
    words: Vec<Term>,
}

#[derive(Debug)]
struct Term {
    not: bool,
    what: Condition,
}

#[derive(Debug)]
enum Condition {
    /// In the list's own columns; or, answering the question as well as the number says, elsewhere.
    Text(Part, Pattern, Option<(Probe, f32)>),
    Comparison(Column, Operator, f32),
    Question(Probe),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Anywhere,
    Name,
    Label,
    Tag,
    Note,
    Token,
    Promoted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Share,
    Purity,
    Density,
    Neurons,
    Rating,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Filter {
    pub fn new(text: &str) -> Self {
        Self {
            words: split_words(text)
                .iter()
                .filter_map(|w| parse_term(w))
                .collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The questions that it puts to the engine.
    pub fn probes(&self) -> impl Iterator<Item = &Probe> {
        self.words.iter().filter_map(|w| match &w.what {
            Condition::Question(probe) | Condition::Text(_, _, Some((probe, _))) if !w.not => {
                Some(probe)
            }
            Condition::Question(probe) => Some(probe),
            _ => None,
        })
    }

    /// A word that is written like a condition on a field which there is none of: the field.
    pub fn unknown_field(text: &str) -> Option<String> {
        split_words(text).iter().find_map(|word| {
            let word = word.strip_prefix('-').unwrap_or(word);
            let field = &word[..word.find([':', '<', '>'])?];
            let is_name = !field.is_empty() && field.chars().all(char::is_alphabetic);
            let known = [
                "name", "label", "tag", "note", "token", "promotes", "like", "fires", "context",
                "share", "purity", "pure", "density", "dens", "neurons", "rating",
            ];
            (is_name && !known.contains(&field)).then(|| field.to_owned())
        })
    }

    /// Whether a person put a question.
    pub fn has_question(&self) -> bool {
        self.words
            .iter()
            .any(|w| matches!(w.what, Condition::Question(_)))
    }

    /// Whether a feature passes: `None`, or how well it answers the questions (0 where there are
    /// none). `answers` gives the scores by feature, or nothing while they are not there: then the
    /// question passes everything.
    pub fn passes<'a>(
        &self,
        row: &FeatureRow,
        answers: &impl Fn(&Probe) -> Option<&'a Vec<f32>>,
        matcher: &mut Matcher,
    ) -> Option<f32> {
        let mut total = 0.0;
        for word in &self.words {
            let passes = match &word.what {
                Condition::Text(part, pattern, elsewhere) => {
                    let in_row = row_contains(row, *part, pattern, matcher);
                    // What a column says comes before what is only in contexts or lesser labels.
                    let far = elsewhere
                        .as_ref()
                        .filter(|_| !in_row && !word.not)
                        .and_then(|(probe, least)| {
                            answers(probe)?
                                .get(row.id)
                                .copied()
                                .filter(|score| score >= least)
                        });
                    total += far.map_or(0.0, |score| score - 1.0);
                    in_row || far.is_some()
                }
                Condition::Comparison(column, sign, limit) => {
                    column_satisfies(row, *column, *sign, *limit)
                }
                Condition::Question(probe) => match answers(probe) {
                    None => continue,
                    Some(scores) => {
                        let score = scores.get(row.id).copied().unwrap_or(0.0);
                        total += if word.not { 0.0 } else { score };
                        score >= MIN_ANSWER
                    }
                },
            };
            if passes == word.not {
                return None;
            }
        }
        Some(total)
    }
}

/// Words apart by blanks; what stands in quotes is one, with what it touches.
fn split_words(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => out.push(String::new()),
            c => {
                if let Some(last) = out.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    out.retain(|w| !w.is_empty());
    out
}

fn parse_term(text: &str) -> Option<Term> {
    let (not, text) = match text.strip_prefix('-').filter(|rest| !rest.is_empty()) {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let pattern = |text: &str| Pattern::parse(text, CaseMatching::Smart, Normalization::Smart);
    let what = if let Some(compared) = parse_comparison(text) {
        compared
    } else if let Some((part, rest)) = text
        .split_once(':')
        .and_then(|(p, rest)| Some((parse_part(p)?, rest)))
    {
        // Nothing to look for yet: it is being typed.
        if rest.is_empty() {
            return None;
        }
        let labels = (part == Part::Label && rest.len() > 1)
            .then(|| (Probe::Label(rest.to_owned()), MIN_LABEL_SHARE));
        Condition::Text(part, pattern(rest), labels)
    } else {
        match parse_question(text) {
            Some(None) => return None,
            Some(Some(probe)) => Condition::Question(probe),
            None => {
                let words = text.len() > 2 && !text.starts_with('#');
                let contexts = words.then(|| (Probe::Context(text.to_owned()), MIN_CONTEXT_SHARE));
                Condition::Text(Part::Anywhere, pattern(text), contexts)
            }
        }
    };
    Some(Term { not, what })
}

fn parse_part(name: &str) -> Option<Part> {
    Some(match name {
        "name" => Part::Name,
        "label" => Part::Label,
        "tag" => Part::Tag,
        "note" => Part::Note,
        "token" => Part::Token,
        "promotes" => Part::Promoted,
        _ => return None,
    })
}

/// A question for the engine: `Some(None)` while it is being typed.
fn parse_question(text: &str) -> Option<Option<Probe>> {
    let (kind, rest) = text.split_once(':')?;
    let whole = |probe: fn(String) -> Probe| Some((rest.len() > 1).then(|| probe(rest.to_owned())));
    match kind {
        "like" => Some(rest.trim_start_matches('#').parse().ok().map(Probe::Like)),
        "fires" => whole(Probe::Fires),
        "context" => whole(Probe::Context),
        _ => None,
    }
}

fn parse_comparison(text: &str) -> Option<Condition> {
    let at = text.find(['<', '>'])?;
    let column = match &text[..at] {
        "share" => Column::Share,
        "purity" | "pure" => Column::Purity,
        "density" | "dens" => Column::Density,
        "neurons" => Column::Neurons,
        "rating" => Column::Rating,
        _ => return None,
    };
    let (sign, rest) = match (
        text[at..].starts_with('<'),
        text[at + 1..].strip_prefix('='),
    ) {
        (true, None) => (Operator::Less, &text[at + 1..]),
        (true, Some(rest)) => (Operator::AtMost, rest),
        (false, None) => (Operator::More, &text[at + 1..]),
        (false, Some(rest)) => (Operator::AtLeast, rest),
    };
    Some(Condition::Comparison(
        column,
        sign,
        rest.trim_end_matches('%').parse().ok()?,
    ))
}

fn column_satisfies(row: &FeatureRow, column: Column, sign: Operator, limit: f32) -> bool {
    let value = match column {
        Column::Share => row.share * 100.0,
        Column::Purity => row.purity.as_ref().map_or(0.0, |p| p.share * 100.0),
        Column::Density => row.density * 100.0,
        Column::Neurons => row.neurons as f32,
        Column::Rating => f32::from(row.note.rating.unwrap_or(0)),
    };
    match sign {
        Operator::Less => value < limit,
        Operator::AtMost => value <= limit,
        Operator::More => value > limit,
        Operator::AtLeast => value >= limit,
    }
}

fn row_contains(row: &FeatureRow, part: Part, pattern: &Pattern, matcher: &mut Matcher) -> bool {
    let mut buffer = Vec::new();
    let mut hit = |text: &str| {
        pattern
            .score(Utf32Str::new(text, &mut buffer), matcher)
            .is_some()
    };
    let at = |p: Part| part == Part::Anywhere || part == p;
    (part == Part::Anywhere && hit(&format!("#{}", row.id)))
        || (at(Part::Name) && row.name.as_deref().is_some_and(&mut hit))
        || (at(Part::Label) && row.purity.as_ref().is_some_and(|p| hit(&p.label)))
        || (at(Part::Tag) && row.note.tags.iter().any(|tag| hit(tag)))
        || (at(Part::Note) && !row.note.text.is_empty() && hit(&row.note.text))
        || (at(Part::Token) && row.top_tokens.iter().any(|t| hit(t)))
        || (at(Part::Promoted) && row.promoted.iter().any(|t| hit(&t.token)))
}

#[cfg(test)]
mod tests {
    use nucleo_matcher::Config;
    use proptest::prelude::*;

    use super::*;
    use crate::ui::fake_engine::FakeEngine;

    fn kept(text: &str, answers: &impl Fn(&Probe) -> Option<&'static Vec<f32>>) -> Vec<usize> {
        let fake = FakeEngine::default();
        let filter = Filter::new(text);
        let mut matcher = Matcher::new(Config::DEFAULT);
        (0..40)
            .map(|id| {
                let mut row = fake.row(id);
                row.note.rating = Some((id % 5) as u8);
                row.note.tags = if id == 7 {
                    vec!["time".to_owned()]
                } else {
                    Vec::new()
                };
                row
            })
            .filter(|row| filter.passes(row, answers, &mut matcher).is_some())
            .map(|row| row.id)
            .collect()
    }

    #[test]
    fn filters_combine() {
        let none = |_: &Probe| None;
        assert_eq!(kept("label:days", &none), [0, 12, 24, 36]);
        assert_eq!(kept("label:days rating>1", &none), [12, 24]);
        assert_eq!(kept("label:days -rating>1", &none), [0, 36]);
        assert_eq!(kept("tag:time", &none), [7]);
        assert_eq!(kept("neurons<16", &none), [0usize; 0]);
        assert_eq!(kept("neurons<=16 name:count", &none), [3]);
        // Half-typed questions and places hold nothing back.
        assert_eq!(kept("label: like: fires:", &none).len(), 40);
    }

    #[test]
    fn a_question_passes_everything_until_it_is_answered() {
        static SCORES: std::sync::LazyLock<Vec<f32>> =
            std::sync::LazyLock::new(|| (0..40).map(|i| if i == 5 { 0.9 } else { 0.0 }).collect());
        assert_eq!(kept("like:5", &|_| None).len(), 40);
        assert_eq!(kept("like:5", &|_| Some(&SCORES)), [5]);
        assert_eq!(
            kept("-fires:\"on Sunday morning\" label:animals", &|_| Some(
                &SCORES
            )),
            [17, 29]
        );
        let asked: Vec<Probe> = Filter::new("fires:\"on Sunday morning\" x")
            .probes()
            .cloned()
            .collect();
        assert_eq!(asked, [Probe::Fires("on Sunday morning".to_owned())]);
    }

    #[test]
    fn a_plain_word_reaches_contexts_and_a_label_more_than_the_purest() {
        static SCORES: std::sync::LazyLock<Vec<f32>> =
            std::sync::LazyLock::new(|| (0..40).map(|i| if i == 7 { 0.4 } else { 0.01 }).collect());
        let kept_in = |text: &str| kept(text, &|_| Some(&SCORES));
        assert_eq!(kept_in("wheelbarrow"), [7], "written in its contexts alone");
        assert_eq!(kept_in("label:days"), [0, 7, 12, 24, 36], "a lesser label");
        assert!(
            kept("wheelbarrow", &|_| None).is_empty(),
            "nothing is kept for an answer that may not come"
        );
        let filter = Filter::new("wheelbarrow -x \"a b\"");
        assert!(
            !filter.has_question() && filter.probes().count() == 2,
            "{:?}",
            filter.probes().collect::<Vec<_>>()
        );
        let (fake, mut matcher) = (FakeEngine::default(), Matcher::new(Config::DEFAULT));
        let passed = filter.passes(&fake.row(0), &|_| None, &mut matcher);
        assert_eq!(passed, None);
        let days = Filter::new("days");
        let score = |id| {
            days.passes(
                &fake.row(id),
                &|_| Some(&*SCORES),
                &mut Matcher::new(Config::DEFAULT),
            )
        };
        assert!(
            score(0) > score(7) && score(7).is_some(),
            "those in a column come first"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter(text in ".{0,60}") {
            let _ = kept(&text, &|_| None);
        }
    }
}
