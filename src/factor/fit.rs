//! A fit in steps: start or resume, sweep, snapshot, checkpoint, finish. Owns the counters and the
//! stop rules; the solvers own the arithmetic. Invariant: a step that fails or is cancelled leaves
//! the fit as it was before.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::checkpoint::{self, FitProgress, SourceIdentity};
use super::data_stats::{DataStats, too_large};
use super::device::Accelerator;
use super::state::{HeldProducts, Problem, State};
use super::stream::Stream;
use super::{Factors, FitConfig, Solver, Sweep, bcd, init, mu};
use crate::activations::ActivationSource;
use crate::activations::energy::{Concentration, Energy};
use crate::error::{Error, Result};
use crate::task::TaskCtx;

mod result;
mod stopping;
mod warm_start;

/// A fit in progress. Its results are the same bits for a seed, whatever the number of threads.
pub struct Factoriser<'a> {
    stream: Stream<'a>,
    config: FitConfig,
    stats: DataStats,
    threads: FitThreads,
    support_size: usize,
    penalty: f64,
    state: State,
    /// The state that the next sweep is written into; the two are swapped after the sweep.
    spare: State,
    /// The best state of a solver whose error may rise; `None` if the present state is the best.
    best: Option<State>,
    progress: FitProgress,
    /// The device on which passes run; `None`: the CPU.
    device: Option<Accelerator>,
    /// The last snapshot, and the sweep that it shows.
    last_snapshot: Option<(usize, Arc<Factors>)>,
}

impl<'a> Factoriser<'a> {
    /// Reads the source once for its statistics and makes the initial coefficients.
    ///
    /// # Errors
    /// [`Error::Usage`] for a configuration that does not fit the source; [`Error::Refused`] for a
    /// row that is not finite or too large (the row is named) and for activations that are all zero
    /// or all equal to their mean; errors of the source; [`Error::Cancelled`].
    pub fn start(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        Self::start_on(source, config, None, ctx)
    }

    /// Does the same as [`Self::start`], on a device if one is given: the start and the passes of
    /// the following sweeps then run there. The results agree with those of the CPU within
    /// rounding.
    ///
    /// # Errors
    /// What [`Self::start`] returns; [`Error::Usage`] for a fit that only the CPU can run
    /// ([`FitConfig::cpu_only_reason`]); errors of the device.
    pub fn start_on(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        device: Option<Accelerator>,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut fit = Self::prepare(source, config, ctx)?;
        device.map_or(Ok(()), |device| fit.compute_on(device))?;
        let FitConfig {
            features,
            init,
            solver,
            seed,
            ..
        } = fit.config;
        fit.state = fit.threads.run(|| {
            init::initial_state(
                &fit.stream,
                features,
                init,
                solver,
                seed,
                fit.stats.rms,
                fit.device.as_ref(),
                ctx,
            )
        })?;
        fit.spare.y = fit.stream.zero_coefficients(features)?;
        fit.progress.seconds[1] = started.elapsed().as_secs_f64().to_bits();
        Ok(fit)
    }

    /// Resumes from a checkpoint of the same source and configuration; the sweeps that follow are
    /// those of the uninterrupted fit. The number of sweeps, the patience and the threads may
    /// differ.
    ///
    /// # Errors
    /// [`Error::File`] for a checkpoint that is truncated, damaged, of another format, of other
    /// activations or of other settings; what [`Self::start`] returns.
    pub fn resume(
        source: &'a dyn ActivationSource,
        config: FitConfig,
        checkpoint: &Path,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let mut fit = Self::prepare(source, config, ctx)?;
        let saved = checkpoint::read(checkpoint, &fit.config, fit.source_identity())?;
        fit.state = saved.state;
        fit.best = saved.best;
        fit.progress = saved.header.progress;
        fit.progress.locked.resize(fit.config.features, false);
        fit.spare.y = fit.stream.zero_coefficients(fit.config.features)?;
        Ok(fit)
    }

    /// Runs the passes of the following sweeps on `device`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a fit that only the CPU can run ([`FitConfig::cpu_only_reason`]); errors
    /// of the device.
    pub fn compute_on(&mut self, mut device: Accelerator) -> Result<()> {
        if let Some(reason) = self.config.cpu_only_reason() {
            return Err(Error::usage(format!("{reason}: use --device cpu")));
        }
        device.prepare(&self.stream.preprocessing)?;
        self.device = Some(device);
        Ok(())
    }

    /// The configuration of the fit.
    pub fn config(&self) -> &FitConfig {
        &self.config
    }

    fn problem(&self) -> Problem<'_, 'a> {
        Problem {
            stream: &self.stream,
            stats: &self.stats,
            support_size: self.support_size,
            penalty: self.penalty,
            row_cap: self.config.row_cap,
            locked: &self.progress.locked,
            device: self.device.as_ref(),
        }
    }

    fn prepare(source: &'a dyn ActivationSource, config: FitConfig, ctx: &TaskCtx) -> Result<Self> {
        let support_size = config.check(source.shape())?;
        let threads = FitThreads::new(config.threads)?;
        let mut stream = Stream::new(source);
        stream.scratch.clone_from(&config.scratch);
        let stats = threads.run(|| DataStats::prepare(&mut stream, &config, None, ctx))?;
        if stats.prepared_square == 0.0 {
            let what = if config.centre { "the mean" } else { "zero" };
            return Err(Error::refused(format!(
                "every activation is {what}: there is nothing to decompose"
            )));
        }
        let penalty = config.l1 * stats.median_norm();
        let progress = FitProgress {
            locked: vec![false; config.features],
            ..FitProgress::default()
        };
        Ok(Self {
            stream,
            config,
            stats,
            threads,
            support_size,
            penalty,
            state: State::default(),
            spare: State::default(),
            best: None,
            progress,
            device: None,
            last_snapshot: None,
        })
    }

    /// Records the batches and the seconds of the mini-batch fit that this fit continues.
    pub(super) fn record_earlier_sweeps(&mut self, sweeps: usize, seconds: f64) {
        (self.progress.sweep, self.progress.best_sweep) = (sweeps, sweeps);
        (self.progress.seconds[0], self.progress.seconds[2]) =
            (seconds.to_bits(), seconds.to_bits());
    }

    /// The energy that neurons and rows have in the original activations.
    pub fn energy(&self) -> &Energy {
        &self.stats.energy
    }

    /// The few neurons or rows, if any, that have much of the energy of the prepared rows: the fit
    /// spends its features on them.
    pub fn concentrations(&self) -> Vec<Concentration> {
        self.stats.concentrations(&self.stream)
    }

    /// The number of sweeps done.
    pub fn sweeps(&self) -> usize {
        self.progress.sweep
    }

    /// Whether a stop rule of the present configuration holds after the last sweep.
    pub fn has_ended(&self) -> bool {
        self.progress.sweep > 0 && self.stop_reason().is_some()
    }

    /// The seconds that the initialisation took.
    pub fn init_seconds(&self) -> f64 {
        f64::from_bits(self.progress.seconds[1])
    }

    /// Performs one sweep; checks for cancellation between groups of rows. After a sweep whose
    /// `stop` is set, another step continues to refine the fit.
    ///
    /// # Errors
    /// [`Error::Cancelled`] and errors of the source or the device, after which the fit is as
    /// before the step; [`Error::Refused`] if the products leave the range of f32.
    pub fn step(&mut self, ctx: &TaskCtx) -> Result<Sweep> {
        let started = Instant::now();
        let sweep = self.progress.sweep + 1;
        if let Some(device) = &self.device {
            device.upload_coefficients(&mut self.state)?;
        }
        let problem = Problem {
            stream: &self.stream,
            stats: &self.stats,
            support_size: self.support_size,
            penalty: self.penalty,
            row_cap: self.config.row_cap,
            locked: &self.progress.locked,
            device: self.device.as_ref(),
        };
        let best_buffer = match (self.config.solver, &self.best) {
            (Solver::Mu, None) => Some(self.stream.zero_coefficients(self.config.features)?),
            _ => None,
        };
        let (state, spare) = (&self.state, &mut self.spare);
        self.threads.run(|| match self.config.solver {
            Solver::Mu => mu::sweep(&problem, state, spare, ctx),
            Solver::Bcd => {
                let next = if sweep.is_multiple_of(bcd::SUPPORT_SWEEPS + 1) {
                    HeldProducts::All
                } else {
                    HeldProducts::Entries
                };
                bcd::sweep(&problem, state, spare, next, ctx)
            }
        })?;
        if !self.spare.objective.is_finite() {
            return Err(self.overflow_error());
        }
        std::mem::swap(&mut self.state, &mut self.spare);
        self.progress.sweep = sweep;
        let seconds = f64::from_bits(self.progress.seconds[0]) + started.elapsed().as_secs_f64();
        self.progress.seconds[0] = seconds.to_bits();
        self.progress.history.push(self.state.objective.to_bits());
        self.update_best(best_buffer);
        self.progress.stopped = self.stop_reason();
        Ok(Sweep {
            sweep,
            relative_error: self.relative(self.state.error),
            weighted: self.config.scale_neurons,
            seconds,
            stop: self.progress.stopped,
        })
    }

    /// The error for activations whose products leave the range of f32; it names the largest row.
    fn overflow_error(&self) -> Error {
        let squares = self.stats.row_squares.iter().enumerate();
        let row = squares
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map_or(0, |(row, _)| row);
        too_large(self.stream.source, row)
    }

    /// The objective that the sweeps lower, divided by the squared norm of the prepared rows: their
    /// squared error, plus 2λΣY with a penalty.
    pub fn objective(&self) -> f64 {
        self.state.objective / self.stats.prepared_square
    }

    fn relative(&self, error: f64) -> f64 {
        error / self.stats.error_base
    }

    /// Writes the state of the fit for [`Self::resume`], atomically replacing `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written; errors of the device that holds the coefficients.
    pub fn checkpoint(&mut self, path: &Path) -> Result<()> {
        self.state.copy_coefficients_to_host()?;
        let progress = self.progress.clone();
        checkpoint::write(
            path,
            &self.config,
            self.source_identity(),
            progress,
            &self.state,
            self.best.as_ref(),
        )
    }

    /// The identity of the prepared source. A checkpoint belongs to it and to the configuration.
    fn source_identity(&self) -> SourceIdentity {
        let Stream {
            n,
            d,
            ref preprocessing,
            ..
        } = self.stream;
        SourceIdentity {
            rows: n,
            cols: d,
            fingerprint: self.stats.fingerprint,
            scale: preprocessing.scaling.scale,
        }
    }
}

/// The largest number of threads that a fit may have: starting as many as a mistyped number says
/// could exhaust the machine.
pub(crate) const MAX_THREADS: usize = 1024;

/// The threads of a fit: a pool of its own, or rayon's global pool.
pub(super) struct FitThreads(Option<rayon::ThreadPool>);

impl FitThreads {
    pub(super) fn new(count: Option<usize>) -> Result<Self> {
        let Some(count) = count else {
            return Ok(Self(None));
        };
        if !(1..=MAX_THREADS).contains(&count) {
            return Err(Error::usage(format!(
                "a fit takes 1 to {MAX_THREADS} threads, not {count}"
            )));
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|i| format!("fit-{i}"))
            .build()
            .map(|pool| Self(Some(pool)))
            .map_err(|e| {
                Error::refused(format!("cannot start {count} threads: {e}; ask for fewer"))
            })
    }

    pub(super) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Some(pool) => pool.install(f),
            // Runs `f` on a thread of the pool from the start: a step forks many times, and from
            // another thread each fork would put that thread to sleep and wake it.
            None => rayon::scope(|_| f()),
        }
    }
}
