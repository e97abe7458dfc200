//! `tokenizer.json` and the files beside it.

use super::*;

fn tokenizer_json(decoder: &str) -> String {
    let head = r#"{"version":"1.0","truncation":{"direction":"Right","max_length":2,"strategy":"LongestFirst","stride":0},
        "padding":null,"added_tokens":[{"id":0,"content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false,
        "normalized":false,"special":true}],"normalizer":null,
        "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
        "post_processor":null,"#;
    let model = r#""model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,
        "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
        "vocab":{"<|end|>":0,"a":1,"b":2,"Ġ":3,"Ġa":5},"merges":["Ġ a"]}}"#;
    format!("{head}\"decoder\":{decoder},{model}")
}

const BYTE_LEVEL: &str =
    r#"{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#;

fn write_dir(files: &[(&str, &str)]) -> (tempfile::TempDir, ModelFiles) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let layout = ModelLayout::HuggingFace {
        config: dir.path().join("config.json"),
        tokenizer: dir.path().join("tokenizer.json"),
        weights: vec![],
    };
    (
        dir,
        ModelFiles {
            id: "test".into(),
            origin: "directory".into(),
            layout,
        },
    )
}

#[test]
fn tokenizer_json_is_read_with_the_files_beside_it() {
    let json = tokenizer_json(BYTE_LEVEL);
    let (_dir, files) = write_dir(&[
        ("tokenizer.json", json.as_str()),
        (
            "tokenizer_config.json",
            r#"{"bos_token":{"content":"<|end|>"},"eos_token":"<|end|>"}"#,
        ),
        (
            "generation_config.json",
            r#"{"eos_token_id":[0,2],"bos_token_id":1}"#,
        ),
        ("config.json", r#"{"eos_token_id":2}"#),
    ]);
    let tokenizer = Tokenizer::open(&files).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), &[0, 2][..]));
    // The file's own truncation to two ids is not ours.
    assert_eq!(
        tokenizer.encode("a a a b", BosRule::Auto).unwrap(),
        [0, 1, 5, 5, 3, 2]
    );
    assert_eq!(tokenizer.decode(&[0, 1, 5, 3, 2]), "<|end|>a a b");
    // Id 4 is a hole, and 99 beyond the end.
    assert_eq!(
        (
            tokenizer.vocab_size(),
            tokenizer.bytes(4),
            tokenizer.bytes(99)
        ),
        (5, &b""[..], &b""[..])
    );
}

#[test]
fn the_tokenizers_word_on_bos_goes_before_the_configs() {
    let json = tokenizer_json(BYTE_LEVEL);
    let open = |tokenizer_config: &str| {
        let (_dir, files) = write_dir(&[
            ("tokenizer.json", json.as_str()),
            ("tokenizer_config.json", tokenizer_config),
            ("config.json", r#"{"bos_token_id":0,"eos_token_id":0}"#),
        ]);
        Tokenizer::open(&files)
    };
    assert_eq!(open(r#"{"bos_token":null}"#).unwrap().bos(), None);
    assert_eq!(open("{}").unwrap().bos(), Some(0));
    // One that the vocabulary lacks is added, as transformers does.
    assert!(
        open(r#"{"bos_token":"<s>"}"#)
            .unwrap()
            .bos()
            .is_some_and(|id| id != 0)
    );
}

#[test]
fn a_broken_tokenizer_json_is_an_error_that_names_it() {
    // A merge longer than every token makes the library panic.
    let panics = tokenizer_json(BYTE_LEVEL).replace(r#"["Ġ a"]"#, r#"["<|end|> <|end|>"]"#);
    for json in ["", "{}", "[1", "null", panics.as_str()] {
        let message = Tokenizer::from_json(json.as_bytes(), Path::new("tokenizer.json"), None, &[])
            .unwrap_err();
        assert!(
            message.to_string().starts_with("tokenizer.json: "),
            "{message}"
        );
    }
    let (_dir, files) = write_dir(&[]);
    assert!(
        Tokenizer::open(&files)
            .unwrap_err()
            .to_string()
            .contains("has no tokenizer.json")
    );
}

#[test]
fn llama_style_json_takes_its_prefix_space_off_again() {
    let decoder = r#"{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
        {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#;
    let json = tokenizer_json(decoder)
        .replace(
            r#""normalizer":null"#,
            r#""normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
               {"type":"Replace","pattern":{"String":" "},"content":"▁"}]}"#,
        )
        .replace(
            r#""pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"#,
            r#""pre_tokenizer":null"#,
        )
        .replace('Ġ', "▁");
    let tokenizer =
        Tokenizer::from_json(json.as_bytes(), Path::new("t.json"), Some("<|end|>"), &[]).unwrap();
    let ids = tokenizer.encode("a b<|end|>a", BosRule::Auto).unwrap();
    assert_eq!(ids, [0, 5, 3, 2, 0, 5]);
    assert_eq!(tokenizer.decode(&ids), "<|end|>a b<|end|>a");
    assert_eq!(tokenizer.bytes(5), b" a");
}

#[test]
fn tokens_that_only_the_files_beside_name_have_the_ids_of_auto_tokenizer() {
    let fixture = include_str!("../../../../tests/fixtures/tokenizer/added_tokens.json");
    let fixture: serde_json::Value = serde_json::from_str(fixture).unwrap();
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_owned();
    let cases = fixture["cases"].as_array().unwrap();
    assert!(cases.len() > 30);
    let mut fingerprints = std::collections::HashSet::new();
    for case in cases {
        let name = text(&case["name"]);
        let mut files = vec![("tokenizer.json".to_owned(), text(&fixture["tokenizer"]))];
        files.extend(
            case["files"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, content)| (name.clone(), text(content))),
        );
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(n, t)| (n.as_str(), t.as_str()))
            .collect();
        let (_dir, files) = write_dir(&files);
        let tokenizer = Tokenizer::open(&files).unwrap();
        for (input, wanted) in fixture["texts"]
            .as_array()
            .unwrap()
            .iter()
            .zip(case["ids"].as_array().unwrap())
        {
            let input = text(input);
            let ids = tokenizer.encode(&input, BosRule::Never).unwrap();
            assert_eq!(serde_json::json!(ids), *wanted, "{name}: {input}");
            if !name.contains("strip") && !name.contains("flags") {
                assert_eq!(tokenizer.decode(&ids), input, "{name}");
            }
        }
        assert_eq!(serde_json::json!(tokenizer.bos()), case["bos"], "{name}");
        assert_eq!(
            serde_json::json!(tokenizer.eos().first()),
            case["eos"],
            "{name}"
        );
        fingerprints.insert((tokenizer.sha256().to_owned(), case["ids"].to_string()));
    }
    // What cuts texts in another way has another fingerprint.
    let other: std::collections::HashSet<&String> =
        fingerprints.iter().map(|(sha, _)| sha).collect();
    assert_eq!(other.len(), fingerprints.len());
}
