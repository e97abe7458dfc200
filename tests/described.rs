//! `mlpeek eval steering --concepts descriptions` end to end on a small random model, with a judge on a
//! loopback socket and with the tiny encoder.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use support::program::{events, mlpeek, parsed};
use tempfile::TempDir;

const KEY: &str = "sk-not-to-be-seen";
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/encoder");

/// A fitted study of three labels with words of their own.
struct Made {
    dir: TempDir,
    study: String,
}

impl Made {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let sentences = |words: [&str; 3]| -> Vec<String> {
            let one = |i: usize| format!("the {} and the {} {i}", words[i % 3], words[(i + 1) % 3]);
            (0..20).map(one).collect()
        };
        let corpus = json!({"sea": sentences(["tide", "boat", "harbour"]), "days": sentences(["monday", "met", "again"]),
            "words": sentences(["longer", "text", "goes"])});
        let model = support::tiny_model(dir.path()).display().to_string();
        let data = dir.path().join("corpus.json").display().to_string();
        fs::write(&data, corpus.to_string()).unwrap();
        let study = dir.path().join("study").display().to_string();
        let made = Self { dir, study };
        let study = made.study.as_str();
        made.lines(&[
            "collect", "--model", &model, "-l", "1", "--data", &data, "--out", study,
        ]);
        let fit = [
            "fit",
            study,
            "-k",
            "5",
            "--sparsity",
            "0.1",
            "--max-sweeps",
            "20",
        ];
        made.lines(&[&fit[..], &["--name", "k5"]].concat());
        made
    }

    fn output(&self, args: &[&str]) -> (Vec<Value>, String, i32) {
        let output = mlpeek(self.dir.path())
            .env("JUDGE_KEY", KEY)
            .env("NO_PROXY", "*")
            .args(args)
            .arg("--json")
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let code = output.status.code().unwrap();
        (parsed(output.stdout), stderr, code)
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let (lines, stderr, code) = self.output(args);
        assert_eq!(code, 0, "{stderr}");
        lines
    }

    fn judged(&self, more: &[&str]) -> Vec<&'static str> {
        let mut all = vec!["eval", "steering"];
        all.push(String::leak(self.study.clone()));
        all.extend([
            "--concepts",
            "descriptions",
            "--kl",
            "0.02,0.05",
            "--samples",
            "2",
            "--max-tokens",
            "3",
        ]);
        all.extend(more.iter().map(|s| &*String::leak((*s).to_owned())));
        all
    }
}

/// A judge that gives each feature a description of its own, writes sentences and rates texts, with
/// the reason first.
fn judge() -> (String, Arc<AtomicUsize>) {
    let described = AtomicUsize::new(0);
    let answer = move |user: &str| match user {
        u if u.contains("plain, varied English sentences") => {
            let word = if u.contains("have nothing to do with") {
                "bread"
            } else {
                "boat harbour"
            };
            (1..=8)
                .map(|i| format!("{i}. {word} {word} {i}\n"))
                .collect()
        }
        u if u.contains("Begin your answer") => {
            format!(
                "Description: kind {}",
                described.fetch_add(1, Ordering::Relaxed)
            )
        }
        u => {
            assert!(
                u.contains("First explain your rating") && u.contains("model wrote"),
                "{u}"
            );
            "It does, as far as it goes.\nRating: 1".to_owned()
        }
    };
    support::judge::serve(KEY, Box::new(move |_, user| Some((200, answer(user)))))
}

#[test]
fn an_endpoint_describes_writes_and_judges_each_feature_on_both_sides() {
    let made = Made::new();
    let (url, calls) = judge();
    let judge = [
        "--endpoint",
        &url,
        "--judge-model",
        "m",
        "--key-env",
        "JUDGE_KEY",
        "--name",
        "e",
    ];
    let judge = [&judge[..], &["--sentences", "3", "--sample", "3"]].concat();
    let dry = made.lines(&made.judged(&[&judge[..], &["--dry-run"]].concat()));
    assert_eq!(calls.load(Ordering::Relaxed), 0, "a price costs nothing");
    let price = events(&dry, "priced")[0];
    // 3 features and 3 random directions, and a difference in means a side; 2 targets, 2 signs, 2 texts.
    assert_eq!(
        [
            "feature_count",
            "undescribed_count",
            "direction_count",
            "text_count"
        ]
        .map(|f| price[f].as_u64().unwrap()),
        [3, 3, 12, 96]
    );
    let most = events(&dry, "estimate")[0]["call_count"].as_u64().unwrap();
    // Descriptions, sentences, concepts (features and random on two sides), fluency.
    assert_eq!(most, 6 + 12 + (2 * 6 + 6) * 8 + 12 * 8);

    let lines = made.lines(&made.judged(&judge));
    let asked = calls.load(Ordering::Relaxed) as u64;
    assert!(asked > 0 && asked <= most, "{asked} of {most}");
    let concepts = events(&lines, "concept");
    assert_eq!(concepts.len(), 6);
    assert!(
        concepts
            .iter()
            .all(|c| c["concept_text"].as_str().unwrap().starts_with("kind "))
    );
    let texts: Vec<&str> = concepts
        .iter()
        .map(|c| c["concept_text"].as_str().unwrap())
        .collect();
    assert!(
        texts
            .iter()
            .enumerate()
            .all(|(i, t)| !texts[..i].contains(t)),
        "{texts:?}"
    );
    let sentences = events(&lines, "sentences");
    let row = |method: &str, side: &str| {
        sentences
            .iter()
            .find(|s| s["method"] == method && s["side"] == side)
            .unwrap_or_else(|| panic!("{method} {side}"))
    };
    for side in ["inputs", "outputs"] {
        for method in ["k5", "diffmean", "random"] {
            assert_eq!(row(method, side)["feature_count"], 3, "{method} {side}");
        }
        // It was made of sentences of the same words: it tells the others that it has not seen.
        assert_eq!(row("diffmean", side)["above_0"], 1.0);
    }
    let last = events(&lines, "steering");
    assert_eq!(last.len(), 2, "a table a side");
    for (table, side) in last.iter().zip(["inputs", "outputs"]) {
        let judge = table["judge"].as_str().unwrap();
        assert!(
            judge.starts_with("m at ")
                && judge.ends_with(&format!(", explaining first, by descriptions of {side}")),
            "{judge}"
        );
        let methods: Vec<&Value> = events(&lines, "method")
            .into_iter()
            .filter(|m| m["judge"] == judge)
            .collect();
        let names: Vec<_> = methods
            .iter()
            .map(|m| m["method"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["k5", "diffmean", "random"]);
        for method in methods.iter().filter(|m| m["text_count"] != 0) {
            assert_eq!(
                method["best_interval"]["mean"], 1.0,
                "both ratings are 1: {method}"
            );
            assert_eq!(method["unrated_count"], 0);
        }
        // Paired over features: the difference in means is of the same features.
        let differences = events(&lines, "difference");
        assert!(
            differences
                .iter()
                .any(|d| d["method"] == "k5" && d["against"] == "diffmean"),
            "{differences:?}"
        );
    }
    // Texts of features are written once and rated twice; those of a difference in means once.
    let written =
        fs::read_to_string(Path::new(&made.study).join("evaluations/e/texts.jsonl")).unwrap();
    let written: Vec<Value> = written
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let rated = events(&lines, "text");
    for text in written.iter().filter(|t| t["sign"] != 0) {
        let label = text["label"].as_str().unwrap();
        let same = |r: &&&Value| {
            r["label"] == label
                && r["method"] == text["method"]
                && r["kl_target"] == text["target"]
                && r["sign"] == text["sign"]
                && r["text_index"] == text["sample"]
        };
        let times = if label.contains(" of ") { 1 } else { 2 };
        assert_eq!(rated.iter().filter(same).count(), times, "{label}");
    }
    // The negative side takes −α, whatever KL that has.
    let strengths =
        fs::read_to_string(Path::new(&made.study).join("evaluations/e/strengths.jsonl")).unwrap();
    let strengths: Vec<Value> = strengths
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    for positive in strengths.iter().filter(|s| s["sign"] == 1) {
        let same = |s: &&Value| {
            s["sign"] == -1
                && ["method", "label", "target"]
                    .iter()
                    .all(|f| s[*f] == positive[*f])
        };
        let negative = strengths.iter().find(same).unwrap();
        assert_eq!(
            negative["alpha"].as_f64().unwrap(),
            -positive["alpha"].as_f64().unwrap()
        );
        let alpha = positive["alpha"].as_f64().unwrap();
        assert!((1.0..=2000.0).contains(&alpha), "{alpha}");
        if positive["reached"] == true {
            let off = positive["kl"].as_f64().unwrap() - positive["target"].as_f64().unwrap();
            assert!(off.abs() < 0.01, "{positive}");
        }
    }
    // All of it again: nothing is asked, written or rated anew, and the tables are the same.
    let again = made.lines(&made.judged(&judge));
    assert_eq!(calls.load(Ordering::Relaxed) as u64, asked);
    assert!(events(&again, "text").is_empty());
    assert_eq!(events(&again, "method"), events(&lines, "method"));
}

#[test]
fn offline_a_feature_is_judged_by_the_nearest_phrase_and_sentences_of_the_corpus() {
    let made = Made::new();
    let list = made.dir.path().join("list.txt").display().to_string();
    fs::write(
        &list,
        "the tide and the boat\nmonday and we met\na longer text goes on\n",
    )
    .unwrap();
    let offline = [
        "--judge",
        "meaning",
        "--encoder",
        ENCODER,
        "--phrases",
        &list,
        "--name",
        "o",
    ];
    let (lines, notes, code) = made.output(&made.judged(&offline));
    assert_eq!(code, 0, "{notes}");
    for words in [
        "no more than the nearest of 3 phrases",
        "no one writes sentences offline",
        "sentence encoder encoder ",
    ] {
        assert!(notes.contains(words), "{words} is not in: {notes}");
    }
    let concepts = events(&lines, "concept");
    assert!(!concepts.is_empty());
    assert!(concepts.iter().all(|c| {
        c["described_by"]
            .as_str()
            .unwrap()
            .starts_with("nearest of 3 phrases")
    }));
    for table in events(&lines, "steering") {
        let judge = table["judge"].as_str().unwrap();
        assert!(
            judge.starts_with("meaning (encoder ") && judge.contains("by descriptions of "),
            "{judge}"
        );
        assert!(!table["unsteered"].is_null());
    }
    // The descriptions are the study's from now on.
    let card = &made.lines(&["feature", &made.study, "0"])[0];
    assert!(
        card["description"]["judge"]
            .as_str()
            .unwrap()
            .starts_with("nearest of 3 phrases")
    );
    let again = made.lines(&made.judged(&offline));
    assert!(events(&again, "text").is_empty(), "it goes on where it was");
}

#[test]
fn a_model_is_asked_in_words_for_both_descriptions_of_a_feature() {
    let made = Made::new();
    let list = made.dir.path().join("list.txt").display().to_string();
    fs::write(
        &list,
        "the tide and the boat\nmonday and we met\na longer text\n",
    )
    .unwrap();
    let offline = [
        "--judge",
        "meaning",
        "--encoder",
        ENCODER,
        "--phrases",
        &list,
    ];
    let asked = [&offline[..], &["--methods", "fit,prompt"]].concat();
    let (lines, notes, code) = made.output(&made.judged(&asked));
    assert_eq!(code, 0, "{notes}");
    assert!(notes.contains("has no chat template"), "{notes}");
    let described = |side: &str| {
        let of_side = |c: &&&Value| c["side"] == side;
        events(&lines, "concept").iter().filter(of_side).count()
    };
    let texts = events(&lines, "text");
    for side in ["inputs", "outputs"] {
        let of = |t: &&&Value| {
            let label = t["label"].as_str().unwrap();
            t["method"] == "prompt" && label.ends_with(&format!(" of {side}"))
        };
        // One prompt, two samples; a description that the judge cannot tell has none.
        let count = texts.iter().filter(of).count();
        assert!(
            count > 0 && count <= 2 * described(side) && count % 2 == 0,
            "{count}"
        );
    }
    let methods = events(&lines, "method");
    let of_words = methods.iter().filter(|m| m["method"] == "prompt");
    assert!(of_words.clone().count() == 2 && of_words.clone().all(|m| m["hook"].is_null()));
}

#[test]
fn the_papers_protocol_is_one_word_and_priced_first() {
    let made = Made::new();
    let steering = ["eval", "steering", &made.study, "--judge", "meaning"];
    let offline = [&steering[..], &["--encoder", ENCODER, "--dry-run"]].concat();
    let paper = made.lines(&[&offline[..], &["--protocol", "paper"]].concat());
    let priced = events(&paper, "priced")[0].clone();
    // Seven targets, both signs, eight texts of 50 tokens for every direction.
    let directions = priced["direction_count"].as_u64().unwrap();
    assert_eq!(priced["text_count"], json!(directions * 7 * 2 * 8));
    assert_eq!(priced["max_token_count"], 50);
    assert!(priced["estimated_s"].as_f64().unwrap() > 0.0);
    // The same in many words.
    let long = [&offline[..], &["--concepts", "descriptions"]].concat();
    let long = events(&made.lines(&long), "priced")[0].clone();
    for same in ["direction_count", "text_count", "feature_count"] {
        assert_eq!(priced[same], long[same], "{same}");
    }
    // Its numbers alone, for labels.
    let labels = ["--protocol", "paper", "--concepts", "labels", "--dry-run"];
    let labels = [&["eval", "steering", &made.study][..], &labels].concat();
    assert_eq!(events(&made.lines(&labels), "plan").len(), 1);
    let (_, said, code) = made.output(&["eval", "steering", &made.study, "--protocol", "paper"]);
    assert!(code == 2 && said.contains("--judge meaning"), "{said}");
    // Short of its numbers it runs whole, to S_CD and both tables.
    let run = [
        "--protocol",
        "paper",
        "--sample",
        "1",
        "--kl",
        "0.02",
        "--samples",
        "2",
    ];
    let run = [
        &steering[..],
        &["--encoder", ENCODER, "--max-tokens", "2"],
        &run,
    ]
    .concat();
    let found = made.lines(&run);
    assert!(!events(&found, "sentences").is_empty() && !events(&found, "steering").is_empty());
}

#[test]
fn what_cannot_be_judged_by_descriptions_is_said_in_a_line() {
    let made = Made::new();
    let meaning = ["--judge", "meaning", "--encoder", ENCODER];
    let fails = |more: &[&str], code: i32, says: &str| {
        let (_, stderr, status) = made.output(&made.judged(more));
        assert_eq!(status, code, "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    };
    fails(&[], 2, "words know labels alone");
    fails(&["--judge", "words"], 2, "words know labels alone");
    fails(
        &[&meaning[..], &["--labels", "sea"]].concat(),
        2,
        "--labels is of --concepts labels",
    );
    fails(
        &[&meaning[..], &["--choose", "output"]].concat(),
        2,
        "--choose is of --concepts labels",
    );
    fails(
        &[&meaning[..], &["--methods", "shuffled"]].concat(),
        2,
        "has no descriptions of its own",
    );
    fails(
        &[&meaning[..], &["--methods", "random,diffmean"]].concat(),
        2,
        "nothing has a description of its own",
    );
    fails(
        &["--judge", "meaning", "--encoder", &made.study],
        1,
        "config.json is missing",
    );
    let (_, stderr, code) = made.output(&["eval", "steering", &made.study, "--sample", "3"]);
    assert!(
        code == 2 && stderr.contains("--sample has no effect without --concepts descriptions"),
        "{stderr}"
    );
}
