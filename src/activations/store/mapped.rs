//! Read-only memory mappings: the only unsafe code of `activations`. Knows nothing of shards.

use std::fs::File;
use std::ops::Range;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::path::Path;

#[cfg(unix)]
use memmap2::Advice;
#[cfg(target_os = "linux")]
use memmap2::UncheckedAdvice;
use memmap2::{Mmap, MmapOptions};

use crate::error::{Error, Result};

/// Maps a whole file for reading. The file must never be changed in place while it is mapped.
#[allow(unsafe_code)]
pub(super) fn map_file(file: &File, path: &Path) -> Result<Mmap> {
    // SAFETY: the bytes of a mapping must not change or vanish while borrowed. Shards are written
    // under another name and only ever replaced by a rename or unlinked, which leaves the mapped
    // inode as it is; the directory's lock keeps other mlpeek processes from writing. Someone who
    // truncates the file by hand gets SIGBUS, as with any mmap.
    let map = unsafe { Mmap::map(file) }.map_err(Error::io("map", path))?;
    Ok(map)
}

/// Asks the kernel to start reading a part of a mapping. The kernel's own read-ahead would begin at
/// the first access and read only a short distance ahead.
#[cfg(unix)]
pub(super) fn prefetch_pages(map: &Mmap, bytes: Range<usize>) {
    /// Linux limits a single request to about this size.
    const PIECE: usize = 1 << 20;
    for first in bytes.clone().step_by(PIECE) {
        let _ = map.advise_range(Advice::WillNeed, first, PIECE.min(bytes.end - first));
    }
}

#[cfg(not(unix))]
pub(super) fn prefetch_pages(_: &Mmap, _: Range<usize>) {}

/// Releases the memory of a part of the mapping of the file at `path`; the next access reads it
/// again.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn release_pages(map: &Mmap, path: &Path, bytes: Range<usize>) {
    let Ok(file) = File::open(path) else { return };
    // SAFETY: the mapping is shared and read-only, so its pages hold nothing that the file does
    // not: a dropped page is read again. The kernel drops only cached pages that no process uses,
    // and neither call gets a pointer to memory of ours.
    unsafe {
        let _ = map.unchecked_advise_range(UncheckedAdvice::DontNeed, bytes.start, bytes.len());
        libc::posix_fadvise(
            file.as_raw_fd(),
            bytes.start as i64,
            bytes.len() as i64,
            libc::POSIX_FADV_DONTNEED,
        );
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn release_pages(_: &Mmap, _: &Path, _: Range<usize>) {}

/// A file of little-endian f32 values, mapped read-only.
#[derive(Debug)]
pub struct MappedF32 {
    /// `None` for a length of zero: an empty mapping is an error on some systems.
    map: Option<Mmap>,
}

impl MappedF32 {
    /// Maps `len` values of `path` from byte `offset` on, a multiple of 64. The file must not be
    /// changed in place while it is mapped; it may be replaced by a rename.
    ///
    /// # Errors
    /// [`Error::File`] for an offset that is not a multiple of 64 or a file that is too short;
    /// [`Error::Io`].
    #[allow(unsafe_code)]
    pub fn open(path: &Path, offset: u64, len: usize) -> Result<Self> {
        if !offset.is_multiple_of(64) {
            return Err(Error::file(
                path,
                format!("values cannot start at byte {offset}, which is no multiple of 64"),
            ));
        }
        let file = File::open(path).map_err(Error::io("open", path))?;
        let found = file.metadata().map_err(Error::io("read", path))?.len();
        let needed = (len as u64)
            .checked_mul(4)
            .and_then(|n| n.checked_add(offset));
        if needed.is_none_or(|needed| found < needed) {
            return Err(Error::file(
                path,
                format!("truncated: {found} bytes where {len} values from byte {offset} are due"),
            ));
        }
        if len == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: as in `map_file`; the caller keeps the rule, and mlpeek's own files are only
        // replaced by renames.
        let map = unsafe { MmapOptions::new().offset(offset).len(len * 4).map(&file) }
            .map_err(Error::io("map", path))?;
        Ok(Self { map: Some(map) })
    }

    /// The mapped values.
    pub fn as_slice(&self) -> &[f32] {
        // A mapping starts at a page plus the offset, which is a multiple of 64, so the cast cannot
        // fail.
        self.map.as_deref().map_or(&[], bytemuck::cast_slice)
    }
}
