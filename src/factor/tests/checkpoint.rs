//! Resuming from a checkpoint, and refusing other or damaged files.

use proptest::prelude::*;

use super::*;
use crate::error::Error;

#[test]
fn a_resumed_fit_goes_on_bit_for_bit() {
    let (source, _) = planted(600, 30, 20, 4, 0.5);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let ctx = TaskCtx::silent();
    for solver in [Solver::Bcd, Solver::Mu] {
        for at in [0, 1, 3, 4] {
            let config = FitConfig {
                max_sweeps: Some(7),
                ..config(9, solver)
            };
            let mut whole = Factoriser::start(&source, config.clone(), &ctx).unwrap();
            for _ in 0..at {
                whole.step(&ctx).unwrap();
            }
            whole.checkpoint(&path).unwrap();
            let mut resumed = Factoriser::resume(&source, config, &path, &ctx).unwrap();
            for _ in at..7 {
                let (a, b) = (whole.step(&ctx).unwrap(), resumed.step(&ctx).unwrap());
                assert_eq!(
                    (a.sweep, a.relative_error.to_bits(), a.stop),
                    (b.sweep, b.relative_error.to_bits(), b.stop)
                );
            }
            assert_eq!(
                bits(&whole.snapshot().unwrap()),
                bits(&resumed.snapshot().unwrap())
            );
        }
    }
}

#[test]
fn a_foreign_checkpoint_is_refused_by_name() {
    let (source, _) = planted(300, 30, 20, 4, 0.5);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let ctx = TaskCtx::silent();
    let base = config(9, Solver::Bcd);
    let mut fit = Factoriser::start(&source, base.clone(), &ctx).unwrap();
    fit.step(&ctx).unwrap();
    fit.checkpoint(&path).unwrap();
    let refusal = |source: &InMemory, config: FitConfig| match Factoriser::resume(
        source, config, &path, &ctx,
    ) {
        Err(e @ Error::File { .. }) => e.to_string(),
        Err(e) => panic!("{e:?}"),
        Ok(_) => panic!("accepted"),
    };
    assert!(refusal(&noise(300, 30, 1), base.clone()).contains("other activations"));
    assert!(refusal(&noise(301, 30, 1), base.clone()).contains("300 × 30"));
    assert!(
        refusal(
            &source,
            FitConfig {
                seed: 1,
                ..base.clone()
            }
        )
        .contains("other settings")
    );
    assert!(
        refusal(
            &source,
            FitConfig {
                features: 8,
                ..base.clone()
            }
        )
        .contains("other settings")
    );
    let good = std::fs::read(&path).unwrap();
    let mut other = good.clone();
    other[8] = 7;
    std::fs::write(&path, &other).unwrap();
    assert!(refusal(&source, base.clone()).contains("format 7, and this version reads format 1"));
    std::fs::write(&path, &good).unwrap();
    let longer = FitConfig {
        max_sweeps: Some(9),
        threads: Some(1),
        ..base
    };
    assert!(Factoriser::resume(&source, longer, &path, &ctx).is_ok());
}

#[test]
fn a_resumed_first_look_goes_on_bit_for_bit() {
    let (source, _) = planted(1500, 30, 20, 4, 0.5);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let ctx = TaskCtx::silent();
    let config = FitConfig {
        max_sweeps: Some(9),
        ..config(9, Solver::Bcd)
    };
    let early = MiniBatchFit::start(&source, config.clone(), 400)
        .unwrap()
        .checkpoint(&path)
        .unwrap_err();
    assert!(early.to_string().contains("before the first batch") && !path.exists());
    // Within the first shuffle of the rows, when fewer rows are left than a batch needs, after the
    // second shuffle, and at the end.
    for at in [1, 3, 5, 9] {
        let mut whole = MiniBatchFit::start(&source, config.clone(), 400).unwrap();
        for _ in 0..at {
            whole.step(&ctx).unwrap();
        }
        whole.checkpoint(&path).unwrap();
        assert!(MiniBatchFit::has_checkpoint(&path));
        let mut resumed = MiniBatchFit::resume(&source, config.clone(), &path).unwrap();
        assert_eq!(
            (
                resumed.batches(),
                resumed.batch_rows(),
                resumed.stop_reason().is_some()
            ),
            (at, 400, at == 9)
        );
        for _ in at..9 {
            let (a, b) = (whole.step(&ctx).unwrap(), resumed.step(&ctx).unwrap());
            assert_eq!(
                (a.sweep, a.relative_error.to_bits(), a.stop),
                (b.sweep, b.relative_error.to_bits(), b.stop)
            );
        }
        let ends =
            [whole, resumed].map(|look| bits(&look.finish(&ctx).unwrap().snapshot().unwrap()));
        assert_eq!(ends[0], ends[1]);
    }
    let refusal =
        |source: &InMemory, config: FitConfig| match MiniBatchFit::resume(source, config, &path) {
            Err(e @ Error::File { .. }) => e.to_string(),
            Err(e) => panic!("{e:?}"),
            Ok(_) => panic!("accepted"),
        };
    assert!(refusal(&noise(1500, 30, 1), config.clone()).contains("other activations"));
    assert!(refusal(&noise(1501, 30, 1), config.clone()).contains("other activations"));
    assert!(
        refusal(
            &source,
            FitConfig {
                seed: 1,
                ..config.clone()
            }
        )
        .contains("other settings")
    );
    assert!(
        matches!(Factoriser::resume(&source, config.clone(), &path, &ctx), Err(e) if e.to_string().contains("not a checkpoint of a fit"))
    );
    let mut fit = Factoriser::start(&source, config.clone(), &ctx).unwrap();
    fit.step(&ctx).unwrap();
    fit.checkpoint(&path).unwrap();
    assert!(
        !MiniBatchFit::has_checkpoint(&path)
            && refusal(&source, config).contains("not a checkpoint of a first look")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn broken_checkpoints_are_refused(cut in 0usize..6000, at in 0usize..6000, flip in 1u8..=255, extra in 0usize..9) {
        let source = noise(70, 12, 5);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let ctx = TaskCtx::silent();
        let base = FitConfig { threads: Some(1), ..config(4, Solver::Bcd) };
        for first_look in [false, true] {
            if first_look {
                let mut look = MiniBatchFit::start(&source, base.clone(), 70).unwrap();
                look.step(&ctx).unwrap();
                look.checkpoint(&path).unwrap();
            } else {
                let mut fit = Factoriser::start(&source, base.clone(), &ctx).unwrap();
                fit.step(&ctx).unwrap();
                fit.checkpoint(&path).unwrap();
            }
            let good = std::fs::read(&path).unwrap();
            let refused = |bytes: &[u8]| {
                std::fs::write(&path, bytes).unwrap();
                if first_look {
                    MiniBatchFit::resume(&source, base.clone(), &path).is_err()
                } else {
                    Factoriser::resume(&source, base.clone(), &path, &ctx).is_err()
                }
            };
            prop_assert!(!refused(&good));
            prop_assert!(refused(&good[..cut.min(good.len() - 1)]));
            let mut flipped = good.clone();
            let at = at % good.len();
            flipped[at] ^= flip;
            prop_assert!(refused(&flipped));
            let mut longer = good.clone();
            longer.extend(std::iter::repeat_n(flip, extra + 1));
            prop_assert!(refused(&longer));
            let junk: Vec<u8> = good.iter().map(|b| b.wrapping_mul(flip).wrapping_add(1)).collect();
            prop_assert!(refused(&junk));
        }
    }
}
