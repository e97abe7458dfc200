//! A `tokenizer.json` with the files beside it: those that add tokens, and `generation_config.json`
//! and `config.json` with the ids that begin and end a text.
//!
//! The ids are the library's; this file adds the exact bytes of each piece, and which ids begin and
//! end a text.

use std::path::Path;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::extra_tokens::ExtraTokens;
use super::pieces::{ByteEncoding, Pieces, piece_bytes};
use super::{PrefixSpace, Tokenizer, deduplicated, hex};
use crate::error::{Error, Result};
use crate::lfs;
use crate::model::chat::ChatTemplate;
use crate::panics::catch_panic;

/// The largest id that is accepted: the table of pieces grows to the largest id, and no vocabulary
/// is larger.
const MAX_ID: u32 = 1 << 24;

/// Reads `tokenizer.json` and its neighbours.
pub(super) fn open(tokenizer: &Path, config: &Path) -> Result<Tokenizer> {
    if !tokenizer.exists() {
        let problem = "has no tokenizer.json: save one beside the weights (AutoTokenizer.from_pretrained(…, \
                       use_fast=True).save_pretrained(…)), or run token ids alone (mlpeek forward --ids)";
        return Err(Error::file(
            tokenizer.parent().unwrap_or(tokenizer),
            problem,
        ));
    }
    let json = std::fs::read(tokenizer).map_err(Error::io("read", tokenizer))?;
    lfs::refuse_pointer(&json, tokenizer)?;
    let mut inner = parse_library(&json, tokenizer)?;
    let extra = ExtraTokens::read(tokenizer)?;
    let added = extra
        .add_to(&mut inner)
        .map_err(|e| Error::file(tokenizer, format!("cannot take more tokens: {e}")))?;
    let file = Sha256::new_with_prefix(&json);
    let all = added
        .as_ref()
        .map_or_else(|| file.clone(), |added| file.clone().chain_update(added));
    let mut out = with_pieces(inner, hex(all), tokenizer)?;
    out.file_sha256 = added.is_some().then(|| hex(file));
    let generation = optional_json(&tokenizer.with_file_name("generation_config.json"))?;
    let config = optional_json(config)?;

    out.bos = match extra.role("bos_token") {
        // The tokenizer's own files take precedence: Qwen's say that there is no BOS, while its
        // config.json names one.
        Some(None) => None,
        Some(Some(token)) => named(&out, token, tokenizer, "bos_token")?,
        None => {
            let ids = [&generation, &config]
                .into_iter()
                .flat_map(|c| ids_at(c, "bos_token_id"));
            ids.into_iter().find(|&id| !out.bytes(id).is_empty())
        }
    };
    let mut eos = Vec::new();
    if let Some(Some(token)) = extra.role("eos_token") {
        eos.extend(named(&out, token, tokenizer, "eos_token")?);
    }
    eos.extend(
        [&generation, &config]
            .into_iter()
            .flat_map(|c| ids_at(c, "eos_token_id")),
    );
    out.eos = deduplicated(eos);
    let tokens = extra
        .roles()
        .map(|(role, token)| (role.to_owned(), token.into()));
    let described = optional_json(&tokenizer.with_file_name("tokenizer_config.json"))?;
    out.chat = ChatTemplate::beside(tokenizer, &described, tokens.collect());
    Ok(out)
}

/// Reads a `tokenizer.json` alone, without BOS and EOS.
pub(super) fn parse(json: &[u8], path: &Path) -> Result<Tokenizer> {
    with_pieces(
        parse_library(json, path)?,
        hex(Sha256::new_with_prefix(json)),
        path,
    )
}

/// A `tokenizer.json` as the `tokenizers` library reads it, without truncation and padding.
pub(in crate::model) fn parse_library(json: &[u8], path: &Path) -> Result<tokenizers::Tokenizer> {
    let bad = |problem: String| {
        Error::file(
            path,
            format!("is not a tokenizer that can be read: {problem}"),
        )
    };
    // The library indexes past a buffer when a merge makes a longer token than the vocabulary has.
    let parsed = catch_panic(|| tokenizers::Tokenizer::from_bytes(json));
    let mut inner = match parsed {
        Ok(Ok(inner)) => inner,
        Ok(Err(e)) => return Err(bad(e.to_string())),
        Err(_) => {
            return Err(bad(
                "its vocabulary and merges do not fit together".to_owned()
            ));
        }
    };
    // Some files carry the padding and truncation of the training run, on which the ids of a text
    // must not depend.
    inner.with_padding(None);
    inner
        .with_truncation(None)
        .map_err(|e| bad(e.to_string()))?;
    Ok(inner)
}

/// Adds the exact bytes of each piece.
fn with_pieces(inner: tokenizers::Tokenizer, sha256: String, path: &Path) -> Result<Tokenizer> {
    let (encoding, prefix_space) = decoding_of(&inner);
    let added_tokens = inner.get_added_tokens_decoder();
    let mut vocabulary: Vec<(u32, String)> = inner
        .get_vocab(true)
        .into_iter()
        .map(|(t, id)| (id, t))
        .collect();
    vocabulary.sort_unstable();
    let mut pieces = Pieces::default();
    let mut next = 0;
    for (id, token) in &vocabulary {
        if *id > MAX_ID {
            let problem = format!(
                "is not a tokenizer that can be read: token '{}' has the id {id}",
                token.escape_debug()
            );
            return Err(Error::file(path, problem));
        }
        if *id < next {
            continue; // Of two tokens with one id the first counts.
        }
        (next..*id).for_each(|_| pieces.skip());
        let literal = added_tokens.contains_key(id);
        pieces.push(&piece_bytes(
            token,
            if literal {
                ByteEncoding::Literal
            } else {
                encoding
            },
        ));
        next = *id + 1;
    }
    let mut added: Vec<u32> = added_tokens.keys().copied().collect();
    let mut special: Vec<u32> = added_tokens
        .iter()
        .filter(|(_, t)| t.special)
        .map(|(id, _)| *id)
        .collect();
    added.sort_unstable();
    special.sort_unstable();
    let byte_exact = encoding != ByteEncoding::Literal;
    Ok(Tokenizer {
        inner,
        pieces,
        prefix_space,
        byte_exact,
        added,
        special,
        bos: None,
        eos: Vec::new(),
        chat: None,
        sha256,
        file_sha256: None,
    })
}

/// How pieces encode bytes, and where the tokenizer adds a space. Both are read off the decoder,
/// which must undo them.
fn decoding_of(inner: &tokenizers::Tokenizer) -> (ByteEncoding, PrefixSpace) {
    let decoder = serde_json::to_value(inner.get_decoder()).unwrap_or_default();
    let mut steps = Vec::new();
    flatten(&decoder, &mut steps);
    let kind = |step: &&Value, name: &str| step.get("type").and_then(Value::as_str) == Some(name);
    if steps.iter().any(|s| kind(s, "ByteLevel")) {
        return (ByteEncoding::ByteLevel, PrefixSpace::None);
    }
    let metaspace = steps.iter().find(|s| kind(s, "Metaspace"));
    let bytes = steps.iter().any(|s| kind(s, "ByteFallback"));
    let replaces = steps
        .iter()
        .any(|s| kind(s, "Replace") && s.to_string().contains('▁'));
    if metaspace.is_none() && !bytes && !replaces {
        return (ByteEncoding::Literal, PrefixSpace::None);
    }
    let strips = steps
        .iter()
        .any(|s| kind(s, "Strip") && s.get("start") != Some(&Value::from(0)));
    let scheme = metaspace
        .and_then(|s| s.get("prepend_scheme"))
        .and_then(Value::as_str)
        .unwrap_or("always");
    let prefix_space = match metaspace {
        Some(_) if scheme == "never" => PrefixSpace::None,
        Some(_) if scheme == "first" => PrefixSpace::First,
        Some(_) => PrefixSpace::EverySegment,
        None if !strips => PrefixSpace::None,
        None if prepends_first_only(inner) => PrefixSpace::First,
        None => PrefixSpace::EverySegment,
    };
    (ByteEncoding::SentencePiece, prefix_space)
}

/// Newer Llama files decode by `Replace` but add their space in a `Metaspace` pre-tokenizer, before
/// the text only.
fn prepends_first_only(inner: &tokenizers::Tokenizer) -> bool {
    let pre_tokenizer = serde_json::to_value(inner.get_pre_tokenizer()).unwrap_or_default();
    let mut steps = Vec::new();
    flatten(&pre_tokenizer, &mut steps);
    steps
        .iter()
        .any(|s| s.get("prepend_scheme").and_then(Value::as_str) == Some("first"))
}

/// The steps of a decoder or pre-tokenizer, sequences unrolled.
fn flatten<'a>(step: &'a Value, out: &mut Vec<&'a Value>) {
    let inner = ["decoders", "pretokenizers"]
        .iter()
        .find_map(|key| step.get(key)?.as_array());
    match inner {
        Some(steps) => steps.iter().for_each(|s| flatten(s, out)),
        None => out.push(step),
    }
}

/// The value of a JSON file; `null` where the file does not exist.
fn optional_json(path: &Path) -> Result<Value> {
    match std::fs::read(path) {
        Ok(bytes) => {
            lfs::refuse_pointer(&bytes, path)?;
            serde_json::from_slice(&bytes)
                .map_err(|e| Error::file(path, format!("is not JSON: {e}")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}

/// The id of the token that a file names as `role`.
fn named(tokenizer: &Tokenizer, token: &str, path: &Path, role: &str) -> Result<Option<u32>> {
    match tokenizer.inner.token_to_id(token) {
        Some(id) => Ok(Some(id)),
        None => {
            let problem = format!(
                "has no token '{token}', which a file beside it names as {role}: they do not match"
            );
            Err(Error::file(path, problem))
        }
    }
}

/// The ids that a key of a configuration holds: one, or a list of them.
fn ids_at(config: &Value, key: &str) -> Vec<u32> {
    let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match config.get(key) {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}
