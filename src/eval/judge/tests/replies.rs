//! What replies are read as, the form and the way of a request.

use sha2::{Digest, Sha256};

use super::super::client::HttpClient;
use super::*;

/// A reply of a chat endpoint with this message, ended for this reason.
fn chat(message: &str, finish: &str) -> Reply {
    let usage = r#"{"prompt_tokens": 50, "completion_tokens": 7}"#;
    let body = format!(
        r#"{{"id": 1, "choices": [{{"index": 0, "finish_reason": {finish}, "message": {message}}}], "usage": {usage}, "x": []}}"#
    );
    Reply::Body(body.leak())
}

#[test]
fn a_reply_is_read_by_what_is_needed_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let message = |content: &str| format!(r#"{{"role": "assistant", "content": {content}}}"#);
    let answers = [
        (chat(&message(r#""a""#), r#""stop""#), "a"),
        (chat(&message(r#""a""#), "null"), "a"),
        (
            chat(
                &message(
                    r#"[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]"#,
                ),
                r#""stop""#,
            ),
            "ab",
        ),
        (chat(&message(r#"["a"]"#), r#""stop""#), "a"),
        (
            chat(&message(r#""<think>\nno: b\n</think>\n\na""#), r#""stop""#),
            "a",
        ),
        (
            chat(
                r#"{"content": "a", "reasoning_content": "hm"}"#,
                r#""stop""#,
            ),
            "a",
        ),
        (
            Reply::Body(r#"{"choices": [{"message": {"content": "a"}}]}"#),
            "a",
        ),
        (
            Reply::Body(
                r#"{"choices": [{"message": {"content": "a"}}], "usage": null, "error": null}"#,
            ),
            "a",
        ),
        (
            Reply::Body(
                r#"{"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": "7", "completion_tokens": 2.0}}"#,
            ),
            "a",
        ),
        (
            Reply::Body("\u{feff} {\"choices\": [{\"text\": \"a\"}]}\n"),
            "a",
        ),
    ];
    for (i, (reply, wanted)) in answers.into_iter().enumerate() {
        let fake = Fake::serve(vec![reply]);
        let found = fake
            .judge(&dir.path().join(i.to_string()))
            .ask(&questions(&["q"]), &TaskCtx::silent())
            .unwrap();
        assert_eq!((texts(&found), fake.asked()), (vec![wanted], 1), "case {i}");
    }
}

#[test]
fn what_is_cut_off_or_only_thought_is_no_answer_and_names_the_option() {
    let dir = tempfile::tempdir().unwrap();
    let message = |content: &str| format!(r#"{{"role": "assistant", "content": {content}}}"#);
    let thinks =
        |content: &str| format!(r#"{{"content": {content}, "reasoning_content": "Okay, let me"}}"#);
    let cut = [
        (
            chat(&message(r#""Description: months""#), r#""length""#),
            "cut off at 5 tokens",
        ),
        (
            chat(&message(r#""Rating: 2""#), r#""MAX_TOKENS""#),
            "cut off at 5 tokens",
        ),
        (chat(&thinks(r#""""#), r#""length""#), "cut off at 5 tokens"),
        (chat(&thinks("null"), r#""length""#), "cut off at 5 tokens"),
        (
            chat(&thinks("null"), r#""stop""#),
            "a thought and nothing else",
        ),
        (
            chat(&thinks(r#""""#), r#""stop""#),
            "a thought and nothing else",
        ),
        (
            chat(&message(r#""<think>Rating: 2 at first but""#), r#""stop""#),
            "ends within a thought",
        ),
        (
            chat(&message(r#""<think>Rating: 2</think>""#), r#""stop""#),
            "a thought and nothing else",
        ),
        (
            chat(
                &message(r#"[{"type": "thinking", "thinking": "hm"}]"#),
                r#""stop""#,
            ),
            "a thought and nothing else",
        ),
    ];
    for (i, (reply, wanted)) in cut.into_iter().enumerate() {
        let fake = Fake::serve(vec![reply]);
        let mut judge = fake.judge(&dir.path().join(i.to_string()));
        let found = judge.ask(&questions(&["q"]), &TaskCtx::silent()).unwrap();
        let why = found[0].as_ref().unwrap_err();
        assert!(
            why.contains(wanted) && why.contains("--judge-max-tokens more than 5"),
            "{why}"
        );
        assert_eq!(
            (
                fake.asked(),
                judge.usage().failed,
                judge.usage().completion_tokens
            ),
            (1, 1, 7),
            "asked and paid once"
        );
        assert_eq!(
            judge.estimate(&questions(&["q"])).answered,
            0,
            "and not kept"
        );
        // A judge that never comes to an answer is not paid for it again and again.
        let message = refused(judge.ask(
            &questions(&["a", "b", "c", "d", "e", "f", "g", "h"]),
            &TaskCtx::silent(),
        ));
        assert!(
            message.contains("comes to no answer") && message.contains("--judge-max-tokens"),
            "{message}"
        );
    }
}

#[test]
fn an_error_quotes_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let final_ones = [
        (
            Reply::Body(r#"{"error": {"code": 402, "message": "Insufficient credits"}}"#),
            "wants to be paid (error 402: Insufficient credits)",
        ),
        (
            Reply::Body(r#"{"error": "You exceeded your current quota"}"#),
            "wants to be paid (an error: You exceeded",
        ),
        (
            Reply::Body(r#"[{"error": {"code": 403, "message": "no access"}}]"#),
            "(error 403: no access)",
        ),
        (
            Reply::Body(
                r#"{"choices": [{"error": {"code": 401, "message": "bad key"}, "message": {"content": null}}]}"#,
            ),
            "(error 401: bad key)",
        ),
        (
            Reply::Body("<!DOCTYPE html><html><title>Guest network</title><body>x</body>"),
            "a web page (Guest network)",
        ),
        (
            Reply::Body("<html><body>Please <b>log in</b></body>"),
            "a web page (Please log in)",
        ),
        (
            Reply::Body("data: {\"choices\":[]}\n\ndata: [DONE]\n\n"),
            "streams its answer",
        ),
        (
            Reply::Told(
                429,
                "",
                r#"{"error": {"message": "out of quota", "code": "insufficient_quota"}}"#,
            ),
            "the quota is used up (status 429: out of quota)",
        ),
        (
            Reply::Told(404, "", r#"{"error": {"message": "model 'm' not found"}}"#),
            "status 404: model 'm' not found",
        ),
        (
            Reply::Told(404, "", r#"{"detail": "Not Found"}"#),
            "status 404: Not Found",
        ),
        (
            Reply::Told(
                301,
                "Location: https://x/v1/chat/completions?key=sk-1\r\n",
                "",
            ),
            "redirects to https://x/v1/chat/completions (status 301)",
        ),
        (
            Reply::Told(307, "Location: http://127.0.0.1:1/v1\r\n", ""),
            "redirects to http://127.0.0.1:1/v1 (status 307)",
        ),
        (
            Reply::Told(308, "Location: http://me:sk-1@x/v1\r\n", ""),
            "redirects to another address (status 308)",
        ),
        (
            Reply::Told(308, "", ""),
            "redirects to nowhere (status 308)",
        ),
    ];
    for (i, (reply, wanted)) in final_ones.into_iter().enumerate() {
        let fake = Fake::serve(vec![reply]);
        let message = refused(
            fake.judge(&dir.path().join(i.to_string()))
                .ask(&questions(&["q"]), &TaskCtx::silent()),
        );
        assert!(
            message.contains(wanted) && !message.contains("sk-") && fake.asked() == 1,
            "{message}"
        );
    }
    let others = [
        (
            Reply::Told(
                500,
                "",
                "<html><head><title>Bad gateway</title></head></html>",
            ),
            "status 500: Bad gateway, 3 tries",
            3,
        ),
        (
            Reply::Told(
                429,
                "Retry-After: 0\r\n",
                r#"{"error": {"message": "tokens per minute"}}"#,
            ),
            "status 429: tokens per minute, 3 tries",
            3,
        ),
        (
            Reply::Body(r#"{"error": {"message": "the engine is overloaded"}}"#),
            "an error (the engine is overloaded), 3 tries",
            3,
        ),
        (
            Reply::Body(r#"{"error": {"message": "bad prompt"}}"#),
            "an error (bad prompt)",
            1,
        ),
        (
            Reply::Told(
                400,
                "",
                r#"{"error": {"message": "the maximum context is 8 tokens, max_tokens is 9"}}"#,
            ),
            "status 400: the maximum context",
            1,
        ),
        (
            Reply::Told(422, "", r#"{"detail": [{"msg": "too long"}]}"#),
            "status 422: too long",
            1,
        ),
        (
            chat(r#"{"content": null, "refusal": "I cannot"}"#, r#""stop""#),
            "it refuses: I cannot",
            1,
        ),
        (
            chat(r#"{"content": "a"}"#, r#""content_filter""#),
            "content filter",
            1,
        ),
        (Reply::Body(r#"{"choices": []}"#), "no choices", 3),
    ];
    for (i, (reply, wanted, asked)) in others.into_iter().enumerate() {
        let fake = Fake::serve(vec![reply]);
        let found = fake
            .judge(&dir.path().join(format!("o{i}")))
            .ask(&questions(&["q"]), &TaskCtx::silent())
            .unwrap();
        let why = found[0].as_ref().unwrap_err();
        assert!(why.contains(wanted), "{why}");
        assert_eq!(fake.asked(), asked, "{why}");
    }
}

/// A server that takes a request in one form alone.
fn picky(takes: fn(&serde_json::Value) -> std::result::Result<(), &'static str>) -> Fake {
    Fake::serve(vec![Reply::Picky(takes)])
}

#[test]
fn the_form_that_an_endpoint_takes_is_found_out_once() {
    let dir = tempfile::tempdir().unwrap();
    let limit = |body: &serde_json::Value| match body.get("max_tokens") {
        Some(_) => Err(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        ),
        None if body["max_completion_tokens"] == 5 => Ok(()),
        None => Err("a limit is missing"),
    };
    let warm = |body: &serde_json::Value| match body["temperature"].as_f64() {
        Some(1.0) => Ok(()),
        _ => Err(
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        ),
    };
    let left = |body: &serde_json::Value| match body.get("temperature") {
        None => Ok(()),
        Some(_) => Err("temperature is deprecated for this model"),
    };
    let both = |body: &serde_json::Value| match (body.get("max_tokens"), body.get("temperature")) {
        (Some(_), _) => Err("max_tokens is unsupported: use max_completion_tokens"),
        (None, Some(_)) => Err("Extra inputs are not permitted: temperature"),
        _ => Ok(()),
    };
    let words: Vec<String> = (0..20).map(|i| format!("w{i}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    for (i, (fake, refusals)) in [
        (picky(limit), 1),
        (picky(warm), 1),
        (picky(left), 1),
        (picky(both), 2),
    ]
    .into_iter()
    .enumerate()
    {
        let mut judge = fake.judge(&dir.path().join(i.to_string()));
        assert_eq!(
            texts(&judge.ask(&questions(&words), &TaskCtx::silent()).unwrap()),
            words
        );
        judge
            .ask(&questions(&["more"]), &TaskCtx::silent())
            .unwrap();
        assert_eq!(fake.asked(), 21 + refusals, "case {i}");
    }
    let fake = picky(left);
    let mut judge = fake.judge(dir.path());
    judge.endpoint.temperature = Some(0.5);
    let message = refused(
        JudgeClient::new(judge.endpoint, judge.answers).ask(&questions(&["a"]), &TaskCtx::silent()),
    );
    assert!(
        message.contains("takes no --judge-temperature 0.5") && fake.asked() == 1,
        "{message}"
    );
}

#[test]
fn a_redirect_to_the_same_server_is_followed_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    for location in [
        "/other/v1/chat/completions",
        "HERE/other/v1/chat/completions",
    ] {
        let fake = Fake::serve(vec![Reply::Moved(location)]);
        let answers = fake
            .judge(&dir.path().join(&location[..2]))
            .ask(&questions(&["a", "b", "c"]), &TaskCtx::silent())
            .unwrap();
        assert_eq!((texts(&answers), fake.asked()), (vec!["a", "b", "c"], 4));
        assert!(
            fake.seen
                .lock()
                .unwrap()
                .iter()
                .all(|(head, _)| head.contains("Bearer sk-secret"))
        );
    }
    let fake = Fake::serve(vec![Reply::Told(
        307,
        "Location: /v1/chat/completions\r\n",
        "",
    )]);
    let message = refused(
        fake.judge(dir.path())
            .ask(&questions(&["z"]), &TaskCtx::silent()),
    );
    assert!(message.contains("redirects again and again"), "{message}");
}

#[test]
fn an_answer_of_an_earlier_version_is_not_used() {
    let (fake, dir) = (Fake::serve(vec![Reply::Echo]), tempfile::tempdir().unwrap());
    let mut judge = fake.judge(dir.path());
    let asked = questions(&["a"]);
    let body = asked[0].body(&judge.endpoint);
    let old: String = Sha256::digest(format!("{}\n{body}", judge.endpoint.url))
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let thought = Answer {
        text: "<think>\nOkay, let me".to_owned(),
        prompt_tokens: 1,
        completion_tokens: 5,
    };
    judge.answers.insert(&old, &thought).unwrap();
    assert!(judge.answers.get(&old).is_some() && judge.cached_answer(&asked[0]).is_none());
    assert_eq!(
        texts(&judge.ask(&asked, &TaskCtx::silent()).unwrap()),
        ["a"]
    );
}

#[test]
fn a_request_goes_through_the_proxy_that_is_set_and_a_failure_names_it() {
    let question = &questions(&["a"])[0];
    let ask = |url: &str, variable: &'static str, value: &str| {
        let endpoint = Endpoint {
            timeout: 5.0,
            ..Endpoint::new(url, "m", Some(ApiKey("sk-secret".to_owned()))).unwrap()
        };
        let var = |name: &str| (name == variable).then(|| value.to_owned());
        HttpClient::in_environment(&endpoint, &var).ask(question)
    };
    // As curl does: the whole address to the proxy, and who asks.
    let proxy = Fake::serve(vec![Reply::Echo]);
    let address = proxy
        .url
        .trim_end_matches("/v1")
        .replace("http://", "http://me:pw@");
    assert_eq!(
        ask("http://judge.invalid/v1", "http_proxy", &address)
            .unwrap()
            .text,
        "a"
    );
    let head = proxy.seen.lock().unwrap()[0].0.clone();
    assert!(
        head.starts_with("POST http://judge.invalid:80/v1/chat/completions HTTP/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.to_lowercase()
            .contains("proxy-authorization: basic bwu6chc=")
            && head.contains("judge.invalid"),
        "{head}"
    );
    // This machine is reached without one.
    let fake = Fake::serve(vec![Reply::Echo]);
    for variable in ["http_proxy", "https_proxy", "ALL_PROXY"] {
        assert_eq!(
            ask(&fake.url, variable, "http://127.0.0.1:1").unwrap().text,
            "a",
            "{variable}"
        );
    }
    for (url, variable) in [
        ("http://judge.invalid/v1", "http_proxy"),
        ("https://judge.invalid/v1", "https_proxy"),
    ] {
        let failure = format!(
            "{:?}",
            ask(url, variable, "http://me:pw@127.0.0.1:1").unwrap_err()
        );
        let named = format!("through the proxy http://127.0.0.1:1 ({variable})");
        assert!(
            failure.contains("Unreachable") && failure.contains(&named) && !failure.contains("pw"),
            "{failure}"
        );
    }
    let failure = format!(
        "{:?}",
        ask("https://judge.invalid/v1", "https_proxy", "gopher://x").unwrap_err()
    );
    assert!(
        failure.contains("Final") && failure.contains("https_proxy holds no address"),
        "{failure}"
    );
}
