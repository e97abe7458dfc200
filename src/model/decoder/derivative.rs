//! Derivatives of the steps between the products: norms, activations, attention, each by candle's
//! autograd on plain operations.
//!
//! The forward pass uses kernels that have no derivative (fused norms, softmax, rotary positions);
//! here each step is written again in operations that have one, in f32. Knows one step at a time,
//! never a layer. Invariant: what is differentiated is the function that the forward pass computes.

use candle_core::{D, DType, Tensor, Var};

use super::attention::Attention;
use super::ops::{self, NormWeights};
use super::positions::RowPositions;
use crate::error::{Error, Result};
use crate::model::config::{Config, NormKind, QkvOrder};

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
    Ok(found
        .to_dtype(x.dtype())?
        .reshape(x.shape())?
        .contiguous()?)
}

/// The derivative of a norm at `x` `[rows, width]`.
pub(super) fn of_norm(norm: &NormWeights, x: &Tensor, upstream: &Tensor) -> Result<Tensor> {
    let weight = Tensor::new(norm.weight(), x.device())?;
    pull_back(x, upstream, |x| match norm.kind() {
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
    pull_back(h, upstream, |h| {
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
    pull_back(qkv, upstream, |qkv| {
        let c = attention.config;
        let (rows, tokens) = (positions.starts.len(), positions.tokens);
        let q = heads(
            attention,
            qkv,
            positions,
            0,
            c.heads,
            attention.q_norm.map(NormWeights::weight),
        )?;
        let k = heads(
            attention,
            qkv,
            positions,
            1,
            c.kv_heads,
            attention.k_norm.map(NormWeights::weight),
        )?;
        let v = heads(attention, qkv, positions, 2, c.kv_heads, None)?;
        // Query heads that share a key head lie side by side: they are the rows of one product.
        let group = c.heads / c.kv_heads * tokens;
        let q = q.reshape((rows, c.kv_heads, group, c.head_dim))?;
        let scores = (q.matmul(&k.t()?.contiguous()?)? * c.attention_scale)?;
        let scores = match c.attention_softcap {
            Some(cap) => ops::softcap(&scores, cap)?,
            None => scores,
        };
        let scores = scores.reshape((rows, c.heads, tokens, tokens))?;
        let scores = scores.broadcast_add(&mask(attention, tokens, qkv)?)?;
        // A shift of all scores has no derivative, so it is a constant here.
        let most = scores.detach().max_keepdim(D::Minus1)?;
        let weights = scores.broadcast_sub(&most)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        let out = weights
            .reshape((rows, c.kv_heads, group, tokens))?
            .matmul(&v)?
            .reshape((rows, c.heads, tokens, c.head_dim))?;
        Ok(out
            .transpose(1, 2)?
            .contiguous()?
            .reshape((rows * tokens, c.q_width()))?)
    })
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
