//! What a solver carries from one sweep to the next.

use std::path::Path;

use rayon::prelude::*;

use super::SparseColumns;
use super::data_stats::DataStats;
use super::device::Accelerator;
use super::panels::Panels;
use super::pass::PassSums;
use super::preprocessing::Preprocessing;
use super::stream::Stream;
use super::value_buffer::ValueBuffer;
use crate::error::Result;
use crate::matrix::panel::{self, Gram, PANEL};

/// Which part of AᵀY the sums hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum HeldProducts {
    /// All of it.
    #[default]
    All,
    /// One value for each entry of the features.
    Entries,
}

/// Factors and the sums that belong to them. A sweep writes a new one, so that a cancelled sweep
/// changes nothing.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Z; empty before the first sweep.
    pub(crate) features: SparseColumns,
    /// Y.
    pub(crate) y: Panels,
    /// AᵀY, YᵀY and the like, of this Y.
    pub(crate) sums: PassSums,
    /// What `sums.products` holds.
    pub(crate) held: HeldProducts,
    /// ‖A − YZᵀ‖² of the rows as they are; where neurons are scaled, of the rows as the fit sees
    /// them.
    pub(crate) error: f64,
    /// What the sweeps lower: the squared error of the rows as the fit sees them, plus 2λΣY where
    /// there is a penalty.
    pub(crate) objective: f64,
}

impl State {
    /// Coefficients without features yet.
    pub(crate) fn new(y: Panels, sums: PassSums) -> Self {
        let features = SparseColumns::default();
        Self {
            features,
            y,
            sums,
            held: HeldProducts::All,
            error: f64::INFINITY,
            objective: f64::INFINITY,
        }
    }

    /// Becomes a copy of `other`, of as many features and rows, in its own room.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.features.clone_from(&other.features);
        self.y.copy_from(&other.y);
        self.sums.clone_from(&other.sums);
        (self.held, self.error, self.objective) = (other.held, other.error, other.objective);
    }

    /// Takes the error by the identity ‖A − YZᵀ‖² = ‖A‖² − 2 Σ P∘Y + tr(ZᵀZ · YᵀY); `q` is ZᵀZ.
    /// Where rows have weights and neurons have none, by the same identity of each row, which is
    /// then divided by its squared weight.
    pub(crate) fn update_errors(&mut self, problem: &Problem<'_, '_>, q: &[f64], gram: &Gram) {
        let quadratic: f64 = q.iter().zip(&self.sums.gram).map(|(a, b)| a * b).sum();
        let prepared = (problem.stats.prepared_square - 2.0 * self.sums.fit + quadratic).max(0.0);
        self.objective = prepared + 2.0 * problem.penalty * self.sums.totals.iter().sum::<f64>();
        let preprocessing = &problem.stream.preprocessing;
        self.error = match &preprocessing.weights {
            Some(weights) if preprocessing.scaling.neurons.is_none() => {
                let errors = self.row_errors(problem.stats, gram);
                let whole = |(&w, e): (&f32, &f64)| {
                    if w > 0.0 {
                        e.max(0.0) / f64::from(w).powi(2)
                    } else {
                        0.0
                    }
                };
                weights.iter().zip(&errors).map(whole).sum()
            }
            _ => prepared,
        };
    }

    /// The squared error of the rows as the fit sees them, under a penalty λ.
    pub(crate) fn prepared_error(&self, penalty: f64) -> f64 {
        self.objective - 2.0 * penalty * self.sums.totals.iter().sum::<f64>()
    }

    /// ‖a − Zy‖² of each row as the fit sees it, from what the last pass kept: ‖a‖² − 2 yᵀp + yᵀQy.
    pub(crate) fn row_errors(&self, stats: &DataStats, gram: &Gram) -> Vec<f64> {
        let quadratic: Vec<f32> = self
            .y
            .data
            .par_chunks(self.y.k * PANEL)
            .flat_map_iter(|y| {
                let mut rows = vec![0.0; PANEL];
                panel::quadratic_forms(&mut rows, y, gram);
                rows
            })
            .collect();
        let (squares, fit) = (&stats.row_squares, &self.sums.row_fit);
        (0..squares.len())
            .map(|i| squares[i] - 2.0 * f64::from(fit[i]) + f64::from(quadratic[i]))
            .collect()
    }

    /// Features of the neurons as they are, with unit columns, and the coefficients by feature (but
    /// for the weights of rows), in the folder `scratch` where one is given; a column of zeros
    /// becomes its first neuron alone.
    pub(crate) fn factors(
        &self,
        preprocessing: &Preprocessing,
        scratch: Option<&Path>,
    ) -> Result<(SparseColumns, ValueBuffer)> {
        let mut features = self.features.clone();
        let mut scales = preprocessing.restore_features(&mut features);
        // Before the first sweep there are coefficients and no columns.
        scales.resize(self.y.k, 1.0);
        for j in 0..features.columns() {
            let values = &mut features.values[features.offsets[j]..features.offsets[j + 1]];
            if values.iter().all(|v| *v == 0.0) {
                values[0] = 1.0;
            }
        }
        let mut coefficients = ValueBuffer::zeros(self.y.k * self.y.rows, scratch)?;
        self.y.to_features(&scales, &mut coefficients);
        Ok((features, coefficients))
    }

    /// Features that no row uses.
    pub(crate) fn unused_features(&self) -> Vec<usize> {
        (0..self.sums.totals.len())
            .filter(|&j| self.sums.totals[j] <= 0.0)
            .collect()
    }
}

/// What every solver works with.
pub(crate) struct Problem<'p, 'a> {
    pub(crate) stream: &'p Stream<'a>,
    pub(crate) stats: &'p DataStats,
    /// s, the entries a column keeps.
    pub(crate) support_size: usize,
    /// λ in the units of the rows.
    pub(crate) penalty: f64,
    /// The most features of a row.
    pub(crate) row_cap: Option<usize>,
    /// Features that stay as they are.
    pub(crate) locked: &'p [bool],
    /// Where passes run; `None`: here.
    pub(crate) device: Option<&'p Accelerator>,
}
