//! Every format under every name, and hostile bytes.

mod refusals;

use std::path::Path;

use proptest::prelude::*;

use super::formats::{NamedFormat, bundled, parse};
use super::*;

type Pair = (String, Option<String>);

fn pairs(name: &str, bytes: impl AsRef<[u8]>) -> Vec<Pair> {
    read(name, bytes)
        .unwrap_or_else(|e| panic!("{name}: {e}"))
        .0
}

fn read(name: &str, bytes: impl AsRef<[u8]>) -> Result<(Vec<Pair>, Vec<String>), String> {
    let (samples, notes) = parse(NamedFormat::of(Path::new(name)), bytes.as_ref())?;
    Ok((
        samples.into_iter().map(|s| (s.text, s.label)).collect(),
        notes,
    ))
}

/// The line that a file is refused with.
fn refused(name: &str, bytes: impl AsRef<[u8]>) -> String {
    let error = read(name, bytes)
        .map(|(samples, _)| panic!("{name}: {samples:?}"))
        .unwrap_err();
    assert!(!error.contains('\n'), "{error}");
    error
}

fn one(text: &str, label: Option<&str>) -> Pair {
    (text.to_owned(), label.map(str::to_owned))
}

const NAMES: [&str; 9] = [
    "x.json",
    "x.jsonl",
    "x.ndjson",
    "x.csv",
    "x.tsv",
    "x.txt",
    "x.jsonl.txt",
    "x.data",
    "x",
];

#[test]
fn a_format_is_told_by_content_under_any_name() {
    let two = [one("a dog", Some("x")), one("a fox", Some("y"))];
    let files = [
        r#"[{"text":"a dog","label":"x"},{"text":"a fox","label":"y"}]"#,
        r#"{"x":["a dog"],"y":["a fox"]}"#,
        r#"{"text":["a dog","a fox"],"label":["x","y"]}"#,
        r#"{"label":["x","y"],"text":["a dog","a fox"],"id":[1,2]}"#,
        r#"{"text":{"0":"a dog","1":"a fox"},"label":{"0":"x","1":"y"}}"#,
        "{\"text\":\"a dog\",\"label\":\"x\"}\n{\"text\":\"a fox\",\"label\":\"y\"}\n",
        "\u{feff}{\"text\":\"a dog\",\"label\":\"x\"}  \r\n\r\n \r\n{\"text\":\"a fox\",\"label\":\"y\"}",
        "{\"text\":\"a dog\",\"label\":\"x\"}{\"text\":\"a fox\",\"label\":\"y\"}",
        "{\n \"text\": \"a dog\",\n \"label\": \"x\"\n}\n{\n \"text\": \"a fox\",\n \"label\": \"y\"\n}\n",
        "text\tlabel\na dog\tx\na fox\ty\n",
        "text,label\r\na dog,x\r\na fox,y\r\n",
        "id;label;text\n1;x;a dog\n2;y;\"a fox\"",
        "\u{feff}\"text\"|\"label\"\n\"a dog\"|\"x\"\n\"a fox\"|\"y\"\n",
    ];
    for file in files {
        for name in NAMES {
            assert_eq!(pairs(name, file), two, "{name} {file:?}");
            let utf16: Vec<u8> = "\u{feff}"
                .encode_utf16()
                .chain(file.trim_start_matches('\u{feff}').encode_utf16())
                .flat_map(u16::to_le_bytes)
                .collect();
            assert_eq!(pairs(name, utf16), two, "{name} {file:?} in UTF-16");
        }
    }
    // One line, and texts without labels.
    for name in NAMES {
        assert_eq!(pairs(name, "{\"text\":\"a dog\"}\n"), [one("a dog", None)]);
        assert_eq!(
            pairs(name, "[\"a dog\",\n\"a fox\"]"),
            [one("a dog", None), one("a fox", None)]
        );
        assert_eq!(pairs(name, r#"{"text":["a dog"]}"#), [one("a dog", None)]);
    }
    let big_endian: Vec<u8> = "\u{feff}one\ntwo"
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    assert_eq!(
        pairs("x.txt", big_endian),
        [one("one", None), one("two", None)]
    );
}

#[test]
fn formats_of_earlier_versions_are_still_read() {
    let found = pairs("x.json", r#"{"z": ["one", "two"], "a": ["three"]}"#);
    assert_eq!(
        found,
        [
            one("one", Some("z")),
            one("two", Some("z")),
            one("three", Some("a"))
        ],
        "in the file's order"
    );
    let text =
        r#"["plain", {"prompt": "p", "label": "x"}, {"text": "t"}, {"text": "n", "label": 3}]"#;
    let expected = [
        one("plain", None),
        one("p", Some("x")),
        one("t", None),
        one("n", Some("3")),
    ];
    assert_eq!(pairs("x.json", text), expected);
    let lines = "\"plain\"\n{\"prompt\": \"p\", \"label\": \"x\"}\n\n{\"text\": \"t\"}\n{\"text\": \"n\", \"label\": 3}\n";
    assert_eq!(pairs("x.jsonl", lines), expected);
    assert_eq!(
        pairs("x.jsonl", "\"a\"\n\"b\"\n"),
        [one("a", None), one("b", None)]
    );
    let csv = "\u{feff}label,Text\nweekday,\"On Monday, \n\"\"we\"\" rest\"\n,none\n";
    assert_eq!(
        pairs("x.csv", csv),
        [
            one("On Monday, \n\"we\" rest", Some("weekday")),
            one("none", None)
        ]
    );
    let labelled = r#"{"m": [{"text": "May", "label": "own"}, {"prompt": "June"}, "July"]}"#;
    assert_eq!(
        pairs("x.json", labelled),
        [
            one("May", Some("own")),
            one("June", Some("m")),
            one("July", Some("m"))
        ]
    );
    assert_eq!(
        pairs("x.txt", "one\r\n\n  \n two \n"),
        [one("one", None), one(" two ", None)]
    );
    assert_eq!(
        pairs("x.txt", "one\rtwo\r"),
        [one("one", None), one("two", None)]
    );
}

#[test]
fn plain_text_that_looks_a_little_like_something_else_stays_plain() {
    for text in [
        "[Scene: a room]\n\"Hello,\" she said.",
        "{not json} at all",
        "\"Well,\" he said",
        "Text, lies, and videotape\nThe next line",
        "prompt and text\nlabel",
        "{\nint x;\n}",
        "NaN and Infinity\n\\ud83d",
        "%PDF is a format\nBZh9",
        "text label\nfoo bar",
    ] {
        assert_eq!(
            pairs("x.txt", text),
            text.lines().map(|l| one(l, None)).collect::<Vec<_>>()
        );
    }
}

#[test]
fn surrogate_halves_and_nan_are_read_with_a_note() {
    let file = "{\"text\":\"half \\ud83d emoji\"}\n{\"text\":\"\\ude00\\ud83d\\ude00\\ud83d\\ud83d\\ude00\"}\n{\"text\":\"\\\\ud83d\", \"x\":NaN}\n";
    let (samples, notes) = read("x.jsonl", file).unwrap();
    let texts: Vec<&str> = samples.iter().map(|s| s.0.as_str()).collect();
    assert_eq!(
        texts,
        [
            "half \u{fffd} emoji",
            "\u{fffd}\u{1f600}\u{fffd}\u{1f600}",
            "\\ud83d"
        ]
    );
    assert!(
        notes[0].starts_with("3 halves of a surrogate pair") && notes[0].contains("line 1"),
        "{notes:?}"
    );
    assert!(notes[1].starts_with("1 NaN or Infinity"), "{notes:?}");
    // A file about whose column there is no note.
    assert!(
        read("x.jsonl", "{\"text\":\"\\ud83d\\ude00 NaN -Infinity\"}")
            .unwrap()
            .1
            .is_empty()
    );
}

#[test]
fn what_is_missing_is_counted_and_nothing_is_dropped() {
    let file = r#"[{"text":"a","label":null},{"text":"b","label":""},{"text":" ","label":true},{"text":"t","prompt":"p","label":1.5}]"#;
    let (samples, notes) = read("x.json", file).unwrap();
    let expected = [
        one("a", None),
        one("b", None),
        one(" ", Some("true")),
        one("p", Some("1.5")),
    ];
    assert_eq!(samples, expected);
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(
        notes[0].starts_with("1 text is empty")
            && notes[1].starts_with("2 labels are null or empty"),
        "{notes:?}"
    );
    assert!(
        notes[2].starts_with("1 entry has both a prompt and a text: the prompt is read"),
        "{notes:?}"
    );
    let (samples, notes) = read("x.csv", "text,label\na,\n\"\",x\n").unwrap();
    assert_eq!(samples, [one("a", None), one("", Some("x"))]);
    assert_eq!(notes.len(), 2, "{notes:?}");
    let (samples, notes) = read("x.json", r#"{"a":["x"],"b":["y"],"a":["z"]}"#).unwrap();
    assert_eq!(
        samples,
        [
            one("x", Some("a")),
            one("y", Some("b")),
            one("z", Some("a"))
        ]
    );
    assert!(
        notes[0].contains("more than once") && notes[0].ends_with(": a"),
        "{notes:?}"
    );
    for (name, file) in [
        ("x.csv", "text,topic\na,b\n"),
        ("x.json", r#"[{"text":"a","topic":"b"}]"#),
        ("x.json", r#"{"text":["a"],"topic":[1]}"#),
    ] {
        let notes = read(name, file).unwrap().1;
        assert!(
            notes.len() == 1
                && notes[0].contains("no entry has a \"label\"")
                && notes[0].contains("topic"),
            "{notes:?}"
        );
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
    assert!(
        distinct.len() * 100 > corpus.samples.len() * 95,
        "too many repeated texts"
    );
    assert_eq!(corpus.sha256.len(), 64);
}

#[test]
fn the_bundled_hierarchy_is_nested() {
    let samples = pairs(
        "hierarchy.json",
        include_bytes!("../../../data/hierarchy.json"),
    );
    assert!(
        samples
            .iter()
            .all(|s| s.1.as_ref().is_some_and(|l| l.contains('/')))
    );
}

/// Samples as a file of each format.
fn written(samples: &[(String, String)]) -> Vec<String> {
    let object = |(text, label): &(String, String)| {
        serde_json::json!({"text": text, "label": label}).to_string()
    };
    let lines: Vec<String> = samples.iter().map(object).collect();
    let (texts, labels): (Vec<_>, Vec<_>) = samples.iter().cloned().unzip();
    let table = |delimiter: u8| {
        let mut writer = csv::WriterBuilder::new()
            .delimiter(delimiter)
            .from_writer(Vec::new());
        writer.write_record(["label", "text"]).unwrap();
        samples
            .iter()
            .for_each(|(text, label)| writer.write_record([label, text]).unwrap());
        String::from_utf8(writer.into_inner().unwrap()).unwrap()
    };
    vec![
        lines.join("\n"),
        lines.join(" \r\n\r\n"),
        format!("[{}]", lines.join(",\n")),
        serde_json::json!({"text": texts, "label": labels}).to_string(),
        table(b','),
        table(b'\t'),
        table(b';'),
    ]
}

fn texts() -> impl Strategy<Value = Vec<(String, String)>> {
    let text = "[a-z \"',;\t|\\[\\]{}:\\\\é🦊\n-]{0,12}[a-z]";
    proptest::collection::vec((text, "[a-z/ ]{0,3}[a-z]"), 1..6)
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), name in 0usize..9) {
        let _ = read(NAMES[name], &bytes);
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "[\\[\\]{}:,\"'\\\\ntexlabd83fu0 \t;|\r\n-]{0,60}", name in 0usize..9) {
        let _ = read(NAMES[name], &text);
    }

    #[test]
    fn the_same_samples_come_of_every_format_under_every_name(samples in texts()) {
        let wanted: Vec<Pair> = samples.iter().map(|(text, label)| (text.clone(), Some(label.clone()))).collect();
        for file in written(&samples) {
            for name in NAMES {
                let found = read(name, &file).map(|r| r.0);
                prop_assert_eq!(found.as_ref(), Ok(&wanted), "{} {:?}", name, file);
            }
        }
    }

    #[test]
    fn damaged_files_never_panic(
        samples in texts(), which in 0usize..7, name in 0usize..9,
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut bytes = written(&samples)[which].clone().into_bytes();
        for (index, value) in at {
            let i = index.index(bytes.len());
            bytes[i] = value;
        }
        bytes.truncate(keep.index(bytes.len()) + 1);
        let _ = read(NAMES[name], &bytes);
    }
}
