//! The command line as clap types, nothing else.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::model::HookSite;

mod describe;
mod eval;
mod fit;
mod judge;
mod matrices;
mod model;
mod read;
mod sae;
mod steer;
mod tree;
mod values;

pub use describe::{DescribeArgs, EndpointArgs};
pub use eval::{DetectionArgs, EvalArgs, EvalCommand, ProtocolArg, ReuseArgs, SteeringArgs};
pub use fit::{FitArgs, InitArg, ObjectiveArgs, SolverArg, SparsityArg};
pub use judge::{JudgeArgs, QualityArgs, SweepArgs};
pub use matrices::{ExportArgs, ImportArgs};
pub use model::{Bos, CollectArgs, Device, DoctorArgs, Dtype, ForwardArgs, ModelArgs};
pub use read::{FeatureArgs, InfoArgs, ListArgs, PlaceArgs, ReadArgs, StudyModelArgs, TraceArgs};
pub use sae::{SaeCommand, SaeCompareArgs, SaeListArgs, SaeLoadArgs, SaeTrainArgs};
pub use steer::{ModeArg, SamplingArgs, SteerArgs};
pub use tree::{CompareArgs, NotesArgs, TreeArgs, TreeFormat};

/// See what the MLP layers of a language model are made of.
#[derive(Debug, Parser)]
#[command(
    name = "mlpeek",
    version,
    about,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub struct Cli {
    /// The command; none opens the explorer.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What the explorer opens.
    #[command(flatten)]
    pub explore: ExploreArgs,
}

/// Arguments of the explorer.
#[derive(Debug, Clone, Args)]
pub struct ExploreArgs {
    /// A study's directory: opened where it is one, made there otherwise
    pub study: Option<PathBuf>,
    /// Hub id (owner/name or owner/name@revision), a directory in Hugging Face layout, or a GGUF
    /// file
    #[arg(long, short, value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    /// Layer, from 0 [default: the middle one]
    #[arg(long, short)]
    pub layer: Option<usize>,
    /// Where in the layer [default: mlp.hook_post]
    #[arg(long)]
    pub hook: Option<HookSite>,
    /// Corpus: JSON, JSON Lines, CSV, TSV or plain text, told by content [default: the bundled
    /// concepts]
    #[arg(long, short)]
    pub data: Option<PathBuf>,
    /// Number of features [default: 100]
    #[arg(long, short = 'k', value_parser = values::at_least_one)]
    pub features: Option<usize>,
    /// Where to compute [default: auto]
    #[arg(long, value_enum)]
    pub device: Option<Device>,
    /// Colours of the explorer
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,
    /// Do not restore where the explorer stood
    #[arg(long)]
    pub fresh: bool,
}

/// Colours of the explorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    /// What the terminal says it can
    Auto,
    /// 24 bits
    Truecolor,
    /// 256 colours
    #[value(name = "256")]
    Ansi256,
    /// 16 colours
    #[value(name = "16")]
    Ansi16,
    /// None
    Never,
}

/// A command: a pane's twin.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fill a study's activation cache; run again to resume
    Collect(CollectArgs),
    /// Decompose a study's activations into features
    Fit(FitArgs),
    /// List a fit's features, or other directions
    Features(ListArgs),
    /// Show one feature or another direction whole
    Feature(FeatureArgs),
    /// Show which features fire on new text
    Trace(TraceArgs),
    /// Show the dendrogram of shared neurons, or levels of features of features
    Tree(TreeArgs),
    /// Match the features of two fits: what is the same, what was lost, what appeared
    Compare(CompareArgs),
    /// List, write or take names, tags and notes of features
    Notes(NotesArgs),
    /// Continue a prompt with and without a feature turned up or down
    Steer(SteerArgs),
    /// Write raw activations and logits of a text as safetensors
    Forward(ForwardArgs),
    /// Judge fits beside controls on held-out sentences
    Quality(QualityArgs),
    /// Try numbers of features, sparsities and penalties
    Sweep(SweepArgs),
    /// Let a language model behind an endpoint describe features, and score what it says
    Describe(DescribeArgs),
    /// Sparse autoencoders: load published ones, train one, compare them with fits
    #[command(subcommand)]
    Sae(SaeCommand),
    /// Evaluate directions: what they detect, what they cause, what they share
    #[command(subcommand)]
    Eval(EvalCommand),
    /// Make a study of a matrix from elsewhere (.npy, .safetensors)
    Import(ImportArgs),
    /// Write a fit's factors for use elsewhere
    Export(ExportArgs),
    /// Say what a study is made of, how far it is collected, and how its fits stand
    Info(InfoArgs),
    /// List the models on this machine
    Models(JsonArgs),
    /// Say what this machine, this terminal and a model can do
    Doctor(DoctorArgs),
    /// Print the explorer's keys
    Keys(KeysArgs),
    /// Show a page of the guide, or list the pages
    Guide {
        /// The page [default: the list]
        topic: Option<String>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// `--json`.
#[derive(Debug, Clone, Copy, Args)]
pub struct JsonArgs {
    /// One JSON object a line on standard output
    #[arg(long)]
    pub json: bool,
}

/// `mlpeek keys`.
#[derive(Debug, Clone, Copy, Args)]
pub struct KeysArgs {
    /// One JSON object a line
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// A Markdown table
    #[arg(long)]
    pub markdown: bool,
}
