//! A language model as a judge, behind an OpenAI-compatible chat endpoint.
//!
//! Owns asking (several at once, with patience), what was answered before, our prompts, and how answers are read. Knows no
//! study. Invariants: the key leaves this process in one header and nowhere else; what was answered once is never asked
//! again; an answer without what was asked for is an error record, never a number.

mod answers;
mod ask;
mod client;
pub mod describe;
pub mod prompts;
pub mod score;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use answers::Answers;
pub use ask::{Estimate, Judge, Tally};

/// A key that does not show itself.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// The key in an environment variable, when it is set and can stand in a header.
    pub fn from_env(variable: &str) -> Option<Self> {
        let key = std::env::var(variable).ok()?.trim().to_owned();
        (!key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic())).then_some(Self(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Where a judge answers.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The base that `/chat/completions` is appended to: `http://127.0.0.1:8080/v1`.
    pub url: String,
    /// The model to ask for.
    pub model: String,
    /// Sent as a bearer token.
    pub key: Option<Key>,
    /// Calls under way at once.
    pub concurrency: usize,
    /// Tries of one call in all.
    pub tries: usize,
    /// Seconds that one try may take.
    pub timeout: f64,
    /// Seconds before the second try; doubled each time.
    pub pause: f64,
}

impl Endpoint {
    /// An endpoint with the usual patience.
    pub fn new(url: &str, model: &str, key: Option<Key>) -> Self {
        let url = url.trim_end_matches('/').trim_end_matches("/chat/completions").to_owned();
        Self { url, model: model.to_owned(), key, concurrency: 4, tries: 5, timeout: 120.0, pause: 1.0 }
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Who the judge is.
    pub system: String,
    /// What it is asked.
    pub user: String,
    /// Longest answer in tokens.
    pub max_tokens: usize,
    /// 0 for judgements; higher for texts that shall differ.
    pub temperature: f64,
}

impl Question {
    /// The body of the request.
    fn body(&self, model: &str) -> serde_json::Value {
        serde_json::json!({"model": model, "max_tokens": self.max_tokens, "temperature": self.temperature,
            "messages": [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]})
    }

    /// What tells this question to this model at this endpoint from all others.
    fn hash(&self, endpoint: &Endpoint) -> String {
        let whole = format!("{}\n{}", endpoint.url, self.body(&endpoint.model));
        Sha256::digest(whole.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Tokens of the question, at about four bytes each.
    fn rough_tokens(&self) -> usize {
        (self.system.len() + self.user.len()).div_ceil(4) + 8
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Tokens of the question, as the endpoint counts them.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    #[serde(default)]
    pub completion_tokens: u64,
}

#[cfg(test)]
mod tests;
