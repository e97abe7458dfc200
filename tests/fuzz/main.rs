//! Damaged models, studies, autoencoders, matrices and corpora through every reader, inside the
//! process: no panic, no end of the process, no hang, no allocation that the file does not warrant,
//! and what a checksum covers is read as it was or not at all.
//!
//! The inputs are numbered: each number gives one file and its damage. `MLPEEK_FUZZ` says how many
//! (some hundreds in `cargo test`), `MLPEEK_FUZZ_FROM` where they begin. A process of its own reads
//! them, so that one that it does not survive is named and the rest are still tried.
#![cfg(target_os = "linux")]

#[path = "../../src/model/gguf/testing.rs"]
#[allow(dead_code)]
mod gguf;
mod mutate;
#[path = "../support/mod.rs"]
mod support;
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use targets::Targets;

const USUAL: u64 = 300;
/// An input that takes longer than this, on however busy a machine, does not end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Address space in KiB that the process has, and more for the threads of each core: an allocation
/// of absurd size fails, which ends it.
const ROOM: usize = 3 << 20;
const ROOM_OF_A_CORE: usize = 256 << 10;
const CHILD: &str = "MLPEEK_FUZZ_CHILD";

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |n| {
        n.parse()
            .unwrap_or_else(|_| panic!("{name} is '{n}', which is no number"))
    })
}

#[test]
fn damaged_files_are_refused_or_read_as_they_were() {
    let from = number("MLPEEK_FUZZ_FROM", 0);
    let to = from + number("MLPEEK_FUZZ", USUAL);
    let dir = tempfile::tempdir().unwrap();
    targets::make(dir.path());
    let (mut at, mut found) = (from, Vec::new());
    while at < to && found.len() < 20 {
        let mut child = child(dir.path(), at, to);
        let how = wait(&mut child, dir.path());
        let told = fs::read_to_string(dir.path().join("found")).unwrap_or_default();
        found.extend(told.lines().map(str::to_owned));
        fs::remove_file(dir.path().join("found")).unwrap_or_default();
        let last =
            begun(dir.path()).unwrap_or_else(|| panic!("the process did not begin: {how:?}"));
        if let Some(how) = how {
            found.push(format!("input {} {how}: {}", last.0, last.1));
        }
        at = last.0 + 1;
        println!("{} of {} inputs", at - from, to - from);
    }
    assert!(
        found.is_empty(),
        "MLPEEK_FUZZ=1 MLPEEK_FUZZ_FROM=N tries one again:\n{}",
        found.join("\n")
    );
}

fn child(dir: &Path, at: u64, to: u64) -> Child {
    let mut command = Command::new("sh");
    let room = ROOM + ROOM_OF_A_CORE * std::thread::available_parallelism().map_or(1, usize::from);
    command
        .args(["-c", &format!("ulimit -v {room} && exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap());
    command.args([
        "--ignored",
        "--exact",
        "a_process_that_reads",
        "--nocapture",
    ]);
    command
        .env(CHILD, dir)
        .env("MLPEEK_FUZZ_FROM", at.to_string())
        .env("MLPEEK_FUZZ", (to - at).to_string());
    command.env("RUST_BACKTRACE", "0");
    command
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("stderr")).unwrap());
    command.spawn().unwrap()
}

/// Waits for the end, or for an input that does not end; `None` where all went well.
fn wait(child: &mut Child, dir: &Path) -> Option<String> {
    let mut seen = (begun(dir), Instant::now());
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let stderr = fs::read_to_string(dir.join("stderr")).unwrap_or_default();
            let message: String = stderr
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .chars()
                .take(500)
                .collect();
            return (!status.success()).then(|| format!("ends the process ({status}, {message})"));
        }
        let now = begun(dir);
        if now != seen.0 {
            seen = (now, Instant::now());
        } else if seen.1.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return Some("does not end".to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The input that was begun last, and what it is.
fn begun(dir: &Path) -> Option<(u64, String)> {
    let text = fs::read_to_string(dir.join("begun")).ok()?;
    let (number, what) = text.split_once(' ')?;
    Some((number.parse().ok()?, what.to_owned()))
}

#[test]
#[ignore = "a process of the test above"]
fn a_process_that_reads() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let targets = Targets::open(&dir);
    // What is caught is told by number; what is not ends the process.
    std::panic::set_hook(Box::new(|_| ()));
    let from = number("MLPEEK_FUZZ_FROM", 0);
    let mut found = Vec::new();
    for at in from..from + number("MLPEEK_FUZZ", USUAL) {
        let mut rng = Pcg64Mcg::seed_from_u64(at);
        let target = targets.choose(&mut rng);
        let whole = fs::read(&target.path).unwrap();
        let (damaged, how) = mutate::mutate(&whole, target.is_json(), &mut rng);
        let what = format!(
            "{} {how}",
            target.path.strip_prefix(&dir).unwrap().display()
        );
        fs::write(dir.join("begun"), format!("{at} {what}")).unwrap();
        replace(&target.path, &damaged);
        let read = catch_unwind(AssertUnwindSafe(|| targets.read(target)));
        replace(&target.path, &whole);
        match read {
            Ok(Ok(())) => {}
            Ok(Err(wrong)) => found.push(format!("input {at}: {what}: {wrong}")),
            Err(panic) => {
                let message = panic.downcast_ref::<String>().cloned();
                let message = message
                    .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                    .unwrap_or_default();
                found.push(format!(
                    "input {at}: {what}: panicked: {}",
                    message.escape_debug()
                ));
            }
        }
        if found.len() == 20 {
            break;
        }
    }
    fs::write(dir.join("found"), found.join("\n")).unwrap();
}

/// A new file under the name: what is mapped of the one before stays as it is.
fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("being-written");
    fs::write(&beside, bytes).unwrap();
    fs::rename(&beside, path).unwrap();
}
