//! What the engine has told so far: plain data that every pane reads and only [`World::apply`]
//! writes.
//!
//! Invariant: nothing here depends on where the user stands, on the terminal, or on a clock other
//! than the one handed in.

mod kinds;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::analysis::{FeatureCard, FeatureRow, NeuronCard};
use crate::engine::{
    Event, FeatureList, Job, Level, OpenRequest, SetInfo, StudyInfo, SweepBegun, SweepPoint,
    SweepRow, TrainPoint,
};
use crate::model::ModelInfo;
use crate::model::source::ModelEntry;
use crate::study::{SaeEntry, StudyEntry};
use crate::task::Progress;
pub use kinds::{CutShort, LogLine, RunningJob};

/// How many log lines are kept; the oldest go.
const LOG_LINES: usize = 2000;

/// Everything that the engine has told.
#[derive(Debug, Default)]
pub struct World {
    /// The time of the message in hand.
    pub now: Duration,
    /// Models on this machine; `None` until the engine has looked.
    pub models: Option<Vec<ModelEntry>>,
    /// The studies that were opened of late.
    pub studies: Option<Vec<StudyEntry>>,
    /// The open model; `None` before it is loaded, or where the study is read without one.
    pub model: Option<Box<ModelInfo>>,
    /// Why the open study's model is not open, when it was not found or is another one.
    pub no_model: Option<String>,
    /// What was asked to be opened, until its study is there.
    pub opening: Option<OpenRequest>,
    /// The open study; `None` before the first and after it was closed.
    pub study: Option<Box<StudyInfo>>,
    /// The newest snapshot of the fit, or the set of directions on show; `None` before the first.
    pub features: Option<Arc<FeatureList>>,
    /// The fit that runs, by name; `None` where none does.
    running_fit: Option<String>,
    /// The error curve of the running or last fit.
    pub sweeps: Vec<SweepPoint>,
    /// The autoencoder that is trained or was last, and its curve.
    pub training: Option<(Box<SaeEntry>, Vec<TrainPoint>)>,
    /// The sweep over the number of features that runs or was last, and its rows.
    pub k_sweep: Option<(Box<SweepBegun>, Vec<SweepRow>)>,
    /// The fit is held.
    pub paused: bool,
    /// What runs, in the order of starting.
    pub jobs: Vec<RunningJob>,
    /// The card that came last, of the selected feature or of the one before.
    pub card: Option<Box<FeatureCard>>,
    /// The neuron card that came last.
    pub neuron: Option<Box<NeuronCard>>,
    /// The id of the selected feature.
    pub selected: Option<usize>,
    /// The fit that the ids of features are of: those selected, marked and on the way here.
    pub fit_of_ids: Option<String>,
    /// Features marked for comparison, in the order of marking.
    pub marked: Vec<usize>,
    /// Selected and marked in the fit that waits behind a set of directions.
    fit_selection: Option<(Option<usize>, Vec<usize>)>,
    /// The index of the neuron that is open in place of the feature.
    pub open_neuron: Option<usize>,
    /// The way that led here, for the breadcrumb: "#17", "neuron 843".
    pub path: Vec<String>,
    /// Whether tokens have their value as a digit behind them.
    pub digits: bool,
    /// The newest lines of the log, the oldest first.
    pub log: VecDeque<LogLine>,
    /// The engine has ended.
    pub gone: bool,
}

impl World {
    /// Takes in what the engine told.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Models(models) => self.models = Some(models.clone()),
            Event::Studies(studies) => self.studies = Some(studies.clone()),
            Event::Started(job) => self.start(*job),
            Event::Progress {
                job,
                progress,
                rate,
                eta,
            } => {
                if self.job(*job).is_none() {
                    self.start(*job);
                }
                if let Some(running) = self.jobs.iter_mut().find(|r| r.job == *job) {
                    running.progress.clone_from(progress);
                    (running.rate, running.eta) = (*rate, *eta);
                }
            }
            Event::Model(model) => {
                self.model = Some(model.clone());
                self.no_model = None;
            }
            Event::NoModel(why) => {
                self.model = None;
                self.no_model = Some(why.clone());
            }
            Event::Study(study) => self.open(study),
            Event::Closed => {
                self.study = None;
                self.no_model = None;
                self.training = None;
                self.k_sweep = None;
                self.clear_study();
            }
            Event::Features(list) => {
                self.change_list(list);
                self.features = Some(list.clone());
            }
            Event::FitBegun(name) => self.running_fit = Some(name.clone()),
            Event::Sweep(point) => {
                if self
                    .sweeps
                    .last()
                    .is_some_and(|last| point.sweep <= last.sweep)
                {
                    self.sweeps.clear();
                }
                self.sweeps.push(*point);
            }
            Event::Training(entry) => self.training = Some((entry.clone(), Vec::new())),
            Event::TrainPoint(point) => {
                if let Some((_, points)) = &mut self.training {
                    points.push(*point);
                }
            }
            Event::SweepBegun(begun) => self.k_sweep = Some((begun.clone(), Vec::new())),
            Event::SweepRow(row) => {
                if let Some((_, rows)) = &mut self.k_sweep {
                    rows.push((**row).clone());
                }
            }
            Event::Paused(paused) => self.paused = *paused,
            Event::Card(card) => self.card = Some(card.clone()),
            Event::Neuron(card) => self.neuron = Some(card.clone()),
            Event::Done(job, text) => {
                self.end(*job);
                let told = if text.is_empty() {
                    String::new()
                } else {
                    format!(": {text}")
                };
                // A trace is made at every pause in typing and every few sweeps.
                if *job != Job::Trace {
                    self.add_log_line(Level::Info, format!("{} done{told}", job.label()));
                }
            }
            Event::Cancelled(job) => {
                self.end(*job);
                self.opening = None;
                // A text that is typed on replaces its own trace at every key.
                if *job != Job::Trace {
                    self.add_log_line(
                        Level::Info,
                        format!("{} cancelled; what was saved stays", job.label()),
                    );
                }
            }
            Event::Failed(job, text) => {
                self.end(*job);
                self.opening = None;
                self.add_log_line(Level::Error, format!("{} failed: {text}", job.label()));
            }
            Event::Refused(text) => self.add_log_line(Level::Warn, text.clone()),
            Event::Exported(path) => {
                self.add_log_line(Level::Info, format!("wrote {}", path.display()))
            }
            Event::Log(level, text) => self.add_log_line(*level, text.clone()),
            Event::Estimate(_)
            | Event::Noted(..)
            | Event::Tree(_)
            | Event::Shared(_)
            | Event::Levels(_)
            | Event::Comparison(_)
            | Event::Found(..)
            | Event::Labels(_)
            | Event::FitsCompared(_)
            | Event::Trace(_)
            | Event::SteerInfo(_)
            | Event::SteerText { .. }
            | Event::Judged(_)
            | Event::Evaluation(_)
            | Event::EvaluationBegun(_)
            | Event::Evaluations(_)
            | Event::EvaluatedTexts(_)
            | Event::Pace(_) => {}
        }
    }

    /// Another list is coming: its ids are other features, and what is known of those on show is
    /// not of them. What was selected and marked in a fit waits while sets of directions are on
    /// show.
    fn change_list(&mut self, list: &FeatureList) {
        let before = self.features.clone();
        let was_set = before.as_ref().is_some_and(|before| before.set.is_some());
        let (other_list, other_fit) = (
            before.is_some_and(|b| b.fit != list.fit),
            self.is_other_fit(&list.fit),
        );
        match &list.set {
            Some(_) if other_list => {
                let selection = (self.selected, std::mem::take(&mut self.marked));
                self.clear_ids();
                if !was_set {
                    self.fit_selection = Some(selection);
                }
            }
            Some(_) => {}
            None => {
                if other_fit || was_set {
                    self.clear_ids();
                    let fit_selection = self.fit_selection.take().filter(|_| was_set && !other_fit);
                    (self.selected, self.marked) = fit_selection.unwrap_or_default();
                }
                self.fit_of_ids = Some(list.fit.clone());
            }
        }
    }

    /// The set of directions on show, where it is not a fit.
    pub fn set(&self) -> Option<&SetInfo> {
        self.features.as_ref()?.set.as_ref()
    }

    /// The fit on show, or the one that waits behind a set.
    pub fn fit_name(&self) -> Option<&str> {
        let list = self.features.as_ref()?;
        match &list.set {
            Some(set) => set.fit.as_deref(),
            None => Some(&list.fit),
        }
    }

    /// The fit that the numbers of a fit are of: the one that runs, else the one on show.
    pub fn fit_in_hand(&self) -> Option<&str> {
        self.running_fit.as_deref().or_else(|| self.fit_name())
    }

    /// The newest snapshot of the fit in hand; `None` before its first, and while a set is on show.
    pub fn snapshot(&self) -> Option<&FeatureList> {
        let list = self.features.as_deref().filter(|list| list.set.is_none())?;
        let is_of = |name: &String| *name == list.fit;
        self.running_fit.as_ref().is_none_or(is_of).then_some(list)
    }

    /// The fit whose start is being made: it has done no sweep yet.
    pub fn starting_fit(&self) -> Option<&str> {
        self.running_fit
            .as_deref()
            .filter(|_| self.sweeps.is_empty())
    }

    /// The sweep that the card on show was read after, where a newer snapshot is there already.
    pub fn older_sweep_of_card(&self) -> Option<usize> {
        let card = self.selected_card()?;
        let list = self.features.as_ref().filter(|list| list.set.is_none())?;
        (card.sweep < list.sweep).then_some(card.sweep)
    }

    /// What of the open study was cut short and waits to go on: collecting, else the fit on show,
    /// else the newest where there is nothing to show.
    pub fn cut_short(&self) -> Option<CutShort<'_>> {
        let study = self.study.as_ref()?;
        if let Some(state) = &study.unfinished {
            return Some(match study.model {
                Some(_) => CutShort::Collecting(state),
                None => CutShort::Importing(state),
            });
        }
        let fit = match &self.features {
            Some(_) => study
                .fits
                .iter()
                .find(|fit| Some(fit.name.as_str()) == self.fit_name()),
            None => study.fits.last(),
        };
        fit.filter(|fit| !fit.is_finished()).map(CutShort::Fit)
    }

    /// The selected feature of the fit, also while a set is on show.
    pub fn selected_of_fit(&self) -> Option<usize> {
        match (self.set(), &self.fit_selection) {
            (None, _) => self.selected,
            (Some(_), Some((selected, _))) => *selected,
            (Some(_), None) => None,
        }
    }

    /// The marked features of the fit, also while a set is on show.
    pub fn marked_of_fit(&self) -> &[usize] {
        match (self.set(), &self.fit_selection) {
            (None, _) => &self.marked,
            (Some(_), Some((_, marked))) => marked,
            (Some(_), None) => &[],
        }
    }

    fn start(&mut self, job: Job) {
        self.end(job);
        if job == Job::Fit {
            self.sweeps.clear();
        }
        let progress = Progress::new(job.label(), 0, None, "");
        let running = RunningJob {
            job,
            progress,
            rate: None,
            eta: None,
            since: self.now,
            cancelling: false,
        };
        // Nobody started a trace: what runs besides is what is shown and cancelled first.
        let at = if job == Job::Trace {
            0
        } else {
            self.jobs.len()
        };
        self.jobs.insert(at, running);
    }

    fn end(&mut self, job: Job) {
        self.jobs.retain(|r| r.job != job);
        if job == Job::Fit {
            self.paused = false;
            self.running_fit = None;
        }
    }

    fn open(&mut self, study: &StudyInfo) {
        let other = self
            .study
            .as_ref()
            .is_none_or(|s| s.dir != study.dir || s.hook != study.hook);
        if other {
            self.clear_study();
        }
        // That of the study before; the one of this study comes after it.
        let elsewhere = self.study.as_ref().is_none_or(|s| s.dir != study.dir);
        if elsewhere
            && self
                .model
                .as_ref()
                .is_some_and(|model| study.model.as_ref() != Some(&model.id))
        {
            self.model = None;
        }
        self.opening = None;
        self.study = Some(Box::new(study.clone()));
    }

    /// What was of a study that is not on show any more.
    fn clear_study(&mut self) {
        self.features = None;
        self.fit_selection = None;
        self.sweeps.clear();
        self.clear_ids();
        self.fit_of_ids = None;
    }

    /// What names features by their ids.
    fn clear_ids(&mut self) {
        self.marked.clear();
        self.card = None;
        self.neuron = None;
        self.selected = None;
        self.open_neuron = None;
        self.path.clear();
    }

    /// Whether the ids on show are of another fit than this one.
    pub fn is_other_fit(&self, fit: &str) -> bool {
        self.fit_of_ids
            .as_ref()
            .is_some_and(|ids_fit| ids_fit != fit)
    }

    /// Of what is being opened: layer and hook, and the corpus.
    pub fn opening_facts(&self) -> Option<[String; 2]> {
        let request = self.opening.as_ref()?;
        let middle = self.model.as_ref().map(|m| m.layers / 2);
        let layer = request
            .layer
            .or(middle)
            .map_or_else(|| "the middle layer".to_owned(), |l| format!("layer {l}"));
        let corpus = request.corpus.as_ref().map_or_else(
            || "bundled concepts".to_owned(),
            |path| {
                crate::text::clean(
                    &path
                        .file_name()
                        .unwrap_or(path.as_os_str())
                        .to_string_lossy(),
                )
            },
        );
        Some([format!("{layer}, {}", request.hook), corpus])
    }

    /// Adds a line to the log.
    pub fn add_log_line(&mut self, level: Level, text: String) {
        if self.log.len() == LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back(LogLine {
            at: self.now,
            level,
            text,
        });
    }

    /// The running job of this kind.
    pub fn job(&self, job: Job) -> Option<&RunningJob> {
        self.jobs.iter().find(|r| r.job == job)
    }

    /// Whether the fit runs (held or not).
    pub fn fitting(&self) -> bool {
        self.job(Job::Fit).is_some()
    }

    /// The job that a cancel key means: the newest that is not being cancelled already.
    pub fn cancellable(&self) -> Option<Job> {
        self.jobs
            .iter()
            .rev()
            .find(|r| !r.cancelling)
            .map(|r| r.job)
    }

    /// The rows of the newest snapshot.
    pub fn rows(&self) -> &[FeatureRow] {
        self.features.as_ref().map_or(&[], |list| &list.rows)
    }

    /// The row of feature `id`.
    pub fn row(&self, id: usize) -> Option<&FeatureRow> {
        let rows = self.rows();
        rows.get(id)
            .filter(|r| r.id == id)
            .or_else(|| rows.iter().find(|r| r.id == id))
    }

    /// The card of the selected feature, when it has arrived.
    pub fn selected_card(&self) -> Option<&FeatureCard> {
        self.card
            .as_deref()
            .filter(|card| Some(card.row.id) == self.selected)
    }

    /// The neuron that is open, when it has arrived.
    pub fn open_neuron_card(&self) -> Option<&NeuronCard> {
        self.neuron
            .as_deref()
            .filter(|card| Some(card.index) == self.open_neuron)
    }

    /// A feature for a sentence: `#17 days`, by its name or its strongest token.
    pub fn feature_label(&self, id: usize) -> String {
        let what = self.row(id).map(|row| match &row.name {
            Some(name) => crate::text::clean(name),
            None => row
                .top_tokens
                .first()
                .map(|t| crate::text::clean(t.trim()))
                .unwrap_or_default(),
        });
        match what {
            Some(what) if !what.is_empty() => format!("#{id} {what}"),
            _ => format!("#{id}"),
        }
    }
}
