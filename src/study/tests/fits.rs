//! Saved factors: whole or absent, named when damaged.

use super::*;
use crate::factor::{Coefficients, Factors, FitConfig, SparseColumns};

fn factors(k: usize, n: usize, scale: f32) -> Factors {
    let features = SparseColumns {
        rows: 3,
        offsets: (0..=k).collect(),
        indices: (0..k as u32).map(|j| j % 3).collect(),
        values: vec![1.0; k],
    };
    Factors {
        features,
        coefficients: Coefficients::owned(n, (0..k * n).map(|i| i as f32 * scale).collect()),
        coding: Default::default(),
        relative_error: 0.25,
        weighted_error: None,
        explained_variance: 0.5,
        sweep: 7,
        seconds: 1.5,
    }
}

fn config(features: usize) -> FitConfig {
    FitConfig {
        features,
        ..FitConfig::default()
    }
}

#[test]
fn fits_are_saved_listed_and_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let mut study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    fill(&mut study, &[]).unwrap();
    assert!(
        study
            .load_fit(None)
            .unwrap_err()
            .to_string()
            .contains("no finished fit")
    );
    study.start_fit("b", HOOKS[0], &config(2)).unwrap();
    assert!(
        study.fits().unwrap().is_empty(),
        "started, nothing to show or resume yet"
    );
    fs::write(study.checkpoint_path("b").unwrap(), "state").unwrap();
    let entry = &study.fits().unwrap()[0];
    assert_eq!(
        (entry.name.as_str(), entry.relative_error, entry.resumable),
        ("b", None, true)
    );
    assert!(
        study
            .load_fit(Some("b"))
            .unwrap_err()
            .to_string()
            .contains("resume")
    );

    study
        .save_fit("b", HOOKS[0], &config(2), &factors(2, 7, 1.0))
        .unwrap();
    study
        .save_fit("a", HOOKS[0], &config(4), &factors(4, 7, 1.0))
        .unwrap();
    let names: Vec<String> = study.fits().unwrap().into_iter().map(|f| f.name).collect();
    assert_eq!(names, ["b", "a"], "newest last");
    let (entry, newest) = study.load_fit(None).unwrap();
    assert_eq!(
        (entry.name.as_str(), entry.config.features, entry.sweeps),
        ("a", 4, 7)
    );
    assert_eq!(newest.features, factors(4, 7, 1.0).features);
    assert_eq!(
        newest.coefficients.as_slice(),
        factors(4, 7, 1.0).coefficients.as_slice()
    );

    study
        .save_fit("a", HOOKS[0], &config(1), &factors(1, 7, 3.0))
        .unwrap();
    assert_eq!(
        newest.coefficients.feature(3)[6],
        27.0,
        "an old mapping stays valid"
    );
    let (_, replaced) = study.load_fit(Some("a")).unwrap();
    assert_eq!(replaced.coefficients.feature(0)[6], 18.0);
    let files = fs::read_dir(study.fit_dir("a").unwrap()).unwrap().count();
    assert_eq!(files, 3, "config, Z, Y; the replaced factors are gone");
    assert!(
        study
            .load_fit(Some("zz"))
            .unwrap_err()
            .to_string()
            .contains("it has")
    );
}

#[test]
fn a_restarted_fit_keeps_what_was_saved_until_it_saves() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    study
        .save_fit("f", HOOKS[0], &config(2), &factors(2, 7, 1.0))
        .unwrap();
    fs::write(study.checkpoint_path("f").unwrap(), "of two").unwrap();
    study.start_fit("f", HOOKS[0], &config(2)).unwrap();
    assert!(
        study.fits().unwrap()[0].resumable,
        "the same request can be resumed"
    );
    study.start_fit("f", HOOKS[0], &config(9)).unwrap();
    let entry = &study.fits().unwrap()[0];
    assert_eq!((entry.config.features, entry.resumable), (2, false));
    assert_eq!(study.fit_request("f").unwrap(), (HOOKS[0], config(9)));
    study.load_fit(Some("f")).unwrap();
}

#[test]
fn a_save_that_fails_leaves_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    study
        .save_fit("f", HOOKS[0], &config(2), &factors(2, 7, 1.0))
        .unwrap();
    for (failed, room) in (0..3000).step_by(50).enumerate() {
        fault::limit_space(Some(room));
        let outcome = study.save_fit("f", HOOKS[0], &config(2), &factors(2, 7, 2.0));
        fault::limit_space(None);
        let (_, loaded) = study.load_fit(None).unwrap();
        if outcome.is_ok() {
            assert_eq!(loaded.coefficients.feature(1)[0], 14.0);
            assert!(failed > 10);
            return;
        }
        assert_eq!(loaded.coefficients.feature(1)[0], 7.0, "{room}");
    }
    panic!("the largest disk was large enough");
}

#[test]
fn damaged_factors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    study
        .save_fit("f", HOOKS[0], &config(2), &factors(2, 7, 1.0))
        .unwrap();
    for name in ["Z-1.safetensors", "Y-1.f32"] {
        let path = dir.path().join("fits/f").join(name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let error = study.load_fit(None).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("damaged"), "{error}");
        }
        fs::write(&path, &whole[1..]).unwrap();
        assert!(
            study
                .load_fit(None)
                .unwrap_err()
                .to_string()
                .contains("truncated")
        );
        assert!(study.verify_fits().is_err());
        fs::write(&path, &whole).unwrap();
    }
    study.verify_fits().unwrap();
}

#[test]
fn names_of_fits_cannot_leave_the_study() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "../x",
        "a\\b",
        ".tmp-1",
        "a\nb",
        &"x".repeat(101),
    ] {
        assert!(study.fit_dir(name).is_err(), "{name:?}");
        assert!(study.load_fit(Some(name)).is_err(), "{name:?}");
        assert!(
            study
                .save_fit(name, HOOKS[0], &config(1), &factors(1, 7, 1.0))
                .is_err(),
            "{name:?}"
        );
    }
    study.fit_dir("k100-layer.15_bcd").unwrap();
}

#[test]
fn a_finished_fit_is_newer_than_a_stopped_one_and_earlier_versions_told_by_the_curve() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    let curve = |name: &str, stop: &str| {
        let line = |n: usize, stop: &str| {
            format!("{{\"sweep\":{n},\"relative_error\":0.5,\"seconds\":1.0,\"stop\":{stop}}}\n")
        };
        // What a kill cut off is no sweep.
        fs::write(
            study.loss_path(name).unwrap(),
            line(1, "null") + &line(2, stop) + "{\"sweep\":3,",
        )
        .unwrap();
    };
    let fit_named = |name: &str| {
        study
            .fits()
            .unwrap()
            .into_iter()
            .find(|fit| fit.name == name)
            .unwrap()
    };
    for (name, stop, checkpoint, state) in [
        ("a", "\"converged\"", false, FitState::Converged),
        ("b", "\"max_sweeps\"", true, FitState::MaxSweeps),
        ("c", "null", true, FitState::Stopped),
        ("d", "null", false, FitState::Converged),
    ] {
        study
            .save_fit(name, HOOKS[0], &config(2), &factors(2, 7, 1.0))
            .unwrap();
        curve(name, stop);
        if checkpoint {
            fs::write(study.checkpoint_path(name).unwrap(), "state").unwrap();
        }
        assert_eq!(fit_named(name).state, state, "{name}");
    }
    study.start_fit("e", HOOKS[0], &config(3)).unwrap();
    curve("e", "null");
    assert_eq!(
        (
            fit_named("e").state,
            fit_named("e").reached,
            fit_named("e").has_factors()
        ),
        (FitState::Cut, 2, false)
    );
    let ended = |state| Some(RunEnd { state, sweep: 9 });
    study
        .save_run(
            "f",
            HOOKS[0],
            &config(3),
            &factors(3, 7, 1.0),
            ended(FitState::Stopped),
        )
        .unwrap();
    assert_eq!(fit_named("f").status().to_string(), "stopped at sweep 9");
    assert_eq!(study.fits().unwrap().last().unwrap().name, "f");
    assert_eq!(
        study.load_fit(None).unwrap().0.name,
        "d",
        "the newest that ended by itself"
    );
    assert_eq!(
        study.load_fit(Some("f")).unwrap().0.state,
        FitState::Stopped
    );
    // It goes on, and ends.
    study
        .save_run(
            "f",
            HOOKS[0],
            &config(3),
            &factors(3, 7, 1.0),
            ended(FitState::MaxSweeps),
        )
        .unwrap();
    assert_eq!(study.load_fit(None).unwrap().0.name, "f");
}
