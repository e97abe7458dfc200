//! Damage to a file: of its bytes, or of the JSON that it is or begins with. Knows nothing of what
//! the file is for.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_pcg::Pcg64Mcg;
use serde_json::{Value, json};

/// Sizes and counts that readers must not believe.
const NUMBERS: [u64; 12] = [
    0,
    1,
    2,
    127,
    255,
    65_536,
    1 << 31,
    u32::MAX as u64,
    1 << 40,
    1 << 53,
    i64::MAX as u64,
    u64::MAX,
];
/// The same where numbers are written out; some are no JSON.
const WRITTEN: [&str; 14] = [
    "NaN",
    "Infinity",
    "-1",
    "1e308",
    "1e999",
    "0",
    "0.5",
    "-0.0",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "4294967296",
    "null",
    "\"\\ud800\"",
];

/// `whole` with one to three damages, and in words what they are.
pub fn mutate(whole: &[u8], is_json: bool, rng: &mut Pcg64Mcg) -> (Vec<u8>, String) {
    let (mut bytes, mut how) = (whole.to_vec(), Vec::new());
    for _ in 0..rng.random_range(1..=3) {
        let header = safetensors_header(&bytes);
        how.push(match header {
            Some(end) if rng.random_bool(0.6) => {
                let (header, how) = json_text(&bytes[8..end], rng);
                let mut out = (header.len() as u64).to_le_bytes().to_vec();
                out.extend_from_slice(&header);
                out.extend_from_slice(&bytes[end..]);
                bytes = out;
                format!("header: {how}")
            }
            _ if is_json && rng.random_bool(0.75) => {
                let (text, how) = json_text(&bytes, rng);
                bytes = text;
                how
            }
            _ => raw(&mut bytes, rng),
        });
    }
    (bytes, how.join(", "))
}

fn safetensors_header(bytes: &[u8]) -> Option<usize> {
    let len = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let end = usize::try_from(len)
        .ok()?
        .checked_add(8)
        .filter(|end| *end <= bytes.len())?;
    (bytes.get(8) == Some(&b'{')).then_some(end)
}

fn raw(bytes: &mut Vec<u8>, rng: &mut Pcg64Mcg) -> String {
    if bytes.is_empty() {
        bytes.extend((0..rng.random_range(0..20)).map(|_| rng.random::<u8>()));
        return "bytes from nothing".to_owned();
    }
    // Headers are at the beginning: half of the damage is there.
    let len = bytes.len();
    let at = if rng.random_bool(0.5) {
        rng.random_range(0..len.min(256))
    } else {
        rng.random_range(0..len)
    };
    let some = rng.random_range(1..=64.min(len - at));
    match rng.random_range(0..10) {
        0 => {
            bytes[at] ^= 1 << rng.random_range(0..8);
            format!("a bit at {at}")
        }
        1 => {
            bytes[at] = rng.random();
            format!("a byte at {at}")
        }
        2 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        3 => {
            bytes.drain(at..at + some);
            format!("without {some} at {at}")
        }
        4 => {
            let copied = bytes[at..at + some].to_vec();
            let to = rng.random_range(0..=bytes.len());
            bytes.splice(to..to, copied);
            format!("{some} of {at} again at {to}")
        }
        5 => {
            let (value, width) = (
                NUMBERS[rng.random_range(0..NUMBERS.len())],
                [1, 2, 4, 8][rng.random_range(0..4)],
            );
            let at = at / width * width;
            for (byte, new) in bytes[at..].iter_mut().zip(&value.to_le_bytes()[..width]) {
                *byte = *new;
            }
            format!("{value} of {width} bytes at {at}")
        }
        6 => {
            bytes[at..at + some].fill(if rng.random_bool(0.5) { 0 } else { 0xff });
            format!("{some} equal ones at {at}")
        }
        7 => {
            bytes.extend((0..some).map(|_| rng.random::<u8>()));
            format!("{some} more")
        }
        8 => {
            let value = [f32::NAN, f32::INFINITY, -1e38, 1e-42][rng.random_range(0..4)];
            let at = at / 4 * 4;
            for (byte, new) in bytes[at..].iter_mut().zip(value.to_le_bytes()) {
                *byte = new;
            }
            format!("the value {value} at {at}")
        }
        _ => {
            bytes.rotate_left(at);
            format!("turned by {at}")
        }
    }
}

/// Damage to a JSON text, or to a line of several.
fn json_text(text: &[u8], rng: &mut Pcg64Mcg) -> (Vec<u8>, String) {
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else {
        let mut lines: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        let at = rng.random_range(0..lines.len());
        if lines.len() < 2 || serde_json::from_slice::<Value>(&lines[at]).is_err() {
            let mut bytes = text.to_vec();
            let how = raw(&mut bytes, rng);
            return (bytes, how);
        }
        let (line, how) = json_text(&lines[at], rng);
        lines[at] = line;
        return (lines.join(&b'\n'), format!("line {at}: {how}"));
    };
    let mut paths = Vec::new();
    walk(&value, &mut String::new(), &mut paths);
    let path = paths.choose(rng).cloned().unwrap_or_default();
    let (parent, key) = path.rsplit_once('/').unwrap_or(("", ""));
    let key = key.replace("~1", "/").replace("~0", "~");
    let how = match rng.random_range(0..6) {
        0 => {
            match value.pointer_mut(parent) {
                Some(Value::Object(map)) => _ = map.remove(&key),
                Some(Value::Array(list)) => {
                    _ = key
                        .parse()
                        .ok()
                        .filter(|at| *at < list.len())
                        .map(|at| list.remove(at))
                }
                _ => {}
            }
            format!("{path} is gone")
        }
        1 => {
            let current = value.pointer(&path).cloned().unwrap_or_default();
            if let Some(Value::Object(map)) = value.pointer_mut(parent) {
                map.insert(format!("{key}x"), current);
            }
            format!("{path} under another key too")
        }
        // Twice under one key, or a number that JSON may not hold: by the text.
        2 | 3 => {
            let marker = "\"@here@\"";
            let current = value.pointer(&path).cloned().unwrap_or_default();
            if let Some(place) = value.pointer_mut(&path) {
                *place = json!("@here@");
            }
            let new = WRITTEN[rng.random_range(0..WRITTEN.len())];
            let twice = format!("{current},{}:{new}", json!(key));
            let new = if key.is_empty() || rng.random_bool(0.7) {
                new
            } else {
                twice.as_str()
            };
            return (
                value.to_string().replace(marker, new).into_bytes(),
                format!("{path} is {new}"),
            );
        }
        4 => {
            let new = odd(rng);
            if let Some(place) = value.pointer_mut(&path) {
                *place = new;
            }
            format!("{path} is of another kind")
        }
        _ => {
            let number = NUMBERS[rng.random_range(0..NUMBERS.len())];
            if let Some(place) = value.pointer_mut(&path) {
                *place = if place.is_string() {
                    json!(number.to_string())
                } else {
                    json!(number)
                };
            }
            format!("{path} is {number}")
        }
    };
    (value.to_string().into_bytes(), how)
}

fn odd(rng: &mut Pcg64Mcg) -> Value {
    match rng.random_range(0..9) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(""),
        3 => json!("x".repeat(70_000)),
        4 => json!([]),
        5 => json!({}),
        6 => json!([[], null, -1, "\u{1b}[2J"]),
        7 => (0..100).fold(json!(1), |inner, _| json!([inner])),
        _ => json!("../../../etc/passwd"),
    }
}

/// Every place of a value as a JSON pointer. Of long lists the first are enough.
fn walk(value: &Value, at: &mut String, out: &mut Vec<String>) {
    out.push(at.clone());
    let mut enter = |key: &str, inner: &Value| {
        let before = at.len();
        at.push('/');
        at.push_str(&key.replace('~', "~0").replace('/', "~1"));
        walk(inner, at, out);
        at.truncate(before);
    };
    match value {
        Value::Object(map) => map
            .iter()
            .take(80)
            .for_each(|(key, inner)| enter(key, inner)),
        Value::Array(list) => list
            .iter()
            .take(12)
            .enumerate()
            .for_each(|(i, inner)| enter(&i.to_string(), inner)),
        _ => {}
    }
}
