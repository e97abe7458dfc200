//! The factorisation engine against our own A·Y product and against a plain numpy float32 loop of
//! the paper's updates.
//!
//! `cargo bench --bench factor` on synthetic data; `MLPEEK_BENCH_NPY=F.npy` (n × d, float32) on
//! real activations, `MLPEEK_BENCH_K`, `MLPEEK_BENCH_P`, `MLPEEK_BENCH_L1`, `MLPEEK_BENCH_THREADS`,
//! `MLPEEK_BENCH_ITERATIONS` (of the peer). `MLPEEK_BENCH_SHAPES=1`: a full sweep beside one A·Y
//! product at the shapes of larger models instead (and at that of `MLPEEK_BENCH_NPY`), with
//! `MLPEEK_BENCH_P` of the neurons (1 %). `MLPEEK_BENCH_OUT=F` writes the features (k × d float32).
//! Ratios within one run are what counts; errors are recomputed from the factors in f64.

use std::process::Command;
use std::time::Instant;

use mlpeek::activations::{ActivationSource, InMemory};
use mlpeek::factor::encode::Encoder;
use mlpeek::factor::{Factoriser, FitConfig, Init};
use mlpeek::matrix::dense;
use mlpeek::task::TaskCtx;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

fn main() {
    if std::env::var_os("MLPEEK_BENCH_SHAPES").is_some() {
        println!("memory: {:.1} GB/s read", memory_rate() / 1e9);
        return shapes();
    }
    let source = match std::env::var("MLPEEK_BENCH_NPY") {
        Ok(path) => read_npy(&path),
        Err(_) => planted(
            number("MLPEEK_BENCH_N", 6892.0) as usize,
            number("MLPEEK_BENCH_D", 1536.0) as usize,
        ),
    };
    let (n, d) = source.shape();
    let k = number("MLPEEK_BENCH_K", 100.0) as usize;
    println!("A {n} × {d}, k {k}");
    let product = product_seconds(&source, k, 7);
    let gflops = 2.0 * (n * d * k) as f64 / product / 1e9;
    println!(
        "our A·Y product: {:.2} ms ({gflops:.0} GFLOP/s)",
        product * 1e3
    );
    let config = FitConfig {
        features: k,
        sparsity: Some(number("MLPEEK_BENCH_P", 0.01)),
        l1: number("MLPEEK_BENCH_L1", 0.0),
        seed: number("MLPEEK_BENCH_SEED", 42.0) as u64,
        init: match std::env::var("MLPEEK_BENCH_INIT").as_deref() {
            Ok("random") => Init::Random,
            Ok("svd") => Init::Svd,
            _ => Init::Kmeans,
        },
        threads: std::env::var("MLPEEK_BENCH_THREADS")
            .ok()
            .and_then(|t| t.parse().ok()),
        ..FitConfig::plain()
    };
    let curve = run(&source, config.clone(), product);
    if let Some((seconds, error)) = peer(&source, k, config.sparsity_at(source.shape().1)) {
        println!("the paper's loop in numpy: {seconds:.2} s to {error:.4}");
        match curve.iter().find(|(_, e)| *e <= error) {
            Some((t, e)) => println!("ours: {t:.3} s to {e:.4}, {:.0} times sooner", seconds / t),
            None => println!("ours did not reach it"),
        }
    }
}

fn run(source: &InMemory, config: FitConfig, product: f64) -> Vec<(f64, f64)> {
    let ctx = TaskCtx::silent();
    let mut fit = Factoriser::start(source, config.clone(), &ctx).unwrap();
    println!("start: {:.1} ms", fit.init_seconds() * 1e3);
    let mut curve = Vec::new();
    let mut last = 0.0;
    let mut sweeps = Vec::new();
    let limit = number("MLPEEK_BENCH_SWEEPS", 200.0) as usize;
    loop {
        let s = fit.step(&ctx).unwrap();
        sweeps.push(s.seconds - last);
        last = s.seconds;
        curve.push((fit.init_seconds() + s.seconds, s.relative_error));
        if s.sweep <= 10 || s.sweep.is_multiple_of(10) || s.stop.is_some() {
            let at = fit.init_seconds() + s.seconds;
            println!(
                "sweep {:3}  {:.5}  at {:.3} s  this sweep {:.2} × A·Y",
                s.sweep,
                s.relative_error,
                at,
                sweeps[sweeps.len() - 1] / product
            );
        }
        if s.stop.is_some() || s.sweep >= limit {
            break;
        }
    }
    sweeps.sort_by(f64::total_cmp);
    let median = sweeps[sweeps.len() / 2];
    println!(
        "median sweep {:.2} ms = {:.2} × A·Y",
        median * 1e3,
        median / product
    );
    let factors = fit.finish(&ctx).unwrap();
    println!(
        "{:?}: error from the factors in f64 {:.6}",
        config.solver, factors.relative_error
    );
    let block = source.rows(0..source.shape().0.min(4096)).unwrap();
    let started = Instant::now();
    Encoder::new(factors.features.clone())
        .encode(&block, &ctx)
        .unwrap();
    println!(
        "encoding: {:.0} rows a second",
        block.rows as f64 / started.elapsed().as_secs_f64()
    );
    let active = factors
        .coefficients
        .as_slice()
        .iter()
        .filter(|v| **v > 0.0)
        .count();
    println!(
        "non-zero coefficients a row: {:.1}",
        active as f64 / source.shape().0 as f64
    );
    if let Ok(path) = std::env::var("MLPEEK_BENCH_OUT") {
        let columns: Vec<f32> = (0..config.features)
            .flat_map(|j| factors.features.dense_column(j))
            .collect();
        std::fs::write(path, bytemuck::cast_slice::<f32, u8>(&columns)).unwrap();
    }
    curve
}

/// Seconds of the dense product alone, the best of `times`.
fn product_seconds(source: &InMemory, k: usize, times: usize) -> f64 {
    let (n, d) = source.shape();
    let block = source.rows(0..n).unwrap();
    let y: Vec<f32> = (0..k * n).map(|i| (i % 17) as f32).collect();
    let mut out = vec![0.0; k * d];
    let rows = 2048;
    let mut best = f64::INFINITY;
    for _ in 0..times {
        let started = Instant::now();
        for first in (0..n).step_by(rows) {
            let last = n.min(first + rows);
            dense::accumulate_products(
                &mut out,
                &block.data[first * d..last * d],
                d,
                &y[first..],
                n,
                k,
            );
        }
        best = best.min(started.elapsed().as_secs_f64());
    }
    best
}

/// Runs the numpy loop beside this file where python3 and numpy exist: its seconds and its error.
fn peer(source: &InMemory, k: usize, p: f64) -> Option<(f64, f64)> {
    let python = std::env::var("MLPEEK_BENCH_PYTHON").unwrap_or_else(|_| "python3".into());
    let found = Command::new(&python)
        .args(["-c", "import numpy"])
        .output()
        .ok()?;
    if !found.status.success() {
        println!("no python3 with numpy: the peer is left out");
        return None;
    }
    let path = std::env::temp_dir().join(format!("mlpeek-bench-{}.f32", std::process::id()));
    let (n, d) = source.shape();
    let block = source.rows(0..n).unwrap();
    std::fs::write(&path, bytemuck::cast_slice(&block.data)).ok()?;
    let loop_file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/paper_loop.py");
    let iterations = number("MLPEEK_BENCH_ITERATIONS", 1000.0).to_string();
    let out = Command::new(&python)
        .arg(loop_file)
        .arg(&path)
        .args([
            n.to_string(),
            d.to_string(),
            k.to_string(),
            p.to_string(),
            iterations,
        ])
        .output();
    let _ = std::fs::remove_file(&path);
    let text = String::from_utf8(out.ok()?.stdout).ok()?;
    let mut words = text
        .split_whitespace()
        .filter_map(|w| w.parse::<f64>().ok());
    Some((words.next()?, words.next()?))
}

/// A full sweep against one A·Y product timed beside it, and what share of the machine's product
/// and memory rates that is. A full sweep is two halves of neighbouring sweeps: the pass that
/// gathers all of AᵀY, and the choice of the supports from it.
fn shapes() {
    const CYCLES: usize = 6;
    let sparsity = number("MLPEEK_BENCH_P", 0.01);
    let real = std::env::var("MLPEEK_BENCH_NPY")
        .ok()
        .map(|path| read_npy(&path));
    let made = [
        (6892, 1536, 100),
        (8192, 3072, 100),
        (8192, 14_336, 100),
        (16_384, 3072, 400),
    ];
    let made = made
        .into_iter()
        .map(|(n, d, k)| ("made up", planted(n, d), k));
    for (what, source, k) in real
        .into_iter()
        .map(|source| ("real", source, 100))
        .chain(made)
    {
        let (n, d) = source.shape();
        let (flops, bytes) = (2.0 * (n * d * k) as f64, 4.0 * (n * d) as f64);
        let ctx = TaskCtx::silent();
        let config = FitConfig {
            features: k,
            sparsity: Some(sparsity),
            patience: Some(1000),
            ..FitConfig::plain()
        };
        let mut fit = Factoriser::start(&source, config, &ctx).unwrap();
        let (mut last, mut seconds, mut products) = (0.0, Vec::new(), Vec::new());
        for _ in 0..4 * CYCLES + 4 {
            // In turns, so that both see the same machine.
            products.push(product_seconds(&source, k, 1));
            let sweep = fit.step(&ctx).unwrap();
            seconds.push(sweep.seconds - last);
            last = sweep.seconds;
        }
        let product = median(products);
        // Every fourth sweep gathers all of AᵀY; the one after it chooses the supports, and costs
        // so much more than the two that follow on fixed ones.
        let choice =
            |i: usize| (seconds[4 * i + 4] - seconds[4 * i + 5].min(seconds[4 * i + 6])).max(0.0);
        let full = median(
            (0..CYCLES)
                .map(|i| seconds[4 * i + 3] + choice(i))
                .collect(),
        );
        let choosing = 1e3 * median((0..CYCLES).map(choice).collect());
        let cycle = median(
            (1..CYCLES)
                .map(|i| seconds[4 * i..4 * i + 4].iter().sum::<f64>() / 4.0)
                .collect(),
        );
        println!(
            "{what}, {n} × {d}, k {k}, p {sparsity}: A·Y {:.1} ms ({:.0} GFLOP/s, reads {:.1} GB/s) · full sweep {:.1} ms = {:.2} × A·Y ({:.0} GFLOP/s, {:.0} % of the product's), {choosing:.1} ms of it the choice of supports · mean of four {:.1} ms = {:.2} × ({:.1} GB/s of A) · start {:.1} ms",
            product * 1e3,
            flops / product / 1e9,
            bytes / product / 1e9,
            full * 1e3,
            full / product,
            flops / full / 1e9,
            100.0 * product / full,
            cycle * 1e3,
            cycle / product,
            bytes / cycle / 1e9,
            fit.init_seconds() * 1e3,
        );
    }
}

/// What one pass over memory reads on all threads, in bytes a second.
fn memory_rate() -> f64 {
    use rayon::prelude::*;
    let values = vec![1u64; 64 << 20];
    let best = (0..5)
        .map(|_| {
            let started = Instant::now();
            let total: u64 = values
                .par_chunks(1 << 16)
                .map(|c| c.iter().fold(0u64, |s, v| s.wrapping_add(*v)))
                .sum();
            assert_eq!(total, values.len() as u64);
            started.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    8.0 * values.len() as f64 / best
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn number(name: &str, default: f64) -> f64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// Sparse signed features with sparse coefficients, and noise.
fn planted(n: usize, d: usize) -> InMemory {
    let mut rng = rand_pcg::Pcg64::seed_from_u64(7);
    let features: Vec<Vec<(usize, f32)>> = (0..150)
        .map(|_| {
            (0..d.div_ceil(100))
                .map(|_| (rng.random_range(0..d), rng.sample(StandardNormal)))
                .collect()
        })
        .collect();
    let mut data: Vec<f32> = (0..n * d)
        .map(|_| 0.2 * rng.sample::<f32, _>(StandardNormal))
        .collect();
    for row in data.chunks_exact_mut(d) {
        for _ in 0..8 {
            let c: f32 = rng.random_range(0.5..3.0);
            for &(i, v) in &features[rng.random_range(0..features.len())] {
                row[i] += c * v;
            }
        }
    }
    InMemory::new(n, d, data)
}

/// A version 1 `.npy` of little-endian float32, C order.
fn read_npy(path: &str) -> InMemory {
    let bytes = std::fs::read(path).unwrap();
    let header = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let text = String::from_utf8_lossy(&bytes[10..header]).into_owned();
    assert!(
        text.contains("<f4") && text.contains("'fortran_order': False"),
        "want C-order float32: {text}"
    );
    let shape = text
        .split("'shape': (")
        .nth(1)
        .unwrap()
        .split(')')
        .next()
        .unwrap();
    let dims: Vec<usize> = shape
        .split(',')
        .filter_map(|v| v.trim().parse().ok())
        .collect();
    let values = bytes[header..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    InMemory::new(dims[0], dims[1], values)
}
