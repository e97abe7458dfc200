//! New rows on a fixed basis: min_{y ≥ 0} ‖a − Zy‖² for each row a.
//!
//! A few coordinate descent sweeps over panels find the active set; a primal active-set method (Lawson, Hanson 1974, from
//! a warm start) in f64 makes it exact. Knows nothing of fits.

use rayon::prelude::*;

use super::columns;
use crate::activations::Block;
use crate::error::{Error, Result};
use crate::factor::SparseColumns;
use crate::matrix::cholesky;
use crate::matrix::panel::{self, Gram, PANEL};
use crate::task::TaskCtx;

/// Coordinate descent sweeps before the active set is taken.
const WARM_SWEEPS: usize = 24;
/// A gradient below this share of the largest projection of its row counts as zero.
const TOLERANCE: f64 = 1e-7;

/// Encodes rows on fixed features; holds ZᵀZ and what else can be computed once.
pub struct Encoder {
    features: SparseColumns,
    q: Vec<f64>,
    gram: Gram,
}

impl Encoder {
    /// Prepares ZᵀZ of unit columns.
    pub fn new(features: SparseColumns) -> Self {
        let q = columns::gram(&features);
        let gram = Gram::from_dense(&q, features.columns().max(1));
        Self { features, q, gram }
    }

    /// The features that rows are read on.
    pub fn features(&self) -> &SparseColumns {
        &self.features
    }

    /// Coefficients of each row, row-major `[rows, k]`: the exact non-negative least squares solution to `1e-6`
    /// relative.
    ///
    /// # Errors
    /// [`Error::Usage`] when the rows are not as wide as the features, [`Error::Cancelled`].
    pub fn encode(&self, block: &Block<'_>, ctx: &TaskCtx) -> Result<Vec<f32>> {
        let (k, d) = (self.features.columns(), self.features.rows);
        if block.cols != d {
            return Err(Error::usage(format!("rows of {} neurons cannot be read on features of {d}", block.cols)));
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
        panel::transpose(&mut panel, rows, d);
        panel::project(&mut p, &panel, &self.features.offsets, &self.features.indices, &self.features.values);
        for _ in 0..WARM_SWEEPS {
            panel::hals(&mut y, &p, &self.gram, 0.0);
        }
        let mut solver = ActiveSet::new(&self.q, k);
        for (r, (line, row)) in out.chunks_exact_mut(k).zip(rows.chunks_exact(d)).enumerate() {
            ctx.check()?;
            for j in 0..k {
                solver.target[j] = self.project_row(row, j);
                solver.x[j] = f64::from(y[j * PANEL + r]);
            }
            solver.solve();
            for (o, &x) in line.iter_mut().zip(&solver.x) {
                *o = x as f32;
            }
        }
        Ok(())
    }

    /// z_j · a in f64.
    fn project_row(&self, row: &[f32], j: usize) -> f64 {
        let (indices, values) = self.features.column(j);
        indices.iter().zip(values).map(|(&i, &v)| f64::from(row[i as usize]) * f64::from(v)).sum()
    }
}

/// min_{x ≥ 0} ½ xᵀQx − pᵀx from a feasible `x`.
struct ActiveSet<'q> {
    q: &'q [f64],
    k: usize,
    target: Vec<f64>,
    x: Vec<f64>,
    passive: Vec<usize>,
    matrix: Vec<f64>,
    solution: Vec<f64>,
}

impl<'q> ActiveSet<'q> {
    fn new(q: &'q [f64], k: usize) -> Self {
        let (target, x) = (vec![0.0; k], vec![0.0; k]);
        Self { q, k, target, x, passive: Vec::new(), matrix: Vec::new(), solution: Vec::new() }
    }

    fn solve(&mut self) {
        let k = self.k;
        let size = self.target.iter().fold(0.0f64, |m, p| m.max(p.abs()));
        self.passive.clear();
        self.passive.extend((0..k).filter(|&j| self.x[j] > 0.0 && self.q[j * k + j] > 0.0));
        for j in 0..k {
            if self.q[j * k + j] <= 0.0 {
                self.x[j] = 0.0;
            }
        }
        // Each round lowers the objective, so none repeats; the bound only guards against rounding.
        for _ in 0..10 * k + 10 {
            self.descend();
            match self.steepest(TOLERANCE * size) {
                Some(j) => self.passive.push(j),
                None => return,
            }
        }
    }

    /// Least squares on the passive set; what would turn negative on the way there leaves the set.
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
            let (x, solution) = (&mut self.x, &self.solution);
            let mut at = 0;
            self.passive.retain(|&j| {
                let leaves = solution[at] <= 0.0 && x[j] <= 1e-14 * solution[at].abs();
                at += 1;
                if leaves {
                    x[j] = 0.0;
                }
                !leaves
            });
            if at == self.passive.len() {
                // Rounding kept the blocking entry a hair above zero: it leaves by force.
                if let Some(i) = (0..at)
                    .filter(|&i| self.solution[i] <= 0.0)
                    .min_by(|&a, &b| self.x[self.passive[a]].total_cmp(&self.x[self.passive[b]]))
                {
                    self.x[self.passive[i]] = 0.0;
                    self.passive.remove(i);
                }
            }
        }
    }

    fn least_squares(&mut self) {
        let m = self.passive.len();
        self.matrix.clear();
        for &a in &self.passive {
            let line = &self.q[a * self.k..(a + 1) * self.k];
            self.matrix.extend(self.passive.iter().map(|&b| line[b]));
        }
        for a in 0..m {
            self.matrix[a * m + a] *= 1.0 + 1e-12;
        }
        self.solution.clear();
        self.solution.extend(self.passive.iter().map(|&j| self.target[j]));
        cholesky::factor(&mut self.matrix, m, 1e-14);
        cholesky::solve(&self.matrix, m, &mut self.solution);
    }

    /// The feature outside the passive set whose rise lowers the objective most, if any does by more than `least`.
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
