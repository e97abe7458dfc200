//! `mlpeek describe` end to end, with a judge on a loopback socket.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use assert_cmd::Command;
use serde_json::{Value, json};
use support::program::{self, collected, json_lines};
use tempfile::TempDir;

const KEY: &str = "sk-not-to-be-seen";

/// A judge that describes everything alike, says yes to every text, and forgets the verdicts of
/// fuzzing.
fn judge() -> (String, Arc<AtomicUsize>) {
    support::judge::serve(KEY, Box::new(|_, user| Some((200, answer(user)?))))
}

fn answer(user: &str) -> Option<String> {
    Some(match user {
        u if u.contains("plain, varied English sentences") => {
            let word = if u.contains("have nothing to do with") {
                "bread"
            } else {
                "Tuesday river"
            };
            (1..=6)
                .map(|i| format!("{i}. {word} {word} {word}\n"))
                .collect()
        }
        u if u.contains("Begin your answer") => {
            "Description: words of \u{1b}[2Jone kind".to_owned()
        }
        u if u.starts_with("Description") && u.contains("<<like this>>") => {
            "I cannot say.".to_owned()
        }
        u => {
            let count: usize = u
                .split_once("Answer with ")?
                .1
                .split(' ')
                .next()?
                .parse()
                .ok()?;
            vec!["1"; count].join(" ")
        }
    })
}

/// The program with a judge's key, and with proxies that nobody listens at: an endpoint on this
/// machine goes through none.
fn mlpeek(home: &Path) -> Command {
    let mut command = program::mlpeek(home);
    command.env("JUDGE_KEY", KEY);
    for variable in ["http_proxy", "https_proxy", "ALL_PROXY"] {
        command.env(variable, "http://127.0.0.1:1");
    }
    command.env_remove("no_proxy").env_remove("NO_PROXY");
    command
}

fn lines(home: &Path, args: &[&str]) -> Vec<Value> {
    json_lines(mlpeek(home).args(args))
}

/// A study of `texts` texts with a fit of two features.
fn fitted(home: &Path, texts: usize) -> String {
    let study = collected(home, texts);
    lines(
        home,
        &[
            "fit",
            &study,
            "--features",
            "2",
            "--sparsity",
            "0.2",
            "--max-sweeps",
            "5",
            "--json",
        ],
    );
    study
}

/// Every file below a directory.
fn files(dir: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out)
        } else {
            out.push(path)
        }
    }
}

#[test]
fn features_are_described_offline_by_the_nearest_of_a_list() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let model = support::tiny_model(home).display().to_string();
    let data = support::corpus(home, 40).display().to_string();
    let study = home.join("study").display().to_string();
    let collect = [
        "collect", "--model", &model, "-l", "1", "--data", &data, "--out", &study, "--json",
    ];
    lines(home, &collect);
    lines(
        home,
        &[
            "fit",
            &study,
            "-k",
            "4",
            "--sparsity",
            "0.2",
            "--max-sweeps",
            "8",
            "--json",
        ],
    );
    let list = home.join("list.txt").display().to_string();
    fs::write(&list, "# three\nthe harbour\nmonday\na longer text\n").unwrap();
    let encoder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/encoder");
    let offline = [
        "describe",
        &study,
        "--offline",
        "--encoder",
        encoder,
        "--json",
    ];
    let found = lines(home, &[&offline[..], &["--phrases", &list]].concat());
    assert_eq!(found.len(), 4);
    for line in &found {
        let description = &line["description"];
        for side in ["input", "output"] {
            let phrase = description[side].as_str().unwrap();
            assert!(
                ["the harbour", "monday", "a longer text"].contains(&phrase),
                "{phrase}"
            );
        }
        let judge = description["judge"].as_str().unwrap();
        assert!(
            judge.starts_with("nearest of 3 phrases of ") && judge.contains("encoder"),
            "{judge}"
        );
        assert!(
            description["detection_score"]["judged_count"]
                .as_u64()
                .unwrap()
                > 0
        );
        assert_eq!(description["fuzzing_score"], Value::Null);
    }
    let card = &lines(home, &["feature", &study, "0", "--json"])[0];
    assert_eq!(
        card["description"]["input"],
        found[0]["description"]["input"]
    );
    // An earlier version did not say of which direction a description is: it is shown, unchecked.
    let kept = std::path::Path::new(&study).join("descriptions.json");
    let stored = fs::read_to_string(&kept).unwrap();
    let mut old: Value = serde_json::from_str(&stored).unwrap();
    let sets = old.as_object_mut().unwrap().values_mut();
    for description in sets.flat_map(|set| set.as_object_mut().unwrap().values_mut()) {
        let digest = description.as_object_mut().unwrap().remove("direction");
        assert_eq!(digest.unwrap().as_str().unwrap().len(), 16);
    }
    fs::write(&kept, old.to_string()).unwrap();
    let unchecked = &lines(home, &["feature", &study, "0", "--json"])[0]["description"];
    assert_eq!(unchecked["input"], found[0]["description"]["input"]);
    let checked = [&unchecked["is_checked"], &card["description"]["is_checked"]];
    assert_eq!(checked, [&Value::Bool(false), &Value::Bool(true)]);
    fs::write(&kept, stored).unwrap();
    let fails = |more: &[&str], code: i32, says: &str| {
        let output = mlpeek(home)
            .args([&["describe", study.as_str()], more].concat())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    };
    fails(&[], 2, "--offline for the nearest of a list of phrases");
    fails(
        &["--phrases", &list],
        2,
        "--phrases has no effect without --offline",
    );
    fails(&["--offline", "--sentences"], 2, "--sentences");
    // What others published is taken as it is, of features that there are.
    let published = home.join("published.jsonl").display().to_string();
    fs::write(
        &published,
        "{\"index\": \"1\", \"description\": \"the sea\"}\n",
    )
    .unwrap();
    lines(
        home,
        &["describe", &study, "--import", &published, "--json"],
    );
    let card = &lines(home, &["feature", &study, "1", "--json"])[0];
    assert_eq!(card["description"]["input"], "the sea");
    let judge = card["description"]["judge"].as_str().unwrap();
    assert_eq!(judge, format!("imported from {published}"));
    fs::write(&published, "[{\"index\": 4, \"description\": \"x\"}]").unwrap();
    fails(&["--import", &published], 2, "describes feature 4, and");
    fails(&["--set", "fit"], 2, "--import");
    fs::write(&list, "one\n").unwrap();
    fails(
        &["--offline", "--encoder", encoder, "--phrases", &list],
        2,
        "fewer than two",
    );
    // Another direction takes the number: what was said is not said of it.
    let again = [
        "fit",
        &study,
        "-k",
        "4",
        "--sparsity",
        "0.2",
        "--max-sweeps",
        "8",
        "--fresh",
        "--seed",
        "7",
        "--json",
    ];
    lines(home, &again);
    for id in ["0", "1", "2", "3"] {
        let card = &lines(home, &["feature", &study, id, "--json"])[0];
        assert_eq!(card["description"], Value::Null, "feature {id}");
    }
}

#[test]
fn features_are_described_scored_and_paid_for_once() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let study = collected(home, 60);
    lines(
        home,
        &[
            "fit",
            &study,
            "--features",
            "8",
            "--sparsity",
            "0.2",
            "--max-sweeps",
            "20",
            "--json",
        ],
    );
    let (url, asked) = judge();
    let describe = |more: &[&str]| {
        let base = [
            "describe",
            &study,
            "0,3",
            "--endpoint",
            &url,
            "--judge-model",
            "m",
            "--key-env",
            "JUDGE_KEY",
            "--json",
        ];
        lines(home, &[&base[..], more].concat())
    };
    let dry = describe(&["--dry-run"]);
    assert_eq!(
        (dry.len(), asked.load(Ordering::SeqCst)),
        (1, 0),
        "an estimate asks nobody"
    );
    let cost = &dry[0];
    let calls = cost["call_count"].as_u64().unwrap();
    assert!(
        calls >= 8 && cost["prompt_token_count"].as_u64().unwrap() > 100 * calls / 2,
        "{cost}"
    );

    let described = describe(&[]);
    assert_eq!(
        asked.load(Ordering::SeqCst) as u64,
        calls,
        "as many calls as were said"
    );
    assert_eq!(
        (
            described.len(),
            &described[1]["feature"],
            &described[2]["feature"]
        ),
        (4, &json!(0), &json!(3))
    );
    let found = &described[1]["description"];
    assert_eq!(
        found["input"], "words of [2Jone kind",
        "no control character gets through"
    );
    assert_eq!(found["detection_score"]["true_positive_rate"], 1.0);
    assert_eq!(
        found["fuzzing_score"]["balanced_accuracy"],
        Value::Null,
        "a missing verdict is no number"
    );
    assert!(
        found["fuzzing_score"]["missing_count"].as_u64().unwrap() > 0
            && !found["errors"].as_array().unwrap().is_empty()
    );
    assert_eq!(described[3]["prompt_token_count"], 10 * calls);

    let again = describe(&[]);
    // What held no verdicts is asked again, and nothing else.
    let unanswered = again[0]["call_count"].as_u64().unwrap();
    assert!(
        unanswered > 0 && unanswered < calls / 2,
        "{unanswered} of {calls}"
    );
    assert_eq!(asked.load(Ordering::SeqCst) as u64, calls + unanswered);
    assert_eq!(again[1], described[1]);
    let card = lines(home, &["feature", &study, "3", "--json"]);
    assert_eq!(card[0]["description"]["input"], found["input"]);
    assert!(card[0]["name"].is_null(), "a person's name is left alone");

    // Sentences for each description, told apart by the direction itself.
    let before = asked.load(Ordering::SeqCst);
    let with = describe(&["--sentences", "--no-score"]);
    let more = asked.load(Ordering::SeqCst) - before;
    assert!(
        more > 0 && more <= with[0]["call_count"].as_u64().unwrap() as usize,
        "no more calls than were said"
    );
    for side in ["input_sentences", "output_sentences"] {
        let found = &with[1]["description"][side];
        let mean = |kind: &str| {
            let scores: Vec<f64> = found[kind]
                .as_array()
                .unwrap()
                .iter()
                .map(|s| s["score"].as_f64().unwrap())
                .collect();
            assert_eq!(scores.len(), 5, "no more than were asked for");
            assert!(scores.iter().all(|s| (-1.0..=1.0).contains(s)));
            scores.iter().sum::<f64>() / 5.0
        };
        let (activating, neutral) = (mean("activating"), mean("neutral"));
        match found["s_cd"].as_f64() {
            Some(s_cd) => assert!((s_cd - (activating / neutral).ln()).abs() < 1e-9, "{found}"),
            None => assert!(activating <= 0.0 || neutral <= 0.0, "{found}"),
        }
    }
    let card = lines(home, &["feature", &study, "3", "--json"]);
    assert!(
        card[0]["description"]["input_sentences"]["activating"].is_array(),
        "it is kept"
    );
    // Any direction can be described.
    let other = [
        "describe",
        &study,
        "diffmean:water,neuron:5",
        "--no-score",
        "--json",
        "--key-env",
        "JUDGE_KEY",
    ];
    let other = lines(
        home,
        &[&other[..], &["--endpoint", &url, "--judge-model", "m"]].concat(),
    );
    assert_eq!(
        (&other[1]["set"], &other[1]["title"], &other[2]["feature"]),
        (&json!("diffmean"), &json!("water"), &json!(5))
    );
    let card = lines(home, &["feature", &study, "neuron:5", "--json"]);
    assert!(card[0]["description"]["input"].is_string());

    let mut all = Vec::new();
    files(home, &mut all);
    for file in all {
        assert!(
            !String::from_utf8_lossy(&fs::read(&file).unwrap()).contains(KEY),
            "{}",
            file.display()
        );
    }
}

#[test]
fn an_endpoint_that_is_not_there_is_told_in_one_line() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let study = fitted(home, 12);
    let fails = |args: &[&str], code: i32, wanted: &str| {
        let base = ["--judge-model", "m", "--key-env", "JUDGE_KEY"];
        let output = mlpeek(home)
            .args([args, &base[..]].concat())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(
            stderr.lines().last().unwrap().contains(wanted) && !stderr.contains(KEY),
            "{stderr}"
        );
    };
    fails(
        &["describe", &study, "0", "--endpoint", "nowhere at all"],
        2,
        "is no address",
    );
    fails(
        &[
            "describe",
            &study,
            "7",
            "--endpoint",
            "http://127.0.0.1:1/v1",
        ],
        2,
        "has no direction '7'",
    );
}

/// What comes of a judge's mode: a description and ratings, or words of the error.
struct Outcome(
    &'static str,
    Result<&'static str, &'static str>,
    Result<(), &'static str>,
);

#[test]
fn a_judge_that_misbehaves_is_read_or_told() {
    const MONTHS: Result<&str, &str> = Ok("months of the year");
    const MORE: &str = "--judge-max-tokens";
    let outcomes = [
        Outcome("ok", MONTHS, Ok(())),
        Outcome("think", MONTHS, Ok(())),
        Outcome("thinkplain", MONTHS, Ok(())),
        Outcome("thinkcut", Err(MORE), Err(MORE)),
        Outcome("thinkopen", Err(MORE), Err(MORE)),
        Outcome("cut", Err(MORE), Err(MORE)),
        Outcome("empty", Err(MORE), Err(MORE)),
        Outcome("null", Err(MORE), Err(MORE)),
        Outcome("array", MONTHS, Ok(())),
        Outcome("usage", MONTHS, Ok(())),
        Outcome(
            "err200",
            Err("Insufficient credits"),
            Err("Insufficient credits"),
        ),
        Outcome("nokey", Err("Incorrect API key"), Err("Incorrect API key")),
        Outcome(
            "forbidden",
            Err("not in your country"),
            Err("not in your country"),
        ),
        Outcome(
            "nomodel",
            Err("model 'm' not found"),
            Err("model 'm' not found"),
        ),
        Outcome("maxtok", MONTHS, Ok(())),
        Outcome("temp", MONTHS, Ok(())),
        Outcome("redirect", MONTHS, Ok(())),
        Outcome(
            "elsewhere",
            Err("https://judge.invalid/v1"),
            Err("https://judge.invalid/v1"),
        ),
        Outcome("html", Err("Please log in"), Err("Please log in")),
        Outcome(
            "stream",
            Err("streams its answer"),
            Err("streams its answer"),
        ),
        Outcome("retrydate", MONTHS, Ok(())),
        Outcome("fenced", MONTHS, Ok(())),
        Outcome("sure", MONTHS, Ok(())),
        Outcome("wide", MONTHS, Ok(())),
        Outcome("outof", MONTHS, Err("no rating in the answer")),
        Outcome("esc", Ok("[31mmonths of the year"), Ok(())),
    ];
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let study = fitted(home, 60);
    let (url, asked) = support::judge::misbehaving();
    for Outcome(mode, described, rated) in outcomes {
        let endpoint = format!("{url}/{mode}/v1");
        let judge = [
            "--endpoint",
            &endpoint,
            "--judge-model",
            "m",
            "--key-env",
            "JUDGE_KEY",
            "--json",
        ];
        let run = |command: &[&str]| {
            let output = mlpeek(home)
                .args([command, &judge[..]].concat())
                .output()
                .unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            let stdout = String::from_utf8(output.stdout).unwrap();
            let lines: Vec<Value> = stdout
                .lines()
                .map(|l| serde_json::from_str(l).unwrap())
                .collect();
            (lines, stderr, output.status.code())
        };
        let (found, stderr, code) = run(&["describe", &study, "0", "--no-score"]);
        match described {
            Ok(text) => {
                assert_eq!(code, Some(0), "{mode}: {stderr}");
                assert_eq!(
                    (
                        &found[1]["description"]["input"],
                        &found[1]["description"]["output"]
                    ),
                    (&json!(text), &json!(text)),
                    "{mode}"
                );
            }
            Err(words) => {
                assert!(
                    code == Some(1) && stderr.lines().last().unwrap().contains(words),
                    "{mode}: {stderr}"
                );
                assert!(
                    found.iter().all(|l| l["description"]["input"].is_null()),
                    "{mode}: {found:?}"
                );
            }
        }
        let steering = [
            "--methods",
            "fit",
            "--kl",
            "0.05",
            "--samples",
            "1",
            "--max-tokens",
            "2",
            "--prompt",
            "- it",
            "--prompt",
            "a",
        ];
        let (found, stderr, code) = run(&[&["eval", "steering", &study][..], &steering].concat());
        let judgements = || found.iter().filter(|l| l["event"] == "text");
        match rated {
            Ok(()) => {
                assert_eq!(code, Some(0), "{mode}: {stderr}");
                let one = |j: &Value| j["concept"] == 1.0 && j["fluency"] == 1.0;
                assert!(
                    judgements().count() > 0 && judgements().all(one),
                    "{mode}: {found:?}"
                );
            }
            Err(words) => {
                assert!(
                    code == Some(1) && stderr.lines().last().unwrap().contains(words),
                    "{mode}: {stderr}"
                );
                assert!(
                    judgements().all(|j| j["concept"].is_null()),
                    "{mode}: {found:?}"
                );
            }
        }
        assert!(!stderr.contains(KEY));
    }
    // A form that is refused is refused once a run.
    let asked = asked.lock().unwrap();
    for mode in ["maxtok", "temp"] {
        assert_eq!(asked[mode], asked["ok"] + 2, "{mode}");
    }
}

#[test]
fn a_matrix_without_tokens_is_not_described() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let header = format!(
        "{:<117}\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 3), }"
    );
    let values: Vec<u8> = (0..18)
        .flat_map(|i| (i as f32 % 5.0).to_le_bytes())
        .collect();
    let npy = [
        b"\x93NUMPY\x01\0\x76\0".as_slice(),
        header.as_bytes(),
        &values,
    ]
    .concat();
    let (path, other) = (home.join("x.npy"), home.join("y.npy"));
    fs::write(&path, &npy).unwrap();
    let study = home.join("study").display().to_string();
    lines(
        home,
        &["import", path.to_str().unwrap(), "--out", &study, "--json"],
    );
    lines(
        home,
        &[
            "fit",
            &study,
            "--features",
            "2",
            "--sparsity",
            "0.9",
            "--max-sweeps",
            "3",
            "--json",
        ],
    );
    let endpoint = ["--endpoint", "http://127.0.0.1:1/v1", "--judge-model", "m"];
    let output = mlpeek(home)
        .args([&["describe", &study][..], &endpoint].concat())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1)
            && stderr.contains("imported as a matrix and has no tokens"),
        "{stderr}"
    );
    // Another matrix is not offered an option that import has not.
    fs::write(
        &other,
        [&npy[..npy.len() - 4], &9f32.to_le_bytes()].concat(),
    )
    .unwrap();
    let output = mlpeek(home)
        .args(["import", other.to_str().unwrap(), "--out", &study])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success()
            && !stderr.contains("--append")
            && stderr.contains("another directory"),
        "{stderr}"
    );
}
