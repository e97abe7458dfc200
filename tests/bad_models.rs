//! Broken models through the real program: one clear line that names what is wrong, exit code 1, no
//! study left behind.

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use support::tiny_model;
use tempfile::TempDir;

const UP: &str = "model.layers.1.mlp.up_proj.weight";

struct Home {
    dir: TempDir,
    model: PathBuf,
}

impl Home {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let model = tiny_model(dir.path());
        Self { dir, model }
    }

    fn weights(&self) -> PathBuf {
        self.model.join("model.safetensors")
    }

    fn tensors(&self) -> HashMap<String, Tensor> {
        candle_core::safetensors::load(self.weights(), &Device::Cpu).unwrap()
    }

    /// The weights in two shards with an index; returns the shards.
    fn shard(&self) -> [PathBuf; 2] {
        let mut map = serde_json::Map::new();
        let mut parts = [HashMap::new(), HashMap::new()];
        for (i, (name, tensor)) in self.tensors().into_iter().enumerate() {
            map.insert(
                name.clone(),
                json!(format!("model-0000{}-of-00002.safetensors", i % 2 + 1)),
            );
            parts[i % 2].insert(name, tensor);
        }
        fs::remove_file(self.weights()).unwrap();
        fs::write(
            self.index(),
            json!({"metadata": {}, "weight_map": map}).to_string(),
        )
        .unwrap();
        let paths = [1, 2].map(|i| {
            self.model
                .join(format!("model-0000{i}-of-00002.safetensors"))
        });
        for (part, path) in parts.iter().zip(&paths) {
            candle_core::safetensors::save(part, path).unwrap();
        }
        paths
    }

    fn index(&self) -> PathBuf {
        self.model.join("model.safetensors.index.json")
    }

    fn change(&self, name: &str, tensor: Tensor) {
        let mut all = self.tensors();
        all.insert(name.into(), tensor);
        candle_core::safetensors::save(&all, self.weights()).unwrap();
    }

    fn configure(&self, key: &str, value: Value) {
        let path = self.model.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        fs::write(path, config.to_string()).unwrap();
    }

    fn study(&self) -> PathBuf {
        self.dir.path().join("study")
    }

    fn collect(&self, model: &Path) -> Command {
        let data = self.dir.path().join("corpus.txt");
        fs::write(&data, "one line of text\nand a second one\n").unwrap();
        let mut command = Command::cargo_bin("mlpeek").unwrap();
        command
            .env("MLPEEK_HOME", self.dir.path())
            .env("HF_HUB_OFFLINE", "1")
            .args(["collect", "--layer", "1"]);
        command
            .arg("--model")
            .arg(model)
            .arg("--data")
            .arg(data)
            .arg("--out")
            .arg(self.study());
        command
    }

    fn forward(&self, ids: &str) -> Command {
        let mut command = Command::cargo_bin("mlpeek").unwrap();
        command
            .env("MLPEEK_HOME", self.dir.path())
            .env("HF_HUB_OFFLINE", "1")
            .args(["forward", "--layer", "1"]);
        command
            .arg("--model")
            .arg(&self.model)
            .args(["--ids", ids, "--out"])
            .arg(self.dir.path().join("f.safetensors"));
        command
    }

    /// The one line of a collection that is refused.
    fn refused(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(output.stdout.is_empty());
        assert!(
            text.trim_end().lines().count() == 1
                && text.starts_with("mlpeek: ")
                && text.len() < 500,
            "{text}"
        );
        assert!(
            !self.study().join("study.json").exists(),
            "a study was left behind: {text}"
        );
        text
    }

    fn broken(&self) -> String {
        self.refused(self.collect(&self.model))
    }
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "'{word}' is not in: {text}");
    }
}

#[test]
fn a_whole_model_in_shards_is_collected_and_a_missing_shard_is_named() {
    let home = Home::new();
    let [_, second] = home.shard();
    home.collect(&home.model).assert().success();
    fs::remove_dir_all(home.study()).unwrap();
    fs::remove_file(second).unwrap();
    has(
        &home.broken(),
        &["model-00002-of-00002.safetensors is missing", "2 shards"],
    );
}

#[test]
fn a_tensor_that_is_there_twice_is_named() {
    let home = Home::new();
    let [first, second] = home.shard();
    let text = fs::read_to_string(home.index()).unwrap();
    let twice = format!("\"weight_map\":{{\"{UP}\":\"model-00009-of-00002.safetensors\",");
    fs::write(home.index(), text.replace("\"weight_map\":{", &twice)).unwrap();
    has(&home.broken(), &["index.json", UP, "twice"]);
    fs::write(home.index(), text).unwrap();
    let all: HashMap<String, Tensor> = [first, second.clone()]
        .iter()
        .flat_map(|p| candle_core::safetensors::load(p, &Device::Cpu).unwrap())
        .collect();
    candle_core::safetensors::save(&all, second).unwrap();
    has(&home.broken(), &["already in another shard"]);
}

#[test]
fn wrong_shapes_types_values_and_sizes_are_named() {
    let home = Home::new();
    let original = fs::read(home.weights()).unwrap();
    home.change(
        UP,
        Tensor::zeros((63, 32), DType::F32, &Device::Cpu).unwrap(),
    );
    has(&home.broken(), &[UP, "[63, 32]", "[64, 32]"]);
    fs::write(home.weights(), &original).unwrap();
    home.change(
        UP,
        Tensor::zeros((64, 32), DType::U8, &Device::Cpu).unwrap(),
    );
    has(&home.broken(), &[UP, "U8", "bf16"]);
    fs::write(home.weights(), &original[..original.len() - 100]).unwrap();
    has(&home.broken(), &["truncated", "model.safetensors"]);
    fs::write(home.weights(), &original).unwrap();
    home.configure("hidden_size", json!(48));
    has(&home.broken(), &["32", "48", "model.safetensors"]);
    home.configure("hidden_size", json!(32));
    home.configure(
        "quantization_config",
        json!({"quant_method": "gptq", "bits": 4}),
    );
    has(&home.broken(), &["quantization_config", "GGUF"]);
}

#[test]
fn a_gguf_of_a_type_that_cannot_be_read_is_refused() {
    let home = Home::new();
    let family = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/families/llama2/model.gguf"
    );
    let mut bytes = fs::read(family).unwrap();
    // The type follows the name, the number of axes and two extents; 16 is IQ2_XXS.
    let name = b"blk.1.ffn_up.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 16;
    assert_eq!(bytes[at..at + 4], 0u32.to_le_bytes());
    bytes[at] = 16;
    let path = home.dir.path().join("odd.gguf");
    fs::write(&path, bytes).unwrap();
    has(
        &home.refused(home.collect(&path)),
        &["odd.gguf", "blk.1.ffn_up.weight", "type 16", "Q8_0"],
    );
}

#[test]
fn damaged_weights_are_named() {
    let home = Home::new();
    home.change(
        "model.layers.0.mlp.up_proj.weight",
        Tensor::full(f32::NAN, (64, 32), &Device::Cpu).unwrap(),
    );
    let output = home.collect(&home.model).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    has(
        &text,
        &["model.layers.0.mlp.up_proj.weight", "NaN", "download"],
    );
    assert!(!home.study().exists(), "a study was left behind: {text}");
    // In the layer that is read, where the pass ends at the hook; and in the unembedding.
    let home = Home::new();
    home.change(UP, Tensor::full(f32::NAN, (64, 32), &Device::Cpu).unwrap());
    let text = String::from_utf8(home.collect(&home.model).output().unwrap().stderr).unwrap();
    has(&text, &[UP, "NaN", "download"]);
    assert!(!text.contains("dtype"), "it is f32: {text}");
    let home = Home::new();
    home.change(
        "lm_head.weight",
        Tensor::full(f32::NAN, (258, 32), &Device::Cpu).unwrap(),
    );
    let output = home.forward("1,2").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    has(
        &String::from_utf8(output.stderr).unwrap(),
        &["lm_head.weight", "NaN", "download"],
    );
}

#[test]
fn ids_need_no_tokenizer_and_a_git_lfs_pointer_is_named() {
    let home = Home::new();
    home.forward("1,2").assert().success();
    fs::remove_file(home.model.join("tokenizer.json")).unwrap();
    home.forward("1,2").assert().success();
    has(&home.broken(), &["no tokenizer.json", "--ids"]);
    let mut text = home.forward("1");
    text.arg("--text=a");
    assert_eq!(text.output().unwrap().status.code(), Some(2));
    let says = String::from_utf8(home.forward("258").output().unwrap().stderr).unwrap();
    has(&says, &["token id 258 does not exist", "0 to 257"]);
    let home = Home::new();
    fs::write(
        home.weights(),
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 856216\n",
    )
    .unwrap();
    has(
        &home.broken(),
        &["model.safetensors", "Git LFS pointer", "git lfs pull"],
    );
    let gguf = home.dir.path().join("m.gguf");
    fs::copy(home.weights(), &gguf).unwrap();
    has(
        &home.refused(home.collect(&gguf)),
        &["m.gguf", "Git LFS pointer", "git lfs pull"],
    );
}

#[test]
fn a_model_or_a_fit_larger_than_memory_is_refused_with_what_would_fit() {
    let home = Home::new();
    let mut command = home.collect(&home.model);
    command.env("MLPEEK_MEMORY", "1M");
    has(
        &home.refused(command),
        &[
            "up to layer 1",
            "weights",
            "1.0 MiB of memory is free",
            "smaller",
        ],
    );
    let mut command = home.collect(&home.model);
    command.env("MLPEEK_MEMORY", "much");
    assert_eq!(command.output().unwrap().status.code(), Some(2));
    home.collect(&home.model).assert().success();
    let mut fit = Command::cargo_bin("mlpeek").unwrap();
    let output = fit
        .args(["fit", "--features", "30"])
        .arg(home.study())
        .env("MLPEEK_MEMORY", "4K")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    has(&text, &["30 features", "4.0 KiB is free", "ask for fewer"]);
}

#[test]
fn a_panic_of_a_library_is_one_line() {
    let home = Home::new();
    let path = home.model.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    // A merge longer than every token makes the library panic.
    tokenizer["model"]["vocab"]["<|end|>"] = json!(255);
    tokenizer["model"]["merges"] = json!(["<|end|> <|end|>"]);
    fs::write(&path, tokenizer.to_string()).unwrap();
    let mut command = home.collect(&home.model);
    let output = command.env("RUST_BACKTRACE", "1").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    // The weights were read before, with a line of progress.
    let (last, before) = text
        .trim_end()
        .split('\n')
        .collect::<Vec<_>>()
        .split_last()
        .map(|(l, b)| (*l, b.len()))
        .unwrap();
    has(last, &["mlpeek: ", "tokenizer.json", "do not fit together"]);
    assert!(before <= 1 && !text.contains("panicked"), "{text}");
}
