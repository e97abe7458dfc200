//! `kill -9` at random moments: a study opens again, the same command goes on, and the result is the same.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::Value;
use tempfile::TempDir;

/// Memory for a fit to the tiny model's activations, but not for its coefficients as well.
const FILES: &str = "4M";

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlpeek"));
    command.args(args).env("MLPEEK_HOME", home.join("home")).env("HF_HUB_OFFLINE", "1");
    command
}

/// Runs to the end and returns the last line of JSON.
fn finish(home: &Path, args: &[&str]) -> Value {
    let output = command(home, args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    last_line(&output.stdout)
}

fn last_line(output: &[u8]) -> Value {
    serde_json::from_str(std::str::from_utf8(output).unwrap().lines().last().unwrap()).unwrap()
}

fn killed_after(command: &mut Command, wait: Duration) -> bool {
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(wait);
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

/// All values of a layer's activations, through the product's own export of a dense one-sweep fit: bytes on disk may
/// be cut into other shards.
fn activations(dir: &Path) -> Vec<u8> {
    use mlpeek::activations::ActivationSource;
    let study = mlpeek::study::Study::open_read_only(dir).unwrap();
    assert!(study.manifest().complete);
    let source: Box<dyn ActivationSource + Send + Sync> = study.activations(study.manifest().hooks[0]).unwrap();
    let (rows, _) = source.shape();
    source.rows(0..rows).unwrap().data.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn collecting_survives_kills() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let model = support::tiny_model(home).display().to_string();
    let data = support::corpus(home, 1500).display().to_string();
    let args = |out: &str| {
        ["collect", "--model", &model, "--layer", "1", "--data", &data, "--out", out, "--json"].map(str::to_owned)
    };
    let (straight, killed) = (home.join("straight"), home.join("killed"));
    let plain = args(&straight.display().to_string());
    let whole = finish(home, &plain.each_ref().map(String::as_str));
    let again = args(&killed.display().to_string());
    let again = again.each_ref().map(String::as_str);
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    for _ in 0..8 {
        killed_after(&mut command(home, &again), Duration::from_millis(rng.random_range(5..200)));
    }
    let resumed = finish(home, &again);
    assert_eq!(resumed["tokens"], whole["tokens"]);
    assert_eq!(resumed["samples"], whole["samples"]);
    assert!(activations(&straight) == activations(&killed), "the caches hold the same values");
}

#[test]
fn fitting_survives_kills() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let model = support::tiny_model(home).display().to_string();
    let data = support::corpus(home, 300).display().to_string();
    let study = home.join("study").display().to_string();
    finish(home, &["collect", "--model", &model, "--layer", "1", "--data", &data, "--out", &study, "--json"]);
    let fit = ["fit", &study, "-k", "24", "--sparsity", "0.1", "--max-sweeps", "60", "--json", "--name"];
    let whole = finish(home, &[&fit[..], &["straight"]].concat());
    // With room for all of it, and with room for all but the coefficients, which then lie in files.
    for (name, memory) in [("killed", "1G"), ("in-files", FILES)] {
        let args = [&fit[..], &[name]].concat();
        let mut killed = 0;
        for seed in 0..20 {
            let wait = Duration::from_millis(Pcg64Mcg::seed_from_u64(seed).random_range(5..150));
            killed += usize::from(killed_after(command(home, &args).env("MLPEEK_MEMORY", memory), wait));
            // Whatever was saved can be read.
            let study = mlpeek::study::Study::open_read_only(Path::new(&study)).unwrap();
            assert!(study.fits().unwrap().iter().any(|f| f.name == "straight"));
            study.load_fit(Some("straight")).unwrap();
        }
        assert!(killed > 0, "no run was killed while it worked");
        let output = command(home, &args).env("MLPEEK_MEMORY", memory).output().unwrap();
        let notes = String::from_utf8(output.stderr).unwrap();
        assert_eq!(notes.contains("lie in files"), memory == FILES, "{notes}");
        let after = last_line(&output.stdout);
        assert_eq!(after["relative_error"], whole["relative_error"], "the same seed gives the same fit");
        let left = std::fs::read_dir(Path::new(&study).join("fits").join(name)).unwrap();
        let left: Vec<_> = left.map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|f| !f.to_string_lossy().contains("tmp")), "{left:?}");
    }
}

/// Twenty kills of a run that checkpoints all the time: each goes on where the last checkpoint was, never further back, and
/// the end is that of a run which nobody stopped.
#[test]
fn a_killed_fit_goes_on_from_its_checkpoint() {
    goes_on_from_its_checkpoint(&["--patience", "100000", "--max-sweeps", "3000"]);
}

/// The same of a first look, which has no rows of coefficients to go on from, and of which a sweep is a batch.
#[test]
fn a_killed_first_look_goes_on_from_its_checkpoint() {
    goes_on_from_its_checkpoint(&["--batch-rows", "256", "--max-sweeps", "2000"]);
}

fn goes_on_from_its_checkpoint(kind: &[&str]) {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let model = support::tiny_model(home).display().to_string();
    let data = support::corpus(home, 300).display().to_string();
    let study = home.join("study").display().to_string();
    finish(home, &["collect", "--model", &model, "--layer", "1", "--data", &data, "--out", &study, "--json"]);
    let fit = [&["fit", &study, "-k", "24", "--sparsity", "0.1", "--l1", "0", "--json"], kind, &["--name"]].concat();
    let whole = finish(home, &[&fit[..], &["straight"]].concat());
    let args = [&fit[..], &["killed"]].concat();
    let (mut reached, mut resumed) = (0, 0);
    for seed in 0..20 {
        let mut run = command(home, &args);
        run.env("MLPEEK_CHECKPOINT", "0").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = run.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut lines = out.lines();
        // Killed in the middle of its sweeps, whatever the machine: some are seen first.
        let first = lines.next().unwrap().unwrap();
        let sweeps = Pcg64Mcg::seed_from_u64(seed).random_range(1..60);
        let last = lines.by_ref().take(sweeps).last();
        child.kill().unwrap();
        child.wait().unwrap();
        let at = |line: &str| serde_json::from_str::<Value>(line).unwrap()["sweep"].as_u64();
        let (Some(first), Some(last)) = (at(&first), last.and_then(Result::ok).and_then(|l| at(&l))) else { break };
        assert!(first > reached, "went back: sweep {first} after a checkpoint at {reached} or later");
        resumed += usize::from(first > 1);
        // The next run begins no earlier than this one did: its checkpoints replaced the one that it began from.
        reached = first - 1;
        let curve = std::fs::read_to_string(Path::new(&study).join("fits/killed/loss.jsonl")).unwrap();
        let told: Vec<u64> =
            curve.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()?["sweep"].as_u64()).collect();
        assert!(told.iter().copied().eq(1..=told.len() as u64) && told.len() as u64 + 1 >= last, "{told:?}");
    }
    assert!(resumed >= 10, "only {resumed} runs went on from a checkpoint");
    let output = command(home, &args).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("going on from the checkpoint"));
    let after = last_line(&output.stdout);
    for what in ["relative_error", "explained_variance", "sweeps"] {
        assert_eq!(after[what], whole[what], "{what}");
    }
}

#[test]
fn a_second_fit_is_refused_while_the_first_runs() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let model = support::tiny_model(home).display().to_string();
    let data = support::corpus(home, 1500).display().to_string();
    let study = home.join("study").display().to_string();
    finish(home, &["collect", "--model", &model, "--layer", "1", "--data", &data, "--out", &study, "--json"]);
    let fit = [
        "fit",
        &study,
        "-k",
        "24",
        "--sparsity",
        "0.1",
        "--l1",
        "0",
        "--max-sweeps",
        "5000",
        "--json",
        "--name",
        "one",
    ];
    let mut first = command(home, &fit).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut told, mut line) = (BufReader::new(first.stdout.take().unwrap()), String::new());
    told.read_line(&mut line).unwrap();
    // Whoever has it may do nothing at all for a while: it has the study until it ends.
    let stopped = Command::new("kill").args(["-STOP", &first.id().to_string()]).status().unwrap();
    assert!(stopped.success() && first.try_wait().unwrap().is_none(), "the first fit goes on: {line}");
    let second = command(home, &fit).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("study") && said.contains(&first.id().to_string()), "{said}");
    first.kill().unwrap();
    first.wait().unwrap();
    let whole = finish(home, &[&fit[..9], &["20", "--json", "--name", "one"]].concat());
    assert!(whole["relative_error"].as_f64().unwrap() < 1.0, "the name is free again");
}
