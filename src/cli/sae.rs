//! Arguments of `mlpeek sae`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::StudyModelArgs;
use super::values::{at_least_one, positive};
use crate::directions::sae::train::TrainConfig;
use crate::model::HookSite;

/// The commands of `mlpeek sae`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek sae train study --latents 2048 --top-k 32\n\
    \x20 mlpeek sae compare study")]
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

/// Arguments of `mlpeek sae load`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
    Read are SAELens directories, sparsify, Gemma Scope (params.npz) and Gemma Scope 2\n\
    (params.safetensors), Llama Scope, dictionary_learning (ae.pt), and in one file (.pt or\n\
    .safetensors) Qwen-Scope, Goodfire and OpenAI's GPT-2 autoencoders. A .pt is read without\n\
    torch, and one that does more than hold tensors is refused: nothing in it is run.\n\
    \n\
    Files:\n\
    \x20 reads   SAE: a directory, a file, or a folder of the Hub\n\
    \x20 writes  the autoencoder into the study: STUDY/saes/NAME, as SAELens reads it\n\
    \n\
    Examples:\n\
    \x20 mlpeek sae load study google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82\n\
    \x20 mlpeek sae load study saes/topk --name mine --layer 15 --hook mlp.hook_post")]
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

/// Arguments of `mlpeek sae train`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 writes  the autoencoder into the study: STUDY/saes/NAME, as SAELens reads it\n\
    \n\
    Examples:\n\
    \x20 mlpeek sae train study --latents 2048 --top-k 32\n\
    \x20 mlpeek sae train study --latents 400 --top-k 70 --epochs 20 --resume")]
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

/// Arguments of `mlpeek sae list`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek sae list study\n\
    \x20 mlpeek sae list study --json")]
pub struct SaeListArgs {
    /// The study's directory
    pub study: PathBuf,
}

/// Arguments of `mlpeek sae compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek sae compare study\n\
    \x20 mlpeek sae compare study --fit k400 --sae topk400 --on held-out --predict 1500")]
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
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}
