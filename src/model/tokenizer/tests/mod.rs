//! Ids against the references' fixtures, on real vocabularies where a model is at hand and on small
//! ones always.

mod json_files;

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
    // silently.
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
