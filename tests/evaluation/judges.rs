//! Judges: a language model at an endpoint, and a sentence encoder.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::support::{self, program::events};
use crate::{KEY, Made};

#[test]
fn an_endpoint_judges_beside_the_offline_judge_and_what_it_does_not_rate_is_no_number() {
    let made = Made::new();
    // Too many calls, broken, silent; then it forgets every third rating of a concept.
    let (url, asked) = support::judge::serve(
        KEY,
        Box::new(|call, user| match call {
            0 => Some((429, String::new())),
            1 => Some((500, String::new())),
            2 => None,
            _ if user.starts_with("Concept") && user.len() % 3 == 0 => {
                Some((200, "It is about the sea.".to_owned()))
            }
            _ => Some((200, "Good.\nRating: 2".to_owned())),
        }),
    );
    let study = made.study.clone();
    let run = |more: &[&str]| {
        let plan = [
            "eval",
            "steering",
            &study,
            "--methods",
            "fit,random",
            "--labels",
            "sea",
            "--kl",
            "0.02",
            "--json",
        ];
        let texts = ["--max-tokens", "4", "--samples", "2", "--name", "judged"];
        made.output(&[&plan[..], &texts, more].concat())
    };
    let endpoint = [
        "--endpoint",
        &*url,
        "--judge-model",
        "m",
        "--key-env",
        "JUDGE_KEY",
        "--timeout",
        "1",
    ];
    let (dry, _, code) = run(&[&endpoint[..], &["--dry-run"]].concat());
    assert_eq!(
        (code, asked.load(Ordering::SeqCst), dry.len()),
        (0, 0, 1),
        "an estimate asks nobody"
    );
    let most = dry[0]["call_count"].as_u64().unwrap();
    let (lines, notes, code) = run(&endpoint);
    assert_eq!(code, 0, "{notes}");
    let (rest, _, _) = run(&[&endpoint[..], &["--dry-run"]].concat());
    let cost = &rest[0];
    assert!(
        cost["call_count"].as_u64().unwrap() < most / 2
            && cost["answered_count"].as_u64().unwrap() > 0,
        "{cost}"
    );
    let calls = events(&lines, "usage")[0]["call_count"].as_u64().unwrap();
    assert!(calls > 0 && calls <= most, "{calls} of {most}");
    for report in events(&lines, "method") {
        assert!(
            report["judge"]
                .as_str()
                .unwrap()
                .starts_with("m at 127.0.0.1"),
            "{report}"
        );
        let (unrated, texts) = (&report["unrated_count"], &report["text_count"]);
        assert!(unrated.as_u64() < texts.as_u64());
        for cell in report["cells"].as_array().unwrap() {
            assert_eq!(
                cell["score_interval"]["mean"], 2.0,
                "what has no rating is in no mean"
            );
        }
    }
    let unrated = |lines: &[Value]| -> u64 {
        events(lines, "method")
            .iter()
            .map(|m| m["unrated_count"].as_u64().unwrap())
            .sum()
    };
    assert!(
        unrated(&lines) > 0 && notes.contains("have no rating"),
        "{notes}"
    );
    // Again: nothing is generated, nothing that has a rating is paid for twice, and what has none
    // is asked again. Offline: the same texts, a table of its own.
    let before = asked.load(Ordering::SeqCst);
    let (again, _, _) = run(&endpoint);
    let more = (asked.load(Ordering::SeqCst) - before) as u64;
    assert_eq!(unrated(&again), unrated(&lines));
    assert!(more >= unrated(&lines) && more < calls, "{more} of {calls}");
    let (offline, _, _) = run(&[]);
    assert!(
        events(&offline, "method")
            .iter()
            .all(|m| m["judge"] == "offline" && m["unrated_count"] == 0)
    );
    let all =
        fs::read_to_string(Path::new(&made.study).join("evaluations/judged/texts.jsonl")).unwrap();
    assert!(!all.contains(KEY) && !notes.contains(KEY));

    let gone = ["--endpoint", "http://127.0.0.1:1/v1", "--judge-model", "m"];
    made.fails(
        &[
            &[
                "eval", "steering", &study, "--labels", "sea", "--kl", "0.02",
            ],
            &gone[..],
        ]
        .concat(),
        1,
        "cannot be reached",
    );
    made.fails(
        &[
            "eval",
            "steering",
            &study,
            "--endpoint",
            "http://127.0.0.1:1/v1",
        ],
        2,
        "--judge-model",
    );
}

#[test]
fn a_sentence_encoder_judges_by_meaning_and_never_beside_another_judge() {
    let made = Made::new();
    let encoder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/encoder");
    let base = [
        "eval",
        "steering",
        &made.study,
        "--methods",
        "fit,random",
        "--kl",
        "0.02",
        "--samples",
        "1",
    ];
    let base = [&base[..], &["--max-tokens", "4", "--name", "e", "--json"]].concat();
    let by = |more: &[&str]| made.output(&[&base[..], more].concat());
    let meaning = ["--judge", "meaning", "--encoder", encoder];
    let (lines, notes, code) = by(&meaning);
    assert_eq!(code, 0, "{notes}");
    assert!(
        notes.contains("sentence encoder encoder ") && notes.contains("from directory"),
        "{notes}"
    );
    let last = events(&lines, "steering")[0].clone();
    let judge = last["judge"].as_str().unwrap();
    assert!(judge.starts_with("meaning (encoder "), "{judge}");
    let told = last["judge_aurocs"].as_array().unwrap();
    assert_eq!(told.len(), last["label_names"].as_array().unwrap().len());
    assert!(
        told.iter().all(|t| t["auroc"].as_f64().unwrap() >= 0.7),
        "{told:?}"
    );
    let texts = events(&lines, "text");
    assert!(!texts.is_empty());
    for text in &texts {
        let concept = text["concept"].as_f64().unwrap();
        assert!((0.0..=2.0).contains(&concept), "{text}");
    }
    // The same texts by words: no rating of the other judge is among its own, and the texts stay.
    let (words, _, _) = by(&[]);
    let last = events(&words, "steering")[0];
    assert_eq!(
        (&last["judge"], &last["judge_aurocs"]),
        (&json!("offline"), &json!([]))
    );
    let written =
        fs::read_to_string(Path::new(&made.study).join("evaluations/e/texts.jsonl")).unwrap();
    let again = by(&meaning);
    assert_eq!(
        fs::read_to_string(Path::new(&made.study).join("evaluations/e/texts.jsonl")).unwrap(),
        written
    );
    // All was rated before, so no text is rated again, and the table is the same.
    assert!(events(&again.0, "text").is_empty());
    assert_eq!(events(&again.0, "method"), events(&lines, "method"));
    let words_of = |lines: &[Value]| events(lines, "method")[0]["judge"].clone();
    assert_ne!(words_of(&words), words_of(&lines));

    let refused =
        |more: &[&str], code, says: &str| made.fails(&[&base[..], more].concat(), code, says);
    refused(
        &["--encoder", encoder],
        2,
        "--encoder has no effect without --judge meaning",
    );
    refused(
        &["--judge", "meaning", "--encoder", &made.study],
        1,
        "holds no sentence encoder: config.json is missing",
    );
    let none = [
        "eval",
        "steering",
        &made.study,
        "--samples",
        "0",
        "--judge",
        "meaning",
    ];
    made.fails(&none, 2, "--judge has no effect with --samples 0");
}
