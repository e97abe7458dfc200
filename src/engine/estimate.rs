//! What a request will take, before anything is opened: bytes from the files' headers, seconds from how fast this
//! machine multiplies matrices right now.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use super::{Estimate, OpenRequest};
use crate::activations::collect;
use crate::activations::store::CacheDtype;
use crate::corpus::Corpus;
use crate::disk;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::source::{self, Places};
use crate::model::weights::Weights;
use crate::model::{DeviceChoice, HookSite, ModelFiles, ModelLayout, memory_available};
use crate::study;

/// The default model's file, when it is not here yet.
const DEFAULT_BYTES: u64 = 98_362_432;
/// Share of the machine's matrix rate that a forward pass reaches.
const PASS_EFFICIENCY: f64 = 0.7;
/// Dense products' worth of work until features can be read: the start and a few sweeps.
const FIRST_FEATURES: f64 = 12.0;

pub(super) fn estimate(request: &OpenRequest) -> Result<Estimate> {
    let corpus = match &request.corpus {
        Some(path) => Corpus::open(path)?,
        None => Corpus::bundled(),
    };
    let files = local_files(request.model.as_deref())?;
    let config = files.as_ref().map(config_of).transpose()?;
    let width = config.as_ref().map_or(0, |c| if request.hook == HookSite::MlpPost { c.d_mlp } else { c.d_model });
    let rough = collect::Estimate::rough(&corpus, &[width], CacheDtype::F32);
    let k = request.fit.features as u64;
    let home = study::home()?;
    let mut estimate = Estimate {
        samples: rough.samples,
        tokens: rough.tokens,
        cache_bytes: rough.bytes,
        weight_bytes: files.as_ref().map_or(0, weight_bytes),
        // Two copies of Y and as much again in blocks under way.
        factor_bytes: 12 * k * rough.tokens as u64,
        download_bytes: if files.is_none() && is_default(request.model.as_deref()) { DEFAULT_BYTES } else { 0 },
        disk_free: disk::free_space(existing(request.study.as_deref().unwrap_or(&home)))?,
        memory_free: memory_available().unwrap_or(0),
        seconds: None,
        refusal: None,
        layers: config.as_ref().map(|c| c.layers.len()),
    };
    if let Some(config) = &config {
        let layer = request.layer.unwrap_or(config.layers.len() / 2);
        estimate.refusal = refusal(&estimate, config, layer);
        if matches!(request.device, DeviceChoice::Auto | DeviceChoice::Cpu) {
            estimate.seconds = Some(seconds(config, layer, rough.tokens, width, request.fit.features)?);
        }
    }
    Ok(estimate)
}

fn is_default(spec: Option<&str>) -> bool {
    spec.is_none_or(|s| s == source::DEFAULT_MODEL)
}

/// The model's files when they are on this machine; nothing is downloaded.
fn local_files(spec: Option<&str>) -> Result<Option<ModelFiles>> {
    let places = Places { offline: true, ..Places::from_env()? };
    let name = spec.unwrap_or(source::DEFAULT_MODEL);
    let here = Path::new(name).exists() || source::list_in(&places).iter().any(|m| m.id == name && m.problem.is_none());
    if !here {
        return Ok(None);
    }
    source::resolve_in(&places, spec, &crate::TaskCtx::silent()).map(Some)
}

fn config_of(files: &ModelFiles) -> Result<Config> {
    match &files.layout {
        ModelLayout::HuggingFace { config, .. } => Config::from_hf(config),
        ModelLayout::Gguf(path) => Config::from_gguf(&Weights::open_gguf(path)?),
    }
}

fn weight_bytes(files: &ModelFiles) -> u64 {
    let size = |path: &std::path::PathBuf| path.metadata().map_or(0, |m| m.len());
    match &files.layout {
        ModelLayout::HuggingFace { weights, .. } => weights.iter().map(size).sum(),
        ModelLayout::Gguf(path) => size(path),
    }
}

/// The nearest directory above that exists: its disk is the one that a study would be on.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."))
}

fn refusal(e: &Estimate, config: &Config, layer: usize) -> Option<String> {
    let human = |bytes: u64| disk::human_bytes(bytes);
    if layer >= config.layers.len() {
        return Some(format!("there is no layer {layer}: this model has layers 0 to {}", config.layers.len() - 1));
    }
    if e.cache_bytes > e.disk_free {
        return Some(format!(
            "the cache takes {}, but the disk has {} free: use a smaller corpus or another directory",
            human(e.cache_bytes),
            human(e.disk_free)
        ));
    }
    let memory = e.weight_bytes + e.factor_bytes;
    (e.memory_free > 0 && memory > e.memory_free).then(|| {
        format!("weights and factors take {}, but {} of memory is free: use a smaller model, fewer features or a smaller corpus", human(memory), human(e.memory_free))
    })
}

/// Seconds to the first features on the CPU.
fn seconds(config: &Config, layer: usize, tokens: usize, width: usize, features: usize) -> Result<f64> {
    let attention = config.d_model * (2 * config.q_width() + 2 * config.kv_width());
    let mlp = config.d_model * config.d_mlp * if config.gated { 3 } else { 2 };
    let pass = 2.0 * tokens as f64 * ((attention + mlp) * (layer + 1)) as f64;
    let product = 2.0 * tokens as f64 * width as f64 * features as f64;
    Ok((pass / PASS_EFFICIENCY + FIRST_FEATURES * product) / flops()?)
}

/// Floating-point operations a second in a product of 512 × 512 matrices, the best of three.
fn flops() -> Result<f64> {
    let a = Tensor::ones((512, 512), DType::F32, &Device::Cpu)?;
    let mut best = 0f64;
    for _ in 0..3 {
        let start = Instant::now();
        a.matmul(&a)?;
        best = best.max(2.0 * 512f64.powi(3) / start.elapsed().as_secs_f64());
    }
    if best > 0.0 { Ok(best) } else { Err(Error::refused("the clock does not move")) }
}
