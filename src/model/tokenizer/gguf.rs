//! The tokenizer that a GGUF carries in its metadata.
//!
//! `tokenizer.ggml.model` names the kind: `gpt2` is byte-level BPE, `llama` SentencePiece's BPE. Any
//! other is refused by name.

use std::path::Path;

use sha2::{Digest, Sha256};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::utils::Sequence;
use tokenizers::{AddedToken, NormalizerWrapper};

use super::pieces::{ByteEncoding, Pieces, hex_byte, piece_bytes};
use super::{PrefixSpace, Tokenizer, deduplicated, hex, pretokenizer, sentencepiece};
use crate::error::{Error, Result};
use crate::model::chat::ChatTemplate;
use crate::model::gguf::Header;

/// Token types (`llama_token_attr` of the format).
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const BYTE: i64 = 6;

/// Control tokens that end an answer of a chat model, whatever the metadata names as EOS.
const TURN_ENDS: [&str; 4] = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"];

/// Builds the tokenizer of a GGUF file.
pub(super) fn build(header: &Header) -> Result<Tokenizer> {
    let table = VocabTable::read(header)?;
    let (bpe, rules) = match header.string("tokenizer.ggml.model") {
        Some("gpt2") => byte_level(header, &table)?,
        Some("llama") => sentence_piece(header, &table)?,
        Some(other) => {
            let problem = format!(
                "has a tokenizer of the kind '{other}'; gpt2 (byte-level BPE) and llama (SentencePiece BPE) can be \
                 read: use this model's Hugging Face directory, which has a tokenizer.json"
            );
            return Err(Error::file(header.path(), problem));
        }
        None => {
            return Err(Error::file(
                header.path(),
                "holds no tokenizer (no tokenizer.ggml.model)",
            ));
        }
    };
    let mut inner = tokenizers::Tokenizer::new(bpe);
    let failed = |e: tokenizers::Error| {
        Error::file(header.path(), format!("its tokenizer cannot be built: {e}"))
    };
    let added = table.added(&rules);
    inner.with_normalizer(rules.normalizer).map_err(failed)?;
    inner.with_pre_tokenizer(rules.pre_tokenizer);
    inner.add_tokens(added).map_err(failed)?;

    let mut pieces = Pieces::default();
    for (id, token) in table.tokens.iter().enumerate() {
        let literal = matches!(table.kind(id), CONTROL | UNKNOWN)
            || (table.kind(id) == USER_DEFINED && rules.encoding == ByteEncoding::ByteLevel);
        pieces.push(&piece_bytes(
            token,
            if literal {
                ByteEncoding::Literal
            } else {
                rules.encoding
            },
        ));
    }
    let ids = |wanted: &[i64]| {
        let of_kind = |id: &usize| wanted.contains(&table.kind(*id));
        (0..table.tokens.len())
            .filter(of_kind)
            .map(|id| id as u32)
            .collect::<Vec<_>>()
    };
    Ok(Tokenizer {
        inner,
        pieces,
        prefix_space: rules.prefix_space,
        byte_exact: true,
        added: ids(&[CONTROL, UNKNOWN, USER_DEFINED]),
        special: ids(&[CONTROL, UNKNOWN]),
        bos: bos(header, &table)?,
        eos: eos(header, &table)?,
        chat: ChatTemplate::of_gguf(header, |id| table.tokens.get(id as usize).cloned()),
        sha256: fingerprint(header, &table),
        file_sha256: None,
    })
}

/// The vocabulary as the file has it: `tokens` by id, and their types, of which there are as many.
struct VocabTable<'a> {
    path: &'a Path,
    tokens: &'a [String],
    kinds: Option<&'a [i64]>,
}

impl<'a> VocabTable<'a> {
    fn read(header: &'a Header) -> Result<Self> {
        let path = header.path();
        let tokens = header.strings("tokenizer.ggml.tokens").unwrap_or_default();
        if tokens.is_empty() {
            return Err(Error::file(
                path,
                "holds no tokenizer (no tokenizer.ggml.tokens)",
            ));
        }
        let kinds = header.ints("tokenizer.ggml.token_type");
        if let Some(kinds) = kinds {
            check_length(path, "token_type", kinds.len(), tokens.len())?;
        }
        Ok(Self {
            path,
            tokens,
            kinds,
        })
    }

    fn kind(&self, id: usize) -> i64 {
        self.kinds.map_or(NORMAL, |kinds| kinds[id])
    }

    /// The text under which a token is found. SentencePiece writes the spaces of a user-defined
    /// token as `▁`; GGUFs by newer converters have spaces there. It is matched after the
    /// normaliser has made `▁` of the text's spaces (so that a text's own `▁` counts, as in
    /// SentencePiece), or, where the normaliser would put a prefix on the token too, before.
    fn text(&self, id: usize, rules: &Rules) -> String {
        let token = &self.tokens[id];
        match (rules.encoding, self.kind(id), rules.prefix_space) {
            (ByteEncoding::SentencePiece, USER_DEFINED, PrefixSpace::None) => {
                token.replace(' ', "▁")
            }
            (ByteEncoding::SentencePiece, USER_DEFINED, _) => token.replace('▁', " "),
            _ => token.clone(),
        }
    }

    /// Ids by text; of two tokens with one text the first.
    fn vocab(&self, rules: &Rules) -> Vocab {
        let mut vocab = Vocab::with_capacity(self.tokens.len());
        for id in 0..self.tokens.len() {
            vocab.entry(self.text(id, rules)).or_insert(id as u32);
        }
        vocab
    }

    /// The tokens that are matched as a whole in a text, before it is split.
    fn added(&self, rules: &Rules) -> Vec<AddedToken> {
        let matched = (0..self.tokens.len())
            .filter(|&id| matches!(self.kind(id), CONTROL | UNKNOWN | USER_DEFINED));
        let token = |id| {
            let content = self.text(id, rules);
            let plain = self.kind(id) == USER_DEFINED;
            let after_normalising =
                plain && rules.encoding == ByteEncoding::SentencePiece && content.contains('▁');
            AddedToken::from(content, !plain).normalized(after_normalising)
        };
        matched.map(token).collect()
    }

    /// An id that a key names, checked against the vocabulary.
    fn named_id(&self, header: &Header, key: &str) -> Result<Option<u32>> {
        match header.metadata.get(key) {
            None => Ok(None),
            Some(value) => match header.uint(key).filter(|&id| id < self.tokens.len() as u64) {
                Some(id) => Ok(Some(id as u32)),
                // Converters write −1 (as u32 or i32) for "none".
                None if header.uint(key) == Some(u64::from(u32::MAX))
                    || header.uint(key).is_none() =>
                {
                    Ok(None)
                }
                None => {
                    let problem = format!(
                        "{key} is {value:?}, outside its vocabulary of {} tokens",
                        self.tokens.len()
                    );
                    Err(Error::file(self.path, problem))
                }
            },
        }
    }
}

/// What a tokenizer does to a text besides merging: how it is normalised and split, how pieces
/// encode bytes, and where a space is added.
struct Rules {
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<tokenizers::PreTokenizerWrapper>,
    encoding: ByteEncoding,
    prefix_space: PrefixSpace,
}

fn byte_level(header: &Header, table: &VocabTable<'_>) -> Result<(BPE, Rules)> {
    let path = header.path();
    let Some(pre) = header.string("tokenizer.ggml.pre") else {
        let problem = "does not say how its tokenizer cuts a text (no tokenizer.ggml.pre, as in files from before \
                       May 2024): convert the model anew, or use its Hugging Face directory";
        return Err(Error::file(path, problem));
    };
    let Some(rules) = pretokenizer::by_name(pre) else {
        let problem = format!(
            "cuts text by the rule '{pre}', which is not known here (known: {}): use the model's Hugging Face \
             directory, which has a tokenizer.json",
            pretokenizer::NAMES
        );
        return Err(Error::file(path, problem));
    };
    let failed =
        |e: tokenizers::Error| Error::file(path, format!("its tokenizer cannot be built: {e}"));
    let rules = rules.map_err(failed)?;
    let ignore_merges = rules.ignore_merges;
    let rules = Rules {
        normalizer: rules.normalizer,
        pre_tokenizer: Some(rules.pre_tokenizer),
        encoding: ByteEncoding::ByteLevel,
        prefix_space: PrefixSpace::None,
    };
    let vocab = table.vocab(&rules);
    let merges = merges(
        path,
        header.strings("tokenizer.ggml.merges").unwrap_or_default(),
        &vocab,
    )?;
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(ignore_merges);
    Ok((bpe.build().map_err(failed)?, rules))
}

/// The merges of a file, each "left right". One whose parts or result are not tokens is refused here,
/// because the builder of the library would panic on it.
fn merges(path: &Path, lines: &[String], vocab: &Vocab) -> Result<Merges> {
    let mut joined = String::new();
    let mut merges = Merges::with_capacity(lines.len());
    for line in lines {
        // A token may itself start with a space, so the first byte does not separate.
        let cut = line.char_indices().skip(1).find(|&(_, c)| c == ' ');
        let parts = cut.map(|(at, _)| (&line[..at], &line[at + 1..]));
        let known = parts.filter(|(left, right)| {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            vocab.contains_key(*left) && vocab.contains_key(*right) && vocab.contains_key(&joined)
        });
        match known {
            Some((left, right)) => merges.push((left.to_owned(), right.to_owned())),
            None => {
                let problem = format!(
                    "merge {} ('{}') is not one of its own tokens",
                    merges.len(),
                    line.escape_debug()
                );
                return Err(Error::file(path, problem));
            }
        }
    }
    Ok(merges)
}

fn sentence_piece(header: &Header, table: &VocabTable<'_>) -> Result<(BPE, Rules)> {
    let path = header.path();
    let failed =
        |e: tokenizers::Error| Error::file(path, format!("its tokenizer cannot be built: {e}"));
    let scores = header.floats("tokenizer.ggml.scores").unwrap_or_default();
    check_length(path, "scores", scores.len(), table.tokens.len())?;
    let spaces = Replace::new(" ", "▁").map_err(failed)?;
    // llama.cpp takes an absent key as true for SentencePiece (`add_space_prefix`).
    let prefixed = header
        .flag("tokenizer.ggml.add_space_prefix")
        .unwrap_or(true);
    let (normalizer, prefix_space): (NormalizerWrapper, _) = if prefixed {
        let steps = vec![Prepend::new("▁".to_owned()).into(), spaces.into()];
        (Sequence::new(steps).into(), PrefixSpace::EverySegment)
    } else {
        (spaces.into(), PrefixSpace::None)
    };
    let normalizer = Some(normalizer);
    let rules = Rules {
        normalizer,
        pre_tokenizer: None,
        encoding: ByteEncoding::SentencePiece,
        prefix_space,
    };

    let vocab = table.vocab(&rules);
    let mergeable = |id: u32| {
        !matches!(
            table.kind(id as usize),
            UNKNOWN | CONTROL | USER_DEFINED | BYTE
        )
    };
    let merges = sentencepiece::merges(table.tokens, &vocab, scores, mergeable);
    let has_bytes = table
        .tokens
        .iter()
        .filter(|t| hex_byte(t).is_some())
        .count()
        >= 256;
    let unknown = match table.named_id(header, "tokenizer.ggml.unknown_token_id")? {
        Some(id) => Some(id as usize),
        None => (0..table.tokens.len()).find(|&id| table.kind(id) == UNKNOWN),
    };
    let mut bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .byte_fallback(has_bytes)
        .fuse_unk(true);
    if let Some(id) = unknown {
        bpe = bpe.unk_token(table.tokens[id].clone());
    }
    Ok((bpe.build().map_err(failed)?, rules))
}

fn check_length(path: &Path, key: &str, length: usize, tokens: usize) -> Result<()> {
    if length == tokens {
        return Ok(());
    }
    Err(Error::file(
        path,
        format!("has {tokens} tokens but tokenizer.ggml.{key} has {length} entries"),
    ))
}

fn bos(header: &Header, table: &VocabTable<'_>) -> Result<Option<u32>> {
    const KEY: &str = "tokenizer.ggml.bos_token_id";
    if !header.metadata.contains_key(KEY) {
        return Ok(sentencepiece_default(header, table, 1));
    }
    let bos = table.named_id(header, KEY)?;
    // Qwen's tokenizer has no BOS; its GGUFs name the one of config.json, which its training never
    // prepended.
    let qwen = header.string("tokenizer.ggml.pre") == Some("qwen2");
    Ok(bos.filter(|&id| !(qwen && table.tokens[id as usize] == "<|endoftext|>")))
}

fn eos(header: &Header, table: &VocabTable<'_>) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for key in ["eos", "eot", "eom"] {
        ids.extend(table.named_id(header, &format!("tokenizer.ggml.{key}_token_id"))?);
    }
    if ids.is_empty() {
        ids.extend(sentencepiece_default(header, table, 2));
    }
    let turn_end =
        |&id: &usize| table.kind(id) == CONTROL && TURN_ENDS.contains(&table.tokens[id].as_str());
    ids.extend((0..table.tokens.len()).filter(turn_end).map(|id| id as u32));
    Ok(deduplicated(ids))
}

/// SentencePiece's default ids of BOS (1) and EOS (2), for a file that names none.
fn sentencepiece_default(header: &Header, table: &VocabTable<'_>, id: usize) -> Option<u32> {
    let sentencepiece =
        header.string("tokenizer.ggml.model") == Some("llama") && id < table.tokens.len();
    (sentencepiece && table.kind(id) == CONTROL).then_some(id as u32)
}

/// sha256 over everything in the metadata that ids depend on, each part preceded by its length.
fn fingerprint(header: &Header, table: &VocabTable<'_>) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for key in ["model", "pre"] {
        part(
            header
                .string(&format!("tokenizer.ggml.{key}"))
                .unwrap_or_default()
                .as_bytes(),
        );
    }
    for key in [
        "bos_token_id",
        "eos_token_id",
        "unknown_token_id",
        "add_space_prefix",
    ] {
        part(
            format!(
                "{:?}",
                header.metadata.get(&format!("tokenizer.ggml.{key}"))
            )
            .as_bytes(),
        );
    }
    table.tokens.iter().for_each(|token| part(token.as_bytes()));
    table
        .kinds
        .unwrap_or_default()
        .iter()
        .for_each(|kind| part(&kind.to_le_bytes()));
    header
        .floats("tokenizer.ggml.scores")
        .unwrap_or_default()
        .iter()
        .for_each(|s| part(&s.to_le_bytes()));
    header
        .strings("tokenizer.ggml.merges")
        .unwrap_or_default()
        .iter()
        .for_each(|m| part(m.as_bytes()));
    hex(hash)
}
