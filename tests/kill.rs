//! `kill -9` at random moments: a study opens again, the same command goes on, and the result is
//! the same.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::Value;
use support::program::collected;
use tempfile::TempDir;

/// Memory for a fit to the tiny model's activations, but not for its coefficients as well.
const FILES: &str = "4M";

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlpeek"));
    command
        .args(args)
        .env("MLPEEK_HOME", home.join("home"))
        .env("HF_HUB_OFFLINE", "1");
    command
}

/// Runs to the end and returns the last line of JSON.
fn finish(home: &Path, args: &[&str]) -> Value {
    let output = command(home, args).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    last_line(&output.stdout)
}

fn last_line(output: &[u8]) -> Value {
    serde_json::from_str(std::str::from_utf8(output).unwrap().lines().last().unwrap()).unwrap()
}

fn killed_after(command: &mut Command, wait: Duration) -> bool {
    let mut child: Child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(wait);
    let running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    running
}

/// All values of a layer's activations, through the product's own export of a dense one-sweep fit:
/// bytes on disk may be cut into other shards.
fn activations(dir: &Path) -> Vec<u8> {
    use mlpeek::activations::ActivationSource;
    let study = mlpeek::study::Study::open_read_only(dir).unwrap();
    assert!(study.manifest().complete);
    let source: Box<dyn ActivationSource + Send + Sync> =
        study.activations(study.manifest().hooks[0]).unwrap();
    let (rows, _) = source.shape();
    source
        .rows(0..rows)
        .unwrap()
        .data
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect()
}

#[test]
fn collecting_survives_kills() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let model = support::tiny_model(home).display().to_string();
    let data = support::corpus(home, 1500).display().to_string();
    let args = |out: &str| {
        [
            "collect", "--model", &model, "--layer", "1", "--data", &data, "--out", out, "--json",
        ]
        .map(str::to_owned)
    };
    let (straight, killed) = (home.join("straight"), home.join("killed"));
    let plain = args(&straight.display().to_string());
    let whole = finish(home, &plain.each_ref().map(String::as_str));
    let again = args(&killed.display().to_string());
    let again = again.each_ref().map(String::as_str);
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    for _ in 0..8 {
        killed_after(
            &mut command(home, &again),
            Duration::from_millis(rng.random_range(5..200)),
        );
    }
    let resumed = finish(home, &again);
    assert_eq!(resumed["token_count"], whole["token_count"]);
    assert_eq!(resumed["sample_count"], whole["sample_count"]);
    assert!(
        activations(&straight) == activations(&killed),
        "the caches hold the same values"
    );
}

#[test]
fn fitting_survives_kills() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let study = collected(home, 300);
    let fit = [
        "fit",
        &study,
        "-k",
        "24",
        "--sparsity",
        "0.1",
        "--max-sweeps",
        "60",
        "--json",
        "--name",
    ];
    let whole = finish(home, &[&fit[..], &["straight"]].concat());
    // With room for all of it, and with room for all but the coefficients, which then lie in files.
    for (name, memory) in [("killed", "1G"), ("in-files", FILES)] {
        let args = [&fit[..], &[name]].concat();
        let mut killed = 0;
        for seed in 0..20 {
            let wait = Duration::from_millis(Pcg64Mcg::seed_from_u64(seed).random_range(5..150));
            killed += usize::from(killed_after(
                command(home, &args).env("MLPEEK_MEMORY", memory),
                wait,
            ));
            // Whatever was saved can be read.
            let study = mlpeek::study::Study::open_read_only(Path::new(&study)).unwrap();
            assert!(study.fits().unwrap().iter().any(|f| f.name == "straight"));
            study.load_fit(Some("straight")).unwrap();
        }
        assert!(killed > 0, "no run was killed while it worked");
        let output = command(home, &args)
            .env("MLPEEK_MEMORY", memory)
            .output()
            .unwrap();
        let notes = String::from_utf8(output.stderr).unwrap();
        assert_eq!(notes.contains("lie in files"), memory == FILES, "{notes}");
        let after = last_line(&output.stdout);
        assert_eq!(
            after["relative_error"], whole["relative_error"],
            "the same seed gives the same fit"
        );
        let left = std::fs::read_dir(Path::new(&study).join("fits").join(name)).unwrap();
        let left: Vec<_> = left.map(|e| e.unwrap().file_name()).collect();
        assert!(
            left.iter().all(|f| !f.to_string_lossy().contains("tmp")),
            "{left:?}"
        );
    }
}

/// Twenty kills of a run that checkpoints all the time: each goes on where the last checkpoint was,
/// never further back, and the end is that of a run which nobody stopped.
#[test]
fn a_killed_fit_goes_on_from_its_checkpoint() {
    goes_on_from_its_checkpoint(&["--patience", "100000", "--max-sweeps", "3000"]);
}

/// The same of a first look, which has no rows of coefficients to go on from, and of which a sweep
/// is a batch.
#[test]
fn a_killed_first_look_goes_on_from_its_checkpoint() {
    goes_on_from_its_checkpoint(&["--batch-rows", "256", "--max-sweeps", "2000"]);
}

fn goes_on_from_its_checkpoint(kind: &[&str]) {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let study = collected(home, 300);
    let fit = [
        &[
            "fit",
            &study,
            "-k",
            "24",
            "--sparsity",
            "0.1",
            "--l1",
            "0",
            "--json",
        ],
        kind,
        &["--name"],
    ]
    .concat();
    let whole = finish(home, &[&fit[..], &["straight"]].concat());
    let args = [&fit[..], &["killed"]].concat();
    let (mut reached, mut resumed) = (0, 0);
    for seed in 0..20 {
        let mut run = command(home, &args);
        run.env("MLPEEK_CHECKPOINT", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
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
        let (Some(first), Some(last)) =
            (at(&first), last.and_then(Result::ok).and_then(|l| at(&l)))
        else {
            break;
        };
        assert!(
            first > reached,
            "went back: sweep {first} after a checkpoint at {reached} or later"
        );
        resumed += usize::from(first > 1);
        // The next run begins no earlier than this one did: its checkpoints replaced the one that
        // it began from.
        reached = first - 1;
        let curve =
            std::fs::read_to_string(Path::new(&study).join("fits/killed/loss.jsonl")).unwrap();
        let told: Vec<u64> = curve
            .lines()
            .filter_map(|l| serde_json::from_str::<Value>(l).ok()?["sweep"].as_u64())
            .collect();
        assert!(
            told.iter().copied().eq(1..=told.len() as u64) && told.len() as u64 + 1 >= last,
            "{told:?}"
        );
    }
    assert!(
        resumed >= 10,
        "only {resumed} runs went on from a checkpoint"
    );
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
    let study = collected(home, 1500);
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
    let mut first = command(home, &fit)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut told, mut line) = (BufReader::new(first.stdout.take().unwrap()), String::new());
    told.read_line(&mut line).unwrap();
    // Whoever has it may do nothing at all for a while: it has the study until it ends.
    let stopped = Command::new("kill")
        .args(["-STOP", &first.id().to_string()])
        .status()
        .unwrap();
    assert!(
        stopped.success() && first.try_wait().unwrap().is_none(),
        "the first fit goes on: {line}"
    );
    let second = command(home, &fit).output().unwrap();
    let message = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{message}");
    assert!(
        message.contains("study") && message.contains(&first.id().to_string()),
        "{message}"
    );
    first.kill().unwrap();
    first.wait().unwrap();
    let whole = finish(
        home,
        &[&fit[..9], &["20", "--json", "--name", "one"]].concat(),
    );
    assert!(
        whole["relative_error"].as_f64().unwrap() < 1.0,
        "the name is free again"
    );
}

#[test]
fn a_collection_that_was_cut_short_is_told_by_every_command_and_goes_on_by_the_study_alone() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let model = support::tiny_model(home);
    let data = support::corpus(home, 400);
    let study = home.join("study");
    support::half_collected(&study, &model, &data);
    let state = mlpeek::study::Study::open_read_only(&study)
        .unwrap()
        .collected()
        .unwrap();
    let study = study.display().to_string();
    let fit = command(
        home,
        &["fit", &study, "-k", "8", "--max-sweeps", "3", "--json"],
    )
    .output()
    .unwrap();
    let message = String::from_utf8(fit.stderr).unwrap();
    assert!(
        fit.status.success() && message.contains(&state.to_string()),
        "{message}"
    );
    for args in [
        &["features", &study][..],
        &["trace", &study, "--text", "a river"],
        &["tree", &study],
    ] {
        let out = command(home, args).output().unwrap();
        let message = String::from_utf8(out.stderr).unwrap();
        assert!(
            out.status.success()
                && message.contains(&state.to_string())
                && message.contains("goes on"),
            "{message}"
        );
    }
    // Neither the corpus nor a layer need be named again, nor be there.
    std::fs::remove_file(&data).unwrap();
    let whole = finish(home, &["collect", "--out", &study, "--json"]);
    assert_eq!(whole["sample_count"], 400);
    let message = command(home, &["features", &study])
        .output()
        .unwrap()
        .stderr;
    assert!(!String::from_utf8(message).unwrap().contains("collected"));
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).unwrap();
        if path.is_dir() {
            copy_dir(&path, &to.join(name))
        } else {
            _ = std::fs::copy(&path, to.join(name)).unwrap()
        }
    }
}

#[test]
fn an_added_corpus_that_was_cut_short_goes_on_and_another_waits_for_it() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let study = collected(home, 30);
    let before = activations(Path::new(&study));
    let more = home.join("more");
    std::fs::create_dir(&more).unwrap();
    let (more, other) = (
        support::corpus(&more, 3000).display().to_string(),
        home.join("other.txt"),
    );
    std::fs::write(&other, "a river\n").unwrap();
    let other = other.display().to_string();
    let add = |data: &str| {
        command(
            home,
            &[
                "collect", "--data", data, "--out", &study, "--append", "--json",
            ],
        )
    };
    let mut child = add(&more)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let manifest = Path::new(&study).join("study.json");
    let registered =
        || serde_json::from_slice::<Value>(&std::fs::read(&manifest).unwrap()).unwrap();
    while registered()["corpora"].as_array().unwrap().len() < 2 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too soon");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(registered()["complete"], false);
    let refused = add(&other).output().unwrap();
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success()
            && message.contains("collect --out")
            && message.contains("of 3,030 samples"),
        "{message}"
    );
    assert!(message.contains("--withdraw"), "{message}");
    // It can be taken out again, as if it had never been added, or gone on with.
    let copy = home.join("copy");
    copy_dir(Path::new(&study), &copy);
    let withdrawn = finish(
        home,
        &[
            "collect",
            "--out",
            copy.to_str().unwrap(),
            "--withdraw",
            "--json",
        ],
    );
    assert!(withdrawn["corpus"].as_str() == Some(&more) && activations(&copy) == before);
    let again = command(
        home,
        &["collect", "--out", copy.to_str().unwrap(), "--withdraw"],
    )
    .output()
    .unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(
        finish(home, &["collect", "--out", &study, "--json"])["sample_count"],
        3030
    );
    let added = add(&other).output().unwrap();
    assert_eq!(last_line(&added.stdout)["sample_count"], 3031);
}

/// A run of `fit` that has told at least `sweeps` sweeps, ended by `signal`; with it the last sweep
/// that it told.
fn ended_by(signal: &str, sweeps: usize, run: &mut Command) -> u64 {
    let mut child = run
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let sweep = |line: &str| serde_json::from_str::<Value>(line).unwrap()["sweep"].as_u64();
    let mut last = (0..sweeps)
        .filter_map(|_| sweep(&lines.next().unwrap().unwrap()))
        .last()
        .unwrap();
    assert!(
        Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    // Some more may have been done before the signal was seen; a line that was cut off is none.
    for line in lines.map_while(Result::ok) {
        let value = serde_json::from_str::<Value>(&line).ok();
        last = value
            .filter(|v| v["event"] == "progress")
            .and_then(|v| v["sweep"].as_u64())
            .unwrap_or(last);
    }
    child.wait().unwrap();
    last
}

#[test]
fn a_fit_that_was_stopped_or_killed_is_told_as_that_and_the_newest_is_a_finished_one() {
    let dir = TempDir::new().unwrap();
    let home = dir.path();
    let study = collected(home, 300);
    let long = |name: &'static str| {
        let args = [
            "fit",
            &study,
            "-k",
            "24",
            "--patience",
            "100000",
            "--max-sweeps",
            "100000",
            "--json",
            "--name",
            name,
        ];
        let mut run = command(home, &args);
        run.env("MLPEEK_CHECKPOINT", "0");
        run
    };
    let notes = |args: &[&str]| {
        let out = command(home, args).output().unwrap();
        (out.status.success(), String::from_utf8(out.stderr).unwrap())
    };
    // Alone, what was stopped is shown, with a word; what was killed has nothing to show.
    let killed_at = ended_by("-KILL", 3, &mut long("killed"));
    let (shown, message) = notes(&["features", &study]);
    assert!(
        !shown
            && message.contains("'killed' was stopped at sweep")
            && message.contains("--name killed --resume"),
        "{message}"
    );
    let stopped_at = ended_by("-TERM", 3, &mut long("stopped"));
    let (shown, message) = notes(&["features", &study]);
    assert!(
        shown && message.contains(&format!("'stopped' was stopped at sweep {stopped_at}")),
        "{message}"
    );

    let fits = || {
        mlpeek::study::Study::open_read_only(Path::new(&study))
            .unwrap()
            .fits()
            .unwrap()
    };
    let fit_named = |name: &str| fits().into_iter().find(|fit| fit.name == name).unwrap();
    use mlpeek::study::FitState;
    assert_eq!(
        (
            fit_named("stopped").state,
            fit_named("stopped").reached as u64
        ),
        (FitState::Stopped, stopped_at)
    );
    assert_eq!(fit_named("killed").state, FitState::Cut);
    assert!(fit_named("killed").reached as u64 >= killed_at && !fit_named("killed").has_factors());

    // Beside a finished one they are not the newest, although they are newer.
    finish(
        home,
        &[
            "fit",
            &study,
            "-k",
            "8",
            "--max-sweeps",
            "3",
            "--json",
            "--name",
            "whole",
        ],
    );
    assert_eq!(fit_named("whole").state, FitState::MaxSweeps);
    ended_by("-TERM", 2, &mut long("later"));
    assert_eq!(fits().last().unwrap().name, "later");
    let traced = finish(home, &["trace", &study, "--text", "a river", "--json"]);
    assert_eq!(
        (traced["fit"].as_str(), traced["state"].as_str()),
        (Some("whole"), Some("max_sweeps"))
    );
    for args in [
        &["features", &study][..],
        &["feature", &study, "0"],
        &["tree", &study],
    ] {
        let (shown, message) = notes(args);
        assert!(shown && !message.contains("stopped"), "{message}");
    }
    let (shown, message) = notes(&["features", &study, "--fit", "later"]);
    assert!(
        shown && message.contains("'later' was stopped at sweep"),
        "{message}"
    );
}
