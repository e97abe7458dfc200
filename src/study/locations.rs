//! The locations of studies: the data directory, by model, hook and corpus, and the paths of
//! studies that were opened elsewhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CollectState, Study};
use crate::corpus::Corpus;
use crate::disk::lock::FileLock;
use crate::disk::write_atomic;
use crate::error::{Error, Result};
use crate::model::HookPoint;

/// The file with the paths of studies elsewhere, its lock, and the largest number of paths.
const RECENT: &str = "recent.json";
const RECENT_LOCK: &str = "recent.lock";
const MAX_RECENT: usize = 30;

/// A study as the Start pane lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyEntry {
    /// The directory of the study.
    pub dir: PathBuf,
    /// The id of the model.
    pub model: String,
    /// The hooks whose activations it holds.
    pub hooks: Vec<HookPoint>,
    /// The names of its corpora, joined by " + ".
    pub corpus: String,
    /// The number of token rows.
    pub rows: usize,
    /// The number of its fits.
    pub fits: usize,
    /// How far it is collected; `None` if it is complete.
    #[serde(default)]
    pub unfinished: Option<CollectState>,
    /// The name and state of the newest fit if it was stopped: "k24 stopped at sweep 2".
    #[serde(default)]
    pub stopped: Option<String>,
    /// Seconds since the Unix epoch of its last change.
    pub modified: u64,
}

/// mlpeek's data directory: `MLPEEK_HOME`, else `mlpeek` in the XDG data directory.
///
/// # Errors
/// [`Error::Usage`] where neither the variable nor a home directory is set.
pub fn home() -> Result<PathBuf> {
    crate::model::source::data_dir()
}

/// The directory of a study that is given no path: in the data directory (`MLPEEK_HOME`, else XDG), by model,
/// layer, hook and corpus.
///
/// # Errors
/// What [`home`] returns.
pub fn default_dir(model_id: &str, hook: HookPoint, corpus: &Corpus) -> Result<PathBuf> {
    Ok(study_dir(&home()?, model_id, hook, corpus))
}

fn study_dir(home: &Path, model_id: &str, hook: HookPoint, corpus: &Corpus) -> PathBuf {
    let stem = Path::new(&corpus.name)
        .file_stem()
        .map(|s| s.to_string_lossy().into_owned())
        .unwrap_or_default();
    let sha: String = corpus.sha256.chars().take(8).collect();
    home.join("studies")
        .join(model_name(model_id))
        .join(hook.to_string())
        .join(format!("{}-{}", safe_name(&stem), safe_name(&sha)))
}

/// `owner--name@revision` for a Hub id; the file's or directory's name and a hash of the path for a
/// path, since two paths may hold models of the same name.
fn model_name(id: &str) -> String {
    let is_hub_id =
        id.matches('/').count() == 1 && !id.starts_with(['/', '.', '~']) && !id.ends_with(".gguf");
    if is_hub_id {
        return safe_name(&id.replacen('/', "--", 1));
    }
    let name = Path::new(id)
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let hash: String = Sha256::digest(id.as_bytes())
        .iter()
        .take(4)
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("{}-{hash}", safe_name(&name))
}

/// Makes a file name from `text`: characters other than letters, digits and `-_.@` become `-`.
fn safe_name(text: &str) -> String {
    let safe = |c: char| {
        if c.is_alphanumeric() || "-_.@".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = text.chars().map(safe).take(80).collect();
    if name.is_empty() || name.starts_with('.') {
        format!("x{name}")
    } else {
        name
    }
}

/// The studies in the data directory and those that were opened elsewhere, newest first. A study
/// that cannot be read is left out.
pub fn recent() -> Vec<StudyEntry> {
    home().map(|home| list(&home)).unwrap_or_default()
}

/// Records the path of a study that was opened, for [`recent`].
///
/// # Errors
/// What [`home`] returns; a file that cannot be written.
pub fn remember(dir: &Path) -> Result<()> {
    remember_in(&home()?, dir)
}

fn remember_in(home: &Path, dir: &Path) -> Result<()> {
    let dir = dir.canonicalize().map_err(Error::io("open", dir))?;
    let inside = home
        .join("studies")
        .canonicalize()
        .is_ok_and(|studies| dir.starts_with(studies));
    if inside {
        return Ok(());
    }
    fs::create_dir_all(home).map_err(Error::io("make", home))?;
    let _lock = FileLock::acquire(&home.join(RECENT_LOCK))?;
    if dir.to_str().is_none() {
        return Err(Error::refused(format!(
            "{} is not UTF-8: the study is not listed among the recent ones",
            dir.display()
        )));
    }
    let mut dirs = read_recent(home);
    if dirs.first() == Some(&dir) {
        return Ok(());
    }
    dirs.retain(|d| *d != dir);
    dirs.insert(0, dir);
    dirs.truncate(MAX_RECENT);
    let json = serde_json::to_vec(&dirs)
        .map_err(|e| Error::refused(format!("the recent studies cannot be written: {e}")))?;
    write_atomic(&home.join(RECENT), &json)
}

/// The paths of studies elsewhere, the last opened first; none if the file cannot be read.
fn read_recent(home: &Path) -> Vec<PathBuf> {
    let read = fs::read(home.join(RECENT)).ok();
    read.and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

fn list(home: &Path) -> Vec<StudyEntry> {
    let models = children(&home.join("studies"));
    let dirs = models
        .iter()
        .flat_map(|m| children(m))
        .flat_map(|hook| children(&hook));
    let mut found: Vec<_> = dirs
        .chain(read_recent(home))
        .filter_map(|dir| entry(&dir))
        .collect();
    found.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| a.dir.cmp(&b.dir)));
    found
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

fn entry(dir: &Path) -> Option<StudyEntry> {
    let study = Study::open_read_only(dir).ok()?;
    let manifest = study.manifest();
    let files = [
        "study.json",
        "tokens.bin",
        "fits",
        "notes.json",
        "session.json",
    ]
    .map(|f| dir.join(f));
    let changed = children(&dir.join("fits"));
    let modified = files
        .iter()
        .chain(&changed)
        .filter_map(|p| modified_seconds(p))
        .max();
    // Problems with the files are reported when the study is opened.
    let unfinished = study.collected().ok().filter(|state| !state.is_complete());
    let fits = study.fits().unwrap_or_default();
    let stopped = fits.last().filter(|fit| !fit.is_finished());
    Some(StudyEntry {
        dir: dir.to_path_buf(),
        model: manifest
            .model
            .as_ref()
            .map_or_else(|| "imported matrix".to_owned(), |m| m.id.clone()),
        hooks: manifest.hooks.clone(),
        corpus: manifest
            .corpora
            .iter()
            .map(|c| c.name.as_str())
            .collect::<Vec<_>>()
            .join(" + "),
        rows: unfinished.map_or(manifest.rows, |state| state.rows),
        fits: fits.len(),
        stopped: stopped.map(|fit| format!("{} {}", fit.name, fit.status())),
        unfinished,
        modified: modified.unwrap_or(manifest.created),
    })
}

fn modified_seconds(path: &Path) -> Option<u64> {
    let modified: SystemTime = fs::metadata(path).ok()?.modified().ok()?;
    modified
        .duration_since(UNIX_EPOCH)
        .ok()
        .map(|d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_directories_differ_by_model_layer_and_corpus() {
        let corpus = |name: &str, sha: &str| Corpus {
            name: name.into(),
            samples: vec![],
            sha256: sha.repeat(64),
        };
        let hook = HookPoint {
            layer: 15,
            site: Default::default(),
        };
        let at = |id: &str, name: &str, sha: &str| {
            let path = study_dir(Path::new("/h"), id, hook, &corpus(name, sha));
            path.strip_prefix("/h/studies")
                .unwrap()
                .to_string_lossy()
                .into_owned()
        };
        assert_eq!(
            at("o/m@v1", "bundled concepts", "a"),
            "o--m@v1/blocks.15.mlp.hook_post/bundled-concepts-aaaaaaaa"
        );
        assert_ne!(
            at("/a/m.gguf", "c.json", "a"),
            at("/b/m.gguf", "c.json", "a")
        );
        assert_ne!(at("o/m", "/x/c.json", "a"), at("o/m", "/x/c.json", "b"));
        let hostile = at("../..", "../../etc", "/");
        assert!(
            Path::new(&hostile)
                .components()
                .all(|c| matches!(c, std::path::Component::Normal(_))),
            "{hostile}"
        );
        assert_eq!(Path::new(&hostile).components().count(), 3);
    }

    #[test]
    fn studies_elsewhere_are_remembered_once_the_last_opened_first() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let made = |path: &Path| {
            fs::create_dir_all(path).unwrap();
            path.canonicalize().unwrap()
        };
        let (a, b) = (
            made(&elsewhere.path().join("a")),
            made(&elsewhere.path().join("b")),
        );
        let own = made(&home.path().join("studies/m/h/c"));
        for dir in [&a, &b, &own, &a, &b, &b] {
            remember_in(home.path(), dir).unwrap();
        }
        assert_eq!(read_recent(home.path()), [b.clone(), a.clone()]);
        assert!(remember_in(home.path(), &elsewhere.path().join("gone")).is_err());
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let name = std::ffi::OsStr::from_bytes(b"not-utf-8-\xff");
            let odd = made(&elsewhere.path().join(name));
            assert!(remember_in(home.path(), &odd).is_err());
            assert_eq!(
                read_recent(home.path()),
                [b.clone(), a.clone()],
                "the others stay"
            );
        }
        // A file that the user broke counts as empty, and is written anew.
        fs::write(home.path().join(RECENT), "{").unwrap();
        assert!(read_recent(home.path()).is_empty() && list(home.path()).is_empty());
        remember_in(home.path(), &a).unwrap();
        assert_eq!(read_recent(home.path()), [a]);
    }
}
