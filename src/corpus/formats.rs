//! The file formats of a corpus.

use std::path::Path;

use super::Corpus;
use crate::error::Result;

pub(super) fn open(path: &Path) -> Result<Corpus> {
    let _ = path;
    unimplemented!()
}

pub(super) fn bundled() -> Corpus {
    unimplemented!()
}
