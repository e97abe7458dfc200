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

/// Lines without how long something took, which no two runs share.
fn timeless(lines: &[Value], event: &str) -> Vec<Value> {
    let mut of: Vec<Value> = events(lines, event).into_iter().cloned().collect();
    for line in &mut of {
        line.as_object_mut().unwrap().remove("elapsed_s");
    }
    of
}

fn fit(home: &Path, study: &str, more: &[&str]) {
    let fit = [
        "fit",
        study,
        "-k",
        "4",
        "--sparsity",
        "0.1",
        "--max-sweeps",
        "5",
        "--layer",
    ];
    let (_, said, code) = run(home, &[&fit[..], more].concat());
    assert_eq!(code, 0, "{said}");
}

fn kept(study: &str, command: &str) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(Path::new(study).join("layers"));
    let mut of: Vec<_> = all
        .into_iter()
        .flatten()
        .map(|e| e.unwrap().path())
        .filter(|p| {
            p.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(command)
        })
        .collect();
    of.sort();
    of
}

const KEPT: &str = "as an earlier run left it";

#[test]
fn what_a_layer_came_to_is_kept_and_the_same_command_goes_on() {
    let dir = TempDir::new().unwrap();
    let (home, study) = (dir.path(), study(dir.path()));
    fit(home, &study, &["0,2"]);
    let small = ["--max-sweeps", "5", "--seeds", "2", "--layer", "0,2"];
    let commands: [(&str, Vec<&str>, &[&str]); 3] = [
        (
            "detection",
            vec!["eval", "detection", &study, "--layer", "0,2"],
            &["method", "difference", "detection", "layer"],
        ),
        (
            "quality",
            [&["quality", &study][..], &small].concat(),
            &["method", "interval", "difference", "quality", "layer"],
        ),
        (
            "sweep",
            [&["sweep", &study, "-k", "3,4"][..], &small].concat(),
            &["row", "swept", "layer"],
        ),
    ];
    for (command, args, told) in &commands {
        let (first, said, code) = run(home, args);
        assert_eq!(code, 0, "{said}");
        assert!(!said.contains(KEPT), "{said}");
        let files = kept(&study, command);
        assert_eq!(files.len(), 2, "{command}");
        let (again, said, _) = run(home, args);
        assert_eq!(said.matches(KEPT).count(), 2, "{said}");
        for event in *told {
            assert!(!events(&first, event).is_empty(), "{event}");
            assert_eq!(
                events(&again, event),
                events(&first, event),
                "{command} {event}"
            );
        }
        // One torn, one changed: worked on anew, to the same.
        let whole: Vec<Vec<u8>> = files.iter().map(|f| std::fs::read(f).unwrap()).collect();
        std::fs::write(&files[0], &whole[0][..whole[0].len() / 2]).unwrap();
        let text = String::from_utf8(whole[1].clone()).unwrap();
        let (head, result) = text.split_once('\n').unwrap();
        let changed = format!("{head}\n{}", result.replacen('0', "1", 1));
        std::fs::write(&files[1], changed).unwrap();
        let (again, said, _) = run(home, args);
        assert_eq!(said.matches("is torn, or was changed").count(), 2, "{said}");
        for event in *told {
            assert_eq!(
                timeless(&again, event),
                timeless(&first, event),
                "{command} {event}"
            );
        }
        assert_eq!(run(home, args).1.matches(KEPT).count(), 2);
        // Asked otherwise, or of one layer, it is another result.
        let otherwise = [&args[..], &["--holdout-seed", "3"]].concat();
        assert!(!run(home, &otherwise).1.contains(KEPT));
        let mut alone = args.clone();
        *alone.last_mut().unwrap() = "2";
        assert!(!run(home, &alone).1.contains(KEPT));
    }
    // A fit that is made anew is another fit: its layer is evaluated again, the other is not.
    fit(
        home,
        &study,
        &["2", "--name", "l2-k4", "--seed", "9", "--fresh"],
    );
    let (_, said, _) = run(home, &commands[0].1);
    assert_eq!(said.matches(KEPT).count(), 1, "{said}");
    // Another process has the study: it is said that nothing is kept.
    let before = kept(&study, "detection").len();
    let held = mlpeek::study::Study::open(Path::new(&study)).unwrap();
    let (_, said, code) = run(home, &[&commands[0].1[..], &["--rivals", "1"]].concat());
    drop(held);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.matches("is not kept, as").count(), 2, "{said}");
    assert_eq!(kept(&study, "detection").len(), before);
}

#[test]
fn a_run_that_is_killed_between_two_layers_goes_on_with_the_second() {
    let dir = TempDir::new().unwrap();
    let (home, study) = (dir.path(), study(dir.path()));
    let args = [
        "quality",
        &study,
        "-k",
        "4",
        "--max-sweeps",
        "5",
        "--layer",
        "0,2",
        "--json",
    ];
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mlpeek"))
        .args(args)
        .env("MLPEEK_HOME", home)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while kept(&study, "quality").is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(2));
        if child.try_wait().unwrap().is_some() {
            break;
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
    assert!(
        !kept(&study, "quality").is_empty(),
        "the first layer is kept before the second begins"
    );
    let (lines, said, code) = run(home, &args[..args.len() - 1]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(KEPT), "{said}");
    assert_eq!(events(&lines, "quality").len(), 2);
}

#[test]
fn a_fits_name_stands_for_the_layers_own_fit() {
    let dir = TempDir::new().unwrap();
    let (home, study) = (dir.path(), study(dir.path()));
    fit(home, &study, &["0,2", "--name", "mine"]);
    // A newer one, which is not meant.
    fit(home, &study, &["0,2", "--name", "other", "--seed", "7"]);
    let detection = ["eval", "detection", &study, "--methods"];
    let named = |methods: &'static str, more: &[&str]| {
        let (lines, said, code) = run(home, &[&detection[..], &[methods], more].concat());
        assert_eq!(code, 0, "{said}");
        let names = events(&lines, "method")
            .into_iter()
            .map(|m| m["method"].clone());
        names.collect::<Vec<Value>>()
    };
    let both = ["l0-mine", "l2-mine"];
    assert_eq!(named("fit:mine", &["--layer", "0,2"]), both);
    assert_eq!(named("fit", &["--fit", "mine", "--layer", "0,2"]), both);
    assert_eq!(named("fit:mine", &["--layer", "2"]), both[1..]);
    assert_eq!(
        named("fit:mine+fit:other", &["--layer", "0"]),
        ["l0-mine+l0-other"]
    );
    let quality = [
        "quality",
        &study,
        "--fit",
        "mine",
        "--no-controls",
        "--seeds",
        "1",
        "--layer",
        "0,2",
    ];
    let (lines, said, code) = run(home, &quality);
    assert_eq!((code, events(&lines, "quality").len()), (0, 2), "{said}");
    let steering = [
        "eval",
        "steering",
        &study,
        "--kl",
        "0.02",
        "--samples",
        "0",
        "--methods",
        "mix@mine",
        "--layer",
        "0,2",
    ];
    let (lines, said, code) = run(home, &steering);
    assert_eq!(code, 0, "{said}");
    let of_rise = events(&lines, "rise");
    let names: Vec<&str> = of_rise
        .iter()
        .map(|r| r["method"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "mix@l0-mine",
            "mix@random@l0-mine",
            "mix@l2-mine",
            "mix@random@l2-mine"
        ]
    );
}
