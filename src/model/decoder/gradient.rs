//! The backward pass: which push of the residual stream makes a text likelier?
//!
//! Owns the pass through the layers above a layer and back. A product's derivative uses the stored
//! weights themselves, widened a part at a time as in the forward pass, so that no second copy of
//! them is made; the steps between are in [`super::derivative`]. Knows texts as token ids. Invariant:
//! a text's gradient does not depend on the other texts of its batch.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::Model;
use super::derivative::{
    BLOCK, HEADS_TAPE, ROW_TAPE, SCORES_HELD, of_activation, of_attention, of_norm,
};
use super::linear::{Kernel, with_slice};
use super::network::{Decoder, Layer};
use super::ops::{self, NormWeights};
use super::positions::RowPositions;
use crate::disk::human_bytes;
use crate::error::{Error, Result};
use crate::model::{Batch, HookPoint, HookSite, NoTap, Phase};
use crate::task::TaskCtx;

/// Padded tokens of one pass at most.
const PASS_TOKENS: usize = 1024;
/// Tokens whose logits are held at a time.
const LOGIT_ROWS: usize = 128;

/// How likely a text is, and what changes that.
#[derive(Debug, Clone, PartialEq)]
pub struct TextGradient {
    /// The mean over the text's tokens but the first of ln p(token | those before it).
    pub log_likelihood: f64,
    /// Its gradient with respect to a vector that is added to the residual stream after the layer
    /// at every position, where that vector is 0.
    pub gradient: Vec<f32>,
}

/// Of a token that has a next one: its place in the residual stream, its text, the next token.
type NextToken = (u32, usize, u32);

/// What a layer computed that its derivative needs.
struct Kept {
    x: Tensor,
    qkv: Tensor,
    /// The MLP's input before its norm, and its activations' input.
    read: Tensor,
    up: Tensor,
    /// What the norms after attention and MLP read, where the family has them.
    attended: Option<Tensor>,
    mlp: Option<Tensor>,
}

impl Decoder {
    /// The gradient of each text's mean log-likelihood with respect to a push after `layer`: all
    /// layers run once, those above `layer` and the unembedding back. The texts are one batch;
    /// [`Decoder::gradient_batches`] says how many fit.
    ///
    /// # Errors
    /// [`Error::Usage`] for a layer that does not exist, for a model of which not all layers were
    /// loaded, and for a text of fewer than two tokens; [`Error::Refused`] for gradients that are
    /// not finite; [`Error::Cancelled`].
    pub fn text_gradients(
        &self,
        texts: &[Vec<u32>],
        layer: usize,
        ctx: &TaskCtx,
    ) -> Result<Vec<TextGradient>> {
        let (norm, head) = self.unembedding()?;
        if texts.iter().any(|text| text.len() < 2) {
            return Err(Error::usage(
                "a text of fewer than two tokens has no likelihood: leave it out",
            ));
        }
        let batch = Batch {
            rows: texts.to_vec(),
            samples: Vec::new(),
        };
        let positions = self.positions_of(&batch, None)?;
        let mut x = self.after(&batch, &positions, layer, ctx)?;
        let above = layer + 1..self.blocks.len();
        let mut kept = Vec::with_capacity(above.len());
        for i in above.clone() {
            let block = &self.blocks[i];
            ctx.check()?;
            if self.spread.crosses(i, &above) {
                x = self.spread.carry(x, i)?;
            }
            let (out, all) = self.layer_forward(block, x, &positions)?;
            kept.push(all);
            x = out;
        }
        let (likelihoods, mut d) = self.likelihood((norm, head), &x, texts, &positions, ctx)?;
        drop(x);
        for i in above.rev() {
            let block = &self.blocks[i];
            ctx.check()?;
            d = self.spread.carry(d, i)?;
            let Some(all) = kept.pop() else { break };
            d = self.layer_backward(block, &all, &d, &positions)?;
        }
        let width = self.config.d_model;
        let d = d.reshape((texts.len(), positions.tokens, width))?;
        let gradients: Vec<Vec<f32>> = d.to_dtype(DType::F32)?.sum(1)?.to_vec2()?;
        if gradients.iter().flatten().any(|v| !v.is_finite()) {
            return Err(Error::refused(
                "the gradient of a text is NaN or infinite: check the weights, or compute in f32 (--dtype f32, or --device cpu)",
            ));
        }
        let both = likelihoods.into_iter().zip(gradients);
        Ok(both
            .map(|(log_likelihood, gradient)| TextGradient {
                log_likelihood,
                gradient,
            })
            .collect())
    }

    /// Divides texts of these lengths, in their order, into batches that memory holds.
    ///
    /// # Errors
    /// [`Error::Refused`] with the bytes where a single text does not fit; what reading the free
    /// memory returns.
    pub fn gradient_batches(&self, lengths: &[usize], layer: usize) -> Result<Vec<Range<usize>>> {
        self.batches_in(lengths, layer, self.memory_free()?)
    }

    fn batches_in(
        &self,
        lengths: &[usize],
        layer: usize,
        free: Option<u64>,
    ) -> Result<Vec<Range<usize>>> {
        let free = free.unwrap_or(u64::MAX);
        let mut out: Vec<Range<usize>> = Vec::new();
        for (i, &tokens) in lengths.iter().enumerate() {
            let need = self.gradient_bytes(layer, 1, tokens);
            if need > free {
                let fits = (1..tokens)
                    .rev()
                    .find(|&t| self.gradient_bytes(layer, 1, t) <= free);
                let remedy = fits.map_or_else(
                    || "free memory, or take a later layer or a smaller model".to_owned(),
                    |t| format!("texts of at most {t} tokens would fit: collect shorter ones, take a later layer, or free memory"),
                );
                return Err(Error::refused(format!(
                    "the gradient of a text of {tokens} tokens through the layers above layer {layer} takes {} beside the model, and {} is free: {remedy}",
                    human_bytes(need),
                    human_bytes(free),
                )));
            }
            if let Some(last) = out.last_mut() {
                let longest = lengths[last.start..=i].iter().copied().max().unwrap_or(0);
                let rows = last.len() + 1;
                if rows * longest <= PASS_TOKENS
                    && self.gradient_bytes(layer, rows, longest) <= free
                {
                    last.end = i + 1;
                    continue;
                }
            }
            out.push(i..i + 1);
        }
        Ok(out)
    }

    /// Bytes of a pass beside the weights: what each layer keeps, the step that holds most while its
    /// derivative is found, or the logits at hand, what flows between the steps, and one matrix that is
    /// widened.
    fn gradient_bytes(&self, layer: usize, rows: usize, tokens: usize) -> u64 {
        let c = &self.config;
        let width = self.dtype().size_in_bytes();
        let count = rows * tokens;
        let qkv = c.q_width() + 2 * c.kv_width();
        let up = if c.gated { 2 * c.d_mlp } else { c.d_mlp };
        let norms = if c.post_norms { 2 * c.d_model } else { 0 };
        let above = c.layers.len().saturating_sub(layer + 1);
        let kept = above * count * (2 * c.d_model + qkv + up + norms) * width;
        // Steps that take rows one by one are taken in blocks, with their input and output beside.
        let by_rows = |n: usize| 4 * (ROW_TAPE * (count * n).min(BLOCK.max(n)) + 2 * count * n);
        let scores = SCORES_HELD[usize::from(c.attention_softcap.is_some())];
        let scores = scores * c.heads * count * tokens + 4 * count * qkv;
        let attention = 4 * scores.max(HEADS_TAPE * count * qkv);
        let step = by_rows(up).max(by_rows(c.d_model)).max(attention);
        let flow = 4 * 12 * count * c.d_model;
        let logits = 4 * 3 * count.min(LOGIT_ROWS) * c.vocab;
        (kept + flow + step.max(logits) + self.widened_bytes(width)) as u64
    }

    /// Bytes of the weights that are widened at a time.
    fn widened_bytes(&self, width: usize) -> usize {
        match self.device() {
            Device::Cpu => 16 << 20,
            _ => self.config.d_model * self.config.d_mlp.max(self.config.vocab) * width,
        }
    }

    /// The residual stream after `layer`.
    fn after(
        &self,
        batch: &Batch,
        positions: &RowPositions,
        layer: usize,
        ctx: &TaskCtx,
    ) -> Result<Tensor> {
        self.width(HookPoint {
            layer,
            site: HookSite::ResidPost,
        })?;
        let x = self.embed(batch, positions)?;
        let samples: Vec<usize> = (0..batch.rows.len()).collect();
        let mut tap = NoTap;
        let mut state = self.begin(positions, &samples, Phase::Prompt, false, &mut tap, None)?;
        self.layers(x, 0..layer + 1, &mut state, None, ctx)?
            .ok_or_else(|| Error::refused("the pass ended before the layer"))
    }

    fn unembedding(&self) -> Result<(&NormWeights, &super::linear::Linear)> {
        let parts = self.final_norm.as_ref().zip(self.head.as_ref());
        parts.ok_or_else(|| {
            let (have, all) = (self.blocks.len(), self.config.layers.len());
            Error::usage(format!(
                "a text's likelihood needs all {all} layers, only {have} were loaded"
            ))
        })
    }

    /// A layer without taps, with what its derivative needs.
    fn layer_forward(
        &self,
        layer: &Layer,
        x: Tensor,
        positions: &RowPositions,
    ) -> Result<(Tensor, Kept)> {
        let kernel = Kernel::Dequantised;
        let qkv = layer.qkv.apply(&layer.attn_norm.apply(&x)?, kernel)?;
        let attention = self.attention(layer);
        let a = if self.is_mapped() {
            attention.on_cpu(&qkv, positions, None)?
        } else {
            attention.on_device(&qkv, positions, None)?
        };
        let a = layer.out.apply(&a, kernel)?;
        let (a, attended) = match &layer.post_attn {
            Some(norm) => (norm.apply(&a)?, Some(a)),
            None => (a, None),
        };
        let middle = ops::add(&x, &a, self.is_mapped())?;
        let read = if self.config.parallel {
            x.clone()
        } else {
            middle.clone()
        };
        let up = layer.up.apply(&layer.mlp_norm.apply(&read)?, kernel)?;
        let c = &self.config;
        let h = ops::activate(&up, c.activation, c.gated, c.d_mlp, self.is_mapped())?;
        let m = layer.down.apply(&h, kernel)?;
        let (m, mlp) = match &layer.post_mlp {
            Some(norm) => (norm.apply(&m)?, Some(m)),
            None => (m, None),
        };
        let out = ops::add(&middle, &m, self.is_mapped())?;
        let kept = Kept {
            x,
            qkv,
            read,
            up,
            attended,
            mlp,
        };
        Ok((out, kept))
    }

    /// The derivative with respect to a layer's input, from that with respect to its output.
    fn layer_backward(
        &self,
        layer: &Layer,
        kept: &Kept,
        d: &Tensor,
        positions: &RowPositions,
    ) -> Result<Tensor> {
        let through = |norm: &Option<NormWeights>, at: &Option<Tensor>, d: &Tensor| match (norm, at)
        {
            (Some(norm), Some(at)) => of_norm(norm, at, d),
            _ => Ok(d.clone()),
        };
        let m = through(&layer.post_mlp, &kept.mlp, d)?;
        let h = of_activation(&self.config, &kept.up, &layer.down.transposed(&m)?)?;
        let read = of_norm(&layer.mlp_norm, &kept.read, &layer.up.transposed(&h)?)?;
        // Where attention and MLP read the same stream, what the MLP read is the layer's input.
        let (middle, beside) = if self.config.parallel {
            (d.clone(), Some(read))
        } else {
            ((d + read)?, None)
        };
        let a = through(&layer.post_attn, &kept.attended, &middle)?;
        let a = layer.out.transposed(&a)?;
        let qkv = of_attention(&self.attention(layer), &kept.qkv, positions, &a)?;
        let x = of_norm(&layer.attn_norm, &kept.x, &layer.qkv.transposed(&qkv)?)?;
        let x = (middle + x)?;
        Ok(match beside {
            Some(read) => (x + read)?,
            None => x,
        })
    }

    /// The mean log-likelihood of each text, and its derivative with respect to the residual stream
    /// after the last layer.
    fn likelihood(
        &self,
        (norm, head): (&NormWeights, &super::linear::Linear),
        x: &Tensor,
        texts: &[Vec<u32>],
        positions: &RowPositions,
        ctx: &TaskCtx,
    ) -> Result<(Vec<f64>, Tensor)> {
        let places: Vec<NextToken> = texts
            .iter()
            .enumerate()
            .flat_map(|(r, text)| {
                let first = r * positions.tokens;
                (0..text.len() - 1).map(move |t| ((first + t) as u32, r, text[t + 1]))
            })
            .collect();
        let mut sums = vec![0.0; texts.len()];
        let mut parts = Vec::new();
        for places in places.chunks(LOGIT_ROWS) {
            ctx.check()?;
            let ids: Vec<u32> = places.iter().map(|p| p.0).collect();
            let ids = Tensor::new(ids, x.device())?;
            let selected = x.index_select(&ids, 0)?;
            let logits = head.apply(&norm.apply(&selected)?, Kernel::Dequantised)?;
            let logits = logits.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
            let (each, d) = with_slice(&logits, |logits| {
                self.next_tokens(logits, places, |text| 1.0 / (texts[text].len() - 1) as f64)
            })?;
            for (&(_, text, _), likelihood) in places.iter().zip(each) {
                sums[text] += likelihood;
            }
            let d = Tensor::from_vec(d, logits.shape(), &Device::Cpu)?;
            let d = d.to_device(x.device())?.to_dtype(x.dtype())?;
            parts.push((ids, of_norm(norm, &selected, &head.transposed(&d)?)?));
        }
        let mut out = x.zeros_like()?;
        for (ids, d) in parts {
            out = out.index_add(&ids, &d, 0)?;
        }
        Ok((sums, out))
    }

    /// Of each row of logits weight · ln p(next token), and its derivative with respect to the
    /// logits: weight · (1 − p) at the next token, −weight · p at the others, through the soft-cap.
    fn next_tokens(
        &self,
        logits: &[f32],
        places: &[NextToken],
        weight: impl Fn(usize) -> f64 + Sync,
    ) -> (Vec<f64>, Vec<f32>) {
        let cap = self.config.final_softcap;
        let vocab = logits.len() / places.len();
        let mut d = vec![0.0f32; logits.len()];
        let of_row = |logits: &[f32], &(_, text, next): &NextToken, d: &mut [f32]| {
            let capped = |l: f32| cap.map_or(f64::from(l), |cap| cap * (f64::from(l) / cap).tanh());
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let most = capped(most);
            let sum: f64 = logits.iter().map(|&l| (capped(l) - most).exp()).sum();
            let (norm, weight) = (most + sum.ln(), weight(text));
            for (j, (d, &l)) in d.iter_mut().zip(logits).enumerate() {
                let logit = capped(l);
                let hit = f64::from(u8::from(j == next as usize));
                let slope = cap.map_or(1.0, |cap| 1.0 - (logit / cap).powi(2));
                *d = (weight * (hit - (logit - norm).exp()) * slope) as f32;
            }
            weight * (capped(logits[next as usize]) - norm)
        };
        let rows = logits.par_chunks(vocab).zip(places);
        let each = rows.zip(d.par_chunks_mut(vocab));
        let each = each.map(|((logits, place), d)| of_row(logits, place, d));
        let each = each.collect();
        (each, d)
    }
}

impl Model {
    /// [`Decoder::text_gradients`] of the model's decoder.
    ///
    /// # Errors
    /// As [`Decoder::text_gradients`].
    pub fn text_gradients(
        &self,
        texts: &[Vec<u32>],
        layer: usize,
        ctx: &TaskCtx,
    ) -> Result<Vec<TextGradient>> {
        self.decoder().text_gradients(texts, layer, ctx)
    }

    /// [`Decoder::residual_adjoint`] of rows of `d_model` values.
    ///
    /// # Errors
    /// As [`Decoder::residual_adjoint`].
    pub fn residual_adjoint(&self, hook: HookPoint, along: &[Vec<f32>]) -> Result<Vec<Vec<f32>>> {
        let shape = (along.len(), along.first().map_or(0, Vec::len));
        let along = Tensor::from_vec(along.concat(), shape, self.device())?;
        let found = self.decoder().residual_adjoint(hook, &along)?;
        Ok(found.to_dtype(DType::F32)?.to_vec2()?)
    }
}

#[cfg(test)]
mod tests;
