//! Tokens a second of the decoder on the CPU beside its peers in one run: prefill with a tap,
//! collecting layer by layer, generation with and without steering, and the memory that loading
//! takes.
//!
//! `MLPEEK_BENCH_MODEL=model.gguf cargo bench --bench decoder`. Figures are medians of several
//! runs. candle's quantised Llama runs in this process; transformers and llama.cpp run by
//! `decoder_peers.py` under `MLPEEK_BENCH_PYTHON` (default `python3`) where they are installed, and
//! a line says so where not.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use candle_core::quantized::gguf_file;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama;
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;
use mlpeek::model::{
    Batch, Decoder, HookPoint, HookSite, KvCache, Logits, NoTap, Pass, Phase, Tap,
};
use mlpeek::{Result, TaskCtx};

/// Tokens of a generation.
const NEW: usize = 48;

/// Reads every activation it is shown, as collecting does.
struct Collect {
    hooks: Vec<HookPoint>,
    sum: f32,
}

impl Collect {
    fn at_layer(layer: usize) -> Self {
        Self {
            hooks: vec![HookPoint {
                layer,
                site: HookSite::MlpPost,
            }],
            sum: 0.0,
        }
    }
}

impl Tap for Collect {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }
    fn intercept(&mut self, _: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        self.sum += x.flatten_all()?.to_vec1::<f32>()?.iter().sum::<f32>();
        Ok(None)
    }
}

/// Adds a direction to the residual stream at one layer, as steering does.
struct Steer {
    hook: HookPoint,
    direction: Tensor,
}

impl Tap for Steer {
    fn hooks(&self) -> &[HookPoint] {
        std::slice::from_ref(&self.hook)
    }
    fn intercept(&mut self, _: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(x.broadcast_add(&self.direction)?))
    }
}

/// Kilobytes after a word of this process's status: `VmHWM:` is the most memory it ever held,
/// mapped files included.
fn status(word: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(word))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds of one run.
fn timed(f: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    f()?;
    Ok(start.elapsed().as_secs_f64())
}

fn batch(rows: usize, tokens: usize, vocab: usize) -> Batch {
    let row = |r: usize| {
        (0..tokens)
            .map(|t| ((r * 7919 + t * 104_729) % vocab) as u32)
            .collect()
    };
    Batch {
        rows: (0..rows).map(row).collect(),
        samples: Vec::new(),
    }
}

/// Tokens a second of `rows` rows.
fn generation(decoder: &Decoder, rows: usize, tap: &mut dyn Tap) -> Result<f64> {
    generation_over(decoder, decoder.new_cache(rows), rows, tap)
}

/// The same in f32, as an evaluation generates: a text depends on no other of its batch.
fn generation_widened(decoder: &Decoder, rows: usize) -> Result<f64> {
    generation_over(decoder, decoder.new_cache(rows).widened(), rows, &mut NoTap)
}

fn generation_over(
    decoder: &Decoder,
    mut cache: KvCache,
    rows: usize,
    tap: &mut dyn Tap,
) -> Result<f64> {
    let ctx = TaskCtx::silent();
    let prompt = batch(rows, 8, decoder.config().vocab);
    decoder.forward(
        &prompt,
        Phase::Prompt,
        Some(&mut cache),
        tap,
        Logits::Last,
        &ctx,
    )?;
    let mut next = vec![1u32; rows];
    let seconds = timed(|| {
        for _ in 0..NEW {
            let step = Batch {
                rows: next.iter().map(|&id| vec![id]).collect(),
                samples: Vec::new(),
            };
            let logits = decoder.forward(
                &step,
                Phase::Generated,
                Some(&mut cache),
                tap,
                Logits::Last,
                &ctx,
            )?;
            if let Some(logits) = logits {
                next = logits.argmax(1)?.to_vec1()?;
            }
        }
        Ok(())
    })?;
    Ok((rows * NEW) as f64 / seconds)
}

/// The same of candle's own quantised Llama, one row; `None` for another architecture.
fn candle_generation(path: &Path) -> Result<Option<f64>> {
    let Ok(mut file) = File::open(path) else {
        return Ok(None);
    };
    let content = gguf_file::Content::read(&mut file)?;
    let Ok(mut model) = quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)
    else {
        return Ok(None);
    };
    let mut rates = Vec::new();
    for _ in 0..3 {
        let prompt: [u32; 8] = std::array::from_fn(|t| t as u32 * 97 + 10);
        model.forward(&Tensor::new(&[prompt], &Device::Cpu)?, 0)?;
        let mut next = 1u32;
        let seconds = timed(|| {
            for i in 0..NEW {
                let logits = model.forward(&Tensor::new(&[[next]], &Device::Cpu)?, 8 + i)?;
                next = logits.argmax(1)?.to_vec1::<u32>()?[0];
            }
            Ok(())
        })?;
        rates.push(NEW as f64 / seconds);
    }
    Ok(Some(median(rates)))
}

/// What `decoder_peers.py` measured, by name.
fn python_peers(path: &Path) -> HashMap<String, f64> {
    let python = std::env::var_os("MLPEEK_BENCH_PYTHON").unwrap_or_else(|| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/decoder_peers.py");
    let threads = rayon::current_num_threads().to_string();
    let output = Command::new(&python)
        .arg(script)
        .arg(path)
        .arg(threads)
        .stderr(Stdio::null())
        .output();
    let Ok(output) = output else {
        println!(
            "left out: transformers and llama.cpp ({} cannot be run)",
            python.display()
        );
        return HashMap::new();
    };
    let mut figures = HashMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix("figure ").and_then(|l| l.split_once(' ')) {
            Some((name, value)) => {
                let _ = figures.insert(name.to_owned(), value.trim().parse().unwrap_or(f64::NAN));
            }
            None => println!("{line}"),
        }
    }
    if !output.status.success() {
        println!(
            "left out: what is missing below ({} {script} failed)",
            python.display()
        );
    }
    figures
}

fn beside(what: &str, ours: f64, peer: &str, theirs: Option<&f64>) {
    if let Some(theirs) = theirs {
        println!(
            "{what}: {ours:.0} tok/s, {peer} {theirs:.0}: {:.2} times",
            ours / theirs
        );
    }
}

/// Median seconds of five passes of 8 × 64 tokens up to each layer, in turns so that all see the
/// same machine.
fn prefill(decoder: &Decoder, layers: &[usize]) -> Result<Vec<f64>> {
    let (texts, ctx) = (batch(8, 64, decoder.config().vocab), TaskCtx::silent());
    let mut seconds = vec![Vec::new(); layers.len()];
    for round in 0..6 {
        for (&layer, seconds) in layers.iter().zip(&mut seconds) {
            let mut tap = Collect::at_layer(layer);
            let run = timed(|| {
                decoder.forward(&texts, Phase::Prompt, None, &mut tap, Logits::None, &ctx)?;
                assert!(tap.sum.is_finite());
                Ok(())
            })?;
            if round > 0 {
                seconds.push(run);
            }
        }
    }
    Ok(seconds.into_iter().map(median).collect())
}

fn main() -> Result<()> {
    let Some(path) = std::env::var_os("MLPEEK_BENCH_MODEL") else {
        println!("set MLPEEK_BENCH_MODEL to a GGUF file");
        return Ok(());
    };
    let (path, ctx, before) = (Path::new(&path), TaskCtx::silent(), status("VmHWM:"));
    let weights = Weights::open_gguf(path)?;
    let decoder = Decoder::on_cpu(Config::from_gguf(&weights)?, &weights, None, &ctx)?;
    generation(&decoder, 1, &mut NoTap)?;
    let stored = weights.bytes() as f64 / 1024.0;
    let peak = (status("VmHWM:") - before) / stored;
    println!(
        "memory after loading and a first generation: {peak:.2} of the {:.0} MB of the file",
        stored / 1e3
    );

    let depth = decoder.config().layers.len();
    let layers = [depth - 1, depth / 2, depth / 4, 0];
    let seconds = prefill(&decoder, &layers)?;
    let prefill = 512.0 / seconds[0];
    println!(
        "prefill 8 x 64 with a tap at layer {} of {depth}: {prefill:.0} tok/s",
        depth - 1
    );
    for (layer, s) in layers.iter().zip(&seconds).skip(1) {
        let share = (layer + 1) as f64 / depth as f64;
        println!(
            "collecting at layer {layer}: {:.3} of full depth, layers {share:.3}",
            s / seconds[0]
        );
    }

    let hook = HookPoint {
        layer: depth / 2,
        site: HookSite::ResidPost,
    };
    let direction = Tensor::full(0.01f32, decoder.config().d_model, &Device::Cpu)?;
    let mut steer = Steer { hook, direction };
    let (mut plain, mut steered) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        plain.push(generation(&decoder, 1, &mut NoTap)?);
        steered.push(generation(&decoder, 1, &mut steer)?);
    }
    let (plain, steered) = (median(plain), median(steered));
    println!(
        "generation of 1 row: {plain:.0} tok/s, steered {steered:.0}: {:.3}",
        steered / plain
    );
    for rows in [2, 8, 16] {
        let rates = (0..3)
            .map(|_| generation(&decoder, rows, &mut NoTap))
            .collect::<Result<_>>()?;
        println!("generation of {rows} rows: {:.0} tok/s", median(rates));
    }
    // In turns, so that the ratios are of the same machine.
    let batches = [1, 8, 16, 64];
    let mut rates = vec![Vec::new(); batches.len()];
    for _ in 0..3 {
        for (&rows, rates) in batches.iter().zip(&mut rates) {
            rates.push(generation_widened(&decoder, rows)?);
        }
    }
    let rates: Vec<f64> = rates.into_iter().map(median).collect();
    for (rows, rate) in batches.iter().zip(&rates) {
        println!(
            "evaluation's generation (f32) of {rows} rows: {rate:.0} tok/s, {:.2} of 1 row's",
            rate / rates[0]
        );
    }

    match candle_generation(path)? {
        Some(rate) => beside(
            "generation of 1 row",
            plain,
            "candle's quantised Llama",
            Some(&rate),
        ),
        None => println!("left out: candle's quantised Llama (it does not read this architecture)"),
    }
    let peers = python_peers(path);
    beside(
        "prefill",
        prefill,
        "transformers f32",
        peers.get("transformers_prefill"),
    );
    beside(
        "prefill",
        prefill,
        "llama.cpp on the same file",
        peers.get("llama_cpp_prefill"),
    );
    beside(
        "generation of 1 row",
        plain,
        "llama.cpp on the same file",
        peers.get("llama_cpp_generation"),
    );
    Ok(())
}
