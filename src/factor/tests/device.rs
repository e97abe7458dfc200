//! Passes as dense tensors against the panels: on candle's CPU device, or on the card that
//! MLPEEK_TEST_DEVICE names.

use candle_core::Device;

use super::*;
use crate::engine::testing::support;
use crate::error::Error;
use crate::factor::device::Accelerator;

fn device() -> Device {
    support::device::devices().remove(0)
}

/// Blocks of three panels, of which the device keeps `kept`.
fn accelerator(d: usize, kept: u64) -> Accelerator {
    Accelerator::with_block(device(), d, kept * 2 * 4 * 192 * d as u64, 192)
}

#[test]
fn a_fit_on_a_device_is_the_same_within_rounding() {
    // No whole number of blocks or of panels.
    let (source, _) = planted(1003, 40, 20, 4, 0.4);
    let ctx = TaskCtx::silent();
    for (l1, framed, kept) in [(0.0, false, 100), (0.1, false, 2), (0.1, true, 0)] {
        let config = FitConfig {
            l1,
            centre: framed,
            scale_rows: framed,
            ..config(14, Solver::Bcd)
        };
        let mut plain = Factoriser::start(&source, config.clone(), &ctx).unwrap();
        let mut accelerated = Factoriser::start(&source, config, &ctx).unwrap();
        accelerated.device = Some(accelerator(40, kept));
        // Two rounds of choosing supports.
        for sweep in 0..8 {
            let (a, b) = (
                plain.step(&ctx).unwrap().relative_error,
                accelerated.step(&ctx).unwrap().relative_error,
            );
            assert!((a - b).abs() <= 1e-4 * a, "sweep {sweep}: {a} and {b}");
        }
        let identity = accelerated.snapshot().unwrap().relative_error;
        let (a, b) = (
            plain.finish(&ctx).unwrap(),
            accelerated.finish(&ctx).unwrap(),
        );
        assert!(
            (b.relative_error - identity).abs() <= 1e-4 * identity,
            "the error of the factors themselves"
        );
        assert!((a.relative_error - b.relative_error).abs() <= 1e-4 * a.relative_error);
        assert_eq!(a.features.indices, b.features.indices);
        let size = a
            .coefficients
            .as_slice()
            .iter()
            .fold(0f32, |m, v| m.max(*v));
        let pairs = a
            .coefficients
            .as_slice()
            .iter()
            .zip(b.coefficients.as_slice());
        assert!(
            pairs
                .into_iter()
                .all(|(x, y)| (x - y).abs() <= 1e-3 * size && *y >= 0.0)
        );
    }
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
        let mut fit = Factoriser::start(&source, config, &ctx).unwrap();
        assert!(matches!(
            fit.compute_on(device(), 1 << 30),
            Err(Error::Usage(_))
        ));
    }
    let mut fit = Factoriser::start(&source, config(8, Solver::Bcd), &ctx).unwrap();
    fit.compute_on(device(), 1 << 30).unwrap();
    fit.step(&ctx).unwrap();
    let before = bits(&fit.snapshot().unwrap());
    let stopped = TaskCtx::silent();
    stopped.cancel_token().cancel();
    assert!(matches!(fit.step(&stopped), Err(Error::Cancelled)));
    assert_eq!(before, bits(&fit.snapshot().unwrap()));
}
