//! A language model as a judge, behind an OpenAI-compatible chat endpoint.
//!
//! Owns asking (several questions at once, with retries), the cache of answers, the prompts, and how
//! answers are parsed. Knows no study. Invariants: the key leaves this process in one header and
//! nowhere else, and replies are stored and shown without it; an answered question is never asked
//! again; an answer that lacks what was asked for, was cut off, or is nothing but a thought is an
//! error record, never a number, and is asked for again.

mod answer_cache;
mod client;
pub mod describe;
mod forward;
mod judge_client;
mod material;
pub mod prompts;
mod proxy;
pub mod readers;
mod reply;
pub mod score;
pub mod sentences;
mod thought;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

pub use answer_cache::AnswerCache;
pub use judge_client::{CostEstimate, JudgeClient, TokenUsage};

/// An API key, which `Debug` does not print.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key in an environment variable, when it is set and can stand in a header.
    pub fn from_env(variable: &str) -> Option<Self> {
        let key = std::env::var(variable).ok()?.trim().to_owned();
        (!key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic())).then_some(Self(key))
    }
}

/// A shorter key is a placeholder ("x", "EMPTY") and no secret; redacting it would only damage the
/// text.
const SECRET: usize = 6;

impl ApiKey {
    /// The text with the key replaced by `…`, as it is and as JSON escapes it.
    pub(super) fn redact(&self, text: &str) -> String {
        if self.0.len() < SECRET {
            return text.to_owned();
        }
        let escaped = serde_json::Value::from(self.0.as_str()).to_string();
        // Some writers escape slashes as well.
        let (json, slashes) = (
            escaped.trim_matches('"').to_owned(),
            self.0.replace('/', "\\/"),
        );
        [self.0.as_str(), &json, &slashes]
            .iter()
            .fold(text.to_owned(), |text, key| text.replace(key, "…"))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// An endpoint, and how it is asked.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The base that `/chat/completions` is appended to: `http://127.0.0.1:8080/v1`.
    pub url: String,
    /// The model to ask for.
    pub model: String,
    /// Sent as a bearer token.
    pub key: Option<ApiKey>,
    /// The most calls that are made at once.
    pub concurrency: usize,
    /// Tries of one call in all.
    pub tries: usize,
    /// Seconds that one try may take.
    pub timeout: f64,
    /// Seconds before the second try; doubled each time.
    pub pause: f64,
    /// Longest answer in tokens; `None`: what each question asks for.
    pub max_tokens: Option<usize>,
    /// `None`: what each question asks for.
    pub temperature: Option<f64>,
}

impl Endpoint {
    /// An endpoint with the default concurrency, retries and timeouts.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is no plain http address. A user, a password or a query is
    /// refused: the address is shown and kept with every judgement, and such parts hold secrets.
    pub fn new(url: &str, model: &str, key: Option<ApiKey>) -> Result<Self> {
        let base = url
            .trim_end_matches('/')
            .trim_end_matches("/chat/completions")
            .trim_end_matches('/');
        check_address(base)?;
        Ok(Self {
            url: base.to_owned(),
            model: model.to_owned(),
            key,
            concurrency: 4,
            tries: 5,
            timeout: 120.0,
            pause: 1.0,
            max_tokens: None,
            temperature: None,
        })
    }

    /// The judge's name in every table, log and message: "MODEL at HOST/PATH". With another
    /// temperature it is another judge, whose ratings are in no table with the first one's.
    pub fn name(&self) -> String {
        let address = self
            .url
            .split_once("://")
            .map_or(&*self.url, |(_, rest)| rest);
        let warm = self
            .temperature
            .map_or(String::new(), |t| format!(", temperature {t}"));
        format!("{} at {address}{warm}", reply::one_line(&self.model))
    }
}

/// Refuses an address that cannot be called, or that holds a secret, which the message does not
/// repeat.
fn check_address(url: &str) -> Result<()> {
    const PLAIN: &str = "give the plain base, such as http://127.0.0.1:8080/v1";
    let secret = |what: &str| {
        Err(Error::usage(format!(
            "--endpoint has {what}, which would be shown and kept: {PLAIN}, and a key in the variable that --key-env names"
        )))
    };
    if url.contains(['?', '#']) {
        return secret("a query or a fragment (? or #)");
    }
    let authority = url
        .split_once("://")
        .map_or(url, |(_, rest)| rest)
        .split('/')
        .next()
        .unwrap_or_default();
    if authority.contains('@') {
        return secret("a user or a password before its host");
    }
    let parsed = url.parse::<ureq::http::Uri>().ok();
    let is_http = |u: &ureq::http::Uri| {
        matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some()
    };
    match parsed.is_some_and(|u| is_http(&u)) {
        true => Ok(()),
        false => Err(Error::usage(format!(
            "--endpoint '{}' is no address: {PLAIN}",
            url.escape_debug()
        ))),
    }
}

/// A question to a judge.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What the judge is told of its task before the question.
    pub system: String,
    /// The question itself, with the texts that it is about.
    pub user: String,
    /// Longest answer in tokens.
    pub max_tokens: usize,
    /// The temperature: 0 for judgements, higher for texts that should differ.
    pub temperature: f64,
    /// What an answer must contain.
    pub expected: Expected,
}

/// What an answer must contain. An answer without it is reported, and never cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Any text will do.
    Text,
    /// A description, as [`readers::read_description`] finds it.
    Description,
    /// At least one sentence.
    Sentences,
    /// This many verdicts, as [`readers::read_verdicts`] finds them.
    Verdicts(usize),
    /// A rating, as [`readers::read_rating`] finds it.
    Rating,
}

impl Expected {
    /// Whether a text contains it.
    pub fn is_in(self, text: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Description => readers::read_description(text).is_some(),
            Self::Sentences => !readers::read_sentences(text).is_empty(),
            Self::Verdicts(count) => readers::read_verdicts(text, count).is_some(),
            Self::Rating => readers::read_rating(text).is_some(),
        }
    }
}

/// The version of cached answers. Those of version 1, which could hold thoughts that were cut off,
/// are not read any more.
const ANSWERS_OF: u32 = 2;

impl Question {
    /// The body of the request.
    fn body(&self, endpoint: &Endpoint) -> serde_json::Value {
        serde_json::json!({"model": endpoint.model, "max_tokens": self.longest_answer(endpoint),
            "temperature": endpoint.temperature.unwrap_or(self.temperature),
            "messages": [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]})
    }

    /// The longest answer to ask for, in tokens.
    fn longest_answer(&self, endpoint: &Endpoint) -> usize {
        endpoint.max_tokens.unwrap_or(self.max_tokens)
    }

    /// The hash that identifies this question to this model at this endpoint.
    fn hash(&self, endpoint: &Endpoint) -> String {
        let whole = format!("{ANSWERS_OF}\n{}\n{}", endpoint.url, self.body(endpoint));
        Sha256::digest(whole.as_bytes())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    /// Tokens of the question, at about four bytes each.
    fn rough_tokens(&self) -> usize {
        (self.system.len() + self.user.len()).div_ceil(4) + 8
    }
}

/// An answer of a judge, as it is cached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The text, without thoughts.
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
