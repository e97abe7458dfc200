//! `measured/<kind>-<key>.bin`: measurements of a model on a study's sentences and directions, one
//! record each, so that each is made only once.
//!
//! A file begins with a line that describes its subject, followed by records of one size: a number,
//! bytes, and their checksum. It only grows; an incomplete record is measured again. Knows nothing
//! of the meaning of the bytes. Invariant: a returned record is complete, and was measured for
//! exactly the subject in the first line. Records stay in the mapped file, since those of a large
//! set do not fit into memory.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapOptions};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::fits::check_name;
use super::{Study, lock};
use crate::disk::lock::LockAttempt;
use crate::disk::{self, human_bytes};
use crate::error::{Error, Result};

const DIR: &str = "measured";
/// Bytes of a record's number and checksum.
const FRAME: usize = 4 + 8;

/// The measurements of one kind for one subject.
#[derive(Debug)]
pub struct Measured {
    path: PathBuf,
    /// The first line of the file.
    first_line: Vec<u8>,
    /// The number of bytes of a record's contents.
    size: usize,
    /// The byte offset of each record's contents in the file.
    offsets: BTreeMap<u32, usize>,
    /// The file up to `end`.
    map: Option<Mmap>,
    /// Records that could not be saved, because another process has locked the study.
    unsaved: BTreeMap<u32, Vec<u8>>,
    /// The byte offset at which complete records end; 0 if there is no file yet.
    end: u64,
    /// The study's directory, which is locked for each write, if this process did not open the
    /// study for writing.
    lock_for_writes: Option<PathBuf>,
}

impl Study {
    /// Opens the measurements of `subject`, in records of `size` bytes; the name of the file begins
    /// with `kind`.
    ///
    /// # Errors
    /// [`Error::Usage`] for a `kind` that is no file name; [`Error::File`] for a file of another
    /// subject.
    pub fn measured(&self, kind: &str, subject: &Value, size: usize) -> Result<Measured> {
        let mut first_line = subject.to_string().into_bytes();
        let name = format!("{kind}-{:016x}.bin", xxh3_64(&first_line));
        check_name(&name)?;
        first_line.push(b'\n');
        let lock_for_writes = (!self.is_writable()).then(|| self.dir().to_path_buf());
        let mut out = Measured {
            path: self.dir().join(DIR).join(name),
            first_line,
            size,
            offsets: BTreeMap::new(),
            map: None,
            unsaved: BTreeMap::new(),
            end: 0,
            lock_for_writes,
        };
        out.read()?;
        Ok(out)
    }
}

impl Measured {
    /// Reads the records of the file, or those that were added since the last call.
    fn read(&mut self) -> Result<()> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                self.reset();
                return Ok(());
            }
            Err(e) => return Err(Error::io("read", &self.path)(e)),
        };
        let length = file
            .metadata()
            .map_err(Error::io("read", &self.path))?
            .len();
        if length < self.end {
            self.reset();
        }
        let map = map_file(&file, length, &self.path)?;
        let bytes: &[u8] = map.as_deref().unwrap_or_default();
        if !bytes.starts_with(&self.first_line) {
            return Err(Error::file(
                &self.path,
                "not what its name says: remove it, and it is measured again",
            ));
        }
        let mut at = (self.end as usize).max(self.first_line.len());
        for record in bytes[at..].chunks_exact(self.size + FRAME) {
            let (body, sum) = record.split_at(4 + self.size);
            if xxh3_64(body).to_le_bytes() != sum {
                break;
            }
            let id = u32::from_le_bytes([body[0], body[1], body[2], body[3]]);
            self.offsets.insert(id, at + 4);
            at += record.len();
        }
        self.end = at as u64;
        self.map = map_file(&file, self.end, &self.path)?;
        Ok(())
    }

    /// Forgets all records of a file that is gone or was replaced.
    fn reset(&mut self) {
        (self.offsets, self.map, self.end) = (BTreeMap::new(), None, 0);
    }

    /// The contents of a record; `None` if there is none with this number.
    pub fn get(&self, id: u32) -> Option<&[u8]> {
        if let Some(unsaved) = self.unsaved.get(&id) {
            return Some(unsaved);
        }
        let at = *self.offsets.get(&id)?;
        self.map.as_deref()?.get(at..at + self.size)
    }

    /// Whether there is a record with this number.
    pub fn has(&self, id: u32) -> bool {
        self.unsaved.contains_key(&id) || self.offsets.contains_key(&id)
    }

    /// Returns the bytes that `count` more records need, or an error if the disk has not enough
    /// space for them.
    ///
    /// # Errors
    /// [`Error::Refused`] with the numbers of bytes that are needed and free.
    pub fn check_space_for(&self, count: usize) -> Result<u64> {
        let need = (count as u64).saturating_mul((self.size + FRAME) as u64);
        let dir = disk::parent(disk::parent(&self.path));
        let free = disk::free_space(dir)?;
        if need <= free {
            return Ok(need);
        }
        Err(Error::refused(format!(
            "what is measured takes {} in {}, and {} is free there: take a set of fewer directions, or free space",
            human_bytes(need),
            dir.display(),
            human_bytes(free)
        )))
    }

    /// Adds records, each of the size that was given. A study that is open for reading is locked
    /// during the write; if another process has locked it, the records are only kept in memory and
    /// measured again next time.
    ///
    /// # Errors
    /// A file that cannot be written; [`Error::Usage`] for a record of another size.
    pub fn add(&mut self, new: Vec<(u32, Vec<u8>)>) -> Result<()> {
        if let Some((_, odd)) = new.iter().find(|(_, bytes)| bytes.len() != self.size) {
            let (size, length) = (self.size, odd.len());
            return Err(Error::usage(format!(
                "a record of {length} bytes among those of {size}"
            )));
        }
        let _lock = match &self.lock_for_writes {
            None => None,
            Some(dir) => match lock::try_acquire(dir) {
                Ok(LockAttempt::Acquired(lock)) => Some(lock),
                Ok(LockAttempt::HeldBy(_)) | Err(_) => {
                    self.unsaved.extend(new);
                    return Ok(());
                }
            },
        };
        if self.lock_for_writes.is_some() {
            // Another process may have added to it since it was read.
            self.read()?;
        }
        let fail = || Error::io("write", &self.path);
        disk::create_dir(disk::parent(&self.path))?;
        let mut file: File = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&self.path)
            .map_err(fail())?;
        let mut bytes = Vec::new();
        if self.end == 0 {
            bytes.extend_from_slice(&self.first_line);
        }
        for (id, body) in &new {
            let from = bytes.len();
            bytes.extend_from_slice(&id.to_le_bytes());
            bytes.extend_from_slice(body);
            let sum = xxh3_64(&bytes[from..]);
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        // An incomplete record that a killed writer left at the end is cut off.
        file.set_len(self.end).map_err(fail())?;
        file.seek(SeekFrom::Start(self.end)).map_err(fail())?;
        file.write_all(&bytes).map_err(fail())?;
        file.sync_data().map_err(fail())?;
        self.read()
    }
}

/// Maps the first `length` bytes of a file that only grows; `None` for none.
#[allow(unsafe_code)]
fn map_file(file: &File, length: u64, path: &Path) -> Result<Option<Mmap>> {
    if length == 0 {
        return Ok(None);
    }
    let mut options = MmapOptions::new();
    // SAFETY: the bytes of a mapping must not change or vanish while borrowed. Whole records are
    // never written again, and only what follows the last of them is cut off, under the study's
    // lock, by who has read the file under it. Someone who truncates the file by hand gets SIGBUS,
    // as with any mmap.
    let map = unsafe { options.len(length as usize).map(file) };
    Ok(Some(map.map_err(Error::io("map", path))?))
}

#[cfg(test)]
impl Measured {
    /// Records without a file.
    pub(crate) fn of_records(
        size: usize,
        records: impl IntoIterator<Item = (u32, Vec<u8>)>,
    ) -> Self {
        Self {
            path: PathBuf::new(),
            first_line: Vec::new(),
            size,
            offsets: BTreeMap::new(),
            map: None,
            unsaved: records.into_iter().collect(),
            end: 0,
            lock_for_writes: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn empty(path: PathBuf, head: &str) -> Measured {
        Measured {
            path,
            first_line: format!("{head}\n").into_bytes(),
            size: 3,
            offsets: BTreeMap::new(),
            map: None,
            unsaved: BTreeMap::new(),
            end: 0,
            lock_for_writes: None,
        }
    }

    #[test]
    fn what_was_measured_is_there_again_up_to_where_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("measured").join("x.bin");
        let about = json!({"kl": 0.25}).to_string();
        let open = || {
            let mut out = empty(path.clone(), &about);
            out.read().map(|()| out)
        };
        let mut first = open().unwrap();
        first.add(vec![(4, vec![1, 2, 3])]).unwrap();
        first
            .add(vec![(9, vec![4, 5, 6]), (2, vec![7, 8, 9])])
            .unwrap();
        assert!(first.add(vec![(1, vec![0])]).is_err());
        let again = open().unwrap();
        assert_eq!(again.get(9), Some(&[4, 5, 6][..]));
        assert!(again.has(2) && again.has(4) && !again.has(1));
        // Killed in the middle of the last record: it alone is gone, and the next goes to its place.
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let mut cut = open().unwrap();
        assert!(cut.has(9) && !cut.has(2));
        cut.add(vec![(2, vec![7, 8, 9])]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        // A damaged record and what follows it are measured again.
        let mut damaged = bytes.clone();
        damaged[bytes.len() - 20] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let rest = open().unwrap();
        assert!(rest.has(4) && !rest.has(9) && !rest.has(2));
        // Another subject's file under this name is refused.
        let error = empty(path, "something else").read().unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
    }

    #[test]
    fn a_study_open_for_reading_is_locked_for_the_moment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.bin");
        let open = || {
            let mut out = empty(path.clone(), "a");
            out.lock_for_writes = Some(dir.path().to_path_buf());
            out.read().map(|()| out)
        };
        let (mut one, mut other) = (open().unwrap(), open().unwrap());
        one.add(vec![(1, vec![0, 0, 1])]).unwrap();
        other.add(vec![(2, vec![0, 0, 2])]).unwrap();
        let held = lock::acquire(dir.path()).unwrap();
        other.add(vec![(3, vec![0, 0, 3])]).unwrap();
        assert!(other.has(3), "known where it was measured");
        drop(held);
        let again = open().unwrap();
        assert!(again.has(1) && again.has(2) && !again.has(3));
        // What one adds the other reads after what it has read, and from the front where another
        // file took its place.
        one.add(vec![(4, vec![0, 0, 4])]).unwrap();
        assert_eq!(one.get(2), Some(&[0, 0, 2][..]));
        let end = one.end;
        fs::remove_file(&path).unwrap();
        one.add(vec![(5, vec![0, 0, 5])]).unwrap();
        assert!(one.end < end && one.has(5) && !one.has(2));
    }

    #[test]
    fn records_that_the_disk_does_not_hold_are_refused_before_they_are_measured() {
        let dir = tempfile::tempdir().unwrap();
        let kept = empty(dir.path().join("measured").join("x.bin"), "a");
        assert_eq!(kept.check_space_for(2).unwrap(), 2 * (4 + 3 + 8));
        let error = kept.check_space_for(usize::MAX).unwrap_err();
        assert!(error.to_string().contains("is free there"), "{error}");
    }
}
