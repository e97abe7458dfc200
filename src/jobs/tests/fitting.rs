//! Fits, what they are called, and the settings that a sweep begins with.

use super::*;
use crate::jobs::directions::HookSelection;
use crate::jobs::fitting::{
    Refinement, check_is_not_converged, check_name_is_free, default_name, first_look_name,
    refined_name, saved_curve,
};
use crate::jobs::sweeping;

#[test]
fn the_error_of_a_saved_fit_is_that_of_its_factors() {
    let lab = Laboratory::new();
    let config = small();
    let factors = lab.fit("k4", &config);
    let (a, d) = lab.rows(HOOKS[0]);
    // ‖A − YZᵀ‖² / ‖A‖² in f64, entry by entry.
    let columns: Vec<Vec<f32>> = (0..4).map(|j| factors.features.dense_column(j)).collect();
    let y = &factors.coefficients;
    let (mut left, mut all) = (0.0f64, 0.0f64);
    for (row, line) in a.chunks_exact(d).enumerate() {
        for (i, &value) in line.iter().enumerate() {
            let made: f64 = (0..4)
                .map(|j| f64::from(y.feature(j)[row]) * f64::from(columns[j][i]))
                .sum();
            left += (f64::from(value) - made).powi(2);
            all += f64::from(value).powi(2);
        }
    }
    let plain = left / all;
    assert!(
        (factors.relative_error - plain).abs() < 1e-5 * plain,
        "{} and {plain}",
        factors.relative_error
    );
    let (entry, saved) = lab.study.load_fit(Some("k4")).unwrap();
    assert_eq!(saved.features, factors.features);
    assert_eq!(entry.relative_error, Some(factors.relative_error));
    assert!(y.as_slice().iter().all(|&v| v >= 0.0));
    let curve = saved_curve(&lab.study, "k4").unwrap();
    assert_eq!(curve.len(), factors.sweep.max(entry.reached));
    // The same request makes the same features.
    assert_eq!(lab.fit("again", &config).features, factors.features);
}

#[test]
fn a_first_look_does_not_take_the_name_of_a_fit_that_has_converged() {
    let lab = Laboratory::new();
    let (study, hook) = (&lab.study, HOOKS[0]);
    let config = FitConfig {
        max_sweeps: None,
        ..small()
    };
    // One that was ended by its most sweeps may be replaced, as by the same command again.
    lab.fit("l1-k4", &small());
    assert_eq!(first_look_name(study, hook, &config).unwrap(), "l1-k4");
    assert!(check_is_not_converged(study, "l1-k4").is_ok());
    lab.fit("l1-k4", &config);
    assert_eq!(
        study.fits().unwrap()[0].status().to_string(),
        "converged",
        "the test is of one that has"
    );
    assert_eq!(first_look_name(study, hook, &config).unwrap(), "l1-k4-2");
    assert_eq!(default_name(study, hook, &config).unwrap(), "l1-k4");
    let refused = check_is_not_converged(study, "l1-k4").unwrap_err();
    assert_eq!(refused.exit_code(), 2, "{refused}");
    assert!(check_is_not_converged(study, "new").is_ok());
}

#[test]
fn a_default_name_belongs_to_no_fit_of_other_settings() {
    let lab = Laboratory::new();
    let (study, hook, config) = (&lab.study, HOOKS[0], small());
    // Of two hooks the layer is told.
    assert_eq!(default_name(study, hook, &config).unwrap(), "l1-k4");
    lab.fit("l1-k4", &config);
    assert_eq!(default_name(study, hook, &config).unwrap(), "l1-k4");
    let other = FitConfig {
        seed: 5,
        ..config.clone()
    };
    assert_eq!(default_name(study, hook, &other).unwrap(), "l1-k4-2");
    let merge = Refinement {
        fit: Some("l1-k4".to_owned()),
        merge: 1,
        ..Refinement::default()
    };
    let (entry, fewer, begin) = merge.plan(study).unwrap();
    let name = refined_name(study, &entry, &fewer).unwrap();
    assert_eq!(name, "l1-k3-from-l1-k4");
    lab.fit_at(hook, &name, &fewer, begin);
    assert_eq!(
        refined_name(study, &entry, &fewer).unwrap(),
        "l1-k3-from-l1-k4-2"
    );
    // It has the configuration of a fit that is made anew, and is another one.
    assert_eq!(default_name(study, hook, &fewer).unwrap(), "l1-k3");
    assert_eq!(refined_name(study, &entry, &entry.config).unwrap(), "l1-k4");

    let free = |name: &str, config: &FitConfig, from: Option<&str>| {
        check_name_is_free(study, name, hook, config, from).is_ok()
    };
    assert!(free("l1-k4", &config, None) && free("new", &other, None));
    assert!(!free("l1-k4", &other, None) && !free("l1-k4", &config, Some(&name)));
    assert!(free("l1-k4", &config, Some("l1-k4")), "new rows");
}

#[test]
fn a_sweep_begins_with_the_settings_of_the_fits_of_one_hook() {
    let lab = Laboratory::new();
    let config = small();
    lab.fit("a", &config);
    lab.fit_at(HOOKS[1], "b", &config, Begin::Anew);
    let bases = |names: &[&str], layer: Option<usize>| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let place = HookSelection {
            layer,
            ..HookSelection::default()
        };
        sweeping::bases(&lab.study, &names, &place)
    };
    let (hook, found) = bases(&["a"], None).unwrap();
    assert_eq!((hook, found[0].features), (HOOKS[0], 4));
    assert_eq!(bases(&[], None).unwrap().0, HOOKS[1], "the newest");
    assert_eq!(bases(&[], Some(1)).unwrap().0, HOOKS[0]);
    for (names, layer, words) in [
        (&["a", "b"][..], None, "one hook at a time"),
        (&["a"], Some(2), "leave out --layer"),
        (&["absent"], None, "no fit 'absent'"),
    ] {
        let refused = bases(names, layer).unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}
