//! Gemma, Gemma 2 and Gemma 3.
//!
//! All three scale the embeddings by sqrt(d_model). Gemma 2 and 3 norm the output of attention and
//! of the MLP before it is added to the residual stream, and alternate sliding with full attention.

use super::{Family, llama};
use crate::error::Result;
use crate::model::config::hf::base::{Defaults, base, refuse_sliding, set_windows};
use crate::model::config::hf::{self, Neutral};
use crate::model::config::{Activation, Config, LayerKind, Rope, TensorNames, gguf};
use crate::model::gguf::Value;

pub(super) const FAMILY: Family = Family {
    hf: &[
        ("gemma", from_hf),
        ("gemma2", from_hf),
        ("gemma3", multimodal),
        ("gemma3_text", from_hf),
    ],
    gguf: &[("gemma2", from_gguf), ("gemma3", from_gguf)],
};

/// The tensor names of Gemma 2 and 3: Llama's, with four norms a layer.
const NAMES: TensorNames = TensorNames {
    post_attn_norm: "post_attention_layernorm",
    mlp_norm: "pre_feedforward_layernorm",
    post_mlp_norm: "post_feedforward_layernorm",
    ..llama::NAMES
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

fn from_hf(r: &hf::Reader<'_>, kind: &str) -> Result<Config> {
    r.refuse_switches(&[("use_bidirectional_attention", Neutral::False)])?;
    let (names, defaults) = match kind {
        "gemma" => (&llama::NAMES, &GEMMA),
        "gemma2" => (&NAMES, &GEMMA2),
        _ => (&NAMES, &GEMMA3),
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
        c.ropes = vec![hf::rope::single(r, defaults.rope_base, c.context)?];
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
        return Err(r.error("sliding_window_pattern is 0"));
    }
    let layers = c.layers.len();
    let default = || (1..=layers).map(|i| !i.is_multiple_of(period)).collect();
    let sliding: Vec<bool> = r.layer_types(layers)?.unwrap_or_else(default);
    let window = r.count_or_none("sliding_window", 4096)?;
    set_windows(r, &mut c, window, &sliding)?;
    if caps {
        c.ropes = vec![hf::rope::single(r, defaults.rope_base, c.context)?];
    } else {
        c.ropes = hf::rope::gemma3(r, c.context)?.to_vec();
        let local = |layer: &mut LayerKind| layer.rope = Some(usize::from(layer.window.is_some()));
        c.layers.iter_mut().for_each(local);
    }
    Ok(c)
}

/// Reads the text model inside the `config.json` of a Gemma 3 that also takes images.
fn multimodal(r: &hf::Reader<'_>, _: &str) -> Result<Config> {
    let Some(map) = r.get("text_config").and_then(serde_json::Value::as_object) else {
        return Err(r.error("model_type is gemma3 and text_config is missing"));
    };
    let text = hf::Reader { map, path: r.path };
    text.refuse_switches(hf::FIXED)?;
    let mut c = from_hf(&text, "gemma3_text")?;
    // The unembedding belongs to the wrapper: it is tied by the wrapper's flag, and its logits have
    // no soft-cap.
    c.tied = r.flag("tie_word_embeddings", true)?;
    c.final_softcap = None;
    Ok(c)
}

fn from_gguf(r: &gguf::Reader<'_>, c: &mut Config) -> Result<()> {
    let window = r.window()?;
    c.activation = Activation::GeluTanh;
    c.post_norms = true;
    c.embed_scale = Some((c.d_model as f64).sqrt());
    let layers = c.layers.len();
    if r.architecture == "gemma2" {
        // llama.cpp's converter drops query_pre_attn_scalar: the 27B model alone differs from the
        // head width.
        if layers == 46 {
            c.attention_scale = 1.0 / ((c.d_model / c.heads) as f64).sqrt();
        }
        c.attention_softcap = c.attention_softcap.or(Some(50.0));
        c.final_softcap = c.final_softcap.or(Some(30.0));
    } else {
        c.qk_norm = true;
        if layers == 62 {
            c.attention_scale = 1.0 / ((c.d_model / c.heads) as f64).sqrt();
        }
        // The file omits the base of the sliding layers.
        c.ropes.push(Rope::new(
            r.number("rope.freq_base_swa")?.unwrap_or(10_000.0),
        ));
    }
    let period = if r.architecture == "gemma2" { 2 } else { 6 };
    let local_rope = c.ropes.len() - 1;
    let flags = match r.get("attention.sliding_window_pattern") {
        Some(Value::Ints(flags)) if flags.len() == layers => {
            Some(flags.iter().map(|f| *f != 0).collect::<Vec<_>>())
        }
        Some(Value::Int(p)) if *p > 0 => Some(
            (1..=layers)
                .map(|i| !i.is_multiple_of(*p as usize))
                .collect(),
        ),
        Some(_) => return Err(r.error("attention.sliding_window_pattern does not fit the layers")),
        None => None,
    };
    for (i, layer) in c.layers.iter_mut().enumerate() {
        let sliding = flags
            .as_ref()
            .map_or(!(i + 1).is_multiple_of(period), |f| f[i]);
        if sliding {
            *layer = LayerKind {
                window,
                rope: Some(local_rope),
            };
        }
    }
    Ok(())
}
