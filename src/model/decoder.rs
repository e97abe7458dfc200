//! One decoder with taps for every family: a family is a configuration and a weight-name map.

use candle_core::{DType, Device, Tensor};

use super::{Batch, DeviceChoice, HookPoint, ModelFiles, ModelInfo, Phase, Tap, Tokenizer};
use crate::error::Result;
use crate::task::TaskCtx;

/// How to open a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// The device asked for.
    pub device: DeviceChoice,
    /// Compute dtype; `None`: f32 on the CPU, bf16 on a GPU.
    pub dtype: Option<DType>,
    /// Load only layers `0..n` (collecting needs no more); `None`: all.
    pub layers: Option<usize>,
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

/// Keys and values of the tokens seen so far, for each row of one batch.
pub struct KvCache {}

impl KvCache {
    /// Repeats row `row` `times` times: samples share a prompt's cache.
    pub fn fan_out(&self, row: usize, times: usize) -> Result<Self> {
        let _ = (row, times);
        unimplemented!()
    }
}

/// An open model. Cheap to share behind an `Arc`; a forward pass takes `&self`.
pub struct Model {
    info: ModelInfo,
    tokenizer: Tokenizer,
}

impl Model {
    /// Opens the files on a device; reports bytes read; refuses with numbers when memory does not suffice.
    pub fn open(files: &ModelFiles, options: &LoadOptions, ctx: &TaskCtx) -> Result<Self> {
        let _ = (files, options, ctx);
        unimplemented!()
    }

    /// What it is.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        unimplemented!()
    }

    /// The width of a hook: d_mlp or d_model. [`crate::Error::Usage`] names the range when the layer does not exist.
    pub fn width(&self, hook: HookPoint) -> Result<usize> {
        let _ = hook;
        unimplemented!()
    }

    /// An empty cache for `rows` rows.
    pub fn new_cache(&self, rows: usize) -> KvCache {
        let _ = rows;
        unimplemented!()
    }

    /// Runs a batch through the layers that `tap` or `logits` need. With a cache the ids continue what it holds; without
    /// one the pass is a prompt from position 0. Cancellation is tested between layers.
    pub fn forward(
        &self,
        batch: &Batch,
        phase: Phase,
        cache: Option<&mut KvCache>,
        tap: &mut dyn Tap,
        logits: Logits,
        ctx: &TaskCtx,
    ) -> Result<Option<Tensor>> {
        let _ = (batch, phase, cache, tap, logits, ctx);
        unimplemented!()
    }

    /// What directions at `hook` (`[m, width]`, f32) add to the residual stream: `[m, d_model]`. At `mlp.hook_post` that
    /// is W_outᵀ z (for post-norm families followed by the post-feed-forward norm); elsewhere the direction itself.
    pub fn residual_direction(&self, hook: HookPoint, directions: &Tensor) -> Result<Tensor> {
        let _ = (hook, directions);
        unimplemented!()
    }

    /// Logit lens: unembed(final_norm(f)) of residual directions `[m, d_model]` as f32 `[m, vocab]`, no soft-cap, minus
    /// unembed(final_norm(0)) where the norm has a bias.
    pub fn logit_lens(&self, residual: &Tensor) -> Result<Tensor> {
        let _ = residual;
        unimplemented!()
    }
}
