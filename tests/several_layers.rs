//! `--layer 0,1` of the commands that fit and evaluate, end to end on a small random model.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::program::{events, mlpeek, parsed};
use tempfile::TempDir;

fn run(home: &Path, args: &[&str]) -> (Vec<Value>, String, i32) {
    let output = mlpeek(home).args(args).arg("--json").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (parsed(output.stdout), said, output.status.code().unwrap())
}

/// A study of the layers 0 and 2.
fn study(home: &Path) -> String {
    let sentences = |word: &str| -> Vec<String> {
        (0..12)
            .map(|i| format!("{word} and {word} {i} so it was"))
            .collect()
    };
    let corpus =
        json!({"sea": sentences("tide"), "days": sentences("monday"), "food": sentences("bread")});
    let data = home.join("corpus.json");
    std::fs::write(&data, corpus.to_string()).unwrap();
    let model = support::tiny_model(home).display().to_string();
    let (data, study) = (data.display().to_string(), home.join("study"));
    let study = study.display().to_string();
    let collect = [
        "collect", "--model", &model, "--layer", "0,2", "--data", &data,
    ];
    let (_, said, code) = run(home, &[&collect[..], &["--out", &study]].concat());
    assert_eq!(code, 0, "{said}");
    study
}

#[test]
fn layers_are_worked_on_in_turn_and_told_against_each_other() {
    let dir = TempDir::new().unwrap();
    let (home, study) = (dir.path(), study(dir.path()));
    let fit = [
        "fit",
        &study,
        "-k",
        "4",
        "--sparsity",
        "0.1",
        "--max-sweeps",
        "5",
        "--layer",
        "0,2",
    ];
    let (lines, said, code) = run(home, &fit);
    assert_eq!(code, 0, "{said}");
    let fits: Vec<&Value> = events(&lines, "fitted").iter().map(|f| &f["fit"]).collect();
    assert_eq!(fits, ["l0-k4", "l2-k4"]);
    for (layer, fitted) in events(&lines, "layer").iter().zip(events(&lines, "fitted")) {
        assert_eq!(layer["method"], "k4", "a fit is told without its layer");
        assert_eq!(layer["value_interval"]["mean"], fitted["relative_error"]);
    }
    // What is fitted stays, and the others are fitted: the same command goes on after any stop.
    std::fs::remove_dir_all(home.join("study/fits/l2-k4")).unwrap();
    let (again, said, _) = run(home, &fit);
    assert_eq!(events(&again, "fitted").len(), 1, "{said}");
    assert!(
        said.contains("'l0-k4'") && said.contains("it stays"),
        "{said}"
    );
    assert_eq!(events(&again, "layer"), events(&lines, "layer"));

    let plot = home.join("layers.svg").display().to_string();
    let detection = [
        "eval",
        "detection",
        &study,
        "--methods",
        "fit,diffmean",
        "--layer",
    ];
    let several = [&detection[..], &["2,0", "--svg", &plot]].concat();
    let (lines, said, code) = run(home, &several);
    assert_eq!(code, 0, "{said}");
    let all = events(&lines, "layer");
    for layer in [0, 2] {
        let alone = run(home, &[&detection[..], &[&layer.to_string()]].concat()).0;
        for (method, name) in events(&alone, "method").iter().zip(["k4", "diffmean"]) {
            let of = all
                .iter()
                .find(|l| l["layer"] == layer && l["method"] == name && l["measure"] == "AUROC");
            assert_eq!(of.unwrap()["value_interval"], method["auroc_interval"]);
        }
        assert!(events(&alone, "layer").is_empty());
    }
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert_eq!(
        (
            svg.matches("<polyline").count(),
            svg.matches("<circle").count()
        ),
        (2, 4)
    );

    let steering = ["eval", "steering", &study, "--kl", "0.02", "--samples", "0"];
    let steering = [
        &steering[..],
        &["--methods", "fit,diffmean", "--layer", "0,2"],
    ]
    .concat();
    let (lines, said, code) = run(home, &steering);
    assert_eq!(code, 0, "{said}");
    let own = events(&lines, "layer");
    let own: Vec<_> = own.iter().filter(|l| l["measure"] == "own").collect();
    assert_eq!(own.len(), 4);
    for (told, of) in own.iter().zip(
        events(&lines, "measure")
            .iter()
            .filter(|m| m["measure"] == "own"),
    ) {
        assert_eq!(told["value_interval"], of["value_interval"]);
    }
    let grid = [
        "--seeds",
        "1",
        "--max-sweeps",
        "3",
        "-k",
        "3",
        "--layer",
        "0,2",
    ];
    for command in ["sweep", "quality"] {
        let (lines, said, code) = run(home, &[&[command, &study][..], &grid].concat());
        assert_eq!(code, 0, "{said}");
        let layers: Vec<&Value> = events(&lines, "layer")
            .iter()
            .map(|l| &l["layer"])
            .collect();
        assert!(
            layers.contains(&&json!(0)) && layers.contains(&&json!(2)),
            "{command}"
        );
    }
}

#[test]
fn layers_that_cannot_be_are_refused_before_any_work() {
    let dir = TempDir::new().unwrap();
    let (home, study) = (dir.path(), study(dir.path()));
    let refused = |args: &[&str], says: &str| {
        let (lines, said, code) = run(home, args);
        assert!(code == 2 && said.contains(says), "{args:?}: {said}");
        assert!(lines.is_empty(), "{lines:?}");
    };
    let fit = ["fit", &study, "-k", "4", "--max-sweeps", "3", "--layer"];
    refused(&[&fit[..], &["0,1"]].concat(), "layer 1 was not collected");
    refused(&[&fit[..], &["0,2,0"]].concat(), "layer 0 is named twice");
    refused(
        &[&fit[..], &["0", "--svg", "f.svg"]].concat(),
        "--svg plots scores against layer",
    );
    let more = ["fit", &study, "--from", "k4", "--layer", "0,2"];
    refused(&more, "a fit of one layer");
    let detection = ["eval", "detection", &study, "--svg", "f.svg"];
    refused(&detection, "--svg plots scores against layer");
    let sweep = ["sweep", &study, "--layer", "0,2", "--svg", "f.png"];
    refused(&sweep, "svg");
    assert!(!home.join("study/fits/l0-k4").exists());
}
