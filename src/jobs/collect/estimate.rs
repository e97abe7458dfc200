//! What collecting would take of disk, before it begins.

use super::Runner;
use super::encoded::{Encoded, encode};
use crate::activations::store::CacheDtype;
use crate::corpus::Corpus;
use crate::disk;
use crate::error::Result;
use crate::model::{BosRule, Model};
use crate::task::TaskCtx;

/// What collecting a corpus would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Samples of the corpus.
    pub samples: usize,
    /// Token rows of a cache.
    pub tokens: usize,
    /// Texts that exceed the context and would be cut into windows.
    pub windowed: usize,
    /// Bytes of all caches and the token log.
    pub bytes: u64,
}

impl Estimate {
    fn new(
        samples: usize,
        tokens: usize,
        windowed: usize,
        widths: &[usize],
        dtype: CacheDtype,
    ) -> Self {
        Self {
            samples,
            tokens,
            windowed,
            bytes: disk_bytes(tokens, widths, dtype),
        }
    }

    /// Without a tokenizer: about one token every four bytes of text. For showing before a model is
    /// open.
    pub fn rough(corpus: &Corpus, widths: &[usize], dtype: CacheDtype) -> Self {
        let tokens = corpus
            .samples
            .iter()
            .map(|s| s.text.len().div_ceil(4))
            .sum();
        Self::new(corpus.samples.len(), tokens, 0, widths, dtype)
    }
}

/// For a person: "1,236 texts, about 18,000 tokens, 110.0 MiB".
impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} texts, {} tokens, {} on disk",
            self.samples,
            self.tokens,
            disk::human_bytes(self.bytes)
        )
    }
}

/// What collecting `corpus` with `model` at hooks of these widths would take, exactly: the texts
/// are tokenised.
///
/// # Errors
/// A text that the tokenizer cannot encode, [`crate::Error::Cancelled`].
pub fn estimate(
    model: &Model,
    corpus: &Corpus,
    widths: &[usize],
    dtype: CacheDtype,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Estimate> {
    estimate_with(model, corpus, widths, dtype, bos, ctx)
}

pub(super) fn estimate_with(
    runner: &impl Runner,
    corpus: &Corpus,
    widths: &[usize],
    dtype: CacheDtype,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Estimate> {
    let encoded = encode(runner, &corpus.samples, bos, ctx)?;
    let tokens = encoded.iter().map(Encoded::rows).sum();
    let windowed = encoded.iter().filter(|e| e.windows.len() > 1).count();
    Ok(Estimate::new(
        corpus.samples.len(),
        tokens,
        windowed,
        widths,
        dtype,
    ))
}

/// Bytes of `rows` rows in every cache and the token log.
pub(super) fn disk_bytes(rows: usize, widths: &[usize], dtype: CacheDtype) -> u64 {
    let row = widths.iter().map(|w| w * dtype.size()).sum::<usize>() + 8;
    (rows as u64).saturating_mul(row as u64)
}
