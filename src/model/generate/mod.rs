//! Generating text from prompts, a batch of rows at a time.
//!
//! Owns how the next token is drawn and when its text is complete; knows nothing of what a tap does
//! to a row. Invariant: a row's draws depend on the seed and its stream alone, one uniform number a
//! token, so that a baseline and a steered row of one stream differ by their logits only.

mod device_draw;
mod sampling;
mod stream;

use candle_core::Tensor;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use rayon::prelude::*;

pub use self::sampling::Sampling;
use self::stream::StreamDecoder;
use super::{Batch, Decoder, Logits, Model, Phase, Portion, Tap, host};
use crate::error::Result;
use crate::task::TaskCtx;

/// Which arithmetic multiplies quantised weights while text is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// A pass of few rows multiplies the quantised blocks themselves: the fastest way to one text.
    Quick,
    /// The weights are always widened to f32, as they are for prompts: a text then depends on no
    /// other of its batch, and a large batch is faster.
    Widened,
}

/// One new token of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct NewToken {
    /// The row of the batch.
    pub row: usize,
    /// The id that was drawn.
    pub id: u32,
    /// The text that became complete with it (a token may end in the middle of a character: then
    /// empty).
    pub text: String,
    /// Whether the row ended with it.
    pub last: bool,
}

/// A prompt and the rows that continue it: it is read once, and its rows share what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// Token ids of the prompt, BOS included where wanted.
    pub prompt: Vec<u32>,
    /// One a row: rows of one stream of random numbers get the same draws, as a sample's baseline
    /// and steered rows do.
    pub streams: Vec<u64>,
}

/// What was generated of one row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GeneratedRow {
    /// The new text, without the token that ended it.
    pub text: String,
    /// The new tokens, the one that ended the text among them.
    pub ids: Vec<u32>,
}

/// Generates every row of `prompts`, calling `emit` for each token as it is drawn; rows end at EOS,
/// at `max_tokens` or at the model's context. They are one batch, or as many as `portion` asks for,
/// which is made smaller where a device is full. Rows are numbered through the prompts; a prompt's
/// own pass goes under the number of the first of its rows in the batch, so a tap must treat the rows
/// of one prompt alike. The same seed and stream give the same draws.
///
/// # Errors
/// Sampling that [`Sampling::check`] refuses, what [`Decoder::forward`] refuses, logits that are NaN,
/// and [`crate::Error::Cancelled`].
pub fn generate(
    model: &Model,
    prompts: &[Continuation],
    sampling: &Sampling,
    arithmetic: Arithmetic,
    portion: &mut Portion,
    tap: &mut dyn Tap,
    emit: &mut dyn FnMut(NewToken),
    ctx: &TaskCtx,
) -> Result<Vec<GeneratedRow>> {
    let tokenizer = model.tokenizer();
    let rules = TextRules {
        eos: tokenizer.eos(),
        decode: &|ids| tokenizer.decode(ids),
    };
    let generation = Generation {
        decoder: model.decoder(),
        rules,
        sampling,
        arithmetic,
        ctx,
    };
    generation.run(prompts, portion, tap, emit)
}

/// What generation needs of a tokenizer: the ids that end a text, and how ids become text.
struct TextRules<'a> {
    eos: &'a [u32],
    decode: &'a dyn Fn(&[u32]) -> String,
}

/// A row that is being generated.
struct Row<'p> {
    /// The number of its prompt.
    place: usize,
    prompt: &'p [u32],
    stream: u64,
    rng: Pcg64,
    text: StreamDecoder,
    /// The tokens that were drawn and told, those of a batch that then did not fit too.
    ids: Vec<u32>,
    /// How many of them the present batch has come to.
    at: usize,
    ended: bool,
}

impl<'p> Row<'p> {
    fn new((place, prompt): (usize, &'p [u32]), stream: u64, seed: u64) -> Self {
        Self {
            place,
            prompt,
            stream,
            rng: rng(seed, stream),
            text: StreamDecoder::after(prompt),
            ids: Vec::new(),
            at: 0,
            ended: false,
        }
    }

    /// Goes back to the prompt: tokens that were told are taken again, and not drawn anew.
    fn restart(&mut self, seed: u64) {
        self.rng = rng(seed, self.stream);
        self.text = StreamDecoder::after(self.prompt);
        self.at = 0;
    }

    /// The next token, which is `drawn` unless it was told before; with it whether it is new.
    fn next(&mut self, drawn: u32) -> (u32, bool) {
        let new = self.at == self.ids.len();
        if new {
            self.ids.push(drawn);
        }
        self.at += 1;
        (self.ids[self.at - 1], new)
    }
}

fn rng(seed: u64, stream: u64) -> Pcg64 {
    Pcg64::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// [`generate`] with a decoder and the rules of its tokenizer.
struct Generation<'a> {
    decoder: &'a Decoder,
    rules: TextRules<'a>,
    sampling: &'a Sampling,
    arithmetic: Arithmetic,
    ctx: &'a TaskCtx,
}

impl Generation<'_> {
    fn run(
        &self,
        prompts: &[Continuation],
        portion: &mut Portion,
        tap: &mut dyn Tap,
        emit: &mut dyn FnMut(NewToken),
    ) -> Result<Vec<GeneratedRow>> {
        self.sampling.check()?;
        let mut rows = Vec::new();
        for (place, of) in prompts.iter().enumerate() {
            let new = |&stream: &u64| Row::new((place, &of.prompt), stream, self.sampling.seed);
            rows.extend(of.streams.iter().map(new));
        }
        loop {
            let unfinished = (0..rows.len()).filter(|&r| !rows[r].ended);
            let batch: Vec<usize> = unfinished.take(portion.most()).collect();
            if batch.is_empty() {
                break;
            }
            if let Err(error) = self.batch(&mut rows, &batch, tap, emit) {
                let taken = (batch.iter().filter(|&&r| !rows[r].ended).count(), 1);
                portion.shrink(error, self.decoder.device(), taken, "texts")?;
            }
        }
        let made = rows.into_iter().map(|r| GeneratedRow {
            text: r.text.text,
            ids: r.ids,
        });
        Ok(made.collect())
    }

    /// Generates some rows, by their numbers, to their ends. Where it fails, those that have ended
    /// stay, and the others can be begun again.
    fn batch(
        &self,
        rows: &mut [Row<'_>],
        numbers: &[usize],
        tap: &mut dyn Tap,
        emit: &mut dyn FnMut(NewToken),
    ) -> Result<()> {
        let mut batch = Batch::default();
        // The row of the pass that holds each active row's logits and cache: its prompt's row in the
        // first pass, its own afterwards.
        let mut pass_rows = Vec::with_capacity(numbers.len());
        let mut place = None;
        for &r in numbers {
            rows[r].restart(self.sampling.seed);
            if place != Some(rows[r].place) {
                place = Some(rows[r].place);
                batch.rows.push(rows[r].prompt.to_vec());
                batch.samples.push(r);
            }
            pass_rows.push(batch.rows.len() - 1);
        }
        let mut active = numbers.to_vec();
        let cache = self.decoder.new_cache(batch.rows.len());
        let mut cache = if self.arithmetic == Arithmetic::Widened {
            cache.widened()
        } else {
            cache
        };
        let mut phase = Phase::Prompt;
        while !active.is_empty() {
            let held = Some(&mut cache);
            let logits =
                (self.decoder).forward(&batch, phase, held, tap, Logits::Last, self.ctx)?;
            let Some(logits) = logits else { break };
            let uniforms: Vec<f64> = active.iter().map(|&r| rows[r].rng.random()).collect();
            let drawn = draw(self.decoder, &logits, &pass_rows, self.sampling, &uniforms)?;
            let mut unfinished = Vec::new();
            for (slot, ((&r, &at), &id)) in active.iter().zip(&pass_rows).zip(&drawn).enumerate() {
                let full = cache.lengths()[at] + 1 >= self.decoder.config().context;
                if !self.take(&mut rows[r], r, id, full, emit) {
                    unfinished.push(slot);
                }
            }
            let kept: Vec<usize> = unfinished.iter().map(|&slot| pass_rows[slot]).collect();
            let unchanged = kept.iter().copied().eq(0..cache.lengths().len());
            if phase == Phase::Prompt && !unchanged {
                cache = cache.select(&kept)?;
            } else if phase == Phase::Generated && unfinished.len() < active.len() {
                cache.retain_rows(&unfinished)?;
            }
            active = unfinished.iter().map(|&slot| active[slot]).collect();
            pass_rows = (0..active.len()).collect();
            batch = Batch {
                rows: (active.iter())
                    .map(|&r| rows[r].ids[rows[r].at - 1..rows[r].at].to_vec())
                    .collect(),
                samples: active.clone(),
            };
            phase = Phase::Generated;
        }
        Ok(())
    }

    /// Gives row `r` its next token; whether it ends there. `full`: the context holds no more.
    fn take(
        &self,
        row: &mut Row<'_>,
        r: usize,
        drawn: u32,
        full: bool,
        emit: &mut dyn FnMut(NewToken),
    ) -> bool {
        let (id, new) = row.next(drawn);
        let ended = self.rules.eos.contains(&id);
        row.ended = ended || full || row.at >= self.sampling.max_tokens;
        let text = if ended {
            row.text.flush(self.rules.decode)
        } else {
            row.text.push(id, row.ended, self.rules.decode)
        };
        if new {
            emit(NewToken {
                row: r,
                id,
                text,
                last: row.ended,
            });
        }
        row.ended
    }
}

/// The ids of the next tokens, from the logits of a pass whose row `pass_rows[i]` is that of uniform
/// number i.
fn draw(
    decoder: &Decoder,
    logits: &Tensor,
    pass_rows: &[usize],
    sampling: &Sampling,
    uniforms: &[f64],
) -> Result<Vec<u32>> {
    if !decoder.is_mapped() {
        if pass_rows.iter().copied().eq(0..logits.dim(0)?) {
            return device_draw::draw(logits, sampling, uniforms);
        }
        let rows: Vec<u32> = pass_rows.iter().map(|&r| r as u32).collect();
        let logits = logits.index_select(&Tensor::new(rows, logits.device())?, 0)?;
        return device_draw::draw(&logits, sampling, uniforms);
    }
    let logits = host::rows(logits)?;
    // A draw sorts the whole vocabulary, which is enough work for a thread of its own.
    (pass_rows.par_iter().zip(uniforms))
        .map(|(&at, &uniform)| sampling.draw(&logits[at], uniform))
        .collect()
}

#[cfg(test)]
mod tests;
