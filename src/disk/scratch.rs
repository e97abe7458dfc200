//! Values in a mapped temporary file, which is deleted with their owner. Knows nothing of their
//! meaning.
//!
//! Invariant: all blocks of the file are allocated when it is created, so that a full disk is an
//! error there and never a signal at a write through the mapping.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, fallocate};

use super::TMP_PREFIX;
use crate::error::{Error, Result};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// f32 values in a mapped file of their own. On Unix the file has no name from the start, so that a
/// killed process leaves nothing; elsewhere [`super::remove_unfinished`] removes what it left.
#[derive(Debug)]
pub struct Scratch {
    /// `None` for a length of zero: an empty mapping is an error on some systems. Declared before
    /// the name, so that it is dropped first.
    map: Option<MmapMut>,
    _temporary_name: TemporaryName,
}

impl Scratch {
    /// `len` zeros in a new file in the folder `dir`.
    ///
    /// # Errors
    /// [`Error::Io`] for a folder that cannot be written in, or a disk without space for all
    /// values.
    #[allow(unsafe_code)]
    pub fn zeros(dir: &Path, len: usize) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(
            "{TMP_PREFIX}{}-values-{number}",
            std::process::id()
        ));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let unnamed = cfg!(unix) && fs::remove_file(&path).is_ok();
        let temporary_name = TemporaryName((!unnamed).then(|| path.clone()));
        if len == 0 {
            return Ok(Self {
                map: None,
                _temporary_name: temporary_name,
            });
        }
        allocate_blocks(&file, 4 * len as u64).map_err(Error::io("make room in", &path))?;
        // SAFETY: the bytes of a mapping must not change or vanish but through it. The file was
        // made here and has no name, or one with this process's own number.
        let map = unsafe { MmapOptions::new().len(4 * len).map_mut(&file) }
            .map_err(Error::io("map", &path))?;
        Ok(Self {
            map: Some(map),
            _temporary_name: temporary_name,
        })
    }

    /// All values of the file, in their order.
    pub fn as_slice(&self) -> &[f32] {
        // A mapping starts at a page, so the cast cannot fail.
        self.map.as_deref().map_or(&[], bytemuck::cast_slice)
    }

    /// The values, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self.map
            .as_deref_mut()
            .map_or(&mut [], bytemuck::cast_slice_mut)
    }
}

/// The name of a file that must be removed when it is dropped; `None` if it has none.
#[derive(Debug)]
struct TemporaryName(Option<PathBuf>);

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Best effort: a file that stays is removed by the next writer.
            let _ = fs::remove_file(path);
        }
    }
}

/// Allocates the blocks of a file, by writing zeros if the file system has no such operation.
fn allocate_blocks(mut file: &File, bytes: u64) -> io::Result<()> {
    super::check_space(usize::try_from(bytes).unwrap_or(usize::MAX))?;
    match fallocate(file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from) {
        Ok(()) => file.set_len(bytes),
        Err(e) if e.kind() == io::ErrorKind::Unsupported => {
            io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file)
                .and_then(|_| file.flush())
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut values = Scratch::zeros(dir.path(), 5000).unwrap();
        let mut others = Scratch::zeros(dir.path(), 1).unwrap();
        assert!(values.as_slice().len() == 5000 && values.as_slice().iter().all(|v| *v == 0.0));
        values.as_mut_slice()[4999] = 2.5;
        others.as_mut_slice()[0] = -1.0;
        assert_eq!((values.as_slice()[4999], others.as_slice()[0]), (2.5, -1.0));
        assert_eq!(
            Scratch::zeros(dir.path(), 0).unwrap().as_slice(),
            &[] as &[f32]
        );
        if cfg!(unix) {
            assert_eq!(
                fs::read_dir(dir.path()).unwrap().count(),
                0,
                "no name, even while it lives"
            );
        }
        drop((values, others));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_full_disk_refuses_at_once() {
        let dir = tempfile::tempdir().unwrap();
        super::super::fault::limit_space(Some(3999));
        let error = Scratch::zeros(dir.path(), 1000).unwrap_err().to_string();
        super::super::fault::limit_space(None);
        assert!(
            error.starts_with("cannot make room in ") && !error.contains('\n'),
            "{error}"
        );
        assert!(Scratch::zeros(&dir.path().join("absent"), 10).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
