//! Runs fits for the explorer: new ones, resumed ones and refinements. Each sweep is reported, and
//! the present features are shown.
//!
//! Knows nothing of threads. Invariant: the study is locked only while it is read or written, never
//! while a fit computes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::open::Opener;
use super::session::lock;
use super::{Event, Job, Level, run_job};
use crate::error::{Error, Result};
use crate::factor::{Factors, FitConfig, Sweep};
use crate::jobs::fitting::{self, Begin, FitObserver, FitRun, Refinement, Resume};
use crate::jobs::gpu::FitGpu;
use crate::model::HookPoint;
use crate::task::{CancelToken, TaskCtx};

/// The shortest time between two runs of the logit lens during a fit.
const LENS_INTERVAL: Duration = Duration::from_secs(2);

impl Opener {
    /// Refines a fit of the open study: with more features, with fewer, or with rows that were
    /// added since.
    pub fn refine(&self, refinement: &Refinement, token: &CancelToken) -> Result<()> {
        let hook = self
            .with_study(|study| Ok(refinement.plan(study)?.0.hook))
            .inspect_err(|e| {
                self.session.emit(Event::Refused(e.to_string()));
            })?;
        let result = run_job(&self.session, Job::Fit, token, |ctx| {
            let (name, config, run) = self.with_study(|study| {
                let (entry, config, begin) = refinement.plan(study)?;
                let name = fitting::refined_name(study, &entry, &config)?;
                let run = FitRun::new(study, &name, hook, &config, Resume::Never, begin)?;
                Ok((name, config, run))
            })?;
            self.run(&name, &config, run, ctx).map(|words| ((), words))
        });
        self.session.emit_study(hook)?;
        result
    }

    /// Makes a fit of the open study, at the hook on show.
    pub fn refit(&self, config: &FitConfig, token: &CancelToken) -> Result<()> {
        let hook = match self.session.shown() {
            Ok(shown) => shown.hook,
            Err(_) => lock(&self.session.study)
                .as_ref()
                .and_then(|s| s.manifest().hooks.first().copied())
                .ok_or_else(|| {
                    self.session.emit(Event::Refused(
                        "no study is open: open one first".to_owned(),
                    ));
                    Error::refused("no study is open")
                })?,
        };
        self.fit(hook, config, ExistingFit::Resume, token)
    }

    /// Makes a fit of `hook`, or shows the one that exists.
    pub(super) fn fit(
        &self,
        hook: HookPoint,
        config: &FitConfig,
        existing: ExistingFit,
        token: &CancelToken,
    ) -> Result<()> {
        let result = run_job(&self.session, Job::Fit, token, |ctx| {
            self.fit_words(hook, config, existing, ctx).map(|w| ((), w))
        });
        self.session.emit_study(hook)?;
        result
    }

    /// Makes the fit, or shows the existing one, and returns a summary.
    fn fit_words(
        &self,
        hook: HookPoint,
        config: &FitConfig,
        existing: ExistingFit,
        ctx: &TaskCtx,
    ) -> Result<String> {
        let (config, name, saved) = self.with_study(|study| {
            let config = config
                .clone()
                .with_sparsity_at(study.manifest().width(hook)?);
            let name = fitting::default_name(study, hook, &config)?;
            let saved = study
                .fits()?
                .into_iter()
                .find(|f| f.name == name && f.relative_error.is_some());
            Ok((config, name, saved))
        })?;
        if let Some(saved) = saved.filter(|s| existing == ExistingFit::Show || !s.resumable) {
            self.show_saved(Some(&name))?;
            return Ok(match saved.state.is_finished() {
                true => format!("'{name}' was fitted before"),
                false => format!(
                    "'{name}' was {}: it goes on when you say so",
                    saved.status()
                ),
            });
        }
        let run = self.with_study(|study| {
            FitRun::new(study, &name, hook, &config, Resume::IfCut, Begin::Anew)
        })?;
        self.run(&name, &config, run, ctx)
    }

    /// Runs a fit, shows its progress and returns a summary.
    pub(super) fn run(
        &self,
        name: &str,
        config: &FitConfig,
        run: FitRun,
        ctx: &TaskCtx,
    ) -> Result<String> {
        self.session.emit(Event::FitBegun(name.to_owned()));
        let hook = run.hook;
        let run = &FitRun {
            gpu: self
                .session
                .model()
                .ok()
                .and_then(|model| FitGpu::of(&model)),
            ..run
        };
        let source = self.with_study(|study| study.activations(hook))?;
        self.apply_notes(name);
        let mut observer = FitEvents {
            opener: self,
            run,
            last_lens: None,
        };
        let save = |factors: &Factors, ended| {
            self.with_study(|study| study.save_run(name, hook, config, factors, Some(ended)))
        };
        let end = fitting::run_fit(source.as_ref(), config, run, &mut observer, &save, ctx)?;
        self.with_study(|study| {
            study.save_energy(hook, &end.energy);
            Ok(())
        })?;
        let f = &end.factors;
        let words = format!(
            "{} after {} sweeps, {:.1} s",
            fitting::error_words(f),
            f.sweep,
            f.seconds
        );
        if end.stop.is_none() {
            Err(Error::Cancelled)
        } else {
            Ok(words)
        }
    }
}

/// What to do if the fit exists and was stopped early.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ExistingFit {
    /// Show its saved factors.
    Show,
    /// Resume it from its checkpoint.
    Resume,
}

/// Reports a running fit to the explorer.
struct FitEvents<'a> {
    opener: &'a Opener,
    run: &'a FitRun,
    last_lens: Option<Instant>,
}

impl FitObserver for FitEvents<'_> {
    fn note(&mut self, note: &str) {
        self.opener
            .session
            .log(Level::Info, format!("fit '{}': {note}", self.run.name));
    }

    fn warn(&mut self, words: &str) {
        self.opener
            .session
            .log(Level::Warn, format!("fit '{}': {words}", self.run.name));
    }

    fn started(&mut self, init_seconds: f64, resumed: bool) {
        if resumed {
            // The earlier part of the error curve is sent first. If it cannot be read, the fit
            // continues without it.
            let curve = self
                .opener
                .with_study(|study| fitting::saved_curve(study, &self.run.name))
                .unwrap_or_default();
            curve
                .into_iter()
                .for_each(|sweep| self.opener.session.emit(Event::Sweep(sweep.into())));
        }
        let how = if resumed {
            "goes on from its checkpoint"
        } else {
            "starts"
        };
        self.opener.session.log(
            Level::Info,
            format!(
                "fit '{}' {how} (start made in {init_seconds:.1} s)",
                self.run.name
            ),
        );
    }

    fn sweep(&mut self, sweep: Sweep) -> Result<()> {
        self.opener.session.emit(Event::Sweep(sweep.into()));
        Ok(())
    }

    fn snapshot(&mut self, factors: &Arc<Factors>, finished: bool) {
        let session = &self.opener.session;
        if finished {
            // Saving the fit carried the notes over to the new features.
            self.opener.apply_notes(&self.run.name);
        }
        if let Err(e) = session.show(self.run.hook, &self.run.name, factors.clone(), finished) {
            session.log(Level::Error, e.to_string());
        }
        if finished || self.last_lens.is_none_or(|t| t.elapsed() >= LENS_INTERVAL) {
            self.last_lens = Some(Instant::now());
            self.opener.refresh_lens();
        }
    }

    fn hold(&mut self, ctx: &TaskCtx) -> Result<()> {
        self.opener.hold.wait(ctx)
    }

    fn wants_hold(&self) -> bool {
        self.opener.hold.is_held()
    }
}
