//! Mixes, choices by effect and text gradients, beside the same choice among random directions.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::Made;
use crate::support::program::events;

/// The files of what was measured, by name.
fn measured(study: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(study).join("measured");
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn what_steers_by_design_stands_beside_the_same_choice_among_random_directions() {
    let made = Made::new();
    made.fails(
        &["eval", "detection", &made.study, "--methods", "mix"],
        1,
        "mlpeek effects",
    );
    let steering = ["eval", "steering", &made.study, "--kl", "0.02"];
    let methods = ["--methods", "diffmean,textgrad-cut,mix,effect"];
    let ask = [&steering[..], &["--samples", "0", "--json"], &methods].concat();
    made.fails(
        &[&ask[..], &["--choose-prompt", "I think that"]].concat(),
        2,
        "cannot both choose and be reported on",
    );
    let found = made.lines(&ask);
    let all = events(&found, "measure");
    let rows_of = |measure: &str| -> Vec<&Value> {
        let rows = all.iter().filter(|m| m["measure"] == measure);
        rows.copied().collect()
    };
    let names: Vec<&str> = rows_of("own")
        .iter()
        .map(|m| m["method"].as_str().unwrap())
        .collect();
    let wanted = [
        "diffmean",
        "textgrad-cut",
        "mix",
        "effect",
        "mix@random",
        "effect@random",
    ];
    assert_eq!(names, wanted);
    let rises = events(&found, "rise");
    for (row, rise) in rows_of("rise").iter().zip(&rises) {
        assert_eq!(row["value_interval"], rise["rise_interval"]);
    }
    for row in &all {
        let first = row["method"] == "diffmean";
        assert_eq!(row["minus_against"].is_null(), first, "{row}");
        if !first {
            assert_eq!(
                (&row["against"], &row["comparison_count"]),
                (&json!("diffmean"), &json!(5))
            );
            assert!(row["adjusted_p"].as_f64() >= row["p"].as_f64(), "{row}");
        }
    }
    // A gradient is told by its own words: at the top of all tokens' changes.
    let textgrad = rises
        .iter()
        .find(|r| r["method"] == "textgrad-cut")
        .unwrap();
    assert!(
        textgrad["rise_interval"]["mean"].as_f64().unwrap() > 0.6,
        "{textgrad}"
    );

    // Cut short, it goes on from what was measured, to the same bytes; the table is the same.
    let whole = measured(&made.study);
    assert!(
        whole.len() >= 3,
        "gradients, effects of features and of random directions"
    );
    for (path, bytes) in &whole {
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    fs::remove_dir_all(Path::new(&made.study).join("evaluations")).unwrap();
    let again = made.lines(&ask);
    assert_eq!(events(&again, "measure"), all);
    for (path, bytes) in &whole {
        assert_eq!(fs::read(path).unwrap().len(), bytes.len(), "{path}");
    }

    // Measured once, mixes are read without asking the model again.
    let chosen = [
        &steering[..],
        &["--samples", "0", "--choose", "effect", "--json"],
    ]
    .concat();
    let found = made.lines(&[&chosen[..], &["--methods", "fit,diffmean,random"]].concat());
    let names: Vec<&str> = events(&found, "rise")
        .iter()
        .map(|m| m["method"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["k5", "diffmean", "random", "effect@random"]);
}

#[test]
fn a_mix_tells_its_recipe_and_a_measured_feature_what_it_moves() {
    let made = Made::new();
    // A label that is not there is said before the model is asked about the others.
    for command in ["feature", "steer"] {
        made.fails(
            &[command, &made.study, "textgrad:nothing"],
            2,
            "no direction 'nothing'",
        );
    }
    assert!(!Path::new(&made.study).join("measured").exists());
    let before = &made.lines(&["feature", &made.study, "2", "--json"])[0];
    assert!(before["raised"].is_null() && before["recipe"] == json!([]));
    let effects = made.lines(&["effects", &made.study, "--json"]);
    assert_eq!(effects.len(), 5);
    let after = &made.lines(&["feature", &made.study, "2", "--json"])[0];
    for side in ["raised", "lowered"] {
        assert_eq!(after[side][0], effects[2][side][0]);
    }
    let kl = effects[2]["kl"].as_f64().unwrap();
    assert!((kl / 0.25).ln().abs() < 0.3, "{kl}");

    let mix = &made.lines(&["feature", &made.study, "mix:sea", "--json"])[0];
    let parts = mix["recipe"].as_array().unwrap();
    assert!(parts.len() > 1 && parts.len() <= 5, "{mix}");
    let few = &made.lines(&["feature", &made.study, "effect:sea", "--json"])[0];
    let one = few["recipe"].as_array().unwrap();
    assert_eq!(
        (one.len(), one[0]["weight"].as_f64().map(f64::abs)),
        (1, Some(1.0))
    );
    let steer = [
        "steer",
        &made.study,
        "mix5:sea,textgrad:days",
        "--kl",
        "0.02",
        "--json",
    ];
    let found = &made.lines(&[&steer[..], &["--max-tokens", "2"]].concat())[0];
    let directions = found["directions"].as_array().unwrap();
    assert_eq!(directions[0]["title"], "sea");
    assert!(!directions[0]["recipe"].as_array().unwrap().is_empty());
    assert_eq!(directions[1]["recipe"], json!([]));
    made.fails(
        &["steer", &made.study, "mix:nothing"],
        2,
        "no direction 'nothing'",
    );
}

#[test]
fn random_directions_are_as_many_as_those_of_the_fit_that_chooses() {
    let made = Made::new();
    let wide = ["fit", &made.study, "-k", "7", "--sparsity", "0.2"];
    made.lines(&[&wide[..], &["--max-sweeps", "5", "--json"]].concat());
    let steering = ["eval", "steering", &made.study, "--kl", "0.02"];
    let methods = [
        "--methods",
        "diffmean,mix@k5,mix@k7+mix@k5",
        "--samples",
        "0",
        "--json",
    ];
    let found = made.lines(&[&steering[..], &methods].concat());
    let names: Vec<&str> = events(&found, "rise")
        .iter()
        .map(|r| r["method"].as_str().unwrap())
        .collect();
    let wanted = [
        "diffmean",
        "mix@k5",
        "mix@k7+mix@k5",
        "mix@random@k5",
        "mix@random",
    ];
    assert_eq!(names, wanted);
    // What is kept of each: a record a direction, and one of the unsteered model.
    let study: Value =
        serde_json::from_slice(&fs::read(Path::new(&made.study).join("study.json")).unwrap())
            .unwrap();
    let size = |name: &str| study["model"][name].as_u64().unwrap() as usize;
    let mut counts = Vec::new();
    for (path, bytes) in measured(&made.study) {
        let end = bytes.iter().position(|&b| b == b'\n').unwrap();
        let about: Value = serde_json::from_slice(&bytes[..end]).unwrap();
        if about["effects"] == "random" {
            let prompts = about["ask"]["prompts"].as_array().unwrap().len();
            let record = 12 + 4 * (4 + size("d_model")) + 2 * prompts * size("vocab");
            assert_eq!((bytes.len() - end - 1) % record, 0, "{path}");
            counts.push((bytes.len() - end - 1) / record - 1);
        }
    }
    counts.sort_unstable();
    assert_eq!(counts, [5, 7]);
}
