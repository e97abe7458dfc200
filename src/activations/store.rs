//! The memory-mapped cache: append-only shards of rows, each with a header and a checksum. The only unsafe code of
//! `activations`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ActivationSource, Block};
use crate::error::Result;

/// How values lie in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum CacheDtype {
    /// 4 bytes.
    #[default]
    F32,
    /// 2 bytes, IEEE half.
    F16,
    /// 2 bytes, bfloat16.
    Bf16,
}

/// Writes one hook's rows as shards; a shard is complete (checksummed, renamed, fsynced) or absent.
pub struct CacheWriter {
    dir: PathBuf,
}

impl CacheWriter {
    /// Opens `dir` for appending rows of `cols` values after the complete shards that are there.
    pub fn open(dir: &Path, cols: usize, dtype: CacheDtype) -> Result<Self> {
        let _ = (cols, dtype);
        Ok(Self { dir: dir.to_path_buf() })
    }

    /// Rows that are safe on disk.
    pub fn rows(&self) -> usize {
        unimplemented!()
    }

    /// Adds rows (row-major, a multiple of `cols`) to the shard in progress.
    pub fn push(&mut self, rows: &[f32]) -> Result<()> {
        let _ = (rows, &self.dir);
        unimplemented!()
    }

    /// Seals the shard in progress; its rows are safe once this returns.
    pub fn seal(&mut self) -> Result<()> {
        unimplemented!()
    }
}

/// A read-only view of a hook's complete shards, mapped, never read whole.
pub struct CacheReader {}

impl CacheReader {
    /// Maps the shards of `dir`; a wrong header or length names the file.
    pub fn open(dir: &Path) -> Result<Self> {
        let _ = dir;
        unimplemented!()
    }

    /// Checks every checksum; names the shard that fails.
    pub fn verify(&self) -> Result<()> {
        unimplemented!()
    }
}

impl ActivationSource for CacheReader {
    fn shape(&self) -> (usize, usize) {
        unimplemented!()
    }

    fn rows(&self, range: Range<usize>) -> Result<Block<'_>> {
        let _ = range;
        unimplemented!()
    }
}

/// A file of little-endian f32 values, mapped.
#[derive(Debug)]
pub struct MappedF32 {}

impl MappedF32 {
    /// Maps `path` from byte `offset` (a multiple of 64) for `len` values.
    pub fn open(path: &Path, offset: u64, len: usize) -> Result<Self> {
        let _ = (path, offset, len);
        unimplemented!()
    }

    /// The values.
    pub fn as_slice(&self) -> &[f32] {
        unimplemented!()
    }
}
