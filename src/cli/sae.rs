//! Arguments of `mlpeek sae`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::values::{at_least_one, positive};
use super::{Device, StudyModelArgs};
use crate::directions::sae::train::TrainConfig;
use crate::model::HookSite;

/// `mlpeek sae`.
#[derive(Debug, Subcommand)]
pub enum SaeCommand {
    /// Bring a published sparse autoencoder into a study
    Load(SaeLoadArgs),
    /// Train a TopK autoencoder on a study's activations
    Train(SaeTrainArgs),
    /// List a study's autoencoders
    List(SaeListArgs),
    /// Compare autoencoders with fits: error, sparsity, and what the model loses when they take the
    /// activation's place
    Compare(SaeCompareArgs),
}

/// `mlpeek sae load`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Read are SAELens directories, sparsify, Gemma Scope (params.npz), Llama Scope, and OpenAI's GPT-2 \
    autoencoders, which are published as pickles; convert one where torch is:\n\n  python -c \"import sys,torch;from \
    safetensors.torch import save_file as w;s=torch.load(sys.argv[1],map_location='cpu');m={'activation':str(s.pop('activation',\
    'ReLU')),'k':str((s.pop('activation_state_dict',None) or {}).get('k',''))};w({k:v.contiguous().float() for k,v in s.items() \
    if k!='stats_last_nonzero'},sys.argv[2],m)\" 8.pt 8.safetensors"
)]
pub struct SaeLoadArgs {
    /// The study's directory
    pub study: PathBuf,
    /// A directory or file, or a folder of the Hub: `owner/name[@revision]/folder`
    pub sae: String,
    /// Its name in the study [default: from where it lies]
    #[arg(long)]
    pub name: Option<String>,
    /// The layer, when its files do not say it
    #[arg(long, short)]
    pub layer: Option<usize>,
    /// The hook, when its files do not say it
    #[arg(long)]
    pub hook: Option<HookSite>,
    /// Load it although its files name another model or hook
    #[arg(long)]
    pub force: bool,
    /// Let it take the place of an SAE that has its name
    #[arg(long)]
    pub fresh: bool,
}

/// `mlpeek sae train`.
#[derive(Debug, Args)]
pub struct SaeTrainArgs {
    /// The study's directory
    pub study: PathBuf,
    /// Number of latents
    #[arg(long, default_value_t = TrainConfig::default().latents, value_parser = at_least_one)]
    pub latents: usize,
    /// Active latents a token
    #[arg(long, default_value_t = TrainConfig::default().top_k, value_parser = at_least_one)]
    pub top_k: usize,
    /// Passes over the tokens
    #[arg(long, default_value_t = TrainConfig::default().epochs, value_parser = at_least_one)]
    pub epochs: usize,
    /// Tokens a step
    #[arg(long, default_value_t = TrainConfig::default().batch, value_parser = at_least_one)]
    pub batch: usize,
    /// Adam's learning rate [default: 2e-4 / √(latents / 16384)]
    #[arg(long, value_parser = positive)]
    pub learning_rate: Option<f64>,
    /// Seed of the start and of the order of tokens
    #[arg(long, default_value_t = TrainConfig::default().seed)]
    pub seed: u64,
    /// The layer, when the study has several
    #[arg(long, short)]
    pub layer: Option<usize>,
    /// The hook, when the study has several
    #[arg(long)]
    pub hook: Option<HookSite>,
    /// Its name in the study [default: topk and the number of latents]
    #[arg(long)]
    pub name: Option<String>,
    /// Go on from its checkpoint
    #[arg(long)]
    pub resume: bool,
    /// Begin anew where there is an SAE of that name, or the checkpoint of a training that was
    /// stopped
    #[arg(long, conflicts_with = "resume")]
    pub fresh: bool,
}

impl SaeTrainArgs {
    /// The configuration that these arguments ask for.
    pub fn config(&self) -> TrainConfig {
        TrainConfig {
            latents: self.latents,
            top_k: self.top_k,
            epochs: self.epochs,
            batch: self.batch,
            learning_rate: self.learning_rate,
            seed: self.seed,
        }
    }
}

/// `mlpeek sae list`.
#[derive(Debug, Args)]
pub struct SaeListArgs {
    /// The study's directory
    pub study: PathBuf,
}

/// `mlpeek sae compare`.
#[derive(Debug, Args)]
pub struct SaeCompareArgs {
    /// The study's directory
    pub study: PathBuf,
    /// Autoencoders, separated by commas [default: all of one hook]
    #[arg(long, value_delimiter = ',')]
    pub sae: Vec<String>,
    /// Fits, separated by commas [default: all of that hook]
    #[arg(long, value_delimiter = ',')]
    pub fit: Vec<String>,
    /// The layer, when the study has several
    #[arg(long, short)]
    pub layer: Option<usize>,
    /// The hook, when the study has several
    #[arg(long)]
    pub hook: Option<HookSite>,
    /// Another study of the same model and hook, whose tokens are read instead: texts that nothing
    /// was trained on
    #[arg(long)]
    pub on: Option<PathBuf>,
    /// Predict about this many tokens with the activation replaced; 0 leaves the model out
    #[arg(long, default_value_t = 8192)]
    pub predict: usize,
    /// The model
    #[command(flatten)]
    pub model: StudyModelArgs,
    /// Where to compute [default: auto]
    #[arg(long, value_enum)]
    pub device: Option<Device>,
}
