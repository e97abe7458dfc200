//! Writing the cache: a shard grows under a temporary name and is sealed by a rename.

use std::fs;
use std::path::{Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::shard::{self, HEADER, Header, REMEDY, SHARD_BYTES};
use super::{CacheDtype, mapped};
use crate::disk::{self, NewFile};
use crate::error::{Error, Result};

/// Writes one hook's rows as shards; a shard is complete (checksummed, renamed, fsynced) or absent.
/// The caller holds the only right to write in the directory.
pub struct CacheWriter {
    dir: PathBuf,
    cols: usize,
    dtype: CacheDtype,
    /// Rows of each sealed shard.
    sealed: Vec<usize>,
    growing: Option<Growing>,
    shard_rows: usize,
}

/// The shard in progress; its bytes are in a temporary file already.
struct Growing {
    file: NewFile,
    hash: Xxh3,
    rows: usize,
}

impl CacheWriter {
    /// Opens `dir` (made if absent) for appending rows of `cols` values after the complete shards
    /// that are there. A last shard that is torn (a disk that lied about fsync) is dropped; damage
    /// before it is an error that names the file.
    pub fn open(dir: &Path, cols: usize, dtype: CacheDtype) -> Result<Self> {
        disk::create_dir(dir)?;
        disk::remove_unfinished(dir)?;
        let shard_rows = (SHARD_BYTES / (cols * dtype.size()).max(1)).max(1);
        let mut writer = Self {
            dir: dir.to_path_buf(),
            cols,
            dtype,
            sealed: Vec::new(),
            growing: None,
            shard_rows,
        };
        let count = shard::indices(dir)?.last().map_or(0, |last| last + 1);
        for index in 0..count {
            match writer.check(index, index + 1 == count) {
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

    /// The rows of a shard on disk that continues the sealed ones.
    fn check(&self, index: usize, with_data: bool) -> Result<usize> {
        let (path, file, header) = shard::open(&self.dir, index, self.rows())?;
        if (header.cols, header.dtype) != (self.cols, self.dtype) {
            // Not damage: another study's shard. Usage, so that it is never dropped as torn.
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

    /// Rows that are safe on disk.
    pub fn rows(&self) -> usize {
        self.sealed.iter().sum()
    }

    /// Bytes of the shard in progress.
    pub fn pending_bytes(&self) -> usize {
        self.growing
            .as_ref()
            .map_or(0, |g| g.rows * self.cols * self.dtype.size())
    }

    /// Adds rows (row-major, a multiple of `cols`) to the shard in progress; seals it by itself at
    /// about 64 MiB. A value beyond the range of a 2-byte dtype is refused. After an error the
    /// shard in progress is lost, the sealed stay.
    pub fn push(&mut self, rows: &[f32]) -> Result<()> {
        if self.cols == 0 || !rows.len().is_multiple_of(self.cols) {
            return Err(Error::usage(format!(
                "{} values are no whole rows of {}",
                rows.len(),
                self.cols
            )));
        }
        let mut rest = rows;
        while !rest.is_empty() {
            let room = self.shard_rows - self.growing.as_ref().map_or(0, |g| g.rows);
            let (now, later) = rest.split_at((room * self.cols).min(rest.len()));
            if let Err(e) = self.grow(now) {
                self.growing = None;
                return Err(e);
            }
            if self
                .growing
                .as_ref()
                .is_some_and(|g| g.rows >= self.shard_rows)
            {
                self.seal()?;
            }
            rest = later;
        }
        Ok(())
    }

    fn grow(&mut self, rows: &[f32]) -> Result<()> {
        let narrowed = self.narrow(rows)?;
        let bytes = narrowed
            .as_deref()
            .map_or(bytemuck::cast_slice(rows), bytemuck::cast_slice);
        if self.growing.is_none() {
            let mut file = NewFile::create(&shard::path_of(&self.dir, self.sealed.len()))?;
            file.write(&[0; HEADER])?;
            self.growing = Some(Growing {
                file,
                hash: Xxh3::new(),
                rows: 0,
            });
        }
        if let Some(growing) = &mut self.growing {
            growing.file.write(bytes)?;
            growing.hash.update(bytes);
            growing.rows += rows.len() / self.cols;
        }
        Ok(())
    }

    /// The bits of a 2-byte dtype; `None` for f32, which is written as it is.
    fn narrow(&self, rows: &[f32]) -> Result<Option<Vec<u16>>> {
        let mut bits = vec![
            0u16;
            if self.dtype == CacheDtype::F32 {
                0
            } else {
                rows.len()
            }
        ];
        match self.dtype {
            CacheDtype::F32 => return Ok(None),
            CacheDtype::F16 => {
                bytemuck::cast_slice_mut::<u16, f16>(&mut bits).convert_from_f32_slice(rows)
            }
            CacheDtype::Bf16 => {
                bytemuck::cast_slice_mut::<u16, bf16>(&mut bits).convert_from_f32_slice(rows)
            }
        }
        // Exponent all ones: infinity or NaN.
        let exponent = if self.dtype == CacheDtype::F16 {
            0x7c00
        } else {
            0x7f80
        };
        if let Some(at) = bits
            .iter()
            .zip(rows)
            .position(|(b, v)| b & exponent == exponent && v.is_finite())
        {
            return Err(Error::refused(format!(
                "the activation {} of neuron {} is beyond the range of {}: collect with --dtype f32",
                rows[at],
                at % self.cols,
                self.dtype.name()
            )));
        }
        Ok(Some(bits))
    }

    /// Seals the shard in progress; its rows are safe once this returns.
    pub fn seal(&mut self) -> Result<()> {
        let first_row = self.rows();
        let Some(mut growing) = self.growing.take() else {
            return Ok(());
        };
        let header = Header {
            dtype: self.dtype,
            cols: self.cols,
            rows: growing.rows,
            first_row,
            checksum: growing.hash.digest(),
        };
        growing.file.write_at_start(&header.encode())?;
        growing.file.commit()?;
        self.sealed.push(growing.rows);
        Ok(())
    }

    /// Drops every row from `rows` on: what one cache has beyond the others after a kill.
    pub fn truncate(&mut self, rows: usize) -> Result<()> {
        self.growing = None;
        while self.rows() > rows {
            let index = self.sealed.len() - 1;
            let first_row = self.rows() - self.sealed[index];
            let path = shard::path_of(&self.dir, index);
            if first_row < rows {
                self.shorten(index, first_row, rows - first_row)?;
            } else {
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                disk::sync_dir(&self.dir)?;
                self.sealed.pop();
            }
        }
        Ok(())
    }

    /// Replaces a shard by one of its first `keep` rows.
    fn shorten(&mut self, index: usize, first_row: usize, keep: usize) -> Result<()> {
        let (path, file, header) = shard::open(&self.dir, index, first_row)?;
        let map = mapped::map_file(&file, &path)?;
        if xxh3_64(&map[HEADER..]) != header.checksum {
            return Err(Error::file(
                path,
                format!("its data is damaged (checksum); {REMEDY}"),
            ));
        }
        let data = &map[HEADER..HEADER + keep * header.row_bytes()];
        let shorter = Header {
            rows: keep,
            checksum: xxh3_64(data),
            ..header
        };
        let mut new = NewFile::create(&path)?;
        new.write(&shorter.encode())?;
        new.write(data)?;
        new.commit()?;
        self.sealed[index] = keep;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn with_shard_rows(mut self, rows: usize) -> Self {
        self.shard_rows = rows;
        self
    }
}
