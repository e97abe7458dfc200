//! Chosen files of one folder of a Hub repository that is not a model:
//! `owner/name[@revision]/folder`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::hub::{self, HubId, TIMEOUTS, Transfer};
use super::worker::{Reporter, run};
use super::{SourceSettings, local};
use crate::error::{Error, Result};
use crate::task::{Progress, TaskCtx};

/// Finds (and downloads where needed) those of `files` that lie in a folder of the Hub: the folder
/// on this machine. A specification that names one safetensors file gives that file.
pub(super) fn resolve(
    settings: &SourceSettings,
    spec: &str,
    files: &[&str],
    ctx: &TaskCtx,
) -> Result<PathBuf> {
    let (id, folder) = parse(spec).ok_or_else(|| {
        Error::usage(format!(
            "'{spec}' is neither a file or directory that exists nor a folder of the Hub: pass owner/name[@revision]/folder"
        ))
    })?;
    if settings.offline {
        let cached = hub::snapshot(settings, &id)
            .map(|(_, dir)| dir.join(&folder))
            .filter(|dir| dir.exists());
        return cached.ok_or_else(|| {
            Error::refused(format!(
                "'{spec}' is not in the Hub cache, and HF_HUB_OFFLINE forbids to fetch it"
            ))
        });
    }
    ctx.checkpoint(Progress::new(
        format!("connecting to {}", settings.endpoint),
        0,
        None,
        "bytes",
    ))?;
    let (transfer, files) = (
        Transfer::new(settings, &id),
        files.iter().map(|f| (*f).to_owned()).collect(),
    );
    run(ctx, &settings.endpoint, TIMEOUTS, move |reporter| {
        fetch(&transfer, &folder, files, reporter)
    })
}

/// Owner and name, and the folder below them; an empty folder is the repository itself. A name
/// alone is a repository without an owner, of which no folder can be told from a name.
fn parse(spec: &str) -> Option<(HubId, String)> {
    let parts: Vec<&str> = spec.trim_end_matches('/').split('/').collect();
    let (repository, folder) = parts.split_at(parts.len().min(2));
    let plain = |part: &&str| !part.is_empty() && !part.starts_with('.') && !part.contains('\\');
    let id = HubId::parse(&repository.join("/"))?;
    folder.iter().all(plain).then(|| (id, folder.join("/")))
}

fn fetch(
    transfer: &Transfer,
    folder: &str,
    files: Vec<String>,
    reporter: &mut Reporter,
) -> Result<PathBuf> {
    let (api, repo, remote_files) = transfer.connect(reporter)?;
    if remote_files.contains(folder) && local::has_extension(Path::new(folder), "safetensors") {
        return transfer.fetch(&api, &repo, folder, reporter);
    }
    let below = |file: &str| {
        if folder.is_empty() {
            file.to_owned()
        } else {
            format!("{folder}/{file}")
        }
    };
    let wanted: Vec<&String> = files
        .iter()
        .filter(|f| remote_files.contains(&below(f)))
        .collect();
    let mut root = None;
    for file in &wanted {
        let path = transfer.fetch(&api, &repo, &below(file), reporter)?;
        root = path
            .ancestors()
            .nth(file.split('/').count())
            .map(Path::to_path_buf);
    }
    root.ok_or_else(|| {
        let near = folders_with(&remote_files, folder, &files);
        let near = if near.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has {}", near.join(", "))
        };
        Error::usage(format!(
            "'{}' has no such files in '{folder}': {near}",
            transfer.spec()
        ))
    })
}

/// Folders at or below `folder` (or anywhere, when there is none) with a wanted file.
fn folders_with(remote_files: &BTreeSet<String>, folder: &str, files: &[String]) -> Vec<String> {
    let all: BTreeSet<&str> = remote_files
        .iter()
        .filter_map(|path| {
            files.iter().find_map(|f| {
                path.strip_suffix(f.as_str())
                    .and_then(|p| p.strip_suffix('/'))
            })
        })
        .collect();
    let below: Vec<&str> = all
        .iter()
        .copied()
        .filter(|f| f.starts_with(folder))
        .collect();
    let shown = if below.is_empty() {
        all.into_iter().collect()
    } else {
        below
    };
    shown.into_iter().take(8).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_an_owner_and_a_name() {
        let parsed = |spec| parse(spec).map(|(id, folder)| (id.repo, id.revision, folder));
        let owned = |s: &str| s.to_owned();
        assert_eq!(parsed("o/n/a/b/"), Some((owned("o/n"), None, owned("a/b"))));
        assert_eq!(
            parsed("o/n@v1"),
            Some((owned("o/n"), Some(owned("v1")), String::new()))
        );
        assert_eq!(parsed("n"), Some((owned("n"), None, String::new())));
        for bad in ["o/n/../x", "o/n//x", "/o/n", "o/n/.git", ""] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
