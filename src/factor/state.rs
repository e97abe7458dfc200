//! The state that a solver carries from one sweep to the next, and its errors. Knows nothing of how
//! a sweep works.

use std::path::Path;

use rayon::prelude::*;

use super::SparseColumns;
use super::data_stats::DataStats;
use super::device::{Accelerator, CoefficientsRef, DeviceCoefficients};
use super::panels::Panels;
use super::pass::PassSums;
use super::preprocessing::Preprocessing;
use super::stream::Stream;
use super::value_buffer::ValueBuffer;
use crate::error::Result;
use crate::matrix::panel::{self, Gram, PANEL};

/// The part of AᵀY that the sums hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum HeldProducts {
    /// All k × d entries.
    #[default]
    All,
    /// One value for each entry of the features.
    Entries,
}

/// Factors and the sums that belong to them. A sweep writes another state, so that a cancelled
/// sweep changes nothing.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Z for the prepared rows; empty before the first sweep.
    pub(crate) features: SparseColumns,
    /// Y for the prepared rows; out of date while `on_device` holds newer values that were not
    /// copied back.
    pub(crate) y: Panels,
    /// Y on the device that runs the passes, if the coefficients stay there.
    pub(crate) on_device: Option<DeviceCoefficients>,
    /// AᵀY, YᵀY and the other sums of this Y.
    pub(crate) sums: PassSums,
    /// The part of AᵀY in `sums.products`.
    pub(crate) held: HeldProducts,
    /// ‖A − YZᵀ‖² of the original rows; if neurons are scaled, of the prepared rows.
    pub(crate) error: f64,
    /// The objective that the sweeps lower: the squared error of the prepared rows, plus 2λΣY with
    /// a penalty.
    pub(crate) objective: f64,
}

impl State {
    /// A state of coefficients and their sums, without features.
    pub(crate) fn new(y: Panels, sums: PassSums) -> Self {
        let features = SparseColumns::default();
        Self {
            features,
            y,
            on_device: None,
            sums,
            held: HeldProducts::All,
            error: f64::INFINITY,
            objective: f64::INFINITY,
        }
    }

    /// Copies `other`, which has as many features and rows, into the memory of this state.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.features.clone_from(&other.features);
        self.y.copy_from(&other.y);
        self.sums.clone_from(&other.sums);
        (self.held, self.error, self.objective) = (other.held, other.error, other.objective);
    }

    /// The present Y, on the device or the host.
    pub(crate) fn coefficients(&self) -> CoefficientsRef<'_> {
        match &self.on_device {
            Some(coefficients) => CoefficientsRef::Device(coefficients),
            None => CoefficientsRef::Host(&self.y),
        }
    }

    /// The k coefficients of a row.
    ///
    /// # Errors
    /// Errors of the device.
    pub(crate) fn row_coefficients(&self, row: usize) -> Result<Vec<f32>> {
        match &self.on_device {
            Some(coefficients) => coefficients.row(row),
            None => Ok((0..self.y.k).map(|j| self.y.get(row, j)).collect()),
        }
    }

    /// Copies Y to the host if only the device has the present values.
    ///
    /// # Errors
    /// Errors of the device.
    pub(crate) fn copy_coefficients_to_host(&mut self) -> Result<()> {
        match &mut self.on_device {
            Some(coefficients) => coefficients.copy_to(&mut self.y),
            None => Ok(()),
        }
    }

    /// Computes the errors by the identity ‖A − YZᵀ‖² = ‖A‖² − 2 Σ P∘Y + tr(ZᵀZ · YᵀY), which needs
    /// no n × d product; `q` is ZᵀZ. If rows have weights and neurons have none, the error of the
    /// original rows is the sum of the rows' errors by the same identity, each divided by its
    /// squared weight.
    ///
    /// # Errors
    /// Errors of the device that runs the passes.
    pub(crate) fn update_errors(
        &mut self,
        problem: &Problem<'_, '_>,
        q: &[f64],
        gram: &Gram,
    ) -> Result<()> {
        let quadratic: f64 = q.iter().zip(&self.sums.gram).map(|(a, b)| a * b).sum();
        let prepared = (problem.stats.prepared_square - 2.0 * self.sums.fit + quadratic).max(0.0);
        self.objective = prepared + 2.0 * problem.penalty * self.sums.totals.iter().sum::<f64>();
        let preprocessing = &problem.stream.preprocessing;
        self.error = match &preprocessing.weights {
            Some(weights) if preprocessing.scaling.neurons.is_none() => {
                let errors = self.row_errors(problem, q, gram)?;
                let original_error = |(&w, e): (&f32, &f64)| {
                    if w > 0.0 {
                        e.max(0.0) / f64::from(w).powi(2)
                    } else {
                        0.0
                    }
                };
                weights.iter().zip(&errors).map(original_error).sum()
            }
            _ => prepared,
        };
        Ok(())
    }

    /// The squared error of the prepared rows, for the penalty λ of the fit.
    pub(crate) fn prepared_error(&self, penalty: f64) -> f64 {
        self.objective - 2.0 * penalty * self.sums.totals.iter().sum::<f64>()
    }

    /// ‖a − Zy‖² = ‖a‖² − 2 yᵀp + yᵀQy of each prepared row, from the sums of the last pass; `q` and
    /// `gram` are ZᵀZ.
    ///
    /// # Errors
    /// Errors of the device that runs the passes.
    pub(crate) fn row_errors(
        &self,
        problem: &Problem<'_, '_>,
        q: &[f64],
        gram: &Gram,
    ) -> Result<Vec<f64>> {
        let quadratic: Vec<f32> = match problem.device {
            Some(device) => device.quadratic_forms(self.coefficients(), self.y.rows, q)?,
            None => self
                .y
                .data
                .par_chunks(self.y.k * PANEL)
                .flat_map_iter(|y| {
                    let mut rows = vec![0.0; PANEL];
                    panel::quadratic_forms(&mut rows, y, gram);
                    rows
                })
                .collect(),
        };
        let (squares, fit) = (&problem.stats.row_squares, &self.sums.row_fit);
        Ok((0..squares.len())
            .map(|i| squares[i] - 2.0 * f64::from(fit[i]) + f64::from(quadratic[i]))
            .collect())
    }

    /// Z with unit columns for the original neurons, and the host's Y by feature (still multiplied by the
    /// weights of the rows), in the folder `scratch` if one is given. A column of zeros becomes a
    /// unit vector of its first neuron.
    ///
    /// # Errors
    /// [`crate::Error::Io`] for a folder without space.
    pub(crate) fn factors(
        &self,
        preprocessing: &Preprocessing,
        scratch: Option<&Path>,
    ) -> Result<(SparseColumns, ValueBuffer)> {
        let mut features = self.features.clone();
        let mut scales = preprocessing.restore_features(&mut features);
        // Before the first sweep there are coefficients but no columns.
        scales.resize(self.y.k, 1.0);
        for j in 0..features.columns() {
            let values = &mut features.values[features.offsets[j]..features.offsets[j + 1]];
            if values.iter().all(|v| *v == 0.0) {
                values[0] = 1.0;
            }
        }
        let mut coefficients = ValueBuffer::zeros(self.y.k * self.y.rows, scratch)?;
        self.y.write_by_feature(&scales, &mut coefficients);
        Ok((features, coefficients))
    }

    /// The features whose coefficients are all zero.
    pub(crate) fn unused_features(&self) -> Vec<usize> {
        (0..self.sums.totals.len())
            .filter(|&j| self.sums.totals[j] <= 0.0)
            .collect()
    }
}

/// The problem that a solver works on.
pub(crate) struct Problem<'p, 'a> {
    pub(crate) stream: &'p Stream<'a>,
    pub(crate) stats: &'p DataStats,
    /// s, the size of a feature's support.
    pub(crate) support_size: usize,
    /// λ, in the units of the prepared rows.
    pub(crate) penalty: f64,
    /// The most non-zero coefficients of a row.
    pub(crate) row_cap: Option<usize>,
    /// Whether each feature is locked.
    pub(crate) locked: &'p [bool],
    /// The device on which passes run; `None`: the CPU.
    pub(crate) device: Option<&'p Accelerator>,
}
