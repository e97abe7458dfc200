//! Options of evaluations without effect, and what a refusal or a failed plot leaves.

use serde_json::Value;

use super::support::program::events;
use super::{Made, mlpeek};

#[test]
fn options_without_effect_and_files_that_are_not_there_are_refused_before_any_work() {
    let made = Made::new();
    let study = made.study.as_str();
    let steering = ["eval", "steering", study];
    let none = made.dir.path().join("none").display().to_string();
    let descriptions = ["--concepts", "descriptions", "--judge", "meaning"];
    let cases: [(&[&str], i32, &str); 9] = [
        (
            &["--samples", "0", "--temperature", "0.5"],
            2,
            "--temperature has no effect with --samples 0",
        ),
        (
            &["--samples", "0", "--batch", "8"],
            2,
            "--batch has no effect with --samples 0",
        ),
        (
            &["--judge", "meaning", "--encoder", &none, "--dry-run"],
            1,
            "none",
        ),
        (
            &[&descriptions[..], &["--holdout", "0.5"]].concat(),
            2,
            "--holdout is of --concepts labels",
        ),
        (
            &[&descriptions[..], &["--holdout-seed", "0"]].concat(),
            2,
            "--holdout-seed is of --concepts labels",
        ),
        (
            &[&descriptions[..], &["--phrases", &none, "--dry-run"]].concat(),
            1,
            "none",
        ),
        (
            &[&descriptions[..], &["--encoder", &none, "--dry-run"]].concat(),
            1,
            "none",
        ),
        (
            &[
                "--methods",
                "fit,shuffled",
                "--labels",
                "sea",
                "--choose",
                "output",
                "--dry-run",
            ],
            2,
            "there is one label",
        ),
        (
            &[
                "--methods",
                "fit",
                "--labels",
                "sea",
                "--choose",
                "output",
                "--dry-run",
            ],
            0,
            "",
        ),
    ];
    for (args, code, says) in cases {
        let (_, said, found) = made.output(&[&steering[..], args].concat());
        assert!(
            found == code || (code == 1 && found == 2),
            "{args:?}: {said}"
        );
        assert!(said.contains(says), "{args:?}: {said}");
    }
    made.fails(
        &[
            "steer",
            study,
            "1",
            "--prompt",
            "a",
            "--samples",
            "20000000",
        ],
        2,
        "at most 10000",
    );
    made.fails(
        &["fit", study, "-k", "2", "--row-cap", "99"],
        2,
        "--row-cap 99 has no effect on 2 features",
    );
    for place in [["--fit", "k5"], ["--layer", "1"]] {
        made.fails(
            &[&["describe", study, "--import", "x.jsonl"][..], &place].concat(),
            2,
            "cannot be used with",
        );
    }
}

#[test]
fn a_plot_that_cannot_be_written_takes_no_table_with_it() {
    let made = Made::new();
    let plot = made.dir.path().join("taken");
    std::fs::create_dir(&plot).unwrap();
    let to = plot.join("p.svg").display().to_string();
    let args = [
        "eval",
        "steering",
        &made.study,
        "--methods",
        "diffmean,random",
        "--kl",
        "0.02",
        "--samples",
        "1",
        "--max-tokens",
        "2",
        "--svg",
        &to,
    ];
    // The directory goes while the evaluation runs.
    let command = mlpeek(made.dir.path()).args(args).output().unwrap();
    assert!(command.status.success());
    let whole = String::from_utf8(command.stdout).unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mlpeek"))
        .args(args)
        .env("MLPEEK_HOME", made.dir.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // What was checked before the work began is gone at its end.
    let mut gone = false;
    while child.try_wait().unwrap().is_none() {
        gone = std::fs::remove_dir_all(&plot).is_ok() || gone;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    // Where it went before the check, nothing was begun; else the table is there, whole.
    if table.is_empty() {
        assert!(gone && output.status.code() == Some(2));
    } else {
        assert!(
            table.contains("score 0 to 2") && whole.contains("score 0 to 2"),
            "{table}"
        );
    }
}

#[test]
fn methods_at_another_hook_are_held_against_random_directions_of_that_hook() {
    let made = Made::new();
    let model = made.dir.path().join("tiny-llama").display().to_string();
    let corpus = made.dir.path().join("corpus.json").display().to_string();
    let both = made.dir.path().join("both").display().to_string();
    made.lines(&[
        "collect", "--model", &model, "--layer", "0,1", "--data", &corpus, "--out", &both, "--json",
    ]);
    let at = |methods: &str| -> Vec<Value> {
        let args = [
            "eval",
            "steering",
            &both,
            "--methods",
            methods,
            "--kl",
            "0.02",
            "--samples",
            "0",
            "--json",
        ];
        let lines = made.lines(&args);
        let calibrated = events(&lines, "measure")
            .into_iter()
            .filter(|m| m["measure"] == "calibrated");
        calibrated
            .map(|m| m["value_interval"]["mean"].clone())
            .collect()
    };
    let (first, second) = ("diffmean@0.mlp.hook_post", "diffmean@1.mlp.hook_post");
    let together = at(&format!("{first},{second}"));
    // As each is alone, where the hook is the first method's.
    assert_eq!(together, [at(first), at(second)].concat());
    assert_ne!(together[0], together[1]);
}
