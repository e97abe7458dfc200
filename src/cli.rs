//! The command line as clap types, nothing else.

use std::num::NonZero;
use std::path::PathBuf;

use candle_core::DType;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::activations::store::CacheDtype;
use crate::baselines::SetKind;
use crate::engine::directions::Place;
use crate::factor::{Init, Solver};
use crate::model::{BosRule, DeviceChoice, HookSite};

mod describe;
mod eval;
mod fit;
mod judge;
mod sae;
mod steer;
mod tree;

pub use describe::{DescribeArgs, EndpointArgs};
pub use eval::{DetectionArgs, EvalArgs, EvalCommand, ReuseArgs, SteeringArgs};
pub use fit::{FitArgs, ObjectiveArgs};
pub use judge::{JudgeArgs, QualityArgs, SweepArgs};
pub use sae::{SaeCommand, SaeCompareArgs, SaeListArgs, SaeLoadArgs, SaeTrainArgs};
pub use steer::{ModeArg, SteerArgs};
pub use tree::{CompareArgs, NotesArgs, TreeArgs, TreeFormat};

/// See what the MLP layers of a language model are made of.
#[derive(Debug, Parser)]
#[command(name = "mlpeek", version, about, args_conflicts_with_subcommands = true, max_term_width = 100)]
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
    /// Hub id (owner/name or owner/name@revision), a directory in Hugging Face layout, or a GGUF file
    #[arg(long, short)]
    pub model: Option<String>,
    /// Layer, from 0 [default: the middle one]
    #[arg(long, short)]
    pub layer: Option<usize>,
    /// Where in the layer
    #[arg(long, default_value = "mlp.hook_post")]
    pub hook: HookSite,
    /// Corpus: JSON, JSONL, CSV or text [default: the bundled concepts]
    #[arg(long, short)]
    pub data: Option<PathBuf>,
    /// Number of features
    #[arg(long, short = 'k', default_value_t = 100)]
    pub features: usize,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// Colours of the explorer
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,
    /// Do not restore where the explorer stood
    #[arg(long)]
    pub fresh: bool,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The best that is there
    Auto,
    /// The CPU
    Cpu,
    /// An NVIDIA GPU
    Cuda,
    /// An Apple GPU
    Metal,
}

impl From<Device> for DeviceChoice {
    fn from(device: Device) -> Self {
        match device {
            Device::Auto => Self::Auto,
            Device::Cpu => Self::Cpu,
            Device::Cuda => Self::Cuda,
            Device::Metal => Self::Metal,
        }
    }
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

/// How activations are computed on a GPU and stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 4 bytes
    F32,
    /// 2 bytes, IEEE half
    F16,
    /// 2 bytes, bfloat16
    Bf16,
}

impl From<Dtype> for CacheDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
        }
    }
}

/// How BOS is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bos {
    /// Prepended whenever the model has one
    Auto,
    /// Prepended; an error when the model has none
    Always,
    /// Not prepended
    Never,
}

impl From<Bos> for BosRule {
    fn from(bos: Bos) -> Self {
        match bos {
            Bos::Auto => Self::Auto,
            Bos::Always => Self::Always,
            Bos::Never => Self::Never,
        }
    }
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
    /// List the models on this machine
    Models(JsonArgs),
    /// Say what this machine, this terminal and a model can do
    Doctor(DoctorArgs),
    /// Print the explorer's keys
    Keys(KeysArgs),
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

/// Where a model comes from and computes.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Hub id (owner/name or owner/name@revision), a directory in Hugging Face layout, or a GGUF file [default: SmolLM2-135M-Instruct]
    #[arg(long, short)]
    pub model: Option<String>,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
}

/// `mlpeek collect`.
#[derive(Debug, Args)]
pub struct CollectArgs {
    /// The model
    #[command(flatten)]
    pub model: ModelArgs,
    /// Layers, from 0, separated by commas [default: the middle one]
    #[arg(long, short, value_delimiter = ',')]
    pub layer: Vec<usize>,
    /// Corpus: JSON, JSONL, CSV or text [default: the bundled concepts]
    #[arg(long, short)]
    pub data: Option<PathBuf>,
    /// The study's directory
    #[arg(long, short)]
    pub out: PathBuf,
    /// Where in the layer
    #[arg(long, default_value = "mlp.hook_post")]
    pub hook: HookSite,
    /// What a GPU computes in and the cache stores [default: bf16 on a GPU, stored as f32]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// Tokens, padding included, that the model reads at once [default: 512 on the CPU, 8192 on a GPU]
    #[arg(long, value_name = "N")]
    pub batch_tokens: Option<NonZero<usize>>,
    /// Whether to prepend BOS
    #[arg(long, value_enum, default_value_t = Bos::Auto)]
    pub bos: Bos,
    /// Add the corpus to a study that has another one
    #[arg(long)]
    pub append: bool,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
}

/// The update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SolverArg {
    /// ℓ0-constrained block coordinate descent
    Bcd,
    /// The paper's multiplicative updates
    Mu,
}

/// The start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InitArg {
    /// Random factors
    Random,
    /// Centroids
    Kmeans,
    /// Truncated SVD
    Svd,
}

impl From<SolverArg> for Solver {
    fn from(solver: SolverArg) -> Self {
        match solver {
            SolverArg::Bcd => Self::Bcd,
            SolverArg::Mu => Self::Mu,
        }
    }
}

impl From<InitArg> for Init {
    fn from(init: InitArg) -> Self {
        match init {
            InitArg::Random => Self::Random,
            InitArg::Kmeans => Self::Kmeans,
            InitArg::Svd => Self::Svd,
        }
    }
}

/// Which fit of a study, or which space other directions are made in.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// The layer, when the study has several [default: the newest fit's]
    #[arg(long, short)]
    pub layer: Option<usize>,
    /// The hook, when the study has several [default: the newest fit's]
    #[arg(long)]
    pub hook: Option<HookSite>,
}

impl PlaceArgs {
    /// The same for the application.
    pub fn place(&self) -> Place {
        Place { fit: self.fit.clone(), layer: self.layer, site: self.hook }
    }
}

/// `mlpeek features`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The study's directory
    pub study: PathBuf,
    /// What to list: fit (SNMF features), diffmean (one direction a label), kmeans (centroids), random (sparse
    /// directions) or neuron
    #[arg(long, default_value = "fit")]
    pub directions: SetKind,
    /// Where
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
}

/// A command that reads a fit.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `mlpeek feature`.
#[derive(Debug, Args)]
pub struct FeatureArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The feature's number, or another direction: diffmean:months, kmeans:7, random:3, neuron:123
    pub id: String,
    /// Where
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `mlpeek trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The text
    #[arg(long, short)]
    pub text: String,
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `mlpeek forward`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("input").required(true).args(["text", "ids"])))]
pub struct ForwardArgs {
    /// The model
    #[command(flatten)]
    pub model: ModelArgs,
    /// The text; BOS is prepended where the model has one
    #[arg(long, short)]
    pub text: Option<String>,
    /// Token ids, taken as they are
    #[arg(long, value_delimiter = ',')]
    pub ids: Option<Vec<u32>>,
    /// Layers, from 0, separated by commas
    #[arg(long, short, value_delimiter = ',', required = true)]
    pub layer: Vec<usize>,
    /// Where in the layers, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "mlp.hook_post")]
    pub hook: Vec<HookSite>,
    /// What a GPU computes in [default: bf16]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// The file to write
    #[arg(long, short)]
    pub out: PathBuf,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `mlpeek import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A matrix, a row a token: .npy or .safetensors
    pub file: PathBuf,
    /// The study's directory
    #[arg(long, short)]
    pub out: PathBuf,
    /// The tensor, when a safetensors file has several
    #[arg(long)]
    pub tensor: Option<String>,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `mlpeek export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The format
    #[arg(long, default_value = "safetensors", value_parser = ["safetensors"])]
    pub format: String,
    /// The file to write
    #[arg(long, short)]
    pub out: PathBuf,
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
}

/// `mlpeek doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// A model to test (alone: the default one): the same prompt with and without cache, batched and single
    #[arg(long, short, num_args = 0..=1, default_missing_value = crate::model::source::DEFAULT_MODEL)]
    pub model: Option<String>,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// Output
    #[command(flatten)]
    pub output: JsonArgs,
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
