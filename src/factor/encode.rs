//! Encoding of new rows on fixed features: min_{y ≥ 0} ‖W(a − centre − Zy)‖² for each row a, W being
//! the neuron weights of the fit. The fit's penalty is left out, since it would only shrink the
//! coefficients; its cap on the features of a row is kept. The weights of rows do not change the
//! minimum.
//!
//! Invariant: c·a has c times the coefficients of a for every c > 0.
//!
//! A few HALS sweeps over panels in f32 find an active set close to the solution's; a primal
//! active-set method (Lawson, Hanson 1974, with a warm start) in f64 makes the solution exact. All
//! of it runs on the CPU: the products with sparse features, which a GPU would speed up, are the
//! smallest part of the work. Knows nothing of fits.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rayon::prelude::*;

use super::coefficient_step;
use super::columns;
use super::preprocessing;
use super::{Coding, Factors, SparseColumns};
use crate::activations::Block;
use crate::error::{Error, Result};
use crate::matrix::cholesky::UpdatableCholesky;
use crate::matrix::panel::{self, Gram, PANEL};
use crate::task::TaskCtx;

/// HALS sweeps before the active set is read from the coefficients.
const WARM_SWEEPS: usize = 24;
/// A gradient below this share of its row's largest projection counts as zero.
const TOLERANCE: f64 = 1e-7;
/// Rows whose largest magnitude lies in this range are encoded unscaled; others are scaled first,
/// so that products stay within single precision.
const SAFE: RangeInclusive<f32> = 1e-15..=1e15;
/// Added to the diagonal of ZᵀZ, relative to it, so that systems with equal features can be solved.
const RIDGE: f64 = 1e-12;
/// The smallest pivot of the Cholesky factor of such a system.
const PIVOT: f64 = 1e-14;

/// Encodes rows on fixed features; holds ZᵀZ and everything else that does not depend on the rows.
pub struct Encoder {
    features: SparseColumns,
    /// The columns that a row is projected on: Z, or W²Z divided by the norms of WZ.
    projection: SparseColumns,
    /// The norms of the columns of WZ, by which coefficients are divided; `None`: 1.
    norms: Option<Vec<f64>>,
    /// ZᵀZ, or with neuron weights that of WZ scaled to unit columns; k × k, row-major.
    q: Vec<f64>,
    gram: Gram,
    row_cap: Option<usize>,
    centre: Option<Arc<Vec<f32>>>,
    /// The products of the centre with the columns of `projection`; k values, 0 without a centre.
    offsets: Vec<f64>,
}

impl Encoder {
    /// An encoder on unit columns, without centre, weights or cap.
    pub fn new(features: SparseColumns) -> Self {
        Self::with_coding(features, &Coding::default())
    }

    /// An encoder on the features of a fit, with its coding.
    pub fn from_factors(factors: &Factors) -> Self {
        Self::with_coding(factors.features.clone(), &factors.coding)
    }

    /// An encoder on unit columns with a centre, neuron weights and a cap.
    pub fn with_coding(features: SparseColumns, coding: &Coding) -> Self {
        let (projection, norms, q) = match &coding.neuron_weights {
            None => (features.clone(), None, columns::gram(&features)),
            Some(weights) => {
                let (weighted, norms) = preprocessing::weigh_columns(&features, weights);
                let q = columns::gram(&weighted);
                let mut projection = weighted;
                let entries = projection.values.iter_mut().zip(&projection.indices);
                entries.for_each(|(v, &i)| *v *= weights[i as usize]);
                (projection, Some(norms), q)
            }
        };
        let gram = Gram::from_dense(&q, features.columns().max(1));
        let row_cap = coding.row_cap.filter(|&cap| cap < features.columns());
        let centre = coding.centre.clone();
        let offsets = vec![0.0; features.columns()];
        let mut encoder = Self {
            features,
            projection,
            norms,
            q,
            gram,
            row_cap,
            centre,
            offsets,
        };
        if let Some(centre) = &coding.centre {
            encoder.offsets = (0..encoder.offsets.len())
                .map(|j| encoder.dot(centre, j))
                .collect();
        }
        encoder
    }

    /// The features on which rows are encoded.
    pub fn features(&self) -> &SparseColumns {
        &self.features
    }

    /// The mean row that is subtracted before encoding, of length d.
    pub fn centre(&self) -> Option<&[f32]> {
        self.centre.as_ref().map(|c| c.as_slice())
    }

    /// The coefficients of each row, row-major `[rows, k]`: the non-negative least squares solution, exact
    /// to a relative 1e-6. A solution with more features than the cap is replaced by the exact solution
    /// on the features that greedy pursuit chooses.
    ///
    /// # Errors
    /// [`Error::Usage`] if the rows are not as wide as the features; [`Error::Cancelled`].
    pub fn encode(&self, block: &Block<'_>, ctx: &TaskCtx) -> Result<Vec<f32>> {
        let (k, d) = (self.features.columns(), self.features.rows);
        if block.cols != d {
            return Err(Error::usage(format!(
                "rows of {} neurons cannot be read on features of {d}",
                block.cols
            )));
        }
        let mut out = vec![0.0; block.rows * k];
        if k == 0 || d == 0 {
            return Ok(out);
        }
        block.data[..block.rows * d]
            .par_chunks(PANEL * d)
            .zip(out.par_chunks_mut(PANEL * k))
            .try_for_each(|(rows, out)| self.encode_panel(rows, out, ctx))?;
        Ok(out)
    }

    fn encode_panel(&self, rows: &[f32], out: &mut [f32], ctx: &TaskCtx) -> Result<()> {
        let (k, d) = (self.features.columns(), self.features.rows);
        let mut panel = vec![0.0; d * PANEL];
        let mut p = vec![0.0; k * PANEL];
        let mut y = vec![0.0; k * PANEL];
        let (rows, scales) = rescale_rows(rows, d);
        panel::transpose(&mut panel, &rows, d);
        let Self {
            projection,
            offsets,
            ..
        } = self;
        panel::project(
            &mut p,
            &panel,
            &projection.offsets,
            &projection.indices,
            &projection.values,
        );
        for (line, &offset) in p.chunks_exact_mut(PANEL).zip(offsets) {
            line.iter_mut()
                .zip(&scales)
                .for_each(|(v, scale)| *v -= (offset * scale) as f32);
        }
        for _ in 0..WARM_SWEEPS {
            panel::hals_sweep(&mut y, &p, &self.gram, 0.0, coefficient_step::RELAXATION);
        }
        let mut solver = ActiveSet::new(&self.q, k);
        for (r, (line, row)) in out
            .chunks_exact_mut(k)
            .zip(rows.chunks_exact(d))
            .enumerate()
        {
            ctx.check()?;
            for j in 0..k {
                solver.target[j] = self.dot(row, j) - offsets[j] * scales[r];
                // The centre times the scale of a tiny row may exceed single precision; the solver
                // then starts from 0.
                let start = f64::from(y[j * PANEL + r]);
                solver.x[j] = if start.is_finite() { start } else { 0.0 };
            }
            solver.solve();
            if let Some(cap) = self.row_cap.filter(|&cap| solver.passive.len() > cap) {
                solver.solve_capped(&self.gram, cap);
            }
            for (j, (o, &x)) in line.iter_mut().zip(&solver.x).enumerate() {
                // A column that the weights make zero has no coefficient; features that cancel each
                // other may have one beyond single precision.
                let norm = self.norms.as_ref().map_or(1.0, |norms| norms[j]);
                let most = f64::from(f32::MAX);
                *o = if norm > 0.0 {
                    (x / norm / scales[r]).min(most) as f32
                } else {
                    0.0
                };
            }
        }
        Ok(())
    }

    /// The product of column j of `projection` with a row, in f64.
    fn dot(&self, row: &[f32], j: usize) -> f64 {
        let (indices, values) = self.projection.column(j);
        indices
            .iter()
            .zip(values)
            .map(|(&i, &v)| f64::from(row[i as usize]) * f64::from(v))
            .sum()
    }
}

/// The rows, each multiplied by a power of two if its products could leave single precision, and these
/// powers.
fn rescale_rows(rows: &[f32], d: usize) -> (Cow<'_, [f32]>, Vec<f64>) {
    let scale = |row: &[f32]| {
        let size = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        if size == 0.0 || SAFE.contains(&size) || !size.is_finite() {
            1.0
        } else {
            (-f64::from(size).log2().floor())
                .clamp(-126.0, 127.0)
                .exp2()
        }
    };
    let scales: Vec<f64> = rows.chunks_exact(d).map(scale).collect();
    let mut rows = Cow::Borrowed(rows);
    for (i, &scale) in scales.iter().enumerate().filter(|(_, s)| **s != 1.0) {
        rows.to_mut()[i * d..(i + 1) * d]
            .iter_mut()
            .for_each(|v| *v *= scale as f32);
    }
    (rows, scales)
}

/// An active-set solver of min_{x ≥ 0} ½ xᵀQx − pᵀx that starts from a feasible `x`.
struct ActiveSet<'q> {
    /// The matrix Q of the objective, k × k, row-major.
    q: &'q [f64],
    k: usize,
    /// The vector p of the objective, k values.
    target: Vec<f64>,
    x: Vec<f64>,
    /// The indices of the variables that are free, in the order in which they were added; all
    /// others are 0.
    passive: Vec<usize>,
    /// The factor of Q restricted to the passive set.
    factor: UpdatableCholesky,
    solution: Vec<f64>,
}

impl<'q> ActiveSet<'q> {
    fn new(q: &'q [f64], k: usize) -> Self {
        let (target, x) = (vec![0.0; k], vec![0.0; k]);
        Self {
            q,
            k,
            target,
            x,
            passive: Vec::new(),
            factor: UpdatableCholesky::new(k),
            solution: Vec::new(),
        }
    }

    /// Solves from the present `x`: its positive entries are the first passive set.
    fn solve(&mut self) {
        let k = self.k;
        let size = self.target.iter().fold(0.0f64, |m, p| m.max(p.abs()));
        self.clear();
        for j in 0..k {
            if self.q[j * k + j] <= 0.0 {
                self.x[j] = 0.0;
            } else if self.x[j] > 0.0 {
                self.add(j);
            }
        }
        // Each round lowers the objective, so no passive set repeats; the bound only matters if
        // rounding prevents that.
        for _ in 0..10 * k + 10 {
            self.descend();
            match self.steepest(TOLERANCE * size) {
                Some(j) => self.add(j),
                None => return,
            }
        }
    }

    /// Solves on the features that greedy pursuit chooses, at most `cap`.
    fn solve_capped(&mut self, gram: &Gram, cap: usize) {
        let mut descent: Vec<f32> = self.target.iter().map(|&v| v as f32).collect();
        let mut chosen = vec![0.0; self.k];
        self.clear();
        coefficient_step::matching_pursuit(&mut descent, &mut chosen, gram, cap)
            .into_iter()
            .for_each(|j| self.add(j));
        self.x
            .iter_mut()
            .zip(&chosen)
            .for_each(|(x, &c)| *x = f64::from(c));
        self.descend();
    }

    /// Moves `x` to the least squares solution on the passive set. A variable that would become negative
    /// on the way stops the move at 0 and leaves the set.
    fn descend(&mut self) {
        while !self.passive.is_empty() {
            self.least_squares();
            let step = self
                .passive
                .iter()
                .zip(&self.solution)
                .filter(|(_, s)| **s <= 0.0)
                .map(|(&j, &s)| self.x[j] / (self.x[j] - s).max(f64::MIN_POSITIVE))
                .fold(1.0, f64::min);
            for (&j, &s) in self.passive.iter().zip(&self.solution) {
                self.x[j] += step * (s - self.x[j]);
            }
            if step >= 1.0 {
                return;
            }
            let before = self.passive.len();
            for i in (0..before).rev() {
                let (x, solution) = (self.x[self.passive[i]], self.solution[i]);
                if solution <= 0.0 && x <= 1e-14 * solution.abs() {
                    self.remove(i);
                }
            }
            if before == self.passive.len() {
                // Rounding kept the blocking variable slightly above zero: it is removed all the same,
                // or the loop would not end.
                if let Some(i) = (0..before)
                    .filter(|&i| self.solution[i] <= 0.0)
                    .min_by(|&a, &b| self.x[self.passive[a]].total_cmp(&self.x[self.passive[b]]))
                {
                    self.remove(i);
                }
            }
        }
    }

    /// Computes the unconstrained minimum on the passive set into `solution`.
    fn least_squares(&mut self) {
        self.solution.clear();
        self.solution
            .extend(self.passive.iter().map(|&j| self.target[j]));
        self.factor.solve(&mut self.solution);
    }

    /// Empties the passive set.
    fn clear(&mut self) {
        self.passive.clear();
        self.factor.clear();
    }

    /// Adds feature `j` to the passive set.
    fn add(&mut self, j: usize) {
        let line = &self.q[j * self.k..(j + 1) * self.k];
        self.factor.push(
            self.passive.iter().map(|&l| line[l]),
            line[j] * (1.0 + RIDGE),
            PIVOT,
        );
        self.passive.push(j);
    }

    /// Sets the passive variable at position `at` to 0 and removes it from the set.
    fn remove(&mut self, at: usize) {
        self.x[self.passive.remove(at)] = 0.0;
        self.factor.remove(at);
    }

    /// The feature outside the passive set with the largest negative gradient, p − Qx, if it exceeds
    /// `least`.
    fn steepest(&self, least: f64) -> Option<usize> {
        let k = self.k;
        let mut gradient = self.target.clone();
        for &j in &self.passive {
            for (g, q) in gradient.iter_mut().zip(&self.q[j * k..(j + 1) * k]) {
                *g -= q * self.x[j];
            }
        }
        for &j in &self.passive {
            gradient[j] = 0.0;
        }
        (0..k)
            .filter(|&j| self.q[j * k + j] > 0.0 && gradient[j] > least)
            .max_by(|&a, &b| gradient[a].total_cmp(&gradient[b]))
    }
}
