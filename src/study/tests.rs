use std::fs;

use proptest::prelude::*;

use super::tokens::{Log, Segment};
use super::*;
use crate::corpus::Sample;
use crate::disk::fault;
use crate::factor::{Coefficients, Factors, FitConfig, SparseColumns};
use crate::model::HookSite;

const HOOKS: [HookPoint; 2] =
    [HookPoint { layer: 1, site: HookSite::MlpPost }, HookPoint { layer: 2, site: HookSite::ResidPost }];
const WIDTHS: [usize; 2] = [3, 2];

fn model(id: &str, weights: &str) -> ModelInfo {
    ModelInfo {
        id: id.into(),
        origin: "test".into(),
        family: "llama".into(),
        layers: 3,
        d_model: 2,
        d_mlp: 3,
        vocab: 100,
        context: 16,
        device: "cpu".into(),
        weights_dtype: "f32".into(),
        compute_dtype: "f32".into(),
        weight_bytes: 0,
        weights_sha256: weights.into(),
        tokenizer_sha256: "t".into(),
        notes: vec![],
    }
}

fn corpus(name: &str, texts: &[&str]) -> Corpus {
    let sample =
        |(i, t): (usize, &&str)| Sample { text: (*t).to_owned(), label: (i % 2 == 0).then(|| "even".to_owned()) };
    Corpus { name: name.into(), samples: texts.iter().enumerate().map(sample).collect(), sha256: format!("sha-{name}") }
}

const TEXTS: [&str; 5] = ["one two", "", "three", "four five six", "seven"];
/// Rows of each text; the second has none.
const COUNTS: [usize; 5] = [2, 0, 1, 3, 1];

fn create(dir: &Path, corpus: &Corpus) -> Result<Study> {
    Study::create(dir, Some(&model("m", "w")), &HOOKS, &WIDTHS, corpus, CacheDtype::F32, BosRule::Auto)
}

fn value(hook: usize, row: usize, col: usize) -> f32 {
    (1000 * hook + 10 * row + col) as f32
}

/// Pushes sample `i` of the test corpus; row r has id 10 + r.
fn push(appender: &mut Appender<'_>, i: usize) -> Result<()> {
    let first: usize = COUNTS[..i].iter().sum();
    let rows = first..first + COUNTS[i];
    let tokens: Vec<(u32, u32)> = rows.clone().map(|r| (10 + r as u32, (r - first) as u32 + 1)).collect();
    let data: Vec<Vec<f32>> =
        (0..2).map(|h| rows.clone().flat_map(|r| (0..WIDTHS[h]).map(move |c| value(h, r, c))).collect()).collect();
    appender.push(&tokens, &[&data[0], &data[1]], true, |id| format!("<{id}>"))
}

/// A study with a seal after each of the samples in `seals`.
fn fill(study: &mut Study, seals: &[usize]) -> Result<()> {
    let mut appender = Appender::open(study)?;
    for i in appender.next_sample()..COUNTS.len() {
        push(&mut appender, i)?;
        if seals.contains(&i) {
            appender.seal()?;
        }
    }
    appender.seal()
}

fn assert_whole(study: &Study) {
    assert!(study.manifest().complete);
    assert_eq!(study.manifest().rows, 7);
    let tokens = study.tokens().unwrap();
    let samples: Vec<u32> = tokens.rows.iter().map(|r| r.sample).collect();
    assert_eq!(samples, [0, 0, 2, 3, 3, 3, 4]);
    assert!(tokens.rows.iter().enumerate().all(|(r, t)| t.id == 10 + r as u32));
    assert_eq!(tokens.piece(3), "<13>");
    assert_eq!(tokens.texts, TEXTS);
    assert_eq!((tokens.label(0), tokens.label(3)), (Some("even"), None));
    for (h, &hook) in HOOKS.iter().enumerate() {
        let source = study.activations(hook).unwrap();
        assert_eq!(source.shape(), (7, WIDTHS[h]));
        let block = source.rows(0..7).unwrap();
        for row in 0..7 {
            let expected: Vec<f32> = (0..WIDTHS[h]).map(|c| value(h, row, c)).collect();
            assert_eq!(block.row(row), expected);
        }
        assert_eq!(source.describe_row(3), "row 3, token \"<13>\" of sample 3 (\"four five six\")");
    }
    study.verify().unwrap();
}

#[test]
fn a_study_comes_back_as_it_was_filled() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("a/b/study");
    let mut study = create(&at, &corpus("c", &TEXTS)).unwrap();
    assert!(study.activations(HOOKS[0]).is_err_and(|e| e.to_string().contains("no rows yet")));
    fill(&mut study, &[1, 3]).unwrap();
    assert_whole(&study);
    drop(study);
    assert_whole(&Study::open_read_only(&at).unwrap());
    assert_whole(&create(&at, &corpus("c", &TEXTS)).unwrap());
    let error = Study::open(&at).unwrap().activations(HookPoint { layer: 9, ..HOOKS[0] }).err().unwrap().to_string();
    assert!(error.contains("blocks.1.mlp.hook_post"), "{error}");
}

#[test]
fn a_study_can_be_handed_to_a_worker() {
    fn send<T: Send>() {}
    fn share<T: Send + Sync>() {}
    send::<Study>();
    share::<Factors>();
    share::<TokenTable>();
}

#[test]
fn another_request_is_told_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, c) = (dir.path(), corpus("c", &TEXTS));
    drop(create(dir, &c).unwrap());
    let m = model("m", "w");
    let refused = |m: &ModelInfo, hooks: &[HookPoint], c: &Corpus, dtype, bos| {
        let widths = &WIDTHS[..hooks.len()];
        Study::create(dir, Some(m), hooks, widths, c, dtype, bos).unwrap_err().to_string()
    };
    let (f32, auto) = (CacheDtype::F32, BosRule::Auto);
    let cases = [
        (refused(&model("n", "v"), &HOOKS, &c, f32, auto), "made with m, not n"),
        (refused(&model("m", "v"), &HOOKS, &c, f32, auto), "m with other weights"),
        (refused(&m, &HOOKS[..1], &c, f32, auto), "not blocks.1.mlp.hook_post"),
        (refused(&m, &HOOKS, &c, CacheDtype::Bf16, auto), "f32, not bf16"),
        (refused(&m, &HOOKS, &c, f32, BosRule::Never), "auto, not never"),
        (refused(&m, &HOOKS, &corpus("d", &TEXTS), f32, auto), "holds c, not d"),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    let changed = Corpus { sha256: "other".into(), ..c.clone() };
    assert!(refused(&m, &HOOKS, &changed, f32, auto).contains("c has changed"));
    drop(create(dir, &c).unwrap());
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = create(dir.path(), &corpus("c", &TEXTS)).unwrap_err().to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(Study::open(dir.path()).unwrap_err().to_string().contains("is no study"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_place_that_cannot_be_written_gives_one_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    let error = create(&dir.path().join("file/study"), &corpus("c", &TEXTS)).unwrap_err().to_string();
    assert!(error.starts_with("cannot create ") && !error.contains('\n'), "{error}");

    let at = dir.path().join("study");
    drop(create(&at, &corpus("c", &TEXTS)).unwrap());
    let open = fs::metadata(&at).unwrap().permissions();
    let mut closed = open.clone();
    closed.set_readonly(true);
    fs::set_permissions(&at, closed).unwrap();
    // Root writes everywhere: nothing to see then.
    if fs::write(at.join("probe"), "x").is_err() {
        let error = fill(&mut Study::open(&at).unwrap(), &[]).unwrap_err().to_string();
        assert!(error.contains("ermission denied") && !error.contains('\n'), "{error}");
        Study::open_read_only(&at).unwrap().tokens().unwrap();
    }
    fs::set_permissions(&at, open).unwrap();
}

#[test]
fn one_writes_and_others_read() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    assert!(Study::open(dir.path()).unwrap_err().to_string().contains("process "));
    let reader = Study::open_read_only(dir.path()).unwrap();
    assert!(reader.save_session(&serde_json::json!({})).unwrap_err().to_string().contains("reading alone"));
    drop(study);
    drop(Study::open(dir.path()).unwrap());
}

/// What a kill can leave: the tail of the log torn anywhere, one cache ahead of another, unfinished files.
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
    let unfinished = String::from_utf8(manifest.clone()).unwrap().replace("\"complete\": true", "\"complete\": false");
    let unfinished = unfinished.replace("\"rows\": 7", "\"rows\": 0");
    let last_shard = |h: usize| rows::cache_dir(dir.path(), HOOKS[h]).join("shard-000001.rows");
    let shards = [fs::read(last_shard(0)).unwrap(), fs::read(last_shard(1)).unwrap()];
    for len in (before..whole.len()).step_by(11).chain([whole.len()]) {
        for missing in 0..3 {
            fs::write(&log, &whole[..len]).unwrap();
            fs::write(dir.path().join("study.json"), &unfinished).unwrap();
            fs::write(dir.path().join(".tmp-1-study.json"), "{").unwrap();
            fs::write(last_shard(0).with_file_name(".tmp-1-shard-000002.rows"), "x").unwrap();
            (0..2).for_each(|h| fs::write(last_shard(h), &shards[h]).unwrap());
            // A seal writes the caches in order, then the log.
            (0..missing).for_each(|h| fs::remove_file(last_shard(1 - h)).unwrap());
            let reader = Study::open_read_only(dir.path()).unwrap();
            assert!(reader.tokens().unwrap().rows.len() >= 3);
            let mut study = create(dir.path(), &c).unwrap();
            let expected = if len == whole.len() && missing == 0 { 5 } else { 3 };
            assert_eq!(Appender::open(&mut study).unwrap().next_sample(), expected, "{len} {missing}");
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
        CacheWriter::open(&rows::cache_dir(dir.path(), HOOKS[1]), 2, CacheDtype::F32).unwrap().truncate(keep).unwrap();
        let error = study.activations(HOOKS[1]).err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.contains("collect")), "{keep}");
        let appender = Appender::open(&mut study).unwrap();
        // Of samples with 2, 0, 1, 3 and 1 rows.
        assert_eq!(appender.next_sample(), [0, 0, 2, 3, 3, 3, 4][keep], "{keep}");
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
    let last = Log::parse(&whole).unwrap().segments.last().unwrap().encode().len();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&log, &bytes).unwrap();
        study.forget_tokens();
        let error = study.tokens().unwrap_err().to_string();
        assert!(error.contains("tokens.bin") && error.contains("damaged"), "byte {at}: {error}");
        if at < whole.len() - last {
            assert!(Appender::open(&mut study).is_err(), "byte {at}");
            assert_eq!(fs::read(&log).unwrap(), bytes);
        }
    }
    fs::write(&log, &whole).unwrap();
    study.forget_tokens();
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
        fault::disk_of(Some(room));
        let pushed = (0..COUNTS.len()).try_for_each(|i| {
            push(&mut appender, i)?;
            if [0, 2].contains(&i) { appender.seal() } else { Ok(()) }
        });
        // As a collection ends, whatever ended it; by now someone may have made room.
        fault::disk_of(if room % 2 == 0 { None } else { Some(0) });
        let outcome = pushed.and(appender.seal());
        fault::disk_of(None);
        if let Err(error) = &outcome {
            let error = error.to_string();
            assert!(error.starts_with("cannot write ") && !error.contains('\n'), "{error}");
        }
        completed = outcome.is_ok();
        let safe = study.tokens().unwrap().rows.len();
        if safe > 0 {
            HOOKS.iter().for_each(|&h| assert_eq!(study.activations(h).unwrap().shape().0, safe));
        }
        fill(&mut study, &[]).unwrap();
        assert_whole(&study);
        if completed {
            break;
        }
    }
    assert!(completed, "the largest disk was large enough");
}

#[test]
fn another_corpus_goes_on_behind_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (c, d) = (corpus("c", &TEXTS), corpus("d", &["eight", "nine"]));
    let mut study = create(dir.path(), &c).unwrap();
    assert!(study.append(&d).unwrap_err().to_string().contains("not yet complete"));
    fill(&mut study, &[]).unwrap();
    study.append(&c).unwrap();
    assert!(study.manifest().complete, "one that it has already changes nothing");
    study.append(&d).unwrap();
    assert!(!study.manifest().complete);
    assert_eq!(study.tokens().unwrap().texts.len(), 7);
    assert_eq!(study.activations(HOOKS[0]).unwrap().shape().0, 7, "the first stays readable");
    drop(study);
    let mut study = create(dir.path(), &d).unwrap();
    let mut appender = Appender::open(&mut study).unwrap();
    assert_eq!(appender.next_sample(), 5);
    for _ in 0..2 {
        appender.push(&[(99, 1)], &[&[0.5; 3], &[0.5; 2]], true, |_| "x".into()).unwrap();
    }
    appender.seal().unwrap();
    let tokens = study.tokens().unwrap();
    assert_eq!((tokens.rows.len(), tokens.rows[8].sample), (9, 6));
    assert_eq!(tokens.labels, ["even"]);
    assert!(study.manifest().complete);
}

#[test]
fn a_matrix_from_elsewhere_is_a_study_of_numbered_rows() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let study = Study::import(dir.path(), "x.npy", HOOKS[0], 4, 3, &data).unwrap();
    let source = study.activations(HOOKS[0]).unwrap();
    assert_eq!(*source.rows(0..4).unwrap().data, data);
    assert_eq!(source.describe_row(2), "row 2");
    let tokens = study.tokens().unwrap();
    assert_eq!((tokens.piece(3), tokens.texts[3].as_str(), tokens.label(3)), ("row 3", "row 3", None));
    drop(study);
    drop(Study::import(dir.path(), "x.npy", HOOKS[0], 4, 3, &data).unwrap());
    assert!(Study::import(dir.path(), "y.npy", HOOKS[0], 4, 3, &[1.0; 12]).is_err());
    let mut bad = data.clone();
    bad[7] = f32::NAN;
    let other = tempfile::tempdir().unwrap();
    let error = Study::import(other.path(), "x.npy", HOOKS[0], 4, 3, &bad).unwrap_err().to_string();
    assert!(error.contains("row 2, column 1"), "{error}");
    assert!(Study::import(other.path(), "x.npy", HOOKS[0], 5, 3, &data).is_err());
}

fn factors(k: usize, n: usize, scale: f32) -> Factors {
    let features = SparseColumns {
        rows: 3,
        offsets: (0..=k).collect(),
        indices: (0..k as u32).map(|j| j % 3).collect(),
        values: vec![1.0; k],
    };
    Factors {
        features,
        coefficients: Coefficients::owned(n, (0..k * n).map(|i| i as f32 * scale).collect()),
        relative_error: 0.25,
        explained_variance: 0.5,
        sweep: 7,
        seconds: 1.5,
    }
}

fn config(features: usize) -> FitConfig {
    FitConfig { features, ..FitConfig::default() }
}

#[test]
fn fits_are_saved_listed_and_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let mut study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    fill(&mut study, &[]).unwrap();
    assert!(study.load_fit(None).unwrap_err().to_string().contains("no finished fit"));
    study.start_fit("b", HOOKS[0], &config(2)).unwrap();
    assert!(study.fits().unwrap().is_empty(), "started, nothing to show or resume yet");
    fs::write(study.checkpoint_path("b").unwrap(), "state").unwrap();
    let entry = &study.fits().unwrap()[0];
    assert_eq!((entry.name.as_str(), entry.relative_error, entry.resumable), ("b", None, true));
    assert!(study.load_fit(Some("b")).unwrap_err().to_string().contains("resume"));

    study.save_fit("b", HOOKS[0], &config(2), &factors(2, 7, 1.0)).unwrap();
    study.save_fit("a", HOOKS[0], &config(4), &factors(4, 7, 1.0)).unwrap();
    let names: Vec<String> = study.fits().unwrap().into_iter().map(|f| f.name).collect();
    assert_eq!(names, ["b", "a"], "newest last");
    let (entry, newest) = study.load_fit(None).unwrap();
    assert_eq!((entry.name.as_str(), entry.config.features, entry.sweeps), ("a", 4, 7));
    assert_eq!(newest.features, factors(4, 7, 1.0).features);
    assert_eq!(newest.coefficients.as_slice(), factors(4, 7, 1.0).coefficients.as_slice());

    study.save_fit("a", HOOKS[0], &config(1), &factors(1, 7, 3.0)).unwrap();
    assert_eq!(newest.coefficients.feature(3)[6], 27.0, "an old mapping stays valid");
    let (_, replaced) = study.load_fit(Some("a")).unwrap();
    assert_eq!(replaced.coefficients.feature(0)[6], 18.0);
    let files = fs::read_dir(study.fit_dir("a").unwrap()).unwrap().count();
    assert_eq!(files, 3, "config, Z, Y; the replaced factors are gone");
    assert!(study.load_fit(Some("zz")).unwrap_err().to_string().contains("it has"));
}

#[test]
fn a_restarted_fit_keeps_what_was_saved_until_it_saves() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    study.save_fit("f", HOOKS[0], &config(2), &factors(2, 7, 1.0)).unwrap();
    fs::write(study.checkpoint_path("f").unwrap(), "of two").unwrap();
    study.start_fit("f", HOOKS[0], &config(2)).unwrap();
    assert!(study.fits().unwrap()[0].resumable, "the same request can be resumed");
    study.start_fit("f", HOOKS[0], &config(9)).unwrap();
    let entry = &study.fits().unwrap()[0];
    assert_eq!((entry.config.features, entry.resumable), (2, false));
    assert_eq!(study.fit_request("f").unwrap(), (HOOKS[0], config(9)));
    study.load_fit(Some("f")).unwrap();
}

#[test]
fn a_save_that_fails_leaves_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    study.save_fit("f", HOOKS[0], &config(2), &factors(2, 7, 1.0)).unwrap();
    for (failed, room) in (0..3000).step_by(50).enumerate() {
        fault::disk_of(Some(room));
        let outcome = study.save_fit("f", HOOKS[0], &config(2), &factors(2, 7, 2.0));
        fault::disk_of(None);
        let (_, loaded) = study.load_fit(None).unwrap();
        if outcome.is_ok() {
            assert_eq!(loaded.coefficients.feature(1)[0], 14.0);
            assert!(failed > 10);
            return;
        }
        assert_eq!(loaded.coefficients.feature(1)[0], 7.0, "{room}");
    }
    panic!("the largest disk was large enough");
}

#[test]
fn damaged_factors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    study.save_fit("f", HOOKS[0], &config(2), &factors(2, 7, 1.0)).unwrap();
    for name in ["Z-1.safetensors", "Y-1.f32"] {
        let path = dir.path().join("fits/f").join(name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let error = study.load_fit(None).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("damaged"), "{error}");
        }
        fs::write(&path, &whole[1..]).unwrap();
        assert!(study.load_fit(None).unwrap_err().to_string().contains("truncated"));
        assert!(study.verify_fits().is_err());
        fs::write(&path, &whole).unwrap();
    }
    study.verify_fits().unwrap();
}

#[test]
fn names_of_fits_cannot_leave_the_study() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    for name in ["", ".", "..", "a/b", "../x", "a\\b", ".tmp-1", "a\nb", &"x".repeat(101)] {
        assert!(study.fit_dir(name).is_err(), "{name:?}");
        assert!(study.load_fit(Some(name)).is_err(), "{name:?}");
        assert!(study.save_fit(name, HOOKS[0], &config(1), &factors(1, 7, 1.0)).is_err(), "{name:?}");
    }
    study.fit_dir("k100-layer.15_bcd").unwrap();
}

#[test]
fn notes_and_session_come_back_and_unreadable_notes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    assert_eq!((study.notes("f").unwrap(), study.session()), (Notes::default(), None));
    let notes = Notes { names: [(3, "weekdays".to_owned())].into() };
    study.save_notes("f", &notes).unwrap();
    study.save_notes("g", &Notes::default()).unwrap();
    assert_eq!(study.notes("f").unwrap(), notes);
    study.save_session(&serde_json::json!({"pane": "tree"})).unwrap();
    assert_eq!(study.session().unwrap()["pane"], "tree");
    fs::write(dir.path().join("notes.json"), "{\"f\":").unwrap();
    assert!(study.save_notes("f", &notes).unwrap_err().to_string().contains("notes.json"));
    assert_eq!(fs::read(dir.path().join("notes.json")).unwrap(), b"{\"f\":");
    fs::write(dir.path().join("session.json"), "?").unwrap();
    assert_eq!(study.session(), None);
}

#[test]
fn what_does_not_fit_on_the_disk_is_refused_with_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    check_room(dir.path(), 0).unwrap();
    let error = check_room(dir.path(), u64::MAX / 2).unwrap_err().to_string();
    assert!(error.contains("TiB more") && error.contains("free"), "{error}");
}

fn segments() -> impl Strategy<Value = Vec<Segment>> {
    let counts = proptest::collection::vec(0u32..4, 1..5);
    let segment = (counts, proptest::collection::vec((any::<u32>(), any::<String>()), 0..3), any::<u32>());
    proptest::collection::vec(segment, 0..4).prop_map(|parts| {
        let mut first_sample = 0;
        let segment = |(counts, pieces, seed): (Vec<u32>, Vec<(u32, String)>, u32)| {
            let rows = (0..counts.iter().sum()).map(|i| (seed.wrapping_add(i), i)).collect();
            let segment = Segment { first_sample, counts, rows, pieces };
            first_sample += segment.counts.len();
            segment
        };
        parts.into_iter().map(segment).collect()
    })
}

proptest! {
    #[test]
    fn a_torn_log_is_a_prefix_of_its_segments(segments in segments(), at in any::<prop::sample::Index>()) {
        let bytes: Vec<u8> = segments.iter().flat_map(Segment::encode).collect();
        prop_assert_eq!(&Log::parse(&bytes).unwrap().segments, &segments);
        let torn = Log::parse(&bytes[..at.index(bytes.len() + 1)]).unwrap();
        prop_assert_eq!(&torn.segments[..], &segments[..torn.segments.len()]);
    }

    #[test]
    fn a_cut_log_ends_with_a_sample(segments in segments(), rows in 0usize..40) {
        let mut log = Log::parse(&segments.iter().flat_map(Segment::encode).collect::<Vec<u8>>()).unwrap();
        let counts: Vec<u32> = log.segments.iter().flat_map(|s| s.counts.clone()).collect();
        log.cut_to_rows(rows);
        let kept = &counts[..log.samples()];
        prop_assert!(kept.iter().sum::<u32>() as usize <= rows && log.rows() == kept.iter().sum::<u32>() as usize);
        if let Some(next) = counts.get(kept.len()) {
            prop_assert!(log.rows() + *next as usize > rows);
        }
    }

    #[test]
    fn hostile_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(Log::parse(&bytes).map(|l| l.segments.len()), Ok(0));
        prop_assert!(Manifest::parse(&bytes).is_err());
        prop_assert!(fits::FitFile::parse(&bytes).is_err());
        prop_assert!(factor_files::decode_features(&bytes).is_err());
        let _ = samples::decode(&bytes);
    }

    /// Headers whose checksums fit, with an attacker's numbers.
    #[test]
    fn hostile_counts_do_not_overflow(numbers: [u64; 4], pieces: u32, payload in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut bytes = Segment::default().encode()[..64].to_vec();
        bytes[12..16].copy_from_slice(&pieces.to_le_bytes());
        for (i, n) in numbers.iter().enumerate() {
            bytes[16 + 8 * i..24 + 8 * i].copy_from_slice(&n.to_le_bytes());
        }
        bytes[40..48].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes[48..56].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(&payload).to_le_bytes());
        let own = xxhash_rust::xxh3::xxh3_64(&bytes[..56]);
        bytes[56..64].copy_from_slice(&own.to_le_bytes());
        bytes.extend_from_slice(&payload);
        let _ = Log::parse(&bytes);
    }

    #[test]
    fn hostile_features_are_refused_or_sound(
        rows: usize, offsets in proptest::collection::vec(0usize..6, 0..5), indices in proptest::collection::vec(0u32..6, 0..5),
        values in proptest::collection::vec(any::<f32>(), 0..5),
    ) {
        let z = SparseColumns { rows: rows % 8, offsets, indices, values };
        if let Ok(z) = factor_files::decode_features(&factor_files::encode_features(&z).unwrap()) {
            for j in 0..z.columns() {
                z.dense_column(j);
            }
        }
    }
}
