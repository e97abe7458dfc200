//! Answers on disk, a file each, so that nothing is paid for twice.

use std::path::{Path, PathBuf};

use super::Answer;
use crate::disk;
use crate::error::Result;

/// A directory of answers by the hash of their questions.
#[derive(Debug, Clone)]
pub struct Answers {
    dir: PathBuf,
}

impl Answers {
    /// The answers in `dir`, which is made when there is the first.
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.to_path_buf(),
        }
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.dir
            .join(&hash[..2.min(hash.len())])
            .join(format!("{hash}.json"))
    }

    /// An answer from earlier; one that cannot be read counts as none.
    pub(super) fn get(&self, hash: &str) -> Option<Answer> {
        serde_json::from_slice(&std::fs::read(self.path(hash)).ok()?).ok()
    }

    pub(super) fn keep(&self, hash: &str, answer: &Answer) -> Result<()> {
        let path = self.path(hash);
        disk::create_dir(disk::parent(&path))?;
        let bytes = serde_json::to_vec(answer).unwrap_or_default();
        disk::write_atomic(&path, &bytes)
    }
}
