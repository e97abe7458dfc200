//! A first look at a corpus too large to pass over many times: sweeps over batches of rows, as online matrix
//! factorisation does (Mairal, Bach, Ponce, Sapiro 2010), and one pass at the end that gives every row its coefficients.
//!
//! A batch's coefficients are found for the features so far; AᵀY and YᵀY of all batches, the older the lighter, then give
//! the next features. Invariant: no more than one batch of activations is in memory.

use std::time::Instant;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64;

use super::state::{Problem, State};
use super::stream::{Stream, Sums};
use super::survey::{Survey, not_finite};
use super::{Factoriser, FitConfig, Solver, SparseColumns, Stop, Sweep, bcd, fit, incremental, init};
use crate::activations::{ActivationSource, Block, InMemory};
use crate::error::{Error, Result};
use crate::task::TaskCtx;

/// Neighbouring rows that are read together.
const RUN: usize = 64;
/// Share of the sums that the next batch leaves of those before it.
const MEMORY: f64 = 0.8;
/// Batches when the configuration names no number of sweeps.
const BATCHES: usize = 30;

/// Features that come from batches of rows.
pub struct FirstLook<'a> {
    source: &'a dyn ActivationSource,
    config: FitConfig,
    threads: fit::Threads,
    batch_rows: usize,
    rng: Pcg64,
    /// Runs of rows that no batch of this round has had.
    runs: Vec<usize>,
    features: SparseColumns,
    sums: Option<Sums>,
    sweep: usize,
    seconds: f64,
}

impl<'a> FirstLook<'a> {
    /// Batches of `batch_rows` rows, in runs of 64 chosen at random.
    ///
    /// # Errors
    /// What cannot be fitted; fewer rows a batch than features; a solver other than `bcd`.
    pub fn start(source: &'a dyn ActivationSource, config: FitConfig, batch_rows: usize) -> Result<Self> {
        config.check(source.shape())?;
        if config.solver != Solver::Bcd {
            return Err(Error::usage("batches need --solver bcd: the multiplicative updates are fitted to all rows"));
        }
        if batch_rows < config.features {
            return Err(Error::usage(format!(
                "batches of {batch_rows} rows cannot tell {} features apart; take at least as many rows",
                config.features
            )));
        }
        Ok(Self {
            threads: fit::Threads::new(config.threads)?,
            source,
            batch_rows,
            rng: Pcg64::seed_from_u64(config.seed),
            runs: Vec::new(),
            features: SparseColumns::default(),
            sums: None,
            sweep: 0,
            seconds: 0.0,
            config,
        })
    }

    /// One batch. Its error is told before the features have seen it.
    pub fn step(&mut self, ctx: &TaskCtx) -> Result<Sweep> {
        let started = Instant::now();
        let batch = self.batch(ctx)?;
        let mut stream = Stream::new(&batch);
        let k = self.config.features;
        let keep = self.config.check(batch.shape())?;
        let (features, sums, error) = self.threads.run(|| {
            let survey = Survey::frame(&mut stream, &self.config, ctx)?;
            let problem = Problem {
                stream: &stream,
                survey: &survey,
                keep,
                penalty: self.config.l1 * survey.median_norm(),
                row_cap: self.config.row_cap,
                locked: &vec![false; k],
                device: None,
            };
            let mut state = match self.sums {
                None => init::start(&stream, k, self.config.init, self.config.solver, self.config.seed, ctx)?,
                Some(_) => incremental::settle(&problem, self.features.clone(), &stream.panels(k)?, ctx)?,
            };
            let error = if state.error.is_finite() { state.error / survey.whole.max(f64::MIN_POSITIVE) } else { 1.0 };
            if let Some(before) = &self.sums {
                blend(&mut state.sums, before);
            }
            let (features, scales) = bcd::step_features(&problem, &state, ctx)?;
            rescale(&mut state, &scales);
            Ok::<_, Error>((features, state.sums, error))
        })?;
        (self.features, self.sums) = (features, Some(sums));
        self.sweep += 1;
        self.seconds += started.elapsed().as_secs_f64();
        let done = self.sweep >= self.config.max_sweeps.unwrap_or(BATCHES);
        let stop = done.then_some(Stop::MaxSweeps);
        Ok(Sweep { sweep: self.sweep, relative_error: error, seconds: self.seconds, stop })
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
        let mut fit = Factoriser::from_features(self.source, self.config, self.features, ctx)?;
        fit.went_before(self.sweep, self.seconds);
        Ok(fit)
    }

    /// The next rows; when all have been seen, all are dealt anew.
    fn batch(&mut self, ctx: &TaskCtx) -> Result<InMemory> {
        let (n, d) = self.source.shape();
        let wanted = self.batch_rows.div_ceil(RUN).min(n.div_ceil(RUN));
        if self.runs.len() < wanted {
            self.runs = (0..n.div_ceil(RUN)).collect();
            self.runs.shuffle(&mut self.rng);
        }
        let mut taken = self.runs.split_off(self.runs.len() - wanted);
        taken.sort_unstable();
        let mut data = Vec::with_capacity(wanted * RUN * d);
        for run in taken {
            ctx.check()?;
            let first = run * RUN;
            let block = self.source.rows(first..n.min(first + RUN))?;
            self.check_finite(first, &block)?;
            data.extend_from_slice(&block.data);
        }
        Ok(InMemory::new(data.len() / d, d, data))
    }

    fn check_finite(&self, first: usize, block: &Block<'_>) -> Result<()> {
        match block.data.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(not_finite(self.source, first + at / block.cols, block.row(at / block.cols))),
            None => Ok(()),
        }
    }
}

/// Adds the sums of the batches before, which count for less.
fn blend(sums: &mut Sums, before: &Sums) {
    for (v, b) in sums.products.iter_mut().zip(&before.products) {
        *v += MEMORY as f32 * b;
    }
    let wide = sums.gram.iter_mut().chain(&mut sums.totals).zip(before.gram.iter().chain(&before.totals));
    wide.for_each(|(v, b)| *v += MEMORY * b);
}

/// The sums in the units of coefficients that were multiplied by `scales`.
fn rescale(state: &mut State, scales: &[f32]) {
    let (k, sums) = (scales.len(), &mut state.sums);
    let d = sums.products.len() / k;
    for (j, &s) in scales.iter().enumerate() {
        sums.products[j * d..(j + 1) * d].iter_mut().for_each(|v| *v *= s);
        sums.totals[j] *= f64::from(s);
        for l in 0..k {
            sums.gram[j * k + l] *= f64::from(s) * f64::from(scales[l]);
        }
    }
}
