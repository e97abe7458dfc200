//! The state that the engine's threads share: the open model and study and the newest factors.
//! Every value is an immutable `Arc` that a job replaces as a whole, so that reading never waits
//! for a job.

use std::ops::Deref;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Instant;

use crossbeam_channel::Sender;

use super::lending::LentStudy;
use super::sets::OpenSet;
use super::{Event, FeatureList, Job, Level, Reply, RequestId, StudyInfo};
use crate::analysis::Notes;
use crate::analysis::{FeatureCard, FeatureRow, Levels, NeuronCard, ScoredToken, contexts};
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::factor::encode::Encoder;
use crate::jobs::reading::{self, Reader};
use crate::model::{HookPoint, Model};
use crate::study::Study;
use crate::task::{CancelToken, TaskCtx};

/// The snapshot on show, with data that are computed from it once.
#[derive(Clone)]
pub(super) struct Shown {
    pub hook: HookPoint,
    pub fit: String,
    pub factors: Arc<Factors>,
    pub finished: bool,
    /// Its list without names and promoted tokens; it is made only once, since that reads every
    /// coefficient.
    pub rows: Arc<Vec<FeatureRow>>,
    /// Promoted tokens of each feature, by id; from an older snapshot while a fit runs.
    pub promoted: Arc<Vec<Vec<ScoredToken>>>,
    /// The set on show; `None` for a fit.
    pub set: Option<OpenSet>,
}

/// A change of notes that can be undone.
pub(super) struct NoteChange {
    pub fit: String,
    pub ids: Vec<usize>,
    /// The notes on these features before the change.
    pub before: Notes,
}

/// A handle to the shared state for one request: events that are sent through it name the request.
/// Clones share the state.
#[derive(Clone)]
pub(super) struct Session {
    open: Arc<Open>,
    events: Sender<Reply>,
    request: Option<RequestId>,
}

impl Deref for Session {
    type Target = Open;

    fn deref(&self) -> &Open {
        &self.open
    }
}

/// The shared state of the engine.
#[derive(Default)]
pub(super) struct Open {
    pub model: RwLock<Option<Arc<Model>>>,
    pub study: Mutex<Option<Study>>,
    /// The open study while it is not in `study`.
    pub lent: Mutex<Option<LentStudy>>,
    /// Locked by a training, and by work that must not run at the same time.
    pub training: Mutex<()>,
    pub tokens: RwLock<Option<Arc<TokenTable>>>,
    pub notes: RwLock<Arc<Notes>>,
    pub shown: RwLock<Option<Shown>>,
    /// The card that was requested last, for export.
    pub last_card: Mutex<Option<FeatureCard>>,
    /// The levels that were computed last, with the name of their fit.
    pub last_levels: Mutex<Option<(String, Arc<Levels>)>>,
    /// The changes of notes that can be undone, the last at the end.
    pub undo: Mutex<Vec<NoteChange>>,
    /// Whether a run of the logit lens of the list is queued and has not started.
    pub lens_is_queued: AtomicBool,
    /// The encoder of the factors that were read last. The weak reference keeps their address from
    /// being reused, but not their values in memory.
    encoder: Mutex<Option<(Weak<Factors>, Arc<Encoder>)>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another thread cannot leave these values half made: they are replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn get<T: Clone>(cell: &RwLock<T>) -> T {
    cell.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn set<T>(cell: &RwLock<T>, value: T) {
    *cell.write().unwrap_or_else(PoisonError::into_inner) = value;
}

impl Session {
    pub fn new(events: Sender<Reply>) -> Self {
        Self {
            open: Arc::default(),
            events,
            request: None,
        }
    }

    /// The same session for another request, which its events name.
    pub fn for_request(&self, request: RequestId) -> Self {
        Self {
            request: Some(request),
            ..self.clone()
        }
    }

    pub fn emit(&self, event: Event) {
        let to = self.request;
        // The receiver may be closed already; the work is finished all the same.
        let _ = self.events.send(Reply { to, event });
    }

    pub fn log(&self, level: Level, line: impl Into<String>) {
        self.emit(Event::Log(level, line.into()));
    }

    pub fn model(&self) -> Result<Arc<Model>> {
        get(&self.model).ok_or_else(|| {
            Error::refused("no model is open yet: open one, or wait until it is loaded")
        })
    }

    pub fn set_model(&self, model: Option<Arc<Model>>) {
        set(&self.model, model);
    }

    pub fn tokens(&self) -> Result<Arc<TokenTable>> {
        get(&self.tokens).ok_or_else(|| Error::refused("no study is open yet"))
    }

    pub fn set_tokens(&self, tokens: Option<Arc<TokenTable>>) {
        set(&self.tokens, tokens);
    }

    pub fn notes(&self) -> Arc<Notes> {
        get(&self.notes)
    }

    pub fn set_notes(&self, notes: Notes) {
        set(&self.notes, Arc::new(notes));
    }

    pub fn shown(&self) -> Result<Shown> {
        get(&self.shown)
            .ok_or_else(|| Error::refused("there are no features yet: fit the study first"))
    }

    pub fn forget_shown(&self) {
        set(&self.shown, None);
    }

    /// Shows a snapshot of a fit and reports it.
    pub fn show(
        &self,
        hook: HookPoint,
        fit: &str,
        factors: Arc<Factors>,
        finished: bool,
    ) -> Result<()> {
        let promoted = get(&self.shown)
            .filter(|s| s.fit == fit && s.hook == hook)
            .map_or_else(Arc::default, |s| s.promoted);
        let rows = Arc::new(contexts::feature_rows(
            &factors,
            &*self.tokens()?,
            &Notes::default(),
        ));
        self.display(Shown {
            hook,
            fit: fit.to_owned(),
            factors,
            finished,
            rows,
            promoted,
            set: None,
        })
    }

    /// Shows features that were read before.
    pub fn display(&self, shown: Shown) -> Result<()> {
        set(&self.shown, Some(shown));

        self.emit_features()
    }

    /// Sends the feature list of what is on show.
    pub fn emit_features(&self) -> Result<()> {
        let shown = self.shown()?;
        let notes = self.notes();
        let mut rows = (*shown.rows).clone();
        rows.iter_mut()
            .for_each(|row| contexts::apply_notes(row, &notes));
        for (row, promoted) in rows.iter_mut().zip(shown.promoted.iter()) {
            row.promoted.clone_from(promoted);
        }
        self.emit(Event::Features(Arc::new(FeatureList {
            rows,
            sweep: shown.factors.sweep,
            relative_error: shown.factors.relative_error,
            explained_variance: shown.factors.explained_variance,
            finished: shown.finished,
            set: shown.set.as_ref().map(OpenSet::info),
            fit: shown.fit,
        })));
        Ok(())
    }

    /// Runs the logit lens over every feature on show and sends the list again; nothing without a
    /// model.
    pub fn refresh_promoted(&self) -> Result<()> {
        let (Ok(model), Ok(shown)) = (self.model(), self.shown()) else {
            return Ok(());
        };
        let all = reading::promoted(
            &model,
            shown.hook,
            &shown.factors,
            0..shown.factors.features.columns(),
        )?;
        self.set_promoted(&shown, all)
    }

    /// Stores the promoted tokens of the features of `shown` and sends the list again, if that fit
    /// is still on show.
    pub fn set_promoted(&self, shown: &Shown, all: Vec<Vec<ScoredToken>>) -> Result<()> {
        {
            let mut cell = self.shown.write().unwrap_or_else(PoisonError::into_inner);
            let Some(now) = cell
                .as_mut()
                .filter(|s| s.fit == shown.fit && s.hook == shown.hook)
            else {
                return Ok(());
            };
            now.promoted = Arc::new(all);
        }
        self.emit_features()
    }

    /// What is on show, with a reader that computes how strongly new rows express its directions: a
    /// set by its scores, a fit by its encoder.
    pub fn reader(&self) -> Result<(Shown, Reader)> {
        let shown = self.shown()?;
        if let Some(open) = &shown.set {
            let reader = Reader::Set(open.set.clone());
            return Ok((shown, reader));
        }
        // The cache is keyed by the factors themselves: another thread may replace the snapshot on
        // show at any moment.
        let mut cell = lock(&self.encoder);
        if let Some((made_for, encoder)) = cell.as_ref()
            && std::ptr::eq(made_for.as_ptr(), Arc::as_ptr(&shown.factors))
        {
            return Ok((shown, Reader::Fit(encoder.clone())));
        }
        let encoder = Arc::new(Encoder::from_factors(&shown.factors));
        *cell = Some((Arc::downgrade(&shown.factors), encoder.clone()));
        Ok((shown, Reader::Fit(encoder)))
    }

    pub fn card(&self, id: usize) -> Result<FeatureCard> {
        let shown = self.shown()?;
        let tokens = self.tokens()?;
        contexts::check_id(&shown.factors, id)?;
        let mut row = shown
            .rows
            .get(id)
            .cloned()
            .ok_or_else(|| Error::refused("the list is not there yet"))?;
        contexts::apply_notes(&mut row, &self.notes());
        let mut card = contexts::card_of_row(row, &shown.factors, &tokens)?;
        let model = self.model();
        let model = model.as_deref().map_err(ToString::to_string);
        reading::add_lens(&mut card, shown.hook, &shown.factors, model);
        *lock(&self.last_card) = Some(card.clone());
        Ok(card)
    }

    pub fn neuron(&self, index: usize) -> Result<NeuronCard> {
        let shown = self.shown()?;
        let tokens = self.tokens()?;
        let activations = lock(&self.study)
            .as_ref()
            .ok_or_else(|| self.no_study())?
            .activations(shown.hook)?;
        let mut card = contexts::neuron_card(&shown.factors, &tokens, activations.as_ref(), index)?;
        let mut direction = vec![0.0; shown.factors.features.rows];
        direction[index] = 1.0;
        // A neuron is shown without the lens if no model is open.
        if let Ok(model) = self.model()
            && let Ok(lens) = reading::card_lens(&model, shown.hook, direction)
        {
            (card.promoted, card.suppressed) = lens;
        }
        Ok(card)
    }

    /// Reports the open study to the shell.
    pub fn emit_study(&self, hook: HookPoint) -> Result<()> {
        let guard = lock(&self.study);
        let Some(study) = guard.as_ref() else {
            return Ok(());
        };
        let info = study_info(study, hook, get(&self.tokens).as_deref())?;
        drop(guard);
        self.emit(Event::Study(Box::new(info)));
        Ok(())
    }

    /// A context that reports `job` to the shell with rate and ETA, at most every 100 ms.
    pub fn task(&self, job: Job, cancel: CancelToken) -> TaskCtx {
        let session = self.clone();
        let meter = Mutex::new(Meter::default());
        TaskCtx::new(cancel, move |progress| {
            let mut meter = lock(&meter);
            if let Some((rate, eta)) = meter.measure(&progress) {
                session.emit(Event::Progress {
                    job,
                    progress,
                    rate,
                    eta,
                });
            }
        })
    }
}

fn study_info(study: &Study, hook: HookPoint, tokens: Option<&TokenTable>) -> Result<StudyInfo> {
    let manifest = study.manifest();
    let state = study.collected()?;
    let width = manifest
        .hooks
        .iter()
        .position(|h| *h == hook)
        .map_or(0, |i| manifest.widths[i]);
    Ok(StudyInfo {
        dir: study.dir().to_path_buf(),
        model: manifest.model.as_ref().map(|m| m.id.clone()),
        hook,
        hooks: manifest.hooks.clone(),
        corpus: manifest
            .corpora
            .iter()
            .map(|c| c.name.as_str())
            .collect::<Vec<_>>()
            .join(" + "),
        samples: manifest.samples(),
        rows: state.rows,
        unfinished: Some(state).filter(|state| !state.is_complete()),
        width,
        labels: tokens.map_or(0, |t| t.labels.len()),
        label_names: Arc::new(tokens.map_or_else(Vec::new, |t| t.labels.clone())),
        concentrated: match study.saved_energy(hook)? {
            Some(energy) => study.concentrations(&energy)?,
            None => Vec::new(),
        },
        fits: study.fits()?,
        saes: study.saes()?,
        session: study.session(),
        read_only: study.read_only().map(str::to_owned),
    })
}

/// Measures the rate and the remaining time of the present stage of a job.
#[derive(Default)]
pub(crate) struct Meter {
    stage: String,
    began: Option<(Instant, u64)>,
    last_report: Option<Instant>,
}

impl Meter {
    /// The rate and the remaining seconds; `None` if the last report is less than 100 ms old. A
    /// finished stage is always reported.
    pub fn measure(
        &mut self,
        progress: &crate::task::Progress,
    ) -> Option<(Option<f64>, Option<f64>)> {
        let now = Instant::now();
        if self.stage != progress.stage || self.began.is_none_or(|(_, first)| progress.done < first)
        {
            self.stage.clone_from(&progress.stage);
            self.began = Some((now, progress.done));
            self.last_report = None;
        }
        let finished = progress.total.is_some_and(|t| progress.done >= t);
        if !finished
            && self
                .last_report
                .is_some_and(|t| now.duration_since(t).as_millis() < 100)
        {
            return None;
        }
        self.last_report = Some(now);
        let (start, first) = self.began?;
        let seconds = now.duration_since(start).as_secs_f64();
        let rate = (seconds > 0.2)
            .then(|| (progress.done - first) as f64 / seconds)
            .filter(|r| *r > 0.0);
        let eta = rate
            .zip(progress.total)
            .map(|(r, t)| t.saturating_sub(progress.done) as f64 / r);
        Some((rate, eta))
    }
}
