//! Runs a model over a corpus into a study's caches: batches by length, several layers in one pass,
//! resumable.
//!
//! Knows of the model only what `Runner` asks. Invariant: rows enter the study by whole samples, in
//! the order of the corpus; a sample's rows are its tokens in order, without BOS and padding.

mod batches;
mod capture;
mod encoded;
mod estimate;
mod stored;

use std::time::Instant;

use batches::Collector;
use candle_core::{DType, Device};
use encoded::{Encoded, encode};
use estimate::disk_bytes;
pub use estimate::{Estimate, estimate};
pub(crate) use stored::of_compute;
pub use stored::{exact_dtype, stored_remark, stored_words};

use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::model::{Batch, BosRule, HookPoint, Logits, Model, ModelInfo, Phase, Tap};
use crate::study::{Appender, Study, check_disk_space};
use crate::task::TaskCtx;

/// What a collection did.
#[derive(Debug, Clone, PartialEq)]
pub struct Collected {
    /// Token rows now in the cache.
    pub tokens: usize,
    /// Samples they come from.
    pub samples: usize,
    /// Texts that were cut into windows because they exceed the context.
    pub windowed: usize,
    /// Seconds this run took.
    pub seconds: f64,
}

/// Fills the caches of every hook of `study` from `corpus`; goes on from the last complete shards.
/// BOS rows and padding are dropped; every other token is a row tied to its sample and position. A
/// text longer than the context is cut into windows, each with its own BOS and its own context;
/// positions count on through them.
///
/// Where it fails before a row is kept, the study is removed, or the corpus taken out again that
/// was added last.
///
/// # Errors
/// A model that is not the study's own, before anything is written.
pub fn collect(
    model: &Model,
    corpus: &Corpus,
    study: &mut Study,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Collected> {
    run(model, corpus, study, Add::Never(bos), ctx)
}

/// Adds `corpus` to a complete study and fills its caches from it, as [`collect`] does. The corpus
/// is a part of the study only once all has been checked: what is refused leaves the study as it
/// was.
///
/// # Errors
/// As [`collect`]; a study that is not complete.
pub fn append(
    model: &Model,
    corpus: &Corpus,
    study: &mut Study,
    ctx: &TaskCtx,
) -> Result<Collected> {
    run(model, corpus, study, Add::Corpus, ctx)
}

/// Goes on where collecting `study` was cut short, with the texts that the study keeps.
///
/// # Errors
/// As [`collect`].
pub fn resume(model: &Model, study: &mut Study, ctx: &TaskCtx) -> Result<Collected> {
    let mut windowed = 0;
    let started = Instant::now();
    for number in study.corpus_due()?..study.manifest().corpora.len() {
        let corpus = study.corpus(number)?;
        let bos = study.manifest().bos;
        windowed += collect(model, &corpus, study, bos, ctx)?.windowed;
    }
    let done = study.collected()?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Collected {
        tokens: done.rows,
        samples: done.samples,
        windowed,
        seconds,
    })
}

/// Whether a corpus that the study lacks is added to it.
#[derive(Clone, Copy)]
enum Add {
    /// It must be there, and so must be the BOS rule.
    Never(BosRule),
    Corpus,
}

/// What collecting needs of a model.
trait Runner: Sync {
    /// What a study remembers of it.
    fn info(&self) -> &ModelInfo;
    fn width(&self, hook: HookPoint) -> Result<usize>;
    fn encode(&self, text: &str, rule: BosRule) -> Result<Vec<u32>>;
    fn bos(&self) -> Option<u32>;
    fn piece(&self, id: u32) -> String;
    /// Longest row in tokens.
    fn context(&self) -> usize;
    /// Padded tokens of a batch.
    fn batch_tokens(&self) -> usize;
    fn forward(&self, batch: &Batch, tap: &mut dyn Tap, ctx: &TaskCtx) -> Result<()>;
    /// The device that it computes on.
    fn device(&self) -> &Device;
    /// What to do about a value that is not finite in `layer`, as the end of a sentence.
    fn remedy(&self, layer: usize) -> String;
}

impl Runner for Model {
    fn info(&self) -> &ModelInfo {
        Model::info(self)
    }
    fn width(&self, hook: HookPoint) -> Result<usize> {
        Model::width(self, hook)
    }
    fn encode(&self, text: &str, rule: BosRule) -> Result<Vec<u32>> {
        self.tokenizer().encode(text, rule)
    }
    fn bos(&self) -> Option<u32> {
        self.tokenizer().bos()
    }
    fn piece(&self, id: u32) -> String {
        self.tokenizer().piece(id)
    }
    fn context(&self) -> usize {
        Model::info(self).context
    }
    fn batch_tokens(&self) -> usize {
        Model::batch_tokens(self)
    }
    fn forward(&self, batch: &Batch, tap: &mut dyn Tap, ctx: &TaskCtx) -> Result<()> {
        Model::forward(self, batch, Phase::Prompt, None, tap, Logits::None, ctx).map(|_| ())
    }
    fn device(&self) -> &Device {
        Model::device(self)
    }
    fn remedy(&self, layer: usize) -> String {
        self.decoder()
            .damage(0..layer + 1)
            .unwrap_or_else(|| match self.decoder().dtype() {
                DType::F32 => "take the sample out, or check the weights".to_owned(),
                _ => "use --dtype f32, or take the sample out".to_owned(),
            })
    }
}

fn run(
    runner: &impl Runner,
    corpus: &Corpus,
    study: &mut Study,
    add: Add,
    ctx: &TaskCtx,
) -> Result<Collected> {
    check_model(runner, study)?;
    let outcome = collect_checked(runner, corpus, study, add, ctx);
    if outcome
        .as_ref()
        .is_err_and(|e| !matches!(e, Error::Cancelled))
    {
        // What it failed of is what the user must know; what this cannot put back stays to be seen
        // in the study.
        for problem in [study.withdraw_if_empty(), study.discard_if_empty()]
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::warn!("{problem}");
        }
    }
    outcome
}

/// Whether rows of this model are rows of the study.
fn check_model(runner: &impl Runner, study: &Study) -> Result<()> {
    study.check_model(runner.info())?;
    for (&hook, &width) in study.manifest().hooks.iter().zip(&study.manifest().widths) {
        let its = runner.width(hook)?;
        if its != width {
            return Err(Error::refused(format!(
                "{}: rows of {hook} have {width} values and this model's {its}: give the study's own model by --model",
                study.dir().display()
            )));
        }
    }
    Ok(())
}

/// Holds the request against the study, then adds rows.
fn collect_checked(
    runner: &impl Runner,
    corpus: &Corpus,
    study: &mut Study,
    add: Add,
    ctx: &TaskCtx,
) -> Result<Collected> {
    let start = Instant::now();
    let (manifest, dir) = (study.manifest(), study.dir().display());
    let rule = manifest.bos;
    match add {
        Add::Never(asked) if asked != rule => {
            return Err(Error::usage(
                format!("the study's BOS rule is {rule:?}, not {asked:?}").to_lowercase(),
            ));
        }
        Add::Never(_) if manifest.first_sample(&corpus.sha256).is_none() => {
            return Err(Error::usage(format!(
                "{} is not a corpus of {dir}",
                corpus.name
            )));
        }
        Add::Never(_) => {}
        Add::Corpus => study.check_append(corpus)?,
    }
    let first = manifest
        .first_sample(&corpus.sha256)
        .unwrap_or_else(|| manifest.samples());
    let encoded = encode(runner, &corpus.samples, rule, ctx)?;
    let total: usize = encoded.iter().map(Encoded::rows).sum();
    let windowed = encoded.iter().filter(|e| e.windows.len() > 1).count();
    let done = study.collected()?.samples;
    let missing: usize = encoded[done.saturating_sub(first).min(encoded.len())..]
        .iter()
        .map(Encoded::rows)
        .sum();
    check_disk_space(
        study.dir(),
        disk_bytes(missing, &study.manifest().widths, study.manifest().dtype),
        true,
    )?;
    study.record_model(runner.info())?;
    if let Add::Corpus = add {
        if study.manifest().first_sample(&corpus.sha256).is_none() {
            // Rows that were lost since are found here, before a corpus is added behind them.
            Appender::open(study)?;
            let dir = study.dir().display();
            if !study.manifest().complete {
                return Err(Error::refused(format!(
                    "rows of {dir} are missing ({}): mlpeek collect --out {dir} collects them again first",
                    study.collected()?
                )));
            }
        }
        study.append(corpus)?;
    }
    let mut appender = Appender::open(study)?;
    let done = appender.next_sample();
    if done < first {
        let names: Vec<_> = appender
            .study()
            .manifest()
            .corpora
            .iter()
            .map(|c| c.name.as_str())
            .collect();
        return Err(Error::refused(format!(
            "sample {done} is due first: collect {} in this order",
            names.join(", ")
        )));
    }
    // Beyond the end when another corpus has been added since.
    let from = (done - first).min(encoded.len());
    let collector = Collector {
        runner,
        samples: &corpus.samples,
        encoded: &encoded,
        first,
        total,
        ctx,
    };
    let outcome = collector.fill(&mut appender, from);
    // Whatever ended it, what is complete stays; the first error is the one to tell.
    let sealed = appender.seal();
    outcome.and(sealed)?;
    tracing::info!("collected {total} token rows of {}", corpus.name);
    Ok(Collected {
        tokens: appender.rows(),
        samples: appender.next_sample(),
        windowed,
        seconds: start.elapsed().as_secs_f64(),
    })
}

#[cfg(test)]
mod tests;
