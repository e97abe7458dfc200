//! Which format a corpus is in, told by its content; its name decides only between readings that
//! the content allows.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::json::{self, Json};
use super::reading::Reading;
use super::{Corpus, Sample, bytes, shapes, table};
use crate::error::{Error, Result};

const BUNDLED: &str = include_str!("../../data/concepts.json");

pub(super) fn open(path: &Path) -> Result<Corpus> {
    if path.is_dir() {
        return Err(Error::file(
            path,
            "is a directory: a corpus is one file (JSON, JSON Lines, CSV, TSV or plain text)",
        ));
    }
    let bytes = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::file(path, "there is no such file: a corpus is a file of texts")
        }
        _ => Error::io("read", path)(e),
    })?;
    let (samples, notes) =
        parse(Claim::of(path), &bytes).map_err(|problem| Error::file(path, problem))?;
    for note in notes {
        tracing::warn!("{}: {note}", path.display());
    }
    Ok(Corpus {
        name: path.display().to_string(),
        samples,
        sha256: sha256(&bytes),
    })
}

pub(super) fn bundled() -> Corpus {
    // A test parses the bundled file, so that it cannot fail here.
    let samples = parse(Claim::Json, BUNDLED.as_bytes())
        .map(|read| read.0)
        .unwrap_or_default();
    Corpus {
        name: "bundled concepts".to_owned(),
        samples,
        sha256: sha256(BUNDLED.as_bytes()),
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// What a file's name says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    Json,
    Table,
    /// Plain text, or nothing that says more.
    Text,
}

impl Claim {
    pub(super) fn of(path: &Path) -> Self {
        let extension = path
            .extension()
            .map(|e| e.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        match extension.as_str() {
            "json" | "jsonl" | "ndjson" | "jsonlines" => Self::Json,
            "csv" | "tsv" | "tab" | "psv" => Self::Table,
            _ => Self::Text,
        }
    }
}

/// The samples of a file and what is to be told of them, or its problem in one line.
pub(super) fn parse(claim: Claim, bytes: &[u8]) -> Result<(Vec<Sample>, Vec<String>), String> {
    let mut notes = Vec::new();
    let text = bytes::text(bytes, &mut notes)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (samples, more) = read(claim, text, &mut notes)?.finish();
    notes.extend(more);
    if samples.iter().all(|s| s.text.trim().is_empty()) {
        return Err("the corpus is empty: it must hold at least one text".to_owned());
    }
    Ok((samples, notes))
}

fn read(claim: Claim, text: &str, notes: &mut Vec<String>) -> Result<Reading, String> {
    if let Some(reading) = read_json(claim, text, notes)? {
        return Ok(reading);
    }
    if text.trim().is_empty() {
        return Ok(Reading::default());
    }
    if let Some(header) = table::find(text, claim == Claim::Table)? {
        return table::read(text, &header);
    }
    match claim {
        Claim::Json => {
            Err("does not begin as JSON ({, [ or \"), nor with the header of a table: name it .txt if it is plain \
             text, a sample a line"
                .to_owned())
        }
        _ => Ok(plain(text)),
    }
}

/// The samples of a text that is JSON, one value or several.
fn read_json(claim: Claim, text: &str, notes: &mut Vec<String>) -> Result<Option<Reading>, String> {
    if !text.trim_start().starts_with(['{', '[', '"']) {
        return Ok(None);
    }
    let mut odd = Vec::new();
    let strict = json::strict(text, &mut odd);
    let values = match json::values(&strict) {
        Ok(values) => values,
        // The header of a table may be quoted.
        Err(_) if matches!(table::find(text, claim == Claim::Table), Ok(Some(_))) => {
            return Ok(None);
        }
        Err(problem) if claim == Claim::Json => return Err(problem),
        Err(problem) if json::is_meant(text) => {
            return Err(format!(
                "begins as JSON, but {problem}; mend it, or, if it is plain text, write it as a JSON list of strings"
            ));
        }
        Err(_) => return Ok(None),
    };
    // Quoted lines are JSON strings, cells of a table, or a text full of speech.
    if values
        .iter()
        .all(|(_, value)| matches!(value, Json::String(_)))
    {
        match claim {
            Claim::Json => {}
            Claim::Table => return Ok(None),
            Claim::Text => {
                return Err("can be read in two ways, because every line is a quoted string: as JSON Lines, without the quotes, \
                     or as plain text, with them; name it .jsonl for the first, and for the second write it as a JSON list \
                     of strings"
                    .to_owned());
            }
        }
    }
    let reading = shapes::samples(&strict, values)?;
    notes.extend(odd);
    Ok(Some(reading))
}

/// A sample a line, without blank ones.
fn plain(text: &str) -> Reading {
    let mut reading = Reading::default();
    // Lines of an old Mac end in CR alone.
    let lines: Box<dyn Iterator<Item = &str>> = if text.contains('\n') {
        Box::new(text.lines())
    } else {
        Box::new(text.split('\r'))
    };
    lines
        .filter(|l| !l.trim().is_empty())
        .for_each(|l| reading.push(l.to_owned(), None));
    reading
}
