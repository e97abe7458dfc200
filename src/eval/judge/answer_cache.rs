//! The cache of answers on disk, one file each, so that nothing is paid for twice.

use std::path::{Path, PathBuf};

use super::Answer;
use crate::disk;
use crate::error::Result;

/// A directory of answers by the hash of their questions.
#[derive(Debug, Clone)]
pub struct AnswerCache {
    dir: PathBuf,
}

impl AnswerCache {
    /// The cache in `dir`, which is made with the first answer.
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

    /// The cached answer; one that cannot be read counts as absent.
    pub(super) fn get(&self, hash: &str) -> Option<Answer> {
        serde_json::from_slice(&std::fs::read(self.path(hash)).ok()?).ok()
    }

    pub(super) fn insert(&self, hash: &str, answer: &Answer) -> Result<()> {
        let path = self.path(hash);
        disk::create_dir(disk::parent(&path))?;
        let bytes = serde_json::to_vec(answer).unwrap_or_default();
        disk::write_atomic(&path, &bytes)
    }
}
