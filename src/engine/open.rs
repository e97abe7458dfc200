//! Opening: from a request to a model, a study, a full cache and a fit, doing only what is not there already.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fitting::{self, Begin, FitObserver, FitPlace, Refinement, Resume};
use super::gpu::FitGpu;
use super::lane::Lane;
use super::session::{Session, lock};
use super::{Event, Hold, Job, Level, OpenRequest, run_job};
use crate::activations::collect::collect;
use crate::activations::store::CacheDtype;
use crate::amounts::{count, duration};
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::factor::{Factors, FitConfig, Sweep};
use crate::model::{BosRule, DeviceChoice, HookPoint, LoadOptions, Model, source};
use crate::study::{self, FitEntry, Notes, Study};
use crate::task::{CancelToken, TaskCtx};

/// The logit lens of a moving fit runs at most this often.
const LENS_EVERY: Duration = Duration::from_secs(2);

pub(super) struct Opener {
    pub session: Arc<Session>,
    pub read: Arc<Lane>,
    pub hold: Arc<Hold>,
}

impl Opener {
    /// The main path of the explorer.
    pub fn request(&self, request: &OpenRequest, token: &CancelToken) -> Result<()> {
        if let (Some(dir), Some(layer), None, None) = (&request.study, request.layer, &request.model, &request.corpus)
            && dir.join("study.json").exists()
        {
            // A study and a layer of it: its own model and corpus are meant.
            return self.study(dir, Some((HookPoint { layer, site: request.hook }, &request.fit)), token);
        }
        let (corpus, model) = run_job(&self.session, Job::Load, token, |ctx| {
            let corpus = match &request.corpus {
                Some(path) => Corpus::open(path)?,
                None => Corpus::bundled(),
            };
            let model = self.load_model(request.model.as_deref(), request.device, ctx)?;
            let words = loaded_words(&model);
            Ok(((corpus, model), words))
        })?;
        let hook = HookPoint { layer: request.layer.unwrap_or(model.info().layers / 2), site: request.hook };
        if request.study.is_none() && self.has_cached(&corpus, &model, hook)? {
            self.session.log(Level::Info, format!("{hook} is cached in the open study: nothing is collected"));
            self.session.emit_study(hook)?;
            return self.fit(hook, &request.fit, Again::Show, token);
        }
        run_job(&self.session, Job::Collect, token, |ctx| {
            let words = self.fill(request, &corpus, &model, hook, ctx)?;
            Ok(((), words))
        })?;
        self.fit(hook, &request.fit, Again::Show, token)
    }

    /// Whether the open study has this hook of the same model and corpus, whole.
    fn has_cached(&self, corpus: &Corpus, model: &Model, hook: HookPoint) -> Result<bool> {
        let guard = lock(&self.session.study);
        let Some(manifest) = guard.as_ref().map(Study::manifest) else { return Ok(false) };
        let same_model = manifest.model.as_ref().is_some_and(|m| m.weights_sha256 == model.info().weights_sha256);
        let same_corpus = manifest.corpora.len() == 1 && manifest.corpora[0].sha256 == corpus.sha256;
        Ok(manifest.complete && same_model && same_corpus && manifest.hooks.contains(&hook))
    }

    /// An existing study: what is there first, then its model. Where a hook is asked for, the newest fit there, or one made
    /// as it says; else the newest of all.
    pub fn study(&self, dir: &Path, wanted: Option<(HookPoint, &FitConfig)>, token: &CancelToken) -> Result<()> {
        let (hook, model_id, config) = run_job(&self.session, Job::Load, token, |ctx| {
            let study = self.open_or_read(dir)?;
            let manifest = study.manifest().clone();
            for problem in study.unreadable_fits()? {
                self.session.log(Level::Error, problem);
            }
            let mut fits = study.fits()?;
            if let Some((hook, _)) = wanted {
                if !manifest.hooks.contains(&hook) {
                    let there: Vec<String> = manifest.hooks.iter().map(ToString::to_string).collect();
                    return Err(Error::refused(format!(
                        "{} has {}, not {hook}: open one of these, or collect that layer into another study",
                        dir.display(),
                        there.join(", ")
                    )));
                }
                fits.retain(|fit| fit.hook == hook);
            }
            let newest = fits.last().map(|newest| left_with(&study, &fits).unwrap_or(newest).clone());
            let hook = wanted
                .map(|(hook, _)| hook)
                .or_else(|| newest.as_ref().map(|f| f.hook))
                .or_else(|| manifest.hooks.first().copied())
                .ok_or_else(|| Error::file(dir.join("study.json"), "names no hook: collect it again"))?;
            self.take_study(study, hook)?;
            if newest.as_ref().is_some_and(|f| f.relative_error.is_some()) {
                self.show_saved(newest.as_ref().map(|f| f.name.as_str()))?;
            }
            let id = manifest.model.as_ref().map(|m| m.id.clone());
            if let Some(id) = &id {
                self.open_model_of_study(id, &manifest, ctx)?;
            }
            Ok(((hook, id, newest.map(|f| f.config)), String::new()))
        })?;
        let unfinished = lock(&self.session.study).as_ref().is_some_and(|s| !s.manifest().complete);
        if unfinished {
            self.session.log(
                Level::Warn,
                format!(
                    "this study's cache is incomplete; collect it again with the same corpus to fill it ({model_id:?})"
                ),
            );
        }
        if self.session.shown().is_err() {
            let config = config.or_else(|| wanted.map(|(_, config)| config.clone())).unwrap_or_default();
            return self.fit(hook, &config, Again::Show, token);
        }
        Ok(())
    }

    /// The study in `dir` for writing, or for reading where another process has it or it is not ours to write.
    fn open_or_read(&self, dir: &Path) -> Result<Study> {
        let real = |path: &Path| path.canonicalize().ok();
        let open = lock(&self.session.study).as_ref().and_then(|s| real(s.dir()));
        if open.is_some() && open == real(dir) {
            // Its own lock would stand in the way.
            self.drop_study();
        }
        Study::open(dir).or_else(|refused| {
            let study = Study::open_read_only(dir).map_err(|_| refused.to_string()).ok();
            let Some(study) = study else { return Err(refused) };
            self.session.emit(Event::Refused(format!("{refused}; until then it is open for reading")));
            Ok(study)
        })
    }

    fn open_model_of_study(&self, id: &str, manifest: &study::Manifest, ctx: &TaskCtx) -> Result<()> {
        let opened = self.load_model(Some(id), DeviceChoice::Auto, ctx);
        match opened {
            Ok(model) => {
                let wanted = manifest.model.as_ref().map_or("", |m| m.weights_sha256.as_str());
                if model.info().weights_sha256 != wanted {
                    self.session.set_model(None);
                    self.session.log(
                        Level::Warn,
                        format!("{id} is not the model that this study was made with (its weights differ): reading works, lens and steering do not"),
                    );
                }
                self.refresh_lens();
                Ok(())
            }
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(e) => {
                self.session.log(
                    Level::Warn,
                    format!("the study's model cannot be opened, so there is no lens, trace or steering: {e}"),
                );
                Ok(())
            }
        }
    }

    /// The open study's fit, with more features or fewer, or with rows that came since.
    pub fn refine(&self, refinement: &Refinement, token: &CancelToken) -> Result<()> {
        let hook = self.with_study(|study| Ok(refinement.plan(study)?.0.hook)).inspect_err(|e| {
            self.session.emit(Event::Refused(e.to_string()));
        })?;
        let result = run_job(&self.session, Job::Fit, token, |ctx| {
            let (name, config, place) = self.with_study(|study| {
                let (entry, config, begin) = refinement.plan(study)?;
                let name = fitting::refined_name(study, &entry, &config)?;
                let place = FitPlace::new(study, &name, hook, &config, Resume::Never, begin)?;
                Ok((name, config, place))
            })?;
            self.run(&name, &config, place, ctx).map(|words| ((), words))
        });
        self.session.emit_study(hook)?;
        result
    }

    /// Another fit of the open study.
    pub fn refit(&self, config: &FitConfig, token: &CancelToken) -> Result<()> {
        let hook = match self.session.shown() {
            Ok(shown) => shown.hook,
            Err(_) => lock(&self.session.study).as_ref().and_then(|s| s.manifest().hooks.first().copied()).ok_or_else(
                || {
                    self.session.emit(Event::Refused("no study is open: open one first".to_owned()));
                    Error::refused("no study is open")
                },
            )?,
        };
        self.fit(hook, config, Again::GoOn, token)
    }

    fn load_model(&self, spec: Option<&str>, device: DeviceChoice, ctx: &TaskCtx) -> Result<Arc<Model>> {
        let files = source::resolve(spec, ctx)?;
        if let Ok(open) = self.session.model()
            && open.info().id == files.id
            && device == DeviceChoice::Auto
        {
            self.session.emit(Event::Model(Box::new(open.info().clone())));
            return Ok(open);
        }
        let model = Arc::new(Model::open(&files, &LoadOptions { device, ..LoadOptions::default() }, ctx)?);
        self.session.log(Level::Info, format!("{} from {}", model.info().id, model.info().origin));
        for note in &model.info().notes {
            self.session.log(Level::Warn, note.clone());
        }
        self.session.emit(Event::Model(Box::new(model.info().clone())));
        self.session.set_model(Some(model.clone()));
        Ok(model)
    }

    /// Opens or makes the study and fills its cache.
    fn fill(
        &self,
        request: &OpenRequest,
        corpus: &Corpus,
        model: &Model,
        hook: HookPoint,
        ctx: &TaskCtx,
    ) -> Result<String> {
        let width = model.width(hook)?;
        let dir = match &request.study {
            Some(dir) => dir.clone(),
            None => study::default_dir(&model.info().id, hook, corpus)?,
        };
        self.drop_study();
        let mut study =
            Study::create(&dir, Some(model.info()), &[hook], &[width], corpus, CacheDtype::F32, BosRule::Auto)?;
        let words = if study.manifest().complete {
            format!("{} tokens were collected before", study.manifest().rows)
        } else {
            let done = collect(model, corpus, &mut study, BosRule::Auto, ctx)?;
            if done.windowed > 0 {
                self.session.log(
                    Level::Warn,
                    format!("{} texts are longer than the context and were cut into windows", done.windowed),
                );
            }
            let took = duration(done.seconds);
            format!("{} tokens of {} samples in {took}", count(done.tokens), count(done.samples))
        };
        self.take_study(study, hook)?;
        Ok(words)
    }

    fn drop_study(&self) {
        let was_open = lock(&self.session.study).take().is_some();
        self.session.set_tokens(None);
        self.session.forget_shown();
        if was_open {
            self.session.emit(Event::Closed);
        }
    }

    fn take_study(&self, study: Study, hook: HookPoint) -> Result<()> {
        self.drop_study();
        self.session.set_tokens(Some(study.tokens()?));
        *lock(&self.session.study) = Some(study);
        self.session.emit_study(hook)
    }

    fn show_saved(&self, name: Option<&str>) -> Result<()> {
        let (entry, factors, curve) = self.with_study(|study| {
            let (entry, factors) = study.load_fit(name)?;
            let curve = fitting::saved_curve(study, &entry.name)?;
            Ok((entry, factors, curve))
        })?;
        self.take_notes(&entry.name);
        curve.into_iter().for_each(|sweep| self.session.emit(Event::Sweep(sweep.into())));
        self.session.show(entry.hook, &entry.name, factors, true)?;
        self.refresh_lens();
        Ok(())
    }

    /// Another saved fit of the open study.
    pub fn show_fit(&self, name: &str) -> Result<()> {
        self.show_saved(Some(name))?;
        self.session.emit_study(self.session.shown()?.hook)
    }

    /// The notes on a fit; those that cannot be read are told of, and never written over.
    fn take_notes(&self, fit: &str) {
        let notes = self.with_study(|study| study.notes(fit)).unwrap_or_else(|e| {
            self.session.log(Level::Error, format!("names and notes are not shown: {e}"));
            Notes::default()
        });
        self.session.set_notes(notes);
    }

    fn with_study<T>(&self, f: impl FnOnce(&Study) -> Result<T>) -> Result<T> {
        let guard = lock(&self.session.study);
        f(guard.as_ref().ok_or_else(|| Error::refused("no study is open"))?)
    }

    fn refresh_lens(&self) {
        let session = self.session.clone();
        self.read.submit(move || {
            if let Err(e) = session.refresh_promoted() {
                session.log(Level::Warn, format!("no logit lens: {e}"));
            }
        });
    }

    fn fit(&self, hook: HookPoint, config: &FitConfig, again: Again, token: &CancelToken) -> Result<()> {
        let result =
            run_job(&self.session, Job::Fit, token, |ctx| self.fit_words(hook, config, again, ctx).map(|w| ((), w)));
        self.session.emit_study(hook)?;
        result
    }

    fn fit_words(&self, hook: HookPoint, config: &FitConfig, again: Again, ctx: &TaskCtx) -> Result<String> {
        let (config, name, saved) = self.with_study(|study| {
            let config = config.clone().for_width(study.manifest().width(hook)?);
            let name = fitting::default_name(study, hook, &config)?;
            let saved = study.fits()?.into_iter().find(|f| f.name == name && f.relative_error.is_some());
            Ok((config, name, saved))
        })?;
        if let Some(saved) = saved.filter(|s| again == Again::Show || !s.resumable) {
            self.show_saved(Some(&name))?;
            let early = if saved.resumable { "; it was stopped early: fit again to go on" } else { "" };
            return Ok(format!("'{name}' was fitted before{early}"));
        }
        let place =
            self.with_study(|study| FitPlace::new(study, &name, hook, &config, Resume::IfThere, Begin::Anew))?;
        self.run(&name, &config, place, ctx)
    }

    /// Runs a fit on show and says how it ended.
    fn run(&self, name: &str, config: &FitConfig, place: FitPlace, ctx: &TaskCtx) -> Result<String> {
        let hook = place.hook;
        let place = &FitPlace { gpu: self.session.model().ok().and_then(|model| FitGpu::of(&model)), ..place };
        let source = self.with_study(|study| study.activations(hook))?;
        self.take_notes(name);
        let mut observer = Watcher { opener: self, place, last_lens: None };
        let save = |factors: &Factors| self.with_study(|study| study.save_fit(name, hook, config, factors));
        let end = fitting::run_fit(source.as_ref(), config, place, &mut observer, &save, ctx)?;
        self.with_study(|study| {
            study.keep_energy(hook, &end.energy);
            Ok(())
        })?;
        let f = &end.factors;
        let words = format!("{} after {} sweeps, {:.1} s", fitting::error_words(f), f.sweep, f.seconds);
        if end.stop.is_none() { Err(Error::Cancelled) } else { Ok(words) }
    }
}

/// The fit that was on show when the explorer was left. One that was interrupted after that goes on first.
fn left_with<'a>(study: &Study, fits: &'a [FitEntry]) -> Option<&'a FitEntry> {
    fits.last().filter(|newest| newest.relative_error.is_some())?;
    let session = study.session()?;
    fits.iter().find(|fit| fit.relative_error.is_some() && session["fit"] == fit.name.as_str())
}

/// What to do with a fit that was stopped early.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    /// Show what was saved.
    Show,
    /// Go on from its checkpoint.
    GoOn,
}

/// Shows a running fit in the explorer.
struct Watcher<'a> {
    opener: &'a Opener,
    place: &'a FitPlace,
    last_lens: Option<Instant>,
}

impl FitObserver for Watcher<'_> {
    fn note(&mut self, note: &str) {
        self.opener.session.log(Level::Info, format!("fit '{}': {note}", self.place.name));
    }

    fn warn(&mut self, words: &str) {
        self.opener.session.log(Level::Warn, format!("fit '{}': {words}", self.place.name));
    }

    fn started(&mut self, init_seconds: f64, resumed: bool) {
        if resumed {
            // The curve goes on from where it was; that it cannot be read is no reason not to fit.
            let curve =
                self.opener.with_study(|study| fitting::saved_curve(study, &self.place.name)).unwrap_or_default();
            curve.into_iter().for_each(|sweep| self.opener.session.emit(Event::Sweep(sweep.into())));
        }
        let how = if resumed { "goes on from its checkpoint" } else { "starts" };
        self.opener
            .session
            .log(Level::Info, format!("fit '{}' {how} (start made in {init_seconds:.1} s)", self.place.name));
    }

    fn sweep(&mut self, sweep: Sweep) -> Result<()> {
        self.opener.session.emit(Event::Sweep(sweep.into()));
        Ok(())
    }

    fn snapshot(&mut self, factors: &Arc<Factors>, finished: bool) {
        let session = &self.opener.session;
        if finished {
            // Saving carried them over to the features as they are now.
            self.opener.take_notes(&self.place.name);
        }
        if let Err(e) = session.show(self.place.hook, &self.place.name, factors.clone(), finished) {
            session.log(Level::Error, e.to_string());
        }
        if finished || self.last_lens.is_none_or(|t| t.elapsed() >= LENS_EVERY) {
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

fn loaded_words(model: &Model) -> String {
    let info = model.info();
    format!("{} ({}, {}), {} layers", info.id, info.device, info.weights_dtype, info.layers)
}

/// The rule that the open study was collected with.
pub(super) fn bos_rule(session: &Session) -> BosRule {
    lock(&session.study).as_ref().map_or(BosRule::Auto, |s| s.manifest().bos)
}
