//! What is said: of input that cannot be read, of an outlier, of keys.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support;
use crate::support::program::{json_lines, mlpeek};
use crate::{collected, failure};

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
