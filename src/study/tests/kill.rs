//! A real `kill -9`, again and again, while a child process collects.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::corpus::Sample;
use crate::model::HookSite;
use crate::study::*;

const DIR: &str = "MLPEEK_TEST_KILL_DIR";
const SAMPLES: usize = 600;
const HOOKS: [HookPoint; 2] = [
    HookPoint {
        layer: 0,
        site: HookSite::MlpPost,
    },
    HookPoint {
        layer: 1,
        site: HookSite::MlpPost,
    },
];
const WIDTHS: [usize; 2] = [5, 9];

fn count(sample: usize) -> usize {
    sample % 4
}

fn row(hook: usize, row: usize) -> impl Iterator<Item = f32> {
    (0..WIDTHS[hook]).map(move |col| (hook * 1_000_000 + row * 10 + col) as f32)
}

/// Collects in the directory of the environment, a seal every few samples; does nothing when there
/// is none.
#[test]
#[ignore = "run by kill_minus_nine_loses_at_most_a_seal, in a process of its own"]
fn child_collects() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let samples = vec![
        Sample {
            text: "x".into(),
            label: None
        };
        SAMPLES
    ];
    let corpus = Corpus {
        name: "c".into(),
        samples,
        sha256: "s".into(),
    };
    let mut study = Study::create(
        Path::new(&dir),
        None,
        &HOOKS,
        &WIDTHS,
        &corpus,
        CacheDtype::F32,
        BosRule::Auto,
    )
    .unwrap();
    let mut appender = Appender::open(&mut study).unwrap();
    for sample in appender.next_sample()..SAMPLES {
        let rows = appender.rows()..appender.rows() + count(sample);
        let tokens: Vec<(u32, u32)> = rows
            .clone()
            .enumerate()
            .map(|(i, r)| (r as u32, i as u32))
            .collect();
        let data: Vec<Vec<f32>> = (0..2)
            .map(|h| rows.clone().flat_map(|r| row(h, r)).collect())
            .collect();
        appender
            .push(
                &tokens,
                &[
                    bytemuck::cast_slice(&data[0]),
                    bytemuck::cast_slice(&data[1]),
                ],
                true,
                |id| id.to_string(),
            )
            .unwrap();
        if sample % 3 == 0 {
            appender.seal().unwrap();
        }
    }
    appender.seal().unwrap();
}

/// Rows and samples in the log, each proved in both caches.
fn check(dir: &Path) -> usize {
    let log = tokens::Log::read(dir).unwrap();
    assert!(
        log.segments
            .iter()
            .flat_map(|s| &s.counts)
            .enumerate()
            .all(|(i, &c)| c as usize == count(i))
    );
    for (h, &hook) in HOOKS.iter().enumerate().filter(|_| log.rows() > 0) {
        let cache = CacheReader::open(&rows::cache_dir(dir, hook)).unwrap();
        cache.verify().unwrap();
        let block = cache.rows(0..log.rows()).unwrap();
        (0..log.rows()).for_each(|r| assert!(block.row(r).iter().copied().eq(row(h, r))));
    }
    log.samples()
}

#[test]
fn kill_minus_nine_loses_at_most_a_seal() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("study");
    let spawn = || {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "study::tests::kill::child_collects", "--ignored"])
            .env(DIR, &at);
        child
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut samples = 0;
    for round in 0..12 {
        let mut child = spawn();
        std::thread::sleep(Duration::from_millis(10 + 13 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        if at.join(manifest::FILE).exists() {
            // The lock died with its holder.
            drop(Study::open(&at).unwrap());
            let now = check(&at);
            assert!(now >= samples, "{now} samples after {samples}");
            samples = now;
        }
    }
    // A process that another test starts at this moment holds a copy of the lock between its fork and
    // its exec, so the lock that was just dropped may be taken for a few more milliseconds.
    assert!((0..3).any(|_| spawn().wait().unwrap().success()));
    assert_eq!(check(&at), SAMPLES);
    let manifest = Manifest::read(&at).unwrap();
    assert_eq!(
        (manifest.complete, manifest.rows),
        (true, (0..SAMPLES).map(count).sum())
    );
}
