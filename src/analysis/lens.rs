//! The logit lens of features and neurons, and features on new text: the only module of `analysis`
//! that sees a model.
//!
//! Invariant: new text is run in the same way as when activations are collected (the same BOS rule,
//! without the row of BOS).

use candle_core::{DType, Tensor};
use rayon::prelude::*;

use super::{ScoredToken, Trace, TraceFeature};
use crate::activations::Block;
use crate::error::{Error, Result};
use crate::factor::{Coding, Factors, SparseColumns};
use crate::matrix::vector::{dot, norm, squared_norm};
use crate::model::likelihood::strongest;
use crate::model::{Batch, BosRule, HookPoint, Logits, Model, Pass, Phase, Tap, Tokenizer, host};
use crate::pieces;
use crate::task::{Progress, TaskCtx};

/// The largest number of logits in memory at a time (32 MiB as f32).
const LENS_VALUES: usize = 8 << 20;
/// A feature fires on a text if it exceeds this share of the largest coefficient in the text.
const FIRING_SHARE: f32 = 1e-3;

/// The `count` tokens of the largest and of the smallest logits of each direction (of the hook's
/// width), by the logit lens of the direction at unit norm (`src/guide/method.md`, section 3). A
/// direction of zeros has none.
///
/// # Errors
/// [`Error::Usage`] for a direction of another width; what the model returns.
pub fn promoted_tokens(
    model: &Model,
    hook: HookPoint,
    directions: &[Vec<f32>],
    count: usize,
) -> Result<Vec<(Vec<ScoredToken>, Vec<ScoredToken>)>> {
    let width = model.width(hook)?;
    if let Some(wrong) = directions.iter().find(|d| d.len() != width) {
        let given = wrong.len();
        return Err(Error::usage(format!(
            "a direction has {given} values, but {hook} is {width} wide: was it fitted on another model?"
        )));
    }
    let mut out = Vec::with_capacity(directions.len());
    for chunk in directions.chunks((LENS_VALUES / model.info().vocab.max(1)).max(1)) {
        let norms: Vec<f32> = chunk.iter().map(|d| norm(d) as f32).collect();
        let unit: Vec<f32> = chunk
            .iter()
            .zip(&norms)
            .flat_map(|(d, &n)| d.iter().map(move |v| if n > 0.0 { v / n } else { 0.0 }))
            .collect();
        let unit = Tensor::from_vec(unit, (chunk.len(), width), model.device())?;
        let logits = model.logit_lens(&model.residual_direction(hook, &unit)?)?;
        let logits = logits.to_dtype(DType::F32)?;
        // A device returns only the extreme logits. It does not sort NaN, so rows with NaN are read here.
        if !model.decoder().is_mapped() && host::all_finite(&logits)? {
            let read = strongest_tokens(&logits, count, model.tokenizer())?;
            let named = read.into_iter().zip(&norms);
            out.extend(
                named.map(|(read, &norm)| if norm > 0.0 { read } else { Default::default() }),
            );
            continue;
        }
        let logits = host::rows(&logits)?;
        let read = |(row, &norm): (&Vec<f32>, &f32)| match norm > 0.0 {
            true => extreme_tokens(row, count, model.tokenizer()),
            false => (Vec::new(), Vec::new()),
        };
        out.par_extend(logits.par_iter().zip(&norms).map(read));
    }
    Ok(out)
}

/// Tokens by strength, the largest value first, and the smallest first.
type Extremes = (Vec<ScoredToken>, Vec<ScoredToken>);

/// The [`extreme_tokens`] of each row of `[rows, vocab]`, selected on the device that holds them.
fn strongest_tokens(logits: &Tensor, count: usize, tokenizer: &Tokenizer) -> Result<Vec<Extremes>> {
    let known = logits.dim(1)?.min(tokenizer.vocab_size());
    let logits = logits.narrow(1, 0, known)?.contiguous()?;
    let (top, bottom) = (
        strongest(&logits, count)?,
        strongest(&logits.neg()?, count)?,
    );
    let named = |found: Vec<(u32, f32)>, sign: f32| {
        let token = |(id, value): (u32, f32)| ScoredToken {
            id,
            token: tokenizer.piece(id),
            value: sign * value,
        };
        found.into_iter().map(token).collect()
    };
    let both = top.into_iter().zip(bottom);
    Ok(both
        .map(|(top, bottom)| (named(top, 1.0), named(bottom, -1.0)))
        .collect())
}

/// The `count` largest values, largest first, and the `count` smallest, smallest first, as tokens.
/// Ids beyond the tokenizer's vocabulary (padding of the embedding matrix) are left out.
pub(crate) fn extreme_tokens(
    values: &[f32],
    count: usize,
    tokenizer: &Tokenizer,
) -> (Vec<ScoredToken>, Vec<ScoredToken>) {
    let values = &values[..values.len().min(tokenizer.vocab_size())];
    let (top, bottom) = extreme_ids(values, count);
    let named = |ids: Vec<u32>| {
        ids.into_iter()
            .map(|id| ScoredToken {
                id,
                token: tokenizer.piece(id),
                value: values[id as usize],
            })
            .collect()
    };
    (named(top), named(bottom))
}

/// The ids of the `count` largest and of the `count` smallest values, by partial selection; of
/// equal values the lower id comes first. NaN is left out.
fn extreme_ids(values: &[f32], count: usize) -> (Vec<u32>, Vec<u32>) {
    let mut ids: Vec<u32> = (0..values.len() as u32)
        .filter(|&id| !values[id as usize].is_nan())
        .collect();
    let mut strongest = |sign: f32| {
        let order = |a: &u32, b: &u32| {
            (sign * values[*b as usize])
                .total_cmp(&(sign * values[*a as usize]))
                .then(a.cmp(b))
        };
        let count = count.min(ids.len());
        if count < ids.len() {
            ids.select_nth_unstable_by(count, order);
        }
        let mut best = ids[..count].to_vec();
        best.sort_unstable_by(order);
        best
    };
    (strongest(1.0), strongest(-1.0))
}

/// A function that computes how strongly rows of activations express each direction: `[rows][k]`,
/// row-major.
pub type Encode<'a> = dyn Fn(&Block<'_>, &TaskCtx) -> Result<Vec<f32>> + 'a;

/// Finds the features that fire on `text`. A text longer than the model's context is read in
/// windows, as collecting does; a text without tokens gives an empty trace.
///
/// # Errors
/// [`Error::Usage`] for a fit of another width; what the model and `encode` return;
/// [`Error::Cancelled`].
pub fn trace(
    model: &Model,
    hook: HookPoint,
    encode: &Encode<'_>,
    factors: &Factors,
    text: &str,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Trace> {
    let (width, fitted) = (model.width(hook)?, factors.features.rows);
    if width != fitted {
        return Err(Error::usage(format!(
            "the fit has {fitted} neurons, but {hook} of this model is {width} wide: open the study's own model"
        )));
    }
    let (ids, activations) = hook_activations(model, hook, text, bos, ctx)?;
    let block = Block {
        rows: ids.len(),
        cols: width,
        data: activations.into(),
    };
    let coefficients = if ids.is_empty() {
        Vec::new()
    } else {
        encode(&block, ctx)?
    };
    let tokens: Vec<String> = ids.iter().map(|&id| model.tokenizer().piece(id)).collect();
    Ok(build_trace(
        pieces::join_characters(&tokens),
        &factors.features,
        &factors.coding,
        &block,
        &coefficients,
    ))
}

/// How strongly each text expresses a direction of the hook's width: the largest cosine between a
/// token's activations and the direction, 0 without tokens.
///
/// # Errors
/// [`Error::Usage`] for a direction of another width; what the model returns.
pub fn best_cosines(
    model: &Model,
    hook: HookPoint,
    direction: &[f32],
    texts: &[String],
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Vec<f64>> {
    let width = model.width(hook)?;
    if direction.len() != width {
        let given = direction.len();
        return Err(Error::usage(format!(
            "a direction has {given} values, but {hook} of this model is {width} wide"
        )));
    }
    let mut out = Vec::with_capacity(texts.len());
    for text in texts {
        let rows = text_rows(model, hook, text, bos, ctx)?;
        out.push(best_cosine(&rows, direction));
    }
    Ok(out)
}

/// The largest cosine between a row (of the direction's width) and the direction; 0 without rows.
pub fn best_cosine(rows: &[f32], direction: &[f32]) -> f64 {
    let cosines = rows
        .chunks_exact(direction.len().max(1))
        .map(|row| cosine(row, direction));
    cosines.reduce(f64::max).unwrap_or(0.0)
}

/// The hook's activations at the tokens of a text, BOS left out: `[tokens][width]`.
///
/// # Errors
/// What the model returns.
pub fn text_rows(
    model: &Model,
    hook: HookPoint,
    text: &str,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Vec<f32>> {
    Ok(hook_activations(model, hook, text, bos, ctx)?.1)
}

/// The cosine of two vectors, computed in f64; 0 if either is all zeros.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let norms = (squared_norm(a) * squared_norm(b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

/// The token ids of a text, BOS left out, and the hook's activations at them, `[tokens][width]`.
fn hook_activations(
    model: &Model,
    hook: HookPoint,
    text: &str,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<(Vec<u32>, Vec<f32>)> {
    let width = model.width(hook)?;
    let ids = model.tokenizer().encode(text, bos)?;
    let (lead, ids) = match (ids.first(), model.tokenizer().bos()) {
        (Some(&first), Some(bos)) if first == bos => ids.split_at(1),
        _ => ids.split_at(0),
    };
    let mut activations = Vec::with_capacity(ids.len() * width);
    let windows = windows(ids, model.info().context.saturating_sub(lead.len()));
    for (i, window) in windows.iter().enumerate() {
        let stage = match windows.len() {
            1 => "reading the text".to_owned(),
            all => format!(
                "reading the text, longer than the context, in window {} of {all}",
                i + 1
            ),
        };
        ctx.checkpoint(Progress::new(
            stage,
            (i + 1) as u64,
            windows.len() as u64,
            "windows",
        ))?;
        let row = [lead, window].concat();
        let mut tap = CaptureTap {
            hook: [hook],
            lead: lead.len(),
            rows: Vec::new(),
        };
        let batch = Batch {
            rows: vec![row],
            samples: vec![0],
        };
        model.forward(&batch, Phase::Prompt, None, &mut tap, Logits::None, ctx)?;
        activations.append(&mut tap.rows);
    }
    Ok((ids.to_vec(), activations))
}

/// The cosines of every two directions (of the hook's width) after they are mapped to the residual
/// stream, row-major (`src/guide/method.md`, section 3).
///
/// # Errors
/// What the model returns.
pub fn residual_cosines(
    model: &Model,
    hook: HookPoint,
    directions: &[Vec<f32>],
) -> Result<Vec<f32>> {
    let (count, width) = (directions.len(), model.width(hook)?);
    let flat: Vec<f32> = directions.iter().flatten().copied().collect();
    let stacked = Tensor::from_vec(flat, (count, width), model.device())?;
    let residual = host::rows(&model.residual_direction(hook, &stacked)?)?;
    Ok(super::compare::cosines(
        &residual.iter().map(Vec::as_slice).collect::<Vec<_>>(),
    ))
}

/// Divides ids into windows of at most `length` (at least 1) tokens.
fn windows(ids: &[u32], length: usize) -> Vec<&[u32]> {
    ids.chunks(length.max(1)).collect()
}

/// A tap that captures the activations of a batch of one text at one hook, without those of the first
/// `lead` tokens.
struct CaptureTap {
    hook: [HookPoint; 1],
    lead: usize,
    rows: Vec<f32>,
}

impl Tap for CaptureTap {
    fn hooks(&self) -> &[HookPoint] {
        &self.hook
    }

    fn intercept(&mut self, _: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        let real = x.narrow(1, self.lead, x.dim(1)? - self.lead)?;
        self.rows = host::values(&real.flatten_all()?)?;
        Ok(None)
    }
}

/// Builds a trace from activations and their coefficients (row-major `[rows][k]`).
fn build_trace(
    tokens: Vec<String>,
    features: &SparseColumns,
    coding: &Coding,
    block: &Block<'_>,
    coefficients: &[f32],
) -> Trace {
    let k = features.columns();
    let maximum = |id: usize| {
        (0..block.rows)
            .map(|r| coefficients[r * k + id])
            .fold(0f32, f32::max)
    };
    let maxima: Vec<f32> = (0..k).map(maximum).collect();
    let threshold = FIRING_SHARE * maxima.iter().copied().fold(0f32, f32::max);
    let mut firing: Vec<usize> = (0..k).filter(|&id| maxima[id] > threshold).collect();
    firing.sort_by(|&a, &b| maxima[b].total_cmp(&maxima[a]).then(a.cmp(&b)));
    let values = |id: usize| (0..block.rows).map(|r| coefficients[r * k + id]).collect();
    Trace {
        tokens,
        features: firing
            .into_iter()
            .map(|id| TraceFeature {
                id,
                values: values(id),
            })
            .collect(),
        unexplained: (0..block.rows)
            .map(|r| {
                unexplained(
                    features,
                    coding,
                    block.row(r),
                    &coefficients[r * k..(r + 1) * k],
                )
            })
            .collect(),
    }
}

/// ‖a − Zy‖ / ‖a‖ in f64 (a − c − Zy for a fit with centre c); 0 for a row of zeros.
fn unexplained(
    features: &SparseColumns,
    coding: &Coding,
    row: &[f32],
    coefficients: &[f32],
) -> f32 {
    let square = squared_norm(row);
    let unexplained: f64 = coding
        .residual(features, row, coefficients)
        .iter()
        .map(|v| v * v)
        .sum();
    if square > 0.0 {
        (unexplained / square).sqrt() as f32
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests;
