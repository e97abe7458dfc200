//! CSV, TSV and similar tables: a header names the columns, and the delimiter is found from it.
//!
//! Knows of a file's name only whether it claims to be a table. Quotes are read as Python's csv and
//! pandas read them.

use std::io::Read;

use super::sample_list::{SampleList, names};
use super::shapes::{LABEL, TEXT};

/// The characters that may separate cells, and their names.
const DELIMITERS: [(u8, &str); 4] = [
    (b',', "commas"),
    (b'\t', "tabs"),
    (b';', "semicolons"),
    (b'|', "bars"),
];
/// A row that is appended to the table. If it is not read as a row of its own, a quote before it is
/// never closed.
const SENTINEL: &str = "\u{1}the end of the table\u{1}";

/// The first line of a table: what separates its cells, and the names of its columns.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    delimiter: (u8, &'static str),
    columns: Vec<String>,
}

impl Header {
    fn new(text: &str, delimiter: (u8, &'static str)) -> Option<Self> {
        let mut record = csv::StringRecord::new();
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .delimiter(delimiter.0)
            .from_reader(text.as_bytes());
        reader
            .read_record(&mut record)
            .ok()
            .filter(|was_read| *was_read)?;
        Some(Self {
            delimiter,
            columns: record.iter().map(|c| c.trim().to_owned()).collect(),
        })
    }

    /// The index of a column; `None` where there is none.
    ///
    /// # Errors
    /// Two columns of the name.
    fn column(&self, name: &str) -> Result<Option<usize>, String> {
        let mut found = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.eq_ignore_ascii_case(name))
            .map(|c| c.0);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(format!(
                "line 1: the column {name} is there twice: rename one of them"
            )),
            (at, None) => Ok(at),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|c| c.eq_ignore_ascii_case(name))
    }

    fn has_text(&self) -> bool {
        TEXT.iter().any(|name| self.has(name))
    }

    /// Whether every name is made of letters, digits and a few signs, as a sentence is not.
    fn is_plain(&self) -> bool {
        let plain = |c: char| c.is_alphanumeric() || "_-.:#".contains(c);
        self.columns.iter().all(|name| name.chars().all(plain))
    }
}

/// The header of a text that is a table; `None` for one that is not. `named`: the file's name says
/// that it is one.
///
/// # Errors
/// A file whose name says that it is a table and which has no column of texts; a text that can be
/// read both as a table and as something else.
pub(super) fn find(text: &str, named: bool) -> Result<Option<Header>, String> {
    let headers: Vec<Header> = DELIMITERS
        .iter()
        .filter_map(|&d| Header::new(text, d))
        .collect();
    let wide: Vec<&Header> = headers
        .iter()
        .filter(|h| h.columns.len() > 1 && h.has_text())
        .collect();
    if let [one, other, ..] = wide[..] {
        return Err(format!(
            "line 1 can be read in two ways: as columns between {} ({}) and between {} ({}); quote the names that hold one of them",
            one.delimiter.1,
            names(one.columns.iter().map(String::as_str)),
            other.delimiter.1,
            names(other.columns.iter().map(String::as_str))
        ));
    }
    let single = headers
        .first()
        .filter(|h| h.columns.len() == 1 && h.has_text());
    if named {
        if let Some(header) = wide.first().copied().or(single) {
            return Ok(Some(header.clone()));
        }
        let found = headers.iter().max_by_key(|h| h.columns.len());
        let found = found.map_or_else(String::new, |h| names(h.columns.iter().map(String::as_str)));
        return Err(format!(
            "line 1: expected a header with a column text or prompt (and perhaps label), found {found}; rename the column that \
             holds the texts, or name the file .txt if it is plain text, a sample a line"
        ));
    }
    if single.is_some_and(|h| TEXT.contains(&h.columns[0].as_str())) {
        return Err(format!(
            "can be read in two ways: as a table with the one column {}, or as plain text whose first line is that word; name it \
             .csv for the table, or take line 1 out",
            headers[0].columns[0]
        ));
    }
    let Some(header) = wide.first().copied() else {
        return Ok(None);
    };
    let sure = header.delimiter.0 == b'\t' || header.has(LABEL);
    let fits = read(text, header);
    match (sure, fits) {
        (true, Ok(_)) => Ok(Some(header.clone())),
        (true, Err(problem)) => Err(format!(
            "begins as a table with the columns {}, but {problem}; mend it, or, if it is plain text, write it as a JSON list of \
             strings",
            names(header.columns.iter().map(String::as_str))
        )),
        (false, Ok(_)) if header.is_plain() => Err(format!(
            "can be read in two ways: as a table with the columns {} (between {}), or as plain text, a sample a line; name it .csv \
             for the table, or write it as a JSON list of strings",
            names(header.columns.iter().map(String::as_str)),
            header.delimiter.1
        )),
        (false, _) => Ok(None),
    }
}

/// The samples of a table, a row each.
///
/// # Errors
/// A row with another number of cells than the header, and a quote that is never closed.
pub(super) fn read(text: &str, header: &Header) -> Result<SampleList, String> {
    let [prompt, texts] = TEXT.map(|name| header.column(name));
    let (prompt, texts, label) = (prompt?, texts?, header.column(LABEL)?);
    let Some(text_column) = prompt.or(texts) else {
        return Err("line 1: there is no column text or prompt".to_owned());
    };
    let width = header.columns.len();
    let end = format!("\n{SENTINEL}\n");
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(header.delimiter.0)
        .flexible(true)
        .from_reader(text.as_bytes().chain(end.as_bytes()));
    let mut out = SampleList::default();
    let (mut closed, mut last) = (false, 1);
    for record in reader.records() {
        let record = record.map_err(|e| format!("not a table: {e}"))?;
        if record.get(0) == Some(SENTINEL) {
            closed = true;
            break;
        }
        last = record.position().map_or(0, csv::Position::line);
        if record.iter().any(|cell| cell.contains(SENTINEL)) {
            break;
        }
        if record.len() != width {
            let cells = super::sample_list::plural(record.len(), "cell", "cells");
            return Err(format!(
                "line {last} has {cells} where the header has {width} ({}): put texts that hold {} or a line break in quotes",
                names(header.columns.iter().map(String::as_str)),
                header.delimiter.1
            ));
        }
        let cell = |at: usize| record.get(at).unwrap_or_default().to_owned();
        out.push(cell(text_column), label.map(cell));
    }
    if !closed {
        return Err(format!(
            "line {last}: a quote (\") is opened and never closed; write \"\" for a quote within a text"
        ));
    }
    if prompt.is_some() && texts.is_some() {
        out.both = out.samples.len();
    }
    let read = [prompt, texts, label];
    let unread = header
        .columns
        .iter()
        .enumerate()
        .filter(|(at, _)| !read.contains(&Some(*at)));
    out.ignore(unread.map(|(_, name)| name.as_str()));
    Ok(out)
}
