//! Every command end to end on a small random model: JSON fields, exit codes, resuming, bad input.

mod support;

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

fn mlpeek(home: &Path) -> Command {
    let mut command = Command::cargo_bin("mlpeek").unwrap();
    command.env("MLPEEK_HOME", home.join("home")).env("HF_HOME", home.join("hf")).env("HF_HUB_OFFLINE", "1");
    command.timeout(std::time::Duration::from_secs(120));
    command
}

/// Standard output of a run that must succeed, a JSON value a line.
fn json_lines(command: &mut Command) -> Vec<Value> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Standard error of a run that must end with `code`; it must be one line without a panic.
fn failure(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "{stderr}");
    let errors: Vec<_> = stderr.lines().filter(|l| l.starts_with("mlpeek: ") || l.starts_with("error: ")).collect();
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
    let lines = json_lines(
        mlpeek(dir.path())
            .args(["collect", "--model", &model, "--layer", "1,2", "--data", &data, "--out", &study, "--json"]),
    );
    assert_eq!(lines.len(), 2);
    for (line, layer) in lines.iter().zip([1, 2]) {
        assert_eq!(line["event"], "collected");
        assert_eq!(line["layer"], layer);
        assert_eq!(line["d"], support::D_MLP);
        assert_eq!(line["hook"], format!("blocks.{layer}.mlp.hook_post"));
        assert_eq!(line["samples"], texts);
        assert!(line["tokens"].as_u64().unwrap() > texts as u64 && line["seconds"].as_f64().unwrap() >= 0.0);
    }
    Made { dir, model, study }
}

#[test]
fn collect_fit_read_trace_and_steer() {
    let made = collected(30);
    let run = |args: &[&str]| json_lines(mlpeek(made.dir.path()).args(args));

    let fitted =
        run(&["fit", &made.study, "--features", "6", "--layer", "1", "--sparsity", "0.1", "--l1", "0", "--json"]);
    let (last, sweeps) = fitted.split_last().unwrap();
    assert_eq!(last["event"], "fitted");
    assert_eq!(last["features"], 6);
    assert_eq!(last["sweeps"].as_u64().unwrap(), sweeps.last().unwrap()["sweep"].as_u64().unwrap());
    for (i, line) in sweeps.iter().enumerate() {
        assert_eq!(line["event"], "progress");
        assert_eq!(line["sweep"], i + 1, "every sweep has a line");
        assert!(line["seconds"].is_number() && line["init_seconds"].is_number());
    }
    let errors: Vec<_> = sweeps.iter().map(|l| l["relative_error"].as_f64().unwrap()).collect();
    assert!(errors.windows(2).all(|w| w[1] <= w[0] + 1e-6), "the error never rises: {errors:?}");
    assert!((last["relative_error"].as_f64().unwrap() - errors.last().unwrap()).abs() < 1e-4);

    let features = run(&["features", &made.study, "--json"]);
    assert_eq!(features.len(), 6);
    let shares: f64 = features.iter().map(|f| f["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-3, "shares add up to 1: {shares}");
    for f in &features {
        assert!(f["neurons"].as_u64().unwrap() <= 7 && f["top_tokens"].is_array() && f["promoted"].is_array());
        assert!(
            f["purity"]["label"].is_string() && f["purity"]["share"].is_number() && f["purity"]["base"].is_number()
        );
        assert!(f.get("name").is_some());
    }

    let card = &run(&["feature", &made.study, "2", "--json"])[0];
    let context = &card["contexts"][0];
    let peak = context["peak"].as_u64().unwrap() as usize;
    let values: Vec<f64> = context["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(values.len(), context["tokens"].as_array().unwrap().len());
    assert!(values.iter().all(|v| *v <= values[peak]), "the peak is the largest");
    assert!(card["neurons"][0]["index"].is_number() && card["neurons"][0]["weight"].is_number());
    assert!(card["promoted"][0]["token"].is_string() && card["suppressed"][0]["logit"].is_number());
    assert!(card["related"].is_array());

    let trace = &run(&["trace", &made.study, "--text", "blue river on Tuesday", "--json"])[0];
    let tokens = trace["tokens"].as_array().unwrap().len();
    assert_eq!(tokens, "blue river on Tuesday".len(), "a token a byte, BOS left out");
    assert!(trace["features"].as_array().unwrap().iter().all(|f| f["values"].as_array().unwrap().len() == tokens));

    let tree = &run(&["tree", &made.study, "--json"])[0]["nodes"];
    let nodes = tree.as_array().unwrap();
    assert_eq!(nodes.len(), 11, "6 leaves and 5 merges");
    assert_eq!(nodes.last().unwrap()["features"].as_array().unwrap().len(), 6);

    let steer = ["steer", &made.study, "2", "--prompt", "the river", "--max-tokens", "5", "--json"];
    let at_kl = &run(&[&steer[..], &["--kl", "0.05"]].concat())[0];
    assert!(at_kl["alpha"].as_f64().unwrap() > 0.0);
    assert!((at_kl["kl"].as_f64().unwrap() - 0.05).abs() < 0.01 || at_kl["note"].is_string(), "{at_kl}");
    assert!(at_kl["baseline"].is_string() && at_kl["steered"].is_string());
    assert!(at_kl["risen"][0]["token"].is_string() && at_kl["fallen"][0]["delta"].is_number());
    let at_zero = &run(&[&steer[..], &["--alpha", "0"]].concat())[0];
    assert_eq!(at_zero["baseline"], at_zero["steered"], "α = 0 changes nothing");
    let negative = &run(&[&steer[..], &["--kl", "0.05", "--sign", "-"]].concat())[0];
    assert!(negative["alpha"].as_f64().unwrap() < 0.0);
}

#[test]
fn every_kind_of_direction_is_listed_shown_and_steered_with() {
    let made = collected(30);
    let run = |args: &[&str]| json_lines(mlpeek(made.dir.path()).args(args));
    let fit = ["fit", &made.study, "--features", "5", "--layer", "1", "--sparsity", "0.1", "--name", "k5", "--json"];
    run(&fit);
    let list = |kind: &str| run(&["features", &made.study, "--directions", kind, "--json"]);
    let means = list("diffmean");
    let label = means[0]["name"].as_str().expect("a difference in means is called after its label").to_owned();
    for (kind, count) in [("fit", 5), ("kmeans", 5), ("random", 5), ("neuron", support::D_MLP)] {
        let rows = list(kind);
        assert_eq!(rows.len(), count, "{kind}");
        assert_eq!(rows[0]["hook"], "blocks.1.mlp.hook_post");
        assert_eq!(rows[0]["directions"], if kind == "fit" { "k5" } else { kind });
    }
    let elsewhere = run(&["features", &made.study, "--directions", "neuron", "--layer", "2", "--json"]);
    assert_eq!(elsewhere[0]["hook"], "blocks.2.mlp.hook_post");

    let card = &run(&["feature", &made.study, &format!("diffmean:{label}"), "--json"])[0];
    assert_eq!((&card["id"], &card["fit"]), (&Value::from(0), &Value::from("diffmean")));
    assert!(card["promoted"][0]["token"].is_string() && card["contexts"][0]["tokens"].is_array());
    let mixed = format!("diffmean:{label}:0.5,neuron:3:-1,2");
    let steered = &run(&["steer", &made.study, &mixed, "--alpha", "1", "--max-tokens", "2", "--json"])[0];
    let chosen = steered["directions"].as_array().unwrap();
    assert_eq!(chosen.iter().map(|d| d["set"].as_str().unwrap()).collect::<Vec<_>>(), ["diffmean", "neuron", "k5"]);
    assert_eq!((&chosen[0]["title"], &chosen[1]["weight"]), (&Value::from(label), &Value::from(-1.0)));

    let bad = |args: &[&str], says: &str| {
        let error = failure(mlpeek(made.dir.path()).args(args), 2);
        assert!(error.contains(says), "{error}");
    };
    bad(&["features", &made.study, "--directions", "probe"], "diffmean");
    bad(&["feature", &made.study, "diffmean:nothing"], "diffmean has no direction 'nothing'");
    bad(&["steer", &made.study, "neuron:64"], "0 to 63");
    bad(&["features", &made.study, "--layer", "2"], "no finished fit at blocks.2");
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
    assert_eq!(again[0]["samples"], 12);
    let fit = ["fit", &made.study, "-k", "4", "--layer", "2", "--sparsity", "0.1", "--name", "f", "--json"];
    let straight = json_lines(mlpeek(made.dir.path()).args(fit).args(["--max-sweeps", "12"]));
    let short = json_lines(mlpeek(made.dir.path()).args(fit).args(["--max-sweeps", "5"]));
    assert_eq!(short.len(), 6);
    let rest = json_lines(mlpeek(made.dir.path()).args(fit).args(["--max-sweeps", "12", "--resume"]));
    assert_eq!(rest[0]["sweep"], 6, "goes on after the fifth sweep");
    let end = |lines: &[Value]| lines.last().unwrap()["relative_error"].as_f64().unwrap();
    assert_eq!(end(&rest), end(&straight), "the same continuation");
}

#[test]
fn forward_writes_the_tensors_that_it_names() {
    let dir = TempDir::new().unwrap();
    let model = support::tiny_model(dir.path()).display().to_string();
    let out = dir.path().join("x.safetensors");
    let args = ["forward", "--model", &model, "--ids", "256,84,117,101", "--layer", "0,3", "--json"];
    let hooks = "mlp.hook_post,hook_mlp_out,hook_resid_post";
    json_lines(mlpeek(dir.path()).args(args).args(["--hook", hooks]).arg("--out").arg(&out));
    let bytes = fs::read(&out).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("tokens").unwrap().shape(), [4]);
    assert_eq!(file.tensor("logits").unwrap().shape(), [4, 258]);
    assert_eq!(file.tensor("blocks.0.mlp.hook_post").unwrap().shape(), [4, support::D_MLP]);
    assert_eq!(file.tensor("blocks.3.hook_mlp_out").unwrap().shape(), [4, support::D_MODEL]);
    assert_eq!(file.tensor("blocks.3.hook_resid_post").unwrap().shape(), [4, support::D_MODEL]);
}

#[test]
fn import_fit_export_needs_no_model() {
    let dir = TempDir::new().unwrap();
    let (rows, cols) = (40usize, 8usize);
    let values: Vec<f32> = (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 30.0) / 10.0).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![rows, cols], &bytes).unwrap();
    let matrix = dir.path().join("a.safetensors");
    safetensors::serialize_to_file([("A", view)], None, &matrix).unwrap();
    let study = dir.path().join("s").display().to_string();
    json_lines(mlpeek(dir.path()).arg("import").arg(&matrix).args(["--out", &study, "--json"]));
    json_lines(mlpeek(dir.path()).args(["fit", &study, "-k", "3", "--sparsity", "1", "--l1", "0", "--json"]));
    let factors = dir.path().join("f.safetensors");
    json_lines(mlpeek(dir.path()).args(["export", &study, "--json", "--out"]).arg(&factors));
    let bytes = fs::read(&factors).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("Z").unwrap().shape(), [cols, 3]);
    assert_eq!(file.tensor("Y").unwrap().shape(), [rows, 3]);
    assert_eq!(json_lines(mlpeek(dir.path()).args(["features", &study, "--json"])).len(), 3);
    failure(mlpeek(dir.path()).args(["trace", &study, "--text", "x"]), 1);
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
        bad(&["collect", "--model", model, "--layer", layer, "--data", data, "--out", &out], code, word);
    };
    collect(&made.model, "4", &good, 2, "0 to 3");
    collect(&made.model, "1", &file("empty.json", b"[]"), 1, "empty.json");
    collect(&made.model, "1", &file("shape.json", br#"{"a": ["x", 3]}"#), 1, "shape.json");
    collect(&made.model, "1", &file("broken.json", b"{"), 1, "broken.json");
    collect(&made.model, "1", &home.join("absent.json").display().to_string(), 1, "absent.json");
    collect(&file("foreign.gguf", b"not a model at all"), "1", &good, 1, "foreign.gguf");
    collect("nobody/nothing", "1", &good, 1, "nobody/nothing");
    let empty = home.join("empty-dir");
    fs::create_dir(&empty).unwrap();
    collect(&empty.display().to_string(), "1", &good, 1, "config.json");

    bad(&["fit", study, "-k", "5"], 2, "--layer");
    bad(&["fit", study, "-k", "5", "--layer", "3"], 2, "blocks.1");
    bad(&["fit", study, "-k", "100000", "--layer", "1"], 2, "100000");
    bad(&["fit", study, "-k", "0", "--layer", "1"], 2, "");
    bad(&["fit", study, "-k", "5", "--layer", "1", "--sparsity", "0"], 2, "sparsity");
    bad(&["fit", study, "-k", "5", "--layer", "1", "--resume"], 2, "--resume");
    bad(&["fit", study, "-k", "5", "--layer", "1", "--name", "../x"], 2, "../x");
    bad(&["features", study], 2, "fit");
    bad(&["features", &home.join("nowhere").display().to_string()], 2, "nowhere");
    json_lines(mlpeek(home).args(["fit", study, "-k", "3", "--layer", "1", "--json", "--max-sweeps", "2"]));
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
        &["collect", "--model", &other.display().to_string(), "--layer", "1,2", "--data", &good, "--out", study],
        1,
        "another study",
    );
    // A truncated shard of weights.
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    collect(&other.display().to_string(), "1", &good, 1, "model.safetensors");
    // No terminal to draw on.
    bad(&[], 1, "terminal");
}
