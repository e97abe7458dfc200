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

/// What a user is told of embeddings that are not finite.
pub(super) const DAMAGED: &str =
    "the embeddings hold NaN or infinity: the weights are damaged, download them again";

/// The embeddings on the device that a pass begins on.
pub(super) struct Table {
    /// `[vocab, d_model]` in the compute dtype; where it is the unembedding too, the same tensor.
    pub(super) rows: Tensor,
    /// Learned positions `[context, d_model]` in f32.
    pub(super) positions: Option<Tensor>,
}

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
    /// On a device whose memory holds the table it is looked up there, from ids of 4 bytes a token. Else
    /// on the host, where it stays mapped, and the rows are copied: 8 kB a token of Llama-3.1-8B, 64 MB a
    /// pass of collecting.
    pub(super) fn embed(&self, batch: &Batch, row_positions: &RowPositions) -> Result<Tensor> {
        if let Some(table) = &self.table {
            return self.gathered(table, batch, row_positions);
        }
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

    /// The same where the table lies. What is not finite is found at the pass's end.
    fn gathered(
        &self,
        table: &Table,
        batch: &Batch,
        row_positions: &RowPositions,
    ) -> Result<Tensor> {
        let (tokens, device) = (row_positions.tokens, table.rows.device());
        let of_row = |row: &Vec<u32>| {
            let padding = std::iter::repeat_n(0, tokens - row.len());
            row.iter().copied().chain(padding).collect::<Vec<u32>>()
        };
        let ids: Vec<u32> = batch.rows.iter().flat_map(of_row).collect();
        let count = ids.len();
        let rows = table
            .rows
            .index_select(&Tensor::from_vec(ids, count, device)?, 0)?;
        if self.config.embed_scale.is_none() && table.positions.is_none() {
            return Ok(rows);
        }
        let mut x = rows.to_dtype(DType::F32)?;
        if let Some(scale) = self.config.embed_scale {
            x = (x * f64::from(self.rounded(scale as f32)))?;
        }
        if let Some(positions) = &table.positions {
            let last = self.config.context - 1;
            let starts = row_positions.starts.iter();
            let at = starts.flat_map(|&start| (start..start + tokens).map(|p| p.min(last) as u32));
            let at = Tensor::from_vec(at.collect::<Vec<u32>>(), count, device)?;
            x = (x + positions.index_select(&at, 0)?)?;
        }
        Ok(x.to_dtype(self.dtype())?)
    }

    /// Whether the embeddings as they are stored hold NaN or infinity; a scan of all of them, for naming
    /// the cause of a failure where nobody looked at them on the way.
    pub(super) fn embeddings_damaged(&self) -> bool {
        let mut row = vec![0.0; self.config.d_model];
        self.table.is_some()
            && (0..self.config.vocab).any(|id| {
                self.embed.dequantise(id..id + 1, &mut row);
                !vector::all_finite(&row)
            })
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
            return Err(Error::refused(DAMAGED));
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::TaskCtx;
    use crate::model::config::Config;
    use crate::model::weights::Weights;
    use crate::model::{Logits, NoTap, Phase};

    fn fixture(family: &str) -> PathBuf {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        root.join("tests/fixtures/families").join(family)
    }

    fn open(config: &Path, weights: &Path, dtype: DType) -> Decoder {
        let weights = Weights::open_safetensors(&[weights.to_owned()]).unwrap();
        let config = Config::from_hf(config).unwrap();
        let (ctx, cpu) = (TaskCtx::silent(), Device::Cpu);
        Decoder::on_device(config, &weights, None, &cpu, dtype, &ctx).unwrap()
    }

    fn decoder(family: &str, dtype: DType) -> Decoder {
        let dir = fixture(family);
        open(
            &dir.join("config.json"),
            &dir.join("model.safetensors"),
            dtype,
        )
    }

    #[test]
    fn what_is_looked_up_on_a_device_is_what_the_host_looks_up() {
        let batch = Batch {
            rows: vec![vec![5, 6, 7, 8], vec![9, 95]],
            samples: Vec::new(),
        };
        // Scaled; with learned positions; of its own; the same tensor as the unembedding.
        for family in ["gemma2", "gpt2", "llama", "qwen2"] {
            for (dtype, near) in [(DType::F32, 0.0), (DType::BF16, 0.008)] {
                let mut decoder = decoder(family, dtype);
                let positions = decoder.positions_of(&batch, None).unwrap();
                let table = decoder.table.as_ref().unwrap();
                if let Some(head) = decoder.head.as_ref().filter(|_| decoder.config.tied) {
                    assert_eq!(table.rows.id(), head.dense().unwrap().id(), "{family}");
                }
                let mut embed = || -> Vec<f32> {
                    let x = decoder.embed(&batch, &positions).unwrap();
                    assert_eq!(x.dtype(), dtype);
                    decoder.table = None;
                    let x = x.to_dtype(DType::F32).unwrap();
                    x.flatten_all().unwrap().to_vec1().unwrap()
                };
                let (device, host) = (embed(), embed());
                assert_eq!(device.len(), 8 * decoder.config.d_model);
                for (a, b) in device.iter().zip(&host) {
                    // Weights that are rounded first may round once more.
                    assert!(
                        (a - b).abs() <= near * b.abs().max(0.5),
                        "{family}: {a} {b}"
                    );
                }
            }
        }
    }

    #[test]
    fn embeddings_that_are_damaged_are_named_on_a_device() {
        let dir = fixture("llama");
        let mut bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let names: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
        let span = &names["model.embed_tokens.weight"]["data_offsets"];
        let [from, to] = [0, 1].map(|i| header + span[i].as_u64().unwrap() as usize);
        for value in bytes[from..to].chunks_exact_mut(4) {
            value.copy_from_slice(&f32::NAN.to_le_bytes());
        }
        let damaged = tempfile::tempdir().unwrap();
        let file = damaged.path().join("model.safetensors");
        std::fs::write(&file, bytes).unwrap();
        let decoder = open(&dir.join("config.json"), &file, DType::F32);
        let batch = Batch {
            rows: vec![vec![5, 6]],
            samples: Vec::new(),
        };
        let ctx = TaskCtx::silent();
        let pass = decoder.forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::Last, &ctx);
        assert_eq!(pass.unwrap_err().to_string(), DAMAGED);
        assert_eq!(decoder.damage(0..1).unwrap(), DAMAGED);
    }
}
