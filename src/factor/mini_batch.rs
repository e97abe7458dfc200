//! A first fit at a corpus too large to pass over many times: sweeps over batches of rows, as
//! online matrix factorisation does (Mairal, Bach, Ponce, Sapiro 2010), and one pass at the end
//! that gives every row its coefficients.
//!
//! A batch's coefficients are found for the features so far; AᵀY and YᵀY of all batches, the older
//! the lighter, then give the next features. Invariants: no more than one batch of activations is
//! in memory; between batches it is known whole by what a checkpoint holds, and goes on from there
//! with the same batches.

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

/// Neighbouring rows that are read together.
const RUN_ROWS: usize = 64;
/// Share of the sums that the next batch leaves of those before it.
const DECAY: f64 = 0.8;
/// Batches when the configuration names no number of sweeps.
const BATCHES: usize = 30;
/// Rows that a checkpoint knows its source by: reading all of them is what a first fit is to
/// spare.
const FINGERPRINT_ROWS: usize = 64;

const KIND: FileKind = FileKind {
    magic: *b"mlpeekfl",
    version: 1,
    name: "checkpoint of a first look",
};

/// Everything small of a checkpoint.
#[derive(Serialize, Deserialize)]
struct Header {
    config: FitConfig,
    rows: usize,
    cols: usize,
    /// The hash of some rows.
    fingerprint: u64,
    batch_rows: usize,
    sweep: usize,
    /// Bits of the seconds so far.
    seconds: u64,
    /// Times that all rows were dealt, and runs that the last time left.
    rounds: u64,
    left: usize,
    /// Entries a feature.
    keep: usize,
    /// The power of two that rows are multiplied by; earlier versions took them as they are.
    #[serde(default = "unit_scale")]
    scale: f32,
}

fn unit_scale() -> f32 {
    1.0
}

/// Features that come from batches of rows.
pub struct MiniBatchFit<'a> {
    source: &'a dyn ActivationSource,
    config: FitConfig,
    threads: fit::FitThreads,
    batch_rows: usize,
    /// Times that all rows were dealt.
    rounds: u64,
    /// Runs of rows that no batch of this round has had.
    runs: Vec<usize>,
    /// As the batches are seen.
    features: SparseColumns,
    sums: Option<PassSums>,
    /// Those of the first batch, which all others take over: sums of several are added.
    scaling: Option<SharedScaling>,
    sweep: usize,
    seconds: f64,
}

impl<'a> MiniBatchFit<'a> {
    /// Batches of `batch_rows` rows, in runs of 64 chosen at random.
    ///
    /// # Errors
    /// What cannot be fitted; fewer rows a batch than features; a solver other than `bcd`.
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

    /// One batch. Its error is told before the features have seen it.
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
                    init::initial_state(&stream, k, init, solver, seed, stats.rms, ctx)?
                }
                Some(_) => incremental::fold_in(
                    &problem,
                    self.features.clone(),
                    &stream.zero_coefficients(k)?,
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

    /// Why there are no more batches, once there are none.
    pub fn stop_reason(&self) -> Option<Stop> {
        (self.sweep >= self.config.max_sweeps.unwrap_or(BATCHES)).then_some(Stop::MaxSweeps)
    }

    /// Whether a checkpoint of a first fit lies at `path`.
    pub fn has_checkpoint(path: &Path) -> bool {
        KIND.matches(path)
    }

    /// Writes all that [`Self::resume`] needs in place of `path`; after a first batch.
    ///
    /// # Errors
    /// What the disk says; before the first batch.
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
            left: self.runs.len(),
            keep: self.features.indices.len() / self.config.features,
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

    /// Goes on from a checkpoint of `config` on this source, with the batches that would have
    /// followed.
    ///
    /// # Errors
    /// A file that is no such checkpoint, or one of other activations or settings.
    pub fn resume(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        path: &Path,
    ) -> Result<Self> {
        let (mut input, header): (_, Header) = Reader::open(path, &KIND)?;
        let (n, d) = source.shape();
        if (header.rows, header.cols) != (n, d) || header.fingerprint != fingerprint(source)? {
            return Err(input.error("a checkpoint of a first fit at other activations"));
        }
        if !header.config.same_fit(&config) {
            let saved = serde_json::to_string(&header.config).unwrap_or_default();
            return Err(input.error(&format!(
                "a checkpoint of a first fit with other settings ({saved})"
            )));
        }
        let (k, keep) = (config.features, header.keep);
        let entries = k.checked_mul(keep).filter(|_| (1..=d).contains(&keep));
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
            offsets: (0..=k).map(|j| j * keep).collect(),
            indices: input.read_array(k * keep)?,
            values: input.read_array(k * keep)?,
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
        let sound = fit.features.indices.iter().all(|&i| (i as usize) < d) && (0..k).all(in_order);
        input.finish(sound && header.left <= runs.len() && header.sweep > 0)?;
        fit.runs = runs;
        fit.runs.truncate(header.left);
        (fit.rounds, fit.sweep, fit.seconds) =
            (header.rounds, header.sweep, f64::from_bits(header.seconds));
        Ok(fit)
    }

    /// Rows of a batch.
    pub fn batch_rows(&self) -> usize {
        self.batch_rows
    }

    /// Batches done.
    pub fn batches(&self) -> usize {
        self.sweep
    }

    /// Every row with its coefficients, and their error: a fit that can go on with full sweeps.
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

    /// The next rows; when all have been seen, all are dealt anew.
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

/// The runs of n rows in the order in which they are taken from the end, the `round`-th time from
/// 1.
fn shuffled_runs(n: usize, seed: u64, round: u64) -> Vec<usize> {
    let mut runs: Vec<usize> = (0..n.div_ceil(RUN_ROWS)).collect();
    runs.shuffle(&mut Pcg64::seed_from_u64(seed.wrapping_add(round - 1)));
    runs
}

/// The hash of rows spread over a source.
fn fingerprint(source: &dyn ActivationSource) -> Result<u64> {
    let n = source.shape().0;
    let mut hash = Xxh3::new();
    for i in 0..FINGERPRINT_ROWS.min(n) {
        let row = i * n / FINGERPRINT_ROWS.min(n);
        hash.update(bytemuck::cast_slice(&source.rows(row..row + 1)?.data));
    }
    Ok(hash.digest())
}

/// Adds the sums of the batches before, which count for less.
fn add_decayed(sums: &mut PassSums, before: &PassSums) {
    for (v, b) in sums.products.iter_mut().zip(&before.products) {
        *v += DECAY as f32 * b;
    }
    let wide = sums
        .gram
        .iter_mut()
        .chain(&mut sums.totals)
        .zip(before.gram.iter().chain(&before.totals));
    wide.for_each(|(v, b)| *v += DECAY * b);
}

/// The sums in the units of coefficients that were multiplied by `scales`.
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
