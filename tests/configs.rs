//! Configurations of both generations, and those that the families' authors published, read whole:
//! no switch of theirs may be unknown.

use std::path::{Path, PathBuf};

use mlpeek::model::config::{Activation, Config, RopeScaling};
use serde_json::{Value, json};

fn directory(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/families")
        .join(family)
}

fn config(family: &str) -> Config {
    Config::from_hf(&directory(family).join("config.json")).unwrap()
}

fn published(text: &str) -> Config {
    Config::from_hf_text(text, Path::new("config.json")).unwrap()
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
        (
            "gpt_neox",
            r#""rotary_pct": 0.34, "rotary_emb_base": 10000"#,
        ),
        ("smollm3", r#""rope_theta": 2000000.0"#),
        ("mistral", r#""rope_theta": 10000.0"#),
        ("qwen3", r#""rope_theta": 10000.0"#),
        ("gemma", r#""rope_theta": 10000.0"#),
        (
            "llama2",
            r#""rope_theta": 10000.0, "rope_scaling": null, "pretraining_tp": 1"#,
        ),
    ] {
        let path = directory(family).join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut json: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).unwrap();
        for key in ["rope_parameters", "layer_types", "_sliding_window_pattern"] {
            json.remove(key);
        }
        let old: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&format!("{{{old}}}")).unwrap();
        json.extend(old);
        let old = Config::from_hf_text(&serde_json::to_string(&json).unwrap(), &path).unwrap();
        assert_eq!(old, config(family), "{family}");
    }
}

#[test]
fn gpt2_and_pythia_as_published() {
    let c = published(
        r#"{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": null, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
        "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}, "vocab_size": 50257}"#,
    );
    assert_eq!(
        (c.layers.len(), c.d_mlp, c.head_dim, c.tied),
        (12, 3072, 64, true)
    );
    assert_eq!(c.activation, Activation::GeluTanh);
    let c = published(
        r#"{"architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "classifier_dropout": 0.1, "eos_token_id": 0,
        "hidden_act": "gelu", "hidden_size": 512, "initializer_range": 0.02, "intermediate_size": 2048,
        "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 8,
        "num_hidden_layers": 6, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": false,
        "torch_dtype": "float16", "transformers_version": "4.24.0", "use_cache": true, "use_parallel_residual": true,
        "vocab_size": 50304}"#,
    );
    assert_eq!((c.rotary_dims, c.parallel, c.tied), (16, true, false));
    assert_eq!(c.activation, Activation::Gelu);
}

#[test]
fn llama_smollm_and_mistral_as_published() {
    let c = published(
        r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.42.3", "use_cache": true,
        "vocab_size": 128256}"#,
    );
    assert_eq!((c.kv_width(), c.ropes[0].base), (1024, 500_000.0));
    assert!(matches!(
        c.ropes[0].scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            original: 8192.0,
            ..
        }
    ));
    let c = published(
        r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
        "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
        "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152}"#,
    );
    assert_eq!((c.head_dim, c.ropes[0].base, c.tied), (64, 100_000.0, true));
    let c = published(
        r#"{"architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0", "use_cache": true, "vocab_size": 32000}"#,
    );
    assert!(c.layers.iter().all(|l| l.window == Some(4096)));
}

#[test]
fn gemma_as_published() {
    let c = published(
        r#"{"architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
        "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "initializer_range": 0.02,
        "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
        "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0, "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "float32",
        "transformers_version": "4.42.4", "use_cache": true, "vocab_size": 256000}"#,
    );
    assert_eq!((c.layers[0].window, c.layers[1].window), (Some(4096), None));
    assert_eq!(
        (c.attention_softcap, c.final_softcap, c.attention_scale),
        (Some(50.0), Some(30.0), 1.0 / 16.0)
    );
    let kinds: Vec<&str> = (1..=18)
        .map(|i| {
            if i % 6 == 0 {
                "\"full_attention\""
            } else {
                "\"sliding_attention\""
            }
        })
        .collect();
    let c = published(&format!(
        r#"{{"_sliding_window_pattern": 6, "architectures": ["Gemma3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "attn_logit_softcapping": null, "bos_token_id": 2, "eos_token_id": 1,
        "final_logit_softcapping": null, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 640,
        "initializer_range": 0.02, "intermediate_size": 2048, "layer_types": [{}], "max_position_embeddings": 32768,
        "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 18, "num_key_value_heads": 1,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0,
        "rope_scaling": null, "rope_theta": 1000000.0, "sliding_window": 512, "torch_dtype": "bfloat16",
        "transformers_version": "4.55.0.dev0", "use_bidirectional_attention": false, "use_cache": true,
        "vocab_size": 262144}}"#,
        kinds.join(", ")
    ));
    assert_eq!((c.layers[4].window, c.layers[5].window), (Some(512), None));
    let base = |layer: usize| c.ropes[c.layers[layer].rope.unwrap()].base;
    assert_eq!((base(4), base(5)), (10_000.0, 1_000_000.0));
}

#[test]
fn qwen_and_smollm3_as_published() {
    let c = published(
        r#"{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02,
        "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 24, "model_type": "qwen2",
        "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1", "use_cache": true, "use_mrope": false, "use_sliding_window": false,
        "vocab_size": 151936}"#,
    );
    assert!(c.qkv_bias && !c.out_bias && c.layers.iter().all(|l| l.window.is_none()));
    let c = published(
        r#"{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
        "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28,
        "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151936}"#,
    );
    assert_eq!((c.qk_norm, c.q_width(), c.head_dim), (true, 2048, 128));
    let full = vec!["\"full_attention\""; 36].join(", ");
    let ropes = ["1, 1, 1, 0"; 9].join(", ");
    let c = published(&format!(
        r#"{{"architectures": ["SmolLM3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": null, "eos_token_id": 128012, "hidden_act": "silu", "hidden_size": 2048,
        "initializer_range": 0.02, "intermediate_size": 11008, "layer_types": [{full}],
        "max_position_embeddings": 65536, "max_window_layers": 28, "mlp_bias": false, "model_type": "smollm3",
        "no_rope_layer_interval": 4, "no_rope_layers": [{ropes}], "num_attention_heads": 16, "num_hidden_layers": 36,
        "num_key_value_heads": 4, "pad_token_id": 128004, "pretraining_tp": 2, "rms_norm_eps": 1e-06,
        "rope_scaling": null, "rope_theta": 5000000.0, "sliding_window": null, "torch_dtype": "bfloat16",
        "transformers_version": "4.54.0.dev0", "use_cache": false, "use_sliding_window": false, "vocab_size": 128256}}"#
    ));
    assert_eq!(
        (c.layers[2].rope, c.layers[3].rope, c.tied),
        (Some(0), None, true)
    );
}

/// What a config means, in the terms of `config_defaults.json`.
fn switches(c: &Config) -> Value {
    let rounded = |x: f64| format!("{x:.5e}").parse::<f64>().unwrap();
    let activation = |x: f64| match c.activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Relu2 => x.max(0.0).powi(2),
        Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
    };
    let frequencies: Vec<Vec<f32>> = c
        .ropes
        .iter()
        .map(|rope| rope.frequencies(c.rotary_dims))
        .collect();
    let activation = [-1.3, 0.4, 2.1].map(activation);
    let rope = |layer: usize| {
        let which = c.layers[layer].rope?;
        let f = &frequencies[which];
        let mut values = [0, f.len() / 2, f.len() - 1]
            .map(|i| rounded(f64::from(f[i])))
            .to_vec();
        values.extend([2.0 * f.len() as f64, f64::from(c.ropes[which].amplitude())]);
        Some(values)
    };
    let windows = collapsed(c.layers.iter().map(|l| json!(l.window)).collect());
    let ropes = collapsed((0..c.layers.len()).map(|i| json!(rope(i))).collect());
    json!({
        "d_model": c.d_model, "d_mlp": c.d_mlp, "heads": c.heads, "head_dim": c.head_dim, "layers": c.layers.len(),
        "kv_heads": c.kv_heads, "vocab": c.vocab, "context": c.context, "eps": c.norm.eps,
        "activation": activation, "biases": [c.qkv_bias, c.out_bias, c.mlp_bias],
        "scale": c.attention_scale, "tied": c.tied, "parallel": c.parallel,
        "softcaps": [c.attention_softcap, c.final_softcap], "embed_scale": c.embed_scale.unwrap_or(1.0),
        "windows": windows, "ropes": ropes,
    })
}

/// One value where all layers have the same.
fn collapsed(values: Vec<Value>) -> Vec<Value> {
    let same = values.iter().all(|v| near(v, &values[0]));
    values
        .into_iter()
        .take(if same { 1 } else { usize::MAX })
        .collect()
}

/// The error function by its series.
fn erf(x: f64) -> f64 {
    let mut term = x;
    let mut sum = x;
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// Equal, numbers up to what the fixture rounds away and what the three points of an activation
/// differ by.
fn near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 3e-5 * a.abs().max(b.abs())
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| near(v, w)))
        }
        _ => a == b,
    }
}

/// Reads a family's config with these keys over `base`.
fn read(kind: &str, base: &Value, changes: &Value) -> mlpeek::Result<Value> {
    let mut config = base.as_object().unwrap().clone();
    config.extend(changes.as_object().unwrap().clone());
    config.insert("model_type".into(), kind.into());
    Config::from_hf_text(&Value::from(config).to_string(), Path::new("config.json"))
        .map(|c| switches(&c))
}

fn table() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config_defaults.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What is not as it should be.
fn difference(actual: mlpeek::Result<Value>, wanted: &Value) -> Option<String> {
    let actual = match actual {
        Err(e) => return Some(format!("refused: {e}")),
        Ok(actual) if near(&actual, wanted) => return None,
        Ok(actual) => actual,
    };
    let differs = wanted
        .as_object()
        .unwrap()
        .iter()
        .filter(|(key, value)| !near(value, &actual[key.as_str()]));
    Some(
        differs
            .map(|(key, value)| format!("{key} is {}, transformers {value}", actual[key.as_str()]))
            .collect(),
    )
}

#[test]
fn every_key_means_what_transformers_makes_of_it() {
    let table = table();
    let mut wrong = Vec::new();
    let mut count = 0;
    for (kind, family) in table["families"].as_object().unwrap() {
        let base = &family["config"];
        let mut hold = |what: String, actual: mlpeek::Result<Value>, wanted: &Value| {
            wrong.extend(difference(actual, wanted).map(|why| format!("{kind} {what}: {why}")));
        };
        hold(
            "as it is".into(),
            read(kind, base, &json!({})),
            &family["gives"],
        );
        hold(
            "without a key".into(),
            read(kind, &json!({}), &json!({})),
            &family["nothing"],
        );
        for case in family["cases"].as_array().unwrap() {
            count += 1;
            let actual = match case["drop"].as_str() {
                Some(key) => {
                    let mut base = base.clone();
                    base.as_object_mut().unwrap().remove(key);
                    read(kind, &base, &json!({}))
                }
                None => read(kind, base, &case["set"]),
            };
            let what = format!("{}{}", case["drop"], case["set"]);
            match (&actual, case["refused"].as_str()) {
                (Err(e), Some(named)) if e.to_string().contains(named) => continue,
                // Where transformers raises there is nothing to be equal to; the line must be one
                // all the same.
                (Err(e), _) if case["transformers"] == "refuses" => {
                    assert!(!e.to_string().contains('\n'), "{e}")
                }
                (Ok(_), _) if case["transformers"] == "refuses" => {}
                _ => {
                    let mut wanted = family["gives"].clone();
                    wanted
                        .as_object_mut()
                        .unwrap()
                        .extend(case["gives"].as_object().unwrap().clone());
                    hold(what, actual, &wanted);
                }
            }
        }
        for key in family["harmless"].as_array().unwrap() {
            count += 1;
            let key = key.as_str().unwrap();
            let actual = read(kind, base, &json!({ key: table["harmless"][key] }));
            hold(format!("harmless {key}"), actual, &family["gives"]);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 2000, "only {count} cases");
}
