//! What `mlpeek export` writes, read back: by this crate's own readers, and by the tools that each
//! format is for where they are installed.
//!
//! `MLPEEK_TEST_PYTHON=PYTHON cargo test --test exports -- --ignored` where PYTHON has sae-lens, gguf
//! and numpy, and for control vectors llama-cpp-python.

#[path = "../support/mod.rs"]
mod support;
mod tools;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use mlpeek::TaskCtx;
use mlpeek::interop::archive::Archive;
use mlpeek::interop::{control_vector, sae};
use mlpeek::jobs::directions::{HookSelection, Reference};
use mlpeek::jobs::export;
use mlpeek::jobs::steering::SteeredDirection;
use mlpeek::model::decoder::{Decoder, Logits, describe};
use mlpeek::model::{
    Batch, HookPoint, HookSite, LoadOptions, Model, ModelFiles, ModelLayout, NoTap, Phase, Tap,
    source,
};
use mlpeek::steering::tap::{SteerTap, TokenSelection};
use mlpeek::steering::{Intervention, Mode, SteerPart, SteerTerm};
use mlpeek::study::Study;
use serde_json::{Value, json};
use support::program::{json_lines, mlpeek};
use tempfile::TempDir;

const K: usize = 6;

struct Made {
    dir: TempDir,
    study: String,
}

impl Made {
    /// A study of layer 1 at the site with a fit `one`.
    fn new(site: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let model = support::tiny_model(dir.path()).display().to_string();
        let data = support::corpus(dir.path(), 60).display().to_string();
        let study = dir.path().join("study").display().to_string();
        let made = Self { dir, study };
        let study = made.study.as_str();
        made.run(&[
            "collect", "--model", &model, "--layer", "1", "--hook", site, "--data", &data, "--out",
            study,
        ]);
        made.run(&[
            "fit",
            study,
            "-k",
            "6",
            "--sparsity",
            "0.2",
            "--max-sweeps",
            "30",
            "--name",
            "one",
        ]);
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Vec<Value> {
        json_lines(mlpeek(self.dir.path()).args(args).arg("--json"))
    }

    fn export(&self, format: &str, name: &str, more: &[&str]) -> (PathBuf, Value) {
        let path = self.path(name);
        let out = path.display().to_string();
        let words = ["export", &self.study, "--format", format, "--out", &out];
        let line = self.run(&[&words[..], more].concat()).remove(0);
        assert_eq!(
            (&line["event"], &line["format"]),
            (&json!("exported"), &json!(format))
        );
        (path, line)
    }

    fn open(&self) -> Study {
        Study::open_read_only(Path::new(&self.study)).unwrap()
    }

    fn model(&self) -> Model {
        let model = self.path("tiny-llama");
        let files = source::resolve(model.to_str(), &TaskCtx::silent()).unwrap();
        Model::open(&files, &LoadOptions::default(), &TaskCtx::silent()).unwrap()
    }
}

fn logits(model: &Model, tap: &mut SteerTap) -> Vec<Vec<f32>> {
    let batch = Batch {
        rows: vec![vec![256, 84, 104, 101, 32, 115, 101, 97]],
        samples: Vec::new(),
    };
    let all = model
        .forward(
            &batch,
            Phase::Prompt,
            None,
            tap,
            Logits::All,
            &TaskCtx::silent(),
        )
        .unwrap()
        .unwrap();
    let all = all.squeeze(0).unwrap().to_dtype(DType::F32).unwrap();
    all.to_vec2().unwrap()
}

fn steered(terms: &[SteerTerm], mode: Mode, alpha: f64) -> SteerTap {
    let intervention = Arc::new(Intervention::new(terms, mode).unwrap());
    SteerTap::at_strengths(&intervention, &[alpha], TokenSelection::All).unwrap()
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

#[test]
fn arrays_and_tables_hold_what_the_fit_holds() {
    let made = Made::new("mlp.hook_post");
    let study = made.open();
    let (_, factors) = study.load_fit(Some("one")).unwrap();
    let tokens = study.tokens().unwrap();
    let (d, n) = (factors.features.rows, factors.coefficients.rows);
    for (format, name) in [("safetensors", "f.safetensors"), ("npz", "f.npz")] {
        let (path, line) = made.export(format, name, &["--rows"]);
        assert_eq!(
            (&line["fit"], &line["z_shape"]),
            (&json!("one"), &json!([d, K]))
        );
        let mut file = Archive::open(&path).unwrap();
        let z = file.read("Z", &[d, K]).unwrap();
        assert!((0..K).all(|j| {
            z[j..]
                .iter()
                .step_by(K)
                .eq(&factors.features.dense_column(j))
        }));
        let y = file.read("Y", &[n, K]).unwrap();
        assert!((0..K).all(|j| y[j..].iter().step_by(K).eq(factors.coefficients.feature(j))));
        assert!(file.has("samples") && file.has("token_ids"));
    }
    let file = Archive::open(&made.path("f.safetensors")).unwrap();
    assert_eq!(file.metadata("hook"), Some("blocks.1.mlp.hook_post"));
    let texts: Vec<String> = serde_json::from_str(file.metadata("texts").unwrap()).unwrap();
    assert_eq!(texts, tokens.texts);

    made.run(&["notes", &made.study, "2", "a name, with \"marks\""]);
    let (path, _) = made.export("csv", "f.csv", &[]);
    let list: Vec<csv::StringRecord> = csv::Reader::from_path(path)
        .unwrap()
        .records()
        .map(Result::unwrap)
        .collect();
    let shown = made.run(&["features", &made.study]);
    assert_eq!(list.len(), K);
    for (row, line) in list.iter().zip(&shown) {
        assert_eq!(
            row[2].parse::<usize>().unwrap(),
            line["feature"].as_u64().unwrap() as usize
        );
        let top: Value = serde_json::from_str(&row[7]).unwrap();
        assert_eq!(top, line["top_tokens"]);
        let promoted: Vec<String> = serde_json::from_str(&row[8]).unwrap();
        assert_eq!(promoted.len(), line["promoted"].as_array().unwrap().len());
    }
    assert_eq!(&list[2][3], "a name, with \"marks\"");

    let (path, _) = made.export("contexts", "c.csv", &["--directions", "diffmean"]);
    let contexts: Vec<csv::StringRecord> = csv::Reader::from_path(path)
        .unwrap()
        .records()
        .map(Result::unwrap)
        .collect();
    assert!(contexts.len() > 3 && contexts.iter().all(|row| &row[0] == "diffmean"));
    for row in &contexts {
        let words: Vec<String> = serde_json::from_str(&row[11]).unwrap();
        let values: Vec<f32> = serde_json::from_str(&row[12]).unwrap();
        let peak: f32 = row[10].parse().unwrap();
        assert_eq!(words.len(), values.len());
        assert!(
            words
                .iter()
                .zip(&values)
                .any(|(word, v)| *word == row[9] && *v == peak)
        );
    }
}

#[test]
fn a_fit_as_a_standard_autoencoder_says_how_near_it_comes() {
    let made = Made::new("mlp.hook_post");
    let (path, line) = made.export("saelens", "sae", &[]);
    let found = sae::open(&path, "sae").unwrap();
    assert_eq!(found.hook.as_deref(), Some("blocks.1.mlp.hook_post"));
    let study = made.open();
    let source = study.activations(study.manifest().hooks[0]).unwrap();
    let block = source.rows(0..source.shape().0).unwrap();
    let back = found.sae.decode(&found.sae.encode(&block).unwrap());
    let d = source.shape().1;
    let mean: Vec<f64> = (0..d)
        .map(|i| {
            block.data[i..]
                .iter()
                .step_by(d)
                .map(|&v| f64::from(v))
                .sum::<f64>()
                / block.rows as f64
        })
        .collect();
    let (mut left, mut whole) = (0.0, 0.0);
    for (at, (&x, &y)) in block.data.iter().zip(&back).enumerate() {
        left += (f64::from(x) - f64::from(y)).powi(2);
        whole += (f64::from(x) - mean[at % d]).powi(2);
    }
    let said = line["fvu"].as_f64().unwrap();
    assert!(
        (left / whole - said).abs() < 1e-6,
        "{} {said}",
        left / whole
    );
    // The fit's own coefficients are the best there are.
    assert!(
        line["own_fvu"].as_f64().unwrap() <= said && said < 1.0,
        "{line}"
    );
    let config: Value =
        serde_json::from_slice(&std::fs::read(path.join("cfg.json")).unwrap()).unwrap();
    assert_eq!(config["metadata"]["mlpeek"]["fvu"], line["fvu"]);
}

#[test]
fn a_control_vector_after_its_block_is_what_steering_at_the_mlp_is() {
    for site in ["mlp.hook_post", "hook_mlp_out", "hook_resid_post"] {
        let made = Made::new(site);
        let wanted = ["--feature", "0,3:-0.5", "--alpha", "4"];
        let (path, line) = made.export("control-vector", "v.gguf", &wanted);
        assert_eq!(line["layers"], json!([1]));
        let vector = control_vector::read(&path).unwrap();
        let model = made.model();
        let references = Reference::parse_list("0,3:-0.5").unwrap();
        let (study, place) = (made.open(), HookSelection::default());
        let silent = TaskCtx::silent();
        let whole = SteerPart::Whole;
        let directions =
            SteeredDirection::open_all(&study, &references, &place, &whole, None, &silent).unwrap();
        let terms: Vec<SteerTerm> = directions.iter().map(|d| d.term(&model).unwrap()).collect();
        let after = SteerTerm {
            hook: HookPoint {
                layer: 1,
                site: HookSite::ResidPost,
            },
            direction: vector.by_block[&1].clone(),
            weight: 1.0,
        };
        let ours = logits(&model, &mut steered(&terms, Mode::Add, 4.0));
        let theirs = logits(&model, &mut steered(&[after], Mode::Add, 1.0));
        let plain = logits(&model, &mut steered(&terms, Mode::Add, 0.0));
        let (same, moved) = (
            largest_difference(&ours, &theirs),
            largest_difference(&ours, &plain),
        );
        assert!(same < 2e-4 && moved > 0.1, "{site}: {same} of {moved}");
    }
}

/// A family's small random model, which has no tokenizer.
fn family(name: &str) -> ModelFiles {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/families")
        .join(name);
    files_in(&dir)
}

fn files_in(dir: &Path) -> ModelFiles {
    ModelFiles {
        id: dir.display().to_string(),
        origin: "test".to_owned(),
        layout: ModelLayout::HuggingFace {
            config: dir.join("config.json"),
            tokenizer: dir.join("tokenizer.json"),
            weights: vec![dir.join("model.safetensors")],
        },
    }
}

fn decoder(files: &ModelFiles) -> Decoder {
    let (config, weights) = describe(files).unwrap();
    Decoder::on_cpu(config, &weights, None, &TaskCtx::silent()).unwrap()
}

fn all_logits(decoder: &Decoder, tap: &mut dyn Tap) -> Vec<Vec<f32>> {
    let batch = Batch {
        rows: vec![vec![3, 7, 1, 9, 4, 2]],
        samples: Vec::new(),
    };
    let silent = TaskCtx::silent();
    let all = decoder
        .forward(&batch, Phase::Prompt, None, tap, Logits::All, &silent)
        .unwrap()
        .unwrap();
    all.squeeze(0)
        .unwrap()
        .to_dtype(DType::F32)
        .unwrap()
        .to_vec2()
        .unwrap()
}

/// A term of a direction that is the same on every run.
fn term(width: usize, site: HookSite, seed: usize, weight: f32) -> SteerTerm {
    let value = |i: usize| ((i * 37 + seed * 101) % 17) as f32 / 8.0 - 1.0;
    let norm = (0..width).map(|i| value(i).powi(2)).sum::<f32>().sqrt();
    SteerTerm {
        hook: HookPoint { layer: 1, site },
        direction: (0..width).map(|i| value(i) / norm).collect(),
        weight,
    }
}

#[test]
fn an_edited_checkpoint_does_what_the_tap_does_in_every_layout() {
    let dir = TempDir::new().unwrap();
    let cases = [
        // GPT-2 keeps its projections the other way round and has biases, NeoX has biases, Llama's
        // are added, Qwen knows none.
        ("gpt2", HookSite::MlpPost, Mode::Ablate, 1.0),
        ("gpt2", HookSite::MlpPost, Mode::Add, 3.0),
        ("gpt2", HookSite::MlpOut, Mode::Set, 2.0),
        ("gpt_neox", HookSite::MlpOut, Mode::Ablate, 1.0),
        ("gpt_neox", HookSite::ResidPost, Mode::Add, 2.0),
        ("llama", HookSite::MlpPost, Mode::Set, 2.0),
        ("llama", HookSite::MlpOut, Mode::Ablate, 0.5),
        ("llama", HookSite::ResidPost, Mode::Add, -1.5),
        ("qwen2", HookSite::MlpPost, Mode::Ablate, 1.0),
    ];
    for (i, (name, site, mode, alpha)) in cases.into_iter().enumerate() {
        let files = family(name);
        let plain = decoder(&files);
        let width = plain.width(HookPoint { layer: 1, site }).unwrap();
        let terms = [term(width, site, 1, 1.0), term(width, site, 2, -0.5)];
        let intervention = Intervention::new(&terms, mode).unwrap();
        let to = dir.path().join(i.to_string());
        let done = export::checkpoint(&files, &intervention, alpha, &to).unwrap();
        assert_eq!(done.layers, [1]);
        let edited = all_logits(&decoder(&files_in(&to)), &mut NoTap);
        let tapped = all_logits(&plain, &mut steered(&terms, mode, alpha));
        let before = all_logits(&plain, &mut NoTap);
        let (off, moved) = (
            largest_difference(&edited, &tapped),
            largest_difference(&before, &tapped),
        );
        assert!(
            off < 1e-3 * moved && moved > 1e-3,
            "{name} {site} {mode:?}: {off} of {moved}"
        );
    }
    let refused = |name: &str, site, mode, words: &str| {
        let files = family(name);
        let width = decoder(&files).width(HookPoint { layer: 1, site }).unwrap();
        let intervention = Intervention::new(&[term(width, site, 1, 1.0)], mode).unwrap();
        let to = dir.path().join("refused");
        let error = export::checkpoint(&files, &intervention, 1.0, &to).unwrap_err();
        assert!(error.to_string().contains(words) && !to.exists(), "{error}");
    };
    refused("qwen2", HookSite::MlpPost, Mode::Add, "only ablating");
    refused(
        "gemma3",
        HookSite::MlpPost,
        Mode::Ablate,
        "norms what its MLP puts out",
    );
    refused(
        "llama",
        HookSite::ResidPost,
        Mode::Ablate,
        "cannot be ablated",
    );
}

#[test]
fn a_checkpoint_of_a_studys_feature_is_a_model_like_any_other() {
    let made = Made::new("mlp.hook_post");
    let (path, line) = made.export("checkpoint", "edited", &["--feature", "0,2"]);
    assert_eq!(
        (&line["mode"], &line["layers"]),
        (&json!("ablate"), &json!([1]))
    );
    let references = Reference::parse_list("0,2").unwrap();
    let (study, place, silent) = (made.open(), HookSelection::default(), TaskCtx::silent());
    let whole = SteerPart::Whole;
    let directions =
        SteeredDirection::open_all(&study, &references, &place, &whole, None, &silent).unwrap();
    let model = made.model();
    let terms: Vec<SteerTerm> = directions.iter().map(|d| d.term(&model).unwrap()).collect();
    let tapped = logits(&model, &mut steered(&terms, Mode::Ablate, 1.0));
    let files = source::resolve(path.to_str(), &silent).unwrap();
    let edited = Model::open(&files, &LoadOptions::default(), &silent).unwrap();
    let none = Mode::Add;
    let off = largest_difference(&tapped, &logits(&edited, &mut steered(&terms, none, 0.0)));
    let plain = logits(&model, &mut steered(&terms, none, 0.0));
    assert!(off < 1e-3 * largest_difference(&tapped, &plain), "{off}");
    let out = path.display().to_string();
    let words = [
        "export",
        &made.study,
        "--format",
        "checkpoint",
        "--feature",
        "0",
        "--out",
        &out,
    ];
    let again = mlpeek(made.dir.path()).args(words).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "what is there stays");
}

#[test]
fn directions_of_a_file_are_read_and_steered_with_like_the_fit_that_they_are() {
    let made = Made::new("mlp.hook_post");
    made.run(&["notes", &made.study, "2", "the sea"]);
    let own = made.run(&["features", &made.study]);
    let steer = |direction: &str| {
        let words = ["--alpha", "5", "--max-tokens", "8", "--temperature", "0"];
        let words = [&["steer", &made.study, direction][..], &words].concat();
        made.run(&words).remove(0)
    };
    for (format, name) in [("safetensors", "v.safetensors"), ("npz", "v.npz")] {
        let (path, _) = made.export(format, name, &[]);
        let set = format!("file:{}", path.display());
        let lines = made.run(&["features", &made.study, "--directions", &set]);
        assert_eq!(lines.len(), K);
        for (line, own) in lines.iter().zip(&own) {
            assert_eq!(line["set"], json!(format!("file:{name}")));
            assert_eq!(line["neuron_count"], own["neuron_count"]);
            assert_eq!(line["promoted"][0]["token"], own["promoted"][0]["token"]);
        }
        let other = steer(&format!("{set}:3"));
        assert_eq!(other["steered"], steer("3")["steered"], "{name}");
    }
    let set = format!("file:{}:the sea", made.path("v.safetensors").display());
    assert_eq!(
        steer(&set)["steered"],
        steer("2")["steered"],
        "names come along"
    );
    let failure = |set: &str, words: &str| {
        let args = ["features", &made.study, "--directions", set];
        let output = mlpeek(made.dir.path()).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && stderr.contains(words),
            "{stderr}"
        );
    };
    failure("file:absent.npy", "there is no file absent.npy");
    let (vector, _) = made.export("control-vector", "v.gguf", &["--feature", "0"]);
    let vector = format!("file:{}", vector.display());
    failure(&vector, "it is of hook_resid_post alone");

    let made = Made::new("hook_resid_post");
    let (vector, _) = made.export("control-vector", "v.gguf", &["--feature", "0"]);
    let set = format!("file:{}:0", vector.display());
    let steer = |direction: &str| {
        let words = ["--alpha", "5", "--max-tokens", "8", "--temperature", "0"];
        let words = [&["steer", &made.study, direction][..], &words].concat();
        made.run(&words).remove(0)
    };
    assert_eq!(steer(&set)["steered"], steer("0")["steered"]);
}

#[test]
fn an_export_never_writes_over_what_it_reads_nor_among_other_files() {
    let made = Made::new("mlp.hook_post");
    let refused = |out: &Path, format: &str, more: &[&str], says: &str| {
        let out = out.display().to_string();
        let words = ["export", &made.study, "--format", format, "--out", &out];
        let done = mlpeek(made.dir.path())
            .args(words)
            .args(more)
            .arg("--overwrite")
            .output()
            .unwrap();
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{told}");
        assert!(told.contains(says), "{told}");
    };
    let edits = ["--feature", "0", "--mode", "ablate"];
    let model = made.path("tiny-llama");
    let before = std::fs::read(model.join("model.safetensors")).unwrap();
    refused(&model, "checkpoint", &edits, "is the model that is read");
    let link = made.path("link");
    std::os::unix::fs::symlink(&model, &link).unwrap();
    refused(&link, "checkpoint", &edits, "is the model that is read");
    assert!(std::fs::read(model.join("model.safetensors")).unwrap() == before);
    assert!(model.join("config.json").is_file());

    let study = Path::new(&made.study);
    for name in ["x.safetensors", "fits/one/Z-1.safetensors"] {
        refused(&study.join(name), "safetensors", &[], "study's own");
    }
    refused(&study.join("new"), "saelens", &[], "study's own");

    let other = made.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("model-00001-of-00002.safetensors"), "").unwrap();
    for (format, more) in [("checkpoint", &edits[..]), ("saelens", &[])] {
        refused(&other, format, more, "an empty directory");
    }
    // Its own earlier files are replaced.
    for _ in 0..2 {
        let more = [&edits[..], &["--overwrite"]].concat();
        made.export("checkpoint", "edited", &more);
        made.export("saelens", "sae", &["--overwrite"]);
    }
    refused(
        &made.path("same"),
        "checkpoint",
        &["--feature", "0", "--mode", "ablate", "--alpha", "0"],
        "the model as it is",
    );
    refused(
        &made.path("zero.gguf"),
        "control-vector",
        &["--feature", "0", "--alpha", "0"],
        "all zeros",
    );
}
