//! Sampling and streaming.
//!
//! Owns how the next token is drawn and when its text is complete; knows nothing of what a tap does
//! to a row. Invariant: a row's draws depend on the seed and its stream alone, one uniform number a
//! token, so that a baseline and a steered row of one stream differ by their logits only.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;
use rayon::prelude::*;
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
        Self {
            temperature: 1.0,
            top_k: 30,
            top_p: 0.3,
            seed: 42,
            max_tokens: 50,
        }
    }
}

/// In which arithmetic quantised weights generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// Few rows multiply the quantised blocks themselves: the fastest way to one text.
    Quick,
    /// Always widened to f32, as prompts are: a text depends on no other of its batch, and a large
    /// batch is faster so.
    Widened,
}

/// One new token of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct NewToken {
    /// The row of the batch.
    pub row: usize,
    /// Its id.
    pub id: u32,
    /// The text that became complete with it (a token may end in the middle of a character: then
    /// empty).
    pub text: String,
    /// The row ended with it.
    pub last: bool,
}

/// A prompt and the rows that continue it: it is read once, and its rows share what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// Token ids.
    pub prompt: Vec<u32>,
    /// One a row: rows of one stream of random numbers get the same draws, as a sample's baseline
    /// and steered rows do.
    pub streams: Vec<u64>,
}

/// What was generated of one row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Continued {
    /// The new text.
    pub text: String,
    /// The new tokens, the one that ended the text among them.
    pub ids: Vec<u32>,
}

/// Generates every row of `prompts` as one batch, calling `emit` for each token as it is drawn;
/// rows end at EOS, at `max_tokens` or at the model's context. Rows are numbered through the
/// prompts; a prompt's own pass goes under the number of its first row, so a tap must treat the
/// rows of one prompt alike. The same seed and stream give the same draws.
pub fn generate(
    model: &Model,
    prompts: &[Continuation],
    sampling: &Sampling,
    arithmetic: Arithmetic,
    tap: &mut dyn Tap,
    emit: &mut dyn FnMut(NewToken),
    ctx: &TaskCtx,
) -> Result<Vec<Continued>> {
    let tokenizer = model.tokenizer();
    let ends = Ends {
        eos: tokenizer.eos(),
        decode: &|ids| tokenizer.decode(ids),
    };
    run(
        model.decoder(),
        &ends,
        prompts,
        sampling,
        arithmetic,
        tap,
        emit,
        ctx,
    )
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

impl Row {
    fn new(prompt: &[u32], seed: u64, stream: u64) -> Self {
        let rng = Pcg64::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            rng,
            text: Streamed::after(prompt),
            ids: Vec::new(),
        }
    }
}

fn run(
    decoder: &Decoder,
    ends: &Ends<'_>,
    prompts: &[Continuation],
    sampling: &Sampling,
    arithmetic: Arithmetic,
    tap: &mut dyn Tap,
    emit: &mut dyn FnMut(NewToken),
    ctx: &TaskCtx,
) -> Result<Vec<Continued>> {
    sampling.check()?;
    let prompts: Vec<&Continuation> = prompts.iter().filter(|p| !p.streams.is_empty()).collect();
    let new = |p: &&Continuation| {
        p.streams
            .iter()
            .map(|&s| Row::new(&p.prompt, sampling.seed, s))
            .collect::<Vec<_>>()
    };
    let mut rows: Vec<Row> = prompts.iter().flat_map(new).collect();
    // Where each active row's logits and cache lie in the pass: its prompt's place first, then its
    // own.
    let mut places: Vec<usize> = prompts
        .iter()
        .enumerate()
        .flat_map(|(at, p)| std::iter::repeat_n(at, p.streams.len()))
        .collect();
    let mut active: Vec<usize> = if sampling.max_tokens == 0 {
        Vec::new()
    } else {
        (0..rows.len()).collect()
    };
    let first_rows = (0..prompts.len())
        .map(|at| places.partition_point(|&p| p < at))
        .collect();
    let mut batch = Batch {
        rows: prompts.iter().map(|p| p.prompt.clone()).collect(),
        samples: first_rows,
    };
    let cache = decoder.new_cache(prompts.len());
    let mut cache = if arithmetic == Arithmetic::Widened {
        cache.widened()
    } else {
        cache
    };
    let mut phase = Phase::Prompt;
    while !active.is_empty() {
        let logits = decoder.forward(&batch, phase, Some(&mut cache), tap, Logits::Last, ctx)?;
        let Some(logits) = logits else { break };
        let logits = logits.to_vec2::<f32>()?;
        let uniforms: Vec<f64> = active.iter().map(|&r| rows[r].rng.random()).collect();
        // A draw orders the whole vocabulary: worth a thread each.
        let drawn: Vec<u32> = (places.par_iter().zip(&uniforms))
            .map(|(&at, &uniform)| sampling.draw(&logits[at], uniform))
            .collect::<Result<_>>()?;
        let mut kept = Vec::new();
        for (slot, ((&r, &at), &id)) in active.iter().zip(&places).zip(&drawn).enumerate() {
            let row = &mut rows[r];
            row.ids.push(id);
            let ended = ends.eos.contains(&id);
            let full = cache.lengths()[at] + 1 >= decoder.config().context;
            let last = ended || full || row.ids.len() >= sampling.max_tokens;
            let text = if ended {
                row.text.flush(ends.decode)
            } else {
                row.text.push(id, last, ends.decode)
            };
            emit(NewToken {
                row: r,
                id,
                text,
                last,
            });
            if !last {
                kept.push(slot);
            }
        }
        if phase == Phase::Prompt {
            cache = cache.select(&kept.iter().map(|&slot| places[slot]).collect::<Vec<_>>())?;
        } else if kept.len() < active.len() {
            cache.retain_rows(&kept)?;
        }
        active = kept.iter().map(|&slot| active[slot]).collect();
        places = (0..active.len()).collect();
        let next = active
            .iter()
            .map(|&r| rows[r].ids.last().copied().into_iter().collect())
            .collect();
        batch = Batch {
            rows: next,
            samples: active.clone(),
        };
        phase = Phase::Generated;
    }
    Ok(rows
        .into_iter()
        .map(|r| Continued {
            text: r.text.all,
            ids: r.ids,
        })
        .collect())
}

impl Sampling {
    /// Refuses what cannot be drawn from.
    ///
    /// # Errors
    /// [`Error::Usage`] for a temperature or a mass that cannot be.
    pub fn check(&self) -> Result<()> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err(Error::usage(format!(
                "temperature {} must be 0 or more",
                self.temperature
            )));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::usage(format!(
                "top-p {} must be above 0 and at most 1",
                self.top_p
            )));
        }
        if self.max_tokens == 0 {
            return Err(Error::usage(
                "there is nothing to generate: ask for at least one new token",
            ));
        }
        Ok(())
    }

    /// The token that `uniform` (in 0..1) draws: temperature, then the k likeliest, then the
    /// smallest set with mass p. Equal logits are ordered by id, so that a draw is the same
    /// everywhere.
    fn draw(&self, logits: &[f32], uniform: f64) -> Result<u32> {
        if logits.iter().any(|l| l.is_nan()) {
            return Err(Error::refused(
                "the logits are NaN: the weights are damaged, or a steering strength is too large",
            ));
        }
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let order = |a: &u32, b: &u32| {
            logits[*b as usize]
                .total_cmp(&logits[*a as usize])
                .then(a.cmp(b))
        };
        if self.temperature == 0.0 {
            return ids
                .into_iter()
                .min_by(order)
                .ok_or_else(|| Error::refused("the model has no vocabulary"));
        }
        let keep = if self.top_k == 0 {
            ids.len()
        } else {
            self.top_k.min(ids.len())
        };
        if keep < ids.len() {
            ids.select_nth_unstable_by(keep, order);
            ids.truncate(keep);
        }
        ids.sort_unstable_by(order);
        let top = ids.first().map_or(0.0, |&i| f64::from(logits[i as usize]));
        let mut mass: Vec<f64> = ids
            .iter()
            .map(|&i| ((f64::from(logits[i as usize]) - top) / self.temperature).exp())
            .collect();
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
        ids.get(last)
            .copied()
            .ok_or_else(|| Error::refused("the model has no vocabulary"))
    }
}

/// Prompt tokens that are decoded with the first new ones, so that a tokenizer's rule for leading
/// spaces applies inside the text and not at its start.
const LEAD: usize = 4;
/// Tokens after which bytes that are still no UTF-8 are shown as U+FFFD.
const PATIENCE: usize = 8;

/// Text that grows token by token and only ever shows whole characters.
struct Streamed {
    /// Tokens whose text is shown, kept as context for those that follow, then tokens still held
    /// back.
    ids: Vec<u32>,
    shown: usize,
    all: String,
}

impl Streamed {
    fn after(prompt: &[u32]) -> Self {
        let ids = prompt[prompt.len().saturating_sub(LEAD)..].to_vec();
        Self {
            shown: ids.len(),
            ids,
            all: String::new(),
        }
    }

    /// Adds a token and returns the text that is complete now; `flush` shows unfinished bytes too.
    fn push(&mut self, id: u32, flush: bool, decode: &dyn Fn(&[u32]) -> String) -> String {
        self.ids.push(id);
        let text = self.pending(decode);
        let unfinished = text.ends_with('\u{fffd}') && self.ids.len() - self.shown < PATIENCE;
        if unfinished && !flush {
            String::new()
        } else {
            self.show(text)
        }
    }

    /// Shows what is held back.
    fn flush(&mut self, decode: &dyn Fn(&[u32]) -> String) -> String {
        let text = self.pending(decode);
        self.show(text)
    }

    fn pending(&self, decode: &dyn Fn(&[u32]) -> String) -> String {
        let before = decode(&self.ids[..self.shown]);
        let after = decode(&self.ids);
        // A lead that began inside a character decodes differently once the character is whole:
        // keep what follows.
        let same = before
            .bytes()
            .zip(after.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        let at = (0..=same)
            .rev()
            .find(|&i| after.is_char_boundary(i))
            .unwrap_or(0);
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::NoTap;
    use crate::model::config::Config;
    use crate::model::weights::Weights;

    fn decoder() -> Decoder {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/llama");
        let weights = Weights::open_safetensors(&[dir.join("model.safetensors")]).unwrap();
        Decoder::on_cpu(
            Config::from_hf(&dir.join("config.json")).unwrap(),
            &weights,
            None,
            &TaskCtx::silent(),
        )
        .unwrap()
    }

    fn letters(ids: &[u32]) -> String {
        ids.iter()
            .map(|&id| char::from_u32(0x100 + id).unwrap_or('?'))
            .collect()
    }

    fn one_row(prompts: &[Vec<u32>], streams: &[u64]) -> Vec<Continuation> {
        let row = |(prompt, &stream): (&Vec<u32>, &u64)| Continuation {
            prompt: prompt.clone(),
            streams: vec![stream],
        };
        prompts.iter().zip(streams).map(row).collect()
    }

    fn continued(
        prompts: &[Continuation],
        sampling: &Sampling,
        eos: &[u32],
    ) -> (Vec<Continued>, Vec<NewToken>) {
        let ends = Ends {
            eos,
            decode: &letters,
        };
        let mut tokens = Vec::new();
        let mut emit = |t: NewToken| tokens.push(t);
        let out = run(
            &decoder(),
            &ends,
            prompts,
            sampling,
            Arithmetic::Quick,
            &mut NoTap,
            &mut emit,
            &TaskCtx::silent(),
        )
        .unwrap();
        (out, tokens)
    }

    fn texts(
        prompts: &[Vec<u32>],
        streams: &[u64],
        sampling: &Sampling,
        eos: &[u32],
    ) -> (Vec<String>, Vec<NewToken>) {
        let (out, tokens) = continued(&one_row(prompts, streams), sampling, eos);
        (out.into_iter().map(|o| o.text).collect(), tokens)
    }

    #[test]
    fn rows_that_share_a_prompt_are_as_if_each_had_read_it() {
        let sampling = Sampling {
            top_p: 1.0,
            top_k: 0,
            max_tokens: 12,
            ..Sampling::default()
        };
        let (a, b) = (vec![5, 6, 7], vec![9, 10]);
        let shared = [
            Continuation {
                prompt: a.clone(),
                streams: vec![0, 1, 2],
            },
            Continuation {
                prompt: vec![3],
                streams: Vec::new(),
            },
            Continuation {
                prompt: b.clone(),
                streams: vec![0, 3],
            },
        ];
        let (together, tokens) = continued(&shared, &sampling, &[40, 41, 42, 43]);
        let prompts = [a.clone(), a.clone(), a, b.clone(), b];
        let apart = continued(
            &one_row(&prompts, &[0, 1, 2, 0, 3]),
            &sampling,
            &[40, 41, 42, 43],
        )
        .0;
        assert_eq!(together, apart);
        for (row, new) in together.iter().enumerate() {
            let ids: Vec<u32> = tokens
                .iter()
                .filter(|t| t.row == row)
                .map(|t| t.id)
                .collect();
            assert_eq!(ids, new.ids);
        }
    }

    #[test]
    fn rows_of_one_stream_draw_alike_and_rows_do_not_disturb_each_other() {
        let sampling = Sampling {
            top_p: 1.0,
            top_k: 0,
            max_tokens: 16,
            ..Sampling::default()
        };
        let (a, b) = (vec![5, 6, 7], vec![9, 10]);
        let (all, tokens) = texts(
            &[a.clone(), b.clone(), a.clone(), a.clone()],
            &[0, 1, 0, 2],
            &sampling,
            &[],
        );
        assert_eq!(all[0], all[2]);
        assert_ne!(all[0], all[3]);
        assert_eq!(
            texts(&[b], &[1], &sampling, &[]).0[0],
            all[1],
            "a row alone equals the row in a batch"
        );
        for (row, text) in all.iter().enumerate() {
            let streamed: String = tokens
                .iter()
                .filter(|t| t.row == row)
                .map(|t| t.text.as_str())
                .collect();
            assert_eq!(&streamed, text);
            assert_eq!(tokens.iter().filter(|t| t.row == row && t.last).count(), 1);
        }
    }

    #[test]
    fn a_row_ends_at_eos_while_the_others_go_on() {
        let sampling = Sampling {
            temperature: 0.0,
            max_tokens: 10,
            ..Sampling::default()
        };
        let prompts = [vec![5, 6, 7], vec![9, 10]];
        let (_, free) = texts(&prompts, &[0, 1], &sampling, &[]);
        let ids: Vec<u32> = free.iter().filter(|t| t.row == 0).map(|t| t.id).collect();
        let eos = ids[2];
        let stop = ids.iter().position(|&id| id == eos).unwrap();
        let (out, tokens) = texts(&prompts, &[0, 1], &sampling, &[eos]);
        let first: Vec<&NewToken> = tokens.iter().filter(|t| t.row == 0).collect();
        assert!(first.len() == stop + 1 && first[stop].last && first[stop].text.is_empty());
        assert_eq!(out[0], letters(&ids[..stop]));
        let other: Vec<u32> = free
            .iter()
            .filter(|t| t.row == 1)
            .map(|t| t.id)
            .take_while(|&id| id != eos)
            .collect();
        assert_eq!(out[1], letters(&other));
    }

    #[test]
    fn a_row_ends_at_the_context() {
        let sampling = Sampling {
            temperature: 0.0,
            max_tokens: 100,
            ..Sampling::default()
        };
        let (out, tokens) = texts(&[vec![3; 60]], &[0], &sampling, &[]);
        assert_eq!(
            out[0].chars().count(),
            4,
            "the context of the fixture is 64"
        );
        assert!(tokens[3].last);
    }

    #[test]
    fn draws_follow_the_kept_mass() {
        let logits = || vec![0.0, 3.0, 2.0, -1.0, 3.0];
        let sampling = |temperature, top_k, top_p| Sampling {
            temperature,
            top_k,
            top_p,
            ..Sampling::default()
        };
        assert_eq!(
            sampling(0.0, 0, 1.0).draw(&logits(), 0.9).unwrap(),
            1,
            "ties go to the lower id"
        );
        assert_eq!(sampling(1.0, 2, 1.0).draw(&logits(), 0.49).unwrap(), 1);
        assert_eq!(sampling(1.0, 2, 1.0).draw(&logits(), 0.51).unwrap(), 4);
        assert_eq!(
            sampling(1.0, 0, 0.4).draw(&logits(), 0.999).unwrap(),
            1,
            "one token already holds the mass"
        );
        let mut seen = [0; 5];
        for i in 0..1000 {
            seen[sampling(1.0, 0, 1.0)
                .draw(&logits(), (f64::from(i) + 0.5) / 1000.0)
                .unwrap() as usize] += 1;
        }
        let total: f64 = logits().iter().map(|l: &f32| f64::from(*l).exp()).sum();
        for (count, logit) in seen.iter().zip(logits()) {
            assert!((f64::from(*count) - 1000.0 * f64::from(logit).exp() / total).abs() < 2.0);
        }
        assert!(sampling(1.0, 0, 1.0).draw(&[f32::NAN, 1.0], 0.5).is_err());
        assert!(sampling(-1.0, 0, 1.0).check().is_err() && sampling(1.0, 0, 0.0).check().is_err());
    }

    #[test]
    fn half_a_character_is_held_back_until_it_is_whole() {
        let bytes = "é日🙂x".as_bytes().to_vec();
        let decode = |ids: &[u32]| {
            let raw: Vec<u8> = ids
                .iter()
                .map(|&id| bytes.get(id as usize).copied().unwrap_or(0xff))
                .collect();
            String::from_utf8_lossy(&raw).into_owned()
        };
        let mut text = Streamed::after(&[9]);
        let shown: Vec<String> = (0..10).map(|id| text.push(id, false, &decode)).collect();
        assert_eq!(shown, ["", "é", "", "", "日", "", "", "", "🙂", "x"]);
        assert_eq!(text.all, "é日🙂x");
        assert_eq!(
            text.push(0, true, &decode),
            "\u{fffd}",
            "at the end nothing is held back"
        );
        let mut stray = Streamed::after(&[]);
        let shown: String = (0..12).map(|_| stray.push(99, false, &decode)).collect();
        assert!(
            shown.starts_with('\u{fffd}'),
            "bytes that never become a character are shown in the end"
        );
    }
}
