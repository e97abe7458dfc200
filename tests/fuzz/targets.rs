//! What is damaged, and how it is read: one of each kind of file, all small.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mlpeek::activations::Block;
use mlpeek::analysis::Notes;
use mlpeek::corpus::Corpus;
use mlpeek::factor::Factoriser;
use mlpeek::interop::{npy, sae, tensors};
use mlpeek::model::{
    Batch, BosRule, DeviceChoice, HookPoint, HookSite, LoadOptions, Logits, Model, NoTap, Phase,
    source,
};
use mlpeek::study::Study;
use mlpeek::{Result, TaskCtx};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_pcg::Pcg64Mcg;

use crate::gguf::GgufWriter;
use crate::support;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Corpus,
    Npy,
    Matrix,
    Sae,
    Model,
    Gguf,
    Study,
}

/// A file that is damaged, and what is opened then.
#[derive(Debug)]
pub struct Target {
    kind: Kind,
    pub path: PathBuf,
    open: PathBuf,
}

impl Target {
    pub fn is_json(&self) -> bool {
        self.path
            .extension()
            .is_some_and(|e| e == "json" || e == "jsonl")
    }

    /// Whether a checksum covers all that is read of it.
    fn is_checked(&self) -> bool {
        let below = self
            .path
            .strip_prefix(&self.open)
            .unwrap_or(&self.path)
            .display()
            .to_string();
        let covered = ["tokens", "cache/", "fits/"]
            .iter()
            .any(|start| below.starts_with(start));
        self.kind == Kind::Study && covered && !self.is_json()
    }
}

/// All of them, and what the whole study holds.
pub struct Targets {
    by_kind: BTreeMap<Kind, Vec<Target>>,
    whole: Facts,
}

/// What is read of a study.
#[derive(Debug, Clone, PartialEq, Default)]
struct Facts {
    tokens: String,
    rows: Vec<Vec<u32>>,
    fits: Vec<(Vec<u32>, Vec<u32>)>,
    saes: Vec<Vec<u32>>,
    resumed: Vec<(usize, u64)>,
}

/// Makes one of each kind in `dir`.
pub fn make(dir: &Path) {
    let model = support::tiny_model(dir);
    support::corpus(dir, 24);
    let data = |name: &str, text: &[u8]| fs::write(dir.join(name), text).unwrap();
    data(
        "lines.jsonl",
        "{\"text\": \"one — line\", \"label\": \"a\"}\n{\"text\": \"another\", \"label\": null}\n"
            .as_bytes(),
    );
    data(
        "list.json",
        b"[{\"text\": \"a b\", \"label\": \"x/y\"}, \"plain\", {\"text\": \"c\"}]",
    );
    data("table.csv", b"text,label\n\"a, b\",x\n\"two\nlines\",y\n");
    data("table.tsv", b"text\tlabel\na b\tx\nc d\ty\n");
    data("plain.txt", b"a line of text\n\nand another one\n");
    matrix(&dir.join("matrix.npy"));
    let values = (0..12).map(|v| v as f32).collect();
    tensors::write_named(
        &dir.join("matrix.safetensors"),
        &[("m".to_owned(), vec![3, 4], values)],
    )
    .unwrap();
    copy(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/saes"),
        &dir.join("saes"),
    );
    fs::write(dir.join("tiny.gguf"), whole_gguf()).unwrap();
    let study = dir.join("study").display().to_string();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlpeek"));
        let output = command
            .args(args)
            .current_dir(dir)
            .env("MLPEEK_HOME", dir.join("home"))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let data = dir.join("corpus.json").display().to_string();
    run(&[
        "collect",
        "--model",
        &model.display().to_string(),
        "--data",
        &data,
        "--layer",
        "1,2",
        "--out",
        &study,
    ]);
    run(&[
        "fit",
        &study,
        "-k",
        "4",
        "--layer",
        "1",
        "--sparsity",
        "0.3",
        "--max-sweeps",
        "4",
    ]);
    run(&[
        "fit",
        &study,
        "-k",
        "3",
        "--layer",
        "2",
        "--sparsity",
        "0.3",
        "--solver",
        "mu",
        "--max-sweeps",
        "3",
    ]);
    run(&[
        "sae",
        "train",
        &study,
        "--layer",
        "1",
        "--latents",
        "6",
        "--top-k",
        "2",
        "--epochs",
        "1",
    ]);
    let open = Study::open(Path::new(&study)).unwrap();
    open.change_notes("l1-k4", |notes| {
        notes.set(1, "a name #tag *4 -- a text").unwrap()
    })
    .unwrap();
    open.save_session(
        &serde_json::json!({"schema": 1, "fit": "l1-k4", "pane": "Tree", "marked": [1, 2]}),
    )
    .unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target)
        } else {
            _ = fs::copy(entry.path(), target).unwrap()
        }
    }
}

fn matrix(path: &Path) {
    let mut header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 3), }".to_owned();
    header.push_str(&" ".repeat(117 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    (0..15u8).for_each(|v| bytes.extend_from_slice(&f32::from(v).to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

/// A Llama of one layer, some of its weights quantised.
fn whole_gguf() -> Vec<u8> {
    let is_byte = |c: &char| matches!(u32::from(*c), 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0x143);
    let mut words: Vec<String> = vec!["<s>".into(), "</s>".into()];
    words.extend(
        (0u32..0x200)
            .filter_map(char::from_u32)
            .filter(is_byte)
            .map(String::from),
    );
    words.push("he".to_owned());
    let mut kinds = vec![1; words.len()];
    (kinds[0], kinds[1]) = (3, 3);
    let (d, f, vocab) = (32u64, 64u64, words.len() as u64);
    let floats = |n: u64| -> Vec<u8> {
        (0..n)
            .flat_map(|i| (((i * 37 % 101) as f32 - 50.0) / 300.0).to_le_bytes())
            .collect()
    };
    let ones = |n: u64| -> Vec<u8> { (0..n).flat_map(|_| 1f32.to_le_bytes()).collect() };
    // Q8_0: a scale in f16 and 32 values a block.
    let blocks = |n: u64| -> Vec<u8> {
        (0..n / 32)
            .flat_map(|b| {
                [0x00, 0x18]
                    .into_iter()
                    .chain((0..32).map(move |i| (b * 7 + i * 5) as u8))
            })
            .collect()
    };
    let name = |what: &str| format!("blk.0.{what}.weight");
    GgufWriter::new()
        .string("general.architecture", "llama")
        .uint("llama.block_count", 1)
        .uint("llama.embedding_length", d as u32)
        .uint("llama.feed_forward_length", f as u32)
        .uint("llama.context_length", 128)
        .uint("llama.attention.head_count", 4)
        .uint("llama.attention.head_count_kv", 2)
        .raw(
            "llama.attention.layer_norm_rms_epsilon",
            [&6u32.to_le_bytes()[..], &1e-5f32.to_le_bytes()].concat(),
        )
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "smollm")
        .strings("tokenizer.ggml.tokens", &words)
        .ints("tokenizer.ggml.token_type", &kinds)
        .strings("tokenizer.ggml.merges", &["h e".to_owned()])
        .uint("tokenizer.ggml.bos_token_id", 0)
        .uint("tokenizer.ggml.eos_token_id", 1)
        .tensor("token_embd.weight", &[d, vocab], 0, &floats(d * vocab))
        .tensor("output_norm.weight", &[d], 0, &ones(d))
        .tensor(&name("attn_norm"), &[d], 0, &ones(d))
        .tensor(&name("ffn_norm"), &[d], 0, &ones(d))
        .tensor(&name("attn_q"), &[d, d], 8, &blocks(d * d))
        .tensor(&name("attn_k"), &[d, d / 2], 8, &blocks(d * d / 2))
        .tensor(&name("attn_v"), &[d, d / 2], 0, &floats(d * d / 2))
        .tensor(&name("attn_output"), &[d, d], 0, &floats(d * d))
        .tensor(&name("ffn_gate"), &[d, f], 8, &blocks(d * f))
        .tensor(&name("ffn_up"), &[d, f], 0, &floats(d * f))
        .tensor(&name("ffn_down"), &[f, d], 8, &blocks(d * f))
        .bytes()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(files(&path))
        } else {
            out.push(path)
        }
    }
    out.sort();
    out
}

impl Targets {
    /// Those that [`make`] made in `dir`.
    pub fn open(dir: &Path) -> Self {
        let mut by_kind: BTreeMap<Kind, Vec<Target>> = BTreeMap::new();
        let mut add = |kind, path: PathBuf, open: PathBuf| {
            by_kind
                .entry(kind)
                .or_default()
                .push(Target { kind, path, open });
        };
        for name in [
            "corpus.json",
            "lines.jsonl",
            "list.json",
            "table.csv",
            "table.tsv",
            "plain.txt",
        ] {
            add(Kind::Corpus, dir.join(name), dir.join(name));
        }
        add(Kind::Npy, dir.join("matrix.npy"), dir.join("matrix.npy"));
        add(
            Kind::Matrix,
            dir.join("matrix.safetensors"),
            dir.join("matrix.safetensors"),
        );
        add(Kind::Gguf, dir.join("tiny.gguf"), dir.join("tiny.gguf"));
        let (model, study) = (dir.join("tiny-llama"), dir.join("study"));
        files(&model)
            .into_iter()
            .for_each(|path| add(Kind::Model, path, model.clone()));
        let saes = dir.join("saes");
        for path in files(&saes)
            .into_iter()
            .filter(|p| !p.ends_with("expected.safetensors"))
        {
            let top: PathBuf = path
                .strip_prefix(&saes)
                .unwrap()
                .components()
                .take(1)
                .collect();
            let top = saes.join(top);
            let described = ["cfg.json", "config.json", "hyperparams.json"];
            let whole = described.iter().any(|name| top.join(name).exists());
            let parent = path.parent().unwrap().to_path_buf();
            let open = if whole {
                top
            } else if parent.join("cfg.json").exists() {
                parent
            } else {
                path.clone()
            };
            add(Kind::Sae, path, open);
        }
        let locks = |p: &PathBuf| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().ends_with("lock"))
        };
        files(&study)
            .into_iter()
            .filter(|p| !locks(p))
            .for_each(|path| add(Kind::Study, path, study.clone()));
        let whole = facts(&study).unwrap();
        assert!(
            whole.rows.len() == 2 && whole.fits.len() == 2 && whole.saes.len() == 1,
            "the study is whole"
        );
        let all = Self { by_kind, whole };
        for target in all.by_kind.values().flatten() {
            all.open_as(target)
                .unwrap_or_else(|e| panic!("{target:?} whole: {e}"));
        }
        all
    }

    pub fn choose(&self, rng: &mut Pcg64Mcg) -> &Target {
        // A study has the most kinds of files.
        let kinds = [
            Kind::Corpus,
            Kind::Npy,
            Kind::Matrix,
            Kind::Sae,
            Kind::Model,
            Kind::Gguf,
            Kind::Study,
            Kind::Study,
        ];
        self.by_kind[&kinds[rng.random_range(0..kinds.len())]]
            .choose(rng)
            .unwrap()
    }

    /// Reads a target; an error is in order, something read that is not what it was is not.
    pub fn read(&self, target: &Target) -> Result<(), String> {
        match self.open_as(target) {
            Ok(Some(read)) if target.is_checked() && read != self.whole => {
                Err(difference(&read, &self.whole))
            }
            Ok(_) => Ok(()),
            Err(e) => {
                let message = e.to_string();
                if message.contains('\n') || message.len() > 1000 {
                    Err(format!("no short line: {message:.300}"))
                } else {
                    Ok(())
                }
            }
        }
    }

    fn open_as(&self, target: &Target) -> Result<Option<Facts>> {
        let open = target.open.as_path();
        match target.kind {
            Kind::Corpus => Corpus::open(open).map(drop)?,
            Kind::Npy => npy::open(open)?.each_block(&mut |_| Ok(()))?,
            Kind::Matrix => tensors::open_matrix(open, None)?.each_block(&mut |_| Ok(()))?,
            Kind::Sae => autoencoder(open)?,
            Kind::Model | Kind::Gguf => model(open)?,
            Kind::Study => return facts(open).map(Some),
        }
        Ok(None)
    }
}

fn difference(read: &Facts, whole: &Facts) -> String {
    let differ = [
        ("tokens", read.tokens != whole.tokens),
        ("rows", read.rows != whole.rows),
        ("factors", read.fits != whole.fits),
        ("autoencoders", read.saes != whole.saes),
        ("checkpoints", read.resumed != whole.resumed),
    ];
    let names: Vec<&str> = differ.iter().filter(|d| d.1).map(|d| d.0).collect();
    format!("other {} are read without a word", names.join(" and "))
}

fn autoencoder(open: &Path) -> Result<()> {
    let sae = sae::open(open, "x-L0_4")?.sae;
    let ones = vec![1.0; 2 * sae.width];
    let latents = sae.encode(&Block {
        rows: 2,
        cols: sae.width,
        data: ones.into(),
    })?;
    sae.decode(&latents);
    Ok(())
}

fn model(open: &Path) -> Result<()> {
    let ctx = TaskCtx::silent();
    let files = source::resolve(Some(&open.display().to_string()), &ctx)?;
    let options = LoadOptions {
        device: DeviceChoice::Cpu,
        ..LoadOptions::default()
    };
    let model = Model::open(&files, &options, &ctx)?;
    let ids = model.tokenizer().encode("the Ж 12 days", BosRule::Auto)?;
    model.tokenizer().decode(&ids);
    model.width(HookPoint {
        layer: 0,
        site: HookSite::MlpPost,
    })?;
    let batch = Batch {
        rows: vec![ids],
        samples: Vec::new(),
    };
    model
        .forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::Last, &ctx)
        .map(drop)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

fn facts(dir: &Path) -> Result<Facts> {
    let ctx = TaskCtx::silent();
    let study = Study::open_read_only(dir)?;
    let tokens = study.tokens()?;
    let mut pieces: Vec<_> = tokens.pieces.iter().collect();
    pieces.sort();
    let mut out = Facts {
        tokens: format!(
            "{:?}{pieces:?}{:?}{:?}{:?}",
            tokens.rows, tokens.texts, tokens.sample_labels, tokens.labels
        ),
        ..Facts::default()
    };
    for &hook in &study.manifest().hooks {
        let source = study.activations(hook)?;
        let (rows, _) = source.shape();
        out.rows.push(bits(&source.rows(0..rows)?.data));
        for fit in study.fits()?.into_iter().filter(|f| f.hook == hook) {
            let (_, config) = study.fit_request(&fit.name)?;
            if fit.resumable {
                let at = Factoriser::resume(
                    source.as_ref(),
                    config,
                    &study.checkpoint_path(&fit.name)?,
                    &ctx,
                )?;
                out.resumed.push((at.sweeps(), at.objective().to_bits()));
            }
        }
    }
    for fit in study.fits()? {
        let (_, factors) = study.load_fit(Some(&fit.name))?;
        let dense: Vec<f32> = (0..factors.features.columns())
            .flat_map(|j| factors.features.dense_column(j))
            .collect();
        out.fits
            .push((bits(&dense), bits(factors.coefficients.as_slice())));
        let notes: Notes = study.notes(&fit.name)?;
        notes.ids().count();
        study.has_descriptions(&fit.name)?;
    }
    for sae in study.saes()? {
        let (_, sae) = study.load_sae(Some(&sae.name))?;
        out.saes.push(bits(&sae.encoder));
    }
    study.session();
    study.unreadable_fits()?;
    study.verify()?;
    Ok(out)
}
