//! Models from everywhere, without a network: a Hub on a loopback socket, and a Python that is a
//! shell script.

mod fake_hub;
mod from_disk;
mod from_hub;
mod from_package;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::model::gguf;
use crate::task::{CancelToken, Progress};

/// Folders in `dir`, no network, no Python.
fn settings(dir: &Path) -> SourceSettings {
    SourceSettings {
        data: dir.join("data"),
        hub_cache: dir.join("hub"),
        endpoint: "http://127.0.0.1:1".to_owned(),
        token: None,
        offline: false,
        proxied: false,
        python: dir.join("no-python"),
        home: dir.join("home"),
    }
}

/// A context that keeps what is reported.
fn watched() -> (TaskCtx, Arc<Mutex<Vec<Progress>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    (
        TaskCtx::new(CancelToken::default(), move |p| {
            sink.lock().unwrap().push(p)
        }),
        seen,
    )
}

/// A context that is cancelled once `wanted` says so of a report.
fn cancelled_when(wanted: impl Fn(&Progress) -> bool + Send + Sync + 'static) -> TaskCtx {
    let cancel = CancelToken::default();
    let own = cancel.clone();
    TaskCtx::new(cancel, move |p| {
        if wanted(&p) {
            own.cancel();
        }
    })
}

/// A safetensors file with one tensor of `bytes` zeros.
fn safetensors(bytes: usize) -> Vec<u8> {
    let header =
        format!(r#"{{"w":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[0,{bytes}]}}}}"#);
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.resize(out.len() + bytes, 0);
    out
}

fn gguf_bytes() -> Vec<u8> {
    let writer = gguf::testing::GgufWriter::new()
        .string("general.architecture", "llama")
        .uint("llama.block_count", 3)
        .uint("llama.feed_forward_length", 48);
    writer
        .tensor("token_embd.weight", &[8, 4], 0, &[0; 128])
        .bytes()
}

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The one line that an error says.
fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    let message = result.unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}
