//! From a file's bytes to its text: UTF-8, or UTF-16 with its byte-order mark. A file of another
//! kind is named in the error, with what to do.

use std::borrow::Cow;

use super::sample_list::plural;
use crate::lfs;

/// Formats that are known by their first bytes: offset, bytes, and what the file is with the remedy.
const FORMATS: &[(usize, &[u8], &str)] = &[
    (
        0,
        b"\x1f\x8b",
        "is compressed by gzip: unpack it (gunzip) and give the file that comes out",
    ),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "is compressed by zstd: unpack it (unzstd) and give the file that comes out",
    ),
    (
        4,
        b"1AY&SY",
        "is compressed by bzip2: unpack it (bunzip2) and give the file that comes out",
    ),
    (
        0,
        b"\xfd7zXZ\0",
        "is compressed by xz: unpack it (unxz) and give the file that comes out",
    ),
    (
        0,
        b"\x04\x22\x4d\x18",
        "is compressed by lz4: unpack it (unlz4) and give the file that comes out",
    ),
    (
        0,
        b"7z\xbc\xaf\x27\x1c",
        "is a 7z archive: unpack it and give the file inside",
    ),
    (
        0,
        b"Rar!\x1a\x07",
        "is a RAR archive: unpack it and give the file inside",
    ),
    (
        257,
        b"ustar",
        "is a tar archive: unpack it (tar -xf) and give the file inside",
    ),
    (
        0,
        b"PAR1",
        "is a Parquet file: write it as JSON Lines first (pandas: to_json(orient='records', lines=True))",
    ),
    (
        0,
        b"ARROW1\0",
        "is an Arrow file: write it as JSON Lines first (datasets: to_json)",
    ),
    (
        0,
        b"\xff\xff\xff\xff",
        "is an Arrow stream: write it as JSON Lines first (datasets: to_json)",
    ),
    (
        0,
        b"FEA1",
        "is a Feather file: write it as JSON Lines first (pandas: to_json(orient='records', lines=True))",
    ),
    (
        0,
        b"Obj\x01",
        "is an Avro file: write it as JSON Lines first",
    ),
    (
        0,
        b"SQLite format 3\0",
        "is an SQLite database: write the texts as CSV first (sqlite3 -csv -header)",
    ),
    (
        8,
        b"DUCK",
        "is a DuckDB database: write the texts as CSV first",
    ),
    (0, b"\x80\x02", PICKLE),
    (0, b"\x80\x03", PICKLE),
    (0, b"\x80\x04", PICKLE),
    (0, b"\x80\x05", PICKLE),
    (
        0,
        b"\x93NUMPY",
        "is an array of NumPy, no texts: mlpeek import takes a matrix of activations",
    ),
    (
        0,
        b"\x89HDF",
        "is an HDF5 file: write its texts as JSON Lines first",
    ),
    (
        0,
        b"GGUF\x03\0",
        "is a GGUF model, no texts: give it as --model",
    ),
    (
        0,
        b"GGUF\x02\0",
        "is a GGUF model, no texts: give it as --model",
    ),
    (
        0,
        b"%PDF-",
        "is a PDF: write its text as a text file first (pdftotext)",
    ),
    (
        0,
        b"{\\rtf",
        "is an RTF document: save it as plain text first",
    ),
    (
        0,
        b"\xd0\xcf\x11\xe0",
        "is an old Office document: save it as CSV in UTF-8 first",
    ),
    (0, b"\x89PNG", "is an image, no text"),
    (0, b"\xff\xd8\xff", "is an image, no text"),
    (0, b"GIF8", "is an image, no text"),
    (0, b"\x7fELF", "is a program, no text"),
    (0, b"\xff\xfe\0\0", "is UTF-32: save it as UTF-8"),
    (0, b"\0\0\xfe\xff", "is UTF-32: save it as UTF-8"),
    (0, lfs::POINTER_START, lfs::POINTER_PROBLEM),
];

const PICKLE: &str =
    "is a Python pickle: write its texts as JSON Lines first (json.dumps, a line each)";

/// What a zip archive is, told by a name within it.
const ZIPPED: &[(&[u8], &str)] = &[
    (
        b"xl/",
        "is an Excel workbook: save its sheet as CSV in UTF-8 first",
    ),
    (b"word/", "is a Word document: save it as plain text first"),
    (
        b"content.xml",
        "is an OpenDocument file: save it as CSV or plain text in UTF-8 first",
    ),
    (
        b"data.pkl",
        "is a PyTorch file: write its texts as JSON Lines first",
    ),
    (b".npy", "is a NumPy archive (.npz), no texts"),
];

/// Bytes at the end of an archive that are searched for names.
const DIRECTORY: usize = 1 << 16;

/// The text of a file; `notes` gets remarks for the user.
pub(super) fn decode<'a>(bytes: &'a [u8], notes: &mut Vec<String>) -> Result<Cow<'a, str>, String> {
    if let Some(problem) = recognise(bytes) {
        return Err(problem.to_owned());
    }
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(utf16(rest, u16::from_le_bytes, notes)?),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(utf16(rest, u16::from_be_bytes, notes)?),
        _ => Cow::Borrowed(utf8(bytes)?),
    };
    let start: String = text
        .trim_start_matches(['\u{feff}', ' ', '\r', '\n', '\t'])
        .chars()
        .take(14)
        .collect();
    let start = start.to_ascii_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        return Err(
            "is a web page, not a corpus: download the file itself (its raw form)".to_owned(),
        );
    }
    Ok(text)
}

fn recognise(bytes: &[u8]) -> Option<&'static str> {
    let at =
        |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|b| b.starts_with(magic));
    if at(0, b"PK\x03\x04") || at(0, b"PK\x05\x06") {
        let holds = |name: &[u8]| {
            let (start, end) = (bytes.len().min(4096), bytes.len().saturating_sub(DIRECTORY));
            [&bytes[..start], &bytes[end..]]
                .iter()
                .any(|part| part.windows(name.len()).any(|w| w == name))
        };
        let kind = ZIPPED.iter().find(|(name, _)| holds(name)).map(|k| k.1);
        return Some(
            kind.unwrap_or("is a zip archive: unpack it (unzip) and give the file inside"),
        );
    }
    // The length of its header in eight bytes, then the header.
    if at(8, b"{\"") && bytes[..8].contains(&0) {
        return Some(
            "is a safetensors file, no texts: mlpeek import takes a matrix of activations",
        );
    }
    // A mark of letters alone may begin a text too, which has neither zeros nor bytes that are no
    // UTF-8.
    let start = &bytes[..bytes.len().min(1024)];
    let binary =
        start.contains(&0) || std::str::from_utf8(start).is_err_and(|e| e.error_len().is_some());
    let word = |magic: &[u8]| magic.iter().all(u8::is_ascii_alphanumeric);
    FORMATS
        .iter()
        .find(|(offset, magic, _)| at(*offset, magic) && (binary || !word(magic)))
        .map(|k| k.2)
}

fn utf16(
    bytes: &[u8],
    unit: fn([u8; 2]) -> u16,
    notes: &mut Vec<String>,
) -> Result<String, String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(
            "is UTF-16 that ends within a character: it is cut off; save it as UTF-8".to_owned(),
        );
    }
    let mut broken = 0;
    let units = pairs.iter().map(|&pair| unit(pair));
    let text: String = char::decode_utf16(units)
        .map(|c| {
            c.unwrap_or_else(|_| {
                broken += 1;
                char::REPLACEMENT_CHARACTER
            })
        })
        .collect();
    if broken > 0 {
        notes.push(format!(
            "{} of a surrogate pair, read as U+FFFD",
            plural(broken, "half", "halves")
        ));
    }
    match text.find('\0') {
        None => Ok(text),
        Some(at) => Err(nul(line_at(&text.as_bytes()[..at]))),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    if let Some(at) = bytes.iter().position(|&b| b == 0) {
        let start = &bytes[..bytes.len().min(64)];
        let nuls = |odd: usize| {
            start
                .iter()
                .skip(odd)
                .step_by(2)
                .filter(|&&b| b == 0)
                .count()
        };
        let half = start.len() / 4;
        if nuls(0).max(nuls(1)) >= half.max(1) {
            return Err(
                "looks like UTF-16 without its byte-order mark: save it as UTF-8".to_owned(),
            );
        }
        return Err(nul(line_at(&bytes[..at])));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        format!(
            "line {} is not UTF-8 text (byte 0x{:02X}): save the corpus as UTF-8 (from Latin-1: iconv -f latin1 -t utf-8)",
            line_at(&bytes[..at]),
            bytes[at]
        )
    })
}

fn nul(line: usize) -> String {
    format!("line {line} holds a NUL byte, so this is no text file: save the texts as UTF-8")
}

fn line_at(before: &[u8]) -> usize {
    1 + before.iter().filter(|&&b| b == b'\n').count()
}
