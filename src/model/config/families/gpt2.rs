//! GPT-2: LayerNorm, learned positions instead of rotary embeddings, an MLP without a gate.

use super::Family;
use crate::error::Result;
use crate::model::config::hf::base::{check_counts, refuse_sliding};
use crate::model::config::hf::{self, Neutral};
use crate::model::config::names::UNNAMED;
use crate::model::config::{Activation, Config, Norm, NormKind, Sizes, TensorNames, gguf};

pub(super) const FAMILY: Family = Family {
    hf: &[("gpt2", from_hf)],
    gguf: &[("gpt2", from_gguf)],
};

/// The tensor names of `GPT2LMHeadModel`.
const NAMES: TensorNames = TensorNames {
    prefixes: &["transformer.", ""],
    embedding: "wte",
    positions: "wpe",
    final_norm: "ln_f",
    unembedding: "lm_head",
    layers: "h.",
    attn_norm: "ln_1",
    qkv: "attn.c_attn",
    out: "attn.c_proj",
    mlp_norm: "ln_2",
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    ..UNNAMED
};

/// Sets what files of both formats mean alike.
fn shared(c: &mut Config, eps: f64, activation: Activation) {
    c.norm = Norm {
        kind: NormKind::Layer,
        eps,
        plus_one: false,
    };
    c.activation = activation;
    (c.gated, c.learned_positions) = (false, true);
    c.rotary_dims = 0;
    c.layers.iter_mut().for_each(|l| l.rope = None);
}

fn from_hf(r: &hf::Reader<'_>, _: &str) -> Result<Config> {
    r.refuse_switches(&[
        ("add_cross_attention", Neutral::False),
        ("scale_attn_by_inverse_layer_idx", Neutral::False),
        ("scale_attn_weights", Neutral::True),
    ])?;
    // The class also takes the names that other families use, and they override its own.
    let count = |own: &str, usual: &str, default: usize| -> Result<usize> {
        let usual = r.count(usual)?;
        Ok(usual.or(r.count(own)?).unwrap_or(default))
    };
    let layers = count("n_layer", "num_hidden_layers", 12)?;
    let (d_model, heads) = (
        count("n_embd", "hidden_size", 768)?,
        count("n_head", "num_attention_heads", 12)?,
    );
    check_counts(r, layers, heads)?;
    if !d_model.is_multiple_of(heads) {
        return Err(r.error(format!(
            "a width of {d_model} does not divide among {heads} heads"
        )));
    }
    let sizes = Sizes {
        layers,
        d_model,
        d_mlp: r.count("n_inner")?.unwrap_or(4 * d_model),
        heads,
        kv_heads: heads,
        head_dim: d_model / heads,
        vocab: r.count("vocab_size")?.unwrap_or(50_257),
        context: count("n_positions", "max_position_embeddings", 1024)?,
    };
    let mut c = Config::llama("gpt2", sizes, &NAMES);
    let eps = r.number("layer_norm_epsilon")?.unwrap_or(1e-5);
    shared(
        &mut c,
        eps,
        r.activation("activation_function", "gelu_new")?,
    );
    (c.qkv_bias, c.out_bias, c.mlp_bias) = (true, true, true);
    c.conv1d = true;
    c.tied = r.flag("tie_word_embeddings", true)?;
    refuse_sliding(r, &c)?;
    Ok(c)
}

fn from_gguf(r: &gguf::Reader<'_>, c: &mut Config) -> Result<()> {
    let eps = r.number("attention.layer_norm_epsilon")?.unwrap_or(1e-5);
    shared(c, eps, Activation::GeluTanh);
    c.ropes.clear();
    r.refuse_window()
}
