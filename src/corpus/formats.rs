//! The file formats of a corpus: JSON, JSONL, CSV with a header, plain text.
//!
//! Knows nothing of tokens or models. Invariant: every entry of the file is a sample, in file order, or the file is
//! refused with the entry's place, what was found there and what was expected (only blank lines are passed over).

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Corpus, Sample};
use crate::error::{Error, Result};

const BUNDLED: &str = include_str!("../../data/concepts.json");

/// What a sample object may be, for error messages.
const SHAPE: &str = "a string or an object with \"prompt\" or \"text\" (and perhaps \"label\")";

pub(super) fn open(path: &Path) -> Result<Corpus> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let samples = parse(&extension(path), &bytes).map_err(|problem| Error::file(path, problem))?;
    Ok(Corpus { name: path.display().to_string(), samples, sha256: sha256(&bytes) })
}

pub(super) fn bundled() -> Corpus {
    // A test parses the bundled file, so that it cannot fail here.
    let samples = parse("json", BUNDLED.as_bytes()).unwrap_or_default();
    Corpus { name: "bundled concepts".to_owned(), samples, sha256: sha256(BUNDLED.as_bytes()) }
}

fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The samples of a file, or its problem in one line.
fn parse(extension: &str, bytes: &[u8]) -> Result<Vec<Sample>, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        format!("line {line} is not UTF-8 text; save the corpus as UTF-8")
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let samples = match extension {
        "json" => json(text)?,
        "jsonl" | "ndjson" => json_lines(text)?,
        "csv" => csv(text)?,
        _ => plain(text),
    };
    if samples.iter().all(|s| s.text.trim().is_empty()) {
        return Err("the corpus is empty: it must hold at least one text".to_owned());
    }
    Ok(samples)
}

fn plain(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|l| !l.trim().is_empty());
    lines.map(|l| Sample { text: l.to_owned(), label: None }).collect()
}

fn json_lines(text: &str) -> Result<Vec<Sample>, String> {
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(i, line)| {
            let value: Value =
                serde_json::from_str(line).map_err(|e| format!("line {}: not JSON: {}", i + 1, syntax(&e)))?;
            sample(value, None).map_err(|found| format!("line {}: expected {SHAPE}, found {found}", i + 1))
        })
        .collect()
}

fn json(text: &str) -> Result<Vec<Sample>, String> {
    let root: Root = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
    let in_list = |list: Vec<Value>, label: Option<&str>, place: &str| -> Result<Vec<Sample>, String> {
        let samples = list.into_iter().enumerate().map(|(i, value)| {
            sample(value, label).map_err(|found| format!("entry {}{place}: expected {SHAPE}, found {found}", i + 1))
        });
        samples.collect()
    };
    match root {
        Root::List(list) => in_list(list, None, ""),
        Root::Labels(entries) => {
            let mut samples = Vec::new();
            for (label, value) in entries {
                let Value::Array(list) = value else {
                    return Err(format!("\"{label}\": expected a list of texts, found {}", kind(&value)));
                };
                samples.extend(in_list(list, Some(&label), &format!(" of \"{label}\""))?);
            }
            Ok(samples)
        }
        Root::Other(found) => {
            Err(format!("expected an object (label to list of texts) or a list of samples, found {found}"))
        }
    }
}

/// One entry as a sample, or what it is instead.
fn sample(value: Value, outer_label: Option<&str>) -> Result<Sample, String> {
    let mut object = match value {
        Value::String(text) => return Ok(Sample { text, label: outer_label.map(str::to_owned) }),
        Value::Object(object) => object,
        other => return Err(kind(&other).to_owned()),
    };
    let text = match object.remove("prompt").or_else(|| object.remove("text")) {
        Some(Value::String(text)) => text,
        Some(other) => return Err(format!("an object whose text is {}", kind(&other))),
        None => return Err("an object with neither".to_owned()),
    };
    let label = match object.remove("label") {
        None | Some(Value::Null) => outer_label.map(str::to_owned),
        Some(Value::String(label)) => Some(label),
        Some(label @ (Value::Number(_) | Value::Bool(_))) => Some(label.to_string()),
        Some(other) => return Err(format!("an object whose label is {}", kind(&other))),
    };
    Ok(Sample { text, label })
}

fn csv(text: &str) -> Result<Vec<Sample>, String> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let headers = reader.headers().map_err(|e| format!("not CSV: {e}"))?.clone();
    let column = |names: &[&str]| headers.iter().position(|h| names.contains(&h.trim().to_lowercase().as_str()));
    let Some(text_column) = column(&["prompt"]).or_else(|| column(&["text"])) else {
        let found: Vec<_> = headers.iter().collect();
        return Err(format!("line 1: expected a header with a column text or prompt, found {}", found.join(", ")));
    };
    let label_column = column(&["label"]);
    let mut samples = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| format!("not CSV: {e}"))?;
        let text = record.get(text_column).unwrap_or_default().to_owned();
        let label = label_column.and_then(|c| record.get(c)).filter(|l| !l.is_empty()).map(str::to_owned);
        samples.push(Sample { text, label });
    }
    Ok(samples)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A syntax error without its line, which is always 1 in a line of JSONL.
fn syntax(e: &serde_json::Error) -> String {
    let text = e.to_string();
    let message = text.split(" at line ").next().unwrap_or(&text);
    format!("{message} at column {}", e.column())
}

/// A JSON corpus, labels in the order of the file (a map of `serde_json` would sort them).
enum Root {
    Labels(Vec<(String, Value)>),
    List(Vec<Value>),
    Other(&'static str),
}

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RootVisitor)
    }
}

struct RootVisitor;

impl<'de> Visitor<'de> for RootVisitor {
    type Value = Root;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a corpus")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Root, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Root::Labels(entries))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Root, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Root::List(list))
    }
    fn visit_str<E>(self, _: &str) -> Result<Root, E> {
        Ok(Root::Other("a string"))
    }
    fn visit_bool<E>(self, _: bool) -> Result<Root, E> {
        Ok(Root::Other("a boolean"))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Root, E> {
        Ok(Root::Other("a number"))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Root, E> {
        Ok(Root::Other("a number"))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Root, E> {
        Ok(Root::Other("a number"))
    }
    fn visit_unit<E>(self) -> Result<Root, E> {
        Ok(Root::Other("null"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(extension: &str, text: &str) -> Vec<(String, Option<String>)> {
        parse(extension, text.as_bytes()).unwrap().into_iter().map(|s| (s.text, s.label)).collect()
    }

    fn one(text: &str, label: Option<&str>) -> (String, Option<String>) {
        (text.to_owned(), label.map(str::to_owned))
    }

    #[test]
    fn labels_keep_the_order_of_the_file() {
        let found = pairs("json", r#"{"z": ["one", "two"], "a": ["three"]}"#);
        assert_eq!(found, [one("one", Some("z")), one("two", Some("z")), one("three", Some("a"))]);
    }

    #[test]
    fn lists_hold_strings_and_objects() {
        let text = r#"["plain", {"prompt": "p", "label": "x"}, {"text": "t"}, {"text": "n", "label": 3}]"#;
        let expected = [one("plain", None), one("p", Some("x")), one("t", None), one("n", Some("3"))];
        assert_eq!(pairs("json", text), expected);
        let lines =
            "\"plain\"\n{\"prompt\": \"p\", \"label\": \"x\"}\n\n{\"text\": \"t\"}\n{\"text\": \"n\", \"label\": 3}\n";
        assert_eq!(pairs("jsonl", lines), expected);
    }

    #[test]
    fn csv_needs_a_header_and_takes_quoted_line_breaks() {
        let text = "\u{feff}label,Text\nweekday,\"On Monday, \n\"\"we\"\" rest\"\n,none\n";
        assert_eq!(pairs("csv", text), [one("On Monday, \n\"we\" rest", Some("weekday")), one("none", None)]);
        let error = parse("csv", b"id,body\n1,x\n").unwrap_err();
        assert!(error.contains("line 1") && error.contains("id, body"), "{error}");
        let error = parse("csv", b"text,label\nonly one\n").unwrap_err();
        assert!(error.contains("line: 2") || error.contains("line 2"), "{error}");
    }

    #[test]
    fn plain_text_is_a_sample_a_line_without_blank_ones() {
        assert_eq!(pairs("txt", "one\r\n\n  \n two \n"), [one("one", None), one(" two ", None)]);
    }

    #[test]
    fn a_wrong_entry_is_named() {
        let wrong = [
            ("json", r#"{"months": ["May", 3]}"#, "entry 2 of \"months\"", "a number"),
            ("json", r#"{"months": "May"}"#, "\"months\"", "a string"),
            ("json", r#"[{"text": "a"}, {"body": "b"}]"#, "entry 2", "neither"),
            ("json", r#"[{"text": ["a"]}]"#, "entry 1", "a list"),
            ("json", r#""text""#, "expected an object", "a string"),
            ("json", "{\"a\": [\"b\"\n", "line 2", "EOF"),
            ("jsonl", "\"a\"\n\n7\n", "line 3", "a number"),
            ("jsonl", "\"a\"\n{\n", "line 2", "EOF"),
        ];
        for (extension, text, place, found) in wrong {
            let error = parse(extension, text.as_bytes()).unwrap_err();
            assert!(error.contains(place) && error.contains(found) && !error.contains('\n'), "{error}");
        }
        assert!(parse("txt", b"fine\nbad \xff\n").unwrap_err().contains("line 2"));
    }

    #[test]
    fn an_empty_corpus_is_refused() {
        for (extension, text) in
            [("json", "{}"), ("json", "[]"), ("json", "[\" \"]"), ("csv", "text\n"), ("txt", "\n\n")]
        {
            assert!(parse(extension, text.as_bytes()).unwrap_err().contains("empty"), "{extension} {text:?}");
        }
    }

    #[test]
    fn the_bundled_concepts_are_there_and_varied() {
        let corpus = bundled();
        let mut counts = std::collections::BTreeMap::new();
        for sample in &corpus.samples {
            *counts.entry(sample.label.clone().unwrap()).or_insert(0) += 1;
        }
        assert!(counts.len() >= 24, "{counts:?}");
        assert!(counts.values().all(|&n| n >= 40), "{counts:?}");
        let distinct: std::collections::HashSet<_> = corpus.samples.iter().map(|s| &s.text).collect();
        assert!(distinct.len() * 100 > corpus.samples.len() * 95, "too many repeated texts");
        assert_eq!(corpus.sha256.len(), 64);
    }

    #[test]
    fn the_bundled_hierarchy_is_nested() {
        let samples = parse("json", include_bytes!("../../data/hierarchy.json")).unwrap();
        assert!(samples.iter().all(|s| s.label.as_ref().is_some_and(|l| l.contains('/'))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), which in 0usize..4) {
            let _ = parse(["json", "jsonl", "csv", "txt"][which], &bytes);
        }
    }
}
