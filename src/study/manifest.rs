//! `study.json`: the properties of a study. It is written atomically, and checked for inner
//! consistency when it is read.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::activations::store::CacheDtype;
use crate::corpus::Corpus;
use crate::disk;
use crate::error::{Error, Result};
use crate::model::{BosRule, HookPoint, ModelInfo};

/// Name of the manifest in a study.
pub(super) const FILE: &str = "study.json";
/// The layout that this version writes.
pub(super) const SCHEMA: u32 = 1;

/// The contents of `study.json`.
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
    /// The corpora, in the order in which they were added.
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
    /// The path of its file, or its name.
    pub name: String,
    /// The sha256 of the file's bytes.
    pub sha256: String,
    /// The number of its samples.
    pub samples: usize,
}

impl CorpusEntry {
    pub(super) fn new(corpus: &Corpus) -> Self {
        Self {
            name: corpus.name.clone(),
            sha256: corpus.sha256.clone(),
            samples: corpus.samples.len(),
        }
    }
}

impl Manifest {
    /// Samples of all corpora.
    pub fn samples(&self) -> usize {
        self.corpora
            .iter()
            .map(|c| c.samples)
            .fold(0, usize::saturating_add)
    }

    /// The number of the first sample of the corpus with this hash; `None` if the study does not
    /// have it.
    pub fn first_sample(&self, sha256: &str) -> Option<usize> {
        let at = self.corpora.iter().position(|c| c.sha256 == sha256)?;
        let earlier = self.corpora[..at].iter().map(|c| c.samples);
        Some(earlier.fold(0, usize::saturating_add))
    }

    /// The index of `hook` in [`Self::hooks`].
    ///
    /// # Errors
    /// [`Error::Usage`] lists the hooks of the study.
    pub fn hook_index(&self, hook: HookPoint) -> Result<usize> {
        self.hooks.iter().position(|&h| h == hook).ok_or_else(|| {
            let names: Vec<_> = self.hooks.iter().map(ToString::to_string).collect();
            Error::usage(format!(
                "the study has no {hook}: it holds {}",
                names.join(", ")
            ))
        })
    }

    /// The number of neurons in a row of `hook`.
    ///
    /// # Errors
    /// What [`Self::hook_index`] returns.
    pub fn width(&self, hook: HookPoint) -> Result<usize> {
        Ok(self
            .widths
            .get(self.hook_index(hook)?)
            .copied()
            .unwrap_or(0))
    }

    pub(super) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Err(Error::usage(format!(
                "{} is no study (it has no {FILE}): make one with mlpeek collect or mlpeek import",
                dir.display()
            )));
        }
        let bytes = crate::disk::read_regular(&path).map_err(Error::io("read", &path))?;
        Self::parse(&bytes).map_err(|problem| Error::file(&path, problem))
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let damaged =
            |e: serde_json::Error| format!("not a study's manifest: {e}; restore it from a copy");
        let version: Version = serde_json::from_slice(bytes).map_err(damaged)?;
        if version.schema != SCHEMA {
            return Err(format!(
                "study layout {} where this mlpeek ({}) reads {SCHEMA}: open it with the version that made it",
                version.schema,
                env!("CARGO_PKG_VERSION")
            ));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        if manifest.hooks.is_empty()
            || manifest.hooks.len() != manifest.widths.len()
            || manifest.widths.contains(&0)
            || manifest.corpora.is_empty()
        {
            return Err(
                "its hooks, widths and corpora do not fit each other; restore it from a copy"
                    .to_owned(),
            );
        }
        Ok(manifest)
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        disk::write_atomic(&dir.join(FILE), &json_bytes(self)?)
    }
}

/// Makes the manifest of a new study.
pub(super) fn new_manifest(
    model: Option<&ModelInfo>,
    hooks: &[HookPoint],
    widths: &[usize],
    corpus: CorpusEntry,
    dtype: CacheDtype,
    bos: BosRule,
) -> Result<Manifest> {
    if hooks.is_empty() || hooks.len() != widths.len() || widths.contains(&0) {
        return Err(Error::usage(
            "a study needs at least one hook, and a width for each",
        ));
    }
    if (1..hooks.len()).any(|i| hooks[..i].contains(&hooks[i])) {
        return Err(Error::usage("the same hook is asked for twice"));
    }
    if u32::try_from(corpus.samples).is_err() {
        return Err(Error::usage(format!(
            "{}: more samples than a study can number",
            corpus.name
        )));
    }
    Ok(Manifest {
        schema: SCHEMA,
        mlpeek: env!("CARGO_PKG_VERSION").to_owned(),
        model: model.cloned(),
        hooks: hooks.to_vec(),
        widths: widths.to_vec(),
        dtype,
        bos,
        corpora: vec![corpus],
        rows: 0,
        complete: false,
        created: now(),
    })
}

/// Indented JSON with a final newline.
pub(super) fn json_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::usage(format!("cannot be written as JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}
