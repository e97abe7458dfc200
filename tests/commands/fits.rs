//! Fits: their options, going on with other features and new rows, what a refused one leaves.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support;
use crate::support::program::{json_lines, mlpeek};
use crate::{collected, failure};

#[test]
fn a_second_collect_and_a_resumed_fit_go_on() {
    let made = collected(12);
    let data = made.dir.path().join("corpus.json").display().to_string();
    let again = json_lines(mlpeek(made.dir.path()).args([
        "collect",
        "--model",
        &made.model,
        "--layer",
        "1,2",
        "--data",
        &data,
        "--out",
        &made.study,
        "--json",
    ]));
    assert_eq!(again[0]["sample_count"], 12);
    let fit = [
        "fit",
        &made.study,
        "-k",
        "4",
        "--layer",
        "2",
        "--sparsity",
        "0.1",
        "--name",
        "f",
        "--json",
    ];
    let straight = json_lines(
        mlpeek(made.dir.path())
            .args(fit)
            .args(["--max-sweeps", "12"]),
    );
    let short = json_lines(
        mlpeek(made.dir.path())
            .args(fit)
            .args(["--max-sweeps", "5"]),
    );
    assert_eq!(short.len(), 6);
    let rest =
        json_lines(
            mlpeek(made.dir.path())
                .args(fit)
                .args(["--max-sweeps", "12", "--resume"]),
        );
    assert_eq!(rest[0]["sweep"], 6, "goes on after the fifth sweep");
    let end = |lines: &[Value]| lines.last().unwrap()["relative_error"].as_f64().unwrap();
    assert_eq!(end(&rest), end(&straight), "the same continuation");
}

#[test]
fn a_fit_that_cannot_be_read_is_told_and_passed_over() {
    let made = collected(12);
    for name in ["first", "second"] {
        let fit = [
            "fit",
            &made.study,
            "-k",
            "3",
            "--layer",
            "1",
            "--sparsity",
            "0.1",
            "--name",
            name,
            "--json",
        ];
        json_lines(mlpeek(made.dir.path()).args(fit));
    }
    let config = |name: &str| {
        Path::new(&made.study)
            .join("fits")
            .join(name)
            .join("config.json")
    };
    fs::write(config("second"), "{ oops").unwrap();
    for command in [
        &["features"][..],
        &["feature", "1"],
        &["steer", "1,neuron:2", "--max-tokens", "1"],
    ] {
        let (verb, rest) = command.split_first().unwrap();
        let output = mlpeek(made.dir.path())
            .args([verb, &made.study.as_str()])
            .args(rest)
            .arg("--json")
            .output()
            .unwrap();
        let (stdout, stderr) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert!(
            output.status.success() && stdout.contains("first"),
            "{stderr}"
        );
        let told: Vec<_> = stderr
            .lines()
            .filter(|l| l.starts_with("mlpeek: warning: "))
            .collect();
        assert_eq!(told.len(), 1, "{stderr}");
        for part in [
            "fit 'second' is passed over",
            &config("second").display().to_string(),
            "fit again",
        ] {
            assert!(told[0].contains(part), "{}", told[0]);
        }
    }
    fs::write(config("first"), "").unwrap();
    let error = failure(mlpeek(made.dir.path()).args(["features", &made.study]), 1);
    assert!(
        error.contains("not a fit's configuration") && !error.contains("warning"),
        "{error}"
    );
}

#[test]
fn a_fit_goes_on_with_more_features_fewer_and_new_rows() {
    let made = collected(40);
    let run = |args: &[&str]| json_lines(mlpeek(made.dir.path()).args(args));
    let study = made.study.as_str();
    let base = [
        "fit",
        study,
        "-l",
        "1",
        "-k",
        "8",
        "--sparsity",
        "0.1",
        "--name",
        "base",
        "--json",
    ];
    let error = |lines: &[Value]| lines.last().unwrap()["relative_error"].as_f64().unwrap();
    let begun = run(&base);
    let from =
        |more: &[&str]| run(&[&["fit", study, "--from", "base", "--json"][..], more].concat());

    let more = from(&["--add", "4", "--name", "more"]);
    let last = more.last().unwrap();
    assert_eq!(
        (&last["feature_count"], &last["from"], &last["sparsity"]),
        (&12.into(), &"base".into(), &0.1.into())
    );
    assert!(error(&more) < error(&begun));

    let fewer = from(&["--merge", "3", "--lock", "2", "--name", "fewer"]);
    assert_eq!(fewer.last().unwrap()["feature_count"], 5);
    let neurons = |fit: &str, id: &str| -> Vec<(u64, f64)> {
        let card = &run(&["feature", study, id, "--fit", fit, "--json"])[0];
        let pair = |n: &Value| (n["neuron"].as_u64().unwrap(), n["weight"].as_f64().unwrap());
        card["neurons"]
            .as_array()
            .unwrap()
            .iter()
            .map(pair)
            .collect()
    };
    let locked = neurons("base", "2");
    assert!(
        (0..5).any(|id| neurons("fewer", &id.to_string()) == locked),
        "the locked feature is still there"
    );

    // New rows: the first sweep starts from what was known, not anew.
    let data = support::corpus(made.dir.path(), 55).display().to_string();
    run(&[
        "collect",
        "--model",
        &made.model,
        "-l",
        "1,2",
        "--data",
        &data,
        "--out",
        study,
        "--append",
        "--json",
    ]);
    let longer = from(&[]);
    assert_eq!(
        longer.last().unwrap()["fit"],
        "base",
        "the same settings: the fit itself is brought up to date"
    );
    let anew = run(&[
        "fit",
        study,
        "-l",
        "1",
        "-k",
        "8",
        "--sparsity",
        "0.1",
        "--name",
        "anew",
        "--json",
    ]);
    assert!(longer[0]["relative_error"].as_f64() < anew[0]["relative_error"].as_f64());
    let shown = run(&["features", study, "--fit", "base", "--json"]);
    assert_eq!(shown.len(), 8);

    let fails = |args: &[&str], words: &str| {
        let message = failure(
            mlpeek(made.dir.path()).args([&["fit", study][..], args].concat()),
            2,
        );
        assert!(message.contains(words), "{message}");
    };
    fails(&["--from", "base", "--merge", "8"], "cannot be merged away");
    fails(
        &["--from", "base", "--lock", "8"],
        "feature 8 cannot be locked",
    );
    fails(&["--from", "absent"], "no fit 'absent'");
    fails(&["--from", "base", "--layer", "2"], "leave out --layer");
    fails(&["--from", "base", "--solver", "mu"], "multiplicative");
    fails(&["--add", "3"], "--from");
}

#[test]
fn fits_take_the_options_of_the_objective_and_a_first_look() {
    let made = collected(40);
    let run = |args: &[&str]| json_lines(mlpeek(made.dir.path()).args(args));
    let fit = [
        "fit",
        &made.study,
        "-l",
        "1",
        "-k",
        "9",
        "--sparsity",
        "0.1",
        "--json",
    ];
    let options = [
        "--row-cap",
        "2",
        "--centre",
        "--scale-rows",
        "--name",
        "options",
    ];
    let last = run(&[&fit[..], &options].concat()).pop().unwrap();
    assert_eq!(
        (&last["row_cap"], &last["centre"], &last["scale_rows"]),
        (&2.into(), &true.into(), &true.into())
    );
    let trace = &run(&["trace", &made.study, "--text", "blue river", "--json"])[0];
    for token in 0..trace["tokens"].as_array().unwrap().len() {
        let on = |f: &&Value| f["values"][token].as_f64().unwrap() > 0.0;
        assert!(
            trace["coefficients"]
                .as_array()
                .unwrap()
                .iter()
                .filter(on)
                .count()
                <= 2,
            "the cap holds on new text"
        );
    }
    let out = made.dir.path().join("factors.safetensors");
    run(&[
        "export",
        &made.study,
        "--out",
        out.to_str().unwrap(),
        "--json",
    ]);
    let bytes = fs::read(&out).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("centre").unwrap().shape(), [support::D_MLP]);

    let look = run(&[
        &fit[..],
        &["--batch-rows", "128", "--max-sweeps", "6", "--name", "look"],
    ]
    .concat());
    assert_eq!((look.len(), &look[6]["sweep_count"]), (7, &6.into()));
    let on = run(&[&fit[..], &["--name", "look", "--resume"]].concat());
    assert_eq!(on[0]["sweep"], 7, "full sweeps go on from the batches");
    assert!(on.last().unwrap()["relative_error"].as_f64() < look[6]["relative_error"].as_f64());
    // What is asked of a fit that is resumed must be what it was begun with, and nothing is lost
    // where it is not.
    run(&[
        &fit[..],
        &["--l1", "0.02", "--max-sweeps", "3", "--name", "early"],
    ]
    .concat());
    let resume = ["fit", &made.study, "--name", "early", "--resume", "--json"];
    let message = failure(
        mlpeek(made.dir.path()).args([&resume[..], &["--l1", "0.3"]].concat()),
        2,
    );
    assert!(message.contains("other settings"), "{message}");
    let early = run(&resume);
    assert_eq!(
        (&early[0]["sweep"], &early.last().unwrap()["l1"]),
        (&4.into(), &0.02.into())
    );
    failure(
        mlpeek(made.dir.path()).args([&fit[..], &["--batch-rows", "5"]].concat()),
        2,
    );
    failure(
        mlpeek(made.dir.path()).args([&fit[..], &["--row-cap", "2", "--solver", "mu"]].concat()),
        2,
    );
}

/// A request that is refused changes nothing on disk, and a checkpoint goes only where its owner
/// says so.
#[test]
fn a_refused_fit_leaves_what_was_there() {
    let made = collected(40);
    let (home, study) = (made.dir.path(), std::path::Path::new(&made.study));
    let fit = ["fit", &made.study, "-l", "1", "--sparsity", "0.1", "--json"];
    let run = |args: &[&str]| json_lines(mlpeek(home).args(fit).args(args));
    let refused = |args: &[&str], code, word: &str| {
        let message = failure(mlpeek(home).args(fit).args(args), code);
        assert!(message.contains(word), "{message}");
    };
    run(&["-k", "6", "--max-sweeps", "3", "--name", "one"]);
    let saved = |file: &str| fs::read(study.join("fits/one").join(file)).unwrap();
    let before = (
        saved("checkpoint"),
        saved("config.json"),
        saved("loss.jsonl"),
    );
    refused(&["-k", "6", "--l1", "inf", "--name", "one"], 2, "l1");
    refused(&["-k", "6", "--l1", "nan", "--name", "never"], 2, "l1");
    refused(&["-k", "99999999", "--name", "one"], 2, "99999999");
    refused(
        &["-k", "6", "--max-sweeps", "0", "--name", "one"],
        2,
        "--max-sweeps",
    );
    refused(
        &["-k", "6", "--solver", "mu", "--l1", "0.5", "--name", "one"],
        2,
        "--l1",
    );
    // Another request under the name would drop the checkpoint.
    refused(&["-k", "7", "--name", "one"], 2, "--fresh");
    assert_eq!(
        (
            saved("checkpoint"),
            saved("config.json"),
            saved("loss.jsonl")
        ),
        before
    );
    assert!(!study.join("fits/never").exists());
    // The same request ran to its end, and so begins anew; with more sweeps to do it goes on.
    assert_eq!(
        run(&["-k", "6", "--max-sweeps", "3", "--name", "one"])[0]["sweep"],
        1
    );
    assert_eq!(
        run(&["-k", "6", "--max-sweeps", "5", "--name", "one"])[0]["sweep"],
        4
    );
    assert_eq!(
        run(&["-k", "7", "--max-sweeps", "2", "--name", "one", "--fresh"])[0]["sweep"],
        1
    );
    // A fit that cannot be read is no reason not to read the others.
    fs::write(study.join("fits/one/config.json"), "{").unwrap();
    run(&["-k", "5", "--max-sweeps", "2", "--name", "two"]);
    assert_eq!(
        json_lines(mlpeek(home).args(["features", &made.study, "--json"])).len(),
        5
    );
    let message = failure(
        mlpeek(home).args(["features", &made.study, "--fit", "one"]),
        1,
    );
    assert!(
        message.contains("config.json") && message.contains("fit again"),
        "{message}"
    );
    let end = run(&["-k", "5", "--max-sweeps", "2", "--name", "two", "--fresh"])
        .pop()
        .unwrap();
    assert!(
        end["dead_count"].is_u64() && end["duplicate_count"].is_u64(),
        "{end}"
    );
}
