//! What a chat model is told, as its own template writes it: turns of a conversation to one text.
//!
//! Owns where a template is found and how it is rendered, which is as Hugging Face's
//! `apply_chat_template` does. Knows no ids. Invariant: a conversation gives the same text on every
//! day, so a template that asks for the date gets one fixed date.

mod jinja;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::gguf::Header;
use crate::disk;
use crate::error::{Error, Result};

/// Beside a tokenizer the file that holds a template alone; it takes precedence.
const FILE: &str = "chat_template.jinja";
/// Of several named templates the one that is used.
const DEFAULT: &str = "default";

/// What stands for an answer while a conversation is written.
const MARK: &str = "The-Answer-Begins-Here-3f9c";

/// A turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// "system", "user" or "assistant".
    pub role: &'static str,
    /// What is said in it.
    pub content: String,
}

impl Turn {
    /// What a person says.
    pub fn user(content: &str) -> Self {
        Self::new("user", content)
    }

    /// What the model answers.
    pub fn assistant(content: &str) -> Self {
        Self::new("assistant", content)
    }

    fn new(role: &'static str, content: &str) -> Self {
        let content = content.to_owned();
        Self { role, content }
    }
}

/// What a template finds, as transformers calls it: without tools and documents, but defined.
#[derive(Serialize)]
struct Context<'a> {
    messages: &'a [Turn],
    add_generation_prompt: bool,
    tools: Option<()>,
    documents: Option<()>,
    #[serde(flatten)]
    tokens: &'a Map<String, Value>,
}

/// The template of a chat model.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatTemplate {
    /// Its text, or why it cannot be read, which is said where it is used.
    source: Result<String, String>,
    /// Special tokens by the names under which a template finds them: `bos_token`.
    tokens: Map<String, Value>,
    path: PathBuf,
}

impl ChatTemplate {
    /// The template beside a `tokenizer.json`, where there is one: a file of its own, or else in
    /// `config` (`tokenizer_config.json`). `tokens`: special tokens by role.
    pub(super) fn beside(
        tokenizer: &Path,
        config: &Value,
        tokens: Map<String, Value>,
    ) -> Option<Self> {
        let path = tokenizer.with_file_name(FILE);
        let (source, path) = match disk::read_regular(&path) {
            Ok(bytes) => (String::from_utf8(bytes).map_err(|e| e.to_string()), path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let path = tokenizer.with_file_name("tokenizer_config.json");
                (Ok(of_config(config)?), path)
            }
            Err(e) => (Err(e.to_string()), path),
        };
        Some(Self {
            source,
            tokens,
            path,
        })
    }

    /// The template that a GGUF holds, where it holds one; `token` gives the text of an id.
    pub(super) fn of_gguf(header: &Header, token: impl Fn(u64) -> Option<String>) -> Option<Self> {
        let source = header.string("tokenizer.chat_template")?.to_owned();
        let keys = [
            ("bos_token", "bos"),
            ("eos_token", "eos"),
            ("unk_token", "unknown"),
            ("pad_token", "padding"),
        ];
        let named = keys.into_iter().filter_map(|(name, key)| {
            let id = header.uint(&format!("tokenizer.ggml.{key}_token_id"))?;
            Some((name.to_owned(), Value::from(token(id)?)))
        });
        Some(Self {
            source: Ok(source),
            tokens: named.collect(),
            path: header.path().to_path_buf(),
        })
    }

    /// A template by its text, as files would hold it.
    #[cfg(test)]
    fn new(source: &str, tokens: Map<String, Value>) -> Self {
        Self {
            source: Ok(source.to_owned()),
            tokens,
            path: PathBuf::from("chat_template.jinja"),
        }
    }

    /// The text of a conversation; with `asks_for_answer` up to where the model begins to answer.
    ///
    /// # Errors
    /// [`Error::File`] for a template that cannot be rendered, or that refuses the conversation.
    pub fn render(&self, turns: &[Turn], asks_for_answer: bool) -> Result<String> {
        let context = Context {
            messages: turns,
            add_generation_prompt: asks_for_answer,
            tools: None,
            documents: None,
            tokens: &self.tokens,
        };
        let source = self.source.as_ref().map_err(Clone::clone);
        let rendered = source.and_then(|source| jinja::render(source, &context));
        rendered.map_err(|problem| {
            Error::file(
                &self.path,
                format!("its chat template cannot be rendered: {problem}"),
            )
        })
    }

    /// The text of a conversation whose answer begins with `beginning`, up to its end.
    ///
    /// # Errors
    /// As [`Self::render`]; a template that leaves the beginning out.
    pub fn render_answer(&self, turns: &[Turn], beginning: &str) -> Result<String> {
        // A mark stands for the answer: what it says may also stand in another turn.
        let bare = beginning.trim();
        let after = &beginning[beginning.trim_end().len()..];
        let mut turns = turns.to_vec();
        turns.push(Turn::assistant(&beginning.replacen(bare, MARK, 1)));
        let text = self.render(&turns, false)?;
        let Some((before, rest)) = text.rsplit_once(MARK).filter(|_| !bare.is_empty()) else {
            let problem = "its chat template leaves out the answer that is to be continued";
            return Err(Error::file(&self.path, problem));
        };
        let after = if rest.starts_with(after) { after } else { "" };
        Ok(format!("{before}{bare}{after}"))
    }
}

/// The template of a `tokenizer_config.json`: one, or of several by name the default one.
fn of_config(config: &Value) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => named
            .iter()
            .find(|t| t["name"] == DEFAULT)
            .and_then(|t| t["template"].as_str())
            .map(str::to_owned),
        _ => None,
    }
}
