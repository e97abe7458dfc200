mod append_and_import;
mod fits;
mod hostile;
mod kill;
mod recovery;

use std::fs;

use super::tokens::Log;
use super::*;
use crate::activations::store::CacheWriter;
use crate::analysis::Notes;
use crate::corpus::Sample;
use crate::disk::fault;
use crate::factor::Factors;
use crate::model::HookSite;

const HOOKS: [HookPoint; 2] = [
    HookPoint {
        layer: 1,
        site: HookSite::MlpPost,
    },
    HookPoint {
        layer: 2,
        site: HookSite::ResidPost,
    },
];
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
        identity: None,
        notes: vec![],
    }
}

fn corpus(name: &str, texts: &[&str]) -> Corpus {
    let sample = |(i, t): (usize, &&str)| Sample {
        text: (*t).to_owned(),
        label: (i % 2 == 0).then(|| "even".to_owned()),
    };
    Corpus {
        name: name.into(),
        samples: texts.iter().enumerate().map(sample).collect(),
        sha256: format!("sha-{name}"),
    }
}

const TEXTS: [&str; 5] = ["one two", "", "three", "four five six", "seven"];
/// Rows of each text; the second has none.
const COUNTS: [usize; 5] = [2, 0, 1, 3, 1];

fn create(dir: &Path, corpus: &Corpus) -> Result<Study> {
    Study::create(
        dir,
        Some(&model("m", "w")),
        &HOOKS,
        &WIDTHS,
        corpus,
        CacheDtype::F32,
        BosRule::Auto,
    )
}

fn value(hook: usize, row: usize, col: usize) -> f32 {
    (1000 * hook + 10 * row + col) as f32
}

/// Pushes sample `i` of the test corpus; row r has id 10 + r.
fn push(appender: &mut Appender<'_>, i: usize) -> Result<()> {
    let first: usize = COUNTS[..i].iter().sum();
    let rows = first..first + COUNTS[i];
    let tokens: Vec<(u32, u32)> = rows
        .clone()
        .map(|r| (10 + r as u32, (r - first) as u32 + 1))
        .collect();
    let data: Vec<Vec<f32>> = (0..2)
        .map(|h| {
            rows.clone()
                .flat_map(|r| (0..WIDTHS[h]).map(move |c| value(h, r, c)))
                .collect()
        })
        .collect();
    appender.push(
        &tokens,
        &[
            bytemuck::cast_slice(&data[0]),
            bytemuck::cast_slice(&data[1]),
        ],
        true,
        |id| format!("<{id}>"),
    )
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
    assert!(
        tokens
            .rows
            .iter()
            .enumerate()
            .all(|(r, t)| t.id == 10 + r as u32)
    );
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
        assert_eq!(
            source.describe_row(3),
            "row 3, token \"<13>\" of sample 3 (\"four five six\")"
        );
    }
    study.verify().unwrap();
}

#[test]
fn a_study_comes_back_as_it_was_filled() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("a/b/study");
    let mut study = create(&at, &corpus("c", &TEXTS)).unwrap();
    assert!(
        study
            .activations(HOOKS[0])
            .is_err_and(|e| e.to_string().contains("no rows yet"))
    );
    fill(&mut study, &[1, 3]).unwrap();
    assert_whole(&study);
    drop(study);
    assert_whole(&Study::open_read_only(&at).unwrap());
    assert_whole(&create(&at, &corpus("c", &TEXTS)).unwrap());
    let error = Study::open(&at)
        .unwrap()
        .activations(HookPoint {
            layer: 9,
            ..HOOKS[0]
        })
        .err()
        .unwrap()
        .to_string();
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
        Study::create(dir, Some(m), hooks, widths, c, dtype, bos)
            .unwrap_err()
            .to_string()
    };
    let (f32, auto) = (CacheDtype::F32, BosRule::Auto);
    let cases = [
        (
            refused(&model("n", "v"), &HOOKS, &c, f32, auto),
            "made with m, not n",
        ),
        (
            refused(&model("m", "v"), &HOOKS, &c, f32, auto),
            "m, which now has other weights",
        ),
        (
            refused(&m, &HOOKS[..1], &c, f32, auto),
            "not blocks.1.mlp.hook_post",
        ),
        (
            refused(&m, &HOOKS, &c, CacheDtype::Bf16, auto),
            "f32, not bf16",
        ),
        (
            refused(&m, &HOOKS, &c, f32, BosRule::Never),
            "auto, not never",
        ),
        (
            refused(&m, &HOOKS, &corpus("d", &TEXTS), f32, auto),
            "holds c, not d",
        ),
    ];
    for (error, expected) in cases {
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    let changed = Corpus {
        sha256: "other".into(),
        ..c.clone()
    };
    assert!(refused(&m, &HOOKS, &changed, f32, auto).contains("c has changed"));
    drop(create(dir, &c).unwrap());
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = create(dir.path(), &corpus("c", &TEXTS))
        .unwrap_err()
        .to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(
        Study::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("is no study")
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_place_that_cannot_be_written_gives_one_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    let error = create(&dir.path().join("file/study"), &corpus("c", &TEXTS))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot create ") && !error.contains('\n'),
        "{error}"
    );

    let at = dir.path().join("study");
    drop(create(&at, &corpus("c", &TEXTS)).unwrap());
    let open = fs::metadata(&at).unwrap().permissions();
    let mut closed = open.clone();
    closed.set_readonly(true);
    fs::set_permissions(&at, closed).unwrap();
    // Root writes everywhere: nothing to see then.
    if fs::write(at.join("probe"), "x").is_err() {
        let error = fill(&mut Study::open(&at).unwrap(), &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ermission denied") && !error.contains('\n'),
            "{error}"
        );
        Study::open_read_only(&at).unwrap().tokens().unwrap();
    }
    fs::set_permissions(&at, open).unwrap();
}

#[test]
fn one_process_writes_while_others_read() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    assert!(
        Study::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("process ")
    );
    let reader = Study::open_read_only(dir.path()).unwrap();
    let refused = reader
        .save_session(&serde_json::json!({}))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("is being written by"), "{refused}");
    drop(study);
    // A child that another test is starting holds a copy of the lock until it runs its program.
    let again = std::iter::repeat_with(|| Study::open(dir.path())).take(100);
    let opened = again.inspect(|study| {
        if study.is_err() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    assert!(opened.into_iter().any(|study| study.is_ok()));
}

#[test]
fn notes_and_session_come_back_and_unreadable_notes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let study = create(dir.path(), &corpus("c", &TEXTS)).unwrap();
    assert_eq!(
        (study.notes("f").unwrap(), study.session()),
        (Notes::default(), None)
    );
    let notes = Notes {
        names: [(3, "weekdays".to_owned())].into(),
        ..Notes::default()
    };
    study
        .change_notes("f", |now| now.merge(notes.clone()))
        .unwrap();
    study.change_notes("g", |_| ()).unwrap();
    assert_eq!(study.notes("f").unwrap(), notes);
    // What a person wrote into the file meanwhile is kept.
    let edited = "{\"f\": {\"names\": {\"3\": \"weekdays\", \"9\": \"by hand\"}}, \"h\": {\"names\": {\"0\": \"x\"}}}";
    fs::write(dir.path().join("notes.json"), edited).unwrap();
    let (before, now) = study
        .change_notes("f", |notes| notes.set(3, "days of the week").unwrap())
        .unwrap();
    assert_eq!(
        (before.names[&3].as_str(), now.names[&3].as_str()),
        ("weekdays", "days of the week")
    );
    assert_eq!(
        (
            study.notes("f").unwrap().names[&9].as_str(),
            study.notes("h").unwrap().names.len()
        ),
        ("by hand", 1)
    );
    let undone = study
        .change_notes("f", |notes| notes.replace(&[3], before.subset(&[3])))
        .unwrap()
        .1;
    assert_eq!(
        (undone.names[&3].as_str(), undone.names[&9].as_str()),
        ("weekdays", "by hand")
    );
    study
        .save_session(&serde_json::json!({"pane": "tree"}))
        .unwrap();
    assert_eq!(study.session().unwrap()["pane"], "tree");
    fs::write(dir.path().join("notes.json"), "{\"f\":").unwrap();
    assert!(
        study
            .change_notes("f", |_| ())
            .unwrap_err()
            .to_string()
            .contains("notes.json")
    );
    assert_eq!(fs::read(dir.path().join("notes.json")).unwrap(), b"{\"f\":");
    fs::write(dir.path().join("session.json"), "?").unwrap();
    assert_eq!(study.session(), None);
}

#[test]
fn what_does_not_fit_on_the_disk_is_refused_with_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    check_disk_space(dir.path(), 0, true).unwrap();
    let error = check_disk_space(dir.path(), u64::MAX / 2, true)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("TiB more") && error.contains("free"),
        "{error}"
    );
}

#[test]
fn what_neurons_and_rows_hold_is_counted_while_collecting_and_else_when_it_is_asked_for() {
    use crate::activations::energy::Energy;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let corpus = corpus("c", &TEXTS);
    let mut study = create(&path, &corpus).unwrap();
    // Cut short after the first sample with rows, then gone on with by another process.
    let mut appender = Appender::open(&mut study).unwrap();
    push(&mut appender, 0).unwrap();
    appender.seal().unwrap();
    drop(appender);
    fill(&mut study, &[3]).unwrap();
    let expected = |hook: usize| {
        let mut energy = Energy::new(WIDTHS[hook]);
        (0..7).for_each(|row| {
            energy.add(
                &(0..WIDTHS[hook])
                    .map(|c| value(hook, row, c))
                    .collect::<Vec<_>>(),
            )
        });
        energy
    };
    for (i, hook) in HOOKS.into_iter().enumerate() {
        assert_eq!(
            study.saved_energy(hook).unwrap(),
            Some(expected(i)),
            "{hook}"
        );
    }
    // One of an earlier version has none, and one of other rows says nothing.
    let ctx = crate::task::TaskCtx::silent();
    let file = energy::folder(&path).join(format!("{}.json", HOOKS[1]));
    for damage in [
        None,
        Some("{}"),
        Some("{\"rows\":6,\"neurons\":[1,1],\"strongest\":[]}"),
    ] {
        match damage {
            None => fs::remove_file(&file).unwrap(),
            Some(text) => fs::write(&file, text).unwrap(),
        }
        assert_eq!(study.saved_energy(HOOKS[1]).unwrap(), None);
        assert_eq!(study.energy(HOOKS[1], &ctx).unwrap(), expected(1));
        assert_eq!(
            study.saved_energy(HOOKS[1]).unwrap(),
            Some(expected(1)),
            "kept from then on"
        );
    }
    fs::remove_file(&file).unwrap();
    drop(study);
    let read_only = Study::open_read_only(&path).unwrap();
    assert_eq!(read_only.energy(HOOKS[1], &ctx).unwrap(), expected(1));
    assert!(
        !file.exists(),
        "a study that is open for reading is not written to"
    );
}
