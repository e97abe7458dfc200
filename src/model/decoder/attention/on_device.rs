//! Attention with candle's operations, for any device.
//!
//! Keys and values are read as they lie: the query heads that share a key head are the rows of one
//! product with it. Queries are taken a tile at a time, so that the scores of a long row are never
//! all there.

use candle_core::{DType, Tensor};

use super::super::cache::LayerCache;
use super::super::ops::NormWeights;
use super::super::positions::{DeviceTables, RowPositions};
use super::Attention;
use crate::error::Result;
use crate::model::config::QkvOrder;

impl Attention<'_> {
    /// [`Attention::on_cpu`] with candle's operations.
    pub(in super::super) fn on_device(
        &self,
        qkv: &Tensor,
        positions: &RowPositions,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor> {
        self.of_parts(std::slice::from_ref(qkv), positions, cache)
    }

    /// Attention of q, k and v, each `[rows * tokens, width]`, or of one tensor that holds all three.
    pub(in super::super) fn of_parts(
        &self,
        qkv: &[Tensor],
        positions: &RowPositions,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor> {
        let c = self.config;
        let (rows, tokens) = (positions.starts.len(), positions.tokens);
        let tile = positions.tile(c, self.scores);
        let (device, dtype) = (qkv[0].device(), qkv[0].dtype());
        let tables = positions.tables(c, tile.1, device, dtype)?;
        let q = self.heads_of(qkv, positions, &tables, 0, c.heads, self.q_norm)?;
        let k = self.heads_of(qkv, positions, &tables, 1, c.kv_heads, self.k_norm)?;
        let v = self.heads_of(qkv, positions, &tables, 2, c.kv_heads, None)?;
        let (k, v) = match cache {
            Some(cache) => cache.append(&k, &v, &positions.starts, tables.places.as_ref())?,
            None => (k, v),
        };
        let mut parts = Vec::new();
        for row in (0..rows).step_by(tile.0) {
            let row_block = (row, tile.0.min(rows - row));
            let mut of_rows = Vec::new();
            for first in (0..tokens).step_by(tile.1) {
                let queries = (first, tile.1.min(tokens - first));
                of_rows.push(self.tile(&q, &k, &v, positions, &tables, row_block, queries)?);
            }
            parts.push(joined(of_rows, 1)?);
        }
        Ok(joined(parts, 0)?.reshape((rows * tokens, c.q_width()))?)
    }

    /// Queries `first..first + count` of rows `row..row + rows`: `[rows, count, q_width]`.
    fn tile(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        positions: &RowPositions,
        tables: &DeviceTables,
        (row, rows): (usize, usize),
        (first, count): (usize, usize),
    ) -> Result<Tensor> {
        let c = self.config;
        let (window, starts) = (self.kind.window, &positions.starts[row..row + rows]);
        let (low, high) = starts
            .iter()
            .fold((usize::MAX, 0), |(l, h), &s| (l.min(s), h.max(s)));
        let end = high + first + count;
        let begin = window.map_or(0, |w| (low + first + 1).saturating_sub(w));
        let part = |x: &Tensor| -> Result<Tensor> {
            Ok(x.narrow(0, row, rows)?.narrow(2, begin, end - begin)?)
        };
        let (k, v) = (part(k)?, part(v)?);
        let repeat = c.heads / c.kv_heads;
        let q = q.narrow(0, row, rows)?.narrow(2, first, count)?;
        let q = q.reshape((rows, c.kv_heads, repeat * count, c.head_dim))?;
        let scores = q.contiguous()?.matmul(&k.t()?)?;
        let shape = (rows, c.heads, count, end - begin);
        let scores = match c.attention_softcap {
            // As `transformers` does: in the compute dtype, where adding 0 or −∞ is exact.
            None => (scores * c.attention_scale)?,
            Some(cap) => {
                let scores = scores.to_dtype(DType::F32)?;
                ((scores * (c.attention_scale / cap))?.tanh()? * cap)?
            }
        };
        let scores = scores.reshape(shape)?;
        let mask = tables.mask(window, (row, rows), (first, count), (begin, end))?;
        let scores = match mask {
            Some(mask) => scores.broadcast_add(&mask)?,
            None => scores,
        };
        let weights = candle_nn::ops::softmax_last_dim(&scores.to_dtype(DType::F32)?)?;
        let weights = weights.to_dtype(v.dtype())?;
        let weights = weights.reshape((rows, c.kv_heads, repeat * count, end - begin))?;
        let out = weights.matmul(&v)?;
        let out = out.reshape((rows, c.heads, count, c.head_dim))?;
        Ok(out.transpose(1, 2)?.reshape((rows, count, c.q_width()))?)
    }

    /// One side as `[rows, heads, tokens, head_dim]`, normed and rotated.
    fn heads_of(
        &self,
        qkv: &[Tensor],
        positions: &RowPositions,
        tables: &DeviceTables,
        side: usize,
        heads: usize,
        norm: Option<&NormWeights>,
    ) -> Result<Tensor> {
        let c = self.config;
        let (rows, tokens, dim) = (positions.starts.len(), positions.tokens, c.head_dim);
        let x = match (qkv, c.qkv_order) {
            ([q, k, v], _) => [q, k, v][side].reshape((rows, tokens, heads, dim))?,
            (_, QkvOrder::Blocks) => {
                let all = c.heads + 2 * c.kv_heads;
                let all = qkv[0].reshape((rows, tokens, all, dim))?;
                all.narrow(2, self.column(side, 0) / dim, heads)?
            }
            (_, QkvOrder::PerHead) => {
                let all = qkv[0].reshape((rows, tokens, heads, 3, dim))?;
                all.narrow(3, side, 1)?.squeeze(3)?
            }
        };
        let mut x = x.transpose(1, 2)?.contiguous()?;
        if let Some(norm) = norm {
            x = norm.apply(&x)?;
        }
        match self.kind.rope.filter(|_| side < 2) {
            Some(rope) => self.rotate(&x, &tables.rotary[rope]),
            None => Ok(x),
        }
    }

    /// The rotary embedding of `x` `[rows, heads, tokens, head_dim]`.
    fn rotate(&self, x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor> {
        let c = self.config;
        let rotate = if c.rope_interleaved {
            candle_nn::rotary_emb::rope_i
        } else {
            candle_nn::rotary_emb::rope
        };
        if c.rotary_dims == c.head_dim {
            return Ok(rotate(x, cos, sin)?);
        }
        let rest = x.narrow(3, c.rotary_dims, c.head_dim - c.rotary_dims)?;
        let head = x.narrow(3, 0, c.rotary_dims)?.contiguous()?;
        Ok(Tensor::cat(&[rotate(&head, cos, sin)?, rest], 3)?)
    }
}

/// Tensors one after another along a dimension; a single one as it is.
fn joined(mut parts: Vec<Tensor>, dim: usize) -> Result<Tensor> {
    Ok(match parts.len() {
        1 => parts.swap_remove(0),
        _ => Tensor::cat(&parts, dim)?,
    })
}
