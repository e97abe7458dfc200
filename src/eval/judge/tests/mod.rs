//! An endpoint on a loopback socket that answers, stalls, talks nonsense, refuses and goes away.

mod replies;
mod secrets;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;
use crate::error::{Error, Result};
use crate::task::{CancelToken, TaskCtx};

#[derive(Clone, Copy)]
enum Reply {
    /// Repeats the question's last word.
    Echo,
    Status(u16, &'static str),
    Body(&'static str),
    Raw(&'static [u8]),
    Stall,
    /// A status with headers and a body.
    Told(u16, &'static str, &'static str),
    /// [`Reply::Echo`] where the body is to its liking, else status 400 with the reason.
    Picky(fn(&serde_json::Value) -> std::result::Result<(), &'static str>),
    /// Status 308 to this address (HERE: the server's own), and there [`Reply::Echo`].
    Moved(&'static str),
    /// By the question: a refusal of those that end in "bad", else [`Reply::Echo`].
    Filter(u16),
}

struct Fake {
    url: String,
    /// Headers and body of each request.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Fake {
    /// Answers request i as `script[i]`, and all after the last as the last.
    fn serve(script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, script) = (Arc::clone(&log), script.clone());
                std::thread::spawn(move || answer(stream, &log, &script));
            }
        });
        Self { url, seen }
    }

    fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn judge(&self, answers: &Path) -> JudgeClient {
        let key = Some(ApiKey("sk-secret".to_owned()));
        let endpoint = Endpoint {
            timeout: 0.5,
            pause: 0.01,
            tries: 3,
            ..Endpoint::new(&self.url, "m", key).unwrap()
        };
        JudgeClient::new(endpoint, AnswerCache::in_dir(answers))
    }
}

fn answer(
    mut stream: TcpStream,
    log: &Mutex<Vec<(String, String)>>,
    script: &[Reply],
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower
        .split_once("content-length:")?
        .1
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let reply = {
        let mut log = log.lock().unwrap();
        log.push((head.clone(), body.clone()));
        script[(log.len() - 1).min(script.len() - 1)]
    };
    let http = |status: u16, more: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n{body}").into_bytes()
    };
    let filtered = |status| {
        if body.contains("bad\"") {
            Reply::Status(status, "")
        } else {
            Reply::Echo
        }
    };
    let reply = match reply {
        Reply::Filter(status) => filtered(status),
        Reply::Moved(_) if head.starts_with("POST /other/") => Reply::Echo,
        Reply::Picky(takes) => match takes(&serde_json::from_str(&body).ok()?) {
            Ok(()) => Reply::Echo,
            Err(why) => Reply::Told(
                400,
                "",
                serde_json::json!({"error": {"message": why}})
                    .to_string()
                    .leak(),
            ),
        },
        reply => reply,
    };
    let bytes = match reply {
        Reply::Filter(_) | Reply::Picky(_) => return None,
        Reply::Told(status, more, body) => http(status, more, body),
        Reply::Moved(location) => {
            let origin = format!("http://{}", stream.local_addr().ok()?);
            http(
                308,
                &format!("Location: {}\r\n", location.replace("HERE", &origin)),
                "",
            )
        }
        Reply::Echo => {
            let asked: serde_json::Value = serde_json::from_str(&body).ok()?;
            let text = asked["messages"][1]["content"]
                .as_str()?
                .split(' ')
                .next_back()?
                .to_owned();
            let usage = serde_json::json!({"prompt_tokens": 7, "completion_tokens": 2});
            let reply = serde_json::json!({"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage});
            http(200, "", &reply.to_string())
        }
        Reply::Status(status, more) => http(status, more, "sk-secret is wrong\nreally"),
        Reply::Body(body) => http(200, "", body),
        Reply::Raw(bytes) => bytes.to_vec(),
        Reply::Stall => {
            // The peer's end of the connection ends this.
            reader.lines().for_each(drop);
            return None;
        }
    };
    stream.write_all(&bytes).ok()
}

fn questions(words: &[&str]) -> Vec<Question> {
    wanting(Expected::Text, words)
}

fn wanting(expected: Expected, words: &[&str]) -> Vec<Question> {
    let one = |w: &&str| {
        let (system, user) = ("s".to_owned(), format!("say {w}"));
        Question {
            system,
            user,
            max_tokens: 5,
            temperature: 0.0,
            expected,
        }
    };
    words.iter().map(one).collect()
}

fn texts(answers: &[std::result::Result<Answer, String>]) -> Vec<&str> {
    answers
        .iter()
        .map(|a| a.as_ref().map_or("-", |a| a.text.as_str()))
        .collect()
}

fn refused(result: Result<Vec<std::result::Result<Answer, String>>>) -> String {
    let message = result.unwrap_err().to_string();
    assert!(
        !message.contains('\n') && !message.contains("sk-secret"),
        "{message}"
    );
    message
}

#[test]
fn questions_are_answered_in_order_and_never_twice() {
    let (fake, dir) = (Fake::serve(vec![Reply::Echo]), tempfile::tempdir().unwrap());
    let mut judge = fake.judge(dir.path());
    let asked = questions(&["a", "b", "c", "d", "e", "f"]);
    let estimate = judge.estimate(&asked);
    assert_eq!(
        (
            estimate.calls,
            estimate.answered,
            estimate.completion_tokens
        ),
        (6, 0, 30)
    );
    let answers = judge.ask(&asked, &TaskCtx::silent()).unwrap();
    assert_eq!(texts(&answers), ["a", "b", "c", "d", "e", "f"]);
    let usage = judge.usage();
    assert_eq!(
        (usage.calls, usage.prompt_tokens, usage.completion_tokens),
        (6, 42, 12)
    );
    assert!(
        fake.seen
            .lock()
            .unwrap()
            .iter()
            .all(|(head, _)| head.contains("Bearer sk-secret"))
    );

    let mut again = fake.judge(dir.path());
    assert_eq!(again.estimate(&asked).calls, 0);
    assert_eq!(
        texts(&again.ask(&asked, &TaskCtx::silent()).unwrap()).len(),
        6
    );
    assert_eq!(
        (fake.asked(), again.usage().calls, again.usage().answered),
        (6, 0, 6)
    );
    // Another model, or another question, is another call.
    let mut other = fake.judge(dir.path());
    other.endpoint.model = "n".to_owned();
    assert_eq!(other.estimate(&asked).calls, 6);
    assert_eq!(again.estimate(&questions(&["a", "z"])).calls, 1);
    let kept = |path: &Path| std::fs::read_to_string(path).unwrap();
    let mut files = vec![];
    for folder in std::fs::read_dir(dir.path()).unwrap() {
        files.extend(
            std::fs::read_dir(folder.unwrap().path())
                .unwrap()
                .map(|f| f.unwrap().path()),
        );
    }
    assert!(files.len() == 6 && files.iter().all(|f| !kept(f).contains("sk-secret")));
}

#[test]
fn a_temporary_failure_is_retried() {
    let dir = tempfile::tempdir().unwrap();
    for (i, first) in [
        Reply::Status(429, "Retry-After: 0\r\n"),
        Reply::Status(500, ""),
        Reply::Status(503, "Retry-After: soon\r\n"),
        Reply::Status(502, "Content-Type: text/html\r\n"),
        Reply::Body("busy"),
        Reply::Body(r#"{"choices": []}"#),
        Reply::Body(r#"{"choices": [{"message": {"content": null}}]}"#),
        Reply::Raw(b"\xff\xfe\x00nonsense"),
        Reply::Raw(b""),
        Reply::Stall,
    ]
    .into_iter()
    .enumerate()
    {
        let fake = Fake::serve(vec![first, Reply::Echo]);
        let answers = fake
            .judge(&dir.path().join(i.to_string()))
            .ask(&questions(&["a"]), &TaskCtx::silent())
            .unwrap();
        assert_eq!((texts(&answers), fake.asked()), (vec!["a"], 2), "case {i}");
    }
}

#[test]
fn a_failure_that_stays_is_recorded_and_gives_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::serve(vec![Reply::Status(500, "")]);
    let mut judge = fake.judge(dir.path());
    let answers = judge
        .ask(&questions(&["a", "b"]), &TaskCtx::silent())
        .unwrap();
    assert!(
        answers.iter().all(|a| a
            .as_ref()
            .unwrap_err()
            .contains("status 500: … is wrong really, 3 tries")),
        "{answers:?}"
    );
    assert_eq!((judge.usage().failed, fake.asked()), (2, 6));
    assert_eq!(
        judge.estimate(&questions(&["a", "b"])).calls,
        2,
        "a failure is not kept"
    );
}

#[test]
fn a_wrong_key_model_or_address_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for (status, wanted) in [
        (401, "refuses the key"),
        (403, "refuses the key"),
        (402, "wants to be paid"),
        (404, "status 404"),
        (302, "status 302"),
    ] {
        let fake = Fake::serve(vec![Reply::Status(
            status,
            "Location: http://127.0.0.1:1/\r\n",
        )]);
        let message = refused(
            fake.judge(dir.path())
                .ask(&questions(&["a"]), &TaskCtx::silent()),
        );
        assert!(message.contains(wanted) && fake.asked() == 1, "{message}");
    }
    let endpoint = Endpoint {
        pause: 0.01,
        tries: 2,
        ..Endpoint::new("http://127.0.0.1:1/v1", "m", None).unwrap()
    };
    let message = refused(
        JudgeClient::new(endpoint, AnswerCache::in_dir(dir.path()))
            .ask(&questions(&["a"]), &TaskCtx::silent()),
    );
    assert!(
        message.contains("m at 127.0.0.1:1/v1: cannot be reached"),
        "{message}"
    );
}

#[test]
fn an_endpoint_that_goes_away_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::serve(vec![Reply::Echo, Reply::Echo, Reply::Raw(b"")]);
    let mut judge = fake.judge(dir.path());
    judge.endpoint.concurrency = 1;
    let asked = questions(&["a", "b", "c", "d", "e", "f"]);
    let message = refused(judge.ask(&asked, &TaskCtx::silent()));
    assert!(
        message.contains("after 2 of 6 calls") && message.contains("run the same again"),
        "{message}"
    );
    assert_eq!(judge.estimate(&asked).answered, 2);
}

#[test]
fn a_stalled_endpoint_does_not_hold_a_user_who_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::serve(vec![Reply::Stall]);
    let mut judge = fake.judge(dir.path());
    judge.endpoint.timeout = 600.0;
    let mut judge = JudgeClient::new(judge.endpoint, judge.answers);
    let cancel = CancelToken::default();
    let own = cancel.clone();
    let ctx = TaskCtx::new(cancel, move |_| own.cancel());
    assert!(matches!(
        judge.ask(&questions(&["a"]), &ctx),
        Err(Error::Cancelled)
    ));
}

#[test]
fn questions_without_an_answer_are_asked_again() {
    let (fake, dir) = (Fake::serve(vec![Reply::Echo]), tempfile::tempdir().unwrap());
    let asked = wanting(Expected::Rating, &["nothing", "Rating:2"]);
    let mut judge = fake.judge(dir.path());
    let answers = judge.ask(&asked, &TaskCtx::silent()).unwrap();
    assert_eq!(
        texts(&answers),
        ["nothing", "Rating:2"],
        "it is told, though it is no rating"
    );
    assert_eq!(
        (
            judge.estimate(&asked).calls,
            judge.estimate(&asked).answered
        ),
        (1, 1)
    );
    fake.judge(dir.path())
        .ask(&asked, &TaskCtx::silent())
        .unwrap();
    assert_eq!(fake.asked(), 3, "the one without a rating, and it alone");
    // What an earlier version kept is no answer either.
    judge
        .answers
        .insert(
            &asked[0].hash(&judge.endpoint),
            &answers[0].clone().unwrap(),
        )
        .unwrap();
    assert_eq!(judge.estimate(&asked).calls, 1);
}

#[test]
fn a_judge_that_only_fails_ends_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (Reply::Stall, "no answer within"),
        (Reply::Status(500, ""), "status 500"),
        (Reply::Status(429, "Retry-After: 0\r\n"), "status 429"),
        (Reply::Body("busy"), "no chat completion"),
    ];
    for (reply, says) in cases {
        let fake = Fake::serve(vec![Reply::Echo, reply]);
        let mut judge = fake.judge(&dir.path().join(says));
        // Only what stalls waits for the whole time: a busy machine answers late.
        let timeout = if says == "no answer within" {
            0.5
        } else {
            60.0
        };
        (
            judge.endpoint.timeout,
            judge.endpoint.tries,
            judge.endpoint.concurrency,
        ) = (timeout, 2, 1);
        let mut judge = JudgeClient::new(judge.endpoint, judge.answers);
        // A run asks a few questions at a time.
        assert_eq!(
            judge
                .ask(&questions(&["a", "b", "c"]), &TaskCtx::silent())
                .unwrap()
                .len(),
            3
        );
        let many: Vec<String> = (0..200).map(|i| format!("d{i}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let message = refused(judge.ask(&questions(&many), &TaskCtx::silent()));
        assert!(
            message.contains("4 calls in a row") && message.contains(says),
            "{message}"
        );
        assert_eq!(judge.estimate(&questions(&["a", "b"])).answered, 1);
        // Some calls may have begun, on a busy machine, before the last failure is seen; most never
        // do.
        assert!((9..200).contains(&fake.asked()), "{} of 405", fake.asked());
    }
}

#[test]
fn a_question_that_is_rejected_costs_that_question_alone() {
    let dir = tempfile::tempdir().unwrap();
    for status in [400, 413, 422] {
        let fake = Fake::serve(vec![Reply::Filter(status)]);
        let mut judge = fake.judge(&dir.path().join(status.to_string()));
        judge.endpoint.concurrency = 1;
        let asked = questions(&["a", "1bad", "2bad", "3bad", "4bad", "b"]);
        let answers = judge.ask(&asked, &TaskCtx::silent()).unwrap();
        assert_eq!(texts(&answers), ["a", "-", "-", "-", "-", "b"]);
        assert_eq!((judge.usage().failed, judge.usage().calls), (4, 2));
        // Run again, the rejected ones alone are asked, and all of them rejected.
        let mut again = fake.judge(&dir.path().join(status.to_string()));
        assert_eq!(
            texts(&again.ask(&asked, &TaskCtx::silent()).unwrap()),
            ["a", "-", "-", "-", "-", "b"]
        );
        // From the first on, it is not the questions.
        let mut new = fake.judge(&dir.path().join(format!("new{status}")));
        new.endpoint.concurrency = 1;
        let message = refused(new.ask(
            &questions(&["1bad", "2bad", "3bad", "a"]),
            &TaskCtx::silent(),
        ));
        assert!(message.contains("rejects every question"), "{message}");
    }
}
