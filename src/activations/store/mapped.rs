//! Read-only mappings: the only unsafe code of `activations`.

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

/// Maps all of a file that is never changed in place.
#[allow(unsafe_code)]
pub(super) fn map_file(file: &File, path: &Path) -> Result<Mmap> {
    // SAFETY: the bytes of a mapping must not change or vanish while borrowed. Shards are written
    // under another name and only ever replaced by a rename or unlinked, which leaves the mapped
    // inode as it is; the directory's lock keeps other mlpeek processes from writing. Someone who
    // truncates the file by hand gets SIGBUS, as with any mmap.
    let map = unsafe { Mmap::map(file) }.map_err(Error::io("map", path))?;
    Ok(map)
}

/// Has the kernel begin to read a part of a mapping: its own read-ahead waits for the first touch,
/// and goes as far as the disk's setting.
#[cfg(unix)]
pub(super) fn read_ahead(map: &Mmap, bytes: Range<usize>) {
    /// Kernels cut one request short at about this.
    const PIECE: usize = 1 << 20;
    for first in bytes.clone().step_by(PIECE) {
        let _ = map.advise_range(Advice::WillNeed, first, PIECE.min(bytes.end - first));
    }
}

#[cfg(not(unix))]
pub(super) fn read_ahead(_: &Mmap, _: Range<usize>) {}

/// Gives up the memory that holds a part of the mapping of the file at `path`; who asks for it
/// again has it read again.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn let_go(map: &Mmap, path: &Path, bytes: Range<usize>) {
    let Ok(file) = File::open(path) else { return };
    // SAFETY: the mapping is shared and read-only, so its pages hold nothing that the file does
    // not: a dropped page is read again. Nothing but pages that are no one's goes from the kernel's
    // cache, and no memory is handed to either call.
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
pub(super) fn let_go(_: &Mmap, _: &Path, _: Range<usize>) {}

/// A file of little-endian f32 values, mapped.
#[derive(Debug)]
pub struct MappedF32 {
    /// `None` for no values: an empty mapping is an error on some systems.
    map: Option<Mmap>,
}

impl MappedF32 {
    /// Maps `path` from byte `offset` (a multiple of 64) for `len` values. The file must not be
    /// changed in place while mapped (replace it by a rename).
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

    /// The values.
    pub fn as_slice(&self) -> &[f32] {
        // A mapping starts at a page plus the offset, so at a multiple of 64: the cast cannot fail.
        self.map.as_deref().map_or(&[], bytemuck::cast_slice)
    }
}
