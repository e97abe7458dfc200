//! Arguments of `mlpeek fit`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::model::DeviceParser;
use super::values::{at_least_one, not_negative, share, threads};
use crate::factor::{FitConfig, Init, PreprocessingChoice, Solver};
use crate::jobs::fitting::Refinement;
use crate::model::DeviceChoice;
use crate::model::HookSite;

/// Arguments of `mlpeek fit`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
    Files:\n\
    \x20 writes  the fit into the study: STUDY/fits/NAME (mlpeek guide files)\n\
    \n\
    Examples:\n\
    \x20 mlpeek fit study --features 100\n\
    \x20 mlpeek fit study --features 100 --layer 0,6,12\n\
    \x20 mlpeek fit study --from k100 --add 20 --lock 3,14\n\
    \x20 mlpeek fit study --features 400 --l1 0 --centre --name plain")]
pub struct FitArgs {
    /// The study's directory
    pub study: PathBuf,
    /// Number of features [default: 100]
    #[arg(long, short = 'k', conflicts_with = "from", value_parser = at_least_one)]
    pub features: Option<usize>,
    /// The layer, when the study has several; several, separated by commas, are fitted in turn, those
    /// that are fitted already left as they are
    #[arg(long, short, value_delimiter = ',')]
    pub layer: Vec<usize>,
    /// Write the plot of the relative error against layer here, as SVG, with several layers
    #[arg(long)]
    pub svg: Option<PathBuf>,
    /// The hook, when the study has several
    #[arg(long)]
    pub hook: Option<HookSite>,
    /// What is minimised, and by which updates
    #[command(flatten)]
    pub objective: ObjectiveArgs,
    /// The start [default: kmeans]
    #[arg(long, value_enum, conflicts_with = "from")]
    pub init: Option<InitArg>,
    /// Seed of every random choice [default: 42]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Most sweeps [default: the solver's own]
    #[arg(long, value_parser = at_least_one)]
    pub max_sweeps: Option<usize>,
    /// Sweeps without improvement before stopping
    #[arg(long, value_parser = at_least_one)]
    pub patience: Option<usize>,
    /// Name of the fit [default: k and the number of features, with what sets it apart from a fit
    /// that is there]
    #[arg(long)]
    pub name: Option<String>,
    /// Threads [default: all]
    #[arg(long, value_parser = threads)]
    pub threads: Option<usize>,
    /// Where the sweeps run; auto is a GPU that can keep the activations, else the CPU
    #[arg(long, value_parser = DeviceParser, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// Go on from the fit's checkpoint, also where it ended by itself; a fit that was cut short
    /// goes on without it
    #[arg(long)]
    pub resume: bool,
    /// Start anew, even where a fit of that name was cut short or was made by other settings
    #[arg(long, conflicts_with = "resume")]
    pub fresh: bool,
    /// Go on from this fit's features and settings; rows that were collected since are folded in
    #[arg(long, value_name = "FIT", conflicts_with = "resume")]
    pub from: Option<String>,
    /// Add so many features, where rows are explained worst
    #[arg(long, value_name = "N", requires = "from", value_parser = at_least_one)]
    pub add: Option<usize>,
    /// Merge so many features away, those most alike
    #[arg(long, value_name = "N", requires = "from", conflicts_with = "add", value_parser = at_least_one)]
    pub merge: Option<usize>,
    /// Features of the earlier fit that stay as they are, separated by commas
    #[arg(long, value_name = "IDS", requires = "from", value_delimiter = ',')]
    pub lock: Vec<usize>,
    /// A first look at a large cache: sweeps over batches of so many rows, then one pass over all
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "resume"], value_parser = at_least_one)]
    pub batch_rows: Option<usize>,
}

/// What is minimised, and how; what is not given is as the defaults, or as the fit that it goes on
/// from, have it.
#[derive(Debug, Clone, Args)]
pub struct ObjectiveArgs {
    /// The update rule [default: bcd]
    #[arg(long, value_enum)]
    pub solver: Option<SolverArg>,
    /// λ of the ℓ1 penalty on coefficients, in units of the median row norm; 0 minimises the error
    /// alone [default: 0.1]
    #[arg(long, value_parser = not_negative)]
    pub l1: Option<f64>,
    /// Share of neurons that a feature may use; auto: 5 % of fewer than 4,096, from there on 1 %
    /// [default: auto]
    #[arg(long, value_name = "P|auto")]
    pub sparsity: Option<SparsityArg>,
    /// At most so many features at a token; 0 is no cap [default: 0]
    #[arg(long, value_name = "N")]
    pub row_cap: Option<usize>,
    /// Let every token count the same, whatever the norm of its activations
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub scale_rows: Option<bool>,
    /// Let every neuron count the same, whatever its size: each is scaled to unit root mean square
    /// while fitting
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub scale_neurons: Option<bool>,
    /// Take the mean activation away first, so that features say how a token differs from it: A ≈
    /// mean + YZᵀ
    #[arg(long, alias = "center", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub centre: Option<bool>,
}

impl ObjectiveArgs {
    fn prepared(&self) -> PreprocessingChoice {
        let Self {
            scale_rows,
            scale_neurons,
            centre,
            ..
        } = *self;
        PreprocessingChoice {
            scale_rows,
            scale_neurons,
            centre,
        }
    }
}

impl FitArgs {
    /// The configuration that these arguments ask for, the rest taken from `base`.
    pub fn config(&self, base: FitConfig) -> FitConfig {
        let objective = &self.objective;
        let solver = objective.solver.map_or(base.solver, Into::into);
        FitConfig {
            features: self.features.unwrap_or(base.features),
            solver,
            sparsity: objective.sparsity.map_or(base.sparsity, |s| s.0),
            // The paper's updates know no penalty.
            l1: if solver == Solver::Mu {
                0.0
            } else {
                objective.l1.unwrap_or(base.l1)
            },
            row_cap: objective
                .row_cap
                .map_or(base.row_cap, |cap| Some(cap).filter(|&cap| cap > 0)),
            init: self.init.map_or(base.init, Into::into),
            seed: self.seed.unwrap_or(base.seed),
            max_sweeps: self.max_sweeps,
            patience: self.patience,
            threads: self.threads,
            ..base.clone()
        }
        .with_preprocessing(&base, objective.prepared())
    }

    /// How it goes on from an earlier fit, where it does.
    pub fn refinement(&self) -> Option<Refinement> {
        let fit = Some(self.from.clone()?);
        Some(Refinement {
            fit,
            add: self.add.unwrap_or(0),
            merge: self.merge.unwrap_or(0),
            lock: self.lock.clone(),
        })
    }
}

/// What `--sparsity` takes: a share of the neurons, or `auto`, which is `None` and leaves the share
/// to the number of neurons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SparsityArg(pub Option<f64>);

impl FromStr for SparsityArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = || share(text).map_err(|problem| problem + ", or auto");
        Ok(Self(if text == "auto" {
            None
        } else {
            Some(number()?)
        }))
    }
}

/// What `--solver` takes: how the factors are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SolverArg {
    /// ℓ0-constrained block coordinate descent
    Bcd,
    /// The paper's multiplicative updates
    Mu,
}

/// What `--init` takes: where a fit begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InitArg {
    /// Coefficients drawn at random
    Random,
    /// Clusters of k-means, a feature each
    Kmeans,
    /// The positive part of a truncated SVD
    Svd,
}

impl From<SolverArg> for Solver {
    fn from(solver: SolverArg) -> Self {
        match solver {
            SolverArg::Bcd => Self::Bcd,
            SolverArg::Mu => Self::Mu,
        }
    }
}

impl From<InitArg> for Init {
    fn from(init: InitArg) -> Self {
        match init {
            InitArg::Random => Self::Random,
            InitArg::Kmeans => Self::Kmeans,
            InitArg::Svd => Self::Svd,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn parse(line: &str) -> Result<FitArgs, clap::Error> {
        match Cli::try_parse_from(line.split(' '))?.command {
            Some(Command::Fit(args)) => Ok(args),
            _ => panic!("not a fit: {line}"),
        }
    }

    #[test]
    fn options_that_are_not_given_keep_the_value_of_the_base_fit() {
        let base = FitConfig {
            l1: 0.3,
            row_cap: Some(4),
            centre: true,
            ..FitConfig::default()
        };
        let args =
            parse("mlpeek fit s --from a --add 5 --lock 3,1 --row-cap 0 --sparsity 0.05").unwrap();
        let config = args.config(base.clone());
        assert_eq!(
            (config.l1, config.row_cap, config.centre, config.sparsity),
            (0.3, None, true, Some(0.05))
        );
        assert_eq!(
            args.refinement(),
            Some(Refinement {
                fit: Some("a".into()),
                add: 5,
                merge: 0,
                lock: vec![3, 1]
            })
        );
        let named = FitConfig {
            sparsity: Some(0.01),
            ..base.clone()
        };
        assert_eq!(
            parse("mlpeek fit s --sparsity auto")
                .unwrap()
                .config(named.clone())
                .sparsity,
            None
        );
        assert_eq!(
            parse("mlpeek fit s").unwrap().config(named).sparsity,
            Some(0.01)
        );
        assert!(parse("mlpeek fit s --sparsity much").is_err());
        assert_eq!(
            parse("mlpeek fit s --solver mu").unwrap().config(base).l1,
            0.0
        );
        let config = |line: &str| parse(line).unwrap().config(FitConfig::default());
        assert_eq!(config("mlpeek fit s --l1 0"), FitConfig::plain());
        let asked = config("mlpeek fit s --l1 0 --centre --scale-rows=false");
        assert_eq!((asked.centre, asked.scale_rows), (true, false));
        assert!(
            config("mlpeek fit s --centre").centre && !config("mlpeek fit s --scale-rows").centre
        );
        assert_eq!(
            parse("mlpeek fit s").unwrap().config(FitConfig::default()),
            FitConfig::default()
        );
    }

    #[test]
    fn options_that_change_a_fit_are_refused_without_one() {
        for line in [
            "--add 3",
            "--merge 2",
            "--lock 1",
            "--from a --add 1 --merge 1",
            "--from a -k 9",
            "--from a --resume",
        ] {
            assert!(parse(&format!("mlpeek fit s {line}")).is_err(), "{line}");
        }
    }
}
