//! Opens the open study's own model, at the path in the study or one that the user gives, and
//! compares it with the study before it is used; also continues interrupted collections and fits
//! with it.

use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::Duration;

use super::open::Opener;
use super::session::lock;
use super::{Event, Job, Level, run_job};
use crate::amounts::{count, duration};
use crate::error::{Error, Result};
use crate::jobs::collect;
use crate::jobs::fitting::{Begin, FitRun, Resume};
use crate::model::{Compute, Model};
use crate::study::Study;
use crate::task::{CancelToken, TaskCtx};

/// The interval at which a stopped training is checked for.
const POLL: Duration = Duration::from_millis(20);

impl Opener {
    /// Opens the study's model, from `path` if one is given. Without the model the study can still
    /// be read: the reason is reported, and the shell may ask the user for the path.
    pub(super) fn open_model_of_study(
        &self,
        path: Option<&str>,
        compute: Compute,
        ctx: &TaskCtx,
    ) -> Result<()> {
        match self.own_model(path, compute, ctx) {
            Ok(_) => self.refresh_lens(),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(e) => {
                self.session.set_model(None);
                self.session
                    .log(Level::Warn, format!("no lens, trace or steering: {e}"));
                self.session.emit(Event::NoModel(e.to_string()));
            }
        }
        Ok(())
    }

    /// Finds the study's own model and puts it into the session; another model is refused.
    fn own_model(&self, path: Option<&str>, compute: Compute, ctx: &TaskCtx) -> Result<Arc<Model>> {
        let id = self.with_study(|study| Ok(study.own_model()?.id.clone()))?;
        let found = self.find_model(Some(path.unwrap_or(&id)), compute, ctx);
        let model = match (found, path) {
            (Err(e), None) if !matches!(e, Error::Cancelled) => {
                return Err(self.with_study(|study| Ok(study.model_not_found(&e)))?);
            }
            (found, _) => found?,
        };
        let words = {
            let mut guard = lock(&self.session.study);
            let study = guard.as_mut().ok_or_else(|| self.session.no_study())?;
            let moved = study.adopt_model(model.info(), path.is_some())?;
            moved.into_iter().chain(study.unrecorded_configuration())
        };
        words.for_each(|words| self.session.log(Level::Info, words));
        self.set_session_model(&model);
        Ok(model)
    }

    /// Opens the open study's model at a path that the user gives.
    pub fn model_at(&self, path: &str, token: &CancelToken) -> Result<()> {
        let hook = self.hook_on_show()?;
        run_job(&self.session, Job::Load, token, |ctx| {
            let model = self
                .own_model(Some(path), Compute::default(), ctx)
                .inspect_err(|e| {
                    // The shell may ask for another path.
                    if !matches!(e, Error::Cancelled) {
                        self.session.emit(Event::NoModel(e.to_string()));
                    }
                })?;
            self.refresh_lens();
            Ok(((), model.info().id.clone()))
        })?;
        self.session.emit_study(hook)
    }

    /// Continues the collection of the open study, with the remaining texts that it stores.
    pub fn resume_collecting(&self, token: &CancelToken) -> Result<()> {
        let hook = self.hook_on_show()?;
        let model = match self.session.model() {
            Ok(model) => model,
            Err(_) => run_job(&self.session, Job::Load, token, |ctx| {
                let model = self
                    .own_model(None, Compute::default(), ctx)
                    .inspect_err(|e| {
                        self.session.emit(Event::NoModel(e.to_string()));
                    })?;
                Ok((model, String::new()))
            })?,
        };
        let result = run_job(&self.session, Job::Collect, token, |ctx| {
            let _training_lock = self.await_training(ctx)?;
            let outcome = self
                .session
                .lend_study(|study| collect::resume(&model, study, ctx));
            // Rows may have been added even if the collection was interrupted again.
            let tokens = self
                .with_study(Study::tokens)
                .map(|tokens| self.session.set_tokens(Some(tokens)));
            let done = outcome?;
            tokens?;
            let took = duration(done.seconds);
            let dtype = self.with_study(|study| Ok(study.manifest().dtype))?;
            Ok((
                (),
                format!(
                    "{} tokens of {} samples, {}, in {took}",
                    count(done.tokens),
                    count(done.samples),
                    collect::stored_words(dtype, model.info())
                ),
            ))
        });
        let refreshed = self
            .refresh_notes()
            .and_then(|()| self.session.emit_study(hook));
        result?;
        refreshed?;
        match self.session.shown() {
            Ok(_) => Ok(()),
            Err(_) => self.show_or_fit(hook, token),
        }
    }

    /// Waits until the training, which was cancelled, no longer writes into the study.
    fn await_training(&self, ctx: &TaskCtx) -> Result<MutexGuard<'_, ()>> {
        loop {
            match self.session.training.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => ctx.check()?,
            }
            std::thread::sleep(POLL);
        }
    }

    /// Reads the notes on the fit on show from disk again.
    fn refresh_notes(&self) -> Result<()> {
        match self.session.shown() {
            Ok(shown) if shown.set.is_none() => {
                self.apply_notes(&shown.fit);
                self.session.emit_features()
            }
            _ => Ok(()),
        }
    }

    /// Resumes a stopped or interrupted fit with its recorded settings.
    pub fn resume_fit(&self, name: &str, token: &CancelToken) -> Result<()> {
        let result = run_job(&self.session, Job::Fit, token, |ctx| {
            let (config, run) = self.with_study(|study| {
                let (hook, config) = study.fit_request(name)?;
                let run = FitRun::new(study, name, hook, &config, Resume::IfThere, Begin::Anew)?;
                Ok((config, run))
            })?;
            self.run(name, &config, run, ctx).map(|words| ((), words))
        });
        self.session.emit_study(self.hook_on_show()?)?;
        result
    }

    /// The hook on show, or the study's first hook if none is shown.
    fn hook_on_show(&self) -> Result<crate::model::HookPoint> {
        if let Ok(shown) = self.session.shown() {
            return Ok(shown.hook);
        }
        let first = |study: &Study| study.manifest().hooks.first().copied();
        self.with_study(|study| {
            first(study).ok_or_else(|| Error::refused("the study names no hook"))
        })
        .inspect_err(|e| {
            self.session.emit(Event::Refused(e.to_string()));
        })
    }
}
