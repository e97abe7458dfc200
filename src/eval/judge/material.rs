//! What a judge is shown of a feature: texts that excite it, words that it promotes, and the texts
//! that a description is scored on.
//!
//! Every other context is shown; the remaining ones are held back, with as many texts where the
//! feature is silent.

use std::ops::Range;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::Question;
use super::prompts::{self, MARKS};
use crate::analysis::{Context, FeatureCard};
use crate::corpus::TokenTable;
use crate::factor::Factors;
use crate::pieces;

/// A token counts as active from this share of its context's peak (as in delphi).
const ACTIVE: f32 = 0.3;
/// A text where the feature stays below this share of its largest coefficient is one of the others.
const SILENT: f32 = 0.05;
/// Texts of one question.
const BATCH: usize = 5;
/// Longest text of the others, in tokens, as contexts are.
const WINDOW: usize = 32;
/// Words of the logit lens that are shown.
const PROMOTED: usize = 20;

/// A text that a description is scored on.
#[derive(Debug, Clone, PartialEq)]
struct ScoringText {
    plain: String,
    marked: String,
    /// Whether the feature fires in it.
    own: bool,
}

/// All that a judge is shown of a feature.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureMaterial {
    /// The id of the feature.
    pub id: usize,
    shown: Vec<String>,
    /// `shown` without marks.
    plain: Vec<String>,
    /// The words that the feature fires on in these texts, each once, the strongest first.
    words: Vec<String>,
    /// Further texts where it is silent, which nothing is scored on.
    silent: Vec<String>,
    trials: Vec<Vec<ScoringText>>,
    promoted: Vec<String>,
    suppressed: Vec<String>,
}

impl FeatureMaterial {
    /// Takes a feature's material from its card (with its logit lens, where there is one) and the
    /// study's texts.
    pub fn of(card: &FeatureCard, factors: &Factors, tokens: &TokenTable) -> Self {
        let id = card.row.id;
        let mut rng = Pcg64Mcg::seed_from_u64(id as u64);
        let (shown, held): (Vec<_>, Vec<_>) = card
            .contexts
            .iter()
            .enumerate()
            .partition(|(i, _)| i % 2 == 0);
        let mut trials: Vec<ScoringText> =
            held.into_iter().map(|(_, context)| own(context)).collect();
        let marks = trials
            .iter()
            .map(|t| t.marked.matches(MARKS.0).count())
            .sum::<usize>();
        let marks = marks.div_ceil(trials.len().max(1)).max(1);
        let runs = silent_runs(card, factors, tokens, &mut rng);
        let (scored, more) = runs.split_at(trials.len().min(runs.len()));
        trials.extend(scored.iter().map(|r| other(r, tokens, marks, &mut rng)));
        trials.shuffle(&mut rng);
        // Drawn last, so that the questions of earlier versions stay as they were.
        let silent: Vec<ScoringText> = more
            .iter()
            .take(scored.len())
            .map(|r| other(r, tokens, marks, &mut rng))
            .collect();
        let words = |list: &[crate::analysis::ScoredToken]| -> Vec<String> {
            list.iter()
                .take(PROMOTED)
                .map(|t| t.token.trim().to_owned())
                .filter(|t| !t.is_empty())
                .collect()
        };
        let shown: Vec<&Context> = shown.into_iter().map(|(_, context)| context).collect();
        let mut fired: Vec<String> = Vec::new();
        for context in &shown {
            let word = context.tokens.get(context.peak).map_or("", |t| t.trim());
            if !word.is_empty() && !fired.iter().any(|w| w == word) {
                fired.push(word.to_owned());
            }
        }
        Self {
            id,
            plain: shown.iter().map(|c| c.tokens.concat()).collect(),
            shown: shown.into_iter().map(|c| own(c).marked).collect(),
            words: fired,
            silent: silent.into_iter().map(|t| t.plain).collect(),
            trials: trials.chunks(BATCH).map(<[ScoringText]>::to_vec).collect(),
            promoted: words(&card.promoted),
            suppressed: words(&card.suppressed),
        }
    }

    /// The texts that are shown to describe it, without marks.
    pub(in crate::eval) fn shown_plain(&self) -> Vec<&str> {
        self.plain.iter().map(String::as_str).collect()
    }

    /// The words that it fires on in these texts.
    pub(in crate::eval) fn fired_on(&self) -> &[String] {
        &self.words
    }

    /// Texts where it is silent and which are no trials.
    pub(in crate::eval) fn silent(&self) -> Vec<&str> {
        self.silent.iter().map(String::as_str).collect()
    }

    /// The words that it promotes; none without a logit lens.
    pub(in crate::eval) fn promoted(&self) -> &[String] {
        &self.promoted
    }

    /// The words that it suppresses.
    pub(in crate::eval) fn suppressed(&self) -> &[String] {
        &self.suppressed
    }

    /// The texts that a description is scored on, and whether the feature fires in each.
    pub(in crate::eval) fn trials(&self) -> impl Iterator<Item = (&str, bool)> {
        let all = self.trials.iter().flatten();
        all.map(|trial| (trial.plain.as_str(), trial.own))
    }

    pub(super) fn inputs(&self) -> Question {
        prompts::describe_inputs(&self.shown)
    }

    pub(super) fn outputs(&self) -> Option<Question> {
        (!self.promoted.is_empty())
            .then(|| prompts::describe_outputs(&self.promoted, &self.suppressed))
    }

    pub(super) fn detection(&self, description: &str) -> Vec<Question> {
        let plain =
            |batch: &Vec<ScoringText>| batch.iter().map(|t| t.plain.clone()).collect::<Vec<_>>();
        self.trials
            .iter()
            .map(|batch| prompts::detect(description, &plain(batch)))
            .collect()
    }

    pub(super) fn fuzzing(&self, description: &str) -> Vec<Question> {
        let marked =
            |batch: &Vec<ScoringText>| batch.iter().map(|t| t.marked.clone()).collect::<Vec<_>>();
        self.trials
            .iter()
            .map(|batch| prompts::fuzz(description, &marked(batch)))
            .collect()
    }

    pub(super) fn truth(&self) -> Vec<Vec<bool>> {
        self.trials
            .iter()
            .map(|batch| batch.iter().map(|t| t.own).collect())
            .collect()
    }
}

fn own(context: &Context) -> ScoringText {
    let floor = ACTIVE * context.values.get(context.peak).copied().unwrap_or(0.0);
    let active: Vec<bool> = context
        .values
        .iter()
        .map(|&v| v > 0.0 && v >= floor)
        .collect();
    ScoringText {
        plain: context.tokens.concat(),
        marked: mark(&context.tokens, &active),
        own: true,
    }
}

/// The rows of each text where the feature is silent, shuffled.
fn silent_runs(
    card: &FeatureCard,
    factors: &Factors,
    tokens: &TokenTable,
    rng: &mut Pcg64Mcg,
) -> Vec<Range<usize>> {
    let values = factors.coefficients.feature(card.row.id);
    let floor = SILENT * card.peak;
    let mut start = 0;
    let mut silent: Vec<Range<usize>> = Vec::new();
    for run in
        tokens.rows[..values.len().min(tokens.rows.len())].chunk_by(|a, b| a.sample == b.sample)
    {
        let rows = start..start + run.len();
        start = rows.end;
        if rows.len() > 2 && values[rows.clone()].iter().all(|&v| v <= floor) {
            silent.push(rows);
        }
    }
    silent.shuffle(rng);
    silent
}

/// A text where the feature is silent, or a window of it, with `marks` tokens marked at random.
fn other(
    rows: &Range<usize>,
    tokens: &TokenTable,
    marks: usize,
    rng: &mut Pcg64Mcg,
) -> ScoringText {
    let length = rows.len().min(WINDOW);
    let first = rng.random_range(rows.start..=rows.end - length);
    let pieces: Vec<String> = (first..first + length)
        .map(|row| tokens.piece(row).to_owned())
        .collect();
    let pieces = pieces::join_characters(&pieces);
    let mut places: Vec<usize> = (0..length).collect();
    places.shuffle(rng);
    let mut active = vec![false; length];
    places.iter().take(marks).for_each(|&i| active[i] = true);
    ScoringText {
        plain: pieces.concat(),
        marked: mark(&pieces, &active),
        own: false,
    }
}

/// A text with its active tokens marked, neighbours together, white space outside.
fn mark(pieces: &[String], active: &[bool]) -> String {
    let mut out = String::new();
    let mut inside = false;
    // Of a character that is split over tokens the first one shows it.
    let mut shown = vec![false; pieces.len()];
    active
        .iter()
        .enumerate()
        .filter(|(_, now)| **now)
        .for_each(|(i, _)| shown[pieces::shown_at(pieces, i)] = true);
    for (piece, now) in pieces
        .iter()
        .zip(shown)
        .filter(|(piece, _)| !piece.is_empty())
    {
        let word = piece.trim_start();
        if inside && !now {
            out.push_str(MARKS.1);
        }
        if now && !inside {
            out.push_str(&piece[..piece.len() - word.len()]);
            out.push_str(MARKS.0);
            out.push_str(word);
        } else {
            out.push_str(piece);
        }
        inside = now;
    }
    if inside {
        out.push_str(MARKS.1);
    }
    out
}

#[cfg(test)]
impl FeatureMaterial {
    /// Material of a feature, without trials.
    pub(in crate::eval) fn made(
        id: usize,
        [shown, words, promoted, suppressed, silent]: [&[&str]; 5],
    ) -> Self {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Self {
            id,
            shown: owned(shown),
            plain: owned(shown),
            words: owned(words),
            silent: owned(silent),
            trials: Vec::new(),
            promoted: owned(promoted),
            suppressed: owned(suppressed),
        }
    }

    /// The same with texts to score a description on.
    pub(in crate::eval) fn with_trials(mut self, own: &[&str], others: &[&str]) -> Self {
        let trial = |text: &&str, own| ScoringText {
            plain: (*text).to_owned(),
            marked: (*text).to_owned(),
            own,
        };
        let all = own.iter().map(|t| trial(t, true));
        self.trials = vec![all.chain(others.iter().map(|t| trial(t, false))).collect()];
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_around_active_words() {
        let pieces = ["It", " was", " No", "vember", " then", "."].map(str::to_owned);
        let active = [false, false, true, true, false, true];
        assert_eq!(mark(&pieces, &active), "It was <<November>> then<<.>>");
        let context = Context {
            row: 0,
            sample: 0,
            tokens: pieces.to_vec(),
            cut: [false; 2],
            values: vec![0.0, 0.1, 1.0, 0.4, 0.2, 0.0],
            peak: 2,
            label: None,
        };
        assert_eq!(own(&context).marked, "It was <<November>> then.");
        assert_eq!(own(&context).plain, "It was November then.");
    }
}
