use std::path::Path;

use candle_core::{DType, Device};

use super::*;
use crate::model::NoTap;
use crate::model::config::Config;
use crate::model::decoder::full;
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

/// The rows that a decoder makes, and the tokens as they were told.
fn generated(
    decoder: &Decoder,
    prompts: &[Continuation],
    sampling: &Sampling,
    eos: &[u32],
) -> Result<(Vec<GeneratedRow>, Vec<NewToken>)> {
    let generation = Generation {
        decoder,
        rules: TextRules {
            eos,
            decode: &letters,
        },
        sampling,
        arithmetic: Arithmetic::Widened,
        ctx: &TaskCtx::silent(),
    };
    let mut tokens = Vec::new();
    let mut emit = |t: NewToken| tokens.push(t);
    let mut portion = Portion::unlimited();
    let out = generation.run(prompts, &mut portion, &mut NoTap, &mut emit)?;
    Ok((out, tokens))
}

fn continued(
    prompts: &[Continuation],
    sampling: &Sampling,
    eos: &[u32],
) -> (Vec<GeneratedRow>, Vec<NewToken>) {
    let both = decoders().map(|decoder| {
        let before = host::copied();
        let (out, tokens) = generated(&decoder, prompts, sampling, eos).unwrap();
        let copied = (host::copied() - before) as usize;
        if !decoder.is_mapped() {
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

#[test]
fn a_device_that_is_full_is_given_fewer_texts_and_they_are_the_same() {
    let sampling = Sampling {
        top_p: 1.0,
        top_k: 0,
        max_tokens: 12,
        ..Sampling::default()
    };
    let eos = [40, 41, 42, 43];
    let prompts = [
        Continuation {
            prompt: vec![5, 6, 7],
            streams: (0..5).collect(),
        },
        Continuation {
            prompt: vec![9, 10],
            streams: (3..9).collect(),
        },
    ];
    for decoder in decoders() {
        let (whole, told) = generated(&decoder, &prompts, &sampling, &eos).unwrap();
        assert!(whole.iter().any(|row| row.ids.len() == 12), "long rows too");
        // Two prompts of three tokens fit, and so do five rows of one: the batch of eleven fails at its
        // first step, that of five then ends.
        for room in [6, 5, 3] {
            let made = full::with_room(room, || generated(&decoder, &prompts, &sampling, &eos));
            let (made, again) = made.unwrap();
            assert_eq!(made, whole, "room for {room} tokens");
            for row in 0..whole.len() {
                let of = |all: &[NewToken]| -> Vec<NewToken> {
                    all.iter().filter(|t| t.row == row).cloned().collect()
                };
                assert_eq!(of(&again), of(&told), "each token is told once, in order");
            }
        }
        let error = full::with_room(2, || generated(&decoder, &prompts, &sampling, &eos));
        let error = error.unwrap_err();
        assert!(
            error.is_device_full() && error.to_string().contains("no more than 1 texts"),
            "{error}"
        );
    }
}
