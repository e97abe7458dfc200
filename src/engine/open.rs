//! Opens what a request names: the model, the study, its full cache and a fit. Only steps that were
//! not done before are done.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::fits::ExistingFit;
use super::lane::Lane;
use super::session::{Session, lock};
use super::{Event, Hold, Job, Level, OpenRequest, run_job};
use crate::amounts::{count, duration};
use crate::analysis::Notes;
use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::factor::FitConfig;
use crate::jobs::collect::{collect, estimate, exact_dtype, stored_words};
use crate::jobs::fitting;
use crate::model::{BosRule, Compute, HookPoint, LoadOptions, Model, source};
use crate::study::{self, FitEntry, Study};
use crate::task::{CancelToken, TaskCtx};

/// The part of a study to show, and the path of its model.
#[derive(Default)]
pub(super) struct StudyView<'a> {
    /// The hook, with the configuration of the fit to make if it has none; `None`: the hook of the
    /// newest fit.
    pub hook: Option<(HookPoint, &'a FitConfig)>,
    /// The path of its model; `None`: the one recorded in the study.
    pub model: Option<&'a str>,
    /// The device and the dtype in which its model computes.
    pub compute: Compute,
}

/// Opens models and studies and runs fits in a session.
pub(super) struct Opener {
    pub session: Session,
    pub lens: Arc<Lane>,
    pub hold: Arc<Hold>,
}

impl Opener {
    /// Opens the model and the study of a request, collects and fits.
    pub fn request(&self, request: &OpenRequest, token: &CancelToken) -> Result<()> {
        if let Some(dir) = request
            .study
            .as_ref()
            .filter(|dir| request.corpus.is_none() && Study::exists_at(dir))
        {
            // The request names a study, and perhaps a layer or the path of its model, but no
            // corpus: the study's own texts are used.
            let hook = request.layer.map(|layer| {
                (
                    HookPoint {
                        layer,
                        site: request.hook,
                    },
                    &request.fit,
                )
            });
            return self.study(
                dir,
                &StudyView {
                    hook,
                    model: request.model.as_deref(),
                    compute: request.compute(),
                },
                token,
            );
        }
        let (corpus, model) = run_job(&self.session, Job::Load, token, |ctx| {
            let corpus = match &request.corpus {
                Some(path) => Corpus::open(path)?,
                None => Corpus::bundled(),
            };
            let model = self.find_model(request.model.as_deref(), request.compute(), ctx)?;
            let words = loaded_words(&model);
            Ok(((corpus, model), words))
        })?;
        let hook = HookPoint {
            layer: request.layer.unwrap_or(model.info().layers / 2),
            site: request.hook,
        };
        let open = if request.study.is_none() {
            self.matching_open_study(&corpus, &model, hook)
        } else {
            None
        };
        if let Some((_, true)) = open {
            self.session.log(
                Level::Info,
                format!("{hook} is cached in the open study: nothing is collected"),
            );
            self.set_session_model(&model);
            self.session.emit_study(hook)?;
            return self.fit(hook, &request.fit, ExistingFit::Show, token);
        }
        // An interrupted collection continues in its own directory instead of starting again in
        // another.
        let dir = open.map(|(dir, _)| dir).or_else(|| request.study.clone());
        let hook = run_job(&self.session, Job::Collect, token, |ctx| {
            let dir = match dir {
                Some(dir) => dir,
                None => study::default_dir(&model.info().id, hook, &corpus)?,
            };
            self.open_and_collect(&dir, request, &corpus, &model, hook, ctx)
        })?;
        self.fit(hook, &request.fit, ExistingFit::Show, token)
    }

    /// The directory of the open study if it has this hook, model and corpus, and whether it is
    /// completely collected; otherwise `None`.
    fn matching_open_study(
        &self,
        corpus: &Corpus,
        model: &Model,
        hook: HookPoint,
    ) -> Option<(PathBuf, bool)> {
        let guard = lock(&self.session.study);
        let study = guard.as_ref()?;
        let manifest = study.manifest();
        let same_corpus =
            manifest.corpora.len() == 1 && manifest.corpora[0].sha256 == corpus.sha256;
        let same = same_corpus
            && manifest.hooks.contains(&hook)
            && study.check_model(model.info()).is_ok();
        same.then(|| (study.dir().to_path_buf(), manifest.complete))
    }

    /// Opens an existing study: first its features, then its model. If a hook is requested, its
    /// newest fit is shown, or one is made with the given configuration; otherwise the newest fit
    /// of all. An interrupted collection or fit is reported and continues only on request.
    pub fn study(&self, dir: &Path, view: &StudyView<'_>, token: &CancelToken) -> Result<()> {
        let (hook, begun) = run_job(&self.session, Job::Load, token, |ctx| {
            let study = self.open_or_read(dir)?;
            let manifest = study.manifest();
            for problem in study.unreadable_fits()? {
                self.session.log(Level::Error, problem);
            }
            let mut fits = study.fits()?;
            if let Some((hook, _)) = view.hook {
                if !manifest.hooks.contains(&hook) {
                    let hooks: Vec<String> =
                        manifest.hooks.iter().map(ToString::to_string).collect();
                    return Err(Error::refused(format!(
                        "{} has {}, not {hook}: open one of these, or collect that layer into another study",
                        dir.display(),
                        hooks.join(", ")
                    )));
                }
                fits.retain(|fit| fit.hook == hook);
            }
            let shown = last_shown_fit(&study, &fits)
                .or_else(|| study::newest(&fits, |_| true))
                .cloned();
            let hook = view
                .hook
                .map(|(hook, _)| hook)
                .or_else(|| shown.as_ref().or(fits.last()).map(|f| f.hook))
                .or_else(|| manifest.hooks.first().copied())
                .ok_or_else(|| {
                    Error::file(dir.join("study.json"), "names no hook: collect it again")
                })?;
            let has_model = manifest.model.is_some();
            self.set_study(study, hook)?;
            if let Some(fit) = &shown {
                self.show_saved(Some(&fit.name))?;
            }
            if has_model {
                self.open_model_of_study(view.model, view.compute, ctx)?;
            } else if view.model.is_some() {
                return Err(Error::usage(format!(
                    "{} was imported without a model: leave out --model",
                    dir.display()
                )));
            }
            Ok(((hook, fits.last().cloned()), String::new()))
        })?;
        let state = self.with_study(Study::collected)?;
        if !state.is_complete() {
            let words = match self.with_study(|study| Ok(study.manifest().model.is_some()))? {
                true => format!("this study is {state}: it goes on when you say so"),
                false => {
                    "this study is imported in part: run the same mlpeek import again to go on"
                        .to_owned()
                }
            };
            self.session.log(Level::Warn, words);
        }
        if let Some(fit) = begun.as_ref().filter(|fit| !fit.has_factors()) {
            let words = format!(
                "fit '{}' was {} and has no features yet: it goes on when you say so",
                fit.name,
                fit.status()
            );
            self.session.log(Level::Warn, words);
        }
        if state.is_complete() && begun.is_none() && self.session.shown().is_err() {
            let config = view
                .hook
                .map(|(_, config)| config.clone())
                .unwrap_or_default();
            return self.fit(hook, &config, ExistingFit::Show, token);
        }
        Ok(())
    }

    /// Shows the newest fit of the open study at `hook`, or makes a first one.
    pub(super) fn show_or_fit(&self, hook: HookPoint, token: &CancelToken) -> Result<()> {
        let fits = self.with_study(Study::fits)?;
        match study::newest(&fits, |at| at == hook) {
            Some(fit) => self.show_saved(Some(&fit.name)),
            None => self.fit(hook, &FitConfig::default(), ExistingFit::Show, token),
        }
    }

    /// Opens the study in `dir` for writing, or for reading if another process has it or this user
    /// may not write it.
    fn open_or_read(&self, dir: &Path) -> Result<Study> {
        self.release_study_in(dir);
        let study = Study::open_or_read(dir)?;
        if let Some(why) = study.read_only() {
            let dir = study.dir().display();
            self.session.emit(Event::Refused(format!(
                "{dir} is open for reading alone, notes apart ({why}): open it again later to fit or collect in it"
            )));
        }
        Ok(study)
    }

    /// Finds and opens a model. It becomes the session's only with [`Self::set_session_model`],
    /// since the features on show may belong to another one.
    pub(super) fn find_model(
        &self,
        spec: Option<&str>,
        compute: Compute,
        ctx: &TaskCtx,
    ) -> Result<Arc<Model>> {
        let files = source::resolve(spec, ctx)?;
        if let Ok(open) = self.session.model()
            && open.info().id == files.id
            && compute == Compute::default()
        {
            return Ok(open);
        }
        let model = Arc::new(Model::open(
            &files,
            &LoadOptions {
                device: compute.device,
                dtype: compute.dtype,
                ..LoadOptions::default()
            },
            ctx,
        )?);
        self.session.log(
            Level::Info,
            format!("{} from {}", model.info().id, model.info().origin),
        );
        for note in &model.info().notes {
            self.session.log(Level::Warn, note.clone());
        }
        Ok(model)
    }

    /// Makes a model that was compared with the study the session's model.
    pub(super) fn set_session_model(&self, model: &Arc<Model>) {
        // A reply to the event may need the model at once.
        self.session.set_model(Some(model.clone()));
        self.session
            .emit(Event::Model(Box::new(model.info().clone())));
    }

    /// Opens or makes the study in `dir` and completes its cache. Returns the hook to show and a
    /// summary.
    fn open_and_collect(
        &self,
        dir: &Path,
        request: &OpenRequest,
        corpus: &Corpus,
        model: &Arc<Model>,
        hook: HookPoint,
        ctx: &TaskCtx,
    ) -> Result<(HookPoint, String)> {
        let (mut study, hook) = if Study::exists_at(dir) {
            let existing = Study::open_read_only(dir)?;
            let hook = if request.layer.is_some() {
                hook
            } else {
                existing.manifest().hooks[0]
            };
            existing.manifest().hook_index(hook)?;
            existing.check_corpus(corpus)?;
            existing.check_model(model.info())?;
            self.release_study_in(dir);
            (Study::open(dir)?, hook)
        } else {
            let width = model.width(hook)?;
            let (dtype, bos) = (exact_dtype(model.info()), BosRule::Auto);
            // A fit that cannot be would leave a study without one behind.
            let tokens = estimate(model, corpus, &[width], dtype, bos, ctx)?.tokens;
            request.fit.check((tokens, width))?;
            self.release_study_in(dir);
            (
                Study::create(
                    dir,
                    Some(model.info()),
                    &[hook],
                    &[width],
                    corpus,
                    dtype,
                    bos,
                )?,
                hook,
            )
        };
        // Everything was checked, so the previous study is closed.
        self.drop_study();
        self.set_session_model(model);
        let words = if study.manifest().complete {
            let words = study.adopt_model(model.info(), request.model.is_some())?;
            words
                .into_iter()
                .chain(study.unrecorded_configuration())
                .for_each(|words| self.session.log(Level::Info, words));
            format!("{} tokens were collected before", study.manifest().rows)
        } else {
            let bos = study.manifest().bos;
            let done = collect(model, corpus, &mut study, bos, ctx)?;
            if done.windowed > 0 {
                self.session.log(
                    Level::Warn,
                    format!(
                        "{} texts are longer than the context and were cut into windows",
                        done.windowed
                    ),
                );
            }
            let took = duration(done.seconds);
            format!(
                "{} tokens of {} samples, {}, in {took}",
                count(done.tokens),
                count(done.samples),
                stored_words(study.manifest().dtype, model.info())
            )
        };
        self.set_study(study, hook)?;
        self.set_session_model(model);
        Ok((hook, words))
    }

    /// Closes the open study if it is the one in `dir`, since its lock would prevent opening it
    /// again. Another study stays open until that in `dir` is ready.
    fn release_study_in(&self, dir: &Path) {
        let real = |path: &Path| path.canonicalize().ok();
        let open = lock(&self.session.study)
            .as_ref()
            .filter(|s| s.is_writable())
            .and_then(|s| real(s.dir()));
        if open.is_some() && open == real(dir) {
            self.drop_study();
        }
    }

    /// Closes the open study, if there is one.
    fn drop_study(&self) {
        let was_open = lock(&self.session.study).take().is_some();
        self.session.set_tokens(None);
        self.session.forget_shown();
        if was_open {
            self.session.emit(Event::Closed);
        }
    }

    /// Makes `study` the session's and reports it.
    fn set_study(&self, study: Study, hook: HookPoint) -> Result<()> {
        self.drop_study();
        // The model of the previous study must not be used for this one.
        if self
            .session
            .model()
            .is_ok_and(|model| study.check_model(model.info()).is_err())
        {
            self.session.set_model(None);
        }
        self.session.set_tokens(Some(study.tokens()?));
        *lock(&self.session.study) = Some(study);
        self.session.emit_study(hook)
    }

    /// Shows a saved fit (`None`: the newest) with its error curve.
    pub(super) fn show_saved(&self, name: Option<&str>) -> Result<()> {
        let (entry, factors, curve) = self.with_study(|study| {
            let (entry, factors) = study.load_fit(name)?;
            let curve = fitting::saved_curve(study, &entry.name)?;
            Ok((entry, factors, curve))
        })?;
        self.apply_notes(&entry.name);
        curve
            .into_iter()
            .for_each(|sweep| self.session.emit(Event::Sweep(sweep.into())));
        self.session.show(entry.hook, &entry.name, factors, true)?;
        self.refresh_lens();
        Ok(())
    }

    /// Shows another saved fit of the open study.
    pub fn show_fit(&self, name: &str) -> Result<()> {
        self.show_saved(Some(name))?;
        self.session.emit_study(self.session.shown()?.hook)
    }

    /// Loads the notes on a fit. If they cannot be read, that is reported, and they are never
    /// overwritten.
    pub(super) fn apply_notes(&self, fit: &str) {
        let notes = self
            .with_study(|study| study.notes(fit))
            .unwrap_or_else(|e| {
                self.session
                    .log(Level::Error, format!("names and notes are not shown: {e}"));
                Notes::default()
            });
        self.session.set_notes(notes);
    }

    /// Calls `f` with the open study.
    pub(super) fn with_study<T>(&self, f: impl FnOnce(&Study) -> Result<T>) -> Result<T> {
        let guard = lock(&self.session.study);
        f(guard.as_ref().ok_or_else(|| self.session.no_study())?)
    }

    /// Queues the logit lens of the list, unless one is queued already, which will read what is
    /// then on show. Otherwise a fit whose sweeps are faster than the lens would fill the queue.
    pub(super) fn refresh_lens(&self) {
        let session = self.session.clone();
        if session.lens_is_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        self.lens.submit(move || {
            session.lens_is_queued.store(false, Ordering::Release);
            if let Err(e) = session.refresh_promoted() {
                session.log(Level::Warn, format!("no logit lens: {e}"));
            }
        });
    }
}

/// The fit that was on show when the explorer was closed.
fn last_shown_fit<'a>(study: &Study, fits: &'a [FitEntry]) -> Option<&'a FitEntry> {
    let session = study.session()?;
    fits.iter()
        .find(|fit| fit.has_factors() && session["fit"] == fit.name.as_str())
}

fn loaded_words(model: &Model) -> String {
    let info = model.info();
    format!(
        "{} ({}, {}), {} layers",
        info.id, info.device, info.weights_dtype, info.layers
    )
}

/// The rule that the open study was collected with.
pub(super) fn bos_rule(session: &Session) -> BosRule {
    lock(&session.study)
        .as_ref()
        .map_or(BosRule::Auto, |s| s.manifest().bos)
}
