//! What the user adds: names of features and notes on them (`notes.json`), and the state of the
//! explorer (`session.json`).
//!
//! Invariant: notes are read and written under a lock of their own, held for that moment alone, so
//! that every process that has the study open can change notes, and no change is lost.

use std::collections::BTreeMap;
use std::path::Path;

use super::manifest::json_bytes;
use super::{Study, lock};
use crate::analysis::Notes;
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::SparseColumns;
use crate::model::HookPoint;

const NOTES: &str = "notes.json";
const SESSION: &str = "session.json";

/// Reads a file of notes as [`write_notes`] leaves it.
///
/// # Errors
/// [`Error::File`] for a file that holds no notes.
pub fn read_notes(path: &Path) -> Result<Notes> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let no_notes = |why: &str| {
        Error::file(
            path,
            format!("not notes as `mlpeek notes --export` writes: {why}"),
        )
    };
    let value: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|e| no_notes(&e.to_string()))?;
    // Every key may be absent, but a file without any is something else.
    if !["names", "details", "unplaced"]
        .iter()
        .any(|key| value.get(key).is_some())
    {
        return Err(no_notes("it has neither \"names\" nor \"details\""));
    }
    serde_json::from_value(value).map_err(|e| no_notes(&e.to_string()))
}

/// Writes notes to a JSON file, atomically.
///
/// # Errors
/// A file that cannot be written.
pub fn write_notes(notes: &Notes, path: &Path) -> Result<()> {
    disk::write_atomic(path, &json_bytes(notes)?)
}

impl Study {
    /// The names of a fit's features and the notes on them.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is not mlpeek's.
    pub fn notes(&self, fit: &str) -> Result<Notes> {
        Ok(self.all_notes()?.remove(fit).unwrap_or_default())
    }

    /// Changes what is noted of a fit as it stands on disk, where another process or a person may
    /// have changed it, and saves it, atomically; also in a study that is open for reading. What it
    /// was before, and what it is now.
    ///
    /// # Errors
    /// Notes that cannot be read or written; they stay as they are.
    pub fn change_notes(
        &self,
        fit: &str,
        change: impl FnOnce(&mut Notes),
    ) -> Result<(Notes, Notes)> {
        self.check_exists()?;
        let _lock = lock::notes(&self.dir)?;
        let mut all = self.all_notes()?;
        let before = all.get(fit).cloned().unwrap_or_default();
        let mut now = before.clone();
        change(&mut now);
        all.insert(fit.to_owned(), now.clone());
        disk::write_atomic(&self.dir.join(NOTES), &json_bytes(&all)?)?;
        Ok((before, now))
    }

    /// Puts the notes on a new save of `fit` in place with it: `commit` makes the save the fit's
    /// own. The lock keeps the notes unchanged in between. The save matters more: what keeps the notes
    /// from being carried over is logged, and the save stays.
    ///
    /// # Errors
    /// Those of `commit` alone.
    pub(super) fn carry_notes(
        &self,
        fit: &str,
        hook: HookPoint,
        to: &SparseColumns,
        commit: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let lock = lock::notes(&self.dir);
        let carried = lock
            .as_ref()
            .ok()
            .and_then(|_| self.notes_to_carry(fit, hook, to));
        commit()?;
        let followed = lock.and_then(|_lock| {
            let Some(carried) = carried else {
                return Ok(());
            };
            let mut all = self.all_notes()?;
            all.insert(fit.to_owned(), carried);
            disk::write_atomic(&self.dir.join(NOTES), &json_bytes(&all)?)
        });
        if let Err(problem) = followed {
            tracing::warn!(
                "fit '{fit}' is saved, and its notes were not carried over to the new features: {problem}"
            );
        }
        Ok(())
    }

    /// Notes that the features of a new save of `fit` begin with: those of the factors that it
    /// replaces, else of the newest other fit of its hook that has any. `None` when there are none,
    /// or they cannot be read: then they stay as they are.
    fn notes_to_carry(&self, fit: &str, hook: HookPoint, to: &SparseColumns) -> Option<Notes> {
        let all = self.all_notes().ok()?;
        let noted = |name: &str| all.get(name).filter(|notes| !notes.is_empty());
        let fits = self.fits().ok()?;
        let source = match noted(fit) {
            Some(_) => fit,
            None => {
                let like = |f: &&super::FitEntry| f.hook == hook && f.relative_error.is_some();
                let mut others = fits.iter().rev().filter(|f| f.name != fit).filter(like);
                others.find(|f| noted(&f.name).is_some())?.name.as_str()
            }
        };
        let (_, factors) = self.saved_fit(source).ok()?;
        let mut carried = noted(source)?.carry_over(&factors.features, to);
        if source != fit {
            // They are still there, with their own fit.
            carried.unplaced.clear();
        }
        (!carried.is_empty() || source == fit).then_some(carried)
    }

    fn all_notes(&self) -> Result<BTreeMap<String, Notes>> {
        let path = self.dir.join(NOTES);
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let bytes = crate::disk::read_regular(&path).map_err(Error::io("read", &path))?;
        // Never overwritten when it cannot be read: a person wrote it.
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::file(&path, format!("not mlpeek's notes: {e}; mend or move it")))
    }

    /// `session.json`, when there is one that can be read.
    pub fn session(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&crate::disk::read_regular(&self.dir.join(SESSION)).ok()?).ok()
    }

    /// Saves the state of the explorer.
    ///
    /// # Errors
    /// [`Error::Refused`] where another process is writing in the study; a file that cannot be
    /// written.
    pub fn save_session(&self, session: &serde_json::Value) -> Result<()> {
        let _lock = self.temporary_lock()?;
        disk::write_atomic(&self.dir.join(SESSION), &json_bytes(session)?)
    }
}
