//! The key and other secrets, which no message, file or cache shows; what makes two answers different.

use super::*;

#[test]
fn a_key_does_not_show_itself() {
    let endpoint = Endpoint::new(
        "http://x/v1/chat/completions",
        "m",
        Some(ApiKey("sk-secret".to_owned())),
    )
    .unwrap();
    assert!(!format!("{endpoint:?}").contains("sk-secret"));
    assert_eq!(
        (endpoint.url.as_str(), endpoint.name().as_str()),
        ("http://x/v1", "m at x/v1")
    );
    let slashes = ApiKey("sk/secret\"1".to_owned());
    assert_eq!(
        slashes.redact(r#"a sk/secret"1 b sk/secret\"1 c"#),
        "a … b … c"
    );
    assert_eq!(
        ApiKey("x".to_owned()).redact("next"),
        "next",
        "a placeholder hides nothing"
    );
}

#[test]
fn an_address_that_holds_a_secret_is_refused_without_repeating_it() {
    for url in [
        "http://me:sk-secret@127.0.0.1:1/v1",
        "http://sk-secret@127.0.0.1:1",
        "http://127.0.0.1:1/v1?key=sk-secret",
        "http://127.0.0.1:1/v1#sk-secret",
        "me:sk-secret@host",
    ] {
        let error = Endpoint::new(url, "m", None).unwrap_err();
        assert!(
            error.exit_code() == 2 && !error.to_string().contains("secret"),
            "{error}"
        );
    }
    for url in [
        "not an address",
        "",
        "http://",
        "ftp://x/v1",
        "127.0.0.1:1/v1",
        "http://a b/v1",
    ] {
        let error = Endpoint::new(url, "m", None).unwrap_err();
        assert!(
            error.exit_code() == 2 && error.to_string().contains("is no address"),
            "{error}"
        );
    }
}

#[test]
fn answers_of_another_length_or_temperature_are_other_answers() {
    let usual = Endpoint::new("http://127.0.0.1:1/v1", "m", None).unwrap();
    let chosen = Endpoint {
        max_tokens: Some(900),
        temperature: Some(0.5),
        ..usual.clone()
    };
    let question = super::prompts::rate_fluency("a text");
    let (body, other) = (question.body(&usual), question.body(&chosen));
    assert_eq!(
        (&body["max_tokens"], &body["temperature"]),
        (&question.max_tokens.into(), &0.0.into())
    );
    assert_eq!(
        (&other["max_tokens"], &other["temperature"]),
        (&900.into(), &0.5.into())
    );
    assert_ne!(question.hash(&usual), question.hash(&chosen));
    assert_eq!(chosen.name(), "m at 127.0.0.1:1/v1, temperature 0.5");
    let nothing = tempfile::tempdir().unwrap();
    let asked = |endpoint| {
        let judge = super::JudgeClient::new(endpoint, AnswerCache::in_dir(nothing.path()));
        judge
            .estimate(std::slice::from_ref(&question))
            .completion_tokens
    };
    assert_eq!((asked(usual), asked(chosen)), (question.max_tokens, 900));
}

#[test]
fn a_server_that_repeats_the_key_gives_it_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    // At every distance from the place where a message is cut, whole and in its middle.
    for before in 140..170 {
        let body = format!("{} sk-secret", "x".repeat(before)).leak();
        let fake = Fake::serve(vec![Reply::Raw(
            format!(
                "HTTP/1.1 404 x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
            .leak()
            .as_bytes(),
        )]);
        let message = refused(
            fake.judge(dir.path())
                .ask(&questions(&["a"]), &TaskCtx::silent()),
        );
        assert!(
            !message.contains("sk-s") && !message.contains(" sk"),
            "{message}"
        );
    }
    let fake = Fake::serve(vec![Reply::Echo]);
    let mut judge = fake.judge(dir.path());
    let answers = judge
        .ask(&questions(&["sk-secret!"]), &TaskCtx::silent())
        .unwrap();
    assert_eq!(texts(&answers), ["…!"]);
    let kept = judge.cached_answer(&questions(&["sk-secret!"])[0]).unwrap();
    assert_eq!(kept.text, "…!", "nor does the answer that is kept hold it");
}
