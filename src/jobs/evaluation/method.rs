//! The ways to a direction for a label, as they are typed and shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::directions::SetKind;
use crate::error::{Error, Result};
use crate::eval::steering::worded::PROMPT;

/// A way to a direction for a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Directions of a set: the best for the label on the training sentences, or the label's own.
    Set(SetKind),
    /// A fit's features chosen as the best for labels that were dealt out to the sentences anew:
    /// what choosing is worth.
    Shuffled,
    /// No direction: the model is asked in words to speak of the label.
    Prompt,
    /// Several as one, each label's value their mean: fits that differ in their seed.
    Mean(Vec<Method>),
}

impl Method {
    /// The methods that every study with a fit and labels has, the fit first: what all else is
    /// compared with.
    pub fn usual() -> Vec<Self> {
        SetKind::usual()
            .filter(|kind| !matches!(kind, SetKind::Baseline { kind, .. } if !kind.usual()))
            .map(Self::Set)
            .chain([Self::Shuffled])
            .collect()
    }

    /// The sets of directions that `methods` choose from.
    pub fn sets(methods: &[Self]) -> Vec<&SetKind> {
        let singles = || methods.iter().flat_map(single);
        let named = singles().filter_map(|method| match method {
            Self::Set(kind) => Some(kind),
            _ => None,
        });
        let mut sets: Vec<&SetKind> = named.collect();
        // What is shuffled is the first fit, and the newest where none is named.
        let has_fit = sets.iter().any(|kind| matches!(kind, SetKind::Fit(_)));
        if !has_fit && singles().any(|method| *method == Self::Shuffled) {
            sets.push(&SetKind::FIT);
        }
        sets
    }

    /// The same with another name of the fit or the autoencoder that it names.
    pub fn renamed(&self, name_of: &dyn Fn(&str) -> String) -> Self {
        match self {
            Self::Set(kind) => Self::Set(kind.renamed(name_of)),
            Self::Mean(members) => Self::Mean(members.iter().map(|m| m.renamed(name_of)).collect()),
            Self::Shuffled | Self::Prompt => self.clone(),
        }
    }

    /// Whether directions are chosen or mixed by what they do.
    pub fn is_by_effects(&self) -> bool {
        match self {
            Self::Set(kind) => matches!(kind, SetKind::Mixed { .. }),
            Self::Shuffled | Self::Prompt => false,
            Self::Mean(members) => members.iter().any(Self::is_by_effects),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(kind) => kind.fmt(f),
            Self::Shuffled => f.write_str("shuffled"),
            Self::Prompt => f.write_str(PROMPT),
            Self::Mean(members) => {
                let names: Vec<String> = members.iter().map(ToString::to_string).collect();
                f.write_str(&names.join("+"))
            }
        }
    }
}

impl FromStr for Method {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        if s == "shuffled" {
            return Ok(Self::Shuffled);
        }
        if s == PROMPT {
            return Ok(Self::Prompt);
        }
        if s.contains('+') {
            return s
                .split('+')
                .map(str::parse)
                .collect::<Result<_>>()
                .map(Self::Mean);
        }
        s.parse().map(Self::Set).map_err(|e| {
            if s.contains('@') {
                return e;
            }
            Error::usage(format!(
                "'{}' is no method: use {}, shuffled, {PROMPT}, or several as one: fit:A+fit:B",
                s.escape_debug(),
                SetKind::names()
            ))
        })
    }
}

/// The methods that one is of.
pub(super) fn single(method: &Method) -> &[Method] {
    match method {
        Method::Mean(members) => members,
        one => std::slice::from_ref(one),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_typed_as_they_are_shown() {
        let named = [
            "sae:topk",
            "fit:k100",
            "kmeans@3.hook_mlp_out",
            "fit:a+fit:b+neuron",
            "prompt",
        ]
        .map(|text| text.parse().unwrap());
        for method in Method::usual().into_iter().chain(named) {
            assert_eq!(method.to_string().parse::<Method>().unwrap(), method);
        }
        for bad in ["proof", "fit:a+proof", "fit:a+"] {
            assert_eq!(bad.parse::<Method>().unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
