//! Which directions are steered with: at two hooks, of decoders and named fits, of parts of a family.

use std::fs;

use serde_json::json;
use tempfile::TempDir;

use crate::Made;
use crate::support::program::events;

#[test]
fn methods_at_two_hooks_are_compared_and_their_spaces_told() {
    let dir = TempDir::new().unwrap();
    let sentences = |word: &str| {
        (0..12)
            .map(|i| format!("{word} {i} and {word}"))
            .collect::<Vec<_>>()
    };
    let made = Made::of(
        dir,
        &json!({"sea": sentences("tide"), "days": sentences("noon")}),
    );
    let model = made.dir.path().join("tiny-llama").display().to_string();
    let data = made.dir.path().join("corpus.json").display().to_string();
    let two = made.dir.path().join("two").display().to_string();
    made.lines(&[
        "collect", "--model", &model, "--layer", "1,2", "--data", &data, "--out", &two, "--json",
    ]);
    made.lines(&[
        "fit",
        &two,
        "--layer",
        "1",
        "-k",
        "3",
        "--sparsity",
        "0.2",
        "--max-sweeps",
        "5",
        "--name",
        "one",
        "--json",
    ]);
    made.lines(&[
        "fit",
        &two,
        "--layer",
        "2",
        "-k",
        "4",
        "--sparsity",
        "0.2",
        "--max-sweeps",
        "5",
        "--name",
        "new",
        "--json",
    ]);
    let methods =
        "fit:one,diffmean@1.mlp.hook_post,diffmean@2.mlp.hook_post,kmeans@1.mlp.hook_post,shuffled";
    let common = ["--methods", methods, "--json"];
    let (lines, notes, code) = made.output(&[&["eval", "detection", &two][..], &common].concat());
    assert_eq!(code, 0, "{notes}");
    assert!(notes.contains("different spaces"), "{notes}");
    let named: Vec<_> = events(&lines, "method")
        .iter()
        .map(|m| (m["method"].clone(), m["hook"].clone()))
        .collect();
    let hook = |layer: usize| json!(format!("blocks.{layer}.mlp.hook_post"));
    assert_eq!(named[1], (json!("diffmean@1.mlp.hook_post"), hook(1)));
    assert_eq!(named[2], (json!("diffmean@2.mlp.hook_post"), hook(2)));
    assert_eq!(
        named[4],
        (json!("one, shuffled labels"), hook(1)),
        "the first fit that is named is shuffled, not the newest"
    );

    let svg = made.dir.path().join("plot.svg").display().to_string();
    let steering = [
        "eval",
        "steering",
        &two,
        "--kl",
        "0.02",
        "--max-tokens",
        "2",
        "--svg",
        &svg,
    ];
    let lines = made.lines(&[&steering[..], &common].concat());
    let hooks: Vec<_> = events(&lines, "method")
        .iter()
        .map(|m| m["hook"].clone())
        .collect();
    assert_eq!(hooks, [hook(1), hook(1), hook(2), hook(1), hook(1)]);
    for rise in events(&lines, "rise") {
        let layer = if rise["method"] == "diffmean@2.mlp.hook_post" {
            2
        } else {
            1
        };
        assert_eq!(rise["hook"], hook(layer), "{rise}");
    }
    let plot = fs::read_to_string(&svg).unwrap();
    assert!(
        plot.contains("Steering at several hooks")
            && plot.contains("one at blocks.1")
            && plot.contains("unsteered")
    );
    made.fails(
        &[
            "eval",
            "detection",
            &two,
            "--methods",
            "diffmean@9.mlp.hook_post",
        ],
        2,
        "no such hook",
    );
    made.fails(
        &[
            "eval",
            "detection",
            &two,
            "--methods",
            "fit@1.mlp.hook_post",
        ],
        2,
        "leave out what follows @",
    );
    let card = made.lines(&["feature", &two, "diffmean@1.mlp.hook_post:sea", "--json"]);
    assert_eq!(card[0]["hook"], hook(1));
}

#[test]
fn decoder_rows_and_named_fits_are_directions_like_others() {
    let made = Made::new();
    let study = made.study.as_str();
    made.lines(&[
        "sae",
        "train",
        study,
        "--latents",
        "12",
        "--top-k",
        "3",
        "--epochs",
        "4",
        "--name",
        "t",
        "--json",
    ]);
    let listed = made.lines(&["features", study, "--directions", "sae:t", "--json"]);
    assert_eq!(
        listed.iter().filter(|l| l["feature"].is_number()).count(),
        12
    );
    let card = &made.lines(&["feature", study, "sae:t/3", "--json"])[0];
    assert_eq!(
        (&card["feature"], &card["hook"]),
        (&json!(3), &json!("blocks.1.mlp.hook_post"))
    );
    let steered = made.lines(&[
        "steer",
        study,
        "sae:t/3:0.5,fit:k5/1",
        "--alpha",
        "2",
        "--max-tokens",
        "2",
        "--json",
    ]);
    let sets: Vec<_> = steered[0]["directions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["set"].as_str().unwrap())
        .collect();
    assert_eq!(sets, ["sae:t", "k5"]);
    let usual = made.lines(&["eval", "detection", study, "--json"]);
    assert!(
        events(&usual, "method")
            .iter()
            .any(|m| m["method"] == "sae:t"),
        "an SAE is among the usual ones"
    );
    let found = made.lines(&[
        "eval",
        "detection",
        study,
        "--methods",
        "fit:k5,sae:t,sae",
        "--json",
    ]);
    let names: Vec<_> = events(&found, "method")
        .iter()
        .map(|m| m["method"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["k5", "sae:t", "sae:t"]);
    made.fails(&["feature", study, "sae:none/3"], 2, "no SAE 'none'");
    made.fails(&["feature", study, "sae:t/12"], 2, "0 to 11");
    made.fails(
        &["eval", "detection", study, "--methods", "fit:none"],
        2,
        "none",
    );
}

#[test]
fn a_direction_may_be_chosen_by_the_words_that_it_promotes() {
    let made = Made::new();
    let run = |choose: &[&str]| -> Vec<u64> {
        let plain = [
            "eval",
            "steering",
            &made.study,
            "--methods",
            "fit,diffmean,neuron",
            "--kl",
            "0.02",
            "--json",
        ];
        let lines = made.lines(&[&plain[..], &["--max-tokens", "2"], choose].concat());
        let texts = events(&lines, "text").into_iter();
        let features_of = |method: &str| -> Vec<u64> {
            let mine = texts.clone().filter(|t| t["method"] == method);
            mine.map(|t| t["feature"].as_u64().unwrap()).collect()
        };
        assert!(
            !features_of("k5").is_empty() && features_of("diffmean").iter().all(|d| *d < 3),
            "a label's own mean stays its own"
        );
        features_of("neuron")
    };
    // Of 64 neurons the one that a label excites most promotes its words most by chance alone.
    assert_ne!(run(&["--choose", "output"]), run(&[]));
}

#[test]
fn reuse_steers_with_the_parts_of_a_family() {
    let made = Made::new();
    let run = |family: &[&str]| {
        made.output(
            &[
                &["eval", "reuse", &made.study, "--kl", "0.02", "--json"],
                family,
            ]
            .concat(),
        )
    };
    let (lines, notes, code) = run(&["--features", "0=a,1=b,2=c"]);
    assert_eq!(code, 0, "{notes}");
    let rows = events(&lines, "row");
    let parts: Vec<_> = rows.iter().map(|r| r["part"].as_str().unwrap()).collect();
    assert_eq!(
        parts,
        [
            "core",
            "exclusive",
            "whole",
            "exclusive",
            "whole",
            "exclusive",
            "whole"
        ]
    );
    for row in rows
        .iter()
        .filter(|r| r["words"].as_array().is_some_and(|w| !w.is_empty()))
    {
        assert!(
            (row["kl"].as_f64().unwrap() - 0.02).abs() < 0.001 || row["remark"].is_string(),
            "{row}"
        );
        assert_eq!(row["words"].as_array().unwrap().len(), 3);
        assert!(row["words"][0]["rank"].as_u64().unwrap() >= 1);
    }
    assert!(rows.iter().all(|r| r["kl_reached"].is_boolean()));
    let far = [
        "eval",
        "reuse",
        &made.study,
        "--kl",
        "100",
        "--features",
        "0=a,1=b",
        "--json",
    ];
    let far = made.lines(&far);
    let missed = events(&far, "reuse")[0];
    assert!(
        missed["whole"]["own"].is_null() && missed["whole"]["out_of_reach_count"] == 2,
        "{missed}"
    );
    let (_, notes, _) = run(&["--labels", "lonely,sea"]);
    assert!(notes.contains("lonely (1)"), "{notes}");
    let chosen = run(&["--labels", "sea,days,food"]).0;
    let members = events(&chosen, "reuse")[0]["members"]
        .as_array()
        .unwrap()
        .clone();
    let mut features: Vec<_> = members
        .iter()
        .map(|m| m["feature"].as_u64().unwrap())
        .collect();
    features.sort_unstable();
    features.dedup();
    assert_eq!(features.len(), 3, "each feature once: {members:?}");
    for (family, says) in [
        (&["--features", "1=a"][..], "at least two members"),
        (&["--features", "1=a,1=b"], "both feature 1"),
        (&["--features", "1=sat,2=sun"], "begin with the same token"),
        (&["--features", "9=a,1=b"], "0 to 4"),
        (&["--labels", "hills,sea"], "no label 'hills'"),
        (&["--node", "99"], "no node 99"),
    ] {
        let (_, stderr, code) = run(family);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}
