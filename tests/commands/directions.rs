//! Every kind of direction: listed, shown, steered with, whole or by some of its neurons.

use serde_json::Value;

use crate::support;
use crate::support::program::{json_lines, mlpeek};
use crate::{collected, failure};

#[test]
fn every_kind_of_direction_is_listed_shown_and_steered_with() {
    let made = collected(30);
    let run = |args: &[&str]| json_lines(mlpeek(made.dir.path()).args(args));
    let fit = [
        "fit",
        &made.study,
        "--features",
        "5",
        "--layer",
        "1",
        "--sparsity",
        "0.1",
        "--name",
        "k5",
        "--json",
    ];
    run(&fit);
    let list = |kind: &str| run(&["features", &made.study, "--directions", kind, "--json"]);
    let means = list("diffmean");
    let label = means[0]["name"]
        .as_str()
        .expect("a difference in means is called after its label")
        .to_owned();
    for (kind, count) in [
        ("fit", 5),
        ("kmeans", 5),
        ("random", 5),
        ("neuron", support::D_MLP),
    ] {
        let rows = list(kind);
        assert_eq!(rows.len(), count, "{kind}");
        assert_eq!(rows[0]["hook"], "blocks.1.mlp.hook_post");
        assert_eq!(rows[0]["set"], if kind == "fit" { "k5" } else { kind });
    }
    let several = list("neuron,fit:k5,diffmean@2.mlp.hook_post");
    let count = |set: &str, hook: &str| {
        several
            .iter()
            .filter(|r| r["set"] == set && r["hook"] == hook)
            .count()
    };
    let (first_hook, second_hook) = ("blocks.1.mlp.hook_post", "blocks.2.mlp.hook_post");
    let counts = [
        count("neuron", first_hook),
        count("k5", first_hook),
        several.len(),
    ];
    assert_eq!(
        counts,
        [support::D_MLP, 5, support::D_MLP + 5 + means.len()]
    );
    assert_eq!(
        several.iter().filter(|r| r["hook"] == second_hook).count(),
        means.len()
    );
    let text = mlpeek(made.dir.path())
        .args(["features", &made.study, "--directions", "kmeans,neuron"])
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert_eq!(
        text.lines()
            .filter(|l| l.starts_with(&format!("kmeans at {first_hook} ")))
            .count(),
        5,
        "{text}"
    );
    assert_eq!(
        text.lines()
            .filter(|l| l.starts_with(&format!("neuron at {first_hook} ")))
            .count(),
        support::D_MLP
    );
    let elsewhere = run(&[
        "features",
        &made.study,
        "--directions",
        "neuron",
        "--layer",
        "2",
        "--json",
    ]);
    assert_eq!(elsewhere[0]["hook"], "blocks.2.mlp.hook_post");

    let card = &run(&[
        "feature",
        &made.study,
        &format!("diffmean:{label}"),
        "--json",
    ])[0];
    assert_eq!(
        (&card["feature"], &card["set"]),
        (&Value::from(0), &Value::from("diffmean"))
    );
    assert!(card["promoted"][0]["token"].is_string() && card["contexts"][0]["tokens"].is_array());
    let mixed = format!("diffmean:{label}:0.5,neuron:3:-1,2");
    let steered = &run(&[
        "steer",
        &made.study,
        &mixed,
        "--alpha",
        "1",
        "--max-tokens",
        "2",
        "--json",
    ])[0];
    let chosen = steered["directions"].as_array().unwrap();
    assert_eq!(
        chosen
            .iter()
            .map(|d| d["set"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["diffmean", "neuron", "k5"]
    );
    assert_eq!(
        (&chosen[0]["title"], &chosen[1]["weight"]),
        (&Value::from(label), &Value::from(-1.0))
    );

    let bad = |args: &[&str], says: &str| {
        let error = failure(mlpeek(made.dir.path()).args(args), 2);
        assert!(error.contains(says), "{error}");
    };
    bad(
        &["features", &made.study, "--directions", "proof"],
        "diffmean",
    );
    bad(
        &["features", &made.study, "--directions", "fit,proof"],
        "diffmean",
    );
    bad(
        &["feature", &made.study, "diffmean:nothing"],
        "diffmean has no direction 'nothing'",
    );
    bad(&["steer", &made.study, "neuron:64"], "0 to 63");
    bad(
        &["features", &made.study, "--layer", "2"],
        "no finished fit at blocks.2",
    );
}

#[test]
fn a_feature_steers_with_its_core_or_with_its_own_neurons() {
    let made = collected(30);
    let run = |args: &[&str]| json_lines(mlpeek(made.dir.path()).args(args));
    run(&[
        "fit",
        &made.study,
        "-k",
        "4",
        "--layer",
        "1",
        "--sparsity",
        "0.3",
        "--l1",
        "0",
        "--json",
    ]);
    let neurons = |id: &str| -> Vec<(u64, f64)> {
        let card = &run(&["feature", &made.study, id, "--json"])[0];
        let weights = card["neurons"].as_array().unwrap().iter();
        weights
            .map(|n| (n["neuron"].as_u64().unwrap(), n["weight"].as_f64().unwrap()))
            .collect()
    };
    let whole = neurons("0");
    // A partner that has some of its neurons and not all.
    let (partner, (shared, own)) = ["1", "2", "3"]
        .into_iter()
        .map(|id| {
            let theirs = neurons(id);
            (
                id,
                whole
                    .iter()
                    .partition::<Vec<_>, _>(|(n, _)| theirs.iter().any(|(m, _)| m == n)),
            )
        })
        .find(|(_, (shared, own))| !shared.is_empty() && !own.is_empty())
        .expect("two features share some of their neurons");
    let kl = |what: &str, part: &[&str]| {
        let steer = [
            "steer",
            &made.study,
            what,
            "--alpha",
            "8",
            "--max-tokens",
            "1",
            "--json",
        ];
        run(&[&steer[..], part].concat())[0]["kl"].as_f64().unwrap()
    };
    // The same neurons named one by one, with the feature's weights on them at unit norm.
    let by_hand = |part: &[(u64, f64)]| {
        let norm = part.iter().map(|(_, w)| w * w).sum::<f64>().sqrt();
        kl(
            &part
                .iter()
                .map(|(n, w)| format!("neuron:{n}:{}", w / norm))
                .collect::<Vec<_>>()
                .join(","),
            &[],
        )
    };
    let (core, exclusive) = (
        kl("0", &["--core-of", &format!("0,{partner}")]),
        kl("0", &["--exclusive-of", partner]),
    );
    let near = |a: f64, b: f64| (a - b).abs() < 1e-3 * b;
    assert!(
        near(core, by_hand(&shared)),
        "core {core}, by hand {}",
        by_hand(&shared)
    );
    assert!(
        near(exclusive, by_hand(&own)),
        "exclusive {exclusive}, by hand {}",
        by_hand(&own)
    );
    assert!(
        !near(core, exclusive) && core > 0.0,
        "{core} and {exclusive} would not tell an exchange"
    );
}
