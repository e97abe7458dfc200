//! `layers/<command>-<key>.json`: what a command over several layers came to at one of them, so that the
//! same command goes on where it was stopped.
//!
//! A file is two lines: of what it is, with the checksum of the second; and the result. Knows nothing of
//! what a result means. Invariant: a result that is given back is whole, and was made of exactly what the
//! first line says.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::fit_file::CONFIG;
use super::fits::check_name;
use super::saes::ABOUT;
use super::{Study, lock};
use crate::disk;
use crate::disk::lock::LockAttempt;
use crate::error::{Error, Result};

const DIR: &str = "layers";

/// A result that may be there.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    about: Value,
    study: PathBuf,
    /// Whether this process has the study for writing.
    owned: bool,
}

/// What was found of a kept result.
#[derive(Debug, PartialEq)]
pub enum Found<T> {
    /// It is there, and whole.
    Whole(T),
    /// A file is there that is torn, changed or of another version.
    Damaged,
    /// Nothing is there.
    Nothing,
}

impl Study {
    /// The result that `command` comes to of `about`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a command that is no file name.
    pub fn kept(&self, command: &str, about: Value) -> Result<Kept> {
        let key = xxh3_64(about.to_string().as_bytes());
        let name = format!("{command}-{key:016x}.json");
        check_name(&name)?;
        Ok(Kept {
            path: self.dir().join(DIR).join(name),
            about,
            study: self.dir().to_path_buf(),
            owned: self.is_writable(),
        })
    }
}

impl Study {
    /// Of what a fit holds: its record has the checksums of its factors.
    ///
    /// # Errors
    /// A fit that is not there.
    pub fn fit_digest(&self, name: &str) -> Result<String> {
        self.record_digest(&self.fits_root().join(name).join(CONFIG))
    }

    /// The same of an autoencoder.
    ///
    /// # Errors
    /// One that is not there.
    pub fn sae_digest(&self, name: &str) -> Result<String> {
        self.record_digest(&self.saes_root().join(name).join(ABOUT))
    }

    fn record_digest(&self, path: &Path) -> Result<String> {
        let bytes = disk::read_regular(path).map_err(Error::io("read", path))?;
        Ok(checksum(&bytes))
    }
}

impl Kept {
    /// Where it is, or would be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is there.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Found<T>> {
        let bytes = match disk::read_regular(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
            // What cannot be read is measured again, as what was torn is.
            Err(_) => return Ok(Found::Damaged),
        };
        Ok(self.parse(&bytes).map_or(Found::Damaged, Found::Whole))
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Option<T> {
        let mut lines = bytes.split(|&b| b == b'\n');
        let (head, result) = (lines.next()?, lines.next()?);
        let head: Value = serde_json::from_slice(head).ok()?;
        let same = head["about"] == self.about && head["xxh3"] == checksum(result);
        serde_json::from_slice(result).ok().filter(|_| same)
    }

    /// Keeps a result; says where it could not, because another process has the study.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, result: &impl Serialize) -> Result<Option<String>> {
        // For this file alone: the process that computes for minutes does not hold the study.
        let _lock = match self.owned {
            true => None,
            false => match lock::try_acquire(&self.study) {
                Ok(LockAttempt::Acquired(lock)) => Some(lock),
                Ok(LockAttempt::HeldBy(holder)) => {
                    return Ok(Some(format!("{holder} has the study")));
                }
                Err(e) => return Ok(Some(e.to_string())),
            },
        };
        let failed = |e| Error::file(&self.path, format!("cannot be written: {e}"));
        let result = serde_json::to_vec(result).map_err(failed)?;
        let head = json!({"about": self.about, "xxh3": checksum(&result)});
        let mut bytes = head.to_string().into_bytes();
        bytes.push(b'\n');
        bytes.extend(result);
        bytes.push(b'\n');
        disk::create_dir(disk::parent(&self.path))?;
        disk::write_atomic(&self.path, &bytes)?;
        Ok(None)
    }
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}
