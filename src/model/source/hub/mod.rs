//! Models of the Hugging Face Hub: its cache on this machine first, then a download into that
//! cache.
//!
//! hf-hub does the transfers and owns the cache's layout. This module adds what it lacks: the
//! environment's settings, cancellation, timeouts, and a check of every file that was fetched.

mod transfer;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use self::transfer::Transfer;
use super::worker::{Timeouts, run};
use super::{SourceSettings, entries, local};
use crate::error::{Error, Result};
use crate::model::{ModelFiles, ModelLayout};
use crate::task::{Progress, TaskCtx};

/// The first message comes after the connection: resolving the name and trying two addresses may
/// take [`transfer::CONNECT`] each.
pub(super) const TIMEOUTS: Timeouts = Timeouts {
    first: Duration::from_secs(12),
    between: Duration::from_secs(40),
};
/// Fewest digits of a commit that stand for it.
const MIN_COMMIT_DIGITS: usize = 6;

/// A repository of the Hub, with its revision when one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubId {
    pub(super) repo: String,
    pub(super) revision: Option<String>,
}

impl HubId {
    /// `owner/name[@revision]` by the Hub's rules for names, or `name[@revision]` as its oldest
    /// models have it (`gpt2`); `None` for anything else.
    pub(super) fn parse(spec: &str) -> Option<Self> {
        let (repo, revision) = match spec.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (spec, None),
        };
        let (owner, name) = repo
            .split_once('/')
            .map_or((None, repo), |(owner, name)| (Some(owner), name));
        let plain = |s: &str, more: &str| {
            s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b))
        };
        let named = |s: &str| {
            let edges_ok = !s.starts_with(['-', '.']) && !s.ends_with(['-', '.']);
            !s.is_empty()
                && s.len() <= 96
                && edges_ok
                && plain(s, "-_.")
                && !s.contains("--")
                && !s.contains("..")
        };
        let file = name.to_ascii_lowercase().ends_with(".gguf");
        let revision_ok = revision.is_none_or(|r| {
            !r.is_empty()
                && plain(r, "-_./")
                && !r.contains("..")
                && !r.starts_with('/')
                && !r.ends_with('/')
        });
        (owner.is_none_or(named) && named(name) && !file && revision_ok).then(|| Self {
            repo: repo.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }

    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The id as a user types it: `owner/name`, or `owner/name@revision`.
    pub(super) fn spec(&self) -> String {
        match &self.revision {
            Some(revision) => format!("{}@{revision}", self.repo),
            None => self.repo.clone(),
        }
    }

    fn files(&self, origin: String, layout: ModelLayout) -> ModelFiles {
        ModelFiles {
            id: self.spec(),
            origin,
            layout,
        }
    }
}

/// The model's files, from the Hub's cache where it is complete there, else from the Hub.
pub(super) fn resolve(settings: &SourceSettings, id: &HubId, ctx: &TaskCtx) -> Result<ModelFiles> {
    let cached = cached(settings, id);
    let found = |(commit, layout): (String, ModelLayout)| {
        id.files(
            format!("Hub cache ({}@{})", id.repo, short(&commit)),
            layout,
        )
    };
    match (cached, settings.offline) {
        (Some(Ok(complete)), offline) if offline || local::has_tokenizer(&complete.1) => {
            Ok(found(complete))
        }
        // The cache has no tokenizer: another program may have fetched the weights alone, or the
        // repository has none.
        (Some(Ok(weights_only)), _) => match download(settings, id, ctx) {
            Ok(layout) => Ok(id.files(format!("the Hub ({}@{})", id.repo, id.revision()), layout)),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(problem) => {
                tracing::warn!(
                    "{}: only the weights are in the Hub cache, and its tokenizer could not be fetched: {problem}",
                    id.spec()
                );
                Ok(found(weights_only))
            }
        },
        (Some(Err(e)), true) => Err(Error::refused(format!(
            "'{}' is not whole in the Hub cache, and HF_HUB_OFFLINE forbids to fetch the rest: {e}",
            id.spec()
        ))),
        (None, true) => Err(Error::refused(format!(
            "'{}' is not in the Hub cache {}, and HF_HUB_OFFLINE forbids to fetch it{}",
            id.spec(),
            settings.hub_cache.display(),
            other_revisions(settings, id)
        ))),
        (_, false) => {
            let layout = download(settings, id, ctx)?;
            Ok(id.files(format!("the Hub ({}@{})", id.repo, id.revision()), layout))
        }
    }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// The commit and the layout of a repository in the cache; `None` where it has no snapshot, and
/// an error where the snapshot is incomplete.
fn cached(settings: &SourceSettings, id: &HubId) -> Option<Result<(String, ModelLayout)>> {
    snapshot(settings, id).map(|(commit, dir)| local::layout(&dir).map(|layout| (commit, layout)))
}

/// The commit and the directory of a repository in the cache, complete or not. A revision is a name, a
/// commit, or the first digits of one commit.
pub(super) fn snapshot(settings: &SourceSettings, id: &HubId) -> Option<(String, PathBuf)> {
    let repo = folder(settings, id);
    let named = std::fs::read_to_string(repo.join("refs").join(id.revision())).ok();
    let commit = named.map_or_else(|| id.revision().to_owned(), |c| c.trim().to_owned());
    let snapshot = repo.join("snapshots").join(&commit);
    if is_plain(&commit) && snapshot.is_dir() {
        return Some((commit, snapshot));
    }
    let digits = commit.len() >= MIN_COMMIT_DIGITS && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let mut matching = commits(&repo)
        .into_iter()
        .filter(|c| digits && c.starts_with(&commit.to_ascii_lowercase()));
    match (matching.next(), matching.next()) {
        (Some(commit), None) => Some((commit.clone(), repo.join("snapshots").join(commit))),
        _ => None,
    }
}

fn folder(settings: &SourceSettings, id: &HubId) -> PathBuf {
    settings
        .hub_cache
        .join(format!("models--{}", id.repo.replace('/', "--")))
}

/// The commits of which the cache has a snapshot; `repo` is the repository's folder there.
fn commits(repo: &Path) -> Vec<String> {
    let snapshots = entries(&repo.join("snapshots"))
        .into_iter()
        .filter(|dir| dir.is_dir());
    snapshots
        .filter_map(|dir| dir.file_name().and_then(|n| n.to_str()).map(str::to_owned))
        .collect()
}

/// The revisions of the repository that the cache does have, as the end of an error message.
fn other_revisions(settings: &SourceSettings, id: &HubId) -> String {
    let cached: Vec<String> = commits(&folder(settings, id))
        .iter()
        .map(|c| format!("{}@{}", id.repo, short(c)))
        .collect();
    if cached.is_empty() {
        String::new()
    } else {
        format!("; the cache has {}: pass that", cached.join(", "))
    }
}

/// A name that is safe as one component of a path.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Fetches the files of the model into the cache, on a thread of its own.
fn download(settings: &SourceSettings, id: &HubId, ctx: &TaskCtx) -> Result<ModelLayout> {
    ctx.checkpoint(Progress::new(
        format!("connecting to {}", settings.endpoint),
        0,
        None,
        "bytes",
    ))?;
    let transfer = Transfer::new(settings, id);
    run(ctx, &settings.endpoint, TIMEOUTS, move |reporter| {
        transfer.run(reporter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_hubs_rules() {
        let id = |spec| HubId::parse(spec).map(|id| id.spec());
        for good in [
            "a/b",
            "HuggingFaceTB/SmolLM2-135M",
            "a/b@main",
            "a/b@refs/pr/1",
            "a/b.c_d@v1.0",
            "gpt2",
            "gpt2@main",
        ] {
            assert_eq!(id(good).as_deref(), Some(good));
        }
        for bad in [
            "", "/", "a/", "m.gguf", "gpt2@", ".", "..", "a b", "/b", "a/b/c", "a/b@", "a/../b",
            "../b", "a/..", "a b/c", "a/b@../x", "a/m.gguf", "a/b@/x", "-a/b", "a/b--c", "a/b@x y",
            "é/b",
        ] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}
