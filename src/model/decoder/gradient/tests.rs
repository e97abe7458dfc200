//! The backward pass held against finite differences of the forward pass, for every family.

use std::path::{Path, PathBuf};

use super::*;
use crate::model::config::Config;
use crate::model::weights::Weights;
use crate::model::{HookPoint, HookSite, Logits, Pass, Tap};

mod allocated;

/// Adds to row i of a pass its own vector, at every position.
struct Push {
    hook: [HookPoint; 1],
    each: Vec<Vec<f32>>,
}

impl Tap for Push {
    fn hooks(&self) -> &[HookPoint] {
        &self.hook
    }

    fn intercept(&mut self, pass: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        let rows: Vec<f32> = pass
            .samples
            .iter()
            .flat_map(|&s| self.each[s].clone())
            .collect();
        let push = Tensor::from_vec(rows, (pass.samples.len(), 1, x.dim(2)?), x.device())?;
        Ok(Some(x.broadcast_add(&push)?))
    }
}

fn families() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    let mut all: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|dir| dir.join("model.safetensors").is_file())
        .collect();
    all.sort();
    assert!(all.len() >= 13, "{all:?}");
    all
}

fn decoder(dir: &Path, device: bool) -> Decoder {
    let weights = Weights::open_safetensors(&[dir.join("model.safetensors")]).unwrap();
    let config = Config::from_hf(&dir.join("config.json")).unwrap();
    let ctx = TaskCtx::silent();
    match device {
        false => Decoder::on_cpu(config, &weights, None, &ctx).unwrap(),
        true => Decoder::on_device(config, &weights, None, &Device::Cpu, DType::F32, &ctx).unwrap(),
    }
}

/// The mean log-likelihood of a text under each push, from the logits of the forward pass.
fn likelihoods(decoder: &Decoder, text: &[u32], layer: usize, pushes: Vec<Vec<f32>>) -> Vec<f64> {
    let batch = Batch {
        rows: vec![text.to_vec(); pushes.len()],
        samples: Vec::new(),
    };
    let hook = HookPoint {
        layer,
        site: HookSite::ResidPost,
    };
    let mut tap = Push {
        hook: [hook],
        each: pushes,
    };
    let ctx = TaskCtx::silent();
    let logits = decoder
        .forward(&batch, Phase::Prompt, None, &mut tap, Logits::All, &ctx)
        .unwrap()
        .unwrap();
    let of_row = |rows: Vec<Vec<f32>>| {
        let each = rows.iter().zip(&text[1..]).map(|(logits, &next)| {
            let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            f64::from(logits[next as usize]) - sum.ln()
        });
        each.sum::<f64>() / (text.len() - 1) as f64
    };
    logits.to_vec3().unwrap().into_iter().map(of_row).collect()
}

#[test]
fn every_family_agrees_with_finite_differences() {
    // Longer than the windows of the fixtures, so that these have a part in it.
    let long: Vec<u32> = (0..14).map(|i| (7 * i + 3) % 60).collect();
    let texts = [long, vec![11, 4, 29]];
    for dir in families() {
        let (mapped, plain) = (decoder(&dir, false), decoder(&dir, true));
        let (width, last) = (mapped.config.d_model, mapped.loaded_layers() - 1);
        for layer in [0, last] {
            let found = mapped
                .text_gradients(&texts, layer, &TaskCtx::silent())
                .unwrap();
            let other = plain
                .text_gradients(&texts, layer, &TaskCtx::silent())
                .unwrap();
            for ((text, found), other) in texts.iter().zip(&found).zip(&other) {
                let step = 0.02f32;
                let steps = [-2.0, -1.0, 1.0, 2.0];
                let mut pushes = vec![vec![0.0; width]];
                for i in 0..width {
                    pushes.extend(steps.map(|s| {
                        let mut push = vec![0.0; width];
                        push[i] = s * step;
                        push
                    }));
                }
                let values = likelihoods(&mapped, text, layer, pushes);
                assert!((values[0] - found.log_likelihood).abs() < 1e-5, "{dir:?}");
                let largest = found.gradient.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                assert!(largest > 1e-4, "{dir:?}: a gradient of zeros shows nothing");
                for (i, f) in values[1..].chunks_exact(4).enumerate() {
                    // The five-point stencil: its error is of the fourth order of the step.
                    let slope = (f[0] - 8.0 * f[1] + 8.0 * f[2] - f[3]) / (12.0 * f64::from(step));
                    let near =
                        |v: f32| (f64::from(v) - slope).abs() < 2e-3 * f64::from(largest) + 1e-4;
                    assert!(
                        near(found.gradient[i]) && near(other.gradient[i]),
                        "{dir:?}, layer {layer}, value {i}: {} and {} by the backward pass, {slope} by differences (largest {largest})",
                        found.gradient[i],
                        other.gradient[i],
                    );
                }
            }
        }
    }
}

#[test]
fn the_texts_of_a_batch_do_not_change_each_other() {
    let dir = families().swap_remove(0);
    let (decoder, ctx) = (decoder(&dir, false), TaskCtx::silent());
    let (a, b) = (vec![5, 6, 7, 8, 9], vec![3, 1]);
    let both = decoder
        .text_gradients(&[a.clone(), b.clone()], 0, &ctx)
        .unwrap();
    for (text, found) in [a, b].into_iter().zip(&both) {
        let alone = decoder.text_gradients(&[text], 0, &ctx).unwrap();
        for (x, y) in alone[0].gradient.iter().zip(&found.gradient) {
            assert!((x - y).abs() < 1e-6, "{x} and {y}");
        }
    }
    assert!(decoder.text_gradients(&[vec![1]], 0, &ctx).is_err());
    assert!(decoder.text_gradients(&[vec![1, 2]], 99, &ctx).is_err());
}

#[test]
fn the_transpose_of_the_output_projection_is_one() {
    for dir in families() {
        for device in [false, true] {
            let decoder = decoder(&dir, device);
            let hook = HookPoint {
                layer: 1,
                site: HookSite::MlpPost,
            };
            let (d, width) = (decoder.config.d_mlp, decoder.config.d_model);
            let wave =
                |n: usize, by: f32| (0..n).map(|i| (by * i as f32).sin()).collect::<Vec<_>>();
            let (z, g) = (wave(d, 1.3), wave(width, 0.7));
            let row = |v: &[f32]| Tensor::from_slice(v, (1, v.len()), &Device::Cpu).unwrap();
            // Without its norm: that is no linear map.
            let u = decoder.blocks[1].down.apply_without_bias(&row(&z)).unwrap();
            let u = u.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let weighed: Vec<f32> = match &decoder.blocks[1].post_mlp {
                Some(norm) => g.iter().zip(norm.weight()).map(|(g, w)| g * w).collect(),
                None => g.clone(),
            };
            let v = decoder.residual_adjoint(hook, &row(&g)).unwrap();
            let v = v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter()
                    .zip(b)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum()
            };
            let (left, right) = (dot(&u, &weighed), dot(&z, &v));
            assert!(
                (left - right).abs() < 1e-4 * (1.0 + left.abs()),
                "{dir:?}: {left} and {right}"
            );
        }
    }
}

#[test]
fn what_memory_does_not_hold_is_refused_with_the_bytes() {
    let decoder = decoder(&families()[0], false);
    let lengths = [6, 5, 5, 4];
    let whole = decoder.batches_in(&lengths, 0, None).unwrap();
    assert_eq!((whole.len(), whole[0].clone()), (1, 0..4));
    let two = decoder.gradient_bytes(0, 2, 6);
    assert_eq!(
        decoder.batches_in(&lengths, 0, Some(two)).unwrap(),
        [0..2, 2..4]
    );
    let five = decoder.gradient_bytes(0, 1, 5);
    let error = decoder.batches_in(&lengths, 0, Some(five)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("of 6 tokens") && text.contains("at most 5 tokens") && text.contains("iB"),
        "{text}"
    );
    let error = decoder.batches_in(&lengths, 0, Some(1)).unwrap_err();
    assert!(error.to_string().contains("free memory"), "{error}");
}

/// The most bytes that `work` held, as a number of tensors of `values` in f32.
fn tensors<T>(values: usize, work: impl FnOnce() -> Result<T>) -> f64 {
    let (out, bytes) = allocated::most(work);
    drop(out.unwrap());
    bytes as f64 / (4 * values) as f64
}

#[test]
fn each_step_holds_what_the_budget_counts() {
    // The longest of each kind.
    let mut most = [0.0f64; 3];
    for dir in families() {
        let decoder = decoder(&dir, true);
        let (c, layer) = (&decoder.config, &decoder.blocks[0]);
        let ones =
            |rows: usize, width| Tensor::ones((rows, width), DType::F32, &Device::Cpu).unwrap();
        let qkv = c.q_width() + 2 * c.kv_width();
        let attention = |rows: usize, tokens: usize, values: usize| {
            let positions = decoder.positions_of_rows(vec![0; rows], vec![tokens; rows]);
            let (x, d) = (ones(rows * tokens, qkv), ones(rows * tokens, c.q_width()));
            let of = decoder.attention(layer);
            tensors(values, || of_attention(&of, &x, &positions, &d))
        };
        // One long row, of which the scores are most, and short ones, of which the heads are.
        let held = attention(1, 400, c.heads * 400 * 400);
        let counted = SCORES_HELD[usize::from(c.attention_softcap.is_some())] as f64;
        assert!((counted..counted + 0.2).contains(&held), "{dir:?}: {held}");
        most[0] = most[0].max(attention(400, 1, 400 * qkv));
        let wide = if c.gated { 2 * c.d_mlp } else { c.d_mlp };
        let (rows, x) = (BLOCK / wide, ones(BLOCK / wide, wide));
        let d = ones(rows, c.d_mlp);
        most[1] = most[1].max(tensors(rows * wide, || of_activation(c, &x, &d)));
        let (rows, x) = (BLOCK / c.d_model, ones(BLOCK / c.d_model, c.d_model));
        let norm = || of_norm(&layer.mlp_norm, &x, &x);
        most[2] = most[2].max(tensors(rows * c.d_model, norm));
        // In blocks, many rows take no more than one block and what they give.
        let x = ones(20 * rows, c.d_model);
        let held = tensors(rows * c.d_model, || of_norm(&layer.mlp_norm, &x, &x));
        assert!(held < (ROW_TAPE + 2 * 20) as f64, "{dir:?}: {held}");
    }
    let close = |held: f64, counted: usize| (0.9..1.02).contains(&(held / counted as f64));
    assert!(close(most[0], HEADS_TAPE), "heads: {}", most[0]);
    assert!(close(most[1].max(most[2]), ROW_TAPE), "rows: {most:?}");
}

#[test]
fn a_pass_holds_no_more_than_the_budget_counts() {
    let ctx = TaskCtx::silent();
    for dir in families() {
        let decoder = decoder(&dir, true);
        // On the CPU this counts a part of a matrix in blocks; these weights are widened already.
        let widened = decoder.widened_bytes(4) as u64;
        for (rows, tokens) in [(1, 64), (8, 64), (64, 2), (30, 12)] {
            let text = |r: usize| (0..tokens).map(|t| ((7 * r + 5 * t) % 90) as u32).collect();
            let texts: Vec<Vec<u32>> = (0..rows).map(text).collect();
            // The first pass of a thread makes what is kept for all.
            decoder.text_gradients(&texts, 0, &ctx).unwrap();
            let (out, held) = allocated::most(|| decoder.text_gradients(&texts, 0, &ctx));
            out.unwrap();
            let counted = decoder.gradient_bytes(0, rows, tokens) - widened;
            let share = held as f64 / counted as f64;
            let of = format!("{dir:?}, {rows} texts of {tokens} tokens");
            assert!((0.4..=1.0).contains(&share), "{of}: {held} of {counted}");
        }
    }
}
