//! Switches from Hugging Face's `config.json`, of both generations (`rope_theta` and `rope_scaling`; `rope_parameters`
//! and `layer_types`).

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Activation, Config, LayerKind, Names, Norm, NormKind, QkvOrder, Rope, RopeScaling};
use crate::error::{Error, Result};

const SUPPORTED: &str = "llama, mistral, qwen2, qwen3, smollm3, gemma, gemma2, gemma3, gemma3_text, gpt2, gpt_neox";

/// Keys that say nothing of how a forward pass computes.
const NEUTRAL: &[&str] = &[
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "max_window_layers",
    "mm_tokens_per_image",
    "model_type",
    "n_ctx",
    "output_past",
    "pad_token_id",
    "problem_type",
    "reorder_and_upcast_attn",
    "resid_pdrop",
    "return_dict",
    "sep_token_id",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "vocab_size",
];

/// One `config.json` (or its `text_config`), which remembers what was read of it.
struct Reader<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
    read: RefCell<HashSet<&'static str>>,
}

impl<'a> Reader<'a> {
    fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key);
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::file(self.path, problem)
    }

    fn count(&self, key: &'static str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|v| usize::try_from(v).ok());
        count.map(Some).ok_or_else(|| self.wrong(format!("{key} is {value}, not a count")))
    }

    fn need(&self, key: &'static str, default: Option<usize>) -> Result<usize> {
        self.count(key)?.or(default).ok_or_else(|| self.wrong(format!("{key} is missing")))
    }

    fn number(&self, key: &'static str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(format!("{key} is {value}, not a number")))
    }

    /// An explicit null means no soft-cap: only a missing key falls back to the family's default.
    fn softcap(&self, key: &'static str, default: Option<f64>) -> Result<Option<f64>> {
        if self.map.contains_key(key) { self.number(key) } else { Ok(default) }
    }

    fn flag(&self, key: &'static str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(format!("{key} is {value}, not true or false")))
    }

    fn text(&self, key: &'static str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(format!("{key} is {value}, not a text")))
    }

    /// A switch that is only known in one position.
    fn only(&self, key: &'static str, neutral: &Value) -> Result<()> {
        match self.get(key) {
            Some(v) if v != neutral => Err(self.wrong(format!("{key} = {v} is a switch that mlpeek does not know"))),
            _ => Ok(()),
        }
    }

    /// Whatever was not read and could matter.
    fn refuse_unknown(&self) -> Result<()> {
        let read = self.read.borrow();
        for (key, value) in self.map {
            let off = value.is_null() || value == &Value::Bool(false);
            let known = read.contains(key.as_str()) || NEUTRAL.contains(&key.as_str()) || key.starts_with('_');
            if !off && !known {
                let shown: String = value.to_string().chars().take(60).collect();
                return Err(self.wrong(format!("{key} = {shown} is a switch that mlpeek does not know")));
            }
        }
        Ok(())
    }

    fn layer_types(&self, layers: usize) -> Result<Option<Vec<bool>>> {
        let Some(value) = self.get("layer_types") else { return Ok(None) };
        let Some(list) = value.as_array().filter(|l| l.len() == layers) else {
            return Err(self.wrong(format!("layer_types must list {layers} layers")));
        };
        list.iter()
            .map(|v| match v.as_str() {
                Some("full_attention") => Ok(false),
                Some("sliding_attention") => Ok(true),
                _ => Err(self.wrong(format!("layer_types: {v} is a kind of layer that mlpeek does not know"))),
            })
            .collect::<Result<_>>()
            .map(Some)
    }
}

/// A rotary embedding from `rope_parameters` (one kind of layer) or `rope_scaling`.
fn rope(r: &Reader<'_>, params: Option<&Map<String, Value>>, base: f64) -> Result<(Rope, Option<f64>)> {
    let Some(params) = params else { return Ok((Rope::new(base), None)) };
    const KNOWN: &[&str] = &[
        "rope_theta",
        "rope_type",
        "type",
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
        "partial_rotary_factor",
    ];
    if let Some((key, value)) = params.iter().find(|(k, v)| !v.is_null() && !KNOWN.contains(&k.as_str())) {
        return Err(r.wrong(format!("rope parameter {key} = {value} is a switch that mlpeek does not know")));
    }
    let number = |key: &str| params.get(key).and_then(Value::as_f64);
    let need = |key: &str| {
        number(key)
            .filter(|v| *v > 0.0)
            .ok_or_else(|| r.wrong(format!("rope scaling: {key} is missing or not positive")))
    };
    let base = number("rope_theta").unwrap_or(base);
    let kind = params.get("rope_type").or_else(|| params.get("type")).and_then(Value::as_str).unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear(need("factor")?),
        "llama3" => RopeScaling::Llama3 {
            factor: need("factor")?,
            low: need("low_freq_factor")?,
            high: need("high_freq_factor")?,
            original: need("original_max_position_embeddings")?,
        },
        other => return Err(r.wrong(format!("rope scaling '{other}' is a switch that mlpeek does not know"))),
    };
    Ok((Rope { base, scaling }, number("partial_rotary_factor")))
}

/// The rotary embeddings (of full layers, of sliding layers) and the share of a head that is rotated.
fn ropes(r: &Reader<'_>, base: f64, local_base: Option<f64>) -> Result<(Vec<Rope>, Option<f64>)> {
    let base = r.number("rope_theta")?.unwrap_or(base);
    let scaling = r.get("rope_scaling").and_then(Value::as_object);
    let Some(params) = r.get("rope_parameters").and_then(Value::as_object) else {
        let (full, share) = rope(r, scaling, base)?;
        let mut out = vec![full];
        if let Some(local) = local_base {
            out.push(Rope::new(local));
        }
        return Ok((out, share));
    };
    if !params.contains_key("full_attention") {
        let (full, share) = rope(r, Some(params), base)?;
        let mut out = vec![full];
        if let Some(local) = local_base {
            out.push(Rope::new(local));
        }
        return Ok((out, share));
    }
    let (full, share) = rope(r, params.get("full_attention").and_then(Value::as_object), base)?;
    let sliding = params.get("sliding_attention").and_then(Value::as_object);
    let (local, _) = rope(r, sliding, local_base.unwrap_or(base))?;
    Ok((vec![full, local], share))
}

impl Config {
    /// The switches of a `config.json`.
    pub fn from_hf(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::from_hf_text(&text, path)
    }

    /// The switches of the text of a `config.json`; `path` is for errors.
    pub fn from_hf_text(text: &str, path: &Path) -> Result<Self> {
        let value: Value = serde_json::from_str(text).map_err(|e| Error::file(path, format!("not JSON: {e}")))?;
        let Some(mut map) = value.as_object() else {
            return Err(Error::file(path, "not a JSON object"));
        };
        let mut kind = map.get("model_type").and_then(Value::as_str).unwrap_or_default();
        if map.contains_key("quantization_config") {
            return Err(Error::file(path, "quantization_config: use an unquantised checkpoint or a GGUF file"));
        }
        if kind == "gemma3" {
            // The multimodal wrapper: the text model alone is read.
            let Some(text) = map.get("text_config").and_then(Value::as_object) else {
                return Err(Error::file(path, "model_type is gemma3 and text_config is missing"));
            };
            (map, kind) = (text, "gemma3_text");
        }
        let r = Reader { map, path, read: RefCell::default() };
        let config = match kind {
            "gpt2" => gpt2(&r)?,
            "gpt_neox" => neox(&r)?,
            "llama" | "mistral" | "qwen2" | "qwen3" | "smollm3" => llama(&r, kind)?,
            "gemma" | "gemma2" | "gemma3_text" => gemma(&r, kind)?,
            "" => return Err(r.wrong("model_type is missing: not a model's config.json")),
            other => {
                return Err(r.wrong(format!("model_type '{other}' is not supported (supported: {SUPPORTED})")));
            }
        };
        for (key, neutral) in [
            ("is_encoder_decoder", Value::Bool(false)),
            ("pretraining_tp", Value::from(1)),
            ("use_bidirectional_attention", Value::Bool(false)),
        ] {
            r.only(key, &neutral)?;
        }
        r.refuse_unknown()?;
        config.check().map_err(|e| Error::file(path, e))
    }
}

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

fn llama(r: &Reader<'_>, kind: &str) -> Result<Config> {
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

fn gemma(r: &Reader<'_>, kind: &str) -> Result<Config> {
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

fn gpt2(r: &Reader<'_>) -> Result<Config> {
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

fn neox(r: &Reader<'_>) -> Result<Config> {
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
