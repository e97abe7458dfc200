//! Choosing k, p and λ: a fit of each with several seeds, measured on rows that it has not seen. As
//! k grows, each fit starts from the one before it with the same seed.

use serde::{Deserialize, Serialize};

use super::bench::{Bench, Candidate};
use super::quality::{Division, division, fit_name, for_width, judged, seeds};
use super::report::{MethodKind, MethodReport};
use super::split::Holdout;
use crate::activations::ActivationSource;
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::factor::{FitConfig, Solver};
use crate::task::{Progress, TaskCtx};

/// Numbers of features that are tried where none are named.
pub const FEATURES: [usize; 5] = [25, 50, 100, 200, 400];
/// Fits of each number of features, where nothing else is asked for.
pub const SEEDS: usize = 3;
/// Sweeps that a fit is expected to take until one has ended.
const EXPECTED: u64 = 100;

/// The configuration of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepConfig {
    /// The fits: see [`grid`].
    pub fits: Vec<FitConfig>,
    /// Fits of each, with seeds counting up from its own.
    pub seeds: usize,
    /// What is held out.
    pub holdout: Holdout,
    /// Whether every fit makes its own start, instead of starting from the one with fewer features.
    pub cold: bool,
}

/// One point of the curve: means over seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepRow {
    /// k, the number of features.
    pub features: usize,
    /// p, the share of neurons that a feature may use.
    pub sparsity: f64,
    /// λ, the ℓ₁ penalty on coefficients.
    pub l1: f64,
    /// The most features at a token.
    pub row_cap: Option<usize>,
    /// Whether it started from the fits with fewer features before it.
    pub warm: bool,
    /// ‖A − YZᵀ‖²/‖A‖² of the fit on its training rows.
    pub relative_error: Option<f64>,
    /// The same on held-out rows with the best coefficients for fixed features.
    pub held_out_error: Option<f64>,
    /// Features above 5 % of their own maximum at a token.
    pub active: Option<f64>,
    /// Number of features that no training token uses.
    pub dead: Option<f64>,
    /// Features with |cos| above 0.9 to an earlier one.
    pub duplicates: f64,
    /// Mean |cos| of features matched over seeds.
    pub stability: Option<f64>,
    /// Share of features found again over seeds (|cos| of 0.7 or more).
    pub found_again: Option<f64>,
    /// Held-out concept detection, where the corpus has labels.
    pub auroc: Option<f64>,
    /// Its standard error over labels.
    pub auroc_error: Option<f64>,
    /// Sweeps of the fit.
    pub sweeps: Option<f64>,
    /// Seconds of a fit.
    pub seconds: f64,
}

impl SweepRow {
    fn new(config: &FitConfig, width: usize, warm: bool, report: &MethodReport) -> Self {
        Self {
            features: config.features,
            sparsity: config.sparsity_at(width),
            l1: config.l1,
            row_cap: config.row_cap,
            warm,
            relative_error: report.relative_error,
            held_out_error: report.held_out_error,
            active: report.active,
            dead: report.dead,
            duplicates: report.duplicates,
            stability: report.stability.map(|s| s.mean),
            found_again: report.stability.map(|s| s.found_again),
            auroc: report.detection.as_ref().map(|d| d.auroc),
            auroc_error: report.detection.as_ref().map(|d| d.standard_error),
            sweeps: report.sweeps,
            seconds: report.seconds,
        }
    }
}

/// Every combination, k varying fastest so that the curve over k is what comes first. The
/// multiplicative rule knows no penalty and no cap: it takes part once a (k, p).
pub fn grid(
    base: &FitConfig,
    features: &[usize],
    sparsities: &[Option<f64>],
    l1s: &[f64],
    row_caps: &[Option<usize>],
) -> Vec<FitConfig> {
    let mut out: Vec<FitConfig> = Vec::new();
    let objectives = row_caps
        .iter()
        .flat_map(|&cap| l1s.iter().map(move |&l1| (cap, l1)));
    for (row_cap, l1) in objectives {
        for &sparsity in sparsities {
            for &features in features {
                let (row_cap, l1) = if base.solver == Solver::Mu {
                    (None, 0.0)
                } else {
                    (row_cap, l1)
                };
                let config = FitConfig {
                    features,
                    sparsity,
                    l1,
                    row_cap,
                    ..base.clone()
                };
                if !out.contains(&config) {
                    out.push(config);
                }
            }
        }
    }
    out
}

/// Fits and measures every configuration; hands each row to `on_row` as soon as it is there.
///
/// # Errors
/// [`Error::Usage`] without a fit or a seed, what [`Bench::new`] and the fits return,
/// [`Error::Cancelled`].
pub fn sweep(
    source: &dyn ActivationSource,
    tokens: &TokenTable,
    config: &SweepConfig,
    ctx: &TaskCtx,
    on_row: &mut dyn FnMut(&SweepRow) -> Result<()>,
) -> Result<(Division, Vec<SweepRow>)> {
    if config.fits.is_empty() || config.seeds == 0 {
        return Err(Error::usage(
            "nothing to sweep: give at least one number of features and one seed",
        ));
    }
    let bench = Bench::new(source, tokens, &config.holdout, ctx)?;
    let width = source.shape().1;
    let mut rows = Vec::new();
    let mut before: Option<(&FitConfig, Vec<Candidate>)> = None;
    let fits = for_width(&config.fits, width);
    bench.check(&fits)?;
    let mut progress = SweepProgress::new(&fits, config.seeds, ctx);
    for fit in &fits {
        let earlier = before
            .take()
            .filter(|(smaller, _)| !config.cold && grows(smaller, fit))
            .map(|(_, fits)| fits);
        let candidates = seeds(fit.seed, config.seeds)
            .enumerate()
            .map(|(i, seed)| {
                let earlier = earlier.as_ref().and_then(|fits| fits[i].factors.as_deref());
                let made = bench.fit(
                    &FitConfig {
                        seed,
                        ..fit.clone()
                    },
                    earlier,
                    &progress.inside(fit),
                )?;
                progress.ended(fit, &made)?;
                Ok(made)
            })
            .collect::<Result<Vec<_>>>()?;
        let report = judged(
            &bench,
            tokens,
            fit_name(fit),
            MethodKind::Fit,
            None,
            Some(fit),
            &candidates,
            &ctx.without_progress(),
        )?;
        let row = SweepRow::new(fit, width, earlier.is_some(), &report);
        on_row(&row)?;
        rows.push(row);
        before = Some((fit, candidates));
    }
    Ok((division(&bench), rows))
}

/// The progress of a sweep, in features that were fitted: a fit of twice as many takes about twice
/// as long. It is one stage, so that the time left is that of the whole sweep.
struct SweepProgress<'a> {
    ctx: &'a TaskCtx,
    done: u64,
    total: u64,
    /// Sweeps of the fit before.
    expected: u64,
}

impl<'a> SweepProgress<'a> {
    fn new(fits: &[FitConfig], seeds: usize, ctx: &'a TaskCtx) -> Self {
        let total = fits.iter().map(|fit| fit.features as u64).sum::<u64>() * seeds as u64;
        Self {
            ctx,
            done: 0,
            total,
            expected: EXPECTED,
        }
    }

    fn progress(done: u64, total: u64) -> Progress {
        Progress::new("sweeping over k", done, total, "features")
    }

    /// The context of one fit, whose sweeps advance the progress of the whole. The last tenth is left
    /// for the fit's end, which is not known in advance.
    fn inside(&self, fit: &FitConfig) -> TaskCtx {
        let (whole, done, total) = (self.ctx.clone(), self.done, self.total);
        let (k, expected) = (
            fit.features as u64,
            fit.max_sweeps
                .map_or(self.expected, |most| most as u64)
                .max(1),
        );
        TaskCtx::new(self.ctx.cancel_token().clone(), move |progress| {
            if progress.unit == "sweeps" {
                let part = (k * progress.done / expected).min(k * 9 / 10);
                // The fit itself checks whether it was cancelled.
                let _ = whole.checkpoint(Self::progress(done + part, total));
            }
        })
    }

    fn ended(&mut self, fit: &FitConfig, made: &Candidate) -> Result<()> {
        self.done += fit.features as u64;
        self.expected = made
            .factors
            .as_ref()
            .map_or(self.expected, |factors| factors.sweep as u64);
        self.ctx.checkpoint(Self::progress(self.done, self.total))
    }
}

/// Whether `larger` is `smaller` with more features, with a solver that can start from other factors.
fn grows(smaller: &FitConfig, larger: &FitConfig) -> bool {
    let rest = FitConfig {
        features: smaller.features,
        ..larger.clone()
    };
    larger.solver == Solver::Bcd && rest == *smaller && larger.features > smaller.features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_every_combination_once() {
        let base = FitConfig::default();
        let fits = grid(
            &base,
            &[10, 20],
            &[Some(0.01), Some(0.05)],
            &[0.0, 0.1],
            &[None, Some(4)],
        );
        assert_eq!(fits.len(), 16);
        assert_eq!((fits[0].row_cap, fits[8].row_cap), (None, Some(4)));
        assert_eq!(
            (
                fits[0].features,
                fits[1].features,
                fits[2].sparsity,
                fits[4].l1
            ),
            (10, 20, Some(0.05), 0.1)
        );
        let mu = FitConfig {
            solver: Solver::Mu,
            ..base
        };
        assert_eq!(
            grid(&mu, &[10, 20], &[None], &[0.0, 0.1], &[None, Some(4)]).len(),
            2
        );
    }
}
