//! The step on the coefficients of one panel, with or without a cap on the features of a row.
//!
//! With a cap there are two candidates for each row: its present features with refined values, and
//! a new choice of features by greedy pursuit from zero. The one with the lower objective is used,
//! so that no step raises it. Knows nothing of activations: P = ZᵀA and Q = ZᵀZ are enough.

use crate::matrix::panel::{self, Gram, PANEL};

/// The relaxation ω of the HALS sweeps: a coefficient moves ω times the way to its optimum given the
/// others. Between 1 and 2 each step still lowers the objective, and the sweeps converge sooner
/// (successive over-relaxation, Young 1954; measured by `tests/bench/factor.rs`).
pub(crate) const RELAXATION: f32 = 1.4;
/// The rounds of coordinate descent over the chosen features after each choice, and once more after
/// the last choice.
const ROUNDS: [usize; 2] = [1, 4];
/// A projection so negative that HALS keeps the coefficient at zero. It excludes a feature at one
/// row, although a sweep does the same for all rows of a panel.
const EXCLUDED: f32 = -1e30;

/// Lowers ½‖a − Zy‖² + λΣy over y ≥ 0 for each row of a panel by `sweeps` HALS sweeps. With
/// `row_cap` each y has at most that many non-zeros. `y` and `p` = Zᵀa are `[k][PANEL]`, `penalty`
/// is λ.
pub(crate) fn step(
    y: &mut [f32],
    p: &[f32],
    gram: &Gram,
    penalty: f32,
    sweeps: usize,
    row_cap: Option<usize>,
) {
    let k = gram.diagonal.len();
    let Some(cap) = row_cap.filter(|&cap| cap < k) else {
        (0..sweeps).for_each(|_| panel::hals_sweep(y, p, gram, penalty, RELAXATION));
        return;
    };
    let mut pursued = pursue_panel(p, gram, penalty, cap);
    // The initial coefficients may use more features at a row than the cap allows; such a row gets
    // the pursuit's choice, whatever its objective.
    let mut counts = [0usize; PANEL];
    for line in y.chunks_exact(PANEL) {
        counts
            .iter_mut()
            .zip(line)
            .for_each(|(c, v)| *c += usize::from(*v != 0.0));
    }
    for (candidate, sweeps) in [(&mut *y, sweeps), (&mut pursued[..], 1)] {
        let masked: Vec<f32> = candidate
            .iter()
            .zip(p)
            .map(|(&v, &p)| if v == 0.0 { EXCLUDED } else { p })
            .collect();
        (0..sweeps).for_each(|_| panel::hals_sweep(candidate, &masked, gram, penalty, RELAXATION));
    }
    let (old, new) = (
        objective(y, p, gram, penalty),
        objective(&pursued, p, gram, penalty),
    );
    let better: [bool; PANEL] = std::array::from_fn(|r| counts[r] > cap || new[r] < old[r]);
    for (line, pursued) in y.chunks_exact_mut(PANEL).zip(pursued.chunks_exact(PANEL)) {
        for (r, (v, &a)) in line.iter_mut().zip(pursued).enumerate() {
            if better[r] {
                *v = a;
            }
        }
    }
}

/// ½ yᵀQy − pᵀy + λΣy of each row: the objective without the constant ½‖a‖².
fn objective(y: &[f32], p: &[f32], gram: &Gram, penalty: f32) -> [f32; PANEL] {
    let (mut quadratic, mut linear) = ([0.0; PANEL], [0.0; PANEL]);
    panel::quadratic_forms(&mut quadratic, y, gram);
    panel::row_dots(&mut linear, y, p);
    let mut out: [f32; PANEL] = std::array::from_fn(|r| 0.5 * quadratic[r] - linear[r]);
    for line in y.chunks_exact(PANEL) {
        out.iter_mut()
            .zip(line)
            .for_each(|(o, v)| *o += penalty * v);
    }
    out
}

/// The coefficients of each row of a panel by greedy pursuit, `[k][PANEL]`.
fn pursue_panel(p: &[f32], gram: &Gram, penalty: f32, cap: usize) -> Vec<f32> {
    let k = gram.diagonal.len();
    let mut out = vec![0.0; p.len()];
    let (mut descent, mut row) = (vec![0.0; k], vec![0.0; k]);
    for r in 0..PANEL {
        for (g, p) in descent.iter_mut().zip(p.chunks_exact(PANEL)) {
            *g = p[r] - penalty;
        }
        for j in matching_pursuit(&mut descent, &mut row, gram, cap) {
            out[j * PANEL + r] = row[j];
        }
    }
    out
}

/// Non-negative orthogonal matching pursuit (after Pati, Rezaiifar, Krishnaprasad 1993) of one row,
/// with the values of the chosen features refined by coordinate descent instead of solved exactly.
/// `descent` (k values) is the negative gradient of ½‖a − Zy‖² + λΣy: the caller passes Zᵀa − λ,
/// and it is Zᵀ(a − Zy) − λ at the end. `y` (k values) is overwritten. Returns the features with a
/// non-zero coefficient, at most `cap`.
pub(crate) fn matching_pursuit(
    descent: &mut [f32],
    y: &mut [f32],
    gram: &Gram,
    cap: usize,
) -> Vec<usize> {
    y.fill(0.0);
    let mut chosen: Vec<usize> = Vec::with_capacity(cap);
    while chosen.len() < cap {
        let gain = |j: usize| {
            if gram.diagonal[j] > f32::MIN_POSITIVE {
                descent[j]
            } else {
                0.0
            }
        };
        let best = (0..descent.len())
            .filter(|j| !chosen.contains(j))
            .max_by(|&a, &b| gain(a).total_cmp(&gain(b)));
        let Some(j) = best.filter(|&j| gain(j) > 0.0) else {
            break;
        };
        chosen.push(j);
        refine(descent, y, gram, &chosen, ROUNDS[0]);
    }
    refine(descent, y, gram, &chosen, ROUNDS[1]);
    chosen.retain(|&j| y[j] > 0.0);
    chosen
}

/// Runs `rounds` rounds of coordinate descent over the chosen features and keeps the negative
/// gradient `descent` up to date.
fn refine(descent: &mut [f32], y: &mut [f32], gram: &Gram, chosen: &[usize], rounds: usize) {
    for _ in 0..rounds {
        // The newest feature comes first, since the coefficients of the others must shrink by what
        // it explains.
        for &j in chosen.iter().rev() {
            let diagonal = gram.diagonal[j];
            let next = (y[j] + descent[j] / diagonal).max(0.0);
            let change = next - y[j];
            if change != 0.0 {
                y[j] = next;
                descent[j] -= diagonal * change;
                gram.subtract_row(descent, j, change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Q of k unit columns in `d` dimensions, and the columns.
    fn basis(k: usize, d: usize) -> (Vec<Vec<f64>>, Gram) {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f64 / 1000.0 - 0.45;
        let columns: Vec<Vec<f64>> = (0..k)
            .map(|j| {
                let raw: Vec<f64> = (0..d).map(|i| value(j * d + i + 3)).collect();
                let norm = raw.iter().map(|v| v * v).sum::<f64>().sqrt();
                raw.iter().map(|v| v / norm).collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let q: Vec<f64> = (0..k * k)
            .map(|at| dot(&columns[at / k], &columns[at % k]))
            .collect();
        (columns, Gram::from_dense(&q, k))
    }

    #[test]
    fn a_capped_row_stays_within_the_cap_and_never_gets_worse() {
        let (k, d, cap, penalty) = (12, 20, 3, 0.02);
        let (columns, gram) = basis(k, d);
        let rows: Vec<Vec<f64>> = (0..PANEL)
            .map(|r| {
                (0..d)
                    .map(|i| ((r * 31 + i * 17) % 23) as f64 / 9.0 - 0.8)
                    .collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let p: Vec<f32> = columns
            .iter()
            .flat_map(|z| rows.iter().map(|a| dot(a, z) as f32))
            .collect();
        let mut y = vec![0.5; k * PANEL];
        step(&mut y, &p, &gram, penalty, 2, Some(cap));
        let mut last = objective(&y, &p, &gram, penalty);
        for _ in 0..5 {
            step(&mut y, &p, &gram, penalty, 2, Some(cap));
            let now = objective(&y, &p, &gram, penalty);
            for r in 0..PANEL {
                let row: Vec<f64> = (0..k).map(|j| f64::from(y[j * PANEL + r])).collect();
                assert!(
                    row.iter().filter(|v| **v != 0.0).count() <= cap
                        && row.iter().all(|v| *v >= 0.0)
                );
                assert!(
                    now[r] <= last[r] + 1e-4,
                    "row {r}: {} after {}",
                    now[r],
                    last[r]
                );
                // The same by the plain formula, up to ½‖a‖².
                let left: Vec<f64> = (0..d)
                    .map(|i| rows[r][i] - (0..k).map(|j| row[j] * columns[j][i]).sum::<f64>())
                    .collect();
                let want = 0.5 * (dot(&left, &left) - dot(&rows[r], &rows[r]))
                    + f64::from(penalty) * row.iter().sum::<f64>();
                assert!((f64::from(now[r]) - want).abs() < 1e-4);
            }
            last = now;
        }
    }

    #[test]
    fn pursuit_finds_the_features_that_a_row_is_made_of() {
        let (columns, gram) = basis(12, 60);
        let row: Vec<f64> = (0..60)
            .map(|i| 2.0 * columns[3][i] + columns[7][i])
            .collect();
        let mut left: Vec<f32> = columns
            .iter()
            .map(|z| z.iter().zip(&row).map(|(a, b)| a * b).sum::<f64>() as f32)
            .collect();
        let mut y = vec![0.0; 12];
        let mut found = matching_pursuit(&mut left, &mut y, &gram, 2);
        found.sort_unstable();
        assert_eq!(found, [3, 7]);
        assert!(
            (y[3] - 2.0).abs() < 0.02 && (y[7] - 1.0).abs() < 0.02,
            "{y:?}"
        );
    }
}
