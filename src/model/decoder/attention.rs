//! Attention of one layer: rotary positions, the cache, causal and sliding windows, grouped heads.
//!
//! Owns everything between the fused q, k, v projection and the output projection. Invariant: a
//! row's result depends on that row's real tokens alone; padding is on the right and no real token
//! sees it.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::cache::LayerCache;
use super::linear::with_slice;
use super::vector;
use crate::error::Result;
use crate::matrix::gemm::{View, product};
use crate::matrix::simd::vectorised;
use crate::model::config::{Config, LayerKind, NormKind, QkvOrder};

/// The number of queries of one head that are scored at a time.
const QUERIES: usize = 64;

/// The positions of the rows of a pass, with their rotary angles.
pub(super) struct RowPositions {
    /// The position of each row's first token.
    pub(super) starts: Vec<usize>,
    /// The number of real tokens of each row.
    pub(super) lengths: Vec<usize>,
    /// The number of tokens of each row with padding.
    pub(super) tokens: usize,
    /// cos and sin `[rows * tokens][rotary_dims / 2]` of each rotary embedding.
    pub(super) angles: Vec<(Vec<f32>, Vec<f32>)>,
}

impl RowPositions {
    pub(super) fn new(config: &Config, starts: Vec<usize>, lengths: Vec<usize>) -> Self {
        let tokens = lengths.iter().copied().max().unwrap_or(0);
        let mut angles = Vec::with_capacity(config.ropes.len());
        for rope in &config.ropes {
            let (frequencies, amplitude) = (rope.frequencies(config.rotary_dims), rope.amplitude());
            let count = starts.len() * tokens * frequencies.len();
            let (mut cos, mut sin) = (Vec::with_capacity(count), Vec::with_capacity(count));
            for &start in &starts {
                for t in 0..tokens {
                    for f in &frequencies {
                        let (s, c) = ((start + t) as f32 * f).sin_cos();
                        cos.push(amplitude * c);
                        sin.push(amplitude * s);
                    }
                }
            }
            angles.push((cos, sin));
        }
        Self {
            starts,
            lengths,
            tokens,
            angles,
        }
    }
}

/// The attention of one layer: the configuration, what is the layer's own, and its head norms.
///
/// softmax(scale · q kᵀ) v over the keys that a query may attend to (Vaswani et al. 2017), with grouped
/// heads (Ainslie et al. 2023) and, where the family has one, a soft-cap on the scores.
pub(super) struct Attention<'a> {
    pub(super) config: &'a Config,
    pub(super) kind: LayerKind,
    /// RMS norms of each head of q and of k.
    pub(super) q_norm: Option<&'a [f32]>,
    pub(super) k_norm: Option<&'a [f32]>,
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
        norm: Option<&[f32]>,
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
                        Some(w) => {
                            let x = &qkv[from..from + dim];
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
            let here = position + t;
            let low = self
                .kind
                .window
                .map_or(0, |w| (here + 1).saturating_sub(w))
                .max(begin)
                - begin;
            let high = here + 1 - begin;
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

impl Attention<'_> {
    /// [`Attention::on_cpu`] with candle's operations, for any device.
    pub(super) fn on_device(
        &self,
        qkv: &Tensor,
        row_positions: &RowPositions,
        cache: Option<&mut LayerCache>,
    ) -> Result<Tensor> {
        let c = self.config;
        let (rows, tokens) = (row_positions.starts.len(), row_positions.tokens);
        let q = self.heads_of(qkv, row_positions, 0, c.heads, self.q_norm)?;
        let k = self.heads_of(qkv, row_positions, 1, c.kv_heads, self.k_norm)?;
        let v = self.heads_of(qkv, row_positions, 2, c.kv_heads, None)?;
        let (k, v, offsets) = match cache {
            Some(cache) => {
                let (k, v) = cache.append(&k, &v, &row_positions.starts)?;
                (k, v, row_positions.starts.clone())
            }
            None => (k, v, vec![0; rows]),
        };
        let span = k.dim(2)?;
        let repeat = c.heads / c.kv_heads;
        let spread = |x: Tensor| -> Result<Tensor> {
            let shape = (rows, c.kv_heads, repeat, span, c.head_dim);
            Ok(x.unsqueeze(2)?
                .broadcast_as(shape)?
                .reshape((rows, c.heads, span, c.head_dim))?
                .contiguous()?)
        };
        let (k, v) = (spread(k)?, spread(v)?);
        let scores = (q.contiguous()?.matmul(&k.t()?)?.to_dtype(DType::F32)? * c.attention_scale)?;
        let scores = match c.attention_softcap {
            Some(cap) => ((scores / cap)?.tanh()? * cap)?,
            None => scores,
        };
        let scores = scores.broadcast_add(&self.mask(&offsets, tokens, span, qkv.device())?)?;
        let weights = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
        let out = weights.matmul(&v)?.transpose(1, 2)?;
        Ok(out.reshape((rows * tokens, c.q_width()))?)
    }

    /// 0 where query t of row r (at key `offsets[r] + t`) may attend, −∞ elsewhere: `[rows, 1,
    /// tokens, span]`.
    fn mask(
        &self,
        offsets: &[usize],
        tokens: usize,
        span: usize,
        device: &Device,
    ) -> Result<Tensor> {
        let mut mask = Vec::with_capacity(offsets.len() * tokens * span);
        for offset in offsets {
            for t in 0..tokens {
                let here = offset + t;
                let low = self.kind.window.map_or(0, |w| (here + 1).saturating_sub(w));
                mask.extend((0..span).map(|j| {
                    if (low..=here).contains(&j) {
                        0.0
                    } else {
                        f32::NEG_INFINITY
                    }
                }));
            }
        }
        Ok(Tensor::from_vec(
            mask,
            (offsets.len(), 1, tokens, span),
            device,
        )?)
    }

    /// One side as `[rows, heads, tokens, head_dim]`, normed and rotated.
    fn heads_of(
        &self,
        qkv: &Tensor,
        row_positions: &RowPositions,
        side: usize,
        heads: usize,
        norm: Option<&[f32]>,
    ) -> Result<Tensor> {
        let c = self.config;
        let (rows, tokens, dim) = (row_positions.starts.len(), row_positions.tokens, c.head_dim);
        let x = match c.qkv_order {
            QkvOrder::Blocks => qkv
                .narrow(1, self.column(side, 0), heads * dim)?
                .reshape((rows, tokens, heads, dim))?,
            QkvOrder::PerHead => qkv
                .reshape((rows, tokens, heads, 3, dim))?
                .narrow(3, side, 1)?
                .squeeze(3)?,
        };
        let mut x = x.transpose(1, 2)?.contiguous()?;
        if let Some(w) = norm {
            let w = Tensor::from_slice(w, w.len(), qkv.device())?.to_dtype(x.dtype())?;
            x = candle_nn::ops::rms_norm(&x, &w, c.norm.eps as f32)?;
        }
        let Some(angles) = self
            .kind
            .rope
            .filter(|_| side < 2)
            .map(|i| &row_positions.angles[i])
        else {
            return Ok(x);
        };
        let half = c.rotary_dims / 2;
        let table = |values: &[f32]| -> Result<Tensor> {
            Ok(
                Tensor::from_slice(values, (rows, 1, tokens, half), qkv.device())?
                    .to_dtype(x.dtype())?,
            )
        };
        let (cos, sin) = (table(&angles.0)?, table(&angles.1)?);
        let head = x.narrow(3, 0, 2 * half)?;
        let (a, b) = if c.rope_interleaved {
            let pairs = head.reshape((rows, heads, tokens, half, 2))?;
            (
                pairs.narrow(4, 0, 1)?.squeeze(4)?,
                pairs.narrow(4, 1, 1)?.squeeze(4)?,
            )
        } else {
            (head.narrow(3, 0, half)?, head.narrow(3, half, half)?)
        };
        let low = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let high = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
        let rotated = if c.rope_interleaved {
            Tensor::stack(&[low, high], 4)?.reshape((rows, heads, tokens, 2 * half))?
        } else {
            Tensor::cat(&[low, high], 3)?
        };
        if 2 * half == dim {
            return Ok(rotated);
        }
        Ok(Tensor::cat(
            &[rotated, x.narrow(3, 2 * half, dim - 2 * half)?],
            3,
        )?)
    }
}
