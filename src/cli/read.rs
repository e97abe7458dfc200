//! Arguments of the commands that read a study.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::ComputeArgs;
use crate::directions::SetKind;
use crate::jobs::directions::HookSelection;
use crate::model::HookSite;

/// Which fit of a study, or which space other directions are made in.
#[derive(Debug, Clone, Args)]
pub struct HookSelectionArgs {
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

impl HookSelectionArgs {
    /// The same as [`crate::jobs`] takes it.
    pub fn selection(&self) -> HookSelection {
        HookSelection {
            fit: self.fit.clone(),
            layer: self.layer,
            site: self.hook,
        }
    }
}

/// Which fit of a study, or which spaces other directions are made in.
#[derive(Debug, Clone, Args)]
pub struct LayersArgs {
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// The layer, when the study has several; several, separated by commas, are evaluated in turn
    /// and told against each other [default: the newest fit's]
    #[arg(long, short, value_delimiter = ',')]
    pub layer: Vec<usize>,
    /// The hook, when the study has several [default: the newest fit's]
    #[arg(long)]
    pub hook: Option<HookSite>,
}

impl LayersArgs {
    /// The same as [`crate::jobs`] takes it, of one layer.
    pub fn selection(&self) -> HookSelection {
        HookSelection {
            fit: self.fit.clone(),
            layer: self.layer.first().copied(),
            site: self.hook,
        }
    }
}

/// Where the study's model lies.
#[derive(Debug, Clone, Args)]
pub struct StudyModelArgs {
    /// The study's model, where it lies now: a directory, a GGUF file or a Hub id; it must be the
    /// one that the study was collected with, and its new place is kept [default: where the study
    /// says]
    #[arg(long, short)]
    pub model: Option<String>,
    /// Where it computes, and in what
    #[command(flatten)]
    pub compute: ComputeArgs,
}

fn sets_help() -> String {
    format!(
        "What to list: {}; several, separated by commas, make one list: fit:k100,diffmean,neuron",
        SetKind::described()
    )
}

fn direction_help() -> String {
    format!(
        "The feature's number, or another direction: {}",
        SetKind::examples()
    )
}

/// Arguments of `mlpeek features`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek features study\n\
    \x20 mlpeek features study --directions diffmean,kmeans\n\
    \x20 mlpeek features study --directions fit:k100,sae:topk400 --json")]
pub struct ListArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The sets to list; several make one list.
    #[arg(long, value_delimiter = ',', default_values_t = [SetKind::FIT], help = sets_help())]
    pub directions: Vec<SetKind>,
    /// Which fit, layer and hook are read
    #[command(flatten)]
    pub place: HookSelectionArgs,
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}

/// Arguments of `mlpeek feature`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek feature study 29\n\
    \x20 mlpeek feature study diffmean:months --layer 15\n\
    \x20 mlpeek feature study sae:topk400/17 --json")]
pub struct FeatureArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The feature's number, or another direction as `SET:ID`.
    #[arg(help = direction_help())]
    pub id: String,
    /// Which fit, layer and hook are read
    #[command(flatten)]
    pub place: HookSelectionArgs,
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}

/// Arguments of `mlpeek info`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek info study\n\
    \x20 mlpeek info study --json")]
pub struct InfoArgs {
    /// The study's directory
    pub study: PathBuf,
}

/// Arguments of `mlpeek trace`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek trace study --text \"We met in October.\"\n\
    \x20 mlpeek trace study --fit k100 --text \"We met in October.\" --json")]
pub struct TraceArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The text to read, a token at a time
    #[arg(long, short, allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub text: String,
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}

/// Arguments of `mlpeek why`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek why study --text \"We met in October and left in\"\n\
    \x20 mlpeek why study --text \"We met in\" --token \" October\" --limit 10\n\
    \x20 mlpeek why study --fit k100 --text \"We met in October.\" --at 2 --json")]
pub struct WhyArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The text to read
    #[arg(long, short, allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub text: String,
    /// The next token to ask about, with its space: \" October\" [default: the one that follows in the
    /// text, after its end the likeliest]
    #[arg(long, allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    pub token: Option<String>,
    /// The token of the text whose activations are taken apart, counted from 0 [default: the last]
    #[arg(long)]
    pub at: Option<usize>,
    /// Show so many parts, the largest effects first
    #[arg(long, default_value = "20")]
    pub limit: NonZeroUsize,
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn a_text_may_begin_with_a_hyphen() {
        for line in [
            &["trace", "s", "--text", "- item"][..],
            &["trace", "s", "-t", "-- item"],
            &[
                "forward",
                "--text",
                "-1 degrees",
                "--layer",
                "1",
                "--out",
                "f",
            ],
            &["steer", "s", "3", "--prompt", "- item", "--prompt", "-b"],
            &["eval", "steering", "s", "-p", "- a", "--labels", "-ing,-ed"],
            &["eval", "reuse", "s", "--labels", "-ing", "--prompt", "- a"],
            &["notes", "s", "3", "- a list #tag"],
        ] {
            let parsed = Cli::try_parse_from([&["mlpeek"], line].concat());
            assert!(parsed.is_ok(), "{line:?}: {}", parsed.unwrap_err());
        }
        // What asks a judge has no effect without one.
        for option in [
            ["--concurrency", "2"],
            ["--timeout", "9"],
            ["--judge-max-tokens", "9"],
            ["--key-env", "KEY"],
        ] {
            assert!(
                Cli::try_parse_from([&["mlpeek", "eval", "steering", "s"][..], &option].concat())
                    .is_err(),
                "{option:?}"
            );
        }
    }
}
