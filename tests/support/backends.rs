//! The ways in which the tests compute a decoder: this crate's kernels, and candle's operations as
//! a card runs them.
//!
//! `MLPEEK_TEST_DEVICE` names one for a whole run: `cpu` (this crate's kernels), `generic` (candle's
//! operations on the CPU), `cuda:0` (the same on a card). Without it both of the CPU are taken.

use candle_core::{DType, Device};
use mlpeek::TaskCtx;
use mlpeek::model::Decoder;
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;

/// Scores at a time that make tiles of a few queries in the fixtures, and of a single one.
pub const TILES: [usize; 2] = [700, 1];

fn asked() -> Option<String> {
    std::env::var("MLPEEK_TEST_DEVICE").ok()
}

/// The device of candle's operations.
pub fn device() -> Device {
    match asked().as_deref() {
        None | Some("cpu" | "generic") => Device::Cpu,
        Some(name) => {
            let number = name.strip_prefix("cuda:").and_then(|n| n.parse().ok());
            let number = number.unwrap_or_else(|| {
                panic!("MLPEEK_TEST_DEVICE is {name:?}: use cpu, generic or cuda:0")
            });
            Device::new_cuda(number).unwrap()
        }
    }
}

/// The fixtures' families.
pub fn families() -> Vec<String> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/families");
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A decoder of candle's operations in f32.
pub fn on_tensors(config: Config, weights: &Weights) -> Decoder {
    let ctx = TaskCtx::silent();
    Decoder::on_device(config, weights, None, &device(), DType::F32, &ctx).unwrap()
}

/// A decoder of each way that is tested, with what to call it: long rows in tiles too.
pub fn decoders(config: &Config, weights: &Weights) -> Vec<(&'static str, Decoder)> {
    let mut out = Vec::new();
    if !matches!(asked().as_deref(), Some(name) if name != "cpu") {
        let own = Decoder::on_cpu(config.clone(), weights, None, &TaskCtx::silent());
        out.push(("own kernels", own.unwrap()));
    }
    if asked().as_deref() != Some("cpu") {
        out.push(("tensors", on_tensors(config.clone(), weights)));
        for scores in TILES {
            let tiled = on_tensors(config.clone(), weights).with_scores(scores);
            out.push(("tensors in tiles", tiled));
        }
    }
    out
}
