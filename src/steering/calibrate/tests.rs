use candle_core::DType;

use super::*;
use crate::engine::testing::support;
use crate::model::{HookPoint, HookSite, source};
use crate::steering::SteerTerm;

/// A random Llama by this crate's kernels in f32, and as a card computes it in `dtype`.
pub(in super::super) fn models(dir: &std::path::Path, dtype: DType) -> [Model; 2] {
    let ctx = TaskCtx::silent();
    let files = source::resolve(support::tiny_model(dir).to_str(), &ctx).unwrap();
    [
        Model::open(&files, &Default::default(), &ctx).unwrap(),
        Model::open_generic(&files, dtype, &ctx).unwrap(),
    ]
}

#[test]
fn a_strength_that_overflows_does_not_end_a_search() {
    let dir = tempfile::tempdir().unwrap();
    let prompts = [vec![256, 105, 110, 32, 77], vec![256, 97, 32]];
    let ctx = TaskCtx::silent();
    // The first strengths that are tried are 1, 4, 16 and 64.
    for (model, size) in models(dir.path(), DType::F16).iter().zip([3e37, 4000.0]) {
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
