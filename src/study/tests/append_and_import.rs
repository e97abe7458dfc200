//! Corpora that are added to a study, and studies of an imported matrix.

use super::*;

/// Rows of the first `samples` samples that are due, two each.
fn push_added(study: &mut Study, samples: usize) {
    let mut appender = Appender::open(study).unwrap();
    for _ in 0..samples {
        appender
            .push(
                &[(98, 1), (99, 2)],
                &[
                    bytemuck::cast_slice(&[0.5f32; 6]),
                    bytemuck::cast_slice(&[0.5f32; 4]),
                ],
                true,
                |_| "x".into(),
            )
            .unwrap();
    }
    appender.seal().unwrap();
}

#[test]
fn another_corpus_goes_on_behind_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (c, d) = (corpus("c", &TEXTS), corpus("d", &["eight", "nine"]));
    let mut study = create(dir.path(), &c).unwrap();
    assert!(
        study
            .append(&d)
            .unwrap_err()
            .to_string()
            .contains("not yet complete")
    );
    fill(&mut study, &[]).unwrap();
    study.append(&c).unwrap();
    assert!(
        study.manifest().complete,
        "one that it has already changes nothing"
    );
    let before = std::fs::read(dir.path().join("study.json")).unwrap();
    study.append(&d).unwrap();
    push_added(&mut study, 1);
    assert_eq!(study.withdraw().unwrap(), "d");
    assert_eq!(
        std::fs::read(dir.path().join("study.json")).unwrap(),
        before
    );
    assert_eq!(
        (
            study.tokens().unwrap().rows.len(),
            study.activations(HOOKS[0]).unwrap().shape().0
        ),
        (7, 7)
    );
    assert!(study.withdraw().is_err() && !dir.path().join("tokens.samples-1.jsonl").exists());
    study.append(&d).unwrap();
    assert!(!study.manifest().complete);
    assert_eq!(study.tokens().unwrap().texts.len(), 7);
    assert_eq!(
        study.activations(HOOKS[0]).unwrap().shape().0,
        7,
        "the first stays readable"
    );
    drop(study);
    let mut study = create(dir.path(), &d).unwrap();
    let mut appender = Appender::open(&mut study).unwrap();
    assert_eq!(appender.next_sample(), 5);
    for _ in 0..2 {
        appender
            .push(
                &[(99, 1)],
                &[
                    bytemuck::cast_slice(&[0.5f32; 3]),
                    bytemuck::cast_slice(&[0.5f32; 2]),
                ],
                true,
                |_| "x".into(),
            )
            .unwrap();
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
    assert_eq!(
        (tokens.piece(3), tokens.texts[3].as_str(), tokens.label(3)),
        ("row 3", "row 3", None)
    );
    drop(study);
    drop(Study::import(dir.path(), "x.npy", HOOKS[0], 4, 3, &data).unwrap());
    assert!(Study::import(dir.path(), "y.npy", HOOKS[0], 4, 3, &[1.0; 12]).is_err());
    let mut bad = data.clone();
    bad[7] = f32::NAN;
    let other = tempfile::tempdir().unwrap();
    let error = Study::import(other.path(), "x.npy", HOOKS[0], 4, 3, &bad)
        .unwrap_err()
        .to_string();
    assert!(error.contains("row 2, column 1"), "{error}");
    assert!(Study::import(other.path(), "x.npy", HOOKS[0], 5, 3, &data).is_err());
}

#[test]
fn a_matrix_comes_in_block_by_block() {
    let data: Vec<f32> = (0..30).map(|v| v as f32).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut calls = 0;
    let mut blocks = |take: &mut dyn FnMut(&[f32]) -> Result<()>| {
        calls += 1;
        data.chunks(12).try_for_each(take)
    };
    let study = Study::import_blocks(dir.path(), "x.npy", HOOKS[0], (10, 3), &mut blocks).unwrap();
    assert_eq!(
        (calls, study.manifest().rows, study.manifest().complete),
        (2, 10, true)
    );
    assert_eq!(
        study
            .activations(HOOKS[0])
            .unwrap()
            .rows(0..10)
            .unwrap()
            .data
            .as_ref(),
        &data[..]
    );
    drop(study);
    // The same matrix in one piece is the same study.
    drop(Study::import(dir.path(), "x.npy", HOOKS[0], 10, 3, &data).unwrap());

    let mut bad = data.clone();
    bad[22] = f32::INFINITY;
    let fresh = tempfile::tempdir().unwrap();
    let mut blocks = |take: &mut dyn FnMut(&[f32]) -> Result<()>| bad.chunks(12).try_for_each(take);
    let refused =
        Study::import_blocks(fresh.path(), "x.npy", HOOKS[0], (10, 3), &mut blocks).unwrap_err();
    assert!(
        refused.to_string().contains("row 7, column 1 is inf"),
        "{refused}"
    );
    assert_eq!(
        std::fs::read_dir(fresh.path()).unwrap().count(),
        0,
        "nothing is written of it"
    );
    let mut short = |take: &mut dyn FnMut(&[f32]) -> Result<()>| take(&data[..27]);
    assert!(Study::import_blocks(fresh.path(), "x.npy", HOOKS[0], (10, 3), &mut short).is_err());

    // A file that another program wrote to after it was looked at.
    let mut pass = 0;
    let mut changed = |take: &mut dyn FnMut(&[f32]) -> Result<()>| {
        pass += 1;
        take(if pass == 1 { &data } else { &bad })
    };
    let refused =
        Study::import_blocks(fresh.path(), "x.npy", HOOKS[0], (10, 3), &mut changed).unwrap_err();
    assert!(refused.to_string().contains("row 7, column 1"), "{refused}");
    assert!(
        Study::open_read_only(fresh.path())
            .unwrap()
            .activations(HOOKS[0])
            .is_err(),
        "no rows are claimed"
    );
}
