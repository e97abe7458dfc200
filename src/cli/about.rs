//! Arguments of the commands about mlpeek itself and this machine.

use clap::Args;

use super::Device;

/// `mlpeek models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {}

/// `mlpeek doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// A model to test (alone: the default one): the same prompt with and without cache, batched
    /// and single
    #[arg(long, short, num_args = 0..=1, default_missing_value = crate::model::source::DEFAULT_MODEL)]
    pub model: Option<String>,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = Device::Auto, requires = "model")]
    pub device: Device,
}

/// `mlpeek keys`.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// A Markdown table
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
}

/// `mlpeek guide`.
#[derive(Debug, Args)]
pub struct GuideArgs {
    /// The page [default: the list]
    pub topic: Option<String>,
}

/// `mlpeek completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `mlpeek man`.
#[derive(Debug, Args)]
pub struct ManArgs {}
