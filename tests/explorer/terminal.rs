//! A program in a pseudo-terminal: its screen, its keys, and that the terminal is given back.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tempfile::TempDir;

use crate::support;

/// A program in a terminal of its own.
pub struct Terminal {
    pub screen: Arc<Mutex<vt100::Parser>>,
    writer: Option<Box<dyn Write + Send>>,
    pub child: Box<dyn Child + Send + Sync>,
    master: Option<Box<dyn MasterPty + Send>>,
    /// Everything that was written to the terminal.
    pub written: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    closed: Arc<AtomicBool>,
}

impl Terminal {
    pub fn open(home: &Path, args: &[&str], cols: u16, rows: u16, env: &[(&str, &str)]) -> Self {
        Self::run(env!("CARGO_BIN_EXE_mlpeek"), home, args, cols, rows, env)
    }

    /// Any program.
    pub fn run(
        program: &str,
        home: &Path,
        args: &[&str],
        cols: u16,
        rows: u16,
        env: &[(&str, &str)],
    ) -> Self {
        let size = PtySize {
            rows,
            cols,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(program);
        command.args(args);
        command.cwd(home);
        command.env("TERM", "xterm-256color");
        command.env("MLPEEK_HOME", home.join("home"));
        command.env("XDG_CONFIG_HOME", home.join("config"));
        command.env("HF_HOME", home.join("hf"));
        command.env("HF_HUB_OFFLINE", "1");
        command.env_remove("TMUX");
        env.iter().for_each(|(k, v)| command.env(k, v));
        let child = pair.slave.spawn_command(command).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(rows), cells(cols), 0)));
        let written = Arc::new(Mutex::new(Vec::new()));
        let closed = Arc::new(AtomicBool::new(false));
        let (mut reader, shared, all) = (
            pair.master.try_clone_reader().unwrap(),
            screen.clone(),
            written.clone(),
        );
        let stop = closed.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                all.lock().unwrap().extend_from_slice(&bytes[..n]);
                shared.lock().unwrap().process(&bytes[..n]);
            }
        });
        let writer = Some(pair.master.take_writer().unwrap());
        Self {
            screen,
            writer,
            child,
            master: Some(pair.master),
            written,
            reader: Some(reader),
            closed,
        }
    }

    /// The screen, without the blanks at the ends of lines.
    pub fn text(&self) -> String {
        let text = self.screen.lock().unwrap().screen().contents();
        text.lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Waits until nothing is drawn any more; the screen.
    pub fn rests(&self) -> String {
        let start = Instant::now();
        let mut before = self.text();
        loop {
            std::thread::sleep(Duration::from_millis(400));
            let now = self.text();
            if now == before {
                return now;
            }
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "never rests:\n{now}"
            );
            before = now;
        }
    }

    /// Waits until the screen satisfies `seen`; generous, since the machine may be busy.
    pub fn until(&self, what: &str, seen: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !seen(&self.text()) {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "never saw {what}:\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the screen shows `text`.
    pub fn sees(&self, text: &str) {
        self.until(text, |screen| screen.contains(text));
    }

    /// Waits until the screen does not show `text`.
    pub fn loses(&self, text: &str) {
        self.until(&format!("the end of {text}"), |screen| {
            !screen.contains(text)
        });
    }

    /// What stands between `before` and the next space or line end, at its first place on the
    /// screen.
    pub fn word_after(&self, before: &str) -> String {
        let screen = self.text();
        let (_, rest) = screen
            .split_once(before)
            .unwrap_or_else(|| panic!("no {before} in\n{screen}"));
        rest.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// A bracketed paste.
    pub fn paste(&mut self, text: &str) {
        self.keys(&format!("\x1b[200~{text}\x1b[201~"));
    }

    /// Changes the terminal's size; the emulator's screen stays at two cells at least.
    pub fn resize(&self, cols: u16, rows: u16) {
        let size = PtySize {
            rows,
            cols,
            pixel_width: 0,
            pixel_height: 0,
        };
        self.screen
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(cells(rows.max(2)), cells(cols.max(2)));
        self.master.as_ref().unwrap().resize(size).unwrap();
    }

    /// Reads nothing any more, as a terminal that hangs: what is written piles up. The program
    /// writes at least once.
    pub fn hang(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        self.resize(77, 21);
        self.reader.take().unwrap().join().unwrap();
    }

    /// The terminal's end, as when its window is closed.
    pub fn die(&mut self) {
        self.hang();
        (self.writer, self.master) = (None, None);
    }

    /// Sends a signal to the program.
    pub fn signal(&self, name: &str) {
        let pid = self.child.process_id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until the program is stopped, as ctrl-z does.
    pub fn stopped(&self) {
        let pid = self.child.process_id().unwrap().to_string();
        let start = Instant::now();
        let state = || {
            Command::new("ps")
                .args(["-o", "stat=", "-p", &pid])
                .output()
                .unwrap()
                .stdout
        };
        while !state().starts_with(b"T") {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "is never stopped"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end, whatever happened to the terminal; the exit code.
    pub fn gone(&mut self) -> u32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.exit_code();
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "does not end:\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Quits, whatever still runs, and all is well.
    pub fn quits(mut self) {
        self.keys("q");
        std::thread::sleep(Duration::from_millis(100));
        if self.text().contains("Quit?") {
            self.keys(ENTER);
        }
        assert_eq!(self.ended(), 0);
    }

    pub fn keys(&mut self, keys: &str) {
        let writer = self.writer.as_mut().unwrap();
        writer.write_all(keys.as_bytes()).unwrap();
        writer.flush().unwrap();
    }

    /// Waits for the end and returns the exit code; the terminal must be as it was.
    pub fn ended(mut self) -> u32 {
        let code = self.gone();
        // What was written last may still be on its way.
        std::thread::sleep(Duration::from_millis(200));
        let parser = self.screen.lock().unwrap();
        assert!(
            !parser.screen().alternate_screen(),
            "the alternate screen was left"
        );
        assert!(!parser.screen().hide_cursor(), "the cursor is back");
        assert_eq!(
            parser.screen().mouse_protocol_mode(),
            vt100::MouseProtocolMode::None
        );
        assert!(!parser.screen().bracketed_paste(), "bracketed paste is off");
        code
    }
}

/// The emulator counts its cells from one.
pub fn cells(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).unwrap()
}

pub const ENTER: &str = "\r";
pub const ESC: &str = "\x1b";

/// A directory with a made-up model and corpus.
pub struct Home {
    pub dir: TempDir,
    pub model: String,
    pub data: String,
}

pub fn home() -> Home {
    home_with(60)
}

/// With a corpus of so many texts.
pub fn home_with(texts: usize) -> Home {
    let dir = TempDir::new().unwrap();
    let model = support::tiny_model(dir.path()).display().to_string();
    let data = support::corpus(dir.path(), texts).display().to_string();
    Home { dir, model, data }
}

impl Home {
    /// Runs a command that must succeed.
    pub fn run(&self, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mlpeek"));
        let out = command
            .args(args)
            .current_dir(self.dir.path())
            .env("MLPEEK_HOME", self.dir.path().join("home"));
        let out = out.output().unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    /// A study whose features share neurons, with a fit of each size.
    pub fn study(&self, sizes: &[&str]) -> PathBuf {
        self.run(&[
            "collect",
            "--model",
            &self.model,
            "--data",
            &self.data,
            "--layer",
            "1",
            "--out",
            "study",
        ]);
        for size in sizes {
            self.run(&[
                "fit",
                "study",
                "-k",
                size,
                "--sparsity",
                "0.25",
                "--max-sweeps",
                "20",
            ]);
        }
        self.dir.path().join("study")
    }

    /// The explorer on that study.
    pub fn explore(&self, cols: u16, rows: u16, env: &[(&str, &str)]) -> Terminal {
        self.explore_with(&["study"], cols, rows, env)
    }

    /// The same with other arguments.
    pub fn explore_with(
        &self,
        args: &[&str],
        cols: u16,
        rows: u16,
        env: &[(&str, &str)],
    ) -> Terminal {
        let terminal = Terminal::open(self.dir.path(), args, cols, rows, env);
        // The model comes last.
        terminal.until("the study and its model", |s| {
            s.contains("Features ") && s.contains("f32)")
        });
        terminal
    }
}
