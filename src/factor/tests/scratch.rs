//! Coefficients in files: the same bits as in memory, whatever is done with the fit, and nothing
//! left behind.

use std::path::Path;

use super::*;
use crate::error::Error;

/// Runs `f` without and with a folder for coefficients, and compares the results.
fn same_bits(f: impl Fn(&FitConfig, &Path) -> Vec<Arc<Factors>>) {
    let dir = tempfile::tempdir().unwrap();
    let (files, checkpoints) = (dir.path().join("files"), dir.path().join("checkpoints"));
    for dir in [&files, &checkpoints] {
        std::fs::create_dir(dir).unwrap();
    }
    let plain = config(12, Solver::Bcd);
    let in_memory = f(&plain, &checkpoints);
    let in_files = f(
        &FitConfig {
            scratch: Some(files.clone()),
            ..plain
        },
        &checkpoints,
    );
    assert!(!in_memory.is_empty() && in_memory.len() == in_files.len());
    for (i, (a, b)) in in_memory.iter().zip(&in_files).enumerate() {
        assert!(bits(a) == bits(b), "result {i}");
    }
    drop(in_files);
    assert_eq!(
        std::fs::read_dir(&files).unwrap().count(),
        0,
        "files are left behind"
    );
}

/// More rows than change layout together, and no whole number of panels.
fn rows() -> InMemory {
    planted(17_003, 24, 20, 4, 0.5).0
}

#[test]
fn every_solver_and_start_gives_the_same_bits_from_files() {
    let (source, ctx) = (rows(), TaskCtx::silent());
    same_bits(|base, _| {
        let mut out = Vec::new();
        for (solver, init) in [
            (Solver::Bcd, Init::Kmeans),
            (Solver::Bcd, Init::Svd),
            (Solver::Bcd, Init::Random),
            (Solver::Mu, Init::Random),
            (Solver::Mu, Init::Kmeans),
        ] {
            let framed = solver == Solver::Bcd;
            let config = FitConfig {
                solver,
                init,
                centre: framed,
                scale_rows: framed,
                ..base.clone()
            };
            let mut fit = Factoriser::start(&source, config, &ctx).unwrap();
            for _ in 0..5 {
                fit.step(&ctx).unwrap();
            }
            out.push(fit.snapshot().unwrap());
            out.push(fit.finish(&ctx).unwrap());
        }
        out
    });
}

#[test]
fn going_on_gives_the_same_bits_from_files() {
    let (source, ctx) = (rows(), TaskCtx::silent());
    same_bits(|base, checkpoints| {
        let path = checkpoints.join("checkpoint");
        let part = first_rows(&source, 9000);
        let mut fit = Factoriser::start(&part, base.clone(), &ctx).unwrap();
        fit.step(&ctx).unwrap();
        let early = fit.finish(&ctx).unwrap();
        // More rows, fewer features, then more; a cancelled sweep; a checkpoint.
        let fewer = FitConfig {
            features: 9,
            ..base.clone()
        };
        let mut fit = Factoriser::warm_start(&source, fewer, &early, &[2], &ctx).unwrap();
        fit.step(&ctx).unwrap();
        fit.add_features(5, &ctx).unwrap();
        fit.step(&ctx).unwrap();
        let stopped = TaskCtx::silent();
        stopped.cancel_token().cancel();
        assert!(matches!(fit.step(&stopped), Err(Error::Cancelled)));
        fit.checkpoint(&path).unwrap();
        let mut resumed = Factoriser::resume(&source, fit.config().clone(), &path, &ctx).unwrap();
        drop(fit);
        resumed.step(&ctx).unwrap();
        let mut look = MiniBatchFit::start(
            &source,
            FitConfig {
                max_sweeps: Some(3),
                ..base.clone()
            },
            500,
        )
        .unwrap();
        while look.step(&ctx).unwrap().stop.is_none() {}
        vec![
            early,
            resumed.finish(&ctx).unwrap(),
            look.finish(&ctx).unwrap().finish(&ctx).unwrap(),
        ]
    });
}

#[test]
fn a_full_disk_refuses_and_leaves_the_fit_and_its_checkpoint() {
    // The simulated fault applies to one thread, so the whole fit must run on it.
    rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap()
        .install(on_a_full_disk);
}

fn on_a_full_disk() {
    let (source, ctx) = (noise(700, 20, 3), TaskCtx::silent());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let config = FitConfig {
        scratch: Some(dir.path().to_path_buf()),
        threads: None,
        ..config(6, Solver::Bcd)
    };
    let mut fit = Factoriser::start(&source, config.clone(), &ctx).unwrap();
    fit.step(&ctx).unwrap();
    fit.checkpoint(&path).unwrap();
    let saved = std::fs::read(&path).unwrap();
    fit.step(&ctx).unwrap();
    let is_full =
        |error: Error| matches!(error, Error::Io { .. }) && !error.to_string().contains('\n');
    for room in [0, 10, 5000] {
        crate::disk::fault::limit_space(Some(room));
        let (kept, shown) = (fit.checkpoint(&path), fit.snapshot());
        crate::disk::fault::limit_space(None);
        assert!(
            is_full(kept.unwrap_err()) && is_full(shown.unwrap_err()),
            "room for {room}"
        );
        assert!(
            std::fs::read(&path).unwrap() == saved,
            "the old checkpoint stays"
        );
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no litter"
        );
    }
    let error = fit.snapshot().unwrap().relative_error;
    assert!(fit.step(&ctx).unwrap().relative_error <= error + 1e-6);
    assert!(Factoriser::resume(&source, config, &path, &ctx).is_ok());
}
