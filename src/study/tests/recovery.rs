//! What a kill, damage or a full disk leaves, and how adding rows continues from it.

use super::*;

/// What a kill can leave: the tail of the log torn anywhere, one cache ahead of another, unfinished
/// files.
#[test]
fn a_kill_at_any_instant_of_a_seal_loses_only_that_seal() {
    let dir = tempfile::tempdir().unwrap();
    let c = corpus("c", &TEXTS);
    let mut study = create(dir.path(), &c).unwrap();
    let log = dir.path().join(tokens::FILE);
    {
        let mut appender = Appender::open(&mut study).unwrap();
        (0..3).for_each(|i| push(&mut appender, i).unwrap());
        appender.seal().unwrap();
    }
    let before = fs::metadata(&log).unwrap().len() as usize;
    fill(&mut study, &[]).unwrap();
    drop(study);
    let whole = fs::read(&log).unwrap();
    let manifest = fs::read(dir.path().join("study.json")).unwrap();
    let unfinished = String::from_utf8(manifest.clone())
        .unwrap()
        .replace("\"complete\": true", "\"complete\": false");
    let unfinished = unfinished.replace("\"rows\": 7", "\"rows\": 0");
    let last_shard = |h: usize| rows::cache_dir(dir.path(), HOOKS[h]).join("shard-000001.rows");
    let shards = [
        fs::read(last_shard(0)).unwrap(),
        fs::read(last_shard(1)).unwrap(),
    ];
    for len in (before..whole.len()).step_by(11).chain([whole.len()]) {
        for missing in 0..3 {
            fs::write(&log, &whole[..len]).unwrap();
            fs::write(dir.path().join("study.json"), &unfinished).unwrap();
            fs::write(dir.path().join(".tmp-1-study.json"), "{").unwrap();
            fs::write(
                last_shard(0).with_file_name(".tmp-1-shard-000002.rows"),
                "x",
            )
            .unwrap();
            (0..2).for_each(|h| fs::write(last_shard(h), &shards[h]).unwrap());
            // A seal writes the caches in order, then the log.
            (0..missing).for_each(|h| fs::remove_file(last_shard(1 - h)).unwrap());
            let reader = Study::open_read_only(dir.path()).unwrap();
            assert!(reader.tokens().unwrap().rows.len() >= 3);
            let mut study = create(dir.path(), &c).unwrap();
            let expected = if len == whole.len() && missing == 0 {
                5
            } else {
                3
            };
            assert_eq!(
                Appender::open(&mut study).unwrap().next_sample(),
                expected,
                "{len} {missing}"
            );
            fill(&mut study, &[]).unwrap();
            assert_whole(&study);
        }
    }
}

#[test]
fn appending_clears_what_a_kill_left_behind_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    let log = dir.path().join(tokens::FILE);
    fs::write(&log, [0; 5000]).unwrap();
    fill(&mut study, &[]).unwrap();
    assert!(fs::metadata(&log).unwrap().len() < 1000);
    assert_whole(&study);
}

#[test]
fn caches_that_disagree_inside_a_sample_go_back_to_its_start() {
    for keep in 0..7 {
        let dir = tempfile::tempdir().unwrap();
        let mut study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
        fill(&mut study, &[0, 3]).unwrap();
        CacheWriter::open(&rows::cache_dir(dir.path(), HOOKS[1]), 2, CacheDtype::F32)
            .unwrap()
            .truncate(keep)
            .unwrap();
        let error = study.activations(HOOKS[1]).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("collect")), "{keep}");
        let appender = Appender::open(&mut study).unwrap();
        // Of samples with 2, 0, 1, 3 and 1 rows.
        assert_eq!(
            appender.next_sample(),
            [0, 0, 2, 3, 3, 3, 4][keep],
            "{keep}"
        );
        drop(appender);
        assert!(!study.manifest().complete);
        fill(&mut study, &[]).unwrap();
        assert_whole(&study);
    }
}

#[test]
fn damage_before_the_last_segment_is_named_and_nothing_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    fill(&mut study, &[0, 3]).unwrap();
    let log = dir.path().join(tokens::FILE);
    let whole = fs::read(&log).unwrap();
    let last = Log::parse(&whole)
        .unwrap()
        .segments
        .last()
        .unwrap()
        .encode()
        .len();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&log, &bytes).unwrap();
        study.clear_token_cache();
        let error = study.tokens().unwrap_err().to_string();
        assert!(
            error.contains("tokens.bin") && error.contains("damaged"),
            "byte {at}: {error}"
        );
        if at < whole.len() - last {
            assert!(Appender::open(&mut study).is_err(), "byte {at}");
            assert_eq!(fs::read(&log).unwrap(), bytes);
        }
    }
    fs::write(&log, &whole).unwrap();
    study.clear_token_cache();
    assert_whole(&study);
}

#[test]
fn a_full_disk_claims_no_row_that_a_cache_lacks() {
    let c = corpus("c", &TEXTS);
    let mut completed = false;
    for room in (0..4000).step_by(61) {
        let dir = tempfile::tempdir().unwrap();
        let mut study = create(dir.path(), &c).unwrap();
        let mut appender = Appender::open(&mut study).unwrap();
        fault::limit_space(Some(room));
        let pushed = (0..COUNTS.len()).try_for_each(|i| {
            push(&mut appender, i)?;
            if [0, 2].contains(&i) {
                appender.seal()
            } else {
                Ok(())
            }
        });
        // As a collection ends, whatever ended it; by now someone may have made room.
        fault::limit_space(if room % 2 == 0 { None } else { Some(0) });
        let outcome = pushed.and(appender.seal());
        fault::limit_space(None);
        if let Err(error) = &outcome {
            let error = error.to_string();
            assert!(
                error.starts_with("cannot write ") && !error.contains('\n'),
                "{error}"
            );
        }
        completed = outcome.is_ok();
        let safe = study.tokens().unwrap().rows.len();
        if safe > 0 {
            HOOKS
                .iter()
                .for_each(|&h| assert_eq!(study.activations(h).unwrap().shape().0, safe));
        }
        fill(&mut study, &[]).unwrap();
        assert_whole(&study);
        if completed {
            break;
        }
    }
    assert!(completed, "the largest disk was large enough");
}
