//! Runs the program on a home of its own, and reads what it prints.

use std::path::Path;
use std::time::Duration;

use assert_cmd::Command;
use serde_json::Value;

/// The program with its home and the Hub's cache below `home`, without a network.
pub fn mlpeek(home: &Path) -> Command {
    let mut command = Command::cargo_bin("mlpeek").unwrap();
    command
        .env("MLPEEK_HOME", home.join("home"))
        .env("HF_HOME", home.join("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .timeout(Duration::from_secs(120));
    command
}

/// Standard output of a run that must succeed, a JSON value a line.
pub fn json_lines(command: &mut Command) -> Vec<Value> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    parsed(output.stdout)
}

/// Every line of `stdout` as JSON.
pub fn parsed(stdout: Vec<u8>) -> Vec<Value> {
    let text = String::from_utf8(stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The lines of one kind.
pub fn events<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|l| l["event"] == event).collect()
}

/// Collects layer 1 of the small model on `texts` texts; the directory of the study.
pub fn collected(home: &Path, texts: usize) -> String {
    let model = super::tiny_model(home).display().to_string();
    let data = super::corpus(home, texts).display().to_string();
    let study = home.join("study").display().to_string();
    json_lines(mlpeek(home).args([
        "collect", "--model", &model, "--layer", "1", "--data", &data, "--out", &study, "--json",
    ]));
    study
}
