//! Parsing an endpoint's reply: an answer, or why there is none. It reads no more than it needs, since
//! servers differ in the rest.
//!
//! Knows no connection. A server's message is quoted in its own words, in one short line.

use serde_json::Value;

use super::Answer;
use super::thought::{Stripped, strip_thoughts};

/// Why a try gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    /// Trying again cannot help: a wrong key, model or address.
    Final(String),
    /// The endpoint rejects this question (a content filter, a text too long); it may answer another.
    Rejected(String),
    /// The answer was cut off, and was paid for (tokens of the question, of the answer).
    Cut(String, u64, u64),
    /// Trying again may help, after this many seconds where the endpoint says so.
    Passing(String, Option<f64>),
    /// Nobody answered at all.
    Unreachable(String),
}

impl Failure {
    /// The same failure with its message changed.
    pub(super) fn map(self, words: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Final(why) => Self::Final(words(why)),
            Self::Rejected(why) => Self::Rejected(words(why)),
            Self::Cut(why, asked, answered) => Self::Cut(words(why), asked, answered),
            Self::Passing(why, wait) => Self::Passing(words(why), wait),
            Self::Unreachable(why) => Self::Unreachable(words(why)),
        }
    }
}

/// Characters that are shown of a server's message.
const SHOWN: usize = 160;
/// Why an answer ended that might have gone on, in the words of several servers.
const CUT: [&str; 5] = [
    "length",
    "max_tokens",
    "model_length",
    "max_output_tokens",
    "incomplete",
];
/// Words of an error that lasts until the user pays.
const PAY: [&str; 7] = [
    "quota",
    "credit",
    "billing",
    "payment",
    "balance",
    "spending limit",
    "budget",
];
/// Words of an error that passes.
const PASSES: [&str; 8] = [
    "rate limit",
    "rate_limit",
    "overload",
    "timeout",
    "timed out",
    "temporar",
    "unavailable",
    "try again",
];

/// The answer in the body of a reply with a good status; at most `limit` tokens were asked for.
pub(super) fn read(body: &str, limit: usize) -> Result<Answer, Failure> {
    let body = body.trim_start_matches('\u{feff}').trim();
    let value: Value = serde_json::from_str(body).map_err(|_| no_json(body))?;
    let value = match &value {
        Value::Array(list) => list.first().unwrap_or(&value),
        value => value,
    };
    let usage = |key: &str| {
        let count = &value["usage"][key];
        count
            .as_u64()
            .or_else(|| count.as_f64().filter(|c| c.is_finite()).map(|c| c as u64))
            .unwrap_or(0)
    };
    let (asked, answered) = (usage("prompt_tokens"), usage("completion_tokens"));
    let choice = &value["choices"][0];
    let message = if choice["message"].is_object() {
        &choice["message"]
    } else {
        choice
    };
    let text = text_of(&message["content"]).or_else(|| text_of(&choice["text"]));
    if text.is_none() {
        if let Some(failure) = [value, choice].into_iter().find_map(error_within) {
            return Err(failure);
        }
        if choice.is_null() {
            return Err(Failure::Passing(
                "an answer that is no chat completion (it has no choices)".to_owned(),
                None,
            ));
        }
    }
    let ended = choice["finish_reason"]
        .as_str()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let cut = |how: &str| {
        Failure::Cut(
            format!("{how}: give --judge-max-tokens more than {limit}"),
            asked,
            answered,
        )
    };
    if CUT.contains(&ended.as_str()) {
        return Err(cut(&format!("the answer is cut off at {limit} tokens")));
    }
    if ended == "content_filter" {
        return Err(Failure::Rejected(
            "its content filter stopped the answer".to_owned(),
        ));
    }
    if let (None | Some(""), Some(why)) = (text.as_deref(), message["refusal"].as_str()) {
        return Err(Failure::Rejected(format!("it refuses: {}", short(why))));
    }
    let thinks = ["reasoning_content", "reasoning", "thinking"]
        .iter()
        .any(|key| !is_nothing(&message[*key]));
    let only_thoughts = || cut("the answer is a thought and nothing else");
    match text.map(|text| strip_thoughts(&text)) {
        Some(Stripped::Open) => Err(cut("the answer ends within a thought")),
        Some(Stripped::Nothing) => Err(only_thoughts()),
        Some(Stripped::Answer(text)) if text.is_empty() && thinks => Err(only_thoughts()),
        Some(Stripped::Answer(text)) => Ok(Answer {
            text,
            prompt_tokens: asked,
            completion_tokens: answered,
        }),
        None if thinks || message["content"].is_array() => Err(only_thoughts()),
        None => Err(Failure::Passing("an answer without text".to_owned(), None)),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::String(text) => text.trim().is_empty(),
        Value::Array(list) => list.is_empty(),
        value => value.is_null(),
    }
}

/// The text of a content: a string, or parts of which those that are text count.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<String> = parts.iter().filter_map(text_of).collect();
            (!texts.is_empty()).then(|| texts.concat())
        }
        Value::Object(part) => {
            let is_text = part
                .get("type")
                .is_none_or(|kind| matches!(kind.as_str(), Some("text" | "output_text")));
            let text = part.get("text").filter(|_| is_text)?;
            text.as_str()
                .or_else(|| text["value"].as_str())
                .map(str::to_owned)
        }
        _ => None,
    }
}

/// The error that a body reports, whatever the status was.
fn error_within(value: &Value) -> Option<Failure> {
    let error_message = message_in(value)?;
    let error = &value["error"];
    let code = [
        &error["code"],
        &error["status"],
        &value["code"],
        &value["status"],
    ]
    .into_iter()
    .find_map(|c| c.as_u64().or_else(|| c.as_str()?.parse().ok()))
    .and_then(|code| u16::try_from(code).ok())
    .filter(|code| (400..600).contains(code));
    let lower = error_message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    Some(match code {
        Some(code) => failure(code, &format!("error {code}"), &error_message, None),
        None if has(&PAY) => failure(402, "an error", &error_message, None),
        None if has(&PASSES) => Failure::Passing(format!("an error ({error_message})"), None),
        None => Failure::Rejected(format!("an error ({error_message})")),
    })
}

/// The failure of a status, with the server's message.
pub(super) fn of_status(status: u16, body: &str, wait: Option<f64>) -> Failure {
    failure(
        status,
        &format!("status {status}"),
        &error_message(body),
        wait,
    )
}

fn failure(status: u16, name: &str, error_message: &str, wait: Option<f64>) -> Failure {
    let told = if error_message.is_empty() {
        name.to_owned()
    } else {
        format!("{name}: {error_message}")
    };
    let lower = error_message.to_lowercase();
    let unpaid = PAY.iter().any(|word| lower.contains(word)) && !lower.contains("per minute");
    match status {
        401 => Failure::Final(format!("it refuses the key ({told})")),
        402 => Failure::Final(format!("it wants to be paid ({told})")),
        403 => Failure::Final(format!(
            "it refuses the key, or what is asked with it ({told})"
        )),
        429 if unpaid => Failure::Final(format!("the quota is used up ({told})")),
        407 => Failure::Final(format!("the proxy asks for a password ({told})")),
        408 | 409 | 425 | 429 | 500..=599 => Failure::Passing(told, wait),
        400 | 413 | 422 => Failure::Rejected(told),
        _ => Failure::Final(told),
    }
}

/// The message of a body in one short line, whether JSON, a web page or text.
pub(super) fn error_message(body: &str) -> String {
    let body = body.trim_start_matches('\u{feff}').trim();
    let of_json = serde_json::from_str::<Value>(body)
        .ok()
        .map(|v| v.get(0).cloned().unwrap_or(v));
    of_json.as_ref().and_then(message_in).unwrap_or_else(|| {
        if is_page(body) {
            page(body)
        } else {
            short(body)
        }
    })
}

/// The message of an error object, as several servers write it.
fn message_in(value: &Value) -> Option<String> {
    let error = &value["error"];
    let words = |v: &Value| -> Option<String> {
        match v {
            Value::String(text) => Some(text.clone()),
            Value::Array(list) => {
                let each: Vec<String> = list
                    .iter()
                    .filter_map(|e| e["msg"].as_str().or_else(|| e.as_str()))
                    .map(str::to_owned)
                    .collect();
                (!each.is_empty()).then(|| each.join("; "))
            }
            _ => None,
        }
    };
    let places = [
        &error["message"],
        error,
        &error["detail"],
        &value["message"],
        &value["detail"],
        &value["errors"],
    ];
    let found = places
        .into_iter()
        .find_map(words)
        .or_else(|| error.is_object().then(|| error.to_string()))?;
    Some(short(&found)).filter(|error_message| !error_message.is_empty())
}

/// The failure of a reply with a good status that is not JSON.
fn no_json(body: &str) -> Failure {
    if body.starts_with("data:") || body.starts_with("event:") || body.starts_with(": ") {
        let why =
            "it streams its answer, which was not asked for: turn streaming off at the endpoint";
        return Failure::Final(why.to_owned());
    }
    if is_page(body) {
        return Failure::Final(format!(
            "it answers with a web page ({}): is this the address of an API, or does a log-in page stand before it?",
            page(body)
        ));
    }
    let error_message = if body.is_empty() {
        "nothing".to_owned()
    } else {
        format!("\"{}\"", short(body))
    };
    Failure::Passing(
        format!("an answer that is no chat completion ({error_message})"),
        None,
    )
}

fn is_page(body: &str) -> bool {
    let start: String = body
        .chars()
        .take(14)
        .collect::<String>()
        .to_ascii_lowercase();
    start.starts_with("<!doctype") || start.starts_with("<html") || start.starts_with("<?xml")
}

/// The words of a web page: its title, or all of it.
fn page(body: &str) -> String {
    let lower = body.to_ascii_lowercase();
    let title = lower.find("<title>").map(|at| at + "<title>".len());
    let title = title
        .and_then(|from| Some(&body[from..from + lower[from..].find("</title>")?]))
        .filter(|t| !t.trim().is_empty());
    let mut words = String::new();
    let mut inside = false;
    for c in title.unwrap_or(body).chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                words.push(' ');
            }
            c if !inside => words.push(c),
            _ => {}
        }
    }
    short(&words)
}

/// A text as one short line, to be shown.
pub(super) fn short(text: &str) -> String {
    one_line(text).chars().take(SHOWN).collect()
}

/// A text without control characters and line ends.
pub(super) fn one_line(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}
