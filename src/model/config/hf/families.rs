//! The switches of each family, as its `transformers` code reads its config.

use super::{Reader, rope};
use crate::error::Result;
use crate::model::config::{Activation, Config, LayerKind, Names, Norm, NormKind, QkvOrder, Rope};

/// What a family's config class assumes where a config is silent.
struct Defaults {
    layers: usize,
    d_model: usize,
    d_mlp: usize,
    heads: usize,
    /// `None`: as many as heads.
    kv_heads: Option<usize>,
    /// `None`: the residual width shared among the heads.
    head_dim: Option<usize>,
    vocab: usize,
    context: usize,
    /// The key of the non-linearity, and its value.
    activation: (&'static str, &'static str),
    rope_base: f64,
    tied: bool,
}

const LLAMA: Defaults = Defaults {
    layers: 32,
    d_model: 4096,
    d_mlp: 11_008,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    vocab: 32_000,
    context: 2048,
    activation: ("hidden_act", "silu"),
    rope_base: 10_000.0,
    tied: false,
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
const GEMMA: Defaults = Defaults {
    layers: 28,
    d_model: 3072,
    d_mlp: 24_576,
    heads: 16,
    kv_heads: Some(16),
    head_dim: Some(256),
    vocab: 256_000,
    context: 8192,
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    rope_base: 10_000.0,
    tied: true,
};
const GEMMA2: Defaults = Defaults {
    layers: 26,
    d_model: 2304,
    d_mlp: 9216,
    heads: 8,
    kv_heads: Some(4),
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    ..GEMMA
};
/// Gemma 3's published configs leave out what equals these.
const GEMMA3: Defaults = Defaults {
    vocab: 262_208,
    context: 131_072,
    ..GEMMA2
};
const NEOX: Defaults = Defaults {
    layers: 44,
    d_model: 6144,
    d_mlp: 24_576,
    heads: 64,
    vocab: 50_432,
    activation: ("hidden_act", "gelu"),
    ..LLAMA
};

/// Llama's switches, which the others change. No rotary embedding yet, and no window.
fn base(r: &Reader<'_>, family: &str, names: Names, defaults: &Defaults) -> Result<Config> {
    let count = |key: &str, default: usize| r.count(key).map(|found| found.unwrap_or(default));
    let layers = count("num_hidden_layers", defaults.layers)?;
    let (d_model, heads) = (
        count("hidden_size", defaults.d_model)?,
        count("num_attention_heads", defaults.heads)?,
    );
    sane(r, layers, heads)?;
    let head_dim = r
        .count("head_dim")?
        .or(defaults.head_dim)
        .unwrap_or(d_model / heads);
    // Absent and null are not the same here: null always means one for each head.
    let kv_heads = match defaults.kv_heads {
        Some(default) => r.count_or_none("num_key_value_heads", default)?,
        None => r.count("num_key_value_heads")?,
    };
    let eps = r.number("rms_norm_eps")?.unwrap_or(1e-6);
    let (act_key, act) = defaults.activation;
    Ok(Config {
        family: family.to_owned(),
        d_model,
        d_mlp: count("intermediate_size", defaults.d_mlp)?,
        heads,
        kv_heads: kv_heads.unwrap_or(heads),
        head_dim,
        vocab: count("vocab_size", defaults.vocab)?,
        context: count("max_position_embeddings", defaults.context)?,
        norm: Norm {
            kind: NormKind::Rms,
            eps,
            plus_one: false,
        },
        activation: r.activation(act_key, act)?,
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
        layers: vec![
            LayerKind {
                window: None,
                rope: Some(0)
            };
            layers
        ],
        attention_scale: 1.0 / (head_dim as f64).sqrt(),
        attention_softcap: None,
        final_softcap: None,
        embed_scale: None,
        tied: r.flag("tie_word_embeddings", defaults.tied)?,
        names,
    })
}

fn sane(r: &Reader<'_>, layers: usize, heads: usize) -> Result<()> {
    if layers == 0 || layers > 4096 || heads == 0 {
        return Err(r.wrong(format!("{layers} layers of {heads} heads cannot be")));
    }
    Ok(())
}

/// Gives each layer its window: `sliding` says which have one.
fn slide(r: &Reader<'_>, c: &mut Config, window: Option<usize>, sliding: &[bool]) -> Result<()> {
    if window.is_none() && sliding.contains(&true) {
        let problem = "layer_types names sliding_attention, and no sliding window is in force (sliding_window, \
                       use_sliding_window)";
        return Err(r.wrong(problem));
    }
    for (layer, &sliding) in c.layers.iter_mut().zip(sliding) {
        layer.window = window.filter(|_| sliding);
    }
    Ok(())
}

/// A family whose code has one kind of attention.
fn refuse_sliding(r: &Reader<'_>, c: &Config) -> Result<()> {
    match r.layer_types(c.layers.len())? {
        Some(types) if types.contains(&true) => Err(r.wrong(format!(
            "layer_types names sliding_attention, which the family {} does not have",
            c.family
        ))),
        _ => Ok(()),
    }
}

pub(super) fn llama(r: &Reader<'_>, kind: &str) -> Result<Config> {
    let defaults = match kind {
        "mistral" => &MISTRAL,
        "qwen2" => &QWEN2,
        "qwen3" => &QWEN3,
        "smollm3" => &SMOLLM3,
        _ => &LLAMA,
    };
    let mut c = base(r, kind, Names::Llama, defaults)?;
    c.ropes = vec![rope::one_for_all(r, defaults.rope_base, c.context)?];
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
        no_rope(r, &mut c)?;
    }
    let (window, usual) = window(r, kind, &c)?;
    let sliding = r.layer_types(c.layers.len())?.unwrap_or(usual);
    slide(r, &mut c, window, &sliding)?;
    Ok(c)
}

/// The window of Mistral, Qwen and SmolLM3, and which layers have it where `layer_types` does not
/// say.
fn window(r: &Reader<'_>, kind: &str, c: &Config) -> Result<(Option<usize>, Vec<bool>)> {
    let layers = c.layers.len();
    if kind == "mistral" {
        let window = r.count_or_none("sliding_window", 4096)?;
        return Ok((window, vec![window.is_some(); layers]));
    }
    let used = r.flag("use_sliding_window", false)?;
    if kind == "smollm3" {
        // Layers that layer_types lists slide whether use_sliding_window is set or not: their mask
        // does not ask.
        let window = r.count("sliding_window")?;
        let usual = c
            .layers
            .iter()
            .map(|l| used && window.is_some() && l.rope.is_none())
            .collect();
        return Ok((window, usual));
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

/// SmolLM3: layers whose flag is 0 have no rotary embedding.
fn no_rope(r: &Reader<'_>, c: &mut Config) -> Result<()> {
    let layers = c.layers.len();
    let interval = r.count("no_rope_layer_interval")?.unwrap_or(4);
    let flags: Vec<bool> = match r.get("no_rope_layers") {
        None if interval == 0 => return Err(r.wrong("no_rope_layer_interval is 0")),
        None => (1..=layers).map(|i| i.is_multiple_of(interval)).collect(),
        Some(value) => match value.as_array() {
            Some(list) if list.len() >= layers && list.iter().all(serde_json::Value::is_u64) => {
                list.iter()
                    .take(layers)
                    .map(|v| v.as_u64() == Some(0))
                    .collect()
            }
            _ => {
                return Err(r.wrong(format!(
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

pub(super) fn gemma(r: &Reader<'_>, kind: &str) -> Result<Config> {
    let (names, defaults) = match kind {
        "gemma" => (Names::Llama, &GEMMA),
        "gemma2" => (Names::Gemma, &GEMMA2),
        _ => (Names::Gemma, &GEMMA3),
    };
    let mut c = base(r, kind.trim_end_matches("_text"), names, defaults)?;
    c.norm.plus_one = true;
    c.embed_scale = Some((c.d_model as f64).sqrt());
    let bias = r.flag("attention_bias", false)?;
    (c.qkv_bias, c.out_bias) = (bias, bias);
    if kind == "gemma" {
        // The first Gemma's configs say "gelu", and its code means the tanh form.
        if r.text("hidden_act")? == Some("gelu") {
            c.activation = Activation::GeluTanh;
        }
        refuse_sliding(r, &c)?;
        c.ropes = vec![rope::one_for_all(r, defaults.rope_base, c.context)?];
        return Ok(c);
    }
    c.post_norms = true;
    c.attention_scale = 1.0 / r.number("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt();
    let caps = kind == "gemma2";
    c.attention_softcap = r.number_or_none("attn_logit_softcapping", caps.then_some(50.0))?;
    c.final_softcap = r.number_or_none("final_logit_softcapping", caps.then_some(30.0))?;
    let period = if caps {
        2
    } else {
        c.qk_norm = true;
        r.count("sliding_window_pattern")?.unwrap_or(6)
    };
    if period == 0 {
        return Err(r.wrong("sliding_window_pattern is 0"));
    }
    let layers = c.layers.len();
    let usual = || (1..=layers).map(|i| !i.is_multiple_of(period)).collect();
    let sliding: Vec<bool> = r.layer_types(layers)?.unwrap_or_else(usual);
    let window = r.count_or_none("sliding_window", 4096)?;
    slide(r, &mut c, window, &sliding)?;
    if caps {
        c.ropes = vec![rope::one_for_all(r, defaults.rope_base, c.context)?];
    } else {
        c.ropes = rope::gemma3(r, c.context)?.to_vec();
        let local = |layer: &mut LayerKind| layer.rope = Some(usize::from(layer.window.is_some()));
        c.layers.iter_mut().for_each(local);
    }
    Ok(c)
}

/// The wrapper of Gemma 3 with pictures: its text model alone is read.
pub(super) fn multimodal(r: &Reader<'_>) -> Result<Config> {
    let Some(map) = r.get("text_config").and_then(serde_json::Value::as_object) else {
        return Err(r.wrong("model_type is gemma3 and text_config is missing"));
    };
    let text = Reader { map, path: r.path };
    let kind = "gemma3_text";
    text.refuse_other_ways(kind)?;
    let mut c = gemma(&text, kind)?;
    // The wrapper's head is the wrapper's: it ties by its own flag, and caps no logits.
    c.tied = r.flag("tie_word_embeddings", true)?;
    c.final_softcap = None;
    Ok(c)
}

pub(super) fn gpt2(r: &Reader<'_>) -> Result<Config> {
    // The class takes the usual names for its own too, and sets them last.
    let count = |own: &str, usual: &str, default: usize| -> Result<usize> {
        let usual = r.count(usual)?;
        Ok(usual.or(r.count(own)?).unwrap_or(default))
    };
    let layers = count("n_layer", "num_hidden_layers", 12)?;
    let (d_model, heads) = (
        count("n_embd", "hidden_size", 768)?,
        count("n_head", "num_attention_heads", 12)?,
    );
    sane(r, layers, heads)?;
    if !d_model.is_multiple_of(heads) {
        return Err(r.wrong(format!(
            "a width of {d_model} does not divide among {heads} heads"
        )));
    }
    let eps = r.number("layer_norm_epsilon")?.unwrap_or(1e-5);
    let head_dim = d_model / heads;
    let c = Config {
        family: "gpt2".into(),
        d_model,
        d_mlp: r.count("n_inner")?.unwrap_or(4 * d_model),
        heads,
        kv_heads: heads,
        head_dim,
        vocab: r.count("vocab_size")?.unwrap_or(50_257),
        context: count("n_positions", "max_position_embeddings", 1024)?,
        norm: Norm {
            kind: NormKind::Layer,
            eps,
            plus_one: false,
        },
        activation: r.activation("activation_function", "gelu_new")?,
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
        layers: vec![
            LayerKind {
                window: None,
                rope: None
            };
            layers
        ],
        attention_scale: 1.0 / (head_dim as f64).sqrt(),
        attention_softcap: None,
        final_softcap: None,
        embed_scale: None,
        tied: r.flag("tie_word_embeddings", true)?,
        names: Names::Gpt2,
    };
    refuse_sliding(r, &c)?;
    Ok(c)
}

pub(super) fn neox(r: &Reader<'_>) -> Result<Config> {
    let mut c = base(r, "gpt_neox", Names::NeoX, &NEOX)?;
    let eps = r.number("layer_norm_eps")?.unwrap_or(1e-5);
    c.norm = Norm {
        kind: NormKind::Layer,
        eps,
        plus_one: false,
    };
    c.gated = false;
    c.kv_heads = c.heads;
    if c.head_dim != c.d_model / c.heads {
        return Err(r.wrong(format!(
            "head_dim = {} is a switch that mlpeek does not know for gpt_neox",
            c.head_dim
        )));
    }
    c.parallel = r.flag("use_parallel_residual", true)?;
    let bias = r.flag("attention_bias", true)?;
    (c.qkv_bias, c.out_bias, c.mlp_bias) = (bias, bias, true);
    c.qkv_order = QkvOrder::PerHead;
    let (rope, share): (Rope, f64) = rope::neox(r, c.context)?;
    c.ropes = vec![rope];
    c.rotary_dims = (c.head_dim as f64 * share) as usize;
    if !c.rotary_dims.is_multiple_of(2) {
        let problem = format!(
            "rotary_pct = {share} rotates {} of the {} values of a head: mlpeek knows even numbers only",
            c.rotary_dims, c.head_dim
        );
        return Err(r.wrong(problem));
    }
    refuse_sliding(r, &c)?;
    Ok(c)
}
