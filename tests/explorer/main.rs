//! The explorer end to end in a pseudo-terminal, over a small model that is made on the spot: every
//! pane answers, every flow leads where it should, bad input is told of, and the terminal is given
//! back.
#![cfg(all(unix, feature = "tui"))]

mod cut_short;
mod endings;
mod flows;
mod ghosts;
mod hostile;
#[path = "../support/mod.rs"]
mod support;
mod terminal;

use std::time::Duration;

use terminal::{ENTER, ESC, Home, Terminal, home};

fn opened(home: &Home, cols: u16, rows: u16, env: &[(&str, &str)]) -> Terminal {
    let args = [
        "--model",
        &home.model,
        "--data",
        &home.data,
        "--layer",
        "1",
        "--features",
        "8",
    ];
    let terminal = Terminal::open(home.dir.path(), &args, cols, rows, env);
    // The toast comes with the job's end; quitting while a job runs would ask first.
    terminal.until("a finished fit", |s| s.contains("fitting done: "));
    terminal
}

#[test]
fn every_pane_answers_and_the_terminal_is_given_back() {
    let home = home();
    let mut t = opened(&home, 120, 36, &[("COLORTERM", "truecolor")]);
    t.until("the feature list and contexts", |s| {
        s.contains("Features") && s.contains("Contexts")
    });
    t.keys("j");
    t.keys("5");
    t.until("the error curve", |s| {
        s.contains("error") && s.contains("sweep")
    });
    t.keys("2");
    t.until("the dendrogram", |s| s.contains("Tree"));
    t.keys("?");
    t.sees("type to filter");
    t.keys(ESC);
    t.keys("~");
    t.until("the log", |s| s.to_lowercase().contains("log"));
    t.keys(ESC);
    t.keys(":");
    t.keys("quit");
    t.until("the palette", |s| s.contains("Quit"));
    t.keys(ENTER);
    assert_eq!(t.ended(), 0);
}

#[test]
fn a_study_reopens_where_it_was_without_collecting_again() {
    let home = home();
    let mut t = opened(&home, 80, 24, &[]);
    t.keys("q");
    assert_eq!(t.ended(), 0);
    let mut again = Terminal::open(home.dir.path(), &[], 80, 24, &[]);
    again.until("the study among the recent ones", |s| {
        s.contains("tiny-llama")
    });
    again.keys("q");
    assert_eq!(again.ended(), 0);
    let mut direct = opened(&home, 80, 24, &[]);
    direct.keys("~");
    direct.until("that nothing was collected again", |s| s.contains("before"));
    direct.keys("~");
    direct.until("the list without the log", |s| s.contains("enter open"));
    direct.keys("q");
    assert_eq!(direct.ended(), 0);
}

#[test]
fn a_failure_is_told_and_the_explorer_lives_on() {
    let home = home();
    let mut t = Terminal::open(
        home.dir.path(),
        &["--model", "/no/such/model"],
        100,
        30,
        &[],
    );
    t.until("the failure", |s| s.contains("/no/such/model"));
    t.keys("?");
    t.sees("type to filter");
    t.keys(ESC);
    t.keys("q");
    assert_eq!(t.ended(), 0);
}

#[test]
fn resizing_to_nothing_and_back_and_sigterm() {
    let home = home();
    let t = opened(&home, 120, 36, &[("NO_COLOR", "1")]);
    for (cols, rows) in [(200, 60), (59, 15), (20, 6), (1, 1), (2, 2), (80, 24)] {
        t.resize(cols, rows);
        std::thread::sleep(Duration::from_millis(80));
    }
    t.until("the features after all that", |s| s.contains("Features"));
    t.signal("TERM");
    assert_eq!(t.ended(), 143);
}
