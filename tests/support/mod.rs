//! A small language model and corpus made on the spot: the tests need no download.
#![allow(dead_code)] // Each test binary uses its own part.

pub mod device;
pub mod judge;
pub mod program;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

pub const LAYERS: usize = 4;
pub const D_MODEL: usize = 32;
pub const D_MLP: usize = 64;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const VOCAB: usize = 258;

/// Writes a random Llama with a byte tokenizer into `dir/tiny-llama` (Hugging Face layout) and
/// returns that path.
pub fn tiny_model(dir: &Path) -> PathBuf {
    let dir = dir.join("tiny-llama");
    fs::create_dir_all(&dir).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": D_MODEL, "intermediate_size": D_MLP,
        "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": true, "bos_token_id": 256, "eos_token_id": 257, "torch_dtype": "float32"
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    fs::write(dir.join("tokenizer.json"), tokenizer().to_string()).unwrap();
    fs::write(
        dir.join("tokenizer_config.json"),
        json!({"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}).to_string(),
    )
    .unwrap();
    write_weights(&dir.join("model.safetensors"));
    dir
}

fn write_weights(path: &Path) {
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let kv = D_MODEL / HEADS * KV_HEADS;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![VOCAB, D_MODEL]),
        ("model.norm.weight".to_owned(), vec![D_MODEL]),
    ];
    for l in 0..LAYERS {
        let name = |s: &str| format!("model.layers.{l}.{s}.weight");
        shapes.extend([
            (name("input_layernorm"), vec![D_MODEL]),
            (name("post_attention_layernorm"), vec![D_MODEL]),
            (name("self_attn.q_proj"), vec![D_MODEL, D_MODEL]),
            (name("self_attn.k_proj"), vec![kv, D_MODEL]),
            (name("self_attn.v_proj"), vec![kv, D_MODEL]),
            (name("self_attn.o_proj"), vec![D_MODEL, D_MODEL]),
            (name("mlp.gate_proj"), vec![D_MLP, D_MODEL]),
            (name("mlp.up_proj"), vec![D_MLP, D_MODEL]),
            (name("mlp.down_proj"), vec![D_MODEL, D_MLP]),
        ]);
    }
    let mut data: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, shape) in shapes {
        let count: usize = shape.iter().product();
        let centre = if name.contains("norm") { 1.0 } else { 0.0 };
        let bytes = (0..count)
            .flat_map(|_| (centre + rng.random_range(-0.35f32..0.35)).to_le_bytes())
            .collect();
        data.push((name, shape, bytes));
    }
    let views: HashMap<_, _> = data
        .iter()
        .map(|(name, shape, bytes)| {
            (
                name.clone(),
                TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        })
        .collect();
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// Byte-level BPE without merges: a token a byte.
fn tokenizer() -> Value {
    let vocab: serde_json::Map<_, _> = (0..=255u8)
        .map(|b| (byte_char(b).to_string(), json!(u32::from(b))))
        .collect();
    let added = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [added(256, "<s>"), added(257, "</s>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
    })
}

/// GPT-2's printable stand-in for a byte.
fn byte_char(b: u8) -> char {
    let printable = |b: u8| (b'!'..=b'~').contains(&b) || (0xA1..=0xAC).contains(&b) || b >= 0xAE;
    if printable(b) {
        return char::from(b);
    }
    let before = (0..b).filter(|&x| !printable(x)).count() as u32;
    char::from_u32(256 + before).unwrap()
}

/// A labelled corpus of `count` short texts.
pub fn corpus(dir: &Path, count: usize) -> PathBuf {
    let words = [
        "river", "Tuesday", "seven", "blue", "music", "winter", "doctor", "bread",
    ];
    let mut rng = Pcg64Mcg::seed_from_u64(11);
    let mut by_label: serde_json::Map<String, Value> = serde_json::Map::new();
    for i in 0..count {
        let label = ["water", "time", "count"][i % 3];
        let text: Vec<_> = (0..rng.random_range(3..8))
            .map(|_| words[rng.random_range(0..words.len())])
            .collect();
        let texts = by_label.entry(label).or_insert_with(|| json!([]));
        texts.as_array_mut().unwrap().push(json!(text.join(" ")));
    }
    let path = dir.join("corpus.json");
    fs::write(&path, Value::Object(by_label).to_string()).unwrap();
    path
}

/// A study of layer 1 of the model at `model`, of which collecting was stopped after about half of
/// the samples.
pub fn half_collected(dir: &Path, model: &Path, data: &Path) {
    use mlpeek::activations::store::CacheDtype;
    use mlpeek::corpus::Corpus;
    use mlpeek::jobs::collect::collect;
    use mlpeek::model::{BosRule, HookPoint, HookSite, LoadOptions, Model, source};
    use mlpeek::study::Study;
    use mlpeek::{CancelToken, TaskCtx};

    let silent = TaskCtx::silent();
    let files = source::resolve(model.to_str(), &silent).unwrap();
    let model = Model::open(&files, &LoadOptions::default(), &silent).unwrap();
    let corpus = Corpus::open(data).unwrap();
    let hook = HookPoint {
        layer: 1,
        site: HookSite::MlpPost,
    };
    let (info, bos) = (model.info(), BosRule::Auto);
    let mut study = Study::create(
        dir,
        Some(info),
        &[hook],
        &[D_MLP],
        &corpus,
        CacheDtype::F32,
        bos,
    )
    .unwrap();
    let cancel = CancelToken::default();
    let stop = cancel.clone();
    let ctx = TaskCtx::new(cancel, move |p| {
        if p.stage == "collecting" && p.total.is_some_and(|total| 2 * p.done > total) {
            stop.cancel();
        }
    });
    assert!(matches!(
        collect(&model, &corpus, &mut study, bos, &ctx),
        Err(mlpeek::Error::Cancelled)
    ));
    let state = study.collected().unwrap();
    assert!(state.samples > 0 && !state.is_complete(), "{state}");
}
