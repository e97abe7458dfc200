//! Semi-nonnegative matrix factorisation, A\[n×d\] ≈ Y\[n×k\] · Zᵀ\[k×d\], with Y ≥ 0 and sparse
//! columns of Z.
//!
//! Semi-NMF is due to Ding, Li, Jordan (2010), its use on MLP activations with sparse features to
//! Shafran, Geiger, Geva (arXiv 2506.10920); `guide/method.md` describes how this implementation
//! differs.
//!
//! A [`Factoriser`] performs one sweep at a time; the caller decides when to show, save, pause or
//! stop. A snapshot is an immutable [`Factors`] with ‖z_j‖ = 1 and the scale in Y. Knows activations
//! only as an [`ActivationSource`](crate::activations::ActivationSource).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::value_buffer::ValueBuffer;
use crate::activations::store::MappedF32;

mod bcd;
mod checkpoint;
mod checksummed;
mod coefficient_step;
mod columns;
mod config;
mod data_stats;
mod device;
pub mod encode;
mod fit;
mod incremental;
mod init;
mod merge;
mod mini_batch;
mod mu;
mod panels;
mod pass;
mod preprocessing;
pub mod recursive;
mod state;
mod stream;
mod supports;
mod swaps;
#[cfg(test)]
mod tests;
mod value_buffer;

pub(crate) use preprocessing::safe_scale;

pub use config::{FitConfig, Init, PreprocessingChoice, Solver};
pub use device::{Accelerator, CPU_STEPS, DeviceBytes, PassRates};
pub use fit::Factoriser;
pub(crate) use fit::MAX_THREADS;
pub use mini_batch::MiniBatchFit;

/// Features Z \[d × k\] as sparse columns, of unit norm outside a fit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SparseColumns {
    /// d, the number of neurons.
    pub rows: usize,
    /// Column j holds the entries `offsets[j]..offsets[j + 1]`; length k + 1.
    pub offsets: Vec<usize>,
    /// Neuron of each entry, ascending within a column.
    pub indices: Vec<u32>,
    /// Weight of each entry.
    pub values: Vec<f32>,
}

impl SparseColumns {
    /// k, the number of features.
    pub fn columns(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The neurons and the weights of column j, two slices of equal length.
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

/// Coefficients Y ≥ 0, stored by feature (k × n), so that the coefficients of a feature at all tokens
/// are one contiguous slice. Cloning shares the values.
#[derive(Debug, Clone)]
pub struct Coefficients {
    /// n, the number of token rows.
    pub rows: usize,
    data: CoefficientData,
}

#[derive(Debug, Clone)]
enum CoefficientData {
    Owned(Arc<ValueBuffer>),
    Mapped(Arc<MappedF32>),
}

impl Coefficients {
    /// Wraps k × n values stored by feature, for n = `rows`.
    pub fn owned(rows: usize, by_feature: Vec<f32>) -> Self {
        Self::from_buffer(rows, by_feature.into())
    }

    /// Wraps k × n values stored by feature, in memory or in a file.
    pub(crate) fn from_buffer(rows: usize, by_feature: ValueBuffer) -> Self {
        Self {
            rows,
            data: CoefficientData::Owned(Arc::new(by_feature)),
        }
    }

    /// Wraps a mapped file of k × n values stored by feature.
    pub fn mapped(rows: usize, file: MappedF32) -> Self {
        Self {
            rows,
            data: CoefficientData::Mapped(Arc::new(file)),
        }
    }

    /// All k × n values: those of feature 0 at every row, then those of feature 1, and so on.
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

/// How a row a is encoded on features: as centre + Zy for the y ≥ 0 with at most `row_cap` non-zeros
/// that minimises ‖W(a − centre − Zy)‖², W being the diagonal matrix of the neuron weights.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Coding {
    /// The mean row that the fit subtracted, of length d; `None`: nothing is subtracted.
    pub centre: Option<Arc<Vec<f32>>>,
    /// The weight of each of the d neurons, up to a common factor; `None`: all are equal. A neuron that
    /// was always zero in the fit has the weight 0.
    pub neuron_weights: Option<Arc<Vec<f32>>>,
    /// The most features that a row may use; `None`: any number.
    pub row_cap: Option<usize>,
}

/// The names that the vectors of a [`Coding`] have in files.
pub(crate) const CENTRE: &str = "centre";
pub(crate) const NEURON_WEIGHTS: &str = "neuron_weights";

impl Coding {
    /// The vectors of d values that are set, with their names in files.
    pub(crate) fn neuron_vectors(&self) -> impl Iterator<Item = (&'static str, &[f32])> {
        let all = [
            (CENTRE, &self.centre),
            (NEURON_WEIGHTS, &self.neuron_weights),
        ];
        all.into_iter()
            .filter_map(|(name, values)| Some((name, values.as_ref()?.as_slice())))
    }

    /// The residual `row` − centre − Zy in f64 (d values), for the k coefficients `y` of `features`.
    pub fn residual(&self, features: &SparseColumns, row: &[f32], y: &[f32]) -> Vec<f64> {
        let mut residual: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        if let Some(centre) = &self.centre {
            residual
                .iter_mut()
                .zip(centre.iter())
                .for_each(|(r, &c)| *r -= f64::from(c));
        }
        for (j, &y) in y.iter().enumerate().filter(|(_, y)| **y != 0.0) {
            let (indices, values) = features.column(j);
            for (&i, &v) in indices.iter().zip(values) {
                residual[i as usize] -= f64::from(y) * f64::from(v);
            }
        }
        residual
    }
}

/// An immutable snapshot of a fit.
#[derive(Debug, Clone)]
pub struct Factors {
    /// Z, with unit columns.
    pub features: SparseColumns,
    /// Y ≥ 0, which carries the scale.
    pub coefficients: Coefficients,
    /// How a new row is encoded on the features.
    pub coding: Coding,
    /// ‖A − YZᵀ‖² / ‖A‖² of the original rows (with a centre: ‖A − mean − YZᵀ‖² / ‖A‖²).
    pub relative_error: f64,
    /// The relative error of the prepared rows; set if the fit scales neurons or rows.
    pub weighted_error: Option<f64>,
    /// 1 − ‖A − YZᵀ‖² / ‖A − mean‖² of the original rows.
    pub explained_variance: f64,
    /// The number of sweeps done when the snapshot was taken.
    pub sweep: usize,
    /// Seconds of fitting until then, including the initialisation.
    pub seconds: f64,
}

/// The stop rule that ended a fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The error improved too little over the patience.
    Converged,
    /// The largest number of sweeps was reached.
    MaxSweeps,
}

/// The report of one sweep, or of one batch of a [`MiniBatchFit`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// The number of the sweep, from 1.
    pub sweep: usize,
    /// The relative error after it: of the original rows, or of the prepared rows if neurons are
    /// scaled.
    pub relative_error: f64,
    /// Whether `relative_error` is that of the prepared rows.
    #[serde(default)]
    pub weighted: bool,
    /// Seconds of sweeping so far, without the initialisation.
    pub seconds: f64,
    /// Set if a stop rule holds after this sweep.
    pub stop: Option<Stop>,
}
