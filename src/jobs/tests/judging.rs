//! What directions detect, families of features, and what a judge is shown.

use super::*;
use crate::analysis::hierarchy;
use crate::corpus::TokenTable;
use crate::eval::split::Holdout;
use crate::eval::unseen::Divided;
use crate::jobs::describing::Wanted;
use crate::jobs::detection::{Detection, DetectionRequest, differences};
use crate::jobs::directions::{HookSelection, Reference};
use crate::jobs::evaluation::{Asked, Method, choose_all};
use crate::jobs::family::{members_of_labels, members_of_node};

fn divided(tokens: &TokenTable) -> Divided<'_> {
    let holdout = Holdout {
        share: 0.5,
        seed: Some(0),
        ..Holdout::default()
    };
    Divided::new(tokens, &holdout, false).unwrap()
}

fn methods(names: &[&str]) -> Vec<Method> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn each_method_offers_a_direction_for_each_label() {
    let lab = Laboratory::new();
    lab.fit("a", &small());
    let (tokens, ctx) = (lab.study.tokens().unwrap(), TaskCtx::silent());
    let divided = divided(&tokens);
    let place = HookSelection {
        layer: Some(1),
        ..HookSelection::default()
    };
    let asked = methods(&["fit", "fit:a", "diffmean", "shuffled", "neuron"]);
    let none = Asked {
        model: None,
        effects: &Default::default(),
    };
    let choices = choose_all(&lab.study, &asked, &place, &divided, 42, none, &ctx).unwrap();
    // The fit by two names is one.
    let names: Vec<&str> = choices.offered.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["a", "diffmean", "a, shuffled labels", "neuron"]);
    assert_eq!(choices.reported.len(), 5);
    for offered in &choices.offered {
        assert_eq!(
            offered.found.len(),
            divided.split.labels.len(),
            "{}",
            offered.name
        );
        for found in &offered.found {
            assert!(found.feature < offered.set.directions().count());
        }
    }
    // A label's own direction.
    let own: Vec<usize> = choices.offered[1].found.iter().map(|f| f.feature).collect();
    assert_eq!(own, [0, 1, 2]);

    let request = DetectionRequest {
        methods: methods(&["fit", "diffmean"]),
        place,
        rivals: 2,
        seed: 42,
    };
    let detection = Detection::prepare(&lab.study, &divided, &request, &ctx).unwrap();
    let mut seen = 0;
    let mut count = |_: &_| {
        seen += 1;
        Ok(())
    };
    let rows = detection.run(&lab.study, &mut count, &ctx).unwrap();
    assert_eq!((seen, rows.len()), (2, 2));
    for row in &rows {
        assert_eq!(row.labels.len(), 3);
        let mean = row.labels.iter().map(|l| l.auroc).sum::<f64>() / 3.0;
        assert!((row.auroc.unwrap().mean - mean).abs() < 1e-9);
        assert!(row.labels.iter().all(|l| (0.0..=1.0).contains(&l.auroc)));
    }
    let found = differences(&rows, 42);
    let plain = rows[0].auroc.unwrap().mean - rows[1].auroc.unwrap().mean;
    assert_eq!(found[0].0, "diffmean");
    assert!((found[0].1.mean - plain).abs() < 1e-9);
}

#[test]
fn methods_name_the_sets_that_they_choose_from() {
    let sets = |names: &[&str]| -> Vec<String> {
        let methods = methods(names);
        Method::sets(&methods)
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(
        sets(&["fit:a+fit:b", "neuron"]),
        ["fit:a", "fit:b", "neuron"]
    );
    assert_eq!(sets(&["fit:a", "shuffled"]), ["fit:a"]);
    assert_eq!(sets(&["neuron", "shuffled"]), ["neuron", "fit"]);
}

#[test]
fn a_family_is_of_labels_or_of_a_node() {
    let lab = Laboratory::new();
    let factors = lab.fit("a", &small());
    let ctx = TaskCtx::silent();
    let labels = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        members_of_labels(&lab.study, HOOKS[0], &factors, &names, &ctx)
    };
    let (members, _) = labels(&["water", "time", "count"]).unwrap();
    let words: Vec<&str> = members.iter().map(|m| m.word.as_str()).collect();
    assert_eq!(words, ["water", "time", "count"]);
    let mut features: Vec<usize> = members.iter().map(|m| m.feature).collect();
    features.sort_unstable();
    features.dedup();
    assert_eq!(features.len(), 3, "a feature each");
    assert!(labels(&["absent"]).is_err());

    let tokens = lab.study.tokens().unwrap();
    let tree = hierarchy::tree(&factors.features);
    let root = tree.nodes.len() - 1;
    let members = members_of_node(&factors, &tokens, root).unwrap();
    let mut found: Vec<usize> = members.iter().map(|m| m.feature).collect();
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2, 3]);
    assert!(members_of_node(&factors, &tokens, root + 1).is_err());
}

#[test]
fn a_judge_is_shown_every_feature_that_fires_in_the_order_asked_for() {
    let lab = Laboratory::new();
    let factors = lab.fit("a", &small());
    let ctx = TaskCtx::silent();
    let place = HookSelection::default();
    let find = |text: &[&str]| {
        let wanted: Vec<Reference> = text.iter().map(|t| Reference::parse(t).unwrap()).collect();
        Wanted::find(&lab.study, &wanted, &place, &ctx)
    };
    let all = find(&[]).unwrap();
    let all = all.material(&lab.study, Ok(&lab.model)).unwrap();
    assert_eq!(all.subjects.len() + all.silent.len(), 4);
    let some = find(&["3", "diffmean@1.mlp.hook_post:water", "1"]).unwrap();
    let some = some
        .material(&lab.study, Err("no model".to_owned()))
        .unwrap();
    let ids: Vec<(&str, usize)> = some
        .subjects
        .iter()
        .map(|s| (s.set.as_str(), s.id))
        .collect();
    assert_eq!(ids[0], ("a", 3));
    assert_eq!(ids[2], ("a", 1));
    assert_eq!(some.subjects[0].column, factors.features.dense_column(3));
    assert_eq!(some.features.len(), some.subjects.len());
    for (text, words) in [("3:2", "without a weight"), ("9", "9")] {
        let refused = find(&[text]).err().unwrap().to_string();
        assert!(refused.contains(words), "{refused}");
    }
}
