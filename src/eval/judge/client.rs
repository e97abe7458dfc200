//! One call: what is sent, and what may come back.

use std::time::Duration;

use serde::Deserialize;

use super::{Answer, Endpoint, Question};

/// No answer is longer.
const MOST_BYTES: u64 = 4 << 20;
/// No endpoint is waited for longer, whatever it asks for.
const LONGEST_WAIT: f64 = 120.0;

/// Why a try gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    /// Trying again cannot help: a wrong key, model or address.
    Final(String),
    /// It may: after so many seconds, when the endpoint says so.
    Passing(String, Option<f64>),
    /// Nobody answered at all.
    Unreachable(String),
}

pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: Endpoint,
}

#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Usage,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Default, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl Client {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(endpoint.timeout.clamp(0.01, 3600.0))))
            .http_status_as_error(false)
            // A redirect would carry the question, and the key, to somebody else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        Self { agent: ureq::Agent::new_with_config(config), endpoint: endpoint.clone() }
    }

    pub(super) fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        let url = format!("{}/chat/completions", self.endpoint.url);
        let mut request = self.agent.post(&url).header("Content-Type", "application/json");
        if let Some(key) = &self.endpoint.key {
            request = request.header("Authorization", format!("Bearer {}", key.0));
        }
        let mut response = match request.send(question.body(&self.endpoint.model).to_string()) {
            Ok(response) => response,
            Err(e @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                return Err(Failure::Final(format!("'{}' is no address ({e})", self.endpoint.url)));
            }
            Err(ureq::Error::Timeout(_)) => {
                return Err(Failure::Passing(format!("no answer within {} s", self.endpoint.timeout), None));
            }
            Err(e) => return Err(Failure::Unreachable(one_line(&e.to_string()))),
        };
        let status = response.status().as_u16();
        let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse::<f64>().ok());
        let wait = wait.filter(|s| s.is_finite() && *s >= 0.0).map(|s| s.min(LONGEST_WAIT));
        let body = response.body_mut().with_config().limit(MOST_BYTES).lossy_utf8(true).read_to_string();
        match status {
            200..=299 => read(&body.map_err(|e| Failure::Passing(one_line(&e.to_string()), None))?),
            401 | 403 => Err(Failure::Final(format!("it refuses the key (status {status})"))),
            408 | 409 | 425 | 429 | 500..=599 => Err(Failure::Passing(format!("status {status}"), wait)),
            _ => {
                let said = self.without_key(&one_line(&body.unwrap_or_default()));
                Err(Failure::Final(format!("status {status} ({said})")))
            }
        }
    }

    /// What a server says may repeat the key.
    fn without_key(&self, text: &str) -> String {
        match &self.endpoint.key {
            Some(key) => text.replace(&key.0, "…"),
            None => text.to_owned(),
        }
    }
}

fn read(body: &str) -> Result<Answer, Failure> {
    let reply: Reply = serde_json::from_str(body)
        .map_err(|_| Failure::Passing("an answer that is no chat completion".to_owned(), None))?;
    let text = reply.choices.into_iter().next().and_then(|c| c.message.content);
    let text = text.ok_or_else(|| Failure::Passing("an answer without text".to_owned(), None))?;
    Ok(Answer { text, prompt_tokens: reply.usage.prompt_tokens, completion_tokens: reply.usage.completion_tokens })
}

/// Text of a server, safe in one line.
fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(160).collect()
}
