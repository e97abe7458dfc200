//! A chat endpoint on a loopback socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

fn answer(mut stream: TcpStream, key: &str, reply: &dyn Fn(&str) -> Option<(u16, String)>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).ok()?;
    }
    assert!(head.contains(&format!("Bearer {key}")), "{head}");
    let lower = head.to_ascii_lowercase();
    let mut body = vec![0; lower.split_once("content-length:")?.1.lines().next()?.trim().parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let asked: Value = serde_json::from_slice(&body).ok()?;
    let Some((status, text)) = reply(asked["messages"][1]["content"].as_str()?) else {
        // The peer's end of the connection ends this.
        reader.lines().for_each(drop);
        return None;
    };
    let body =
        json!({"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 10, "completion_tokens": 3}});
    let body = body.to_string();
    write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).ok()
}
