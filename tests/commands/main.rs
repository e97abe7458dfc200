//! Every command end to end on a small random model: JSON fields, exit codes, resuming, bad input.

mod directions;
mod fits;
#[path = "../support/mod.rs"]
mod support;
mod told;

use std::fs;

use assert_cmd::Command;
use serde_json::json;
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
