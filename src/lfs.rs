//! Git LFS pointers: the small text files that a clone without LFS has in place of large ones.
//! Knows nothing of what the large files are.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// The first bytes of a pointer.
pub(crate) const POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/";
/// The problem and its remedy, in error messages.
pub(crate) const POINTER_PROBLEM: &str =
    "is a Git LFS pointer, not the file itself: run 'git lfs pull' in its repository";

/// Whether a file that begins with `head` is a pointer.
pub(crate) fn is_pointer(head: &[u8]) -> bool {
    head.starts_with(POINTER_START)
}

/// Refuses a pointer with the remedy.
///
/// # Errors
/// [`Error::File`] if `head`, the first bytes of `path`, are those of a pointer.
pub(crate) fn refuse_pointer(head: &[u8], path: &Path) -> Result<()> {
    if !is_pointer(head) {
        return Ok(());
    }
    Err(Error::file(path, POINTER_PROBLEM))
}

/// [`refuse_pointer`] for a file that has not been read. A file that cannot be read is no error
/// here: its reader reports it.
pub(crate) fn refuse_pointer_at(path: &Path) -> Result<()> {
    let mut head = [0; POINTER_START.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) => refuse_pointer(&head, path),
        Err(_) => Ok(()),
    }
}
