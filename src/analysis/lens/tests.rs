use candle_core::DType;
use proptest::prelude::*;

use super::super::tests::columns;
use super::*;
use crate::engine::testing::support;
use crate::model::{HookSite, source};

/// A random Llama by this crate's kernels, and as a card computes it.
fn models(dir: &std::path::Path) -> [Model; 2] {
    let ctx = TaskCtx::silent();
    let files = source::resolve(support::tiny_model(dir).to_str(), &ctx).unwrap();
    [
        Model::open(&files, &Default::default(), &ctx).unwrap(),
        Model::open_generic(&files, DType::F32, &ctx).unwrap(),
    ]
}

proptest! {
    #[test]
    fn partial_selection_is_a_sort(values in proptest::collection::vec(-5i8..5, 0..60), count in 0usize..20) {
        let values: Vec<f32> = values.into_iter().map(f32::from).collect();
        let (top, bottom) = extreme_ids(&values, count);
        let mut order: Vec<u32> = (0..values.len() as u32).collect();
        order.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]).then(a.cmp(&b)));
        prop_assert_eq!(&top[..], &order[..count.min(values.len())]);
        order.sort_by(|&a, &b| values[a as usize].total_cmp(&values[b as usize]).then(a.cmp(&b)));
        prop_assert_eq!(&bottom[..], &order[..count.min(values.len())]);
    }
}

#[test]
fn nan_is_never_extreme() {
    assert_eq!(
        extreme_ids(&[1.0, f32::NAN, 2.0], 3),
        (vec![2, 0], vec![0, 2])
    );
}

#[test]
fn a_trace_tells_what_fires_and_what_is_left() {
    let features = columns(
        3,
        &[
            vec![1.0, 0.0, 0.0],
            vec![0.0, 0.6, 0.8],
            vec![0.0, 1.0, 0.0],
        ],
    );
    let rows = vec![3.0, 0.0, 4.0, 0.0, 1.2, 1.6, 0.0, 0.0, 0.0];
    let block = Block {
        rows: 3,
        cols: 3,
        data: rows.into(),
    };
    // Row 0: 3·z₀ leaves the 4 unexplained; row 1: 2·z₁ leaves nothing.
    let coefficients = [3.0, 0.0, 0.0, 1e-6, 2.0, 0.0, 0.0, 0.0, 0.0];
    let trace = build_trace(
        vec!["a".into(), "b".into(), "c".into()],
        &features,
        &Coding::default(),
        &block,
        &coefficients,
    );
    assert_eq!(
        trace.features.iter().map(|f| f.id).collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(trace.features[0].values, [3.0, 1e-6, 0.0]);
    assert!((trace.unexplained[0] - 0.8).abs() < 1e-6);
    assert!(trace.unexplained[1] < 1e-5);
    assert_eq!(trace.unexplained[2], 0.0);
}

#[test]
fn a_text_without_tokens_has_an_empty_trace() {
    let block = Block {
        rows: 0,
        cols: 3,
        data: Vec::new().into(),
    };
    let trace = build_trace(
        Vec::new(),
        &columns(3, &[vec![1.0, 0.0, 0.0]]),
        &Coding::default(),
        &block,
        &[],
    );
    assert_eq!(
        trace,
        Trace {
            tokens: Vec::new(),
            features: Vec::new(),
            unexplained: Vec::new()
        }
    );
}

#[test]
fn windows_cover_every_token_once() {
    assert_eq!(windows(&[1, 2, 3, 4, 5], 2), [&[1, 2][..], &[3, 4], &[5]]);
    assert_eq!(windows(&[1, 2], 0).len(), 2);
    assert!(windows(&[], 4).is_empty());
}

#[test]
fn a_device_gives_back_the_strongest_tokens_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [own, card] = models(dir.path());
    let hook = HookPoint {
        layer: 1,
        site: HookSite::MlpPost,
    };
    let wave = |by: f32| (0..64).map(|i| (by * i as f32).sin()).collect::<Vec<f32>>();
    let directions = [wave(1.3), vec![0.0; 64], wave(0.7), wave(2.1)];
    let before = host::copied();
    let device = promoted_tokens(&card, hook, &directions, 6).unwrap();
    // Twice as many as asked for with their ids, on both sides of each, and one flag.
    assert_eq!(host::copied() - before, 4 * 2 * 2 * 12 + 1);
    let host = promoted_tokens(&own, hook, &directions, 6).unwrap();
    assert_eq!(host[1], (Vec::new(), Vec::new()));
    for ((top, bottom), (t, b)) in host.iter().zip(&device) {
        for (a, b) in top.iter().chain(bottom).zip(t.iter().chain(b)) {
            assert_eq!((a.id, &a.token), (b.id, &b.token));
            assert!((a.value - b.value).abs() < 1e-5);
        }
        assert_eq!((top.len(), bottom.len()), (t.len(), b.len()));
    }
}

#[test]
fn the_rows_of_a_text_come_back_without_its_first_token() {
    let dir = tempfile::tempdir().unwrap();
    let [own, card] = models(dir.path());
    let hook = HookPoint {
        layer: 1,
        site: HookSite::MlpPost,
    };
    let rows = |model: &Model| {
        let before = host::copied();
        let ctx = TaskCtx::silent();
        let rows = text_rows(model, hook, "in May", BosRule::Auto, &ctx).unwrap();
        assert_eq!(host::copied() - before, 6 * 64);
        rows
    };
    for (a, b) in rows(&own).iter().zip(rows(&card)) {
        assert!((a - b).abs() < 1e-5);
    }
}
