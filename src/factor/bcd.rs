//! The solver `bcd`: ℓ0-constrained block coordinate descent.
//!
//! A sweep takes exact steps on the columns of Z from AᵀY and YᵀY, then one pass over A with HALS
//! sweeps of Y on each panel. Invariant: without a penalty no step raises ‖A − YZᵀ‖²; with one, none
//! raises ½‖A − YZᵀ‖² + λΣY over unit columns of Z. Knows nothing of stop rules.

use super::SparseColumns;
use super::coefficient_step;
use super::columns::{self, EntriesByNeuron};
use super::device::CoefficientSweeps;
use super::pass::{Columns, Gather, PassSums};
use super::state::{HeldProducts, Problem, State};
use super::supports;
use super::swaps;
use crate::error::Result;
use crate::matrix::panel::{self, Gram};
use crate::matrix::residual::GramRows;
use crate::matrix::select;
use crate::task::TaskCtx;

/// The number of sweeps on fixed supports between two sweeps that choose the supports again. Sweeps
/// on fixed supports need AᵀY only at the non-zeros of Z and take about half the time, and supports
/// settle early.
pub(crate) const SUPPORT_SWEEPS: usize = 3;
/// The relaxation ω of the joint refit: the values move ω times the way to their optimum
/// (over-relaxation, as [`coefficient_step::RELAXATION`] for Y).
const REFIT_RELAXATION: f32 = 1.5;
/// The number of badly explained rows that are considered for each revived feature.
const CANDIDATES_PER_REVIVAL: usize = 20;
/// The largest cosine between two features that are revived together. Many of the worst rows are
/// alike, since one token occurs many times, and would give nearly equal features.
const MAX_COSINE: f32 = 0.5;
/// The number of sweeps over the columns of Z after a pass that computed all of AᵀY.
const COLUMN_SWEEPS: usize = 2;
/// The number of HALS sweeps of Y in a pass that sums all of AᵀY (that sum dominates the time, so
/// one sweep is enough) and in a pass on fixed supports.
pub(crate) const HALS_SWEEPS: [usize; 2] = [1, 2];

/// Returns the function that updates the coefficients `[k][PANEL]` of one panel from its
/// projections P on the CPU; `gram` is the step's ZᵀZ.
pub(crate) fn coefficient_update(
    step: &CoefficientSweeps<'_>,
    gram: &Gram,
    row_cap: Option<usize>,
) -> impl Fn(&mut [f32], &[f32]) + Sync {
    move |y: &mut [f32], p: &[f32]| {
        panel::scale_lines(y, step.scales);
        coefficient_step::step(y, p, gram, step.penalty, step.sweeps, row_cap);
    }
}

/// One sweep: computes `next` from `state`, which stays as it is. `next_held` is the part of AᵀY that
/// the following sweep needs.
///
/// # Errors
/// [`crate::Error::Cancelled`], and errors of the source or of a device.
pub(crate) fn sweep(
    problem: &Problem<'_, '_>,
    state: &State,
    next: &mut State,
    next_held: HeldProducts,
    ctx: &TaskCtx,
) -> Result<()> {
    let (features, scales) = step_features(problem, state, ctx)?;
    let q = columns::gram(&features);
    let gram = Gram::from_dense(&q, state.y.k);
    let step = CoefficientSweeps {
        features: &features,
        scales: &scales,
        q: &q,
        penalty: problem.penalty as f32,
        sweeps: HALS_SWEEPS[usize::from(next_held == HeldProducts::Entries)],
    };
    let gather = match next_held {
        HeldProducts::All => Gather::Dense,
        HeldProducts::Entries => Gather::Support(&features),
    };
    if let Some(device) = problem.device {
        device.pass(problem.stream, ctx, state, next, Some(&step), gather)?;
    } else {
        problem.stream.pass(
            ctx,
            &state.y,
            &mut next.y,
            &Columns::Sparse(&features),
            gather,
            &mut next.sums,
            &coefficient_update(&step, &gram, problem.row_cap),
        )?;
    }
    next.held = next_held;
    next.features = features;
    next.update_errors(problem, &q, &gram)
}

/// The step on Z. Returns the new features with unit norm, and for each the factor by which its
/// coefficients must be multiplied so that YZᵀ does not change with the norm.
///
/// # Errors
/// [`crate::Error::Cancelled`], and errors of the source.
pub(crate) fn step_features(
    problem: &Problem<'_, '_>,
    state: &State,
    ctx: &TaskCtx,
) -> Result<(SparseColumns, Vec<f32>)> {
    let (k, d) = (state.y.k, problem.stream.d);
    let (sums, locked) = (&state.sums, problem.locked);
    let penalised = problem.penalty > 0.0;
    let first = state.features.columns() == 0;
    let mut features = if first {
        // A ridge relative to the mean diagonal of YᵀY: the first Y may have equal or empty columns.
        let trace: f64 = (0..k).map(|j| sums.gram[j * k + j]).sum();
        columns::first_support(sums, k, d, problem.support_size, 1e-6 * trace / k as f64)
    } else {
        state.features.clone()
    };
    let mut weights = GramRows::default();
    let (rows, products) = match state.held {
        HeldProducts::All => {
            weights = GramRows::new(&sums.gram, k);
            if !first {
                revive_unused(problem, state, &mut features, ctx)?;
            }
            if !(first && penalised) {
                for _ in 0..COLUMN_SWEEPS {
                    supports::sweep(&mut features, sums, &weights, penalised, locked, ctx)?;
                }
            }
            let products = columns::at_entries(&features, &sums.products);
            (EntriesByNeuron::new(&features), products)
        }
        HeldProducts::Entries => {
            let rows = EntriesByNeuron::new(&features);
            if penalised {
                columns::support_sweep(&mut features, &sums.gram, &sums.products, &rows, locked);
            }
            (rows, sums.products.clone())
        }
    };
    let (values, gain) = columns::refit(&features, &sums.gram, &products, &rows, locked, None);
    if penalised && !first {
        return Ok(accept_refit(problem, sums, features, values, gain));
    }
    let before = std::mem::replace(&mut features.values, values);
    if !first {
        let swapped = match state.held {
            HeldProducts::All => swaps::swap_entries(&mut features, sums, &weights, &rows, locked),
            HeldProducts::Entries => None,
        };
        match swapped {
            // The gain of a swap is computed for an exact refit of the neurons that it touches, so
            // these are refitted without relaxation.
            Some(neurons) => {
                let products = columns::at_entries(&features, &sums.products);
                let rows = EntriesByNeuron::new(&features);
                let only = Some(&neurons[..]);
                (features.values, _) =
                    columns::refit(&features, &sums.gram, &products, &rows, locked, only);
            }
            None => features
                .values
                .iter_mut()
                .zip(before)
                .for_each(|(v, old)| *v = old + REFIT_RELAXATION * (*v - old)),
        }
    }
    let scales = columns::normalise(&mut features);
    Ok((features, scales))
}

/// Decides on the joint refit of a penalised fit, which lowers the squared error by `gain`. The refit
/// changes the norms of the columns, and scaling them back changes ΣY, so `values` are used only if
/// the penalised objective falls. Returns the features and the factors of their coefficients.
fn accept_refit(
    problem: &Problem<'_, '_>,
    sums: &PassSums,
    features: SparseColumns,
    values: Vec<f32>,
    gain: f64,
) -> (SparseColumns, Vec<f32>) {
    let mut refitted = SparseColumns {
        values,
        ..features.clone()
    };
    let scales = columns::normalise(&mut refitted);
    let rise: f64 = scales
        .iter()
        .zip(&sums.totals)
        .map(|(&s, t)| (f64::from(s) - 1.0) * t)
        .sum();
    if gain > 2.0 * problem.penalty * rise {
        return (refitted, scales);
    }
    let ones = vec![1.0; features.columns()];
    (features, ones)
}

/// Replaces every feature that no row uses by the direction of the residual of one of the worst
/// explained rows. Its coefficients stay zero until the HALS sweep uses it, so that the objective does
/// not rise. A feature with Y = 0 would otherwise never change: the column steps skip it, since (YᵀY)_jj = 0.
fn revive_unused(
    problem: &Problem<'_, '_>,
    state: &State,
    features: &mut SparseColumns,
    ctx: &TaskCtx,
) -> Result<()> {
    let unused: Vec<usize> = state
        .unused_features()
        .into_iter()
        .filter(|&j| !problem.locked[j])
        .collect();
    if unused.is_empty() {
        return Ok(());
    }
    let q = columns::gram(&state.features);
    let errors = state.row_errors(problem, &q, &Gram::from_dense(&q, state.y.k))?;
    let mut order: Vec<usize> = (0..problem.stream.n).collect();
    order.sort_by(|&a, &b| errors[b].total_cmp(&errors[a]));
    // The directions of the features revived so far.
    let mut revived: Vec<Vec<f32>> = Vec::new();
    let mut scratch = Vec::new();
    let mut rows = order.iter().take(CANDIDATES_PER_REVIVAL * unused.len());
    for &j in &unused {
        let span = features.offsets[j]..features.offsets[j + 1];
        let direction = loop {
            ctx.check()?;
            let Some(&row) = rows.next() else {
                return Ok(());
            };
            let Some(direction) = residual_direction(problem, state, row, &mut scratch)? else {
                continue;
            };
            let cosine = |other: &Vec<f32>| {
                other
                    .iter()
                    .zip(&direction)
                    .map(|(a, b)| a * b)
                    .sum::<f32>()
            };
            if revived.iter().all(|other| cosine(other) < MAX_COSINE) {
                break direction;
            }
        };
        let mut position = span.start;
        for (i, &v) in direction.iter().enumerate().filter(|(_, v)| **v != 0.0) {
            (features.indices[position], features.values[position]) = (i as u32, v);
            position += 1;
        }
        pad_support(
            &mut features.indices[span.clone()],
            &mut features.values[span.clone()],
            position - span.start,
        );
        revived.push(direction);
    }
    Ok(())
}

/// The s largest entries of a row's residual as a dense unit vector of length d; `None` if the
/// residual is negligible.
fn residual_direction(
    problem: &Problem<'_, '_>,
    state: &State,
    row: usize,
    scratch: &mut Vec<(u32, u32)>,
) -> Result<Option<Vec<f32>>> {
    let residual = row_residual(problem, state, row)?;
    let mut chosen = vec![0; problem.support_size];
    select::largest(&residual, problem.support_size, &[], scratch, &mut chosen);
    let size = columns::norm(chosen.iter().map(|&i| residual[i as usize]));
    if size * size <= 1e-12 * problem.stats.prepared_square / problem.stream.n as f64 {
        return Ok(None);
    }
    let mut out = vec![0.0; residual.len()];
    for i in chosen {
        out[i as usize] = (f64::from(residual[i as usize]) / size) as f32;
    }
    Ok(Some(out))
}

/// Completes a column whose first `count` entries are set: fills the rest with other neurons of
/// weight 0, since every column has s entries, and sorts the entries by neuron.
fn pad_support(indices: &mut [u32], values: &mut [f32], count: usize) {
    let mut entries: Vec<(u32, f32)> = indices[..count]
        .iter()
        .copied()
        .zip(values[..count].iter().copied())
        .collect();
    let mut spare = 0;
    while entries.len() < indices.len() {
        if !entries[..count].iter().any(|e| e.0 == spare) {
            entries.push((spare, 0.0));
        }
        spare += 1;
    }
    entries.sort_by_key(|e| e.0);
    for (t, (i, v)) in entries.into_iter().enumerate() {
        (indices[t], values[t]) = (i, v);
    }
}

/// The residual a − Zy of the prepared row `row`, d values.
fn row_residual(problem: &Problem<'_, '_>, state: &State, row: usize) -> Result<Vec<f32>> {
    let mut a = problem.stream.row(row)?;
    for (j, y) in state.row_coefficients(row)?.into_iter().enumerate() {
        if y != 0.0 {
            let (indices, values) = state.features.column(j);
            for (&i, &v) in indices.iter().zip(values) {
                a[i as usize] -= y * v;
            }
        }
    }
    Ok(a)
}

/// The sums of one-hot coefficients: AᵀY holds the sums of the clusters' rows (`products`, `[k][d]`),
/// and YᵀY is diagonal with the clusters' `counts`, so that no pass over A is needed.
pub(crate) fn one_hot_sums(products: Vec<f32>, counts: &[f64], padded_rows: usize) -> PassSums {
    let k = counts.len();
    let mut gram = vec![0.0; k * k];
    for (j, &c) in counts.iter().enumerate() {
        gram[j * k + j] = c;
    }
    PassSums {
        products,
        gram,
        fit: 0.0,
        totals: counts.to_vec(),
        row_fit: vec![0.0; padded_rows],
    }
}
