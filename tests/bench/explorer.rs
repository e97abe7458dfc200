//! The explorer's latency in a pseudo-terminal: start to first frame, and key to frame while a fit uses every core.
//!
//! `MLPEEK_BENCH_MODEL=model.gguf cargo bench --bench explorer`

use std::io::{Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use portable_pty::{CommandBuilder, PtySize, native_pty_system};

/// Keys measured while the fit runs.
const KEYS: usize = 200;

fn main() {
    let Ok(model) = std::env::var("MLPEEK_BENCH_MODEL") else {
        println!("set MLPEEK_BENCH_MODEL to a GGUF file or a model directory");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let size = PtySize { rows: 36, cols: 120, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).unwrap();
    let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_mlpeek"));
    command.args(["--model", &model, "--layer", "2", "--features", "400"]);
    command.env("TERM", "xterm-256color");
    command.env("MLPEEK_HOME", home.path());
    let start = Instant::now();
    let mut child = pair.slave.spawn_command(command).unwrap();
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
    let mut writer = pair.master.take_writer().unwrap();
    let seen = |word: &str| {
        let mut screen = String::new();
        while !screen.contains(word) {
            let (at, text) = frames.recv_timeout(Duration::from_secs(120)).expect("the explorer draws");
            screen += &text;
            if screen.contains(word) {
                return at;
            }
        }
        Instant::now()
    };
    println!("start to first frame: {:.0} ms", (seen("Explore") - start).as_secs_f64() * 1e3);
    seen("fitting");
    let mut delays: Vec<f64> = Vec::with_capacity(KEYS);
    for i in 0..KEYS {
        while frames.try_recv().is_ok() {}
        let pressed = Instant::now();
        // Each key must change cells, so that a frame is due: the selection goes down and up.
        writer.write_all(if i % 2 == 0 { b"j" } else { b"k" }).unwrap();
        writer.flush().unwrap();
        if let Ok((at, _)) = frames.recv_timeout(Duration::from_secs(1)) {
            delays.push((at - pressed).as_secs_f64() * 1e3);
        }
        std::thread::sleep(Duration::from_millis(15));
    }
    delays.sort_by(f64::total_cmp);
    let at = |q: f64| delays[((delays.len() - 1) as f64 * q) as usize];
    println!("key to frame while fitting: median {:.1} ms, p99 {:.1} ms of {} keys", at(0.5), at(0.99), delays.len());
    child.kill().unwrap();
}
