use candle_core::{DType, Device};
use proptest::prelude::*;

use super::*;
use crate::engine::testing::support;
use crate::model::{HookPoint, HookSite, source};
use crate::steering::SteerTerm;

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

/// A random Llama by this crate's kernels in f32, and as a card computes it in f16.
fn models(dir: &std::path::Path) -> [Model; 2] {
    let ctx = TaskCtx::silent();
    let files = source::resolve(support::tiny_model(dir).to_str(), &ctx).unwrap();
    [
        Model::open(&files, &Default::default(), &ctx).unwrap(),
        Model::open_generic(&files, DType::F16, &ctx).unwrap(),
    ]
}

#[test]
fn a_strength_that_overflows_does_not_end_a_search() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = [vec![256, 105, 110, 32, 77], vec![256, 97, 32]];
    let ctx = TaskCtx::silent();
    // The first strengths that are tried are 1, 4, 16 and 64.
    for (model, size) in models(dir.path()).iter().zip([3e37, 4000.0]) {
        let term = |size: f32| SteerTerm {
            hook: HookPoint {
                layer: 1,
                site: HookSite::ResidPost,
            },
            direction: (0..32)
                .map(|i| if i % 3 == 0 { size } else { 0.0 })
                .collect(),
            weight: 1.0,
        };
        let signed = [1.0, size].map(|size| SignedIntervention {
            intervention: Arc::new(Intervention::new(&[term(size)], Mode::Add).unwrap()),
            negative: false,
        });
        let steering = |i: usize, alpha| Steering {
            intervention: signed[i].intervention.clone(),
            alpha,
        };
        let kls = |steerings: &[Steering]| kls_of(model, steerings, &prompts, Positions::All, &ctx);
        let error = kls(&[steering(1, 64.0)]).unwrap_err().to_string();
        assert!(error.contains("NaN or infinity"), "{error}");
        for by in [SearchMethod::Curve, SearchMethod::Bisection] {
            let targets = [0.02, 50.0];
            let search = |signed: &[SignedIntervention]| {
                calibrate_by(by, model, signed, &prompts, &targets, Positions::All, &ctx).unwrap()
            };
            let found = search(&signed);
            // A row that overflows changes nothing for the others of its pass.
            assert_eq!(found[0], search(&signed[..1])[0]);
            // The curve's search begins at 0, the paper's at α = 1.
            assert_eq!(found[1][0].reached, by == SearchMethod::Curve, "{found:?}");
            for found in found[1].iter().filter(|found| found.alpha > 0.0) {
                assert_eq!(kls(&[steering(1, found.alpha)]).unwrap(), [found.kl]);
            }
            let note = found[1][1].note.as_deref().unwrap();
            assert!(!found[1][1].reached && note.contains("50"), "{note}");
        }
    }
}

#[test]
fn prompts_that_overflow_unsteered_end_a_search() {
    let dir = tempfile::tempdir().unwrap();
    let files = support::tiny_model(dir.path());
    let path = files.join("model.safetensors");
    // One weight of a layer above the steered one.
    let mut bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let tensor = &names["model.layers.3.mlp.down_proj.weight"]["data_offsets"][0];
    let at = header + tensor.as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let ctx = TaskCtx::silent();
    let files = source::resolve(files.to_str(), &ctx).unwrap();
    let term = SteerTerm {
        hook: HookPoint {
            layer: 1,
            site: HookSite::ResidPost,
        },
        direction: vec![1.0; 32],
        weight: 1.0,
    };
    let signed = [SignedIntervention {
        intervention: Arc::new(Intervention::new(&[term], Mode::Add).unwrap()),
        negative: false,
    }];
    for model in [
        Model::open(&files, &Default::default(), &ctx).unwrap(),
        Model::open_generic(&files, DType::F32, &ctx).unwrap(),
    ] {
        let prompts = [vec![256, 105]];
        let error = calibrate(&model, &signed, &prompts, &[0.1], Positions::All, &ctx).unwrap_err();
        assert!(error.to_string().contains("weights"), "{error}");
    }
}
