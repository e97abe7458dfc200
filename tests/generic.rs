//! Whole commands by the operations of a card give what this program's own kernels give.
//!
//! On candle's CPU device; MLPEEK_TEST_DEVICE=cuda:0 runs the same on a card.

mod support;

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

/// What `--device` is given, and what the program is told by its environment, for the operations of a
/// card.
fn on_device() -> (String, Option<&'static str>) {
    match std::env::var("MLPEEK_TEST_DEVICE") {
        Ok(name) if name.starts_with("cuda") || name == "metal" => (name, None),
        _ => ("cpu".to_owned(), Some("generic")),
    }
}

/// The objects that a command prints, and what it says. `card`: by the operations of a card.
fn run(home: &Path, card: bool, args: &[&str]) -> (Vec<Value>, String) {
    let mut command = Command::cargo_bin("mlpeek").unwrap();
    command
        .env("MLPEEK_HOME", home.join("home"))
        .env("HF_HOME", home.join("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("MLPEEK_TEST_DEVICE");
    let (device, told) = if card {
        on_device()
    } else {
        ("cpu".to_owned(), None)
    };
    if let Some(told) = told {
        command.env("MLPEEK_TEST_DEVICE", told);
    }
    // In f32 both ways differ by rounding alone.
    let dtype = ["--dtype", "f32"];
    let dtype = if args[0] == "fit" { &[][..] } else { &dtype };
    let output = command
        .args(args)
        .args(["--device", &device, "--json"])
        .args(dtype)
        .timeout(std::time::Duration::from_secs(120))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {said}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let objects = lines.lines().map(|l| serde_json::from_str(l).unwrap());
    (objects.collect(), said)
}

/// Every number of two objects is the same within rounding, and so is all else but times and paths.
fn same(a: &Value, b: &Value, at: &str) {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 2e-3 * (1.0 + b.abs()), "{at}: {a} and {b}");
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{at}");
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                same(a, b, &format!("{at}[{i}]"));
            }
        }
        (Value::Object(a), Value::Object(b)) => {
            for (key, a) in a {
                if !["elapsed_s", "init_s", "device", "remark", "file", "study"]
                    .contains(&key.as_str())
                {
                    same(a, &b[key], &format!("{at}.{key}"));
                }
            }
        }
        _ => assert_eq!(a, b, "{at}"),
    }
}

#[test]
fn a_study_is_collected_fitted_traced_and_steered_on_a_device() {
    let dir = tempfile::tempdir().unwrap();
    let model = support::tiny_model(dir.path()).display().to_string();
    let data = support::corpus(dir.path(), 30).display().to_string();
    let generic = on_device().1.is_some();
    let studies = ["own", "card"].map(|name| dir.path().join(name).display().to_string());
    let made = [false, true].map(|card| {
        let study = &studies[usize::from(card)];
        let run = |args: &[&str]| run(dir.path(), card, args);
        let (collected, said) = run(&[
            "collect", "--model", &model, "--layer", "2", "--data", &data, "--out", study,
        ]);
        let told = "candle's operations compute, as they do on a card";
        assert_eq!(said.contains(told), card && generic, "{said}");
        let (fitted, said) = run(&[
            "fit",
            study,
            "--features",
            "6",
            "--max-sweeps",
            "8",
            "--seed",
            "3",
            "--sparsity",
            "0.2",
        ]);
        let told = "candle's CPU device fits";
        assert_eq!(said.contains(told), card && generic, "{said}");
        let error = fitted.last().unwrap()["relative_error"].clone();
        [collected, vec![error]]
    });
    // The same fit is read on both.
    let read = [false, true].map(|card| {
        let run = |args: &[&str]| run(dir.path(), card, args).0;
        let steer = |more: &[&str]| {
            let prompt = [
                "steer",
                &studies[0],
                "0",
                "--prompt",
                "in May",
                "--max-tokens",
                "6",
            ];
            run(&[&prompt[..], more].concat())
        };
        [
            run(&["trace", &studies[0], "--text", "in May we met"]),
            steer(&["--alpha", "0.5", "--temperature", "0"]),
            steer(&["--kl", "0.25", "--top-k", "0", "--top-p", "1"]),
        ]
    });
    let both = |made: &[Vec<Vec<Value>>; 2]| {
        for (own, card) in made[0].iter().zip(&made[1]) {
            assert!(!own.is_empty());
            let (own, card) = (Value::from(own.clone()), Value::from(card.clone()));
            same(&own, &card, "the command");
        }
    };
    both(&made.map(Vec::from));
    both(&read.map(Vec::from));
}
