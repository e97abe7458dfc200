//! One decoder with taps for every family: a family is a configuration and a weight-name map.
//!
//! Owns the forward pass, its cache and its devices; knows nothing of factors, corpora or
//! terminals. Invariant: what a tap sees, logits and KL are computed with weights widened to f32
//! (or the device's dtype), whatever the batch; only generated tokens may go through quantised
//! kernels.

mod attention;
mod budget;
mod cache;
mod derivative;
mod directions;
mod embed;
mod finite;
#[cfg(test)]
pub(crate) mod full;
mod gradient;
mod layer_input;
mod linear;
mod load;
mod logits;
mod network;
mod open;
mod ops;
mod positions;
mod products;
pub mod self_test;
mod spread;
mod vector;

use candle_core::{DType, Device, Tensor};

use self::budget::Plan;
use super::{
    Batch, DeviceChoice, Gpu, HookPoint, ModelFiles, ModelInfo, Phase, Tap, Tokenizer, device,
};
use crate::error::Result;
use crate::task::TaskCtx;

pub use budget::MemoryNeed;
pub use cache::KvCache;
pub use gradient::TextGradient;
pub use layer_input::LayerInput;
pub use network::Decoder;
pub use open::describe;

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The device asked for.
    pub device: DeviceChoice,
    /// Compute dtype; `None`: f32 on the CPU, bf16 on a GPU.
    pub dtype: Option<DType>,
    /// Load only layers `0..n` (collecting needs no more); `None`: all, and room for generating.
    pub layers: Option<usize>,
    /// Padded tokens of one pass of collecting; `None`: 512 on the CPU, 8,192 on a GPU.
    pub batch_tokens: Option<usize>,
}

/// Which logits a forward pass returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// None: the pass stops after the last hooked layer.
    None,
    /// Of each row's last real token: `[batch, vocab]`.
    Last,
    /// Of every token: `[batch, tokens, vocab]`.
    All,
}

/// An open model. Cheap to share behind an `Arc`; a forward pass takes `&self`.
pub struct Model {
    info: ModelInfo,
    tokenizer: Tokenizer,
    decoder: Decoder,
    batch_tokens: usize,
}

impl Model {
    /// Opens the files on a device, reporting the bytes that are read.
    ///
    /// # Errors
    /// Files that are broken or not supported, a device that cannot be used, too little memory (with
    /// the numbers), and a tokenizer that does not belong to the model.
    pub fn open(files: &ModelFiles, options: &LoadOptions, ctx: &TaskCtx) -> Result<Self> {
        // The tokenizer is opened first because it fails soonest.
        let tokenizer = Tokenizer::open(files)?;
        Self::with_tokenizer(tokenizer, open::open(files, options, ctx)?)
    }

    /// Opens the files on candle's CPU device, whose operations are those of a card, in `dtype`: for
    /// tests of what a card does where there is none.
    ///
    /// # Errors
    /// As [`Model::open`].
    #[doc(hidden)]
    pub fn open_generic(files: &ModelFiles, dtype: DType, ctx: &TaskCtx) -> Result<Self> {
        let (described, options) = (describe(files)?, LoadOptions::default());
        let opened = device::generic(dtype);
        let opened = open::open_on(files, described, &options, &opened, ctx)?;
        Self::with_tokenizer(Tokenizer::open(files)?, opened)
    }

    fn with_tokenizer(
        tokenizer: Tokenizer,
        (decoder, mut info, plan): (Decoder, ModelInfo, Plan),
    ) -> Result<Self> {
        open::check_tokenizer(&tokenizer, &mut info)?;
        Ok(Self {
            info,
            tokenizer,
            decoder,
            batch_tokens: plan.tokens,
        })
    }

    /// Opens the network alone, for token ids: the files need no tokenizer.
    ///
    /// # Errors
    ///
    /// As [`Model::open`], but for those of the tokenizer.
    pub fn open_decoder(
        files: &ModelFiles,
        options: &LoadOptions,
        ctx: &TaskCtx,
    ) -> Result<(Decoder, ModelInfo)> {
        open::open(files, options, ctx).map(|(decoder, info, _)| (decoder, info))
    }

    /// Its sizes, its device and where it comes from, to show and to record.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The tokenizer that its files hold.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The network without its tokenizer, for token ids.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The device that its passes run on.
    pub fn device(&self) -> &Device {
        self.decoder.device()
    }

    /// The GPU that it computes on, if it does, with the bytes that are free there now.
    pub fn gpu(&self) -> Option<Gpu> {
        Gpu::of(self.device())
    }

    /// Padded tokens that one pass of collecting takes.
    pub fn batch_tokens(&self) -> usize {
        self.batch_tokens
    }

    /// The width of a hook: d_mlp or d_model.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for a layer that does not exist, with those that do, or that was not
    /// loaded.
    pub fn width(&self, hook: HookPoint) -> Result<usize> {
        self.decoder.width(hook)
    }

    /// An empty cache for `rows` rows.
    pub fn new_cache(&self, rows: usize) -> KvCache {
        self.decoder.new_cache(rows)
    }

    /// Runs a batch through the layers that `tap` or `logits` need. With a cache the ids continue
    /// what it holds (and every layer runs, to fill it); without one the pass is a prompt from
    /// position 0. Cancellation is tested between layers.
    ///
    /// Quantised weights: a pass of [`Phase::Prompt`], and any pass of 32 token rows or more,
    /// widens them to f32, one part of one matrix at a time; a pass of [`Phase::Generated`] with
    /// fewer rows multiplies the blocks themselves, with activations quantised to eight bits,
    /// unless its cache is [`KvCache::widened`]. All rows of a batch take the same way, so baseline
    /// and steered text compare.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for a batch, a cache or a hook that does not fit the model, what the tap
    /// returns, activations that are not finite, and [`crate::Error::Cancelled`].
    pub fn forward(
        &self,
        batch: &Batch,
        phase: Phase,
        cache: Option<&mut KvCache>,
        tap: &mut dyn Tap,
        logits: Logits,
        ctx: &TaskCtx,
    ) -> Result<Option<Tensor>> {
        self.decoder.forward(batch, phase, cache, tap, logits, ctx)
    }

    /// What directions at `hook` (`[m, width]`, f32) add to the residual stream: `[m, d_model]`. At
    /// `mlp.hook_post` that is W_outᵀ z (for post-norm families followed by the post-feed-forward
    /// norm); elsewhere the direction itself.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for a hook that does not exist, and for directions of another width than
    /// its own.
    pub fn residual_direction(&self, hook: HookPoint, directions: &Tensor) -> Result<Tensor> {
        self.decoder.residual_direction(hook, directions)
    }

    /// Logit lens (nostalgebraist 2020): unembed(final_norm(f)) of residual directions `[m, d_model]` as
    /// f32 `[m, vocab]`, without soft-cap, minus unembed(final_norm(0)) where the norm has a bias.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] unless all layers were loaded.
    pub fn logit_lens(&self, residual: &Tensor) -> Result<Tensor> {
        self.decoder.logit_lens(residual)
    }
}
