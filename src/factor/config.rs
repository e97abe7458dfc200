//! What to fit.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{device, init, stream};
use crate::error::{Error, Result};

/// From so many neurons on, 1 % of them are enough for a feature.
const WIDE_LAYER: usize = 4096;

/// The update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// ℓ0-constrained block coordinate descent (ours).
    #[default]
    Bcd,
    /// The paper's multiplicative updates, exactly.
    Mu,
}

/// Where a fit starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// Y uniform, Z normal.
    Random,
    /// Centroids and their one-hot assignment.
    #[default]
    Kmeans,
    /// Truncated SVD, signs flipped so that the heavier half is positive.
    Svd,
}

/// What to fit; written to `fits/<name>/config.json`.
///
/// With r the rows of A, prepared by `centre`, then `scale_neurons`, then `scale_rows`, `bcd`
/// lowers ½ Σ‖r − Zy‖² + λ Σy over columns of Z with ⌈p·d⌉ neurons and rows y ≥ 0 with at most
/// `row_cap` features. Every constant is relative to r, so that c·A has the features of A and
/// coefficients that are c times as large.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitConfig {
    /// k, the number of features.
    pub features: usize,
    /// The update rule.
    pub solver: Solver,
    /// The share p of each feature's neurons that may be non-zero: ⌈p·d⌉ are kept. `None`: as their
    /// number d has it ([`Self::share`]); a saved fit holds the number it came to.
    #[serde(default)]
    pub sparsity: Option<f64>,
    /// λ of the penalty λ·ΣY in units of the median norm of the prepared rows; 0 minimises the
    /// error alone.
    pub l1: f64,
    /// At most so many features at a token.
    #[serde(default)]
    pub row_cap: Option<usize>,
    /// Every row counts the same, whatever its norm: rows are scaled to unit norm. Coefficients and
    /// errors are told of the rows as they are.
    #[serde(default)]
    pub scale_rows: bool,
    /// Every neuron counts the same, whatever its size: each is scaled to unit root mean square
    /// (about the mean row, where that is taken away). Features, coefficients and errors are told
    /// of the neurons as they are.
    #[serde(default)]
    pub scale_neurons: bool,
    /// The mean row is taken away first: A ≈ mean + YZᵀ. Features then say how a token differs from
    /// the mean.
    #[serde(default)]
    pub centre: bool,
    /// The start.
    pub init: Init,
    /// Seeds every random choice; the same seed gives the same bits on one machine, whatever the
    /// threads.
    pub seed: u64,
    /// Stop here at the latest. `None`: the solver's own default.
    pub max_sweeps: Option<usize>,
    /// Sweeps without improvement before stopping. `None`: the solver's own default.
    pub patience: Option<usize>,
    /// Threads to use; `None`: all that rayon has.
    pub threads: Option<usize>,
    /// A folder for the coefficients, where memory shall not hold them: files that end with the
    /// fit. The same bits either way.
    #[serde(skip)]
    pub scratch: Option<PathBuf>,
}

/// How rows are asked to be prepared; what is `None` nobody named.
#[derive(Debug, Clone, Copy, Default)]
pub struct PreprocessingChoice {
    /// [`FitConfig::scale_rows`].
    pub scale_rows: Option<bool>,
    /// [`FitConfig::scale_neurons`].
    pub scale_neurons: Option<bool>,
    /// [`FitConfig::centre`].
    pub centre: Option<bool>,
}

impl FitConfig {
    /// Whether another request asks for the same fit, only perhaps to run longer or on other
    /// threads: then a checkpoint of one is a checkpoint of the other.
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
    /// The error alone: no penalty, rows as they are. What the paper minimises.
    pub fn plain() -> Self {
        Self {
            l1: 0.0,
            ..Self::default()
        }
        .without_preprocessing()
    }

    /// The same of rows that are not prepared.
    pub fn without_preprocessing(self) -> Self {
        Self {
            scale_rows: false,
            scale_neurons: false,
            centre: false,
            ..self
        }
    }

    /// Rows are prepared as said, else as `base` has them; but where the error alone is minimised,
    /// and `base` minimised more, as they are: it is an error of the rows as they are.
    pub fn with_preprocessing(self, base: &Self, asked: PreprocessingChoice) -> Self {
        let alone = |config: &Self| config.solver == Solver::Mu || config.l1 == 0.0;
        let keeps = !alone(&self) || alone(base);
        Self {
            scale_rows: asked.scale_rows.unwrap_or(keeps && base.scale_rows),
            scale_neurons: asked.scale_neurons.unwrap_or(keeps && base.scale_neurons),
            centre: asked.centre.unwrap_or(keeps && base.centre),
            ..self
        }
    }
}

impl Default for FitConfig {
    /// A ≈ YZᵀ, the rows as they are, with a penalty that keeps Y sparse. A centre reads better
    /// (the guide's results), but then the factors alone no longer give the rows back: whoever asks
    /// for it is told.
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
    /// p for rows of d neurons. Where none is named: 5 % of fewer than 4,096 neurons, from there on
    /// 1 %, as the paper has them for GPT-2 (3,072) and for models of eight billion parameters
    /// (14,336). Of so few neurons 1 % tells concepts apart less well (the guide's results).
    pub fn sparsity_at(&self, d: usize) -> f64 {
        self.sparsity
            .unwrap_or(if d < WIDE_LAYER { 0.05 } else { 0.01 })
    }

    /// The same with the p that rows of d neurons give it.
    pub fn with_sparsity_at(self, d: usize) -> Self {
        Self {
            sparsity: Some(self.sparsity_at(d)),
            ..self
        }
    }

    /// The non-zeros of a column of height d: ⌈p·d⌉, at least 1.
    fn support_size(&self, d: usize) -> usize {
        ((self.sparsity_at(d) * d as f64).ceil() as usize).clamp(1, d.max(1))
    }

    /// Why only this machine's processors can take this fit's steps; `None` where a GPU can too.
    pub fn cpu_only_reason(&self) -> Option<&'static str> {
        match (self.solver, self.row_cap) {
            (Solver::Mu, _) => Some("the multiplicative updates run on the CPU"),
            (Solver::Bcd, Some(_)) => Some("a fit with a row cap runs on the CPU"),
            (Solver::Bcd, None) => None,
        }
    }

    /// Whether a GPU with `free` bytes of memory keeps n × d activations from one sweep to the
    /// next: where they have to be sent anew each time, sending takes as long as a sweep of the
    /// CPU.
    pub fn stays_on_gpu(&self, shape: (usize, usize), free: u64) -> bool {
        device::fits_in_memory(shape, free)
    }

    /// Refuses what cannot be fitted to n × d activations; returns the entries a column keeps.
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

    /// Bytes that the coefficients of n rows take while they are fitted: those of the last sweep
    /// and of the one under way, a snapshot and the one before it; with `mu` the best as well. In
    /// memory, or in files of [`Self::scratch`].
    pub fn coefficient_bytes(&self, n: usize) -> u64 {
        let copies = if self.solver == Solver::Mu { 5 } else { 4 };
        copies * 4 * self.features as u64 * (n as u64 + 64)
    }

    /// Bytes of anonymous memory that a fit to n × d activations takes at most beside its
    /// coefficients and what the source holds: the features and their products, the blocks in
    /// flight, the rows that k-means samples, and what is kept of each row.
    pub fn memory_bytes(&self, n: usize, d: usize) -> u64 {
        let in_blocks = stream::block_rows(d).min(n) as u64;
        let sampled = if self.init == Init::Kmeans {
            init::sampled_rows(n, d, self.features)
        } else {
            None
        };
        let (keep, share) = (self.support_size(d) as u64, self.sparsity_at(d));
        let (k, n, d) = (self.features as u64, n as u64, d as u64);
        let copies = if self.solver == Solver::Mu { 3 } else { 2 };
        let features = copies * (4 * k * d + 8 * k * keep + 8 * k * k);
        let dense = if self.solver == Solver::Mu || share > 0.2 {
            4 * k * d
        } else {
            0
        };
        let threads = self.threads.unwrap_or_else(rayon::current_num_threads) as u64;
        // Blocks where a source is surveyed; a panel and what it sums a thread, as much again that
        // waits its turn, and the whole.
        let blocks = 4 * in_blocks * d
            + threads * 4 * 64 * (2 * d + 4 * k)
            + (2 * threads + 1) * 4 * k * (d + k);
        let framed = if self.scale_rows || self.scale_neurons || self.centre {
            4 * n + 16 * d
        } else {
            0
        };
        features + dense + blocks + framed + 4 * d * sampled.unwrap_or(0) as u64 + 24 * n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparsity_that_nobody_named_is_chosen_by_the_width() {
        let default = FitConfig::default();
        for (d, share, kept) in [
            (576, 0.05, 29),
            (1536, 0.05, 77),
            (3072, 0.05, 154),
            (4096, 0.01, 41),
            (14336, 0.01, 144),
        ] {
            assert_eq!(
                (default.sparsity_at(d), default.check((200, d)).unwrap()),
                (share, kept),
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
        // What was saved before it could be left open is a number.
        let saved = serde_json::to_string(&named).unwrap();
        assert!(saved.contains("\"sparsity\":0.01"), "{saved}");
        assert_eq!(serde_json::from_str::<FitConfig>(&saved).unwrap(), named);
    }
}
