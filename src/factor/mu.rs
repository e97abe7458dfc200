//! The solver `mu`: the multiplicative updates of semi-NMF (Ding, Li, Jordan 2010) with
//! hard-thresholded columns of Z, step by step as in Shafran, Geiger, Geva (arXiv 2506.10920). It
//! is the reference for the other solver.
//!
//! One iteration: Z ← AᵀY (YᵀY + εI)⁻¹; each column of Z keeps its ⌈p·d⌉ entries of largest
//! magnitude; the columns of Y are scaled to unit norm and Z takes their norms; then Y ← Y ∘
//! sqrt((P⁺ + Y Q⁻) / (P⁻ + Y Q⁺ + ε)) with P = AZ and Q = ZᵀZ. The error may rise.
//!
//! For activations with the root mean square σ, Z is proportional to σ, P and Q to σ², and Y has no
//! unit. The step on Y therefore takes ε·σ², which gives the iterates of A/σ.

use super::columns;
use super::pass::{Columns, Gather};
use super::state::{HeldProducts, Problem, State};
use crate::error::Result;
use crate::matrix::dense;
use crate::matrix::panel::{self, Gram};
use crate::task::TaskCtx;

/// ε for activations of unit root mean square; the step on Y multiplies it by their mean square,
/// that on Z does not.
const EPSILON: f64 = 1e-6;
/// The smallest norm that a column of Y is divided by, which avoids a division by zero.
const LEAST_NORM: f64 = 1e-8;

/// One iteration: computes `next` from `state`, whose sums hold all of AᵀY.
///
/// # Errors
/// [`crate::Error::Cancelled`], and errors of the source.
pub(crate) fn sweep(
    problem: &Problem<'_, '_>,
    state: &State,
    next: &mut State,
    ctx: &TaskCtx,
) -> Result<()> {
    let (k, d) = (state.y.k, problem.stream.d);
    let sums = &state.sums;
    let z = dense::solve_symmetric(&sums.gram, k, EPSILON, &sums.products, d);
    let mut features = columns::truncate(&z, d, problem.support_size);
    let norms: Vec<f64> = (0..k)
        .map(|j| sums.gram[j * k + j].max(0.0).sqrt().max(LEAST_NORM))
        .collect();
    for (values, norm) in features
        .values
        .chunks_exact_mut(problem.support_size)
        .zip(&norms)
    {
        values
            .iter_mut()
            .for_each(|v| *v = (f64::from(*v) * norm) as f32);
    }
    let scales: Vec<f32> = norms.iter().map(|n| (1.0 / n) as f32).collect();
    let q = columns::gram(&features);
    let gram = Gram::from_dense(&q, k);
    let epsilon = (EPSILON * problem.stats.rms.powi(2)) as f32;
    let update = |y: &mut [f32], p: &[f32]| {
        panel::scale_lines(y, &scales);
        let before = y.to_vec();
        panel::multiplicative_step(y, &before, p, &gram, epsilon);
    };
    let columns = Columns::Sparse(&features);
    problem.stream.pass(
        ctx,
        &state.y,
        &mut next.y,
        &columns,
        Gather::Dense,
        &mut next.sums,
        &update,
    )?;
    next.held = HeldProducts::All;
    next.features = features;
    next.update_errors(problem, &q, &gram)
}
