//! From JSON values to samples: a sample a value, a list of samples, label → list of texts, or parallel columns.
//!
//! Knows no file. Invariant: an object that can be taken for columns and for labels is refused with both readings.

use super::json::{Json, line_of};
use super::reading::{Reading, names};

/// Keys and columns that hold the text, the first that is there before the others.
pub(super) const TEXT: [&str; 2] = ["prompt", "text"];
/// The key or column that holds the label.
pub(super) const LABEL: &str = "label";
/// What a sample may be, for error messages.
const SHAPE: &str = "a string or an object with \"prompt\" or \"text\" (and perhaps \"label\")";
/// What is neither columns nor labels for sure is asked for in this form.
const REMEDY: &str = "write it as JSON Lines, {\"text\": …, \"label\": …} a line";
/// Usual names of columns that are not read: an object of only such ones is hardly one of labels.
const COLUMNS: [&str; 33] = [
    "answer",
    "article",
    "body",
    "category",
    "class",
    "content",
    "context",
    "date",
    "document",
    "id",
    "idx",
    "index",
    "input",
    "instruction",
    "label",
    "labels",
    "lang",
    "language",
    "message",
    "name",
    "output",
    "passage",
    "question",
    "response",
    "review",
    "sentence",
    "source",
    "split",
    "target",
    "texts",
    "title",
    "topic",
    "url",
];

/// The samples of a file's JSON values, each with its line.
pub(super) fn samples(text: &str, mut values: Vec<(usize, Json)>) -> Result<Reading, String> {
    let mut reading = Reading::default();
    if values.len() == 1 && matches!(values[0].1, Json::List(_) | Json::Object(_)) {
        let (line, value) = values.remove(0);
        match value {
            Json::List(list) => {
                let place = |i: usize| format!("line {}: entry {}", line_of(text, 1, i), i + 1);
                in_list(list, None, &place, &mut reading)?;
            }
            Json::Object(object) if !is_sample(&object) => {
                from_object(text, object, &mut reading)
                    .map_err(|e| if e.starts_with("line ") { e } else { format!("line {line}: {e}") })?;
            }
            other => values.push((line, other)),
        }
    }
    for (line, value) in values {
        sample(value, None, &mut reading).map_err(|found| format!("line {line}: expected {SHAPE}, found {found}"))?;
    }
    Ok(reading)
}

fn in_list(
    list: Vec<Json>,
    label: Option<&str>,
    place: &dyn Fn(usize) -> String,
    reading: &mut Reading,
) -> Result<(), String> {
    for (i, value) in list.into_iter().enumerate() {
        sample(value, label, reading).map_err(|found| format!("{}: expected {SHAPE}, found {found}", place(i)))?;
    }
    Ok(())
}

/// Whether an object alone in its file is a sample: its text is no list, or nothing in it is.
fn is_sample(object: &[(String, Json)]) -> bool {
    let nests = |value: &Json| matches!(value, Json::List(_) | Json::Object(_));
    let texts: Vec<&Json> = object.iter().filter(|(key, _)| TEXT.contains(&key.as_str())).map(|e| &e.1).collect();
    match texts.is_empty() {
        true => !object.is_empty() && !object.iter().any(|(_, value)| nests(value)),
        false => !texts.iter().any(|value| nests(value)),
    }
}

/// Takes one entry as a sample, or says what it is instead.
fn sample(value: Json, outer: Option<&str>, reading: &mut Reading) -> Result<(), String> {
    let mut object = match value {
        Json::String(text) => {
            reading.push(text, outer.map(str::to_owned));
            return Ok(());
        }
        Json::Object(object) => object,
        other => return Err(other.kind().to_owned()),
    };
    let keys = names(object.iter().map(|(key, _)| key.as_str()));
    let [prompt, text] = TEXT.map(|key| take(&mut object, key));
    let (prompt, text, label) = (prompt?, text?, take(&mut object, LABEL)?);
    let said = |value: &Option<Json>| value.as_ref().is_some_and(|v| *v != Json::Null);
    reading.both += usize::from(said(&prompt) && said(&text));
    let text = match if said(&prompt) { prompt } else { text.or(prompt) } {
        Some(Json::String(text)) => text,
        Some(other) => return Err(format!("an object whose text is {}", other.kind())),
        None => return Err(format!("an object with neither (its keys: {keys})")),
    };
    push(text, label, outer, reading)
}

/// Takes a text with the value of its label.
fn push(text: String, label: Option<Json>, outer: Option<&str>, reading: &mut Reading) -> Result<(), String> {
    let label = match label {
        None => None,
        Some(Json::Null) if outer.is_none() => {
            reading.push_unlabelled(text);
            return Ok(());
        }
        Some(Json::Null) => None,
        Some(Json::String(label) | Json::Number(label)) => Some(label),
        Some(Json::Bool(label)) => Some(label.to_string()),
        Some(other) => return Err(format!("an object whose label is {}", other.kind())),
    };
    reading.push(text, label.or_else(|| outer.map(str::to_owned)));
    Ok(())
}

/// The value of a key that is there once.
fn take(object: &mut Vec<(String, Json)>, key: &str) -> Result<Option<Json>, String> {
    let Some(at) = object.iter().position(|(k, _)| k == key) else { return Ok(None) };
    let value = object.remove(at).1;
    match object.iter().any(|(k, _)| k == key) {
        true => Err(format!("an object that has \"{key}\" twice")),
        false => Ok(Some(value)),
    }
}

/// An object that is a whole file: label → list of texts, or parallel columns.
fn from_object(text: &str, object: Vec<(String, Json)>, reading: &mut Reading) -> Result<(), String> {
    if is_columns(&object)? { columns(text, object, reading) } else { labels(text, object, reading) }
}

fn labels(text: &str, entries: Vec<(String, Json)>, reading: &mut Reading) -> Result<(), String> {
    let keys = names(entries.iter().map(|(key, _)| key.as_str()));
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
            format!("line {}: entry {} of \"{}\"", line_of(text, 2, before + i), i + 1, label.escape_debug())
        };
        in_list(list, Some(&label), &place, reading)?;
        before += count;
        if !seen.insert(label.clone()) {
            twice.push(label);
        }
    }
    if !twice.is_empty() {
        let which = names(twice.iter().map(String::as_str));
        reading.notes.push(format!("labels that are there more than once, their texts taken together: {which}"));
    }
    Ok(())
}

/// A column of values: a list, or an object by index (as pandas writes it).
fn cells(value: &Json) -> Option<Vec<&Json>> {
    match value {
        Json::List(list) => Some(list.iter().collect()),
        Json::Object(by_index) => Some(by_index.iter().map(|(_, value)| value).collect()),
        _ => None,
    }
}

/// Whether the object is columns, not labels.
fn is_columns(object: &[(String, Json)]) -> Result<bool, String> {
    let has = |name: &str| object.iter().any(|(key, _)| key == name);
    let lists: Option<Vec<Vec<&Json>>> = object.iter().map(|(_, value)| cells(value)).collect();
    let equal = lists.as_ref().is_some_and(|l| l.windows(2).all(|pair| pair[0].len() == pair[1].len()));
    // Labels have lists of strings, or of samples.
    let is_text = |value: &Json| matches!(value, Json::String(_) | Json::Object(_));
    let labels = object.iter().all(|(_, v)| matches!(v, Json::List(list) if list.iter().all(is_text)));
    let lengths = || {
        let each = object.iter().map(|(key, value)| match cells(value) {
            Some(cells) => format!("{key} ({})", cells.len()),
            None => format!("{key} ({})", value.kind()),
        });
        each.collect::<Vec<_>>()
    };
    let either = || {
        let columns = names(lengths().iter().map(String::as_str));
        let unequal = if equal { "" } else { ", which differ in length" };
        Err(format!(
            "can be read in two ways: as columns {columns}{unequal}, or as labels, each with its texts; {REMEDY}"
        ))
    };
    let Some(texts) = TEXT.iter().find_map(|name| object.iter().find(|(key, _)| key == name)) else {
        let usual = object.len() > 1 && equal && object.iter().all(|(key, _)| COLUMNS.contains(&key.as_str()));
        return if labels && equal && object.len() > 1 && (usual || has(LABEL)) {
            either()
        } else if equal && has(LABEL) && object.len() > 1 {
            let there = names(object.iter().map(|(key, _)| key.as_str()));
            Err(format!(
                "is made of columns, none of them text or prompt: there are {there}; rename the one that holds the texts"
            ))
        } else {
            Ok(false)
        };
    };
    let of_samples = cells(&texts.1).is_some_and(|c| c.iter().any(|v| matches!(v, Json::Object(_))));
    match (equal, labels) {
        _ if of_samples && labels => Ok(false),
        (true, false) => Ok(true),
        (true, true) if has(LABEL) || object.len() == 1 => Ok(true),
        (_, true) => either(),
        (false, false) => {
            let columns = names(lengths().iter().map(String::as_str));
            Err(format!("is made of columns that do not fit each other: {columns}; {REMEDY}"))
        }
    }
}

fn columns(text: &str, object: Vec<(String, Json)>, reading: &mut Reading) -> Result<(), String> {
    let index = |value: &Json| match value {
        Json::Object(by_index) => Some(by_index.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>()),
        _ => None,
    };
    let indices: Vec<Option<Vec<String>>> = object.iter().map(|(_, value)| index(value)).collect();
    if indices.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!("is made of columns whose rows do not fit each other; {REMEDY}"));
    }
    let by_index = indices.first().is_some_and(Option::is_some);
    let rows = object.first().and_then(|(_, value)| cells(value)).map_or(0, |c| c.len());
    let unread: Vec<String> =
        object.iter().map(|e| e.0.clone()).filter(|k| !TEXT.contains(&k.as_str()) && k != LABEL).collect();
    let mut places: Vec<(String, usize)> = Vec::new();
    let mut column =
        |object: &mut Vec<(String, Json)>, name: &str, at: Option<usize>| -> Result<Option<Vec<Json>>, String> {
            let Some(at) = at else { return Ok(None) };
            places.push((name.to_owned(), at * rows));
            Ok(take(object, name)?.map(|value| match value {
                Json::List(list) => list,
                Json::Object(by_index) => by_index.into_iter().map(|(_, value)| value).collect(),
                _ => Vec::new(),
            }))
        };
    let at = |name: &str| object.iter().position(|(key, _)| key == name);
    let (prompt_at, text_at, label_at) = (at(TEXT[0]), at(TEXT[1]), at(LABEL));
    let mut object = object;
    let prompts = column(&mut object, TEXT[0], prompt_at)?;
    let texts = column(&mut object, TEXT[1], text_at)?;
    let labels = column(&mut object, LABEL, label_at)?;
    reading.both += if prompts.is_some() && texts.is_some() { rows } else { 0 };
    if labels.is_none() && !unread.is_empty() {
        let unread = names(unread.iter().map(String::as_str));
        reading.notes.push(format!("there is no column label, so texts have none (other columns: {unread})"));
    }
    let place = |name: &str, row: usize| {
        let before = places.iter().find(|(n, _)| n == name).map_or(0, |p| p.1);
        // Rows by index stand in objects, whose lines are not looked for.
        let line = if by_index { String::new() } else { format!("line {}: ", line_of(text, 2, before + row)) };
        format!("{line}row {} of \"{name}\"", row + 1)
    };
    let name = if prompts.is_some() { TEXT[0] } else { TEXT[1] };
    let mut labels = labels.map(Vec::into_iter);
    for (row, value) in prompts.or(texts).unwrap_or_default().into_iter().enumerate() {
        let Json::String(text) = value else {
            return Err(format!("{}: expected a string, found {}", place(name, row), value.kind()));
        };
        let label = labels.as_mut().and_then(Iterator::next);
        push(text, label, None, reading).map_err(|found| {
            format!("{}: expected a label, found {}", place(LABEL, row), found.rsplit(" is ").next().unwrap_or(&found))
        })?;
    }
    Ok(())
}
