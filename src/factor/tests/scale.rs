//! c·A has the features of A, coefficients c times as large, and the same errors; tiny, huge and
//! zero values give finite results.

use super::*;
use crate::factor::encode::Encoder;
use crate::factor::recursive::{self, Growth};

/// `source` times `by`.
fn times(source: &InMemory, by: f32) -> InMemory {
    let (n, d) = source.shape();
    InMemory::new(
        n,
        d,
        source
            .rows(0..n)
            .unwrap()
            .data
            .iter()
            .map(|v| v * by)
            .collect(),
    )
}

/// The errors and the factors of a fit after 12 sweeps, or earlier if a stop rule holds.
fn fitted(source: &InMemory, config: FitConfig) -> (Vec<f64>, std::sync::Arc<Factors>) {
    let ctx = TaskCtx::silent();
    let mut fit = Factoriser::start(source, config, &ctx).unwrap();
    let mut errors = Vec::new();
    for _ in 0..12 {
        let sweep = fit.step(&ctx).unwrap();
        errors.push(sweep.relative_error);
        if sweep.stop.is_some() {
            break;
        }
    }
    (errors, fit.finish(&ctx).unwrap())
}

/// Every objective that a solver has.
fn objectives(solver: Solver) -> Vec<FitConfig> {
    let base = config(8, solver);
    let with = |scale_rows, scale_neurons, centre| FitConfig {
        scale_rows,
        scale_neurons,
        centre,
        ..base.clone()
    };
    let mut all = vec![
        base.clone(),
        with(true, false, false),
        with(false, true, false),
        with(false, false, true),
        with(true, true, true),
        FitConfig {
            sparsity: Some(0.05),
            ..base.clone()
        },
        FitConfig {
            sparsity: Some(1.0),
            ..base.clone()
        },
    ];
    if solver == Solver::Bcd {
        all.push(FitConfig {
            l1: 0.1,
            ..base.clone()
        });
        all.push(FitConfig {
            l1: 0.1,
            scale_neurons: true,
            centre: true,
            ..base.clone()
        });
        all.push(FitConfig {
            l1: 0.1,
            row_cap: Some(3),
            scale_rows: true,
            ..base.clone()
        });
        all.push(FitConfig {
            row_cap: Some(2),
            scale_neurons: true,
            ..base.clone()
        });
    }
    all
}

fn assert_alike(a: &Factors, b: &Factors, by: f32, exactly: bool, what: &str) {
    assert_eq!(a.features.indices, b.features.indices, "{what}: supports");
    let near = |a: f32, b: f32, within: f32| {
        if exactly {
            a == b
        } else {
            (a - b).abs() <= within
        }
    };
    let z = a.features.values.iter().zip(&b.features.values);
    assert!(
        z.clone().all(|(a, b)| near(*a, *b, 1e-3)),
        "{what}: features"
    );
    for j in 0..a.features.columns() {
        let (a, b) = (a.coefficients.feature(j), b.coefficients.feature(j));
        let most = a.iter().fold(0.0f32, |m, v| m.max(*v));
        // Values that decay towards zero become denormal earlier in one unit than in the other.
        let same =
            |(a, b): (&f32, &f32)| near(*a, b / by, 2e-3 * most) || a.max(b / by) < 1e-20 * most;
        assert!(a.iter().zip(b).all(same), "{what}: coefficients of {j}");
    }
    let within = if exactly { 0.0 } else { 1e-5 };
    assert!(
        (a.relative_error - b.relative_error).abs() <= within,
        "{what}: {} {}",
        a.relative_error,
        b.relative_error
    );
    assert!(
        (a.explained_variance - b.explained_variance).abs() <= 2.0 * within.max(1e-15),
        "{what}"
    );
    assert_eq!(
        a.weighted_error.is_some(),
        b.weighted_error.is_some(),
        "{what}"
    );
    if let (Some(a), Some(b)) = (a.weighted_error, b.weighted_error) {
        assert!(
            (a - b).abs() <= within.max(1e-15),
            "{what}: weighted {a} {b}"
        );
    }
}

#[test]
fn a_matrix_times_a_power_of_two_has_the_same_fit_to_the_bit() {
    let (source, _) = planted(300, 32, 12, 4, 0.3);
    for solver in [Solver::Bcd, Solver::Mu] {
        for init in [Init::Random, Init::Kmeans, Init::Svd] {
            for config in objectives(solver) {
                let config = FitConfig { init, ..config };
                let (errors, whole) = fitted(&source, config.clone());
                // Within the range that needs no scaling, and far outside.
                for by in [2f32.powi(-9), 2f32.powi(7), 2f32.powi(-40), 2f32.powi(60)] {
                    let what = format!("{config:?} times {by}");
                    let (scaled_errors, scaled) = fitted(&times(&source, by), config.clone());
                    assert_eq!(errors, scaled_errors, "{what}");
                    assert_alike(&whole, &scaled, by, true, &what);
                }
            }
        }
    }
}

#[test]
fn a_matrix_times_any_number_has_the_same_fit() {
    let (source, _) = planted(300, 32, 12, 4, 0.3);
    for solver in [Solver::Bcd, Solver::Mu] {
        for init in [Init::Random, Init::Kmeans, Init::Svd] {
            for config in objectives(solver) {
                let config = FitConfig { init, ..config };
                let (_, whole) = fitted(&source, config.clone());
                for by in [1e-6f32, 1e-4, 1e4, 1e-20, 1e20] {
                    let (_, scaled) = fitted(&times(&source, by), config.clone());
                    assert_alike(
                        &whole,
                        &scaled,
                        by,
                        false,
                        &format!("{config:?} times {by}"),
                    );
                }
            }
        }
    }
}

#[test]
fn the_multiplicative_updates_stop_where_they_would_at_any_scale() {
    let source = noise(200, 40, 9);
    let run = |by: f32| {
        let ctx = TaskCtx::silent();
        let scaled = times(&source, by);
        let config = FitConfig {
            sparsity: Some(0.05),
            patience: Some(20),
            ..config(12, Solver::Mu)
        };
        let mut fit = Factoriser::start(&scaled, config, &ctx).unwrap();
        loop {
            let sweep = fit.step(&ctx).unwrap();
            if sweep.stop.is_some() {
                return (sweep.sweep, fit.finish(&ctx).unwrap().relative_error);
            }
        }
    };
    let (sweeps, error) = run(1.0);
    for by in [2f32.powi(-14), 2f32.powi(-30), 2f32.powi(14)] {
        assert_eq!(run(by), (sweeps, error), "times {by}");
    }
    let (_, other) = run(1e-4);
    assert!((other - error).abs() < 1e-3, "{other} against {error}");
}

#[test]
fn what_goes_on_from_a_fit_goes_on_at_its_scale() {
    let (source, _) = planted(600, 32, 12, 4, 0.3);
    let ctx = TaskCtx::silent();
    for scale_neurons in [false, true] {
        let config = FitConfig {
            scale_neurons,
            ..config(10, Solver::Bcd)
        };
        let run = |by: f32| {
            let source = times(&source, by);
            let (_, many) = fitted(&source, config.clone());
            let fewer = FitConfig {
                features: 7,
                ..config.clone()
            };
            let mut merged = Factoriser::warm_start(&source, fewer, &many, &[2], &ctx).unwrap();
            let start = merged.snapshot().unwrap().relative_error;
            for _ in 0..6 {
                merged.step(&ctx).unwrap();
            }
            merged.add_features(2, &ctx).unwrap();
            for _ in 0..6 {
                merged.step(&ctx).unwrap();
            }
            let mut look = MiniBatchFit::start(
                &source,
                FitConfig {
                    max_sweeps: Some(8),
                    ..config.clone()
                },
                128,
            )
            .unwrap();
            let batches: Vec<f64> = (0..8)
                .map(|_| look.step(&ctx).unwrap().relative_error)
                .collect();
            let looked = look.finish(&ctx).unwrap().finish(&ctx).unwrap();
            let mut levels = recursive::levels(
                &many.features,
                &[4],
                Growth::Growing,
                &FitConfig {
                    threads: Some(1),
                    ..config.clone()
                },
                &ctx,
            )
            .unwrap();
            let tuned = recursive::joint::tune(&many, &source, &mut levels, &ctx).unwrap();
            let y = Encoder::from_factors(&many)
                .encode(&source.rows(0..600).unwrap(), &ctx)
                .unwrap();
            let encoded: Vec<f32> = y.iter().map(|v| v / by).collect();
            (
                start,
                merged.finish(&ctx).unwrap(),
                batches,
                looked,
                tuned,
                encoded,
            )
        };
        let one = run(1.0);
        for by in [2f32.powi(-12), 2f32.powi(-50), 2f32.powi(55)] {
            let other = run(by);
            let what = format!("neurons {scale_neurons} times {by}");
            assert_eq!(
                (one.0, &one.2, &one.4, &one.5),
                (other.0, &other.2, &other.4, &other.5),
                "{what}"
            );
            assert_alike(&one.1, &other.1, by, true, &format!("{what}, merged"));
            assert_alike(&one.3, &other.3, by, true, &format!("{what}, batches"));
        }
    }
}

#[test]
fn the_tiny_the_huge_and_rows_of_both_stay_numbers() {
    let (source, _) = planted(200, 24, 8, 4, 0.3);
    let ctx = TaskCtx::silent();
    let mixed = |at: usize, by: f32| {
        let mut data = source.rows(0..200).unwrap().data.to_vec();
        data[at * 24..(at + 1) * 24]
            .iter_mut()
            .for_each(|v| *v *= by);
        InMemory::new(200, 24, data)
    };
    let mut quiet = source.rows(0..200).unwrap().data.to_vec();
    // One neuron is silent, one is next to nothing, one is denormal.
    quiet
        .chunks_exact_mut(24)
        .for_each(|row| (row[1], row[2], row[3]) = (0.0, row[2] * 1e-20, row[3] * 1e-42));
    let sources = [
        times(&source, 1e-41),
        times(&source, 3e36),
        mixed(17, 1e30),
        mixed(17, 1e-30),
        InMemory::new(200, 24, quiet),
    ];
    for (i, source) in sources.iter().enumerate() {
        for solver in [Solver::Bcd, Solver::Mu] {
            for config in objectives(solver) {
                let what = format!("source {i}, {config:?}");
                let (errors, factors) = fitted(source, config);
                assert!(
                    errors.iter().all(|e| (0.0..=1.0 + 1e-6).contains(e)),
                    "{what}: {errors:?}"
                );
                assert!(factors.relative_error.is_finite(), "{what}");
                assert!(
                    factors.features.values.iter().all(|v| v.is_finite()),
                    "{what}"
                );
                assert!(
                    factors
                        .coefficients
                        .as_slice()
                        .iter()
                        .all(|v| v.is_finite() && *v >= 0.0),
                    "{what}"
                );
                let y = Encoder::from_factors(&factors)
                    .encode(&source.rows(0..200).unwrap(), &ctx)
                    .unwrap();
                let bad = y.iter().position(|v| !(v.is_finite() && *v >= 0.0));
                assert!(
                    bad.is_none(),
                    "{what}: encoded {:?} at {bad:?}",
                    bad.map(|at| y[at])
                );
            }
        }
    }
}

/// A fit of one sweep, and at `path` its checkpoint as an earlier version wrote it: its header
/// knows no scale.
fn of_an_earlier_version<'a>(source: &'a InMemory, path: &std::path::Path) -> Factoriser<'a> {
    let ctx = TaskCtx::silent();
    let mut fit = Factoriser::start(source, config(8, Solver::Bcd), &ctx).unwrap();
    fit.step(&ctx).unwrap();
    fit.checkpoint(path).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[12..20].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[20..20 + length]).unwrap();
    header.as_object_mut().unwrap().remove("scale").unwrap();
    header["config"]
        .as_object_mut()
        .unwrap()
        .remove("scale_neurons")
        .unwrap();
    let json = serde_json::to_vec(&header).unwrap();
    let mut out = bytes[..12].to_vec();
    out.extend((json.len() as u64).to_le_bytes());
    out.extend(json);
    out.extend(&bytes[20 + length..bytes.len() - 8]);
    let digest = xxhash_rust::xxh3::xxh3_64(&out);
    out.extend(digest.to_le_bytes());
    std::fs::write(path, out).unwrap();
    fit
}

#[test]
fn a_checkpoint_of_a_fit_that_was_not_scaled_is_refused_where_it_is_now() {
    let (source, _) = planted(300, 32, 12, 4, 0.3);
    let ctx = TaskCtx::silent();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let mut went_on = of_an_earlier_version(&source, &path);
    let mut resumed = Factoriser::resume(&source, config(8, Solver::Bcd), &path, &ctx).unwrap();
    assert_eq!(
        went_on.step(&ctx).unwrap().relative_error,
        resumed.step(&ctx).unwrap().relative_error
    );
    let tiny = times(&source, 1e-9);
    of_an_earlier_version(&tiny, &path);
    let Err(refused) = Factoriser::resume(&tiny, config(8, Solver::Bcd), &path, &ctx) else {
        panic!("accepted")
    };
    assert!(
        refused
            .to_string()
            .contains("an earlier version, which did not scale"),
        "{refused}"
    );
}
