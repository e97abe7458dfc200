//! `saes/<name>/`: sparse autoencoders of a study's hooks, loaded or trained.
//!
//! An autoencoder lies in a directory of its own (`v<order>/`, as SAELens reads it) and
//! `about.json`, which names that directory with the checksum of its weights, is replaced last: at
//! any instant it names one complete save.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::Study;
use super::fits::{check_name, names_with};
use super::manifest::json_bytes;
use crate::directions::reconstruction::ReconstructionMetrics;
use crate::directions::sae::Sae;
use crate::directions::sae::train::TrainConfig;
use crate::disk;
use crate::error::{Error, Result};
use crate::interop;
use crate::model::HookPoint;

pub(super) const ABOUT: &str = "about.json";
const CHECKPOINT: &str = "checkpoint";
const LOSSES: &str = "loss.jsonl";

/// A sparse autoencoder of a study, as listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaeEntry {
    /// Its name (a directory under `saes/`).
    #[serde(default)]
    pub name: String,
    /// The hook that it reads.
    pub hook: HookPoint,
    /// Its source as shown to the user: a path, a Hub id, "trained here".
    pub source: String,
    /// "SAELens", "Gemma Scope", …
    pub format: String,
    /// SAELens's name: "standard", "jumprelu", "topk", "gated".
    pub architecture: String,
    /// The number of latents.
    pub latents: usize,
    /// Its reconstruction metrics on the study's rows; `None` before there are weights.
    pub figures: Option<ReconstructionMetrics>,
    /// The configuration of its training; `None` if it was not trained here.
    pub trained: Option<TrainConfig>,
    /// Whether there is a checkpoint that can be resumed.
    #[serde(default)]
    pub resumable: bool,
}

/// The contents of `saes/<name>/about.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct About {
    /// Grows with every save in the study: the largest is the newest.
    order: u64,
    #[serde(flatten)]
    entry: SaeEntry,
    /// The directory of the weights and their xxh3; `None` during the first training.
    weights: Option<(String, String)>,
}

impl Study {
    pub(super) fn saes_root(&self) -> PathBuf {
        self.dir().join("saes")
    }

    /// The path of the checkpoint of a training.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is no plain file name.
    pub fn sae_checkpoint(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.saes_root().join(name).join(CHECKPOINT))
    }

    /// The path of the loss curve of a training.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is no plain file name.
    pub fn sae_losses(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.saes_root().join(name).join(LOSSES))
    }

    /// The autoencoders, newest last.
    ///
    /// # Errors
    /// A directory that cannot be read; [`Error::File`] for a damaged description.
    pub fn saes(&self) -> Result<Vec<SaeEntry>> {
        let mut found = self.abouts()?;
        found.retain(|a| a.weights.is_some() || a.entry.resumable);
        Ok(found.into_iter().map(|a| a.entry).collect())
    }

    fn abouts(&self) -> Result<Vec<About>> {
        let names = names_with(&self.saes_root(), ABOUT)?;
        let about = |name: &String| self.about(name);
        let mut found = names.iter().map(about).collect::<Result<Vec<_>>>()?;
        found.sort_by(|a, b| {
            a.order
                .cmp(&b.order)
                .then_with(|| a.entry.name.cmp(&b.entry.name))
        });
        Ok(found)
    }

    fn about(&self, name: &str) -> Result<About> {
        check_name(name)?;
        let dir = self.saes_root().join(name);
        let path = dir.join(ABOUT);
        if !path.is_file() {
            let names: Vec<_> = self.saes()?.into_iter().map(|e| e.name).collect();
            let names = if names.is_empty() {
                "none yet".to_owned()
            } else {
                names.join(", ")
            };
            return Err(Error::usage(format!(
                "the study has no SAE '{name}': it has {names}"
            )));
        }
        let bytes = crate::disk::read_regular(&path).map_err(Error::io("read", &path))?;
        let mut about: About = serde_json::from_slice(&bytes).map_err(|e| {
            Error::file(
                &path,
                format!("not an SAE's description: {e}; remove its directory"),
            )
        })?;
        about.entry.name = name.to_owned();
        about.entry.resumable = dir.join(CHECKPOINT).is_file();
        Ok(about)
    }

    /// Records that a training begins, so that it is listed and can be resumed. Weights that an
    /// earlier training saved under the name stay until this one saves.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown hook or a bad name; a study that is open for reading; a file
    /// that cannot be written.
    pub fn start_sae(&self, entry: &SaeEntry) -> Result<()> {
        let weights = self.about(&entry.name).ok().and_then(|a| a.weights);
        self.write_about(entry, weights)
    }

    /// Saves an autoencoder under its entry's name, atomically.
    ///
    /// # Errors
    /// What [`Self::start_sae`] returns; a full disk.
    pub fn save_sae(&self, entry: &SaeEntry, sae: &Sae) -> Result<()> {
        self.check_writable()?;
        let dir = self.sae_dir(&entry.name)?;
        super::check_disk_space(&dir, 8 * (sae.encoder.len() as u64), false)?;
        let version = format!("v{}", self.next_sae()?);
        let to = dir.join(&version);
        disk::create_dir(&to)?;
        let model = self.manifest().model.as_ref().map(|m| m.id.as_str());
        let about = serde_json::json!({"mlpeek_source": entry.source});
        interop::sae::write(&to, sae, model, &entry.hook.to_string(), about)?;
        let digest = checksum(&to.join(interop::sae::saelens::WEIGHTS))?;
        self.write_about(entry, Some((version.clone(), digest)))?;
        // Removes the weights of earlier or interrupted saves.
        for old in fs::read_dir(&dir).map_err(Error::io("read", &dir))? {
            let old = old.map_err(Error::io("read", &dir))?.path();
            if old.is_dir() && old.file_name().is_some_and(|n| n != version.as_str()) {
                fs::remove_dir_all(&old).map_err(Error::io("remove", &old))?;
            }
        }
        Ok(())
    }

    /// Loads an autoencoder (`None`: the newest).
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such autoencoder, or it has no weights yet;
    /// [`Error::File`] for damaged weights.
    pub fn load_sae(&self, name: Option<&str>) -> Result<(SaeEntry, Sae)> {
        let newest = || {
            let last = self
                .abouts()?
                .into_iter()
                .rev()
                .find(|a| a.weights.is_some())
                .map(|a| a.entry.name);
            last.ok_or_else(|| {
                let dir = self.dir().display();
                Error::usage(format!(
                    "{dir} has no SAE: mlpeek sae train {dir}, or mlpeek sae load {dir} PATH"
                ))
            })
        };
        let name = name.map_or_else(newest, |n| Ok(n.to_owned()))?;
        let about = self.about(&name)?;
        let Some((version, digest)) = about.weights else {
            return Err(Error::usage(format!(
                "SAE '{name}' has no weights yet: go on with mlpeek sae train --resume"
            )));
        };
        check_name(&version)?;
        let dir = self.saes_root().join(&name).join(version);
        let weights = dir.join(interop::sae::saelens::WEIGHTS);
        if checksum(&weights)? != digest {
            return Err(Error::file(
                weights,
                "damaged (checksum); restore it from a copy, or load or train it again",
            ));
        }
        let sae = interop::sae::open(&dir, &name)?.sae;
        Ok((about.entry, sae))
    }

    fn sae_dir(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        let dir = self.saes_root().join(name);
        disk::create_dir(&self.saes_root())?;
        disk::create_dir(&dir)?;
        Ok(dir)
    }

    fn next_sae(&self) -> Result<u64> {
        Ok(self
            .abouts()?
            .iter()
            .map(|a| a.order)
            .max()
            .unwrap_or(0)
            .saturating_add(1))
    }

    fn write_about(&self, entry: &SaeEntry, weights: Option<(String, String)>) -> Result<()> {
        self.check_writable()?;
        self.manifest().hook_index(entry.hook)?;
        let dir = self.sae_dir(&entry.name)?;
        let about = About {
            order: self.next_sae()?,
            entry: entry.clone(),
            weights,
        };
        disk::write_atomic(&dir.join(ABOUT), &json_bytes(&about)?)
    }
}

fn checksum(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let (mut hash, mut block) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut block).map_err(Error::io("read", path))? {
            0 => return Ok(format!("{:016x}", hash.digest())),
            n => hash.update(&block[..n]),
        }
    }
}
