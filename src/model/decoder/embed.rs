//! From token ids to the residual stream that the first layer reads.
//!
//! Owns what is checked of a batch before anything is computed; knows nothing of layers.

use candle_core::{DType, Device, Tensor, WithDType};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::cache::KvCache;
use super::network::Decoder;
use super::positions::RowPositions;
use super::vector;
use crate::error::{Error, Result};
use crate::model::Batch;

/// Tokens that a thread embeds at a time, at least.
const AT_ONCE: usize = 32;

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
    ///
    /// Rows are looked up on the host, where the table stays mapped: on a card it would take as much
    /// memory again as the unembedding (1 GB of Llama-3.1-8B in bf16), to save a copy of 8 kB a token.
    pub(super) fn embed(&self, batch: &Batch, row_positions: &RowPositions) -> Result<Tensor> {
        let x = match self.dtype() {
            DType::BF16 => self.embedded::<bf16>(batch, row_positions, |wide, out| {
                out.convert_from_f32_slice(wide);
            }),
            DType::F16 => self.embedded::<f16>(batch, row_positions, |wide, out| {
                out.convert_from_f32_slice(wide);
            }),
            _ => self.embedded::<f32>(batch, row_positions, |wide, out| {
                out.copy_from_slice(wide);
            }),
        }?;
        Ok(x.to_device(self.device())?)
    }

    /// The same on the host, in T: tokens in parallel, each narrowed as soon as it is computed.
    fn embedded<T: WithDType + Default>(
        &self,
        batch: &Batch,
        row_positions: &RowPositions,
        narrow: fn(&[f32], &mut [T]),
    ) -> Result<Tensor> {
        let (width, tokens) = (self.config.d_model, row_positions.tokens);
        let scale = self.config.embed_scale.map(|s| self.rounded(s as f32));
        let token = |wide: &mut [f32], i: usize| {
            // Padding is id 0: no real token attends to it, so its value does not matter.
            let id = batch.rows[i / tokens].get(i % tokens).copied().unwrap_or(0) as usize;
            self.embed.dequantise(id..id + 1, wide);
            if let Some(scale) = scale {
                wide.iter_mut().for_each(|v| *v *= scale);
            }
        };
        let position = |wide: &mut [f32], at: &mut [f32], i: usize| {
            if let Some(positions) = &self.positions {
                let position =
                    (row_positions.starts[i / tokens] + i % tokens).min(self.config.context - 1);
                positions.dequantise(position..position + 1, at);
                vector::axpy(wide, 1.0, at);
            }
        };
        let mut x = vec![T::default(); batch.rows.len() * tokens * width];
        let rows = x.par_chunks_exact_mut(width).with_min_len(AT_ONCE);
        let room = || (vec![0.0f32; width], vec![0.0f32; width]);
        let finite = rows.enumerate().map_init(room, |(wide, at), (i, out)| {
            token(wide, i);
            position(wide, at, i);
            narrow(wide, out);
            vector::all_finite(wide)
        });
        if !finite.reduce(|| true, |a, b| a && b) {
            return Err(Error::refused(
                "the embeddings hold NaN or infinity: the weights are damaged, download them again",
            ));
        }
        let shape = (batch.rows.len() * tokens, width);
        Ok(Tensor::from_vec(x, shape, &Device::Cpu)?)
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
