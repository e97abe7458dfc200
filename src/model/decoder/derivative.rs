//! Derivatives of the steps between the products: norms, activations, rotary positions, each by
//! candle's autograd on plain operations; attention by its formula.
//!
//! The forward pass uses kernels that have no derivative (fused norms, softmax, rotary positions);
//! here each step is written again in operations that have one, in f32. A tape holds many times what
//! it is of, so norms and activations are pulled back a block of rows at a time, and no tape is made
//! of attention scores. Knows one step at a time, never a layer. Invariant: what is differentiated
//! is the function that the forward pass computes.

use candle_core::{D, DType, Tensor, Var};

use super::attention::Attention;
use super::ops::{self, NormWeights};
use super::positions::RowPositions;
use crate::error::{Error, Result};
use crate::model::config::{Config, NormKind, QkvOrder};

/// Values that a tape of norms and activations is of at a time; few in the tests, whose rows are short.
pub(super) const BLOCK: usize = if cfg!(test) { 1 << 12 } else { 1 << 22 };
/// Tensors of a step's own size, in f32, that are held at once while its derivative is found. candle
/// keeps every operand of a tape to its end; on the way back three to six tensors are made at each
/// step, and derivatives of what was broadcast (a norm's weight, a mean) stay to the end at full size.
/// The longest tapes: GELU's and a layer norm's, and heads that are normed and rotated.
pub(super) const ROW_TAPE: usize = 26;
pub(super) const HEADS_TAPE: usize = 33;
/// Tensors of the size of attention scores, without a soft-cap and with one: the weights, their
/// derivative, its centred form and the product; and the soft-cap's slope.
pub(super) const SCORES_HELD: [usize; 2] = [4, 5];

/// Jᵀ·upstream of `f` at `x`, in the dtype of `x`.
fn pull_back(
    x: &Tensor,
    upstream: &Tensor,
    f: impl FnOnce(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let at = Var::from_tensor(&x.to_dtype(DType::F32)?.contiguous()?)?;
    let out = f(at.as_tensor())?;
    let upstream = upstream.to_dtype(DType::F32)?.reshape(out.shape())?;
    let grads = (out * upstream)?.sum_all()?.backward()?;
    let found = grads
        .get(&at)
        .ok_or_else(|| Error::refused("a step of the model has no derivative"))?;
    // A gradient of candle's knows how it was computed, and would keep this tape and those before it.
    let found = found.detach().to_dtype(x.dtype())?;
    Ok(found.reshape(x.shape())?.contiguous()?)
}

/// [`pull_back`] of a function of each row by itself, a block of rows at a time.
fn pull_back_rows(
    x: &Tensor,
    upstream: &Tensor,
    f: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let at_once = (BLOCK / width).max(1);
    if rows <= at_once {
        return pull_back(x, upstream, f);
    }
    let block = |from: usize| {
        let count = at_once.min(rows - from);
        let (x, upstream) = (x.narrow(0, from, count)?, upstream.narrow(0, from, count)?);
        pull_back(&x, &upstream, &f)
    };
    let blocks = (0..rows).step_by(at_once).map(block);
    Ok(Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 0)?)
}

/// The derivative of a norm at `x` `[rows, width]`.
pub(super) fn of_norm(norm: &NormWeights, x: &Tensor, upstream: &Tensor) -> Result<Tensor> {
    let weight = Tensor::new(norm.weight(), x.device())?;
    pull_back_rows(x, upstream, |x| match norm.kind() {
        NormKind::Rms => rms(x, &weight, norm.eps()),
        NormKind::Layer => {
            let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
            rms(&centred, &weight, norm.eps())
        }
    })
}

/// x / sqrt(mean x² + eps) · w along the last dimension. The bias of a norm has no derivative.
fn rms(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let size = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    Ok(x.broadcast_div(&size)?.broadcast_mul(weight)?)
}

/// The derivative of the MLP's activation at `h` `[rows, gate | up]`.
pub(super) fn of_activation(config: &Config, h: &Tensor, upstream: &Tensor) -> Result<Tensor> {
    pull_back_rows(h, upstream, |h| {
        ops::activate(h, config.activation, config.gated, config.d_mlp, false)
    })
}

/// The derivative of attention at the fused projection `qkv` `[rows * tokens, q | k | v]`, where the
/// rows begin at position 0.
pub(super) fn of_attention(
    attention: &Attention<'_>,
    qkv: &Tensor,
    positions: &RowPositions,
    upstream: &Tensor,
) -> Result<Tensor> {
    let c = attention.config;
    let norms = [attention.q_norm, attention.k_norm, None];
    let sides = |qkv: &Tensor| -> Result<[Tensor; 3]> {
        let of = |side: usize, count: usize| {
            let norm = norms[side].map(NormWeights::weight);
            heads(attention, qkv, positions, side, count, norm)
        };
        Ok([of(0, c.heads)?, of(1, c.kv_heads)?, of(2, c.kv_heads)?])
    };
    // The sides one after another, so that norms and rotary positions are pulled back at once.
    let flat = |sides: [Tensor; 3]| -> Result<Tensor> {
        let [q, k, v] = sides;
        let all = [q.flatten_all()?, k.flatten_all()?, v.flatten_all()?];
        Ok(Tensor::cat(&all, 0)?)
    };
    let of_sides = {
        let sides = sides(&qkv.to_dtype(DType::F32)?)?;
        flat(of_products(attention, &sides, positions, upstream)?)?
    };
    pull_back(qkv, &of_sides, |qkv| flat(sides(qkv)?))
}

/// The derivative of softmax(scale · q kᵀ) v with respect to q, k and v, by its formula: with weights P
/// and the derivative D of P, that of the scores is P ∘ (D − rowsum(P ∘ D)). A tape would keep some
/// fifteen tensors of the scores' size; this keeps four.
fn of_products(
    attention: &Attention<'_>,
    [q, k, v]: &[Tensor; 3],
    positions: &RowPositions,
    upstream: &Tensor,
) -> Result<[Tensor; 3]> {
    let c = attention.config;
    let (rows, tokens) = (positions.starts.len(), positions.tokens);
    // Query heads that share a key head lie side by side: they are the rows of one product.
    let shape = (rows, c.kv_heads, c.heads / c.kv_heads * tokens, c.head_dim);
    let q = q.reshape(shape)?;
    let upstream = upstream
        .to_dtype(DType::F32)?
        .reshape((rows, tokens, c.heads, c.head_dim))?
        .transpose(1, 2)?
        .reshape(shape)?;
    let (weights, slope) = weights(attention, &q, k, tokens)?;
    let dv = weights.t()?.matmul(&upstream)?;
    let of_scores = {
        let d = upstream.matmul(&v.t()?)?;
        let along = (&d * &weights)?.sum_keepdim(D::Minus1)?;
        (d.broadcast_sub(&along)? * weights)?
    };
    let of_scores = match slope {
        Some(slope) => (of_scores * slope)?,
        None => of_scores,
    };
    let dq = (of_scores.matmul(k)? * c.attention_scale)?;
    let dk = (of_scores.t()?.matmul(&q)? * c.attention_scale)?;
    Ok([dq, dk, dv])
}

/// Attention weights `[rows, kv_heads, heads / kv_heads * tokens, tokens]`, and the derivative of the
/// soft-cap on the scores where there is one.
fn weights(
    attention: &Attention<'_>,
    q: &Tensor,
    k: &Tensor,
    tokens: usize,
) -> Result<(Tensor, Option<Tensor>)> {
    let c = attention.config;
    let scores = (q.matmul(&k.t()?)? * c.attention_scale)?;
    let (scores, slope) = match c.attention_softcap {
        Some(cap) => {
            let bent = (scores / cap)?.tanh()?;
            let slope = bent.sqr()?.affine(-1.0, 1.0)?;
            ((bent * cap)?, Some(slope))
        }
        None => (scores, None),
    };
    let shape = scores.shape().clone();
    let apart = scores.reshape((q.dim(0)?, c.heads, tokens, tokens))?;
    drop(scores);
    let masked = apart.broadcast_add(&mask(attention, tokens, q)?)?;
    drop(apart);
    let weights = candle_nn::ops::softmax_last_dim(&masked)?;
    Ok((weights.reshape(shape)?, slope))
}

/// 0 where query t may attend to key j, −∞ elsewhere: `[tokens, tokens]`.
fn mask(attention: &Attention<'_>, tokens: usize, like: &Tensor) -> Result<Tensor> {
    let mut mask = vec![f32::NEG_INFINITY; tokens * tokens];
    for (t, row) in mask.chunks_exact_mut(tokens).enumerate() {
        let window = attention.kind.window;
        let low = window.map_or(0, |w| (t + 1).saturating_sub(w));
        row[low..=t].fill(0.0);
    }
    Ok(Tensor::from_vec(mask, (tokens, tokens), like.device())?)
}

/// One side as `[rows, heads, tokens, head_dim]`, normed and rotated.
fn heads(
    attention: &Attention<'_>,
    qkv: &Tensor,
    positions: &RowPositions,
    side: usize,
    heads: usize,
    norm: Option<&[f32]>,
) -> Result<Tensor> {
    let c = attention.config;
    let (rows, tokens, dim) = (positions.starts.len(), positions.tokens, c.head_dim);
    let x = match c.qkv_order {
        QkvOrder::Blocks => qkv
            .narrow(1, attention.column(side, 0), heads * dim)?
            .reshape((rows, tokens, heads, dim))?,
        QkvOrder::PerHead => qkv
            .reshape((rows, tokens, heads, 3, dim))?
            .narrow(3, side, 1)?
            .squeeze(3)?,
    };
    let mut x = x.transpose(1, 2)?.contiguous()?;
    if let Some(weight) = norm {
        x = rms(&x, &Tensor::new(weight, qkv.device())?, c.norm.eps)?;
    }
    let rope = attention.kind.rope.filter(|_| side < 2);
    let Some((cos, sin)) = rope.map(|i| &positions.angles[i]) else {
        return Ok(x);
    };
    let half = c.rotary_dims / 2;
    let table = |v: &[f32]| Tensor::from_slice(v, (rows, 1, tokens, half), qkv.device());
    let (cos, sin) = (table(cos)?, table(sin)?);
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
    let rest = x.narrow(3, 2 * half, dim - 2 * half)?;
    Ok(Tensor::cat(&[rotated, rest], 3)?)
}
