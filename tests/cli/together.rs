//! Several processes that change one file at once.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use crate::Made;

const AT_ONCE: usize = 8;
const CHILD: &str = "MLPEEK_TEST_REMEMBER";

fn all_succeed(children: Vec<Child>) {
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn notes_made_by_processes_at_once_are_all_kept() {
    let texts: Vec<String> = (0..12)
        .map(|i| format!("text number {i} of some length"))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let made = Made::new("home", &[("a", &texts[..6]), ("b", &texts[6..])]);
    let (study, data) = (made.path("s"), made.path("corpus.json"));
    made.run(&[
        "collect",
        "--model",
        &made.model,
        "--data",
        &data,
        "--layer",
        "1",
        "--out",
        &study,
    ]);
    made.run(&[
        "fit",
        &study,
        "-k",
        "24",
        "--sparsity",
        "0.3",
        "--max-sweeps",
        "3",
    ]);
    // A fit that runs, or an explorer, holds the study's own lock.
    let held = fs::File::options()
        .write(true)
        .open(Path::new(&study).join("lock"))
        .unwrap();
    held.lock().unwrap();
    for round in 0..3 {
        let note = |i: usize| {
            let (id, line) = (
                (AT_ONCE * round + i).to_string(),
                format!("by {i} #round{round}"),
            );
            made.command(&["notes", &study, &id, &line])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        };
        all_succeed((0..AT_ONCE).map(note).collect());
    }
    let listed = made.run(&["notes", &study]);
    assert_eq!(listed.lines().count(), 3 * AT_ONCE, "{listed}");
    // What is taken away goes, what others noted stays.
    made.run(&["notes", &study, "5", ""]);
    assert_eq!(
        made.run(&["notes", &study]).lines().count(),
        3 * AT_ONCE - 1
    );
}

#[test]
fn studies_opened_by_processes_at_once_are_all_remembered() {
    let made = Made::new("home", &[("a", &["x"])]);
    let studies: Vec<String> = (0..24).map(|i| made.path(&format!("s{i}"))).collect();
    studies.iter().for_each(|s| fs::create_dir(s).unwrap());
    let child = |dirs: &[String]| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--ignored", "--exact", "together::a_process_that_remembers"])
            .stdout(std::process::Stdio::null());
        child
            .env("MLPEEK_HOME", made.home.join("home"))
            .env(CHILD, dirs.join(":"))
            .spawn()
            .unwrap()
    };
    all_succeed(studies.chunks(3).map(child).collect());
    let recent = fs::read_to_string(made.home.join("home/recent.json")).unwrap();
    let recent: Vec<String> = serde_json::from_str(&recent).unwrap();
    assert_eq!(recent.len(), studies.len(), "{recent:?}");
}

#[test]
#[ignore = "a process of the test above"]
fn a_process_that_remembers() {
    let Ok(dirs) = std::env::var(CHILD) else {
        return;
    };
    dirs.split(':')
        .for_each(|dir| mlpeek::study::remember(Path::new(dir)).unwrap());
}
