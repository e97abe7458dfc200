//! Text to ids and back, byte-exact; a GGUF's own tokenizer or a `tokenizer.json`.
//!
//! Owns the rule that ids equal those of Hugging Face's tokenizer for the same model. Knows nothing
//! of weights, and shows no text: pieces may hold any byte, control characters included. Invariant:
//! the bytes of a text's ids, one after the other, are the text (for the vocabularies that can
//! spell every byte; a normaliser's changes, such as Qwen's NFC, apart).

mod extra_tokens;
mod gguf;
mod hf;
mod identity;
mod pieces;
mod pretokenizer;
mod sentencepiece;
#[cfg(test)]
mod tests;

use std::path::Path;

use sha2::{Digest, Sha256};

pub(super) use self::hf::parse_library;
use self::pieces::Pieces;
use super::chat::ChatTemplate;
use super::gguf::Header;
use super::{BosRule, ModelFiles, ModelLayout};
use crate::error::{Error, Result};

/// Where encoding adds a space that the text does not have, which decoding removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PrefixSpace {
    None,
    /// Before the text alone.
    First,
    /// Before the text and after each added token in it.
    EverySegment,
}

/// A model's tokenizer: text to ids as Hugging Face's gives them, and the exact bytes of each id.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    pieces: Pieces,
    prefix_space: PrefixSpace,
    /// Whether the pieces' bytes, joined, are the text; where not, the library's decoder is used.
    byte_exact: bool,
    /// Ids of tokens that are matched as a whole in a text, ascending.
    added: Vec<u32>,
    /// Those of `added` that are control tokens: BOS, EOS, the ends of turns.
    special: Vec<u32>,
    bos: Option<u32>,
    eos: Vec<u32>,
    chat: Option<ChatTemplate>,
    sha256: String,
    /// sha256 of `tokenizer.json` alone, where other files add tokens.
    file_sha256: Option<String>,
}

impl Tokenizer {
    /// Reads the tokenizer of a model's files.
    ///
    /// # Errors
    /// A file that is missing or broken, or a kind of tokenizer that is not supported.
    pub fn open(files: &ModelFiles) -> Result<Self> {
        match &files.layout {
            ModelLayout::HuggingFace {
                config, tokenizer, ..
            } => hf::open(tokenizer, config),
            ModelLayout::Gguf(path) => gguf::build(&Header::read(path)?),
        }
    }

    /// Builds the tokenizer that a GGUF header holds.
    ///
    /// # Errors
    /// A header without a tokenizer, or with one whose kind or splitting rule is not supported.
    pub fn from_gguf(header: &Header) -> Result<Self> {
        gguf::build(header)
    }

    /// Reads a `tokenizer.json` in memory; `name` stands in for its path in errors. `bos` and `eos`
    /// are tokens by name.
    ///
    /// # Errors
    /// Not a `tokenizer.json`, or one without these tokens.
    pub fn from_json(json: &[u8], name: &Path, bos: Option<&str>, eos: &[&str]) -> Result<Self> {
        let mut tokenizer = hf::parse(json, name)?;
        let id = |token: &str| {
            tokenizer.inner.token_to_id(token).ok_or_else(|| {
                Error::file(
                    name,
                    format!("has no token '{token}', which is to be BOS or EOS"),
                )
            })
        };
        let bos = bos.map(id).transpose()?;
        let eos = eos.iter().map(|t| id(t)).collect::<Result<_>>()?;
        (tokenizer.bos, tokenizer.eos) = (bos, eos);
        Ok(tokenizer)
    }

    /// [`Self::encode`] of each text.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_all(&self, texts: &[String], rule: BosRule) -> Result<Vec<Vec<u32>>> {
        texts.iter().map(|text| self.encode(text, rule)).collect()
    }

    /// Ids of `text`, with BOS by `rule` (a BOS that the text already starts with is not doubled).
    /// Special tokens written in the text are recognised, as Hugging Face does.
    ///
    /// # Errors
    /// [`Error::Usage`] for [`BosRule::Always`] where the model has no BOS.
    pub fn encode(&self, text: &str, rule: BosRule) -> Result<Vec<u32>> {
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|e| Error::refused(format!("the tokenizer cannot encode this text: {e}")))?;
        let ids = encoding.get_ids();
        let bos = match (rule, self.bos) {
            (BosRule::Never, _) | (BosRule::Auto, None) => None,
            (BosRule::Always, None) => {
                return Err(Error::usage(
                    "this model has no BOS token: use --bos auto or --bos never",
                ));
            }
            (_, Some(bos)) if ids.first() == Some(&bos) => None,
            (_, bos) => bos,
        };
        Ok(bos.into_iter().chain(ids.iter().copied()).collect())
    }

    /// The text of ids, special tokens by their names; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        if !self.byte_exact {
            return self.inner.decode(ids, false).unwrap_or_default();
        }
        let mut bytes = Vec::new();
        let mut segment_start = true;
        for &id in ids {
            let mut piece = self.bytes(id);
            let added = self.added.binary_search(&id).is_ok();
            if !added {
                if segment_start && self.prefix_space != PrefixSpace::None {
                    piece = piece.strip_prefix(b" ").unwrap_or(piece);
                }
                segment_start = false;
            } else if self.prefix_space == PrefixSpace::EverySegment {
                segment_start = true;
            }
            bytes.extend_from_slice(piece);
        }
        String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }

    /// The exact bytes of one token; none for an id without a piece.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.pieces.bytes(id)
    }

    /// One token for display on its own: its text where its bytes are UTF-8, else `<0xE2>` for each
    /// byte.
    pub fn piece(&self, id: u32) -> String {
        let bytes = self.bytes(id);
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|b| format!("<0x{b:02X}>")).collect(),
        }
    }

    /// Whether an id is a control token (BOS, EOS, the end of a turn) and not text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok()
    }

    /// The BOS id, when the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Ids that end generation.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// How the model is spoken to, where its files say so.
    pub fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_ref()
    }

    /// Number of ids that have a piece.
    pub fn vocab_size(&self) -> usize {
        self.pieces.count()
    }

    /// sha256 of the tokenizer's file alone: versions before [`Tokenizer::ids_sha256`] recorded no
    /// more.
    pub fn file_sha256(&self) -> &str {
        self.file_sha256.as_deref().unwrap_or(&self.sha256)
    }

    /// sha256 of the files that define the tokenizer, or of its metadata in a GGUF.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("pieces", &self.pieces.count())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

/// A finished hash as lower-case hexadecimal digits.
fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Each id once, in the order of its first appearance.
fn deduplicated(ids: Vec<u32>) -> Vec<u32> {
    let mut out = Vec::new();
    for id in ids {
        if !out.contains(&id) {
            out.push(id);
        }
    }
    out
}
