//! Rates of a device by itself: its memory, its products, a fit on it beside the CPU.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};

use super::Check;
use crate::activations::InMemory;
use crate::disk::human_bytes;
use crate::error::{Error, Result};
use crate::factor::{Accelerator, Factoriser, FitConfig};
use crate::model::device::{self, card::Card};
use crate::task::TaskCtx;

/// How long a rate is measured, at least.
const MEASURED: Duration = Duration::from_millis(400);

/// Units a second of `work`, which says how many it did: once to warm up, then for a while.
pub(super) fn rate(mut work: impl FnMut() -> Result<f64>) -> Result<f64> {
    work()?;
    let (started, mut done) = (Instant::now(), 0.0);
    while started.elapsed() < MEASURED {
        done += work()?;
    }
    Ok(done / started.elapsed().as_secs_f64())
}

pub(super) fn memory_rate(device: &Device, card: Option<&Card>) -> Result<Check> {
    // Larger than a cache.
    let count = if device.is_cpu() { 16 << 20 } else { 128 << 20 };
    let x = Tensor::zeros(count, DType::F32, device)?;
    let found = rate(|| {
        for _ in 0..4 {
            let sum = (&x + &x)?;
            drop(sum);
        }
        device.synchronize()?;
        Ok(4.0 * 3.0 * 4.0 * count as f64)
    })?;
    let peak_words = card
        .and_then(|card| card.bandwidth)
        .map_or_else(String::new, |most| {
            format!(" of {}/s", human_bytes(most as u64))
        });
    Ok(Check::fact(
        "rate: memory",
        format!(
            "{}/s read and written by a sum{peak_words}",
            human_bytes(found as u64)
        ),
    ))
}

pub(super) fn product_rate(device: &Device, dtype: DType, card: Option<&Card>) -> Result<Check> {
    let n = if device.is_cpu() { 512 } else { 4096 };
    let x = Tensor::ones((n, n), dtype, device)?;
    let found = rate(|| {
        for _ in 0..4 {
            drop(x.matmul(&x)?);
        }
        device.synchronize()?;
        Ok(4.0 * 2.0 * (n as f64).powi(3))
    })?;
    let half = dtype != DType::F32;
    let peak_words = card
        .and_then(|card| card.peak)
        .filter(|_| half)
        .map_or_else(String::new, |most| {
            format!(" of {:.0} Tflop/s that its tensor cores make", most / 1e12)
        });
    Ok(Check::fact(
        format!("rate: products in {}", dtype.as_str()),
        format!(
            "{:.2} Tflop/s of {n} × {n} matrices{peak_words}",
            found / 1e12
        ),
    ))
}

/// Seconds a sweep of a fit on a device and on the CPU, and whether the errors agree.
pub(super) fn fit_rate(device: &Device, ctx: &TaskCtx) -> Result<Check> {
    let (n, d, features) = if device.is_cpu() {
        (1500, 96, 16)
    } else {
        (50_000, 2048, 100)
    };
    let mut state = 1u64;
    let values: Vec<f32> = (0..n * d)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        })
        .collect();
    let source = InMemory::new(n, d, values);
    let config = FitConfig {
        features,
        ..FitConfig::default()
    };
    let sweeps = |on: Option<&Device>| -> Result<(f64, f64)> {
        let on = on
            .map(|device| {
                let free = device::card_of(device)?.and_then(|card| card.free());
                Ok::<_, Error>(Accelerator::new(device.clone(), free, &source, &config))
            })
            .transpose()?;
        let mut fit = Factoriser::start_on(&source, config.clone(), on, ctx)?;
        fit.step(ctx)?;
        let started = Instant::now();
        let mut error = 0.0;
        for _ in 0..2 {
            error = fit.step(ctx)?.relative_error;
        }
        Ok((started.elapsed().as_secs_f64() / 2.0, error))
    };
    let ((on_device, error), (on_cpu, right)) = (sweeps(Some(device))?, sweeps(None)?);
    let apart = (error - right).abs() / right.max(f64::MIN_POSITIVE);
    Ok(Check {
        name: "fit".into(),
        ok: apart <= 1e-4,
        detail: format!(
            "{on_device:.3} s a sweep of {n} × {d} with {features} features, on the CPU {on_cpu:.3} s; the errors differ by \
             {apart:.1e} (at most 1e-4)"
        ),
    })
}
