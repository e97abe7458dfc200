//! The values of the Steer form that the cursor can stand on: their names, and what they do in a
//! line.

use serde::{Deserialize, Serialize};

/// Which neurons of the features are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in super::super) enum Part {
    #[default]
    Whole,
    /// Those that most of the cluster has.
    Core,
    /// Those that no other of the cluster has.
    Own,
}

/// Which value a field is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Prompt,
    /// A feature by its place in the list; also the place where the first would be.
    Term(usize),
    By,
    Amount,
    Sign,
    Part,
    Mode,
    Positions,
    Samples,
    Tokens,
    Temperature,
    Seed,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Term(_) => "feature",
            Self::By => "strength",
            Self::Amount => "amount",
            Self::Sign => "sign",
            Self::Part => "neurons",
            Self::Mode => "mode",
            Self::Positions => "positions",
            Self::Samples => "samples",
            Self::Tokens => "tokens",
            Self::Temperature => "temperature",
            Self::Seed => "seed",
        }
    }

    pub fn help(self) -> &'static str {
        match self {
            Self::Prompt => "the text that both continue",
            Self::Term(_) => "its weight multiplies α; below 0 suppresses",
            Self::By => "how far to push: a KL that α is searched for, or α itself",
            Self::Amount => "KL(base ‖ steered) of the next token, or α",
            Self::Sign => "add the direction, or take it away",
            Self::Part => "whole features, the cluster's core, or what one has for itself",
            Self::Mode => {
                "add α of the direction, set what is along it to α, or ablate: take it out"
            }
            Self::Positions => "touch the prompt too, or generated tokens alone",
            Self::Samples => "texts of each kind, 1 to 8",
            Self::Tokens => "new tokens a text at most",
            Self::Temperature => "0 takes the likeliest token always",
            Self::Seed => "the same seed draws the same texts",
        }
    }
}
