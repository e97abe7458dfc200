//! Named arrays of one file, read one at a time: `.safetensors`, NumPy's `.npz`, and what
//! `torch.save` writes.
//!
//! `.npz` is a zip of `.npy` files:
//! <https://numpy.org/doc/stable/reference/generated/numpy.savez.html>.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::read::ZipFile;

use super::{npy, tensors, torch};
use crate::error::{Error, Result};

/// The greatest compression ratio of DEFLATE (<https://zlib.net/zlib_tech.html>): an entry that
/// claims more is damaged.
const MAX_INFLATION: u64 = 1032;

/// A file of named arrays.
pub struct Archive {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Safetensors(BufReader<File>, tensors::Header),
    Npz(Box<ZipArchive<BufReader<File>>>),
    Torch(Box<ZipArchive<BufReader<File>>>, torch::Index),
}

/// What a zip begins with.
const ZIP: [u8; 4] = *b"PK\x03\x04";
/// What files of torch before version 1.6 begin with, and pickles of any kind.
const PICKLE: u8 = 0x80;

impl Archive {
    /// Opens a zip as `.npz` or as what `torch.save` wrote, and any other file as safetensors.
    ///
    /// # Errors
    /// A file that cannot be read, or that is not complete.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let mut file = BufReader::new(file);
        let mut start = [0; 9];
        let read = file.read(&mut start).map_err(Error::io("read", path))?;
        file.rewind().map_err(Error::io("read", path))?;
        let is_npz = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("npz"));
        let kind = if start.starts_with(&ZIP) || is_npz {
            let mut zip = ZipArchive::new(file).map_err(|e| {
                let kind = if is_npz { ".npz file" } else { "archive" };
                Error::file(path, format!("is not a whole {kind} ({e})"))
            })?;
            match torch::is_torch(&zip) {
                true => {
                    let index = torch::Index::read(&mut zip, path)?;
                    Kind::Torch(Box::new(zip), index)
                }
                false => Kind::Npz(Box::new(zip)),
            }
        } else if read == 9 && start[0] == PICKLE && (2..=5).contains(&start[1]) && start[8] != b'{'
        {
            // A header of safetensors may be as long as these two bytes say, and then begins.
            return Err(Error::file(
                path,
                "is a pickle on its own, as of torch before 1.6, and not read: save it again with torch.save, or as safetensors",
            ));
        } else {
            let header = tensors::Header::read(&mut file, length, path)?;
            Kind::Safetensors(file, header)
        };
        Ok(Self {
            path: path.to_path_buf(),
            kind,
        })
    }

    /// The path that the archive was opened with.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all arrays, in no particular order.
    pub fn names(&self) -> Vec<String> {
        match &self.kind {
            Kind::Safetensors(_, header) => header.names().map(str::to_owned).collect(),
            Kind::Torch(_, index) => index.names().map(str::to_owned).collect(),
            Kind::Npz(zip) => {
                let plain = |name: &str| name.strip_suffix(".npy").unwrap_or(name).to_owned();
                zip.file_names()
                    .flatten()
                    .map(|name| plain(&name))
                    .collect()
            }
        }
    }

    /// Whether there is an array of this name.
    pub fn has(&self, name: &str) -> bool {
        self.names().iter().any(|n| n == name)
    }

    /// A string that was saved beside the arrays (not of npz).
    pub fn metadata(&self, key: &str) -> Option<&str> {
        match &self.kind {
            Kind::Safetensors(_, header) => header.metadata.get(key).map(String::as_str),
            Kind::Torch(_, index) => index.metadata.get(key).map(String::as_str),
            Kind::Npz(_) => None,
        }
    }

    /// The extents of an array, outermost first.
    ///
    /// # Errors
    /// No array of this name (those that exist are listed), or one whose header is broken.
    pub fn shape(&mut self, name: &str) -> Result<Vec<u64>> {
        if !self.has(name) {
            return Err(self.missing(name));
        }
        let inside = self.path.join(name);
        match &mut self.kind {
            Kind::Safetensors(_, header) => Ok(header.shape(name).unwrap_or_default().to_vec()),
            Kind::Torch(_, index) => Ok(index.shape(name).unwrap_or_default().to_vec()),
            Kind::Npz(zip) => {
                let (entry, length) = entry(zip, &self.path, name)?;
                npy::read_shape(entry, length, &inside)
            }
        }
    }

    /// An array of exactly this shape as row-major f32, every value finite.
    ///
    /// # Errors
    /// No such array, another shape, a type that cannot be read, or a value that is not finite.
    pub fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let found = self.shape(name)?;
        if !found
            .iter()
            .map(|&s| usize::try_from(s).ok())
            .eq(shape.iter().map(|&s| Some(s)))
        {
            return Err(Error::file(
                &self.path,
                format!("tensor '{name}' is {found:?} where {shape:?} is due"),
            ));
        }
        let inside = self.path.join(name);
        let values = match &mut self.kind {
            Kind::Safetensors(input, header) => header.values(input, &self.path, name)?,
            Kind::Torch(zip, index) => index.values(zip, &self.path, name)?,
            Kind::Npz(zip) => {
                let (entry, length) = entry(zip, &self.path, name)?;
                npy::read_array(entry, length, &inside)?.1
            }
        };
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => {
                let problem = format!(
                    "tensor '{name}' holds {} (value {at}): every one must be finite",
                    values[at]
                );
                Err(Error::file(&self.path, problem))
            }
            None => Ok(values),
        }
    }

    fn missing(&self, name: &str) -> Error {
        let mut names = self.names();
        names.sort();
        names.truncate(12);
        Error::file(
            &self.path,
            format!("has no tensor '{name}'; it has {}", names.join(", ")),
        )
    }
}

/// An array's file in the zip, and the greatest length that it can have: the one that it claims, or
/// what its compressed bytes can inflate to.
fn entry<'z>(
    zip: &'z mut ZipArchive<BufReader<File>>,
    path: &Path,
    name: &str,
) -> Result<(ZipFile<'z, BufReader<File>>, u64)> {
    let file = format!("{name}.npy");
    let whole = std::fs::metadata(path)
        .map_err(Error::io("read", path))?
        .len();
    let entry = zip
        .by_name(&file)
        .map_err(|e| Error::file(path, format!("'{file}' cannot be read ({e})")))?;
    let most = entry
        .compressed_size()
        .min(whole)
        .saturating_mul(MAX_INFLATION);
    let length = entry.size().min(most);
    Ok((entry, length))
}
