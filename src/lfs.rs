//! Git LFS pointers: what a clone without LFS has in the place of a large file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// How a pointer begins.
pub(crate) const POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/";
/// What is said of one.
pub(crate) const POINTER_PROBLEM: &str =
    "is a Git LFS pointer, not the file itself: run 'git lfs pull' in its repository";

/// Whether a file that begins so is a pointer and not what its name says.
pub(crate) fn is_pointer(head: &[u8]) -> bool {
    head.starts_with(POINTER_START)
}

/// Refuses a pointer by what it is, with what to do.
///
/// # Errors
///
/// When `head`, the first bytes of `path`, are those of a pointer.
pub(crate) fn refuse_pointer(head: &[u8], path: &Path) -> Result<()> {
    if !is_pointer(head) {
        return Ok(());
    }
    Err(Error::file(path, POINTER_PROBLEM))
}

/// [`refuse_pointer`] for a file that was not read yet; one that cannot be read is left to who
/// reads it.
pub(crate) fn refuse_pointer_at(path: &Path) -> Result<()> {
    let mut head = [0; POINTER_START.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) => refuse_pointer(&head, path),
        Err(_) => Ok(()),
    }
}
