//! Gemma 3 on real weights against candle's own model with the same weights widened.
//!
//! `MLPEEK_TEST_GEMMA=gemma-3-270m-q4_k_m.gguf cargo test --release --test gemma3 -- --ignored`

#[path = "support/parity.rs"]
#[allow(dead_code)]
mod parity;
#[path = "support/tensors.rs"]
mod tensors;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::gemma3;
use mlpeek::TaskCtx;
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;
use mlpeek::model::{Batch, Decoder, Logits, NoTap, Phase};
use parity::Row;
use tensors::relative;

fn path() -> PathBuf {
    std::env::var_os("MLPEEK_TEST_GEMMA")
        .expect("set MLPEEK_TEST_GEMMA to the Gemma 3 270M GGUF file")
        .into()
}

fn candle_gemma() -> gemma3::Model {
    let mut file = File::open(path()).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut tensors = HashMap::new();
    for name in content.tensor_infos.keys() {
        let mut t = content
            .tensor(&mut file, name, &Device::Cpu)
            .unwrap()
            .dequantize(&Device::Cpu)
            .unwrap();
        if name.contains("norm") {
            // candle adds the 1 that the file already holds.
            t = (t - 1.0).unwrap();
        }
        let mut to = name.replace("blk.", "model.layers.");
        for (from, into) in [
            ("attn_q_norm", "self_attn.q_norm"),
            ("attn_k_norm", "self_attn.k_norm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("post_attention_norm", "post_attention_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
            ("attn_norm", "input_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
            ("token_embd", "model.embed_tokens"),
            ("output_norm", "model.norm"),
        ] {
            to = to.replace(from, into);
        }
        tensors.insert(to, t);
    }
    let config = gemma3::Config {
        attention_bias: false,
        head_dim: 256,
        hidden_activation: Activation::GeluPytorchTanh,
        hidden_size: 640,
        intermediate_size: 2048,
        num_attention_heads: 4,
        num_hidden_layers: 18,
        num_key_value_heads: 1,
        rms_norm_eps: 1e-6,
        rope_theta: 1_000_000.0,
        rope_local_base_freq: 10_000.0,
        vocab_size: 262_144,
        final_logit_softcapping: None,
        attn_logit_softcapping: None,
        query_pre_attn_scalar: 256,
        sliding_window: 512,
        sliding_window_pattern: 6,
        max_position_embeddings: 1024,
    };
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    gemma3::Model::new(false, &config, vb).unwrap()
}

#[test]
#[ignore = "needs the Gemma 3 270M weights"]
fn dequantised_logits_and_continuation_equal_candles_gemma3() {
    let weights = Weights::open_gguf(&path()).unwrap();
    let ctx = TaskCtx::silent();
    let ours = Decoder::on_cpu(Config::from_gguf(&weights).unwrap(), &weights, None, &ctx).unwrap();
    let mut theirs = candle_gemma();
    let mut rows = vec![vec![
        2u32, 818, 5279, 529, 7001, 563, 9079, 236764, 532, 506, 5279, 529, 12413, 563,
    ]];
    let mut cache = ours.new_cache(1);
    let (mut at, mut worst, mut picked) = (0, 0.0f32, Vec::new());
    for _ in 0..12 {
        let batch = Batch {
            rows: rows.clone(),
            samples: Vec::new(),
        };
        let a = ours.forward(
            &batch,
            Phase::Prompt,
            Some(&mut cache),
            &mut NoTap,
            Logits::Last,
            &ctx,
        );
        let a = a.unwrap().unwrap().flatten_all().unwrap();
        let input = Tensor::new(rows[0].as_slice(), &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        let b = theirs.forward(&input, at).unwrap().flatten_all().unwrap();
        worst = worst.max(relative(&a, &b));
        let pick = |t: &Tensor| t.argmax(0).unwrap().to_scalar::<u32>().unwrap();
        picked.push((pick(&a), pick(&b)));
        at += rows[0].len();
        rows = vec![vec![pick(&a)]];
    }
    assert!(worst < 1e-4, "logits differ by {worst}");
    parity::hold(&[Row {
        model: "Gemma 3 270M".into(),
        weights: "GGUF Q4_K_M, widened",
        reference: "candle-transformers gemma3, f32",
        hooks: None,
        logits: worst,
        on_tensors: None,
    }]);
    assert!(picked.iter().all(|(a, b)| a == b), "{picked:?}");
}
