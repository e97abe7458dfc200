//! A study on disk: one model, one corpus, hooks and layers, and all that was learnt from them. Atomic saves, one
//! writer at a time, readable again after a kill at any instant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::activations::ActivationSource;
use crate::activations::store::CacheDtype;
use crate::corpus::Corpus;
use crate::error::Result;
use crate::factor::{Factors, FitConfig};
use crate::model::{BosRule, HookPoint, ModelInfo};

/// `study.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub schema: u32,
    /// mlpeek's version that made it.
    pub mlpeek: String,
    /// The model; `None` for an imported matrix.
    pub model: Option<ModelInfo>,
    /// The hooks whose activations are cached.
    pub hooks: Vec<HookPoint>,
    /// Width of each hook's rows.
    pub widths: Vec<usize>,
    /// How cached values are stored.
    pub dtype: CacheDtype,
    /// The BOS rule in force.
    pub bos: BosRule,
    /// Path or name of the corpus, its sha256 and number of samples; one entry per appended corpus.
    pub corpora: Vec<CorpusEntry>,
    /// Token rows in the caches; set when collecting is complete.
    pub rows: usize,
    /// Whether every sample has been collected.
    pub complete: bool,
    /// Seconds since the Unix epoch when it was made.
    pub created: u64,
}

/// A corpus of a study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusEntry {
    /// Path or name.
    pub name: String,
    /// Of the file's bytes.
    pub sha256: String,
    /// Samples.
    pub samples: usize,
}

/// Where a token row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRow {
    /// Token id.
    pub id: u32,
    /// Sample number.
    pub sample: u32,
    /// Position in the sample (BOS counted).
    pub position: u32,
}

/// All token rows of a study with their samples: what reading a feature needs besides the factors.
#[derive(Debug, Clone, Default)]
pub struct TokenTable {
    /// One entry a row of the cache. Rows of one sample are contiguous and in order.
    pub rows: Vec<TokenRow>,
    /// Display piece of each token id that occurs (see [`crate::model::Tokenizer::piece`]).
    pub pieces: std::collections::HashMap<u32, String>,
    /// Text of each sample.
    pub texts: Vec<String>,
    /// Index into `labels` of each sample.
    pub sample_labels: Vec<Option<u32>>,
    /// Distinct labels.
    pub labels: Vec<String>,
}

impl TokenTable {
    /// The display piece of row `row`'s token.
    pub fn piece(&self, row: usize) -> &str {
        self.pieces.get(&self.rows[row].id).map_or("", String::as_str)
    }

    /// The label of row `row`'s sample.
    pub fn label(&self, row: usize) -> Option<&str> {
        self.sample_labels[self.rows[row].sample as usize].map(|l| self.labels[l as usize].as_str())
    }
}

/// A finished or checkpointed fit, as listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitEntry {
    /// Its name (a directory under `fits/`).
    pub name: String,
    /// The hook it factorises.
    pub hook: HookPoint,
    /// What was asked for.
    pub config: FitConfig,
    /// Of the saved factors; `None` when only a checkpoint is there.
    pub relative_error: Option<f64>,
    /// Of the saved factors.
    pub explained_variance: Option<f64>,
    /// Sweeps done.
    pub sweeps: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// A checkpoint that can be resumed is there.
    pub resumable: bool,
}

/// A study directory that is open. With [`Study::create`] or [`Study::open`] it is locked for writing until dropped.
pub struct Study {
    dir: PathBuf,
    manifest: Manifest,
}

impl Study {
    /// Makes a new study (or reopens the same unfinished one: same model hashes, corpus, hooks and dtype; else an error
    /// says which differs). `widths[i]` is the width of `hooks[i]`.
    pub fn create(
        dir: &Path,
        model: Option<&ModelInfo>,
        hooks: &[HookPoint],
        widths: &[usize],
        corpus: &Corpus,
        dtype: CacheDtype,
        bos: BosRule,
    ) -> Result<Self> {
        let _ = (dir, model, hooks, widths, corpus, dtype, bos);
        unimplemented!()
    }

    /// Opens a study for reading and writing; fails naming the holder when another process has it.
    pub fn open(dir: &Path) -> Result<Self> {
        let _ = dir;
        unimplemented!()
    }

    /// Opens a study for reading alone; any number of processes may.
    pub fn open_read_only(dir: &Path) -> Result<Self> {
        let _ = dir;
        unimplemented!()
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The token rows, texts and labels.
    pub fn tokens(&self) -> Result<Arc<TokenTable>> {
        unimplemented!()
    }

    /// The cache of one hook, mapped. Rows are described by token and sample text in errors.
    pub fn activations(&self, hook: HookPoint) -> Result<Box<dyn ActivationSource + Send + Sync>> {
        let _ = hook;
        unimplemented!()
    }

    /// `fits/<name>/`, made if absent.
    pub fn fit_dir(&self, name: &str) -> Result<PathBuf> {
        let _ = name;
        unimplemented!()
    }

    /// The fits, newest last.
    pub fn fits(&self) -> Result<Vec<FitEntry>> {
        unimplemented!()
    }

    /// Saves factors as the fit `name`, atomically.
    pub fn save_fit(&self, name: &str, hook: HookPoint, config: &FitConfig, factors: &Factors) -> Result<()> {
        let _ = (name, hook, config, factors);
        unimplemented!()
    }

    /// Loads a fit (`None`: the newest); coefficients are mapped.
    pub fn load_fit(&self, name: Option<&str>) -> Result<(FitEntry, Arc<Factors>)> {
        let _ = name;
        unimplemented!()
    }

    /// Names that a person gave to features of a fit.
    pub fn notes(&self, fit: &str) -> Result<Notes> {
        let _ = fit;
        unimplemented!()
    }

    /// Saves them, atomically.
    pub fn save_notes(&self, fit: &str, notes: &Notes) -> Result<()> {
        let _ = (fit, notes);
        unimplemented!()
    }

    /// `session.json`, when there is one that can be read.
    pub fn session(&self) -> Option<serde_json::Value> {
        unimplemented!()
    }

    /// Saves where the explorer stands.
    pub fn save_session(&self, session: &serde_json::Value) -> Result<()> {
        let _ = session;
        unimplemented!()
    }
}

/// Names of features by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// Feature id → name.
    pub names: std::collections::BTreeMap<usize, String>,
}

/// A study as the Start pane lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyEntry {
    /// Its directory.
    pub dir: PathBuf,
    /// Model id.
    pub model: String,
    /// Hooks.
    pub hooks: Vec<HookPoint>,
    /// Corpus name.
    pub corpus: String,
    /// Rows.
    pub rows: usize,
    /// Its fits.
    pub fits: usize,
    /// Seconds since the Unix epoch of its last change.
    pub modified: u64,
}

/// Where studies without a path live: the data directory (`MLPEEK_HOME`, else XDG), by model, layer, hook and corpus.
pub fn default_dir(model_id: &str, hook: HookPoint, corpus: &Corpus) -> Result<PathBuf> {
    let _ = (model_id, hook, corpus);
    unimplemented!()
}

/// The studies in the data directory, newest first. One that cannot be read is left out.
pub fn recent() -> Vec<StudyEntry> {
    unimplemented!()
}
