//! Compares a few features: their neurons, cosines, and coefficients over the same tokens.
//!
//! Sees factors and the token table, no model. Invariant: every matrix is symmetric, m × m, in the
//! requested order.

use super::contexts::{check_id, context, top_contexts};
use super::hierarchy::shared_neurons;
use super::scan::sum_and_max;
use super::{ComparedText, Comparison};
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::matrix::vector::{dot, norm};

/// The largest number of features that are compared at a time.
pub const MAX_FEATURES: usize = 8;
/// The number of contexts that are shown for each feature.
const CONTEXTS_EACH: usize = 2;
/// The number of contexts that are shown in which several features fire together.
const JOINT_CONTEXTS: usize = 4;

/// Compares the features `ids`; a repeated id counts once. The cosines in the residual stream are
/// not computed here (see [`super::lens::residual_cosines`]).
///
/// # Errors
/// [`Error::Usage`] for fewer than two or more than [`MAX_FEATURES`] features, and for an id that the fit does
/// not have.
pub fn compare(factors: &Factors, tokens: &TokenTable, ids: &[usize]) -> Result<Comparison> {
    let mut members: Vec<usize> = Vec::new();
    for &id in ids {
        check_id(factors, id)?;
        if !members.contains(&id) {
            members.push(id);
        }
    }
    if !(2..=MAX_FEATURES).contains(&members.len()) {
        return Err(Error::usage(format!(
            "{} features marked: mark 2 to {MAX_FEATURES} to compare",
            members.len()
        )));
    }
    let columns: Vec<Vec<f32>> = members
        .iter()
        .map(|&id| factors.features.dense_column(id))
        .collect();
    let coefficients: Vec<&[f32]> = members
        .iter()
        .map(|&id| factors.coefficients.feature(id))
        .collect();
    let peaks: Vec<f32> = coefficients.iter().map(|y| sum_and_max(y).1).collect();
    Ok(Comparison {
        shared: shared_neurons(&factors.features, &members),
        neurons: neurons(&columns),
        cosines: cosines(&columns.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        residual: None,
        together: cosines(&coefficients),
        texts: texts(tokens, &coefficients, &peaks),
        peaks,
        features: members,
    })
}

/// The neurons that any column uses, with their weight in each column, sorted by the number of
/// columns that use them, then by the sum of the magnitudes of their weights.
fn neurons(columns: &[Vec<f32>]) -> Vec<(usize, Vec<f32>)> {
    let width = columns.first().map_or(0, Vec::len);
    let mut out: Vec<(usize, Vec<f32>)> = (0..width)
        .map(|neuron| {
            (
                neuron,
                columns.iter().map(|c| c[neuron]).collect::<Vec<f32>>(),
            )
        })
        .filter(|(_, weights)| weights.iter().any(|w| *w != 0.0))
        .collect();
    let members = |weights: &[f32]| weights.iter().filter(|w| **w != 0.0).count();
    let size = |weights: &[f32]| weights.iter().map(|w| w.abs()).sum::<f32>();
    out.sort_by(|a, b| {
        members(&b.1)
            .cmp(&members(&a.1))
            .then(size(&b.1).total_cmp(&size(&a.1)))
    });
    out
}

/// The cosines of every two of the m `lines`, computed in f64: m × m, row-major; 0 for a line of
/// zeros.
pub(super) fn cosines(lines: &[&[f32]]) -> Vec<f32> {
    let norms: Vec<f64> = lines.iter().map(|line| norm(line)).collect();
    let m = lines.len();
    let mut out = vec![0.0; m * m];
    for i in 0..m {
        for j in i..m {
            let size = norms[i] * norms[j];
            let cosine = if size > 0.0 {
                (dot(lines[i], lines[j]) / size) as f32
            } else {
                0.0
            };
            (out[i * m + j], out[j * m + i]) = (cosine, cosine);
        }
    }
    out
}

/// Windows of the corpus: first those in which two or more features fire most strongly together,
/// then the strongest of each feature.
fn texts(tokens: &TokenTable, coefficients: &[&[f32]], peaks: &[f32]) -> Vec<ComparedText> {
    let rows = coefficients.first().map_or(0, |y| y.len());
    let relative = |j: usize, row: usize| {
        if peaks[j] > 0.0 {
            coefficients[j][row] / peaks[j]
        } else {
            0.0
        }
    };
    // The second largest of the relative coefficients says how strongly at least two features fire.
    let second = |row: usize| {
        let mut best = [0f32; 2];
        for j in 0..coefficients.len() {
            let v = relative(j, row);
            if v > best[0] {
                best = [v, best[0]];
            } else if v > best[1] {
                best[1] = v;
            }
        }
        best[1]
    };
    let second_largest: Vec<f32> = (0..rows).map(second).collect();
    let (_, strongest) = sum_and_max(&second_largest);
    let mut chosen: Vec<usize> = top_contexts(&second_largest, strongest, tokens)
        .iter()
        .take(JOINT_CONTEXTS)
        .map(|p| p.row)
        .collect();
    for (y, &peak) in coefficients.iter().zip(peaks) {
        chosen.extend(
            top_contexts(y, peak, tokens)
                .iter()
                .take(CONTEXTS_EACH)
                .map(|p| p.row),
        );
    }
    let mut shown_samples: Vec<usize> = Vec::new();
    let mut out = Vec::new();
    for row in chosen {
        let windows: Vec<super::Context> = coefficients
            .iter()
            .map(|y| context(tokens, y, row))
            .collect();
        let Some(first) = windows.first() else {
            continue;
        };
        if shown_samples.contains(&first.sample) {
            continue;
        }
        shown_samples.push(first.sample);
        out.push(ComparedText {
            tokens: first.tokens.clone(),
            cut: first.cut,
            label: first.label.clone(),
            peak: first.peak,
            values: windows.iter().map(|w| w.values.clone()).collect(),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::{columns, factors, table};
    use super::*;

    #[test]
    fn two_features_are_compared_by_neurons_and_contexts() {
        let z = columns(
            3,
            &[
                vec![0.6, 0.8, 0.0],
                vec![0.0, 0.8, 0.6],
                vec![0.0, 0.0, 0.0],
            ],
        );
        let tokens = table(&[(&["a", "b"], Some("x")), (&["c"], None)]);
        let fit = factors(z, 3, vec![3.0, 4.0, 0.0, 0.0, 4.0, 3.0, 0.0, 0.0, 0.0]);
        let found = compare(&fit, &tokens, &[1, 0, 1]).unwrap();
        assert_eq!(found.features, [1, 0]);
        assert!((found.cosines[1] - 0.64).abs() < 1e-6 && (found.cosines[0] - 1.0).abs() < 1e-6);
        assert!((found.together[1] - 16.0 / 25.0).abs() < 1e-6);
        assert_eq!(
            found.shared.core.iter().map(|c| c.0).collect::<Vec<_>>(),
            [1]
        );
        assert_eq!(
            found.neurons,
            [
                (1, vec![0.8, 0.8]),
                (0, vec![0.0, 0.6]),
                (2, vec![0.6, 0.0])
            ]
        );
        assert_eq!(found.peaks, [4.0, 4.0]);
        // They fire together on "b"; the second one's other text follows.
        assert_eq!(found.texts[0].tokens, ["a", "b"]);
        assert_eq!(
            (found.texts[0].peak, &found.texts[0].values),
            (1, &vec![vec![0.0, 4.0], vec![3.0, 4.0]])
        );
        assert_eq!(found.texts.len(), 2);
        assert_eq!(
            compare(&fit, &tokens, &[0, 2]).unwrap().cosines[1],
            0.0,
            "a dead feature is like nothing"
        );
        for wrong in [&[0][..], &[], &[0, 9]] {
            assert!(compare(&fit, &tokens, wrong).is_err());
        }
    }
}
