//! The switches of each family, as its `transformers` code reads its config.

use serde_json::Value;

use super::Reader;
use super::rope::ropes;
use crate::error::Result;
use crate::model::config::{Activation, Config, LayerKind, Names, Norm, NormKind, QkvOrder};

/// Llama's switches, which the others change.
fn base(r: &Reader<'_>, family: &str, names: Names, defaults: &Defaults) -> Result<Config> {
    let layers = r.need("num_hidden_layers", defaults.layers)?;
    let (d_model, heads) = (r.need("hidden_size", defaults.d_model)?, r.need("num_attention_heads", defaults.heads)?);
    if layers == 0 || layers > 4096 || heads == 0 {
        return Err(r.wrong(format!("{layers} layers of {heads} heads cannot be")));
    }
    let head_dim = r.count("head_dim")?.or(defaults.head_dim).unwrap_or(d_model / heads);
    let act = r.text("hidden_act")?;
    let act = r.text("hidden_activation")?.or(act).unwrap_or(defaults.activation);
    Ok(Config {
        family: family.to_owned(),
        d_model,
        d_mlp: r.need("intermediate_size", defaults.d_mlp)?,
        heads,
        kv_heads: r.count("num_key_value_heads")?.or(defaults.kv_heads).unwrap_or(heads),
        head_dim,
        vocab: r.need("vocab_size", defaults.vocab)?,
        context: r.need("max_position_embeddings", defaults.context)?,
        norm: Norm { kind: NormKind::Rms, eps: r.number("rms_norm_eps")?.unwrap_or(1e-6), plus_one: false },
        activation: Activation::by_name(act).map_err(|e| r.wrong(e))?,
        gated: true,
        parallel: false,
        post_norms: false,
        qk_norm: false,
        learned_positions: false,
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
        conv1d: false,
        qkv_order: QkvOrder::Blocks,
        ropes: Vec::new(),
        rotary_dims: head_dim,
        rope_interleaved: false,
        layers: vec![LayerKind { window: None, rope: Some(0) }; layers],
        attention_scale: 1.0 / (head_dim as f64).sqrt(),
        attention_softcap: None,
        final_softcap: None,
        embed_scale: None,
        tied: r.flag("tie_word_embeddings", defaults.tied)?,
        names,
    })
}

/// What `transformers` assumes where a config is silent.
struct Defaults {
    layers: Option<usize>,
    d_model: Option<usize>,
    d_mlp: Option<usize>,
    heads: Option<usize>,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab: Option<usize>,
    context: Option<usize>,
    activation: &'static str,
    tied: bool,
}

const NO_DEFAULTS: Defaults = Defaults {
    layers: None,
    d_model: None,
    d_mlp: None,
    heads: None,
    kv_heads: None,
    head_dim: None,
    vocab: None,
    context: None,
    activation: "silu",
    tied: false,
};

/// Gemma 3's published configs leave out what equals these.
const GEMMA: Defaults = Defaults {
    layers: Some(26),
    d_model: Some(2304),
    d_mlp: Some(9216),
    heads: Some(8),
    kv_heads: Some(4),
    head_dim: Some(256),
    vocab: Some(262_208),
    context: Some(131_072),
    activation: "gelu_pytorch_tanh",
    tied: true,
};

pub(super) fn llama(r: &Reader<'_>, kind: &str) -> Result<Config> {
    let defaults = Defaults { tied: kind == "smollm3", ..NO_DEFAULTS };
    let mut c = base(r, kind, Names::Llama, &defaults)?;
    let layers = c.layers.len();
    let (theta, share) = ropes(r, if kind == "smollm3" { 2_000_000.0 } else { 10_000.0 }, None)?;
    r.only("partial_rotary_factor", &Value::from(1.0))?;
    if share.is_some_and(|s| s != 1.0) {
        return Err(r.wrong("partial_rotary_factor is a switch that mlpeek does not know for this family"));
    }
    c.ropes = theta;
    let bias = r.flag("attention_bias", false)?;
    (c.qkv_bias, c.out_bias) = (bias || kind == "qwen2", bias);
    c.mlp_bias = r.flag("mlp_bias", false)?;
    c.qk_norm = kind == "qwen3";
    let window = r.count("sliding_window")?;
    let types = r.layer_types(layers)?;
    let sliding: Vec<bool> = match kind {
        "mistral" => vec![true; layers],
        "llama" => vec![false; layers],
        _ if !r.flag("use_sliding_window", false)? => vec![false; layers],
        _ => match types {
            Some(types) => types,
            None if kind == "smollm3" => return Err(r.wrong("use_sliding_window without layer_types is not known")),
            None => {
                let from = r.count("max_window_layers")?.unwrap_or(layers);
                (0..layers).map(|i| i >= from).collect()
            }
        },
    };
    for (layer, sliding) in c.layers.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| sliding);
    }
    if kind == "smollm3" {
        no_rope(r, &mut c)?;
    }
    Ok(c)
}

/// SmolLM3: layers whose flag is 0 have no rotary embedding.
fn no_rope(r: &Reader<'_>, c: &mut Config) -> Result<()> {
    let interval = r.count("no_rope_layer_interval")?.unwrap_or(4).max(1);
    let flags: Vec<bool> = match r.get("no_rope_layers").and_then(Value::as_array) {
        Some(list) if list.len() == c.layers.len() => list.iter().map(|v| v.as_u64() == Some(0)).collect(),
        Some(list) => return Err(r.wrong(format!("no_rope_layers lists {} layers of {}", list.len(), c.layers.len()))),
        None => (1..=c.layers.len()).map(|i| i.is_multiple_of(interval)).collect(),
    };
    for (layer, none) in c.layers.iter_mut().zip(flags) {
        if none {
            layer.rope = None;
        }
    }
    Ok(())
}

pub(super) fn gemma(r: &Reader<'_>, kind: &str) -> Result<Config> {
    let family = kind.trim_end_matches("_text");
    let names = if kind == "gemma" { Names::Llama } else { Names::Gemma };
    let mut c = base(r, family, names, &GEMMA)?;
    let layers = c.layers.len();
    c.norm.plus_one = true;
    c.embed_scale = Some((c.d_model as f64).sqrt());
    let bias = r.flag("attention_bias", false)?;
    (c.qkv_bias, c.out_bias) = (bias, bias);
    // The first Gemma's configs say "gelu", and its code means the tanh form.
    if kind == "gemma" && c.activation == Activation::Gelu {
        c.activation = Activation::GeluTanh;
    }
    let local = (kind == "gemma3_text").then_some(r.number("rope_local_base_freq")?.unwrap_or(10_000.0));
    let (ropes, share) = ropes(r, if local.is_some() { 1_000_000.0 } else { 10_000.0 }, local)?;
    if share.is_some_and(|s| s != 1.0) {
        return Err(r.wrong("partial_rotary_factor is a switch that mlpeek does not know for this family"));
    }
    c.ropes = ropes;
    if kind == "gemma" {
        return Ok(c);
    }
    c.post_norms = true;
    c.qk_norm = kind == "gemma3_text";
    c.attention_scale = 1.0 / r.number("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt();
    let caps = kind == "gemma2";
    c.attention_softcap = r.softcap("attn_logit_softcapping", caps.then_some(50.0))?;
    c.final_softcap = r.softcap("final_logit_softcapping", caps.then_some(30.0))?;
    let window = r.count("sliding_window")?.or(Some(4096));
    let pattern = r.count("sliding_window_pattern")?;
    let hidden = r.count("_sliding_window_pattern")?;
    let pattern = pattern.or(hidden).unwrap_or(if caps { 2 } else { 6 }).max(1);
    let sliding = match r.layer_types(layers)? {
        Some(types) => types,
        None => (1..=layers).map(|i| !i.is_multiple_of(pattern)).collect(),
    };
    let local_rope = c.ropes.len() - 1;
    for (layer, sliding) in c.layers.iter_mut().zip(sliding) {
        if sliding {
            *layer = LayerKind { window, rope: Some(local_rope) };
        }
    }
    Ok(c)
}

pub(super) fn gpt2(r: &Reader<'_>) -> Result<Config> {
    let layers = r.need("n_layer", Some(12))?;
    let (d_model, heads) = (r.need("n_embd", Some(768))?, r.need("n_head", Some(12))?);
    if layers == 0 || layers > 4096 || heads == 0 {
        return Err(r.wrong(format!("{layers} layers of {heads} heads cannot be")));
    }
    r.only("scale_attn_weights", &Value::Bool(true))?;
    let act = r.text("activation_function")?.unwrap_or("gelu_new");
    let eps = r.number("layer_norm_epsilon")?.unwrap_or(1e-5);
    let head_dim = d_model / heads;
    Ok(Config {
        family: "gpt2".into(),
        d_model,
        d_mlp: r.count("n_inner")?.unwrap_or(4 * d_model),
        heads,
        kv_heads: heads,
        head_dim,
        vocab: r.need("vocab_size", Some(50_257))?,
        context: r.need("n_positions", Some(1024))?,
        norm: Norm { kind: NormKind::Layer, eps, plus_one: false },
        activation: Activation::by_name(act).map_err(|e| r.wrong(e))?,
        gated: false,
        parallel: false,
        post_norms: false,
        qk_norm: false,
        learned_positions: true,
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        conv1d: true,
        qkv_order: QkvOrder::Blocks,
        ropes: Vec::new(),
        rotary_dims: 0,
        rope_interleaved: false,
        layers: vec![LayerKind { window: None, rope: None }; layers],
        attention_scale: 1.0 / (head_dim as f64).sqrt(),
        attention_softcap: None,
        final_softcap: None,
        embed_scale: None,
        tied: r.flag("tie_word_embeddings", true)?,
        names: Names::Gpt2,
    })
}

pub(super) fn neox(r: &Reader<'_>) -> Result<Config> {
    let defaults = Defaults { activation: "gelu", ..NO_DEFAULTS };
    let mut c = base(r, "gpt_neox", Names::NeoX, &defaults)?;
    let eps = r.number("layer_norm_eps")?.unwrap_or(1e-5);
    c.norm = Norm { kind: NormKind::Layer, eps, plus_one: false };
    c.gated = false;
    c.parallel = r.flag("use_parallel_residual", true)?;
    let bias = r.flag("attention_bias", true)?;
    (c.qkv_bias, c.out_bias, c.mlp_bias) = (bias, bias, true);
    c.qkv_order = QkvOrder::PerHead;
    let base = r.number("rotary_emb_base")?.unwrap_or(10_000.0);
    let (ropes, share) = ropes(r, base, None)?;
    c.ropes = ropes;
    let share = share.or(r.number("rotary_pct")?).unwrap_or(0.25);
    if !(0.0..=1.0).contains(&share) {
        return Err(r.wrong(format!("rotary_pct is {share}, not between 0 and 1")));
    }
    c.rotary_dims = (c.head_dim as f64 * share) as usize;
    Ok(c)
}
