//! The file format of a fit's checkpoints: magic, format version, length of a JSON header, the header,
//! arrays of numbers, and the xxh3 hash of all bytes before it; little-endian, written completely or
//! not at all ([`NewFile`]). Knows nothing of what the arrays mean.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::Xxh3;

use crate::disk::NewFile;
use crate::error::{Error, Result};

/// The longest header that is read: the length in a damaged file could be any number.
const HEADER_BYTES: u64 = 64 << 20;
/// Bytes that are hashed and written together, so that they are still in the processor's cache for
/// the second step.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of the magic, the version and the length of the header.
const PREAMBLE_BYTES: usize = 20;
/// Bytes of the hash.
const DIGEST_BYTES: u64 = 8;

/// A kind of file in this format.
pub(super) struct FileKind {
    pub(super) magic: [u8; 8],
    pub(super) version: u32,
    /// The name of this kind of file in error messages.
    pub(super) name: &'static str,
}

impl FileKind {
    /// Whether the file at `path` begins with this kind's magic.
    pub(super) fn matches(&self, path: &Path) -> bool {
        let mut start = [0; 8];
        File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok())
            && start == self.magic
    }
}

/// Writes a file that replaces the one at its path when it is committed.
pub(super) struct Writer {
    out: NewFile,
    hash: Xxh3,
}

impl Writer {
    /// Starts a file of `kind` with its preamble and header.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created or written.
    pub(super) fn create(path: &Path, kind: &FileKind, header: &impl Serialize) -> Result<Self> {
        let json = serde_json::to_vec(header)
            .map_err(|e| Error::file(path, format!("cannot be written: {e}")))?;
        let mut writer = Self {
            out: NewFile::create(path)?,
            hash: Xxh3::new(),
        };
        writer.write_array(&kind.magic)?;
        writer.write_array(&kind.version.to_le_bytes())?;
        writer.write_array(&(json.len() as u64).to_le_bytes())?;
        writer.write_array(&json)?;
        Ok(writer)
    }

    /// Appends the values of one array.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub(super) fn write_array<V: bytemuck::NoUninit>(&mut self, values: &[V]) -> Result<()> {
        bytemuck::cast_slice(values)
            .chunks(CHUNK_BYTES)
            .try_for_each(|bytes| {
                self.hash.update(bytes);
                self.out.write(bytes)
            })
    }

    /// Appends the hash and makes the file safe under its name.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written or renamed.
    pub(super) fn commit(mut self) -> Result<()> {
        let digest = self.hash.digest();
        self.write_array(&digest.to_le_bytes())?;
        self.out.commit()
    }
}

/// Reads a file after its header.
pub(super) struct Reader {
    path: PathBuf,
    input: BufReader<File>,
    hash: Xxh3,
    /// Bytes of arrays between the header and the hash.
    body: u64,
}

impl Reader {
    /// Opens a file of `kind` and reads its header.
    ///
    /// # Errors
    /// [`Error::File`] for a file of another kind or version, for one that is truncated, and for a header
    /// that is not an `H`; [`Error::Io`].
    pub(super) fn open<H: DeserializeOwned>(path: &Path, kind: &FileKind) -> Result<(Self, H)> {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let size = file.metadata().map_err(Error::io("read", path))?.len();
        let input = BufReader::with_capacity(CHUNK_BYTES, file);
        let mut reader = Self {
            path: path.to_path_buf(),
            input,
            hash: Xxh3::new(),
            body: size,
        };
        let mut start = [0u8; PREAMBLE_BYTES];
        reader.read_into(&mut start)?;
        if start[..8] != kind.magic {
            return Err(reader.error(&format!("not a {}", kind.name)));
        }
        let version = u32::from_le_bytes([start[8], start[9], start[10], start[11]]);
        if version != kind.version {
            let (name, own) = (kind.name, kind.version);
            return Err(reader.error(&format!(
                "a {name} of format {version}, and this version reads format {own}"
            )));
        }
        let mut length = [0u8; 8];
        length.copy_from_slice(&start[12..]);
        let length = u64::from_le_bytes(length);
        let body = size
            .checked_sub(PREAMBLE_BYTES as u64 + DIGEST_BYTES)
            .and_then(|rest| rest.checked_sub(length));
        let Some(body) = body.filter(|_| length <= HEADER_BYTES) else {
            return Err(reader.error("the checkpoint is truncated or damaged"));
        };
        let mut json = vec![0; length as usize];
        reader.read_into(&mut json)?;
        reader.body = body;
        let header = serde_json::from_slice(&json)
            .map_err(|_| reader.error("the checkpoint's header is damaged"))?;
        Ok((reader, header))
    }

    /// An error about this file, whose message ends with what the user can do.
    pub(super) fn error(&self, problem: &str) -> Error {
        Error::file(
            &self.path,
            format!("{problem}; delete it to start the fit anew"),
        )
    }

    /// Checks that the arrays which the header announces are exactly as long as the file's body, before
    /// memory is allocated for them.
    ///
    /// # Errors
    /// [`Error::File`] if they are not.
    pub(super) fn expect_bytes(&self, bytes: Option<u64>) -> Result<()> {
        if bytes == Some(self.body) {
            Ok(())
        } else {
            Err(self.error("the checkpoint is truncated or damaged"))
        }
    }

    /// Reads the next bytes into `bytes`.
    ///
    /// # Errors
    /// [`Error::File`] if the file ends before.
    pub(super) fn read_into(&mut self, bytes: &mut [u8]) -> Result<()> {
        for bytes in bytes.chunks_mut(CHUNK_BYTES) {
            self.input
                .read_exact(bytes)
                .map_err(|_| self.error("the checkpoint is truncated"))?;
            self.hash.update(bytes);
        }
        Ok(())
    }

    /// Reads the next `length` values.
    ///
    /// # Errors
    /// [`Error::File`] if the file ends before.
    pub(super) fn read_array<V: bytemuck::Pod>(&mut self, length: usize) -> Result<Vec<V>> {
        let mut out = vec![V::zeroed(); length];
        self.read_into(bytemuck::cast_slice_mut(&mut out))?;
        Ok(out)
    }

    /// Checks the hash after the last array. `values_valid` says whether the caller found the
    /// values valid; if not, the file is refused as damaged too.
    ///
    /// # Errors
    /// [`Error::File`] if the hash does not match or the values are not valid.
    pub(super) fn finish(mut self, values_valid: bool) -> Result<()> {
        let digest = self.hash.digest();
        let mut sum = [0u8; DIGEST_BYTES as usize];
        self.input
            .read_exact(&mut sum)
            .map_err(|_| self.error("the checkpoint is truncated"))?;
        if u64::from_le_bytes(sum) != digest || !values_valid {
            return Err(self.error("the checkpoint is damaged: its checksum does not match"));
        }
        Ok(())
    }
}
