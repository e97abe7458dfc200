//! What decides the ids of a text, as one sha256.
//!
//! It is taken of the tokenizer as it was put together, whatever files that came from: a file that
//! is written anew with the same rules gives the same, and a token that is added in any of the
//! files another.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Tokenizer, hex};

impl Tokenizer {
    /// sha256 of everything that decides the ids of a text but for BOS: the vocabulary and its
    /// rules, how text is normalised and split, and the tokens that are matched whole.
    pub fn ids_sha256(&self) -> String {
        let mut hash = Sha256::new();
        let inner = &self.inner;
        // Each of these was read from JSON, so that it can be written as JSON.
        for part in [
            serde_json::to_value(inner.get_normalizer()),
            serde_json::to_value(inner.get_pre_tokenizer()),
            serde_json::to_value(inner.get_model()),
        ] {
            feed(&mut hash, &part.unwrap_or_default());
        }
        let mut added: Vec<_> = inner
            .get_added_tokens_decoder()
            .iter()
            .map(|(id, token)| (*id, token.clone()))
            .collect();
        added.sort_unstable_by_key(|(id, _)| *id);
        for (id, token) in added {
            hash.update(id.to_le_bytes());
            hash.update(
                [
                    token.single_word,
                    token.lstrip,
                    token.rstrip,
                    token.normalized,
                ]
                .map(u8::from),
            );
            text(&mut hash, &token.content);
            // With this switch special tokens are split as any text is.
            if inner.get_encode_special_tokens() {
                hash.update([u8::from(token.special)]);
            }
        }
        hex(hash)
    }
}

fn text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

/// Settings that are off count as absent: a later version of the library that writes another of
/// them changes nothing.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn feed(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().filter(|(_, value)| !is_off(value)).collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            hash.update(b"{");
            for (key, value) in entries {
                text(hash, key);
                feed(hash, value);
            }
            hash.update(b"}");
        }
        Value::Array(list) => {
            hash.update(b"[");
            list.iter().for_each(|value| feed(hash, value));
            hash.update(b"]");
        }
        Value::String(words) => {
            hash.update(b"\"");
            text(hash, words);
        }
        other => text(hash, &other.to_string()),
    }
}
