//! The configuration of a fit: its defaults, its checks, and the memory that a fit with it takes.
//! Knows nothing of how a fit runs.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{init, stream};
use crate::error::{Error, Result};

/// From this number of neurons on the default sparsity is 1 %, below it 5 %.
const WIDE_LAYER: usize = 4096;

/// The rule by which factors are updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// ℓ0-constrained block coordinate descent, this project's own.
    #[default]
    Bcd,
    /// The multiplicative updates of Ding, Li, Jordan (2010) with hard thresholding, exactly as in
    /// Shafran, Geiger, Geva (arXiv 2506.10920).
    Mu,
}

/// The initialisation of Y (and through it of Z).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Y uniform between 1e-6 and 1.
    Random,
    /// k-means: Y is the one-hot assignment of rows to centroids.
    #[default]
    Kmeans,
    /// Truncated SVD: Y = max(U√Σ, 0), each pair's sign chosen such that the heavier half of U's column
    /// is positive.
    Svd,
}

/// The configuration of a fit; written to `fits/<name>/config.json`.
///
/// The rows r of A are prepared by `centre`, then `scale_neurons`, then `scale_rows`. `bcd` then
/// minimises ½ Σ‖r − Zy‖² + λ Σy over unit columns of Z with ⌈p·d⌉ neurons each and rows y ≥ 0 with
/// at most `row_cap` non-zeros. Every constant is relative to r, so that c·A has the same features as
/// A and coefficients c times as large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitConfig {
    /// k, the number of features.
    pub features: usize,
    /// The rule by which factors are updated in each sweep.
    pub solver: Solver,
    /// The share p of the neurons that a feature may use: its support has ⌈p·d⌉ neurons. `None`: the
    /// default for the number of neurons ([`Self::sparsity_at`]); a saved fit holds the number.
    #[serde(default)]
    pub sparsity: Option<f64>,
    /// λ of the penalty λ·ΣY, in units of the median norm of the prepared rows; 0 minimises the error
    /// alone.
    pub l1: f64,
    /// The most non-zero coefficients of a row; `None`: any number.
    #[serde(default)]
    pub row_cap: Option<usize>,
    /// Scales rows to unit norm, so that every token counts the same. Coefficients and errors are
    /// reported for the original rows.
    #[serde(default)]
    pub scale_rows: bool,
    /// Scales neurons to unit root mean square (about the mean row if `centre` is set), so that every
    /// neuron counts the same. Features, coefficients and errors are reported for the original neurons.
    #[serde(default)]
    pub scale_neurons: bool,
    /// Subtracts the mean row first: A ≈ mean + YZᵀ. Features then describe how a token differs from
    /// the mean.
    #[serde(default)]
    pub centre: bool,
    /// How the first coefficients are chosen.
    pub init: Init,
    /// Seeds every random choice; the same seed gives the same bits on one machine, whatever the number
    /// of threads.
    pub seed: u64,
    /// The largest number of sweeps. `None`: the solver's default.
    pub max_sweeps: Option<usize>,
    /// Sweeps without enough improvement after which the fit stops. `None`: the solver's default.
    pub patience: Option<usize>,
    /// The number of threads; `None`: rayon's global pool.
    pub threads: Option<usize>,
    /// A folder for the coefficients if they are to lie in mapped files instead of memory; the files
    /// are deleted with the fit. The results have the same bits either way.
    #[serde(skip)]
    pub scratch: Option<PathBuf>,
}

/// The preprocessing options that the user set; an option that was not given is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct PreprocessingChoice {
    /// Whether rows are scaled to unit norm: [`FitConfig::scale_rows`].
    pub scale_rows: Option<bool>,
    /// Whether neurons are scaled to unit root mean square: [`FitConfig::scale_neurons`].
    pub scale_neurons: Option<bool>,
    /// Whether the mean row is subtracted first: [`FitConfig::centre`].
    pub centre: Option<bool>,
}

impl FitConfig {
    /// Whether two configurations are equal except for the stop rules, the threads and the scratch
    /// folder, so that a checkpoint of one can be resumed with the other.
    pub fn same_fit(&self, other: &Self) -> bool {
        let bare = |c: &Self| Self {
            max_sweeps: None,
            patience: None,
            threads: None,
            scratch: None,
            ..c.clone()
        };
        bare(self) == bare(other)
    }
}

impl FitConfig {
    /// The objective of Shafran, Geiger, Geva (arXiv 2506.10920): the squared error of the original
    /// rows, without a penalty.
    pub fn plain() -> Self {
        Self {
            l1: 0.0,
            ..Self::default()
        }
        .without_preprocessing()
    }

    /// The same configuration without preprocessing of the rows.
    pub fn without_preprocessing(self) -> Self {
        Self {
            scale_rows: false,
            scale_neurons: false,
            centre: false,
            ..self
        }
    }

    /// The same configuration with the preprocessing that the user chose. Options that were not
    /// given are those of `base`; if this configuration minimises the error alone and `base` does
    /// not, they are off, since the plain error is that of the original rows.
    pub fn with_preprocessing(self, base: &Self, choice: PreprocessingChoice) -> Self {
        let minimises_error_alone = |config: &Self| config.solver == Solver::Mu || config.l1 == 0.0;
        let inherits = !minimises_error_alone(&self) || minimises_error_alone(base);
        Self {
            scale_rows: choice.scale_rows.unwrap_or(inherits && base.scale_rows),
            scale_neurons: choice
                .scale_neurons
                .unwrap_or(inherits && base.scale_neurons),
            centre: choice.centre.unwrap_or(inherits && base.centre),
            ..self
        }
    }
}

impl Default for FitConfig {
    /// A ≈ YZᵀ of the original rows, with a penalty that keeps Y sparse. Features of centred rows read
    /// better (`guide/results.md`), but then YZᵀ alone no longer approximates the rows, so that the
    /// user has to ask for it.
    fn default() -> Self {
        Self {
            features: 100,
            solver: Solver::Bcd,
            sparsity: None,
            l1: 0.1,
            row_cap: None,
            scale_rows: false,
            scale_neurons: false,
            centre: false,
            init: Init::Kmeans,
            seed: 42,
            max_sweeps: None,
            patience: None,
            threads: None,
            scratch: None,
        }
    }
}

impl FitConfig {
    /// The share p for rows of d neurons. If none is configured: 5 % below 4,096 neurons and 1 % from
    /// there on, as Shafran, Geiger, Geva use for GPT-2 (3,072) and for models of eight billion
    /// parameters (14,336). With few neurons 1 % separates concepts less well (`guide/results.md`).
    pub fn sparsity_at(&self, d: usize) -> f64 {
        self.sparsity
            .unwrap_or(if d < WIDE_LAYER { 0.05 } else { 0.01 })
    }

    /// The same configuration with the share p for rows of d neurons filled in.
    pub fn with_sparsity_at(self, d: usize) -> Self {
        Self {
            sparsity: Some(self.sparsity_at(d)),
            ..self
        }
    }

    /// The size s of a feature's support for d neurons: ⌈p·d⌉, at least 1.
    fn support_size(&self, d: usize) -> usize {
        ((self.sparsity_at(d) * d as f64).ceil() as usize).clamp(1, d.max(1))
    }

    /// The reason why this fit can only run on the CPU; `None` if a GPU can run its passes.
    pub fn cpu_only_reason(&self) -> Option<&'static str> {
        match (self.solver, self.row_cap) {
            (Solver::Mu, _) => Some("the multiplicative updates run on the CPU"),
            (Solver::Bcd, Some(_)) => Some("a fit with a row cap runs on the CPU"),
            (Solver::Bcd, None) => None,
        }
    }

    /// Checks the configuration against n × d activations and returns the size of a feature's support.
    ///
    /// # Errors
    /// [`Error::Usage`] for an option that is out of range or that the solver does not have,
    /// [`Error::Refused`] if there are no activations.
    pub fn check(&self, (n, d): (usize, usize)) -> Result<usize> {
        let k = self.features;
        if k == 0 {
            return Err(Error::usage("a fit needs at least one feature"));
        }
        if n == 0 || d == 0 {
            return Err(Error::refused(format!(
                "there are no activations to fit ({n} rows of {d} neurons)"
            )));
        }
        if k > n {
            return Err(Error::usage(format!(
                "{k} features for {n} token rows; ask for at most {n} or collect more text"
            )));
        }
        let p = self.sparsity_at(d);
        if !(p > 0.0 && p <= 1.0) {
            return Err(Error::usage(format!(
                "a sparsity of {p} keeps no neuron or more than all; give a share above 0 and at most 1, as 0.01"
            )));
        }
        if self.row_cap == Some(0) {
            return Err(Error::usage(
                "a row cap of 0 leaves no feature at any token; give at least 1",
            ));
        }
        if self.row_cap.is_some() && self.solver == Solver::Mu {
            return Err(Error::usage(
                "the multiplicative updates cannot cap the features of a row; use --solver bcd",
            ));
        }
        if !(self.l1 >= 0.0 && self.l1.is_finite()) {
            return Err(Error::usage(format!(
                "an l1 penalty of {}; it must be 0 or more",
                self.l1
            )));
        }
        Ok(self.support_size(d))
    }

    /// The bytes of the coefficients of n rows during a fit. There are four copies: of the last
    /// sweep, of the current sweep, of a snapshot and of the snapshot before; with `mu` also a copy
    /// of the best sweep. They lie in memory, or in files of [`Self::scratch`].
    pub fn coefficient_bytes(&self, n: usize) -> u64 {
        let copies = if self.solver == Solver::Mu { 5 } else { 4 };
        copies * 4 * self.features as u64 * (n as u64 + 64)
    }

    /// An upper bound of the memory in bytes of a fit to n × d activations, apart from its
    /// coefficients and the source: the features and their products, the blocks that are being
    /// processed, the rows that k-means samples, and the statistics of each row.
    pub fn memory_bytes(&self, n: usize, d: usize) -> u64 {
        let in_blocks = stream::block_rows(d).min(n) as u64;
        let sampled = if self.init == Init::Kmeans {
            init::sampled_rows(n, d, self.features)
        } else {
            None
        };
        let (support_size, share) = (self.support_size(d) as u64, self.sparsity_at(d));
        let (k, n, d) = (self.features as u64, n as u64, d as u64);
        let copies = if self.solver == Solver::Mu { 3 } else { 2 };
        let features = copies * (4 * k * d + 8 * k * support_size + 8 * k * k);
        let dense = if self.solver == Solver::Mu || share > 0.2 {
            4 * k * d
        } else {
            0
        };
        let threads = self.threads.unwrap_or_else(rayon::current_num_threads) as u64;
        // The blocks of the pass for the statistics; then for each thread a panel, its group's sums
        // and another group's that wait to be added; and the totals.
        let blocks = 4 * in_blocks * d
            + threads * 4 * 64 * (2 * d + 4 * k)
            + (2 * threads + 1) * 4 * k * (d + k);
        let prepared = if self.scale_rows || self.scale_neurons || self.centre {
            4 * n + 16 * d
        } else {
            0
        };
        features + dense + blocks + prepared + 4 * d * sampled.unwrap_or(0) as u64 + 24 * n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparsity_that_is_not_configured_is_chosen_by_the_width() {
        let default = FitConfig::default();
        for (d, share, support_size) in [
            (576, 0.05, 29),
            (1536, 0.05, 77),
            (3072, 0.05, 154),
            (4096, 0.01, 41),
            (14336, 0.01, 144),
        ] {
            assert_eq!(
                (default.sparsity_at(d), default.check((200, d)).unwrap()),
                (share, support_size),
                "{d}"
            );
            assert_eq!(default.clone().with_sparsity_at(d).sparsity, Some(share));
        }
        let named = FitConfig {
            sparsity: Some(0.01),
            ..default
        };
        assert_eq!(
            (
                named.sparsity_at(1536),
                named.clone().with_sparsity_at(1536)
            ),
            (0.01, named.clone())
        );
        // A configuration saved before `None` existed holds a number.
        let saved = serde_json::to_string(&named).unwrap();
        assert!(saved.contains("\"sparsity\":0.01"), "{saved}");
        assert_eq!(serde_json::from_str::<FitConfig>(&saved).unwrap(), named);
    }
}
