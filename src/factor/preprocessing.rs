//! How a fit sees the rows of A, and the way back.
//!
//! A row a becomes r·W·s·(a − centre): s is a power of two that keeps single precision out of
//! danger, W the weights of the neurons, r the weight of the row; what a fit does not ask for is 1.
//! Then A ≈ centre + YZᵀ with the columns of W⁻¹Z_seen brought to unit norm as Z and what that
//! takes as a factor of Y. Knows nothing of solvers. Invariant: s is exact, so that it changes no
//! bit of a result.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{SparseColumns, columns};

/// Root mean squares for which products of four values, and sums of them over all rows, stay inside
/// single precision.
const SAFE: RangeInclusive<f64> = 1.0 / 65536.0..=65536.0;
/// What is smaller than this, where the whole has a root mean square of about 1, counts as nothing:
/// 1 over it is still a number of single precision.
const LEAST: f64 = 1e-30;

/// What has to be the same for all rows that are fitted together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SharedScaling {
    /// A power of two.
    pub(crate) scale: f32,
    /// What each neuron is multiplied by.
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

/// How a fit sees the rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preprocessing {
    pub(crate) scaling: SharedScaling,
    /// The mean row, in the units of A.
    pub(crate) centre: Option<Arc<Vec<f32>>>,
    /// 1/‖row‖, and 0 for a row of zeros.
    pub(crate) weights: Option<Vec<f32>>,
}

impl Preprocessing {
    pub(super) fn is_plain(&self) -> bool {
        self.scaling == SharedScaling::default() && self.centre.is_none() && self.weights.is_none()
    }

    /// Puts whole rows, the first of number `first`, into the frame.
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

    /// Features of A as the fit sees them, columns of unit norm, and the factors that their
    /// coefficients take (those of the rows apart).
    pub(super) fn prepare_features(&self, features: &SparseColumns) -> (SparseColumns, Vec<f32>) {
        let scale = self.scaling.scale;
        match &self.scaling.neurons {
            None => (features.clone(), vec![scale; features.columns()]),
            Some(neurons) => {
                let (seen, norms) = weigh_columns(features, neurons);
                (
                    seen,
                    norms
                        .iter()
                        .map(|n| (n * f64::from(scale)) as f32)
                        .collect(),
                )
            }
        }
    }

    /// The way back: the fit's features in the neurons as they are, columns of unit norm, and the
    /// factors of their coefficients. A column of zeros stays, with the factor of the scale alone.
    pub(super) fn restore_features(&self, features: &mut SparseColumns) -> Vec<f32> {
        if let Some(neurons) = &self.scaling.neurons {
            for (v, &i) in features.values.iter_mut().zip(&features.indices) {
                let weight = neurons[i as usize];
                *v = if weight > 0.0 { *v / weight } else { 0.0 };
            }
        }
        let back = 1.0 / self.scaling.scale;
        let mut scales = columns::normalise(features);
        scales.iter_mut().for_each(|s| *s *= back);
        scales
    }
}

/// Columns with their entries times the weights of their neurons, at unit norm, and the norms that
/// they had. A column that is nothing then stays, with 0.
pub(super) fn weigh_columns(columns: &SparseColumns, weights: &[f32]) -> (SparseColumns, Vec<f64>) {
    let mut out = columns.clone();
    let mut norms = Vec::with_capacity(columns.columns());
    for j in 0..columns.columns() {
        let span = columns.offsets[j]..columns.offsets[j + 1];
        let products = |at: usize| {
            f64::from(columns.values[at]) * f64::from(weights[columns.indices[at] as usize])
        };
        let norm = span
            .clone()
            .map(|at| products(at).powi(2))
            .sum::<f64>()
            .sqrt();
        for at in span {
            out.values[at] = if norm > 0.0 {
                (products(at) / norm) as f32
            } else {
                0.0
            };
        }
        norms.push(norm);
    }
    (out, norms)
}

/// The power of two that brings values of this root mean square to about 1 where single precision
/// is in danger; else 1.
pub(crate) fn safe_scale(rms: f64) -> f32 {
    if rms == 0.0 || !rms.is_finite() || SAFE.contains(&rms) {
        return 1.0;
    }
    (-rms.log2().floor()).clamp(-126.0, 127.0).exp2() as f32
}

/// 1 / √square, and 0 for what is next to nothing.
pub(super) fn inverse_root(square: f64) -> f32 {
    let size = square.sqrt();
    if size > LEAST {
        size.recip() as f32
    } else {
        0.0
    }
}
