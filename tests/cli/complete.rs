//! What a shell gets at the tab key, asked for as the script of `mlpeek completions bash` does.

use std::fs;

use crate::Made;

/// The candidates for the last of `words`.
fn candidates(made: &Made, words: &[&str]) -> Vec<String> {
    let mut command = made.command(&["--", "mlpeek"]);
    let escaped: Vec<String> = words.iter().map(|word| word.replace(' ', "\\ ")).collect();
    command
        .args(words)
        .env("MLPEEK_LINE", format!("mlpeek {}", escaped.join(" ")))
        .env("MLPEEK_COMPLETE", "bash")
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_study_completes_its_own_names() {
    let made = Made::new("home", &[("a", &["one two three", "four five six"])]);
    let study = made.study();
    made.run(&[
        "fit",
        &study,
        "-k",
        "2",
        "--sparsity",
        "0.3",
        "--max-sweeps",
        "5",
        "--name",
        "other",
    ]);
    made.run(&["notes", &study, "1", "a name", "--fit", "k3"]);
    // Where a value may stand an option may stand too: those are clap's own.
    let ask = |words: &[&str]| -> Vec<String> {
        let typed = words.last().unwrap().starts_with('-');
        let all = candidates(&made, words).into_iter();
        all.filter(|one| typed || !one.starts_with('-')).collect()
    };
    for (words, wanted) in [
        (&["trace", &study, "--fit", ""][..], &["k3", "other"][..]),
        (&["trace", "--text", "x", &study, "--fit", "o"], &["other"]),
        (&["quality", &study, "--fit", "k3,o"], &["k3,other"]),
        (&["compare", &study, "k"], &["k3"]),
        (&["compare", &study, "k3", "ot"], &["other"]),
        (&["fit", &study, "--from", ""], &["k3", "other"]),
        (&["features", &study, "--layer", ""], &["1"]),
        (&[&study, "--layer", ""], &["1"]),
        (&["fit", &study, "--hook", ""], &["mlp.hook_post"]),
        (&["collect", "--hook", "hook_m"], &["hook_mlp_out"]),
        (
            &["feature", &study, "--fit", "k3", ""],
            &[
                "1",
                "fit:k3/",
                "fit:other/",
                "diffmean:a",
                "probe:a",
                "kmeans:",
                "kmeans-cut:",
                "random:",
                "neuron:",
                "textgrad:a",
                "textgrad-cut:a",
                "mix:a",
                "mix5:a",
                "effect:a",
            ],
        ),
        // What stands before a colon stays in the line.
        (&["feature", &study, "fit:k"], &["k3/"]),
        (
            &["features", &study, "--directions", "fit:"],
            &["k3", "other"],
        ),
        (
            &["eval", "detection", &study, "--methods", "neuron,fit:o"],
            &["other"],
        ),
        (&["man", "qu"], &["quality"]),
        (&["man", "sae", ""], &["load", "train", "list", "compare"]),
        (&["sae", "list", "--js"], &["--json"]),
        (&["guide", "us"], &["using"]),
    ] {
        assert_eq!(ask(words), wanted, "{words:?}");
    }
    // A study whose path has a blank, and the path itself.
    let spaced = format!("{study} two");
    fs::rename(&study, &spaced).unwrap();
    assert_eq!(ask(&["trace", &spaced, "--fit", ""]), ["k3", "other"]);
    let escaped = spaced.replace(' ', "\\ ");
    assert_eq!(
        ask(&["info", &format!("{study} t")]),
        [format!("{escaped}/")]
    );
    // No study on the line, or none that is there: nothing, and no complaint.
    assert!(ask(&["trace", "--fit", ""]).is_empty());
    assert!(ask(&["trace", "absent", "--fit", ""]).is_empty());
}

#[test]
fn names_that_a_shell_would_obey_are_not_offered() {
    let made = Made::new("home", &[("a", &["one"])]);
    for name in [
        "plain",
        "a\u{1b}[2J",
        "$(touch pwned)",
        "`id`",
        "two words",
        "\u{202e}txt",
    ] {
        fs::write(made.home.join(name), "").unwrap();
    }
    let offered = candidates(&made, &["export", ""]);
    assert!(offered.contains(&"plain".to_owned()), "{offered:?}");
    assert!(offered.contains(&"two\\ words".to_owned()), "{offered:?}");
    let foreign = |name: &String| name.contains(['\u{1b}', '$', '`', '\u{202e}']);
    assert!(!offered.iter().any(foreign), "{offered:?}");
}
