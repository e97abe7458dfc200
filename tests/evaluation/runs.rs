//! A run's size, told first; its stop and going on; what cannot be run.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Made;
use crate::support::program::events;

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
