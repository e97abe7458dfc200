//! Configurations of both generations, and those that the families' authors published, read whole: no switch of theirs may
//! be unknown.

use std::path::{Path, PathBuf};

use mlpeek::model::config::{Activation, Config, RopeScaling};

fn directory(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families").join(family)
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
        ("gpt_neox", r#""rotary_pct": 0.34, "rotary_emb_base": 10000"#),
        ("smollm3", r#""rope_theta": 2000000.0"#),
        ("mistral", r#""rope_theta": 10000.0"#),
        ("qwen3", r#""rope_theta": 10000.0"#),
        ("gemma", r#""rope_theta": 10000.0"#),
        ("llama2", r#""rope_theta": 10000.0, "rope_scaling": null, "pretraining_tp": 1"#),
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
    assert_eq!((c.layers.len(), c.d_mlp, c.head_dim, c.tied), (12, 3072, 64, true));
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
    assert!(matches!(c.ropes[0].scaling, RopeScaling::Llama3 { factor: 8.0, original: 8192.0, .. }));
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
    assert_eq!((c.attention_softcap, c.final_softcap, c.attention_scale), (Some(50.0), Some(30.0), 1.0 / 16.0));
    let kinds: Vec<&str> =
        (1..=18).map(|i| if i % 6 == 0 { "\"full_attention\"" } else { "\"sliding_attention\"" }).collect();
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
    assert_eq!((c.layers[2].rope, c.layers[3].rope, c.tied), (Some(0), None, true));
}
