//! The preprocessing of the rows of A before a fit, and its inverse on the results.
//!
//! A row a becomes r·W·s·(a − centre): s is a power of two that keeps products inside the range of
//! single precision, W the diagonal matrix of the neuron weights, r the weight of the row; each is 1
//! (and the centre 0) unless the fit asks for it. From the factors of the prepared rows A ≈ centre +
//! YZᵀ follows: Z holds the columns of W⁻¹Z_prepared scaled to unit norm, and Y takes their norms.
//! Knows nothing of solvers. Invariant: s is a power of two, so that scaling by it is exact and
//! changes no bit of a result.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{SparseColumns, columns};

/// The root mean squares that need no scaling, because products of four values and their sums over
/// all rows stay inside the range of single precision.
const SAFE: RangeInclusive<f64> = 1.0 / 65536.0..=65536.0;
/// A norm below this counts as zero where the root mean square is about 1; its inverse is still within
/// single precision.
const LEAST: f64 = 1e-30;

/// The part of the preprocessing that must be the same for all rows whose sums are added together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SharedScaling {
    /// s, a power of two.
    pub(crate) scale: f32,
    /// W: the factor of each of the d neurons; `None`: 1.
    pub(crate) neurons: Option<Arc<Vec<f32>>>,
}

impl Default for SharedScaling {
    fn default() -> Self {
        Self {
            scale: 1.0,
            neurons: None,
        }
    }
}

/// The preprocessing of a fit; the default changes nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preprocessing {
    pub(crate) scaling: SharedScaling,
    /// The mean row in the units of A, of length d; `None`: nothing is subtracted.
    pub(crate) centre: Option<Arc<Vec<f32>>>,
    /// r: 1/‖row‖ for each row, and 0 for a row of zeros; `None`: 1.
    pub(crate) weights: Option<Vec<f32>>,
}

impl Preprocessing {
    /// Whether rows are not changed, so that a pass may borrow them from the source.
    pub(super) fn is_plain(&self) -> bool {
        self.scaling == SharedScaling::default() && self.centre.is_none() && self.weights.is_none()
    }

    /// Prepares whole rows of `d` values in place; the first has the index `first`.
    pub(super) fn apply(&self, rows: &mut [f32], first: usize, d: usize) {
        let scale = self.scaling.scale;
        for (i, row) in rows.chunks_exact_mut(d).enumerate() {
            if scale != 1.0 {
                row.iter_mut().for_each(|v| *v *= scale);
            }
            if let Some(centre) = &self.centre {
                row.iter_mut()
                    .zip(centre.iter())
                    .for_each(|(v, c)| *v -= c * scale);
            }
            if let Some(neurons) = &self.scaling.neurons {
                row.iter_mut()
                    .zip(neurons.iter())
                    .for_each(|(v, w)| *v *= w);
            }
            if let Some(weights) = &self.weights {
                let weight = weights[first + i];
                row.iter_mut().for_each(|v| *v *= weight);
            }
        }
    }

    /// The features of prepared rows for given features of A: unit columns, and for each column the
    /// factor of its coefficients (without the weights of the rows).
    pub(super) fn prepare_features(&self, features: &SparseColumns) -> (SparseColumns, Vec<f32>) {
        let scale = self.scaling.scale;
        match &self.scaling.neurons {
            None => (features.clone(), vec![scale; features.columns()]),
            Some(neurons) => {
                let (weighted, norms) = weigh_columns(features, neurons);
                (
                    weighted,
                    norms
                        .iter()
                        .map(|n| (n * f64::from(scale)) as f32)
                        .collect(),
                )
            }
        }
    }

    /// The inverse of [`Self::prepare_features`], in place: unit columns for the original neurons, and
    /// for each column the factor of its coefficients. A column of zeros stays, with the factor 1/s.
    pub(super) fn restore_features(&self, features: &mut SparseColumns) -> Vec<f32> {
        if let Some(neurons) = &self.scaling.neurons {
            for (v, &i) in features.values.iter_mut().zip(&features.indices) {
                let weight = neurons[i as usize];
                *v = if weight > 0.0 { *v / weight } else { 0.0 };
            }
        }
        let inverse = 1.0 / self.scaling.scale;
        let mut scales = columns::normalise(features);
        scales.iter_mut().for_each(|s| *s *= inverse);
        scales
    }
}

/// WZ with its columns scaled to unit norm, and their norms before. A column that W makes zero stays
/// zero, with the norm 0.
pub(super) fn weigh_columns(columns: &SparseColumns, weights: &[f32]) -> (SparseColumns, Vec<f64>) {
    let mut out = columns.clone();
    let mut norms = Vec::with_capacity(columns.columns());
    for j in 0..columns.columns() {
        let span = columns.offsets[j]..columns.offsets[j + 1];
        let weighted_value = |position: usize| {
            f64::from(columns.values[position])
                * f64::from(weights[columns.indices[position] as usize])
        };
        let norm = span
            .clone()
            .map(|at| weighted_value(at).powi(2))
            .sum::<f64>()
            .sqrt();
        for at in span {
            out.values[at] = if norm > 0.0 {
                (weighted_value(at) / norm) as f32
            } else {
                0.0
            };
        }
        norms.push(norm);
    }
    (out, norms)
}

/// The power of two that scales values of the root mean square `rms` to about 1 if their products
/// could leave the range of single precision; otherwise 1.
pub(crate) fn safe_scale(rms: f64) -> f32 {
    if rms == 0.0 || !rms.is_finite() || SAFE.contains(&rms) {
        return 1.0;
    }
    (-rms.log2().floor()).clamp(-126.0, 127.0).exp2() as f32
}

/// 1 / √square, and 0 if √square counts as zero.
pub(super) fn inverse_root(square: f64) -> f32 {
    let size = square.sqrt();
    if size > LEAST {
        size.recip() as f32
    } else {
        0.0
    }
}
