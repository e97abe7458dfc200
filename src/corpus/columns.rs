//! Columnar JSON: parallel lists, or objects by row as pandas writes them, one of which holds the
//! texts.
//!
//! Invariant: an object that can be taken for labels as well is refused with both readings.

use super::json::{Json, line_of};
use super::sample_list::{SampleList, is_among, names};
use super::shapes::{LABEL, Object, REMEDY, TEXT, push, remove_once};

/// Common names of columns: an object with no other keys is unlikely to be one of labels.
const COLUMNS: &str = "answer article body category class content context date document id idx index input instruction \
    label labels lang language message name output passage question response review sentence source \
    split target texts title topic url";

/// A column of values: a list, or an object by index (as pandas writes it).
fn cells(value: &Json) -> Option<Vec<&Json>> {
    match value {
        Json::List(list) => Some(list.iter().collect()),
        Json::Object(by_index) => Some(by_index.iter().map(|(_, value)| value).collect()),
        _ => None,
    }
}

/// Whether the object is columns, not labels.
pub(super) fn is_columnar(object: &[(String, Json)]) -> Result<bool, String> {
    let has = |name: &str| object.iter().any(|(key, _)| key == name);
    let lists: Option<Vec<Vec<&Json>>> = object.iter().map(|(_, value)| cells(value)).collect();
    let equal = lists
        .as_ref()
        .is_some_and(|l| l.windows(2).all(|pair| pair[0].len() == pair[1].len()));
    // Labels have lists of strings, or of samples.
    let is_text = |value: &Json| matches!(value, Json::String(_) | Json::Object(_));
    let labels = object
        .iter()
        .all(|(_, v)| matches!(v, Json::List(list) if list.iter().all(is_text)));
    let lengths = || {
        let each = object.iter().map(|(key, value)| match cells(value) {
            Some(cells) => format!("{key} ({})", cells.len()),
            None => format!("{key} ({})", value.kind()),
        });
        each.collect::<Vec<_>>()
    };
    let either = || {
        let columns = names(lengths().iter().map(String::as_str));
        let unequal = if equal {
            ""
        } else {
            ", which differ in length"
        };
        Err(format!(
            "can be read in two ways: as columns {columns}{unequal}, or as labels, each with its texts; {REMEDY}"
        ))
    };
    let Some(texts) = TEXT
        .iter()
        .find_map(|name| object.iter().find(|(key, _)| key == name))
    else {
        let usual =
            object.len() > 1 && equal && object.iter().all(|(key, _)| is_among(COLUMNS, key));
        return if labels && equal && object.len() > 1 && (usual || has(LABEL)) {
            either()
        } else if equal && has(LABEL) && object.len() > 1 {
            let columns = names(object.iter().map(|(key, _)| key.as_str()));
            Err(format!(
                "is made of columns, none of them text or prompt: there are {columns}; rename the one that holds the texts"
            ))
        } else {
            Ok(false)
        };
    };
    let of_samples =
        cells(&texts.1).is_some_and(|c| c.iter().any(|v| matches!(v, Json::Object(_))));
    match (equal, labels) {
        _ if of_samples && labels => Ok(false),
        (true, false) => Ok(true),
        (true, true) if has(LABEL) || object.len() == 1 => Ok(true),
        (_, true) => either(),
        (false, false) => {
            let columns = names(lengths().iter().map(String::as_str));
            Err(format!(
                "is made of columns that do not fit each other: {columns}; {REMEDY}"
            ))
        }
    }
}

/// Reads the samples of parallel columns.
pub(super) fn read(text: &str, mut object: Object, out: &mut SampleList) -> Result<(), String> {
    let keys: Vec<String> = object.iter().map(|(key, _)| key.clone()).collect();
    let indices: Vec<Option<Vec<&str>>> = object.iter().map(|(_, value)| index(value)).collect();
    if indices.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!(
            "is made of columns whose rows do not fit each other; {REMEDY}"
        ));
    }
    let by_index = indices.first().is_some_and(Option::is_some);
    let rows = object
        .first()
        .and_then(|(_, value)| cells(value))
        .map_or(0, |c| c.len());
    let mut column = |name: &str| remove_once(&mut object, name).map(|value| value.map(into_cells));
    let (prompts, texts, labels) = (column(TEXT[0])?, column(TEXT[1])?, column(LABEL)?);
    out.both += if prompts.is_some() && texts.is_some() {
        rows
    } else {
        0
    };
    out.ignore(object.iter().map(|(key, _)| key.as_str()));
    let place = |name: &str, row: usize| {
        let before = rows * keys.iter().position(|key| key == name).unwrap_or(0);
        // The lines of rows that are named, as entries of an object, are not searched for.
        let line = if by_index {
            String::new()
        } else {
            format!("line {}: ", line_of(text, 2, before + row))
        };
        format!("{line}row {} of \"{name}\"", row + 1)
    };
    let name = if prompts.is_some() { TEXT[0] } else { TEXT[1] };
    let mut labels = labels.map(Vec::into_iter);
    for (row, value) in prompts
        .or(texts)
        .unwrap_or_default()
        .into_iter()
        .enumerate()
    {
        let Json::String(text) = value else {
            return Err(format!(
                "{}: expected a string, found {}",
                place(name, row),
                value.kind()
            ));
        };
        let label = labels.as_mut().and_then(Iterator::next);
        push(text, label, None, out)
            .map_err(|kind| format!("{}: expected a label, found {kind}", place(LABEL, row)))?;
    }
    Ok(())
}

/// The names of a column's rows; `None` for a list, which has none.
fn index(column: &Json) -> Option<Vec<&str>> {
    match column {
        Json::Object(by_index) => Some(by_index.iter().map(|(key, _)| key.as_str()).collect()),
        _ => None,
    }
}

fn into_cells(column: Json) -> Vec<Json> {
    match column {
        Json::List(list) => list,
        Json::Object(by_index) => by_index.into_iter().map(|(_, value)| value).collect(),
        _ => Vec::new(),
    }
}
