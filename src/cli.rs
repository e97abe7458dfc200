//! The command line as clap types, nothing else.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::model::HookSite;
use crate::text;

mod about;
mod complete;
mod describe;
mod eval;
mod export;
mod fit;
mod grid;
mod matrices;
mod model;
mod read;
mod sae;
mod steer;
mod tree;
mod values;

pub use about::*;
pub use complete::{answer_shell, script};
pub use describe::*;
pub use eval::*;
pub use export::*;
pub use fit::*;
pub use grid::*;
pub use matrices::*;
pub use model::*;
pub use read::*;
pub use sae::*;
pub use steer::*;
pub use tree::*;

/// See what the MLP layers of a language model are made of.
#[derive(Debug, Parser)]
#[command(
    name = "mlpeek",
    version,
    about,
    args_conflicts_with_subcommands = true,
    max_term_width = 100,
    after_help = "\
    Examples:\n\
    \x20 mlpeek\n\
    \x20 mlpeek --model Qwen/Qwen2.5-0.5B --layer 12 --data my.jsonl --features 200\n\
    \x20 mlpeek path/to/study\n\
    \x20 mlpeek info path/to/study --json"
)]
pub struct Cli {
    /// The command; none opens the explorer.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What the explorer opens.
    #[command(flatten)]
    pub explore: ExploreArgs,
    /// One JSON object a line on standard output: `mlpeek guide json` lists the fields
    #[arg(long, global = true)]
    pub json: bool,
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// clap's, also for its help and version, which it counts as errors; and one of the same kind
    /// for `--json` where nothing would come of it.
    pub fn from_args(mut args: Vec<OsString>) -> Result<Self, clap::Error> {
        let conflict = |words: String| command().error(ErrorKind::ArgumentConflict, words);
        if asks_help_for_json(&args) {
            return Err(conflict("the help is no JSON: leave --json out".to_owned()));
        }
        behind_the_command(&mut args);
        let mut matches = match command().try_get_matches_from(&args) {
            Ok(matches) => matches,
            Err(error) => return Err(before_the_command(&args).map_or(error, conflict)),
        };
        let cli = Self::from_arg_matches_mut(&mut matches)
            .map_err(|error| error.format(&mut command()))?;
        let refused = match &cli.command {
            Some(command) if cli.json && !command.has_json() => {
                "this command prints no JSON: leave --json out"
            }
            None if cli.json => {
                "--json belongs to a command, and this line has none: mlpeek --help lists them"
            }
            None => match mistyped(&cli.explore) {
                Some(words) => return Err(command().error(ErrorKind::InvalidSubcommand, words)),
                None => return Ok(cli),
            },
            _ => return Ok(cli),
        };
        Err(conflict(refused.to_owned()))
    }
}

/// Whether the line is `help` with a `--json` before or behind it.
fn asks_help_for_json(args: &[OsString]) -> bool {
    let mut words = args.iter().skip(1).filter(|word| *word != "--json");
    words.next().is_some_and(|word| word == "help") && args.iter().any(|word| word == "--json")
}

/// What is wrong with a line on which the explorer's options, or its study, stand before a command.
fn before_the_command(args: &[OsString]) -> Option<String> {
    let root = command();
    let mut words = args.iter().skip(1).map(|word| word.to_string_lossy());
    let mut before = None;
    while let Some(word) = words.next() {
        if let Some(command) = root.find_subcommand(word.as_ref()) {
            let command = command.get_name();
            return before.map(|word: String| match word.starts_with('-') {
                true => format!(
                    "{word} is an option of the explorer, which no command takes: leave it out before {command}"
                ),
                false => format!("the command comes first: mlpeek {command} {word}"),
            });
        }
        let (name, value) = match word.split_once('=') {
            Some((name, _)) => (name.to_owned(), true),
            None => (word.clone().into_owned(), false),
        };
        let option = root.get_arguments().find(|arg| {
            let long = arg.get_long().map(|long| format!("--{long}"));
            let short = arg.get_short().map(|short| format!("-{short}"));
            long.as_ref() == Some(&name) || short.as_ref() == Some(&name)
        });
        match option {
            Some(option) if option.get_action().takes_values() && !value => _ = words.next(),
            Some(_) => {}
            None if word.starts_with('-') => return None,
            None => {}
        }
        if name != "--json" {
            before.get_or_insert(name);
        }
    }
    None
}

/// What is asked back where the study's path is not there and reads like a command: a new study
/// would be made of a slip of the finger.
fn mistyped(explore: &ExploreArgs) -> Option<String> {
    let path = explore.study.as_deref()?;
    let word = path.to_str()?;
    if word.contains(std::path::is_separator) || path.exists() {
        return None;
    }
    let root = command();
    let near = root
        .get_subcommands()
        .map(|command| {
            let name = command.get_name();
            (text::edit_distance(word, name), name)
        })
        .min()?;
    // Two letters that changed places are two edits, in a word of any length.
    let letters = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        letters
    };
    let (distance, name) = near;
    let is_near = 3 * distance <= word.chars().count().max(name.len())
        || (distance == 2 && letters(word) == letters(name));
    is_near.then(|| {
        format!(
            "there is no command and no study '{word}': did you mean '{name}'? A new study of that name: mlpeek ./{word}"
        )
    })
}

/// The command line as clap sees it. A command without JSON has a `--json` of its own, which its
/// help does not list: it takes the place of the global one and is refused with words.
pub fn command() -> clap::Command {
    let root = Cli::command();
    let names: Vec<String> = root
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let without_json = names.iter().zip(Command::HAS_JSON).filter(|(_, has)| !*has);
    without_json.fold(root, |root, (name, _)| {
        root.mut_subcommand(name, |command| {
            let json = Arg::new("json").long("json");
            command.arg(json.action(ArgAction::SetTrue).hide(true))
        })
    })
}

/// Moves `--json` from before or among the words of a command to behind them, where clap holds it
/// against the command's own options; what else stands before a command is the explorer's.
fn behind_the_command(args: &mut [OsString]) {
    let root = command();
    let (mut command, mut at, mut given) = (&root, 1, 0);
    while let Some(word) = args.get(at) {
        if word == "--json" {
            given += 1;
        } else if let Some(next) = command.find_subcommand(word) {
            command = next;
        } else {
            break;
        }
        at += 1;
    }
    if given > 0 {
        // The sort is stable: the words of the command keep their order.
        args[1..at].sort_by_key(|word| word == "--json");
    }
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
    /// Where the model computes, and in what
    #[command(flatten)]
    pub compute: ComputeArgs,
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

/// The table of commands, a row each: what it does, `Name(Arguments) => module::function, json;`.
///
/// The name in kebab case is what is typed, the function in [`crate::headless`] runs it, and the
/// last word says whether it has JSON lines (`json`) or refuses `--json` (`text`). The macro hands
/// the rows to another one, which makes of them what it needs: here the enum that clap reads, in
/// `headless` the call. How a command is added: `src/guide/contributing.md`.
macro_rules! commands {
    ($then:ident) => {
        $then! {
            /// Fill a study's activation cache; run again to resume
            Collect(CollectArgs) => collect::run, json;
            /// Decompose a study's activations into features
            Fit(FitArgs) => fit::run, json;
            /// List a fit's features, or other directions
            Features(ListArgs) => features::list, json;
            /// Show one feature or another direction whole
            Feature(FeatureArgs) => features::one, json;
            /// Show which features fire on new text
            Trace(TraceArgs) => trace::run, json;
            /// Show which features make the next token what it is, by taking each away
            Why(WhyArgs) => why::run, json;
            /// Show the dendrogram of shared neurons, or levels of features of features
            Tree(TreeArgs) => tree::run, json;
            /// Match the features of two fits: what is the same, what was lost, what appeared
            Compare(CompareArgs) => compare::run, json;
            /// List, write or take names, tags and notes of features
            Notes(NotesArgs) => notes::run, json;
            /// Continue a prompt with and without a feature turned up or down
            Steer(SteerArgs) => steer::run, json;
            /// Measure what each direction of a set does, and what makes labels' sentences likelier
            Effects(EffectsArgs) => effects::run, json;
            /// Write raw activations and logits of a text as safetensors
            Forward(ForwardArgs) => forward::run, json;
            /// Judge fits beside controls on held-out sentences
            Quality(QualityArgs) => quality::run, json;
            /// Try numbers of features, sparsities and penalties
            Sweep(SweepArgs) => sweep::run, json;
            /// Let a language model behind an endpoint describe features, and score what it says
            Describe(DescribeArgs) => describe::run, json;
            /// Sparse autoencoders: load published ones, train one, compare them with fits
            #[command(subcommand)]
            Sae(SaeCommand) => sae::run, json;
            /// Evaluate directions: what they detect, what they cause, what they share
            #[command(subcommand)]
            Eval(EvalCommand) => eval::run, json;
            /// Make a study of a matrix from elsewhere (.npy, .safetensors)
            Import(ImportArgs) => matrices::import, json;
            /// Write a fit, other directions or what they express for use elsewhere
            Export(ExportArgs) => export::run, json;
            /// Say what a study is made of, how far it is collected, and how its fits stand
            Info(InfoArgs) => info::study, json;
            /// List the models on this machine
            Models(ModelsArgs) => info::models, json;
            /// Say what this machine, this terminal and a model can do
            Doctor(DoctorArgs) => doctor::run, json;
            /// Print the explorer's keys
            Keys(KeysArgs) => info::keys, json;
            /// Show a page of the guide, or list the pages
            Guide(GuideArgs) => guide::run, text;
            /// Print completions for a shell
            Completions(CompletionsArgs) => info::completions, text;
            /// Print the manual page of a command
            Man(ManArgs) => man::run, text;
        }
    };
}
pub(crate) use commands;

/// Makes the enum that clap reads.
macro_rules! command_enum {
    ($($(#[$about:meta])* $name:ident($args:ty) => $module:ident::$function:ident, $json:ident;)*) => {
        /// A command: a pane's twin.
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $($(#[$about])* $name($args),)*
        }

        impl Command {
            /// Which rows have JSON, in their order.
            const HAS_JSON: &[bool] = &[$(command_enum!(@ $json)),*];

            /// Whether it writes JSON lines where `--json` asks for them.
            pub fn has_json(&self) -> bool {
                match self {
                    $(Self::$name(_) => command_enum!(@ $json),)*
                }
            }
        }
    };
    (@ json) => { true };
    (@ text) => { false };
}
commands!(command_enum);

#[cfg(test)]
mod tests;
