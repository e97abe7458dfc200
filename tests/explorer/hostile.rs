//! What goes wrong around the explorer: it is said clearly, and nothing is lost.

use std::fs;
use std::time::Duration;

use crate::terminal::{ENTER, ESC, home};

#[test]
fn a_study_that_another_process_holds_says_so_and_takes_notes() {
    let home = home();
    let study = home.study(&["12"]);
    let lock = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(study.join("lock"))
        .unwrap();
    lock.try_lock().unwrap();
    fs::write(study.join("lock"), "process 77 on elsewhere\n").unwrap();
    let mut t = home.explore(120, 36, &[]);
    t.sees("read-only: process 77 on elsewhere has it");
    t.keys("r");
    t.keys("a name of some length");
    t.keys(ENTER);
    t.until("the name, saved", |s| {
        s.contains("a name of") && !s.contains("Name and notes")
    });
    // What the other one notes meanwhile stays.
    home.run(&["notes", "study", "3", "from elsewhere"]);
    t.keys("j");
    t.keys("r");
    t.keys("another");
    t.keys(ENTER);
    t.until("the second name, saved", |s| {
        s.contains("another") && !s.contains("Name and notes")
    });
    t.quits();
    let notes = fs::read_to_string(study.join("notes.json")).unwrap();
    assert!(
        ["a name of some length", "from elsewhere", "another"]
            .iter()
            .all(|n| notes.contains(n)),
        "{notes}"
    );
}

#[test]
fn a_note_that_cannot_be_kept_is_offered_until_it_is() {
    let home = home();
    let study = home.study(&["12"]);
    fs::write(study.join("notes.json"), "{").unwrap();
    let mut t = home.explore(120, 36, &[]);
    t.keys("r");
    t.keys("a name of some length");
    t.keys(ENTER);
    t.sees("a note is not kept yet");
    t.keys("r");
    t.sees("a name of some length");
    t.keys(ESC);
    // Ending asks first.
    t.keys("q");
    t.sees("Notes not kept yet: 1");
    t.keys(ESC);
    fs::remove_file(study.join("notes.json")).unwrap();
    t.until("the name, kept without a key", |s| {
        s.contains("a name of") && !s.contains("not kept yet")
    });
    t.quits();
    assert!(
        fs::read_to_string(study.join("notes.json"))
            .unwrap()
            .contains("a name of some length")
    );
}

#[test]
fn a_study_that_is_removed_while_open_is_told_of() {
    let home = home();
    let study = home.study(&["12"]);
    let mut t = home.explore(100, 30, &[]);
    fs::remove_dir_all(&study).unwrap();
    t.keys("jjj");
    t.keys("r");
    t.keys("lost");
    t.keys(ENTER);
    t.sees("is gone");
    t.keys("n");
    t.sees("weight  others");
    t.keys("q");
    t.sees("Notes not kept yet: 1");
    t.quits();
    assert!(!study.exists(), "it is not made again");
}

#[test]
fn megabytes_and_control_characters_are_pasted_into_every_box() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(80, 24, &[]);
    let evil = "word \u{7}\u{1b}]0;owned\u{7}\u{202e}\u{0}\t\n".repeat(60_000);
    assert!(evil.len() > 1_000_000);
    // The filter, a name, a text, a prompt, a model.
    for (open, close) in [
        ("1/", ESC),
        ("r", ESC),
        ("4e", ESC),
        ("3ge", ESC),
        ("6ge", ESC),
    ] {
        t.keys(open);
        std::thread::sleep(Duration::from_millis(100));
        t.paste(&evil);
        t.sees("word");
        t.keys(close);
    }
    t.keys("1\x1b\x1b");
    t.sees("Features 12");
    let obeyed = t
        .written
        .lock()
        .unwrap()
        .windows(9)
        .any(|w| w == b"\x1b]0;owned");
    assert!(
        !obeyed,
        "no escape sequence of the text reaches the terminal"
    );
    t.quits();
}

#[test]
fn notes_broken_by_hand_stay_as_they_are() {
    let home = home();
    let notes = home.study(&["12"]).join("notes.json");
    fs::write(&notes, "{ \"k12\": { \"names\": { oops").unwrap();
    let mut t = home.explore(120, 36, &[]);
    t.sees("names and notes are not shown");
    t.keys("r");
    t.keys("months");
    t.keys(ENTER);
    t.sees("mend or move it");
    t.keys("q");
    t.sees("Notes not kept yet: 1");
    t.quits();
    assert!(fs::read_to_string(&notes).unwrap().ends_with("oops"));
}

#[test]
fn a_wrong_configuration_is_named_by_line_with_what_was_meant() {
    let home = home();
    home.study(&["12"]);
    let config = home.dir.path().join("config/mlpeek");
    fs::create_dir_all(&config).unwrap();
    fs::write(
        config.join("config.toml"),
        "muose = true\n[keys]\n\"x\" = \"sorrt\"\n\"y\" = \"zoom\"\n",
    )
    .unwrap();
    let mut t = home.explore(120, 36, &[]);
    t.sees("did you mean 'mouse'?");
    t.sees("did you mean 'sort'?");
    t.keys("~");
    t.sees("config.toml:1: unknown setting 'muose'");
    t.sees("config.toml:3: unknown action 'sorrt'");
    t.keys("~");
    t.keys("y");
    t.loses("Contexts of");
    t.quits();
}
