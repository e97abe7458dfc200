//! Tokens a second of the decoder on the CPU: prefill with a tap, collecting at half depth, generation, steered and not.
//!
//! `MLPEEK_BENCH_MODEL=model.gguf cargo bench --bench decoder`. Figures are medians of several runs in one process.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use mlpeek::model::config::Config;
use mlpeek::model::weights::Weights;
use mlpeek::model::{Batch, Decoder, HookPoint, HookSite, Logits, NoTap, Pass, Phase, Tap};
use mlpeek::steering::tap::{SteerTap, Touch};
use mlpeek::steering::{Mode, Push, SteerTerm};
use mlpeek::{Result, TaskCtx};

/// Reads every activation it is shown, as collecting does.
struct Collect {
    hooks: Vec<HookPoint>,
    sum: f32,
}

impl Collect {
    fn at_layer(layer: usize) -> Self {
        Self { hooks: vec![HookPoint { layer, site: HookSite::MlpPost }], sum: 0.0 }
    }
}

impl Tap for Collect {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }
    fn at(&mut self, _: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        self.sum += x.flatten_all()?.to_vec1::<f32>()?.iter().sum::<f32>();
        Ok(None)
    }
}

/// Processor seconds of this process so far, where the system tells: steadier than the clock on a busy machine.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    // Fields 14 and 15 of proc(5), counted after the name, in ticks of 10 ms.
    fields.get(11).zip(fields.get(12)).map_or(0.0, |(user, system)| (user + system) / 100.0)
}

/// Median seconds of `runs` runs, after one to warm up.
fn median(runs: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        f()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[runs / 2])
}

fn batch(rows: usize, tokens: usize, vocab: usize) -> Batch {
    let row = |r: usize| (0..tokens).map(|t| ((r * 7919 + t * 104_729) % vocab) as u32).collect();
    Batch { rows: (0..rows).map(row).collect(), samples: Vec::new() }
}

fn generation(decoder: &Decoder, rows: usize, tokens: usize, tap: &mut dyn Tap) -> Result<f64> {
    let ctx = TaskCtx::silent();
    let prompt = batch(rows, 8, decoder.config().vocab);
    let mut cache = decoder.new_cache(rows);
    decoder.forward(&prompt, Phase::Prompt, Some(&mut cache), tap, Logits::Last, &ctx)?;
    let mut next = vec![1u32; rows];
    let start = Instant::now();
    for _ in 0..tokens {
        let step = Batch { rows: next.iter().map(|&id| vec![id]).collect(), samples: Vec::new() };
        let logits = decoder.forward(&step, Phase::Generated, Some(&mut cache), tap, Logits::Last, &ctx)?;
        if let Some(logits) = logits {
            next = logits.argmax(1)?.to_vec1()?;
        }
    }
    Ok((rows * tokens) as f64 / start.elapsed().as_secs_f64())
}

fn main() -> Result<()> {
    let Some(path) = std::env::var_os("MLPEEK_BENCH_MODEL") else {
        println!("set MLPEEK_BENCH_MODEL to a GGUF file");
        return Ok(());
    };
    let ctx = TaskCtx::silent();
    let weights = Weights::open_gguf(Path::new(&path))?;
    let decoder = Decoder::on_cpu(Config::from_gguf(&weights)?, &weights, None, &ctx)?;
    let (depth, vocab) = (decoder.config().layers.len(), decoder.config().vocab);
    let texts = batch(8, 64, vocab);
    let mut rates = Vec::new();
    for layer in [depth - 1, (depth / 2).saturating_sub(1)] {
        let before = processor_seconds();
        let seconds = median(7, || {
            let mut tap = Collect::at_layer(layer);
            decoder.forward(&texts, Phase::Prompt, None, &mut tap, Logits::None, &ctx)?;
            assert!(tap.sum.is_finite());
            Ok(())
        })?;
        let rate = 512.0 / seconds;
        let busy = (processor_seconds() - before) / 8.0;
        println!(
            "prefill 8 x 64, tap at layer {layer} of {depth}: {rate:.0} tok/s ({seconds:.3} s, {busy:.3} processor s)"
        );
        rates.push(seconds);
    }
    println!("half depth costs {:.2} of full depth", rates[1] / rates[0]);
    let hook = HookPoint { layer: depth / 2, site: HookSite::MlpPost };
    let direction = vec![0.01; decoder.width(hook)?];
    let push = Arc::new(Push::new(&[SteerTerm { hook, direction, weight: 1.0 }], Mode::Add)?);
    let mut alone = 0.0;
    for rows in [1, 2, 8, 16] {
        generation(&decoder, rows, 4, &mut NoTap)?;
        let mut runs = [0.0; 3];
        let before = processor_seconds();
        for run in &mut runs {
            *run = generation(&decoder, rows, 48, &mut NoTap)?;
        }
        runs.sort_by(f64::total_cmp);
        let busy = (processor_seconds() - before) / (3 * 48 * rows) as f64 * 1e3;
        if rows == 1 {
            alone = runs[1];
        }
        let mut tap = SteerTap::at_strengths(&push, &vec![1.0; rows], Touch::All)?;
        let mut steered = [0.0; 3];
        for run in &mut steered {
            *run = generation(&decoder, rows, 48, &mut tap)?;
        }
        steered.sort_by(f64::total_cmp);
        println!(
            "generation of {rows} rows: {:.1} tok/s ({busy:.2} processor ms a token), {:.2} times one row's; steered {:.1}",
            runs[1],
            runs[1] / alone,
            steered[1]
        );
    }
    Ok(())
}
