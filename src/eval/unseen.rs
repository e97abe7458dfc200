//! Division by members of families: directions are chosen on some members' sentences and reported on
//! the others', which nothing that chose has seen.
//!
//! Knows labels as `family/member` and sentences. Invariant: all sentences of a member are on one side,
//! and every family that is scored has members on both.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;

use super::split::{Holdout, Split};
use crate::corpus::TokenTable;
use crate::error::{Error, Result};

/// Sentences of a family that each side has at least.
const SENTENCES: usize = 2;

/// A corpus's labels with its sentences on two sides.
#[derive(Debug, Clone)]
pub struct Divided<'a> {
    /// The corpus, whose labels are families where members are held out.
    pub tokens: Cow<'a, TokenTable>,
    /// The sides.
    pub split: Split,
    /// The members that choose nothing, as the corpus calls them; none where sentences are divided.
    pub unseen: Vec<String>,
}

impl<'a> Divided<'a> {
    /// Some sentences of each label are held out, or, with `unseen`, whole members of each family:
    /// labels that differ after their last `/`.
    ///
    /// # Errors
    /// What [`Split::new`] returns; [`Error::Refused`] where fewer than two families have two members
    /// with sentences.
    pub fn new(tokens: &'a TokenTable, holdout: &Holdout, unseen: bool) -> Result<Self> {
        if unseen {
            return by_members(tokens, holdout);
        }
        Ok(Self {
            split: Split::new(tokens, holdout)?,
            tokens: Cow::Borrowed(tokens),
            unseen: Vec::new(),
        })
    }

    /// What a person should know of the labels: which members are reported on, and which labels are
    /// left out.
    pub fn notes(&self) -> Vec<String> {
        let labels = &self.tokens.labels;
        let scored = |l: u32| self.split.labels.binary_search(&l).is_ok();
        let small: Vec<&str> = (0..)
            .zip(labels)
            .filter(|(l, _)| !scored(*l))
            .map(|(_, name)| name.as_str())
            .collect();
        let mut out = Vec::new();
        if !self.unseen.is_empty() {
            out.push(format!(
                "directions are chosen for families, and reported on members of which nothing chose: {}",
                self.unseen.join(", ")
            ));
        }
        if !small.is_empty() && !self.split.labels.is_empty() {
            let why = match self.unseen.is_empty() {
                true => "with fewer than 4 sentences each",
                false => "without members of which some can choose and others be reported on",
            };
            out.push(format!("left out, {why}: {}", small.join(", ")));
        }
        out
    }
}

/// The family of a label, which is all before its last `/`; a label without one is its own.
fn family(label: &str) -> &str {
    label.rsplit_once('/').map_or(label, |(family, _)| family)
}

fn by_members<'a>(tokens: &TokenTable, holdout: &Holdout) -> Result<Divided<'a>> {
    // With a share of 0 no member would be reported on.
    if !(0.0..1.0).contains(&holdout.share) || holdout.share == 0.0 {
        return Err(Error::usage(format!(
            "a share of {} of the members cannot be held out: give more than 0 and less than 1",
            holdout.share
        )));
    }
    let mut names: Vec<String> = Vec::new();
    let family_of: Vec<u32> = tokens
        .labels
        .iter()
        .map(|label| {
            let name = family(label);
            let known = names.iter().position(|n| n == name);
            known.unwrap_or_else(|| {
                names.push(name.to_owned());
                names.len() - 1
            }) as u32
        })
        .collect();
    // The sides are set below; that all are on one is what the division of no sentence gives.
    let mut split = Split::undivided(tokens);
    let mut sentences = vec![0usize; tokens.labels.len()];
    let labels = split.sentences.iter().filter_map(|s| s.label);
    labels.for_each(|label| sentences[label as usize] += 1);
    let mut members: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (label, name) in (0..).zip(&tokens.labels) {
        // A label that bears the family's own name is no member of it.
        if name.contains('/') && sentences[label as usize] > 0 {
            let of = members.entry(family_of[label as usize]).or_default();
            of.push(label);
        }
    }
    let mut held = vec![false; tokens.labels.len()];
    let mut rng = holdout.seed.map(Pcg64::seed_from_u64);
    for (family, mut of) in members {
        let order = of.clone();
        if let Some(rng) = &mut rng {
            of.shuffle(rng);
        }
        let wanted = (holdout.share * of.len() as f64).round() as usize;
        let first = of.len() - wanted.max(1).min(of.len() / 2);
        let count = |of: &[u32]| of.iter().map(|&l| sentences[l as usize]).sum::<usize>();
        if first == of.len() || count(&of[..first]).min(count(&of[first..])) < SENTENCES {
            continue;
        }
        split.labels.push(family);
        order
            .into_iter()
            .filter(|label| of[first..].contains(label))
            .for_each(|label| held[label as usize] = true);
    }
    if split.labels.len() < 2 {
        return Err(Error::refused(format!(
            "unseen members want two families or more, of two members each, as in weekday/Monday and weekday/Friday: {} of the \
             corpus's {} labels can be judged so",
            split.labels.len(),
            tokens.labels.len()
        )));
    }
    for sentence in &mut split.sentences {
        let label = sentence.label.map(|l| l as usize);
        sentence.held_out = label.is_some_and(|l| held[l]);
        sentence.label = label.map(|l| family_of[l]);
    }
    let unseen = tokens.labels.iter().zip(&held).filter(|(_, held)| **held);
    let unseen = unseen.map(|(label, _)| label.clone()).collect();
    let families = TokenTable {
        sample_labels: tokens
            .sample_labels
            .iter()
            .map(|label| label.map(|l| family_of[l as usize]))
            .collect(),
        labels: names,
        ..tokens.clone()
    };
    Ok(Divided {
        tokens: Cow::Owned(families),
        split,
        unseen,
    })
}

#[cfg(test)]
mod tests {
    use super::super::split::tests::table;
    use super::*;

    /// Labels of three families and one that has none, four sentences each.
    fn families() -> TokenTable {
        let names = [
            "day/Monday",
            "day/Friday",
            "day/Sunday",
            "day/noon",
            "sea/tide",
            "sea/wave",
            "food/bread",
            "money",
        ];
        let samples: Vec<_> = (0..32).map(|i| (2, Some(i % 8))).collect();
        let mut tokens = table(&samples);
        tokens.labels = names.map(str::to_owned).to_vec();
        tokens
    }

    fn holdout(seed: Option<u64>) -> Holdout {
        Holdout {
            share: 0.5,
            seed,
            ..Holdout::default()
        }
    }

    #[test]
    fn whole_members_are_on_a_side_and_families_are_scored() {
        let tokens = families();
        let found = Divided::new(&tokens, &holdout(None), true).unwrap();
        assert_eq!(found.tokens.labels, ["day", "sea", "food", "money"]);
        assert_eq!(found.split.labels, [0, 1]);
        assert_eq!(found.unseen, ["day/Sunday", "day/noon", "sea/wave"]);
        for (i, sentence) in found.split.sentences.iter().enumerate() {
            let member = tokens.labels[i % 8].clone();
            assert_eq!(
                sentence.held_out,
                found.unseen.contains(&member),
                "{member}"
            );
            let family = &found.tokens.labels[sentence.label.unwrap() as usize];
            assert!(member.starts_with(family.as_str()), "{member} of {family}");
        }
        let notes = found.notes().join("\n");
        assert!(
            notes.contains("day/Sunday") && notes.contains("food, money"),
            "{notes}"
        );
    }

    #[test]
    fn the_seed_chooses_members() {
        let tokens = families();
        let of = |seed| {
            Divided::new(&tokens, &holdout(Some(seed)), true)
                .unwrap()
                .unseen
        };
        assert_eq!(of(1), of(1));
        assert!((2..20).any(|seed| of(seed) != of(1)));
        assert!((0..20).all(|seed| of(seed).len() == 3));
    }

    #[test]
    fn without_families_nothing_is_divided_so() {
        let tokens = table(&[(1, Some(0)), (1, Some(1))].repeat(8));
        let error = Divided::new(&tokens, &holdout(None), true).unwrap_err();
        assert!(error.to_string().contains("weekday/Monday"), "{error}");
        let plain = Divided::new(&tokens, &holdout(None), false).unwrap();
        assert_eq!(plain.split, Split::new(&tokens, &holdout(None)).unwrap());
        assert!(plain.unseen.is_empty() && plain.notes().is_empty());
        let none = Holdout {
            share: 0.0,
            ..holdout(None)
        };
        assert_eq!(
            Divided::new(&families(), &none, true)
                .unwrap_err()
                .exit_code(),
            2
        );
    }
}
