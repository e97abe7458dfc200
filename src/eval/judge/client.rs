//! One call: what is sent, and what may come back.

use std::time::Duration;

use serde::Deserialize;

use super::{Answer, Endpoint, Question};

/// No answer is longer.
const MOST_BYTES: u64 = 4 << 20;
/// Characters of what a server said that a person is shown.
const SHOWN: usize = 160;
/// No endpoint is waited for longer, whatever it asks for.
const LONGEST_WAIT: f64 = 120.0;

/// Why a try gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    /// Trying again cannot help: a wrong key, model or address.
    Final(String),
    /// This question is not to its liking (a content filter, a text too long); another may be.
    Rejected(String),
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
        let most = Duration::from_secs(3600);
        let timeout = Duration::try_from_secs_f64(endpoint.timeout).unwrap_or(most);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout.clamp(Duration::from_millis(10), most)))
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
        let mut response = match request.send(question.body(&self.endpoint).to_string()) {
            Ok(response) => response,
            Err(e @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                let why = self.plain(&e.to_string());
                return Err(Failure::Final(format!("'{}' is no address ({why})", self.endpoint.url)));
            }
            Err(ureq::Error::Timeout(_)) => {
                return Err(Failure::Passing(format!("no answer within {} s", self.endpoint.timeout), None));
            }
            Err(e) => return Err(Failure::Unreachable(self.plain(&e.to_string()))),
        };
        let status = response.status().as_u16();
        let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse::<f64>().ok());
        let wait = wait.filter(|s| s.is_finite() && *s >= 0.0).map(|s| s.min(LONGEST_WAIT));
        let body = response.body_mut().with_config().limit(MOST_BYTES).lossy_utf8(true).read_to_string();
        match status {
            200..=299 => {
                let body = body.map_err(|e| Failure::Passing(self.plain(&e.to_string()), None))?;
                let answer = read(&body)?;
                Ok(Answer { text: self.without_key(&answer.text), ..answer })
            }
            401 | 403 => Err(Failure::Final(format!("it refuses the key (status {status})"))),
            408 | 409 | 425 | 429 | 500..=599 => Err(Failure::Passing(format!("status {status}"), wait)),
            _ => {
                let why = format!("status {status} ({})", self.plain(&body.unwrap_or_default()));
                Err(if matches!(status, 400 | 413 | 422) { Failure::Rejected(why) } else { Failure::Final(why) })
            }
        }
    }

    /// What a server says may repeat the key.
    fn without_key(&self, text: &str) -> String {
        self.endpoint.key.as_ref().map_or_else(|| text.to_owned(), |key| key.taken_out(text))
    }

    /// For a person, in a short line. The key is taken out before the line is cut, or half of it could stay.
    fn plain(&self, text: &str) -> String {
        one_line(&self.without_key(text)).chars().take(SHOWN).collect()
    }
}

fn read(body: &str) -> Result<Answer, Failure> {
    let reply: Reply = serde_json::from_str(body)
        .map_err(|_| Failure::Passing("an answer that is no chat completion".to_owned(), None))?;
    let text = reply.choices.into_iter().next().and_then(|c| c.message.content);
    let text = text.ok_or_else(|| Failure::Passing("an answer without text".to_owned(), None))?;
    Ok(Answer { text, prompt_tokens: reply.usage.prompt_tokens, completion_tokens: reply.usage.completion_tokens })
}

/// A text without control characters and line ends.
pub(super) fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}
