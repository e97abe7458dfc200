use super::*;
use crate::activations::InMemory;
use crate::analysis::tests::{columns, factors};
use crate::model::HookSite;

const HOOK: HookPoint = HookPoint {
    layer: 3,
    site: HookSite::MlpPost,
};

fn plain(directions: Directions, titles: &[&str]) -> PlainSet {
    PlainSet::new(
        "diffmean",
        HOOK,
        directions,
        titles.iter().map(|t| (*t).to_owned()).collect(),
    )
}

#[test]
fn a_set_reads_as_a_fit_does() {
    let set = plain(
        Directions::Dense {
            d: 2,
            columns: vec![3.0, 4.0, -1.0, 0.0],
        },
        &["a", "b"],
    );
    // More rows than a block: each has its place.
    let rows = 2 * BLOCK_ROWS + 3;
    let data: Vec<f32> = (0..rows).flat_map(|i| [i as f32, -1.0]).collect();
    let read = set
        .factors_on(&InMemory::new(rows, 2, data), &TaskCtx::silent())
        .unwrap();
    for i in [0, 7, BLOCK_ROWS + 1, rows - 1] {
        let expected = (0.6 * i as f32 - 0.8).max(0.0);
        assert!(
            (read.coefficients.feature(0)[i] - expected).abs() < 1e-3,
            "row {i}"
        );
        assert_eq!(
            read.coefficients.feature(1)[i],
            0.0,
            "what points the other way does not count"
        );
    }
    assert_eq!(read.features.dense_column(0), [0.6, 0.8]);
    assert!(read.relative_error.is_nan(), "no fit, no error of one");
    assert!(
        set.factors_on(&InMemory::new(1, 3, vec![0.0; 3]), &TaskCtx::silent())
            .is_err()
    );
}

#[test]
fn what_memory_does_not_hold_is_refused_with_what_would_fit() {
    let set = plain(
        Directions::Dense {
            d: 2,
            columns: vec![1.0; 8],
        },
        &[],
    );
    let shape = (1000, 2, 4);
    assert!(
        check_memory(&set, shape, Some(4 * 4 * 1000 + 64)).is_ok()
            && check_memory(&set, shape, None).is_ok()
    );
    let message = check_memory(&set, shape, Some(4 * 4 * 900 + 64))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("4 directions on 1000 tokens") && message.contains("at most 900 tokens"),
        "{message}"
    );
    assert!(
        check_memory(&set, shape, Some(10))
            .unwrap_err()
            .to_string()
            .contains("fewer directions")
    );
}

#[test]
fn neurons_are_the_columns_of_the_activations() {
    let set = plain(Directions::Neurons(2), &[]);
    let block = Block {
        rows: 2,
        cols: 2,
        data: vec![1.0, -2.0, 0.5, 3.0].into(),
    };
    assert_eq!(
        set.scores(&block, &TaskCtx::silent()).unwrap(),
        [1.0, 0.0, 0.5, 3.0]
    );
}

#[test]
fn directions_are_found_by_number_and_by_name() {
    let set = plain(Directions::Neurons(3), &["months", "2", "c"]);
    assert_eq!(
        (set.find("months").unwrap(), set.find("0").unwrap()),
        (0, 0)
    );
    assert_eq!(set.find("2").unwrap(), 1, "a name goes before a number");
    let error = set.find("x").unwrap_err().to_string();
    assert_eq!(
        error,
        "diffmean has no direction 'x': it has 0 to 2 (months, 2, c, …)"
    );
    assert!(set.find("3").is_err() && set.find("-1").is_err());
}

#[test]
fn a_fit_gives_what_it_saved_and_encodes_what_is_new() {
    let fit = Arc::new(factors(
        columns(2, &[vec![1.0, 0.0], vec![0.0, 1.0]]),
        1,
        vec![5.0, 6.0],
    ));
    let set = FitSet::new("k2", HOOK, fit.clone());
    let source = InMemory::new(1, 2, vec![2.0, -1.0]);
    assert!(Arc::ptr_eq(
        &set.factors_on(&source, &TaskCtx::silent()).unwrap(),
        &fit
    ));
    let scores = set
        .scores(&source.rows(0..1).unwrap(), &TaskCtx::silent())
        .unwrap();
    assert!((scores[0] - 2.0).abs() < 1e-6 && scores[1] == 0.0);
    assert!(
        set.factors_on(&InMemory::new(0, 2, Vec::new()), &TaskCtx::silent())
            .is_err()
    );
    // A centred fit of one feature a token reads new rows so, too.
    let coding = crate::factor::Coding {
        centre: Some(Arc::new(vec![1.0, -4.0])),
        row_cap: Some(1),
        ..Default::default()
    };
    let centred = FitSet::new(
        "k2",
        HOOK,
        Arc::new(Factors {
            coding,
            ..(*fit).clone()
        }),
    );
    let scores = centred
        .scores(&source.rows(0..1).unwrap(), &TaskCtx::silent())
        .unwrap();
    assert!(
        scores[0] == 0.0 && (scores[1] - 3.0).abs() < 1e-6,
        "{scores:?}"
    );
}
