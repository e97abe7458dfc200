//! bf16 as `transformers` computes it: for every family the error of this decoder in bf16, against
//! a run in f32 with the same weights, stays within 1.25 times that of `transformers` in bf16
//! (`tests/fixtures/make_bf16.py`). It is the root mean square over the logits and six hooks: one of
//! them alone is as much chance as rule in models so small.
//!
//! The operations are those of a card; `MLPEEK_TEST_DEVICE=cuda:0` runs them on one.

#[path = "support/backends.rs"]
#[allow(dead_code)] // Each test binary uses its own part.
mod backends;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;
use mlpeek::model::{Batch, Decoder, HookPoint, HookSite, Logits, Pass, Phase, Tap};
use mlpeek::{Result, TaskCtx};

/// What our error may be, in errors of `transformers`.
const FACTOR: f64 = 1.25;

/// Keeps every hook that it is told.
struct Record {
    hooks: Vec<HookPoint>,
    seen: HashMap<String, Tensor>,
}

impl Tap for Record {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }
    fn intercept(&mut self, _: &Pass<'_>, hook: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        self.seen.insert(hook.to_string(), x.squeeze(0)?);
        Ok(None)
    }
}

fn wide(x: &Tensor) -> Tensor {
    let x = x.to_dtype(DType::F32).unwrap();
    x.to_device(&Device::Cpu).unwrap()
}

/// ‖a − b‖ / ‖b‖
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (wide(a), wide(b));
    let size = |x: &Tensor| {
        let sum = x.sqr().unwrap().sum_all().unwrap();
        f64::from(sum.to_scalar::<f32>().unwrap()).sqrt()
    };
    size(&(a - &b).unwrap()) / size(&b)
}

#[test]
fn no_family_is_less_exact_in_bf16_than_transformers() {
    let device = backends::device();
    let dir = tempfile::tempdir().unwrap();
    let ctx = TaskCtx::silent();
    let mut failures = Vec::new();
    for family in backends::families() {
        let at = |file: &str| {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/fixtures/families")
                .join(&family)
                .join(file)
        };
        let load = |file: &str| candle_core::safetensors::load(at(file), &Device::Cpu).unwrap();
        let narrowed: HashMap<String, Tensor> = load("model.safetensors")
            .into_iter()
            .map(|(name, x)| (name, x.to_dtype(DType::BF16).unwrap()))
            .collect();
        let file = dir.path().join(format!("{family}.safetensors"));
        candle_core::safetensors::save(&narrowed, &file).unwrap();
        let weights = Weights::open_safetensors(&[file]).unwrap();
        let config = Config::from_hf(&at("config.json")).unwrap();
        let decoder =
            Decoder::on_device(config, &weights, None, &device, DType::BF16, &ctx).unwrap();
        let expected = load("bf16.safetensors");
        let ids = expected["ids"].to_dtype(DType::U32);
        let batch = Batch {
            rows: vec![ids.unwrap().to_vec1().unwrap()],
            samples: Vec::new(),
        };
        let layers = 0..decoder.loaded_layers();
        let sites = layers.flat_map(|layer| HookSite::ALL.map(|site| HookPoint { layer, site }));
        let mut tap = Record {
            hooks: sites
                .filter(|hook| expected.contains_key(&hook.to_string()))
                .collect(),
            seen: HashMap::new(),
        };
        assert_eq!(tap.hooks.len(), 6);
        let logits = decoder
            .forward(&batch, Phase::Prompt, None, &mut tap, Logits::All, &ctx)
            .unwrap()
            .unwrap();
        tap.seen.insert("logits".into(), logits.squeeze(0).unwrap());
        let mut sums = (0.0, 0.0);
        for (name, ours) in &tap.seen {
            let ours = distance(ours, &expected[name]);
            let theirs = expected[&format!("error.{name}")].to_vec1::<f32>();
            let theirs = f64::from(theirs.unwrap()[0]);
            println!("{family} {name}: {ours:.1e}, transformers {theirs:.1e}");
            sums = (sums.0 + ours * ours, sums.1 + theirs * theirs);
        }
        let ratio = f64::sqrt(sums.0 / sums.1);
        println!("{family}: {ratio:.2} times the error of transformers");
        if ratio > FACTOR {
            failures.push((family, ratio));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
