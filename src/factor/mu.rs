//! The paper's multiplicative updates (Ding, Li, Jordan 2010, with winner-take-all columns of Z),
//! step for step: Z ← AᵀY (YᵀY + εI)⁻¹; the ⌈p·d⌉ largest |entries| of each column stay; columns of
//! Y to unit norm, their scale to Z; Y ← Y ∘ sqrt((P⁺ + Y Q⁻) / (P⁻ + Y Q⁺ + ε)), P = AZ, Q = ZᵀZ.
//! The reference that the other solver is held against.
//!
//! As A is scaled to unit root mean square σ: Z has σ, P and Q have σ², and Y has no unit, so that
//! ε is taken times σ² in the step on Y, which is the same to the bit as dividing A.

use super::columns;
use super::pass::{Columns, Gather};
use super::state::{HeldProducts, Problem, State};
use crate::error::Result;
use crate::matrix::panel::{self, Gram};
use crate::task::TaskCtx;

/// ε for activations of unit root mean square: of the step on Y it has their square, of the step on
/// Z none.
const EPSILON: f64 = 1e-6;
/// Norms of columns of Y below this are taken as this.
const LEAST_NORM: f64 = 1e-8;

/// One iteration: `next` from `state`, whose sums hold all of AᵀY.
pub(crate) fn sweep(
    problem: &Problem<'_, '_>,
    state: &State,
    next: &mut State,
    ctx: &TaskCtx,
) -> Result<()> {
    let (k, d) = (state.y.k, problem.stream.d);
    let sums = &state.sums;
    let z = crate::matrix::dense::solve_symmetric(&sums.gram, k, EPSILON, &sums.products, d);
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
    next.update_errors(problem, &q, &gram);
    Ok(())
}
