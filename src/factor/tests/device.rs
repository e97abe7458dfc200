//! Fits on a device (candle's CPU device, or the GPU that MLPEEK_TEST_DEVICE names) against fits by
//! the CPU kernels.

use candle_core::Device;

use super::*;
use crate::activations::store::{CacheDtype, CacheReader, CacheWriter};
use crate::activations::{Block, StoredRows};
use crate::engine::testing::support;
use crate::error::{DeviceFailure, Error};
use crate::factor::device::Accelerator;

fn device() -> Device {
    support::device::devices().remove(0)
}

/// An accelerator with blocks of two panels and strips of five, which keeps `kept_blocks` blocks,
/// and all coefficients or none.
fn accelerator(kept_blocks: usize, keeps_coefficients: bool) -> Accelerator {
    Accelerator::with_block_sizes(device(), 128, 320, kept_blocks, keeps_coefficients)
}

/// Writes the rows to a cache of this type, in shards whose ends are not those of blocks.
fn stored(dir: &std::path::Path, source: &InMemory, dtype: CacheDtype) -> CacheReader {
    let (n, d) = source.shape();
    let mut writer = CacheWriter::open(dir, d, dtype)
        .unwrap()
        .with_shard_rows(150);
    writer.push(&source.rows(0..n).unwrap().data).unwrap();
    writer.seal().unwrap();
    CacheReader::open(dir).unwrap()
}

/// Runs eight sweeps, two rounds of choosing supports, on the CPU and on the device, and compares
/// the errors of all, the factors, and the errors of the factors themselves.
fn compare(source: &dyn ActivationSource, config: &FitConfig, device: Accelerator, what: &str) {
    let ctx = TaskCtx::silent();
    let mut plain = Factoriser::start(source, config.clone(), &ctx).unwrap();
    let mut accelerated = Factoriser::start_on(source, config.clone(), Some(device), &ctx).unwrap();
    let (a, b) = (plain.snapshot().unwrap(), accelerated.snapshot().unwrap());
    assert_eq!(
        a.coefficients.as_slice(),
        b.coefficients.as_slice(),
        "{what}: the start"
    );
    for sweep in 0..8 {
        let (a, b) = (plain.step(&ctx).unwrap(), accelerated.step(&ctx).unwrap());
        let (a, b) = (a.relative_error, b.relative_error);
        assert!(
            (a - b).abs() <= 1e-4 * a,
            "{what}, sweep {sweep}: {a} and {b}"
        );
    }
    let shown = accelerated.snapshot().unwrap();
    let (a, b) = (
        plain.finish(&ctx).unwrap(),
        accelerated.finish(&ctx).unwrap(),
    );
    assert!(
        (b.relative_error - shown.relative_error).abs() <= 1e-4 * shown.relative_error,
        "{what}: the error of the factors themselves"
    );
    assert!((a.relative_error - b.relative_error).abs() <= 1e-4 * a.relative_error);
    assert!((a.explained_variance - b.explained_variance).abs() <= 1e-4);
    if let (Some(a), Some(b)) = (a.weighted_error, b.weighted_error) {
        assert!((a - b).abs() <= 1e-4 * a, "{what}: {a} and {b}");
    }
    assert_eq!(a.features.indices, b.features.indices, "{what}");
    let pairs = || {
        let coefficients = b.coefficients.as_slice();
        a.coefficients.as_slice().iter().zip(coefficients)
    };
    let size = pairs().fold(0f32, |m, (v, _)| m.max(*v));
    assert!(
        pairs().all(|(x, y)| (x - y).abs() <= 1e-3 * size && *y >= 0.0),
        "{what}"
    );
}

#[test]
fn a_fit_on_a_device_is_the_same_within_rounding() {
    // No whole number of strips, of blocks or of panels; with two rows of zeros.
    let (source, _) = planted(1003, 40, 20, 4, 0.4);
    let mut rows = source.rows(0..1003).unwrap().data.into_owned();
    rows[700 * 40..702 * 40].fill(0.0);
    let source = InMemory::new(1003, 40, rows);
    let plain = config(14, Solver::Bcd);
    for dtype in [CacheDtype::F32, CacheDtype::F16, CacheDtype::Bf16] {
        let dir = tempfile::tempdir().unwrap();
        let cache = stored(dir.path(), &source, dtype);
        for (l1, centre, scale_rows, scale_neurons, kept, keeps_coefficients) in [
            (0.0, false, false, false, 100, true),
            (0.1, true, true, false, 3, false),
            (0.1, true, false, true, 0, true),
        ] {
            let config = FitConfig {
                l1,
                centre,
                scale_rows,
                scale_neurons,
                ..plain.clone()
            };
            let what = format!("{} {config:?}", dtype.name());
            compare(
                &cache,
                &config,
                accelerator(kept, keeps_coefficients),
                &what,
            );
        }
    }
    // A source in memory, fewer rows than a panel, one feature, values far from 1.
    compare(&source, &plain, accelerator(100, true), "in memory");
    compare(
        &first_rows(&source, 50),
        &plain,
        accelerator(1, true),
        "few rows",
    );
    let one = config(1, Solver::Bcd);
    compare(&source, &one, accelerator(100, true), "one feature");
    let tiny = source
        .rows(0..1003)
        .unwrap()
        .data
        .iter()
        .map(|v| v * 1e-12)
        .collect();
    let tiny = InMemory::new(1003, 40, tiny);
    compare(&tiny, &plain, accelerator(100, true), "tiny values");
    // With the plan for a GPU with a gigabyte of memory.
    let whole = Accelerator::new(device(), Some(1 << 30), &source, &plain);
    compare(&source, &plain, whole, "one strip");
    let random = FitConfig {
        init: Init::Random,
        ..plain
    };
    compare(&source, &random, accelerator(2, true), "a random start");
}

/// The factors after `sweeps` on a device, with those of a snapshot in the middle.
fn fitted(source: &dyn ActivationSource, device: Accelerator) -> [std::sync::Arc<Factors>; 2] {
    let ctx = TaskCtx::silent();
    let config = FitConfig {
        scale_rows: true,
        ..config(9, Solver::Bcd)
    };
    let mut fit = Factoriser::start_on(source, config, Some(device), &ctx).unwrap();
    for _ in 0..3 {
        fit.step(&ctx).unwrap();
    }
    let middle = fit.snapshot().unwrap();
    for _ in 0..3 {
        fit.step(&ctx).unwrap();
    }
    [middle, fit.finish(&ctx).unwrap()]
}

#[test]
fn what_stays_on_a_device_changes_no_bit() {
    let (source, _) = planted(1003, 40, 20, 4, 0.4);
    let dir = tempfile::tempdir().unwrap();
    let cache = stored(dir.path(), &source, CacheDtype::Bf16);
    let all = fitted(&cache, accelerator(100, true)).map(|f| bits(&f));
    for (kept, keeps_coefficients) in [(0, true), (3, true), (100, false), (0, false)] {
        let some = fitted(&cache, accelerator(kept, keeps_coefficients)).map(|f| bits(&f));
        assert!(
            all == some,
            "{kept} blocks, coefficients: {keeps_coefficients}"
        );
    }
}

#[test]
fn a_fit_on_a_device_goes_on_from_a_checkpoint_bit_for_bit() {
    let (source, _) = planted(1003, 40, 20, 4, 0.4);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let ctx = TaskCtx::silent();
    let config = config(9, Solver::Bcd);
    for at in [0, 1, 3, 4] {
        let device = Some(accelerator(2, true));
        let mut whole = Factoriser::start_on(&source, config.clone(), device, &ctx).unwrap();
        for _ in 0..at {
            whole.step(&ctx).unwrap();
        }
        whole.checkpoint(&path).unwrap();
        let mut resumed = Factoriser::resume(&source, config.clone(), &path, &ctx).unwrap();
        resumed.compute_on(accelerator(100, true)).unwrap();
        for _ in at..7 {
            let (a, b) = (whole.step(&ctx).unwrap(), resumed.step(&ctx).unwrap());
            assert_eq!(a.relative_error.to_bits(), b.relative_error.to_bits());
        }
        // A fit that is resumed without a device continues from the same coefficients.
        let (a, b) = (whole.snapshot().unwrap(), resumed.snapshot().unwrap());
        assert_eq!(bits(&a), bits(&b));
        let mut elsewhere = Factoriser::resume(&source, config.clone(), &path, &ctx).unwrap();
        for _ in at..7 {
            elsewhere.step(&ctx).unwrap();
        }
        let here = elsewhere.snapshot().unwrap().relative_error;
        assert!((here - a.relative_error).abs() <= 1e-4 * here);
    }
}

#[test]
fn features_are_added_revived_and_locked_on_a_device_as_on_the_cpu() {
    let (source, _) = planted(1003, 40, 20, 4, 0.2);
    let ctx = TaskCtx::silent();
    let earlier = fit(&source, config(8, Solver::Bcd), 5).1;
    let more = config(11, Solver::Bcd);
    let run = |device: Option<Accelerator>| {
        let mut fit =
            Factoriser::warm_start_on(&source, more.clone(), &earlier, &[2], device, &ctx).unwrap();
        let mut errors: Vec<f64> = (0..3)
            .map(|_| fit.step(&ctx).unwrap().relative_error)
            .collect();
        fit.add_features(2, &ctx).unwrap();
        errors.extend((0..5).map(|_| fit.step(&ctx).unwrap().relative_error));
        (errors, fit.finish(&ctx).unwrap())
    };
    let ((a, plain), (b, accelerated)) = (run(None), run(Some(accelerator(2, true))));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 1e-4 * a, "{a} and {b}");
    }
    assert_eq!(plain.features.indices, accelerated.features.indices);
    assert_eq!(accelerated.features.column(2), earlier.features.column(2));
    let used = |j: usize| accelerated.coefficients.feature(j).iter().any(|v| *v > 0.0);
    assert!((0..13).all(used), "every feature is used again");
}

/// A source that simulates a full device: it refuses more than `most` rows at a time.
struct Crowded<'a> {
    inner: &'a InMemory,
    most: usize,
    largest: std::sync::atomic::AtomicUsize,
}

impl ActivationSource for Crowded<'_> {
    fn shape(&self) -> (usize, usize) {
        self.inner.shape()
    }

    fn rows(&self, range: std::ops::Range<usize>) -> crate::Result<Block<'_>> {
        self.inner.rows(range)
    }

    fn for_each_stored(
        &self,
        range: std::ops::Range<usize>,
        f: &mut dyn FnMut(StoredRows<'_>) -> crate::Result<()>,
    ) -> crate::Result<()> {
        if range.len() > self.most {
            let cause = "CUDA_ERROR_OUT_OF_MEMORY".to_owned();
            return Err(Error::Device(DeviceFailure::Full, cause));
        }
        let largest = &self.largest;
        largest.fetch_max(range.len(), std::sync::atomic::Ordering::Relaxed);
        self.inner.for_each_stored(range, f)
    }
}

#[test]
fn a_device_that_is_full_is_given_fewer_rows_at_once() {
    let (inner, _) = planted(1003, 40, 20, 4, 0.4);
    let crowded = |most| Crowded {
        inner: &inner,
        most,
        largest: 0.into(),
    };
    let source = crowded(100);
    compare(
        &source,
        &config(9, Solver::Bcd),
        accelerator(100, true),
        "a full device",
    );
    assert_eq!(source.largest.into_inner(), 64, "half a block");
    // Where not even a panel fits, one line says so.
    let ctx = TaskCtx::silent();
    let (none, device) = (crowded(10), Some(accelerator(100, true)));
    let Err(error) = Factoriser::start_on(&none, config(9, Solver::Bcd), device, &ctx) else {
        panic!("started");
    };
    let text = error.to_string();
    assert!(
        error.is_device_full() && text.contains("no more than 64 rows") && !text.contains('\n'),
        "{text}"
    );
}

#[test]
fn what_a_device_cannot_take_is_refused_and_a_cancelled_sweep_changes_nothing() {
    let (source, _) = planted(300, 40, 20, 4, 0.4);
    let ctx = TaskCtx::silent();
    for config in [
        FitConfig {
            row_cap: Some(3),
            ..config(8, Solver::Bcd)
        },
        config(8, Solver::Mu),
    ] {
        let mut fit = Factoriser::start(&source, config.clone(), &ctx).unwrap();
        let refused = fit.compute_on(accelerator(1, true));
        assert!(matches!(refused, Err(Error::Usage(_))));
        let refused = Factoriser::start_on(&source, config, Some(accelerator(1, true)), &ctx);
        assert!(matches!(refused, Err(Error::Usage(_))));
    }
    let device = Some(accelerator(1, true));
    let mut fit = Factoriser::start_on(&source, config(8, Solver::Bcd), device, &ctx).unwrap();
    fit.step(&ctx).unwrap();
    let before = bits(&fit.snapshot().unwrap());
    let stopped = TaskCtx::silent();
    stopped.cancel_token().cancel();
    assert!(matches!(fit.step(&stopped), Err(Error::Cancelled)));
    assert_eq!(before, bits(&fit.snapshot().unwrap()));
}
