//! What decides the ids of a text, as one sha256.
//!
//! The hash covers the tokenizer as it was built, whatever files it came from: rewriting a file with
//! the same rules does not change it, and adding a token in any of the files does.

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
            hash_value(&mut hash, &part.unwrap_or_default());
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
            hash_text(&mut hash, &token.content);
            // With this switch special tokens in a text are split like other text.
            if inner.get_encode_special_tokens() {
                hash.update([u8::from(token.special)]);
            }
        }
        hex(hash)
    }
}

/// Hashes a text preceded by its length.
fn hash_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

/// Whether a setting is off. Such settings are left out of the hash, so that one that a later
/// version of the library adds does not change it.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Hashes a JSON value, with the keys of objects sorted.
fn hash_value(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().filter(|(_, value)| !is_off(value)).collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            hash.update(b"{");
            for (key, value) in entries {
                hash_text(hash, key);
                hash_value(hash, value);
            }
            hash.update(b"}");
        }
        Value::Array(list) => {
            hash.update(b"[");
            list.iter().for_each(|value| hash_value(hash, value));
            hash.update(b"]");
        }
        Value::String(words) => {
            hash.update(b"\"");
            hash_text(hash, words);
        }
        other => hash_text(hash, &other.to_string()),
    }
}
