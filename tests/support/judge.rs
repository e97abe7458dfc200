//! Chat endpoints on a loopback socket: one that says what a test wants, and one that misbehaves in
//! many modes.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

/// What it says to the n-th call with this question: a status and a text, or nothing at all.
pub type Reply = dyn Fn(usize, &str) -> Option<(u16, String)> + Send + Sync;

/// Its address, and how often it was called.
pub fn serve(key: &'static str, reply: Box<Reply>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, reply) = (Arc::clone(&asked), Arc::new(reply));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let call = count.fetch_add(1, Ordering::SeqCst);
            let reply = Arc::clone(&reply);
            std::thread::spawn(move || answer(stream, key, &|user| reply(call, user)));
        }
    });
    (url, asked)
}

/// A request: its path, the key that it carries, its body.
fn request(stream: &TcpStream) -> Option<(String, String, Value)> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let mut body = vec![
        0;
        lower
            .split_once("content-length:")?
            .1
            .lines()
            .next()?
            .trim()
            .parse()
            .ok()?
    ];
    reader.read_exact(&mut body).ok()?;
    Some((
        head.split(' ').nth(1)?.to_owned(),
        head,
        serde_json::from_slice(&body).ok()?,
    ))
}

fn answer(
    mut stream: TcpStream,
    key: &str,
    reply: &dyn Fn(&str) -> Option<(u16, String)>,
) -> Option<()> {
    let (_, head, asked) = request(&stream)?;
    assert!(head.contains(&format!("Bearer {key}")), "{head}");
    let Some((status, text)) = reply(asked["messages"][1]["content"].as_str()?) else {
        // The peer's end of the connection ends this.
        BufReader::new(stream).lines().for_each(drop);
        return None;
    };
    let body = json!({"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 10, "completion_tokens": 3}});
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .ok()
}

/// A judge that misbehaves: its base is this address with the mode behind it, `http://…/MODE/v1`.
/// Beside it, how often each mode was asked.
pub fn misbehaving() -> (String, Arc<Mutex<HashMap<String, usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                let (path, _, body) = request(&stream)?;
                let mode = path.split('/').nth(1)?.to_owned();
                let call = {
                    let mut count = count.lock().unwrap();
                    let calls = count.entry(mode.clone()).or_insert(0);
                    *calls += 1;
                    *calls
                };
                let (status, headers, body) = misbehave(&mode, call, &body);
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}"
                );
                write!(stream, "{head}\r\n{body}").ok()
            });
        }
    });
    (url, asked)
}

/// What a judge that behaves says.
fn sensible(user: &str) -> String {
    if user.contains("Begin your answer with") {
        return "Description: months of the year".to_owned();
    }
    let count = user
        .split_once("Answer with ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<usize>().ok());
    match count {
        Some(count) => vec!["1"; count].join(" "),
        None => "Rating: 1".to_owned(),
    }
}

/// Status, header lines and body of a mode's n-th reply.
fn misbehave(mode: &str, call: usize, asked: &Value) -> (u16, String, String) {
    let text = sensible(asked["messages"][1]["content"].as_str().unwrap_or_default());
    let chat = |message: Value, finish: &str| {
        let usage = json!({"prompt_tokens": 50, "completion_tokens": 7});
        let choice = json!({"index": 0, "finish_reason": finish, "message": message});
        (
            200,
            String::new(),
            json!({"choices": [choice], "usage": usage}).to_string(),
        )
    };
    let message = |text: String| chat(json!({"role": "assistant", "content": text}), "stop");
    let refused = |status: u16, why: &str| {
        (
            status,
            String::new(),
            json!({"error": {"message": why}}).to_string(),
        )
    };
    match mode {
        "think" => message(format!(
            "<think>\nRating: 2 would be too much. Description: no.\n</think>\n\n{text}"
        )),
        "thinkplain" => message(format!(
            "<think>\nhm\n</think>\n\n{}",
            text.replace("Description: ", "")
        )),
        "thinkcut" => chat(
            json!({"content": "<think>\nOkay, let me look at the texts one by one"}),
            "length",
        ),
        "thinkopen" => message(
            "<think>\nI am to begin with \"Description:\". I lean to Rating: 2 at first but"
                .to_owned(),
        ),
        "cut" => chat(json!({"content": text}), "length"),
        "empty" => chat(
            json!({"content": "", "reasoning_content": "Okay, let me"}),
            "length",
        ),
        "null" => chat(
            json!({"content": null, "reasoning_content": "Okay, let me"}),
            "length",
        ),
        "array" => chat(
            json!({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}]}),
            "stop",
        ),
        "usage" => (
            200,
            String::new(),
            json!({"choices": [{"message": {"content": text}}], "usage": "none"}).to_string(),
        ),
        "err200" => (
            200,
            String::new(),
            json!({"error": {"code": 402, "message": "Insufficient credits"}}).to_string(),
        ),
        "nokey" => refused(401, "Incorrect API key provided"),
        "forbidden" => refused(403, "not in your country"),
        "nomodel" => refused(404, "model 'm' not found"),
        "maxtok" if asked.get("max_tokens").is_some() => refused(
            400,
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
        ),
        "temp" if asked["temperature"] != json!(1.0) => refused(
            400,
            "Unsupported value: 'temperature' does not support 0. Only the default (1) value is supported.",
        ),
        "redirect" if call == 1 => (
            308,
            "Location: /redirect/v1/chat/completions\r\n".to_owned(),
            String::new(),
        ),
        "elsewhere" => (
            308,
            "Location: https://judge.invalid/v1\r\n".to_owned(),
            String::new(),
        ),
        "html" => (
            200,
            String::new(),
            "<html><body>Please log in</body></html>".to_owned(),
        ),
        "stream" => (
            200,
            String::new(),
            "data: {\"choices\":[]}\n\ndata: [DONE]\n\n".to_owned(),
        ),
        "retrydate" if call == 1 => {
            let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(1));
            (429, format!("Retry-After: {date}\r\n"), String::new())
        }
        "fenced" => message(format!("```\n{text}\n```")),
        "sure" => message(format!("Sure! Here is my answer:\n\n{text}")),
        "wide" => message(text.replace('1', "１")),
        "outof" => message(text.replace("Rating: 1", "Rating: 1 out of 10")),
        "esc" => message(text.replace("months", "\u{1b}[31mmonths\u{202e}")),
        _ => message(text),
    }
}
