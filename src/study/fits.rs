//! `fits/<name>/`: what was asked for, the saved factors, the checkpoint.
//!
//! Factors are saved under new names and `config.json`, which names them with their lengths and
//! checksums, is replaced last: at any instant it names one whole save. Invariant: a coefficient
//! file is never changed in place, so that mappings of an older save stay valid.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::factor_files::{self, Stored};
use super::manifest::json_bytes;
use super::{Ended, FitState, Study, fit_state};
use crate::activations::store::MappedF32;
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::{Coding, Coefficients, Factors, FitConfig};
use crate::model::HookPoint;

const CONFIG: &str = "config.json";
const CHECKPOINT: &str = "checkpoint";
const LOSS: &str = "loss.jsonl";
/// Coefficients up to this many bytes have their checksum tested when loaded; larger ones by
/// [`Study::verify`].
const CHECKED_ON_LOAD: u64 = 256 << 20;

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
    /// Of the saved factors, as a fit that scales neurons or rows weighs them.
    #[serde(default)]
    pub weighted_error: Option<f64>,
    /// Of the saved factors.
    pub explained_variance: Option<f64>,
    /// Sweeps done.
    pub sweeps: usize,
    /// Seconds it took.
    pub seconds: f64,
    /// A checkpoint that can be resumed is there.
    pub resumable: bool,
    /// How its run ended.
    pub state: FitState,
    /// The sweep that its run had reached.
    pub reached: usize,
}

/// `fits/<name>/config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FitFile {
    /// Grows with every start and save in the study: the largest is the newest.
    order: u64,
    hook: HookPoint,
    /// What the running or last run was asked for.
    config: FitConfig,
    saved: Option<Saved>,
}

/// Saved factors; their hook and configuration may be an earlier run's than [`FitFile::config`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Saved {
    hook: HookPoint,
    config: FitConfig,
    relative_error: Option<f64>,
    #[serde(default)]
    weighted_error: Option<f64>,
    explained_variance: Option<f64>,
    sweeps: usize,
    seconds: f64,
    /// Earlier versions left it to the error curve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Ended>,
    /// n, k and d.
    rows: usize,
    features: usize,
    neurons: usize,
    z: Stored,
    y: Stored,
}

impl Saved {
    /// The order that the save had, which is in the names of its files.
    fn order(&self) -> Option<u64> {
        self.z
            .file
            .strip_prefix("Z-")?
            .split('.')
            .next()?
            .parse()
            .ok()
    }
}

impl FitFile {
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        Self::parse(&bytes).map_err(|problem| Error::file(&path, problem))
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| {
            format!("not a fit's configuration: {e}; remove the fit's directory and fit again")
        })
    }

    /// The fit as listed; `dir` is its own.
    fn entry(&self, name: &str, dir: &Path) -> FitEntry {
        let saved = self.saved.as_ref();
        let resumable = dir.join(CHECKPOINT).is_file();
        let last = || fit_state::last_sweep(&dir.join(LOSS));
        // A run that was begun after the save, and has not ended either.
        let begun_again = saved.is_some_and(|s| s.order() < Some(self.order))
            && resumable
            && last().is_some_and(|sweep| sweep.stop.is_none());
        let (state, reached) = match saved.map(|s| (s.ended, s.sweeps)) {
            Some((Some(ended), _)) if !begun_again => (ended.state, ended.sweep),
            ended => {
                let last = last();
                let reached = last
                    .map_or(0, |sweep| sweep.sweep)
                    .max(ended.map_or(0, |(_, sweeps)| sweeps));
                let state = match (ended, last.and_then(|sweep| sweep.stop)) {
                    (None, _) => FitState::Cut,
                    (Some(_), stop @ Some(_)) => stop.into(),
                    (Some(_), None) if resumable => FitState::Stopped,
                    // Only one that converged leaves nothing to go on from.
                    (Some(_), None) => FitState::Converged,
                };
                (state, reached)
            }
        };
        FitEntry {
            name: name.to_owned(),
            hook: saved.map_or(self.hook, |s| s.hook),
            config: saved.map_or(&self.config, |s| &s.config).clone(),
            relative_error: saved.and_then(|s| s.relative_error),
            weighted_error: saved.and_then(|s| s.weighted_error),
            explained_variance: saved.and_then(|s| s.explained_variance),
            sweeps: saved.map_or(0, |s| s.sweeps),
            seconds: saved.map_or(0.0, |s| s.seconds),
            resumable,
            state,
            reached,
        }
    }
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

impl Study {
    fn fits_root(&self) -> PathBuf {
        self.dir.join("fits")
    }

    /// `fits/<name>/`, made if absent.
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

    /// Where a fit's checkpoint lies; a file there makes the fit resumable.
    pub fn checkpoint_path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.fits_root().join(name).join(CHECKPOINT))
    }

    /// Where a fit's error curve lies, one JSON object a sweep.
    pub fn loss_path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.fits_root().join(name).join(LOSS))
    }

    /// Notes what a run of the fit `name` is about to do, so that it is listed and can be resumed
    /// before its first save. Factors that an earlier run saved under the name stay until this one
    /// saves; a checkpoint of another request goes.
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

    /// What the last run of a fit was asked for: its hook and configuration, to resume it by.
    pub fn fit_request(&self, name: &str) -> Result<(HookPoint, FitConfig)> {
        let (_, file) = self.fit_file(name)?;
        Ok((file.hook, file.config))
    }

    /// The fits, newest last. One whose configuration cannot be read is left out with a warning: it
    /// must not stand in the way of the others. Where none can be read, [`Self::load_fit`] says so.
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
            // One that did not come to a sweep has nothing to show and nothing to go on from.
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

    /// What is wrong with the fits that cannot be listed, a line each.
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
        let root = self.fits_root();
        let entries = match fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io("read", &root)(e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("read", &root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if check_name(&name).is_ok() && entry.path().join(CONFIG).is_file() {
                names.push(name);
            }
        }
        Ok(names)
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
            let there = self.fit_names()?;
            let there = if there.is_empty() {
                "no fit yet".to_owned()
            } else {
                there.join(", ")
            };
            return Err(Error::usage(format!(
                "the study has no fit '{name}': it has {there}"
            )));
        }
        let file = FitFile::read(&dir)?;
        Ok((dir, file))
    }

    /// Saves factors as the fit `name`, atomically.
    pub fn save_fit(
        &self,
        name: &str,
        hook: HookPoint,
        config: &FitConfig,
        factors: &Factors,
    ) -> Result<()> {
        self.save_run(name, hook, config, factors, None)
    }

    /// [`Self::save_fit`] with how the run ended.
    pub fn save_run(
        &self,
        name: &str,
        hook: HookPoint,
        config: &FitConfig,
        factors: &Factors,
        ended: Option<Ended>,
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
        factor_files::sweep(&dir, &keep)
    }

    /// Loads a fit (`None`: the newest, see [`super::newest`]); coefficients are mapped. That it
    /// was stopped early is told.
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
                entry.standing()
            );
        }
        Ok((entry, factors))
    }

    /// What a fit saved, whatever became of it.
    pub(super) fn saved_fit(&self, name: &str) -> Result<(FitEntry, Arc<Factors>)> {
        let (dir, file) = self.fit_file(name)?;
        let Some(saved) = &file.saved else {
            return Err(self.saved_nothing(name));
        };
        let factors = saved.load(&dir)?;
        Ok((file.entry(name, &dir), Arc::new(factors)))
    }

    /// A fit that saved coefficients of more than `rows` rows.
    pub(super) fn fit_beyond(&self, rows: usize) -> Result<Option<String>> {
        let beyond = |name: &String| {
            let file = FitFile::read(&self.fits_root().join(name)).ok();
            file.and_then(|file| file.saved)
                .is_some_and(|saved| saved.rows > rows)
        };
        Ok(self.fit_names()?.into_iter().find(beyond))
    }

    /// What to say of a fit that has no factors: how far it came, and how it goes on.
    fn saved_nothing(&self, name: &str) -> Error {
        let entry = self
            .fits()
            .unwrap_or_default()
            .into_iter()
            .find(|fit| fit.name == name);
        let dir = self.dir.display();
        let standing = entry.as_ref().map_or_else(
            || "stopped before its first sweep".to_owned(),
            |e| e.standing().to_string(),
        );
        let remedy = match entry.is_some_and(|e| e.resumable) {
            true => format!("mlpeek fit {dir} --name {name} --resume goes on"),
            // Without a checkpoint its options are known to nobody but who gave them.
            false => "run the same command again".to_owned(),
        };
        Error::usage(format!(
            "fit '{name}' was {standing} or still runs, and has saved no factors yet: {remedy}"
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

impl Saved {
    fn load(&self, dir: &Path) -> Result<Factors> {
        let z_path = dir.join(&self.z.file);
        let (features, coding) = factor_files::decode_features(&self.z.read_checked(dir)?)
            .map_err(|problem| Error::file(&z_path, problem))?;
        let y_path = self.y.check_length(dir)?;
        let values = self.rows.checked_mul(self.features);
        if values
            .and_then(|v| v.checked_mul(4))
            .is_none_or(|bytes| bytes as u64 != self.y.bytes)
            || features.columns() != self.features
            || features.rows != self.neurons
        {
            return Err(Error::file(
                dir.join(CONFIG),
                "its sizes do not fit the saved factors; fit again",
            ));
        }
        let mapped = MappedF32::open(&y_path, 0, values.unwrap_or(0))?;
        if self.y.bytes <= CHECKED_ON_LOAD {
            self.y
                .check(&y_path, xxh3_64(bytemuck::cast_slice(mapped.as_slice())))?;
        }
        Ok(Factors {
            features,
            coefficients: Coefficients::mapped(self.rows, mapped),
            coding: Coding {
                row_cap: self.config.row_cap,
                ..coding
            },
            relative_error: self.relative_error.unwrap_or(f64::NAN),
            weighted_error: self.weighted_error,
            explained_variance: self.explained_variance.unwrap_or(f64::NAN),
            sweep: self.sweeps,
            seconds: self.seconds,
        })
    }
}
