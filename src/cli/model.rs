//! Arguments of the commands that run a model.

use std::ffi::OsStr;
use std::num::NonZero;
use std::path::PathBuf;

use candle_core::DType;
use clap::builder::{NonEmptyStringValueParser, PossibleValue, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::activations::store::CacheDtype;
use crate::model::{BosRule, DeviceChoice, HookSite, LoadOptions};

/// Reads what `--device` takes: where a model or a fit is computed.
#[derive(Debug, Clone)]
pub(super) struct DeviceParser;

impl TypedValueParser for DeviceParser {
    type Value = DeviceChoice;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<DeviceChoice, clap::Error> {
        let read = |text: &str| text.parse::<DeviceChoice>();
        read.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let kinds = [
            ("auto", "The best that is there"),
            ("cpu", "The CPU"),
            ("cuda", "An NVIDIA GPU, the first that the driver shows"),
            ("cuda:1", "An NVIDIA GPU by its number, here the second"),
            (
                "cuda:0,1",
                "A model's layers on several NVIDIA GPUs, in this order",
            ),
            ("metal", "An Apple GPU"),
        ];
        let values = kinds.map(|(name, help)| PossibleValue::new(name).help(help));
        Some(Box::new(values.into_iter()))
    }
}

/// Where a model computes, and in what.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ComputeArgs {
    /// Where to compute [default: auto]
    #[arg(long, value_parser = DeviceParser)]
    pub device: Option<DeviceChoice>,
    /// What a GPU computes in [default: bf16, or f16 where the card has no bf16]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
}

impl ComputeArgs {
    /// What opens the first `layers` layers of a model so, or all.
    pub fn options(&self, layers: Option<usize>) -> LoadOptions {
        LoadOptions {
            device: self.device.unwrap_or_default(),
            dtype: self.dtype.map(Into::into),
            layers,
            ..LoadOptions::default()
        }
    }
}

/// What `--dtype` takes: what a GPU computes in and the cache stores.
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

/// What `--bos` takes: whether the token for the beginning of a text is prepended.
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

/// Where a model comes from and computes.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Hub id (owner/name or owner/name@revision), a directory in Hugging Face layout, or a GGUF
    /// file [default: SmolLM2-135M-Instruct]
    #[arg(long, short, value_parser = NonEmptyStringValueParser::new())]
    pub model: Option<String>,
    /// Where to compute
    #[arg(long, value_parser = DeviceParser, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
}

/// Arguments of `mlpeek collect`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Where --out is a study, what is not given is taken from the study, its texts\n\
    too: collect --out STUDY goes on where a collection was cut short. What is given\n\
    must be what the study has; with --append the corpus is added to it.\n\
    \n\
    Files:\n\
    \x20 reads   --data: JSON, JSON Lines, CSV, TSV or plain text\n\
    \x20 writes  --out: a study, a directory (mlpeek guide files)\n\
    \n\
    Examples:\n\
    \x20 mlpeek collect --layer 15 --data corpus.jsonl --out study\n\
    \x20 mlpeek collect --model Qwen/Qwen2.5-0.5B --layer 6,12 --out study\n\
    \x20 mlpeek collect --out study   # go on with one that was cut short")]
pub struct CollectArgs {
    /// The model and the device
    #[command(flatten)]
    pub model: ModelArgs,
    /// Layers, from 0, separated by commas [default: the middle one]
    #[arg(long, short, value_delimiter = ',')]
    pub layer: Vec<usize>,
    /// Corpus: JSON, JSON Lines, CSV, TSV or plain text, told by content [default: the bundled
    /// concepts]
    #[arg(long, short)]
    pub data: Option<PathBuf>,
    /// The study's directory
    #[arg(long, short)]
    pub out: PathBuf,
    /// Where in the layer [default: mlp.hook_post]
    #[arg(long)]
    pub hook: Option<HookSite>,
    /// What a GPU computes in and the cache stores [default: what the model computes in, bf16 on a
    /// GPU and f32 on the CPU]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// Tokens, padding included, that the model reads at once [default: 512 on the CPU, 8192 on a
    /// GPU]
    #[arg(long, value_name = "N")]
    pub batch_tokens: Option<NonZero<usize>>,
    /// Whether to prepend BOS [default: auto]
    #[arg(long, value_enum)]
    pub bos: Option<Bos>,
    /// Add the corpus to a study that has another one
    #[arg(long)]
    pub append: bool,
    /// Take the corpus that was added last out of the study again, where collecting it was cut
    /// short
    #[arg(long, conflicts_with_all = ["append", "data", "layer", "hook", "dtype", "bos", "batch_tokens", "model", "device"])]
    pub withdraw: bool,
}

/// Arguments of `mlpeek forward`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("input").required(true).args(["text", "ids"])))]
#[command(after_help = "\
    Files:\n\
    \x20 writes  --out: safetensors; logits, ids and one tensor a hook, f32\n\
    \n\
    Examples:\n\
    \x20 mlpeek forward --text \"We met in October.\" --layer 15 --out tensors.safetensors\n\
    \x20 mlpeek forward --ids 1,5,9 --layer 3,4 --hook hook_resid_post --out ids.safetensors")]
pub struct ForwardArgs {
    /// The model and the device
    #[command(flatten)]
    pub model: ModelArgs,
    /// The text; BOS is prepended where the model has one
    #[arg(long, short, allow_hyphen_values = true)]
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
}
