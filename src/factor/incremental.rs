//! Starting from given factors without losing them: appended rows are folded in, and columns are
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

/// HALS sweeps of the coefficients that fold rows in.
const FOLD_IN_SWEEPS: usize = 20;

/// Resizes to `k` columns of `keep` entries each: longer columns lose their smallest entries,
/// shorter ones gain neurons of weight zero, and new columns have weight zero everywhere until the
/// next sweep revives them.
pub(super) fn resize_columns(columns: &SparseColumns, k: usize, keep: usize) -> SparseColumns {
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
        if entries.len() > keep {
            entries.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
            entries.truncate(keep);
        }
        let mut used = vec![false; d];
        entries.iter().for_each(|(i, _)| used[*i as usize] = true);
        let missing = keep - entries.len();
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

/// The state of these features (unit columns of equal length) after the coefficients of all rows,
/// which start from `y`, were updated by HALS sweeps in one pass.
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
    let old = features.columns();
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
    if coefficients.as_slice().len() != old * coefficients.rows {
        return Err(Error::usage(format!(
            "the coefficients are not those of {old} features"
        )));
    }
    Ok(())
}

/// Refuses locked features that have more neurons than the new sparsity allows, since they may not
/// lose any.
pub(super) fn check_locked(features: &SparseColumns, locked: &[bool], keep: usize) -> Result<()> {
    for j in (0..features.columns()).filter(|&j| locked[j]) {
        let neurons = features.column(j).1.iter().filter(|v| **v != 0.0).count();
        if neurons > keep {
            let least = (1e4 * neurons as f64 / features.rows as f64).ceil() / 1e4;
            return Err(Error::usage(format!(
                "locked feature {j} has {neurons} neurons and this sparsity keeps {keep}: give --sparsity {least} or more, or leave it unlocked"
            )));
        }
    }
    Ok(())
}
