//! Every command end to end on a small random model: JSON fields, exit codes, resuming, bad input.

mod support;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};
use support::program::{json_lines, mlpeek};
use tempfile::TempDir;

/// Standard error of a run that must end with `code`; it must be one line without a panic.
fn failure(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(
        !stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"),
        "{stderr}"
    );
    let errors: Vec<_> = stderr
        .lines()
        .filter(|l| l.starts_with("mlpeek: ") || l.starts_with("error: "))
        .collect();
    assert!(!errors.is_empty(), "no error line in: {stderr}");
    stderr
}

struct Made {
    dir: TempDir,
    model: String,
    study: String,
}

/// A collected study of the small model.
fn collected(texts: usize) -> Made {
    let dir = TempDir::new().unwrap();
    let model = support::tiny_model(dir.path()).display().to_string();
    let data = support::corpus(dir.path(), texts).display().to_string();
    let study = dir.path().join("study").display().to_string();
    let lines = json_lines(mlpeek(dir.path()).args([
        "collect", "--model", &model, "--layer", "1,2", "--data", &data, "--out", &study, "--json",
    ]));
    assert_eq!(lines.len(), 2);
    for (line, layer) in lines.iter().zip([1, 2]) {
        assert_eq!(line["event"], "collected");
        assert_eq!(line["layer"], layer);
        assert_eq!(line["width"], support::D_MLP);
        assert_eq!(line["hook"], format!("blocks.{layer}.mlp.hook_post"));
        assert_eq!(line["sample_count"], texts);
        assert!(
            line["token_count"].as_u64().unwrap() > texts as u64
                && line["elapsed_s"].as_f64().unwrap() >= 0.0
        );
    }
    Made { dir, model, study }
}

#[test]
fn a_study_is_collected_fitted_read_traced_and_steered() {
    let made = collected(30);
    let run = |args: &[&str]| json_lines(mlpeek(made.dir.path()).args(args));

    let fitted = run(&[
        "fit",
        &made.study,
        "--features",
        "6",
        "--layer",
        "1",
        "--sparsity",
        "0.1",
        "--l1",
        "0",
        "--json",
    ]);
    let (last, sweeps) = fitted.split_last().unwrap();
    assert_eq!(last["event"], "fitted");
    assert_eq!(last["feature_count"], 6);
    assert_eq!(
        last["sweep_count"].as_u64().unwrap(),
        sweeps.last().unwrap()["sweep"].as_u64().unwrap()
    );
    for (i, line) in sweeps.iter().enumerate() {
        assert_eq!(line["event"], "progress");
        assert_eq!(line["sweep"], i + 1, "every sweep has a line");
        assert!(line["elapsed_s"].is_number() && line["init_s"].is_number());
    }
    let errors: Vec<_> = sweeps
        .iter()
        .map(|l| l["relative_error"].as_f64().unwrap())
        .collect();
    assert!(
        errors.windows(2).all(|w| w[1] <= w[0] + 1e-6),
        "the error never rises: {errors:?}"
    );
    assert!((last["relative_error"].as_f64().unwrap() - errors.last().unwrap()).abs() < 1e-4);

    let features = run(&["features", &made.study, "--json"]);
    assert_eq!(features.len(), 6);
    let shares: f64 = features.iter().map(|f| f["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-3, "shares add up to 1: {shares}");
    for f in &features {
        assert!(
            f["neuron_count"].as_u64().unwrap() <= 7
                && f["top_tokens"].is_array()
                && f["promoted"].is_array()
        );
        assert!(
            f["purity"]["label"].is_string()
                && f["purity"]["share"].is_number()
                && f["purity"]["base"].is_number()
        );
        assert!(f.get("name").is_some());
    }

    let card = &run(&["feature", &made.study, "2", "--json"])[0];
    let context = &card["contexts"][0];
    let peak = context["peak"].as_u64().unwrap() as usize;
    let values: Vec<f64> = context["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect();
    assert_eq!(values.len(), context["tokens"].as_array().unwrap().len());
    assert!(
        values.iter().all(|v| *v <= values[peak]),
        "the peak is the largest"
    );
    assert!(card["neurons"][0]["neuron"].is_number() && card["neurons"][0]["weight"].is_number());
    assert!(card["promoted"][0]["token"].is_string() && card["suppressed"][0]["value"].is_number());
    assert!(card["related"].is_array());

    let trace = &run(&[
        "trace",
        &made.study,
        "--text",
        "blue river on Tuesday",
        "--json",
    ])[0];
    let tokens = trace["tokens"].as_array().unwrap().len();
    assert_eq!(
        tokens,
        "blue river on Tuesday".len(),
        "a token a byte, BOS left out"
    );
    assert!(
        trace["coefficients"]
            .as_array()
            .unwrap()
            .iter()
            .all(|f| f["values"].as_array().unwrap().len() == tokens)
    );

    let tree = &run(&["tree", &made.study, "--json"])[0]["nodes"];
    let nodes = tree.as_array().unwrap();
    assert_eq!(nodes.len(), 11, "6 leaves and 5 merges");
    assert_eq!(
        nodes.last().unwrap()["features"].as_array().unwrap().len(),
        6
    );

    let tuned = &run(&[
        "tree",
        &made.study,
        "--recursive",
        "--levels",
        "3,2",
        "--joint",
        "--json",
    ])[0];
    let left = |at: &str| {
        let levels = &tuned["levels"].as_array().unwrap()[1..];
        levels
            .iter()
            .map(|level| level["joint"][at].as_f64().unwrap())
            .sum::<f64>()
    };
    assert!(left("after") <= left("before"), "{}", tuned["levels"]);
    let levels = &run(&[
        "tree",
        &made.study,
        "--recursive",
        "--levels",
        "3,2",
        "--json",
    ])[0];
    let nodes = levels["level_nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 6 + 3 + 2);
    assert!(
        nodes
            .iter()
            .enumerate()
            .all(|(i, n)| n["node"] == i && n["height"].is_number() && n["features"].is_array())
    );
    for node in &nodes[6..] {
        assert!(
            node["children"].as_array().unwrap().len() <= 3 && node["top_tokens"].is_array(),
            "{node}"
        );
    }
    let picture = made.dir.path().join("tree.svg").display().to_string();
    mlpeek(made.dir.path())
        .args(["tree", &made.study, "--format", "svg", "--out", &picture])
        .assert()
        .success();
    assert_eq!(
        std::fs::read_to_string(&picture)
            .unwrap()
            .matches("<text x=\"546\"")
            .count(),
        6,
        "a label a leaf"
    );

    let steer = [
        "steer",
        &made.study,
        "2",
        "--prompt",
        "the river",
        "--max-tokens",
        "5",
        "--json",
    ];
    let at_kl = &run(&[&steer[..], &["--kl", "0.05"]].concat())[0];
    assert!(at_kl["alpha"].as_f64().unwrap() > 0.0);
    assert!(
        (at_kl["kl"].as_f64().unwrap() - 0.05).abs() < 0.01 || at_kl["remark"].is_string(),
        "{at_kl}"
    );
    assert!(at_kl["baseline"][0].is_string() && at_kl["steered"][0].is_string());
    assert!(at_kl["risen"][0]["token"].is_string() && at_kl["fallen"][0]["value"].is_number());
    let at_zero = &run(&[&steer[..], &["--alpha", "0"]].concat())[0];
    assert_eq!(
        at_zero["baseline"], at_zero["steered"],
        "α = 0 changes nothing"
    );
    let negative = &run(&[&steer[..], &["--kl", "0.05", "--sign", "-"]].concat())[0];
    assert!(negative["alpha"].as_f64().unwrap() < 0.0);
}

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

#[test]
fn notes_follow_their_features_through_a_refit_and_broken_ones_are_left_alone() {
    let made = collected(24);
    let run = |args: &[&str]| json_lines(mlpeek(made.dir.path()).args(args));
    let fit = |seed: &'static str, name: &'static str| {
        let tail = [
            "--layer",
            "1",
            "--sparsity",
            "0.1",
            "--seed",
            seed,
            "--name",
            name,
            "--json",
        ];
        run(&[&["fit", &made.study, "--features", "5"][..], &tail].concat());
    };
    fit("1", "first");
    let noted = run(&[
        "notes",
        &made.study,
        "3",
        "water #place *4 -- not rivers",
        "--json",
    ]);
    assert_eq!(
        (&noted[0]["name"], &noted[0]["rating"], &noted[0]["tags"][0]),
        (&json!("water"), &json!(4), &json!("place"))
    );
    fit("2", "second");
    let compared = &run(&["compare", &made.study, "first", "second", "--json"])[0];
    let count = |what: &str| compared[what].as_array().unwrap().len();
    assert_eq!(
        (
            count("matched") + count("lost"),
            count("matched") + count("appeared")
        ),
        (5, 5)
    );
    let same = compared["matched"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["feature_a"] == 3)
        .map(|m| m["feature_b"].clone());
    let carried = run(&["notes", &made.study, "--fit", "second", "--json"]);
    if let Some(id) = same {
        assert_eq!(
            (&carried[0]["feature"], &carried[0]["note"]),
            (&id, &json!("not rivers"))
        );
        assert!(carried[0]["doubtful"].is_null());
    }
    assert_eq!(
        run(&["notes", &made.study, "--fit", "first", "--json"]).len(),
        1,
        "the first fit keeps its own"
    );

    let file = made.dir.path().join("notes-out.json").display().to_string();
    mlpeek(made.dir.path())
        .args(["notes", &made.study, "--fit", "first", "--export", &file])
        .assert()
        .success();
    run(&["notes", &made.study, "3", "", "--fit", "first", "--json"]);
    let back = run(&[
        "notes",
        &made.study,
        "--fit",
        "first",
        "--import",
        &file,
        "--json",
    ]);
    assert_eq!(back[0]["name"], "water");

    let notes = std::path::Path::new(&made.study).join("notes.json");
    std::fs::write(&notes, "{ \"first\": {\n oops").unwrap();
    let refused = mlpeek(made.dir.path())
        .args(["notes", &made.study, "1", "x", "--fit", "first"])
        .assert()
        .code(1);
    let message = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(
        message.contains("notes.json") && message.contains("line 2"),
        "{message}"
    );
    assert_eq!(
        std::fs::read_to_string(&notes).unwrap(),
        "{ \"first\": {\n oops"
    );
}

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
fn forward_writes_the_tensors_that_it_names() {
    let dir = TempDir::new().unwrap();
    let model = support::tiny_model(dir.path()).display().to_string();
    let out = dir.path().join("x.safetensors");
    let args = [
        "forward",
        "--model",
        &model,
        "--ids",
        "256,84,117,101",
        "--layer",
        "0,3",
        "--json",
    ];
    let hooks = "mlp.hook_post,hook_mlp_out,hook_resid_post";
    json_lines(
        mlpeek(dir.path())
            .args(args)
            .args(["--hook", hooks])
            .arg("--out")
            .arg(&out),
    );
    let bytes = fs::read(&out).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("tokens").unwrap().shape(), [4]);
    assert_eq!(file.tensor("logits").unwrap().shape(), [4, 258]);
    assert_eq!(
        file.tensor("blocks.0.mlp.hook_post").unwrap().shape(),
        [4, support::D_MLP]
    );
    assert_eq!(
        file.tensor("blocks.3.hook_mlp_out").unwrap().shape(),
        [4, support::D_MODEL]
    );
    assert_eq!(
        file.tensor("blocks.3.hook_resid_post").unwrap().shape(),
        [4, support::D_MODEL]
    );
}

#[test]
fn importing_fitting_and_exporting_need_no_model() {
    let dir = TempDir::new().unwrap();
    let (rows, cols) = (40usize, 8usize);
    let values: Vec<f32> = (0..rows * cols)
        .map(|i| ((i * 37 % 101) as f32 - 30.0) / 10.0)
        .collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![rows, cols], &bytes)
            .unwrap();
    let matrix = dir.path().join("a.safetensors");
    safetensors::serialize_to_file([("A", view)], None, &matrix).unwrap();
    let study = dir.path().join("s").display().to_string();
    json_lines(
        mlpeek(dir.path())
            .arg("import")
            .arg(&matrix)
            .args(["--out", &study, "--json"]),
    );
    json_lines(mlpeek(dir.path()).args([
        "fit",
        &study,
        "-k",
        "3",
        "--sparsity",
        "1",
        "--l1",
        "0",
        "--json",
    ]));
    let factors = dir.path().join("f.safetensors");
    json_lines(
        mlpeek(dir.path())
            .args(["export", &study, "--json", "--out"])
            .arg(&factors),
    );
    let bytes = fs::read(&factors).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("Z").unwrap().shape(), [cols, 3]);
    assert_eq!(file.tensor("Y").unwrap().shape(), [rows, 3]);
    assert_eq!(
        json_lines(mlpeek(dir.path()).args(["features", &study, "--json"])).len(),
        3
    );
    failure(mlpeek(dir.path()).args(["trace", &study, "--text", "x"]), 1);
}

/// A study of a matrix of which neuron 7 and row 11 hold most.
fn with_outliers(dir: &Path) -> String {
    let (rows, cols) = (200usize, 60usize);
    let value = |i: usize| {
        let (row, neuron) = (i / cols, i % cols);
        let size = if neuron == 7 { 30.0 } else { 1.0 } * if row == 11 { 40.0 } else { 1.0 };
        size * ((i * 37 % 101) as f32 - 30.0) / 10.0
    };
    let bytes: Vec<u8> = (0..rows * cols)
        .flat_map(|i| value(i).to_le_bytes())
        .collect();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![rows, cols], &bytes)
            .unwrap();
    let matrix = dir.join("outliers.safetensors");
    safetensors::serialize_to_file([("A", view)], None, &matrix).unwrap();
    let study = dir.join("s").display().to_string();
    json_lines(
        mlpeek(dir)
            .arg("import")
            .arg(&matrix)
            .args(["--out", &study, "--json"]),
    );
    study
}

#[test]
fn an_outlier_is_named_and_taken_out() {
    let dir = TempDir::new().unwrap();
    let study = with_outliers(dir.path());
    let fit = [
        "fit",
        &study,
        "-k",
        "4",
        "--sparsity",
        "0.2",
        "--l1",
        "0",
        "--max-sweeps",
        "20",
    ];
    let output = mlpeek(dir.path())
        .args(fit)
        .args(["--name", "plain"])
        .output()
        .unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        words.contains("1 neuron of 60 holds ") && words.contains("(neuron 7)"),
        "{words}"
    );
    assert!(
        words.contains("1 row of 200 holds") && words.contains("--scale-rows lets every token"),
        "{words}"
    );
    assert!(
        Path::new(&study)
            .join("energy/blocks.0.mlp.hook_post.json")
            .is_file()
    );
    let run = |more: &[&str]| json_lines(mlpeek(dir.path()).args(fit).args(more).arg("--json"));
    let plain = run(&["--name", "again"]);
    let (last, told) = (
        plain.last().unwrap(),
        &plain.last().unwrap()["concentrated"],
    );
    assert_eq!(
        (&told[0]["axis"], &told[0]["strongest"][0]["index"]),
        (&"neurons".into(), &7.into())
    );
    assert!(last["weighted_error"].is_null() && plain[0]["relative_error"].is_number());

    let scaled = run(&["--scale-neurons", "--scale-rows", "--name", "scaled"]);
    let last = scaled.last().unwrap();
    assert_eq!(
        (&last["scale_neurons"], &last["concentrated"]),
        (&true.into(), &json!([]))
    );
    assert!(scaled[0]["weighted_error"].is_number() && scaled[0]["relative_error"].is_null());
    let sweeps = &scaled[..scaled.len() - 1];
    let end = sweeps.last().unwrap()["weighted_error"].as_f64().unwrap();
    assert!(
        (last["weighted_error"].as_f64().unwrap() - end).abs() < 1e-4
            && last["relative_error"].is_number()
    );
    let out = dir.path().join("factors.safetensors");
    json_lines(
        mlpeek(dir.path())
            .args(["export", &study, "--fit", "scaled", "--json", "--out"])
            .arg(&out),
    );
    let bytes = fs::read(&out).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("neuron_weights").unwrap().shape(), [60]);

    let fails = |args: &[&str], words: &str| {
        let message = failure(
            mlpeek(dir.path()).args([&["fit", &study][..], args].concat()),
            2,
        );
        assert!(message.contains(words), "{message}");
    };
    fails(
        &["--from", "scaled", "--scale-neurons=false", "--name", "x"],
        "'scaled' scales neurons",
    );
    fails(
        &["--from", "plain", "--scale-neurons", "--name", "x"],
        "'plain' takes neurons as they are",
    );
    fails(
        &["--name", "plain", "--resume", "--scale-neurons"],
        "other settings",
    );
    let on = json_lines(
        mlpeek(dir.path()).args(["fit", &study, "--from", "scaled", "--add", "2", "--json"]),
    );
    let errors = (
        on.last().unwrap()["weighted_error"].as_f64(),
        last["weighted_error"].as_f64(),
    );
    assert!(errors.0 < errors.1, "{errors:?}");
}

#[test]
fn bad_input_gets_one_clear_line() {
    let made = collected(9);
    let (home, study) = (made.dir.path(), made.study.as_str());
    let bad = |args: &[&str], code: i32, word: &str| {
        let stderr = failure(mlpeek(home).args(args), code);
        assert!(stderr.contains(word), "'{word}' is not in: {stderr}");
    };
    let file = |name: &str, text: &[u8]| {
        let path = home.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = home.join("corpus.json").display().to_string();
    let out = home.join("new").display().to_string();
    let collect = |model: &str, layer: &str, data: &str, code, word: &str| {
        bad(
            &[
                "collect", "--model", model, "--layer", layer, "--data", data, "--out", &out,
            ],
            code,
            word,
        );
    };
    collect(&made.model, "4", &good, 2, "0 to 3");
    collect(
        &made.model,
        "1",
        &file("empty.json", b"[]"),
        1,
        "empty.json",
    );
    collect(
        &made.model,
        "1",
        &file("shape.json", br#"{"a": ["x", 3]}"#),
        1,
        "shape.json",
    );
    collect(
        &made.model,
        "1",
        &file("broken.json", b"{"),
        1,
        "broken.json",
    );
    collect(
        &made.model,
        "1",
        &home.join("absent.json").display().to_string(),
        1,
        "absent.json",
    );
    collect(
        &file("foreign.gguf", b"not a model at all"),
        "1",
        &good,
        1,
        "foreign.gguf",
    );
    collect("nobody/nothing", "1", &good, 1, "nobody/nothing");
    let empty = home.join("empty-dir");
    fs::create_dir(&empty).unwrap();
    collect(&empty.display().to_string(), "1", &good, 1, "config.json");

    bad(&["fit", study, "-k", "5"], 2, "--layer");
    bad(&["fit", study, "-k", "5", "--layer", "3"], 2, "blocks.1");
    bad(&["fit", study, "-k", "100000", "--layer", "1"], 2, "100000");
    bad(&["fit", study, "-k", "0", "--layer", "1"], 2, "");
    bad(
        &["fit", study, "-k", "5", "--layer", "1", "--sparsity", "0"],
        2,
        "sparsity",
    );
    bad(
        &["fit", study, "-k", "5", "--layer", "1", "--resume"],
        2,
        "--resume",
    );
    bad(
        &["fit", study, "-k", "5", "--layer", "1", "--name", "../x"],
        2,
        "../x",
    );
    bad(&["features", study], 2, "fit");
    bad(
        &["features", &home.join("nowhere").display().to_string()],
        2,
        "nowhere",
    );
    json_lines(mlpeek(home).args([
        "fit",
        study,
        "-k",
        "3",
        "--layer",
        "1",
        "--json",
        "--max-sweeps",
        "2",
    ]));
    bad(&["feature", study, "3"], 2, "0 to 2");
    bad(&["features", study, "--fit", "other"], 2, "other");
    bad(&["steer", study, "9"], 2, "0 to 2");
    bad(&["steer", study, "x"], 2, "x");
    bad(&["steer", study, "1", "--kl", "-1"], 2, "--kl");
    // The same directory with another model.
    let other = support::tiny_model(&home.join("elsewhere"));
    let weights = other.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 2] ^= 1;
    fs::write(&weights, bytes).unwrap();
    bad(
        &[
            "collect",
            "--model",
            &other.display().to_string(),
            "--layer",
            "1,2",
            "--data",
            &good,
            "--out",
            study,
        ],
        1,
        "other weights",
    );
    // A truncated shard of weights.
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    collect(
        &other.display().to_string(),
        "1",
        &good,
        1,
        "model.safetensors",
    );
    // No terminal to draw on.
    bad(&[], 1, "terminal");
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

#[test]
fn keys_are_the_users_and_what_is_wrong_with_them_is_named_by_line() {
    let home = TempDir::new().unwrap();
    let config = home.path().join("mlpeek/config.toml");
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::write(
        &config,
        "[keys]\n\"ctrl-g\" = \"compare\"\n\"ctrl-y\" = \"comparre\"\n",
    )
    .unwrap();
    let output = mlpeek(home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .args(["keys", "--json"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("config.toml:3: unknown action 'comparre'; did you mean 'compare'?"),
        "{stderr}"
    );
    let rows: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let compare = rows.iter().find(|row| row["action"] == "compare").unwrap();
    assert!(
        compare["keys"]
            .as_array()
            .unwrap()
            .contains(&json!("ctrl-g")),
        "{compare}"
    );
}
