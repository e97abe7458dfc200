//! Writes the cache: a shard grows under a temporary name and is sealed by a rename. Knows nothing
//! of tokens or samples.

use std::fs;
use std::path::{Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::shard::{self, HEADER, Header, REMEDY, SHARD_BYTES};
use super::{CacheDtype, mapped};
use crate::disk::{self, NewFile};
use crate::error::{Error, Result};

/// Writes one hook's rows as shards. A shard is complete (checksummed, renamed, fsynced) or absent.
/// The caller must hold the directory's lock.
pub struct CacheWriter {
    dir: PathBuf,
    cols: usize,
    dtype: CacheDtype,
    /// The rows of each sealed shard.
    sealed: Vec<usize>,
    open_shard: Option<OpenShard>,
    shard_rows: usize,
}

/// The shard in progress, whose bytes are already in a temporary file.
struct OpenShard {
    file: NewFile,
    hash: Xxh3,
    rows: usize,
}

impl CacheWriter {
    /// Opens `dir`, which is created if absent, for appending rows of `cols` values after its
    /// complete shards. A last shard that is damaged, as after a power loss on a disk that ignored
    /// fsync, is removed.
    ///
    /// # Errors
    /// [`Error::File`] for damage in an earlier shard, [`Error::Usage`] for shards of another width
    /// or dtype, [`Error::Io`].
    pub fn open(dir: &Path, cols: usize, dtype: CacheDtype) -> Result<Self> {
        disk::create_dir(dir)?;
        disk::remove_unfinished(dir)?;
        let shard_rows = (SHARD_BYTES / (cols * dtype.size()).max(1)).max(1);
        let mut writer = Self {
            dir: dir.to_path_buf(),
            cols,
            dtype,
            sealed: Vec::new(),
            open_shard: None,
            shard_rows,
        };
        let count = shard::indices(dir)?.last().map_or(0, |last| last + 1);
        for index in 0..count {
            match writer.check_shard(index, index + 1 == count) {
                Ok(rows) => writer.sealed.push(rows),
                Err(Error::File { path, problem }) if index + 1 == count && path.exists() => {
                    tracing::warn!(
                        "{}: {problem}; its rows will be collected again",
                        path.display()
                    );
                    fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                    disk::sync_dir(dir)?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(writer)
    }

    /// Checks that the shard on disk follows the sealed ones, with its checksum if `with_data`, and
    /// returns its number of rows.
    fn check_shard(&self, index: usize, with_data: bool) -> Result<usize> {
        let (path, file, header) = shard::open(&self.dir, index, self.rows())?;
        if (header.cols, header.dtype) != (self.cols, self.dtype) {
            // This is not damage but a shard of another study: a usage error, so that it is never
            // removed as damaged.
            return Err(Error::usage(format!(
                "{}: holds rows of {} {} values where {} {} are due; {REMEDY}",
                path.display(),
                header.cols,
                header.dtype.name(),
                self.cols,
                self.dtype.name()
            )));
        }
        if with_data && xxh3_64(&mapped::map_file(&file, &path)?[HEADER..]) != header.checksum {
            return Err(Error::file(path, "its data is damaged (checksum)"));
        }
        Ok(header.rows)
    }

    /// The number of rows that are safe on disk.
    pub fn rows(&self) -> usize {
        self.sealed.iter().sum()
    }

    /// The bytes of the shard in progress, which a crash would lose.
    pub fn pending_bytes(&self) -> usize {
        self.open_shard
            .as_ref()
            .map_or(0, |g| g.rows * self.cols * self.dtype.size())
    }

    /// Appends rows (row-major, a multiple of `cols` values) to the shard in progress, and seals it
    /// at about 64 MiB. After an error the shard in progress is lost; the sealed ones stay.
    ///
    /// # Errors
    /// [`Error::Usage`] for a part of a row, [`Error::Refused`] for a value beyond the range of a
    /// 2-byte dtype, [`Error::Io`].
    pub fn push(&mut self, rows: &[f32]) -> Result<()> {
        match self.to_two_bytes(rows) {
            Ok(Some(bits)) => self.push_stored(bytemuck::cast_slice(&bits)),
            Ok(None) => self.push_stored(bytemuck::cast_slice(rows)),
            Err(e) => {
                self.open_shard = None;
                Err(e)
            }
        }
    }

    /// Does the same as [`Self::push`] for rows whose values already have the cache's dtype, given
    /// as bytes.
    ///
    /// # Errors
    /// [`Error::Usage`] for a part of a row, [`Error::Io`].
    pub fn push_stored(&mut self, rows: &[u8]) -> Result<()> {
        let row = self.cols * self.dtype.size();
        if row == 0 || !rows.len().is_multiple_of(row) {
            return Err(Error::usage(format!(
                "{} values are no whole rows of {}",
                rows.len() / self.dtype.size(),
                self.cols
            )));
        }
        let mut rest = rows;
        while !rest.is_empty() {
            let rows_left = self.shard_rows - self.open_shard.as_ref().map_or(0, |g| g.rows);
            let (part, later) = rest.split_at((rows_left * row).min(rest.len()));
            if let Err(e) = self.append(part, part.len() / row) {
                self.open_shard = None;
                return Err(e);
            }
            if self
                .open_shard
                .as_ref()
                .is_some_and(|g| g.rows >= self.shard_rows)
            {
                self.seal()?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Writes rows to the shard in progress, which is started if there is none.
    fn append(&mut self, bytes: &[u8], rows: usize) -> Result<()> {
        if self.open_shard.is_none() {
            let mut file = NewFile::create(&shard::path_of(&self.dir, self.sealed.len()))?;
            file.write(&[0; HEADER])?;
            self.open_shard = Some(OpenShard {
                file,
                hash: Xxh3::new(),
                rows: 0,
            });
        }
        if let Some(open_shard) = &mut self.open_shard {
            open_shard.file.write(bytes)?;
            open_shard.hash.update(bytes);
            open_shard.rows += rows;
        }
        Ok(())
    }

    /// Converts the values to the bits of a 2-byte dtype; `None` for f32, which is written
    /// unchanged.
    fn to_two_bytes(&self, rows: &[f32]) -> Result<Option<Vec<u16>>> {
        if self.dtype == CacheDtype::F32 {
            return Ok(None);
        }
        let mut bits = vec![0u16; rows.len()];
        if self.dtype == CacheDtype::F16 {
            bytemuck::cast_slice_mut::<u16, f16>(&mut bits).convert_from_f32_slice(rows);
        } else {
            bytemuck::cast_slice_mut::<u16, bf16>(&mut bits).convert_from_f32_slice(rows);
        }
        // An exponent of all ones means infinity or NaN.
        let exponent = if self.dtype == CacheDtype::F16 {
            0x7c00
        } else {
            0x7f80
        };
        match bits
            .iter()
            .zip(rows)
            .position(|(b, v)| b & exponent == exponent && v.is_finite())
        {
            Some(at) => Err(self.dtype.too_large(rows[at], at % self.cols.max(1))),
            None => Ok(Some(bits)),
        }
    }

    /// Seals the shard in progress; its rows are safe when this returns.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written or renamed.
    pub fn seal(&mut self) -> Result<()> {
        let first_row = self.rows();
        let Some(mut open_shard) = self.open_shard.take() else {
            return Ok(());
        };
        let header = Header {
            dtype: self.dtype,
            cols: self.cols,
            rows: open_shard.rows,
            first_row,
            checksum: open_shard.hash.digest(),
        };
        open_shard.file.write_at_start(&header.encode())?;
        open_shard.file.commit()?;
        self.sealed.push(open_shard.rows);
        Ok(())
    }

    /// Removes every row from `rows` on: those that one cache has beyond the others after a crash.
    ///
    /// # Errors
    /// [`Error::File`] for a shard that is damaged, [`Error::Io`].
    pub fn truncate(&mut self, rows: usize) -> Result<()> {
        self.open_shard = None;
        while self.rows() > rows {
            let index = self.sealed.len() - 1;
            let first_row = self.rows() - self.sealed[index];
            let path = shard::path_of(&self.dir, index);
            if first_row < rows {
                self.truncate_shard(index, first_row, rows - first_row)?;
            } else {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                disk::sync_dir(&self.dir)?;
                self.sealed.pop();
            }
        }
        Ok(())
    }

    /// Replaces a shard by one with only its first `rows` rows.
    fn truncate_shard(&mut self, index: usize, first_row: usize, rows: usize) -> Result<()> {
        let (path, file, header) = shard::open(&self.dir, index, first_row)?;
        let map = mapped::map_file(&file, &path)?;
        if xxh3_64(&map[HEADER..]) != header.checksum {
            return Err(Error::file(
                path,
                format!("its data is damaged (checksum); {REMEDY}"),
            ));
        }
        let data = &map[HEADER..HEADER + rows * header.row_bytes()];
        let shorter = Header {
            rows,
            checksum: xxh3_64(data),
            ..header
        };
        let mut new = NewFile::create(&path)?;
        new.write(&shorter.encode())?;
        new.write(data)?;
        new.commit()?;
        self.sealed[index] = rows;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn with_shard_rows(mut self, rows: usize) -> Self {
        self.shard_rows = rows;
        self
    }
}
