//! JSON values of a file, one or several, with their lines; as Python's `json` reads them.
//!
//! Keeps what `serde_json::Value` loses: the order of keys, and keys that are there twice. Knows
//! nothing of samples.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::sample_list::plural;

/// A value; numbers as they are written, up to 64 bits.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(String),
    /// A whole number that 64 bits do not hold: read, it was rounded.
    Rounded,
    String(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The type with its article, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Rounded => {
                "a number of more than 64 bits, which would be rounded (put it in quotes)"
            }
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// The text as strict JSON: half a surrogate pair, which Python writes and reads and which no UTF-8
/// text can hold, becomes U+FFFD; `NaN` and `Infinity` become null. `notes` gets a line for each
/// kind of change. A text that is not JSON may be changed too: the result is only read as JSON.
pub(super) fn to_strict<'a>(text: &'a str, notes: &mut Vec<String>) -> Cow<'a, str> {
    if !["\\ud", "\\uD", "NaN", "Infinity"]
        .iter()
        .any(|odd| text.contains(odd))
    {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len() + 8);
    let (mut from, mut at, mut inside) = (0, 0, false);
    let (mut halves, mut first, mut numbers) = (0, 0, 0);
    while at < bytes.len() {
        let (width, instead) = match (inside, bytes[at]) {
            (true, b'\\') => match code_unit(bytes, at) {
                Some(0xd800..=0xdbff)
                    if matches!(code_unit(bytes, at + 6), Some(0xdc00..=0xdfff)) =>
                {
                    (12, None)
                }
                Some(0xd800..=0xdfff) => (6, Some("\\ufffd")),
                Some(_) => (6, None),
                None => (2, None),
            },
            (_, b'"') => {
                inside = !inside;
                (1, None)
            }
            (false, b'N' | b'I' | b'-') => {
                let number = ["NaN", "Infinity", "-Infinity"]
                    .iter()
                    .find(|n| bytes[at..].starts_with(n.as_bytes()));
                number.map_or((1, None), |n| (n.len(), Some("null")))
            }
            _ => (1, None),
        };
        if let Some(instead) = instead {
            if inside {
                halves += 1;
                first = if first == 0 { at } else { first };
            } else {
                numbers += 1;
            }
            out.push_str(&text[from..at]);
            out.push_str(instead);
            from = at + width;
        }
        at += width;
    }
    out.push_str(&text[from..]);
    if halves > 0 {
        let line = line_at(text, first);
        notes.push(format!(
            "{} of a surrogate pair (such as \\ud83d alone, the first in line {line}), read as U+FFFD",
            plural(halves, "half", "halves")
        ));
    }
    if numbers > 0 {
        notes.push(format!(
            "{}, which JSON has not, read as null",
            plural(numbers, "NaN or Infinity", "NaN or Infinity")
        ));
    }
    Cow::Owned(out)
}

/// The code unit of an escape at a place: `\u` and four hexadecimal digits.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits)
        .ok()
        .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

/// All JSON values of a text, one after the other, each with the line where it begins.
///
/// # Errors
/// The line that is not JSON, and what is wrong with it.
pub(super) fn values(text: &str) -> Result<Vec<(usize, Json)>, String> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Json>();
    let mut out = Vec::new();
    let (mut line, mut counted) = (1, 0);
    loop {
        let rest = &text[stream.byte_offset()..];
        let start = text.len() - rest.trim_start().len();
        line += count_newlines(&text[counted..start]);
        counted = start;
        match stream.next() {
            None => return Ok(out),
            Some(Ok(value)) => out.push((line, value)),
            Some(Err(e)) => return Err(describe_error(text, &e)),
        }
    }
}

/// The line where a text stops being JSON. The parser may fail only after a line that is not closed:
/// where the file has a value on each line, this looks for the first line that is not a value.
fn describe_error(text: &str, e: &serde_json::Error) -> String {
    let mut lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty());
    let whole = |line: &str| serde_json::from_str::<Json>(line).err();
    let a_line_each = lines
        .next()
        .is_some_and(|(_, first)| whole(first).is_none());
    let bad = lines
        .filter(|_| a_line_each)
        .find_map(|(i, line)| Some((i + 1, whole(line)?)));
    let describe = |e: &serde_json::Error| {
        let text = e.to_string();
        let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
        format!("{message} at column {}", e.column())
    };
    match bad {
        Some((line, e)) => format!("line {line}: not JSON: {}", describe(&e)),
        None => format!("line {}: not JSON: {}", e.line().max(1), describe(e)),
    }
}

/// Whether a text that is not JSON was meant to be: it begins as an object with a key, or as a list
/// of objects or strings.
pub(super) fn looks_like_json(text: &str) -> bool {
    let text = text.trim_start();
    let inner = text.strip_prefix('[').map(str::trim_start);
    let object = inner.unwrap_or(text).strip_prefix('{').map(str::trim_start);
    let key = |quote: char| {
        let (name, rest) = object?.strip_prefix(quote)?.split_once(quote)?;
        (!name.contains('\n') && rest.trim_start().starts_with(':')).then_some(())
    };
    let list = || {
        let (item, rest) = inner?.strip_prefix('"')?.split_once('"')?;
        (!item.contains('\n') && rest.trim_start().starts_with([',', ']'])).then_some(())
    };
    key('"').or_else(|| key('\'')).or_else(list).is_some()
}

/// The line of the n-th value, from 0, of those that stand in lists at `depth` brackets.
pub(super) fn line_of(text: &str, depth: usize, n: usize) -> usize {
    let (mut open, mut inside, mut escaped, mut seen, mut expects_value) =
        (Vec::new(), false, false, 0, false);
    for (at, byte) in text.bytes().enumerate() {
        let in_list = open.len() == depth && open.last() == Some(&b'[');
        if expects_value && in_list && !inside && !byte.is_ascii_whitespace() && byte != b']' {
            expects_value = false;
            if seen == n {
                return line_at(text, at);
            }
            seen += 1;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            _ if inside => {}
            b'[' | b'{' => {
                open.push(byte);
                expects_value = byte == b'[' && open.len() == depth;
            }
            b']' | b'}' => {
                open.pop();
            }
            b',' => expects_value = in_list,
            _ => {}
        }
    }
    line_at(text, text.len())
}

fn line_at(text: &str, at: usize) -> usize {
    1 + count_newlines(&text[..at])
}

fn count_newlines(text: &str) -> usize {
    text.bytes().filter(|&b| b == b'\n').count()
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Json::Object(entries))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }
    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::String(text))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.to_string()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        // Whole numbers come here only where neither type of 64 bits holds them.
        if number.fract() == 0.0 && number.abs() >= i64::MAX as f64 {
            return Ok(Json::Rounded);
        }
        Ok(Json::Number(serde_json::Value::from(number).to_string()))
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
}
