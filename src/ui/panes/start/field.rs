//! The choices of the form.

/// A choice of the form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Model,
    Layer,
    Hook,
    Corpus,
    Features,
    Sparsity,
    Penalty,
    Device,
}

impl Field {
    pub const ALL: [Self; 8] = [
        Self::Model,
        Self::Layer,
        Self::Hook,
        Self::Corpus,
        Self::Features,
        Self::Sparsity,
        Self::Penalty,
        Self::Device,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Layer => "layer",
            Self::Hook => "hook",
            Self::Corpus => "corpus",
            Self::Features => "features",
            Self::Sparsity => "sparsity",
            Self::Penalty => "penalty",
            Self::Device => "device",
        }
    }

    pub fn help(self) -> &'static str {
        match self {
            Self::Model => "a Hub id, a directory or a .gguf file",
            Self::Layer => "from 0",
            Self::Hook => "what is read: MLP neurons, MLP output or the residual stream",
            Self::Corpus => "JSON, JSONL, CSV or text; with labels if it has them",
            Self::Features => "k, how many to look for",
            Self::Sparsity => {
                "p, the share of neurons that a feature may use; auto: by their number"
            }
            Self::Penalty => "λ; 0 minimises the error alone",
            Self::Device => "where the model runs",
        }
    }
}
