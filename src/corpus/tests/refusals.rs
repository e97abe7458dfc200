//! What is refused, and with which words.

use super::*;

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
        // Rounded, two such labels would be one.
        (
            "x.json",
            r#"[{"text": "a", "label": 18446744073709551615}, {"text": "b", "label": 18446744073709551617}]"#,
            "line 1: entry 2",
            "more than 64 bits, which would be rounded (put it in quotes)",
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
