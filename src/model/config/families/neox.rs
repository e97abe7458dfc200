//! GPT-NeoX, the architecture of Pythia: attention and MLP may read the same input, q, k and v lie
//! side by side for each head, and only a part of a head is rotated. There are no GGUF files of it
//! to hold it against.

use super::Family;
use crate::error::Result;
use crate::model::config::hf::base::{Defaults, LLAMA, base, refuse_sliding};
use crate::model::config::names::UNNAMED;
use crate::model::config::{Config, Norm, NormKind, QkvOrder, Rope, TensorNames, hf};

pub(super) const FAMILY: Family = Family {
    hf: &[("gpt_neox", from_hf)],
    gguf: &[],
};

/// The tensor names of `GPTNeoXForCausalLM`.
const NAMES: TensorNames = TensorNames {
    prefixes: &["gpt_neox.", ""],
    embedding: "embed_in",
    final_norm: "final_layer_norm",
    unembedding: "embed_out",
    layers: "layers.",
    attn_norm: "input_layernorm",
    qkv: "attention.query_key_value",
    out: "attention.dense",
    mlp_norm: "post_attention_layernorm",
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    ..UNNAMED
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

fn from_hf(r: &hf::Reader<'_>, _: &str) -> Result<Config> {
    let mut c = base(r, "gpt_neox", &NAMES, &NEOX)?;
    let eps = r.number("layer_norm_eps")?.unwrap_or(1e-5);
    c.norm = Norm {
        kind: NormKind::Layer,
        eps,
        plus_one: false,
    };
    c.gated = false;
    c.kv_heads = c.heads;
    if c.head_dim != c.d_model / c.heads {
        return Err(r.error(format!(
            "head_dim = {} is a switch that mlpeek does not know for gpt_neox",
            c.head_dim
        )));
    }
    c.parallel = r.flag("use_parallel_residual", true)?;
    let bias = r.flag("attention_bias", true)?;
    (c.qkv_bias, c.out_bias, c.mlp_bias) = (bias, bias, true);
    c.qkv_order = QkvOrder::PerHead;
    let (rope, share): (Rope, f64) = hf::rope::neox(r, c.context)?;
    c.ropes = vec![rope];
    c.rotary_dims = (c.head_dim as f64 * share) as usize;
    if !c.rotary_dims.is_multiple_of(2) {
        let problem = format!(
            "rotary_pct = {share} rotates {} of the {} values of a head: mlpeek knows even numbers only",
            c.rotary_dims, c.head_dim
        );
        return Err(r.error(problem));
    }
    refuse_sliding(r, &c)?;
    Ok(c)
}
