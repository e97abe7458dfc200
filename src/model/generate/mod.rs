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
use super::{Batch, Decoder, Logits, Model, Phase, Tap, host};
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

/// Generates every row of `prompts` as one batch, calling `emit` for each token as it is drawn;
/// rows end at EOS, at `max_tokens` or at the model's context. Rows are numbered through the
/// prompts; a prompt's own pass goes under the number of its first row, so a tap must treat the
/// rows of one prompt alike. The same seed and stream give the same draws.
///
/// # Errors
/// Sampling that [`Sampling::check`] refuses, what [`Decoder::forward`] refuses, logits that are NaN,
/// and [`crate::Error::Cancelled`].
pub fn generate(
    model: &Model,
    prompts: &[Continuation],
    sampling: &Sampling,
    arithmetic: Arithmetic,
    tap: &mut dyn Tap,
    emit: &mut dyn FnMut(NewToken),
    ctx: &TaskCtx,
) -> Result<Vec<GeneratedRow>> {
    let tokenizer = model.tokenizer();
    let rules = TextRules {
        eos: tokenizer.eos(),
        decode: &|ids| tokenizer.decode(ids),
    };
    run(
        model.decoder(),
        &rules,
        prompts,
        sampling,
        arithmetic,
        tap,
        emit,
        ctx,
    )
}

/// What generation needs of a tokenizer: the ids that end a text, and how ids become text.
struct TextRules<'a> {
    eos: &'a [u32],
    decode: &'a dyn Fn(&[u32]) -> String,
}

/// A row that is being generated.
struct Row {
    rng: Pcg64,
    text: StreamDecoder,
    ids: Vec<u32>,
}

impl Row {
    fn new(prompt: &[u32], seed: u64, stream: u64) -> Self {
        let rng = Pcg64::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            rng,
            text: StreamDecoder::after(prompt),
            ids: Vec::new(),
        }
    }
}

/// [`generate`] with a decoder and the rules of its tokenizer.
fn run(
    decoder: &Decoder,
    rules: &TextRules<'_>,
    prompts: &[Continuation],
    sampling: &Sampling,
    arithmetic: Arithmetic,
    tap: &mut dyn Tap,
    emit: &mut dyn FnMut(NewToken),
    ctx: &TaskCtx,
) -> Result<Vec<GeneratedRow>> {
    sampling.check()?;
    let prompts: Vec<&Continuation> = prompts.iter().filter(|p| !p.streams.is_empty()).collect();
    let new = |p: &&Continuation| {
        p.streams
            .iter()
            .map(|&s| Row::new(&p.prompt, sampling.seed, s))
            .collect::<Vec<_>>()
    };
    let mut rows: Vec<Row> = prompts.iter().flat_map(new).collect();
    // The row of the pass that holds each active row's logits and cache: its prompt's row in the
    // first pass, its own afterwards.
    let mut pass_rows: Vec<usize> = prompts
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
        .map(|at| pass_rows.partition_point(|&p| p < at))
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
        let uniforms: Vec<f64> = active.iter().map(|&r| rows[r].rng.random()).collect();
        let drawn = draw(decoder, &logits, &pass_rows, sampling, &uniforms)?;
        let mut unfinished = Vec::new();
        for (slot, ((&r, &at), &id)) in active.iter().zip(&pass_rows).zip(&drawn).enumerate() {
            let row = &mut rows[r];
            row.ids.push(id);
            let ended = rules.eos.contains(&id);
            let full = cache.lengths()[at] + 1 >= decoder.config().context;
            let last = ended || full || row.ids.len() >= sampling.max_tokens;
            let text = if ended {
                row.text.flush(rules.decode)
            } else {
                row.text.push(id, last, rules.decode)
            };
            emit(NewToken {
                row: r,
                id,
                text,
                last,
            });
            if !last {
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
        .map(|r| GeneratedRow {
            text: r.text.text,
            ids: r.ids,
        })
        .collect())
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
    let (held, vocab) = logits.dims2()?;
    if !decoder.is_mapped() && device_draw::serves(sampling, vocab) {
        if pass_rows.iter().copied().eq(0..held) {
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
mod tests {
    use std::path::Path;

    use candle_core::{DType, Device};

    use super::*;
    use crate::model::NoTap;
    use crate::model::config::Config;
    use crate::model::weights::Weights;

    /// The fixture by this crate's kernels, and by the operations of a card.
    fn decoders() -> [Decoder; 2] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/llama");
        let weights = Weights::open_safetensors(&[dir.join("model.safetensors")]).unwrap();
        let config = || Config::from_hf(&dir.join("config.json")).unwrap();
        let (ctx, cpu) = (TaskCtx::silent(), Device::Cpu);
        [
            Decoder::on_cpu(config(), &weights, None, &ctx).unwrap(),
            Decoder::on_device(config(), &weights, None, &cpu, DType::F32, &ctx).unwrap(),
        ]
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
    ) -> (Vec<GeneratedRow>, Vec<NewToken>) {
        let rules = TextRules {
            eos,
            decode: &letters,
        };
        let both = decoders().map(|decoder| {
            let mut tokens = Vec::new();
            let mut emit = |t: NewToken| tokens.push(t);
            let before = host::copied();
            let out = run(
                &decoder,
                &rules,
                prompts,
                sampling,
                Arithmetic::Quick,
                &mut NoTap,
                &mut emit,
                &TaskCtx::silent(),
            )
            .unwrap();
            let copied = (host::copied() - before) as usize;
            if !decoder.is_mapped() && device_draw::serves(sampling, decoder.config().vocab) {
                // Beside the ids: whether the prompts' pass was finite.
                assert_eq!(copied, tokens.len() + 1, "an id a row a step comes back");
            }
            (out, tokens)
        });
        let [own, on_device] = both;
        assert_eq!(own, on_device, "both ways of computing give the same texts");
        own
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
    fn a_token_is_drawn_where_the_logits_lie() {
        let sampling = Sampling {
            top_k: 20,
            top_p: 0.9,
            max_tokens: 12,
            ..Sampling::default()
        };
        let prompts = [vec![5, 6, 7], vec![9, 10], vec![5, 6, 7]];
        let (all, _) = texts(&prompts, &[0, 1, 0], &sampling, &[40, 41, 42]);
        assert_eq!(all[0], all[2]);
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
}
