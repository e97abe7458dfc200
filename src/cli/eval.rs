//! Arguments of `mlpeek eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{EndpointArgs, HookSelectionArgs, LayersArgs, SamplingArgs, StudyModelArgs, values};
use crate::directions::SetKind;
use crate::eval::steering::Protocol;
use crate::jobs::choice::Choose;
use crate::jobs::evaluation::Method;

/// The commands of `mlpeek eval`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek eval detection study\n\
    \x20 mlpeek eval steering study --samples 0")]
pub enum EvalCommand {
    /// Which directions tell a label's sentences from the others, on sentences that did not choose
    /// them
    Detection(DetectionArgs),
    /// Which directions make the model speak of a label when it is steered with them, at equal KL
    Steering(Box<SteeringArgs>),
    /// What a family of features promotes with its shared neurons, and with those of one member
    /// alone
    Reuse(ReuseArgs),
}

fn methods_help() -> String {
    let usual: Vec<String> = Method::usual().iter().map(ToString::to_string).collect();
    format!(
        "Methods, separated by commas: {}, and shuffled (features of the first fit named, chosen for labels dealt out \
         anew), prompt (of eval steering: the model asked in words, unsteered); fit:A+fit:B: several as one, each label's value their mean (fits that differ in their seed); the first \
         is compared with the others [default: {}, and the SAEs at the fit's hook]",
        SetKind::described(),
        usual.join(", ")
    )
}

/// Which methods are evaluated, and which sentences choose.
#[derive(Debug, Clone, Args)]
pub struct EvalArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The methods; the first is compared with the others.
    #[arg(long, value_delimiter = ',', help = methods_help())]
    pub methods: Vec<Method>,
    /// Which fit, layers and hook are read
    #[command(flatten)]
    pub place: LayersArgs,
    /// Whether the layer has told which fit a name stands for
    #[arg(skip)]
    pub named_by_layer: bool,
    /// Share of every label's sentences that is held out, at least 2 of a label [default: 0.5]
    #[arg(long, value_parser = values::held_out)]
    pub holdout: Option<f64>,
    /// Seed that chooses the sentences held out [default: 0]
    #[arg(long)]
    pub holdout_seed: Option<u64>,
    /// Judge families (weekday, of weekday/Monday and others) and hold out whole members of each,
    /// by --holdout and its seed: what is chosen on some is reported on others
    #[arg(long)]
    pub unseen: bool,
    /// Seed of shuffling, of the draws and of the bootstrap
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

/// Arguments of `mlpeek eval detection`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek eval detection study\n\
    \x20 mlpeek eval detection study --methods fit:k100,sae:topk400,diffmean --labels")]
pub struct DetectionArgs {
    /// Methods, held-out sentences and seeds
    #[command(flatten)]
    pub common: EvalArgs,
    /// Labels most like a label whose sentences are its hard negatives
    #[arg(long, default_value_t = 3)]
    pub rivals: usize,
    /// Print every label; --json always does
    #[arg(long, conflicts_with = "json")]
    pub labels: bool,
    /// Write the plot of AUROC against layer here, as SVG, with several layers
    #[arg(long)]
    pub svg: Option<PathBuf>,
}

/// What `--protocol` takes: KL targets, samples and tokens of an evaluation in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProtocolArg {
    /// KL 0.1, 0.25, 0.5 and 1; one text of 30 tokens for each prompt, KL and sign
    Short,
    /// The paper's: every feature by its own description, with its search of α, its prompt, S_CD and
    /// judge's questions; KL 0.025, 0.05, 0.1, 0.15, 0.25, 0.35 and 0.5; eight texts of 50 tokens for
    /// each KL and sign. With --concepts labels these numbers alone, the texts dealt out to the
    /// prompts
    Paper,
}

impl SteeringArgs {
    /// Whether every feature is judged by its own description.
    pub fn by_descriptions(&self) -> bool {
        let paper = self.protocol == Some(ProtocolArg::Paper);
        match self.concepts {
            None => paper,
            Some(concepts) => concepts == ConceptsArg::Descriptions,
        }
    }
}

impl From<ProtocolArg> for Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Short => Self::Short,
            ProtocolArg::Paper => Self::Paper,
        }
    }
}

/// What `--concepts` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConceptsArg {
    /// The corpus's labels
    Labels,
    /// Each feature's own description
    Descriptions,
}

/// What `--judge` takes: what rates a text without asking a language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OfflineArg {
    /// The share of a label's own words in the text
    Words,
    /// How near the text is to the label's sentences, by a sentence encoder
    Meaning,
}

/// Arguments of `mlpeek eval steering`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 writes  texts and ratings as they come into the study: STUDY/evaluations/NAME\n\
    \x20         --svg: the plot of score against KL\n\
    \n\
    Examples:\n\
    \x20 mlpeek eval steering study --dry-run\n\
    \x20 mlpeek eval steering study --protocol paper --judge meaning --dry-run\n\
    \x20 mlpeek eval steering study --labels months,colours --concepts labels --protocol paper\n\
    \x20 mlpeek eval steering study --judge meaning\n\
    \x20 mlpeek eval steering study --methods diffmean,textgrad-cut,mix,effect --samples 0\n\
    \x20 mlpeek eval steering study --methods mix,diffmean,probe,prompt --judge meaning\n\
    \x20 mlpeek eval steering study --layer 0,6,12 --samples 0 --kl 0.25\n\
    \x20 mlpeek eval steering study --concepts descriptions --judge meaning --sample 20\n\
    \x20 mlpeek eval steering study --endpoint http://127.0.0.1:8080/v1 --judge-model M")]
pub struct SteeringArgs {
    /// Methods, held-out sentences and seeds
    #[command(flatten)]
    pub common: EvalArgs,
    /// What directions are judged by: labels (each by the direction chosen for it) or descriptions
    /// (every feature by its own, which is the paper's evaluation: one prompt, α by bisection in [1,
    /// 2000], the other sign with −α, an explanation before each rating)
    /// [default: labels; descriptions with --protocol paper]
    #[arg(long, value_enum)]
    pub concepts: Option<ConceptsArg>,
    /// Features of each set, drawn at random by --seed, with --concepts descriptions [default: all]
    #[arg(long, value_parser = values::at_least_one)]
    pub sample: Option<usize>,
    /// Sentences of each kind that a description's S_CD is measured on, with --concepts
    /// descriptions; as many more make diffmean [default: 5, as in the paper]
    #[arg(long, value_parser = values::at_least_one)]
    pub sentences: Option<usize>,
    /// The candidate phrases by which features are described offline, one a line [default: a bundled
    /// list]
    #[arg(long, value_name = "FILE")]
    pub phrases: Option<PathBuf>,
    /// Labels, separated by commas [default: all with enough sentences]
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    pub labels: Vec<String>,
    /// By what a direction is chosen for a label: input (what excites it), output (the words that it
    /// promotes in the logit lens) or effect (the words that it raises when it steers, with its sign)
    #[arg(long, default_value_t = Choose::Input)]
    pub choose: Choose,
    /// A text on which directions are chosen or mixed by what they do, at a KL of 0.25; may be
    /// repeated, and is none that is reported on [default: two short beginnings]
    #[arg(long, allow_hyphen_values = true)]
    pub choose_prompt: Vec<String>,
    /// The paper's protocol in one word (by descriptions), or KL targets, samples and tokens; what is
    /// given beside it goes before it [default: short]
    #[arg(long, value_enum)]
    pub protocol: Option<ProtocolArg>,
    /// KL(base ‖ steered) at the prompts' last tokens, several separated by commas [default: the
    /// protocol's]
    #[arg(long, value_delimiter = ',', value_parser = values::kl)]
    pub kl: Vec<f64>,
    /// A text to continue; give at least two [default: four short beginnings]
    #[arg(long, short, allow_hyphen_values = true)]
    pub prompt: Vec<String>,
    /// Texts of each prompt, KL and sign; 0 writes none and tells only what becomes of the labels'
    /// own words [default: the protocol's]
    #[arg(long)]
    pub samples: Option<usize>,
    /// New tokens a text [default: the protocol's]
    #[arg(long, value_parser = values::at_least_one)]
    pub max_tokens: Option<usize>,
    /// How the next token is drawn
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Texts generated at a time; has no part in what they say [default: 64]
    #[arg(long, value_parser = values::at_least_one)]
    pub batch: Option<usize>,
    /// Who rates the texts where no language model is asked [default: words]
    #[arg(long = "judge", value_enum, conflicts_with = "endpoint")]
    pub offline: Option<OfflineArg>,
    /// The sentence encoder of --judge meaning: a directory, or a Hub id [default:
    /// all-MiniLM-L6-v2, from the Hub or a Python package]
    #[arg(long, value_name = "ENCODER")]
    pub encoder: Option<String>,
    /// A language model that rates the texts [default: --judge, which asks nobody]
    #[command(flatten)]
    pub judge: EndpointArgs,
    /// Only say how many texts there would be, and how many calls and tokens a judge would take; what
    /// chooses by effects is measured even so, and kept
    #[arg(long)]
    pub dry_run: bool,
    /// Name of the evaluation in the study; the same name goes on where it stopped, and with several
    /// layers each adds its own [default: made of what is asked]
    #[arg(long)]
    pub name: Option<String>,
    /// Write the plot of score against KL here, as SVG; with several layers that of the score against
    /// layer
    #[arg(long, conflicts_with = "dry_run")]
    pub svg: Option<PathBuf>,
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}

/// Arguments of `mlpeek eval reuse`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("family").required(true).args(["labels", "features", "node"])))]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek eval reuse study --labels weekday/\n\
    \x20 mlpeek eval reuse study --features 3=Monday,17=Tuesday --kl 0.5")]
pub struct ReuseArgs {
    /// The study's directory
    pub study: PathBuf,
    /// Labels of the family, separated by commas; one that ends in / stands for all below it
    /// (weekday/). A label's word is what follows its last /
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    pub labels: Vec<String>,
    /// Features of the family, separated by commas, with the words that they should promote:
    /// 3=Monday,17=Tuesday
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true)]
    pub features: Vec<String>,
    /// A node of `mlpeek tree`; each feature's word is its strongest token
    #[arg(long)]
    pub node: Option<usize>,
    /// KL(base ‖ steered) at the prompts' last tokens
    #[arg(long, default_value_t = 0.25, value_parser = values::kl)]
    pub kl: f64,
    /// A text whose next token is looked at; may be repeated [default: I think that]
    #[arg(long, short, allow_hyphen_values = true)]
    pub prompt: Vec<String>,
    /// Which fit, layer and hook are read
    #[command(flatten)]
    pub place: HookSelectionArgs,
    /// Where the study's model lies
    #[command(flatten)]
    pub model: StudyModelArgs,
}
