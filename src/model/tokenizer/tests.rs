//! Ids against the references' fixtures, on real vocabularies where a model is at hand and on small
//! ones always.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;

use super::super::gguf::{Header, testing::GgufWriter};
use super::pieces::ByteEncoding;
use super::*;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    /// What Google's sentencepiece says where Hugging Face's reading of the GGUF differs from it.
    sentencepiece: Option<Vec<u32>>,
}

fn cases(name: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tokenizer")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn real(variable: &str) -> Tokenizer {
    let path = PathBuf::from(
        std::env::var_os(variable).unwrap_or_else(|| panic!("set {variable} to a GGUF file")),
    );
    Tokenizer::from_gguf(&Header::read(&path).unwrap()).unwrap()
}

/// Every fixture text has the reference's ids, and its ids spell it.
fn assert_matches(tokenizer: &Tokenizer, fixture: &str, spells: impl Fn(&str) -> bool) {
    let cases = cases(fixture);
    assert!(cases.len() > 250);
    for case in cases {
        let ids = tokenizer.encode(&case.text, BosRule::Never).unwrap();
        // sentencepiece trained the vocabulary, so its word is the last one.
        assert_eq!(
            ids,
            case.sentencepiece.unwrap_or(case.ids),
            "{:?}",
            case.text
        );
        if spells(&case.text) {
            let bytes: Vec<u8> = ids
                .iter()
                .flat_map(|&id| tokenizer.bytes(id))
                .copied()
                .collect();
            assert_eq!(String::from_utf8_lossy(&bytes), case.text);
            assert_eq!(tokenizer.decode(&ids), case.text);
        }
    }
}

#[test]
#[ignore = "needs SmolLM2-135M-Instruct as a GGUF file: set MLPEEK_TEST_MODEL to it"]
fn smollm2_has_hugging_faces_ids() {
    let tokenizer = real("MLPEEK_TEST_MODEL");
    // The vocabulary lacks the bytes that its training text never had; Hugging Face drops them
    // without a word.
    let missing: Vec<u8> = (0..=255)
        .filter(|&b| (0..49_152).all(|id| tokenizer.bytes(id) != [b]))
        .collect();
    assert_matches(&tokenizer, "smollm2.json", |text| {
        text.bytes().all(|b| !missing.contains(&b))
    });
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!(tokenizer.bos(), Some(1));
    assert_eq!(tokenizer.eos(), [2]);
    assert_eq!(tokenizer.piece(2), "<|im_end|>");
    assert!(tokenizer.is_special(2) && !tokenizer.is_special(1000));
    let once = tokenizer.encode("<|im_start|>user", BosRule::Auto).unwrap();
    assert_eq!(
        once,
        tokenizer
            .encode("<|im_start|>user", BosRule::Never)
            .unwrap()
    );
    assert_eq!(tokenizer.encode("user", BosRule::Always).unwrap()[0], 1);
}

#[test]
#[ignore = "needs Gemma 3 as a GGUF file: set MLPEEK_TEST_GEMMA to it"]
fn gemma_has_the_references_ids() {
    let tokenizer = real("MLPEEK_TEST_GEMMA");
    // ▁ is how the vocabulary writes a space, so a text's own ▁ comes back as one.
    assert_matches(&tokenizer, "gemma3.json", |text| !text.contains('▁'));
    assert_eq!(tokenizer.vocab_size(), 262_144);
    assert_eq!(tokenizer.bos(), Some(2));
    assert_eq!(tokenizer.eos(), [1, 106]);
    assert_eq!(tokenizer.bytes(138), b"  ");
    assert_eq!(tokenizer.bytes(238), [0]);
    assert_eq!(tokenizer.piece(238 + 0xE2), "<0xE2>");
}

/// A byte-level vocabulary with all 256 bytes, a few merges and two control tokens.
fn byte_level() -> GgufWriter {
    let mut tokens: Vec<String> = vec!["<|start|>".into(), "<|end|>".into()];
    let alphabet = (0u32..0x200).filter_map(char::from_u32).map(String::from);
    tokens
        .extend(alphabet.filter(|c| {
            pieces::piece_bytes(c, ByteEncoding::ByteLevel).len() == 1 && is_mapped(c)
        }));
    assert_eq!(tokens.len(), 258);
    tokens.extend(["Ġt", "he", "Ġthe", "12"].map(String::from));
    let mut kinds = vec![1; tokens.len()];
    (kinds[0], kinds[1]) = (3, 3);
    GgufWriter::new()
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "smollm")
        .strings("tokenizer.ggml.tokens", &tokens)
        .ints("tokenizer.ggml.token_type", &kinds)
        .strings(
            "tokenizer.ggml.merges",
            &["Ġ t", "h e", "Ġt he", "1 2"].map(String::from),
        )
        .uint("tokenizer.ggml.bos_token_id", 0)
        .uint("tokenizer.ggml.eos_token_id", 1)
}

fn is_mapped(c: &str) -> bool {
    c.chars()
        .all(|c| matches!(u32::from(c), 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0x143))
}

/// A SentencePiece vocabulary: four control tokens, 256 bytes, a few pieces, runs of spaces as
/// user-defined tokens.
fn sentence_piece(add_space_prefix: bool) -> GgufWriter {
    let mut tokens: Vec<String> = ["<pad>", "<s>", "</s>", "<unk>"].map(String::from).into();
    let mut kinds = vec![3, 3, 3, 2];
    let mut scores = vec![-1000.0; 4];
    for byte in 0..=255u8 {
        tokens.push(format!("<0x{byte:02X}>"));
        kinds.push(6);
        scores.push(0.0);
    }
    for (token, kind, score) in [
        ("▁", 1, -9.0),
        ("a", 1, -10.0),
        ("b", 1, -11.0),
        ("▁a", 1, -1.0),
        ("ab", 1, -2.0),
        ("  ", 4, -1000.0),
        ("   ", 4, -1000.0),
    ] {
        tokens.push(token.to_owned());
        kinds.push(kind);
        scores.push(score);
    }
    GgufWriter::new()
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &tokens)
        .ints("tokenizer.ggml.token_type", &kinds)
        .floats("tokenizer.ggml.scores", &scores)
        .uint("tokenizer.ggml.unknown_token_id", 3)
        .flag("tokenizer.ggml.add_space_prefix", add_space_prefix)
}

fn build(gguf: &GgufWriter) -> Result<Tokenizer> {
    Header::parse(&gguf.bytes(), Path::new("test.gguf")).and_then(|h| Tokenizer::from_gguf(&h))
}

fn texts(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let ids = tokenizer.encode(text, BosRule::Never).unwrap();
    ids.into_iter().map(|id| tokenizer.piece(id)).collect()
}

#[test]
fn byte_level_merges_within_its_cuts() {
    let tokenizer = build(&byte_level()).unwrap();
    assert_eq!(
        texts(&tokenizer, "the the 12"),
        ["t", "he", " the", " ", "1", "2"]
    );
    assert_eq!(texts(&tokenizer, "a<|end|> b"), ["a", "<|end|>", " ", "b"]);
    assert_eq!(texts(&tokenizer, ""), [""; 0]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(0), &[1][..]));
}

#[test]
fn sentencepiece_merges_by_score_and_falls_back_to_bytes() {
    let tokenizer = build(&sentence_piece(false)).unwrap();
    assert_eq!(texts(&tokenizer, "ab ab"), ["ab", " a", "b"]);
    assert_eq!(texts(&tokenizer, "   ab"), ["   ", "ab"]);
    assert_eq!(texts(&tokenizer, "      a"), ["   ", "   ", "a"]);
    assert_eq!(texts(&tokenizer, "é"), ["<0xC3>", "<0xA9>"]);
    assert_eq!(texts(&tokenizer, "<s>a"), ["<s>", "a"]);
    // The usual ids of SentencePiece, as the file names none.
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(1), &[2][..]));
}

#[test]
fn a_prefix_space_goes_before_each_segment_and_comes_off_again() {
    let tokenizer = build(&sentence_piece(true)).unwrap();
    assert_eq!(texts(&tokenizer, "a</s>a"), [" a", "</s>", " a"]);
    for text in ["a", " a", "", "a</s>a", "</s>", "b  a", " b"] {
        let ids = tokenizer.encode(text, BosRule::Auto).unwrap();
        assert_eq!(tokenizer.decode(&ids), format!("<s>{text}"));
    }
}

#[test]
fn bos_is_added_by_the_rule_and_never_twice() {
    let tokenizer = build(&byte_level()).unwrap();
    let ids = |text, rule| tokenizer.encode(text, rule).unwrap();
    assert_eq!(ids("a", BosRule::Auto), ids("<|start|>a", BosRule::Never));
    assert_eq!(
        ids("<|start|>a", BosRule::Auto),
        ids("<|start|>a", BosRule::Never)
    );
    assert_eq!(ids("", BosRule::Auto), [0]);
    let mut none = build(&byte_level()).unwrap();
    none.bos = None;
    assert_eq!(none.encode("a", BosRule::Auto).unwrap().len(), 1);
    assert!(
        none.encode("a", BosRule::Always)
            .unwrap_err()
            .to_string()
            .contains("--bos")
    );
}

#[test]
fn what_cannot_be_read_right_is_refused_by_name() {
    let says = |gguf: GgufWriter, wanted: &str| {
        let message = build(&gguf).unwrap_err().to_string();
        assert!(
            message.contains("test.gguf") && message.contains(wanted),
            "{message}"
        );
    };
    says(
        byte_level().string("tokenizer.ggml.pre", "poro-chat"),
        "'poro-chat'",
    );
    says(byte_level().string("tokenizer.ggml.model", "t5"), "'t5'");
    says(
        byte_level().strings("tokenizer.ggml.merges", &["Ġ zzz".to_owned()]),
        "merge 0",
    );
    says(
        byte_level().strings("tokenizer.ggml.merges", &["a".to_owned()]),
        "merge 0",
    );
    says(
        byte_level().ints("tokenizer.ggml.token_type", &[1]),
        "token_type",
    );
    says(
        byte_level().uint("tokenizer.ggml.bos_token_id", 9999),
        "bos_token_id",
    );
    says(
        sentence_piece(true).floats("tokenizer.ggml.scores", &[1.0]),
        "scores",
    );
    says(GgufWriter::new(), "no tokenizer");
}

#[test]
fn the_fingerprint_follows_the_vocabulary() {
    let sha = |gguf: GgufWriter| build(&gguf).unwrap().sha256().to_owned();
    assert_eq!(sha(byte_level()).len(), 64);
    assert_eq!(sha(byte_level()), sha(byte_level()));
    assert_ne!(
        sha(byte_level()),
        sha(byte_level().string("tokenizer.ggml.pre", "gpt-2"))
    );
    assert_ne!(
        sha(byte_level()),
        sha(byte_level().strings("tokenizer.ggml.merges", &[]))
    );
}

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
fn tokenizer_json_with_its_neighbours() {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn byte_level_spells_every_text(text in "\\PC*|[\\x00-\\xff]{0,40}|(the| |12|<\\|end\\|>){0,9}") {
        let tokenizer = build(&byte_level()).unwrap();
        let ids = tokenizer.encode(&text, BosRule::Never).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids), text);
    }

    #[test]
    fn sentencepiece_spells_every_text(text in "[^▁]{0,40}|(a|b| |  |</s>|\n){0,20}", prefixed: bool) {
        let tokenizer = build(&sentence_piece(prefixed)).unwrap();
        let ids = tokenizer.encode(&text, BosRule::Never).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids), text);
    }

    #[test]
    fn damaged_files_never_panic(
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        keep in any::<prop::sample::Index>(),
        cut: bool,
        spm: bool,
    ) {
        let mut bytes = if spm { sentence_piece(true).bytes() } else { byte_level().bytes() };
        // Metadata first: flips in the thousands of pieces are all alike.
        for (index, value) in at {
            let i = index.index(bytes.len().min(400));
            bytes[i] = value;
        }
        if cut {
            bytes.truncate(keep.index(bytes.len()));
        }
        if let Ok(header) = Header::parse(&bytes, Path::new("x.gguf")) && let Ok(tokenizer) = Tokenizer::from_gguf(&header) {
            let ids = tokenizer.encode("the  ab 12 é", BosRule::Auto).unwrap_or_default();
            tokenizer.decode(&ids);
            tokenizer.piece(u32::MAX);
        }
    }

    #[test]
    fn random_json_never_panics(json in "[{}\\[\\]\":,a-z0-9]{0,60}") {
        let _ = Tokenizer::from_json(json.as_bytes(), Path::new("t.json"), None, &[]);
    }
}

#[test]
fn tokens_that_only_the_files_beside_name_have_the_ids_of_auto_tokenizer() {
    let fixture = include_str!("../../../tests/fixtures/tokenizer/added_tokens.json");
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
