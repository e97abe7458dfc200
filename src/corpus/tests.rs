//! Every format under every name, what is refused, and hostile bytes.

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
fn what_was_read_before_is_read_alike() {
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
fn what_can_be_read_in_two_ways_is_refused_with_both() {
    let either = [
        (
            "x.json",
            r#"{"text":["a","b"],"source":["c","d"]}"#,
            "as columns text (2), source (2), or as labels",
        ),
        (
            "x.json",
            r#"{"text":["a","b"],"code":["c"]}"#,
            "as columns text (2), code (1), which differ in length, or as labels",
        ),
        (
            "x.json",
            r#"{"text":["a","b"],"label":["c"]}"#,
            "which differ in length",
        ),
        (
            "x.json",
            r#"{"sentence":["a","b"],"label":["c","d"]}"#,
            "as columns sentence (2), label (2), or as labels",
        ),
        (
            "x.json",
            r#"{"question":["a","b"],"answer":["c","d"]}"#,
            "as columns question (2), answer (2)",
        ),
        (
            "x.json",
            r#"{"data":[{"text":"a"}]}"#,
            "as texts without labels within data, or as labels",
        ),
        (
            "x.json",
            r#"{"train":["a"],"test":["b"]}"#,
            "as texts without labels within train, test",
        ),
        (
            "x.txt",
            "\"a\"\n\"b\"\n",
            "without the quotes, or as plain text",
        ),
        (
            "x.txt",
            "text\na dog\n",
            "as a table with the one column text, or as plain text",
        ),
        (
            "x.txt",
            "text,id\na dog,1\n",
            "as a table with the columns text, id (between commas), or as plain text",
        ),
        (
            "x.csv",
            "text,a;text\nb,c;d\n",
            "between commas (text, a;text) and between semicolons (text,a, text)",
        ),
    ];
    for (name, file, says) in either {
        let error = refused(name, file);
        assert!(
            error.contains("in two ways") && error.contains(says),
            "{file}: {error}"
        );
    }
    // What its name says is enough then.
    assert_eq!(pairs("x.csv", "text\na dog\n"), [one("a dog", None)]);
    assert_eq!(pairs("x.csv", "text,id\na dog,1\n"), [one("a dog", None)]);
    assert_eq!(
        pairs("x.csv", "\"text\"\n\"a dog\"\n"),
        [one("a dog", None)]
    );
    let own = r#"{"data":[{"text":"a","label":"x"},{"text":"b","label":"y"}]}"#;
    assert_eq!(
        pairs("x.json", own),
        [one("a", Some("x")), one("b", Some("y"))]
    );
    // Labels of a kind are labels.
    let kinds = r#"{"text":[{"text":"a"}],"code":[{"text":"b"}]}"#;
    assert_eq!(
        pairs("x.json", kinds),
        [one("a", Some("text")), one("b", Some("code"))]
    );
}

#[test]
fn a_file_that_is_no_text_is_named_with_what_to_do() {
    let tar = [&[b'a'; 257][..], b"ustar\x0000"].concat();
    let arrow = b"ARROW1\0\0".to_vec();
    let files: [(&[u8], &str, &str); 17] = [
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip", "gunzip"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd", "unzstd"),
        (b"BZh91AY&SY\0", "bzip2", "bunzip2"),
        (b"\xfd7zXZ\0\0", "xz", "unxz"),
        (b"PK\x03\x04\x14\0data/train.csv", "zip archive", "unzip"),
        (
            b"PK\x03\x04\x14\0[Content_Types].xmlxl/workbook.xml",
            "Excel",
            "CSV",
        ),
        (&tar, "tar archive", "tar -xf"),
        (b"PAR1\x15\x00\x15\xa8\xff\xfe", "Parquet", "JSON Lines"),
        (&arrow, "Arrow", "to_json"),
        (b"SQLite format 3\0\x10\0", "SQLite", "CSV"),
        (b"\x80\x04\x95\x05\0\0\0\0\0\0\0]", "pickle", "JSON Lines"),
        (b"\x93NUMPY\x01\0", "NumPy", "mlpeek import"),
        (b"%PDF-1.7\n", "PDF", "pdftotext"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
            "Git LFS pointer",
            "git lfs pull",
        ),
        (b"<!DOCTYPE html>\n<html>", "web page", "raw"),
        (b"t\0e\0x\0t\0\n\0", "UTF-16", "UTF-8"),
        (b"\xff\xfe\0\0t\0\0\0", "UTF-32", "UTF-8"),
    ];
    for (bytes, what, remedy) in files {
        for name in NAMES {
            let error = refused(name, bytes);
            assert!(
                error.contains(what) && error.contains(remedy),
                "{name}: {error}"
            );
        }
    }
    for text in [
        "The big DUCK of the lake",
        "PAR1 is a grade of paper",
        "GIF8 is no word",
    ] {
        assert_eq!(
            pairs("x.txt", text),
            [one(text, None)],
            "letters alone are no mark of a file"
        );
    }
    assert!(refused("x.txt", b"fine\nbad \xff\n").contains("line 2 is not UTF-8 text (byte 0xFF)"));
    assert!(refused("x.txt", b"fine text\nwith a \0 in it").contains("line 2 holds a NUL byte"));
    assert!(refused("x.txt", b"\xff\xfea\0b").contains("cut off"));
}

#[test]
fn what_python_reads_is_read_and_told() {
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
    // A file whose column nothing is told of.
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
fn a_wrong_entry_is_named_with_its_line() {
    let wrong = [
        (
            "x.json",
            "{\"months\": [\"May\",\n 3]}",
            "line 2: entry 2 of \"months\"",
            "a number",
        ),
        (
            "x.json",
            "{\"d\": [\"a\",\"b\"],\n\"m\": [\"May\",\n[1]]}",
            "line 3: entry 2 of \"m\"",
            "a list",
        ),
        (
            "x.json",
            "[{\"text\": \"a [,]\"},\n {\"body\": \"b\", \"id\": 1}]",
            "line 2: entry 2",
            "neither (its keys: body, id)",
        ),
        (
            "x.json",
            r#"{"months": "May"}"#,
            "line 1",
            "its keys: months",
        ),
        (
            "x.json",
            r#"{"months": "May", "days": ["Monday"]}"#,
            "\"months\"",
            "found a string",
        ),
        (
            "x.json",
            r#"[{"text": ["a"]}]"#,
            "line 1: entry 1",
            "a list",
        ),
        (
            "x.json",
            r#"[{"text": null}]"#,
            "line 1: entry 1",
            "text is null",
        ),
        (
            "x.json",
            r#"[{"text": "a", "label": ["b"]}]"#,
            "line 1: entry 1",
            "label is a list",
        ),
        (
            "x.json",
            r#"[{"text": "a", "text": "b"}]"#,
            "line 1: entry 1",
            "\"text\" twice",
        ),
        (
            "x.json",
            r#"{"messages": [{"role": "user", "content": "a"}]}"#,
            "line 1: entry 1 of \"messages\"",
            "role, content",
        ),
        (
            "x.json",
            "{\"text\": [\"a\",\n2], \"label\": [\"x\", \"y\"]}",
            "line 2: row 2 of \"text\"",
            "a number",
        ),
        (
            "x.json",
            "{\"label\": [\"x\", {}],\n\"text\": [\"a\", \"b\"]}",
            "line 1: row 2 of \"label\"",
            "an object",
        ),
        (
            "x.json",
            r#"{"sentence": ["a"], "label": [1]}"#,
            "line 1",
            "there are sentence, label",
        ),
        (
            "x.json",
            r#"{"text": ["a"], "label": [1, 2]}"#,
            "text (1), label (2)",
            "do not fit",
        ),
        ("x.json", "{\"a\": [\"b\"\n", "line 2", "EOF"),
        ("x.jsonl", "\"a\"\n\n7\n", "line 3", "a number"),
        ("x.jsonl", "\"a\"\n{\n", "line 2", "EOF"),
        (
            "x.jsonl",
            "{\"text\":\"a\"}\n{\"text\":\"b\"\n{\"text\":\"c\"}\n",
            "line 2",
            "EOF",
        ),
        (
            "x.txt",
            "{\"text\":\"a\"}\n{\"text\":\"b\"\n",
            "line 2",
            "begins as JSON",
        ),
        ("x.txt", "{'text': 'a'}\n", "line 1", "begins as JSON"),
        ("x.json", "one\ntwo\n", "does not begin as JSON", ".txt"),
        ("x.csv", "id,body\n1,x\n", "line 1", "found id, body"),
        ("x.tsv", "id\tbody\n1\tx\n", "line 1", "found id, body"),
        (
            "x.csv",
            "text,label\nfine,x\nonly one\n",
            "line 3 has 1 cell",
            "the header has 2 (text, label)",
        ),
        (
            "x.csv",
            "text\nHello, world\n",
            "line 2 has 2 cells",
            "quotes",
        ),
        (
            "x.csv",
            "text,label\na,b\n\"open,c\nd,e\n",
            "line 3",
            "never closed",
        ),
        ("x.csv", "text,text\na,b\n", "line 1", "text is there twice"),
        (
            "x.txt",
            "text\tlabel\na\tb\nc\n",
            "line 3 has 1 cell",
            "begins as a table",
        ),
    ];
    for (name, text, place, found) in wrong {
        let error = refused(name, text);
        assert!(
            error.contains(place) && error.contains(found),
            "{text:?}: {error}"
        );
    }
    let deep = "[".repeat(100_000);
    assert!(refused("x.json", &deep).contains("recursion limit"));
}

#[test]
fn an_empty_corpus_is_refused() {
    let empty = [
        ("x.json", "{}"),
        ("x.json", "[]"),
        ("x.json", "[\" \"]"),
        ("x.csv", "text\n"),
        ("x.txt", "\n\n"),
        ("x.txt", ""),
    ];
    for (name, text) in empty {
        assert!(refused(name, text).contains("empty"), "{name} {text:?}");
    }
}

#[test]
fn a_directory_and_a_missing_file_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    assert!(
        Corpus::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("is a directory")
    );
    assert!(
        Corpus::open(&dir.path().join("x.txt"))
            .unwrap_err()
            .to_string()
            .contains("no such file")
    );
    let path = dir.path().join("x.tsv");
    std::fs::write(&path, "text\tlabel\na dog\tx\n").unwrap();
    let corpus = Corpus::open(&path).unwrap();
    assert_eq!(
        corpus.sha256,
        "2718942dac6e493973b03824c28f154316ee99beb2d33cb818c8fb7cfa59ad3e"
    );
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
        include_bytes!("../../data/hierarchy.json"),
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
