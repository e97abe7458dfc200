//! `mlpeek eval` end to end on a small random model: JSON fields, going on after a stop, bad input.

mod by_effect;
mod directions;
mod judges;
mod refusals;
mod runs;
#[path = "../support/mod.rs"]
mod support;
mod words;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};
use support::program::{self, events};
use tempfile::TempDir;

const KEY: &str = "sk-not-to-be-seen";

fn mlpeek(home: &Path) -> Command {
    let mut command = program::mlpeek(home);
    command.env("JUDGE_KEY", KEY).env("NO_PROXY", "*");
    command
}

/// A fitted study of three labels with words of their own and one label of a single sentence.
struct Made {
    dir: TempDir,
    study: String,
}

impl Made {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let sentences = |words: [&str; 3]| -> Vec<String> {
            (0..24)
                .map(|i| {
                    format!(
                        "{} and {} {i} {}",
                        words[i % 3],
                        words[(i + 1) % 3],
                        "so it was".repeat(1 + i % 2)
                    )
                })
                .collect()
        };
        let corpus = json!({"sea": sentences(["tide", "boat", "wave"]), "days": sentences(["monday", "friday", "noon"]),
            "food": sentences(["bread", "soup", "rice"]), "lonely": ["one sentence alone"]});
        Self::of(dir, &corpus)
    }

    fn of(dir: TempDir, corpus: &Value) -> Self {
        let model = support::tiny_model(dir.path()).display().to_string();
        let data = dir.path().join("corpus.json");
        fs::write(&data, corpus.to_string()).unwrap();
        let study = dir.path().join("study").display().to_string();
        let data = data.display().to_string();
        let made = Self { dir, study };
        made.lines(&[
            "collect",
            "--model",
            &model,
            "--layer",
            "1",
            "--data",
            &data,
            "--out",
            &made.study,
            "--json",
        ]);
        made.lines(&[
            "fit",
            &made.study,
            "-k",
            "5",
            "--sparsity",
            "0.1",
            "--max-sweeps",
            "20",
            "--json",
        ]);
        made
    }

    fn output(&self, args: &[&str]) -> (Vec<Value>, String, i32) {
        let output = mlpeek(self.dir.path()).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let lines = stdout
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect();
        (lines, stderr, output.status.code().unwrap())
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let (lines, stderr, code) = self.output(args);
        assert_eq!(code, 0, "{stderr}");
        lines
    }

    fn fails(&self, args: &[&str], code: i32, says: &str) {
        let (_, stderr, status) = self.output(args);
        assert_eq!(status, code, "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn detection_scores_every_kind_of_direction() {
    let made = Made::new();
    let (lines, notes, _) = made.output(&["eval", "detection", &made.study, "--json"]);
    let methods = events(&lines, "method");
    let names: Vec<_> = methods
        .iter()
        .map(|m| m["method"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "k5",
            "diffmean",
            "kmeans",
            "kmeans-cut",
            "random",
            "neuron",
            "k5, shuffled labels"
        ]
    );
    for method in &methods {
        let result = method;
        assert_eq!(result["hook"], "blocks.1.mlp.hook_post");
        let labels = result["labels"].as_array().unwrap();
        assert_eq!(labels.len(), 3, "the label of one sentence is left out");
        for share in ["s_cd_undefined", "above_0"] {
            assert!((0.0..=1.0).contains(&result[share].as_f64().unwrap()));
        }
        let mean: f64 = labels
            .iter()
            .map(|l| l["auroc"].as_f64().unwrap())
            .sum::<f64>()
            / 3.0;
        assert!((result["auroc_interval"]["mean"].as_f64().unwrap() - mean).abs() < 1e-9);
        assert!(labels[0]["hard_accuracy"].is_number());
    }
    assert!(
        notes.contains("fewer than 4 sentences each: lonely"),
        "{notes}"
    );
    // Words that no other label has are told apart by a direction made for it.
    let supervised = methods[1]["auroc_interval"]["mean"].as_f64().unwrap();
    assert!(supervised > 0.7, "{supervised}");
    assert_eq!(events(&lines, "difference").len(), 6);
}

#[test]
fn fits_of_several_seeds_are_one_line() {
    let made = Made::new();
    let fit = [
        "fit",
        &made.study,
        "-k",
        "5",
        "--sparsity",
        "0.1",
        "--max-sweeps",
        "20",
        "--seed",
        "7",
        "--name",
        "other",
    ];
    made.lines(&[&fit[..], &["--json"]].concat());
    let lines = |methods: &str, command: &[&str]| {
        made.lines(&[command, &["--methods", methods, "--json"]].concat())
    };
    let detection = ["eval", "detection", &made.study];
    let found = lines("fit:k5+fit:other,fit:k5,fit:other,random", &detection);
    let rows: Vec<&Value> = events(&found, "method").into_iter().collect();
    let names: Vec<_> = rows.iter().map(|r| r["method"].as_str().unwrap()).collect();
    assert_eq!(names, ["k5+other", "k5", "other", "random"]);
    for l in 0..3 {
        let auroc = |row: usize| rows[row]["labels"][l]["auroc"].as_f64().unwrap();
        assert!((auroc(0) - (auroc(1) + auroc(2)) / 2.0).abs() < 1e-12);
        assert_eq!(
            rows[0]["labels"][l]["features"].as_array().unwrap().len(),
            2
        );
    }
    let steering = [
        "eval",
        "steering",
        &made.study,
        "--kl",
        "0.02",
        "--samples",
        "0",
    ];
    let rise = |methods: &str| {
        let found = lines(methods, &steering);
        let rise = events(&found, "rise")[0];
        (
            rise["method"].as_str().unwrap().to_owned(),
            rise["rise_interval"]["mean"].as_f64().unwrap(),
        )
    };
    let (name, both) = rise("fit:k5+fit:other,random");
    let each = [rise("fit:k5"), rise("fit:other")];
    assert_eq!(name, "k5+other");
    assert!(
        (both - (each[0].1 + each[1].1) / 2.0).abs() < 1e-9,
        "{both}, {each:?}"
    );
    let absent = [
        &detection[..],
        &["--methods", "fit:k5+diffmean@1.hook_resid_post"],
    ]
    .concat();
    made.fails(&absent, 2, "no such hook");
}

#[test]
fn without_texts_it_tells_what_becomes_of_labels_own_words() {
    let made = Made::new();
    let steering = [
        "eval",
        "steering",
        &made.study,
        "--methods",
        "fit,diffmean,kmeans-cut",
        "--json",
    ];
    let run = |more: &[&str]| made.lines(&[&steering[..], more].concat());
    let found = run(&["--kl", "0.02,0.05", "--samples", "0"]);
    assert!(events(&found, "text").is_empty());
    let rises: Vec<&Value> = events(&found, "rise").into_iter().collect();
    assert_eq!(rises.len(), 6, "three methods at two targets: {found:?}");
    for rise in &rises {
        let mean = rise["rise_interval"]["mean"].as_f64().unwrap();
        assert!(
            (0.0..=1.0).contains(&mean) && rise["label_count"].as_u64().unwrap() >= 2,
            "{rise}"
        );
        assert_eq!(rise["first_minus"].is_null(), rise["method"] == "k5");
    }
    // The same α and words beside texts.
    let beside = run(&["--kl", "0.02,0.05", "--samples", "1", "--max-tokens", "2"]);
    assert_eq!(events(&beside, "rise"), events(&found, "rise"));
}
