//! The memory that opening a model takes, compared with what is free before anything is read.

use candle_core::DType;

use super::LoadOptions;
use super::linear::Placement;
use crate::disk::human_bytes;
use crate::error::{Error, Result};
use crate::model::config::{Config, TensorNames};
use crate::model::weights::Weights;

/// Padded tokens of one pass of collecting: more would only make cancelling slower on the CPU;
/// fewer would starve a GPU.
const PASS_TOKENS: [usize; 2] = [512, 8192];
/// The smallest batch that a refusal proposes, in padded tokens.
const LEAST_TOKENS: usize = 64;
/// Rows and tokens of the cache that generating begins with: a baseline and a steered text.
const CACHED_ROWS: u64 = 2;
const CACHED_TOKENS: usize = 2048;

/// Bytes that a model takes where it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryNeed {
    /// The weights, as they are kept.
    pub weights: u64,
    /// Keys and values of two rows; 0 for a model that is only read up to a layer.
    pub cache: u64,
    /// Activations of one pass and the weights that are dequantised at a time.
    pub working: u64,
}

/// How a model is to be opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How many layers, from the first; `None`: all, for generating too.
    layers: Option<usize>,
    /// The compute dtype of a device; `None`: the CPU.
    device: Option<DType>,
    /// Padded tokens of one pass.
    pub(super) tokens: usize,
}

impl Plan {
    pub(super) fn new(options: &LoadOptions, placement: &Placement) -> Self {
        let device = match placement {
            Placement::Mapped => None,
            Placement::Device(_, dtype) => Some(*dtype),
        };
        let tokens = options
            .batch_tokens
            .unwrap_or(PASS_TOKENS[usize::from(device.is_some())]);
        Self {
            layers: options.layers,
            device,
            tokens,
        }
    }

    fn on_cpu(layers: Option<usize>) -> Self {
        Self {
            layers,
            device: None,
            tokens: PASS_TOKENS[0],
        }
    }
}

impl MemoryNeed {
    /// The need of the first `layers` layers on the CPU (`None`: all, for generating too).
    pub fn on_cpu(config: &Config, weights: &Weights, layers: Option<usize>) -> Self {
        Self::of(config, weights, Plan::on_cpu(layers))
    }

    fn of(config: &Config, weights: &Weights, plan: Plan) -> Self {
        let width = plan.device.map_or(4, |dtype| dtype.size_in_bytes());
        let kept =
            weights
                .names()
                .filter(|name| match (layer_of(config.names, name), plan.layers) {
                    (Some(layer), Some(count)) => layer < count,
                    _ => true,
                });
        let bytes = kept
            .filter_map(|name| weights.get(name))
            .map(|tensor| match plan.device {
                Some(_) if !tensor.is_quantised() => (tensor.rows() * tensor.cols() * width) as u64,
                _ => tensor.data().len() as u64,
            });
        let c = config;
        let cached = c.kv_bytes_per_token(c.layers.len(), width)
            * CACHED_ROWS
            * c.context.min(CACHED_TOKENS) as u64;
        let values = 2 * c.d_mlp + c.q_width() + 2 * c.kv_width() + 4 * c.d_model;
        let widened = if plan.device.is_some() {
            c.d_model * c.d_mlp.max(c.vocab) * width
        } else {
            16 << 20
        };
        Self {
            weights: bytes.sum(),
            cache: if plan.layers.is_none() { cached } else { 0 },
            working: (plan.tokens * values * width + widened) as u64,
        }
    }

    /// Why all of a model does not fit in `free` bytes on the CPU, and what would; `None` when it
    /// does.
    pub fn refusal_on_cpu(config: &Config, weights: &Weights, free: u64) -> Option<String> {
        refusal(config, weights, Plan::on_cpu(None), free)
    }

    /// The sum of weights, cache and working memory, in bytes.
    pub fn total(&self) -> u64 {
        self.weights + self.cache + self.working
    }
}

/// The layer that a tensor belongs to.
fn layer_of(names: &TensorNames, tensor: &str) -> Option<usize> {
    let (_, rest) = tensor.split_once(names.layers)?;
    rest.split('.').next()?.parse().ok()
}

/// Refuses what cannot fit, before anything is read. `available`: bytes free where the model will
/// compute.
pub(super) fn check(
    config: &Config,
    weights: &Weights,
    plan: Plan,
    available: Option<u64>,
) -> Result<()> {
    match available.and_then(|free| refusal(config, weights, plan, free)) {
        Some(problem) => Err(Error::refused(problem)),
        None => Ok(()),
    }
}

/// Why a model does not fit in `free` bytes, and what would.
fn refusal(config: &Config, weights: &Weights, plan: Plan, free: u64) -> Option<String> {
    let need = |plan| MemoryNeed::of(config, weights, plan);
    let fits = |plan: &Plan| need(*plan).total() <= free;
    let needed = need(plan);
    if fits(&plan) {
        return None;
    }
    let depth = config.layers.len();
    let mut remedies = Vec::new();
    let halved = std::iter::successors(Some(plan.tokens / 2), |n| Some(n / 2))
        .take_while(|&n| n >= LEAST_TOKENS);
    if let Some(smaller) = halved.map(|tokens| Plan { tokens, ..plan }).find(fits) {
        remedies.push(format!(
            "a smaller batch would fit (collect --batch-tokens {})",
            smaller.tokens
        ));
    }
    let fewer = (1..=plan.layers.unwrap_or(depth)).rev();
    if let Some(n) = fewer.into_iter().find(|&n| {
        fits(&Plan {
            layers: Some(n),
            ..plan
        })
    }) {
        remedies.push(format!(
            "the first {n} of {depth} layers would fit (collect --layer {} or below)",
            n - 1
        ));
    }
    let half = Plan {
        device: plan.device.map(|_| DType::BF16),
        ..plan
    };
    if plan.device == Some(DType::F32) && fits(&half) {
        remedies.push(format!(
            "--dtype bf16 would take {}",
            human_bytes(need(half).total())
        ));
    }
    remedies.push("open a smaller or a quantised model".into());
    Some(format!(
        "this model{} takes {} (weights {}, KV cache {}, working memory {}) and {} of {} is free: {}",
        plan.layers.map_or(String::new(), |n| format!(
            " up to layer {}",
            n.saturating_sub(1)
        )),
        human_bytes(needed.total()),
        human_bytes(needed.weights),
        human_bytes(needed.cache),
        human_bytes(needed.working),
        human_bytes(free),
        if plan.device.is_some() {
            "the device's memory"
        } else {
            "memory"
        },
        remedies.join(", or ")
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;

    fn model() -> (Config, Weights) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families/gpt2");
        let weights = Weights::open_safetensors(&[dir.join("model.safetensors")]).unwrap();
        (Config::from_hf(&dir.join("config.json")).unwrap(), weights)
    }

    fn device(dtype: DType) -> Plan {
        Plan::new(
            &LoadOptions::default(),
            &Placement::Device(Device::Cpu, dtype),
        )
    }

    #[test]
    fn counts_the_layers_that_are_kept_and_the_width_of_the_device() {
        let (config, weights) = model();
        let all = MemoryNeed::on_cpu(&config, &weights, None);
        let stored: usize = weights
            .names()
            .filter_map(|n| weights.get(n))
            .map(|t| t.data().len())
            .sum();
        assert_eq!(all.weights, stored as u64);
        // A layer of d_model 24 and d_mlp 40: qkv, out, up, down with biases, two norms.
        let layer = 4 * (24 * 72 + 72 + 24 * 24 + 24 + 24 * 40 + 40 + 40 * 24 + 24 + 4 * 24);
        let one = MemoryNeed::on_cpu(&config, &weights, Some(1));
        assert_eq!((all.weights - one.weights, one.cache), (2 * layer, 0));
        assert_eq!(all.cache, 2 * 64 * (2 * 24 * 3 * 4));
        assert_eq!(
            MemoryNeed::of(&config, &weights, device(DType::BF16)).weights,
            stored as u64 / 2
        );
    }

    #[test]
    fn a_refusal_names_the_numbers_and_what_would_fit() {
        let (config, weights) = model();
        let cpu = Plan::on_cpu(None);
        let text = |plan, free| {
            check(&config, &weights, plan, Some(free))
                .unwrap_err()
                .to_string()
        };
        let two = MemoryNeed::on_cpu(&config, &weights, Some(2)).total();
        let error = text(cpu, two);
        assert!(
            error.contains("first 2 of 3 layers") && error.contains("--layer 1"),
            "{error}"
        );
        assert!(
            error.contains("weights") && error.contains("MiB") && !error.contains("bf16"),
            "{error}"
        );
        let half = MemoryNeed::of(&config, &weights, device(DType::BF16)).total();
        assert!(text(device(DType::F32), half).contains("--dtype bf16"));
        assert!(!text(cpu, 1).contains("would fit"));
        assert!(check(&config, &weights, cpu, None).is_ok());
        let enough = MemoryNeed::on_cpu(&config, &weights, None).total();
        assert!(check(&config, &weights, cpu, Some(enough)).is_ok());
    }

    #[test]
    fn a_batch_that_fits_is_proposed_and_then_fits() {
        let (config, weights) = model();
        let (placement, whole) = (
            Placement::Device(Device::Cpu, DType::F32),
            device(DType::F32),
        );
        let free = MemoryNeed::of(
            &config,
            &weights,
            Plan {
                tokens: 2048,
                ..whole
            },
        )
        .total();
        let error = check(&config, &weights, whole, Some(free))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("smaller batch would fit (collect --batch-tokens 2048)"),
            "{error}"
        );
        let smaller = LoadOptions {
            batch_tokens: Some(2048),
            ..LoadOptions::default()
        };
        assert!(
            check(
                &config,
                &weights,
                Plan::new(&smaller, &placement),
                Some(free)
            )
            .is_ok()
        );
    }
}
