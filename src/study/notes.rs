//! The data that the user adds: names of features and notes on them (`notes.json`), and the state
//! of the explorer (`session.json`).
//!
//! Invariant: notes are read and written under a separate lock that is held only for that time, so
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

/// Reads a file of notes that [`write_notes`] wrote.
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

    /// Reads the notes on a fit from disk, since another process may have changed them, applies
    /// `change` and saves them atomically; also in a study that is open for reading. Returns the
    /// notes before and after the change.
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

    /// Calls `commit`, which makes a new save of `fit` valid, and carries the notes over to its
    /// features. The notes are locked in between. If the notes cannot be carried over, that is
    /// logged and the save stays.
    ///
    /// # Errors
    /// Only what `commit` returns.
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

    /// The notes for the features of a new save of `fit`, carried over from the factors that it
    /// replaces or, if those have no notes, from the newest other fit of its hook that has any.
    /// `None` if there are none or they cannot be read: the file then stays unchanged.
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
            // The other fit still has these notes.
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
        // A file that cannot be read is never overwritten, since it holds the user's work.
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::file(&path, format!("not mlpeek's notes: {e}; mend or move it")))
    }

    /// The contents of `session.json`; `None` if there is none that can be read.
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
