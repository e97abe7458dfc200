//! One download of chosen files of a repository, file by file.
//!
//! Owns the requests, and the check of every file's size and (where the Hub gives one) sha256 after
//! its transfer; hf-hub does the transfers and the resuming. Knows nothing of which model is asked
//! for. Invariant: a file that fails its check is removed from the cache.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use sha2::{Digest, Sha256};

use super::super::worker::Reporter;
use super::super::{SourceSettings, local};
use super::{HubId, is_plain};
use crate::error::{Error, Result};
use crate::model::ModelLayout;
use crate::task::Progress;

/// How long a connection to one address may take.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// The file that names the shards of a checkpoint.
const INDEX: &str = "model.safetensors.index.json";
/// The files beside the weights that a model is opened with, fetched where a repository has them.
const SMALL_FILES: [&str; 7] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// A download from one repository, as the worker thread owns it.
pub(in crate::model::source) struct Transfer {
    settings: SourceSettings,
    id: HubId,
}

impl Transfer {
    pub(in crate::model::source) fn new(settings: &SourceSettings, id: &HubId) -> Self {
        Self {
            settings: settings.clone(),
            id: id.clone(),
        }
    }

    pub(super) fn run(&self, reporter: &mut Reporter) -> Result<ModelLayout> {
        let (api, repo, remote_files) = self.connect(reporter)?;
        let mut snapshot = None;
        for file in self.small_files(&remote_files)? {
            snapshot = Some(self.fetch(&api, &repo, &file, reporter)?);
        }
        if remote_files.contains(INDEX) && !remote_files.contains("model.safetensors") {
            let index = self.fetch(&api, &repo, INDEX, reporter)?;
            for shard in local::shards(&index)? {
                self.fetch(&api, &repo, &shard, reporter)?;
            }
        }
        let dir = snapshot.as_deref().and_then(Path::parent);
        dir.map_or_else(
            || Err(self.unexpected_answer("an empty list of files")),
            local::layout,
        )
    }

    /// Asks the Hub for the repository: the client, the repository at its revision, and the names
    /// of its files.
    ///
    /// # Errors
    /// The Hub cannot be reached, has no such repository or refuses it, with what to do.
    pub(in crate::model::source) fn connect(
        &self,
        reporter: &mut Reporter,
    ) -> Result<(Api, ApiRepo, BTreeSet<String>)> {
        self.probe()?;
        reporter.report(Progress::new(
            format!("asking {} for {}", self.settings.endpoint, self.id.spec()),
            0,
            None,
            "bytes",
        ));
        let api = ApiBuilder::from_cache(Cache::new(self.settings.hub_cache.clone()))
            .with_endpoint(self.settings.endpoint.clone())
            .with_token(self.settings.token.clone())
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
            format!("found {}", self.id.spec()),
            0,
            None,
            "bytes",
        ));
        if !is_plain(&info.sha) {
            return Err(self.unexpected_answer("a revision that is no name"));
        }
        Ok((
            api,
            repo,
            info.siblings.into_iter().map(|s| s.rfilename).collect(),
        ))
    }

    pub(in crate::model::source) fn spec(&self) -> String {
        self.id.spec()
    }

    /// Opens a connection and closes it. On a network that drops packets the library would wait for
    /// minutes; here the wait is [`CONNECT`] for each address.
    fn probe(&self) -> Result<()> {
        if self.settings.proxied {
            return Ok(());
        }
        let endpoint = &self.settings.endpoint;
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

    /// The files to fetch, shards left out: configuration and tokenizer, and the weights where they
    /// are one file.
    fn small_files(&self, remote_files: &BTreeSet<String>) -> Result<Vec<String>> {
        let has = |name: &str| remote_files.contains(name);
        if has("config.json") && (has("model.safetensors") || has(INDEX)) {
            if !has("tokenizer.json") {
                let spec = self.id.spec();
                return Err(Error::refused(format!(
                    "'{spec}' has no tokenizer.json on the Hub; pass a GGUF of it"
                )));
            }
            let beside = SMALL_FILES.iter().filter(|name| has(name));
            return Ok(beside
                .chain(has("model.safetensors").then_some(&"model.safetensors"))
                .map(ToString::to_string)
                .collect());
        }
        let ggufs: Vec<&String> = remote_files
            .iter()
            .filter(|f| local::has_extension(Path::new(f), "gguf") && is_plain(f))
            .collect();
        let spec = self.id.spec();
        match ggufs.as_slice() {
            [one] => Ok(vec![(*one).clone()]),
            [] => Err(Error::refused(format!(
                "'{spec}' on the Hub is no model that can be read here: it has neither config.json with safetensors \
                 weights nor a .gguf file"
            ))),
            many => Err(Error::refused(format!(
                "'{spec}' on the Hub holds {} GGUF files: fetch one of them and pass its path ({})",
                many.len(),
                many.iter()
                    .map(|s| s.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }

    /// The path of a file in the snapshot, fetched from the Hub where the cache does not have it.
    ///
    /// # Errors
    /// The transfer fails, or what arrived has not the size or the sha256 that the Hub names.
    pub(in crate::model::source) fn fetch(
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
            return Err(self.unexpected_answer("names that are no names of files"));
        }
        let folder = Cache::new(self.settings.hub_cache.clone()).model(self.id.repo.clone());
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
            let progress = TransferProgress {
                reporter: reporter.clone(),
                stage: String::new(),
                done: 0,
                total: size,
            };
            let failure = match repo.download_with_progress(file, progress) {
                Ok(path) => match check(&blob, file, size, etag, reporter) {
                    Ok(()) => return Ok(path),
                    Err(failure) => failure,
                },
                Err(ApiError::InvalidResume) => self.unexpected_answer("less than it had before"),
                // The part that arrived is kept: the next attempt resumes from it.
                Err(e) => return Err(self.failed(file, &e)),
            };
            for wrong in [&pointer, &blob, &part] {
                let _ = std::fs::remove_file(wrong);
            }
            // A part from an earlier attempt may have belonged to other content, which one more
            // attempt mends; without such a part the transfer itself is at fault.
            if !resumed {
                return Err(failure);
            }
        }
    }

    /// The library's error in terms that a user can act on; `what` is the file that was asked for,
    /// or "the model".
    fn failed(&self, what: &str, error: &ApiError) -> Error {
        let text = error.to_string();
        let (spec, endpoint) = (self.id.spec(), &self.settings.endpoint);
        let status = text
            .rsplit_once("http status: ")
            .and_then(|(_, code)| code.trim().parse::<u16>().ok());
        match status {
            Some(404) if what == "the model" => Error::usage(format!(
                "{endpoint} has no model '{spec}': check its name and revision"
            )),
            // Without a token the Hub also answers 401 for a repository that does not exist.
            Some(401) => Error::usage(format!(
                "{endpoint} has no public model '{spec}': check its name, or set HF_TOKEN if it is private or gated"
            )),
            Some(403) => Error::refused(format!(
                "{endpoint} refuses '{spec}' to this token: accept the model's terms on its page, or set another HF_TOKEN"
            )),
            Some(404) => Error::refused(format!("{endpoint} has no {what} for '{spec}'")),
            Some(code) => Error::refused(format!(
                "{endpoint} answered {what} of '{spec}' with status {code}"
            )),
            None => match error {
                ApiError::LockAcquisition(path) => Error::refused(format!(
                    "another download of {what} of '{spec}' is going on (lock {}): wait for it",
                    path.display()
                )),
                ApiError::IoError(e) if is_disk_error(e.kind()) => Error::refused(format!(
                    "cannot keep {what} of '{spec}' in the Hub cache {}: {e}; free some room, or set HF_HOME to another \
                     folder",
                    self.settings.hub_cache.display()
                )),
                ApiError::IoError(_) | ApiError::RequestError(_) | ApiError::TooManyRetries(_) => {
                    Error::refused(format!(
                        "{what} of '{spec}' did not come whole from {endpoint} ({}); what came is kept: try again",
                        one_line(&text)
                    ))
                }
                _ => self.unexpected_answer(&one_line(&text)),
            },
        }
    }

    /// The error for an answer that the Hub would not give.
    fn unexpected_answer(&self, what: &str) -> Error {
        Error::refused(format!(
            "{} does not answer as the Hub does ({what})",
            self.settings.endpoint
        ))
    }
}

/// Whether an error comes from the disk: these kinds do not come from a network.
fn is_disk_error(kind: ErrorKind) -> bool {
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

/// Passes hf-hub's progress of one file on to the reporter.
struct TransferProgress {
    reporter: Reporter,
    stage: String,
    done: u64,
    total: u64,
}

impl hf_hub::api::Progress for TransferProgress {
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

/// Checks that a blob of the cache has the size that the Hub named and, where its etag is a sha256
/// (large files), that hash.
fn check(blob: &Path, file: &str, size: u64, etag: &str, reporter: &mut Reporter) -> Result<()> {
    let mut input = File::open(blob).map_err(Error::io("open", blob))?;
    let length = input.metadata().map_err(Error::io("read", blob))?.len();
    if length != size {
        return Err(Error::refused(format!(
            "{file} came with {length} of {size} bytes: try again"
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
    let digest: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if digest.eq_ignore_ascii_case(etag) {
        return Ok(());
    }
    Err(Error::refused(format!(
        "{file} came damaged (its sha256 is {digest}, not {etag}): try again"
    )))
}
