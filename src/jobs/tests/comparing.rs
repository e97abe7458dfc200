//! Fits beside each other, reconstructions, and files for elsewhere.

use super::*;
use crate::analysis::{contexts, hierarchy};
use crate::jobs::comparing::{compare, side_elsewhere};
use crate::jobs::directions::HookSelection;
use crate::jobs::export;
use crate::jobs::reconstructions::{ReconstructionRequest, SubjectKind, measure, predict};

#[test]
fn a_fit_is_found_again_in_itself_and_in_a_copy_of_its_study() {
    let lab = Laboratory::new();
    lab.fit("a", &small());
    lab.fit("b", &FitConfig { seed: 9, ..small() });
    let side = |name| lab.study.compared_fit(Some(name)).unwrap();
    let same = compare(&side("a"), &side("a")).unwrap();
    assert_eq!((same.matched.len(), same.found_again), (4, 1.0));
    assert!(same.matched.iter().all(|m| m.a == m.b && m.cosine > 0.9999));
    assert!(same.lost.is_empty() && same.appeared.is_empty());
    assert_eq!(same.b_words.len(), 4);
    let forth = compare(&side("a"), &side("b")).unwrap();
    let back = compare(&side("b"), &side("a")).unwrap();
    assert_eq!(forth.matched.len() + forth.lost.len(), 4);
    assert!(
        (forth.stability - back.stability).abs() < 1e-9,
        "it has no side"
    );

    let dir = lab.study.dir();
    let (newest, state) = side_elsewhere(dir, HOOKS[0]).unwrap();
    assert!(newest.name.ends_with("study/b") && state.is_complete());
    let (named, _) = side_elsewhere(&dir.join("fits/a"), HOOKS[0]).unwrap();
    assert_eq!(compare(&side("a"), &named).unwrap().found_again, 1.0);
    let none = side_elsewhere(dir, HOOKS[1]).err().unwrap().to_string();
    assert!(none.contains("no fit of"), "{none}");
}

#[test]
fn reconstructions_of_one_hook_are_measured_by_the_same_formula() {
    let lab = Laboratory::new();
    let factors = lab.fit("a", &FitConfig { l1: 0.0, ..small() });
    lab.fit_at(HOOKS[1], "b", &small(), Begin::Anew);
    let open = |fits: &[&str], layer: Option<usize>| {
        ReconstructionRequest {
            fits: fits.iter().map(|&name| name.to_owned()).collect(),
            saes: Vec::new(),
            place: HookSelection {
                layer,
                ..HookSelection::default()
            },
        }
        .open(&lab.study)
    };
    let (hook, subjects) = open(&[], Some(1)).unwrap();
    assert_eq!((hook, subjects.len()), (HOOKS[0], 1));
    assert_eq!(
        (subjects[0].kind, subjects[0].set().as_str()),
        (SubjectKind::Snmf, "a")
    );
    let ctx = TaskCtx::silent();
    let source = lab.study.activations(hook).unwrap();
    let found = measure(source.as_ref(), &subjects, &ctx).unwrap()[0];
    // The encoder's best coefficients leave no more than those that the fit ended with.
    let error = found.relative_error.unwrap();
    assert!(error <= factors.relative_error * 1.001, "{error}");
    assert_eq!((found.units, found.rows), (4, source.shape().0));
    let kept = predict(&lab.study, &lab.model, hook, &subjects, 60, &ctx).unwrap()[0];
    assert!(kept.predictions > 0 && kept.kl_zero > 0.0 && kept.kl_reconstructed >= 0.0);
    for (fits, layer, words) in [
        (&["a", "b"][..], None, "compare one hook at a time"),
        (&["a"], Some(2), "leave out --layer"),
        (&[], None, "several hooks"),
        (&["absent"], None, "no fit 'absent'"),
    ] {
        let refused = open(fits, layer).err().unwrap().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn what_is_exported_is_in_the_format_that_its_name_says() {
    let lab = Laboratory::new();
    let factors = lab.fit("a", &small());
    let tree = hierarchy::tree(&factors.features);
    let tokens = lab.study.tokens().unwrap();
    let rows = contexts::feature_rows(&factors, &tokens, &lab.study.notes("a").unwrap());
    let tree_as = |name: &str| export::tree(&lab.path(name), &tree, &rows, "a");
    assert!(tree_as("t.svg").unwrap().starts_with("<svg"));
    let newick = tree_as("t.nwk").unwrap();
    assert_eq!(newick.matches(',').count(), 3, "{newick}");
    let json: serde_json::Value = serde_json::from_str(&tree_as("t.json").unwrap()).unwrap();
    assert_eq!(json["nodes"].as_array().unwrap().len(), 7);
    assert!(tree_as("t.png").is_err());

    let path = lab.path("f.safetensors");
    let about = [("set".to_owned(), "a".to_owned())].into();
    export::factors(&path, &factors, about).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (_, said) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(said.metadata().as_ref().unwrap()["set"], "a");
    let y = file.tensor("Y").unwrap();
    assert_eq!(y.shape(), [lab.rows(HOOKS[0]).0.len() / 64, 4]);
    // Y is row-major there, and by feature in memory.
    let value = |i: usize| f32::from_le_bytes(y.data()[4 * i..4 * i + 4].try_into().unwrap());
    for row in [0, 7, 20] {
        for j in 0..4 {
            assert_eq!(value(row * 4 + j), factors.coefficients.feature(j)[row]);
        }
    }
    let card = contexts::feature_card(&factors, &tokens, &lab.study.notes("a").unwrap(), 1);
    let card = card.unwrap();
    export::feature_card(&lab.path("c.md"), &card, "a", HOOKS[0], "markdown").unwrap();
    let refused = export::feature_card(&lab.path("c.x"), &card, "a", HOOKS[0], "x");
    assert!(refused.is_err() && !lab.path("c.x").exists());
}
