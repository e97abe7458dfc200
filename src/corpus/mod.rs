//! Samples with labels, read from what people have: JSON, JSON Lines, CSV, TSV, plain text.
//!
//! Knows nothing of tokens or models. Invariant: every entry of the file is a sample, in file
//! order, or the file is refused with the entry's line, what was found there and what was expected
//! (only blank lines are passed over).

mod bytes;
mod columns;
mod formats;
mod json;
mod sample_list;
mod shapes;
mod table;
#[cfg(test)]
mod tests;
mod tokens;

use std::path::Path;

use crate::error::Result;

pub use tokens::{TokenRow, TokenTable};

/// One text of a corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The text, as it is in the file.
    pub text: String,
    /// Its label, where the corpus has one.
    pub label: Option<String>,
}

/// A corpus in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// A name to show: the file's path, or "bundled concepts".
    pub name: String,
    /// The samples, in file order.
    pub samples: Vec<Sample>,
    /// sha256 of the file's bytes.
    pub sha256: String,
}

impl Corpus {
    /// Reads a file by its content, whatever its name. Unusual entries that could be read (an empty
    /// text, a label that is null) are counted in a warning.
    ///
    /// # Errors
    /// A file that cannot be read or is not a corpus; the line and the remedy are named. Content that
    /// can be read in two ways is refused with both.
    pub fn open(path: &Path) -> Result<Self> {
        formats::open(path)
    }

    /// The concepts that come with mlpeek.
    pub fn bundled() -> Self {
        formats::bundled()
    }
}
