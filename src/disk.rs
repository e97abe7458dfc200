//! Files that are complete or absent: temporary file, fsync, rename, fsync of the directory.
//!
//! Knows nothing of what it writes. Invariant: at any instant, and after a crash at any instant, a
//! path given to [`NewFile::commit`] or [`write_atomic`] holds either the old content or the
//! complete new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;

use crate::error::{Error, Result};

pub mod lock;
pub mod scratch;

/// The prefix of the names of unfinished files; readers ignore them, and the next writer removes
/// them.
pub const TMP_PREFIX: &str = ".tmp-";

/// Distinguishes the unfinished files of one process, two threads of which may write the same
/// target.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// A file that is written under a temporary name beside its target; it is deleted if it is dropped
/// without [`NewFile::commit`].
#[derive(Debug)]
pub struct NewFile {
    target: PathBuf,
    tmp: PathBuf,
    file: Option<File>,
}

impl NewFile {
    /// Starts the new content of `target`, whose directory must exist. If `target` is a link to a
    /// file, that file gets the content and the link stays.
    ///
    /// # Errors
    /// [`Error::Refused`] for a pipe, a socket or a device, which a rename would replace;
    /// [`Error::Io`] if the temporary file cannot be created.
    pub fn create(target: &Path) -> Result<Self> {
        let target = &replaceable(target)?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let tmp = target.with_file_name(format!(
            "{TMP_PREFIX}{}-{number}-{name}",
            std::process::id()
        ));
        // The error names the target, since the user does not know of the temporary file.
        let file = File::create(&tmp).map_err(Error::io("write", target))?;
        Ok(Self {
            target: target.clone(),
            tmp,
            file: Some(file),
        })
    }

    /// Appends bytes to the content.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let target = &self.target;
        let Some(file) = self.file.as_mut() else {
            return Ok(());
        };
        fault::check(bytes.len())
            .and_then(|()| file.write_all(bytes))
            .map_err(Error::io("write", target))
    }

    /// Overwrites the first bytes of the content, for a header that is known only at the end.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be written.
    pub fn write_at_start(&mut self, bytes: &[u8]) -> Result<()> {
        let target = self.target.clone();
        if let Some(file) = self.file.as_mut() {
            file.seek(SeekFrom::Start(0))
                .map_err(Error::io("write", &target))?;
        }
        self.write(bytes)
    }

    /// Makes the content durable and renames the file to its target.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be synced or renamed; the old content then stays.
    pub fn commit(mut self) -> Result<()> {
        if let Some(file) = self.file.take() {
            fault::check(0)
                .and_then(|()| file.sync_all())
                .map_err(Error::io("write", &self.target))?;
        }
        fs::rename(&self.tmp, &self.target).map_err(Error::io("write", &self.target))?;
        // After the rename there is nothing left for drop to remove.
        self.tmp = PathBuf::new();
        sync_dir(parent(&self.target))
    }
}

/// The same as [`NewFile::write`], with errors of the operating system.
impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fault::check(bytes.len())?;
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for NewFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.as_mut().map_or(Ok(0), |file| file.seek(to))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.tmp.as_os_str().is_empty() {
            // Best effort: a file that stays is removed by the next writer.
            let _ = fs::remove_file(&self.tmp);
        }
    }
}

/// Expands a leading `~` of a path that the user typed to the home directory.
pub fn expand_home(typed: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match typed
        .strip_prefix('~')
        .map(|rest| (home(), rest.trim_start_matches('/')))
    {
        Some((Some(home), rest)) if typed == "~" || typed.starts_with("~/") => home.join(rest),
        _ => PathBuf::from(typed),
    }
}

/// Refuses a path that [`NewFile`] would refuse, before work is done whose result could not be
/// saved.
///
/// # Errors
/// What [`NewFile::create`] returns; [`Error::Io`] if the directory does not exist.
pub fn check_replaceable(target: &Path) -> Result<()> {
    fs::metadata(parent(&replaceable(target)?))
        .map(drop)
        .map_err(Error::io("write", target))
}

/// Reads a regular file. Anything else is refused, since reading a pipe could wait forever.
///
/// # Errors
/// Errors of the operating system; [`io::ErrorKind::InvalidInput`] for anything that is no regular
/// file.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    // Without this flag, opening a pipe without a writer would wait.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    check_regular(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Refuses an open file that is no regular file.
fn check_regular(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "it is no regular file: move it away",
    ))
}

/// Replaces the content of `path` atomically.
///
/// # Errors
/// [`Error::Io`] if it cannot be written; the old content then stays.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = NewFile::create(path)?;
    file.write(bytes)?;
    file.commit()
}

/// The path that a rename may replace to change the content of `target`: for a link the file that
/// it points to.
fn replaceable(target: &Path) -> Result<PathBuf> {
    let Ok(found) = fs::metadata(target) else {
        return Ok(target.to_path_buf());
    };
    if !found.is_file() && !found.is_dir() {
        return Err(Error::refused(format!(
            "{} is no regular file (a pipe, a socket or a device): name a file, or redirect what is printed",
            target.display()
        )));
    }
    if fs::symlink_metadata(target).is_ok_and(|found| found.is_symlink()) {
        return fs::canonicalize(target).map_err(Error::io("write", target));
    }
    Ok(target.to_path_buf())
}

/// Makes renames and removals in `dir` durable.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<()> {
    // Windows cannot open a directory as a file, and writes its metadata by itself.
    if cfg!(windows) {
        return Ok(());
    }
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(Error::io("sync", dir))
}

/// Creates `dir` and its missing parents.
///
/// # Errors
/// [`Error::Io`] if one of them cannot be created.
pub fn create_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    sync_dir(parent(dir))
}

/// Removes the unfinished files of earlier processes in `dir`. The caller must hold the directory's
/// lock.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read or a file cannot be removed.
pub fn remove_unfinished(dir: &Path) -> Result<()> {
    unfinished(dir)?
        .iter()
        .try_for_each(|path| remove_if_there(path))
}

/// The unfinished files in `dir`: those of earlier processes, and those that are being written now.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read.
pub fn unfinished(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        if path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(TMP_PREFIX))
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes a file if it exists.
///
/// # Errors
/// [`Error::Io`] if it exists and cannot be removed.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The bytes that an unprivileged user can still write on the file system where `path` is or will
/// be.
///
/// # Errors
/// [`Error::Io`] if the file system cannot be queried.
pub fn free_space(path: &Path) -> Result<u64> {
    let mut at = path;
    // A directory that was removed under this process has no parent that exists.
    while !at.exists() && parent(at) != at {
        at = parent(at);
    }
    let space =
        rustix::fs::statvfs(at).map_err(|e| Error::io("ask the free space of", at)(e.into()))?;
    Ok(space.f_frsize.saturating_mul(space.f_bavail))
}

/// The directory that contains `path`; `.` for a bare file name and for an empty path.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        Some(_) => Path::new("."),
        None if path.as_os_str().is_empty() => Path::new("."),
        None => path,
    }
}

/// Formats bytes in binary units: "1.5 GiB".
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Called before bytes are written other than through [`NewFile`], so that tests can simulate a
/// full disk there too.
pub(crate) fn check_space(bytes: usize) -> std::io::Result<()> {
    fault::check(bytes)
}

/// Simulates a full disk after a number of bytes, in tests.
#[cfg(test)]
pub(crate) mod fault {
    use std::cell::Cell;
    use std::io;

    thread_local!(static LEFT: Cell<Option<usize>> = const { Cell::new(None) });

    /// From now on this thread can write `bytes` more (`None`: any number).
    pub(crate) fn limit_space(bytes: Option<usize>) {
        LEFT.set(bytes);
    }

    pub(super) fn check(bytes: usize) -> io::Result<()> {
        let Some(left) = LEFT.get() else {
            return Ok(());
        };
        let Some(rest) = left.checked_sub(bytes) else {
            LEFT.set(Some(0));
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        };
        LEFT.set(Some(rest));
        Ok(())
    }
}

#[cfg(not(test))]
mod fault {
    pub(super) fn check(_: usize) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(path: &Path) {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    }

    #[test]
    fn a_pipe_in_place_of_a_file_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = (dir.path().join("study.json"), dir.path().join("notes.json"));
        pipe(&path);
        fs::write(&file, "{}").unwrap();
        assert_eq!(read_regular(&file).unwrap(), b"{}");
        let error = read_regular(&path).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
        assert!(read_regular(dir.path()).is_err());
        assert!(check_replaceable(&path).is_err() && check_replaceable(&file).is_ok());
        assert!(check_replaceable(&dir.path().join("absent/x")).is_err());
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_atomic(&path, b"old").unwrap();
        fault::limit_space(Some(2));
        let error = write_atomic(&path, b"new content").unwrap_err().to_string();
        fault::limit_space(None);
        assert!(
            error.starts_with("cannot write ") && !error.contains('\n'),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_the_file_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent/a.json");
        let error = write_atomic(&path, b"new").unwrap_err().to_string();
        assert!(
            error.contains("absent/a.json") && !error.contains(TMP_PREFIX),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_what_is_no_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");

        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let refused = write_atomic(&socket, b"new").unwrap_err().to_string();
        assert!(refused.contains("no regular file"), "{refused}");
        assert!(
            !fs::metadata(&socket).unwrap().is_file(),
            "it is still there"
        );
    }

    #[test]
    fn the_free_space_of_a_place_that_is_not_there_yet_is_its_parents() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_space(&dir.path().join("a/b/c")).unwrap() > 0);
        assert!(free_space(Path::new("")).is_ok(), "the present directory");
    }

    #[test]
    fn byte_counts_are_shown_with_a_unit() {
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
        assert_eq!(human_bytes(3 << 30), "3.0 GiB");
    }
}
