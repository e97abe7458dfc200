//! From token ids to the residual stream that the first layer reads.
//!
//! Owns what is checked of a batch before anything is computed; knows nothing of layers.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use super::cache::KvCache;
use super::network::Decoder;
use super::positions::RowPositions;
use super::vector;
use crate::error::{Error, Result};
use crate::model::Batch;

impl Decoder {
    /// Where each row of a batch begins and how long it is. Refuses rows that are empty, that exceed
    /// the model's context or that hold ids without an embedding, and a cache of other rows.
    pub(super) fn positions_of(
        &self,
        batch: &Batch,
        cache: Option<&KvCache>,
    ) -> Result<RowPositions> {
        let rows = batch.rows.len();
        if rows == 0 {
            return Err(Error::usage("a batch of no rows"));
        }
        if !batch.samples.is_empty() && batch.samples.len() != rows {
            return Err(Error::usage(format!(
                "{} sample numbers for {rows} rows",
                batch.samples.len()
            )));
        }
        let starts = match cache {
            Some(cache) if cache.lengths.len() != rows => {
                return Err(Error::usage(format!(
                    "a cache of {} rows for a batch of {rows}",
                    cache.lengths.len()
                )));
            }
            Some(cache) => cache.lengths.clone(),
            None => vec![0; rows],
        };
        for (r, (row, start)) in batch.rows.iter().zip(&starts).enumerate() {
            if row.is_empty() {
                return Err(Error::usage(format!("row {r} of the batch has no tokens")));
            }
            let end = start + row.len();
            if end > self.config.context {
                let problem = format!(
                    "row {r} has {end} tokens, the model's context is {}",
                    self.config.context
                );
                return Err(Error::usage(problem));
            }
            if let Some(id) = row.iter().find(|&&id| id as usize >= self.config.vocab) {
                let last = self.config.vocab - 1;
                let problem = format!(
                    "token id {id} does not exist: this model has embeddings for ids 0 to {last} (a token that was \
                     added to its tokenizer alone has none)"
                );
                return Err(Error::usage(problem));
            }
        }
        let lengths = batch.rows.iter().map(Vec::len).collect();
        Ok(self.positions_of_rows(starts, lengths))
    }

    /// Positions of rows that begin at `starts`, with their rotary angles.
    pub(super) fn positions_of_rows(
        &self,
        starts: Vec<usize>,
        lengths: Vec<usize>,
    ) -> RowPositions {
        RowPositions::new(&self.config, starts, lengths)
    }

    /// The residual stream that the first layer reads, `[rows * tokens, d_model]`: embeddings, scaled
    /// where the family does so, plus learned positions where it has them.
    pub(super) fn embed(&self, batch: &Batch, row_positions: &RowPositions) -> Result<Tensor> {
        let (width, tokens) = (self.config.d_model, row_positions.tokens);
        let mut x = vec![0.0f32; batch.rows.len() * tokens * width];
        let scale = self.config.embed_scale.map(|s| self.rounded(s as f32));
        for (r, row) in batch.rows.iter().enumerate() {
            for t in 0..tokens {
                // Padding is id 0: no real token attends to it, so its value does not matter.
                let id = row.get(t).copied().unwrap_or(0) as usize;
                let out = &mut x[(r * tokens + t) * width..][..width];
                self.embed.dequantise(id..id + 1, out);
                if let Some(scale) = scale {
                    out.iter_mut().for_each(|v| *v *= scale);
                }
            }
        }
        if let Some(positions) = &self.positions {
            let mut at = vec![0.0f32; width];
            for (i, out) in x.chunks_exact_mut(width).enumerate() {
                let position =
                    (row_positions.starts[i / tokens] + i % tokens).min(self.config.context - 1);
                positions.dequantise(position..position + 1, &mut at);
                vector::axpy(out, 1.0, &at);
            }
        }
        if !vector::all_finite(&x) {
            return Err(Error::refused(
                "the embeddings hold NaN or infinity: the weights are damaged, download them again",
            ));
        }
        let x = Tensor::from_vec(x, (batch.rows.len() * tokens, width), &Device::Cpu)?;
        // Narrowed before it is copied: half the bytes.
        Ok(x.to_dtype(self.dtype())?.to_device(self.device())?)
    }

    /// A factor as the compute dtype holds it: Gemma multiplies by √d so.
    fn rounded(&self, factor: f32) -> f32 {
        match self.dtype() {
            DType::BF16 => bf16::from_f32(factor).to_f32(),
            DType::F16 => f16::from_f32(factor).to_f32(),
            _ => factor,
        }
    }
}
