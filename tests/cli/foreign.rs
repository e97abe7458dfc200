//! Labels, texts, names, paths and answers that hold what a terminal acts on, through every command
//! in a pseudo-terminal.

use std::io::Read;

use portable_pty::{CommandBuilder, PtySize, native_pty_system};

use crate::Made;
use crate::support::judge;

/// Writes the clipboard, colours, a C1 sequence, turns text round, rings, and overwrites or forges
/// a line.
const EVIL: &str = "e\u{1b}]52;c;QUFB\u{7}\u{1b}[41mv\u{9b}41mi\u{202e}l\u{85}\u{200b}OVER\rWRITTEN FORGED\nLINE\u{7f}";
/// The same for a path, which may not be empty between its slashes.
const PATH: &str = "p\u{1b}]52;c;QUFB\u{7}\u{1b}[41ma\u{9b}41mt\u{202e}hOVER\rWRITTEN FORGED\nLINE";
/// What must not arrive: in no order of ours do these characters stand like this.
const OBEYED: [&str; 10] = [
    "\u{1b}]",
    "\u{1b}[41m",
    "\u{7}",
    "\u{9b}",
    "\u{202e}",
    "\u{85}",
    "\u{200b}",
    "OVER\r",
    "FORGED\n",
    "FORGED\r",
];

/// Runs a command in a terminal; what it wrote there.
fn in_terminal(made: &Made, args: &[&str]) -> String {
    let pair = native_pty_system()
        .openpty(PtySize {
            rows: 60,
            cols: 400,
            pixel_width: 0,
            pixel_height: 0,
        })
        .unwrap();
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_mlpeek"));
    command.args(args);
    command.cwd(&made.home);
    command.env("TERM", "xterm-256color");
    made.env()
        .iter()
        .for_each(|(name, value)| command.env(name, value));
    command.env("JUDGE_KEY", "k-1");
    let mut child = pair.slave.spawn_command(command).unwrap();
    drop(pair.slave);
    let mut reader = pair.master.try_clone_reader().unwrap();
    let read = std::thread::spawn(move || {
        let (mut all, mut block) = (Vec::new(), [0; 4096]);
        // A terminal whose other side is closed ends with an error on Linux.
        while let Ok(n @ 1..) = reader.read(&mut block) {
            all.extend_from_slice(&block[..n]);
        }
        all
    });
    child.wait().unwrap();
    let written = read.join().unwrap();
    String::from_utf8(written).unwrap()
}

fn check(made: &Made, args: &[&str]) -> String {
    let written = in_terminal(made, args);
    for obeyed in OBEYED {
        assert!(
            !written.contains(obeyed),
            "{args:?} writes {obeyed:?}:\n{written:?}"
        );
    }
    assert!(!written.contains("panicked"), "{args:?}: {written}");
    written
}

fn made() -> Made {
    let other = format!("{EVIL} other");
    let text = format!("{EVIL} text of some length");
    let texts: Vec<String> = (0..8).map(|i| format!("{text} {i}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Made::new(
        PATH,
        &[
            (EVIL, &texts),
            (
                &other,
                &["a plain one", "and one more", "a third", "the fourth"],
            ),
        ],
    )
}

#[test]
fn commands_that_read_and_judge_obey_nothing_of_a_corpus() {
    let made = made();
    let (s, data) = (&made.path("s"), &made.path("corpus.json"));
    let sees = |args: &[&str], marks: bool| {
        let written = check(&made, args);
        assert!(
            !marks || written.contains("‹U+001B›"),
            "{args:?} shows nothing of what is to be made safe:\n{written}"
        );
    };
    sees(
        &[
            "collect",
            "--model",
            &made.model,
            "--data",
            data,
            "--layer",
            "1,2",
            "--out",
            s,
        ],
        true,
    );
    for features in ["3", "2"] {
        let fit = ["fit", s, "-k", features, "--layer", "1"];
        let short = ["--sparsity", "0.3", "--max-sweeps", "4"];
        sees(&[&fit[..], &short].concat(), false);
    }
    sees(
        &["notes", s, "0", &format!("{EVIL} #{EVIL} -- {EVIL}")],
        true,
    );
    sees(&["notes", s], true);
    sees(&["notes", s, "--export", &made.path("notes.json")], true);
    sees(&["features", s], true);
    sees(
        &["features", s, "--directions", "fit,diffmean,kmeans"],
        true,
    );
    sees(&["feature", s, "0"], true);
    sees(&["feature", s, &format!("diffmean:{EVIL}")], true);
    sees(&["trace", s, "--text", EVIL], true);
    sees(&["tree", s], false);
    sees(&["tree", s, "--cut", "0.9"], true);
    sees(&["tree", s, "--format", "newick"], false);
    sees(&["tree", s, "--format", "svg"], false);
    sees(&["tree", s, "--recursive", "--levels", "1"], false);
    sees(&["compare", s, "l1-k3", "l1-k2"], true);
    sees(
        &[
            "quality",
            s,
            "--labels",
            "--seeds",
            "1",
            "--max-sweeps",
            "3",
        ],
        true,
    );
    sees(
        &["sweep", s, "-k", "2", "--seeds", "1", "--max-sweeps", "3"],
        false,
    );
    sees(
        &[
            "eval",
            "detection",
            s,
            "--labels",
            "--methods",
            "fit,diffmean",
        ],
        true,
    );
    sees(
        &["features", s, "--json", "--directions", "diffmean"],
        false,
    );
    sees(&["notes", s, "--json"], false);
    sees(&["trace", s, "--text", EVIL, "--json"], false);
    sees(&["models"], false);
    sees(&["doctor"], true);
}

#[test]
fn commands_that_generate_ask_and_write_obey_nothing_of_others() {
    let made = made();
    let s = &made.study();
    // Answers are read a line at a time.
    let line = EVIL.replace('\n', " ");
    let answer = move || format!("INPUT: {line}\nOUTPUT: {line}\n{line}");
    let (url, _) = judge::serve("k-1", Box::new(move |_, _| Some((200, answer()))));
    let sees = |args: &[&str], marks: bool| {
        let written = check(&made, args);
        assert!(
            !marks || written.contains("‹U+001B›"),
            "{args:?} shows nothing of what is to be made safe:\n{written}"
        );
    };
    sees(
        &[
            "steer",
            s,
            &format!("diffmean:{EVIL}"),
            "--prompt",
            EVIL,
            "--max-tokens",
            "3",
            "--alpha",
            "0.5",
        ],
        true,
    );
    sees(
        &[
            "eval",
            "steering",
            s,
            "--methods",
            "fit",
            "--kl",
            "0.02",
            "--samples",
            "0",
        ],
        false,
    );
    sees(
        &[
            "eval",
            "reuse",
            s,
            "--features",
            &format!("0={EVIL},1={EVIL} 2"),
            "--kl",
            "0.02",
        ],
        true,
    );
    let asked = [
        "--endpoint",
        &url,
        "--judge-model",
        EVIL,
        "--key-env",
        "JUDGE_KEY",
        "--concurrency",
        "1",
    ];
    sees(
        &[&["describe", s, "0", "--no-score"], &asked[..]].concat(),
        true,
    );
    sees(&["feature", s, "0"], true);
    sees(
        &[
            "sae",
            "train",
            s,
            "--latents",
            "4",
            "--top-k",
            "2",
            "--epochs",
            "1",
        ],
        false,
    );
    sees(&["sae", "list", s], false);
    sees(&["sae", "compare", s, "--predict", "64"], true);
    sees(&["sae", "load", s, &made.path("absent sae")], true);
    let out = &made.path("out.safetensors");
    sees(
        &[
            "forward",
            "--model",
            &made.model,
            "--text",
            EVIL,
            "--layer",
            "1",
            "--out",
            out,
        ],
        true,
    );
    sees(&["export", s, "--out", out, "--overwrite"], true);
    sees(
        &[
            "import",
            out,
            "--tensor",
            "Y",
            "--out",
            &made.path("imported"),
        ],
        true,
    );
}

#[test]
fn errors_that_quote_obey_nothing_of_what_they_quote() {
    let made = made();
    let s = &made.study();
    fs_evil(&made);
    let cases: &[&[&str]] = &[
        &["feature", s, &format!("diffmean:{EVIL} absent")],
        &["features", s, "--fit", EVIL],
        &["features", &format!("{s} {EVIL}")],
        &["eval", "steering", s, "--labels", EVIL, "--methods", EVIL],
        &["eval", "reuse", s, "--labels", &format!("absent {EVIL}")],
        &["fit", s, "-k", EVIL],
        &["fit", s, "--sparsity", EVIL],
        &["fit", s, EVIL, EVIL],
        &["fit", s, "--name", EVIL],
        &["tree", s, "--format", EVIL],
        &["tree", s, &format!("--{EVIL}")],
        &["steer", s, EVIL],
        &["steer", s, "0", "--positions", EVIL],
        &["collect", "--model", EVIL, "--out", "x"],
        &[
            "collect",
            "--model",
            &made.model,
            "--data",
            "shape.json",
            "--out",
            "x",
        ],
        &["import", EVIL, "--out", "x"],
        &["sae", "load", s, EVIL],
        &["compare", s, EVIL, "k3"],
        &["notes", s, "--import", "names.json"],
    ];
    for args in cases {
        let written = check(&made, args);
        assert!(
            written.contains('‹') || written.contains("\\u{1b}"),
            "{args:?} quotes nothing:\n{written}"
        );
    }
}

/// Files whose own words an error repeats.
fn fs_evil(made: &Made) {
    std::fs::write(
        made.home.join("shape.json"),
        serde_json::json!({ EVIL: [{ EVIL: 3 }] }).to_string(),
    )
    .unwrap();
    std::fs::write(
        made.home.join("names.json"),
        serde_json::json!({ "names": EVIL }).to_string(),
    )
    .unwrap();
}
