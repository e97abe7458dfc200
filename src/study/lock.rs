//! The locks of a study. One process at a time may write in a study, for as long as it has it open.
//! Notes have a separate lock that is held only during a change.

use std::path::Path;

use crate::disk;
use crate::disk::lock::{FileLock, LockAttempt};
use crate::error::{Error, Result};

/// Name of the lock file in a study.
pub(super) const FILE: &str = "lock";
/// The lock file of the notes, so that notes can be changed while another process fits or shows the
/// study.
const NOTES: &str = "notes.lock";

/// Tries to lock the study in `dir`; otherwise says which process holds the lock.
pub(super) fn try_acquire(dir: &Path) -> Result<LockAttempt> {
    FileLock::try_acquire(&dir.join(FILE))
}

/// Locks the study in `dir`; the error names the process that holds the lock.
pub(super) fn acquire(dir: &Path) -> Result<FileLock> {
    match try_acquire(dir)? {
        LockAttempt::Acquired(lock) => Ok(lock),
        LockAttempt::HeldBy(holder) => Err(Error::refused(format!(
            "{} is being written by {holder}: wait until it has finished, or stop it",
            dir.display()
        ))),
    }
}

/// Waits for the lock of the notes, to be held while they are read and written.
pub(super) fn notes(dir: &Path) -> Result<FileLock> {
    FileLock::acquire(&dir.join(NOTES))
}

/// Removes the unfinished files of earlier processes; the study's lock must be held. One of them
/// may be a file of notes that another process is writing under the notes' own lock; while this
/// process holds that lock too, no process writes the files that remain.
pub(super) fn remove_unfinished(dir: &Path) -> Result<()> {
    if !disk::unfinished(dir)?.is_empty() {
        let _notes = notes(dir)?;
        disk::remove_unfinished(dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::TMP_PREFIX;

    #[test]
    fn an_unfinished_file_of_notes_is_left_to_the_process_that_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let notes_lock = notes(dir.path()).unwrap();
        let begun = dir.path().join(format!("{TMP_PREFIX}notes.json"));
        std::fs::write(&begun, "{}").unwrap();
        let place = dir.path().to_owned();
        let (ready, opening) = std::sync::mpsc::channel();
        let opener = std::thread::spawn(move || {
            ready.send(()).unwrap();
            remove_unfinished(&place).unwrap();
        });
        opening.recv().unwrap();
        // It comes to the file at once, and must wait for the lock before it removes anything.
        std::thread::sleep(std::time::Duration::from_millis(100));
        std::fs::rename(&begun, dir.path().join("notes.json")).unwrap();
        drop(notes_lock);
        opener.join().unwrap();
        // One that nobody writes is removed.
        std::fs::write(&begun, "{}").unwrap();
        remove_unfinished(dir.path()).unwrap();
        assert!(!begun.exists());
    }

    #[test]
    fn a_second_writer_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = acquire(dir.path()).unwrap();
        let error = acquire(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())) && !error.contains('\n'),
            "{error}"
        );
        drop(notes(dir.path()).unwrap());
        drop(lock);
        acquire(dir.path()).unwrap();
    }
}
