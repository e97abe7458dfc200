//! A study is what it was collected with: each part of that is changed in turn, and every command
//! that opens a study with a model refuses by the part's name and leaves each byte of the study as
//! it was. Where a model lies is no part of it.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A study of the small model with a fit, and room to change the model.
struct Made {
    dir: TempDir,
    model: PathBuf,
    data: String,
    more: String,
}

fn made() -> Made {
    let dir = TempDir::new().unwrap();
    let model = support::tiny_model(dir.path());
    let data = support::corpus(dir.path(), 40).display().to_string();
    let more = dir.path().join("more.txt").display().to_string();
    fs::write(&more, "the river in winter\n").unwrap();
    let made = Made {
        model,
        data,
        more,
        dir,
    };
    made.ok(&[
        "collect",
        "--model",
        made.model.to_str().unwrap(),
        "--layer",
        "1",
        "--data",
        &made.data,
        "--out",
        "study",
    ]);
    made.ok(&[
        "fit",
        "study",
        "-k",
        "6",
        "--sparsity",
        "0.25",
        "--max-sweeps",
        "8",
    ]);
    made
}

impl Made {
    fn run(&self, args: &[&str]) -> Output {
        let home = self.dir.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlpeek"));
        command
            .args(args)
            .current_dir(home)
            .env("MLPEEK_HOME", home.join("home"))
            .env("HF_HOME", home.join("hf"));
        command.env("HF_HUB_OFFLINE", "1").output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let (message, code) = (String::from_utf8(out.stderr).unwrap(), out.status.code());
        assert_eq!(code, Some(0), "{args:?}: {message}");
        message
    }

    /// What a run that must be refused says in its last line.
    fn refused(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let message = String::from_utf8(out.stderr).unwrap();
        assert!(
            matches!(out.status.code(), Some(1 | 2)),
            "{args:?} is not refused: {message}"
        );
        assert!(!message.contains("panicked"), "{message}");
        message.lines().last().unwrap_or_default().to_owned()
    }

    fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.dir.path().join("study/study.json")).unwrap())
            .unwrap()
    }

    /// Every file of the study with its bytes, but for the lock, which names whoever held it last.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn gather(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    gather(&path, into);
                } else if !path.ends_with("lock") {
                    into.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        let mut all = BTreeMap::new();
        gather(&self.dir.path().join("study"), &mut all);
        all
    }

    /// Every command that opens the study with a model; the model is named where it must be.
    fn commands(&self) -> Vec<Vec<&str>> {
        let model = self.model.to_str().unwrap();
        let judge = ["--endpoint", "http://127.0.0.1:1/v1", "--judge-model", "m"];
        vec![
            vec!["collect", "--out", "study"],
            vec![
                "collect", "--model", model, "--layer", "1", "--data", &self.data, "--out", "study",
            ],
            vec![
                "collect", "--model", model, "--layer", "1", "--data", &self.more, "--out",
                "study", "--append",
            ],
            vec!["trace", "study", "--text", "the river"],
            vec!["trace", "study", "--text", "the river", "--model", model],
            vec!["steer", "study", "0", "--alpha", "1", "--max-tokens", "2"],
            vec!["features", "study"],
            vec![
                "features",
                "study",
                "--directions",
                "diffmean",
                "--model",
                model,
            ],
            vec!["feature", "study", "0"],
            vec!["tree", "study", "--recursive", "--levels", "3"],
            vec!["sae", "compare", "study", "--predict", "64"],
            vec!["eval", "steering", "study", "--samples", "0"],
            vec!["eval", "reuse", "study", "--features", "0=river,1=blue"],
            [&["describe", "study", "0"][..], &judge].concat(),
        ]
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, serde_json::to_vec_pretty(&value).unwrap()).unwrap();
}

/// Keeps a file's bytes while it is changed.
fn while_changed(path: &Path, change: impl FnOnce(&Path), look: impl FnOnce()) {
    let whole = fs::read(path).unwrap();
    change(path);
    look();
    fs::write(path, whole).unwrap();
}

fn added(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": false})
}

type Change = Box<dyn Fn(&Path)>;

/// A file of the model, how it is changed, and what of the model is another then.
fn changes() -> Vec<(&'static str, Change, &'static str)> {
    let config = |key: &'static str, value: Value| -> Change {
        Box::new(move |path| edit(path, |config| config[key] = value.clone()))
    };
    vec![
        (
            "config.json",
            config("hidden_act", json!("gelu")),
            "another configuration (activation Gelu, not Silu)",
        ),
        (
            "config.json",
            config("rope_theta", json!(500_000.0)),
            "(ropes.0.base 500000.0, not 10000.0)",
        ),
        (
            "config.json",
            config("rms_norm_eps", json!(1e-6)),
            "(norm.eps 1e-6, not 0.00001)",
        ),
        (
            "config.json",
            config("max_position_embeddings", json!(64)),
            "(context 64, not 256)",
        ),
        (
            "tokenizer.json",
            Box::new(|path| {
                edit(path, |t| {
                    t["added_tokens"]
                        .as_array_mut()
                        .unwrap()
                        .push(added(258, "river"))
                })
            }),
            "another tokenizer",
        ),
        (
            "tokenizer.json",
            Box::new(|path| edit(path, |t| t["normalizer"] = json!({"type": "Lowercase"}))),
            "another tokenizer",
        ),
        (
            "tokenizer_config.json",
            config("bos_token", json!("</s>")),
            "another BOS token (257, not 256)",
        ),
        (
            "tokenizer_config.json",
            config("bos_token", Value::Null),
            "another BOS token (none, not 256)",
        ),
        (
            "model.safetensors",
            Box::new(|path| {
                let mut bytes = fs::read(path).unwrap();
                let end = bytes.len();
                bytes[end - 2] ^= 1;
                fs::write(path, bytes).unwrap();
            }),
            "other weights",
        ),
    ]
}

#[test]
fn a_model_of_which_any_part_is_another_is_refused_by_every_command() {
    let made = made();
    let before = made.bytes();
    for (file, change, expected) in changes() {
        while_changed(&made.model.join(file), change, || {
            for command in made.commands() {
                let message = made.refused(&command);
                assert!(
                    message.contains(expected),
                    "{command:?} with another {file}: {message}"
                );
                assert!(made.bytes() == before, "{command:?} changed the study");
            }
        });
    }
    // As it was, every command is content, and adding a corpus too.
    let words = made.ok(&["collect", "--out", "study"]);
    assert!(!words.contains("another"), "{words}");
    assert!(made.bytes() == before);
    made.ok(&["trace", "study", "--text", "the river"]);
    made.ok(&[
        "collect", "--data", &made.more, "--out", "study", "--append",
    ]);
    assert_eq!(
        (
            made.manifest()["corpora"].as_array().unwrap().len(),
            &made.manifest()["complete"]
        ),
        (2, &json!(true))
    );
}

#[test]
fn a_file_that_is_written_anew_with_the_same_meaning_is_the_same_model() {
    let made = made();
    let before = made.bytes();
    let same: Vec<(&str, Change)> = vec![
        ("config.json", Box::new(|path| edit(path, |_| {}))),
        // What is left out has these values.
        (
            "config.json",
            Box::new(|path| edit(path, |c| c["attention_bias"] = json!(false))),
        ),
        (
            "config.json",
            Box::new(|path| edit(path, |c| c["head_dim"] = json!(8))),
        ),
        (
            "config.json",
            Box::new(|path| edit(path, |c| c["torch_dtype"] = json!("bfloat16"))),
        ),
        (
            "config.json",
            Box::new(|path| edit(path, |c| c["use_cache"] = json!(true))),
        ),
        ("tokenizer.json", Box::new(|path| edit(path, |_| {}))),
        (
            "tokenizer.json",
            Box::new(|path| {
                edit(path, |t| {
                    t["truncation"] = json!({"direction": "Right", "max_length": 8,
            "strategy": "LongestFirst", "stride": 0})
                })
            }),
        ),
        (
            "tokenizer_config.json",
            Box::new(|path| edit(path, |c| c["model_max_length"] = json!(77))),
        ),
    ];
    for (i, (file, change)) in same.into_iter().enumerate() {
        while_changed(&made.model.join(file), change, || {
            made.ok(&["collect", "--out", "study"]);
            made.ok(&["trace", "study", "--text", "the river"]);
        });
        assert!(made.bytes() == before, "{i}: {file}");
    }
}

#[test]
fn what_is_asked_of_a_study_must_be_what_it_is_and_is_taken_from_it_where_it_is_left_open() {
    let made = made();
    let before = made.bytes();
    let model = made.model.to_str().unwrap();
    let cases: [(&[&str], &str); 7] = [
        (
            &["--layer", "2"],
            "it holds blocks.1.mlp.hook_post, not layer 2",
        ),
        (
            &["--layer", "1,2"],
            "it holds blocks.1.mlp.hook_post, not layer 1, 2",
        ),
        (
            &["--hook", "hook_resid_post"],
            "it holds blocks.1.mlp.hook_post, not hook_resid_post",
        ),
        (
            &["--layer", "1", "--hook", "hook_mlp_out"],
            "not hook_mlp_out of layer 1",
        ),
        (&["--dtype", "bf16"], "its cache is f32, not bf16"),
        (&["--bos", "never"], "its BOS rule is auto, not never"),
        (&["--bos", "always"], "its BOS rule is auto, not always"),
    ];
    for append in [true, false] {
        for (more, expected) in cases {
            let data = if append { &made.more } else { &made.data };
            let mut args = vec![
                "collect", "--model", model, "--data", data, "--out", "study",
            ];
            args.extend(more);
            args.extend(append.then_some("--append"));
            let message = made.refused(&args);
            assert!(message.contains(expected), "{args:?}: {message}");
            assert!(made.bytes() == before, "{args:?}");
        }
    }
    let message = made.refused(&[
        "collect", "--model", model, "--data", &made.more, "--out", "study",
    ]);
    assert!(
        message.contains("--append adds another corpus"),
        "{message}"
    );
    // A model of other widths: nothing is registered, and the right one goes on.
    let wide = support::tiny_model(&made.dir.path().join("wide"));
    edit(&wide.join("config.json"), |c| {
        c["num_attention_heads"] = json!(2)
    });
    let wide = wide.to_str().unwrap();
    let message = made.refused(&[
        "collect", "--model", wide, "--data", &made.more, "--out", "study", "--append",
    ]);
    assert!(
        message.contains(wide) || message.contains("tensor"),
        "{message}"
    );
    assert!(made.bytes() == before);
    let out = made.run(&[
        "collect", "--data", &made.more, "--out", "study", "--append", "--json",
    ]);
    let line: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&line["hook"], &line["sample_count"]),
        (&json!("blocks.1.mlp.hook_post"), &json!(41))
    );
}

#[test]
fn a_study_goes_with_its_model_to_another_place() {
    let made = made();
    let moved = made.dir.path().join("moved");
    fs::rename(&made.model, &moved).unwrap();
    let trace = ["trace", "study", "--text", "the river"];
    let message = made.refused(&trace);
    assert!(
        message.contains(made.model.to_str().unwrap()) && message.contains("--model"),
        "{message}"
    );
    assert!(
        made.refused(&["steer", "study", "0", "--alpha", "1"])
            .contains("--model")
    );
    // What is saved can be read without a model.
    assert!(
        made.ok(&["features", "study"])
            .contains("no logit lens: the model of study is")
    );

    // Another model is not taken, and its place not kept.
    let other = support::tiny_model(&made.dir.path().join("other"));
    edit(&other.join("config.json"), |c| c["rope_theta"] = json!(1.0));
    let before = made.bytes();
    let message = made.refused(&[&trace[..], &["--model", other.to_str().unwrap()]].concat());
    assert!(
        message.contains("is another model, it has another configuration"),
        "{message}"
    );
    let message = made.refused(&[&trace[..], &["--model", "nowhere/at/all"]].concat());
    assert!(message.contains("nowhere/at/all"), "{message}");
    assert!(made.bytes() == before);

    let message = made.ok(&[&trace[..], &["--model", "moved"]].concat());
    assert!(message.contains("from now on"), "{message}");
    assert_eq!(
        made.manifest()["model"]["id"],
        json!(moved.canonicalize().unwrap())
    );
    assert!(!made.ok(&trace).contains("from now on"));

    // Collecting with it at a third place keeps that.
    let third = made.dir.path().join("third");
    fs::rename(&moved, &third).unwrap();
    made.ok(&[
        "collect", "--model", "third", "--layer", "1", "--data", &made.data, "--out", "study",
    ]);
    made.ok(&trace);
    assert_eq!(
        made.manifest()["model"]["id"],
        json!(third.canonicalize().unwrap())
    );
}

#[test]
fn a_study_of_an_earlier_version_opens_with_a_word_and_is_brought_up_to_date_by_collecting() {
    let made = made();
    let manifest = made.dir.path().join("study/study.json");
    edit(&manifest, |m| {
        _ = m["model"].as_object_mut().unwrap().remove("identity")
    });
    let before = made.bytes();
    let word = "does not say with which configuration";
    assert!(
        made.ok(&["trace", "study", "--text", "the river"])
            .contains(word)
    );
    assert!(made.bytes() == before, "reading records nothing");
    // What was saved is read without computing anything anew, so that there is nothing to tell.
    for saved in [&["features", "study"][..], &["feature", "study", "0"]] {
        assert!(!made.ok(saved).contains(word), "{saved:?}");
    }
    while_changed(
        &made.model.join("tokenizer.json"),
        |path| edit(path, |t| t["normalizer"] = json!({"type": "Lowercase"})),
        || {
            assert!(
                made.refused(&["collect", "--out", "study"])
                    .contains("another tokenizer")
            );
        },
    );
    assert!(made.bytes() == before);
    made.ok(&["collect", "--out", "study"]);
    assert_eq!(
        made.manifest()["model"]["identity"]["configuration"]["activation"],
        "Silu"
    );
    assert!(
        !made
            .ok(&["trace", "study", "--text", "the river"])
            .contains(word)
    );
}
