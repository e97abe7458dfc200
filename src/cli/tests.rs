//! The command line as it is read, its help and its examples, and the commands of the guide.

use super::*;

fn read(line: &str) -> Result<Cli, String> {
    Cli::from_args(line.split(' ').map(Into::into).collect()).map_err(|e| e.to_string())
}

#[test]
fn clap_finds_nothing_wrong() {
    command().debug_assert();
}

/// Words of a line as a shell parts them: quotes hold together, a comment ends it.
fn words(line: &str) -> Vec<OsString> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars().chain([' ']) {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted && word.is_empty() => break,
            ' ' if !quoted && !word.is_empty() => words.push(std::mem::take(&mut word).into()),
            ' ' if !quoted => {}
            c => word.push(c),
        }
    }
    words
}

/// Holds the help of `command` and of all below it against the rule; `path` is what is typed.
fn check_examples(command: &mut clap::Command, path: &str) {
    let help = command.render_long_help().to_string();
    let (_, examples) = help
        .split_once("Examples:\n")
        .unwrap_or_else(|| panic!("{path} --help ends with no examples"));
    for line in examples.trim_end().lines() {
        let line = line.trim();
        assert!(
            line.starts_with(path),
            "{path} --help has an example of another: {line}"
        );
        if let Err(refused) = Cli::from_args(words(line)) {
            panic!("{path} --help: {line}: {refused}");
        }
    }
    assert!(!examples.trim().is_empty(), "{path}");
    let own = |below: &&mut clap::Command| below.get_name() != "help";
    for below in command.get_subcommands_mut().filter(own) {
        let path = format!("{path} {}", below.get_name());
        check_examples(below, &path);
    }
}

#[test]
fn every_help_ends_with_examples_that_are_read() {
    let mut root = command();
    root.build();
    check_examples(&mut root, "mlpeek");
}

#[test]
fn only_what_has_json_lists_it() {
    let mut root = command();
    root.build();
    for (name, listed) in [("info", true), ("guide", false), ("man", false)] {
        let command = root.find_subcommand_mut(name).unwrap();
        let help = command.render_long_help().to_string();
        assert_eq!(help.contains("--json"), listed, "{name}");
    }
}

#[test]
fn json_stands_anywhere_in_a_command() {
    for line in [
        "mlpeek info s --json",
        "mlpeek info --json s",
        "mlpeek --json info s",
        "mlpeek sae list s --json",
        "mlpeek sae --json list s",
        "mlpeek --json sae list s",
        "mlpeek --json models",
    ] {
        assert!(read(line).unwrap().json, "{line}");
    }
    assert!(!read("mlpeek info s").unwrap().json);
    // It is a text where a text is asked for.
    let cli = read("mlpeek trace s --text --json").unwrap();
    assert!(!cli.json);
}

#[test]
fn json_without_effect_is_refused() {
    for (line, words) in [
        ("mlpeek guide --json", "prints no JSON"),
        ("mlpeek --json man", "prints no JSON"),
        ("mlpeek completions bash --json", "prints no JSON"),
        ("mlpeek --json", "belongs to a command"),
        ("mlpeek study --json", "belongs to a command"),
        ("mlpeek --json study", "belongs to a command"),
        ("mlpeek keys --json --markdown", "cannot be used with"),
        ("mlpeek --json keys --markdown", "cannot be used with"),
        (
            "mlpeek eval --json detection s --labels",
            "cannot be used with",
        ),
        (
            "mlpeek info s --json --json",
            "cannot be used multiple times",
        ),
    ] {
        let refused = read(line).unwrap_err();
        assert!(refused.contains(words), "{line}: {refused}");
    }
}

/// The commands in the shell blocks of a page, each as its words.
fn shell_commands(page: &str) -> Vec<Vec<OsString>> {
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(|block| {
        let joined = block.replace("\\\n", " ");
        joined.lines().map(words).collect::<Vec<_>>()
    });
    let commands = lines.flat_map(|line| {
        let parts = line.split(|word| word == ";" || word == "|");
        parts.map(<[_]>::to_vec).collect::<Vec<_>>()
    });
    commands
        .filter(|command| command.first().is_some_and(|word| word == "mlpeek"))
        .collect()
}

#[test]
fn every_command_of_the_guide_is_read() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let guide = crate::guide::PAGES.iter();
    let pages = guide.map(|page| (page.topic, page.text));
    let mut read = 0;
    for (topic, text) in pages.chain([("README", readme.as_str())]) {
        // A list that is cut short stands for more of its kind.
        let is_whole = |command: &Vec<OsString>| {
            let cut = |word: &OsString| word == "…" || word.to_string_lossy().ends_with(",…");
            !command[1..].iter().any(cut) || command.contains(&"--text".into())
        };
        for command in shell_commands(text).into_iter().filter(is_whole) {
            if let Err(refused) = Cli::from_args(command.clone()) {
                panic!("{topic}: {command:?}: {refused}");
            }
            read += 1;
        }
    }
    assert!(read > 40, "{read} commands found");
}
