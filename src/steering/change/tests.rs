use candle_core::{DType, Device};
use proptest::prelude::*;

use super::super::calibrate::tests::models;
use super::*;
use crate::model::{HookPoint, HookSite};
use crate::steering::{Mode, SteerTerm};

proptest! {
    #[test]
    fn kl_matches_the_definition_on_probabilities(
        pairs in proptest::collection::vec((-4f32..4.0, -4f32..4.0), 1..30), shift in -50f32..50.0
    ) {
        let (p, q): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let softmax = |l: &[f32]| -> Vec<f64> {
            let sum: f64 = l.iter().map(|&v| f64::from(v).exp()).sum();
            l.iter().map(|&v| f64::from(v).exp() / sum).collect()
        };
        let plain: f64 = softmax(&p).iter().zip(softmax(&q)).map(|(p, q)| p * (p / q).ln()).sum();
        prop_assert!((kl(&p, &q) - plain).abs() < 1e-9);
        prop_assert!(kl(&p, &p).abs() < 1e-12);
        let moved: Vec<f32> = q.iter().map(|v| v + shift).collect();
        prop_assert!((kl(&p, &moved) - plain).abs() < 1e-4, "a shift of all logits changes nothing");
    }
}

#[test]
fn a_device_measures_what_the_host_measures() {
    let logits = |rows: usize, seed: usize| -> Vec<Vec<f32>> {
        let value = |i: usize| (((i * 7919 + seed) % 1009) as f32 / 100.0).sin() * 4.0;
        (0..rows)
            .map(|r| (0..200).map(|i| value(r * 200 + i)).collect())
            .collect()
    };
    let (base, steered) = (logits(2, 1), logits(6, 5));
    let tensor = |rows: &[Vec<f32>]| Tensor::new(rows.to_vec(), &Device::Cpu).unwrap();
    let on_device = mean_kls_on_device(&tensor(&base), &tensor(&steered)).unwrap();
    let on_host = mean_kls_on_host(&base, &steered);
    assert_eq!(on_host.len(), 3);
    for (a, b) in on_device.iter().zip(&on_host) {
        // Log-probabilities near −6 are good to 1e-7 in f32, and so is their mean.
        assert!((a - b).abs() < 1e-6 + 1e-5 * b, "{a} {b}");
    }
}

#[test]
fn what_all_tokens_share_is_no_change() {
    let (base, steered) = (vec![vec![0.0, 1.0, 2.0]], vec![vec![7.0, 8.0, 9.0]]);
    let change = changes_on_host(&base, &steered).remove(0);
    assert!(
        change.log_probs.iter().all(|s| s.abs() < 1e-9),
        "{change:?}"
    );
    assert!((change.shared - 7.0).abs() < 1e-9 && change.kl < 1e-9);
}

#[test]
fn kl_survives_logits_that_underflow() {
    assert_eq!(
        kl(&[0.0, f32::NEG_INFINITY], &[0.0, f32::NEG_INFINITY]),
        0.0
    );
    assert!((kl(&[1000.0, 0.0], &[0.0, 1000.0]) - 1000.0).abs() < 1e-6);
}

#[test]
fn raw_logits_rise_by_what_all_rise_by_besides() {
    let base = [vec![0.5f32, -1.0, 2.0], vec![0.0, 0.25, -0.5]];
    let steered = [vec![1.5f32, 3.0, 2.5], vec![-1.0, 0.75, 4.0]];
    let tensor = |rows: &[Vec<f32>]| Tensor::new(rows.to_vec(), &Device::Cpu).unwrap();
    let on_device = changes_on_device(&tensor(&base), &tensor(&steered)).unwrap();
    for (found, near) in [(changes_on_host(&base, &steered), 1e-9), (on_device, 1e-6)] {
        for token in 0..3 {
            let plain = |i: usize| f64::from(steered[i][token] - base[i][token]);
            let raw = found[0].log_probs[token] + found[0].shared;
            assert!((raw - (plain(0) + plain(1)) / 2.0).abs() < near);
        }
    }
}

#[test]
fn one_row_a_steering_comes_back_from_a_device() {
    let dir = tempfile::tempdir().unwrap();
    let [own, card] = models(dir.path(), DType::F32);
    let steering = |alpha| {
        let term = SteerTerm {
            hook: HookPoint {
                layer: 1,
                site: HookSite::MlpPost,
            },
            direction: (0..64).map(|i| (i as f32).sin()).collect(),
            weight: 1.0,
        };
        Steering {
            intervention: Arc::new(Intervention::new(&[term], Mode::Add).unwrap()),
            alpha,
        }
    };
    let steerings = [0.5, -1.0, 2.0].map(steering);
    let prompts = [
        vec![256, 105, 110, 32, 77],
        vec![256, 97, 32],
        vec![256, 98],
    ];
    let changes = |model: &Model| {
        let (before, mut out) = (host::copied(), Vec::new());
        let (all, ctx) = (Positions::All, TaskCtx::silent());
        let keep = |i: usize, change: &Change| {
            assert_eq!(i, out.len());
            out.push(change.clone());
        };
        for_each_change(model, &steerings, &prompts, all, &ctx, keep).unwrap();
        (out, host::copied() - before)
    };
    let ((host, _), (device, copied)) = (changes(&own), changes(&card));
    assert_eq!((host.len(), device.len()), (3, 3));
    for (a, b) in host.iter().zip(&device) {
        assert!(
            a.kl > 1e-3 && (a.kl - b.kl).abs() < 1e-5,
            "{} {}",
            a.kl,
            b.kl
        );
        assert!((a.shared - b.shared).abs() < 1e-5);
        for (a, b) in a.log_probs.iter().zip(&b.log_probs) {
            assert!((a - b).abs() < 2e-5, "{a} {b}");
        }
    }
    // A row of tokens, one KL a prompt and one number for each steering; two flags of what is finite.
    assert_eq!(copied, 3 * (258 + 3 + 1) + 2);
}
