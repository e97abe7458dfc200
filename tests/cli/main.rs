//! What holds for every command: text from elsewhere never commands a terminal, an option without
//! effect is refused before any work, and processes that change one file at once lose nothing.
#![cfg(unix)]

mod complete;
mod foreign;
mod refused;
#[path = "../support/mod.rs"]
mod support;
mod together;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;

/// A small model and studies of it, in a directory of any name.
struct Made {
    _dir: TempDir,
    home: PathBuf,
    model: String,
}

impl Made {
    /// `name` is the directory's own; `corpus` is labels with their texts.
    fn new(name: &str, corpus: &[(&str, &[&str])]) -> Self {
        let dir = TempDir::new().unwrap();
        let home = dir.path().join(name);
        fs::create_dir(&home).unwrap();
        let model = support::tiny_model(&home).display().to_string();
        let texts: serde_json::Map<_, _> = corpus
            .iter()
            .map(|(l, t)| ((*l).to_owned(), json!(t)))
            .collect();
        fs::write(
            home.join("corpus.json"),
            serde_json::Value::Object(texts).to_string(),
        )
        .unwrap();
        Self {
            _dir: dir,
            home,
            model,
        }
    }

    fn path(&self, name: &str) -> String {
        self.home.join(name).display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlpeek"));
        command.args(args).current_dir(&self.home);
        self.env()
            .iter()
            .for_each(|(name, value)| _ = command.env(name, value));
        command
    }

    fn env(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("MLPEEK_HOME", self.home.join("home")),
            ("HF_HOME", self.home.join("hf")),
            ("HF_HUB_OFFLINE", "1".into()),
        ]
    }

    /// Runs a command that must succeed.
    fn run(&self, args: &[&str]) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(args).output().unwrap();
        assert!(
            status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&stderr)
        );
        String::from_utf8(stdout).unwrap()
    }

    /// A study `s` with the fit k3 of layer 1.
    fn study(&self) -> String {
        let (study, data) = (self.path("s"), self.path("corpus.json"));
        self.run(&[
            "collect",
            "--model",
            &self.model,
            "--data",
            &data,
            "--layer",
            "1",
            "--out",
            &study,
        ]);
        self.run(&[
            "fit",
            &study,
            "-k",
            "3",
            "--sparsity",
            "0.3",
            "--max-sweeps",
            "5",
        ]);
        study
    }
}

/// Every file below `dir` with its content.
fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(everything(&path))
        } else {
            out.push((path.clone(), fs::read(&path).unwrap()))
        }
    }
    out.sort();
    out
}
