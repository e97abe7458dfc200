//! The open study while a job owns it: it is taken out of the session, so that no question waits
//! for the job, and comes back however the job ends. Notes and where the explorer stands do not need it:
//! they lie in files of their own.
//!
//! Invariant: `Session::lent` is locked last, under `Session::study`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Level;
use super::session::{Session, lock};
use crate::error::{Error, Result};
use crate::panics::catch_panic;
use crate::study::Study;

/// A study that is lent.
pub(super) struct Lent {
    dir: PathBuf,
    /// Where the explorer stands, to be saved when it is back.
    stands: Option<Value>,
}

impl Session {
    /// Lends the open study to `work`; it is back when this returns, also after a panic.
    pub fn lend_study<T>(&self, work: impl FnOnce(&mut Study) -> Result<T>) -> Result<T> {
        let mut study = {
            let mut slot = lock(&self.study);
            let study = slot.take().ok_or_else(|| self.no_study())?;
            *lock(&self.lent) = Some(Lent {
                dir: study.dir().to_path_buf(),
                stands: None,
            });
            study
        };
        let outcome = catch_panic(|| work(&mut study));
        let mut slot = lock(&self.study);
        let stands = lock(&self.lent).take().and_then(|lent| lent.stands);
        let saved = stands.map_or(Ok(()), |stands| keep_standing(&study, &stands));
        *slot = Some(study);
        drop(slot);
        if let Err(e) = saved {
            self.log(
                Level::Warn,
                format!("where the explorer stood is not saved: {e}"),
            );
        }
        outcome.unwrap_or_else(|words| Err(Error::refused(format!("internal error: {words}"))))
    }

    /// Why no study is open.
    pub fn no_study(&self) -> Error {
        Error::refused(if self.is_lent() {
            "collecting goes on: wait until it ends, or cancel it"
        } else {
            "no study is open: open one first"
        })
    }

    pub fn is_lent(&self) -> bool {
        lock(&self.lent).is_some()
    }

    /// Whether the study in `dir` is open, also where it is lent.
    pub fn has_open(&self, dir: &Path) -> bool {
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

    /// Asks the open study what lies on disk, or has notes changed there; also where it is lent.
    pub fn on_disk<T>(&self, ask: impl FnOnce(&Study) -> Result<T>) -> Result<T> {
        let guard = lock(&self.study);
        if let Some(study) = guard.as_ref() {
            return ask(study);
        }
        let dir = lock(&self.lent).as_ref().map(|lent| lent.dir.clone());
        drop(guard);
        ask(&Study::open_read_only(
            &dir.ok_or_else(|| self.no_study())?,
        )?)
    }

    /// Saves where the explorer stands in the open study, or when that is back.
    pub fn save_standing(&self, stands: Value) -> Result<()> {
        let guard = lock(&self.study);
        if let Some(study) = guard.as_ref() {
            return keep_standing(study, &stands);
        }
        if let Some(lent) = lock(&self.lent).as_mut() {
            lent.stands = Some(stands);
        }
        Ok(())
    }
}

fn keep_standing(study: &Study, stands: &Value) -> Result<()> {
    let saved = study.save_session(stands);
    // Where another process has the study it is that one's business; it is kept where nobody has it
    // any more.
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
                assert!(session.is_lent() && session.has_open(dir.path()));
                session.save_standing(json!({"fit": n}))?;
                session.on_disk(|study| {
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
            assert!(!session.is_lent() && session.has_open(dir.path()));
            let (stands, notes) = session
                .on_disk(|study| Ok((study.session(), study.notes("k")?)))
                .unwrap();
            assert_eq!((stands, notes.ids().count()), (Some(json!({"fit": n})), n));
        }
    }
}
