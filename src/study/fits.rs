//! `fits/<name>/`: the configuration, the saved factors and the checkpoint of a fit.
//!
//! Factors are saved under new names and `config.json`, which names them with their lengths and
//! checksums, is replaced last: at any instant it names one complete save. Invariant: a coefficient
//! file is never changed in place, so that mappings of an older save stay valid.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::factor_files;
use super::fit_file::{CONFIG, FitFile, Saved};
use super::manifest::json_bytes;
use super::{FitState, RunEnd, Study, fit_state};
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::{Factors, FitConfig};
use crate::model::HookPoint;

/// The file of a fit's checkpoint.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The file of a fit's error curve, one JSON object per sweep.
pub(super) const LOSS: &str = "loss.jsonl";

/// A finished or checkpointed fit, as listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FitEntry {
    /// Its name (a directory under `fits/`).
    pub name: String,
    /// The hook it factorises.
    pub hook: HookPoint,
    /// The configuration of the saved factors, or of the run if none are saved.
    pub config: FitConfig,
    /// The relative error of the saved factors; `None` if there is only a checkpoint.
    pub relative_error: Option<f64>,
    /// The relative error of the saved factors with the weights of neurons and rows, if the fit
    /// scales them.
    #[serde(default)]
    pub weighted_error: Option<f64>,
    /// The explained variance of the saved factors.
    pub explained_variance: Option<f64>,
    /// Sweeps after which the factors were saved.
    pub sweeps: usize,
    /// Seconds of fitting until then, the initialisation included.
    pub seconds: f64,
    /// Whether there is a checkpoint that can be resumed.
    pub resumable: bool,
    /// How its run ended.
    pub state: FitState,
    /// The sweep that its run had reached.
    pub reached: usize,
}

/// Refuses a name that is no plain file name.
pub(super) fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain) {
        return Err(Error::usage(format!(
            "'{}' cannot be a name: use up to 100 letters, digits, '-', '_', '+' and '.', not starting with '.'",
            name.escape_default()
        )));
    }
    Ok(())
}

/// The names of the directories under `root` that [`check_name`] accepts and that contain the file
/// `file`; none if `root` does not exist.
pub(super) fn names_with(root: &Path, file: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", root)(e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read", root))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if check_name(&name).is_ok() && entry.path().join(file).is_file() {
            names.push(name);
        }
    }
    Ok(names)
}

impl Study {
    pub(super) fn fits_root(&self) -> PathBuf {
        self.dir.join("fits")
    }

    /// The directory `fits/<name>/`, which is created if absent.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is no plain file name; a study that is open for reading.
    pub fn fit_dir(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        let dir = self.fits_root().join(name);
        if !dir.is_dir() {
            self.check_writable()?;
            disk::create_dir(&self.fits_root())?;
            disk::create_dir(&dir)?;
        }
        Ok(dir)
    }

    /// The path of a fit's checkpoint; a file there makes the fit resumable.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is no plain file name.
    pub fn checkpoint_path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.fits_root().join(name).join(CHECKPOINT))
    }

    /// The path of a fit's error curve, one JSON object per sweep.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is no plain file name.
    pub fn loss_path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.fits_root().join(name).join(LOSS))
    }

    /// Records the configuration of a run of the fit `name` that is about to start, so that it is
    /// listed and can be resumed before its first save. Factors that an earlier run saved under the
    /// name stay until this one saves; a checkpoint of another configuration is removed.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown hook or a bad name; a study that is open for reading; files
    /// that cannot be written.
    pub fn start_fit(&self, name: &str, hook: HookPoint, config: &FitConfig) -> Result<PathBuf> {
        self.check_writable()?;
        self.manifest.hook_index(hook)?;
        let dir = self.fit_dir(name)?;
        disk::remove_unfinished(&dir)?;
        let old = if dir.join(CONFIG).exists() {
            Some(FitFile::read(&dir)?)
        } else {
            None
        };
        if old
            .as_ref()
            .is_none_or(|old| old.hook != hook || !old.config.same_fit(config))
        {
            for file in [CHECKPOINT, LOSS] {
                disk::remove_if_there(&dir.join(file))?;
            }
        }
        let saved = old.and_then(|old| old.saved);
        let file = FitFile {
            order: self.next_order()?,
            hook,
            config: config.clone(),
            saved,
        };
        disk::write_atomic(&dir.join(CONFIG), &json_bytes(&file)?)?;
        Ok(dir)
    }

    /// The hook and the configuration of the last run of a fit, with which it can be resumed.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such fit; [`Error::File`] for a damaged configuration.
    pub fn fit_request(&self, name: &str) -> Result<(HookPoint, FitConfig)> {
        let (_, file) = self.fit_file(name)?;
        Ok((file.hook, file.config))
    }

    /// The fits, newest last. A fit whose configuration cannot be read is left out with a warning,
    /// so that the others are listed. If none can be read, [`Self::load_fit`] reports it.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn fits(&self) -> Result<Vec<FitEntry>> {
        let (mut found, mut unread) = (Vec::new(), Vec::new());
        for name in self.fit_names()? {
            let dir = self.fits_root().join(&name);
            let file = match FitFile::read(&dir) {
                Ok(file) => file,
                Err(problem) => {
                    unread.push((name, problem));
                    continue;
                }
            };
            let entry = file.entry(&name, &dir);
            // A fit without a sweep has nothing to show and nothing to continue from.
            if file.saved.is_some() || entry.resumable || entry.reached > 0 {
                found.push((file.order, entry));
            }
        }
        if !found.is_empty() {
            unread.iter().for_each(|(name, problem)| {
                tracing::warn!("fit '{name}' is passed over: {problem}")
            });
        }
        found.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.name.cmp(&b.1.name)));
        Ok(found.into_iter().map(|(_, entry)| entry).collect())
    }

    /// The problems of the fits that cannot be listed, one line each.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn unreadable_fits(&self) -> Result<Vec<String>> {
        let read = |name: String| FitFile::read(&self.fits_root().join(name)).err();
        Ok(self
            .fit_names()?
            .into_iter()
            .filter_map(read)
            .map(|e| e.to_string())
            .collect())
    }

    /// Directories under `fits/` that hold a configuration.
    fn fit_names(&self) -> Result<Vec<String>> {
        names_with(&self.fits_root(), CONFIG)
    }

    fn next_order(&self) -> Result<u64> {
        let root = self.fits_root();
        // A configuration that cannot be read must not keep another fit from being saved.
        let orders = self
            .fit_names()?
            .into_iter()
            .filter_map(|n| FitFile::read(&root.join(n)).ok())
            .map(|f| f.order);
        Ok(orders.max().unwrap_or(0).saturating_add(1))
    }

    fn fit_file(&self, name: &str) -> Result<(PathBuf, FitFile)> {
        check_name(name)?;
        let dir = self.fits_root().join(name);
        if !dir.join(CONFIG).is_file() {
            let names = self.fit_names()?;
            let names = if names.is_empty() {
                "no fit yet".to_owned()
            } else {
                names.join(", ")
            };
            return Err(Error::usage(format!(
                "the study has no fit '{name}': it has {names}"
            )));
        }
        let file = FitFile::read(&dir)?;
        Ok((dir, file))
    }

    /// Saves factors as the fit `name`, atomically.
    ///
    /// # Errors
    /// What [`Self::save_run`] returns.
    pub fn save_fit(
        &self,
        name: &str,
        hook: HookPoint,
        config: &FitConfig,
        factors: &Factors,
    ) -> Result<()> {
        self.save_run(name, hook, config, factors, None)
    }

    /// Saves factors like [`Self::save_fit`], and records how the run ended.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown hook, a bad name, or coefficients of another shape; a study
    /// that is open for reading; files that cannot be written.
    pub fn save_run(
        &self,
        name: &str,
        hook: HookPoint,
        config: &FitConfig,
        factors: &Factors,
        ended: Option<RunEnd>,
    ) -> Result<()> {
        self.check_writable()?;
        self.manifest.hook_index(hook)?;
        let (z, y) = (&factors.features, factors.coefficients.as_slice());
        let (n, k) = (factors.coefficients.rows, z.columns());
        if n.checked_mul(k) != Some(y.len()) {
            return Err(Error::usage(format!(
                "fit '{name}': {} coefficients are not {k} features × {n} rows",
                y.len()
            )));
        }
        let dir = self.fit_dir(name)?;
        let features = z;
        let order = self.next_order()?;
        let z = factor_files::write(
            &dir,
            &format!("Z-{order}.safetensors"),
            &factor_files::encode_features(z, &factors.coding)?,
        )?;
        let y = factor_files::write(&dir, &format!("Y-{order}.f32"), bytemuck::cast_slice(y))?;
        let finite = |v: f64| Some(v).filter(|v| v.is_finite());
        let saved = Saved {
            hook,
            config: config.clone(),
            relative_error: finite(factors.relative_error),
            weighted_error: factors.weighted_error.and_then(finite),
            explained_variance: finite(factors.explained_variance),
            sweeps: factors.sweep,
            seconds: factors.seconds,
            ended,
            rows: n,
            features: k,
            neurons: factors.features.rows,
            z,
            y,
        };
        let keep = [saved.z.file.clone(), saved.y.file.clone()];
        let file = FitFile {
            order,
            hook,
            config: config.clone(),
            saved: Some(saved),
        };
        let commit = || disk::write_atomic(&dir.join(CONFIG), &json_bytes(&file)?);
        self.carry_notes(name, hook, features, commit)?;
        factor_files::remove_others(&dir, &keep)
    }

    /// Loads a fit (`None`: the newest, see [`super::newest`]); coefficients are mapped. A warning
    /// is logged if it was stopped early.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such fit, or it has saved no factors; [`Error::File`] for
    /// damaged files.
    pub fn load_fit(&self, name: Option<&str>) -> Result<(FitEntry, Arc<Factors>)> {
        let newest = || -> Result<String> {
            let fits = self.fits()?;
            fit_state::newest(&fits, |_| true)
                .map(|f| f.name.clone())
                .ok_or_else(|| {
                    let dir = self.dir.display();
                    if let Some(problem) = self
                        .unreadable_fits()
                        .unwrap_or_default()
                        .into_iter()
                        .next()
                    {
                        return Error::refused(problem);
                    }
                    if let Some(FitEntry { name, .. }) = fits.last() {
                        return self.saved_nothing(name);
                    }
                    Error::usage(format!(
                        "{dir} has no finished fit: run mlpeek fit {dir} --features 100"
                    ))
                })
        };
        let (entry, factors) = self.saved_fit(&name.map_or_else(newest, |n| Ok(n.to_owned()))?)?;
        if !entry.state.is_finished() {
            let (study, name) = (self.dir.display(), &entry.name);
            tracing::warn!(
                "fit '{name}' was {} and is not finished: mlpeek fit {study} --name {name} --resume goes on",
                entry.status()
            );
        }
        Ok((entry, factors))
    }

    /// The factors that a fit saved, whatever its state.
    pub(super) fn saved_fit(&self, name: &str) -> Result<(FitEntry, Arc<Factors>)> {
        let (dir, file) = self.fit_file(name)?;
        let Some(saved) = &file.saved else {
            return Err(self.saved_nothing(name));
        };
        let factors = saved.load(&dir)?;
        Ok((file.entry(name, &dir), Arc::new(factors)))
    }

    /// The name of a fit that saved coefficients of more than `rows` rows, if there is one.
    pub(super) fn fit_with_more_rows(&self, rows: usize) -> Result<Option<String>> {
        let beyond = |name: &String| {
            let file = FitFile::read(&self.fits_root().join(name)).ok();
            file.and_then(|file| file.saved)
                .is_some_and(|saved| saved.rows > rows)
        };
        Ok(self.fit_names()?.into_iter().find(beyond))
    }

    /// The error for a fit without saved factors, which says how far it came and how to continue
    /// it.
    fn saved_nothing(&self, name: &str) -> Error {
        let entry = self
            .fits()
            .unwrap_or_default()
            .into_iter()
            .find(|fit| fit.name == name);
        let dir = self.dir.display();
        let status = entry.as_ref().map_or_else(
            || "stopped before its first sweep".to_owned(),
            |e| e.status().to_string(),
        );
        let remedy = match entry.is_some_and(|e| e.resumable) {
            true => format!("mlpeek fit {dir} --name {name} --resume goes on"),
            // Without a checkpoint its options are not stored: only the user knows them.
            false => "run the same command again".to_owned(),
        };
        Error::usage(format!(
            "fit '{name}' was {status} or still runs, and has saved no factors yet: {remedy}"
        ))
    }

    /// Checks every checksum of every saved fit.
    pub(super) fn verify_fits(&self) -> Result<()> {
        for name in self.fit_names()? {
            let dir = self.fits_root().join(name);
            if let Some(saved) = FitFile::read(&dir)?.saved {
                saved.load(&dir)?;
                saved.y.read_checked(&dir)?;
            }
        }
        Ok(())
    }
}
