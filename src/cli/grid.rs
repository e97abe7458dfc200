//! Arguments of `mlpeek quality` and `mlpeek sweep`: the settings whose combinations are fitted, and
//! the rows that are held out.

use std::path::PathBuf;

use clap::Args;

use super::values::{at_least_one, held_out, not_negative, threads};
use super::{InitArg, SolverArg, SparsityArg};
use crate::eval::sweep::{FEATURES, SEEDS};
use crate::factor::{FitConfig, PreprocessingChoice, Solver};
use crate::model::HookSite;

/// Which settings are tried, on which rows, and what is held out.
#[derive(Debug, Clone, Args)]
pub struct GridArgs {
    /// The study's directory
    pub study: PathBuf,
    /// Fits whose settings are judged, separated by commas [default: the newest, else the defaults
    /// of `mlpeek fit`]
    #[arg(long, value_delimiter = ',')]
    pub fit: Vec<String>,
    /// The layer, when the study has several and no fit names one; several, separated by commas, are
    /// judged in turn and told against each other
    #[arg(long, short, value_delimiter = ',')]
    pub layer: Vec<usize>,
    /// Write the plot of AUROC against layer here, as SVG, with several layers
    #[arg(long)]
    pub svg: Option<PathBuf>,
    /// The hook, when the study has several and no fit names one
    #[arg(long)]
    pub hook: Option<HookSite>,
    /// Shares of neurons that a feature may use, or auto, separated by commas [default: the fit's]
    #[arg(long, value_delimiter = ',', value_name = "P|auto")]
    pub sparsity: Vec<SparsityArg>,
    /// λ of the ℓ1 penalty in units of the median row norm, several separated by commas [default:
    /// the fit's]
    #[arg(long, value_delimiter = ',', value_parser = not_negative)]
    pub l1: Vec<f64>,
    /// Caps on the features at a token, separated by commas; 0 is none [default: the fit's]
    #[arg(long, value_delimiter = ',', value_name = "N")]
    pub row_cap: Vec<usize>,
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
    /// Update rules, separated by commas [default: the fit's]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub solver: Vec<SolverArg>,
    /// The start [default: the fit's]
    #[arg(long, value_enum)]
    pub init: Option<InitArg>,
    /// Most sweeps [default: the fit's]
    #[arg(long, value_parser = at_least_one)]
    pub max_sweeps: Option<usize>,
    /// Fits of each, with seeds counting up from the fit's
    #[arg(long, default_value_t = SEEDS, value_parser = at_least_one)]
    pub seeds: usize,
    /// Share of every label's sentences that is held out, at least 2 of a label
    #[arg(long, default_value_t = 0.2, value_parser = held_out)]
    pub holdout: f64,
    /// Seed that chooses the sentences held out
    #[arg(long, default_value_t = 0)]
    pub holdout_seed: u64,
    /// Threads [default: all]
    #[arg(long, value_parser = threads)]
    pub threads: Option<usize>,
}

impl GridArgs {
    /// Every combination of what was given with the rest taken from each of `bases`; k varies
    /// fastest.
    pub fn configs(&self, bases: &[FitConfig], features: &[usize]) -> Vec<FitConfig> {
        let mut out: Vec<FitConfig> = Vec::new();
        let Self {
            scale_rows,
            scale_neurons,
            centre,
            ..
        } = *self;
        let asked = PreprocessingChoice {
            scale_rows,
            scale_neurons,
            centre,
        };
        for base in bases {
            let solvers: Vec<Solver> = match self.solver.is_empty() {
                true => vec![base.solver],
                false => self.solver.iter().map(|&s| s.into()).collect(),
            };
            let sparsities: Vec<_> = match self.sparsity.is_empty() {
                true => vec![base.sparsity],
                false => self.sparsity.iter().map(|s| s.0).collect(),
            };
            let l1s = given_or(&self.l1, base.l1);
            let caps: Vec<_> = match self.row_cap.is_empty() {
                true => vec![base.row_cap],
                false => self
                    .row_cap
                    .iter()
                    .map(|&cap| Some(cap).filter(|&c| c > 0))
                    .collect(),
            };
            let features = given_or(features, base.features);
            for solver in solvers {
                let base = FitConfig {
                    solver,
                    init: self.init.map_or(base.init, Into::into),
                    max_sweeps: self.max_sweeps.or(base.max_sweeps),
                    threads: self.threads.or(base.threads),
                    ..base.clone()
                };
                for config in crate::eval::sweep::grid(&base, &features, &sparsities, &l1s, &caps) {
                    let config = config.with_preprocessing(&base, asked);
                    if !out.contains(&config) {
                        out.push(config);
                    }
                }
            }
        }
        out
    }
}

fn given_or<T: Copy>(given: &[T], fallback: T) -> Vec<T> {
    if given.is_empty() {
        vec![fallback]
    } else {
        given.to_vec()
    }
}

/// Arguments of `mlpeek quality`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek quality study\n\
    \x20 mlpeek quality study --layer 26 -k 100,400 --solver bcd,mu --max-sweeps 300")]
pub struct QualityArgs {
    /// Settings of the fits, rows held out
    #[command(flatten)]
    pub grid: GridArgs,
    /// Numbers of features, separated by commas [default: the fit's]
    #[arg(long, short = 'k', value_delimiter = ',', value_parser = at_least_one)]
    pub features: Vec<usize>,
    /// Judge every objective at each k and sparsity: no penalty, a penalty, a row cap, scaled rows,
    /// scaled neurons, a centre, the paper's updates
    #[arg(long)]
    pub every_objective: bool,
    /// Leave out k-means, random directions, single neurons, DiffMean and shuffled labels
    #[arg(long)]
    pub no_controls: bool,
    /// Print every label; --json always does
    #[arg(long, conflicts_with = "json")]
    pub labels: bool,
}

/// Arguments of `mlpeek sweep`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
    Examples:\n\
    \x20 mlpeek sweep study\n\
    \x20 mlpeek sweep study -k 50,100,200 --l1 0,0.1 --seeds 5\n\
    \x20 mlpeek sweep study -k 100 --layer 0,6,12 --svg layers.svg")]
pub struct SweepArgs {
    /// Settings of the fits, rows held out
    #[command(flatten)]
    pub grid: GridArgs,
    /// Numbers of features, separated by commas
    #[arg(long, short = 'k', value_delimiter = ',', default_values_t = FEATURES, value_parser = at_least_one)]
    pub features: Vec<usize>,
    /// Make a start for every number of features, instead of going on from the fit with fewer
    #[arg(long)]
    pub cold: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn lists_make_a_grid_over_each_fit() {
        let line = "mlpeek quality s -k 100,400 --l1 0,0.1 --solver bcd,mu --max-sweeps 300";
        let Some(Command::Quality(args)) = Cli::parse_from(line.split(' ')).command else {
            panic!("quality")
        };
        let fits = args.grid.configs(&[FitConfig::default()], &args.features);
        // Two k of mu, which has no penalty; four of bcd.
        assert_eq!(fits.len(), 6);
        assert!(
            fits.iter()
                .all(|f| f.max_sweeps == Some(300) && f.sparsity == FitConfig::default().sparsity)
        );
        assert_eq!(args.grid.configs(&[FitConfig::default()], &[]).len(), 3);
    }
}
