//! The main job on SmolLM2 and a corpus that is not the bundled one: collect, fit, read, trace and
//! steer as commands. `MLPEEK_TEST_MODEL=SmolLM2-135M-Instruct.Q4_1.gguf cargo test --release
//! --test real_model -- --ignored`

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

fn json_lines(home: &TempDir, args: &[&str]) -> Vec<Value> {
    let mut command = Command::cargo_bin("mlpeek").unwrap();
    let output = command
        .args(args)
        .arg("--json")
        .env("MLPEEK_HOME", home.path())
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
#[ignore = "needs the SmolLM2 weights: MLPEEK_TEST_MODEL names the GGUF file"]
fn features_of_a_late_layer_have_meanings_and_steer() {
    let home = TempDir::new().unwrap();
    let model =
        std::env::var("MLPEEK_TEST_MODEL").expect("set MLPEEK_TEST_MODEL to the SmolLM2 GGUF file");
    let study = home.path().join("study").display().to_string();
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/data/hierarchy.json");
    let collected = &json_lines(
        &home,
        &[
            "collect", "--model", &model, "--layer", "26", "--data", data, "--out", &study,
        ],
    )[0];
    assert_eq!(
        (
            collected["sample_count"].as_u64(),
            collected["width"].as_u64()
        ),
        (Some(561), Some(1536))
    );
    let fitted = json_lines(&home, &["fit", &study, "--features", "60"]);
    let error = fitted.last().unwrap()["relative_error"].as_f64().unwrap();
    assert!(error > 0.2 && error < 0.9, "{error}");

    let features = json_lines(&home, &["features", &study]);
    let share = |f: &Value| f["purity"]["share"].as_f64().unwrap();
    let lift = |f: &Value| share(f) / f["purity"]["base"].as_f64().unwrap();
    let best = features
        .iter()
        .max_by(|a, b| share(a).total_cmp(&share(b)))
        .unwrap();
    assert!(
        lift(best) > 10.0,
        "a feature gathers one of 51 nested concepts: {best}"
    );
    let id = best["feature"].to_string();
    let card = &json_lines(&home, &["feature", &study, &id])[0];
    assert_eq!(card["contexts"].as_array().unwrap().len(), 25);

    let text = card["contexts"][0]["tokens"].as_array().unwrap();
    let text: String = text.iter().map(|t| t.as_str().unwrap()).collect();
    let trace = &json_lines(&home, &["trace", &study, "--text", &text])[0];
    let fires = trace["coefficients"]
        .as_array()
        .unwrap()
        .iter()
        .any(|f| f["feature"] == best["feature"]);
    assert!(
        fires,
        "the feature fires again on its own strongest context: {text}"
    );

    let steered = &json_lines(
        &home,
        &[
            "steer",
            &study,
            &id,
            "--kl",
            "0.25",
            "--prompt",
            "I think that",
            "--max-tokens",
            "20",
        ],
    )[0];
    assert!(
        (steered["kl"].as_f64().unwrap() - 0.25).abs() < 0.01 || steered["remark"].is_string(),
        "{steered}"
    );
    assert_ne!(steered["baseline"], steered["steered"]);
}
