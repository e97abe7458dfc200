//! The decoder on real weights against candle's own models, path by path.
//!
//! `MLPEEK_TEST_MODEL=SmolLM2-135M-Instruct.Q4_1.gguf cargo test --release --test smollm2 --
//! --ignored`

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
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, quantized_llama};
use mlpeek::TaskCtx;
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;
use mlpeek::model::{Batch, Decoder, Logits, NoTap, Phase};
use parity::Row;
use tensors::relative;

/// "The capital of France is Paris, and the capital of Italy is"
const IDS: [u32; 13] = [
    504, 3575, 282, 4649, 314, 7042, 28, 284, 260, 3575, 282, 7158, 314,
];

fn path() -> PathBuf {
    std::env::var_os("MLPEEK_TEST_MODEL")
        .expect("set MLPEEK_TEST_MODEL to the SmolLM2 GGUF file")
        .into()
}

fn ours() -> Decoder {
    let weights = Weights::open_gguf(&path()).unwrap();
    Decoder::on_cpu(
        Config::from_gguf(&weights).unwrap(),
        &weights,
        None,
        &TaskCtx::silent(),
    )
    .unwrap()
}

/// The rows of a GGUF's q or k in Hugging Face's order: (2i, 2i + 1) back to (i, i + half).
fn unpermuted(w: &Tensor, heads: usize) -> Tensor {
    let (rows, cols) = w.dims2().unwrap();
    let w = w.reshape((heads, rows / heads / 2, 2, cols)).unwrap();
    w.transpose(1, 2)
        .unwrap()
        .reshape((rows, cols))
        .unwrap()
        .contiguous()
        .unwrap()
}

fn candle_llama() -> (llama::Llama, llama::Config) {
    let mut file = File::open(path()).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut tensors = HashMap::new();
    let mut get = |from: &str, to: String, heads: usize| {
        let t = content
            .tensor(&mut file, from, &Device::Cpu)
            .unwrap()
            .dequantize(&Device::Cpu)
            .unwrap();
        let t = if heads > 0 { unpermuted(&t, heads) } else { t };
        tensors.insert(to, t);
    };
    get("token_embd.weight", "model.embed_tokens.weight".into(), 0);
    get("output_norm.weight", "model.norm.weight".into(), 0);
    for i in 0..30 {
        for (from, to, heads) in [
            ("attn_norm", "input_layernorm", 0),
            ("attn_q", "self_attn.q_proj", 9),
            ("attn_k", "self_attn.k_proj", 3),
            ("attn_v", "self_attn.v_proj", 0),
            ("attn_output", "self_attn.o_proj", 0),
            ("ffn_norm", "post_attention_layernorm", 0),
            ("ffn_gate", "mlp.gate_proj", 0),
            ("ffn_up", "mlp.up_proj", 0),
            ("ffn_down", "mlp.down_proj", 0),
        ] {
            get(
                &format!("blk.{i}.{from}.weight"),
                format!("model.layers.{i}.{to}.weight"),
                heads,
            );
        }
    }
    let config = llama::Config {
        hidden_size: 576,
        intermediate_size: 1536,
        vocab_size: 49152,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        use_flash_attn: false,
        rms_norm_eps: 1e-5,
        rope_theta: 100_000.0,
        bos_token_id: None,
        eos_token_id: None,
        rope_scaling: None,
        max_position_embeddings: 2048,
        tie_word_embeddings: true,
    };
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    (llama::Llama::load(vb, &config).unwrap(), config)
}

fn forward(d: &Decoder, ids: &[u32]) -> Tensor {
    let batch = Batch {
        rows: vec![ids.to_vec()],
        samples: Vec::new(),
    };
    d.forward(
        &batch,
        Phase::Prompt,
        None,
        &mut NoTap,
        Logits::Last,
        &TaskCtx::silent(),
    )
    .unwrap()
    .unwrap()
}

/// Greedy continuation of IDS by token-wise passes of a phase.
fn greedy(d: &Decoder, phase: Phase, count: usize) -> Vec<u32> {
    let (ctx, mut cache) = (TaskCtx::silent(), d.new_cache(1));
    let mut rows = vec![IDS.to_vec()];
    let mut phase_now = Phase::Prompt;
    let mut out = Vec::new();
    for _ in 0..count {
        let batch = Batch {
            rows: rows.clone(),
            samples: Vec::new(),
        };
        let logits = d
            .forward(
                &batch,
                phase_now,
                Some(&mut cache),
                &mut NoTap,
                Logits::Last,
                &ctx,
            )
            .unwrap()
            .unwrap();
        let id = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
        out.push(id);
        rows = vec![vec![id]];
        phase_now = phase;
    }
    out
}

#[test]
#[ignore = "needs the SmolLM2 weights"]
fn dequantised_logits_and_continuation_equal_candles_llama() {
    let decoder = ours();
    let (theirs, config) = candle_llama();
    let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
    let input = Tensor::new(&IDS[..], &Device::Cpu)
        .unwrap()
        .unsqueeze(0)
        .unwrap();
    let mut logits = theirs.forward(&input, 0, &mut cache).unwrap();
    let error = relative(&forward(&decoder, &IDS), &logits);
    assert!(error < 1e-4, "logits differ by {error}");
    parity::hold(&[Row {
        model: "SmolLM2-135M-Instruct".into(),
        weights: "GGUF Q4_1, widened",
        reference: "candle-transformers llama, f32",
        hooks: None,
        logits: error,
        on_tensors: None,
    }]);
    let mut ids = Vec::new();
    for i in 0..24 {
        let id = logits.argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
        ids.push(id);
        let next = Tensor::new(&[[id]], &Device::Cpu).unwrap();
        logits = theirs.forward(&next, IDS.len() + i, &mut cache).unwrap();
    }
    assert_eq!(greedy(&decoder, Phase::Prompt, 24), ids);
}

#[test]
#[ignore = "needs the SmolLM2 weights"]
fn quantised_logits_and_continuation_equal_candles_quantized_llama() {
    let decoder = ours();
    let mut file = File::open(path()).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    let mut theirs =
        quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let ctx = TaskCtx::silent();
    let mut cache = decoder.new_cache(1);
    let (mut noise, mut next) = ([0.0f32; 2], Vec::new());
    let mut text = IDS.to_vec();
    // Token by token, so that both sides quantise the activations of every position; then greedily
    // on.
    for i in 0..IDS.len() + 12 {
        let id = text[i];
        let batch = Batch {
            rows: vec![vec![id]],
            samples: Vec::new(),
        };
        let a = decoder.forward(
            &batch,
            Phase::Generated,
            Some(&mut cache),
            &mut NoTap,
            Logits::Last,
            &ctx,
        );
        let a = a.unwrap().unwrap();
        let b = theirs
            .forward(&Tensor::new(&[[id]], &Device::Cpu).unwrap(), i)
            .unwrap();
        let exact = forward(&decoder, &text[..=i]);
        noise[0] += relative(&a, &exact);
        noise[1] += relative(&b, &exact);
        if i + 1 >= IDS.len() {
            let pick = |t: &Tensor| t.argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
            next.push((pick(&a), pick(&b)));
            text.push(pick(&a));
        }
    }
    println!("quantised path: distance from f32, ours and candle's {noise:?}");
    // Eight-bit activations feed rounding back into rounding, layer by layer, so that two right
    // answers differ: ours must be as near to f32 as candle's. That a product is the same product
    // is tested beside the kernel.
    assert!(
        noise[0] < 1.25 * noise[1],
        "further from f32 than candle: {noise:?}"
    );
    assert!(next.iter().all(|(a, b)| a == b), "{next:?}");
}

#[test]
#[ignore = "needs the SmolLM2 weights"]
fn a_batch_of_unequal_lengths_equals_one_by_one() {
    let decoder = ours();
    let rows: Vec<Vec<u32>> = vec![IDS.to_vec(), IDS[..5].to_vec(), IDS[3..].to_vec()];
    let batch = Batch {
        rows: rows.clone(),
        samples: Vec::new(),
    };
    let together = decoder.forward(
        &batch,
        Phase::Prompt,
        None,
        &mut NoTap,
        Logits::Last,
        &TaskCtx::silent(),
    );
    let together = together.unwrap().unwrap();
    for (i, row) in rows.iter().enumerate() {
        let alone = forward(&decoder, row);
        let error = relative(&together.narrow(0, i, 1).unwrap(), &alone);
        assert!(error < 1e-5, "row {i} differs by {error}");
    }
}
