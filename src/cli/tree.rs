//! Arguments of the commands on what features share: trees, fits compared, notes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ComputeArgs, values};
use crate::analysis::hierarchy::Linkage;
use crate::analysis::neurons::Overlap;
use crate::factor::recursive::Growth;

/// Arguments of `mlpeek tree`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 writes  --out: text, JSON, Newick (.nwk), SVG or CSV, as --format says\n\
    \n\
    Examples:\n\
    \x20 mlpeek tree study --cut 0.9\n\
    \x20 mlpeek tree study --format svg --out tree.svg\n\
    \x20 mlpeek tree study --matrix --format csv --out shared.csv\n\
    \x20 mlpeek tree study --recursive --levels 50,25 --joint\n\
    \x20 mlpeek tree study --recursive --max-children 4 --child-share 0.15")]
pub struct TreeArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// How two features are compared
    #[arg(long, value_enum, default_value_t = OverlapArg::WeightedJaccard, conflicts_with = "recursive")]
    pub overlap: OverlapArg,
    /// How clusters are compared
    #[arg(long, value_enum, default_value_t = LinkageArg::Average, conflicts_with = "recursive")]
    pub linkage: LinkageArg,
    /// Cut at this height: the clusters below it, a line each
    #[arg(long, conflicts_with = "recursive", value_parser = values::height)]
    pub cut: Option<f32>,
    /// Levels of semi-NMF on the features instead: what coarser features are made of
    #[arg(long)]
    pub recursive: bool,
    /// Features of each level, separated by commas [default: half of those below, three times]
    #[arg(long, value_delimiter = ',', requires = "recursive", value_parser = values::at_least_one)]
    pub levels: Vec<usize>,
    /// The share of neurons of a level's features: growing as there are fewer, or fixed as in the
    /// paper
    #[arg(long, value_enum, default_value_t = GrowthArg::Growing, requires = "recursive")]
    pub growth: GrowthArg,
    /// At most so many children of a coarser feature [default: 3]
    #[arg(long, value_name = "N", requires = "recursive", value_parser = values::at_least_one)]
    pub max_children: Option<usize>,
    /// The share of its largest coefficient that a child's has at least; the paper's concept trees
    /// have 0.15, and 4 children [default: 0.3]
    #[arg(long, value_name = "SHARE", requires = "recursive", value_parser = values::share)]
    pub child_share: Option<f64>,
    /// The whole matrix of shared neurons instead of a tree, features in the order of its leaves: a
    /// line a feature, --format csv or svg
    #[arg(long, conflicts_with_all = ["recursive", "cut"])]
    pub matrix: bool,
    /// Tune all levels together to leave less of the activations (Adam)
    #[arg(long, requires = "recursive")]
    pub joint: bool,
    /// The study's model for the tokens that levels promote, where it lies now [default: where the
    /// study says]
    #[arg(long, short, requires = "recursive")]
    pub model: Option<String>,
    /// Where the model computes, and in what
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// How the tree is written [default: text]
    #[arg(long, value_enum)]
    pub format: Option<TreeFormat>,
    /// The file to write [default: standard output]
    #[arg(long, short)]
    pub out: Option<PathBuf>,
}

/// What `--format` takes: how a tree is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TreeFormat {
    /// Indented lines
    Text,
    /// One object, as --json
    Json,
    /// The Newick format of phylogenetic trees
    Newick,
    /// A picture
    Svg,
    /// A table for a spreadsheet, of --matrix
    Csv,
}

/// What `--overlap` takes: how two features are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverlapArg {
    /// Σ min |z| / Σ max |z| over neurons of the same sign
    WeightedJaccard,
    /// Shared neurons of all, whatever the signs
    Jaccard,
    /// Cosine of the columns
    Cosine,
}

impl From<OverlapArg> for Overlap {
    fn from(overlap: OverlapArg) -> Self {
        match overlap {
            OverlapArg::WeightedJaccard => Self::WeightedJaccard,
            OverlapArg::Jaccard => Self::Jaccard,
            OverlapArg::Cosine => Self::Cosine,
        }
    }
}

/// What `--linkage` takes: how two clusters are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LinkageArg {
    /// The mean over all pairs
    Average,
    /// The largest distance
    Complete,
    /// The smallest distance
    Single,
}

impl From<LinkageArg> for Linkage {
    fn from(linkage: LinkageArg) -> Self {
        match linkage {
            LinkageArg::Average => Self::Average,
            LinkageArg::Complete => Self::Complete,
            LinkageArg::Single => Self::Single,
        }
    }
}

/// What `--growth` takes: how the share of neurons of a feature changes from level to level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GrowthArg {
    /// min(1, p·k₁/k)
    Growing,
    /// p, as in the paper
    Fixed,
}

impl From<GrowthArg> for Growth {
    fn from(growth: GrowthArg) -> Self {
        match growth {
            GrowthArg::Growing => Self::Growing,
            GrowthArg::Fixed => Self::Fixed,
        }
    }
}

/// Arguments of `mlpeek compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek compare study k100 k200\n\
    \x20 mlpeek compare study k100 k100 --other another-study")]
pub struct CompareArgs {
    /// The study's directory
    pub study: PathBuf,
    /// The first fit by name
    pub a: String,
    /// The second fit by name, which is matched with the first
    pub b: String,
    /// The study of the second fit, when it is another one
    #[arg(long)]
    pub other: Option<PathBuf>,
}

/// Arguments of `mlpeek notes`.
#[derive(Debug, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 reads   --import: a file that --export wrote\n\
    \x20 writes  --export: JSON; notes of the study: STUDY/notes.json\n\
    \n\
    Examples:\n\
    \x20 mlpeek notes study\n\
    \x20 mlpeek notes study 29 \"months #time *4 -- years too\"\n\
    \x20 mlpeek notes study --fit k100 --export notes.json")]
pub struct NotesArgs {
    /// The study's directory
    pub study: PathBuf,
    /// A feature to note something about
    #[arg(requires = "text")]
    pub id: Option<usize>,
    /// The note: "a name #tag #tag *4 -- a text"; an empty one takes it away
    #[arg(requires = "id", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// The fit [default: the newest]
    #[arg(long)]
    pub fit: Option<String>,
    /// Write the fit's notes to a JSON file
    #[arg(long, conflicts_with_all = ["import", "id"])]
    pub export: Option<PathBuf>,
    /// Take notes from such a file; features that it names are noted anew, others stay
    #[arg(long, conflicts_with = "id")]
    pub import: Option<PathBuf>,
}
