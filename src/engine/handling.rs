//! From a request to the lane that works on it: which command runs where, and which work it stops.
//!
//! Knows nothing of what a command computes: that is in `reading`, `work`, `sets` and `open`.
//! Invariant: every request is answered, refused, or ends as a job; a panic is a refusal.

use std::ops::Deref;
use std::sync::Arc;

use super::open::{self, StudyView};
use super::session::{Session, lock};
use super::{
    Command, Engine, Event, Job, Level, SetKind, SteerSettings, TrainConfig, internal, reading,
    run_job, sets, work,
};
use crate::error::Result;
use crate::jobs;
use crate::jobs::causal::CausalRequest;
use crate::jobs::levels::LevelsRequest;
use crate::model::source;
use crate::panics::catch_panic;
use crate::steering::SteerEvent;
use crate::task::{CancelToken, TaskCtx};

/// One request on its way to a lane; everything told in its course names it.
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
    /// Gives a command to the lane that it belongs to.
    pub fn handle(&self, command: Command) {
        match command {
            Command::ListModels => self.read_slowly(|s| {
                let mut models = source::list_local();
                models.retain(|model| !model.encoder);
                s.emit(Event::Models(models));
                Ok(())
            }),
            Command::ListStudies => self.read_slowly(|s| {
                s.emit(Event::Studies(crate::study::recent()));
                Ok(())
            }),
            Command::Estimate(request) => self.read_slowly(move |s| {
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
            Command::ModelAt(place) => self.model_at(place),
            Command::Collect => {
                // It would end with nowhere to save; its checkpoint goes on.
                self.cancel(Job::Train);
                self.replace_long_work(|open, token| open.go_on_collecting(token));
            }
            Command::GoOn(name) => {
                self.replace_long_work(move |open, token| open.go_on(&name, token))
            }
            Command::Fit(config) => {
                self.replace_long_work(move |open, token| open.refit(&config, token))
            }
            Command::Refine(refinement) => {
                self.replace_long_work(move |open, token| open.refine(&refinement, token))
            }
            Command::TrainSae(config) => self.train(config),
            Command::SweepK(ask) => self.sweep(ask),
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
                self.show_saved(|open| sets::back(&open.session))
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
            Command::Labels => self.read_slowly(|s| {
                let (shown, tokens) = (s.shown()?, s.tokens()?);
                s.emit(Event::Labels(Arc::new(crate::analysis::labels::matrix(
                    &shown.factors,
                    &tokens,
                ))));
                Ok(())
            }),
            Command::Find(probe) => self.read_slowly(move |s| reading::find(s, probe)),
            Command::UndoNote => self.read(reading::undo_note),
            Command::Trace(text) => self.trace(text),
            Command::Steer(ask) => self.steer(ask),
            Command::Evaluate(ask) => self.evaluate(*ask),
            Command::Note(note) => self.read(move |s| {
                let problem = reading::note_feature(s, &note).err().map(|e| e.to_string());
                s.emit(Event::Noted(Box::new(note), problem));
                Ok(())
            }),
            Command::Export { format, path } => {
                self.read(move |s| reading::export(s, &format, &path))
            }
            // At once, so that it is the study of the session and not one that comes after it.
            Command::SaveSession(value) => {
                Self::answer_or_refuse(&self.session, |s| s.save_standing(value))
            }
            Command::Shutdown => {}
        }
    }

    /// Another study comes: what is asked of the one on show would be told of the other.
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

    /// A question is answered also where the work panics: whoever asked waits for it.
    fn answer_or_refuse(session: &Session, work: impl FnOnce(&Session) -> Result<()>) {
        let outcome = catch_panic(|| work(session)).unwrap_or_else(|words| Err(internal(&words)));
        if let Err(e) = outcome {
            session.emit(Event::Refused(e.to_string()));
        }
    }

    fn read_slowly(&self, work: impl FnOnce(&Session) -> Result<()> + Send + 'static) {
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

    /// Replaces whatever long work runs: it is stopped first, what it saved stays.
    fn replace_long_work(
        &self,
        work: impl FnOnce(&open::Opener, &CancelToken) -> Result<()> + Send + 'static,
    ) {
        let token = CancelToken::default();
        for job in [Job::Load, Job::Collect, Job::Fit] {
            self.replace_token(job, &token);
        }
        // A set that is still read would be shown over what comes.
        self.cancel(Job::Set);
        self.hold.set(false);
        let opener = self.opener();
        self.work.submit(move || {
            // Each stage has told the shell of its own failure.
            let _ = work(&opener, &token);
        });
    }

    /// Beside a fit that runs, which keeps its own token.
    fn model_at(&self, place: String) {
        let token = CancelToken::default();
        lock(&self.cancels).insert(Job::Load, token.clone());
        let opener = self.opener();
        self.sets.submit(move || {
            // It has told the shell of its failure.
            let _ = opener.model_at(&place, &token);
        });
    }

    fn trace(&self, text: String) {
        let token = CancelToken::default();
        self.replace_token(Job::Trace, &token);
        let session = self.session.clone();
        self.trace.submit(move || {
            // A newer text has replaced this one before it began.
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
            // Newer ones have replaced these before they began.
            if token.is_cancelled() {
                return;
            }
            let work = |ctx: &TaskCtx| Ok(((), reading::levels(&session, &request, joint, ctx)?));
            let _ = run_job(&session, Job::Levels, &token, work);
        });
    }

    /// Puts something saved on show; a set that is still read would be shown over it.
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
            // It is listed now, or can be resumed; a study that came meanwhile tells of itself.
            if let Ok(shown) = session.shown()
                && let Err(e) = session.emit_study(shown.hook)
            {
                session.log(Level::Error, e.to_string());
            }
        });
    }

    fn evaluate(&self, ask: CausalRequest) {
        let token = CancelToken::default();
        self.replace_token(Job::Evaluate, &token);
        let session = self.session.clone();
        self.steer.submit(move || {
            let _ = run_job(&session, Job::Evaluate, &token, |ctx| {
                Ok(((), work::evaluate(&session, &ask, ctx)?))
            });
        });
    }

    fn steer(&self, ask: SteerSettings) {
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
                    &ask,
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
