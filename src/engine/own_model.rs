//! The open study's own model: found where the study says or where the user says, held against the
//! study before anything is done with it; and what goes on with it where it was cut short.

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

/// How often it is looked whether a training has stopped.
const POLL: Duration = Duration::from_millis(20);

impl Opener {
    /// Opens the study's model, from `place` where one is said. Without it the study can still be
    /// read: the shell is given the reason, and may ask where the model is.
    pub(super) fn open_model_of_study(
        &self,
        place: Option<&str>,
        compute: Compute,
        ctx: &TaskCtx,
    ) -> Result<()> {
        match self.own_model(place, compute, ctx) {
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

    /// The study's own model; another one is not put in the session.
    fn own_model(
        &self,
        place: Option<&str>,
        compute: Compute,
        ctx: &TaskCtx,
    ) -> Result<Arc<Model>> {
        let id = self.with_study(|study| Ok(study.own_model()?.id.clone()))?;
        let found = self.find_model(Some(place.unwrap_or(&id)), compute, ctx);
        let model = match (found, place) {
            (Err(e), None) if !matches!(e, Error::Cancelled) => {
                return Err(self.with_study(|study| Ok(study.model_not_found(&e)))?);
            }
            (found, _) => found?,
        };
        let words = {
            let mut guard = lock(&self.session.study);
            let study = guard.as_mut().ok_or_else(|| self.session.no_study())?;
            let moved = study.adopt_model(model.info(), place.is_some())?;
            moved.into_iter().chain(study.unrecorded_configuration())
        };
        words.for_each(|words| self.session.log(Level::Info, words));
        self.share_model(&model);
        Ok(model)
    }

    /// The user says where the open study's model lies.
    pub fn model_at(&self, place: &str, token: &CancelToken) -> Result<()> {
        let hook = self.hook_on_show()?;
        run_job(&self.session, Job::Load, token, |ctx| {
            let model = self
                .own_model(Some(place), Compute::default(), ctx)
                .inspect_err(|e| {
                    // It may be typed again.
                    if !matches!(e, Error::Cancelled) {
                        self.session.emit(Event::NoModel(e.to_string()));
                    }
                })?;
            self.refresh_lens();
            Ok(((), model.info().id.clone()))
        })?;
        self.session.emit_study(hook)
    }

    /// Goes on collecting the open study, which keeps the texts that are due.
    pub fn go_on_collecting(&self, token: &CancelToken) -> Result<()> {
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
            let _alone = self.await_training(ctx)?;
            let outcome = self
                .session
                .lend_study(|study| collect::resume(&model, study, ctx));
            // Rows came also where it was cut short again.
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
        let told = self
            .refresh_notes()
            .and_then(|()| self.session.emit_study(hook));
        result?;
        told?;
        match self.session.shown() {
            Ok(_) => Ok(()),
            Err(_) => self.show_or_fit(hook, token),
        }
    }

    /// Waits until no training writes into the study; it was told to stop.
    fn await_training(&self, ctx: &TaskCtx) -> Result<MutexGuard<'_, ()>> {
        loop {
            match self.session.trains.try_lock() {
                Ok(alone) => return Ok(alone),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => ctx.check()?,
            }
            std::thread::sleep(POLL);
        }
    }

    /// Takes the notes on the fit on show from disk once more.
    fn refresh_notes(&self) -> Result<()> {
        match self.session.shown() {
            Ok(shown) if shown.set.is_none() => {
                self.apply_notes(&shown.fit);
                self.session.emit_features()
            }
            _ => Ok(()),
        }
    }

    /// Goes on with a fit that was stopped or cut short, with the settings that it was begun with.
    pub fn go_on(&self, name: &str, token: &CancelToken) -> Result<()> {
        let result = run_job(&self.session, Job::Fit, token, |ctx| {
            let (config, place) = self.with_study(|study| {
                let (hook, config) = study.fit_request(name)?;
                let place = FitRun::new(study, name, hook, &config, Resume::IfThere, Begin::Anew)?;
                Ok((config, place))
            })?;
            self.run(name, &config, place, ctx).map(|words| ((), words))
        });
        self.session.emit_study(self.hook_on_show()?)?;
        result
    }

    /// The hook that is on show, or the study's first.
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
