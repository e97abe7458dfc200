//! The messages to and from the engine: plain data, so that a session can be logged and replayed.
//!
//! Invariant: every event that a command causes is sent as a [`super::Reply`] that names the
//! request.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use super::sets::SetInfo;
use crate::activations::energy::Concentration;
use crate::analysis::hierarchy::Linkage;
use crate::analysis::matching::FitComparison;
use crate::analysis::neurons::Overlap;
use crate::analysis::{
    Comparison, FeatureCard, FeatureRow, LabelMatrix, Levels, NeuronCard, SharedNeurons, Trace,
    Tree,
};
pub use crate::directions::SetKind;
pub use crate::directions::baselines::{Baseline, Count};
pub use crate::directions::sae::train::TrainConfig;
use crate::eval::steering::SteeringConfig;
pub use crate::eval::steering::pace::Pace;
use crate::eval::steering::report::SteeringReport;
pub use crate::eval::sweep::SweepRow;
use crate::factor::recursive::Growth;
use crate::factor::{FitConfig, Stop, Sweep};
pub use crate::jobs::causal::saved::{
    EvaluatedLabel, EvaluatedText, EvaluatedTexts, SavedEvaluation,
};
use crate::jobs::causal::{Causal, CausalRequest};
pub use crate::jobs::fitting::Refinement;
pub use crate::jobs::request::{Estimate, OpenRequest, SteerSettings};
pub use crate::jobs::sweeping::{SweepBegun, SweepRequest};
pub use crate::jobs::training::TrainPoint;
use crate::model::source::ModelEntry;
use crate::model::{HookPoint, ModelInfo};
use crate::steering::SteerInfo;
pub use crate::steering::{Mode, SteerPart};
use crate::study::{CollectState, FitEntry, SaeEntry, StudyEntry};
use crate::task::Progress;

/// A kind of long work, of which one runs at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Job {
    /// Finding, downloading and loading a model.
    Load,
    /// Filling the activation cache.
    Collect,
    /// Factorising the activations.
    Fit,
    /// Finding α for the KL that is wanted, and continuing prompts with and without it.
    Steer,
    /// Finding the features that fire on a new text.
    Trace,
    /// Factorising features into levels of coarser ones.
    Levels,
    /// Judging the effects of directions.
    Evaluate,
    /// Reading a set of directions.
    Set,
    /// Training a sparse autoencoder on the study's activations.
    Train,
    /// Fitting several numbers of features and measuring the fits.
    Sweep,
}

impl Job {
    /// The name for the user: "collecting".
    pub fn label(self) -> &'static str {
        match self {
            Self::Load => "loading",
            Self::Collect => "collecting",
            Self::Fit => "fitting",
            Self::Steer => "steering",
            Self::Trace => "tracing",
            Self::Levels => "finding levels",
            Self::Evaluate => "evaluating",
            Self::Set => "reading directions",
            Self::Train => "training an autoencoder",
            Self::Sweep => "sweeping over k",
        }
    }
}

/// A question whose answer is one number per feature.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// The similarity to this feature: the cosine of the columns.
    Like(usize),
    /// The activity on this text: the feature's largest coefficient on it divided by that in the
    /// corpus.
    Fires(String),
    /// The share of its top contexts whose sample contains this text.
    Context(String),
    /// The share of its ΣY on labels whose name contains this text.
    Label(String),
}

/// A note as the user typed it, with the feature that it belongs to, so that it can also be saved
/// later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedNote {
    /// The study's directory.
    pub study: PathBuf,
    /// The fit whose feature it is on.
    pub fit: String,
    /// The feature's id in that fit.
    pub id: usize,
    /// A name, #tags, a rating, a text ([`crate::analysis::Notes::set`]); an empty line removes all
    /// of them.
    pub line: String,
}

/// The commands that a shell may send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Lists the models on this machine: [`Event::Models`].
    ListModels,
    /// Lists recent studies: [`Event::Studies`].
    ListStudies,
    /// Estimates the cost of a request: [`Event::Estimate`].
    Estimate(OpenRequest),
    /// Loads the model, opens or makes the study, collects and fits; steps that are already done
    /// are skipped.
    Open(OpenRequest),
    /// Opens an existing study with its newest fit, then loads its model for lens, trace and
    /// steering.
    OpenStudy(PathBuf),
    /// Opens the open study's model at this path, as `--model` does: [`Event::Model`] or
    /// [`Event::NoModel`].
    ModelAt(String),
    /// Continues the interrupted collection of the open study.
    Collect,
    /// Makes another fit of the open study.
    Fit(FitConfig),
    /// Resumes a stopped fit of the open study, by name.
    GoOn(String),
    /// Makes a fit of the open study that starts from an earlier one's features: with more, with
    /// fewer, or with new rows.
    Refine(Refinement),
    /// Trains an autoencoder on the hook on show, or resumes a stopped training with these
    /// settings.
    TrainSae(TrainConfig),
    /// Fits several numbers of features and measures them: [`Event::SweepBegun`],
    /// [`Event::SweepRow`]s.
    SweepK(SweepRequest),
    /// Pauses the fit after its present sweep; other work continues.
    Pause,
    /// Continues a paused fit.
    Resume,
    /// Cancels a job; its saved results stay.
    Cancel(Job),
    /// Shows a feature of the fit on show: [`Event::Card`].
    Inspect(usize),
    /// Shows a neuron of the hook on show: [`Event::Neuron`].
    Neuron(usize),
    /// Makes the dendrogram of shared neurons: [`Event::Tree`].
    Tree(Overlap, Linkage),
    /// Factorises the features of the fit on show, level by level: [`Event::Levels`]. `true` tunes
    /// the levels together. The list holds the numbers of features of the levels; if it is empty,
    /// they are halved from level to level.
    Levels(Growth, bool, Vec<usize>),
    /// Compares these features: [`Event::Comparison`].
    Compare(Vec<usize>),
    /// Shows another fit of the open study, by name.
    ShowFit(String),
    /// Shows a set of directions in place of the features; [`SetKind::FIT`] shows the fit again.
    ShowSet(SetKind),
    /// Matches the features of two fits of the open study, by name: [`Event::FitsCompared`].
    CompareFits(String, String),
    /// Counts the labels on which features fire: [`Event::Labels`].
    Labels,
    /// Answers a question with a number for each feature: [`Event::Found`].
    Find(Probe),
    /// Undoes the last change of notes.
    UndoNote,
    /// Finds the neurons that these features have in common: [`Event::Shared`].
    Shared(Vec<usize>),
    /// Finds the features that fire on a text: [`Event::Trace`]. A newer trace replaces one that
    /// has not started.
    Trace(String),
    /// Generates with and without steering: [`Event::SteerInfo`], [`Event::SteerText`]s,
    /// [`Event::Done`].
    Steer(SteerSettings),
    /// Judges the effects of directions: [`Event::Judged`]s, [`Event::Evaluation`]. It continues an
    /// interrupted evaluation with the same questions.
    Evaluate(Box<CausalRequest>),
    /// Lists the evaluations that the study keeps: [`Event::Evaluations`].
    Evaluations,
    /// Shows what one of them came to, by its name: [`Event::Evaluation`].
    OpenEvaluation(String),
    /// Shows the texts of a method of an evaluation: [`Event::EvaluatedTexts`].
    EvaluatedTexts(String, String),
    /// Measures how fast texts are written with these settings: [`Event::Pace`].
    Pace(Box<SteeringConfig>),
    /// Saves a note: [`Event::Noted`].
    Note(TypedNote),
    /// Writes the factors: "safetensors"; or the open card as "json" or "markdown".
    Export {
        /// "safetensors", "json" or "markdown".
        format: String,
        /// The file that is written.
        path: PathBuf,
    },
    /// Writes the dendrogram by this linkage in the format of the file's extension: `.svg`, `.nwk`
    /// (Newick) or `.json`.
    ExportTree(Overlap, Linkage, PathBuf),
    /// Writes the clusters of the dendrogram cut at this height as JSON.
    ExportClusters(Overlap, Linkage, f32, PathBuf),
    /// Writes the levels that were found last, of the fit on show, as JSON.
    ExportLevels(PathBuf),
    /// Writes the names and notes of the fit on show as JSON.
    ExportNotes(PathBuf),
    /// Imports names and notes from such a file; features that it does not contain keep theirs.
    ImportNotes(PathBuf),
    /// Matches the features of a fit with those of the newest fit of the study in a directory.
    CompareStudy(String, PathBuf),
    /// Saves the state of the explorer.
    SaveSession(serde_json::Value),
    /// Saves checkpoints and ends the engine; the event channel closes when that is done.
    Shutdown,
}

impl Command {
    /// The kind of long work that the command starts with; `None` if it is none.
    pub fn job(&self) -> Option<Job> {
        Some(match self {
            Self::Open(_) | Self::OpenStudy(_) | Self::ModelAt(_) => Job::Load,
            Self::Collect => Job::Collect,
            Self::Fit(_) | Self::GoOn(_) | Self::Refine(_) => Job::Fit,
            Self::TrainSae(_) => Job::Train,
            Self::SweepK(_) => Job::Sweep,
            Self::Levels(..) => Job::Levels,
            Self::ShowSet(SetKind::Fit(None)) => return None,
            Self::ShowSet(_) => Job::Set,
            Self::Trace(_) => Job::Trace,
            Self::Steer(_) => Job::Steer,
            Self::Evaluate(_) => Job::Evaluate,
            Self::ListModels
            | Self::ListStudies
            | Self::Estimate(_)
            | Self::Pause
            | Self::Resume
            | Self::Cancel(_)
            | Self::Inspect(_)
            | Self::Neuron(_)
            | Self::Tree(..)
            | Self::Compare(_)
            | Self::ShowFit(_)
            | Self::CompareFits(..)
            | Self::Labels
            | Self::Find(_)
            | Self::UndoNote
            | Self::Shared(_)
            | Self::Evaluations
            | Self::OpenEvaluation(_)
            | Self::EvaluatedTexts(..)
            | Self::Pace(_)
            | Self::Note(_)
            | Self::Export { .. }
            | Self::ExportTree(..)
            | Self::ExportClusters(..)
            | Self::ExportLevels(_)
            | Self::ExportNotes(_)
            | Self::ImportNotes(_)
            | Self::CompareStudy(..)
            | Self::SaveSession(_)
            | Self::Shutdown => return None,
        })
    }
}

/// The properties of the open study that a shell shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyInfo {
    /// The study's directory.
    pub dir: PathBuf,
    /// The id of its model; `None` if it was imported without one.
    pub model: Option<String>,
    /// The hook on show.
    pub hook: HookPoint,
    /// Every hook that is cached.
    pub hooks: Vec<HookPoint>,
    /// The names of its corpora.
    pub corpus: String,
    /// The number of texts in the corpora.
    pub samples: usize,
    /// Token rows collected so far.
    pub rows: usize,
    /// How far it is collected; `None` if it is complete.
    #[serde(default)]
    pub unfinished: Option<CollectState>,
    /// The number of values of a row at the hook.
    pub width: usize,
    /// The number of distinct labels of the texts.
    pub labels: usize,
    /// Their names, in the order of the corpus.
    #[serde(default)]
    pub label_names: Arc<Vec<String>>,
    /// The few neurons or rows, if any, that have much of the energy of the hook on show, if that
    /// was counted.
    #[serde(default)]
    pub concentrated: Vec<Concentration>,
    /// Its fits, the newest last.
    pub fits: Vec<FitEntry>,
    /// Its sparse autoencoders.
    #[serde(default)]
    pub saes: Vec<SaeEntry>,
    /// The saved state of the explorer.
    pub session: Option<serde_json::Value>,
    /// The reason why it is open for reading only; `None` if it is open for writing.
    #[serde(default)]
    pub read_only: Option<String>,
}

/// The features of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureList {
    /// One row per feature, by id.
    pub rows: Vec<FeatureRow>,
    /// The number of sweeps done.
    pub sweep: usize,
    /// ‖A − YZᵀ‖² / ‖A‖².
    pub relative_error: f64,
    /// 1 − ‖A − YZᵀ‖² / ‖A − mean‖².
    pub explained_variance: f64,
    /// Whether the fit has ended, so that ids and meanings no longer change.
    pub finished: bool,
    /// The fit's name, or the set's.
    pub fit: String,
    /// The set that is listed; `None` for a fit.
    #[serde(default)]
    pub set: Option<SetInfo>,
}

/// A point of the error curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// The sweep's number, from 1.
    pub sweep: usize,
    /// ‖A − YZᵀ‖² / ‖A‖² after the sweep.
    pub relative_error: f64,
    /// Whether the error is that of the prepared rows, because the fit scales neurons.
    #[serde(default)]
    pub weighted: bool,
    /// Seconds of sweeping so far, without the initialisation.
    pub seconds: f64,
    /// The stop rule that ended the fit; set on the last sweep.
    pub stop: Option<Stop>,
}

impl From<Sweep> for SweepPoint {
    fn from(
        Sweep {
            sweep,
            relative_error,
            weighted,
            seconds,
            stop,
        }: Sweep,
    ) -> Self {
        Self {
            sweep,
            relative_error,
            weighted,
            seconds,
            stop,
        }
    }
}

/// The severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Something that may be useful to know later.
    Info,
    /// Something was done differently than requested.
    Warn,
    /// Something was not done at all.
    Error,
}

/// Answers to commands, and reports that no command asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The models on this machine.
    Models(Vec<ModelEntry>),
    /// The studies that were opened recently.
    Studies(Vec<StudyEntry>),
    /// The estimated cost of a request, or why it cannot be estimated.
    Estimate(Result<Estimate, String>),
    /// A job began; `Done`, `Cancelled` or `Failed` ends it.
    Started(Job),
    /// The progress of a job.
    Progress {
        /// The job that goes on.
        job: Job,
        /// How much of the job's present stage is done.
        progress: Progress,
        /// Units per second over the present stage.
        rate: Option<f64>,
        /// Seconds until the stage is done; `None` if its total or the rate is not known.
        eta: Option<f64>,
    },
    /// The model is open.
    Model(Box<ModelInfo>),
    /// The open study's model was not found, or another model was found: the reason, and what to
    /// do.
    NoModel(String),
    /// The study is open, or has changed.
    Study(Box<StudyInfo>),
    /// The open study was closed because another one is being opened.
    Closed,
    /// A new snapshot of the features (at most every 250 ms).
    Features(Arc<FeatureList>),
    /// A fit of this name starts or continues; its first sweep and snapshot follow.
    FitBegun(String),
    /// A sweep was done.
    Sweep(SweepPoint),
    /// The training of an autoencoder starts or continues.
    Training(Box<SaeEntry>),
    /// A point of its loss curve.
    TrainPoint(TrainPoint),
    /// A sweep over the number of features begins.
    SweepBegun(Box<SweepBegun>),
    /// One number of features was fitted and measured.
    SweepRow(Box<SweepRow>),
    /// The fit was paused or continues.
    Paused(bool),
    /// A feature with its contexts, neurons, logit lens and labels.
    Card(Box<FeatureCard>),
    /// A neuron with the features that use it.
    Neuron(Box<NeuronCard>),
    /// The dendrogram of shared neurons.
    Tree(Arc<Tree>),
    /// The neurons that the features of a cluster share.
    Shared(Box<SharedNeurons>),
    /// Levels of features of features, with one node per feature.
    Levels(Arc<Levels>),
    /// How strongly each feature fires on each label of the corpus.
    Labels(Arc<LabelMatrix>),
    /// The answer to a probe: one number per feature, by id.
    Found(Probe, Arc<Vec<f32>>),
    /// The comparison of several features.
    Comparison(Box<Comparison>),
    /// The comparison of two fits.
    FitsCompared(Box<FitComparison>),
    /// Finding the features that fire on a new text.
    Trace(Box<Trace>),
    /// The strength α of steering, and the tokens that it makes more and less likely.
    SteerInfo(Box<SteerInfo>),
    /// A piece of steered or baseline text.
    SteerText {
        /// The index of the sample.
        sample: usize,
        /// Whether it belongs to the steered text, not to the baseline.
        steered: bool,
        /// The text that was generated since the last such event.
        text: String,
    },
    /// The results of an evaluation on the texts that were judged so far, one report per method.
    Judged(Vec<SteeringReport>),
    /// An evaluation is complete, or was opened as far as it is.
    Evaluation(Box<Causal>),
    /// An evaluation of this name begins or goes on.
    EvaluationBegun(String),
    /// The evaluations that the study keeps, the newest first.
    Evaluations(Vec<SavedEvaluation>),
    /// The texts of a method of an evaluation.
    EvaluatedTexts(Box<EvaluatedTexts>),
    /// How fast texts are written; `None` where it cannot be measured now.
    Pace(Option<Pace>),
    /// A job succeeded, with a short summary ("17,204 tokens in 14.2 s").
    Done(Job, String),
    /// A job was stopped by the user.
    Cancelled(Job),
    /// A job failed, for this reason.
    Failed(Job, String),
    /// A reading command failed (an unknown id, no study open): the reason, and what to do.
    Refused(String),
    /// A note was saved, or the reason why it was not.
    Noted(Box<TypedNote>, Option<String>),
    /// A file was written.
    Exported(PathBuf),
    /// A line for the log drawer.
    Log(Level, String),
}
