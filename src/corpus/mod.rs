//! Samples with labels, read from what people have: JSON, JSONL, CSV, plain text.

pub mod formats;

use std::path::Path;

use crate::error::Result;

/// One text of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The text.
    pub text: String,
    /// Its label, where the corpus has one.
    pub label: Option<String>,
}

/// A corpus in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// For a person: a path or "bundled concepts".
    pub name: String,
    /// The samples, in file order.
    pub samples: Vec<Sample>,
    /// sha256 of the file's bytes.
    pub sha256: String,
}

impl Corpus {
    /// Reads a file by its extension (`.json`, `.jsonl`, `.csv`, else a sample a line); an error names the entry.
    pub fn open(path: &Path) -> Result<Self> {
        formats::open(path)
    }

    /// The concepts that come with mlpeek.
    pub fn bundled() -> Self {
        formats::bundled()
    }
}
