//! What a request will take, before anything is opened: bytes from the files' headers, seconds from
//! how fast this machine multiplies matrices right now.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};

use super::budget::FitBudget;
use super::request::{Estimate, OpenRequest};
use crate::activations::store::CacheDtype;
use crate::corpus::Corpus;
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::FitConfig;
use crate::jobs::collect;
use crate::model::config::Config;
use crate::model::device::computes_on_cpu;
use crate::model::source::{self, SourceSettings};
use crate::model::weights::Weights;
use crate::model::{HookSite, MemoryNeed, ModelFiles, describe};
use crate::{memory, study};

/// The default model's file, when it is not here yet.
const DEFAULT_BYTES: u64 = 98_362_432;
/// Its MLP's and its residual stream's width.
const DEFAULT_WIDTHS: [usize; 2] = [1536, 576];
/// Share of the machine's matrix rate that a forward pass reaches.
const PASS_EFFICIENCY: f64 = 0.7;
/// Dense products' worth of work until features can be read: the start and a few sweeps.
const FIRST_FEATURES: f64 = 12.0;

pub(crate) fn estimate(request: &OpenRequest) -> Result<Estimate> {
    let corpus = match &request.corpus {
        Some(path) => Corpus::open(path)?,
        None => Corpus::bundled(),
    };
    let files = local_files(request.model.as_deref())?;
    let model = files.as_ref().map(describe).transpose()?;
    let config = model.as_ref().map(|(config, _)| config);
    let coming = files.is_none() && is_default(request.model.as_deref());
    let [d_mlp, d_model] = config.map_or(if coming { DEFAULT_WIDTHS } else { [0; 2] }, |c| {
        [c.d_mlp, c.d_model]
    });
    let width = if request.hook == HookSite::MlpPost {
        d_mlp
    } else {
        d_model
    };
    let dtype = stored(request);
    let rough = collect::Estimate::rough(&corpus, &[width], dtype);
    let home = study::home()?;
    let shape = (rough.tokens, width);
    let mut estimate = Estimate {
        samples: rough.samples,
        tokens: rough.tokens,
        cache_bytes: rough.bytes,
        dtype,
        weight_bytes: model
            .as_ref()
            .map_or(if coming { DEFAULT_BYTES } else { 0 }, |(_, weights)| {
                weights.bytes()
            }),
        factor_bytes: FitBudget::of(&request.fit, shape, None, u64::MAX)
            .map_or(0, |room| room.memory),
        gpu_bytes: (!computes_on_cpu(request.device))
            .then(|| request.fit.device_bytes(shape, CacheDtype::F32).total()),
        download_bytes: if coming { DEFAULT_BYTES } else { 0 },
        disk_free: disk::free_space(existing(request.study.as_deref().unwrap_or(&home)))?,
        memory_free: memory::available()?.unwrap_or(0),
        seconds: None,
        refusal: None,
        layers: config.map(|c| c.layers.len()),
        width: Some(width).filter(|&w| w > 0),
    };
    if let Some((config, weights)) = &model {
        let layer = request.layer.unwrap_or(config.layers.len() / 2);
        let on_cpu = computes_on_cpu(request.device).then_some((config, weights));
        estimate.refusal = refusal(&estimate, config.layers.len(), layer, on_cpu)
            .or_else(|| fit_refusal(&estimate, &request.fit, shape, on_cpu));
        if on_cpu.is_some() {
            estimate.seconds = Some(seconds(
                config,
                layer,
                rough.tokens,
                width,
                request.fit.features,
            )?);
        }
    }
    Ok(estimate)
}

/// What the activations will be stored in: a GPU computes in bf16 where nothing is asked for, and in
/// f16, which is as large, where it has no bf16.
fn stored(request: &OpenRequest) -> CacheDtype {
    if computes_on_cpu(request.device) {
        return CacheDtype::F32;
    }
    collect::of_compute(request.dtype.unwrap_or(DType::BF16).as_str())
}

fn is_default(spec: Option<&str>) -> bool {
    spec.is_none_or(|s| s == source::DEFAULT_MODEL)
}

/// The model's files when they are on this machine; nothing is downloaded.
fn local_files(spec: Option<&str>) -> Result<Option<ModelFiles>> {
    let settings = SourceSettings {
        offline: true,
        ..SourceSettings::from_env()?
    };
    let name = spec.unwrap_or(source::DEFAULT_MODEL);
    let is_local = Path::new(name).exists()
        || source::list_in(&settings)
            .iter()
            .any(|m| m.id == name && m.problem.is_none());
    if !is_local {
        return Ok(None);
    }
    source::resolve_in(&settings, spec, &crate::TaskCtx::silent()).map(Some)
}

/// The nearest directory above that exists: its disk is the one that a study would be on.
fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("."))
}

/// Why a request cannot be carried out; `on_cpu`: the model, when it will compute in this machine's
/// memory.
fn refusal(
    e: &Estimate,
    depth: usize,
    layer: usize,
    on_cpu: Option<(&Config, &Weights)>,
) -> Option<String> {
    if layer >= depth {
        return Some(format!(
            "there is no layer {layer}: this model has layers 0 to {}",
            depth - 1
        ));
    }
    if e.cache_bytes > e.disk_free {
        return Some(format!(
            "the cache takes {}, but the disk has {} free: use a smaller corpus or another directory",
            disk::human_bytes(e.cache_bytes),
            disk::human_bytes(e.disk_free)
        ));
    }
    let (config, weights) = on_cpu.filter(|_| e.memory_free > 0)?;
    MemoryNeed::refusal_on_cpu(config, weights, e.memory_free)
}

/// Why a fit cannot be carried out beside the cache and, on the CPU, the model.
fn fit_refusal(
    e: &Estimate,
    fit: &FitConfig,
    shape: (usize, usize),
    on_cpu: Option<(&Config, &Weights)>,
) -> Option<String> {
    let model = on_cpu.map_or(0, |(config, weights)| {
        MemoryNeed::on_cpu(config, weights, None).total()
    });
    let memory = (e.memory_free > 0).then(|| e.memory_free.saturating_sub(model));
    let room = FitBudget::of(
        fit,
        shape,
        memory,
        e.disk_free.saturating_sub(e.cache_bytes),
    );
    room.err()
        .map(|problem| format!("beside the model, {problem}"))
}

/// Seconds to the first features on the CPU.
fn seconds(
    config: &Config,
    layer: usize,
    tokens: usize,
    width: usize,
    features: usize,
) -> Result<f64> {
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
    if best > 0.0 {
        Ok(best)
    } else {
        Err(Error::refused("the clock does not move"))
    }
}
