//! Dispatches requests to lanes: which command runs on which lane, and which work it stops.
//!
//! Knows nothing of what a command computes: that is in `reading`, `work`, `sets` and `open`.
//! Invariant: every request is answered, refused, or runs as a job that ends; a panic becomes a
//! refusal.

use std::ops::Deref;
use std::sync::Arc;

use super::open::{self, StudyView};
use super::session::{Session, lock};
use super::{
    Command, Engine, Event, Job, Level, SetKind, SteerSettings, TrainConfig, internal, reading,
    run_job, sets, work,
};
use crate::error::Result;
use crate::eval::steering::SteeringConfig;
use crate::eval::steering::pace::Pace;
use crate::jobs;
use crate::jobs::causal::{CausalRequest, saved};
use crate::jobs::levels::LevelsRequest;
use crate::model::source;
use crate::panics::catch_panic;
use crate::steering::SteerEvent;
use crate::task::{CancelToken, TaskCtx};

/// One request that is being dispatched; every event that it causes names it.
pub(super) struct Handling<'a> {
    pub engine: &'a Engine,
    pub session: Session,
}

impl Deref for Handling<'_> {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        self.engine
    }
}

impl Handling<'_> {
    /// Submits a command to its lane.
    pub fn handle(&self, command: Command) {
        match command {
            Command::ListModels => self.read_slow(|s| {
                let mut models = source::list_local();
                models.retain(|model| !model.encoder);
                s.emit(Event::Models(models));
                Ok(())
            }),
            Command::ListStudies => self.read_slow(|s| {
                s.emit(Event::Studies(crate::study::recent()));
                Ok(())
            }),
            Command::Estimate(request) => self.read_slow(move |s| {
                s.emit(Event::Estimate(
                    crate::jobs::estimate::estimate(&request).map_err(|e| e.to_string()),
                ));
                Ok(())
            }),
            Command::Open(request) => {
                self.cancel_work_on_study();
                self.replace_long_work(move |open, token| open.request(&request, token));
            }
            Command::OpenStudy(dir) => {
                self.cancel_work_on_study();
                self.replace_long_work(move |open, token| {
                    open.study(&dir, &StudyView::default(), token)
                });
            }
            Command::ModelAt(path) => self.open_model_at(path),
            Command::Collect => {
                // Collecting takes the study, so the training could not save; it can be resumed
                // from its checkpoint.
                self.cancel(Job::Train);
                self.replace_long_work(|open, token| open.resume_collecting(token));
            }
            Command::GoOn(name) => {
                self.replace_long_work(move |open, token| open.resume_fit(&name, token))
            }
            Command::Fit(config) => {
                self.replace_long_work(move |open, token| open.refit(&config, token))
            }
            Command::Refine(refinement) => {
                self.replace_long_work(move |open, token| open.refine(&refinement, token))
            }
            Command::TrainSae(config) => self.train(config),
            Command::SweepK(request) => self.sweep(request),
            Command::Pause => self.set_hold(true),
            Command::Resume => self.set_hold(false),
            Command::Cancel(job) => {
                self.cancel(job);
                self.hold.set(false);
            }
            Command::Inspect(id) => {
                self.read(move |s| s.card(id).map(|c| s.emit(Event::Card(Box::new(c)))))
            }
            Command::Neuron(index) => {
                self.read(move |s| s.neuron(index).map(|c| s.emit(Event::Neuron(Box::new(c)))))
            }
            Command::Tree(overlap, linkage) => {
                self.read(move |s| reading::tree(s, overlap, linkage))
            }
            Command::Shared(ids) => self.read(move |s| reading::shared(s, &ids)),
            Command::Compare(ids) => self.read(move |s| reading::compare(s, &ids)),
            Command::Levels(growth, joint, counts) => self.levels(
                LevelsRequest {
                    counts,
                    growth,
                    ..Default::default()
                },
                joint,
            ),
            Command::ShowSet(SetKind::Fit(None)) => {
                self.show_saved(|open| sets::leave(&open.session))
            }
            Command::ShowSet(kind) => self.show_set(kind),
            Command::ShowFit(name) => self.show_saved(move |open| open.show_fit(&name)),
            Command::ExportTree(overlap, linkage, path) => {
                self.read(move |s| reading::export_tree(s, overlap, linkage, &path))
            }
            Command::ExportClusters(overlap, linkage, height, path) => {
                self.read(move |s| reading::export_clusters(s, overlap, linkage, height, &path))
            }
            Command::ExportLevels(path) => self.read(move |s| reading::export_levels(s, &path)),
            Command::ExportNotes(path) => self.read(move |s| reading::export_notes(s, &path)),
            Command::ImportNotes(path) => self.read(move |s| reading::import_notes(s, &path)),
            Command::CompareStudy(fit, dir) => {
                self.read(move |s| reading::compare_study(s, &fit, &dir))
            }
            Command::CompareFits(a, b) => self.read(move |s| reading::compare_fits(s, &a, &b)),
            Command::Labels => self.read_slow(|s| {
                let (shown, tokens) = (s.shown()?, s.tokens()?);
                s.emit(Event::Labels(Arc::new(crate::analysis::labels::matrix(
                    &shown.factors,
                    &tokens,
                ))));
                Ok(())
            }),
            Command::Find(probe) => self.read_slow(move |s| reading::find(s, probe)),
            Command::UndoNote => self.read(reading::undo_note),
            Command::Trace(text) => self.trace(text),
            Command::Steer(settings) => self.steer(settings),
            Command::Evaluate(request) => self.evaluate(*request),
            Command::Evaluations => {
                self.read_slow(|s| reading::of_study(s, saved::saved, Event::Evaluations))
            }
            Command::OpenEvaluation(name) => self.read_slow(move |s| {
                reading::of_study(
                    s,
                    |study| saved::reopen(study, &name),
                    |found| Event::Evaluation(Box::new(found)),
                )
            }),
            Command::EvaluatedTexts(name, method) => self.read_slow(move |s| {
                reading::of_study(
                    s,
                    |study| saved::texts(study, &name, &method),
                    |texts| Event::EvaluatedTexts(Box::new(texts)),
                )
            }),
            Command::Pace(config) => self.pace(*config),
            Command::Note(note) => self.read(move |s| {
                let problem = reading::note_feature(s, &note).err().map(|e| e.to_string());
                s.emit(Event::Noted(Box::new(note), problem));
                Ok(())
            }),
            Command::Export { format, path } => {
                self.read(move |s| reading::export(s, &format, &path))
            }
            // Saved immediately, so that it goes to the study that is open now and not to a later
            // one.
            Command::SaveSession(value) => {
                Self::answer_or_refuse(&self.session, |s| s.save_view_state(value))
            }
            Command::Shutdown => {}
        }
    }

    /// Cancels the work on the open study because another one is opened: its results would appear
    /// as those of the other study.
    fn cancel_work_on_study(&self) {
        [
            Job::Trace,
            Job::Levels,
            Job::Steer,
            Job::Evaluate,
            Job::Set,
            Job::Train,
            Job::Sweep,
        ]
        .into_iter()
        .for_each(|job| self.cancel(job));
    }

    fn set_hold(&self, held: bool) {
        self.hold.set(held);
        self.session.emit(Event::Paused(held));
    }

    /// Runs `work` and reports an error or a panic as a refusal, since the sender of the request
    /// waits for an answer.
    fn answer_or_refuse(session: &Session, work: impl FnOnce(&Session) -> Result<()>) {
        let outcome = catch_panic(|| work(session)).unwrap_or_else(|words| Err(internal(&words)));
        if let Err(e) = outcome {
            session.emit(Event::Refused(e.to_string()));
        }
    }

    fn read_slow(&self, work: impl FnOnce(&Session) -> Result<()> + Send + 'static) {
        let session = self.session.clone();
        self.slow_read
            .submit(move || Self::answer_or_refuse(&session, work));
    }

    fn read(&self, work: impl FnOnce(&Session) -> Result<()> + Send + 'static) {
        let session = self.session.clone();
        self.read
            .submit(move || Self::answer_or_refuse(&session, work));
    }

    pub(super) fn opener(&self) -> open::Opener {
        open::Opener {
            session: self.session.clone(),
            lens: self.lens.clone(),
            hold: self.hold.clone(),
        }
    }

    /// Stops the long work that is running, whose saved results stay, and submits `work` instead.
    fn replace_long_work(
        &self,
        work: impl FnOnce(&open::Opener, &CancelToken) -> Result<()> + Send + 'static,
    ) {
        let token = CancelToken::default();
        for job in [Job::Load, Job::Collect, Job::Fit] {
            self.replace_token(job, &token);
        }
        // A set that is still being read would replace the new study on show.
        self.cancel(Job::Set);
        self.hold.set(false);
        let opener = self.opener();
        self.work.submit(move || {
            // Each stage has reported its own failure.
            let _ = work(&opener, &token);
        });
    }

    /// Opens the study's model at `path`, on a lane where it does not wait for a running fit; the
    /// fit keeps its own token.
    fn open_model_at(&self, path: String) {
        let token = CancelToken::default();
        lock(&self.cancels).insert(Job::Load, token.clone());
        let opener = self.opener();
        self.sets.submit(move || {
            // The function has reported its own failure.
            let _ = opener.model_at(&path, &token);
        });
    }

    fn trace(&self, text: String) {
        let token = CancelToken::default();
        self.replace_token(Job::Trace, &token);
        let session = self.session.clone();
        self.trace.submit(move || {
            // A newer text has replaced this one before it started.
            if token.is_cancelled() {
                return;
            }
            let _ = run_job(&session, Job::Trace, &token, |ctx| {
                let (shown, reader) = session.reader()?;
                let model = session.model()?;
                let bos = open::bos_rule(&session);
                let trace = jobs::reading::trace(
                    &model,
                    shown.hook,
                    &reader,
                    &shown.factors,
                    &text,
                    bos,
                    ctx,
                )?;
                session.emit(Event::Trace(Box::new(trace)));
                Ok(((), String::new()))
            });
        });
    }

    fn levels(&self, request: LevelsRequest, joint: bool) {
        let token = CancelToken::default();
        self.replace_token(Job::Levels, &token);
        let session = self.session.clone();
        self.levels.submit(move || {
            // A newer request has replaced this one before it started.
            if token.is_cancelled() {
                return;
            }
            let work = |ctx: &TaskCtx| Ok(((), reading::levels(&session, &request, joint, ctx)?));
            let _ = run_job(&session, Job::Levels, &token, work);
        });
    }

    /// Shows something saved, after cancelling a set that is still being read and would replace it
    /// on show.
    fn show_saved(&self, work: impl FnOnce(&open::Opener) -> Result<()> + Send + 'static) {
        self.cancel(Job::Set);
        let opener = self.opener();
        self.sets
            .submit(move || Self::answer_or_refuse(&opener.session, |_| work(&opener)));
    }

    fn show_set(&self, kind: SetKind) {
        let token = CancelToken::default();
        self.replace_token(Job::Set, &token);
        let session = self.session.clone();
        self.sets.submit(move || {
            let _ = run_job(&session, Job::Set, &token, |ctx| {
                Ok(((), sets::show(&session, &kind, ctx)?))
            });
        });
    }

    fn train(&self, config: TrainConfig) {
        let token = CancelToken::default();
        self.replace_token(Job::Train, &token);
        let session = self.session.clone();
        self.train.submit(move || {
            let _ = run_job(&session, Job::Train, &token, |ctx| {
                Ok(((), work::train(&session, &config, ctx)?))
            });
            // The autoencoder is listed now, or can be resumed. If another study was opened
            // meanwhile, it reports itself.
            if let Ok(shown) = session.shown()
                && let Err(e) = session.emit_study(shown.hook)
            {
                session.log(Level::Error, e.to_string());
            }
        });
    }

    fn evaluate(&self, request: CausalRequest) {
        let token = CancelToken::default();
        self.replace_token(Job::Evaluate, &token);
        let session = self.session.clone();
        self.steer.submit(move || {
            let _ = run_job(&session, Job::Evaluate, &token, |ctx| {
                Ok(((), work::evaluate(&session, &request, ctx)?))
            });
        });
    }

    /// Where steering and evaluations are worked on, so that it measures itself alone; an evaluation
    /// that begins stops it.
    fn pace(&self, config: SteeringConfig) {
        let token = CancelToken::default();
        self.replace_token(Job::Evaluate, &token);
        let session = self.session.clone();
        self.steer.submit(move || {
            let ctx = TaskCtx::new(token, |_| {});
            let measured = session.model().and_then(|model| {
                catch_panic(|| Pace::measure(&model, &config, &ctx))
                    .unwrap_or_else(|words| Err(internal(&words)))
            });
            session.emit(Event::Pace(measured.ok()));
        });
    }

    fn steer(&self, settings: SteerSettings) {
        let token = CancelToken::default();
        self.replace_token(Job::Steer, &token);
        let session = self.session.clone();
        self.steer.submit(move || {
            let _ = run_job(&session, Job::Steer, &token, |ctx| {
                let shown = session.shown()?;
                let model = session.model()?;
                let request = crate::jobs::steering::request(
                    &model,
                    shown.hook,
                    &shown.factors,
                    &settings,
                    open::bos_rule(&session),
                )?;
                let mut emit = |event| match event {
                    SteerEvent::Info(info) => session.emit(Event::SteerInfo(Box::new(info))),
                    SteerEvent::Text {
                        sample,
                        steered,
                        text,
                    } => {
                        session.emit(Event::SteerText {
                            sample,
                            steered,
                            text,
                        });
                    }
                };
                let done = crate::steering::steer(&model, &request, &mut emit, ctx)?;
                Ok((
                    (),
                    format!("α {:.3}, KL {:.3}", done.info.alpha, done.info.kl),
                ))
            });
        });
    }
}
