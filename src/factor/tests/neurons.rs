//! Scaled neurons against plain formulas in f64.

use super::*;
use crate::error::Error;
use crate::factor::encode::Encoder;

const N: usize = 400;
const D: usize = 36;

/// Rows in which neuron 5 has most of the energy, with a mean that is not zero.
fn outlier() -> InMemory {
    let (source, _) = planted(N, D, 14, 4, 0.2);
    let mut data = source.rows(0..N).unwrap().data.to_vec();
    data.chunks_exact_mut(D).enumerate().for_each(|(i, row)| {
        row[5] = 40.0 + 0.2 * (i % 7) as f32;
        row[6] += 1.5;
        row[7] *= 0.02;
    });
    InMemory::new(N, D, data)
}

/// The weighted and the plain relative error in f64, computed only from A, the configuration and
/// the factors.
fn errors(source: &InMemory, config: &FitConfig, factors: &Factors) -> (f64, f64) {
    let block = source.rows(0..N).unwrap();
    let a = |i: usize, c: usize| f64::from(block.data[i * D + c]);
    let mean = |c: usize| (0..N).map(|i| a(i, c)).sum::<f64>() / N as f64;
    let centre: Vec<f64> = (0..D)
        .map(|c| {
            if config.centre {
                f64::from(mean(c) as f32)
            } else {
                0.0
            }
        })
        .collect();
    let rms =
        |c: usize| ((0..N).map(|i| (a(i, c) - centre[c]).powi(2)).sum::<f64>() / N as f64).sqrt();
    let w: Vec<f64> = (0..D)
        .map(|c| {
            if config.scale_neurons {
                1.0 / rms(c)
            } else {
                1.0
            }
        })
        .collect();
    let norm = |i: usize| {
        (0..D)
            .map(|c| ((a(i, c) - centre[c]) * w[c]).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let r: Vec<f64> = (0..N)
        .map(|i| {
            if config.scale_rows {
                1.0 / norm(i)
            } else {
                1.0
            }
        })
        .collect();
    let z: Vec<Vec<f32>> = (0..factors.features.columns())
        .map(|j| factors.features.dense_column(j))
        .collect();
    let (mut left, mut whole, mut plain, mut plain_whole) = (0.0, 0.0, 0.0, 0.0);
    for i in 0..N {
        for c in 0..D {
            let fitted: f64 = (0..z.len())
                .map(|j| f64::from(factors.coefficients.feature(j)[i]) * f64::from(z[j][c]))
                .sum();
            let e = a(i, c) - centre[c] - fitted;
            left += (r[i] * w[c] * e).powi(2);
            whole += (r[i] * w[c] * (a(i, c) - centre[c])).powi(2);
            plain += e * e;
            plain_whole += a(i, c) * a(i, c);
        }
    }
    (left / whole, plain / plain_whole)
}

fn every(solver: Solver) -> Vec<FitConfig> {
    let mut all = Vec::new();
    for init in [Init::Kmeans, Init::Random, Init::Svd] {
        for (scale_rows, centre) in [(false, false), (true, false), (false, true), (true, true)] {
            all.push(FitConfig {
                scale_neurons: true,
                scale_rows,
                centre,
                init,
                ..config(9, solver)
            });
        }
    }
    if solver == Solver::Bcd {
        all.push(FitConfig {
            scale_neurons: true,
            l1: 0.1,
            ..config(9, solver)
        });
        all.push(FitConfig {
            scale_neurons: true,
            row_cap: Some(3),
            ..config(9, solver)
        });
    }
    all
}

#[test]
fn both_errors_are_those_of_the_formulas_and_features_have_unit_norm() {
    let source = outlier();
    let ctx = TaskCtx::silent();
    for solver in [Solver::Bcd, Solver::Mu] {
        for config in every(solver) {
            let mut fit = Factoriser::start(&source, config.clone(), &ctx).unwrap();
            let sweeps: Vec<f64> = (0..10)
                .map(|_| fit.step(&ctx).unwrap().relative_error)
                .collect();
            let shown = fit.snapshot().unwrap();
            let (weighted, plain) = errors(&source, &config, &shown);
            let what = format!("{config:?}");
            let best = sweeps.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(
                (best - weighted).abs() < 1e-4,
                "{what}: sweeps tell {best}, it is {weighted}"
            );
            assert!(
                (shown.relative_error - plain).abs() < 1e-9,
                "{what}: {} {plain}",
                shown.relative_error
            );
            let done = fit.finish(&ctx).unwrap();
            let (weighted, plain) = errors(&source, &config, &done);
            assert!(
                (done.weighted_error.unwrap() - weighted).abs() < 1e-6,
                "{what}"
            );
            assert!((done.relative_error - plain).abs() < 1e-9, "{what}");
            for j in 0..9 {
                let norm: f32 = done.features.column(j).1.iter().map(|v| v * v).sum();
                assert!((norm - 1.0).abs() < 1e-5, "{what}: feature {j}");
            }
            if solver == Solver::Bcd && config.l1 == 0.0 {
                assert!(
                    sweeps.windows(2).all(|w| w[1] <= w[0] + 1e-6),
                    "{what}: {sweeps:?}"
                );
            }
        }
    }
}

#[test]
fn a_fit_of_scaled_neurons_is_a_fit_of_the_scaled_matrix() {
    let source = outlier();
    let block = source.rows(0..N).unwrap();
    let rms: Vec<f32> = (0..D)
        .map(|c| {
            ((0..N)
                .map(|i| f64::from(block.data[i * D + c]).powi(2))
                .sum::<f64>()
                / N as f64)
                .sqrt() as f32
        })
        .collect();
    let scaled: Vec<f32> = block
        .data
        .chunks_exact(D)
        .flat_map(|r| r.iter().zip(&rms).map(|(v, s)| v / s))
        .collect();
    for solver in [Solver::Bcd, Solver::Mu] {
        let asked = FitConfig {
            scale_neurons: true,
            ..config(9, solver)
        };
        let (errors, factors) = fit(&source, asked, 8);
        let (by_hand, plain) = fit(&InMemory::new(N, D, scaled.clone()), config(9, solver), 8);
        assert!(
            errors
                .iter()
                .zip(&by_hand)
                .all(|(a, b)| (a - b).abs() < 1e-4),
            "{errors:?} {by_hand:?}"
        );
        assert_eq!(factors.features.indices, plain.features.indices);
        // The same products: Y Zᵀ is that of the scaled matrix with its neurons as they were.
        for j in 0..9 {
            let (z, by_hand) = (
                factors.features.dense_column(j),
                plain.features.dense_column(j),
            );
            for i in (0..N).step_by(37) {
                let (y, y_by_hand) = (
                    factors.coefficients.feature(j)[i],
                    plain.coefficients.feature(j)[i],
                );
                for c in 0..D {
                    let (computed, expected) = (y * z[c], y_by_hand * by_hand[c] * rms[c]);
                    assert!(
                        (computed - expected).abs() < 2e-2 * (rms[c] + expected.abs()),
                        "{solver:?} {j} {i} {c}: {computed} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_outlier_takes_the_features_of_a_plain_fit_and_none_of_a_scaled_one() {
    let source = outlier();
    let explained = |scale_neurons: bool| {
        let config = FitConfig {
            scale_neurons,
            ..config(9, Solver::Bcd)
        };
        let (_, factors) = fit(&source, config.clone(), 40);
        // Of all neurons but the outlier.
        let block = source.rows(0..N).unwrap();
        let z: Vec<Vec<f32>> = (0..9).map(|j| factors.features.dense_column(j)).collect();
        let (mut left, mut whole) = (0.0, 0.0);
        for i in 0..N {
            for c in (0..D).filter(|&c| c != 5) {
                let a = block.data[i * D + c];
                let fitted: f32 = (0..9)
                    .map(|j| factors.coefficients.feature(j)[i] * z[j][c])
                    .sum();
                left += f64::from(a - fitted).powi(2);
                whole += f64::from(a).powi(2);
            }
        }
        (factors.relative_error, left / whole)
    };
    let (plain, scaled) = (explained(false), explained(true));
    assert!(
        plain.0 < scaled.0,
        "{plain:?} {scaled:?}: the plain error is what the plain fit lowers"
    );
    assert!(
        scaled.1 < plain.1,
        "{plain:?} {scaled:?}: the others are explained better"
    );
    let fit = Factoriser::start(&source, config(9, Solver::Bcd), &TaskCtx::silent()).unwrap();
    let told = fit.concentrations();
    assert!(told.len() == 1 && told[0].members[0].0 == 5, "{told:?}");
    for option in [
        FitConfig {
            scale_neurons: true,
            ..config(9, Solver::Bcd)
        },
        FitConfig {
            centre: true,
            ..config(9, Solver::Bcd)
        },
    ] {
        let fit = Factoriser::start(&source, option, &TaskCtx::silent()).unwrap();
        assert!(
            fit.concentrations().is_empty(),
            "{:?}",
            fit.concentrations()
        );
        assert_eq!(fit.energy().rows, N);
    }
}

#[test]
fn new_rows_are_read_by_the_weights_of_the_fit() {
    let source = outlier();
    let block = source.rows(0..N).unwrap();
    for centre in [false, true] {
        let config = FitConfig {
            scale_neurons: true,
            centre,
            ..config(6, Solver::Bcd)
        };
        let (_, factors) = fit(&source, config, 30);
        let y = Encoder::from_factors(&factors)
            .encode(&block, &TaskCtx::silent())
            .unwrap();
        let weights = factors.coding.neuron_weights.as_ref().unwrap();
        let columns: Vec<Vec<f64>> = (0..6)
            .map(|j| {
                factors
                    .features
                    .dense_column(j)
                    .iter()
                    .zip(weights.iter())
                    .map(|(z, w)| f64::from(*z) * f64::from(*w))
                    .collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        for (i, y) in y.chunks_exact(6).enumerate().step_by(7) {
            let row: Vec<f64> = (0..D)
                .map(|c| {
                    let centre = factors.coding.centre.as_ref().map_or(0.0, |m| m[c]);
                    f64::from(weights[c]) * (f64::from(block.data[i * D + c]) - f64::from(centre))
                })
                .collect();
            // The conditions of an optimum: no feature's gradient is above 0, and that of a used
            // one is 0.
            let left: Vec<f64> = (0..D)
                .map(|c| row[c] - (0..6).map(|j| f64::from(y[j]) * columns[j][c]).sum::<f64>())
                .collect();
            for j in 0..6 {
                let gradient = dot(&left, &columns[j])
                    / (dot(&columns[j], &columns[j]).sqrt() * dot(&row, &row).sqrt());
                assert!(
                    gradient < 1e-4 && (y[j] == 0.0 || gradient > -1e-4),
                    "row {i} feature {j}: {gradient}"
                );
            }
        }
    }
}

#[test]
fn a_fit_of_scaled_neurons_is_saved_resumed_and_warm_started() {
    let source = outlier();
    let ctx = TaskCtx::silent();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let asked = FitConfig {
        scale_neurons: true,
        centre: true,
        ..config(8, Solver::Bcd)
    };
    let mut straight = Factoriser::start(&source, asked.clone(), &ctx).unwrap();
    for _ in 0..5 {
        straight.step(&ctx).unwrap();
    }
    straight.checkpoint(&path).unwrap();
    let mut resumed = Factoriser::resume(&source, asked.clone(), &path, &ctx).unwrap();
    for _ in 0..4 {
        let (a, b) = (straight.step(&ctx).unwrap(), resumed.step(&ctx).unwrap());
        assert_eq!(a.relative_error.to_bits(), b.relative_error.to_bits());
    }
    let other = FitConfig {
        scale_neurons: false,
        ..asked.clone()
    };
    let Err(Error::File { problem, .. }) = Factoriser::resume(&source, other, &path, &ctx) else {
        panic!("accepted")
    };
    assert!(problem.contains("other settings"), "{problem}");
    let done = straight.finish(&ctx).unwrap();
    let mut on = Factoriser::warm_start(&source, asked.clone(), &done, &[1], &ctx).unwrap();
    let begun = on.snapshot().unwrap();
    assert!(begun.weighted_error.unwrap() <= done.weighted_error.unwrap() + 1e-5);
    let sweeps: Vec<f64> = (0..8)
        .map(|_| on.step(&ctx).unwrap().relative_error)
        .collect();
    assert!(sweeps.windows(2).all(|w| w[1] <= w[0] + 1e-6), "{sweeps:?}");
    let (before, after) = (
        done.features.dense_column(1),
        on.snapshot().unwrap().features.dense_column(1),
    );
    assert!(
        before.iter().zip(&after).all(|(a, b)| (a - b).abs() < 1e-6),
        "a locked feature stays"
    );

    let config = FitConfig {
        max_sweeps: Some(6),
        ..asked
    };
    let mut whole = MiniBatchFit::start(&source, config.clone(), 128).unwrap();
    for _ in 0..2 {
        whole.step(&ctx).unwrap();
    }
    whole.checkpoint(&path).unwrap();
    let mut again = MiniBatchFit::resume(&source, config, &path).unwrap();
    for _ in 0..3 {
        let (a, b) = (whole.step(&ctx).unwrap(), again.step(&ctx).unwrap());
        assert_eq!(a.relative_error.to_bits(), b.relative_error.to_bits());
    }
    assert!(
        bits(&whole.finish(&ctx).unwrap().finish(&ctx).unwrap())
            == bits(&again.finish(&ctx).unwrap().finish(&ctx).unwrap())
    );
}
