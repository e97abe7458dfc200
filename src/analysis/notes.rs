//! The user's notes on features: names, tags, ratings, texts.
//!
//! Knows no file. Invariant: a note whose feature is missing from a new fit is kept as a line,
//! never dropped.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::matching::{self, MIN_COSINE};
use crate::directions::matching::SAME_COSINE;
use crate::error::{Error, Result};
use crate::factor::SparseColumns;

/// The user's note on a feature, besides its name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FeatureNote {
    /// Tags, without the leading `#`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The rating, from 1 to 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<u8>,
    /// Free text of the note.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The cosine between the feature that the note was written for and the feature of a new fit
    /// that it was carried over to, if that is between 0.3 and 0.7. Writing the note again removes
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubtful: Option<f32>,
}

/// Names and notes of the features of a fit, by id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Notes {
    /// The name of each named feature, by id.
    #[serde(default)]
    pub names: BTreeMap<usize, String>,
    /// The note on each feature that has one, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<usize, FeatureNote>,
    /// The notes on features that a new fit under the same name no longer has, one line each (see
    /// [`Notes::format_line`]), so that nothing is lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unplaced: Vec<String>,
}

impl Notes {
    /// Whether there is no name and no note at all.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.details.is_empty() && self.unplaced.is_empty()
    }

    /// The ids of the features with a name or a note, ascending.
    pub fn ids(&self) -> impl Iterator<Item = usize> + '_ {
        self.names
            .keys()
            .chain(self.details.keys())
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
    }

    /// Replaces the name and note of every feature that `other` has one for; the other features keep
    /// theirs.
    pub fn merge(&mut self, other: Self) {
        for id in other.ids() {
            self.names.remove(&id);
            self.details.remove(&id);
        }
        self.names.extend(other.names);
        self.details.extend(other.details);
    }

    /// Only the names and notes of these features.
    pub fn subset(&self, ids: &[usize]) -> Self {
        let mut out = Self::default();
        for id in ids {
            out.names
                .extend(self.names.get(id).map(|name| (*id, name.clone())));
            out.details
                .extend(self.details.get(id).map(|note| (*id, note.clone())));
        }
        out
    }

    /// Removes the names and notes of these features, then [merges](Self::merge) `other`.
    pub fn replace(&mut self, ids: &[usize], other: Self) {
        for id in ids {
            self.names.remove(id);
            self.details.remove(id);
        }
        self.merge(other);
    }

    /// Formats a name and a note as the line that [`Notes::set`] reads: `a name #tag #tag *4 -- a
    /// text`.
    pub fn format_line(name: Option<&str>, note: &FeatureNote) -> String {
        let mut parts: Vec<String> = name.map(str::to_owned).into_iter().collect();
        parts.extend(note.tags.iter().map(|tag| format!("#{tag}")));
        parts.extend(note.rating.map(|r| format!("*{r}")));
        if !note.text.is_empty() {
            parts.push(format!("-- {}", note.text));
        }
        parts.join(" ")
    }

    /// Sets the name and note of feature `id` from a line that [`Notes::parse_line`] reads. An
    /// empty line removes both.
    ///
    /// # Errors
    /// What [`Notes::parse_line`] returns; the notes stay as they are.
    pub fn set(&mut self, id: usize, line: &str) -> Result<()> {
        self.replace(&[id], Self::parse_line(id, line)?);
        Ok(())
    }

    /// Parses a line to the name and note of feature `id`: words that begin with `#` are tags, `*1`
    /// to `*5` is a rating, the part after ` -- ` is free text, the rest is the name.
    ///
    /// # Errors
    /// [`Error::Usage`] for a rating outside of its range.
    pub fn parse_line(id: usize, line: &str) -> Result<Self> {
        // A space is added, so that dashes at the end of the line are a word of their own too.
        let padded = format!("{line} ");
        let dashes = padded
            .match_indices("-- ")
            .find(|(at, _)| padded[..*at].is_empty() || padded[..*at].ends_with(' '));
        let (head, text) = match dashes {
            Some((at, dashes)) => (&padded[..at], padded[at + dashes.len()..].trim()),
            None => (line, ""),
        };
        let mut note = FeatureNote {
            text: text.to_owned(),
            ..FeatureNote::default()
        };
        let mut name: Vec<&str> = Vec::new();
        for word in head.split_whitespace() {
            // A star by itself, or before a word, may be a part of a name.
            let digits = word
                .strip_prefix('*')
                .filter(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()));
            let in_range = |digits: &str| {
                let rating = digits.parse::<u8>().ok().filter(|r| (1..=5).contains(r));
                rating.ok_or_else(|| Error::usage(format!("{word} is no rating: write *1 to *5")))
            };
            let rating = digits.map(in_range).transpose()?;
            match word.strip_prefix('#') {
                Some(tag) if !tag.is_empty() && !note.tags.iter().any(|t| t == tag) => {
                    note.tags.push(tag.to_owned())
                }
                Some(tag) if !tag.is_empty() => {}
                _ if rating.is_some() => note.rating = rating,
                _ => name.push(word),
            }
        }
        let mut notes = Self::default();
        if !name.is_empty() {
            notes.names.insert(id, name.join(" "));
        }
        if note != FeatureNote::default() {
            notes.details.insert(id, note);
        }
        Ok(notes)
    }

    /// Carries these notes over to the features of another fit: each goes to the feature that its
    /// own is matched with ([`matching::assignment`]). With a cosine of 0.7 or more it counts as
    /// the same feature; with a lower one the note is flagged as doubtful; below 0.3 it is moved to
    /// `unplaced`.
    pub fn carry_over(&self, from: &SparseColumns, to: &SparseColumns) -> Self {
        let mut out = Self {
            unplaced: self.unplaced.clone(),
            ..Self::default()
        };
        let mut unmatched: BTreeSet<usize> = self
            .names
            .keys()
            .chain(self.details.keys())
            .copied()
            .collect();
        for pair in matching::assignment(from, to)
            .into_iter()
            .filter(|m| m.cosine >= MIN_COSINE)
        {
            let (name, note) = (self.names.get(&pair.a), self.details.get(&pair.a));
            if name.is_none() && note.is_none() {
                continue;
            }
            unmatched.remove(&pair.a);
            out.names.extend(name.map(|name| (pair.b, name.clone())));
            let mut note = note.cloned().unwrap_or_default();
            if f64::from(pair.cosine) < SAME_COSINE {
                note.doubtful = Some(
                    note.doubtful
                        .map_or(pair.cosine, |before| before.min(pair.cosine)),
                );
            }
            if note != FeatureNote::default() {
                out.details.insert(pair.b, note);
            }
        }
        let nothing = FeatureNote::default();
        let line = |id: &usize| {
            Self::format_line(
                self.names.get(id).map(String::as_str),
                self.details.get(id).unwrap_or(&nothing),
            )
        };
        out.unplaced.extend(unmatched.iter().map(line));
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_holds_a_name_tags_a_rating_and_a_text() {
        let mut notes = Notes::default();
        notes
            .set(3, "  months of  the year #time #time *4 -- not the #verb")
            .unwrap();
        assert_eq!(notes.names[&3], "months of the year");
        let note = &notes.details[&3];
        assert_eq!(
            (note.tags.len(), note.rating, note.text.as_str()),
            (1, Some(4), "not the #verb")
        );
        assert_eq!(
            Notes::format_line(Some("months of the year"), note),
            "months of the year #time *4 -- not the #verb"
        );
        notes.set(3, "*b* * # -- ").unwrap();
        assert_eq!(
            (notes.names[&3].as_str(), notes.details.len()),
            ("*b* * #", 0)
        );
        for beyond in ["*0", "months *9", "*6 #time", "*256"] {
            let refused = notes.set(3, beyond).unwrap_err();
            assert!(refused.to_string().contains("*1 to *5"), "{refused}");
            assert_eq!(notes.names[&3], "*b* * #", "it stays as it was");
        }
        notes.set(3, " ").unwrap();
        assert!(notes.is_empty());
    }

    #[test]
    fn notes_follow_their_features_and_doubt_is_flagged() {
        let column = |entries: &[(u32, f32)], out: &mut SparseColumns| {
            out.indices.extend(entries.iter().map(|e| e.0));
            out.values.extend(entries.iter().map(|e| e.1));
            out.offsets.push(out.indices.len());
        };
        let empty = || SparseColumns {
            rows: 8,
            offsets: vec![0],
            ..SparseColumns::default()
        };
        let (mut old, mut new) = (empty(), empty());
        for entries in [&[(0, 1.0)][..], &[(1, 0.6), (2, 0.8)], &[(4, 1.0)]] {
            column(entries, &mut old);
        }
        for entries in [&[(7, 1.0)][..], &[(1, 1.0)], &[(0, 1.0)]] {
            column(entries, &mut new);
        }
        let mut notes = Notes::default();
        notes.set(0, "days").unwrap();
        notes.set(1, "months #time").unwrap();
        notes.set(2, "gone").unwrap();
        let carried = notes.carry_over(&old, &new);
        assert_eq!(
            carried.names,
            BTreeMap::from([(2, "days".to_owned()), (1, "months".to_owned())])
        );
        assert_eq!(carried.details[&1].doubtful, Some(0.6));
        assert_eq!(carried.unplaced, ["gone"]);
        assert_eq!(
            carried.carry_over(&new, &new).details[&1].doubtful,
            Some(0.6),
            "doubt stays until it is noted anew"
        );
    }

    proptest! {
        #[test]
        fn a_line_of_notes_is_the_same_after_reading_and_writing(line in "[a-z#*0-9 -]{0,40}") {
            let mut notes = Notes::default();
            if notes.set(0, &line).is_err() {
                return Ok(()); // A rating that there is not.
            }
            let note = notes.details.get(&0).cloned().unwrap_or_default();
            let again = Notes::format_line(notes.names.get(&0).map(String::as_str), &note);
            let mut other = Notes::default();
            other.set(0, &again).unwrap();
            prop_assert_eq!(&other.details, &notes.details, "{:?} {:?}", line, again);
            prop_assert_eq!(&other.names, &notes.names);
        }
    }
}
