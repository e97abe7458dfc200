//! Locks between processes on files: for as long as something is open, or for the moment of one
//! change.
//!
//! Knows nothing of what is locked. Invariant: the operating system drops a lock with the process
//! that holds it, however that ends, and a lock file is never removed, since another process may be
//! about to lock it. What is read to be written again is read under the lock: else of two processes
//! that change a file the slower one undoes the other's change.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How long another's change of a small file may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// The only right to change something, until dropped.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

/// What came of asking for a lock.
#[derive(Debug)]
pub enum Taken {
    /// It is ours.
    Ours(FileLock),
    /// Somebody has it, in words such as "process 12 on host".
    By(String),
}

impl FileLock {
    /// Takes the lock on the file at `path`, which is made where it is absent, or says who has it.
    ///
    /// # Errors
    /// A file that cannot be made or written, a file system that knows no locks.
    pub fn take(path: &Path) -> Result<Taken> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open for writing", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The text is for a message only: a holder that has not written it yet is still a
                // holder.
                let _ = Read::by_ref(&mut file)
                    .take(200)
                    .read_to_string(&mut holder);
                let holder = holder
                    .lines()
                    .next()
                    .filter(|l| !l.is_empty())
                    .unwrap_or("another process");
                return Ok(Taken::By(holder.to_owned()));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path)(e)),
        }
        let text = format!("process {} on {}\n", std::process::id(), host());
        file.set_len(0)
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(Error::io("write", path))?;
        Ok(Taken::Ours(Self { _file: file }))
    }

    /// The lock for one change that takes a moment; another's is waited for.
    ///
    /// # Errors
    /// As [`FileLock::take`], and where another process does not end its change within seconds.
    pub fn wait(path: &Path) -> Result<Self> {
        let begun = Instant::now();
        loop {
            match Self::take(path)? {
                Taken::Ours(lock) => return Ok(lock),
                Taken::By(_) if begun.elapsed() < PATIENCE => sleep(POLL),
                Taken::By(holder) => {
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
    fn one_has_it_and_the_next_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let Taken::Ours(lock) = FileLock::take(&path).unwrap() else {
            panic!("it is free")
        };
        let Taken::By(holder) = FileLock::take(&path).unwrap() else {
            panic!("it is taken")
        };
        assert!(
            holder.starts_with(&format!("process {} on ", std::process::id())),
            "{holder}"
        );
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| FileLock::wait(&path).unwrap());
            drop(lock);
            waiting.join().unwrap();
        });
        assert!(FileLock::take(&dir.path().join("absent/lock")).is_err());
    }

    #[test]
    fn what_is_read_under_it_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (lock, count) = (dir.path().join("lock"), dir.path().join("count"));
        std::fs::write(&count, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let _lock = FileLock::wait(&lock).unwrap();
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
