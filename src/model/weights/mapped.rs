//! Bytes at a fixed address: a mapped file, or an aligned copy of a tensor that its file did not
//! align.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// A mapped file or an aligned copy of part of one.
pub(crate) enum Mapped {
    /// A whole file, mapped read-only.
    File(Mmap),
    /// A copy: the first `len` bytes of `words`.
    Copy { words: Vec<u64>, len: usize },
}

impl Mapped {
    /// Maps a file read-only.
    ///
    /// # Errors
    /// A path that is not a file, an empty file, and one that cannot be mapped.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let meta = file.metadata().map_err(Error::io("read", path))?;
        if !meta.is_file() {
            return Err(Error::file(
                path,
                "is not a file: give a weight file or a model directory",
            ));
        }
        if meta.len() == 0 {
            return Err(Error::file(path, "is empty: download it again"));
        }
        // SAFETY: the mapping is read-only and private to this process. Another process that
        // shortens the file while it is open can end us with a signal, never with wrong types:
        // every bit pattern is a valid value of the plain numeric blocks that are read from it.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Ok(Self::File(map))
    }

    /// A copy that is aligned to 8 bytes.
    pub(crate) fn copied(data: &[u8]) -> Self {
        let mut words = vec![0u64; data.len().div_ceil(8)];
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..data.len()].copy_from_slice(data);
        Self::Copy {
            words,
            len: data.len(),
        }
    }

    /// All bytes of the file or of the copy.
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::File(map) => map,
            Self::Copy { words, len } => &bytemuck::cast_slice(words)[..*len],
        }
    }
}
