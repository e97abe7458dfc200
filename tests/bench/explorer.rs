//! The explorer's latency in a pseudo-terminal: start to first frame, key to frame while a fit uses
//! every core; and over a large study, keys in every pane, a filter being typed, questions to the
//! engine, and the memory it takes.
//!
//! `MLPEEK_BENCH_MODEL=model.gguf cargo bench --bench explorer` `MLPEEK_BENCH_ROWS=1000000 cargo
//! bench --bench explorer` (4 GB of disk in the temporary directory)

mod made_up;

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use made_up::FEATURES;
use mlpeek::engine::{self, Command, Event, Probe, Request, RequestCounter};
use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};

/// Keys measured.
const KEYS: usize = 200;
/// The screen, in cells.
const SIZE: (u16, u16) = (120, 36);
/// Nothing was drawn for so long: what was asked is answered.
const QUIET: Duration = Duration::from_millis(700);

fn main() {
    if let Some(rows) = std::env::var("MLPEEK_BENCH_ROWS")
        .ok()
        .and_then(|rows| rows.parse().ok())
    {
        large(rows);
    } else if let Ok(model) = std::env::var("MLPEEK_BENCH_MODEL") {
        fitting(&model);
    } else {
        println!(
            "set MLPEEK_BENCH_MODEL to a GGUF file or a model directory, or MLPEEK_BENCH_ROWS to a number of rows"
        );
    }
}

/// The explorer in a terminal of its own.
struct Screen {
    child: Box<dyn Child + Send + Sync>,
    frames: mpsc::Receiver<(Instant, Vec<u8>)>,
    /// What is on it.
    shown: vt100::Parser,
    writer: Box<dyn Write + Send>,
    /// Keeps the terminal open.
    _master: Box<dyn portable_pty::MasterPty + Send>,
}

impl Screen {
    fn open(args: &[&str], home: &Path) -> Self {
        let size = PtySize {
            rows: SIZE.1,
            cols: SIZE.0,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_mlpeek"));
        command.args(args);
        command.env("TERM", "xterm-256color");
        command.env("MLPEEK_HOME", home);
        let child = pair.slave.spawn_command(command).unwrap();
        let (told, frames) = mpsc::channel();
        let mut reader = pair.master.try_clone_reader().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                if told.send((Instant::now(), bytes[..n].to_vec())).is_err() {
                    return;
                }
            }
        });
        let writer = pair.master.take_writer().unwrap();
        let cells = |n| NonZeroU16::new(n).expect("a size");
        let shown = vt100::Parser::new(cells(SIZE.1), cells(SIZE.0), 0);
        Self {
            child,
            frames,
            shown,
            writer,
            _master: pair.master,
        }
    }

    /// When `word` is on the screen.
    fn seen(&mut self, word: &str) -> Instant {
        let mut at = Instant::now();
        while !self.shown.screen().contents().contains(word) {
            let Ok((when, bytes)) = self.frames.recv_timeout(Duration::from_secs(120)) else {
                panic!("no '{word}' on\n{}", self.shown.screen().contents());
            };
            self.shown.process(&bytes);
            at = when;
        }
        at
    }

    /// Waits until nothing is drawn any more.
    fn rests(&mut self) {
        while let Ok((_, bytes)) = self.frames.recv_timeout(QUIET) {
            self.shown.process(&bytes);
        }
    }

    /// Presses `keys`, waits for `word` and for all that comes with it.
    fn goes(&mut self, keys: &str, word: &str) {
        for key in keys.bytes() {
            self.writer.write_all(&[key]).unwrap();
            self.writer.flush().unwrap();
            self.rests();
        }
        self.seen(word);
    }

    /// Milliseconds from each key to the first bytes of its frame.
    fn delays(&mut self, keys: impl Iterator<Item = u8>) -> Vec<f64> {
        let mut delays = Vec::new();
        for key in keys {
            while let Ok((_, bytes)) = self.frames.try_recv() {
                self.shown.process(&bytes);
            }
            let pressed = Instant::now();
            self.writer.write_all(&[key]).unwrap();
            self.writer.flush().unwrap();
            if let Ok((at, bytes)) = self.frames.recv_timeout(Duration::from_secs(1)) {
                self.shown.process(&bytes);
                delays.push((at - pressed).as_secs_f64() * 1e3);
            }
            std::thread::sleep(Duration::from_millis(15));
        }
        delays.sort_by(f64::total_cmp);
        delays
    }
}

fn tell(what: &str, delays: &[f64]) {
    let at = |q: f64| {
        delays
            .get(((delays.len().max(1) - 1) as f64 * q) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    println!(
        "{what}: p50 {:.1} ms, p99 {:.1} ms of {}",
        at(0.5),
        at(0.99),
        delays.len()
    );
}

/// Each key must change cells, so that a frame is due: the selection goes down and up.
fn up_and_down() -> impl Iterator<Item = u8> {
    (0..KEYS).map(|i| if i % 2 == 0 { b'j' } else { b'k' })
}

fn fitting(model: &str) {
    let home = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut screen = Screen::open(
        &["--model", model, "--layer", "2", "--features", "400"],
        home.path(),
    );
    println!(
        "start to first frame: {:.0} ms",
        (screen.seen("Explore") - start).as_secs_f64() * 1e3
    );
    screen.seen("fitting");
    tell("key to frame while fitting", &screen.delays(up_and_down()));
    screen.child.kill().unwrap();
}

fn large(rows: usize) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("large");
    let start = Instant::now();
    made_up::make(&dir, rows);
    println!("making the study: {:.1} s", start.elapsed().as_secs_f64());
    questions(&dir);
    let start = Instant::now();
    let mut screen = Screen::open(&[&dir.display().to_string()], home.path());
    let list = screen.seen("fitted");
    println!(
        "opening a study of {rows} rows x {FEATURES} features: {:.2} s",
        (list - start).as_secs_f64()
    );
    screen.rests();
    panes(&mut screen);
    let status = std::fs::read_to_string(format!(
        "/proc/{}/status",
        screen.child.process_id().unwrap_or(0)
    ));
    let anonymous = status.ok().and_then(|s| {
        s.lines()
            .find(|l| l.starts_with("RssAnon"))
            .map(str::to_owned)
    });
    println!(
        "anonymous memory: {}",
        anonymous.map_or("not known here".to_owned(), |l| l
            .replace("RssAnon:", "")
            .trim()
            .to_owned())
    );
    screen.child.kill().unwrap();
}

/// Keys in every pane; the first of each goes there and says by which words it is known.
fn panes(screen: &mut Screen) {
    tell("key to frame, Features", &screen.delays(up_and_down()));
    screen.delays(std::iter::once(b'/'));
    let typed = (0..KEYS / 2).map(|i| if i % 4 < 2 { b'1' } else { 0x7f });
    tell("filter keystroke to frame", &screen.delays(typed));
    // Each letter asks for the contexts of every feature; in turns with their deletion, so that no
    // list is empty for long.
    screen.goes("context:", "context:");
    let asked = made_up::word(17);
    let letters = asked
        .bytes()
        .chain(std::iter::repeat_n(0x7f, asked.len()))
        .cycle()
        .take(KEYS / 4);
    tell(
        "filter over contexts, keystroke to frame",
        &screen.delays(letters),
    );
    screen.rests();
    screen.goes("\u{1b}", "Contexts of #");
    screen.goes("1\t", "Contexts of #");
    tell(
        "key to frame, Contexts with heat maps",
        &screen.delays(up_and_down()),
    );
    screen.goes("\t", "Feature #");
    tell("key to frame, Feature", &screen.delays(up_and_down()));
    screen.goes("1M", "Labels");
    tell("key to frame, Labels", &screen.delays(up_and_down()));
    screen.goes("1   C", "Compare #");
    tell("key to frame, Compare", &screen.delays(up_and_down()));
    screen.goes("2", "linkage");
    tell("key to frame, Tree", &screen.delays(up_and_down()));
    screen.goes("4", "Live");
    screen.goes("i", "Live");
    let typed = (0..KEYS).map(|i| if i % 8 < 4 { b'a' } else { 0x7f });
    tell(
        "key to frame, Live (no model: typing alone)",
        &screen.delays(typed),
    );
    screen.goes("\u{1b}", "Live");
    screen.goes("5", "fewer or more");
    tell(
        "key to frame, Fit",
        &screen.delays((0..KEYS).map(|i| if i % 2 == 0 { b'+' } else { b'-' })),
    );
}

/// From a question to its answer, in this process.
fn questions(dir: &Path) {
    let (requests, replies) = engine::start().unwrap();
    let counter = RequestCounter::default();
    requests
        .send(counter.request(Command::OpenStudy(dir.to_path_buf())))
        .unwrap();
    while !matches!(replies.recv().unwrap().event, Event::Features(_)) {}
    let ask = |what: &str, all: Vec<Command>, answers: fn(&Event) -> bool| {
        let mut delays: Vec<f64> = all
            .into_iter()
            .map(|command| {
                let asked = Instant::now();
                let request = counter.request(command);
                let open = Some(request.id);
                requests.send(request).unwrap();
                loop {
                    let reply = replies.recv().unwrap();
                    match reply.event {
                        Event::Refused(why) => panic!("{what}: {why}"),
                        ref event if reply.is_to(open) && answers(event) => {
                            break asked.elapsed().as_secs_f64() * 1e3;
                        }
                        _ => {}
                    }
                }
            })
            .collect();
        delays.sort_by(f64::total_cmp);
        tell(what, &delays);
    };
    let ids = || (0..FEATURES).step_by(7);
    ask(
        "a feature's contexts",
        ids().map(Command::Inspect).collect(),
        |e| matches!(e, Event::Card(_)),
    );
    let neurons = (0..20).map(Command::Neuron).collect();
    ask("a neuron's contexts", neurons, |e| {
        matches!(e, Event::Neuron(_))
    });
    let contexts = (0..20)
        .map(|i| Command::Find(Probe::Context(made_up::word(3000 + 31 * i))))
        .collect();
    ask("features by what their contexts say", contexts, |e| {
        matches!(e, Event::Found(..))
    });
    let labels = (0..10)
        .map(|i| Command::Find(Probe::Label(format!("label {i}"))))
        .collect();
    ask("features by a label", labels, |e| {
        matches!(e, Event::Found(..))
    });
    ask("features against labels", vec![Command::Labels; 5], |e| {
        matches!(e, Event::Labels(_))
    });
    let three = (0..10)
        .map(|i| Command::Compare(vec![i, i + 28, i + 56]))
        .collect();
    ask("three features compared", three, |e| {
        matches!(e, Event::Comparison(_))
    });
    requests.send(Request::shutdown()).unwrap();
    while replies.recv().is_ok() {}
}
