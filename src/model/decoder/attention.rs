//! Attention of one layer: rotary positions, the cache, causal and sliding windows, grouped heads.
//!
//! Owns everything between the fused q, k, v projection and the output projection. Invariant: a
//! row's result depends on that row's real tokens alone; padding is on the right and no real token
//! sees it.

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::cache::LayerCache;
use super::linear::with_slice;
use super::ops::NormWeights;
use super::positions::RowPositions;
use super::vector;
use crate::error::Result;
use crate::matrix::gemm::{View, product};
use crate::matrix::simd::vectorised;
use crate::model::config::{Config, LayerKind, NormKind, QkvOrder};

mod on_device;

/// Scores that candle's kernels make at a time: they count in 32 bits, and the memory of a pass must
/// not grow with the square of a row's length.
pub(super) const SCORES: usize = 1 << 28;
/// The number of queries of one head that this crate's kernels score at a time.
const QUERIES: usize = 64;

/// The attention of one layer: the configuration, what is the layer's own, and its head norms.
///
/// softmax(scale · q kᵀ) v over the keys that a query may attend to (Vaswani et al. 2017), with grouped
/// heads (Ainslie et al. 2023) and, where the family has one, a soft-cap on the scores.
pub(super) struct Attention<'a> {
    pub(super) config: &'a Config,
    pub(super) kind: LayerKind,
    /// RMS norms of each head of q and of k.
    pub(super) q_norm: Option<&'a NormWeights>,
    pub(super) k_norm: Option<&'a NormWeights>,
    /// Scores that are made at a time, at most.
    pub(super) scores: usize,
}

impl Attention<'_> {
    /// First column of head `head` of q (0), k (1) or v (2) in a fused row.
    pub(super) fn column(&self, side: usize, head: usize) -> usize {
        let c = self.config;
        match c.qkv_order {
            QkvOrder::Blocks => {
                [0, c.q_width(), c.q_width() + c.kv_width()][side] + head * c.head_dim
            }
            QkvOrder::PerHead => (3 * head + side) * c.head_dim,
        }
    }

    /// Attention on the CPU: `[rows * tokens, q_width]` of fused `[rows * tokens, q | k | v]`.
    pub(super) fn on_cpu(
        &self,
        qkv: &Tensor,
        row_positions: &RowPositions,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor> {
        let count = row_positions.starts.len() * row_positions.tokens;
        let (q, k, v) = with_slice(qkv, |qkv| {
            let c = self.config;
            let q = self.gather(qkv, row_positions, 0, c.heads, self.q_norm);
            (
                q,
                self.gather(qkv, row_positions, 1, c.kv_heads, self.k_norm),
                self.gather(qkv, row_positions, 2, c.kv_heads, None),
            )
        })?;
        let width = self.config.kv_width();
        let out = match cache {
            None => {
                let row = |r: usize| {
                    let span =
                        r * row_positions.tokens * width..(r + 1) * row_positions.tokens * width;
                    (&k[span.clone()], &v[span])
                };
                self.attend(&q, row_positions, row, false)
            }
            Some(LayerCache::Rows { keys, values }) => {
                for (r, &n) in row_positions.lengths.iter().enumerate() {
                    let from = r * row_positions.tokens * width;
                    keys[r].extend_from_slice(&k[from..from + n * width]);
                    values[r].extend_from_slice(&v[from..from + n * width]);
                }
                self.attend(
                    &q,
                    row_positions,
                    |r| (keys[r].as_slice(), values[r].as_slice()),
                    true,
                )
            }
            Some(LayerCache::Device(_)) => {
                return Err(candle_core::Error::Msg(
                    "a cache of another device was given to the CPU".into(),
                )
                .into());
            }
        };
        Ok(Tensor::from_vec(
            out,
            (count, self.config.q_width()),
            &Device::Cpu,
        )?)
    }

    /// The heads of q (side 0), k (1) or v (2), token after token, normed and rotated where the family
    /// does so: `[rows * tokens][heads * head_dim]`.
    fn gather(
        &self,
        qkv: &[f32],
        row_positions: &RowPositions,
        side: usize,
        heads: usize,
        norm: Option<&NormWeights>,
    ) -> Vec<f32> {
        let c = self.config;
        let (dim, half) = (c.head_dim, c.rotary_dims / 2);
        let stride = c.q_width() + 2 * c.kv_width();
        let mut out = vec![0.0; qkv.len() / stride * heads * dim];
        let angles = self
            .kind
            .rope
            .filter(|_| side < 2)
            .map(|i| &row_positions.angles[i]);
        vector::for_each_row(&mut out, heads * dim, |t, row| {
            vectorised(|| {
                for (h, head) in row.chunks_exact_mut(dim).enumerate() {
                    let from = t * stride + self.column(side, h);
                    match norm {
                        Some(norm) => {
                            let (x, w) = (&qkv[from..from + dim], norm.weight());
                            vector::norm_row(NormKind::Rms, c.norm.eps as f32, w, None, x, head);
                        }
                        None => head.copy_from_slice(&qkv[from..from + dim]),
                    }
                    if let Some((cos, sin)) = angles {
                        let at = t * half..(t + 1) * half;
                        vector::rotate(head, &cos[at.clone()], &sin[at], c.rope_interleaved);
                    }
                }
            });
        });
        out
    }

    /// Attends with each row's keys and values. Those from a cache begin at position 0, others at the
    /// row's start.
    fn attend<'k>(
        &self,
        q: &[f32],
        row_positions: &RowPositions,
        row: impl Fn(usize) -> (&'k [f32], &'k [f32]) + Sync,
        from_cache: bool,
    ) -> Vec<f32> {
        let c = self.config;
        let (rows, tokens, width) = (
            row_positions.starts.len(),
            row_positions.tokens,
            c.q_width(),
        );
        let group = c.heads / c.kv_heads * c.head_dim;
        let part = |i: usize| {
            let (r, kv_head) = (i / c.kv_heads, i % c.kv_heads);
            let (keys, values) = row(r);
            let offset = if from_cache {
                row_positions.starts[r]
            } else {
                0
            };
            let q = &q[r * tokens * width..(r + 1) * tokens * width];
            self.attend_group(q, keys, values, kv_head, row_positions.lengths[r], offset)
        };
        let work = rows * tokens * tokens.max(16) * width;
        let parts: Vec<Vec<f32>> = if work < 1 << 16 {
            (0..rows * c.kv_heads).map(part).collect()
        } else {
            (0..rows * c.kv_heads).into_par_iter().map(part).collect()
        };
        let mut out = vec![0.0; rows * tokens * width];
        for (i, part) in parts.iter().enumerate() {
            let (r, kv_head) = (i / c.kv_heads, i % c.kv_heads);
            for (t, head) in part.chunks_exact(group).enumerate() {
                let at = (r * tokens + t) * width + kv_head * group;
                out[at..at + group].copy_from_slice(head);
            }
        }
        out
    }

    /// The query heads that share one key head, for the `count` real tokens of a row:
    /// `[count][group heads * head_dim]`. Query t stands at key `offset + t`.
    fn attend_group(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        kv_head: usize,
        count: usize,
        offset: usize,
    ) -> Vec<f32> {
        let c = self.config;
        let (dim, kv_width, width) = (c.head_dim, c.kv_width(), c.q_width());
        let heads = c.heads / c.kv_heads;
        let mut out = vec![0.0; count * heads * dim];
        let mut scores = Vec::new();
        for first in (0..count).step_by(QUERIES) {
            let n = QUERIES.min(count - first);
            let end = offset + first + n;
            let begin = self
                .kind
                .window
                .map_or(0, |w| (offset + first + 1).saturating_sub(w));
            let span = end - begin;
            scores.resize(n * span, 0.0);
            let keys = &k[begin * kv_width + kv_head * dim..];
            let values = &v[begin * kv_width + kv_head * dim..];
            for h in 0..heads {
                let head = kv_head * heads + h;
                let q = &q[first * width + head * dim..];
                if n == 1 {
                    vectorised(|| {
                        self.attend_query(
                            &q[..dim],
                            keys,
                            values,
                            &mut scores,
                            &mut out[(first * heads + h) * dim..],
                        )
                    });
                    continue;
                }
                let (q, keys) = (View::rows(q, width), View::transposed(keys, kv_width));
                product((n, dim, span), q, keys, &mut scores, span, false, false);
                vectorised(|| self.masked_softmax(&mut scores, span, begin, offset + first));
                let (weights, values) = (View::rows(&scores, span), View::rows(values, kv_width));
                let out = &mut out[(first * heads + h) * dim..];
                product(
                    (n, span, dim),
                    weights,
                    values,
                    out,
                    heads * dim,
                    false,
                    false,
                );
            }
        }
        out
    }

    /// Softmax of each query's scores over the keys that it may attend to; the others become 0.
    #[inline(always)]
    fn masked_softmax(&self, scores: &mut [f32], span: usize, begin: usize, position: usize) {
        let cap = self.config.attention_softcap.map(|c| c as f32);
        for (t, row) in scores.chunks_exact_mut(span).enumerate() {
            let query = position + t;
            let low = self
                .kind
                .window
                .map_or(0, |w| (query + 1).saturating_sub(w))
                .max(begin)
                - begin;
            let high = query + 1 - begin;
            row[..low].fill(0.0);
            row[high..].fill(0.0);
            vector::softmax(&mut row[low..high], self.config.attention_scale as f32, cap);
        }
    }

    /// One query against every key of `scores.len()` tokens.
    #[inline(always)]
    fn attend_query(
        &self,
        q: &[f32],
        keys: &[f32],
        values: &[f32],
        scores: &mut [f32],
        out: &mut [f32],
    ) {
        let (dim, stride) = (self.config.head_dim, self.config.kv_width());
        for (s, key) in scores.iter_mut().zip(keys.chunks(stride)) {
            *s = vector::dot(q, &key[..dim]);
        }
        vector::softmax(
            scores,
            self.config.attention_scale as f32,
            self.config.attention_softcap.map(|c| c as f32),
        );
        let out = &mut out[..dim];
        for (&s, value) in scores.iter().zip(values.chunks(stride)) {
            vector::axpy(out, s, &value[..dim]);
        }
    }
}
