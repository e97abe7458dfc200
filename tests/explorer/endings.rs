//! How the explorer ends when it is not asked to: signals, a terminal that dies or hangs, a shell
//! that stops it. The study is free afterwards, and the terminal is as it was where there still is
//! one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support;
use crate::terminal::{ENTER, ESC, Home, Terminal, home, home_with};

/// Nobody writes in the study, and it opens.
fn is_free(home: &Home, study: &Path) {
    is_unlocked(study);
    home.run(&["features", &study.display().to_string()]);
}

/// Nobody writes in the study.
fn is_unlocked(study: &Path) {
    let lock = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(study.join("lock"))
        .unwrap();
    assert!(lock.try_lock().is_ok(), "the study is still locked");
}

/// A state to be in, reached from an open study.
type State = (&'static str, fn(&mut Terminal));

/// A fit saves after every sweep.
const SAVING: [(&str, &str); 1] = [("MLPEEK_CHECKPOINT", "0")];

const STATES: [State; 9] = [
    ("at rest", |_| {}),
    ("with help open", |t| {
        t.keys("?");
        t.sees("type to filter");
    }),
    ("in the palette", |t| {
        t.keys(":qu");
        t.sees("Quit");
    }),
    ("with a name being typed", |t| {
        t.keys("rab");
        t.sees("Name and notes");
    }),
    ("with a text being typed", |t| {
        t.keys("4ea river");
        t.sees("7 tokens");
    }),
    ("in the middle of a fit", |t| {
        t.keys("5+++++++f");
        t.sees("cancels");
    }),
    ("while text is generated", |t| {
        t.keys("a");
        t.sees("the same prompt");
        t.keys(ENTER);
        t.until("a run", |s| s.contains("cancels") || s.contains("α "));
    }),
    ("asked whether to quit while a fit is held", |t| {
        t.keys("5+++++++f");
        t.sees("cancels");
        t.keys("p");
        t.sees("goes on");
        t.keys("q");
        t.sees("Quit?");
    }),
    ("stopped and continued", |t| {
        t.signal("STOP");
        t.stopped();
        t.signal("CONT");
        t.keys("?");
        t.sees("type to filter");
    }),
];

#[test]
fn a_terminal_that_dies_ends_it_in_every_state() {
    let home = home_with(3_000);
    let study = home.study(&["12"]);
    for (name, reach) in STATES {
        let mut t = home.explore_with(&["study", "--fresh"], 120, 36, &SAVING);
        reach(&mut t);
        t.die();
        assert_eq!(t.gone(), 129, "{name}");
        is_free(&home, &study);
    }
}

#[test]
fn a_terminal_that_dies_at_the_start_or_while_collecting_ends_it() {
    let home = home();
    let study = home.study(&["12"]);
    let mut t = Terminal::open(home.dir.path(), &["study"], 80, 24, &[]);
    t.die();
    t.gone();
    is_free(&home, &study);

    let data = support::corpus(home.dir.path(), 20_000)
        .display()
        .to_string();
    let args = [
        "--model",
        &home.model,
        "--data",
        &data,
        "--layer",
        "1",
        "new",
    ];
    let mut t = Terminal::open(home.dir.path(), &args, 80, 24, &[]);
    let study = home.dir.path().join("new");
    t.until("a study that is being filled", |s| {
        s.contains("cancels") && study.join("study.json").exists()
    });
    t.die();
    assert_eq!(t.gone(), 129);
    is_unlocked(&study);
}

#[test]
fn signals_end_it_in_every_state_and_give_the_terminal_back() {
    let home = home_with(3_000);
    let study = home.study(&["12"]);
    let signals = [("INT", 130), ("QUIT", 131), ("TERM", 143), ("HUP", 129)];
    for ((name, reach), (signal, code)) in STATES.into_iter().zip(signals.into_iter().cycle()) {
        let mut t = home.explore_with(&["study", "--fresh"], 120, 36, &SAVING);
        reach(&mut t);
        t.signal(signal);
        assert_eq!(t.ended(), code, "{signal} {name}");
        is_free(&home, &study);
    }
}

#[test]
fn a_signal_ends_it_while_it_is_stopped() {
    let home = home();
    home.study(&["12"]);
    let t = home.explore(80, 24, &[]);
    t.signal("STOP");
    t.stopped();
    t.signal("TERM");
    t.signal("CONT");
    assert_eq!(t.ended(), 143);
}

#[test]
fn a_signal_ends_it_while_its_terminal_takes_nothing() {
    let home = home();
    let study = home.study(&["12"]);
    let mut t = home.explore(200, 60, &[("COLORTERM", "truecolor")]);
    t.hang();
    // Frames until the terminal is full.
    for _ in 0..200 {
        t.keys(&format!("?{ESC}"));
        std::thread::sleep(Duration::from_millis(10));
    }
    t.signal("TERM");
    assert_eq!(t.gone(), 143);
    is_free(&home, &study);
}

#[test]
fn the_screen_is_drawn_afresh_without_asking_the_terminal() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(120, 36, &[]);
    let before = t.rests();
    for _ in 0..8 {
        // What another program left on the screen.
        t.screen.lock().unwrap().process(b"\x1b[5;5Hgarbage");
        t.keys("\x0c");
        t.loses("garbage");
    }
    t.until("the same screen", |s| s == before);
    // Stopped from outside, without a word.
    for _ in 0..3 {
        t.signal("STOP");
        t.stopped();
        t.screen.lock().unwrap().process(b"\x1b[5;5Hgarbage");
        t.signal("CONT");
        t.until("the same screen", |s| s == before);
    }
    let asked = t
        .written
        .lock()
        .unwrap()
        .windows(4)
        .any(|w| w == b"\x1b[6n");
    assert!(!asked, "the cursor's place is never asked for");
    t.quits();
}

/// A shell with job control that runs `command`, which opens the explorer.
fn in_a_shell(home: &Home, command: &str) -> Terminal {
    let env = [("PS1", "$ "), ("ENV", "/dev/null")];
    let mut t = Terminal::run("sh", home.dir.path(), &["-i"], 100, 30, &env);
    t.sees("$");
    t.keys(&format!("{command}{ENTER}"));
    t.until("the study and its model", |s| {
        s.contains("Features ") && s.contains("f32)")
    });
    t
}

#[test]
fn where_no_shell_waits_it_is_not_suspended() {
    let home = home();
    home.study(&["12"]);
    // It leads the session itself, as under `ssh -t host mlpeek`.
    let mut t = home.explore(120, 36, &[]);
    t.keys("\x1a");
    t.sees("no shell waits");
    t.signal("TSTP");
    t.keys("?");
    t.sees("type to filter");
    t.keys(ESC);
    t.quits();
}

#[test]
fn a_shell_ends_it_while_it_is_stopped() {
    let home = home();
    let study = home.study(&["12"]);
    let mut t = in_a_shell(&home, &format!("{} study", env!("CARGO_BIN_EXE_mlpeek")));
    t.keys("\x1a");
    t.until("the shell", |s| !s.contains("Features "));
    // As bash's own `kill` does: the signal, and on in the background.
    t.keys(&format!("kill %1; kill -CONT %1{ENTER}"));
    // The shell tells of it when it prompts again.
    for _ in 0..120 {
        if t.text().contains("143") {
            break;
        }
        t.keys(ENTER);
        std::thread::sleep(Duration::from_millis(500));
    }
    t.sees("143");
    is_free(&home, &study);
    t.keys(&format!("exit{ENTER}"));
    t.gone();
}

#[test]
fn a_script_around_it_stops_and_goes_on_with_it() {
    let home = home();
    home.study(&["12"]);
    let program = env!("CARGO_BIN_EXE_mlpeek");
    let mut t = in_a_shell(&home, &format!("sh -c '{program} study; echo after $?'"));
    t.keys("\x1a");
    // The shell has the terminal again: nothing of the script went on.
    t.until("the shell", |s| !s.contains("Features "));
    t.keys(&format!("echo pro$((1+1))mpt{ENTER}"));
    t.sees("pro2mpt");
    assert!(!t.text().contains("after 0"));
    t.keys(&format!("fg{ENTER}"));
    t.sees("Features ");
    // In the background it waits for the terminal.
    t.keys("\x1a");
    t.until("the shell", |s| !s.contains("Features "));
    t.keys(&format!("bg; sleep 1; echo pro$((1+2))mpt{ENTER}"));
    t.sees("pro3mpt");
    assert!(!t.text().contains("Features "));
    t.keys(&format!("fg{ENTER}"));
    t.sees("Features ");
    t.keys("q");
    t.sees("after 0");
    t.keys(&format!("exit{ENTER}"));
    t.gone();
}
