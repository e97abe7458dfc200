//! Sets of directions of a study, and what is steered with.

use super::*;
use crate::directions::{Baseline, SetKind};
use crate::jobs::directions::{HookSelection, Reference, open, row_labels};
use crate::jobs::request::SteerSettings;
use crate::jobs::steering::{self, SteeredDirection};
use crate::model::generate::Sampling;
use crate::steering::{Mode, Positions, SteerPart, Strength};

fn selection(fit: Option<&str>, layer: Option<usize>) -> HookSelection {
    HookSelection {
        fit: fit.map(str::to_owned),
        layer,
        site: None,
    }
}

#[test]
fn an_option_that_no_set_looks_at_is_refused() {
    let lab = Laboratory::new();
    lab.fit("a", &small());
    let check = |place: &HookSelection, kinds: &[&str]| {
        let kinds: Vec<SetKind> = kinds.iter().map(|kind| kind.parse().unwrap()).collect();
        place.check_effect(&lab.study, &kinds).is_ok()
    };
    let fit = selection(Some("a"), None);
    // Of several hooks a fit says which neurons are meant.
    for used in [&["fit"][..], &["kmeans"], &["neuron"], &["fit:a", "random"]] {
        assert!(check(&fit, used), "{used:?}");
    }
    for unused in [
        &["fit:a"][..],
        &["sae"],
        &["sae:x"],
        &["kmeans@1.mlp.hook_post"],
    ] {
        assert!(!check(&fit, unused), "{unused:?}");
    }
    let layer = selection(None, Some(1));
    assert!(check(&layer, &["fit"]) && check(&layer, &["sae", "fit:a"]));
    assert!(!check(
        &layer,
        &["fit:a", "sae:x", "diffmean@1.mlp.hook_post"]
    ));
    assert!(check(&selection(None, None), &["fit:a"]));
}

#[test]
fn a_difference_in_means_is_the_plain_one() {
    let lab = Laboratory::new();
    let ctx = TaskCtx::silent();
    let kind: SetKind = Baseline::DiffMean.into();
    let set = open(&lab.study, &kind, &selection(None, Some(1)), &ctx).unwrap();
    assert_eq!((set.hook(), set.directions().count()), (HOOKS[0], 3));
    let label = set.find("water").unwrap();
    let (rows, d) = lab.rows(HOOKS[0]);
    let labels = row_labels(&lab.study.tokens().unwrap());
    let mean = |is: bool| -> Vec<f64> {
        let chosen = rows.chunks_exact(d).zip(&labels);
        let chosen: Vec<&[f32]> = chosen
            .filter(|(_, l)| (**l == Some(label as u32)) == is)
            .map(|(row, _)| row)
            .collect();
        let sum = |i: usize| chosen.iter().map(|row| f64::from(row[i])).sum::<f64>();
        (0..d).map(|i| sum(i) / chosen.len() as f64).collect()
    };
    let (with, without) = (mean(true), mean(false));
    let found = set.directions().column(label);
    // Of any length: the directions are compared.
    let plain: Vec<f64> = with.iter().zip(&without).map(|(a, b)| a - b).collect();
    let dot: f64 = plain
        .iter()
        .zip(&found)
        .map(|(a, b)| a * f64::from(*b))
        .sum();
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let lengths = norm(&mut plain.iter().copied()) * norm(&mut found.iter().map(|&v| f64::from(v)));
    assert!(dot / lengths > 0.99999, "cosine {}", dot / lengths);
}

#[test]
fn what_is_steered_with_is_found_once_and_has_its_weight() {
    let lab = Laboratory::new();
    let factors = lab.fit("a", &small());
    let ctx = TaskCtx::silent();
    let place = selection(None, None);
    let open = |text: &str, part: &SteerPart| {
        let wanted = Reference::parse_list(text).unwrap();
        SteeredDirection::open_all(&lab.study, &wanted, &place, part, None, &ctx)
    };
    let found = open("2:-0.5,diffmean:water", &SteerPart::Whole).unwrap();
    assert_eq!(
        (found[0].id, found[0].weight, found[0].hook),
        (2, -0.5, HOOKS[0])
    );
    assert_eq!(found[1].title.as_deref(), Some("water"));
    assert!(found[0].term(&lab.model).is_ok());
    assert!(open("9", &SteerPart::Whole).is_err());
    let refused = open("diffmean:water", &SteerPart::CoreOf(vec![1])).unwrap_err();
    assert!(
        refused.to_string().contains("take features of a fit"),
        "{refused}"
    );
    // What a feature alone has and what it shares are parts of the feature.
    assert!(open("2", &SteerPart::ExclusiveOf(vec![2, 9])).is_err());

    let none = SteerSettings {
        features: Vec::new(),
        part: SteerPart::Whole,
        mode: Mode::Add,
        prompt: "a".to_owned(),
        strength: Strength::Alpha(1.0),
        negative: false,
        positions: Positions::default(),
        samples: 1,
        sampling: Sampling::default(),
    };
    let request =
        |ask: &SteerSettings| steering::request(&lab.model, HOOKS[0], &factors, ask, BosRule::Auto);
    assert!(
        request(&none)
            .err()
            .unwrap()
            .to_string()
            .contains("nothing to steer")
    );
    let two = SteerSettings {
        features: vec![(0, 1.0), (3, -2.0)],
        ..none
    };
    assert_eq!(request(&two).unwrap().terms.len(), 2);
}
