//! Continuing from given factors: coefficients are found for appended rows, and columns are
//! resized. Knows nothing of where the factors come from.

use super::bcd;
use super::columns;
use super::device::CoefficientSweeps;
use super::panels::Panels;
use super::pass::{Columns, Gather, PassSums};
use super::state::{Problem, State};
use super::{Factors, SparseColumns};
use crate::error::{Error, Result};
use crate::matrix::panel::Gram;
use crate::task::TaskCtx;

/// The number of HALS sweeps of the coefficients when rows are folded in.
const FOLD_IN_SWEEPS: usize = 20;

/// Resizes to `k` columns of `support_size` entries each: longer columns lose their smallest
/// entries, shorter ones gain neurons of weight zero, and new columns have weight zero everywhere
/// until the next sweep revives them.
pub(super) fn resize_columns(
    columns: &SparseColumns,
    k: usize,
    support_size: usize,
) -> SparseColumns {
    let d = columns.rows;
    let mut out = SparseColumns {
        rows: d,
        offsets: vec![0],
        indices: Vec::new(),
        values: Vec::new(),
    };
    for j in 0..k {
        let mut entries: Vec<(u32, f32)> = if j < columns.columns() {
            let (indices, values) = columns.column(j);
            indices
                .iter()
                .copied()
                .zip(values.iter().copied())
                .collect()
        } else {
            Vec::new()
        };
        if entries.len() > support_size {
            entries.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
            entries.truncate(support_size);
        }
        let mut used = vec![false; d];
        entries.iter().for_each(|(i, _)| used[*i as usize] = true);
        let missing = support_size - entries.len();
        entries.extend(
            (0..d as u32)
                .filter(|&i| !used[i as usize])
                .take(missing)
                .map(|i| (i, 0.0)),
        );
        entries.sort_by_key(|e| e.0);
        out.indices.extend(entries.iter().map(|e| e.0));
        out.values.extend(entries.iter().map(|e| e.1));
        out.offsets.push(out.indices.len());
    }
    out
}

/// Updates the coefficients of all rows, starting from `y`, by HALS sweeps in one pass on these
/// features (columns of equal length, which are scaled to unit norm), and returns the resulting
/// state.
pub(super) fn fold_in(
    problem: &Problem<'_, '_>,
    mut features: SparseColumns,
    y: Panels,
    ctx: &TaskCtx,
) -> Result<State> {
    let scales = columns::normalise(&mut features);
    let q = columns::gram(&features);
    let gram = Gram::from_dense(&q, y.k);
    let step = CoefficientSweeps {
        features: &features,
        scales: &scales,
        q: &q,
        penalty: problem.penalty as f32,
        sweeps: FOLD_IN_SWEEPS,
    };
    let mut state = State::new(problem.stream.zero_coefficients(y.k)?, PassSums::default());
    if let Some(device) = problem.device {
        let mut before = State::new(y, PassSums::default());
        device.upload_coefficients(&mut before)?;
        device.pass(
            problem.stream,
            ctx,
            &before,
            &mut state,
            Some(&step),
            Gather::Dense,
        )?;
    } else {
        problem.stream.pass(
            ctx,
            &y,
            &mut state.y,
            &Columns::Sparse(&features),
            Gather::Dense,
            &mut state.sums,
            &bcd::coefficient_update(&step, &gram, problem.row_cap),
        )?;
    }
    state.features = features;
    state.update_errors(problem, &q, &gram)?;
    Ok(state)
}

/// Refuses factors that cannot start a fit to n × d activations.
pub(super) fn check_factors(factors: &Factors, (n, d): (usize, usize)) -> Result<()> {
    let (features, coefficients) = (&factors.features, &factors.coefficients);
    let count = features.columns();
    if features.rows != d {
        return Err(Error::usage(format!(
            "features of {} neurons cannot begin a fit to {d}",
            features.rows
        )));
    }
    if coefficients.rows > n {
        let rows = coefficients.rows;
        return Err(Error::usage(format!(
            "the factors are of {rows} token rows, and there are only {n} now"
        )));
    }
    if coefficients.as_slice().len() != count * coefficients.rows {
        return Err(Error::usage(format!(
            "the coefficients are not those of {count} features"
        )));
    }
    Ok(())
}

/// Refuses locked features that have more neurons than the new sparsity allows, since they may not
/// lose any.
pub(super) fn check_locked(
    features: &SparseColumns,
    locked: &[bool],
    support_size: usize,
) -> Result<()> {
    for j in (0..features.columns()).filter(|&j| locked[j]) {
        let neurons = features.column(j).1.iter().filter(|v| **v != 0.0).count();
        if neurons > support_size {
            let least = (1e4 * neurons as f64 / features.rows as f64).ceil() / 1e4;
            return Err(Error::usage(format!(
                "locked feature {j} has {neurons} neurons and this sparsity keeps {support_size}: give --sparsity {least} or more, or leave it unlocked"
            )));
        }
    }
    Ok(())
}
