//! From JSON values to samples: a sample a value, a list of samples, or label → list of texts; the
//! module `columns` reads columns.
//!
//! Knows no file. Invariant: what can be taken for labels and for something else is refused with
//! both readings.

use super::columns;
use super::json::{Json, line_of};
use super::sample_list::{SampleList, is_among, names};

/// Keys and columns that hold the text, the first that exists before the others.
pub(super) const TEXT: [&str; 2] = ["prompt", "text"];
/// The key or column that holds the label.
pub(super) const LABEL: &str = "label";
/// What a sample may be, for error messages.
const SHAPE: &str = "a string or an object with \"prompt\" or \"text\" (and perhaps \"label\")";
/// The form that is asked for where columns and labels cannot be told apart.
pub(super) const REMEDY: &str = "write it as JSON Lines, {\"text\": …, \"label\": …} a line";
/// Common names for the list of samples in a file, which are unlikely to be labels.
const WRAPPERS: &str = "corpus data dataset dev documents entries examples instances items prompts records rows samples \
    sentences test texts train val validation";
/// The entries of a JSON object in the order of the file, repeated keys included.
pub(super) type Object = Vec<(String, Json)>;

/// The samples of a file's JSON values, each with its line.
pub(super) fn samples(text: &str, mut values: Vec<(usize, Json)>) -> Result<SampleList, String> {
    let mut out = SampleList::default();
    if values.len() == 1 && matches!(values[0].1, Json::List(_) | Json::Object(_)) {
        let (line, value) = values.remove(0);
        match value {
            Json::List(list) => {
                let place = |i: usize| format!("line {}: entry {}", line_of(text, 1, i), i + 1);
                read_list(list, None, &place, &mut out)?;
            }
            Json::Object(object) if !is_sample(&object) => {
                read_object(text, object, &mut out).map_err(|e| {
                    if e.starts_with("line ") {
                        e
                    } else {
                        format!("line {line}: {e}")
                    }
                })?;
            }
            other => values.push((line, other)),
        }
    }
    for (line, value) in values {
        read_sample(value, None, &mut out)
            .map_err(|found| format!("line {line}: expected {SHAPE}, found {found}"))?;
    }
    Ok(out)
}

fn read_list(
    list: Vec<Json>,
    label: Option<&str>,
    place: &dyn Fn(usize) -> String,
    out: &mut SampleList,
) -> Result<(), String> {
    for (i, value) in list.into_iter().enumerate() {
        read_sample(value, label, out)
            .map_err(|found| format!("{}: expected {SHAPE}, found {found}", place(i)))?;
    }
    Ok(())
}

/// Whether an object that is alone in its file is a sample: its text is neither a list nor an object
/// or, where it has no text, none of its values is.
fn is_sample(object: &[(String, Json)]) -> bool {
    let nests = |value: &Json| matches!(value, Json::List(_) | Json::Object(_));
    let texts: Vec<&Json> = object
        .iter()
        .filter(|(key, _)| TEXT.contains(&key.as_str()))
        .map(|e| &e.1)
        .collect();
    match texts.is_empty() {
        true => !object.is_empty() && !object.iter().any(|(_, value)| nests(value)),
        false => !texts.iter().any(|value| nests(value)),
    }
}

/// Reads one entry as a sample; the error is what it is instead.
fn read_sample(value: Json, outer: Option<&str>, out: &mut SampleList) -> Result<(), String> {
    let mut object = match value {
        Json::String(text) => {
            out.push(text, outer.map(str::to_owned));
            return Ok(());
        }
        Json::Object(object) => object,
        other => return Err(other.kind().to_owned()),
    };
    let keys = names(object.iter().map(|(key, _)| key.as_str()));
    let [prompt, text] = TEXT.map(|key| remove_once(&mut object, key));
    let (prompt, text, label) = (prompt?, text?, remove_once(&mut object, LABEL)?);
    let is_given = |value: &Option<Json>| value.as_ref().is_some_and(|v| *v != Json::Null);
    out.both += usize::from(is_given(&prompt) && is_given(&text));
    out.ignore(object.iter().map(|(key, _)| key.as_str()));
    let text = match if is_given(&prompt) {
        prompt
    } else {
        text.or(prompt)
    } {
        Some(Json::String(text)) => text,
        Some(other) => return Err(format!("an object whose text is {}", other.kind())),
        None => return Err(format!("an object with neither (its keys: {keys})")),
    };
    push(text, label, outer, out).map_err(|kind| format!("an object whose label is {kind}"))
}

/// Adds a text with the value of its label; the error is what that is instead.
pub(super) fn push(
    text: String,
    label: Option<Json>,
    outer: Option<&str>,
    out: &mut SampleList,
) -> Result<(), String> {
    let label = match label {
        None => None,
        Some(Json::Null) if outer.is_none() => {
            out.push_unlabelled(text);
            return Ok(());
        }
        Some(Json::Null) => None,
        Some(Json::String(label) | Json::Number(label)) => Some(label),
        Some(Json::Bool(label)) => Some(label.to_string()),
        Some(other) => return Err(other.kind().to_owned()),
    };
    out.push(text, label.or_else(|| outer.map(str::to_owned)));
    Ok(())
}

/// Removes a key and returns its value; an error where the object has the key twice.
pub(super) fn remove_once(object: &mut Object, key: &str) -> Result<Option<Json>, String> {
    let Some(at) = object.iter().position(|(k, _)| k == key) else {
        return Ok(None);
    };
    let value = object.remove(at).1;
    match object.iter().any(|(k, _)| k == key) {
        true => Err(format!("an object that has \"{key}\" twice")),
        false => Ok(Some(value)),
    }
}

/// Reads an object that is the whole file: label → list of texts, or parallel columns.
fn read_object(text: &str, object: Object, out: &mut SampleList) -> Result<(), String> {
    if columns::is_columnar(&object)? {
        columns::read(text, object, out)
    } else {
        read_labels(text, object, out)
    }
}

fn read_labels(text: &str, entries: Object, out: &mut SampleList) -> Result<(), String> {
    let keys = names(entries.iter().map(|(key, _)| key.as_str()));
    let own = |value: &Json| matches!(value, Json::Object(object) if object.iter().any(|(key, _)| key == LABEL));
    let labelled = |value: &Json| matches!(value, Json::List(list) if list.iter().all(own));
    let wraps =
        |(key, value): &(String, Json)| is_among(WRAPPERS, key) && matches!(value, Json::List(_));
    if entries.iter().all(wraps) && !entries.iter().all(|(_, value)| labelled(value)) {
        return Err(format!(
            "can be read in two ways: as texts without labels within {keys}, or as labels of that name; for the first give the \
             list alone, and for the second {REMEDY}"
        ));
    }
    let mut before = 0;
    let mut seen = std::collections::HashSet::new();
    let mut twice = Vec::new();
    for (label, value) in entries {
        let Json::List(list) = value else {
            return Err(format!(
                "\"{}\": expected a list of texts, found {} (the keys are {keys}; a sample has \"text\" or \"prompt\")",
                label.escape_debug(),
                value.kind()
            ));
        };
        let count = list.len();
        let place = |i: usize| {
            format!(
                "line {}: entry {} of \"{}\"",
                line_of(text, 2, before + i),
                i + 1,
                label.escape_debug()
            )
        };
        read_list(list, Some(&label), &place, out)?;
        before += count;
        if !seen.insert(label.clone()) {
            twice.push(label);
        }
    }
    if !twice.is_empty() {
        let which = names(twice.iter().map(String::as_str));
        out.notes.push(format!(
            "labels that are there more than once, their texts taken together: {which}"
        ));
    }
    Ok(())
}
