//! Explanations of features that someone published: JSON Lines or a JSON list, an object a feature.
//!
//! Reads what Neuronpedia exports (`index` and `description`) and its like; knows no study. Of a
//! feature with several explanations the first is taken, and the others are counted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::lfs;

/// The names that a feature's number goes by, and those of its explanation.
const NUMBERS: [&str; 3] = ["index", "feature", "id"];
const TEXTS: [&str; 2] = ["description", "explanation"];
/// The longest explanation that is kept, in characters.
const LONGEST: usize = 500;

/// Explanations by feature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanations {
    /// The first explanation of each feature.
    pub texts: BTreeMap<usize, String>,
    /// Further explanations of features that have one.
    pub further: usize,
    /// Objects whose explanation is empty.
    pub empty: usize,
}

/// Reads a file of explanations.
///
/// # Errors
/// A file that cannot be read, or is no such list, with the place.
pub fn read(path: &Path) -> Result<Explanations> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    lfs::refuse_pointer(&bytes, path)?;
    parse(&bytes).map_err(|problem| Error::file(path, problem))
}

fn parse(bytes: &[u8]) -> Result<Explanations, String> {
    let list = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Array(list)) => list,
        Ok(one @ Value::Object(_)) => vec![one],
        Ok(_) => return Err("is no list of explanations: an object a feature".to_owned()),
        Err(_) => lines(bytes)?,
    };
    let mut out = Explanations::default();
    for (i, object) in list.iter().enumerate() {
        let number = NUMBERS.iter().find_map(|key| number(object.get(key)?));
        let text = TEXTS.iter().find_map(|key| object.get(key)?.as_str());
        let (Some(number), Some(text)) = (number, text) else {
            return Err(format!(
                "explanation {} lacks a number ({}) or a text ({}): give an object with both for each feature",
                i + 1,
                NUMBERS.join(", "),
                TEXTS.join(", ")
            ));
        };
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let line: String = line.chars().take(LONGEST).collect();
        if line.is_empty() {
            out.empty += 1;
            continue;
        }
        match out.texts.entry(number) {
            Entry::Occupied(_) => out.further += 1,
            Entry::Vacant(place) => {
                place.insert(line);
            }
        }
    }
    match out.texts.is_empty() {
        true => Err("holds no explanations".to_owned()),
        false => Ok(out),
    }
}

fn lines(bytes: &[u8]) -> Result<Vec<Value>, String> {
    let all = bytes.split(|&b| b == b'\n').enumerate();
    let filled = all.filter(|(_, line)| !line.trim_ascii().is_empty());
    filled
        .map(|(i, line)| {
            serde_json::from_slice(line).map_err(|e| format!("line {} is no JSON: {e}", i + 1))
        })
        .collect()
}

/// A number, which Neuronpedia writes as text.
fn number(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_u64().and_then(|n| usize::try_from(n).ok()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_and_lines_of_objects_are_read() {
        let list = br#"[{"index": "7", "description": " days of\nthe week", "modelId": "gpt2"},
            {"index": 2, "description": "colours"}, {"index": 2, "description": "red"}, {"index": 3, "description": " "}]"#;
        let found = parse(list).unwrap();
        let texts: Vec<_> = found.texts.iter().map(|(i, t)| (*i, t.as_str())).collect();
        assert_eq!(texts, [(2, "colours"), (7, "days of the week")]);
        assert_eq!((found.further, found.empty), (1, 1));
        let lines =
            b"{\"feature\": 1, \"explanation\": \"a\"}\n\n{\"id\": 0, \"description\": \"b\"}\n";
        assert_eq!(parse(lines).unwrap().texts.len(), 2);
        assert_eq!(
            parse(b"{\"index\": 1, \"description\": \"a\"}")
                .unwrap()
                .texts
                .len(),
            1
        );
    }

    #[test]
    fn a_file_that_holds_no_explanations_is_refused() {
        for (bytes, says) in [
            (&b"3"[..], "no list of explanations"),
            (b"[]", "holds no explanations"),
            (
                b"[{\"index\": -1, \"description\": \"a\"}]",
                "explanation 1 lacks a number",
            ),
            (
                b"[{\"index\": 1}]",
                "explanation 1 lacks a number (index, feature, id) or a text",
            ),
            (
                b"{\"index\": 1, \"description\": \"a\"}\nx",
                "line 2 is no JSON",
            ),
        ] {
            let problem = parse(bytes).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
