//! Semi-nonnegative matrix factorisation, A\[n×d\] ≈ Y\[n×k\] · Zᵀ\[k×d\], Y ≥ 0, sparse columns of Z.
//!
//! A [`Factoriser`] steps; the caller decides when to show, save, pause or stop. A snapshot is an immutable
//! [`Factors`] with ‖z_j‖ = 1 and the scale in Y. Knows activations only as an [`ActivationSource`](crate::activations::ActivationSource).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::activations::store::MappedF32;

mod bcd;
mod checkpoint;
mod columns;
pub mod encode;
mod fit;
mod incremental;
mod init;
mod mu;
mod panels;
pub mod recursive;
mod state;
mod stream;
mod survey;
#[cfg(test)]
mod tests;

pub use fit::Factoriser;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitConfig {
    /// k, the number of features.
    pub features: usize,
    /// The update rule.
    pub solver: Solver,
    /// The share p of each feature's neurons that may be non-zero: ⌈p·d⌉ are kept.
    pub sparsity: f64,
    /// λ of the penalty λ·ΣY in units of the median row norm; 0 minimises the error alone.
    pub l1: f64,
    /// The start.
    pub init: Init,
    /// Seeds every random choice; the same seed gives the same bits on one machine, whatever the threads.
    pub seed: u64,
    /// Stop here at the latest. `None`: the solver's own default.
    pub max_sweeps: Option<usize>,
    /// Sweeps without improvement before stopping. `None`: the solver's own default.
    pub patience: Option<usize>,
    /// Threads to use; `None`: all that rayon has.
    pub threads: Option<usize>,
}

impl FitConfig {
    /// Whether another request asks for the same fit, only perhaps to run longer or on other threads: then a checkpoint
    /// of one is a checkpoint of the other.
    pub fn same_fit(&self, other: &Self) -> bool {
        let bare = |c: &Self| Self { max_sweeps: None, patience: None, threads: None, ..c.clone() };
        bare(self) == bare(other)
    }
}

impl Default for FitConfig {
    fn default() -> Self {
        Self {
            features: 100,
            solver: Solver::Bcd,
            sparsity: 0.01,
            l1: 0.1,
            init: Init::Kmeans,
            seed: 42,
            max_sweeps: None,
            patience: None,
            threads: None,
        }
    }
}

impl FitConfig {
    /// Bytes of anonymous memory that a fit to n × d activations takes at most, beyond what the source itself holds: the
    /// coefficients twice (a sweep writes new ones), the features and their products, and the blocks in flight.
    pub fn memory_bytes(&self, n: usize, d: usize) -> u64 {
        let (k, n, d) = (self.features as u64, n as u64, d as u64);
        let keep = ((self.sparsity * d as f64).ceil() as u64).clamp(1, d.max(1));
        let copies = if self.solver == Solver::Mu { 3 } else { 2 };
        let coefficients = copies * 4 * k * (n + 64);
        let features = copies * (4 * k * d + 8 * k * keep + 8 * k * k);
        let dense = if self.solver == Solver::Mu || self.sparsity > 0.2 { 4 * k * d } else { 0 };
        let threads = self.threads.unwrap_or_else(rayon::current_num_threads) as u64;
        let blocks = 2 * 4 * (stream::block_rows(d as usize) as u64 * (d + k)) + threads * 4 * 64 * (d + k);
        coefficients + features + dense + blocks + n * 16
    }
}

/// Features Z\[d × k\] as sparse columns of unit norm.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SparseColumns {
    /// d, the height of a column.
    pub rows: usize,
    /// Column j holds entries `offsets[j]..offsets[j + 1]`; length k + 1.
    pub offsets: Vec<usize>,
    /// Row (neuron) of each entry, ascending in a column.
    pub indices: Vec<u32>,
    /// Value of each entry.
    pub values: Vec<f32>,
}

impl SparseColumns {
    /// k, the number of columns.
    pub fn columns(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The neurons and weights of column j.
    pub fn column(&self, j: usize) -> (&[u32], &[f32]) {
        let span = self.offsets[j]..self.offsets[j + 1];
        (&self.indices[span.clone()], &self.values[span])
    }

    /// Column j as a dense vector of length d.
    pub fn dense_column(&self, j: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.rows];
        let (indices, values) = self.column(j);
        for (&i, &v) in indices.iter().zip(values) {
            out[i as usize] = v;
        }
        out
    }
}

/// Coefficients Y, stored by feature (k × n): a feature's coefficients are one contiguous slice.
#[derive(Debug, Clone)]
pub struct Coefficients {
    /// n, the number of token rows.
    pub rows: usize,
    data: CoefficientData,
}

#[derive(Debug, Clone)]
enum CoefficientData {
    Owned(Arc<Vec<f32>>),
    Mapped(Arc<MappedF32>),
}

impl Coefficients {
    /// From k × n values by feature.
    pub fn owned(rows: usize, by_feature: Vec<f32>) -> Self {
        Self { rows, data: CoefficientData::Owned(Arc::new(by_feature)) }
    }

    /// From a mapped file of k × n values by feature.
    pub fn mapped(rows: usize, file: MappedF32) -> Self {
        Self { rows, data: CoefficientData::Mapped(Arc::new(file)) }
    }

    /// All k × n values, by feature.
    pub fn as_slice(&self) -> &[f32] {
        match &self.data {
            CoefficientData::Owned(v) => v,
            CoefficientData::Mapped(m) => m.as_slice(),
        }
    }

    /// The n coefficients of feature j.
    pub fn feature(&self, j: usize) -> &[f32] {
        &self.as_slice()[j * self.rows..(j + 1) * self.rows]
    }
}

/// An immutable snapshot of a fit.
#[derive(Debug, Clone)]
pub struct Factors {
    /// Z, unit columns.
    pub features: SparseColumns,
    /// Y ≥ 0, the scale.
    pub coefficients: Coefficients,
    /// ‖A − YZᵀ‖² / ‖A‖², f64.
    pub relative_error: f64,
    /// 1 − ‖A − YZᵀ‖² / ‖A − mean‖².
    pub explained_variance: f64,
    /// Sweeps done when this was taken.
    pub sweep: usize,
    /// Seconds of fitting until then, the start included.
    pub seconds: f64,
}

/// Why a fit ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// No improvement within the patience.
    Converged,
    /// The most sweeps allowed.
    MaxSweeps,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// Sweeps done, from 1.
    pub sweep: usize,
    /// The relative error after it.
    pub relative_error: f64,
    /// Seconds of sweeping so far (the start not included).
    pub seconds: f64,
    /// Set once the fit has ended.
    pub stop: Option<Stop>,
}
