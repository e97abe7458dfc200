//! Whether a model computes the same in every way that it computes: with a cache and without, in a
//! batch and alone, by the kernels of generation and those of a prompt.
//!
//! Knows what is measured and what is allowed, and no words about it. Invariant: a value that is no
//! number passes no test.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::model::encoder::SentenceEncoder;
use crate::model::{Batch, BosRule, Logits, Model, NoTap, Phase};
use crate::task::TaskCtx;

/// Plain prose that every model of English has an opinion on; written for this test.
pub const PARAGRAPH: &str = "The river had risen in the night, and by morning the lower road was under water. Two men in a \
    small boat went from house to house, asking whether anyone needed bread or milk. At the school the teacher lit the \
    stove and waited, because she knew that some of the children would come in any case.";

/// Relative difference of logits up to which two ways of computing them count as equal, in f32 and
/// in half precision.
const TOLERANCE: [f64; 2] = [1e-4, 5e-2];
/// The same of the quantised kernels, which round activations to eight bits in every layer, and the
/// widened weights.
const QUANTISED_TOLERANCE: f64 = 0.2;
/// The perplexity of prose below which a model of English counts as sound.
pub const SOUND_PERPLEXITY: f64 = 100.0;

/// The largest |a − b| over the largest |b| of logits computed in two ways, and what is allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// What was found.
    pub found: f64,
    /// The least that counts as different.
    pub allowed: f64,
}

impl Difference {
    /// Whether the two ways count as equal.
    pub fn is_equal(self) -> bool {
        self.found.is_finite() && self.found < self.allowed
    }
}

/// How a model did.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfTest {
    /// The tokens that were run: the paragraph's, with BOS where the model has one, as far as the
    /// model's context goes.
    pub tokens: usize,
    /// The tokens of the paragraph alone.
    pub text_tokens: usize,
    /// Whether the tokens decode to the text that they were made of.
    pub is_text_back: bool,
    /// The number of logits of one pass.
    pub logits: usize,
    /// Whether all of them are numbers.
    pub is_finite: bool,
    /// Two passes over a cache beside one pass.
    pub cached: Difference,
    /// A batch of two texts beside each alone.
    pub batched: Difference,
    /// The kernels that generate beside those that read a prompt.
    pub generated: Difference,
    /// exp(mean −log p(next token)) of the paragraph.
    pub perplexity: f64,
}

impl SelfTest {
    /// Whether the model is one of English.
    pub fn is_sound(&self) -> bool {
        self.perplexity.is_finite() && self.perplexity < SOUND_PERPLEXITY
    }
}

/// Runs a paragraph through the model in each way.
///
/// # Errors
/// What a pass returns; [`Error::Cancelled`].
pub fn run(model: &Model, ctx: &TaskCtx) -> Result<SelfTest> {
    let text = model.tokenizer().encode(PARAGRAPH, BosRule::Never)?;
    let is_text_back = model.tokenizer().decode(&text).trim_start() == PARAGRAPH;
    let mut ids = model.tokenizer().encode(PARAGRAPH, BosRule::Auto)?;
    // A model that reads characters may not have room for all of it.
    ids.truncate(model.info().context);
    let half = ids.len() / 2;
    let last = ids.len() - 1;
    let whole = logits(model, std::slice::from_ref(&ids), ctx)?.get(0)?;
    let values: Vec<f32> = whole.flatten_all()?.to_vec1()?;

    let cached = last_logits(model, &ids, half, Phase::Prompt, ctx)?;
    let batched = logits(model, &[ids[..half].to_vec(), ids.clone()], ctx)?;
    let both = [
        difference(&batched.get(1)?, &whole)?,
        difference(
            &batched.get(0)?.narrow(0, 0, half)?,
            &whole.narrow(0, 0, half)?,
        )?,
    ];
    let batched = largest(both.into_iter());
    let generated = last_logits(model, &ids, last, Phase::Generated, ctx)?;

    let allowed = TOLERANCE[usize::from(model.info().compute_dtype != "f32")];
    let bounded = |found, allowed| Difference { found, allowed };
    Ok(SelfTest {
        tokens: ids.len(),
        text_tokens: text.len(),
        is_text_back,
        logits: values.len(),
        is_finite: values.iter().all(|v| v.is_finite()),
        cached: bounded(difference(&cached, &whole.get(last)?)?, allowed),
        batched: bounded(batched, allowed),
        generated: bounded(
            difference(&generated, &whole.get(last)?)?,
            QUANTISED_TOLERANCE,
        ),
        perplexity: perplexity(&whole, &ids)?,
    })
}

/// How a sentence encoder did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderTest {
    /// The largest difference of a value of an embedding between a text among others and alone.
    pub largest: f32,
    /// The cosine of two texts that mean alike.
    pub alike: f32,
    /// The cosine of two texts that do not.
    pub unlike: f32,
}

impl EncoderTest {
    /// Whether a text's embedding does not depend on the texts beside it.
    pub fn is_same_beside_others(&self) -> bool {
        self.largest < 1e-5
    }
}

/// Embeds two texts that mean alike and one of something else, alone and together.
///
/// # Errors
/// What [`SentenceEncoder::embed`] returns.
pub fn encoder(encoder: &SentenceEncoder, ctx: &TaskCtx) -> Result<EncoderTest> {
    const TEXTS: [&str; 3] = [
        "The boat left the harbour with the tide.",
        "A ship sailed out to sea.",
        PARAGRAPH,
    ];
    let together = encoder.embed(&TEXTS, ctx)?;
    let mut off = Vec::new();
    for (text, beside) in TEXTS.iter().zip(&together) {
        let alone = encoder.embed(&[text], ctx)?.concat();
        off.extend(alone.iter().zip(beside).map(|(a, b)| (a - b).abs()));
    }
    // Embeddings have length 1.
    let cosine = |a: usize, b: usize| -> f32 {
        let pairs = together[a].iter().zip(&together[b]);
        pairs.map(|(x, y)| x * y).sum()
    };
    Ok(EncoderTest {
        largest: largest(off.into_iter().map(f64::from)) as f32,
        alike: cosine(0, 1),
        unlike: cosine(1, 2),
    })
}

/// The logits of the last token where the first `split` tokens were read before into a cache, and
/// the others are read in `phase`.
fn last_logits(
    model: &Model,
    ids: &[u32],
    split: usize,
    phase: Phase,
    ctx: &TaskCtx,
) -> Result<Tensor> {
    let one = |ids: &[u32]| Batch {
        rows: vec![ids.to_vec()],
        samples: Vec::new(),
    };
    let mut cache = model.new_cache(1);
    model.forward(
        &one(&ids[..split]),
        Phase::Prompt,
        Some(&mut cache),
        &mut NoTap,
        Logits::None,
        ctx,
    )?;
    let logits = model.forward(
        &one(&ids[split..]),
        phase,
        Some(&mut cache),
        &mut NoTap,
        Logits::Last,
        ctx,
    )?;
    let logits = logits.ok_or_else(|| Error::refused("the model returned no logits"))?;
    Ok(logits.to_dtype(DType::F32)?.squeeze(0)?)
}

fn logits(model: &Model, rows: &[Vec<u32>], ctx: &TaskCtx) -> Result<Tensor> {
    let batch = Batch {
        rows: rows.to_vec(),
        samples: Vec::new(),
    };
    Ok(model
        .forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::All, ctx)?
        .ok_or_else(|| Error::refused("the model returned no logits"))?
        .to_dtype(DType::F32)?)
}

/// Largest |a − b| over the largest |b|.
fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b): (Vec<f32>, Vec<f32>) = (a.flatten_all()?.to_vec1()?, b.flatten_all()?.to_vec1()?);
    let scale = largest(b.iter().map(|v| f64::from(v.abs())));
    let apart = largest(a.iter().zip(&b).map(|(x, y)| f64::from((x - y).abs())));
    Ok(apart / scale)
}

/// The largest value, or NaN where one is: `f64::max` passes over it.
fn largest(mut values: impl Iterator<Item = f64>) -> f64 {
    let larger = |most: f64, v: f64| match most >= v {
        true => most,
        // Also where either is NaN, which once there stays.
        false if most.is_nan() => most,
        false => v,
    };
    values
        .next()
        .map_or(0.0, |first| values.fold(first, larger))
}

/// exp(mean −log p(next token)).
fn perplexity(logits: &Tensor, ids: &[u32]) -> Result<f64> {
    let rows: Vec<Vec<f32>> = logits.to_vec2()?;
    let losses = rows.iter().zip(&ids[1..]).map(|(row, &next)| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
        sum.ln() - f64::from(row[next as usize] - max)
    });
    let count = ids.len().saturating_sub(1).max(1);
    Ok((losses.sum::<f64>() / count as f64).exp())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_difference_that_is_not_a_number_is_no_small_one() {
        let row = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let plain = row(&[1.0, -4.0, 2.0]);
        let off = difference(&row(&[1.0, -4.0, 2.5]), &plain).unwrap();
        assert!((off - 0.125).abs() < 1e-12);
        for at in 0..3 {
            let mut values = [1.0, -4.0, 2.0];
            values[at] = f32::NAN;
            assert!(difference(&row(&values), &plain).unwrap().is_nan(), "{at}");
            let found = difference(&plain, &row(&values)).unwrap();
            let bounded = Difference {
                found,
                allowed: 0.1,
            };
            assert!(!bounded.is_equal(), "{at}");
        }
        assert!(largest([f64::NAN, 1.0].into_iter()).is_nan());
        assert!(largest([1.0, f64::NAN, 2.0].into_iter()).is_nan());
    }
}
