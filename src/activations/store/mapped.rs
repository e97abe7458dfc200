//! Read-only mappings: the only unsafe code of `activations`.

use std::fs::File;
use std::path::Path;

use memmap2::{Mmap, MmapOptions};

use crate::error::{Error, Result};

/// Maps all of a file that is never changed in place.
#[allow(unsafe_code)]
pub(super) fn map_file(file: &File, path: &Path) -> Result<Mmap> {
    // SAFETY: the bytes of a mapping must not change or vanish while borrowed. Shards are written under another name
    // and only ever replaced by a rename or unlinked, which leaves the mapped inode as it is; the directory's lock
    // keeps other mlpeek processes from writing. Someone who truncates the file by hand gets SIGBUS, as with any mmap.
    let map = unsafe { Mmap::map(file) }.map_err(Error::io("map", path))?;
    Ok(map)
}

/// A file of little-endian f32 values, mapped.
#[derive(Debug)]
pub struct MappedF32 {
    /// `None` for no values: an empty mapping is an error on some systems.
    map: Option<Mmap>,
}

impl MappedF32 {
    /// Maps `path` from byte `offset` (a multiple of 64) for `len` values. The file must not be changed in place while
    /// mapped (replace it by a rename).
    #[allow(unsafe_code)]
    pub fn open(path: &Path, offset: u64, len: usize) -> Result<Self> {
        if !offset.is_multiple_of(64) {
            return Err(Error::file(path, format!("values cannot start at byte {offset}, which is no multiple of 64")));
        }
        let file = File::open(path).map_err(Error::io("open", path))?;
        let found = file.metadata().map_err(Error::io("read", path))?.len();
        let needed = (len as u64).checked_mul(4).and_then(|n| n.checked_add(offset));
        if needed.is_none_or(|needed| found < needed) {
            return Err(Error::file(
                path,
                format!("truncated: {found} bytes where {len} values from byte {offset} are due"),
            ));
        }
        if len == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: as in `map_file`; the caller keeps the rule, and mlpeek's own files are only replaced by renames.
        let map =
            unsafe { MmapOptions::new().offset(offset).len(len * 4).map(&file) }.map_err(Error::io("map", path))?;
        Ok(Self { map: Some(map) })
    }

    /// The values.
    pub fn as_slice(&self) -> &[f32] {
        // A mapping starts at a page plus the offset, so at a multiple of 64: the cast cannot fail.
        self.map.as_deref().map_or(&[], bytemuck::cast_slice)
    }
}
