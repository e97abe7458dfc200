//! Arguments of `mlpeek steer`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{HookSelectionArgs, StudyModelArgs, values};
use crate::directions::SetKind;
use crate::error::{Error, Result};
use crate::jobs::measured::EffectRequest;
use crate::model::generate::Sampling;
use crate::steering::{Mode, Positions};

/// What `--mode` takes: what is done along a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Add α times it
    Add,
    /// Make the component along it α
    Set,
    /// Take α of the component along it out
    Ablate,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Add => Self::Add,
            ModeArg::Set => Self::Set,
            ModeArg::Ablate => Self::Ablate,
        }
    }
}

/// How the next token is drawn from what the model predicts.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// 0 is greedy [default: 1]
    #[arg(long, value_parser = values::not_negative)]
    pub temperature: Option<f64>,
    /// Keep the k likeliest tokens; 0 keeps all [default: 30]
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Keep the smallest set with this mass [default: 0.3]
    #[arg(long, value_parser = values::share)]
    pub top_p: Option<f64>,
}

impl SamplingArgs {
    /// What these arguments ask for.
    ///
    /// # Errors
    /// [`Error::Usage`] for a choice among tokens where the likeliest is taken.
    pub fn sampling(&self, seed: u64, max_tokens: usize) -> Result<Sampling> {
        let chosen = [
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
        ];
        if let Some((option, _)) = chosen
            .iter()
            .find(|(_, given)| *given && self.temperature == Some(0.0))
        {
            return Err(Error::usage(format!(
                "{option} has no effect with --temperature 0, which takes the likeliest token: leave one of them out"
            )));
        }
        let usual = Sampling::default();
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
            seed,
            max_tokens,
        })
    }
}

fn directions_help() -> String {
    format!(
        "Features, each with an optional weight: 3 or 3:1,17:-0.5. Other directions by their set: {}, each with an optional :WEIGHT",
        SetKind::examples()
    )
}

/// Arguments of `mlpeek steer`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("strength").args(["kl", "alpha"])), allow_negative_numbers = true)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek steer study 29 --prompt \"I think that\" --kl 0.25\n\
    \x20 mlpeek steer study 3:1,17:-0.5 --alpha 8 --samples 3 --positions generated\n\
    \x20 mlpeek steer study 13 --mode ablate --exclusive-of 289,349")]
pub struct SteerArgs {
    /// The study's directory
    pub study: PathBuf,
    /// Features or other directions, each with an optional weight.
    #[arg(help = directions_help())]
    pub features: String,
    /// The text to continue; repeated, α is found for the mean KL of all and each is continued
    #[arg(
        long,
        short,
        default_value = "I think that",
        allow_hyphen_values = true
    )]
    pub prompt: Vec<String>,
    /// KL(base ‖ steered) at the prompt's last token to search α for [default: 0.25, where neither
    /// this nor --alpha is given]
    #[arg(long, value_parser = values::kl)]
    pub kl: Option<f64>,
    /// α itself [default to ablate: 1, the whole component]
    #[arg(long, value_parser = values::finite)]
    pub alpha: Option<f64>,
    /// What is done along the directions
    #[arg(long, value_enum, default_value_t = ModeArg::Add)]
    pub mode: ModeArg,
    /// Of each feature the neurons that more than half of these features of the same fit have:
    /// 14,20,30
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "IDS",
        conflicts_with = "exclusive_of"
    )]
    pub core_of: Vec<usize>,
    /// Of each feature the neurons that none of these others of the same fit has
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub exclusive_of: Vec<usize>,
    /// + promotes, - suppresses
    #[arg(long, default_value = "+", value_parser = ["+", "-"], allow_hyphen_values = true)]
    pub sign: String,
    /// Which tokens are touched: all, generated, or a span of positions such as 3..7 (BOS, where
    /// there is one, is at 0)
    #[arg(long, default_value = "all")]
    pub positions: Positions,
    /// New tokens a text
    #[arg(long, default_value_t = 50, value_parser = values::at_least_one)]
    pub max_tokens: usize,
    /// Baseline and steered texts each
    #[arg(long, default_value_t = 1, value_parser = values::samples)]
    pub samples: usize,
    /// How the next token is drawn
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Seed of the draws [default: 42]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Which fit, layer and hook are read
    #[command(flatten)]
    pub place: HookSelectionArgs,
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}

/// Arguments of `mlpeek effects`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 writes  what was measured into the study: STUDY/measured\n\
    \n\
    Examples:\n\
    \x20 mlpeek effects study\n\
    \x20 mlpeek effects study --directions random --kl 0.1\n\
    \x20 mlpeek effects study --directions textgrad,mix")]
pub struct EffectsArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The sets whose directions steer, each once; several make one list.
    #[arg(long, value_delimiter = ',', default_values_t = [SetKind::FIT], help = effects_help())]
    pub directions: Vec<SetKind>,
    /// How each direction's effect is measured
    #[command(flatten)]
    pub ask: EffectAskArgs,
    /// Which fit, layer and hook are read
    #[command(flatten)]
    pub place: HookSelectionArgs,
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}

fn effects_help() -> String {
    format!(
        "Whose directions steer, each once: {}; several, separated by commas, make one list",
        SetKind::described()
    )
}

/// How strongly, and where, a direction steers when its effect is measured.
#[derive(Debug, Clone, Args)]
pub struct EffectAskArgs {
    /// KL(base ‖ steered) at which each direction steers [default: 0.25]
    #[arg(long, value_parser = values::kl)]
    pub kl: Option<f64>,
    /// A text whose next token is watched; may be repeated [default: two short beginnings]
    #[arg(long, short, allow_hyphen_values = true)]
    pub prompt: Vec<String>,
}

impl EffectAskArgs {
    /// What is asked of the model.
    pub fn request(&self) -> EffectRequest {
        let mut ask = EffectRequest::default();
        if let Some(kl) = self.kl {
            ask.kl = kl;
        }
        if !self.prompt.is_empty() {
            ask.prompts.clone_from(&self.prompt);
        }
        ask
    }
}
