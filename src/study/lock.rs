//! One writer at a time. The operating system drops the lock with the process, however that ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use fs4::fs_std::FileExt;

use crate::error::{Error, Result};

/// Name of the lock file in a study.
pub(super) const FILE: &str = "lock";

/// The right to write in a study, until dropped.
#[derive(Debug)]
pub(super) struct WriteLock {
    _file: File,
}

impl WriteLock {
    /// Takes the lock of the study in `dir`, or says who has it.
    pub fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open for writing", &path))?;
        if !file.try_lock_exclusive().map_err(Error::io("lock", &path))? {
            let mut holder = String::new();
            // The text is for the message only: a holder that has not written it yet is still a holder.
            let _ = Read::by_ref(&mut file).take(200).read_to_string(&mut holder);
            let holder = holder.lines().next().filter(|l| !l.is_empty()).unwrap_or("another process");
            return Err(Error::refused(format!(
                "{} is being written by {holder}: wait until it has finished, or stop it",
                dir.display()
            )));
        }
        let text = format!("process {} on {}\n", std::process::id(), host());
        file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(Error::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

fn host() -> String {
    let named = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    named.map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).unwrap_or_else(|| "this machine".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = WriteLock::take(dir.path()).unwrap();
        let error = WriteLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())) && !error.contains('\n'), "{error}");
        drop(lock);
        WriteLock::take(dir.path()).unwrap();
    }
}
