//! Arguments of the commands about mlpeek itself and this machine.

use std::path::PathBuf;

use clap::Args;

use super::ComputeArgs;

/// Arguments of `mlpeek models`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek models\n\
    \x20 mlpeek models --json")]
pub struct ModelsArgs {}

/// Arguments of `mlpeek doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek doctor\n\
    \x20 mlpeek doctor --model\n\
    \x20 mlpeek doctor --encoder\n\
    \x20 mlpeek doctor --device cuda\n\
    \x20 mlpeek doctor --model Qwen/Qwen2.5-0.5B --device cuda")]
pub struct DoctorArgs {
    /// A model to test (alone: the default one): the same prompt with and without cache, batched
    /// and single
    #[arg(long, short, num_args = 0..=1, default_missing_value = crate::model::source::DEFAULT_MODEL)]
    pub model: Option<String>,
    /// A sentence encoder to test (alone: the default one): texts by themselves and beside others,
    /// and whether what means alike is near
    #[arg(long, num_args = 0..=1, default_missing_value = crate::model::source::DEFAULT_ENCODER)]
    pub encoder: Option<String>,
    /// Where to compute, and in what: a device that is named is tested, with a model or without
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Arguments of `mlpeek keys`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 reads   mlpeek/config.toml in the XDG configuration directory, where there is one\n\
    \n\
    Examples:\n\
    \x20 mlpeek keys\n\
    \x20 mlpeek keys --markdown")]
pub struct KeysArgs {
    /// A Markdown table
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
}

/// Arguments of `mlpeek guide`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek guide\n\
    \x20 mlpeek guide using")]
pub struct GuideArgs {
    /// The page [default: the list]
    pub topic: Option<String>,
}

/// Arguments of `mlpeek completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
    The script asks mlpeek at every tab, so that names of fits, layers, hooks and\n\
    autoencoders of the study on the line complete too.\n\
    \n\
    Examples:\n\
    \x20 mlpeek completions bash   # source <(mlpeek completions bash) in ~/.bashrc\n\
    \x20 mlpeek completions fish   # mlpeek completions fish | source in config.fish\n\
    \x20 mlpeek completions zsh    # source <(mlpeek completions zsh) in ~/.zshrc")]
pub struct CompletionsArgs {
    /// The shell that the script is for
    pub shell: clap_complete::Shell,
}

/// Arguments of `mlpeek man`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 writes  --all: one file a command, in roff: mlpeek-fit.1\n\
    \n\
    Examples:\n\
    \x20 mlpeek man fit            # mlpeek man fit | man -l - shows it\n\
    \x20 mlpeek man sae load\n\
    \x20 mlpeek man --all share/man/man1")]
pub struct ManArgs {
    /// The words of a command: fit, or sae load [default: mlpeek itself]
    pub command: Vec<String>,
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "command")]
    pub all: Option<PathBuf>,
}
