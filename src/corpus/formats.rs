//! The format of a corpus, told by its content; the file's name decides only between formats that
//! the content allows.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::json::{self, Json};
use super::sample_list::SampleList;
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
        parse(NamedFormat::of(path), &bytes).map_err(|problem| Error::file(path, problem))?;
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
    let samples = parse(NamedFormat::Json, BUNDLED.as_bytes())
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

/// The format that a file's name claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedFormat {
    Json,
    Table,
    /// Plain text, or a name that claims nothing.
    Text,
}

impl NamedFormat {
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

/// The samples of a file, and remarks on them for the user; or its problem in one line.
pub(super) fn parse(
    named: NamedFormat,
    bytes: &[u8],
) -> Result<(Vec<Sample>, Vec<String>), String> {
    let mut notes = Vec::new();
    let text = bytes::decode(bytes, &mut notes)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (samples, more) = read(named, text, &mut notes)?.finish();
    notes.extend(more);
    if samples.iter().all(|s| s.text.trim().is_empty()) {
        return Err("the corpus is empty: it must hold at least one text".to_owned());
    }
    Ok((samples, notes))
}

fn read(named: NamedFormat, text: &str, notes: &mut Vec<String>) -> Result<SampleList, String> {
    if let Some(out) = read_json(named, text, notes)? {
        return Ok(out);
    }
    if text.trim().is_empty() {
        return Ok(SampleList::default());
    }
    if let Some(header) = table::find(text, named == NamedFormat::Table)? {
        return table::read(text, &header);
    }
    match named {
        NamedFormat::Json => {
            Err("does not begin as JSON ({, [ or \"), nor with the header of a table: name it .txt if it is plain \
             text, a sample a line"
                .to_owned())
        }
        _ => Ok(read_lines(text)),
    }
}

/// The samples of a text that is JSON, one value or several.
fn read_json(
    named: NamedFormat,
    text: &str,
    notes: &mut Vec<String>,
) -> Result<Option<SampleList>, String> {
    if !text.trim_start().starts_with(['{', '[', '"']) {
        return Ok(None);
    }
    let mut odd = Vec::new();
    let strict = json::to_strict(text, &mut odd);
    let values = match json::values(&strict) {
        Ok(values) => values,
        // The header of a table may be quoted.
        Err(_) if matches!(table::find(text, named == NamedFormat::Table), Ok(Some(_))) => {
            return Ok(None);
        }
        Err(problem) if named == NamedFormat::Json => return Err(problem),
        Err(problem) if json::looks_like_json(text) => {
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
        match named {
            NamedFormat::Json => {}
            NamedFormat::Table => return Ok(None),
            NamedFormat::Text => {
                return Err("can be read in two ways, because every line is a quoted string: as JSON Lines, without the quotes, \
                     or as plain text, with them; name it .jsonl for the first, and for the second write it as a JSON list \
                     of strings"
                    .to_owned());
            }
        }
    }
    let out = shapes::samples(&strict, values)?;
    notes.extend(odd);
    Ok(Some(out))
}

/// A sample a line, blank lines left out.
fn read_lines(text: &str) -> SampleList {
    let mut out = SampleList::default();
    // Files of the old Mac OS end their lines in CR alone.
    let lines: Box<dyn Iterator<Item = &str>> = if text.contains('\n') {
        Box::new(text.lines())
    } else {
        Box::new(text.split('\r'))
    };
    lines
        .filter(|l| !l.trim().is_empty())
        .for_each(|l| out.push(l.to_owned(), None));
    out
}
