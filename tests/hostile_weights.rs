//! Damaged, foreign and lying model files: one clear line, never a panic, never an allocation that
//! the file's size does not warrant.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;
use mlpeek::model::{Batch, Decoder, HookPoint, HookSite, Logits, NoTap, Phase};
use mlpeek::{Error, Result, TaskCtx};
use proptest::prelude::*;

fn fixture(family: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/families")
        .join(family)
        .join(file)
}

fn tensors(family: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(family, "model.safetensors"), &Device::Cpu).unwrap()
}

fn save(tensors: &HashMap<String, Tensor>, dir: &Path, name: &str) -> PathBuf {
    let path = dir.join(name);
    candle_core::safetensors::save(tensors, &path).unwrap();
    path
}

/// Opens llama's config with these shards and runs a short text.
fn run(shards: &[PathBuf]) -> Result<Tensor> {
    let ctx = TaskCtx::silent();
    let config = Config::from_hf(&fixture("llama", "config.json"))?;
    let decoder = Decoder::on_cpu(config, &Weights::open_safetensors(shards)?, None, &ctx)?;
    let batch = Batch {
        rows: vec![vec![3, 4, 5]],
        samples: Vec::new(),
    };
    let logits = decoder.forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::Last, &ctx)?;
    logits.ok_or_else(|| Error::usage("no logits"))
}

fn line(result: Result<Tensor>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(
        !text.contains('\n') && text.len() < 400,
        "one clear line: {text}"
    );
    text
}

#[test]
fn shards_are_read_as_one_and_a_missing_or_doubled_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let all = tensors("llama");
    let (mut a, mut b) = (HashMap::new(), HashMap::new());
    for (i, (name, t)) in all.iter().enumerate() {
        if i % 2 == 0 { &mut a } else { &mut b }.insert(name.clone(), t.clone());
    }
    let first = save(&a, dir.path(), "model-00001-of-00002.safetensors");
    let second = save(&b, dir.path(), "model-00002-of-00002.safetensors");
    let whole = run(&[fixture("llama", "model.safetensors")])
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    assert_eq!(
        run(&[first.clone(), second])
            .unwrap()
            .to_vec2::<f32>()
            .unwrap(),
        whole
    );
    let missing = dir.path().join("model-00003-of-00002.safetensors");
    assert!(line(run(&[first.clone(), missing])).contains("model-00003-of-00002.safetensors"));
    assert!(line(run(&[first.clone(), first.clone()])).contains("already in another shard"));
    assert!(line(run(&[first])).contains("is missing"));
}

#[test]
fn half_precision_weights_are_read_as_they_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let whole = run(&[fixture("llama", "model.safetensors")]).unwrap();
    for (dtype, most) in [(DType::F16, 2e-3), (DType::BF16, 2e-2)] {
        let half = tensors("llama")
            .into_iter()
            .map(|(n, t)| (n, t.to_dtype(dtype).unwrap()))
            .collect();
        let path = save(&half, dir.path(), "half.safetensors");
        let logits = run(&[path]).unwrap();
        let error = (logits - &whole)
            .unwrap()
            .abs()
            .unwrap()
            .max(1)
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()[0];
        assert!(error > 0.0 && error < most * 10.0, "{dtype:?}: {error}");
    }
}

#[test]
fn wrong_shapes_types_and_values_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let changed = |name: &str, t: Tensor| {
        let mut all = tensors("llama");
        all.insert(name.to_owned(), t);
        line(run(&[save(&all, dir.path(), "changed.safetensors")]))
    };
    let name = "model.layers.1.mlp.up_proj.weight";
    let wide = Tensor::zeros((41, 24), DType::F32, &Device::Cpu).unwrap();
    let text = changed(name, wide);
    assert!(
        text.contains(name) && text.contains("[41, 24]") && text.contains("[40, 24]"),
        "{text}"
    );
    let whole = Tensor::zeros((40, 24), DType::U8, &Device::Cpu).unwrap();
    assert!(changed(name, whole).contains("U8"));
    let nan = Tensor::full(f32::NAN, (40, 24), &Device::Cpu).unwrap();
    let text = changed(name, nan);
    assert!(text.contains(name) && text.contains("NaN"), "{text}");
    let norm = "model.layers.0.input_layernorm.weight";
    assert!(changed(norm, Tensor::full(f32::INFINITY, 24, &Device::Cpu).unwrap()).contains(norm));
    let embed = Tensor::full(f32::NAN, (96, 24), &Device::Cpu).unwrap();
    assert!(changed("model.embed_tokens.weight", embed).contains("embeddings"));
    let odd = "model.layers.0.self_attn.q_norm.weight";
    assert!(changed(odd, Tensor::ones(6, DType::F32, &Device::Cpu).unwrap()).contains(odd));
}

#[test]
fn requests_out_of_range_name_the_range() {
    let ctx = TaskCtx::silent();
    let weights = Weights::open_safetensors(&[fixture("llama", "model.safetensors")]).unwrap();
    let config = || Config::from_hf(&fixture("llama", "config.json")).unwrap();
    let decoder = Decoder::on_cpu(config(), &weights, None, &ctx).unwrap();
    let hook = HookPoint {
        layer: 3,
        site: HookSite::MlpPost,
    };
    let error = decoder.width(hook).unwrap_err();
    assert!(
        error.exit_code() == 2 && error.to_string().contains("0 to 2"),
        "{error}"
    );
    assert!(Decoder::on_cpu(config(), &weights, Some(4), &ctx).is_err());
    for (rows, word) in [
        (vec![], "no rows"),
        (vec![vec![]], "row 0"),
        (vec![vec![96]], "96"),
        (vec![vec![1; 65]], "context"),
    ] {
        let batch = Batch {
            rows,
            samples: Vec::new(),
        };
        let result = decoder.forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::Last, &ctx);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_cancelled_pass_stops_and_leaves_the_cache_as_it_was() {
    let ctx = TaskCtx::silent();
    let weights = Weights::open_safetensors(&[fixture("llama", "model.safetensors")]).unwrap();
    let config = Config::from_hf(&fixture("llama", "config.json")).unwrap();
    let decoder = Decoder::on_cpu(config, &weights, None, &ctx).unwrap();
    let mut cache = decoder.new_cache(1);
    let batch = |ids: &[u32]| Batch {
        rows: vec![ids.to_vec()],
        samples: Vec::new(),
    };
    decoder
        .forward(
            &batch(&[3, 4]),
            Phase::Prompt,
            Some(&mut cache),
            &mut NoTap,
            Logits::None,
            &ctx,
        )
        .unwrap();
    let cancelled = TaskCtx::silent();
    cancelled.cancel_token().cancel();
    let stopped = decoder.forward(
        &batch(&[5]),
        Phase::Prompt,
        Some(&mut cache),
        &mut NoTap,
        Logits::Last,
        &cancelled,
    );
    assert!(matches!(stopped, Err(Error::Cancelled)) && cache.lengths() == [2]);
    let on = decoder.forward(
        &batch(&[5]),
        Phase::Prompt,
        Some(&mut cache),
        &mut NoTap,
        Logits::Last,
        &ctx,
    );
    let full = decoder.forward(
        &batch(&[3, 4, 5]),
        Phase::Prompt,
        None,
        &mut NoTap,
        Logits::Last,
        &ctx,
    );
    let gap = (on.unwrap().unwrap() - full.unwrap().unwrap())
        .unwrap()
        .abs()
        .unwrap()
        .max(1)
        .unwrap();
    assert!(gap.to_vec1::<f32>().unwrap()[0] < 1e-4);
}

#[test]
fn a_switch_that_is_not_known_is_refused_by_name() {
    let path = fixture("llama", "config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for (key, value) in [
        ("is_causal", "false"),
        ("per_layer_config", r#"{"0": {"intermediate_size": 8}}"#),
        ("quantization_config", r#"{"bits": 4}"#),
        ("hidden_act", r#""snake""#),
        ("model_type", r#""mamba""#),
        (
            "rope_parameters",
            r#"{"rope_type": "longrope", "factor": 4.0}"#,
        ),
        (
            "rope_parameters",
            r#"{"rope_type": "default", "rope_theta": 1.0, "partial_rotary_factor": 0.5}"#,
        ),
        ("num_key_value_heads", "3"),
        ("num_hidden_layers", "100000"),
        ("vocab_size", "-4"),
    ] {
        let mut json: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).unwrap();
        json.insert(key.into(), serde_json::from_str(value).unwrap());
        let error = Config::from_hf_text(&serde_json::to_string(&json).unwrap(), &path)
            .unwrap_err()
            .to_string();
        let named = error.contains(key)
            || error.contains("longrope")
            || error.contains("partial_rotary_factor");
        let named = named || error.contains("heads") || error.contains("snake");
        assert!(
            (named || error.contains("layers")) && !error.contains('\n'),
            "{key}: {error}"
        );
    }
}

/// A small GGUF file in memory.
fn gguf() -> Vec<u8> {
    let mut out = Vec::new();
    let text = |out: &mut Vec<u8>, s: &str| {
        out.extend((s.len() as u64).to_le_bytes());
        out.extend(s.as_bytes());
    };
    out.extend(b"GGUF");
    out.extend(3u32.to_le_bytes());
    out.extend(1u64.to_le_bytes());
    out.extend(3u64.to_le_bytes());
    text(&mut out, "general.architecture");
    out.extend(8u32.to_le_bytes());
    text(&mut out, "llama");
    text(&mut out, "llama.block_count");
    out.extend(4u32.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    text(&mut out, "some.list");
    out.extend(9u32.to_le_bytes());
    out.extend(5u32.to_le_bytes());
    out.extend(2u64.to_le_bytes());
    out.extend([1u8, 0, 0, 0, 2, 0, 0, 0]);
    text(&mut out, "token_embd.weight");
    out.extend(2u32.to_le_bytes());
    out.extend(32u64.to_le_bytes());
    out.extend(4u64.to_le_bytes());
    out.extend(3u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend([7u8; 4 * 20]);
    out
}

fn open_gguf(bytes: &[u8]) -> Result<Config> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let weights = Weights::open_gguf(&path)?;
    if let Some(t) = weights.get("token_embd.weight") {
        t.to_f32();
    }
    Config::from_gguf(&weights)
}

#[test]
fn a_gguf_cut_anywhere_is_refused_in_one_line() {
    let whole = gguf();
    let complete = open_gguf(&whole).unwrap_err().to_string();
    assert!(
        complete.contains("embedding_length"),
        "the tensors are read, the metadata is short: {complete}"
    );
    for len in 1..whole.len() {
        let error = open_gguf(&whole[..len]).unwrap_err().to_string();
        assert!(
            !error.contains('\n') && error.contains("model.gguf"),
            "cut at {len}: {error}"
        );
    }
    assert!(
        open_gguf(b"PK\x03\x04 this is no model")
            .unwrap_err()
            .to_string()
            .contains("not a GGUF file")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_of_a_gguf_never_panic(at in 0usize..300, value: u8, len in 0usize..400) {
        let mut bytes = gguf();
        let n = bytes.len();
        bytes[at % n] = value;
        bytes.truncate(n - (len % 5) * 16);
        let _ = open_gguf(&bytes);
    }

    #[test]
    fn changed_bytes_of_safetensors_never_panic(at in 0usize..4000, value: u8, cut in 0usize..3) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = std::fs::read(fixture("llama", "model.safetensors")).unwrap();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut * 1000);
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let _ = run(&[path]);
    }

    #[test]
    fn changed_characters_of_a_config_never_panic(at in 0usize..700, value in 32u8..127) {
        let path = fixture("gemma3", "config.json");
        let mut text = std::fs::read(&path).unwrap();
        text[at] = value;
        let text = String::from_utf8(text).unwrap();
        if let Ok(config) = Config::from_hf_text(&text, &path) {
            let weights = Weights::open_safetensors(&[fixture("gemma3", "model.safetensors")]).unwrap();
            let _ = Decoder::on_cpu(config, &weights, None, &TaskCtx::silent());
        }
    }
}
