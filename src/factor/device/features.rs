//! Z on a device, and the HALS sweeps on the coefficients of a portion of the rows. Knows nothing
//! of activations.
//!
//! The step on feature j, with the relaxation ω, is
//! `y_j ← max(0, ω (p_j − λ − Σ_{l≠j} Q_jl y_l) / Q_jj + (1 − ω) y_j)`, which is
//! max(0, c_j + M_j · y) for c = ω (P − λ) / diag(Q) and a matrix M that follows from Q and ω.
//! Features are taken in tiles: the part of M_j · y that lies outside the tile is one product for the
//! whole tile, since it does not change while the tile is swept, and the part inside is a short one
//! for each feature. The order is that of a plain sweep, and so is the result; with tiles of √k
//! features a sweep reads 2 k √k values a row instead of k².

use candle_core::{DType, Device, Tensor};

use super::CoefficientSweeps;
use crate::error::Result;
use crate::factor::coefficient_step::RELAXATION;
use crate::factor::stream::densify;

/// Z and the matrices of a sweep that follow from it, on the device.
pub(super) struct DeviceFeatures {
    /// Zᵀ, k × d, a feature a row.
    pub(super) z: Tensor,
    /// The factor of each feature's coefficients before the sweeps, k × 1.
    pub(super) scales: Tensor,
    /// ω / Q_jj, and 0 for a column without norm, k × 1.
    gains: Tensor,
    /// M without the entries inside tiles, k × k.
    outside: Tensor,
    /// The entries of M inside each tile.
    tiles: Vec<Tensor>,
    /// A row of ones, 1 × k: its product with a matrix is the sum over features.
    ones: Tensor,
    penalty: f64,
    sweeps: usize,
}

impl DeviceFeatures {
    pub(super) fn new(step: &CoefficientSweeps<'_>, device: &Device) -> Result<Self> {
        let (k, d) = (step.scales.len(), step.features.rows);
        let relaxation = f64::from(RELAXATION);
        let gain = |j: usize| {
            let square = step.q[j * k + j];
            if square > f64::from(f32::MIN_POSITIVE) {
                relaxation / square
            } else {
                0.0
            }
        };
        let gains: Vec<f32> = (0..k).map(|j| gain(j) as f32).collect();
        let entry = |j: usize, l: usize| {
            if j == l {
                (1.0 - relaxation) as f32
            } else {
                (-gain(j) * step.q[j * k + l]) as f32
            }
        };
        let tile = tile_features(k);
        let mut outside = vec![0.0; k * k];
        for (at, v) in outside.iter_mut().enumerate() {
            let (j, l) = (at / k, at % k);
            if j / tile != l / tile {
                *v = entry(j, l);
            }
        }
        let inside = |first: usize| {
            let features = first..k.min(first + tile);
            let values: Vec<f32> = features
                .clone()
                .flat_map(|j| features.clone().map(move |l| (j, l)))
                .map(|(j, l)| entry(j, l))
                .collect();
            Tensor::from_vec(values, (features.len(), features.len()), device)
        };
        Ok(Self {
            z: Tensor::from_vec(densify(step.features), (k, d), device)?,
            scales: Tensor::from_slice(step.scales, (k, 1), device)?,
            gains: Tensor::from_vec(gains, (k, 1), device)?,
            outside: Tensor::from_vec(outside, (k, k), device)?,
            tiles: (0..k)
                .step_by(tile)
                .map(inside)
                .collect::<candle_core::Result<_>>()?,
            ones: Tensor::ones((1, k), DType::F32, device)?,
            penalty: f64::from(step.penalty),
            sweeps: step.sweeps,
        })
    }

    /// Runs the HALS sweeps on the coefficients `lines` (k × rows) in place; `p` is ZᵀAᵀ (k ×
    /// rows).
    pub(super) fn descend(&self, lines: &Tensor, p: &Tensor) -> Result<()> {
        let target = match self.penalty {
            0.0 => p.broadcast_mul(&self.gains)?,
            penalty => (p - penalty)?.broadcast_mul(&self.gains)?,
        };
        for _ in 0..self.sweeps {
            let mut first = 0;
            for tile in &self.tiles {
                let count = tile.dim(0)?;
                let mut base = target.narrow(0, first, count)?;
                if self.tiles.len() > 1 {
                    base = (base + self.outside.narrow(0, first, count)?.matmul(lines)?)?;
                }
                // This tensor is a view, so it contains each row of coefficients as soon as it is
                // set below.
                let own = lines.narrow(0, first, count)?;
                for i in 0..count {
                    let inside = tile.narrow(0, i, 1)?.matmul(&own)?;
                    let line = (base.narrow(0, i, 1)? + inside)?.relu()?;
                    lines.slice_set(&line, 0, first + i)?;
                }
                first += count;
            }
        }
        Ok(())
    }

    /// Σ_j P_ij Y_ij of each row, 1 × rows.
    pub(super) fn row_fit(&self, lines: &Tensor, p: &Tensor) -> Result<Tensor> {
        Ok(self.ones.matmul(&(lines * p)?)?)
    }
}

/// The number of features in a tile: √k, at which the products outside and inside tiles read
/// equally many values.
fn tile_features(k: usize) -> usize {
    ((k as f64).sqrt().round() as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::factor::SparseColumns;
    use crate::matrix::panel::{self, Gram, PANEL};

    #[test]
    fn sweeps_in_tiles_are_those_of_a_panel() {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.45;
        for (k, penalty) in [(1, 0.0), (2, 0.1), (7, 0.0), (16, 0.05), (23, 0.2)] {
            let d = 30;
            // One column without norm, where there are several.
            let entry = |j: usize, i: usize| {
                if j > 0 && j + 1 == k {
                    0.0
                } else {
                    value(j * d + i)
                }
            };
            let features = SparseColumns {
                rows: d,
                offsets: (0..=k).map(|j| j * d).collect(),
                indices: (0..k).flat_map(|_| 0..d as u32).collect(),
                values: (0..k * d).map(|at| entry(at / d, at % d)).collect(),
            };
            let q = crate::factor::columns::gram(&features);
            let scales: Vec<f32> = (0..k).map(|j| 0.5 + j as f32 / 10.0).collect();
            let step = CoefficientSweeps {
                features: &features,
                scales: &scales,
                q: &q,
                penalty,
                sweeps: 3,
            };
            let on_card = DeviceFeatures::new(&step, &Device::Cpu).unwrap();
            let mut y: Vec<f32> = (0..k * PANEL).map(|i| value(i + 7).max(0.0)).collect();
            let p: Vec<f32> = (0..k * PANEL).map(|i| 2.0 * value(i + 3)).collect();
            let lines = Tensor::from_slice(&y, (k, PANEL), &Device::Cpu).unwrap();
            let lines = lines.broadcast_mul(&on_card.scales).unwrap();
            let on_device = Tensor::from_slice(&p, (k, PANEL), &Device::Cpu).unwrap();
            on_card.descend(&lines, &on_device).unwrap();
            let gram = Gram::from_dense(&q, k);
            panel::scale_lines(&mut y, &scales);
            for _ in 0..3 {
                panel::hals_sweep(&mut y, &p, &gram, penalty, RELAXATION);
            }
            let found: Vec<f32> = lines.flatten_all().unwrap().to_vec1().unwrap();
            let size = y.iter().fold(0f32, |m, v| m.max(*v));
            assert!(size > 0.0);
            for (a, b) in y.iter().zip(&found) {
                assert!((a - b).abs() <= 1e-5 * size, "{k}: {a} and {b}");
            }
        }
    }
}
