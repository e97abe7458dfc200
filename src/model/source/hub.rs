//! Models of the Hugging Face Hub: its cache on this machine first, then a download into that
//! cache.
//!
//! hf-hub does the transfers and owns the cache's layout. This file adds what it lacks: the
//! environment's settings, cancelling, patience, and a check of every file's size and (where the
//! Hub gives one) sha256 after the transfer.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use super::worker::{Patience, Reporter, run};
use super::{Places, entries, local};
use crate::error::{Error, Result};
use crate::model::{ModelFiles, ModelLayout};
use crate::task::{Progress, TaskCtx};

const CONNECT: Duration = Duration::from_secs(5);
/// The first sign is a connection: a name and two addresses may take [`CONNECT`] each.
pub(super) const PATIENCE: Patience = Patience {
    first: Duration::from_secs(12),
    between: Duration::from_secs(40),
};
/// What tells an index of shards from other JSON.
const INDEX: &str = "model.safetensors.index.json";
/// Taken along where a repository has them.
const BESIDE: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
];
/// Fewest digits of a commit that stand for it.
const SHORTEST: usize = 6;

/// A repository of the Hub, with its revision when one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) repo: String,
    pub(super) revision: Option<String>,
}

impl Id {
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

    /// As a person types it.
    pub(super) fn typed(&self) -> String {
        match &self.revision {
            Some(revision) => format!("{}@{revision}", self.repo),
            None => self.repo.clone(),
        }
    }

    fn files(&self, origin: String, layout: ModelLayout) -> ModelFiles {
        ModelFiles {
            id: self.typed(),
            origin,
            layout,
        }
    }
}

/// The model's files: from the cache when it is there whole, else from the Hub.
pub(super) fn resolve(places: &Places, id: &Id, ctx: &TaskCtx) -> Result<ModelFiles> {
    let cached = cached(places, id);
    let found = |(commit, layout): (String, ModelLayout)| {
        id.files(
            format!("Hub cache ({}@{})", id.repo, short(&commit)),
            layout,
        )
    };
    match (cached, places.offline) {
        (Some(Ok(whole)), offline) if offline || local::has_tokenizer(&whole.1) => Ok(found(whole)),
        // Another program may have fetched weights alone; a repository may also have no more than
        // these.
        (Some(Ok(bare)), _) => match download(places, id, ctx) {
            Ok(layout) => Ok(id.files(format!("the Hub ({}@{})", id.repo, id.revision()), layout)),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(problem) => {
                tracing::warn!(
                    "{}: only the weights are in the Hub cache, and its tokenizer could not be fetched: {problem}",
                    id.typed()
                );
                Ok(found(bare))
            }
        },
        (Some(Err(e)), true) => Err(Error::refused(format!(
            "'{}' is not whole in the Hub cache, and HF_HUB_OFFLINE forbids to fetch the rest: {e}",
            id.typed()
        ))),
        (None, true) => Err(Error::refused(format!(
            "'{}' is not in the Hub cache {}, and HF_HUB_OFFLINE forbids to fetch it{}",
            id.typed(),
            places.hub_cache.display(),
            others(places, id)
        ))),
        (_, false) => {
            let layout = download(places, id, ctx)?;
            Ok(id.files(format!("the Hub ({}@{})", id.repo, id.revision()), layout))
        }
    }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// The snapshot of a repository in the cache, if any, and its layout if it is whole.
fn cached(places: &Places, id: &Id) -> Option<Result<(String, ModelLayout)>> {
    snapshot(places, id).map(|(commit, dir)| local::layout(&dir).map(|layout| (commit, layout)))
}

/// The commit and the directory of a repository in the cache, whole or not. A revision is a name, a
/// commit, or the first digits of one commit.
pub(super) fn snapshot(places: &Places, id: &Id) -> Option<(String, PathBuf)> {
    let repo = folder(places, id);
    let named = std::fs::read_to_string(repo.join("refs").join(id.revision())).ok();
    let commit = named.map_or_else(|| id.revision().to_owned(), |c| c.trim().to_owned());
    let snapshot = repo.join("snapshots").join(&commit);
    if is_plain(&commit) && snapshot.is_dir() {
        return Some((commit, snapshot));
    }
    let digits = commit.len() >= SHORTEST && commit.bytes().all(|b| b.is_ascii_hexdigit());
    let mut matching = commits(&repo)
        .into_iter()
        .filter(|c| digits && c.starts_with(&commit.to_ascii_lowercase()));
    match (matching.next(), matching.next()) {
        (Some(commit), None) => Some((commit.clone(), repo.join("snapshots").join(commit))),
        _ => None,
    }
}

fn folder(places: &Places, id: &Id) -> PathBuf {
    places
        .hub_cache
        .join(format!("models--{}", id.repo.replace('/', "--")))
}

/// The commits of a repository in the cache.
fn commits(repo: &Path) -> Vec<String> {
    let snapshots = entries(&repo.join("snapshots"))
        .into_iter()
        .filter(|dir| dir.is_dir());
    snapshots
        .filter_map(|dir| dir.file_name().and_then(|n| n.to_str()).map(str::to_owned))
        .collect()
}

/// What the cache has of the repository under other revisions, as the end of a sentence.
fn others(places: &Places, id: &Id) -> String {
    let there: Vec<String> = commits(&folder(places, id))
        .iter()
        .map(|c| format!("{}@{}", id.repo, short(c)))
        .collect();
    if there.is_empty() {
        String::new()
    } else {
        format!("; the cache has {}: pass that", there.join(", "))
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

/// Fetches what the model needs into the cache.
fn download(places: &Places, id: &Id, ctx: &TaskCtx) -> Result<ModelLayout> {
    ctx.checkpoint(Progress::new(
        format!("connecting to {}", places.endpoint),
        0,
        None,
        "bytes",
    ))?;
    let transfer = Transfer::new(places, id);
    run(ctx, &places.endpoint, PATIENCE, move |reporter| {
        transfer.run(reporter)
    })
}

/// One download, as the worker thread owns it.
pub(super) struct Transfer {
    places: Places,
    id: Id,
}

impl Transfer {
    pub(super) fn new(places: &Places, id: &Id) -> Self {
        Self {
            places: places.clone(),
            id: id.clone(),
        }
    }

    fn run(&self, reporter: &mut Reporter) -> Result<ModelLayout> {
        let (api, repo, there) = self.connect(reporter)?;
        let mut snapshot = None;
        for file in self.small_files(&there)? {
            snapshot = Some(self.fetch(&api, &repo, &file, reporter)?);
        }
        if there.contains(INDEX) && !there.contains("model.safetensors") {
            let index = self.fetch(&api, &repo, INDEX, reporter)?;
            for shard in local::shards(&index)? {
                self.fetch(&api, &repo, &shard, reporter)?;
            }
        }
        let dir = snapshot.as_deref().and_then(Path::parent);
        dir.map_or_else(
            || Err(self.nonsense("an empty list of files")),
            local::layout,
        )
    }

    /// The repository and the names of its files.
    pub(super) fn connect(
        &self,
        reporter: &mut Reporter,
    ) -> Result<(Api, ApiRepo, BTreeSet<String>)> {
        self.probe()?;
        reporter.report(Progress::new(
            format!("asking {} for {}", self.places.endpoint, self.id.typed()),
            0,
            None,
            "bytes",
        ));
        let api = ApiBuilder::from_cache(Cache::new(self.places.hub_cache.clone()))
            .with_endpoint(self.places.endpoint.clone())
            .with_token(self.places.token.clone())
            .with_user_agent("mlpeek", env!("CARGO_PKG_VERSION"))
            .with_progress(false)
            .build()
            .map_err(|e| self.failed("the model", &e))?;
        let revision = self.id.revision().to_owned();
        let repo = api.repo(Repo::with_revision(
            self.id.repo.clone(),
            RepoType::Model,
            revision,
        ));
        let info = repo.info().map_err(|e| self.failed("the model", &e))?;
        reporter.report(Progress::new(
            format!("found {}", self.id.typed()),
            0,
            None,
            "bytes",
        ));
        if !is_plain(&info.sha) {
            return Err(self.nonsense("a revision that is no name"));
        }
        Ok((
            api,
            repo,
            info.siblings.into_iter().map(|s| s.rfilename).collect(),
        ))
    }

    pub(super) fn typed(&self) -> String {
        self.id.typed()
    }

    /// A closed network swallows packets for minutes before the library gives up; this asks first,
    /// with a limit.
    fn probe(&self) -> Result<()> {
        if self.places.proxied {
            return Ok(());
        }
        let endpoint = &self.places.endpoint;
        let unreachable = |why: String| Error::refused(format!("cannot reach {endpoint}: {why}"));
        let (host, default_port) = match endpoint.split_once("://") {
            Some(("http", rest)) => (rest, 80),
            Some(("https", rest)) => (rest, 443),
            _ => {
                return Err(Error::usage(format!(
                    "HF_ENDPOINT is '{endpoint}', which is no http or https address"
                )));
            }
        };
        let host = host.split('/').next().unwrap_or_default();
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port {
            host.to_owned()
        } else {
            format!("{host}:{default_port}")
        };
        let addresses = address
            .to_socket_addrs()
            .map_err(|e| unreachable(format!("no address for {host} ({e})")))?;
        let mut last = "no address".to_owned();
        // Two addresses are enough to try (usually IPv6 and IPv4).
        for address in addresses.take(2) {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(_) => return Ok(()),
                Err(e) => last = e.to_string(),
            }
        }
        Err(unreachable(last))
    }

    /// Everything but shards: what a model is opened with, and the weights when they are one file.
    fn small_files(&self, there: &BTreeSet<String>) -> Result<Vec<String>> {
        let has = |name: &str| there.contains(name);
        if has("config.json") && (has("model.safetensors") || has(INDEX)) {
            if !has("tokenizer.json") {
                let typed = self.id.typed();
                return Err(Error::refused(format!(
                    "'{typed}' has no tokenizer.json on the Hub; pass a GGUF of it"
                )));
            }
            let beside = BESIDE.iter().filter(|name| has(name));
            return Ok(beside
                .chain(has("model.safetensors").then_some(&"model.safetensors"))
                .map(ToString::to_string)
                .collect());
        }
        let ggufs: Vec<&String> = there
            .iter()
            .filter(|f| local::is(Path::new(f), "gguf") && is_plain(f))
            .collect();
        let typed = self.id.typed();
        match ggufs.as_slice() {
            [one] => Ok(vec![(*one).clone()]),
            [] => Err(Error::refused(format!(
                "'{typed}' on the Hub is no model that can be read here: it has neither config.json with safetensors \
                 weights nor a .gguf file"
            ))),
            many => Err(Error::refused(format!(
                "'{typed}' on the Hub holds {} GGUF files: fetch one of them and pass its path ({})",
                many.len(),
                many.iter()
                    .map(|s| s.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }

    /// One file, whole and checked, from the cache or the Hub: its path in the snapshot.
    pub(super) fn fetch(
        &self,
        api: &Api,
        repo: &ApiRepo,
        file: &str,
        reporter: &mut Reporter,
    ) -> Result<PathBuf> {
        let metadata = api
            .metadata(&repo.url(file))
            .map_err(|e| self.failed(file, &e))?;
        let (commit, etag) = (metadata.commit_hash(), metadata.etag());
        if !is_plain(commit) || !is_plain(etag) {
            return Err(self.nonsense("names that are no names of files"));
        }
        let folder = Cache::new(self.places.hub_cache.clone()).model(self.id.repo.clone());
        let (pointer, blob) = (
            folder.pointer_path(commit).join(file),
            folder.blob_path(etag),
        );
        let size = metadata.size() as u64;
        if pointer.exists() && std::fs::metadata(&blob).is_ok_and(|m| m.len() == size) {
            return Ok(pointer);
        }
        let part = blob.with_extension("part");
        loop {
            let resumed = part.exists();
            let watch = Watch {
                reporter: reporter.clone(),
                stage: String::new(),
                done: 0,
                total: size,
            };
            let failure = match repo.download_with_progress(file, watch) {
                Ok(path) => match check(&blob, file, size, etag, reporter) {
                    Ok(()) => return Ok(path),
                    Err(failure) => failure,
                },
                Err(ApiError::InvalidResume) => self.nonsense("less than it had before"),
                // What came so far stays, to go on from.
                Err(e) => return Err(self.failed(file, &e)),
            };
            for wrong in [&pointer, &blob, &part] {
                let _ = std::fs::remove_file(wrong);
            }
            // A part from earlier may have belonged to other content; without one it is the
            // transfer that is wrong.
            if !resumed {
                return Err(failure);
            }
        }
    }

    /// What the library says, in terms that a person can act on.
    fn failed(&self, what: &str, error: &ApiError) -> Error {
        let text = error.to_string();
        let (typed, endpoint) = (self.id.typed(), &self.places.endpoint);
        let status = text
            .rsplit_once("http status: ")
            .and_then(|(_, code)| code.trim().parse::<u16>().ok());
        match status {
            Some(404) if what == "the model" => Error::usage(format!(
                "{endpoint} has no model '{typed}': check its name and revision"
            )),
            // The Hub answers so for what does not exist, too, as long as it does not know who
            // asks.
            Some(401) => Error::usage(format!(
                "{endpoint} has no public model '{typed}': check its name, or set HF_TOKEN if it is private or gated"
            )),
            Some(403) => Error::refused(format!(
                "{endpoint} refuses '{typed}' to this token: accept the model's terms on its page, or set another HF_TOKEN"
            )),
            Some(404) => Error::refused(format!("{endpoint} has no {what} for '{typed}'")),
            Some(code) => Error::refused(format!(
                "{endpoint} answered {what} of '{typed}' with status {code}"
            )),
            None => match error {
                ApiError::LockAcquisition(path) => Error::refused(format!(
                    "another download of {what} of '{typed}' is going on (lock {}): wait for it",
                    path.display()
                )),
                ApiError::IoError(e) if is_of_the_disk(e.kind()) => Error::refused(format!(
                    "cannot keep {what} of '{typed}' in the Hub cache {}: {e}; free some room, or set HF_HOME to another \
                     folder",
                    self.places.hub_cache.display()
                )),
                ApiError::IoError(_) | ApiError::RequestError(_) | ApiError::TooManyRetries(_) => {
                    Error::refused(format!(
                        "{what} of '{typed}' did not come whole from {endpoint} ({}); what came is kept: try again",
                        one_line(&text)
                    ))
                }
                _ => self.nonsense(&one_line(&text)),
            },
        }
    }

    pub(super) fn nonsense(&self, what: &str) -> Error {
        Error::refused(format!(
            "{} does not answer as the Hub does ({what})",
            self.places.endpoint
        ))
    }
}

/// Kinds of error that a disk has and a network has not.
fn is_of_the_disk(kind: ErrorKind) -> bool {
    use ErrorKind::{
        NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    matches!(
        kind,
        PermissionDenied | ReadOnlyFilesystem | StorageFull | QuotaExceeded | NotADirectory
    )
}

fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(200)
        .collect()
}

/// hf-hub's view of a transfer, handed on to the reporter.
struct Watch {
    reporter: Reporter,
    stage: String,
    done: u64,
    total: u64,
}

impl hf_hub::api::Progress for Watch {
    fn init(&mut self, _: usize, file: &str) {
        self.stage = format!("downloading {file}");
        self.done = 0;
    }

    fn update(&mut self, bytes: usize) {
        self.done += bytes as u64;
        self.reporter.report(Progress::new(
            self.stage.as_str(),
            self.done,
            self.total,
            "bytes",
        ));
    }

    fn finish(&mut self) {}
}

/// A blob has the announced size and, where its name is a sha256 (large files), that hash.
fn check(blob: &Path, file: &str, size: u64, etag: &str, reporter: &mut Reporter) -> Result<()> {
    let mut input = File::open(blob).map_err(Error::io("open", blob))?;
    let got = input.metadata().map_err(Error::io("read", blob))?.len();
    if got != size {
        return Err(Error::refused(format!(
            "{file} came with {got} of {size} bytes: try again"
        )));
    }
    if etag.len() != 64 || !etag.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let n = input.read(&mut block).map_err(Error::io("read", blob))?;
        if n == 0 {
            break;
        }
        hash.update(&block[..n]);
        done += n as u64;
        reporter.report(Progress::new(
            format!("checking {file}"),
            done,
            size,
            "bytes",
        ));
    }
    let got: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if got.eq_ignore_ascii_case(etag) {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{file} came damaged (its sha256 is {got}, not {etag}): try again"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_hubs_rules() {
        let id = |spec| Id::parse(spec).map(|id| id.typed());
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
