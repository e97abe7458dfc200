//! What goes in and out of the engine: plain data, so that a session can be logged and replayed.
//!
//! Invariant: every event that comes of a command is sent as a [`super::Reply`] that names it.

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
use crate::eval::steering::report::SteeringReport;
pub use crate::eval::sweep::SweepRow;
use crate::factor::recursive::Growth;
use crate::factor::{FitConfig, Stop, Sweep};
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

/// Long work. One of each kind runs at a time.
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
    /// Features on new text.
    Trace,
    /// Factorising features into levels of coarser ones.
    Levels,
    /// Judging what directions cause.
    Evaluate,
    /// Reading a set of directions.
    Set,
    /// Training a sparse autoencoder on the study's activations.
    Train,
    /// Fits with several numbers of features, measured.
    Sweep,
}

impl Job {
    /// For a person: "collecting".
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

/// A question whose answer is a number a feature.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Probe {
    /// Like this feature: cosine of the columns.
    Like(usize),
    /// Fires on this text: its largest coefficient there over its largest in the corpus.
    Fires(String),
    /// The share of its strongest contexts in whose sample this is written.
    Context(String),
    /// The share of its ΣY on labels in whose name this is written.
    Label(String),
}

/// A note as a person typed it; it knows where it belongs, so that it can be kept later too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedNote {
    /// The study's directory.
    pub study: PathBuf,
    /// The fit whose feature it is on.
    pub fit: String,
    /// The feature's id in that fit.
    pub id: usize,
    /// A name, #tags, a rating, a text ([`crate::analysis::Notes::set`]); an empty line takes it
    /// all away.
    pub line: String,
}

/// What the shells may ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Lists the models on this machine: [`Event::Models`].
    ListModels,
    /// Lists recent studies: [`Event::Studies`].
    ListStudies,
    /// Says what a request will take: [`Event::Estimate`].
    Estimate(OpenRequest),
    /// The main path: load the model, open or make the study, collect, fit; what is there already
    /// is not done again.
    Open(OpenRequest),
    /// An existing study with its newest fit; its model is loaded in the background for lens, trace
    /// and steering.
    OpenStudy(PathBuf),
    /// Opens the open study's model at the place where it lies now, as `--model`: [`Event::Model`]
    /// or [`Event::NoModel`].
    ModelAt(String),
    /// Goes on collecting the open study, which was cut short.
    Collect,
    /// Another fit of the open study.
    Fit(FitConfig),
    /// Goes on with a fit of the open study that was stopped, by name.
    GoOn(String),
    /// A fit of the open study that goes on from an earlier one's features: more, fewer, or with
    /// new rows.
    Refine(Refinement),
    /// Trains an autoencoder on the hook on show, or goes on where one with these settings stopped.
    TrainSae(TrainConfig),
    /// Fits several numbers of features and measures them: [`Event::SweepBegun`],
    /// [`Event::SweepRow`]s.
    SweepK(SweepRequest),
    /// Holds the fit after its sweep; everything else goes on.
    Pause,
    /// Goes on with a held fit.
    Resume,
    /// Stops a job; what was saved stays.
    Cancel(Job),
    /// Shows a feature of the fit on show: [`Event::Card`].
    Inspect(usize),
    /// Shows a neuron of the hook on show: [`Event::Neuron`].
    Neuron(usize),
    /// Makes the dendrogram of shared neurons: [`Event::Tree`].
    Tree(Overlap, Linkage),
    /// Factorises the features of the fit on show, level by level: [`Event::Levels`]. The levels are
    /// tuned together where `true`, and have these numbers of features; none: by halves.
    Levels(Growth, bool, Vec<usize>),
    /// Compares these features: [`Event::Comparison`].
    Compare(Vec<usize>),
    /// Shows another fit of the open study, by name.
    ShowFit(String),
    /// Shows a set of directions in place of the features; [`SetKind::FIT`]: the fit that was there.
    ShowSet(SetKind),
    /// Matches the features of two fits of the open study, by name: [`Event::FitsCompared`].
    CompareFits(String, String),
    /// Counts the labels on which features fire: [`Event::Labels`].
    Labels,
    /// Answers a question with a number for each feature: [`Event::Found`].
    Find(Probe),
    /// Takes back the last note.
    UndoNote,
    /// Says which neurons these features have in common: [`Event::Shared`].
    Shared(Vec<usize>),
    /// Says which features fire on a text: [`Event::Trace`]. A newer one replaces one that has not
    /// begun.
    Trace(String),
    /// Generates with and without steering: [`Event::SteerInfo`], [`Event::SteerText`]s,
    /// [`Event::Done`].
    Steer(SteerSettings),
    /// Judges what directions cause: [`Event::Judged`]s, [`Event::Evaluation`]. It goes on where an
    /// earlier one with the same questions stopped.
    Evaluate(Box<CausalRequest>),
    /// Saves a note: [`Event::Noted`].
    Note(TypedNote),
    /// Writes the factors: "safetensors"; or the open card as "json" or "markdown".
    Export {
        /// "safetensors", "json" or "markdown".
        format: String,
        /// The file that is written.
        path: PathBuf,
    },
    /// Writes the dendrogram by this linkage as the file's ending says: `.svg`, `.nwk` (Newick) or
    /// `.json`.
    ExportTree(Overlap, Linkage, PathBuf),
    /// Writes the clusters of the dendrogram cut at this height as JSON.
    ExportClusters(Overlap, Linkage, f32, PathBuf),
    /// Writes the levels that were found last, of the fit on show, as JSON.
    ExportLevels(PathBuf),
    /// Write the names and notes of the fit on show as JSON.
    ExportNotes(PathBuf),
    /// Take names and notes from such a file; features that it does not name keep theirs.
    ImportNotes(PathBuf),
    /// Match the features of a fit with those of the newest fit of the study in a directory.
    CompareStudy(String, PathBuf),
    /// Saves where the explorer stands.
    SaveSession(serde_json::Value),
    /// Checkpoints and ends; the event channel closes when it is done.
    Shutdown,
}

impl Command {
    /// The long work that it begins with, where it is any.
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

/// The open study, for headers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyInfo {
    /// The study's directory.
    pub dir: PathBuf,
    /// The id of its model; `None` where it was imported without one.
    pub model: Option<String>,
    /// The hook on show.
    pub hook: HookPoint,
    /// Every hook that is cached.
    pub hooks: Vec<HookPoint>,
    /// The names of its corpora.
    pub corpus: String,
    /// How many texts the corpora hold.
    pub samples: usize,
    /// Token rows collected so far.
    pub rows: usize,
    /// How far it is collected, where that was cut short.
    #[serde(default)]
    pub unfinished: Option<CollectState>,
    /// The number of values of a row at the hook.
    pub width: usize,
    /// How many distinct labels the texts have.
    pub labels: usize,
    /// Where few neurons or rows of the hook on show hold much of all, as far as that was counted.
    #[serde(default)]
    pub concentrated: Vec<Concentration>,
    /// Its fits, the newest last.
    pub fits: Vec<FitEntry>,
    /// Its sparse autoencoders.
    #[serde(default)]
    pub saes: Vec<SaeEntry>,
    /// Where the explorer stood, when it was saved.
    pub session: Option<serde_json::Value>,
    /// Why it is open for reading alone.
    #[serde(default)]
    pub read_only: Option<String>,
}

/// The features of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureList {
    /// A line each, by id.
    pub rows: Vec<FeatureRow>,
    /// How many sweeps were done.
    pub sweep: usize,
    /// ‖A − YZᵀ‖² / ‖A‖².
    pub relative_error: f64,
    /// 1 − ‖A − YZᵀ‖² / ‖A − mean‖².
    pub explained_variance: f64,
    /// The fit has ended; ids and meanings stay from here on.
    pub finished: bool,
    /// The fit's name, or the set's.
    pub fit: String,
    /// The set that it is, where it is no fit.
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
    /// Whether that is as the fit weighs neurons.
    #[serde(default)]
    pub weighted: bool,
    /// Seconds of sweeping so far, the initialisation not included.
    pub seconds: f64,
    /// Set on the last.
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

/// How grave a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Something worth knowing later.
    Info,
    /// Something was done in another way than was asked for.
    Warn,
    /// Something was not done at all.
    Error,
}

/// Answers to commands, and what the engine reports unasked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The models on this machine.
    Models(Vec<ModelEntry>),
    /// The studies that were opened of late.
    Studies(Vec<StudyEntry>),
    /// What a request will take, or why that cannot be said.
    Estimate(Result<Estimate, String>),
    /// A job began; `Done`, `Cancelled` or `Failed` ends it.
    Started(Job),
    /// How far a job has come.
    Progress {
        /// The job that goes on.
        job: Job,
        /// How much of the job's present stage is done.
        progress: Progress,
        /// Units a second, smoothed.
        rate: Option<f64>,
        /// Seconds until the stage is done; `None` where its total or the rate is not known.
        eta: Option<f64>,
    },
    /// The model is open.
    Model(Box<ModelInfo>),
    /// The open study's model was not found where the study says, or is another one: why, and what
    /// to do.
    NoModel(String),
    /// The study is open, or has changed.
    Study(Box<StudyInfo>),
    /// The study that was open is not any more: another is coming.
    Closed,
    /// A new snapshot of the features (at most every 250 ms).
    Features(Arc<FeatureList>),
    /// A fit of this name begins or goes on; its first sweep and snapshot come after it.
    FitBegun(String),
    /// A sweep was done.
    Sweep(SweepPoint),
    /// The training of an autoencoder begins or goes on.
    Training(Box<SaeEntry>),
    /// How far it has come.
    TrainPoint(TrainPoint),
    /// A sweep over the number of features begins.
    SweepBegun(Box<SweepBegun>),
    /// A number of features is fitted and measured.
    SweepRow(Box<SweepRow>),
    /// The fit is held or goes on.
    Paused(bool),
    /// A feature with its contexts, neurons, logit lens and labels.
    Card(Box<FeatureCard>),
    /// A neuron with the features that use it.
    Neuron(Box<NeuronCard>),
    /// The dendrogram of shared neurons.
    Tree(Arc<Tree>),
    /// What a cluster shares.
    Shared(Box<SharedNeurons>),
    /// Levels of features of features, with a node a feature of each.
    Levels(Arc<Levels>),
    /// How strongly each feature fires on each label of the corpus.
    Labels(Arc<LabelMatrix>),
    /// A number a feature, by id.
    Found(Probe, Arc<Vec<f32>>),
    /// Features side by side.
    Comparison(Box<Comparison>),
    /// Fits side by side.
    FitsCompared(Box<FitComparison>),
    /// Features on new text.
    Trace(Box<Trace>),
    /// The strength α that steering takes, and which tokens rise and fall by it.
    SteerInfo(Box<SteerInfo>),
    /// A piece of steered or baseline text.
    SteerText {
        /// Which of the samples, from 0.
        sample: usize,
        /// Whether it belongs to the steered text, not to the baseline.
        steered: bool,
        /// What was generated since the last such event.
        text: String,
    },
    /// What the texts of an evaluation that were judged so far amount to, a report a method.
    Judged(Vec<SteeringReport>),
    /// An evaluation is complete.
    Evaluation(Box<Causal>),
    /// A job ended well, with a short summary ("17,204 tokens in 14.2 s").
    Done(Job, String),
    /// A job was stopped by the user.
    Cancelled(Job),
    /// A job failed, and why.
    Failed(Job, String),
    /// A reading command failed (an unknown id, no study open): what and what to do.
    Refused(String),
    /// A note is on disk, or why it is not.
    Noted(Box<TypedNote>, Option<String>),
    /// A file was written.
    Exported(PathBuf),
    /// A line for the log drawer.
    Log(Level, String),
}
