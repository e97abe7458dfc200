//! Layers on several devices, and several lanes on one, give what one device and one lane give.
//!
//! On candle's CPU device; MLPEEK_TEST_DEVICE=cuda:0 or cuda:0,1 runs the same on cards.

mod support;

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use mlpeek::TaskCtx;
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;
use mlpeek::model::{Batch, Decoder, HookPoint, HookSite, Logits, NoTap, Pass, Phase, Tap};

const FAMILIES: [&str; 6] = ["llama", "gpt2", "gemma2", "gemma3", "gpt_neox", "qwen3"];

fn dir(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/families")
        .join(family)
}

fn decoder(family: &str, devices: &[Device], firsts: &[usize]) -> Decoder {
    let config = Config::from_hf(&dir(family).join("config.json")).unwrap();
    let weights = Weights::open_safetensors(&[dir(family).join("model.safetensors")]).unwrap();
    let ctx = TaskCtx::silent();
    Decoder::on_devices(config, &weights, None, (devices, firsts), DType::F32, &ctx).unwrap()
}

/// As many devices as `count`, those that the tests run on again and again.
fn devices(count: usize) -> Vec<Device> {
    let given = support::device::devices();
    given.into_iter().cycle().take(count).collect()
}

fn rows() -> Vec<Vec<u32>> {
    vec![vec![5, 6, 7, 8, 9], vec![11, 3], vec![2, 4, 4]]
}

/// Adds a little to the residual stream, and keeps what it saw.
struct Push(Vec<HookPoint>, Vec<Vec<f32>>);

impl Tap for Push {
    fn hooks(&self) -> &[HookPoint] {
        &self.0
    }
    fn intercept(
        &mut self,
        _: &Pass<'_>,
        _: HookPoint,
        x: &Tensor,
    ) -> mlpeek::Result<Option<Tensor>> {
        self.1.push(flat(x));
        Ok(Some((x + 0.01)?))
    }
}

fn flat(x: &Tensor) -> Vec<f32> {
    let x = x.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
    x.to_vec1().unwrap()
}

/// All that a decoder computes: hooks and logits of a prompt, tokens after a cache, a pass from a
/// layer, gradients, what directions add and promote.
fn everything(decoder: &Decoder) -> Vec<Vec<f32>> {
    let ctx = TaskCtx::silent();
    let depth = decoder.loaded_layers();
    let hooks = (0..depth).map(|layer| HookPoint {
        layer,
        site: HookSite::ResidPost,
    });
    let mut tap = Push(hooks.collect(), Vec::new());
    let batch = |rows: Vec<Vec<u32>>| Batch {
        rows,
        samples: Vec::new(),
    };
    let mut cache = decoder.new_cache(3);
    let mut out = Vec::new();
    let mut pass = |rows, phase, tap: &mut dyn Tap| {
        let logits = decoder.forward(
            &batch(rows),
            phase,
            Some(&mut cache),
            tap,
            Logits::Last,
            &ctx,
        );
        out.push(flat(&logits.unwrap().unwrap()));
    };
    pass(rows(), Phase::Prompt, &mut tap);
    for id in [7, 3] {
        pass(vec![vec![id]; 3], Phase::Generated, &mut NoTap);
    }
    out.append(&mut tap.1);
    for layer in 0..depth {
        let input = decoder.layer_input(&rows(), layer, &ctx).unwrap();
        let from = decoder.forward_from(&input, &[1, 0, 2], &mut NoTap, Logits::Last, &ctx);
        out.push(flat(&from.unwrap().unwrap()));
        let gradients = decoder.text_gradients(&rows(), layer, &ctx).unwrap();
        out.extend(gradients.into_iter().map(|g| g.gradient));
        let hook = HookPoint {
            layer,
            site: HookSite::MlpPost,
        };
        let width = decoder.width(hook).unwrap();
        let z = Tensor::ones((1, width), DType::F32, &Device::Cpu).unwrap();
        let f = decoder.residual_direction(hook, &z).unwrap();
        out.push(flat(&f));
        out.push(flat(&decoder.logit_lens(&f).unwrap()));
        out.push(flat(&decoder.residual_adjoint(hook, &f).unwrap()));
        let scales = decoder.output_scales(hook, &z).unwrap();
        out.push(scales.into_iter().map(|v| v as f32).collect());
    }
    out
}

#[test]
fn layers_on_several_devices_give_what_one_device_gives() {
    for family in FAMILIES {
        let one = everything(&decoder(family, &devices(1), &[0]));
        assert!(one.iter().flatten().all(|v| v.is_finite()));
        for firsts in [&[0, 1][..], &[0, 2], &[0, 0, 2], &[0, 1, 2]] {
            let several = decoder(family, &devices(firsts.len()), firsts);
            assert_eq!(everything(&several), one, "{family} over {firsts:?}");
        }
    }
}

#[test]
fn two_lanes_at_once_give_what_they_give_one_after_the_other() {
    for family in ["llama", "gemma2"] {
        let decoder = decoder(family, &devices(1), &[0]);
        let alone = everything(&decoder);
        std::thread::scope(|scope| {
            let lane = || (0..8).map(|_| everything(&decoder)).collect::<Vec<_>>();
            let lanes: Vec<_> = (0..2).map(|_| scope.spawn(lane)).collect();
            for lane in lanes {
                assert!(lane.join().unwrap().iter().all(|found| *found == alone));
            }
        });
    }
}

#[test]
fn a_division_that_leaves_layers_out_is_refused() {
    let config = Config::from_hf(&dir("llama").join("config.json")).unwrap();
    let weights = Weights::open_safetensors(&[dir("llama").join("model.safetensors")]).unwrap();
    for firsts in [&[1, 2][..], &[0], &[]] {
        let found = Decoder::on_devices(
            config.clone(),
            &weights,
            None,
            (&devices(2), firsts),
            DType::F32,
            &TaskCtx::silent(),
        );
        assert!(found.is_err_and(|e| e.exit_code() == 2), "{firsts:?}");
    }
}
