//! A fit in mini-batches, for a corpus too large to pass over many times: sweeps over batches of
//! rows, as in online matrix factorisation (Mairal, Bach, Ponce, Sapiro 2010), and one pass at the
//! end that gives every row its coefficients. The command line calls it a first look.
//!
//! For each batch coefficients are found for the present features; AᵀY and YᵀY, summed over all
//! batches with less weight for earlier ones, then give the next features. Invariants: no more than
//! one batch of activations is in memory; a checkpoint between batches holds the whole state, and a
//! resumed fit reads the same batches as an uninterrupted one.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::checksummed::{FileKind, Reader, Writer};
use super::data_stats::{DataStats, not_finite};
use super::pass::PassSums;
use super::preprocessing::{Preprocessing, SharedScaling};
use super::state::{Problem, State};
use super::stream::Stream;
use super::{
    Factoriser, FitConfig, Solver, SparseColumns, Stop, Sweep, bcd, fit, incremental, init,
};
use crate::activations::{ActivationSource, Block, InMemory};
use crate::error::{Error, Result};
use crate::matrix::aligned::AlignedVec;
use crate::task::TaskCtx;

/// The rows of a run: neighbouring rows are read together, since each random single row would cost
/// a disk access.
const RUN_ROWS: usize = 64;
/// The factor by which each batch multiplies the sums of the batches before it.
const DECAY: f64 = 0.8;
/// The number of batches if the configuration sets no number of sweeps.
const BATCHES: usize = 30;
/// Rows that the fingerprint of a source covers: hashing all of them would take the pass over the
/// source that mini-batches avoid.
const FINGERPRINT_ROWS: usize = 64;

const KIND: FileKind = FileKind {
    magic: *b"mlpeekfl",
    version: 1,
    name: "checkpoint of a first look",
};

/// The JSON header of a checkpoint.
#[derive(Serialize, Deserialize)]
struct Header {
    config: FitConfig,
    rows: usize,
    cols: usize,
    /// The hash of [`FINGERPRINT_ROWS`] rows.
    fingerprint: u64,
    batch_rows: usize,
    sweep: usize,
    /// Bits of the seconds of fitting so far.
    seconds: u64,
    /// The number of times that the runs were shuffled, and the runs left since the last time.
    rounds: u64,
    #[serde(rename = "left")]
    runs_left: usize,
    /// s, the number of entries of a feature.
    #[serde(rename = "keep")]
    support_size: usize,
    /// The power of two by which rows are multiplied; absent in checkpoints of earlier versions, which
    /// did not scale them.
    #[serde(default = "unit_scale")]
    scale: f32,
}

fn unit_scale() -> f32 {
    1.0
}

/// A fit in progress that reads one batch of rows per step.
pub struct MiniBatchFit<'a> {
    source: &'a dyn ActivationSource,
    config: FitConfig,
    threads: fit::FitThreads,
    batch_rows: usize,
    /// The number of times that the runs were shuffled.
    rounds: u64,
    /// The runs that no batch has read since the last shuffle; batches are read from the end.
    runs: Vec<usize>,
    /// Z for the prepared rows of a batch.
    features: SparseColumns,
    /// The decayed sums of all batches; `None` before the first.
    sums: Option<PassSums>,
    /// The scaling of the first batch, which all later ones use, because their sums are added.
    scaling: Option<SharedScaling>,
    sweep: usize,
    seconds: f64,
}

impl<'a> MiniBatchFit<'a> {
    /// Starts a fit of batches of `batch_rows` rows, each made of runs of 64 rows chosen at random.
    ///
    /// # Errors
    /// [`Error::Usage`] for a configuration that does not fit the source, a batch of fewer rows than
    /// features, or a solver other than `bcd`.
    pub fn start(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        batch_rows: usize,
    ) -> Result<Self> {
        config.check(source.shape())?;
        if config.solver != Solver::Bcd {
            return Err(Error::usage(
                "batches need --solver bcd: the multiplicative updates are fitted to all rows",
            ));
        }
        if batch_rows < config.features {
            return Err(Error::usage(format!(
                "batches of {batch_rows} rows cannot tell {} features apart; take at least as many rows",
                config.features
            )));
        }
        Ok(Self {
            threads: fit::FitThreads::new(config.threads)?,
            source,
            batch_rows,
            rounds: 0,
            runs: Vec::new(),
            features: SparseColumns::default(),
            sums: None,
            scaling: None,
            sweep: 0,
            seconds: 0.0,
            config,
        })
    }

    /// Reads one batch and updates the features with it. The reported error is that of the features
    /// before the update.
    ///
    /// # Errors
    /// [`Error::Refused`] for a row that is not finite or too large; errors of the source;
    /// [`Error::Cancelled`], after which the fit is as before the step.
    pub fn step(&mut self, ctx: &TaskCtx) -> Result<Sweep> {
        let started = Instant::now();
        let batch = self.read_batch(ctx)?;
        let mut stream = Stream::new(&batch);
        let k = self.config.features;
        let support_size = self.config.check(batch.shape())?;
        let (features, sums, error) = self.threads.run(|| {
            let stats = DataStats::prepare(&mut stream, &self.config, self.scaling.as_ref(), ctx)?;
            let problem = Problem {
                stream: &stream,
                stats: &stats,
                support_size,
                penalty: self.config.l1 * stats.median_norm(),
                row_cap: self.config.row_cap,
                locked: &vec![false; k],
                device: None,
            };
            let mut state = match self.sums {
                None => {
                    let FitConfig {
                        init, solver, seed, ..
                    } = self.config;
                    init::initial_state(&stream, k, init, solver, seed, stats.rms, None, ctx)?
                }
                Some(_) => incremental::fold_in(
                    &problem,
                    self.features.clone(),
                    stream.zero_coefficients(k)?,
                    ctx,
                )?,
            };
            let error = if state.error.is_finite() {
                state.error / stats.error_base.max(f64::MIN_POSITIVE)
            } else {
                1.0
            };
            if let Some(before) = &self.sums {
                add_decayed(&mut state.sums, before);
            }
            let (features, scales) = bcd::step_features(&problem, &state, ctx)?;
            rescale_sums(&mut state, &scales);
            Ok::<_, Error>((features, state.sums, error))
        })?;
        (self.features, self.sums, self.scaling) =
            (features, Some(sums), Some(stream.preprocessing.scaling));
        self.sweep += 1;
        self.seconds += started.elapsed().as_secs_f64();
        Ok(Sweep {
            sweep: self.sweep,
            relative_error: error,
            weighted: self.config.scale_neurons,
            seconds: self.seconds,
            stop: self.stop_reason(),
        })
    }

    /// The stop rule that holds now, if any.
    pub fn stop_reason(&self) -> Option<Stop> {
        (self.sweep >= self.config.max_sweeps.unwrap_or(BATCHES)).then_some(Stop::MaxSweeps)
    }

    /// Whether the file at `path` is a checkpoint of a mini-batch fit.
    pub fn has_checkpoint(path: &Path) -> bool {
        KIND.matches(path)
    }

    /// Writes the state of the fit for [`Self::resume`], atomically replacing `path`.
    ///
    /// # Errors
    /// [`Error::Usage`] before the first batch; [`Error::Io`] if the file cannot be written.
    pub fn checkpoint(&self, path: &Path) -> Result<()> {
        let Some(sums) = &self.sums else {
            return Err(Error::usage("there are no features before the first batch"));
        };
        let (rows, cols) = self.source.shape();
        let header = Header {
            config: self.config.clone(),
            rows,
            cols,
            fingerprint: fingerprint(self.source)?,
            batch_rows: self.batch_rows,
            sweep: self.sweep,
            seconds: self.seconds.to_bits(),
            rounds: self.rounds,
            runs_left: self.runs.len(),
            support_size: self.features.indices.len() / self.config.features,
            scale: self
                .scaling
                .as_ref()
                .map_or_else(unit_scale, |scaling| scaling.scale),
        };
        let mut out = Writer::create(path, &KIND, &header)?;
        out.write_array(&self.features.indices)?;
        out.write_array(&self.features.values)?;
        out.write_array(&sums.products)?;
        out.write_array(&sums.gram)?;
        out.write_array(&sums.totals)?;
        if let Some(neurons) = self
            .scaling
            .as_ref()
            .and_then(|scaling| scaling.neurons.as_deref())
        {
            out.write_array(neurons)?;
        }
        out.commit()
    }

    /// Resumes from a checkpoint of a fit of `config` to this source; the batches are those that
    /// the uninterrupted fit would have read.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is damaged, of another kind, or of other activations or settings.
    pub fn resume(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        path: &Path,
    ) -> Result<Self> {
        let (mut input, header): (_, Header) = Reader::open(path, &KIND)?;
        let (n, d) = source.shape();
        if (header.rows, header.cols) != (n, d) || header.fingerprint != fingerprint(source)? {
            return Err(input.error("a checkpoint of a first look at other activations"));
        }
        if !header.config.same_fit(&config) {
            let saved = serde_json::to_string(&header.config).unwrap_or_default();
            return Err(input.error(&format!(
                "a checkpoint of a first look with other settings ({saved})"
            )));
        }
        let (k, support_size) = (config.features, header.support_size);
        let entries = k
            .checked_mul(support_size)
            .filter(|_| (1..=d).contains(&support_size));
        let numbers = entries.and_then(|e| {
            (2 * e)
                .checked_add(k.checked_mul(d)?)?
                .checked_add(2 * k.checked_mul(k)?)
        });
        let neurons = if config.scale_neurons { d } else { 0 };
        input.expect_bytes(
            numbers
                .and_then(|v| v.checked_add(2 * k + neurons))
                .and_then(|v| (v as u64).checked_mul(4)),
        )?;
        let mut fit = Self::start(source, config, header.batch_rows)?;
        fit.features = SparseColumns {
            rows: d,
            offsets: (0..=k).map(|j| j * support_size).collect(),
            indices: input.read_array(k * support_size)?,
            values: input.read_array(k * support_size)?,
        };
        let (products, gram, totals) = (
            input.read_array(k * d)?,
            input.read_array(k * k)?,
            input.read_array(k)?,
        );
        fit.sums = Some(PassSums {
            products,
            gram,
            totals,
            ..PassSums::default()
        });
        let neurons = if neurons > 0 {
            Some(Arc::new(input.read_array(neurons)?))
        } else {
            None
        };
        fit.scaling = Some(SharedScaling {
            scale: header.scale,
            neurons,
        });
        let runs = if header.rounds > 0 {
            shuffled_runs(n, fit.config.seed, header.rounds)
        } else {
            Vec::new()
        };
        let in_order = |j: usize| fit.features.column(j).0.is_sorted_by(|a, b| a < b);
        let indices_valid =
            fit.features.indices.iter().all(|&i| (i as usize) < d) && (0..k).all(in_order);
        input.finish(indices_valid && header.runs_left <= runs.len() && header.sweep > 0)?;
        fit.runs = runs;
        fit.runs.truncate(header.runs_left);
        (fit.rounds, fit.sweep, fit.seconds) =
            (header.rounds, header.sweep, f64::from_bits(header.seconds));
        Ok(fit)
    }

    /// The number of rows of a batch.
    pub fn batch_rows(&self) -> usize {
        self.batch_rows
    }

    /// The number of batches done.
    pub fn batches(&self) -> usize {
        self.sweep
    }

    /// Gives every row its coefficients in one pass over the source, and returns a fit that can go on
    /// with full sweeps.
    ///
    /// # Errors
    /// [`Error::Usage`] before the first batch; what [`Factoriser::start`] returns.
    pub fn finish(self, ctx: &TaskCtx) -> Result<Factoriser<'a>> {
        if self.sweep == 0 {
            return Err(Error::usage("there are no features before the first batch"));
        }
        let preprocessing = Preprocessing {
            scaling: self.scaling.unwrap_or_default(),
            ..Preprocessing::default()
        };
        let mut features = self.features;
        preprocessing.restore_features(&mut features);
        let mut fit = Factoriser::from_features(self.source, self.config, &features, ctx)?;
        fit.record_earlier_sweeps(self.sweep, self.seconds);
        Ok(fit)
    }

    /// Reads the rows of the next batch; shuffles the runs again if fewer are left than a batch needs.
    fn read_batch(&mut self, ctx: &TaskCtx) -> Result<InMemory> {
        let (n, d) = self.source.shape();
        let wanted = self.batch_rows.div_ceil(RUN_ROWS).min(n.div_ceil(RUN_ROWS));
        if self.runs.len() < wanted {
            self.rounds += 1;
            self.runs = shuffled_runs(n, self.config.seed, self.rounds);
        }
        let mut taken = self.runs.split_off(self.runs.len() - wanted);
        taken.sort_unstable();
        let mut data = AlignedVec::with_capacity(wanted * RUN_ROWS * d);
        for run in taken {
            ctx.check()?;
            let first = run * RUN_ROWS;
            let block = self.source.rows(first..n.min(first + RUN_ROWS))?;
            self.check_finite(first, &block)?;
            data.extend_from_slice(&block.data);
        }
        Ok(InMemory::from_aligned(data.len() / d, d, data))
    }

    fn check_finite(&self, first: usize, block: &Block<'_>) -> Result<()> {
        match block.data.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(not_finite(
                self.source,
                first + at / block.cols,
                block.row(at / block.cols),
            )),
            None => Ok(()),
        }
    }
}

/// The runs of n rows in the order of the `round`-th shuffle, counted from 1.
fn shuffled_runs(n: usize, seed: u64, round: u64) -> Vec<usize> {
    let mut runs: Vec<usize> = (0..n.div_ceil(RUN_ROWS)).collect();
    runs.shuffle(&mut Pcg64::seed_from_u64(seed.wrapping_add(round - 1)));
    runs
}

/// The hash of [`FINGERPRINT_ROWS`] rows spread evenly over a source.
fn fingerprint(source: &dyn ActivationSource) -> Result<u64> {
    let n = source.shape().0;
    let mut hash = Xxh3::new();
    for i in 0..FINGERPRINT_ROWS.min(n) {
        let row = i * n / FINGERPRINT_ROWS.min(n);
        hash.update(bytemuck::cast_slice(&source.rows(row..row + 1)?.data));
    }
    Ok(hash.digest())
}

/// Adds the sums of the earlier batches, multiplied by [`DECAY`].
fn add_decayed(sums: &mut PassSums, before: &PassSums) {
    for (v, b) in sums.products.iter_mut().zip(&before.products) {
        *v += DECAY as f32 * b;
    }
    let sums_in_f64 = sums
        .gram
        .iter_mut()
        .chain(&mut sums.totals)
        .zip(before.gram.iter().chain(&before.totals));
    sums_in_f64.for_each(|(v, b)| *v += DECAY * b);
}

/// Changes AᵀY, YᵀY and ΣY to those of coefficients multiplied by `scales`, one for each feature.
fn rescale_sums(state: &mut State, scales: &[f32]) {
    let (k, sums) = (scales.len(), &mut state.sums);
    let d = sums.products.len() / k;
    for (j, &s) in scales.iter().enumerate() {
        sums.products[j * d..(j + 1) * d]
            .iter_mut()
            .for_each(|v| *v *= s);
        sums.totals[j] *= f64::from(s);
        for l in 0..k {
            sums.gram[j * k + l] *= f64::from(s) * f64::from(scales[l]);
        }
    }
}
