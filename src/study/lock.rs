//! Who may write in a study: one process at a time for as long as it is open; for notes, whoever
//! changes one.

use std::path::Path;

use crate::disk::lock::{FileLock, LockAttempt};
use crate::error::{Error, Result};

/// Name of the lock file in a study.
pub(super) const FILE: &str = "lock";
/// The lock of the notes alone, so that a study that is being fitted or shown elsewhere can be
/// noted on.
const NOTES: &str = "notes.lock";

/// Takes the lock of the study in `dir`, or says who has it.
pub(super) fn take(dir: &Path) -> Result<LockAttempt> {
    FileLock::try_acquire(&dir.join(FILE))
}

/// [`take`], where being second is an error.
pub(super) fn demand(dir: &Path) -> Result<FileLock> {
    match take(dir)? {
        LockAttempt::Acquired(lock) => Ok(lock),
        LockAttempt::HeldBy(holder) => Err(Error::refused(format!(
            "{} is being written by {holder}: wait until it has finished, or stop it",
            dir.display()
        ))),
    }
}

/// The right to change the notes, for the moment that it takes to read and to write them.
pub(super) fn notes(dir: &Path) -> Result<FileLock> {
    FileLock::acquire(&dir.join(NOTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = demand(dir.path()).unwrap();
        let error = demand(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())) && !error.contains('\n'),
            "{error}"
        );
        drop(notes(dir.path()).unwrap());
        drop(lock);
        demand(dir.path()).unwrap();
    }
}
