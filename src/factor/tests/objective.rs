//! The options of the objective against plain formulas.

use super::*;
use crate::factor::encode::Encoder;

/// Σ‖a − centre − Zy‖² / Σ‖a‖², computed directly in f64.
fn plain_error(source: &InMemory, factors: &Factors) -> f64 {
    let (n, d) = source.shape();
    let block = source.rows(0..n).unwrap();
    let columns: Vec<Vec<f32>> = (0..factors.features.columns())
        .map(|j| factors.features.dense_column(j))
        .collect();
    let (mut left, mut whole) = (0.0, 0.0);
    for i in 0..n {
        for c in 0..d {
            let a = f64::from(block.row(i)[c]);
            let centre = factors
                .coding
                .centre
                .as_ref()
                .map_or(0.0, |m| f64::from(m[c]));
            let fitted: f64 = (0..columns.len())
                .map(|j| f64::from(factors.coefficients.feature(j)[i]) * f64::from(columns[j][c]))
                .sum();
            left += (a - centre - fitted).powi(2);
            whole += a * a;
        }
    }
    left / whole
}

/// Rows of very different norms about a mean that is not zero.
fn uneven() -> InMemory {
    let (source, _) = planted(700, 40, 14, 4, 0.2);
    let mut data = source.rows(0..700).unwrap().data.to_vec();
    for (i, row) in data.chunks_exact_mut(40).enumerate() {
        let size = if i % 10 == 0 { 30.0 } else { 1.0 };
        row.iter_mut()
            .enumerate()
            .for_each(|(c, v)| *v = size * (*v + if c < 4 { 2.0 } else { 0.0 }));
    }
    InMemory::new(700, 40, data)
}

#[test]
fn errors_are_told_of_the_rows_as_they_are() {
    let source = uneven();
    let base = FitConfig {
        l1: 0.05,
        ..config(10, Solver::Bcd)
    };
    for solver in [Solver::Bcd, Solver::Mu] {
        for (scale_rows, centre) in [(true, false), (false, true), (true, true)] {
            let config = FitConfig {
                solver,
                scale_rows,
                centre,
                ..base.clone()
            };
            let ctx = TaskCtx::silent();
            let mut fit = Factoriser::start(&source, config, &ctx).unwrap();
            for _ in 0..12 {
                fit.step(&ctx).unwrap();
            }
            let shown = fit.snapshot().unwrap();
            let plain = plain_error(&source, &shown);
            let what = format!("{solver:?} scaled {scale_rows} centred {centre}");
            assert!(
                (shown.relative_error - plain).abs() < 1e-3 * plain,
                "{what}: {} {plain}",
                shown.relative_error
            );
            let done = fit.finish(&ctx).unwrap();
            assert!(
                (done.relative_error - plain_error(&source, &done)).abs() < 1e-9,
                "{what}"
            );
            assert_eq!(done.coding.centre.is_some(), centre);
        }
    }
}

#[test]
fn the_error_falls_sweep_by_sweep_under_every_option() {
    let source = uneven();
    let ctx = TaskCtx::silent();
    for (l1, row_cap, scale_rows, centre) in [
        (0.0, Some(3), false, false),
        (0.1, Some(3), false, true),
        (0.1, None, true, true),
        (0.0, Some(2), true, false),
    ] {
        for init in [Init::Kmeans, Init::Random] {
            let config = FitConfig {
                l1,
                row_cap,
                scale_rows,
                centre,
                init,
                ..config(12, Solver::Bcd)
            };
            let mut fit = Factoriser::start(&source, config, &ctx).unwrap();
            let mut last = f64::INFINITY;
            for sweep in 0..20 {
                fit.step(&ctx).unwrap();
                assert!(
                    fit.objective() <= last + 1e-6,
                    "sweep {sweep}: {} after {last}",
                    fit.objective()
                );
                last = fit.objective();
            }
            let factors = fit.finish(&ctx).unwrap();
            if let Some(cap) = row_cap {
                let used = |i: usize| {
                    (0..12)
                        .filter(|&j| factors.coefficients.feature(j)[i] != 0.0)
                        .count()
                };
                assert!((0..700).all(|i| used(i) <= cap));
            }
        }
    }
}

#[test]
fn scaled_rows_count_the_same_whatever_their_norm() {
    let (source, _) = planted(600, 40, 12, 4, 0.2);
    let mut data = source.rows(0..600).unwrap().data.to_vec();
    let sizes: Vec<f32> = (0..600).map(|i| 2f32.powi(i % 7 - 3)).collect();
    data.chunks_exact_mut(40)
        .zip(&sizes)
        .for_each(|(row, s)| row.iter_mut().for_each(|v| *v *= s));
    let config = FitConfig {
        scale_rows: true,
        ..config(9, Solver::Bcd)
    };
    let (_, plain) = fit(&source, config.clone(), 10);
    let (_, sized) = fit(&InMemory::new(600, 40, data), config, 10);
    // Powers of two scale without rounding: the same features, and coefficients with the rows'
    // sizes.
    assert_eq!(plain.features.indices, sized.features.indices);
    assert!(
        plain
            .features
            .values
            .iter()
            .zip(&sized.features.values)
            .all(|(a, b)| (a - b).abs() < 1e-4)
    );
    for j in 0..9 {
        let (a, b) = (plain.coefficients.feature(j), sized.coefficients.feature(j));
        assert!((0..600).all(|i| (a[i] * sizes[i] - b[i]).abs() < 1e-3 * (1.0 + b[i])));
    }
}

#[test]
fn a_row_of_a_fit_is_encoded_as_the_fit_has_it() {
    let source = uneven();
    for (row_cap, centre) in [(None, true), (Some(3), false)] {
        let config = FitConfig {
            row_cap,
            centre,
            scale_rows: true,
            ..config(10, Solver::Bcd)
        };
        let (_, factors) = fit(&source, config, 60);
        let y = Encoder::from_factors(&factors)
            .encode(&source.rows(0..700).unwrap(), &TaskCtx::silent())
            .unwrap();
        let by_feature = (0..10)
            .flat_map(|j| y.iter().skip(j).step_by(10).copied())
            .collect();
        let encoded = Factors {
            coefficients: Coefficients::owned(700, by_feature),
            ..(*factors).clone()
        };
        let (fitted, encoded) = (
            plain_error(&source, &factors),
            plain_error(&source, &encoded),
        );
        assert!(
            encoded < fitted * 1.02,
            "cap {row_cap:?} centre {centre}: {encoded} against {fitted}"
        );
    }
}

#[test]
fn a_resumed_fit_keeps_its_options_and_refuses_others() {
    let source = uneven();
    let ctx = TaskCtx::silent();
    let config = FitConfig {
        row_cap: Some(4),
        scale_rows: true,
        centre: true,
        ..config(8, Solver::Bcd)
    };
    let mut straight = Factoriser::start(&source, config.clone(), &ctx).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    for sweep in 0..9 {
        if sweep == 4 {
            straight.checkpoint(&path).unwrap();
        }
        straight.step(&ctx).unwrap();
    }
    let mut resumed = Factoriser::resume(&source, config.clone(), &path, &ctx).unwrap();
    for _ in 4..9 {
        resumed.step(&ctx).unwrap();
    }
    assert!(bits(&straight.finish(&ctx).unwrap()) == bits(&resumed.finish(&ctx).unwrap()));
    for other in [
        FitConfig {
            row_cap: None,
            ..config.clone()
        },
        FitConfig {
            scale_rows: false,
            ..config.clone()
        },
        FitConfig {
            centre: false,
            ..config.clone()
        },
    ] {
        let Err(e) = Factoriser::resume(&source, other, &path, &ctx) else {
            panic!("accepted")
        };
        assert!(e.to_string().contains("other settings"), "{e}");
    }
}

#[test]
fn options_that_cannot_be_are_refused() {
    let source = uneven();
    let ctx = TaskCtx::silent();
    let refused = |config: FitConfig| {
        Factoriser::start(&source, config, &ctx)
            .err()
            .map(|e| e.to_string())
    };
    let zero = refused(FitConfig {
        row_cap: Some(0),
        ..config(4, Solver::Bcd)
    });
    assert!(zero.unwrap().contains("row cap of 0"));
    let mu = refused(FitConfig {
        row_cap: Some(3),
        ..config(4, Solver::Mu)
    });
    assert!(mu.unwrap().contains("multiplicative"));
    let same = InMemory::new(50, 4, [1.0, 2.0, 3.0, 4.0].repeat(50));
    let config = FitConfig {
        centre: true,
        ..config(2, Solver::Bcd)
    };
    let Err(e) = Factoriser::start(&same, config, &ctx) else {
        panic!("accepted")
    };
    assert!(e.to_string().contains("mean"), "{e}");
}
