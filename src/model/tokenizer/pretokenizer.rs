//! How each named byte-level vocabulary splits a text before merging.
//!
//! A GGUF says only a name (`tokenizer.ggml.pre`); the rules are those of the `tokenizer.json` of
//! the models that the name stands for. A name that is not here is refused: with the wrong rule
//! every id may be wrong without any error.

use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
/// The patterns of llama.cpp's own `default`, applied one after the other.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"];

/// The names that [`by_name`] knows, for an error.
pub(super) const NAMES: &str = "smollm, starcoder, refact, command-r, gpt-2, llama-bpe, falcon3, qwen2, deepseek-r1-qwen, \
                                 tekken, gpt-4o, default";

/// How a vocabulary normalises and splits a text before merging.
pub(super) struct Rules {
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: PreTokenizerWrapper,
    /// A piece that is a token of the vocabulary becomes that token, whatever its merges would give.
    pub(super) ignore_merges: bool,
}

/// The rules of a `tokenizer.ggml.pre`; `None` for a name that is not known.
pub(super) fn by_name(pre: &str) -> Option<tokenizers::Result<Rules>> {
    let merged = |pre_tokenizer: tokenizers::Result<PreTokenizerWrapper>| {
        Some(pre_tokenizer.map(|pre_tokenizer| Rules {
            normalizer: None,
            pre_tokenizer,
            ignore_merges: false,
        }))
    };
    let whole_tokens = |pre_tokenizer: tokenizers::Result<PreTokenizerWrapper>| {
        Some(pre_tokenizer.map(|pre_tokenizer| Rules {
            normalizer: None,
            pre_tokenizer,
            ignore_merges: true,
        }))
    };
    match pre {
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" => {
            merged(Ok(digits_then_gpt2()))
        }
        "gpt-2" | "phi-2" | "mpt" | "jais" => merged(Ok(ByteLevel::new(false, true, true).into())),
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "midm-2.0" => {
            whole_tokens(split_by(&[LLAMA3]))
        }
        "dbrx" | "smaug-bpe" => merged(split_by(&[LLAMA3])),
        "tekken" => whole_tokens(split_by(&[TEKKEN])),
        "gpt-4o" | "llama4" => merged(split_by(&[GPT4O])),
        "qwen2" | "deepseek-r1-qwen" => Some(split_by(&[QWEN2]).map(|pre_tokenizer| Rules {
            normalizer: Some(NFC.into()),
            pre_tokenizer,
            ignore_merges: false,
        })),
        "default" => merged(split_by(&DEFAULT)),
        _ => None,
    }
}

fn digits_then_gpt2() -> PreTokenizerWrapper {
    Sequence::new(vec![
        Digits::new(true).into(),
        ByteLevel::new(false, true, true).into(),
    ])
    .into()
}

fn split_by(patterns: &[&str]) -> tokenizers::Result<PreTokenizerWrapper> {
    let mut steps = Vec::with_capacity(patterns.len() + 1);
    for pattern in patterns {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        steps.push(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into());
    }
    steps.push(ByteLevel::new(false, true, false).into());
    Ok(Sequence::new(steps).into())
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    /// The pieces of a text, spaces shown as the byte-level alphabet writes them.
    fn splits(pre: &str, text: &str) -> Vec<String> {
        let rules = by_name(pre).unwrap().unwrap();
        let mut pretokenized = PreTokenizedString::from(text);
        rules.pre_tokenizer.pre_tokenize(&mut pretokenized).unwrap();
        let splits = pretokenized.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        splits.into_iter().map(|(s, _, _)| s.to_owned()).collect()
    }

    #[test]
    fn each_vocabulary_splits_numbers_its_own_way() {
        let text = "in 12345";
        assert_eq!(splits("smollm", text), ["in", "Ġ", "1", "2", "3", "4", "5"]);
        assert_eq!(splits("gpt-2", text), ["in", "Ġ12345"]);
        assert_eq!(splits("llama-bpe", text), ["in", "Ġ", "123", "45"]);
        assert_eq!(splits("qwen2", text), ["in", "Ġ", "1", "2", "3", "4", "5"]);
        assert_eq!(splits("falcon3", text), ["in", "Ġ", "123", "45"]);
        assert_eq!(
            splits("deepseek-r1-qwen", text),
            ["in", "Ġ", "1", "2", "3", "4", "5"]
        );
        assert_eq!(splits("tekken", text), ["in", "Ġ", "1", "2", "3", "4", "5"]);
        assert_eq!(splits("gpt-4o", text), ["in", "Ġ", "123", "45"]);
        assert_eq!(splits("default", text), ["in", "Ġ", "123", "45"]);
    }

    #[test]
    fn every_listed_name_is_known_and_others_are_not() {
        for name in NAMES.split(", ") {
            assert!(by_name(name).unwrap().is_ok(), "{name}");
        }
        assert!(by_name("deepseek-llm").is_none());
        assert!(by_name("").is_none());
    }
}
