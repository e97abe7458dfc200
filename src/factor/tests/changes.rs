//! Continuing a fit: warm starts, added, locked and merged features, mini-batches.

use super::*;
use crate::error::Error;

#[test]
fn a_warm_start_keeps_what_was_reached_and_folds_new_rows_in() {
    let (source, _) = planted(900, 40, 20, 4, 0.4);
    let part = first_rows(&source, 600);
    let ctx = TaskCtx::silent();
    let (_, factors) = fit(&part, config(12, Solver::Bcd), 30);
    let mut same =
        Factoriser::warm_start(&part, config(12, Solver::Bcd), &factors, &[], &ctx).unwrap();
    assert!(same.snapshot().unwrap().relative_error <= factors.relative_error + 1e-6);
    assert!(same.step(&ctx).unwrap().relative_error <= factors.relative_error + 1e-6);

    let mut longer =
        Factoriser::warm_start(&source, config(12, Solver::Bcd), &factors, &[], &ctx).unwrap();
    let begun = longer.snapshot().unwrap();
    assert_eq!(begun.features.indices, factors.features.indices);
    let last = begun.coefficients.feature(0).len();
    assert_eq!(last, 900);
    let errors: Vec<f64> = (0..20)
        .map(|_| longer.step(&ctx).unwrap().relative_error)
        .collect();
    assert!(
        errors[0] <= begun.relative_error + 1e-7 && errors.windows(2).all(|p| p[1] <= p[0] + 1e-7)
    );
    // What a cold fit of the whole reaches, within a little.
    let cold = fit(&source, config(12, Solver::Bcd), 20).0[19];
    assert!(
        errors[19] < cold * 1.05 && begun.relative_error < cold * 1.3,
        "{} {cold}",
        begun.relative_error
    );
}

#[test]
fn added_features_lower_the_error_and_leave_the_rest() {
    let (source, _) = planted(900, 40, 20, 4, 0.2);
    let ctx = TaskCtx::silent();
    let mut fit = Factoriser::start(&source, config(8, Solver::Bcd), &ctx).unwrap();
    for _ in 0..6 {
        fit.step(&ctx).unwrap();
    }
    let before = fit.snapshot().unwrap();
    fit.add_features(6, &ctx).unwrap();
    assert_eq!(fit.config().features, 14);
    let grown = fit.snapshot().unwrap();
    assert_eq!(grown.features.columns(), 14);
    assert!(grown.relative_error <= before.relative_error + 1e-6);
    assert_eq!(grown.features.indices[..8 * 8], before.features.indices[..]);
    let errors: Vec<f64> = (0..12)
        .map(|_| fit.step(&ctx).unwrap().relative_error)
        .collect();
    assert!(errors.windows(2).all(|p| p[1] <= p[0] + 1e-7));
    assert!(
        errors[11] < before.relative_error * 0.8,
        "{} after {}",
        errors[11],
        before.relative_error
    );
    let after = fit.snapshot().unwrap();
    assert!((0..14).all(|j| after.coefficients.feature(j).iter().any(|v| *v > 0.0)));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    fit.checkpoint(&path).unwrap();
    assert!(Factoriser::resume(&source, fit.config().clone(), &path, &ctx).is_ok());
    assert!(fit.add_features(900, &ctx).is_err());
}

#[test]
fn a_warm_start_refuses_what_does_not_fit() {
    let (source, _) = planted(300, 40, 20, 4, 0.4);
    let ctx = TaskCtx::silent();
    let (_, factors) = fit(&source, config(8, Solver::Bcd), 3);
    let refused = |source: &InMemory, config: FitConfig| {
        matches!(
            Factoriser::warm_start(source, config, &factors, &[], &ctx),
            Err(Error::Usage(_))
        )
    };
    assert!(refused(&first_rows(&source, 299), config(8, Solver::Bcd)));
    assert!(refused(&noise(300, 41, 1), config(8, Solver::Bcd)));
    assert!(refused(&source, config(8, Solver::Mu)));
    // Another sparsity is legitimate: columns are cut or widened.
    for sparsity in [0.03, 0.5] {
        let config = FitConfig {
            sparsity: Some(sparsity),
            ..config(10, Solver::Bcd)
        };
        let mut fit = Factoriser::warm_start(&source, config, &factors, &[], &ctx).unwrap();
        assert!(fit.step(&ctx).unwrap().relative_error < 1.0);
    }
}

#[test]
fn a_locked_feature_stays() {
    let (source, _) = planted(900, 40, 20, 4, 0.4);
    let ctx = TaskCtx::silent();
    for l1 in [0.0, 0.1] {
        let mut fit = Factoriser::start(
            &source,
            FitConfig {
                l1,
                ..config(10, Solver::Bcd)
            },
            &ctx,
        )
        .unwrap();
        assert!(fit.lock(&[1]).is_err());
        for _ in 0..3 {
            fit.step(&ctx).unwrap();
        }
        assert!(fit.lock(&[10]).is_err());
        fit.lock(&[2, 7]).unwrap();
        let (before, mut last) = (fit.snapshot().unwrap(), fit.objective());
        for _ in 0..9 {
            fit.step(&ctx).unwrap();
            assert!(fit.objective() <= last * (1.0 + 1e-6));
            last = fit.objective();
        }
        let after = fit.snapshot().unwrap();
        for j in 0..10 {
            let same = before.features.column(j).0 == after.features.column(j).0
                && before
                    .features
                    .column(j)
                    .1
                    .iter()
                    .zip(after.features.column(j).1)
                    .all(|(a, b)| (a - b).abs() < 1e-6);
            assert_eq!(same, j == 2 || j == 7, "feature {j} at l1 {l1}");
        }
        fit.lock(&[]).unwrap();
        fit.step(&ctx).unwrap();
    }
}

#[test]
fn fewer_features_are_those_that_were_not_alike_and_locked_ones_stay_to_the_bit() {
    let (source, planted) = planted(900, 40, 8, 4, 0.1);
    let ctx = TaskCtx::silent();
    let (_, many) = fit(&source, config(16, Solver::Bcd), 30);
    let mut fewer =
        Factoriser::warm_start(&source, config(8, Solver::Bcd), &many, &[3], &ctx).unwrap();
    let begun = fewer.snapshot().unwrap();
    assert_eq!(begun.features.columns(), 8);
    let stays = |f: &Factors| (0..8).any(|j| f.features.column(j) == many.features.column(3));
    assert!(stays(&begun));
    let errors: Vec<f64> = (0..20)
        .map(|_| fewer.step(&ctx).unwrap().relative_error)
        .collect();
    assert!(errors.windows(2).all(|p| p[1] <= p[0] + 1e-7), "{errors:?}");
    let after = fewer.snapshot().unwrap();
    assert!(stays(&after), "a locked feature is untouched");
    // What eight features reach from a start of their own, within a little.
    let cold = fit(&source, config(8, Solver::Bcd), 30).0[29];
    assert!(
        errors[19] < cold + 0.1,
        "{} against {cold} of {} planted",
        errors[19],
        planted.len()
    );
    assert!(Factoriser::warm_start(&source, config(1, Solver::Bcd), &many, &[1, 2], &ctx).is_err());
    assert!(Factoriser::warm_start(&source, config(8, Solver::Bcd), &many, &[16], &ctx).is_err());
}

#[test]
fn a_first_look_at_batches_comes_near_a_whole_fit_and_can_go_on() {
    let (source, _) = planted(4000, 40, 12, 4, 0.3);
    let ctx = TaskCtx::silent();
    let config = FitConfig {
        max_sweeps: Some(25),
        ..config(12, Solver::Bcd)
    };
    let mut look = MiniBatchFit::start(&source, config.clone(), 400).unwrap();
    let batches: Vec<Sweep> = (0..25).map(|_| look.step(&ctx).unwrap()).collect();
    assert!(batches[24].stop.is_some() && batches[23].stop.is_none());
    assert!(batches[24].relative_error < batches[1].relative_error);
    let mut whole = look.finish(&ctx).unwrap();
    let begun = whole.snapshot().unwrap();
    assert_eq!((begun.coefficients.rows, begun.sweep), (4000, 25));
    let (errors, _) = fit(&source, config.clone(), 25);
    assert!(
        begun.relative_error < errors[24] + 0.08,
        "{} against {}",
        begun.relative_error,
        errors[24]
    );
    assert!(
        (begun.relative_error - batches[24].relative_error).abs() < 0.08,
        "a batch tells of the whole"
    );
    assert!(whole.step(&ctx).unwrap().relative_error <= begun.relative_error + 1e-6);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    whole.checkpoint(&path).unwrap();
    // Full sweeps from there end where a fit that saw every row from its start ends.
    let on = FitConfig {
        max_sweeps: Some(100),
        ..config.clone()
    };
    let mut resumed = Factoriser::resume(&source, on.clone(), &path, &ctx).unwrap();
    let after = (0..60)
        .map(|_| resumed.step(&ctx).unwrap().relative_error)
        .last()
        .unwrap();
    let (cold, _) = fit(&source, on, 60);
    assert!(
        (after - cold[59]).abs() < 0.02,
        "{after} against {}",
        cold[59]
    );

    let mut again = MiniBatchFit::start(&source, config.clone(), 400).unwrap();
    assert!(
        (0..25).all(|i| again.step(&ctx).unwrap().relative_error == batches[i].relative_error),
        "seeded"
    );
    assert!(MiniBatchFit::start(&source, config.clone(), 11).is_err());
    assert!(
        MiniBatchFit::start(
            &source,
            FitConfig {
                solver: Solver::Mu,
                ..config
            },
            400
        )
        .is_err()
    );
}

#[test]
fn a_batch_names_the_row_that_is_no_number() {
    let mut data = vec![1.0f32; 500 * 6];
    data[321 * 6 + 2] = f32::NAN;
    let source = InMemory::new(500, 6, data);
    let mut look = MiniBatchFit::start(&source, config(3, Solver::Bcd), 500).unwrap();
    let text = look.step(&TaskCtx::silent()).unwrap_err().to_string();
    assert!(
        text.contains("row 321") && text.contains("neuron 2"),
        "{text}"
    );
}
