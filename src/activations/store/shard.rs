//! One shard: its name, its 64-byte header, and the list of a directory's shards.
//!
//! | bytes | little-endian |
//! | --- | --- |
//! | 0..8 | magic `MLPKROWS` |
//! | 8..12 | version, u32 |
//! | 12..16 | dtype, u32: 0 f32, 1 f16, 2 bf16 |
//! | 16..24 | values a row, u64 |
//! | 24..32 | rows, u64 |
//! | 32..40 | number of the first row in the cache, u64 |
//! | 40..48 | xxh3-64 of the data |
//! | 48..56 | 0 |
//! | 56..64 | xxh3-64 of bytes 0..56 |
//! | 64.. | rows × values |

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::CacheDtype;
use crate::error::{Error, Result};

/// The bytes of a header.
pub(super) const HEADER: usize = 64;
/// A shard is sealed when it has grown to this many bytes: a crash loses no more than that, and a
/// directory has few files.
pub(super) const SHARD_BYTES: usize = 64 << 20;
const MAGIC: &[u8; 8] = b"MLPKROWS";
const VERSION: u32 = 1;

/// The remedy for a shard that cannot be used, in error messages.
pub(super) const REMEDY: &str = "restore it, or delete it and every later shard beside it and run the same collect again, which goes on from there";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub dtype: CacheDtype,
    pub cols: usize,
    pub rows: usize,
    pub first_row: usize,
    pub checksum: u64,
}

impl Header {
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let dtype: u32 = match self.dtype {
            CacheDtype::F32 => 0,
            CacheDtype::F16 => 1,
            CacheDtype::Bf16 => 2,
        };
        out[12..16].copy_from_slice(&dtype.to_le_bytes());
        out[16..24].copy_from_slice(&(self.cols as u64).to_le_bytes());
        out[24..32].copy_from_slice(&(self.rows as u64).to_le_bytes());
        out[32..40].copy_from_slice(&(self.first_row as u64).to_le_bytes());
        out[40..48].copy_from_slice(&self.checksum.to_le_bytes());
        let own = xxh3_64(&out[..56]);
        out[56..].copy_from_slice(&own.to_le_bytes());
        out
    }

    /// Decodes a header.
    ///
    /// # Errors
    /// A phrase that says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Some(bytes) = bytes.get(..HEADER) else {
            return Err(format!(
                "truncated: {} bytes, shorter than a header",
                bytes.len()
            ));
        };
        if &bytes[..8] != MAGIC {
            return Err("not a shard of mlpeek".to_owned());
        }
        if xxh3_64(&bytes[..56]) != u64_at(bytes, 56) {
            return Err("its header is damaged (checksum)".to_owned());
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(format!(
                "shard version {version}; this mlpeek reads version {VERSION}"
            ));
        }
        let dtype = match u32_at(bytes, 12) {
            0 => CacheDtype::F32,
            1 => CacheDtype::F16,
            2 => CacheDtype::Bf16,
            other => return Err(format!("unknown dtype number {other}")),
        };
        let number = |at: usize| {
            usize::try_from(u64_at(bytes, at)).map_err(|_| "its header is damaged".to_owned())
        };
        let header = Self {
            dtype,
            cols: number(16)?,
            rows: number(24)?,
            first_row: number(32)?,
            checksum: u64_at(bytes, 40),
        };
        if header.data_len().is_none()
            || header.cols == 0
            || header.first_row.checked_add(header.rows).is_none()
        {
            return Err("its header is damaged (impossible size)".to_owned());
        }
        Ok(header)
    }

    /// The bytes of data after the header; `None` if they overflow.
    pub fn data_len(&self) -> Option<usize> {
        self.rows
            .checked_mul(self.cols)?
            .checked_mul(self.dtype.size())
            .filter(|n| n.checked_add(HEADER).is_some())
    }

    pub fn row_bytes(&self) -> usize {
        self.cols * self.dtype.size()
    }
}

/// Whether the bytes begin with an undamaged header that another version of mlpeek wrote.
fn is_other_version(bytes: &[u8]) -> bool {
    bytes.get(..HEADER).is_some_and(|bytes| {
        &bytes[..8] == MAGIC
            && xxh3_64(&bytes[..56]) == u64_at(bytes, 56)
            && u32_at(bytes, 8) != VERSION
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

/// The path of the shard `index` in `dir`.
pub(super) fn path_of(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("shard-{index:06}.rows"))
}

/// The indices of the shards in `dir`, ascending; files with other names are ignored.
pub(super) fn indices(dir: &Path) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let name = entry.map_err(Error::io("read", dir))?.file_name();
        let name = name.to_string_lossy();
        let digits = name
            .strip_prefix("shard-")
            .and_then(|n| n.strip_suffix(".rows"));
        if let Some(index) = digits.and_then(|d| d.parse::<u32>().ok()) {
            found.push(index as usize);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Opens the shard `index` and checks its header, its length, and that it starts at `first_row`.
pub(super) fn open(dir: &Path, index: usize, first_row: usize) -> Result<(PathBuf, File, Header)> {
    let path = path_of(dir, index);
    let wrong = |problem: String| Error::file(&path, format!("{problem}; {REMEDY}"));
    if !path.exists() {
        return Err(wrong("this shard is missing".to_owned()));
    }
    let mut file = File::open(&path).map_err(Error::io("open", &path))?;
    let len = file.metadata().map_err(Error::io("read", &path))?.len();
    let mut head = Vec::with_capacity(HEADER);
    file.by_ref()
        .take(HEADER as u64)
        .read_to_end(&mut head)
        .map_err(Error::io("read", &path))?;
    if is_other_version(&head) {
        // This is no damage: a usage error, so that the writer never removes the shard.
        let found = u32_at(&head, 8);
        return Err(Error::usage(format!(
            "{}: shard version {found}; this mlpeek reads version {VERSION}",
            path.display()
        )));
    }
    let header = Header::decode(&head).map_err(wrong)?;
    let expected = (HEADER + header.data_len().unwrap_or(0)) as u64;
    if len != expected {
        let what = if len < expected {
            "truncated"
        } else {
            "too long"
        };
        return Err(wrong(format!(
            "{what}: {len} bytes where its header says {expected}"
        )));
    }
    if header.first_row != first_row {
        return Err(wrong(format!(
            "starts at row {} where row {first_row} is due",
            header.first_row
        )));
    }
    Ok((path, file, header))
}
