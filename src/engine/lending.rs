//! Lends the open study to a job. The study is taken out of the session, so that no question waits
//! for the job, and is returned however the job ends. Notes and the state of the explorer can still
//! be read and saved, since they are in separate files.
//!
//! Invariant: `Session::lent` is locked last, under `Session::study`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Level;
use super::session::{Session, lock};
use crate::error::{Error, Result};
use crate::panics::catch_panic;
use crate::study::Study;

/// A study that a job has taken from the session.
pub(super) struct LentStudy {
    dir: PathBuf,
    /// The state of the explorer, to be saved when the study is returned.
    view_state: Option<Value>,
}

impl Session {
    /// Lends the open study to `work`. It is returned when this function returns, also after a
    /// panic of `work`.
    pub fn lend_study<T>(&self, work: impl FnOnce(&mut Study) -> Result<T>) -> Result<T> {
        let mut study = {
            let mut slot = lock(&self.study);
            let study = slot.take().ok_or_else(|| self.no_study())?;
            *lock(&self.lent) = Some(LentStudy {
                dir: study.dir().to_path_buf(),
                view_state: None,
            });
            study
        };
        let outcome = catch_panic(|| work(&mut study));
        let mut slot = lock(&self.study);
        let view_state = lock(&self.lent).take().and_then(|lent| lent.view_state);
        let saved = view_state.map_or(Ok(()), |view_state| write_view_state(&study, &view_state));
        *slot = Some(study);
        drop(slot);
        if let Err(e) = saved {
            self.log(
                Level::Warn,
                format!("the state of the explorer is not saved: {e}"),
            );
        }
        outcome.unwrap_or_else(|words| Err(Error::refused(format!("internal error: {words}"))))
    }

    /// The error that says why no study is open.
    pub fn no_study(&self) -> Error {
        Error::refused(if self.is_lent() {
            "collecting goes on: wait until it ends, or cancel it"
        } else {
            "no study is open: open one first"
        })
    }

    /// Whether a job has the study.
    pub fn is_lent(&self) -> bool {
        lock(&self.lent).is_some()
    }

    /// Whether the study in `dir` is open, even if it is lent.
    pub fn is_open(&self, dir: &Path) -> bool {
        let guard = lock(&self.study);
        guard.as_ref().map_or_else(
            || {
                lock(&self.lent)
                    .as_ref()
                    .is_some_and(|lent| lent.dir == dir)
            },
            |study| study.dir() == dir,
        )
    }

    /// Calls `f` with the open study, to read its files or to change notes. If the study is lent,
    /// it is opened for reading.
    pub fn with_study_on_disk<T>(&self, f: impl FnOnce(&Study) -> Result<T>) -> Result<T> {
        let guard = lock(&self.study);
        if let Some(study) = guard.as_ref() {
            return f(study);
        }
        let dir = lock(&self.lent).as_ref().map(|lent| lent.dir.clone());
        drop(guard);
        f(&Study::open_read_only(
            &dir.ok_or_else(|| self.no_study())?,
        )?)
    }

    /// Saves the state of the explorer in the open study, or when a lent study is returned.
    pub fn save_view_state(&self, view_state: Value) -> Result<()> {
        let guard = lock(&self.study);
        if let Some(study) = guard.as_ref() {
            return write_view_state(study, &view_state);
        }
        if let Some(lent) = lock(&self.lent).as_mut() {
            lent.view_state = Some(view_state);
        }
        Ok(())
    }
}

fn write_view_state(study: &Study, view_state: &Value) -> Result<()> {
    let saved = study.save_session(view_state);
    // If another process has the study, its explorer saves its own state, so a failure here is
    // ignored.
    if study.read_only().is_some() {
        Ok(())
    } else {
        saved
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{HookPoint, HookSite};

    #[test]
    fn a_study_comes_back_from_a_failure_and_a_panic_with_what_was_to_be_saved() {
        let dir = tempfile::tempdir().unwrap();
        let hook = HookPoint {
            layer: 0,
            site: HookSite::MlpPost,
        };
        let study = Study::import(dir.path(), "x.npy", hook, 4, 2, &[1.0; 8]).unwrap();
        let (outbox, _events) = crossbeam_channel::unbounded();
        let session = Session::new(outbox);
        assert!(session.no_study().to_string().contains("no study is open"));
        *lock(&session.study) = Some(study);
        for (n, panics) in [(1, false), (2, true)] {
            let lent = session.lend_study(|_| -> Result<()> {
                assert!(
                    session
                        .no_study()
                        .to_string()
                        .contains("collecting goes on")
                );
                assert!(session.is_lent() && session.is_open(dir.path()));
                session.save_view_state(json!({"fit": n}))?;
                session.with_study_on_disk(|study| {
                    study.change_notes("k", |notes| notes.set(n, "a name").unwrap())
                })?;
                if panics {
                    panic!("on purpose");
                }
                Err(Error::refused("the first reason"))
            });
            let why = lent.unwrap_err().to_string();
            assert!(
                why.contains(if panics {
                    "on purpose"
                } else {
                    "the first reason"
                }),
                "{why}"
            );
            assert!(!session.is_lent() && session.is_open(dir.path()));
            let (view_state, notes) = session
                .with_study_on_disk(|study| Ok((study.session(), study.notes("k")?)))
                .unwrap();
            assert_eq!(
                (view_state, notes.ids().count()),
                (Some(json!({"fit": n})), n)
            );
        }
    }
}
