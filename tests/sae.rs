//! `mlpeek sae` end to end on a small random model: loading, training, being killed, comparing, bad
//! input.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mlpeek::directions::sae::{Gate, Normalise, Sae};
use mlpeek::interop;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};
use support::program::{collected, json_lines, mlpeek};
use tempfile::TempDir;

struct Made {
    dir: TempDir,
    study: String,
}

impl Made {
    /// A collected study of layer 1 of the small model.
    fn new(texts: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let study = collected(dir.path(), texts);
        Self { dir, study }
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        json_lines(mlpeek(self.dir.path()).args(args))
    }

    /// The error line of a run that must end with `code`.
    fn failure(&self, args: &[&str], code: i32) -> String {
        let output = mlpeek(self.dir.path()).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr.lines().last().unwrap().to_owned()
    }

    /// An autoencoder on disk.
    fn published(&self, name: &str, width: usize, model: &str, hook: &str) -> String {
        let mut rng = Pcg64Mcg::seed_from_u64(4);
        let mut draw = |n: usize| {
            (0..n)
                .map(|_| rng.random_range(-0.5f32..0.5))
                .collect::<Vec<_>>()
        };
        let sae = Sae {
            width,
            encoder: draw(20 * width),
            encoder_bias: draw(20),
            decoder: draw(20 * width),
            decoder_bias: draw(width),
            centred: true,
            gate: Gate::Relu,
            normalise: Normalise::None,
        };
        let dir: PathBuf = self.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        interop::sae::write(&dir, &sae, Some(model), hook, json!({})).unwrap();
        dir.display().to_string()
    }
}

const HOOK: &str = "blocks.1.mlp.hook_post";

#[test]
fn a_published_autoencoder_is_loaded_and_listed() {
    let made = Made::new(12);
    let sae = made.published("good", support::D_MLP, "tiny-llama", HOOK);
    let loaded = made.lines(&["sae", "load", &made.study, &sae, "--name", "mine", "--json"]);
    let line = &loaded[0];
    assert_eq!(
        (&line["event"], &line["sae"], &line["format"]),
        (&json!("loaded"), &json!("mine"), &json!("SAELens"))
    );
    assert_eq!(
        (&line["architecture"], &line["latent_count"]),
        (&json!("standard"), &json!(20))
    );
    assert!(line["fvu"].as_f64().unwrap() > 0.0 && line["l0"].as_f64().unwrap() > 0.0);
    assert!((0.0..=1.0).contains(&line["dead_share"].as_f64().unwrap()));
    let listed = made.lines(&["sae", "list", &made.study, "--json"]);
    assert_eq!((listed.len(), &listed[0]["fvu"]), (1, &line["fvu"]));
    // A flipped byte is found by its checksum.
    let weights = Path::new(&made.study).join("saes/mine/v1/sae_weights.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert!(
        made.failure(
            &[
                "sae",
                "compare",
                &made.study,
                "--sae",
                "mine",
                "--predict",
                "0"
            ],
            1
        )
        .contains("checksum")
    );
}

#[test]
fn an_autoencoder_of_another_model_or_hook_is_refused_in_one_line() {
    let made = Made::new(12);
    let says = |name: &str, width: usize, model: &str, hook: &str, code: i32, wanted: &str| {
        let sae = made.published(name, width, model, hook);
        let line = made.failure(&["sae", "load", &made.study, &sae], code);
        assert!(line.contains(wanted), "{line}");
        sae
    };
    says(
        "a",
        support::D_MLP + 1,
        "tiny-llama",
        HOOK,
        1,
        "rows of 65 values",
    );
    says(
        "b",
        support::D_MLP,
        "tiny-llama",
        "blocks.2.mlp.hook_post",
        1,
        "collect that hook",
    );
    says(
        "c",
        support::D_MLP,
        "tiny-llama",
        "blocks.1.attn.hook_z",
        1,
        "no hook for",
    );
    let other = says("d", support::D_MLP, "google/gemma-2-2b", HOOK, 1, "--force");
    assert_eq!(
        made.lines(&["sae", "load", &made.study, &other, "--force", "--json"])[0]["event"],
        "loaded"
    );
    let line = made.failure(
        &[
            "sae",
            "load",
            &made.study,
            &other,
            "--layer",
            "3",
            "--name",
            "again",
        ],
        1,
    );
    assert!(line.contains("--force"), "{line}");
    assert!(
        made.failure(&["sae", "load", &made.study, "owner/name/folder"], 1)
            .contains("HF_HUB_OFFLINE")
    );
    assert!(
        made.failure(&["sae", "load", &made.study, "nowhere"], 2)
            .contains("nowhere")
    );
    assert!(
        made.failure(&["sae", "compare", &made.study, "--sae", "no"], 2)
            .contains("no SAE 'no'")
    );
    assert!(
        made.failure(&["sae", "train", &made.study, "--top-k", "9999"], 2)
            .contains("--top-k")
    );
}

const TRAIN: [&str; 9] = [
    "--latents",
    "24",
    "--top-k",
    "4",
    "--batch",
    "32",
    "--learning-rate",
    "0.003",
    "--json",
];

#[test]
fn training_tells_of_every_pass_and_compares() {
    let made = Made::new(40);
    let run = |args: &[&str]| {
        made.lines(
            &[
                &["sae", "train", &made.study, "--epochs", "30"],
                &TRAIN[..],
                args,
            ]
            .concat(),
        )
    };
    let lines = run(&[]);
    let (last, passes) = lines.split_last().unwrap();
    assert_eq!(
        (passes.len(), &last["event"], &last["sae"]),
        (30, &json!("trained"), &json!("topk24"))
    );
    assert!(
        passes
            .iter()
            .enumerate()
            .all(|(i, p)| p["epoch"] == i + 1 && p["event"] == "progress")
    );
    assert!(passes[29]["fvu"].as_f64().unwrap() < 0.8 * passes[0]["fvu"].as_f64().unwrap());
    assert!(last["l0"].as_f64().unwrap() <= 4.0 && last["fvu"].as_f64().unwrap() < 1.0);
    assert!(
        !Path::new(&made.study)
            .join("saes/topk24/checkpoint")
            .exists()
    );
    let curve = fs::read_to_string(Path::new(&made.study).join("saes/topk24/loss.jsonl")).unwrap();
    let points: Vec<Value> = curve
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let whole: Vec<_> = points
        .iter()
        .filter(|p| !p["pass"].is_null())
        .map(|p| &p["pass"])
        .collect();
    assert_eq!(
        whole,
        passes.iter().map(|p| &p["fvu"]).collect::<Vec<_>>(),
        "the curve is kept"
    );
    // As text it says now and then how it stands.
    let mut text = vec![
        "sae",
        "train",
        &made.study,
        "--epochs",
        "2",
        "--name",
        "said",
    ];
    text.extend(&TRAIN[..8]);
    let output = mlpeek(made.dir.path()).args(text).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && stderr.contains("pass 1 of 2: FVU ") && stderr.contains("dead "),
        "{stderr}"
    );
    fs::remove_dir_all(Path::new(&made.study).join("saes/said")).unwrap();
    let again = run(&["--name", "again"]);
    assert_eq!(
        again.last().unwrap()["fvu"],
        last["fvu"],
        "the same seed gives the same autoencoder"
    );

    made.lines(&[
        "fit",
        &made.study,
        "--features",
        "8",
        "--l1",
        "0",
        "--sparsity",
        "0.2",
        "--max-sweeps",
        "30",
        "--json",
    ]);
    let compared = made.lines(&["sae", "compare", &made.study, "--json"]);
    let kinds: Vec<_> = compared
        .iter()
        .map(|l| l["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["snmf", "sae", "sae"]);
    for line in &compared {
        let (figures, kept) = (line, &line["predictions"]);
        assert!(
            figures["fvu"].as_f64().unwrap() > 0.0
                && figures["row_count"] == compared[0]["row_count"]
        );
        assert!(
            kept["ce_original"].as_f64().unwrap() > 0.0
                && kept["prediction_count"].as_u64().unwrap() > 50
        );
        assert!(
            kept["kl_reconstructed"].as_f64().unwrap() < kept["kl_zero"].as_f64().unwrap(),
            "{line}"
        );
    }
    assert_eq!(compared[1]["fvu"], last["fvu"]);
    // On other texts of the same model.
    let data = made.dir.path().join("other.json");
    fs::write(
        &data,
        json!({"x": ["winter bread and seven rivers", "blue music on Tuesday"]}).to_string(),
    )
    .unwrap();
    let model = made.dir.path().join("tiny-llama").display().to_string();
    let (other, data) = (
        made.dir.path().join("other").display().to_string(),
        data.display().to_string(),
    );
    made.lines(&[
        "collect", "--model", &model, "--layer", "1", "--data", &data, "--out", &other, "--json",
    ]);
    let held_out = made.lines(&[
        "sae",
        "compare",
        &made.study,
        "--on",
        &other,
        "--predict",
        "0",
        "--json",
    ]);
    assert!(
        held_out[1]["row_count"].as_u64().unwrap() < 100 && held_out[1]["predictions"].is_null()
    );
    assert!(held_out[1]["fvu"].as_f64().unwrap() > last["fvu"].as_f64().unwrap());
}

#[test]
fn an_autoencoder_is_replaced_only_when_asked() {
    let made = Made::new(12);
    let sae = made.published("good", support::D_MLP, "tiny-llama", HOOK);
    let load = ["sae", "load", &made.study, &sae, "--name", "mine", "--json"];
    made.lines(&load);
    let line = made.failure(&load, 2);
    assert!(
        line.contains("has an SAE 'mine' already") && line.contains("--fresh"),
        "{line}"
    );
    made.lines(&[&load[..], &["--fresh"]].concat());
    let train = [
        &[
            "sae",
            "train",
            &made.study,
            "--epochs",
            "2",
            "--name",
            "mine",
        ],
        &TRAIN[..],
    ]
    .concat();
    assert!(made.failure(&train, 2).contains("--fresh"));
    // Another's weights are given up when that is asked for.
    assert_eq!(
        made.lines(&[&train[..], &["--fresh"]].concat())
            .last()
            .unwrap()["event"],
        "trained"
    );
    assert!(
        made.failure(&train, 2).contains("topk") || made.failure(&train, 2).contains("already")
    );
    // The checkpoint of a training that was stopped is work.
    let checkpoint = Path::new(&made.study).join("saes/mine/checkpoint");
    fs::write(&checkpoint, b"work").unwrap();
    let line = made.failure(&train, 2);
    assert!(
        line.contains("--resume") && line.contains("--fresh"),
        "{line}"
    );
    assert_eq!(fs::read(&checkpoint).unwrap(), b"work");
}

#[test]
fn a_training_too_large_for_rows_or_memory_is_refused() {
    let made = Made::new(12);
    // Random weights of the right width, whose files name no model: they give nothing back.
    let sae = made.published("foreign", support::D_MLP, "tiny-llama", HOOK);
    let config = Path::new(&sae).join("cfg.json");
    let text = fs::read_to_string(&config)
        .unwrap()
        .replace("tiny-llama", "");
    fs::write(&config, text).unwrap();
    let output = mlpeek(made.dir.path())
        .args(["sae", "load", &made.study, &sae, "--force", "--name", "f"])
        .output()
        .unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && notes.contains("worse than their mean"),
        "{notes}"
    );
    let output = mlpeek(made.dir.path())
        .args(["sae", "compare", &made.study, "--predict", "0"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("worse than their mean")
    );

    let short = |args: &[&str]| {
        let output = mlpeek(made.dir.path())
            .env("MLPEEK_MEMORY", "20K")
            .args(args)
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        stderr.lines().last().unwrap().to_owned()
    };
    let line = short(&[
        "sae",
        "train",
        &made.study,
        "--latents",
        "4096",
        "--top-k",
        "4",
        "--batch",
        "32",
    ]);
    assert!(line.contains("of memory, and 20.0 KiB is free"), "{line}");
    let line = short(&["features", &made.study, "--directions", "neuron"]);
    assert!(
        line.contains("64 directions on") && line.contains("would fit"),
        "{line}"
    );
}

#[test]
fn a_killed_training_goes_on_to_the_same_end() {
    let made = Made::new(40);
    let args = [
        &["sae", "train", &made.study, "--epochs", "4000"],
        &TRAIN[..],
    ]
    .concat();
    assert!(
        made.failure(&[&args[..], &["--resume"]].concat(), 2)
            .contains("no checkpoint")
    );
    // SIGTERM leaves a checkpoint after the first passes; a kill then loses what came after it, and
    // nothing else.
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("mlpeek"))
        .env("MLPEEK_HOME", made.dir.path().join("home"))
        .args(&args)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    lines
        .by_ref()
        .take(3)
        .for_each(|l| assert!(l.unwrap().contains("progress")));
    assert!(
        std::process::Command::new("kill")
            .arg(child.id().to_string())
            .status()
            .unwrap()
            .success()
    );
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let checkpoint = Path::new(&made.study).join("saes/topk24/checkpoint");
    let saved = fs::read(&checkpoint).unwrap();
    let listed = made.lines(&["sae", "list", &made.study, "--json"]);
    assert_eq!(
        (&listed[0]["resumable"], &listed[0]["fvu"]),
        (&json!(true), &Value::Null)
    );
    assert!(
        made.failure(&["sae", "compare", &made.study, "--sae", "topk24"], 2)
            .contains("no weights yet")
    );

    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("mlpeek"))
        .env("MLPEEK_HOME", made.dir.path().join("home"))
        .args([&args[..], &["--resume"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.next().unwrap().unwrap().contains("progress"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        fs::read(&checkpoint).unwrap(),
        saved,
        "a checkpoint is only ever replaced whole"
    );
    // Another configuration does not go on from it.
    let other = [
        "sae",
        "train",
        &made.study,
        "--epochs",
        "9",
        "--name",
        "topk24",
        "--resume",
    ];
    assert!(
        made.failure(&[&other[..], &TRAIN[..8]].concat(), 1)
            .contains("other settings")
    );
}
