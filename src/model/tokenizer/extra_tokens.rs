//! Tokens that the files beside a `tokenizer.json` name: `tokenizer_config.json`,
//! `special_tokens_map.json`, `added_tokens.json`.
//!
//! `transformers` adds them to the tokenizer when it opens it, each matched as a whole in a text.
//! This file does the same in the same order, because a new token takes the next free id, whatever
//! id a file gives it. Knows nothing of BOS rules.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use crate::error::{Error, Result};
use crate::lfs;
use crate::model::ordered::Pairs;

/// The special tokens that every tokenizer class has, in its order.
const ROLES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// A list of tokens, or tokens by names.
#[derive(Deserialize)]
#[serde(untagged)]
enum Extra {
    List(Vec<Value>),
    Named(Pairs<Value>),
}

#[derive(Default, Deserialize)]
struct Extras {
    extra_special_tokens: Option<Extra>,
    additional_special_tokens: Option<Extra>,
}

/// `tokenizer_config.json` or `special_tokens_map.json`, empty where there is none.
struct File {
    pairs: Pairs<Value>,
    extras: Extras,
}

impl File {
    fn read(path: &Path) -> Result<Self> {
        Ok(Self {
            pairs: read_optional(path)?.unwrap_or_default(),
            extras: read_optional(path)?.unwrap_or_default(),
        })
    }

    /// Tokens of roles that the file defines itself: keys outside [`ROLES`] that end in `_token`.
    fn custom_roles(&self) -> Vec<(String, NamedToken)> {
        let own = |role: &str| role.ends_with("_token") && !ROLES.contains(&role);
        let pairs = self.pairs.0.iter().filter(|(role, _)| own(role));
        pairs
            .filter_map(|(role, value)| Some((role.clone(), NamedToken::of(value, true)?)))
            .collect()
    }
}

/// The lists of special tokens. The key `extra_special_tokens` replaces the older
/// `additional_special_tokens`, and files may have either.
#[derive(Default)]
struct SpecialTokenLists {
    /// Tokens of `extra_special_tokens`, where that key exists.
    extra: Option<Vec<NamedToken>>,
    /// Tokens of `additional_special_tokens`, used where `extra` is `None`.
    additional: Option<Vec<NamedToken>>,
    /// Tokens that stand under a name, which is their role.
    named: Vec<(String, NamedToken)>,
}

impl SpecialTokenLists {
    fn of_config(config: &File) -> Self {
        let mut out = Self::default();
        let (extra, additional) = (
            &config.extras.extra_special_tokens,
            &config.extras.additional_special_tokens,
        );
        match extra {
            Some(Extra::Named(pairs)) if !pairs.0.is_empty() => {
                out.add_named(pairs);
                out.additional = additional.as_ref().map(|extra| extra.tokens(false));
            }
            Some(Extra::List(list)) if !list.is_empty() => {
                out.extra = extra.as_ref().map(|extra| extra.tokens(false))
            }
            _ => match additional {
                Some(Extra::Named(pairs)) => out.add_named(pairs),
                Some(list) => out.extra = Some(list.tokens(false)),
                None if matches!(extra, Some(Extra::List(_))) => out.extra = Some(Vec::new()),
                None => {}
            },
        }
        out
    }

    /// Adds what `special_tokens_map.json` lists.
    fn add(&mut self, map: &File) {
        match &map.extras.extra_special_tokens {
            Some(Extra::Named(pairs)) => {
                self.add_named(pairs);
                self.extra = None;
            }
            Some(list) => self.extra.get_or_insert_default().extend(list.tokens(true)),
            None => {}
        }
        if let Some(list) = &map.extras.additional_special_tokens {
            self.additional = Some(list.tokens(true));
        }
    }

    fn add_named(&mut self, pairs: &Pairs<Value>) {
        let named = pairs
            .0
            .iter()
            .filter_map(|(role, value)| Some((role.clone(), NamedToken::of(value, true)?)));
        self.named.extend(named);
    }
}

impl Extra {
    /// The tokens of a list; `special` is the flag of an object that does not have one.
    fn tokens(&self, special: bool) -> Vec<NamedToken> {
        match self {
            Self::List(list) => list
                .iter()
                .filter_map(|value| NamedToken::of(value, special))
                .collect(),
            Self::Named(_) => Vec::new(),
        }
    }
}

/// A token as a file has it: a text, or an object with flags.
#[derive(Clone, PartialEq)]
struct NamedToken {
    token: AddedToken,
    /// Whether the file has a text, without flags.
    is_text: bool,
}

/// The tokens of all files, merged as `transformers` merges them.
#[derive(Default)]
pub(super) struct ExtraTokens {
    /// Roles that a file names, those of [`ROLES`] first; `None` where it says that there is no such
    /// token.
    roles: Vec<(String, Option<NamedToken>)>,
    /// Special tokens without a role.
    extra: Vec<NamedToken>,
    /// Tokens by the id that a file gives them.
    by_id: BTreeMap<u64, AddedToken>,
    /// `by_id` comes from `added_tokens.json`: where `tokenizer.json` has a token of the same id, that
    /// one counts.
    legacy: bool,
    /// Special tokens in a text are taken as text.
    split_special: bool,
}

impl ExtraTokens {
    /// Reads the files in the directory of `tokenizer`.
    pub(super) fn read(tokenizer: &Path) -> Result<Self> {
        let mut out = Self::default();
        let path = tokenizer.with_file_name("tokenizer_config.json");
        let config = File::read(&path)?;
        out.split_special = config.pairs.get("split_special_tokens") == Some(&Value::Bool(true));
        for role in ROLES {
            if let Some(value) = config.pairs.get(role) {
                out.set(role, NamedToken::of(value, true));
            }
        }
        let mut lists = SpecialTokenLists::of_config(&config);
        // Of custom roles those that are objects come first, so that those that are text override
        // them.
        let (mut first, mut last): (Vec<_>, Vec<_>) = config
            .custom_roles()
            .into_iter()
            .partition(|(_, token): &(String, NamedToken)| !token.is_text);
        match config.pairs.get("added_tokens_decoder") {
            Some(listed) => out.read_decoder(listed, &path)?,
            None => {
                out.legacy = true;
                let map = File::read(&tokenizer.with_file_name("special_tokens_map.json"))?;
                lists.add(&map);
                first.extend(map.custom_roles());
                let known_role = |(role, value): &&(String, Value)| {
                    ROLES.contains(&role.as_str()) && !value.is_null()
                };
                map.pairs
                    .0
                    .iter()
                    .filter(known_role)
                    .for_each(|(role, value)| out.set(role, NamedToken::of(value, true)));
            }
        }
        last.extend(lists.named);
        out.roles
            .sort_by_key(|(role, _)| ROLES.iter().position(|own| own == role));
        first
            .into_iter()
            .chain(last)
            .for_each(|(role, token)| out.set(&role, Some(token)));
        out.extra = lists.extra.or(lists.additional).unwrap_or_default();
        if out.legacy {
            out.read_added_tokens(&tokenizer.with_file_name("added_tokens.json"))?;
        }
        out.apply_flags();
        Ok(out)
    }

    fn read_decoder(&mut self, listed: &Value, path: &Path) -> Result<()> {
        for (id, token) in listed.as_object().into_iter().flatten() {
            let id = id
                .parse()
                .map_err(|_| Error::file(path, format!("added_tokens_decoder: '{id}' is no id")))?;
            self.by_id
                .extend(NamedToken::of(token, false).map(|named| (id, named.token)));
        }
        Ok(())
    }

    /// Reads `added_tokens.json`, which files from before `added_tokens_decoder` have.
    fn read_added_tokens(&mut self, path: &Path) -> Result<()> {
        for (content, id) in read_optional::<Pairs<u64>>(path)?.unwrap_or_default().0 {
            let roles = self
                .roles
                .iter()
                .filter(|(role, _)| ROLES.contains(&role.as_str()));
            let special = roles
                .filter_map(|(_, named)| named.as_ref())
                .chain(&self.extra);
            let special = special
                .map(|named| &named.token)
                .any(|token| token.content == content);
            self.by_id.insert(id, AddedToken::from(content, special));
        }
        Ok(())
    }

    /// Gives a role's token the flags of the token with the same text in `by_id`.
    fn apply_flags(&mut self) {
        let roles = self
            .roles
            .iter_mut()
            .filter(|(role, _)| ROLES.contains(&role.as_str()));
        for named in roles.filter_map(|(_, named)| named.as_mut()) {
            if let Some(token) = self
                .by_id
                .values()
                .find(|token| token.content == named.token.content)
            {
                *named = NamedToken {
                    token: token.clone(),
                    is_text: false,
                };
            }
        }
    }

    fn set(&mut self, role: &str, token: Option<NamedToken>) {
        match self.roles.iter_mut().find(|(own, _)| own == role) {
            Some((_, own)) => *own = token,
            None => self.roles.push((role.to_owned(), token)),
        }
    }

    /// The text of a role's token: `None` where no file names the role, `Some(None)` where one says
    /// that there is no such token.
    pub(super) fn role(&self, role: &str) -> Option<Option<&str>> {
        let found = self.roles.iter().find(|(own, _)| own == role);
        found.map(|(_, named)| named.as_ref().map(|named| named.token.content.as_str()))
    }

    /// The tokens that have a role, by it.
    pub(super) fn roles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.roles.iter().filter_map(|(role, named)| {
            Some((role.as_str(), named.as_ref()?.token.content.as_str()))
        })
    }

    /// Adds the tokens to `inner`. Returns all of its added tokens as JSON, for a hash; `None` where
    /// it had them all before.
    ///
    /// # Errors
    /// What the library refuses.
    pub(super) fn add_to(
        &self,
        inner: &mut tokenizers::Tokenizer,
    ) -> tokenizers::Result<Option<String>> {
        let before = added_tokens(inner);
        let known = |id: &u64| before.iter().any(|(own, _)| u64::from(*own) == *id);
        let roles = || self.roles.iter().filter_map(|(_, named)| named.as_ref());
        let listed: Vec<AddedToken> = (self.by_id.iter())
            .filter(|(id, _)| !(self.legacy && known(id)))
            .map(|(_, token)| AddedToken {
                special: token.special || roles().any(|own| own.token.content == token.content),
                ..token.clone()
            })
            .collect();
        let mut tokens: Vec<NamedToken> = Vec::new();
        for named in roles()
            .map(NamedToken::as_special)
            .chain(self.extra.clone())
        {
            let exists = before
                .iter()
                .map(|(_, own)| own)
                .chain(&listed)
                .any(|own| own.content == named.token.content);
            // A token with other flags is added again, and its new flags count.
            if !exists && !tokens.contains(&named) {
                tokens.push(named);
            }
        }
        inner.add_tokens(
            listed
                .into_iter()
                .chain(tokens.into_iter().map(|named| named.token)),
        )?;
        if self.split_special {
            inner.set_encode_special_tokens(true);
        }
        let after = added_tokens(inner);
        let changed = after != before || self.split_special;
        Ok(if changed {
            Some(serde_json::to_string(&(after, self.split_special))?)
        } else {
            None
        })
    }
}

impl NamedToken {
    /// A token from a text, which is special, or from an object with its flags; `special` is the flag
    /// of an object that does not have one.
    fn of(value: &Value, special: bool) -> Option<Self> {
        if let Some(text) = value.as_str() {
            return (!text.is_empty()).then(|| Self {
                token: AddedToken::from(text, true),
                is_text: true,
            });
        }
        let flag =
            |key: &str, default: bool| value.get(key).and_then(Value::as_bool).unwrap_or(default);
        let special = flag("special", special);
        let token = AddedToken {
            content: value.get("content")?.as_str()?.to_owned(),
            single_word: flag("single_word", false),
            lstrip: flag("lstrip", false),
            rstrip: flag("rstrip", false),
            normalized: flag("normalized", !special),
            special,
        };
        Some(Self {
            token,
            is_text: false,
        })
    }

    fn as_special(&self) -> Self {
        Self {
            token: AddedToken {
                special: true,
                ..self.token.clone()
            },
            is_text: self.is_text,
        }
    }
}

/// The tokens that are matched as a whole in a text, by id.
fn added_tokens(inner: &tokenizers::Tokenizer) -> Vec<(u32, AddedToken)> {
    let mut out: Vec<(u32, AddedToken)> = inner.get_added_tokens_decoder().into_iter().collect();
    out.sort_unstable_by_key(|(id, _)| *id);
    out
}

/// The content of a JSON file; `None` where the file does not exist.
fn read_optional<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            lfs::refuse_pointer(&bytes, path)?;
            let parsed = serde_json::from_slice(&bytes);
            parsed
                .map(Some)
                .map_err(|e| Error::file(path, format!("is not what such a file holds: {e}")))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}
