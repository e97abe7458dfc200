use candle_core::Device;
use proptest::prelude::*;

use super::*;

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
    let on_host = mean_kls(&base, &steered);
    assert_eq!(on_host.len(), 3);
    for (a, b) in on_device.iter().zip(&on_host) {
        // Log-probabilities near −6 are good to 1e-7 in f32, and so is their mean.
        assert!((a - b).abs() < 1e-6 + 1e-5 * b, "{a} {b}");
    }
}

#[test]
fn what_all_tokens_share_is_no_change() {
    let shifts = mean_log_prob_shifts(&[vec![vec![0.0, 1.0, 2.0], vec![7.0, 8.0, 9.0]]]);
    assert!(shifts.iter().all(|s| s.abs() < 1e-9), "{shifts:?}");
}

#[test]
fn kl_survives_logits_that_underflow() {
    assert_eq!(
        kl(&[0.0, f32::NEG_INFINITY], &[0.0, f32::NEG_INFINITY]),
        0.0
    );
    assert!((kl(&[1000.0, 0.0], &[0.0, 1000.0]) - 1000.0).abs() < 1e-6);
}
