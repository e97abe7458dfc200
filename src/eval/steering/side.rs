//! The two sides of a description, and a judge of texts by the descriptions of one side.
//!
//! A feature is described by what excites it and by what it promotes; its texts are written once and
//! rated by either. Invariant: ratings by the two sides are of two judges, with a log and a table each.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::judge::{Judgement, RatingCase, TextJudge};
use crate::error::Result;
use crate::task::TaskCtx;

/// A side of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// From the texts that excite a feature.
    Inputs,
    /// From the words that it promotes.
    Outputs,
}

impl Side {
    /// Both sides, in the order of reports.
    pub const ALL: [Self; 2] = [Self::Inputs, Self::Outputs];

    /// What is put after the key of what belongs to this side alone.
    pub fn suffix(self) -> String {
        format!(" of {self}")
    }

    /// A key without the mark of a side.
    pub fn strip(key: &str) -> &str {
        let plain = Self::ALL
            .iter()
            .find_map(|side| key.strip_suffix(&side.suffix()));
        plain.unwrap_or(key)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inputs => "inputs",
            Self::Outputs => "outputs",
        })
    }
}

/// Has a judge rate texts by the description of what they were steered with.
pub struct SideJudge<'a> {
    inner: &'a mut dyn TextJudge,
    name: String,
    side: Side,
    /// The description that each key stands for.
    descriptions: HashMap<String, String>,
}

impl<'a> SideJudge<'a> {
    /// A judge of the texts whose keys have a description.
    pub fn new(
        inner: &'a mut dyn TextJudge,
        side: Side,
        descriptions: HashMap<String, String>,
    ) -> Self {
        let name = format!("{}, by descriptions of {side}", inner.name());
        Self {
            inner,
            name,
            side,
            descriptions,
        }
    }
}

impl TextJudge for SideJudge<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&self) -> String {
        format!(
            "each text by the description of the feature's {} ({})",
            self.side,
            self.inner.describe()
        )
    }

    fn knows(&self, label: &str) -> bool {
        let description = self.descriptions.get(label);
        description.is_some_and(|d| self.inner.knows(d))
    }

    fn rate(&mut self, cases: &[RatingCase], ctx: &TaskCtx) -> Result<Vec<Judgement>> {
        let described = |case: &RatingCase| {
            let label = self.descriptions.get(&case.label)?.clone();
            Some(RatingCase {
                label,
                ..case.clone()
            })
        };
        let known: Vec<Option<RatingCase>> = cases.iter().map(described).collect();
        let asked: Vec<RatingCase> = known.iter().flatten().cloned().collect();
        let mut judgements = self.inner.rate(&asked, ctx)?.into_iter();
        let none = || Judgement::Unrated {
            unrated: format!("it has no description of its {}", self.side),
        };
        let each = known
            .iter()
            .map(|case| case.as_ref().and_then(|_| judgements.next()));
        Ok(each
            .map(|judgement| judgement.unwrap_or_else(none))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rates a text by the length of its label.
    struct ByLength;

    impl TextJudge for ByLength {
        fn name(&self) -> &str {
            "length"
        }
        fn describe(&self) -> String {
            "length".to_owned()
        }
        fn knows(&self, label: &str) -> bool {
            label != "unknown"
        }
        fn rate(&mut self, cases: &[RatingCase], _: &TaskCtx) -> Result<Vec<Judgement>> {
            let rated = |case: &RatingCase| Judgement::Rated {
                concept: case.label.len() as f64,
                fluency: 1.0,
            };
            Ok(cases.iter().map(rated).collect())
        }
    }

    #[test]
    fn a_text_is_rated_by_its_sides_description() {
        let descriptions = [
            ("fit 1", "ab"),
            ("fit 2 of inputs", "abc"),
            ("fit 3", "unknown"),
        ];
        let descriptions = descriptions
            .map(|(k, d)| (k.to_owned(), d.to_owned()))
            .into();
        let mut inner = ByLength;
        let mut judge = SideJudge::new(&mut inner, Side::Inputs, descriptions);
        assert_eq!(judge.name(), "length, by descriptions of inputs");
        let case = |label: &str| RatingCase {
            label: label.to_owned(),
            prompt: String::new(),
            text: "t".to_owned(),
            nll: 0.0,
            distinct: 1.0,
        };
        let cases = ["fit 1", "fit 2 of outputs", "fit 2 of inputs"].map(case);
        let judgements = judge.rate(&cases, &TaskCtx::silent()).unwrap();
        let concept = |j: &Judgement| match j {
            Judgement::Rated { concept, .. } => Some(*concept),
            Judgement::Unrated { .. } => None,
        };
        assert_eq!(
            judgements.iter().map(concept).collect::<Vec<_>>(),
            [Some(2.0), None, Some(3.0)]
        );
        assert!(judge.knows("fit 1") && !judge.knows("fit 2 of outputs") && !judge.knows("fit 3"));
        assert_eq!(Side::strip("fit 2 of outputs"), "fit 2");
        assert_eq!(Side::strip("fit 2"), "fit 2");
    }
}
