//! Runs a model over a corpus into a study's caches: batches by length, several layers in one pass,
//! resumable.
//!
//! Knows of the model only what `Runner` asks. Invariant: rows enter the study by whole samples, in
//! the order of the corpus; a sample's rows are its tokens in order, without BOS and padding.

mod capture;
mod encoded;

use std::time::{Duration, Instant};

use candle_core::DType;
use capture::Capture;
use encoded::{Encoded, encode};

use crate::activations::store::CacheDtype;
use crate::corpus::{Corpus, Sample};
use crate::disk;
use crate::error::{Error, Result};
use crate::model::{Batch, BosRule, HookPoint, Logits, Model, ModelInfo, Phase, Tap};
use crate::study::{Appender, Study, check_room};
use crate::task::{Progress, TaskCtx};

/// A kill loses at most about this much collecting.
const SEAL_EVERY: Duration = Duration::from_secs(10);
/// Sealed earlier once a cache has this much that is not safe yet.
const SEAL_BYTES: usize = 64 << 20;
/// Activations of a batch, all hooks together, in f32.
const BATCH_BYTES: usize = 512 << 20;
/// Batches whose samples are sorted by length together. Groups follow each other from the last seal
/// on whatever the clock says, so that a resumed run makes the same batches, to the bit, as one
/// that was never stopped.
const GROUP_BATCHES: usize = 4;

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

/// What collecting a corpus would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Samples of the corpus.
    pub samples: usize,
    /// Token rows.
    pub tokens: usize,
    /// Texts that exceed the context and would be cut into windows.
    pub windowed: usize,
    /// Bytes of all caches and the token log.
    pub bytes: u64,
}

impl Estimate {
    fn new(
        samples: usize,
        tokens: usize,
        windowed: usize,
        widths: &[usize],
        dtype: CacheDtype,
    ) -> Self {
        Self {
            samples,
            tokens,
            windowed,
            bytes: disk_bytes(tokens, widths, dtype),
        }
    }

    /// Without a tokenizer: about one token every four bytes of text. For showing before a model is
    /// open.
    pub fn rough(corpus: &Corpus, widths: &[usize], dtype: CacheDtype) -> Self {
        let tokens = corpus
            .samples
            .iter()
            .map(|s| s.text.len().div_ceil(4))
            .sum();
        Self::new(corpus.samples.len(), tokens, 0, widths, dtype)
    }
}

/// For a person: "1,236 texts, about 18,000 tokens, 110.0 MiB".
impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} texts, {} tokens, {} on disk",
            self.samples,
            self.tokens,
            disk::human_bytes(self.bytes)
        )
    }
}

/// What collecting `corpus` with `model` at hooks of these widths would take, exactly: the texts
/// are tokenised.
pub fn estimate(
    model: &Model,
    corpus: &Corpus,
    widths: &[usize],
    dtype: CacheDtype,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Estimate> {
    estimate_with(model, corpus, widths, dtype, bos, ctx)
}

fn estimate_with(
    runner: &impl Runner,
    corpus: &Corpus,
    widths: &[usize],
    dtype: CacheDtype,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Estimate> {
    let encoded = encode(runner, &corpus.samples, bos, ctx)?;
    let tokens = encoded.iter().map(Encoded::rows).sum();
    let windowed = encoded.iter().filter(|e| e.windows.len() > 1).count();
    Ok(Estimate::new(
        corpus.samples.len(),
        tokens,
        windowed,
        widths,
        dtype,
    ))
}

fn disk_bytes(rows: usize, widths: &[usize], dtype: CacheDtype) -> u64 {
    let row = widths.iter().map(|w| w * dtype.size()).sum::<usize>() + 8;
    (rows as u64).saturating_mul(row as u64)
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
pub fn go_on(model: &Model, study: &mut Study, ctx: &TaskCtx) -> Result<Collected> {
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
    admit(runner, study)?;
    let outcome = checked(runner, corpus, study, add, ctx);
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
fn admit(runner: &impl Runner, study: &Study) -> Result<()> {
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
fn checked(
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
    check_room(
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

struct Collector<'a, R> {
    runner: &'a R,
    samples: &'a [Sample],
    encoded: &'a [Encoded],
    /// The number of the corpus's first sample in the study.
    first: usize,
    /// Rows of the whole corpus.
    total: usize,
    ctx: &'a TaskCtx,
}

/// One window of a sample, and where its rows go among those of its group.
struct Piece {
    sample: usize,
    window: usize,
    first_row: usize,
}

/// Consecutive windows whose rows are in flight together.
struct Group {
    pieces: Vec<Piece>,
    rows: usize,
    /// The sample and window after them.
    next: (usize, usize),
}

impl Group {
    fn push(&mut self, sample: usize, window: usize, encoded: &Encoded) {
        self.pieces.push(Piece {
            sample,
            window,
            first_row: self.rows,
        });
        self.rows += encoded.window_rows(window);
        self.next = if window + 1 == encoded.windows.len() {
            (sample + 1, 0)
        } else {
            (sample, window + 1)
        };
    }
}

impl<R: Runner> Collector<'_, R> {
    /// Collects the samples from number `from` of the corpus on.
    fn fill(&self, appender: &mut Appender<'_>, from: usize) -> Result<()> {
        let hooks = appender.study().manifest().hooks.clone();
        let widths = appender.study().manifest().widths.clone();
        let row_bytes = 4 * widths.iter().sum::<usize>();
        let budget = self
            .runner
            .batch_tokens()
            .min(BATCH_BYTES / row_bytes.max(1))
            .max(1);
        let mut done: usize = self.encoded[..from].iter().map(Encoded::rows).sum();
        let mut next = (from, 0);
        let mut sealed = Instant::now();
        while next.0 < self.encoded.len() {
            let group = self.group(next, GROUP_BATCHES * budget);
            let mut tap = Capture::new(&hooks, &widths, group.rows);
            self.forward(&group, budget, &mut tap, &mut done)?;
            self.keep(appender, &group, &tap)?;
            if sealed.elapsed() >= SEAL_EVERY || appender.pending_bytes() >= SEAL_BYTES {
                appender.seal()?;
                sealed = Instant::now();
            }
            next = group.next;
        }
        Ok(())
    }

    /// Windows from `next` on that together give at most `most` rows, at least one. Whole samples,
    /// or windows of one long sample alone: so the batches after a sample's end do not depend on
    /// what came before it.
    fn group(&self, next: (usize, usize), most: usize) -> Group {
        let mut group = Group {
            pieces: Vec::new(),
            rows: 0,
            next,
        };
        let (first, window) = next;
        let long = &self.encoded[first];
        if long.rows() > most {
            for window in window..long.windows.len() {
                if group.rows > 0 && group.rows + long.window_rows(window) > most {
                    break;
                }
                group.push(first, window, long);
            }
            return group;
        }
        for (sample, encoded) in self.encoded.iter().enumerate().skip(first) {
            if group.rows + encoded.rows() > most {
                break;
            }
            (0..encoded.windows.len()).for_each(|window| group.push(sample, window, encoded));
        }
        group
    }

    fn ids(&self, piece: &Piece) -> &[u32] {
        &self.encoded[piece.sample].windows[piece.window]
    }

    /// Tokens at the start of a piece that are no rows.
    fn skip(&self, piece: &Piece) -> usize {
        usize::from(self.encoded[piece.sample].bos)
    }

    /// Runs a group's windows through the model, batch by batch.
    fn forward(
        &self,
        group: &Group,
        budget: usize,
        tap: &mut Capture,
        done: &mut usize,
    ) -> Result<()> {
        let mut pieces: Vec<&Piece> = group
            .pieces
            .iter()
            .filter(|p| self.ids(p).len() > self.skip(p))
            .collect();
        // Like lengths together, the longest first: little padding, and memory is met at once.
        // Stable, so repeatable.
        pieces.sort_by_key(|p| std::cmp::Reverse(self.ids(p).len()));
        let mut rest = pieces.as_slice();
        while let Some(longest) = rest.first() {
            let (now, later) =
                rest.split_at((budget / self.ids(longest).len()).clamp(1, rest.len()));
            let batch = Batch {
                rows: now.iter().map(|p| self.ids(p).to_vec()).collect(),
                samples: now.iter().map(|p| self.first + p.sample).collect(),
            };
            tap.places = now.iter().map(|p| (p.first_row, self.skip(p))).collect();
            tap.seen = 0;
            self.runner.forward(&batch, tap, self.ctx)?;
            if tap.seen != tap.hooks.len() {
                return Err(Error::refused(format!(
                    "the model called {} of {} hooks",
                    tap.seen,
                    tap.hooks.len()
                )));
            }
            *done += now
                .iter()
                .map(|p| self.ids(p).len() - self.skip(p))
                .sum::<usize>();
            self.ctx.checkpoint(Progress::new(
                "collecting",
                *done as u64,
                self.total as u64,
                "tokens",
            ))?;
            rest = later;
        }
        Ok(())
    }

    /// Hands a group's rows to the study, in order.
    fn keep(&self, appender: &mut Appender<'_>, group: &Group, tap: &Capture) -> Result<()> {
        for piece in &group.pieces {
            let encoded = &self.encoded[piece.sample];
            let tokens = encoded.tokens(piece.window);
            let rows = piece.first_row..piece.first_row + tokens.len();
            let hooks = tap.data.iter().zip(&tap.widths);
            let data: Vec<&[f32]> = hooks
                .map(|(d, w)| &d[rows.start * w..rows.end * w])
                .collect();
            self.check_finite(piece.sample, &tokens, &data, tap)?;
            let ends = piece.window + 1 == encoded.windows.len();
            appender.push(&tokens, &data, ends, |id| self.runner.piece(id))?;
        }
        Ok(())
    }

    fn check_finite(
        &self,
        sample: usize,
        tokens: &[(u32, u32)],
        data: &[&[f32]],
        tap: &Capture,
    ) -> Result<()> {
        for (i, values) in data.iter().enumerate() {
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let (token, neuron) = (at / tap.widths[i], at % tap.widths[i]);
                let text: String = self.samples[sample].text.chars().take(40).collect();
                return Err(Error::refused(format!(
                    "sample {} ({text:?}): neuron {neuron} of {} is {} at token {:?} (position {}): {}",
                    self.first + sample,
                    tap.hooks[i],
                    values[at],
                    self.runner.piece(tokens[token].0),
                    tokens[token].1,
                    self.runner.remedy(tap.hooks[i].layer)
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
