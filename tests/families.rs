//! Every family against `transformers` on tiny random models (`tests/fixtures/make_families.py`):
//! logits, hooks at two layers, the KV cache, unequal batches; the same weights as a GGUF file;
//! both compute paths, and long rows in tiles. The guide's parity table is what these tests measure.

#[path = "support/backends.rs"]
#[allow(dead_code)] // Each test binary uses its own part.
mod backends;
#[path = "support/parity.rs"]
mod parity;
#[path = "support/tensors.rs"]
mod tensors;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;
use mlpeek::model::{Batch, Decoder, HookPoint, HookSite, Logits, NoTap, Pass, Phase, Tap};
use mlpeek::steering::tap::{SteerTap, TokenSelection};
use mlpeek::steering::{Intervention, Mode, SteerTerm};
use mlpeek::{Result, TaskCtx};
use parity::Row;
use tensors::relative;

/// A fixture's directory, and what a person calls its family, with the switches that it turns.
const FIXTURES: &[(&str, &str)] = &[
    ("gpt2", "GPT-2"),
    ("gpt2_gelu", "GPT-2, exact GELU"),
    ("llama2", "Llama 2 (no GQA, untied)"),
    (
        "llama",
        "Llama 3.1 (rope scaling, GQA, biases); SmolLM2's architecture",
    ),
    ("gemma", "Gemma"),
    ("gemma2", "Gemma 2 (alternating windows, soft-caps)"),
    (
        "gemma3",
        "Gemma 3 (two rope bases, every sixth layer global)",
    ),
    ("smollm3", "SmolLM3 (layers without rope)"),
    ("qwen2", "Qwen 2.5 (sliding upper layers)"),
    ("qwen3", "Qwen 3 (QK norm)"),
    ("mistral", "Mistral (sliding window)"),
    ("gpt_neox", "Pythia (parallel, partial rotary)"),
    ("gpt_neox_serial", "GPT-NeoX (serial residual)"),
];

/// Rows of the guide's table that come from real weights (`tests/smollm2.rs`, `tests/gemma3.rs`).
const REAL: [&str; 2] = ["SmolLM2-135M-Instruct", "Gemma 3 270M"];

fn families() -> impl Iterator<Item = &'static str> {
    FIXTURES.iter().map(|&(family, _)| family)
}

fn directory(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/families")
        .join(family)
}

fn weights(family: &str) -> Weights {
    Weights::open_safetensors(&[directory(family).join("model.safetensors")]).unwrap()
}

fn config(family: &str) -> Config {
    Config::from_hf(&directory(family).join("config.json")).unwrap()
}

fn decoder(family: &str) -> Decoder {
    Decoder::on_cpu(config(family), &weights(family), None, &TaskCtx::silent()).unwrap()
}

/// The decoder of a family in each way that is tested.
fn decoders(family: &str) -> Vec<(&'static str, Decoder)> {
    backends::decoders(&config(family), &weights(family))
}

fn expected(family: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(directory(family).join("expected.safetensors"), &Device::Cpu)
        .unwrap()
}

/// What is expected of `model.gguf`: the same, unless a GGUF cannot carry a switch of the fixture.
fn expected_of_gguf(family: &str) -> HashMap<String, Tensor> {
    let own = directory(family).join("expected_gguf.safetensors");
    if own.exists() {
        candle_core::safetensors::load(own, &Device::Cpu).unwrap()
    } else {
        expected(family)
    }
}

fn ids(t: &Tensor) -> Vec<u32> {
    t.to_dtype(DType::U32).unwrap().to_vec1().unwrap()
}

/// Keeps what it sees of every site of the layers that a fixture has.
struct Record {
    hooks: Vec<HookPoint>,
    seen: HashMap<String, Tensor>,
}

impl Record {
    fn of(expected: &HashMap<String, Tensor>) -> Self {
        let mut hooks = Vec::new();
        for layer in 0..16 {
            for site in HookSite::ALL {
                let hook = HookPoint { layer, site };
                if expected.contains_key(&hook.to_string()) {
                    hooks.push(hook);
                }
            }
        }
        assert_eq!(hooks.len(), 6);
        Self {
            hooks,
            seen: HashMap::new(),
        }
    }
}

impl Tap for Record {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }
    fn intercept(&mut self, _: &Pass<'_>, hook: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        self.seen.insert(hook.to_string(), x.squeeze(0)?.copy()?);
        Ok(None)
    }
}

fn one(row: &[u32]) -> Batch {
    Batch {
        rows: vec![row.to_vec()],
        samples: Vec::new(),
    }
}

/// Worst relative differences of a decoder from a fixture: of its hooks and of its logits.
fn worst(decoder: &Decoder, expected: &HashMap<String, Tensor>) -> (f32, f32) {
    let mut tap = Record::of(expected);
    let batch = one(&ids(&expected["ids"]));
    let logits = decoder.forward(
        &batch,
        Phase::Prompt,
        None,
        &mut tap,
        Logits::All,
        &TaskCtx::silent(),
    );
    let logits = relative(
        &logits.unwrap().unwrap().squeeze(0).unwrap(),
        &expected["logits"],
    );
    let mut hooks = 0.0f32;
    for hook in &tap.hooks {
        let error = relative(&tap.seen[&hook.to_string()], &expected[&hook.to_string()]);
        assert!(error < 1e-4, "{hook} differs by {error}");
        hooks = hooks.max(error);
    }
    assert!(logits < 1e-4, "logits differ by {logits}");
    (hooks, logits)
}

/// The row of a model by this crate's kernels and by the operations of a card.
fn row(
    title: &str,
    weights: &'static str,
    config: &Config,
    tensors: &Weights,
    expected: &HashMap<String, Tensor>,
) -> Row {
    let own = Decoder::on_cpu(config.clone(), tensors, None, &TaskCtx::silent()).unwrap();
    let (hooks, logits) = worst(&own, expected);
    let on_tensors = backends::on_tensors(config.clone(), tensors);
    Row {
        model: title.into(),
        weights,
        reference: "transformers, f32",
        hooks: Some(hooks),
        logits,
        on_tensors: Some(worst(&on_tensors, expected)),
    }
}

#[test]
fn every_family_equals_transformers_as_the_readme_says() {
    let mut rows = Vec::new();
    for &(family, title) in FIXTURES {
        let (config, weights) = (config(family), weights(family));
        let expected = expected(family);
        rows.push(row(title, "safetensors", &config, &weights, &expected));
        // A fixture whose GGUF file is lost fails below: the table lists it.
        let gguf = directory(family).join("model.gguf");
        if gguf.exists() {
            let weights = Weights::open_gguf(&gguf).unwrap();
            let config = Config::from_gguf(&weights).unwrap();
            let expected = expected_of_gguf(family);
            rows.push(row(title, "GGUF", &config, &weights, &expected));
        }
    }
    parity::hold(&rows);
    let real = |model: &str| REAL.contains(&model);
    let listed: Vec<_> = parity::listed()
        .into_iter()
        .filter(|(model, _)| !real(model))
        .collect();
    let measured: Vec<_> = rows
        .into_iter()
        .map(|r| (r.model, r.weights.to_owned()))
        .collect();
    assert_eq!(
        listed, measured,
        "the guide's parity table lists the families that the tests hold, in their order"
    );
    for model in REAL {
        assert!(
            parity::listed().iter().any(|(m, _)| m == model),
            "the guide's parity table has a row of {model}"
        );
    }
}

#[test]
fn every_way_of_computing_gives_the_same() {
    for family in families() {
        for (way, decoder) in decoders(family) {
            println!("{family}, {way}");
            worst(&decoder, &expected(family));
            assert_cache_and_batches(&decoder, family);
        }
    }
}

/// Runs a batch and returns the logits of each row's real tokens.
fn logits_of_rows(decoder: &Decoder, rows: &[Vec<u32>], tap: &mut dyn Tap) -> Vec<Tensor> {
    let batch = Batch {
        rows: rows.to_vec(),
        samples: Vec::new(),
    };
    let ctx = TaskCtx::silent();
    let logits = decoder.forward(&batch, Phase::Prompt, None, tap, Logits::All, &ctx);
    let logits = logits.unwrap().unwrap();
    let of_row = |(r, row): (usize, &Vec<u32>)| {
        let real = logits.narrow(0, r, 1).unwrap().squeeze(0).unwrap();
        real.narrow(0, 0, row.len()).unwrap()
    };
    rows.iter().enumerate().map(of_row).collect()
}

#[test]
fn a_row_of_a_batch_is_the_row_alone_and_steering_reaches_its_own_row() {
    for family in families() {
        let text = ids(&expected(family)["ids"]);
        let rows = [text[..20].to_vec(), text[3..4].to_vec(), text[2..].to_vec()];
        let mut steered_rows: Vec<Vec<Tensor>> = Vec::new();
        for (way, decoder) in decoders(family) {
            let together = logits_of_rows(&decoder, &rows, &mut NoTap);
            for (row, of_batch) in rows.iter().zip(&together) {
                let alone = logits_of_rows(&decoder, std::slice::from_ref(row), &mut NoTap);
                let error = relative(of_batch, &alone[0]);
                assert!(error < 1e-5, "{family}, {way}: {error}");
            }
            let hook = HookPoint {
                layer: 1,
                site: HookSite::MlpPost,
            };
            let width = decoder.width(hook).unwrap();
            let terms = [SteerTerm {
                hook,
                direction: (0..width).map(|i| (i as f32).sin()).collect(),
                weight: 1.0,
            }];
            for mode in [Mode::Add, Mode::Set] {
                let what = Arc::new(Intervention::new(&terms, mode).unwrap());
                let alphas = [0.0, 0.0, 1.5];
                let mut tap = SteerTap::at_strengths(&what, &alphas, TokenSelection::All).unwrap();
                let steered = logits_of_rows(&decoder, &rows, &mut tap);
                for r in 0..2 {
                    let error = relative(&steered[r], &together[r]);
                    assert!(error < 1e-5, "{family}, {way}, row {r}: {error}");
                }
                assert!(relative(&steered[2], &together[2]) > 1e-3, "{family}");
                steered_rows.push(steered);
            }
        }
        let [add, set, others @ ..] = &steered_rows[..] else {
            panic!("two ways of steering");
        };
        for pair in others.chunks(2) {
            for (one, other) in [(add, &pair[0]), (set, &pair[1])] {
                let error = relative(&one[2], &other[2]);
                assert!(
                    error < 1e-4,
                    "{family}: the ways of computing differ by {error}"
                );
            }
        }
    }
}

#[test]
fn a_cache_of_no_rows_is_empty_and_rows_of_different_lengths_go_on() {
    let ctx = TaskCtx::silent();
    for family in families() {
        let text = ids(&expected(family)["ids"]);
        for (way, decoder) in decoders(family) {
            let mut cache = decoder.new_cache(2);
            let step = |cache: &mut mlpeek::model::KvCache, rows: Vec<Vec<u32>>| {
                let batch = Batch {
                    rows,
                    samples: Vec::new(),
                };
                let (phase, all) = (Phase::Generated, Logits::All);
                let logits = decoder.forward(&batch, phase, Some(cache), &mut NoTap, all, &ctx);
                logits.unwrap().unwrap()
            };
            step(&mut cache, vec![text[..3].to_vec(), text[..9].to_vec()]);
            // Rows that begin at 3 and at 9 go on by several tokens, one of them by one.
            let next = step(&mut cache, vec![text[3..10].to_vec(), text[9..10].to_vec()]);
            let expected = &expected(family)["logits"];
            for (r, from, count) in [(0, 3, 7), (1, 9, 1)] {
                let row = next.narrow(0, r, 1).unwrap().squeeze(0).unwrap();
                let real = row.narrow(0, 0, count).unwrap();
                let error = relative(&real, &expected.narrow(0, from, count).unwrap());
                assert!(error < 1e-4, "{family}, {way}, row {r}: {error}");
            }
            let swapped = cache.select(&[1, 0, 1]).unwrap();
            assert_eq!(swapped.lengths(), [10, 10, 10]);
            let none = cache.select(&[]).unwrap();
            assert!(none.lengths().is_empty(), "{family}, {way}");
            assert!(cache.select(&[2]).is_err());
        }
    }
}

#[test]
fn the_operations_of_a_gpu_work_in_half_precision() {
    let device = backends::device();
    for family in families() {
        let (config, weights, expected) = (config(family), weights(family), expected(family));
        let ctx = TaskCtx::silent();
        let decoder =
            Decoder::on_device(config, &weights, None, &device, DType::BF16, &ctx).unwrap();
        let batch = one(&ids(&expected["ids"]));
        let last = expected["logits"].narrow(0, 23, 1).unwrap();
        let all = expected["logits"].clone();
        for (which, expected) in [(Logits::All, all), (Logits::Last, last)] {
            let mut cache = decoder.new_cache(1);
            let (phase, cache) = (Phase::Prompt, Some(&mut cache));
            let logits = decoder.forward(&batch, phase, cache, &mut NoTap, which, &ctx);
            let logits = logits.unwrap().unwrap().reshape(expected.shape()).unwrap();
            assert_eq!(logits.dtype(), DType::F32);
            let logits = logits.to_device(&Device::Cpu).unwrap();
            let gap = (&logits - &expected).unwrap().sqr().unwrap();
            let gap = gap.mean_all().unwrap();
            let size = expected.sqr().unwrap().mean_all().unwrap();
            let error = (gap / size).unwrap().to_scalar::<f32>().unwrap().sqrt();
            assert!(error < 0.05, "{family} in bf16 differs by {error}");
            // The last token's logits are f32 throughout: hardly any is a value of bf16.
            let values = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let coarse = values.iter().filter(|v| v.to_bits() & 0xffff == 0).count();
            if which == Logits::Last && decoder.config().final_softcap.is_none() {
                assert!(
                    coarse * 10 < values.len(),
                    "{family}: {coarse} values of bf16"
                );
            }
        }
    }
}

fn assert_cache_and_batches(decoder: &Decoder, family: &str) {
    let (expected, ctx) = (expected(family), TaskCtx::silent());
    let text = ids(&expected["ids"]);
    // Two rows of unequal length go on greedily, each with the cache; the first must follow the
    // reference.
    let mut cache = decoder.new_cache(2);
    let mut batch = Batch {
        rows: vec![text[..9].to_vec(), text[..14].to_vec()],
        samples: Vec::new(),
    };
    let mut out = [Vec::new(), text[..14].to_vec()];
    for _ in 0..12 {
        let logits = decoder.forward(
            &batch,
            Phase::Prompt,
            Some(&mut cache),
            &mut NoTap,
            Logits::Last,
            &ctx,
        );
        let logits = logits.unwrap().unwrap();
        let full = decoder.forward(
            &one(&out[1]),
            Phase::Prompt,
            None,
            &mut NoTap,
            Logits::Last,
            &ctx,
        );
        let error = relative(&logits.narrow(0, 1, 1).unwrap(), &full.unwrap().unwrap());
        assert!(
            error < 1e-5,
            "{family}: the cached row differs from the full pass by {error}"
        );
        let next = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
        out.iter_mut()
            .zip(&next)
            .for_each(|(row, &id)| row.push(id));
        batch.rows = next.iter().map(|&id| vec![id]).collect();
    }
    assert_eq!(
        out[0],
        ids(&expected["greedy"]),
        "{family}: greedy continuation"
    );
    // Several tokens at once on top of a cache.
    let mut cache = decoder.new_cache(1);
    for part in [&text[..5], &text[5..16], &text[16..]] {
        let logits = decoder.forward(
            &one(part),
            Phase::Prompt,
            Some(&mut cache),
            &mut NoTap,
            Logits::All,
            &ctx,
        );
        let logits = logits.unwrap().unwrap().squeeze(0).unwrap();
        let from = cache.lengths()[0] - part.len();
        let error = relative(
            &logits,
            &expected["logits"].narrow(0, from, part.len()).unwrap(),
        );
        assert!(
            error < 1e-4,
            "{family}: prefill in parts differs by {error}"
        );
    }
}

#[test]
fn a_pass_that_stops_early_sees_the_same_and_needs_only_its_layers() {
    for family in families() {
        let expected = expected(family);
        let mut tap = Record::of(&expected);
        tap.hooks.truncate(1);
        let hook = tap.hooks[0];
        let ctx = TaskCtx::silent();
        let short =
            Decoder::on_cpu(config(family), &weights(family), Some(hook.layer + 1), &ctx).unwrap();
        let batch = one(&ids(&expected["ids"]));
        let none = short
            .forward(&batch, Phase::Prompt, None, &mut tap, Logits::None, &ctx)
            .unwrap();
        assert!(none.is_none());
        assert!(relative(&tap.seen[&hook.to_string()], &expected[&hook.to_string()]) < 1e-4);
        assert!(
            short
                .forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::Last, &ctx)
                .is_err()
        );
    }
}

/// Adds a vector at one hook.
struct Add {
    hook: HookPoint,
    vector: Tensor,
}

impl Tap for Add {
    fn hooks(&self) -> &[HookPoint] {
        std::slice::from_ref(&self.hook)
    }
    fn intercept(&mut self, _: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(x.broadcast_add(&self.vector)?))
    }
}

#[test]
fn a_direction_added_at_the_neurons_is_its_residual_direction_added_to_the_stream() {
    // Holds exactly where nothing stands between W_out and the residual stream.
    for family in ["llama", "qwen3", "gpt2", "gpt_neox_serial"] {
        let decoder = decoder(family);
        let (layer, ctx) = (1, TaskCtx::silent());
        let (neurons, stream) = (
            HookPoint {
                layer,
                site: HookSite::MlpPost,
            },
            HookPoint {
                layer,
                site: HookSite::ResidPost,
            },
        );
        let width = decoder.width(neurons).unwrap();
        let z = Tensor::randn(0.0f32, 1.0, (1, width), &Device::Cpu).unwrap();
        let f = decoder.residual_direction(neurons, &z).unwrap();
        let batch = one(&ids(&expected(family)["ids"]));
        let run = |hook, vector: &Tensor| {
            let mut tap = Add {
                hook,
                vector: vector.clone(),
            };
            decoder
                .forward(&batch, Phase::Prompt, None, &mut tap, Logits::Last, &ctx)
                .unwrap()
                .unwrap()
        };
        let error = relative(&run(neurons, &z), &run(stream, &f));
        assert!(error < 1e-5, "{family}: {error}");
    }
}

#[test]
fn the_logit_lens_of_nothing_is_nothing_where_the_norm_has_a_bias() {
    let decoder = decoder("gpt2");
    let zero = Tensor::zeros((1, decoder.config().d_model), DType::F32, &Device::Cpu).unwrap();
    let lens = decoder
        .logit_lens(&zero)
        .unwrap()
        .abs()
        .unwrap()
        .max(1)
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    assert!(lens[0] < 1e-5);
}

#[test]
fn a_checkpoint_without_a_prefix_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for (family, prefix) in [
        ("llama", "model."),
        ("gemma3", "model."),
        ("gpt2", "transformer."),
        ("gpt_neox", "gpt_neox."),
    ] {
        let tensors = candle_core::safetensors::load(
            directory(family).join("model.safetensors"),
            &Device::Cpu,
        )
        .unwrap();
        let bare: HashMap<String, Tensor> = tensors
            .into_iter()
            .map(|(n, t)| (n.strip_prefix(prefix).unwrap_or(&n).to_owned(), t))
            .collect();
        assert!(bare.keys().all(|n| !n.starts_with(prefix)));
        let path = dir.path().join(format!("{family}.safetensors"));
        candle_core::safetensors::save(&bare, &path).unwrap();
        let weights = Weights::open_safetensors(&[path]).unwrap();
        let decoder = Decoder::on_cpu(config(family), &weights, None, &TaskCtx::silent()).unwrap();
        worst(&decoder, &expected(family));
    }
}

#[test]
fn a_stored_head_counts_beside_a_tied_flag_and_may_stand_for_the_embedding() {
    // Untied in the fixture; "tied" in the config, transformers 5 uses the stored head all the
    // same.
    let tied = || Config {
        tied: true,
        ..config("llama")
    };
    let decoder = Decoder::on_cpu(tied(), &weights("llama"), None, &TaskCtx::silent()).unwrap();
    worst(&decoder, &expected("llama"));
    // Tied in the fixture, with the pair stored as the head alone; and twice.
    let dir = tempfile::tempdir().unwrap();
    let all =
        candle_core::safetensors::load(directory("qwen2").join("model.safetensors"), &Device::Cpu)
            .unwrap();
    let (embed, head) = ("model.embed_tokens.weight", "lm_head.weight");
    assert!(all.contains_key(embed) && !all.contains_key(head));
    let mut twice = all.clone();
    twice.insert(head.into(), all[embed].clone());
    let mut alone = twice.clone();
    alone.remove(embed);
    for (name, tensors) in [("twice", &twice), ("alone", &alone)] {
        let path = dir.path().join(format!("{name}.safetensors"));
        candle_core::safetensors::save(tensors, &path).unwrap();
        let weights = Weights::open_safetensors(std::slice::from_ref(&path)).unwrap();
        let decoder = Decoder::on_cpu(config("qwen2"), &weights, None, &TaskCtx::silent()).unwrap();
        worst(&decoder, &expected("qwen2"));
    }
    // Untied and not there.
    let path = dir.path().join("headless.safetensors");
    candle_core::safetensors::save(&all, &path).unwrap();
    let weights = Weights::open_safetensors(&[path]).unwrap();
    let untied = Config {
        tied: false,
        ..config("qwen2")
    };
    let says = Decoder::on_cpu(untied, &weights, None, &TaskCtx::silent())
        .err()
        .unwrap()
        .to_string();
    assert!(
        says.contains(head) && says.contains("tie_word_embeddings is false"),
        "{says}"
    );
}
