//! Every family against `transformers` on tiny random models (`tests/fixtures/make_families.py`): logits, hooks at two
//! layers, the KV cache, unequal batches; the same weights as a GGUF file would hold them; both compute paths.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;
use mlpeek::model::{Batch, Decoder, HookPoint, HookSite, Logits, NoTap, Pass, Phase, Tap};
use mlpeek::{Result, TaskCtx};

const FAMILIES: [&str; 11] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "gemma",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_neox",
    "gpt_neox_serial",
];

fn directory(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families").join(family)
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

fn expected(family: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(directory(family).join("expected.safetensors"), &Device::Cpu).unwrap()
}

fn ids(t: &Tensor) -> Vec<u32> {
    t.to_dtype(DType::U32).unwrap().to_vec1().unwrap()
}

/// Largest difference against the largest value.
fn relative(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let max = |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    max(&(a - b).unwrap()) / max(b)
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
        Self { hooks, seen: HashMap::new() }
    }
}

impl Tap for Record {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }
    fn at(&mut self, _: &Pass<'_>, hook: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        self.seen.insert(hook.to_string(), x.squeeze(0)?.copy()?);
        Ok(None)
    }
}

fn one(row: &[u32]) -> Batch {
    Batch { rows: vec![row.to_vec()], samples: Vec::new() }
}

/// Worst relative difference of logits and hooks of a decoder from a fixture.
fn worst(decoder: &Decoder, expected: &HashMap<String, Tensor>) -> f32 {
    let mut tap = Record::of(expected);
    let batch = one(&ids(&expected["ids"]));
    let logits = decoder.forward(&batch, Phase::Prompt, None, &mut tap, Logits::All, &TaskCtx::silent());
    let mut worst = relative(&logits.unwrap().unwrap().squeeze(0).unwrap(), &expected["logits"]);
    for hook in &tap.hooks {
        let error = relative(&tap.seen[&hook.to_string()], &expected[&hook.to_string()]);
        assert!(error < 1e-4, "{hook} differs by {error}");
        worst = worst.max(error);
    }
    worst
}

#[test]
fn logits_and_hooks_equal_transformers() {
    for family in FAMILIES {
        let error = worst(&decoder(family), &expected(family));
        println!("| {family} | transformers, f32 | {error:.1e} |");
        assert!(error < 1e-4, "{family} differs by {error}");
    }
}

#[test]
fn the_operations_of_a_gpu_give_the_same() {
    for family in FAMILIES {
        let (config, weights) = (config(family), weights(family));
        let ctx = TaskCtx::silent();
        let decoder = Decoder::on_device(config, &weights, None, &Device::Cpu, DType::F32, &ctx).unwrap();
        let error = worst(&decoder, &expected(family));
        assert!(error < 1e-4, "{family} differs by {error}");
        assert_cache_and_batches(&decoder, family);
    }
}

#[test]
fn the_operations_of_a_gpu_work_in_half_precision() {
    for family in FAMILIES {
        let (config, weights, expected) = (config(family), weights(family), expected(family));
        let ctx = TaskCtx::silent();
        let decoder = Decoder::on_device(config, &weights, None, &Device::Cpu, DType::BF16, &ctx).unwrap();
        let batch = one(&ids(&expected["ids"]));
        let mut cache = decoder.new_cache(1);
        let logits = decoder.forward(&batch, Phase::Prompt, Some(&mut cache), &mut NoTap, Logits::All, &ctx);
        let logits = logits.unwrap().unwrap().squeeze(0).unwrap();
        assert_eq!(logits.dtype(), DType::F32);
        let gap = (&logits - &expected["logits"]).unwrap().sqr().unwrap().mean_all().unwrap();
        let size = expected["logits"].sqr().unwrap().mean_all().unwrap();
        let error = (gap / size).unwrap().to_scalar::<f32>().unwrap().sqrt();
        assert!(error < 0.05, "{family} in bf16 differs by {error}");
    }
}

#[test]
fn cache_and_unequal_batches_change_nothing() {
    for family in FAMILIES {
        assert_cache_and_batches(&decoder(family), family);
    }
}

fn assert_cache_and_batches(decoder: &Decoder, family: &str) {
    let (expected, ctx) = (expected(family), TaskCtx::silent());
    let text = ids(&expected["ids"]);
    // Two rows of unequal length go on greedily, each with the cache; the first must follow the reference.
    let mut cache = decoder.new_cache(2);
    let mut batch = Batch { rows: vec![text[..9].to_vec(), text[..14].to_vec()], samples: Vec::new() };
    let mut out = [Vec::new(), text[..14].to_vec()];
    for _ in 0..12 {
        let logits = decoder.forward(&batch, Phase::Prompt, Some(&mut cache), &mut NoTap, Logits::Last, &ctx);
        let logits = logits.unwrap().unwrap();
        let full = decoder.forward(&one(&out[1]), Phase::Prompt, None, &mut NoTap, Logits::Last, &ctx);
        let error = relative(&logits.narrow(0, 1, 1).unwrap(), &full.unwrap().unwrap());
        assert!(error < 1e-5, "{family}: the cached row differs from the full pass by {error}");
        let next = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
        out.iter_mut().zip(&next).for_each(|(row, &id)| row.push(id));
        batch.rows = next.iter().map(|&id| vec![id]).collect();
    }
    assert_eq!(out[0], ids(&expected["greedy"]), "{family}: greedy continuation");
    // Several tokens at once on top of a cache.
    let mut cache = decoder.new_cache(1);
    for part in [&text[..5], &text[5..16], &text[16..]] {
        let logits = decoder.forward(&one(part), Phase::Prompt, Some(&mut cache), &mut NoTap, Logits::All, &ctx);
        let logits = logits.unwrap().unwrap().squeeze(0).unwrap();
        let from = cache.lengths()[0] - part.len();
        let error = relative(&logits, &expected["logits"].narrow(0, from, part.len()).unwrap());
        assert!(error < 1e-4, "{family}: prefill in parts differs by {error}");
    }
}

#[test]
fn a_pass_that_stops_early_sees_the_same_and_needs_only_its_layers() {
    for family in FAMILIES {
        let expected = expected(family);
        let mut tap = Record::of(&expected);
        tap.hooks.truncate(1);
        let hook = tap.hooks[0];
        let ctx = TaskCtx::silent();
        let short = Decoder::on_cpu(config(family), &weights(family), Some(hook.layer + 1), &ctx).unwrap();
        let batch = one(&ids(&expected["ids"]));
        let none = short.forward(&batch, Phase::Prompt, None, &mut tap, Logits::None, &ctx).unwrap();
        assert!(none.is_none());
        assert!(relative(&tap.seen[&hook.to_string()], &expected[&hook.to_string()]) < 1e-4);
        assert!(short.forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::Last, &ctx).is_err());
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
    fn at(&mut self, _: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(x.broadcast_add(&self.vector)?))
    }
}

#[test]
fn a_direction_added_at_the_neurons_is_its_residual_direction_added_to_the_stream() {
    // Holds exactly where nothing stands between W_out and the residual stream.
    for family in ["llama", "qwen3", "gpt2", "gpt_neox_serial"] {
        let decoder = decoder(family);
        let (layer, ctx) = (1, TaskCtx::silent());
        let (neurons, stream) =
            (HookPoint { layer, site: HookSite::MlpPost }, HookPoint { layer, site: HookSite::ResidPost });
        let width = decoder.width(neurons).unwrap();
        let z = Tensor::randn(0.0f32, 1.0, (1, width), &Device::Cpu).unwrap();
        let f = decoder.residual_direction(neurons, &z).unwrap();
        let batch = one(&ids(&expected(family)["ids"]));
        let run = |hook, vector: &Tensor| {
            let mut tap = Add { hook, vector: vector.clone() };
            decoder.forward(&batch, Phase::Prompt, None, &mut tap, Logits::Last, &ctx).unwrap().unwrap()
        };
        let error = relative(&run(neurons, &z), &run(stream, &f));
        assert!(error < 1e-5, "{family}: {error}");
    }
}

#[test]
fn the_logit_lens_of_nothing_is_nothing_where_the_norm_has_a_bias() {
    let decoder = decoder("gpt2");
    let zero = Tensor::zeros((1, decoder.config().d_model), DType::F32, &Device::Cpu).unwrap();
    let lens = decoder.logit_lens(&zero).unwrap().abs().unwrap().max(1).unwrap().to_vec1::<f32>().unwrap();
    assert!(lens[0] < 1e-5);
}

#[test]
fn configs_of_the_older_generation_mean_the_same() {
    // What transformers 4 wrote for these models.
    for (family, old) in [
        (
            "llama",
            r#""rope_theta": 500.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 16}"#,
        ),
        ("qwen2", r#""rope_theta": 1000000.0"#),
        ("gemma2", r#""rope_theta": 10000.0"#),
        (
            "gemma3",
            r#""rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "sliding_window_pattern": 6,
               "rope_scaling": {"rope_type": "linear", "factor": 4.0}"#,
        ),
        ("gpt_neox", r#""rotary_pct": 0.34, "rotary_emb_base": 10000"#),
        ("smollm3", r#""rope_theta": 2000000.0"#),
    ] {
        let path = directory(family).join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut json: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
        for key in ["rope_parameters", "layer_types", "_sliding_window_pattern"] {
            json.remove(key);
        }
        let old: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&format!("{{{old}}}")).unwrap();
        json.extend(old);
        let old = Config::from_hf_text(&serde_json::to_string(&json).unwrap(), &path).unwrap();
        assert_eq!(old, config(family), "{family}");
    }
}

/// A fixture's tensors as llama.cpp's converter would store them: names, 1 + w, permuted q and k, transposed Conv1D.
fn as_gguf(family: &str, path: &Path) {
    let c = config(family);
    let tensors = candle_core::safetensors::load(directory(family).join("model.safetensors"), &Device::Cpu).unwrap();
    let arch = match family {
        "mistral" => "llama",
        other => other,
    };
    let mut named: Vec<(String, Tensor)> = Vec::new();
    for (name, t) in tensors {
        let mut t = t;
        if family.starts_with("gemma") && name.contains("norm") {
            t = (t + 1.0).unwrap();
        }
        if arch == "llama" || arch == "smollm3" {
            let heads = [("q_proj", c.heads), ("k_proj", c.kv_heads)].into_iter().find(|(n, _)| name.contains(n));
            if let Some((_, heads)) = heads {
                let rows = t.dim(0).unwrap();
                let rest = t.elem_count() / rows;
                let split = t.reshape((heads, 2, rows / heads / 2, rest)).unwrap();
                t = split.transpose(1, 2).unwrap().contiguous().unwrap().reshape(t.dims()).unwrap();
            }
        }
        if family == "gpt2" && name.contains("c_") && t.rank() == 2 {
            t = t.t().unwrap().contiguous().unwrap();
        }
        let mut to = name.replace("model.layers.", "blk.").replace("transformer.h.", "blk.");
        for (from, into) in [
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("self_attn.q_norm", "attn_q_norm"),
            ("self_attn.k_norm", "attn_k_norm"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
            ("input_layernorm", "attn_norm"),
            ("pre_feedforward_layernorm", "ffn_norm"),
            ("post_feedforward_layernorm", "post_ffw_norm"),
            ("post_attention_layernorm", if family.starts_with("gemma") { "post_attention_norm" } else { "ffn_norm" }),
            ("attn.c_attn", "attn_qkv"),
            ("attn.c_proj", "attn_output"),
            ("mlp.c_fc", "ffn_up"),
            ("mlp.c_proj", "ffn_down"),
            ("ln_1", "attn_norm"),
            ("ln_2", "ffn_norm"),
            ("transformer.ln_f", "output_norm"),
            ("transformer.wte", "token_embd"),
            ("transformer.wpe", "position_embd"),
            ("model.embed_tokens", "token_embd"),
            ("model.norm", "output_norm"),
            ("lm_head", "output"),
        ] {
            to = to.replace(from, into);
        }
        named.push((to, t));
    }
    use gguf_file::Value as V;
    let u = |n: usize| V::U32(n as u32);
    let key = |k: &str| format!("{arch}.{k}");
    let mut meta = vec![
        ("general.architecture".to_string(), V::String(arch.into())),
        (key("block_count"), u(c.layers.len())),
        (key("context_length"), u(c.context)),
        (key("embedding_length"), u(c.d_model)),
        (key("feed_forward_length"), u(c.d_mlp)),
        (key("attention.head_count"), u(c.heads)),
        (key("attention.head_count_kv"), u(c.kv_heads)),
    ];
    if family == "gpt2" {
        meta.push((key("attention.layer_norm_epsilon"), V::F32(c.norm.eps as f32)));
    } else {
        meta.push((key("attention.layer_norm_rms_epsilon"), V::F32(c.norm.eps as f32)));
        meta.push((key("rope.freq_base"), V::F32(c.ropes[0].base as f32)));
        meta.push((key("attention.key_length"), u(c.head_dim)));
        meta.push((key("attention.value_length"), u(c.head_dim)));
    }
    if let Some(window) = c.layers.iter().find_map(|l| l.window).filter(|_| family != "qwen2") {
        meta.push((key("attention.sliding_window"), u(window)));
    }
    if family == "llama" {
        // The divisors that llama.cpp's converter works out from rope_scaling.
        let plain = mlpeek::model::config::Rope::new(c.ropes[0].base).frequencies(c.rotary_dims);
        let scaled = c.ropes[0].frequencies(c.rotary_dims);
        let factors: Vec<f32> = plain.iter().zip(&scaled).map(|(p, s)| p / s).collect();
        let count = factors.len();
        named.push(("rope_freqs.weight".into(), Tensor::from_vec(factors, count, &Device::Cpu).unwrap()));
    }
    if family == "gemma2" {
        meta.push((key("attn_logit_softcapping"), V::F32(c.attention_softcap.unwrap() as f32)));
        meta.push((key("final_logit_softcapping"), V::F32(c.final_softcap.unwrap() as f32)));
    }
    if family == "gemma3" {
        meta.push((key("rope.scaling.type"), V::String("linear".into())));
        meta.push((key("rope.scaling.factor"), V::F32(4.0)));
    }
    let quantised: Vec<(String, QTensor)> =
        named.iter().map(|(n, t)| (n.clone(), QTensor::quantize(t, GgmlDType::F32).unwrap())).collect();
    let meta: Vec<(&str, &V)> = meta.iter().map(|(k, v)| (k.as_str(), v)).collect();
    let tensors: Vec<(&str, &QTensor)> = quantised.iter().map(|(n, t)| (n.as_str(), t)).collect();
    gguf_file::write(&mut std::fs::File::create(path).unwrap(), &meta, &tensors).unwrap();
}

#[test]
fn gguf_files_of_the_same_weights_give_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for family in ["llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma2", "gemma3", "gpt2"] {
        let path = dir.path().join(format!("{family}.gguf"));
        as_gguf(family, &path);
        let weights = Weights::open_gguf(&path).unwrap();
        let mut config = Config::from_gguf(&weights).unwrap();
        if ["qwen2", "smollm3"].contains(&family) {
            // GGUF keeps neither Qwen's unused windows nor SmolLM3's list of layers (its rule is every fourth).
            config.layers = self::config(family).layers;
        }
        if family.starts_with("gemma") {
            // GGUF drops query_pre_attn_scalar; real models have the head's width there, the fixture has not.
            config.attention_scale = self::config(family).attention_scale;
        }
        let decoder = Decoder::on_cpu(config, &weights, None, &TaskCtx::silent()).unwrap();
        let error = worst(&decoder, &expected(family));
        assert!(error < 1e-4, "{family} differs by {error}");
    }
}
