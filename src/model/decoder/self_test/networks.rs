//! Networks on a device against this crate's kernels: small ones made on the spot, of every kind of
//! attention and norm, and the first layers of a real model.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};

use super::{Comparison, DTYPES, relative};
use crate::error::{Error, Result};
use crate::model::config::{Config, NormKind, QkvOrder};
use crate::model::decoder::products::scattered;
use crate::model::decoder::{Decoder, Logits, open};
use crate::model::weights::Weights;
use crate::model::{Batch, HookPoint, HookSite, ModelFiles, NoTap, Pass, Phase, Tap};
use crate::task::TaskCtx;

/// Heads of 16 and 32, windows, caps, partial and no rotation, all norms; embeddings that are the
/// unembedding too and that lie apart from it.
fn kinds() -> [(&'static str, Value); 6] {
    let common = |more: Value| {
        let mut all = json!({
            "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 101, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0, "tie_word_embeddings": true
        });
        if let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) {
            all.extend(more.clone());
        }
        all
    };
    [
        (
            "Llama",
            common(json!({"model_type": "llama", "hidden_act": "silu"})),
        ),
        (
            "Llama, untied embeddings",
            common(json!({
                "model_type": "llama", "hidden_act": "silu", "tie_word_embeddings": false
            })),
        ),
        (
            "Gemma 2",
            common(json!({
                "model_type": "gemma2", "head_dim": 32, "hidden_activation": "gelu_pytorch_tanh",
                "query_pre_attn_scalar": 20, "sliding_window": 6, "attn_logit_softcapping": 2.0,
                "final_logit_softcapping": 10.0, "layer_types": ["sliding_attention", "full_attention"]
            })),
        ),
        (
            "Qwen3",
            common(json!({"model_type": "qwen3", "head_dim": 32, "hidden_act": "silu"})),
        ),
        (
            "GPT-NeoX",
            common(json!({
                "model_type": "gpt_neox", "hidden_act": "gelu", "layer_norm_eps": 1e-5,
                "rotary_pct": 0.25, "use_parallel_residual": true, "tie_word_embeddings": false
            })),
        ),
        (
            "GPT-2",
            json!({
                "model_type": "gpt2", "activation_function": "gelu_new", "n_embd": 64, "n_head": 4, "n_inner": 160,
                "n_layer": 2, "n_positions": 64, "layer_norm_epsilon": 1e-5, "vocab_size": 101
            }),
        ),
    ]
}

/// Small networks of every kind on a device, in every type.
pub fn networks(device: &Device) -> Vec<Comparison> {
    let mut out = Vec::new();
    for (name, config) in kinds() {
        for (dtype, _, most) in DTYPES {
            let found = network(&config, device, dtype);
            out.push(Comparison::new(name, dtype, found, most));
        }
    }
    out
}

fn network(config: &Value, device: &Device, dtype: DType) -> Result<f64> {
    let config = Config::from_hf_text(&config.to_string(), Path::new("self-test"))?;
    let weights = random_weights(&config)?;
    let ctx = TaskCtx::silent();
    let reference = Decoder::on_cpu(config.clone(), &weights, None, &ctx)?;
    let tested = Decoder::on_device(config, &weights, None, device, dtype, &ctx)?;
    relative(&logits(&tested, &ctx)?, &logits(&reference, &ctx)?)
}

/// The logits of three prompts of unequal lengths and of two tokens after each.
fn logits(decoder: &Decoder, ctx: &TaskCtx) -> Result<Tensor> {
    let mut cache = decoder.new_cache(3);
    let prompts = vec![
        (1..20).collect(),
        vec![40, 41],
        vec![60, 3, 60, 3, 60, 3, 60, 3, 60],
    ];
    let one = |id: u32| vec![vec![id]; 3];
    let mut out = Vec::new();
    for (rows, phase) in [
        (prompts, Phase::Prompt),
        (one(7), Phase::Generated),
        (one(90), Phase::Generated),
    ] {
        let batch = Batch {
            rows,
            samples: Vec::new(),
        };
        let logits = decoder.forward(
            &batch,
            phase,
            Some(&mut cache),
            &mut NoTap,
            Logits::Last,
            ctx,
        )?;
        out.push(logits.ok_or_else(no_logits)?.to_device(&Device::Cpu)?);
    }
    Ok(Tensor::cat(&out, 0)?)
}

fn no_logits() -> Error {
    Error::refused("the model returned no logits")
}

/// Weights of a model's size for a configuration, the same every time.
fn random_weights(config: &Config) -> Result<Weights> {
    let (c, n) = (config, config.names);
    let prefix = n.prefixes.first().copied().unwrap_or_default();
    let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
    let layer_norms = c.norm.kind == NormKind::Layer;
    let norm = |tensors: &mut Vec<_>, name: String, width: usize, bias: bool| {
        tensors.push((format!("{name}.weight"), vec![width]));
        if bias {
            tensors.push((format!("{name}.bias"), vec![width]));
        }
    };
    let linear = |tensors: &mut Vec<_>, name: String, out: usize, cols: usize, bias: bool| {
        let shape = if c.conv1d {
            vec![cols, out]
        } else {
            vec![out, cols]
        };
        tensors.push((format!("{name}.weight"), shape));
        if bias {
            tensors.push((format!("{name}.bias"), vec![out]));
        }
    };
    let embedding = vec![c.vocab, c.d_model];
    tensors.push((format!("{prefix}{}.weight", n.embedding), embedding.clone()));
    if c.learned_positions {
        let name = format!("{prefix}{}.weight", n.positions);
        tensors.push((name, vec![c.context, c.d_model]));
    }
    if !c.tied {
        tensors.push((format!("{}.weight", n.unembedding), embedding));
    }
    norm(
        &mut tensors,
        format!("{prefix}{}", n.final_norm),
        c.d_model,
        layer_norms,
    );
    for layer in 0..c.layers.len() {
        let name = |own: &str| format!("{prefix}{}{layer}.{own}", n.layers);
        let t = &mut tensors;
        norm(t, name(n.attn_norm), c.d_model, layer_norms);
        norm(t, name(n.mlp_norm), c.d_model, layer_norms);
        if c.post_norms {
            norm(t, name(n.post_attn_norm), c.d_model, false);
            norm(t, name(n.post_mlp_norm), c.d_model, false);
        }
        if c.qk_norm {
            norm(t, name(n.q_norm), c.head_dim, false);
            norm(t, name(n.k_norm), c.head_dim, false);
        }
        if c.qkv_order == QkvOrder::PerHead || n.q == "-" {
            let width = c.q_width() + 2 * c.kv_width();
            linear(t, name(n.qkv), width, c.d_model, c.qkv_bias);
        } else {
            linear(t, name(n.q), c.q_width(), c.d_model, c.qkv_bias);
            linear(t, name(n.k), c.kv_width(), c.d_model, c.qkv_bias);
            linear(t, name(n.v), c.kv_width(), c.d_model, c.qkv_bias);
        }
        linear(t, name(n.out), c.d_model, c.q_width(), c.out_bias);
        if c.gated {
            linear(t, name(n.gate), c.d_mlp, c.d_model, c.mlp_bias);
        }
        linear(t, name(n.up), c.d_mlp, c.d_model, c.mlp_bias);
        linear(t, name(n.down), c.d_model, c.d_mlp, c.mlp_bias);
    }
    let count = tensors.iter().map(|(_, s)| s.iter().product::<usize>());
    let all = scattered(count.sum());
    let mut rest = all.as_slice();
    let tensors = tensors.into_iter().map(|(name, shape)| {
        let (own, after) = rest.split_at(shape.iter().product());
        rest = after;
        // Products keep the size of what they read; norms scale by about 1.
        let (scale, offset) = match shape.len() {
            2 => ((3.0 / c.d_model as f32).sqrt(), 0.0),
            _ => (0.2, if c.norm.plus_one { 0.0 } else { 1.0 }),
        };
        let offset = if name.ends_with(".bias") { 0.0 } else { offset };
        let values = own.iter().map(|v| scale * v + offset).collect();
        (name, shape, values)
    });
    Weights::in_memory(tensors.collect())
}

/// The residual stream after each of a model's first layers, `count` at most, on a device and here,
/// of the tokens `ids`.
///
/// # Errors
/// Files that cannot be opened, and what a pass refuses.
pub fn first_layers(
    files: &ModelFiles,
    count: usize,
    ids: &[u32],
    (device, dtype): (&Device, DType),
    ctx: &TaskCtx,
) -> Result<Vec<Comparison>> {
    let (config, weights) = open::describe(files)?;
    let count = count.min(config.layers.len());
    let reference = Decoder::on_cpu(config.clone(), &weights, Some(count), ctx)?;
    let tested = Decoder::on_device(config, &weights, Some(count), device, dtype, ctx)?;
    let (reference, tested) = (streams(&reference, ids, ctx)?, streams(&tested, ids, ctx)?);
    let most = DTYPES
        .iter()
        .find(|d| d.0 == dtype)
        .map_or(0.0, |&(_, _, most)| most);
    Ok(tested
        .iter()
        .zip(&reference)
        .enumerate()
        .map(|(layer, (x, right))| {
            let name = format!("layer {layer}");
            Comparison::new(name, dtype, relative(x, right), most)
        })
        .collect())
}

/// Keeps the residual stream after each layer.
struct Streams {
    hooks: Vec<HookPoint>,
    seen: Vec<Tensor>,
}

impl Tap for Streams {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }
    fn intercept(&mut self, _: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        self.seen.push(x.to_device(&Device::Cpu)?);
        Ok(None)
    }
}

fn streams(decoder: &Decoder, ids: &[u32], ctx: &TaskCtx) -> Result<Vec<Tensor>> {
    let hooks = (0..decoder.loaded_layers()).map(|layer| HookPoint {
        layer,
        site: HookSite::ResidPost,
    });
    let mut tap = Streams {
        hooks: hooks.collect(),
        seen: Vec::new(),
    };
    let batch = Batch {
        rows: vec![ids.to_vec()],
        samples: Vec::new(),
    };
    decoder.forward(&batch, Phase::Prompt, None, &mut tap, Logits::None, ctx)?;
    Ok(tap.seen)
}
