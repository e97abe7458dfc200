//! A fit as a stepper: start or resume, step, look, save, finish. Owns the counters and the stop rules; the solvers own
//! the arithmetic. Invariant: a step that fails or is cancelled leaves the fit as it was before it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rayon::prelude::*;

use super::checkpoint::{self, FitProgress};
use super::panels::Panels;
use super::state::{Held, Problem, State};
use super::stream::{Stream, Sums};
use super::survey::Survey;
use super::{Coefficients, Factors, FitConfig, Solver, SparseColumns, Stop, Sweep, bcd, incremental, init, mu};
use crate::activations::ActivationSource;
use crate::error::{Error, Result};
use crate::task::TaskCtx;

/// Sweeps of a solver when the configuration names none.
const BCD_SWEEPS: usize = 200;
const MU_SWEEPS: usize = 2000;
const BCD_PATIENCE: usize = 10;
const MU_PATIENCE: usize = 1500;
/// The least fall of the relative objective over the patience that `bcd` goes on for.
const BCD_TOLERANCE: f64 = 1e-5;
/// The least fall of the squared error that counts as an improvement for `mu`, absolute as in the paper.
const MU_TOLERANCE: f64 = 1e-4;

/// A fit in progress. Deterministic for a seed, whatever the number of threads.
pub struct Factoriser<'a> {
    stream: Stream<'a>,
    config: FitConfig,
    survey: Survey,
    threads: Threads,
    keep: usize,
    penalty: f64,
    state: State,
    /// Where the next sweep is written; afterwards the two change places.
    spare: State,
    /// The best state of a rule that may rise; `None` where the present state is the best.
    best: Option<State>,
    progress: FitProgress,
    /// The last snapshot taken, by its sweep.
    shown: Mutex<Option<(usize, Arc<Factors>)>>,
}

impl<'a> Factoriser<'a> {
    /// Checks the source (NaN and infinity are named by row; k above the rows is refused) and makes the start.
    pub fn start(source: &'a dyn ActivationSource, config: FitConfig, ctx: &TaskCtx) -> Result<Self> {
        let started = Instant::now();
        let mut fit = Self::prepare(source, config, ctx)?;
        let FitConfig { features, init, solver, seed, .. } = fit.config;
        fit.state = fit.threads.run(|| init::start(&fit.stream, features, init, solver, seed, ctx))?;
        fit.spare.y = Panels::zeros(features, fit.stream.n);
        fit.progress.seconds[1] = started.elapsed().as_secs_f64().to_bits();
        Ok(fit)
    }

    /// Goes on from a checkpoint of the same source and configuration, with the same continuation. The most sweeps, the
    /// patience and the threads may differ.
    ///
    /// # Errors
    /// A checkpoint that is truncated, damaged, of another format, of other activations or of other settings is refused,
    /// by name.
    pub fn resume(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        checkpoint: &Path,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let mut fit = Self::prepare(source, config, ctx)?;
        let saved = checkpoint::read(checkpoint, &fit.config, source.shape(), fit.survey.fingerprint)?;
        fit.state = saved.state;
        fit.best = saved.best;
        fit.progress = saved.header.progress;
        fit.progress.locked.resize(fit.config.features, false);
        fit.spare.y = Panels::zeros(fit.config.features, fit.stream.n);
        Ok(fit)
    }

    /// Starts from given factors instead: those of an earlier fit to these activations or to their first rows. Rows beyond
    /// them are folded in, and features beyond theirs begin at the worst explained rows.
    ///
    /// # Errors
    /// Factors of other neurons, of more rows or of more features than asked for; a solver other than `bcd`, whose rule
    /// alone can take a coefficient away from zero.
    pub fn warm(source: &'a dyn ActivationSource, config: FitConfig, factors: &Factors, ctx: &TaskCtx) -> Result<Self> {
        let started = Instant::now();
        only_bcd(&config)?;
        incremental::check(factors, config.features, source.shape())?;
        let mut fit = Self::prepare(source, config, ctx)?;
        let (k, n) = (fit.config.features, fit.stream.n);
        let known = &factors.coefficients;
        let features = incremental::reshape(&factors.features, k, fit.keep);
        fit.state = fit.threads.run(|| {
            let y = incremental::extend(known.as_slice(), known.rows, n, k);
            incremental::settle(&fit.problem(), features, &y, ctx)
        })?;
        fit.spare.y = Panels::zeros(k, n);
        fit.progress.seconds[1] = started.elapsed().as_secs_f64().to_bits();
        Ok(fit)
    }

    /// Adds `count` features, which begin at the worst explained rows at the next sweep; the others stay as they are. The
    /// fit is then one of [`Factoriser::config`]'s new number of features.
    ///
    /// # Errors
    /// More features than rows; a solver other than `bcd`.
    pub fn add_features(&mut self, count: usize, ctx: &TaskCtx) -> Result<()> {
        only_bcd(&self.config)?;
        let config = FitConfig { features: self.config.features + count, ..self.config.clone() };
        check_config(&config, (self.stream.n, self.stream.d))?;
        let (k, n) = (config.features, self.stream.n);
        let state = self.threads.run(|| {
            let known = self.state.y.to_features(&vec![1.0; self.state.y.k]);
            let y = incremental::extend(&known, n, n, k);
            if self.state.features.columns() == 0 {
                return init::from_coefficients(&self.stream, y, ctx);
            }
            let features = incremental::reshape(&self.state.features, k, self.keep);
            incremental::settle(&self.problem(), features, &y, ctx)
        })?;
        self.state = state;
        self.config = config;
        self.spare = State::new(Panels::zeros(k, n), Sums::default());
        // The curve so far is that of another model: the stop rule looks at what comes now.
        self.progress.history.clear();
        self.progress.locked.resize(k, false);
        self.progress.stopped = None;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Locks these features and frees all others: the sweeps leave a locked feature's neurons and weights untouched, and only
    /// its coefficients move.
    ///
    /// # Errors
    /// A feature that there is not; a fit without features yet; a solver other than `bcd`.
    pub fn lock(&mut self, features: &[usize]) -> Result<()> {
        only_bcd(&self.config)?;
        let k = self.config.features;
        if let Some(j) = features.iter().find(|j| **j >= k) {
            return Err(Error::usage(format!("feature {j} cannot be locked: there are 0 to {}", k - 1)));
        }
        if self.state.features.columns() == 0 && !features.is_empty() {
            return Err(Error::usage("there are no features to lock before the first sweep"));
        }
        self.progress.locked = (0..k).map(|j| features.contains(&j)).collect();
        Ok(())
    }

    /// What is being fitted.
    pub fn config(&self) -> &FitConfig {
        &self.config
    }

    fn problem(&self) -> Problem<'_, 'a> {
        Problem {
            stream: &self.stream,
            survey: &self.survey,
            keep: self.keep,
            penalty: self.penalty,
            locked: &self.progress.locked,
        }
    }

    fn prepare(source: &'a dyn ActivationSource, config: FitConfig, ctx: &TaskCtx) -> Result<Self> {
        let keep = check_config(&config, source.shape())?;
        let threads = Threads::new(config.threads)?;
        let stream = Stream::new(source);
        let survey = threads.run(|| Survey::take(&stream, ctx))?;
        if survey.square == 0.0 {
            return Err(Error::refused("every activation is zero: there is nothing to decompose"));
        }
        let penalty = config.l1 * survey.median_norm();
        let progress = FitProgress { locked: vec![false; config.features], ..FitProgress::default() };
        let empty = || State::new(Panels::zeros(0, 0), Sums::default());
        Ok(Self {
            stream,
            config,
            survey,
            threads,
            keep,
            penalty,
            state: empty(),
            spare: empty(),
            best: None,
            progress,
            shown: Mutex::new(None),
        })
    }

    /// Seconds that the start took.
    pub fn init_seconds(&self) -> f64 {
        f64::from_bits(self.progress.seconds[1])
    }

    /// One sweep; tests for cancellation between row blocks. After a sweep whose `stop` is set, stepping again goes on
    /// refining (the caller asked for it). A cancelled sweep changes nothing: the next step takes it anew.
    pub fn step(&mut self, ctx: &TaskCtx) -> Result<Sweep> {
        let started = Instant::now();
        let sweep = self.progress.sweep + 1;
        let problem = Problem {
            stream: &self.stream,
            survey: &self.survey,
            keep: self.keep,
            penalty: self.penalty,
            locked: &self.progress.locked,
        };
        let (state, spare) = (&self.state, &mut self.spare);
        self.threads.run(|| match self.config.solver {
            Solver::Mu => mu::sweep(&problem, state, spare, ctx),
            Solver::Bcd => {
                let next = if sweep.is_multiple_of(bcd::SUPPORT_SWEEPS + 1) { Held::All } else { Held::Entries };
                bcd::sweep(&problem, state, spare, next, ctx)
            }
        })?;
        std::mem::swap(&mut self.state, &mut self.spare);
        self.progress.sweep = sweep;
        let seconds = f64::from_bits(self.progress.seconds[0]) + started.elapsed().as_secs_f64();
        self.progress.seconds[0] = seconds.to_bits();
        self.progress.history.push(self.state.objective.to_bits());
        self.keep_best();
        self.progress.stopped = self.stop();
        Ok(Sweep { sweep, relative_error: self.relative(self.state.error), seconds, stop: self.progress.stopped })
    }

    /// What the sweeps lower, relative to ‖A‖²: the error, plus 2λΣY where there is a penalty.
    pub fn objective(&self) -> f64 {
        self.relative(self.state.objective)
    }

    fn relative(&self, error: f64) -> f64 {
        error / self.survey.square
    }

    /// `bcd` never rises, so its last state is its best; `mu` may, and keeps a copy.
    fn keep_best(&mut self) {
        let progress = &mut self.progress;
        let better = match self.config.solver {
            Solver::Bcd => true,
            Solver::Mu => self.best.as_ref().is_none_or(|b| self.state.error < b.error - MU_TOLERANCE),
        };
        if better {
            if self.config.solver == Solver::Mu {
                self.best = Some(self.state.clone());
            }
            progress.best_sweep = progress.sweep;
            progress.since_best = 0;
            progress.seconds[2] = progress.seconds[0];
        } else {
            progress.since_best += 1;
        }
    }

    fn stop(&self) -> Option<Stop> {
        let progress = &self.progress;
        let (most, patience) = match self.config.solver {
            Solver::Bcd => (BCD_SWEEPS, BCD_PATIENCE),
            Solver::Mu => (MU_SWEEPS, MU_PATIENCE),
        };
        let patience = self.config.patience.unwrap_or(patience).max(1);
        let converged = match self.config.solver {
            Solver::Mu => progress.since_best >= patience,
            Solver::Bcd => {
                let at = |back: usize| {
                    let i = progress.history.len().checked_sub(back + 1)?;
                    progress.history.get(i).map(|&b| f64::from_bits(b))
                };
                at(patience).zip(at(0)).is_some_and(|(old, new)| self.relative(old - new) < BCD_TOLERANCE)
            }
        };
        if converged {
            return Some(Stop::Converged);
        }
        (progress.sweep >= self.config.max_sweeps.unwrap_or(most)).then_some(Stop::MaxSweeps)
    }

    /// The best factors so far, immutable. Before the first sweep: the coefficients of the start and no features.
    pub fn snapshot(&self) -> Arc<Factors> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let sweep = self.progress.best_sweep;
        if let Some((at, factors)) = &*shown
            && *at == sweep
        {
            return Arc::clone(factors);
        }
        let factors = self.threads.run(|| Arc::new(self.factors(self.best_error())));
        *shown = Some((sweep, Arc::clone(&factors)));
        factors
    }

    fn best_state(&self) -> &State {
        self.best.as_ref().unwrap_or(&self.state)
    }

    /// ‖A − YZᵀ‖² of the best state by the identity; before the first sweep nothing is explained.
    fn best_error(&self) -> f64 {
        let error = self.best_state().error;
        if error.is_finite() { error } else { self.survey.square }
    }

    fn factors(&self, error: f64) -> Factors {
        let best = self.best_state();
        let (features, coefficients) = best.factors();
        let features = if features.columns() == 0 { unset(self.config.features, self.stream.d) } else { features };
        let variance = self.survey.variance;
        Factors {
            features,
            coefficients: Coefficients::owned(self.stream.n, coefficients),
            relative_error: self.relative(error),
            explained_variance: if variance > 0.0 { 1.0 - error / variance } else { 0.0 },
            sweep: self.progress.best_sweep,
            seconds: self.init_seconds() + f64::from_bits(self.progress.seconds[2]),
        }
    }

    /// Writes everything needed to go on (atomic rename, fsync).
    pub fn checkpoint(&self, path: &Path) -> Result<()> {
        let (n, d, hash) = (self.stream.n, self.stream.d, self.survey.fingerprint);
        let progress = self.progress.clone();
        checkpoint::write(path, &self.config, (n, d), hash, progress, &self.state, self.best.as_ref())
    }

    /// The best factors, their error recomputed directly from A − YZᵀ in f64 over row blocks.
    pub fn finish(self, ctx: &TaskCtx) -> Result<Arc<Factors>> {
        self.threads.run(|| {
            let mut factors = self.factors(self.best_error());
            let error = direct_error(&self.stream, &factors, ctx)?;
            let by_identity = self.best_error();
            if (error - by_identity).abs() > 1e-4 * self.survey.square {
                tracing::warn!(error, by_identity, "the error by the identity differs from the direct residual");
            }
            factors.relative_error = self.relative(error);
            if self.survey.variance > 0.0 {
                factors.explained_variance = 1.0 - error / self.survey.variance;
            }
            Ok(Arc::new(factors))
        })
    }
}

/// ‖A − YZᵀ‖² from the residual itself, in f64.
fn direct_error(stream: &Stream<'_>, factors: &Factors, ctx: &TaskCtx) -> Result<f64> {
    const ROWS: usize = 16;
    let d = stream.d;
    let (z, y) = (&factors.features, &factors.coefficients);
    let mut total = 0.0;
    stream.blocks(ctx, |range, block| {
        let parts: Vec<f64> = block
            .data
            .par_chunks(ROWS * d)
            .enumerate()
            .map(|(i, rows)| {
                let mut residual: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
                let first = range.start + i * ROWS;
                for j in 0..z.columns() {
                    let (indices, values) = z.column(j);
                    let line = &y.feature(j)[first..first + rows.len() / d];
                    for (r, &c) in residual.chunks_exact_mut(d).zip(line).filter(|(_, c)| **c != 0.0) {
                        for (&i, &v) in indices.iter().zip(values) {
                            r[i as usize] -= f64::from(c) * f64::from(v);
                        }
                    }
                }
                residual.iter().map(|v| v * v).sum()
            })
            .collect();
        total += parts.iter().sum::<f64>();
        Ok(())
    })?;
    Ok(total)
}

/// Features before any sweep: none has a neuron yet.
fn unset(k: usize, d: usize) -> SparseColumns {
    SparseColumns { rows: d, offsets: vec![0; k + 1], indices: Vec::new(), values: Vec::new() }
}

/// Refuses what cannot be fitted; returns the entries a column keeps.
fn check_config(config: &FitConfig, (n, d): (usize, usize)) -> Result<usize> {
    let k = config.features;
    if k == 0 {
        return Err(Error::usage("a fit needs at least one feature"));
    }
    if n == 0 || d == 0 {
        return Err(Error::refused(format!("there are no activations to fit ({n} rows of {d} neurons)")));
    }
    if k > n {
        return Err(Error::usage(format!("{k} features for {n} token rows; ask for at most {n} or collect more text")));
    }
    let p = config.sparsity;
    if !(p > 0.0 && p <= 1.0) {
        return Err(Error::usage(format!(
            "a sparsity of {p} keeps no neuron or more than all; give a share above 0 and at most 1, as 0.01"
        )));
    }
    if !(config.l1 >= 0.0 && config.l1.is_finite()) {
        return Err(Error::usage(format!("an l1 penalty of {}; it must be 0 or more", config.l1)));
    }
    Ok(((p * d as f64).ceil() as usize).clamp(1, d))
}

fn only_bcd(config: &FitConfig) -> Result<()> {
    match config.solver {
        Solver::Bcd => Ok(()),
        Solver::Mu => Err(Error::usage("a multiplicative fit cannot go on from other factors; use --solver bcd")),
    }
}

/// The threads of a fit: its own, or all that rayon has.
struct Threads(Option<rayon::ThreadPool>);

impl Threads {
    fn new(count: Option<usize>) -> Result<Self> {
        let Some(count) = count else { return Ok(Self(None)) };
        if count == 0 {
            return Err(Error::usage("a fit needs at least one thread"));
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("fit-{i}"))
            .build()
            .map(|pool| Self(Some(pool)))
            .map_err(|e| Error::refused(format!("cannot start {count} threads: {e}; ask for fewer")))
    }

    fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Some(pool) => pool.install(f),
            None => f(),
        }
    }
}
