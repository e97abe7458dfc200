//! Tokens that the files beside a `tokenizer.json` name: `tokenizer_config.json`, `special_tokens_map.json`,
//! `added_tokens.json`.
//!
//! `transformers` adds them to the tokenizer when it opens it, each matched whole in a text; this file does the same in the
//! same order, for a new token takes the next free id, whatever id a file gives it. Knows nothing of BOS rules.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use crate::error::{Error, Result};
use crate::lfs;
use crate::model::ordered::Pairs;

/// The special tokens that every tokenizer class has, in its order.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A list of tokens, or tokens by names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Extra {
    List(Vec<Value>),
    Named(Pairs<Value>),
}

impl Extra {
    fn is_empty(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Named(pairs) => pairs.0.is_empty(),
        }
    }
}

#[derive(Default, Deserialize)]
struct Extras {
    extra_special_tokens: Option<Extra>,
    additional_special_tokens: Option<Extra>,
}

/// What the files say, merged.
#[derive(Default)]
pub(super) struct Beside {
    /// Tokens of the roles that a file names, and of the roles that it makes up. `None`: it says that there is none.
    roles: Vec<(String, Option<AddedToken>)>,
    /// Special tokens without a role.
    extra: Vec<AddedToken>,
    /// Tokens with the id that a file gives them.
    by_id: BTreeMap<u64, AddedToken>,
    /// They come from `added_tokens.json`, beside which `tokenizer.json` has the last word on an id.
    older: bool,
    /// Special tokens in a text are taken as text.
    split_special: bool,
}

impl Beside {
    /// Reads the files in the directory of `tokenizer`.
    pub(super) fn read(tokenizer: &Path) -> Result<Self> {
        let mut out = Self::default();
        let path = tokenizer.with_file_name("tokenizer_config.json");
        let config: Pairs<Value> = parsed(&path)?.unwrap_or_default();
        let extras: Extras = parsed(&path)?.unwrap_or_default();
        out.split_special = config.get("split_special_tokens") == Some(&Value::Bool(true));
        for role in ROLES {
            if let Some(value) = config.get(role) {
                out.set(role, value);
            }
        }
        let own_role = |key: &str| key.ends_with("_token") && !ROLES.contains(&key);
        for (key, value) in config.0.iter().filter(|(key, _)| own_role(key)) {
            out.set(key, value);
        }
        let extra = extras.extra_special_tokens.filter(|e| !e.is_empty());
        let has_extra = extra.is_some();
        out.take(extra.or(extras.additional_special_tokens), false);
        if let Some(listed) = config.get("added_tokens_decoder") {
            for (id, token) in listed.as_object().into_iter().flatten() {
                let id =
                    id.parse().map_err(|_| Error::file(&path, format!("added_tokens_decoder: '{id}' is no id")))?;
                out.by_id.extend(token_of(token, false).map(|token| (id, token)));
            }
            // Their flags are the ones that count.
            for token in out.by_id.values() {
                let same = |own: &&mut AddedToken| own.content == token.content;
                out.roles
                    .iter_mut()
                    .filter_map(|(_, own)| own.as_mut())
                    .filter(same)
                    .for_each(|own| *own = token.clone());
            }
        } else {
            out.read_older(tokenizer, has_extra)?;
        }
        // New ids are handed out in this order; roles that a file makes up come last.
        out.roles.sort_by_key(|(role, _)| ROLES.iter().position(|own| own == role).unwrap_or(ROLES.len()));
        Ok(out)
    }

    /// The files of before `added_tokens_decoder`.
    fn read_older(&mut self, tokenizer: &Path, has_extra: bool) -> Result<()> {
        let path = tokenizer.with_file_name("special_tokens_map.json");
        let map: Pairs<Value> = parsed(&path)?.unwrap_or_default();
        let extras: Extras = parsed(&path)?.unwrap_or_default();
        for (key, value) in map.0.iter().filter(|(key, value)| key.ends_with("_token") && !value.is_null()) {
            self.set(key, value);
        }
        self.take(extras.extra_special_tokens, true);
        if !has_extra {
            self.take(extras.additional_special_tokens, true);
        }
        self.older = true;
        let path = tokenizer.with_file_name("added_tokens.json");
        for (content, id) in parsed::<Pairs<u64>>(&path)?.unwrap_or_default().0 {
            let special = self.special().any(|token| token.content == content);
            self.by_id.insert(id, AddedToken::from(content, special));
        }
        Ok(())
    }

    fn special(&self) -> impl Iterator<Item = &AddedToken> {
        self.roles.iter().filter_map(|(_, token)| token.as_ref()).chain(&self.extra)
    }

    fn set(&mut self, role: &str, value: &Value) {
        let token = token_of(value, true);
        match self.roles.iter_mut().find(|(own, _)| own == role) {
            Some((_, own)) => *own = token,
            None => self.roles.push((role.to_owned(), token)),
        }
    }

    /// `special`: what a token is that is an object and does not say.
    fn take(&mut self, extra: Option<Extra>, special: bool) {
        match extra {
            None => {}
            Some(Extra::List(list)) => {
                for token in list.iter().filter_map(|value| token_of(value, special || value.is_string())) {
                    if !self.extra.iter().any(|own| own.content == token.content) {
                        self.extra.push(token);
                    }
                }
            }
            Some(Extra::Named(pairs)) => pairs.0.iter().for_each(|(name, value)| self.set(name, value)),
        }
    }

    /// The text of a role's token: `None` where no file speaks of it, `Some(None)` where one says that there is none.
    pub(super) fn role(&self, role: &str) -> Option<Option<&str>> {
        let found = self.roles.iter().find(|(own, _)| own == role);
        found.map(|(_, token)| token.as_ref().map(|token| token.content.as_str()))
    }

    /// Adds the tokens. Returns those that are new or matched in another way, as text that tells one set from another;
    /// none where the tokenizer had them all.
    pub(super) fn add_to(&self, inner: &mut tokenizers::Tokenizer) -> tokenizers::Result<Option<String>> {
        let before = sorted(inner);
        let known = |id: &u64| before.iter().any(|(own, _)| u64::from(*own) == *id);
        let roles = || self.roles.iter().filter_map(|(_, token)| token.as_ref());
        let mut tokens: Vec<AddedToken> = Vec::new();
        for (_, token) in self.by_id.iter().filter(|(id, _)| !(self.older && known(id))) {
            let special = token.special || roles().any(|own| own.content == token.content);
            tokens.push(AddedToken { special, ..token.clone() });
        }
        for token in roles().map(|token| AddedToken { special: true, ..token.clone() }).chain(self.extra.clone()) {
            let there = before.iter().map(|(_, own)| own).chain(&tokens).any(|own| own.content == token.content);
            if !there {
                tokens.push(token);
            }
        }
        inner.add_tokens(tokens)?;
        if self.split_special {
            inner.set_encode_special_tokens(true);
        }
        let after = sorted(inner);
        let changed = after != before || self.split_special;
        Ok(if changed { Some(serde_json::to_string(&(after, self.split_special))?) } else { None })
    }
}

/// The tokens that are matched whole, by id.
fn sorted(inner: &tokenizers::Tokenizer) -> Vec<(u32, AddedToken)> {
    let mut out: Vec<(u32, AddedToken)> = inner.get_added_tokens_decoder().into_iter().collect();
    out.sort_unstable_by_key(|(id, _)| *id);
    out
}

/// A token as text, or as an object with its flags.
fn token_of(value: &Value, special: bool) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return (!text.is_empty()).then(|| AddedToken::from(text, special));
    }
    let flag = |key: &str, default: bool| value.get(key).and_then(Value::as_bool).unwrap_or(default);
    let special = flag("special", special);
    Some(AddedToken {
        content: value.get("content")?.as_str()?.to_owned(),
        single_word: flag("single_word", false),
        lstrip: flag("lstrip", false),
        rstrip: flag("rstrip", false),
        normalized: flag("normalized", !special),
        special,
    })
}

/// A JSON file that need not be there.
fn parsed<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            lfs::refuse_pointer(&bytes, path)?;
            let parsed = serde_json::from_slice(&bytes);
            parsed.map(Some).map_err(|e| Error::file(path, format!("is not what such a file holds: {e}")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}
