//! Sampling and streaming.
//!
//! Owns how the next token is drawn and when its text is complete; knows nothing of what a tap does to a row.
//! Invariant: a row's draws depend on the seed and its stream alone, one uniform number a token, so that a baseline and a
//! steered row of one stream differ by their logits only.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};

use super::{Batch, Decoder, Logits, Model, Phase, Tap};
use crate::error::{Error, Result};
use crate::task::TaskCtx;

/// How tokens are drawn (defaults: method, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Keep the k likeliest; 0 keeps all.
    pub top_k: usize,
    /// Then keep the smallest set with this mass.
    pub top_p: f64,
    /// Seeds every row's draws.
    pub seed: u64,
    /// New tokens a row at most.
    pub max_tokens: usize,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 30, top_p: 0.3, seed: 42, max_tokens: 50 }
    }
}

/// One new token of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct NewToken {
    /// The row of the batch.
    pub row: usize,
    /// Its id.
    pub id: u32,
    /// The text that became complete with it (a token may end in the middle of a character: then empty).
    pub text: String,
    /// The row ended with it.
    pub last: bool,
}

/// Generates from `prompts` (one a row) as one batch, calling `emit` for each token as it is drawn; rows end at EOS, at
/// `max_tokens` or at the model's context. The same seed and row give the same draws. Returns each row's new text.
pub fn generate(
    model: &Model,
    prompts: &[Vec<u32>],
    sampling: &Sampling,
    tap: &mut dyn Tap,
    emit: &mut dyn FnMut(NewToken),
    ctx: &TaskCtx,
) -> Result<Vec<String>> {
    let streams: Vec<u64> = (0..prompts.len() as u64).collect();
    generate_streams(model, prompts, &streams, sampling, tap, emit, ctx)
}

/// [`generate`] with a stream of random numbers chosen for each row: rows of one stream get the same draws, as a sample's
/// baseline and steered rows do.
pub fn generate_streams(
    model: &Model,
    prompts: &[Vec<u32>],
    streams: &[u64],
    sampling: &Sampling,
    tap: &mut dyn Tap,
    emit: &mut dyn FnMut(NewToken),
    ctx: &TaskCtx,
) -> Result<Vec<String>> {
    let tokenizer = model.tokenizer();
    let ends = Ends { eos: tokenizer.eos(), decode: &|ids| tokenizer.decode(ids) };
    run(model.decoder(), &ends, prompts, streams, sampling, tap, emit, ctx)
}

/// What generation needs of a tokenizer.
struct Ends<'a> {
    eos: &'a [u32],
    decode: &'a dyn Fn(&[u32]) -> String,
}

/// A row under way.
struct Row {
    rng: Pcg64,
    text: Streamed,
    ids: Vec<u32>,
}

#[allow(clippy::too_many_arguments)]
fn run(
    decoder: &Decoder,
    ends: &Ends<'_>,
    prompts: &[Vec<u32>],
    streams: &[u64],
    sampling: &Sampling,
    tap: &mut dyn Tap,
    emit: &mut dyn FnMut(NewToken),
    ctx: &TaskCtx,
) -> Result<Vec<String>> {
    sampling.check()?;
    if streams.len() != prompts.len() {
        return Err(Error::usage(format!("{} streams for {} rows", streams.len(), prompts.len())));
    }
    let mut rows: Vec<Row> = prompts
        .iter()
        .zip(streams)
        .map(|(prompt, &stream)| Row {
            rng: Pcg64::seed_from_u64(sampling.seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            text: Streamed::after(prompt, ends.decode),
            ids: Vec::new(),
        })
        .collect();
    if prompts.is_empty() || sampling.max_tokens == 0 {
        return Ok(rows.into_iter().map(|r| r.text.all).collect());
    }
    let mut cache = decoder.new_cache(prompts.len());
    let mut active: Vec<usize> = (0..prompts.len()).collect();
    let mut batch = Batch { rows: prompts.to_vec(), samples: active.clone() };
    let mut phase = Phase::Prompt;
    while !active.is_empty() {
        let logits = decoder.forward(&batch, phase, Some(&mut cache), tap, Logits::Last, ctx)?;
        let Some(logits) = logits else { break };
        let logits = logits.to_vec2::<f32>()?;
        let mut kept = Vec::new();
        for (slot, (&r, logits)) in active.iter().zip(logits).enumerate() {
            let row = &mut rows[r];
            let id = sampling.draw(logits, row.rng.random::<f64>())?;
            row.ids.push(id);
            let ended = ends.eos.contains(&id);
            let full = cache.lengths()[slot] + 1 >= decoder.config().context;
            let last = ended || full || row.ids.len() >= sampling.max_tokens;
            let text = if ended { row.text.flush(ends.decode) } else { row.text.push(id, last, ends.decode) };
            emit(NewToken { row: r, id, text, last });
            if !last {
                kept.push(slot);
            }
        }
        if kept.len() < active.len() {
            cache.keep(&kept)?;
            active = kept.iter().map(|&slot| active[slot]).collect();
        }
        let next = active.iter().map(|&r| rows[r].ids.last().copied().into_iter().collect()).collect();
        batch = Batch { rows: next, samples: active.clone() };
        phase = Phase::Generated;
    }
    Ok(rows.into_iter().map(|r| r.text.all).collect())
}

impl Sampling {
    /// Refuses what cannot be drawn from.
    fn check(&self) -> Result<()> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err(Error::usage(format!("temperature {} must be 0 or more", self.temperature)));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::usage(format!("top-p {} must be above 0 and at most 1", self.top_p)));
        }
        Ok(())
    }

    /// The token that `uniform` (in 0..1) draws: temperature, then the k likeliest, then the smallest set with mass p.
    /// Equal logits are ordered by id, so that a draw is the same everywhere.
    fn draw(&self, logits: Vec<f32>, uniform: f64) -> Result<u32> {
        if logits.iter().any(|l| l.is_nan()) {
            return Err(Error::refused(
                "the logits are NaN: the weights are damaged, or a steering strength is too large",
            ));
        }
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if self.temperature == 0.0 {
            return ids.into_iter().min_by(order).ok_or_else(|| Error::refused("the model has no vocabulary"));
        }
        let keep = if self.top_k == 0 { ids.len() } else { self.top_k.min(ids.len()) };
        if keep < ids.len() {
            ids.select_nth_unstable_by(keep, order);
            ids.truncate(keep);
        }
        ids.sort_unstable_by(order);
        let top = ids.first().map_or(0.0, |&i| f64::from(logits[i as usize]));
        let mut mass: Vec<f64> =
            ids.iter().map(|&i| ((f64::from(logits[i as usize]) - top) / self.temperature).exp()).collect();
        let total: f64 = mass.iter().sum();
        let mut sum = 0.0;
        let cut = mass.iter().position(|m| {
            sum += m;
            sum >= self.top_p * total
        });
        mass.truncate(cut.map_or(mass.len(), |c| c + 1));
        let mut left = uniform * mass.iter().sum::<f64>();
        for (&id, m) in ids.iter().zip(&mass) {
            left -= m;
            if left < 0.0 {
                return Ok(id);
            }
        }
        let last = mass.len().saturating_sub(1);
        ids.get(last).copied().ok_or_else(|| Error::refused("the model has no vocabulary"))
    }
}

/// Prompt tokens that are decoded with the first new ones, so that a tokenizer's rule for leading spaces applies inside
/// the text and not at its start.
const LEAD: usize = 4;
/// Tokens after which bytes that are still no UTF-8 are shown as U+FFFD.
const PATIENCE: usize = 8;

/// Text that grows token by token and only ever shows whole characters.
struct Streamed {
    /// Tokens whose text is shown, kept as context for those that follow, then tokens still held back.
    ids: Vec<u32>,
    shown: usize,
    all: String,
}

impl Streamed {
    fn after(prompt: &[u32], _decode: &dyn Fn(&[u32]) -> String) -> Self {
        let ids = prompt[prompt.len().saturating_sub(LEAD)..].to_vec();
        Self { shown: ids.len(), ids, all: String::new() }
    }

    /// Adds a token and returns the text that is complete now; `flush` shows unfinished bytes too.
    fn push(&mut self, id: u32, flush: bool, decode: &dyn Fn(&[u32]) -> String) -> String {
        self.ids.push(id);
        let text = self.pending(decode);
        let unfinished = text.ends_with('\u{fffd}') && self.ids.len() - self.shown < PATIENCE;
        if unfinished && !flush { String::new() } else { self.show(text) }
    }

    /// Shows what is held back.
    fn flush(&mut self, decode: &dyn Fn(&[u32]) -> String) -> String {
        let text = self.pending(decode);
        self.show(text)
    }

    fn pending(&self, decode: &dyn Fn(&[u32]) -> String) -> String {
        let before = decode(&self.ids[..self.shown]);
        let after = decode(&self.ids);
        // A lead that began inside a character decodes differently once the character is whole: keep what follows.
        let same = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
        let at = (0..=same).rev().find(|&i| after.is_char_boundary(i)).unwrap_or(0);
        after[at..].to_owned()
    }

    fn show(&mut self, text: String) -> String {
        self.shown = self.ids.len();
        if self.shown > 2 * LEAD {
            self.ids.drain(..self.shown - LEAD);
            self.shown = LEAD;
        }
        self.all.push_str(&text);
        text
    }
}
