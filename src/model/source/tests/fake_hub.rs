//! As much of the Hub as hf-hub asks for, on a loopback socket.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

/// The revision that the fake Hub has.
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the body of a file is served.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Body {
    Whole,
    /// The connection ends after so many bytes, the announced length notwithstanding.
    CutAfter(usize),
    /// The same, without an announced length.
    CutUnannounced(usize),
    /// Right in length, wrong in content.
    Damaged,
    /// So many bytes, and then nothing until the test ends.
    Stalled(usize),
}

#[derive(Clone, Default)]
pub(super) struct Repo {
    pub(super) files: BTreeMap<String, (Vec<u8>, Option<Body>)>,
    /// Answer everything with this status.
    pub(super) status: Option<u16>,
    /// Answer everything with this.
    pub(super) garbage: Option<&'static [u8]>,
}

impl Repo {
    pub(super) fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(name.to_owned(), (bytes.into(), None));
        self
    }

    pub(super) fn served(mut self, name: &str, body: Body) -> Self {
        self.files.get_mut(name).unwrap().1 = Some(body);
        self
    }
}

/// A server of one repository under every name, until dropped.
pub(super) struct FakeHub {
    pub(super) endpoint: String,
    /// Request lines with their Range and Authorization.
    pub(super) requests: Arc<Mutex<Vec<String>>>,
    repo: Arc<Mutex<Repo>>,
}

impl FakeHub {
    pub(super) fn serve(repo: Repo) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (requests, repo) = (Arc::default(), Arc::new(Mutex::new(repo)));
        let (log, shared) = (Arc::clone(&requests), Arc::clone(&repo));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, shared) = (Arc::clone(&log), Arc::clone(&shared));
                std::thread::spawn(move || answer(stream, &log, &shared));
            }
        });
        Self {
            endpoint,
            requests,
            repo,
        }
    }

    /// Serves something else from now on.
    pub(super) fn change(&self, repo: Repo) {
        *self.repo.lock().unwrap() = repo;
    }

    pub(super) fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

/// The name of a file's content in the cache.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn answer(mut stream: TcpStream, log: &Mutex<Vec<String>>, repo: &Mutex<Repo>) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|l| !l.is_empty())
        .collect();
    let header = |name: &str| {
        headers.iter().find_map(|h| {
            h.split_once(": ")
                .filter(|(k, _)| k.eq_ignore_ascii_case(name))
                .map(|(_, v)| v)
        })
    };
    let (range, auth) = (
        header("range").unwrap_or("-"),
        header("authorization").unwrap_or("-"),
    );
    log.lock()
        .unwrap()
        .push(format!("{request} {range} {auth}"));
    let repo = repo.lock().unwrap().clone();
    if let Some(garbage) = repo.garbage {
        return stream.write_all(garbage).ok();
    }
    if let Some(status) = repo.status {
        let head =
            format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return stream.write_all(head.as_bytes()).ok();
    }
    let path = request.split(' ').nth(1)?;
    if path.starts_with("/api/") {
        let files: Vec<_> = repo
            .files
            .keys()
            .map(|f| serde_json::json!({ "rfilename": f }))
            .collect();
        let body = serde_json::json!({ "sha": COMMIT, "siblings": files }).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        return stream.write_all(head.as_bytes()).ok();
    }
    let name = path.split_once("/resolve/")?.1.split_once('/')?.1;
    let Some((bytes, body)) = repo.files.get(name) else {
        return stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            .ok();
    };
    send(stream, bytes, body.unwrap_or(Body::Whole), range)
}

fn send(mut stream: TcpStream, bytes: &[u8], body: Body, range: &str) -> Option<()> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let head_only = !to.is_empty();
    let part = if head_only {
        &bytes[from..from + 1]
    } else {
        &bytes[from..]
    };
    let length = match body {
        Body::CutUnannounced(_) if !head_only => String::new(),
        _ => format!("Content-Length: {}\r\n", part.len()),
    };
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\n{length}Content-Range: bytes {from}-{}/{}\r\nETag: \"{}\"\r\n\
         X-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
        from + part.len().max(1) - 1,
        bytes.len(),
        sha256(bytes)
    );
    stream.write_all(head.as_bytes()).ok()?;
    match body {
        _ if head_only => stream.write_all(part).ok(),
        Body::Whole => stream.write_all(part).ok(),
        Body::CutAfter(n) | Body::CutUnannounced(n) => {
            stream.write_all(&part[..n.min(part.len())]).ok()
        }
        Body::Damaged => stream.write_all(&vec![b'?'; part.len()]).ok(),
        Body::Stalled(n) => {
            stream.write_all(&part[..n.min(part.len())]).ok()?;
            // The peer's end of the connection ends this.
            BufReader::new(stream).lines().for_each(drop);
            Some(())
        }
    }
}
