//! Advisory file locks between processes, held for as long as a study is open or only during one
//! change.
//!
//! Knows nothing of what a lock protects. Invariant: the operating system drops a lock with the
//! process that holds it, however that process ends, and a lock file is never removed, since
//! another process may be about to lock it. A caller that reads a file in order to write it again
//! must read it under the lock: otherwise the slower of two processes overwrites the change of the
//! other.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::error::{Error, Result};

/// The time that [`FileLock::acquire`] waits for another process. A change of a small file takes
/// milliseconds, so a process that holds the lock longer is stuck.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// An exclusive lock on a file, released when it is dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

/// The result of [`FileLock::try_acquire`].
#[derive(Debug)]
pub enum LockAttempt {
    /// This process holds the lock now.
    Acquired(FileLock),
    /// Another process holds it; the text names that process, such as "process 12 on host".
    HeldBy(String),
}

impl FileLock {
    /// Tries to lock the file at `path`, which is created if absent, without waiting. A holder is
    /// named by the text that it wrote into the file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be created or written, or if the file system has no locks.
    pub fn try_acquire(path: &Path) -> Result<LockAttempt> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // A study may come from anyone, and a link in it could point to another file of this
            // user.
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(path)
            .map_err(Error::io("open for writing", path))?;
        super::check_regular(&file).map_err(Error::io("lock", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The text is only used in a message, so it does not matter if the holder has not
                // written it yet.
                let _ = Read::by_ref(&mut file)
                    .take(200)
                    .read_to_string(&mut holder);
                let holder = holder
                    .lines()
                    .next()
                    .filter(|l| !l.is_empty())
                    .unwrap_or("another process");
                return Ok(LockAttempt::HeldBy(holder.to_owned()));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path)(e)),
        }
        let text = format!("process {} on {}\n", std::process::id(), host());
        file.set_len(0)
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(Error::io("write", path))?;
        Ok(LockAttempt::Acquired(Self { _file: file }))
    }

    /// Locks the file at `path` for one short change; waits while another process holds it.
    ///
    /// # Errors
    /// As [`FileLock::try_acquire`]; [`Error::Refused`] if another process still holds the lock after
    /// five seconds.
    pub fn acquire(path: &Path) -> Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::try_acquire(path)? {
                LockAttempt::Acquired(lock) => return Ok(lock),
                LockAttempt::HeldBy(_) if begun.elapsed() < PATIENCE => sleep(POLL),
                LockAttempt::HeldBy(holder) => {
                    return Err(Error::refused(format!(
                        "{} is held by {holder} for more than {} s: wait until it has finished, or stop it",
                        path.display(),
                        PATIENCE.as_secs()
                    )));
                }
            }
        }
    }
}

/// The name of this machine.
fn host() -> String {
    let named = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok());
    named
        .map(|n| n.trim().to_owned())
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| "this machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_waits_for_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let LockAttempt::Acquired(lock) = FileLock::try_acquire(&path).unwrap() else {
            panic!("it is free")
        };
        let LockAttempt::HeldBy(holder) = FileLock::try_acquire(&path).unwrap() else {
            panic!("it is taken")
        };
        assert!(
            holder.starts_with(&format!("process {} on ", std::process::id())),
            "{holder}"
        );
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| FileLock::acquire(&path).unwrap());
            drop(lock);
            waiting.join().unwrap();
        });
        assert!(FileLock::try_acquire(&dir.path().join("absent/lock")).is_err());
    }

    #[test]
    fn a_lock_behind_a_link_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("lock"), dir.path().join("letter"));
        std::fs::write(&target, "dear").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let error = FileLock::try_acquire(&link).unwrap_err().to_string();
        assert!(error.contains("lock") && !error.contains('\n'), "{error}");
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "dear");
        assert!(FileLock::try_acquire(&dir.path().join(".")).is_err());
    }

    #[test]
    fn updates_under_the_lock_are_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, count) = (dir.path().join("lock"), dir.path().join("count"));
        std::fs::write(&count, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let _lock = FileLock::acquire(&lock).unwrap();
                        let now: u32 = std::fs::read_to_string(&count).unwrap().parse().unwrap();
                        super::super::write_atomic(&count, (now + 1).to_string().as_bytes())
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(std::fs::read_to_string(&count).unwrap(), "100");
    }
}
