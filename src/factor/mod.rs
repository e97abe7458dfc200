//! Semi-nonnegative matrix factorisation, A\[n×d\] ≈ Y\[n×k\] · Zᵀ\[k×d\], Y ≥ 0, sparse columns of
//! Z.
//!
//! A [`Factoriser`] steps; the caller decides when to show, save, pause or stop. A snapshot is an
//! immutable [`Factors`] with ‖z_j‖ = 1 and the scale in Y. Knows activations only as an
//! [`ActivationSource`](crate::activations::ActivationSource).

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
pub use fit::Factoriser;
pub(crate) use fit::MOST_THREADS;
pub use mini_batch::MiniBatchFit;

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
    Owned(Arc<ValueBuffer>),
    Mapped(Arc<MappedF32>),
}

impl Coefficients {
    /// From k × n values by feature.
    pub fn owned(rows: usize, by_feature: Vec<f32>) -> Self {
        Self::of(rows, by_feature.into())
    }

    /// From k × n values by feature, wherever they lie.
    pub(crate) fn of(rows: usize, by_feature: ValueBuffer) -> Self {
        Self {
            rows,
            data: CoefficientData::Owned(Arc::new(by_feature)),
        }
    }

    /// From a mapped file of k × n values by feature.
    pub fn mapped(rows: usize, file: MappedF32) -> Self {
        Self {
            rows,
            data: CoefficientData::Mapped(Arc::new(file)),
        }
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

/// How a row is written in features: a ≈ centre + Zy, y ≥ 0, of which at most `row_cap` are not
/// zero; the y that leaves least of the row, each neuron's remainder times its weight.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Coding {
    /// The mean row that the fit took away, of length d.
    pub centre: Option<Arc<Vec<f32>>>,
    /// What each of the d neurons counts, up to a common factor; `None`: all the same. A neuron
    /// that was silent in the fit counts nothing.
    pub neuron_weights: Option<Arc<Vec<f32>>>,
    /// The most features of a row.
    pub row_cap: Option<usize>,
}

/// The names of [`Coding`]'s values in files.
pub(crate) const CENTRE: &str = "centre";
pub(crate) const NEURON_WEIGHTS: &str = "neuron_weights";

impl Coding {
    /// What it holds of each neuron, by the names of files.
    pub(crate) fn by_neuron(&self) -> impl Iterator<Item = (&'static str, &[f32])> {
        let all = [
            (CENTRE, &self.centre),
            (NEURON_WEIGHTS, &self.neuron_weights),
        ];
        all.into_iter()
            .filter_map(|(name, values)| Some((name, values.as_ref()?.as_slice())))
    }

    /// `row` − centre − Zy in f64, for the coefficients y of `features`.
    pub fn residual(&self, features: &SparseColumns, row: &[f32], y: &[f32]) -> Vec<f64> {
        let mut left: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        if let Some(centre) = &self.centre {
            left.iter_mut()
                .zip(centre.iter())
                .for_each(|(l, &c)| *l -= f64::from(c));
        }
        for (j, &y) in y.iter().enumerate().filter(|(_, y)| **y != 0.0) {
            let (indices, values) = features.column(j);
            for (&i, &v) in indices.iter().zip(values) {
                left[i as usize] -= f64::from(y) * f64::from(v);
            }
        }
        left
    }
}

/// An immutable snapshot of a fit.
#[derive(Debug, Clone)]
pub struct Factors {
    /// Z, unit columns.
    pub features: SparseColumns,
    /// Y ≥ 0, the scale.
    pub coefficients: Coefficients,
    /// How a row is written in them.
    pub coding: Coding,
    /// ‖A − YZᵀ‖² / ‖A‖², f64, of the rows as they are (with a centre: ‖A − mean − YZᵀ‖² / ‖A‖²).
    pub relative_error: f64,
    /// The same of the rows as the fit weighs them, where it scales neurons or rows.
    pub weighted_error: Option<f64>,
    /// 1 − ‖A − YZᵀ‖² / ‖A − mean‖², likewise.
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
    /// The relative error after it: of the rows as they are, but where neurons are scaled, as the
    /// fit weighs them.
    pub relative_error: f64,
    /// Whether that is as the fit weighs them.
    #[serde(default)]
    pub weighted: bool,
    /// Seconds of sweeping so far (the start not included).
    pub seconds: f64,
    /// Set once the fit has ended.
    pub stop: Option<Stop>,
}
