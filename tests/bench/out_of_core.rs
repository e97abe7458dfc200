//! A fit to a cache larger than memory: how near its sweeps come to the disk's own read rate, and
//! what memory they take.
//!
//! `cargo bench --bench out_of_core` writes a cache of random f16 rows to a folder of its own,
//! which goes at the end. `MLPEEK_BENCH_CACHE_GB` (default 2; 10⁹ bytes), `MLPEEK_BENCH_D`,
//! `MLPEEK_BENCH_K`, `MLPEEK_BENCH_SWEEPS`, `MLPEEK_BENCH_DIR` (on the disk to measure; default the
//! folder for temporary files), `MLPEEK_BENCH_KEEP=DIR` (a cache that stays and is used again where
//! it is there). Only a cache that the page cache cannot hold says something: more bytes than
//! memory, or a memory limit around the run (a control group). What each step really read from the
//! disk is told beside it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlpeek::activations::ActivationSource;
use mlpeek::activations::store::{CacheDtype, CacheReader, CacheWriter};
use mlpeek::factor::{Factoriser, FitConfig};
use mlpeek::task::TaskCtx;
use rand::{RngCore, SeedableRng};
use rayon::prelude::*;

fn main() {
    let (d, k) = (
        number("MLPEEK_BENCH_D", 1536.0) as usize,
        number("MLPEEK_BENCH_K", 100.0) as usize,
    );
    let n = (number("MLPEEK_BENCH_CACHE_GB", 2.0) * 1e9 / (2 * d) as f64) as usize;
    let at = std::env::var_os("MLPEEK_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(at).unwrap();
    let kept = std::env::var_os("MLPEEK_BENCH_KEEP").map(PathBuf::from);
    let cache = kept.unwrap_or_else(|| dir.path().join("cache"));
    let bytes = 2.0 * (n * d) as f64;
    let meter = Meter::start();
    println!("{n} × {d} in f16, {:.1} GB; k {k}", bytes / 1e9);
    if !cache.exists() {
        write_rows(&cache, n, d);
    }

    let before = Disk::now();
    let began = Instant::now();
    let size = read_files(&cache) as f64;
    let rate = size / began.elapsed().as_secs_f64();
    println!(
        "plain sequential read: {:.2} GB/s; {}",
        rate / 1e9,
        before.since()
    );

    let (source, ctx) = (CacheReader::open(&cache).unwrap(), TaskCtx::silent());
    assert_eq!(source.shape(), (n, d));
    meter.peak.store(0, Ordering::Relaxed);
    let scratch = Some(dir.path().to_path_buf());
    let config = FitConfig {
        features: k,
        sparsity: Some(0.01),
        scratch,
        ..FitConfig::plain()
    };
    let tell = |what: &str, seconds: f64, before: Disk| {
        let now = bytes / seconds;
        println!(
            "{what}: {seconds:.1} s, {:.2} GB/s of the cache, {:.2} × the plain read; {}",
            now / 1e9,
            now / rate,
            before.since()
        );
    };
    let before = Disk::now();
    let mut fit = Factoriser::start(&source, config, &ctx).unwrap();
    println!(
        "start (checksums, norms, k-means): {:.1} s; {}",
        fit.init_seconds(),
        before.since()
    );
    let mut last = 0.0;
    for _ in 0..number("MLPEEK_BENCH_SWEEPS", 4.0) as usize {
        let before = Disk::now();
        let sweep = fit.step(&ctx).unwrap();
        tell(
            &format!("sweep {} to error {:.5}", sweep.sweep, sweep.relative_error),
            sweep.seconds - last,
            before,
        );
        last = sweep.seconds;
    }
    let (before, began) = (Disk::now(), Instant::now());
    let error = fit.finish(&ctx).unwrap().relative_error;
    tell(
        &format!("factors, and the error {error:.5} from the residual"),
        began.elapsed().as_secs_f64(),
        before,
    );
    println!(
        "peak of anonymous memory: {:.2} GB",
        meter.peak.load(Ordering::Relaxed) as f64 / 1e9
    );
}

/// Uniform values in [−1, 1): their bits do not compress and their k-means has nothing to find.
fn write_rows(dir: &Path, n: usize, d: usize) {
    const ROWS: usize = 4096;
    let mut writer = CacheWriter::open(dir, d, CacheDtype::F16).unwrap();
    let mut rows = vec![0f32; ROWS * d];
    for first in (0..n).step_by(ROWS) {
        rows.par_chunks_mut(64 * d)
            .enumerate()
            .for_each(|(i, piece)| {
                let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64((first * 64 + i) as u64);
                piece
                    .iter_mut()
                    .for_each(|v| *v = rng.next_u32() as i32 as f32 / 2f32.powi(31));
            });
        writer.push(&rows[..ROWS.min(n - first) * d]).unwrap();
    }
    writer.seal().unwrap();
}

/// Reads every file of a folder from end to end; returns their bytes.
fn read_files(dir: &Path) -> usize {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.sort();
    let mut buffer = vec![0; 8 << 20];
    let mut total = 0;
    for path in files {
        let mut file = File::open(path).unwrap();
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break,
                read => total += read,
            }
        }
    }
    total
}

/// Bytes that this process has had from and sent to the disk.
#[derive(Clone, Copy)]
struct Disk([u64; 2]);

impl Disk {
    fn now() -> Self {
        Self(["read_bytes:", "write_bytes:"].map(|name| field("/proc/self/io", name)))
    }

    fn since(self) -> String {
        let now = Self::now().0;
        let [read, written] = [0, 1].map(|i| (now[i] - self.0[i]) as f64 / 1e9);
        format!("{read:.1} GB came from the disk, {written:.1} GB are to go there")
    }
}

/// Follows this process's anonymous memory.
struct Meter {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Meter {
    fn start() -> Self {
        let meter = Self {
            peak: Arc::default(),
            stop: Arc::default(),
        };
        let (peak, stop) = (Arc::clone(&meter.peak), Arc::clone(&meter.stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(
                    1024 * field("/proc/self/status", "RssAnon:"),
                    Ordering::Relaxed,
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        meter
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The number after a word at the start of a line; 0 where the system keeps no such file.
fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .find_map(|l| {
            l.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

fn number(name: &str, default: f64) -> f64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}
