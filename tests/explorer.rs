//! The explorer end to end in a pseudo-terminal: the small model is opened, features appear, every pane answers, a
//! feature steers, and the terminal is given back.
#![cfg(all(unix, feature = "tui"))]

mod support;

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tempfile::TempDir;

/// A program in a terminal of its own.
struct Terminal {
    screen: Arc<Mutex<vt100::Parser>>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
}

impl Terminal {
    fn open(home: &Path, args: &[&str], cols: u16, rows: u16, env: &[(&str, &str)]) -> Self {
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_mlpeek"));
        command.args(args);
        command.cwd(home);
        command.env("TERM", "xterm-256color");
        command.env("MLPEEK_HOME", home.join("home"));
        command.env("HF_HOME", home.join("hf"));
        command.env("HF_HUB_OFFLINE", "1");
        command.env_remove("TMUX");
        env.iter().for_each(|(k, v)| command.env(k, v));
        let child = pair.slave.spawn_command(command).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(cols), 0)));
        let (mut reader, shared) = (pair.master.try_clone_reader().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = reader.read(&mut bytes) {
                if n == 0 {
                    break;
                }
                shared.lock().unwrap().process(&bytes[..n]);
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Self { screen, writer, child, master: pair.master }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen satisfies `seen`; generous, since the machine may be busy.
    fn until(&self, what: &str, seen: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !seen(&self.text()) {
            assert!(start.elapsed() < Duration::from_secs(60), "never saw {what}:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn keys(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    /// Waits for the end and returns the exit code; the terminal must be as it was.
    fn ended(mut self) -> u32 {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "does not end:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        };
        // What was written last may still be on its way.
        std::thread::sleep(Duration::from_millis(200));
        let parser = self.screen.lock().unwrap();
        assert!(!parser.screen().alternate_screen(), "the alternate screen was left");
        assert!(!parser.screen().hide_cursor(), "the cursor is back");
        assert_eq!(parser.screen().mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        assert!(!parser.screen().bracketed_paste(), "bracketed paste is off");
        status.exit_code()
    }
}

/// The emulator counts its cells from one.
fn cells(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

const ENTER: &str = "\r";
const ESC: &str = "\x1b";

struct Home {
    dir: TempDir,
    model: String,
    data: String,
}

fn home() -> Home {
    let dir = TempDir::new().unwrap();
    let model = support::tiny_model(dir.path()).display().to_string();
    let data = support::corpus(dir.path(), 60).display().to_string();
    Home { dir, model, data }
}

fn opened(home: &Home, cols: u16, rows: u16, env: &[(&str, &str)]) -> Terminal {
    let args = ["--model", &home.model, "--data", &home.data, "--layer", "1", "--features", "8"];
    let terminal = Terminal::open(home.dir.path(), &args, cols, rows, env);
    // The toast comes with the job's end; quitting while a job runs would ask first.
    terminal.until("a finished fit", |s| s.contains("fitting: "));
    terminal
}

#[test]
fn every_pane_answers_and_the_terminal_is_given_back() {
    let home = home();
    let mut t = opened(&home, 120, 36, &[("COLORTERM", "truecolor")]);
    t.until("the feature list and contexts", |s| s.contains("Features") && s.contains("Contexts"));
    t.keys("j");
    t.keys("5");
    t.until("the error curve", |s| s.contains("error") && s.contains("sweep"));
    t.keys("2");
    t.until("the dendrogram", |s| s.contains("Tree"));
    t.keys("?");
    t.until("help", |s| s.contains("Everywhere"));
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
    again.until("the study among the recent ones", |s| s.contains("tiny-llama"));
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
    let mut t = Terminal::open(home.dir.path(), &["--model", "/no/such/model"], 100, 30, &[]);
    t.until("the failure", |s| s.contains("/no/such/model"));
    t.keys("?");
    t.until("help", |s| s.contains("Everywhere"));
    t.keys(ESC);
    t.keys("q");
    assert_eq!(t.ended(), 0);
}

#[test]
fn resizing_to_nothing_and_back_and_sigterm() {
    let home = home();
    let t = opened(&home, 120, 36, &[("NO_COLOR", "1")]);
    for (cols, rows) in [(200, 60), (59, 15), (20, 6), (2, 2), (80, 24)] {
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        t.screen.lock().unwrap().screen_mut().set_size(cells(rows), cells(cols));
        t.master.resize(size).unwrap();
        std::thread::sleep(Duration::from_millis(80));
    }
    t.until("the features after all that", |s| s.contains("Features"));
    let pid = t.child.process_id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    t.ended();
}
