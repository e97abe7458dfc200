//! The explorer's latency in a pseudo-terminal: start to first frame, key to frame while a fit uses every core; and over a
//! large study, keys, a filter being typed, a feature's contexts, and the memory it takes.
//!
//! `MLPEEK_BENCH_MODEL=model.gguf cargo bench --bench explorer`
//! `MLPEEK_BENCH_ROWS=1000000 cargo bench --bench explorer` (2 GB of disk in the temporary directory)

use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mlpeek::engine::{self, Command, Event};
use mlpeek::factor::{Coding, Coefficients, Factors, FitConfig, SparseColumns};
use mlpeek::model::{HookPoint, HookSite};
use mlpeek::study::Study;
use portable_pty::{Child, CommandBuilder, PtySize, native_pty_system};

/// Keys measured.
const KEYS: usize = 200;
/// Features of the large study.
const FEATURES: usize = 400;
/// Neurons of the large study.
const NEURONS: usize = 64;

fn main() {
    if let Some(rows) = std::env::var("MLPEEK_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()) {
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
    frames: mpsc::Receiver<(Instant, String)>,
    writer: Box<dyn Write + Send>,
    /// Keeps the terminal open.
    _master: Box<dyn portable_pty::MasterPty + Send>,
}

impl Screen {
    fn open(args: &[&str], home: &Path) -> Self {
        let size = PtySize { rows: 36, cols: 120, pixel_width: 0, pixel_height: 0 };
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
                if told.send((Instant::now(), String::from_utf8_lossy(&bytes[..n]).into_owned())).is_err() {
                    return;
                }
            }
        });
        let writer = pair.master.take_writer().unwrap();
        Self { child, frames, writer, _master: pair.master }
    }

    /// When `word` is first on the screen.
    fn seen(&self, word: &str) -> Instant {
        let mut screen = String::new();
        loop {
            let (at, text) = self.frames.recv_timeout(Duration::from_secs(120)).expect("the explorer draws");
            screen += &text;
            if screen.contains(word) {
                return at;
            }
        }
    }

    /// Milliseconds from each key to the first bytes of its frame.
    fn delays(&mut self, keys: impl Iterator<Item = u8>) -> Vec<f64> {
        let mut delays = Vec::new();
        for key in keys {
            while self.frames.try_recv().is_ok() {}
            let pressed = Instant::now();
            self.writer.write_all(&[key]).unwrap();
            self.writer.flush().unwrap();
            if let Ok((at, _)) = self.frames.recv_timeout(Duration::from_secs(1)) {
                delays.push((at - pressed).as_secs_f64() * 1e3);
            }
            std::thread::sleep(Duration::from_millis(15));
        }
        delays.sort_by(f64::total_cmp);
        delays
    }
}

fn tell(what: &str, delays: &[f64]) {
    let at = |q: f64| delays.get(((delays.len().max(1) - 1) as f64 * q) as usize).copied().unwrap_or(f64::NAN);
    println!("{what}: median {:.1} ms, p99 {:.1} ms of {}", at(0.5), at(0.99), delays.len());
}

/// Each key must change cells, so that a frame is due: the selection goes down and up.
fn up_and_down() -> impl Iterator<Item = u8> {
    (0..KEYS).map(|i| if i % 2 == 0 { b'j' } else { b'k' })
}

fn fitting(model: &str) {
    let home = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut screen = Screen::open(&["--model", model, "--layer", "2", "--features", "400"], home.path());
    println!("start to first frame: {:.0} ms", (screen.seen("Explore") - start).as_secs_f64() * 1e3);
    screen.seen("fitting");
    tell("key to frame while fitting", &screen.delays(up_and_down()));
    screen.child.kill().unwrap();
}

fn large(rows: usize) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("large");
    make(&dir, rows);
    contexts(&dir);
    let start = Instant::now();
    let mut screen = Screen::open(&[&dir.display().to_string()], home.path());
    let list = screen.seen("fitted");
    println!("opening a study of {rows} rows x {FEATURES} features: {:.2} s", (list - start).as_secs_f64());
    std::thread::sleep(Duration::from_secs(2));
    tell("key to frame", &screen.delays(up_and_down()));
    screen.delays(std::iter::once(b'/'));
    let typed = (0..KEYS / 2).map(|i| if i % 4 < 2 { b'1' } else { 0x7f });
    tell("filter keystroke to frame", &screen.delays(typed));
    let status = std::fs::read_to_string(format!("/proc/{}/status", screen.child.process_id().unwrap_or(0)));
    let anonymous = status.ok().and_then(|s| s.lines().find(|l| l.starts_with("RssAnon")).map(str::to_owned));
    println!(
        "anonymous memory: {}",
        anonymous.map_or("not known here".to_owned(), |l| l.replace("RssAnon:", "").trim().to_owned())
    );
    screen.child.kill().unwrap();
}

/// From asking for a feature to its card with contexts, in this process.
fn contexts(dir: &Path) {
    let (commands, events) = engine::start().unwrap();
    commands.send(Command::OpenStudy(dir.to_path_buf())).unwrap();
    while !matches!(events.recv(), Ok(Event::Features(_))) {}
    let mut delays: Vec<f64> = (0..FEATURES)
        .step_by(7)
        .map(|id| {
            let asked = Instant::now();
            commands.send(Command::Inspect(id)).unwrap();
            while !matches!(events.recv().unwrap(), Event::Card(_)) {}
            asked.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    delays.sort_by(f64::total_cmp);
    tell("a feature's contexts", &delays);
    commands.send(Command::Shutdown).unwrap();
    while events.recv().is_ok() {}
}

/// A study of made-up activations with a saved fit whose features fire on 2 % of the rows.
fn make(dir: &Path, rows: usize) {
    let hook = HookPoint { layer: 0, site: HookSite::MlpPost };
    let study = Study::import(dir, "made up", hook, rows, NEURONS, &vec![0.5; rows * NEURONS]).unwrap();
    let noise = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let coefficients: Vec<f32> = (0..FEATURES * rows)
        .map(|i| if noise(i) % 50 == 0 { (noise(i ^ 0x5555) % 1000) as f32 / 100.0 } else { 0.0 })
        .collect();
    let features = SparseColumns {
        rows: NEURONS,
        offsets: (0..=FEATURES).map(|j| 2 * j).collect(),
        indices: (0..FEATURES).flat_map(|j| [(j % 32) as u32, 32 + (j / 32) as u32]).collect(),
        values: [0.6, 0.8].repeat(FEATURES),
    };
    let factors = Factors {
        features,
        coefficients: Coefficients::owned(rows, coefficients),
        relative_error: 0.5,
        explained_variance: 0.5,
        sweep: 1,
        seconds: 1.0,
        coding: Coding::default(),
    };
    study.save_fit("large", hook, &FitConfig { features: FEATURES, ..FitConfig::default() }, &factors).unwrap();
}
