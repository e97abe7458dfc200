//! Reads the cache through memory mappings, so that no shard is ever copied to memory as a whole.
//! Knows nothing of tokens or samples.

use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;
use xxhash_rust::xxh3::xxh3_64;

use super::read_ahead::ReadAhead;
use super::shard::{self, HEADER, Header, REMEDY};
use super::{CacheDtype, mapped};
use crate::activations::{ActivationSource, Block, StoredRows};
use crate::error::{Error, Result};

/// A read-only view of a hook's complete shards. The checksum of a shard is verified when its rows
/// are first read, so that no flipped bit reaches a result.
#[derive(Debug)]
pub struct CacheReader {
    shards: Arc<[Shard]>,
    rows: usize,
    cols: usize,
    read_ahead: OnceLock<ReadAhead>,
}

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    header: Header,
    pub(super) map: Mmap,
    checksum_ok: OnceLock<bool>,
}

impl CacheReader {
    /// Maps the shards of `dir`.
    ///
    /// # Errors
    /// [`Error::File`] for a directory without a complete shard, and for a shard whose header or
    /// length is wrong; [`Error::Io`].
    pub fn open(dir: &Path) -> Result<Self> {
        let mut shards: Vec<Shard> = Vec::new();
        let mut rows = 0;
        let count = shard::indices(dir)?.last().map_or(0, |last| last + 1);
        for index in 0..count {
            let (path, file, header) = shard::open(dir, index, rows)?;
            if let Some(first) = shards.first().map(|s| s.header)
                && (first.cols, first.dtype) != (header.cols, header.dtype)
            {
                return Err(Error::file(
                    &path,
                    format!("has other columns or dtype than the first shard; {REMEDY}"),
                ));
            }
            let map = mapped::map_file(&file, &path)?;
            #[cfg(unix)]
            // Only a hint to the kernel: if it is refused, nothing changes.
            let _ = map.advise(memmap2::Advice::Sequential);
            rows += header.rows;
            shards.push(Shard {
                path,
                header,
                map,
                checksum_ok: OnceLock::new(),
            });
        }
        let Some(cols) = shards.first().map(|s| s.header.cols) else {
            return Err(Error::file(
                dir,
                "holds no complete shard yet; run collect first",
            ));
        };
        Ok(Self {
            shards: shards.into(),
            rows,
            cols,
            read_ahead: OnceLock::new(),
        })
    }

    /// The type of the stored values.
    pub fn dtype(&self) -> CacheDtype {
        self.shards
            .first()
            .map_or(CacheDtype::F32, |s| s.header.dtype)
    }

    #[cfg(test)]
    pub(super) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Verifies the checksum of every shard.
    ///
    /// # Errors
    /// [`Error::File`] for the first shard whose checksum is wrong.
    pub fn verify(&self) -> Result<()> {
        self.shards.iter().try_for_each(|s| {
            if s.checksum_matches() {
                Ok(())
            } else {
                Err(s.damaged())
            }
        })
    }
}

impl Shard {
    fn checksum_matches(&self) -> bool {
        xxh3_64(&self.map[HEADER..]) == self.header.checksum
    }

    /// The error for a shard whose checksum is wrong.
    fn damaged(&self) -> Error {
        Error::file(
            &self.path,
            format!("its data is damaged (checksum); {REMEDY}"),
        )
    }

    /// The rows of the cache that this shard holds.
    pub(super) fn range(&self) -> Range<usize> {
        self.header.first_row..self.header.first_row + self.header.rows
    }

    /// The byte range in the file of the shard's rows that lie in `range`.
    pub(super) fn byte_range(&self, range: &Range<usize>) -> Range<usize> {
        let shard_rows = self.range();
        let (start, end) = (
            range.start.max(shard_rows.start) - shard_rows.start,
            range.end.min(shard_rows.end) - shard_rows.start,
        );
        let width = self.header.row_bytes();
        HEADER + start * width..HEADER + end * width
    }

    /// The bytes of the shard's rows that lie in `range`, after the checksum was verified once.
    fn checked_bytes(&self, range: &Range<usize>) -> Result<&[u8]> {
        if !*self.checksum_ok.get_or_init(|| self.checksum_matches()) {
            return Err(self.damaged());
        }
        Ok(&self.map[self.byte_range(range)])
    }
}

impl CacheReader {
    fn check_range(&self, range: &Range<usize>) -> Result<()> {
        if range.start > range.end || range.end > self.rows {
            return Err(Error::usage(format!(
                "rows {range:?} asked of a cache of {} rows",
                self.rows
            )));
        }
        Ok(())
    }

    /// The index of the first shard that holds rows of `range`.
    fn first_shard(&self, range: &Range<usize>) -> usize {
        self.shards
            .partition_point(|s| s.range().end <= range.start)
    }
}

impl ActivationSource for CacheReader {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn rows(&self, range: Range<usize>) -> Result<Block<'_>> {
        self.check_range(&range)?;
        let (rows, cols) = (range.len(), self.cols);
        if rows == 0 {
            return Ok(Block {
                rows,
                cols,
                data: Cow::Borrowed(&[]),
            });
        }
        let shard = &self.shards[self.first_shard(&range)];
        if shard.header.dtype == CacheDtype::F32 && range.end <= shard.range().end {
            return Ok(Block {
                rows,
                cols,
                data: Cow::Borrowed(bytemuck::cast_slice(shard.checked_bytes(&range)?)),
            });
        }
        let mut data = vec![0.0; rows * cols];
        self.read(range, &mut data)?;
        Ok(Block {
            rows,
            cols,
            data: Cow::Owned(data),
        })
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.check_range(&range)?;
        let mut rest = out;
        for shard in self.shards[self.first_shard(&range)..]
            .iter()
            .take_while(|s| s.range().start < range.end)
        {
            let bytes = shard.checked_bytes(&range)?;
            let (target, later) = rest.split_at_mut(bytes.len() / shard.header.dtype.size());
            convert_to_f32(shard.header.dtype, bytes, target);
            rest = later;
        }
        Ok(())
    }

    fn stored_dtype(&self) -> CacheDtype {
        self.dtype()
    }

    fn for_each_stored(
        &self,
        range: Range<usize>,
        f: &mut dyn FnMut(StoredRows<'_>) -> Result<()>,
    ) -> Result<()> {
        self.check_range(&range)?;
        for shard in self.shards[self.first_shard(&range)..]
            .iter()
            .take_while(|s| s.range().start < range.end)
        {
            let bytes = shard.checked_bytes(&range)?;
            f(StoredRows {
                rows: bytes.len() / shard.header.row_bytes(),
                dtype: shard.header.dtype,
                bytes,
            })?;
        }
        Ok(())
    }

    fn advise_pass(&self, rows: Range<usize>) {
        let read_ahead = self
            .read_ahead
            .get_or_init(|| ReadAhead::start(self.shards.clone()));
        read_ahead.advise_pass(rows);
    }
}

/// Converts stored values to f32; `bytes` must be aligned for the dtype and hold `out.len()`
/// values.
pub(crate) fn convert_to_f32(dtype: CacheDtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        CacheDtype::F32 => out.copy_from_slice(bytemuck::cast_slice(bytes)),
        CacheDtype::F16 => bytemuck::cast_slice::<u8, f16>(bytes).convert_to_f32_slice(out),
        // A bf16 is the upper half of an f32: plain shifts, which the compiler vectorises.
        CacheDtype::Bf16 => {
            let bits = bytemuck::cast_slice::<u8, u16>(bytes);
            out.iter_mut()
                .zip(bits)
                .for_each(|(v, &b)| *v = f32::from_bits(u32::from(b) << 16));
        }
    }
}
