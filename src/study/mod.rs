//! A study on disk: the activations of one model on its corpora at some hooks, with the fits and
//! everything else that was made from them. Saves are atomic, one process writes at a time, and a
//! study is readable after a kill at any instant.
//!
//! Knows nothing of how activations are computed or factorised. Invariant: a reading function
//! returns only completely written data; damage is an error that names the file and the remedy.

mod append;
pub mod compared_fits;
mod descriptions;
mod energy;
mod factor_files;
mod fit_file;
mod fit_state;
mod fits;
mod identity;
mod import;
mod kept;
mod locations;
mod lock;
mod manifest;
mod measured;
mod notes;
mod progress;
mod rows;
mod saes;
mod samples;
mod source;
mod tokens;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::activations::ActivationSource;
use crate::activations::store::{CacheDtype, CacheReader};
use crate::corpus::{Corpus, TokenRow, TokenTable};
use crate::disk;
use crate::disk::lock::{FileLock, LockAttempt};
use crate::error::{Error, Result};
use crate::model::{BosRule, HookPoint, ModelInfo};

pub use descriptions::Descriptions;
pub use fit_state::{FitState, FitStatus, RunEnd, newest};
pub use fits::FitEntry;
pub use identity::StudyRequest;
use identity::difference;
pub use import::EachBlock;
pub use kept::{Found, Kept};
pub use locations::{StudyEntry, default_dir, home, recent, remember};
use manifest::new_manifest;
pub use manifest::{CorpusEntry, Manifest};
pub use measured::Measured;
pub use notes::{read_notes, write_notes};
pub use progress::CollectState;
pub use rows::Appender;
pub use saes::SaeEntry;
use source::StudyRows;

/// A study directory that is open. With [`Study::create`] or [`Study::open`] it is locked for
/// writing until dropped.
#[derive(Debug)]
pub struct Study {
    dir: PathBuf,
    manifest: Manifest,
    lock: Option<FileLock>,
    /// The reason why it is open for reading only, although it was to be opened for writing.
    read_only: Option<String>,
    tokens: Mutex<Option<Arc<TokenTable>>>,
}

impl Study {
    /// Makes a new study, or reopens the study in `dir` if it has the same model hashes, corpus,
    /// hooks and dtype. `widths[i]` is the width of `hooks[i]`.
    ///
    /// # Errors
    /// [`Error::Refused`] if the study in `dir` differs (the message says how), or if another
    /// process is writing in it; [`Error::Usage`] for a directory that holds something else, or for
    /// invalid hooks; files that cannot be written.
    pub fn create(
        dir: &Path,
        model: Option<&ModelInfo>,
        hooks: &[HookPoint],
        widths: &[usize],
        corpus: &Corpus,
        dtype: CacheDtype,
        bos: BosRule,
    ) -> Result<Self> {
        let requested = new_manifest(model, hooks, widths, CorpusEntry::new(corpus), dtype, bos)?;
        let lock = Self::create_and_lock(dir)?;
        if let Some(saved) = same_study(dir, &requested)? {
            return Ok(Self::from_parts(dir, saved, Some(lock)));
        }
        samples::write(dir, 0, &corpus.samples)?;
        requested.write(dir)?;
        Ok(Self::from_parts(dir, requested, Some(lock)))
    }

    /// Whether `dir` holds a study.
    pub fn exists_at(dir: &Path) -> bool {
        dir.join(manifest::FILE).exists()
    }

    /// Opens a study for reading and writing.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no study; [`Error::Refused`] names the process that has it;
    /// [`Error::File`] for a damaged manifest.
    pub fn open(dir: &Path) -> Result<Self> {
        // Before locking, so that no lock file is left in a directory that is no study.
        Manifest::read(dir)?;
        let lock = lock::acquire(dir)?;
        Ok(Self::from_parts(dir, Manifest::read(dir)?, Some(lock)))
    }

    /// Opens a study for writing, or only for reading if another process has it or this user may
    /// not write it: [`Study::read_only`] says why.
    ///
    /// # Errors
    /// What [`Study::open_read_only`] returns.
    pub fn open_or_read(dir: &Path) -> Result<Self> {
        Manifest::read(dir)?;
        let reason = match lock::try_acquire(dir) {
            Ok(LockAttempt::Acquired(lock)) => {
                return Ok(Self::from_parts(dir, Manifest::read(dir)?, Some(lock)));
            }
            Ok(LockAttempt::HeldBy(holder)) => format!("{holder} has it"),
            Err(e) => e.to_string(),
        };
        Ok(Self {
            read_only: Some(reason),
            ..Self::open_read_only(dir)?
        })
    }

    /// Opens a study only for reading, which any number of processes may do.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no study; [`Error::File`] for a damaged manifest.
    pub fn open_read_only(dir: &Path) -> Result<Self> {
        Ok(Self::from_parts(dir, Manifest::read(dir)?, None))
    }

    fn from_parts(dir: &Path, manifest: Manifest, lock: Option<FileLock>) -> Self {
        Self {
            dir: dir.to_path_buf(),
            manifest,
            lock,
            read_only: None,
            tokens: Mutex::new(None),
        }
    }

    /// Refuses a path where no study can be made (a file, or a directory with other files), before
    /// any work is done for it.
    ///
    /// # Errors
    /// [`Error::Usage`] names the file that is in the way.
    pub fn check_can_create(dir: &Path) -> Result<()> {
        if dir.exists() && !dir.is_dir() {
            return Err(Error::usage(format!(
                "{} is a file: choose an empty or new directory",
                dir.display()
            )));
        }
        if dir.is_dir() && !dir.join(manifest::FILE).exists() {
            for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
                let name = entry
                    .map_err(Error::io("read", dir))?
                    .file_name()
                    .to_string_lossy()
                    .into_owned();
                let ours = name == lock::FILE
                    || name.starts_with("tokens.")
                    || name.starts_with(disk::TMP_PREFIX);
                if !ours {
                    return Err(Error::usage(format!(
                        "{} is no study and holds other files ({name}): choose an empty or new directory",
                        dir.display()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Makes the directory and locks it; refuses one that holds other files.
    fn create_and_lock(dir: &Path) -> Result<FileLock> {
        Self::check_can_create(dir)?;
        disk::create_dir(dir)?;
        let lock = lock::acquire(dir)?;
        lock::remove_unfinished(dir)?;
        Ok(lock)
    }

    /// The directory of the study.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path `evaluations/<name>/`, whether it exists or not.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is no plain file name.
    pub fn evaluation_path(&self, name: &str) -> Result<PathBuf> {
        fits::check_name(name)?;
        Ok(self.dir.join("evaluations").join(name))
    }

    /// The directory [`Self::evaluation_path`], which is created if absent.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name that is no plain file name; a study that is open for reading.
    pub fn evaluation_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.evaluation_path(name)?;
        self.check_writable()?;
        disk::create_dir(&dir)?;
        Ok(dir)
    }

    /// The contents of `study.json`.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether this process may write in it.
    pub fn is_writable(&self) -> bool {
        self.lock.is_some()
    }

    /// The reason why it is open for reading only, although it was to be opened for writing.
    pub fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    /// The token rows, texts and labels.
    ///
    /// # Errors
    /// [`Error::File`] for a token log or samples that are damaged.
    pub fn tokens(&self) -> Result<Arc<TokenTable>> {
        let mut slot = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = slot.as_ref() {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(self.read_tokens()?);
        // While another process collects, the table grows, so it is cached only if it cannot
        // change.
        if self.manifest.complete || self.is_writable() {
            *slot = Some(Arc::clone(&table));
        }
        Ok(table)
    }

    fn read_tokens(&self) -> Result<TokenTable> {
        let manifest = &self.manifest;
        if manifest.model.is_none() {
            return Ok(TokenTable::of_matrix(if manifest.complete {
                manifest.rows
            } else {
                0
            }));
        }
        let mut table = TokenTable::default();
        for (i, corpus) in manifest.corpora.iter().enumerate() {
            samples::load_into(&self.dir, i, corpus.samples, &mut table)?;
        }
        let log = tokens::Log::read(&self.dir)?;
        let path = self.dir.join(tokens::FILE);
        if log.rows() < manifest.rows {
            let problem = format!(
                "truncated or damaged: {} of {} rows are whole; run the same collect again, which goes on from there",
                log.rows(),
                manifest.rows
            );
            return Err(Error::file(path, problem));
        }
        if log.samples() > table.texts.len() {
            return Err(Error::file(
                path,
                "holds more samples than the study's corpora; restore it from a copy",
            ));
        }
        table.rows.reserve(log.rows());
        for segment in log.segments {
            let mut rows = segment.rows.iter();
            for (i, &count) in segment.counts.iter().enumerate() {
                let sample = (segment.first_sample + i) as u32;
                let of_sample = rows.by_ref().take(count as usize);
                table.rows.extend(of_sample.map(|&(id, position)| TokenRow {
                    id,
                    sample,
                    position,
                }));
            }
            table.pieces.extend(segment.pieces);
        }
        Ok(table)
    }

    /// The mapped cache of one hook. Errors describe rows by their token and sample.
    ///
    /// # Errors
    /// [`Error::Usage`] for a hook that the study does not have; [`Error::Refused`] if it holds no
    /// rows yet; [`Error::File`] for a damaged cache.
    pub fn activations(&self, hook: HookPoint) -> Result<Box<dyn ActivationSource + Send + Sync>> {
        let width = self.manifest.widths[self.manifest.hook_index(hook)?];
        let tokens = self.tokens()?;
        let dir = rows::cache_dir(&self.dir, hook);
        if tokens.rows.is_empty() {
            let dir = self.dir.display();
            return Err(Error::refused(format!(
                "{dir} holds no rows yet ({}): {} goes on",
                self.collected()?,
                self.collect_command()
            )));
        }
        let reader = CacheReader::open(&dir)?;
        let (rows, cols) = reader.shape();
        if cols != width || rows < tokens.rows.len() {
            let problem = format!(
                "holds {rows} rows of {cols} values where {} of {width} are due; run the same collect again",
                tokens.rows.len()
            );
            return Err(Error::file(dir, problem));
        }
        Ok(Box::new(StudyRows {
            reader,
            tokens,
            imported: self.manifest.model.is_none(),
        }))
    }

    /// Checks every checksum of the study; the error names the file that fails.
    ///
    /// # Errors
    /// [`Error::File`] for the first file that is damaged.
    pub fn verify(&self) -> Result<()> {
        self.read_tokens()?;
        for &hook in &self.manifest.hooks {
            let dir = rows::cache_dir(&self.dir, hook);
            if self.manifest.complete || dir.is_dir() {
                CacheReader::open(&dir)?.verify()?;
            }
        }
        self.verify_fits()
    }

    /// Removes a study without rows, so that a collection that could not begin leaves no files.
    pub(crate) fn discard_if_empty(&self) -> Result<()> {
        let complete = self.manifest.complete || self.manifest.rows > 0;
        if complete || !self.is_writable() || tokens::Log::read(&self.dir)?.rows() > 0 {
            return Ok(());
        }
        let remove = |path: &Path| {
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(path)
            } else {
                std::fs::remove_file(path)
            };
            match removed {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Error::io("remove", path)(e))
                }
                _ => Ok(()),
            }
        };
        // The manifest is removed first: without it the other files are no study.
        remove(&self.dir.join(manifest::FILE))?;
        remove(&rows::caches_dir(&self.dir))?;
        remove(&energy::folder(&self.dir))?;
        for entry in std::fs::read_dir(&self.dir).map_err(Error::io("read", &self.dir))? {
            let path = entry.map_err(Error::io("read", &self.dir))?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name == lock::FILE || name.starts_with("tokens.") {
                remove(&path)?;
            }
        }
        // The directory stays where it holds other files.
        let _ = std::fs::remove_dir(&self.dir);
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        self.check_exists()?;
        if self.is_writable() {
            return Ok(());
        }
        Err(Error::refused(format!(
            "{} was opened for reading: open it again to write in it",
            self.dir.display()
        )))
    }

    fn check_exists(&self) -> Result<()> {
        if self.dir.join(manifest::FILE).exists() {
            return Ok(());
        }
        Err(Error::refused(format!(
            "the study {} is gone: put it back to save in it",
            self.dir.display()
        )))
    }

    /// The lock under which the session is saved: `None` if this study holds its lock, otherwise a
    /// temporary one, which fails if another process has the study.
    fn temporary_lock(&self) -> Result<Option<FileLock>> {
        self.check_exists()?;
        if self.is_writable() {
            Ok(None)
        } else {
            lock::acquire(&self.dir).map(Some)
        }
    }

    fn clear_token_cache(&self) {
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn set_progress(&mut self, rows: usize, complete: bool) -> Result<()> {
        let manifest = Manifest {
            rows,
            complete,
            ..self.manifest.clone()
        };
        manifest.write(&self.dir)?;
        self.manifest = manifest;
        self.clear_token_cache();
        Ok(())
    }
}

/// The manifest of the study that is in `dir` already, if there is one; a study that differs from
/// the requested one is refused.
fn same_study(dir: &Path, requested: &Manifest) -> Result<Option<Manifest>> {
    if !dir.join(manifest::FILE).exists() {
        return Ok(None);
    }
    let saved = Manifest::read(dir)?;
    match difference(&saved, requested) {
        None => Ok(Some(saved)),
        Some(difference) => Err(Error::refused(format!(
            "{} is another study: {difference}; choose another directory",
            dir.display()
        ))),
    }
}

/// Refuses if `bytes` more do not fit on the disk of `dir`; `can_halve` says that the command has
/// --dtype.
pub(crate) fn check_disk_space(dir: &Path, bytes: u64, can_halve: bool) -> Result<()> {
    // Space for the file system itself, and for the manifest, the log and the samples.
    let margin = 16 << 20;
    let free = disk::free_space(dir)?;
    if bytes.saturating_add(margin) > free {
        return Err(Error::refused(format!(
            "{} needs {} more and its disk has {} free: free some, or choose another directory{}",
            dir.display(),
            disk::human_bytes(bytes.saturating_add(margin)),
            disk::human_bytes(free),
            if can_halve {
                ", or store half with --dtype bf16"
            } else {
                ""
            }
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
