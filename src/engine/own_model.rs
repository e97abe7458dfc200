//! The open study's own model: found where the study says or where the user says, held against the study before anything is
//! done with it; and what goes on with it where it was cut short.

use std::sync::Arc;

use super::open::Opener;
use super::session::lock;
use super::{Event, Job, Level, run_job};
use crate::amounts::{count, duration};
use crate::error::{Error, Result};
use crate::jobs::collect;
use crate::jobs::fitting::{Begin, FitPlace, Resume};
use crate::model::{DeviceChoice, Model};
use crate::study::Study;
use crate::task::{CancelToken, TaskCtx};

impl Opener {
    /// Opens the study's model, from `place` where one is said. Without it the study can still be read: the shell is told
    /// why, and may ask where it is.
    pub(super) fn open_model_of_study(&self, place: Option<&str>, device: DeviceChoice, ctx: &TaskCtx) -> Result<()> {
        match self.own_model(place, device, ctx) {
            Ok(_) => self.refresh_lens(),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(e) => {
                self.session.set_model(None);
                self.session.log(Level::Warn, format!("no lens, trace or steering: {e}"));
                self.session.emit(Event::NoModel(e.to_string()));
            }
        }
        Ok(())
    }

    /// The study's own model; another one is not put in the session.
    fn own_model(&self, place: Option<&str>, device: DeviceChoice, ctx: &TaskCtx) -> Result<Arc<Model>> {
        let id = self.with_study(|study| Ok(study.own_model()?.id.clone()))?;
        let found = self.find_model(Some(place.unwrap_or(&id)), device, ctx);
        let model = match (found, place) {
            (Err(e), None) if !matches!(e, Error::Cancelled) => {
                return Err(self.with_study(|study| Ok(study.model_not_found(&e)))?);
            }
            (found, _) => found?,
        };
        let words = {
            let mut guard = lock(&self.session.study);
            let study = guard.as_mut().ok_or_else(|| Error::refused("no study is open"))?;
            study.take_model(model.info(), place.is_some())?
        };
        words.into_iter().for_each(|words| self.session.log(Level::Info, words));
        self.put_model(&model);
        Ok(model)
    }

    /// The user says where the open study's model lies.
    pub fn model_at(&self, place: &str, token: &CancelToken) -> Result<()> {
        let hook = self.hook_on_show()?;
        run_job(&self.session, Job::Load, token, |ctx| {
            let model = self.own_model(Some(place), DeviceChoice::Auto, ctx).inspect_err(|e| {
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
                let model = self.own_model(None, DeviceChoice::Auto, ctx).inspect_err(|e| {
                    self.session.emit(Event::NoModel(e.to_string()));
                })?;
                Ok((model, String::new()))
            })?,
        };
        let result = run_job(&self.session, Job::Collect, token, |ctx| {
            // Out of the session meanwhile: whoever asks for it must not wait until all is collected.
            let taken = lock(&self.session.study).take();
            let mut study = taken.ok_or_else(|| Error::refused("no study is open"))?;
            let outcome = collect::go_on(&model, &mut study, ctx);
            // Rows came also where it was cut short again.
            let tokens = study.tokens();
            *lock(&self.session.study) = Some(study);
            self.session.set_tokens(Some(tokens?));
            let done = outcome?;
            let took = duration(done.seconds);
            Ok(((), format!("{} tokens of {} samples in {took}", count(done.tokens), count(done.samples))))
        });
        self.session.emit_study(hook)?;
        result?;
        match self.session.shown() {
            Ok(_) => Ok(()),
            Err(_) => self.show_or_fit(hook, token),
        }
    }

    /// Goes on with a fit that was stopped or cut short, with the settings that it was begun with.
    pub fn go_on(&self, name: &str, token: &CancelToken) -> Result<()> {
        let result = run_job(&self.session, Job::Fit, token, |ctx| {
            let (config, place) = self.with_study(|study| {
                let (hook, config) = study.fit_request(name)?;
                let place = FitPlace::new(study, name, hook, &config, Resume::IfThere, Begin::Anew)?;
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
        self.with_study(|study| first(study).ok_or_else(|| Error::refused("the study names no hook"))).inspect_err(
            |e| {
                self.session.emit(Event::Refused(e.to_string()));
            },
        )
    }
}
