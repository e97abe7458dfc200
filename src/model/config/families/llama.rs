//! Llama and the families whose code is a variation of it: Mistral, Qwen 2 and 3, SmolLM3.
//!
//! All of them have Llama's tensor names; they differ in biases, in the norms of q and k, in which
//! layers have a sliding window, and in which have a rotary embedding.

use super::Family;
use crate::error::Result;
use crate::model::config::hf::base::{Defaults, LLAMA, base, refuse_sliding, set_windows};
use crate::model::config::names::UNNAMED;
use crate::model::config::{Config, TensorNames, gguf, hf};

pub(super) const FAMILY: Family = Family {
    hf: &[
        ("llama", from_hf),
        ("mistral", from_hf),
        ("qwen2", from_hf),
        ("qwen3", from_hf),
        ("smollm3", from_hf),
    ],
    gguf: &[
        ("llama", llama_gguf),
        ("qwen2", qwen_gguf),
        ("qwen3", qwen_gguf),
        ("smollm3", smollm3_gguf),
    ],
};

/// The tensor names of `LlamaForCausalLM`.
pub(super) const NAMES: TensorNames = TensorNames {
    prefixes: &[
        "model.language_model.",
        "language_model.model.",
        "model.",
        "",
    ],
    embedding: "embed_tokens",
    final_norm: "norm",
    unembedding: "lm_head",
    layers: "layers.",
    attn_norm: "input_layernorm",
    q: "self_attn.q_proj",
    k: "self_attn.k_proj",
    v: "self_attn.v_proj",
    qkv: "self_attn.qkv_proj",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    out: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    ..UNNAMED
};

const MISTRAL: Defaults = Defaults {
    d_mlp: 14_336,
    kv_heads: Some(8),
    context: 131_072,
    ..LLAMA
};
const QWEN2: Defaults = Defaults {
    d_mlp: 22_016,
    kv_heads: Some(32),
    vocab: 151_936,
    context: 32_768,
    ..LLAMA
};
const QWEN3: Defaults = Defaults {
    head_dim: Some(128),
    ..QWEN2
};
const SMOLLM3: Defaults = Defaults {
    layers: 36,
    d_model: 2048,
    heads: 16,
    kv_heads: Some(4),
    vocab: 128_256,
    context: 32_768,
    rope_base: 2_000_000.0,
    tied: true,
    ..LLAMA
};

fn from_hf(r: &hf::Reader<'_>, kind: &str) -> Result<Config> {
    let defaults = match kind {
        "mistral" => &MISTRAL,
        "qwen2" => &QWEN2,
        "qwen3" => &QWEN3,
        "smollm3" => &SMOLLM3,
        _ => &LLAMA,
    };
    let mut c = base(r, kind, &NAMES, defaults)?;
    c.ropes = vec![hf::rope::single(r, defaults.rope_base, c.context)?];
    // Mistral's and Qwen 2's code has fixed biases, whatever attention_bias says.
    let bias = match kind {
        "llama" | "qwen3" | "smollm3" => r.flag("attention_bias", false)?,
        _ => false,
    };
    (c.qkv_bias, c.out_bias) = (bias || kind == "qwen2", bias);
    c.mlp_bias = matches!(kind, "llama" | "smollm3") && r.flag("mlp_bias", false)?;
    c.qk_norm = kind == "qwen3";
    if kind == "llama" {
        refuse_sliding(r, &c)?;
        return Ok(c);
    }
    if kind == "smollm3" {
        remove_ropes(r, &mut c)?;
    }
    let (window, default) = window(r, kind, &c)?;
    let sliding = r.layer_types(c.layers.len())?.unwrap_or(default);
    set_windows(r, &mut c, window, &sliding)?;
    Ok(c)
}

/// The window of Mistral, Qwen and SmolLM3, and the layers that have it where there is no
/// `layer_types`.
fn window(r: &hf::Reader<'_>, kind: &str, c: &Config) -> Result<(Option<usize>, Vec<bool>)> {
    let layers = c.layers.len();
    if kind == "mistral" {
        let window = r.count_or_none("sliding_window", 4096)?;
        return Ok((window, vec![window.is_some(); layers]));
    }
    let used = r.flag("use_sliding_window", false)?;
    if kind == "smollm3" {
        // The mask does not read use_sliding_window: layers that layer_types lists slide anyway.
        let window = r.count("sliding_window")?;
        let default = c
            .layers
            .iter()
            .map(|l| used && window.is_some() && l.rope.is_none())
            .collect();
        return Ok((window, default));
    }
    let window = if used {
        r.count_or_none("sliding_window", 4096)?
    } else {
        None
    };
    let from = r.count("max_window_layers")?.unwrap_or(28);
    Ok((
        window,
        (0..layers).map(|i| window.is_some() && i >= from).collect(),
    ))
}

/// Takes the rotary embedding from the layers of SmolLM3 whose flag in `no_rope_layers` is 0.
fn remove_ropes(r: &hf::Reader<'_>, c: &mut Config) -> Result<()> {
    let layers = c.layers.len();
    let interval = r.count("no_rope_layer_interval")?.unwrap_or(4);
    let flags: Vec<bool> = match r.get("no_rope_layers") {
        None if interval == 0 => return Err(r.error("no_rope_layer_interval is 0")),
        None => (1..=layers).map(|i| i.is_multiple_of(interval)).collect(),
        Some(value) => match value.as_array() {
            Some(list) if list.len() >= layers && list.iter().all(serde_json::Value::is_u64) => {
                list.iter()
                    .take(layers)
                    .map(|v| v.as_u64() == Some(0))
                    .collect()
            }
            _ => {
                return Err(r.error(format!(
                    "no_rope_layers must list 0 or 1 for each of {layers} layers"
                )));
            }
        },
    };
    for (layer, none) in c.layers.iter_mut().zip(flags) {
        if none {
            layer.rope = None;
        }
    }
    Ok(())
}

fn llama_gguf(r: &gguf::Reader<'_>, c: &mut Config) -> Result<()> {
    c.rope_interleaved = true;
    // Mistral's GGUF files are `llama` too: their window holds in every layer.
    let window = r.window()?;
    c.layers.iter_mut().for_each(|l| l.window = window);
    Ok(())
}

fn qwen_gguf(r: &gguf::Reader<'_>, c: &mut Config) -> Result<()> {
    c.qk_norm = r.architecture == "qwen3";
    r.refuse_window()
}

fn smollm3_gguf(r: &gguf::Reader<'_>, c: &mut Config) -> Result<()> {
    c.rope_interleaved = true;
    // llama.cpp's rule for this architecture: every fourth layer has no rotary embedding.
    c.layers
        .iter_mut()
        .skip(3)
        .step_by(4)
        .for_each(|l| l.rope = None);
    r.refuse_window()
}
