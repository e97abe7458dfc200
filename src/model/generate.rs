//! Sampling and streaming.

use serde::{Deserialize, Serialize};

use super::{KvCache, Model, Tap};
use crate::error::Result;
use crate::task::TaskCtx;

/// How tokens are drawn (defaults: method, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Keep the k likeliest; 0 keeps all.
    pub top_k: usize,
    /// Then keep the smallest set with this mass.
    pub top_p: f64,
    /// Seeds every row's draws.
    pub seed: u64,
    /// New tokens a row at most.
    pub max_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 30, top_p: 0.3, seed: 42, max_tokens: 50 }
    }
}

/// One new token of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct NewToken {
    /// The row of the batch.
    pub row: usize,
    /// Its id.
    pub id: u32,
    /// The text that became complete with it (a token may end in the middle of a character: then empty).
    pub text: String,
    /// The row ended with it.
    pub last: bool,
}

/// Generates from `prompts` (one a row) as one batch, calling `emit` for each token as it is drawn; rows end at EOS, at
/// `max_tokens` or at the model's context. The same seed and row give the same draws. Returns each row's new text.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    sampling: &Sampling,
    tap: &mut dyn Tap,
    emit: &mut dyn FnMut(NewToken),
    ctx: &TaskCtx,
) -> Result<Vec<String>> {
    let _ = (model, prompts, sampling, tap, emit, ctx, std::marker::PhantomData::<KvCache>);
    unimplemented!()
}
