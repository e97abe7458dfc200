//! `mlpeek eval` end to end on a small random model: JSON fields, going on after a stop, bad input.

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use assert_cmd::Command;
use serde_json::{Value, json};
use support::program::{self, events};
use tempfile::TempDir;

const KEY: &str = "sk-not-to-be-seen";

fn mlpeek(home: &Path) -> Command {
    let mut command = program::mlpeek(home);
    command.env("JUDGE_KEY", KEY).env("NO_PROXY", "*");
    command
}

/// A fitted study of three labels with words of their own and one label of a single sentence.
struct Made {
    dir: TempDir,
    study: String,
}

impl Made {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let sentences = |words: [&str; 3]| -> Vec<String> {
            (0..24)
                .map(|i| {
                    format!(
                        "{} and {} {i} {}",
                        words[i % 3],
                        words[(i + 1) % 3],
                        "so it was".repeat(1 + i % 2)
                    )
                })
                .collect()
        };
        let corpus = json!({"sea": sentences(["tide", "boat", "wave"]), "days": sentences(["monday", "friday", "noon"]),
            "food": sentences(["bread", "soup", "rice"]), "lonely": ["one sentence alone"]});
        Self::of(dir, &corpus)
    }

    fn of(dir: TempDir, corpus: &Value) -> Self {
        let model = support::tiny_model(dir.path()).display().to_string();
        let data = dir.path().join("corpus.json");
        fs::write(&data, corpus.to_string()).unwrap();
        let study = dir.path().join("study").display().to_string();
        let data = data.display().to_string();
        let made = Self { dir, study };
        made.lines(&[
            "collect",
            "--model",
            &model,
            "--layer",
            "1",
            "--data",
            &data,
            "--out",
            &made.study,
            "--json",
        ]);
        made.lines(&[
            "fit",
            &made.study,
            "-k",
            "5",
            "--sparsity",
            "0.1",
            "--max-sweeps",
            "20",
            "--json",
        ]);
        made
    }

    fn output(&self, args: &[&str]) -> (Vec<Value>, String, i32) {
        let output = mlpeek(self.dir.path()).args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        let lines = stdout
            .lines()
            .filter_map(|l| serde_json::from_str(l).ok())
            .collect();
        (lines, stderr, output.status.code().unwrap())
    }

    fn lines(&self, args: &[&str]) -> Vec<Value> {
        let (lines, stderr, code) = self.output(args);
        assert_eq!(code, 0, "{stderr}");
        lines
    }

    fn fails(&self, args: &[&str], code: i32, says: &str) {
        let (_, stderr, status) = self.output(args);
        assert_eq!(status, code, "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn detection_scores_every_kind_of_direction() {
    let made = Made::new();
    let (lines, notes, _) = made.output(&["eval", "detection", &made.study, "--json"]);
    let methods = events(&lines, "method");
    let names: Vec<_> = methods
        .iter()
        .map(|m| m["method"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "k5",
            "diffmean",
            "kmeans",
            "kmeans-cut",
            "random",
            "neuron",
            "k5, shuffled labels"
        ]
    );
    for method in &methods {
        let result = method;
        assert_eq!(result["hook"], "blocks.1.mlp.hook_post");
        let labels = result["labels"].as_array().unwrap();
        assert_eq!(labels.len(), 3, "the label of one sentence is left out");
        for share in ["s_cd_undefined", "above_0"] {
            assert!((0.0..=1.0).contains(&result[share].as_f64().unwrap()));
        }
        let mean: f64 = labels
            .iter()
            .map(|l| l["auroc"].as_f64().unwrap())
            .sum::<f64>()
            / 3.0;
        assert!((result["auroc_interval"]["mean"].as_f64().unwrap() - mean).abs() < 1e-9);
        assert!(labels[0]["hard_accuracy"].is_number());
    }
    assert!(
        notes.contains("fewer than 4 sentences each: lonely"),
        "{notes}"
    );
    // Words that no other label has are told apart by a direction made for it.
    let supervised = methods[1]["auroc_interval"]["mean"].as_f64().unwrap();
    assert!(supervised > 0.7, "{supervised}");
    assert_eq!(events(&lines, "difference").len(), 6);
}

#[test]
fn fits_of_several_seeds_are_one_line() {
    let made = Made::new();
    let fit = [
        "fit",
        &made.study,
        "-k",
        "5",
        "--sparsity",
        "0.1",
        "--max-sweeps",
        "20",
        "--seed",
        "7",
        "--name",
        "other",
    ];
    made.lines(&[&fit[..], &["--json"]].concat());
    let lines = |methods: &str, command: &[&str]| {
        made.lines(&[command, &["--methods", methods, "--json"]].concat())
    };
    let detection = ["eval", "detection", &made.study];
    let found = lines("fit:k5+fit:other,fit:k5,fit:other,random", &detection);
    let rows: Vec<&Value> = events(&found, "method").into_iter().collect();
    let names: Vec<_> = rows.iter().map(|r| r["method"].as_str().unwrap()).collect();
    assert_eq!(names, ["k5+other", "k5", "other", "random"]);
    for l in 0..3 {
        let auroc = |row: usize| rows[row]["labels"][l]["auroc"].as_f64().unwrap();
        assert!((auroc(0) - (auroc(1) + auroc(2)) / 2.0).abs() < 1e-12);
        assert_eq!(
            rows[0]["labels"][l]["features"].as_array().unwrap().len(),
            2
        );
    }
    let steering = [
        "eval",
        "steering",
        &made.study,
        "--kl",
        "0.02",
        "--samples",
        "0",
    ];
    let rise = |methods: &str| {
        let found = lines(methods, &steering);
        let rise = events(&found, "rise")[0];
        (
            rise["method"].as_str().unwrap().to_owned(),
            rise["rise_interval"]["mean"].as_f64().unwrap(),
        )
    };
    let (name, both) = rise("fit:k5+fit:other,random");
    let each = [rise("fit:k5"), rise("fit:other")];
    assert_eq!(name, "k5+other");
    assert!(
        (both - (each[0].1 + each[1].1) / 2.0).abs() < 1e-9,
        "{both}, {each:?}"
    );
    let absent = [
        &detection[..],
        &["--methods", "fit:k5+diffmean@1.hook_resid_post"],
    ]
    .concat();
    made.fails(&absent, 2, "no such hook");
}

#[test]
fn the_papers_protocol_is_one_word_and_its_size_is_said_first() {
    let made = Made::new();
    let plan = |more: &[&str]| {
        let asked = [
            "eval",
            "steering",
            &made.study,
            "--methods",
            "fit,random",
            "--concepts",
            "labels",
            "--dry-run",
            "--json",
        ];
        made.lines(&[&asked[..], more].concat())[0].clone()
    };
    let short = plan(&[]);
    let directions = short["direction_count"].as_u64().unwrap();
    // Four prompts: one text each, or two of the paper's eight.
    assert_eq!(
        (&short["text_count"], &short["max_token_count"]),
        (&json!(directions * 2 * 4 * 4), &json!(30))
    );
    let paper = plan(&["--protocol", "paper"]);
    assert_eq!(
        (&paper["text_count"], &paper["max_token_count"]),
        (&json!(directions * 2 * 7 * 8), &json!(50))
    );
    let mine = plan(&["--protocol", "paper", "--kl", "0.1", "--max-tokens", "9"]);
    assert_eq!(
        (&mine["text_count"], &mine["max_token_count"]),
        (&json!(directions * 2 * 8), &json!(9))
    );
    made.fails(
        &["eval", "steering", &made.study, "--protocol", "mine"],
        2,
        "paper",
    );
}

#[test]
fn steering_goes_on_to_the_sample_where_it_stopped() {
    let made = Made::new();
    let args = [
        "eval",
        "steering",
        &made.study,
        "--methods",
        "fit,diffmean,random",
        "--kl",
        "0.02,0.05",
        "--prompt",
        "the sea",
        "--prompt",
        "on day",
        "--samples",
        "2",
        "--max-tokens",
        "5",
        "--batch",
        "3",
        "--name",
        "once",
        "--json",
    ];
    let first = made.lines(&args);
    let texts = events(&first, "text");
    let summary = events(&first, "steering")[0];
    let unreached: u64 = summary["unreached"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| u["unreached_count"].as_u64().unwrap())
        .sum();
    // 3 labels × 3 methods × 2 signs × 2 targets, each of 2 prompts × 2 samples where it was
    // reached.
    assert_eq!(texts.len() as u64, (36 - unreached) * 4);
    for text in &texts {
        let (kl, target) = (
            text["kl"].as_f64().unwrap(),
            text["kl_target"].as_f64().unwrap(),
        );
        assert!((kl - target).abs() < 0.02 * target, "{text}");
        assert_eq!(text["alpha"].as_f64().unwrap() > 0.0, text["sign"] == 1);
        assert!(
            (0.0..=2.0).contains(&text["concept"].as_f64().unwrap()) && text["fluency"].is_number(),
            "{text}"
        );
    }
    let again = made.lines(&args);
    assert!(
        events(&again, "text").is_empty(),
        "what is there is not done again"
    );
    assert_eq!(events(&again, "method"), events(&first, "method"));

    // A kill between the texts and their judgement, and in the middle of a line.
    let dir = Path::new(&made.study).join("evaluations/once");
    let cut = |name: &str, lines: usize, bytes: usize| {
        let whole = fs::read_to_string(dir.join(name)).unwrap();
        let keep: usize = whole.split_inclusive('\n').take(lines).map(str::len).sum();
        fs::write(dir.join(name), &whole.as_bytes()[..keep + bytes]).unwrap();
    };
    cut("texts.jsonl", 40, 25);
    cut("judged-offline.jsonl", 11, 7);
    cut("strengths.jsonl", 6, 0);
    let resumed = made.lines(&args);
    // Whatever the batches: the same texts.
    assert_eq!(events(&resumed, "method"), events(&first, "method"));
    let made_again = events(&resumed, "text").len();
    assert!(
        made_again >= texts.len() - 40 && made_again < texts.len(),
        "{made_again}"
    );

    let mut other = args;
    other[10] = "elsewhere";
    made.fails(&other, 1, "another evaluation");
}

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
fn methods_at_two_hooks_are_compared_and_their_spaces_told() {
    let dir = TempDir::new().unwrap();
    let sentences = |word: &str| {
        (0..12)
            .map(|i| format!("{word} {i} and {word}"))
            .collect::<Vec<_>>()
    };
    let made = Made::of(
        dir,
        &json!({"sea": sentences("tide"), "days": sentences("noon")}),
    );
    let model = made.dir.path().join("tiny-llama").display().to_string();
    let data = made.dir.path().join("corpus.json").display().to_string();
    let two = made.dir.path().join("two").display().to_string();
    made.lines(&[
        "collect", "--model", &model, "--layer", "1,2", "--data", &data, "--out", &two, "--json",
    ]);
    made.lines(&[
        "fit",
        &two,
        "--layer",
        "1",
        "-k",
        "3",
        "--sparsity",
        "0.2",
        "--max-sweeps",
        "5",
        "--name",
        "one",
        "--json",
    ]);
    made.lines(&[
        "fit",
        &two,
        "--layer",
        "2",
        "-k",
        "4",
        "--sparsity",
        "0.2",
        "--max-sweeps",
        "5",
        "--name",
        "new",
        "--json",
    ]);
    let methods =
        "fit:one,diffmean@1.mlp.hook_post,diffmean@2.mlp.hook_post,kmeans@1.mlp.hook_post,shuffled";
    let common = ["--methods", methods, "--json"];
    let (lines, notes, code) = made.output(&[&["eval", "detection", &two][..], &common].concat());
    assert_eq!(code, 0, "{notes}");
    assert!(notes.contains("different spaces"), "{notes}");
    let named: Vec<_> = events(&lines, "method")
        .iter()
        .map(|m| (m["method"].clone(), m["hook"].clone()))
        .collect();
    let hook = |layer: usize| json!(format!("blocks.{layer}.mlp.hook_post"));
    assert_eq!(named[1], (json!("diffmean@1.mlp.hook_post"), hook(1)));
    assert_eq!(named[2], (json!("diffmean@2.mlp.hook_post"), hook(2)));
    assert_eq!(
        named[4],
        (json!("one, shuffled labels"), hook(1)),
        "the first fit that is named is shuffled, not the newest"
    );

    let svg = made.dir.path().join("plot.svg").display().to_string();
    let steering = [
        "eval",
        "steering",
        &two,
        "--kl",
        "0.02",
        "--max-tokens",
        "2",
        "--svg",
        &svg,
    ];
    let lines = made.lines(&[&steering[..], &common].concat());
    let hooks: Vec<_> = events(&lines, "method")
        .iter()
        .map(|m| m["hook"].clone())
        .collect();
    assert_eq!(hooks, [hook(1), hook(1), hook(2), hook(1), hook(1)]);
    for rise in events(&lines, "rise") {
        let layer = if rise["method"] == "diffmean@2.mlp.hook_post" {
            2
        } else {
            1
        };
        assert_eq!(rise["hook"], hook(layer), "{rise}");
    }
    let plot = fs::read_to_string(&svg).unwrap();
    assert!(
        plot.contains("Steering at several hooks")
            && plot.contains("one at blocks.1")
            && plot.contains("unsteered")
    );
    made.fails(
        &[
            "eval",
            "detection",
            &two,
            "--methods",
            "diffmean@9.mlp.hook_post",
        ],
        2,
        "no such hook",
    );
    made.fails(
        &[
            "eval",
            "detection",
            &two,
            "--methods",
            "fit@1.mlp.hook_post",
        ],
        2,
        "leave out what follows @",
    );
    let card = made.lines(&["feature", &two, "diffmean@1.mlp.hook_post:sea", "--json"]);
    assert_eq!(card[0]["hook"], hook(1));
}

#[test]
fn decoder_rows_and_named_fits_are_directions_like_others() {
    let made = Made::new();
    let study = made.study.as_str();
    made.lines(&[
        "sae",
        "train",
        study,
        "--latents",
        "12",
        "--top-k",
        "3",
        "--epochs",
        "4",
        "--name",
        "t",
        "--json",
    ]);
    let listed = made.lines(&["features", study, "--directions", "sae:t", "--json"]);
    assert_eq!(
        listed.iter().filter(|l| l["feature"].is_number()).count(),
        12
    );
    let card = &made.lines(&["feature", study, "sae:t/3", "--json"])[0];
    assert_eq!(
        (&card["feature"], &card["hook"]),
        (&json!(3), &json!("blocks.1.mlp.hook_post"))
    );
    let steered = made.lines(&[
        "steer",
        study,
        "sae:t/3:0.5,fit:k5/1",
        "--alpha",
        "2",
        "--max-tokens",
        "2",
        "--json",
    ]);
    let sets: Vec<_> = steered[0]["directions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["set"].as_str().unwrap())
        .collect();
    assert_eq!(sets, ["sae:t", "k5"]);
    let usual = made.lines(&["eval", "detection", study, "--json"]);
    assert!(
        events(&usual, "method")
            .iter()
            .any(|m| m["method"] == "sae:t"),
        "an SAE is among the usual ones"
    );
    let found = made.lines(&[
        "eval",
        "detection",
        study,
        "--methods",
        "fit:k5,sae:t,sae",
        "--json",
    ]);
    let names: Vec<_> = events(&found, "method")
        .iter()
        .map(|m| m["method"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["k5", "sae:t", "sae:t"]);
    made.fails(&["feature", study, "sae:none/3"], 2, "no SAE 'none'");
    made.fails(&["feature", study, "sae:t/12"], 2, "0 to 11");
    made.fails(
        &["eval", "detection", study, "--methods", "fit:none"],
        2,
        "none",
    );
}

#[test]
fn a_direction_may_be_chosen_by_the_words_that_it_promotes() {
    let made = Made::new();
    let run = |choose: &[&str]| -> Vec<u64> {
        let plain = [
            "eval",
            "steering",
            &made.study,
            "--methods",
            "fit,diffmean,neuron",
            "--kl",
            "0.02",
            "--json",
        ];
        let lines = made.lines(&[&plain[..], &["--max-tokens", "2"], choose].concat());
        let texts = events(&lines, "text").into_iter();
        let features_of = |method: &str| -> Vec<u64> {
            let mine = texts.clone().filter(|t| t["method"] == method);
            mine.map(|t| t["feature"].as_u64().unwrap()).collect()
        };
        assert!(
            !features_of("k5").is_empty() && features_of("diffmean").iter().all(|d| *d < 3),
            "a label's own mean stays its own"
        );
        features_of("neuron")
    };
    // Of 64 neurons the one that a label excites most promotes its words most by chance alone.
    assert_ne!(run(&["--choose", "output"]), run(&[]));
}

#[test]
fn what_cannot_be_evaluated_is_said_in_a_line() {
    let made = Made::new();
    let study = made.study.as_str();
    let steering =
        |more: &[&'static str]| -> Vec<&str> { [&["eval", "steering", study][..], more].concat() };
    made.fails(
        &steering(&["--kl", "0"]),
        2,
        "a KL target must be a positive number",
    );
    made.fails(
        &steering(&["--top-p", "nan"]),
        2,
        "a share above 0 and at most 1",
    );
    // Before the model, which is not even there.
    let moved = made.dir.path().join("moved");
    fs::rename(made.dir.path().join("tiny-llama"), &moved).unwrap();
    made.fails(&steering(&["--prompt", "alone"]), 2, "at least two");
    made.fails(
        &["eval", "reuse", study, "--features", "0=a,1=b", "--kl", "0"],
        2,
        "must be a positive number",
    );
    fs::rename(&moved, made.dir.path().join("tiny-llama")).unwrap();
    made.fails(&steering(&["--prompt", "alone"]), 2, "at least two");
    for choose in ["input", "output", "effect"] {
        made.fails(
            &steering(&["--labels", "lonely", "--choose", choose]),
            1,
            "'lonely' has fewer than 4 sentences",
        );
    }
    made.fails(
        &steering(&["--labels", "mountains"]),
        2,
        "no label 'mountains'",
    );
    made.fails(
        &steering(&["--methods", "proof"]),
        2,
        "'proof' is no method",
    );
    made.fails(
        &steering(&["--choose", "both"]),
        2,
        "use input, output or effect",
    );
    let (lines, notes, code) = made.output(&steering(&[
        "--methods",
        "random",
        "--labels",
        "sea",
        "--kl",
        "100",
        "--max-tokens",
        "2",
        "--json",
    ]));
    assert_eq!(code, 0, "{notes}");
    assert!(
        events(&lines, "text").is_empty(),
        "a target out of reach has no texts"
    );
    let unreached = &events(&lines, "steering")[0]["unreached"][0];
    assert_eq!(
        (&unreached["unreached_count"], &unreached["target_count"]),
        (&json!(2), &json!(2))
    );
    assert!(
        unreached["largest_kl"].as_f64().unwrap() > 0.0
            && events(&lines, "method")[0]["best_interval"].is_null()
    );

    let dir = TempDir::new().unwrap();
    let bare = Made::of(
        dir,
        &json!(
            (0..8)
                .map(|i| json!({"text": format!("text {i} of none")}))
                .collect::<Vec<_>>()
        ),
    );
    bare.fails(&["eval", "detection", &bare.study], 1, "no labels");
    bare.fails(&["eval", "steering", &bare.study], 1, "no labels");
}

#[test]
fn reuse_steers_with_the_parts_of_a_family() {
    let made = Made::new();
    let run = |family: &[&str]| {
        made.output(
            &[
                &["eval", "reuse", &made.study, "--kl", "0.02", "--json"],
                family,
            ]
            .concat(),
        )
    };
    let (lines, notes, code) = run(&["--features", "0=a,1=b,2=c"]);
    assert_eq!(code, 0, "{notes}");
    let rows = events(&lines, "row");
    let parts: Vec<_> = rows.iter().map(|r| r["part"].as_str().unwrap()).collect();
    assert_eq!(
        parts,
        [
            "core",
            "exclusive",
            "whole",
            "exclusive",
            "whole",
            "exclusive",
            "whole"
        ]
    );
    for row in rows
        .iter()
        .filter(|r| r["words"].as_array().is_some_and(|w| !w.is_empty()))
    {
        assert!(
            (row["kl"].as_f64().unwrap() - 0.02).abs() < 0.001 || row["remark"].is_string(),
            "{row}"
        );
        assert_eq!(row["words"].as_array().unwrap().len(), 3);
        assert!(row["words"][0]["rank"].as_u64().unwrap() >= 1);
    }
    assert!(rows.iter().all(|r| r["kl_reached"].is_boolean()));
    let far = [
        "eval",
        "reuse",
        &made.study,
        "--kl",
        "100",
        "--features",
        "0=a,1=b",
        "--json",
    ];
    let far = made.lines(&far);
    let missed = events(&far, "reuse")[0];
    assert!(
        missed["whole"]["own"].is_null() && missed["whole"]["out_of_reach_count"] == 2,
        "{missed}"
    );
    let (_, notes, _) = run(&["--labels", "lonely,sea"]);
    assert!(notes.contains("lonely (1)"), "{notes}");
    let chosen = run(&["--labels", "sea,days,food"]).0;
    let members = events(&chosen, "reuse")[0]["members"]
        .as_array()
        .unwrap()
        .clone();
    let mut features: Vec<_> = members
        .iter()
        .map(|m| m["feature"].as_u64().unwrap())
        .collect();
    features.sort_unstable();
    features.dedup();
    assert_eq!(features.len(), 3, "each feature once: {members:?}");
    for (family, says) in [
        (&["--features", "1=a"][..], "at least two members"),
        (&["--features", "1=a,1=b"], "both feature 1"),
        (&["--features", "1=sat,2=sun"], "begin with the same token"),
        (&["--features", "9=a,1=b"], "0 to 4"),
        (&["--labels", "hills,sea"], "no label 'hills'"),
        (&["--node", "99"], "no node 99"),
    ] {
        let (_, stderr, code) = run(family);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}

#[test]
fn without_texts_it_tells_what_becomes_of_labels_own_words() {
    let made = Made::new();
    let steering = [
        "eval",
        "steering",
        &made.study,
        "--methods",
        "fit,diffmean,kmeans-cut",
        "--json",
    ];
    let run = |more: &[&str]| made.lines(&[&steering[..], more].concat());
    let found = run(&["--kl", "0.02,0.05", "--samples", "0"]);
    assert!(events(&found, "text").is_empty());
    let rises: Vec<&Value> = events(&found, "rise").into_iter().collect();
    assert_eq!(rises.len(), 6, "three methods at two targets: {found:?}");
    for rise in &rises {
        let mean = rise["rise_interval"]["mean"].as_f64().unwrap();
        assert!(
            (0.0..=1.0).contains(&mean) && rise["label_count"].as_u64().unwrap() >= 2,
            "{rise}"
        );
        assert_eq!(rise["first_minus"].is_null(), rise["method"] == "k5");
    }
    // The same α and words beside texts.
    let beside = run(&["--kl", "0.02,0.05", "--samples", "1", "--max-tokens", "2"]);
    assert_eq!(events(&beside, "rise"), events(&found, "rise"));
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

#[cfg(unix)]
#[test]
fn a_stopped_evaluation_tells_what_it_has_come_to() {
    use std::io::{BufRead, BufReader};
    let made = Made::new();
    let args = [
        "eval",
        "steering",
        &made.study,
        "--methods",
        "fit,random",
        "--kl",
        "0.02",
        "--samples",
        "200",
        "--json",
    ];
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("mlpeek"))
        .args(args)
        .env("MLPEEK_HOME", made.dir.path().join("home"))
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(
        lines
            .by_ref()
            .any(|line| line.contains("\"event\":\"text\""))
    );
    let pid = child.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let rest: Vec<Value> = lines
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let texts: u64 = events(&rest, "method")
        .iter()
        .map(|m| m["text_count"].as_u64().unwrap())
        .sum();
    assert!(texts > 0 && texts < 3 * 2 * 2 * 4 * 200, "{texts}");
    assert_eq!(events(&rest, "steering")[0]["stopped"], true);
}

/// The files of what was measured, by name.
fn measured(study: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(study).join("measured");
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn what_steers_by_design_stands_beside_the_same_choice_among_random_directions() {
    let made = Made::new();
    made.fails(
        &["eval", "detection", &made.study, "--methods", "mix"],
        1,
        "mlpeek effects",
    );
    let steering = ["eval", "steering", &made.study, "--kl", "0.02"];
    let methods = ["--methods", "diffmean,textgrad-cut,mix,effect"];
    let ask = [&steering[..], &["--samples", "0", "--json"], &methods].concat();
    made.fails(
        &[&ask[..], &["--choose-prompt", "I think that"]].concat(),
        2,
        "cannot both choose and be reported on",
    );
    let found = made.lines(&ask);
    let all = events(&found, "measure");
    let rows_of = |measure: &str| -> Vec<&Value> {
        let rows = all.iter().filter(|m| m["measure"] == measure);
        rows.copied().collect()
    };
    let names: Vec<&str> = rows_of("own")
        .iter()
        .map(|m| m["method"].as_str().unwrap())
        .collect();
    let wanted = [
        "diffmean",
        "textgrad-cut",
        "mix",
        "effect",
        "mix@random",
        "effect@random",
    ];
    assert_eq!(names, wanted);
    let rises = events(&found, "rise");
    for (row, rise) in rows_of("rise").iter().zip(&rises) {
        assert_eq!(row["value_interval"], rise["rise_interval"]);
    }
    for row in &all {
        let first = row["method"] == "diffmean";
        assert_eq!(row["minus_against"].is_null(), first, "{row}");
        if !first {
            assert_eq!(
                (&row["against"], &row["comparison_count"]),
                (&json!("diffmean"), &json!(5))
            );
            assert!(row["adjusted_p"].as_f64() >= row["p"].as_f64(), "{row}");
        }
    }
    // A gradient is told by its own words: at the top of all tokens' changes.
    let textgrad = rises
        .iter()
        .find(|r| r["method"] == "textgrad-cut")
        .unwrap();
    assert!(
        textgrad["rise_interval"]["mean"].as_f64().unwrap() > 0.6,
        "{textgrad}"
    );

    // Cut short, it goes on from what was measured, to the same bytes; the table is the same.
    let whole = measured(&made.study);
    assert!(
        whole.len() >= 3,
        "gradients, effects of features and of random directions"
    );
    for (path, bytes) in &whole {
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    fs::remove_dir_all(Path::new(&made.study).join("evaluations")).unwrap();
    let again = made.lines(&ask);
    assert_eq!(events(&again, "measure"), all);
    for (path, bytes) in &whole {
        assert_eq!(fs::read(path).unwrap().len(), bytes.len(), "{path}");
    }

    // Measured once, mixes are read without asking the model again.
    let chosen = [
        &steering[..],
        &["--samples", "0", "--choose", "effect", "--json"],
    ]
    .concat();
    let found = made.lines(&[&chosen[..], &["--methods", "fit,diffmean,random"]].concat());
    let names: Vec<&str> = events(&found, "rise")
        .iter()
        .map(|m| m["method"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["k5", "diffmean", "random", "effect@random"]);
}

#[test]
fn a_mix_tells_its_recipe_and_a_measured_feature_what_it_moves() {
    let made = Made::new();
    // A label that is not there is said before the model is asked about the others.
    for command in ["feature", "steer"] {
        made.fails(
            &[command, &made.study, "textgrad:nothing"],
            2,
            "no direction 'nothing'",
        );
    }
    assert!(!Path::new(&made.study).join("measured").exists());
    let before = &made.lines(&["feature", &made.study, "2", "--json"])[0];
    assert!(before["raised"].is_null() && before["recipe"] == json!([]));
    let effects = made.lines(&["effects", &made.study, "--json"]);
    assert_eq!(effects.len(), 5);
    let after = &made.lines(&["feature", &made.study, "2", "--json"])[0];
    for side in ["raised", "lowered"] {
        assert_eq!(after[side][0], effects[2][side][0]);
    }
    let kl = effects[2]["kl"].as_f64().unwrap();
    assert!((kl / 0.25).ln().abs() < 0.3, "{kl}");

    let mix = &made.lines(&["feature", &made.study, "mix:sea", "--json"])[0];
    let parts = mix["recipe"].as_array().unwrap();
    assert!(parts.len() > 1 && parts.len() <= 5, "{mix}");
    let few = &made.lines(&["feature", &made.study, "effect:sea", "--json"])[0];
    let one = few["recipe"].as_array().unwrap();
    assert_eq!(
        (one.len(), one[0]["weight"].as_f64().map(f64::abs)),
        (1, Some(1.0))
    );
    let steer = [
        "steer",
        &made.study,
        "mix5:sea,textgrad:days",
        "--kl",
        "0.02",
        "--json",
    ];
    let found = &made.lines(&[&steer[..], &["--max-tokens", "2"]].concat())[0];
    let directions = found["directions"].as_array().unwrap();
    assert_eq!(directions[0]["title"], "sea");
    assert!(!directions[0]["recipe"].as_array().unwrap().is_empty());
    assert_eq!(directions[1]["recipe"], json!([]));
    made.fails(
        &["steer", &made.study, "mix:nothing"],
        2,
        "no direction 'nothing'",
    );
}

#[test]
fn a_dry_run_begins_no_evaluation_and_takes_no_name() {
    let made = Made::new();
    let ask = |methods: &'static str| {
        let steering = ["eval", "steering", &made.study, "--kl", "0.02"];
        let named = ["--samples", "0", "--name", "mine", "--methods", methods];
        [&steering[..], &named].concat()
    };
    let dry = |methods| [&ask(methods)[..], &["--dry-run", "--json"]].concat();
    let evaluations = Path::new(&made.study).join("evaluations");
    // Nothing is written, so another process may hold the study.
    let lock = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(Path::new(&made.study).join("lock"))
        .unwrap();
    lock.lock().unwrap();
    assert_eq!(events(&made.lines(&dry("fit,random")), "plan").len(), 1);
    assert!(!evaluations.exists());
    lock.unlock().unwrap();

    made.lines(&[&ask("diffmean,fit")[..], &["--json"]].concat());
    made.fails(&dry("fit,random"), 1, "another evaluation");
    // A line that a run is about to end is none yet, and stays.
    let strengths = evaluations.join("mine/strengths.jsonl");
    let torn = [&fs::read(&strengths).unwrap()[..], b"{\"method\":"].concat();
    fs::write(&strengths, &torn).unwrap();
    made.lines(&dry("diffmean,fit"));
    assert_eq!(fs::read(&strengths).unwrap(), torn);
    let again = made.lines(&[&ask("diffmean,fit")[..], &["--json"]].concat());
    assert!(!events(&again, "rise").is_empty());
    assert_eq!(fs::read(&strengths).unwrap(), torn[..torn.len() - 10]);
    // A name that cannot be is said before a model is looked for.
    let nowhere = ["--name", "a/b", "--dry-run", "--model", "/nowhere"];
    let steering = ["eval", "steering", &made.study];
    made.fails(&[&steering[..], &nowhere].concat(), 2, "cannot be a name");
}

#[test]
fn random_directions_are_as_many_as_those_of_the_fit_that_chooses() {
    let made = Made::new();
    let wide = ["fit", &made.study, "-k", "7", "--sparsity", "0.2"];
    made.lines(&[&wide[..], &["--max-sweeps", "5", "--json"]].concat());
    let steering = ["eval", "steering", &made.study, "--kl", "0.02"];
    let methods = [
        "--methods",
        "diffmean,mix@k5,mix@k7+mix@k5",
        "--samples",
        "0",
        "--json",
    ];
    let found = made.lines(&[&steering[..], &methods].concat());
    let names: Vec<&str> = events(&found, "rise")
        .iter()
        .map(|r| r["method"].as_str().unwrap())
        .collect();
    let wanted = [
        "diffmean",
        "mix@k5",
        "mix@k7+mix@k5",
        "mix@random@k5",
        "mix@random",
    ];
    assert_eq!(names, wanted);
    // What is kept of each: a record a direction, and one of the unsteered model.
    let study: Value =
        serde_json::from_slice(&fs::read(Path::new(&made.study).join("study.json")).unwrap())
            .unwrap();
    let size = |name: &str| study["model"][name].as_u64().unwrap() as usize;
    let mut counts = Vec::new();
    for (path, bytes) in measured(&made.study) {
        let end = bytes.iter().position(|&b| b == b'\n').unwrap();
        let about: Value = serde_json::from_slice(&bytes[..end]).unwrap();
        if about["effects"] == "random" {
            let prompts = about["ask"]["prompts"].as_array().unwrap().len();
            let record = 12 + 4 * (4 + size("d_model")) + 2 * prompts * size("vocab");
            assert_eq!((bytes.len() - end - 1) % record, 0, "{path}");
            counts.push((bytes.len() - end - 1) / record - 1);
        }
    }
    counts.sort_unstable();
    assert_eq!(counts, [5, 7]);
}
