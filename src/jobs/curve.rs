//! The curve that a fit or a training leaves on disk while it goes on: a JSON object a line.
//!
//! Knows not what a point is. Invariant: a line that a kill cut off ends the curve and is no error.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk;
use crate::error::{Error, Result};

/// A curve that is being written.
pub(crate) struct Curve<'p> {
    path: &'p Path,
    file: File,
}

impl<'p> Curve<'p> {
    /// A curve that begins with these points: none, or those up to the checkpoint that is gone on
    /// from.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn begin<T: Serialize>(path: &'p Path, before: &[T]) -> Result<Self> {
        disk::write_atomic(path, before.iter().map(line).collect::<String>().as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(Error::io("open", path))?;
        Ok(Self { path, file })
    }

    /// Adds a point at the end, as a line that is on disk before this returns.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn append<T: Serialize>(&mut self, point: &T) -> Result<()> {
        self.file
            .write_all(line(point).as_bytes())
            .map_err(Error::io("append to", self.path))
    }
}

/// Plain numbers are always JSON.
fn line<T: Serialize>(point: &T) -> String {
    serde_json::to_string(point).unwrap_or_default() + "\n"
}

/// The points of a curve as far as they were written whole and `wanted`: what came after a
/// checkpoint comes again. Without a file there are none.
pub(crate) fn read<T: DeserializeOwned>(
    path: &Path,
    wanted: impl Fn(&T) -> bool,
) -> Result<Vec<T>> {
    let text = match fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let whole = text
        .lines()
        .map_while(|line| serde_json::from_str::<T>(line).ok());
    Ok(whole.take_while(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_on_after_its_checkpoint_and_ends_where_a_kill_cut_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss.jsonl");
        let all = |path: &Path| read::<u32>(path, |_| true).unwrap();
        assert!(all(&path).is_empty(), "no file, no points");
        let mut curve = Curve::begin::<u32>(&path, &[]).unwrap();
        (1..=5).for_each(|point| curve.append(&point).unwrap());
        let before = read::<u32>(&path, |&point| point <= 3).unwrap();
        let mut curve = Curve::begin(&path, &before).unwrap();
        curve.append(&40).unwrap();
        assert_eq!(all(&path), [1, 2, 3, 40]);
        fs::write(&path, b"1\n2\n{\"cut\": \xff").unwrap();
        assert_eq!(all(&path), [1, 2]);
        assert!(
            read::<u32>(dir.path(), |_| true).is_err(),
            "a directory is no curve"
        );
    }
}
