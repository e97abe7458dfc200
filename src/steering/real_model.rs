//! Steering on real weights: `MLPEEK_TEST_MODEL` names a GGUF file (SmolLM2-135M-Instruct in CI).

use std::path::PathBuf;

use super::calibrate::{SignedIntervention, calibrate};
use super::change::{kl, last_logits};
use super::search::tolerance;
use super::*;
use crate::activations::Block;
use crate::analysis::lens;
use crate::analysis::tests::{columns, factors};
use crate::factor::encode::Encoder;
use crate::model::{HookSite, LoadOptions, ModelFiles, ModelLayout};

fn open() -> Model {
    let path = std::env::var("MLPEEK_TEST_MODEL").expect("MLPEEK_TEST_MODEL names a GGUF file");
    let layout = ModelLayout::Gguf(PathBuf::from(&path));
    let files = ModelFiles {
        id: path,
        origin: "test".to_owned(),
        layout,
    };
    Model::open(&files, &LoadOptions::default(), &TaskCtx::silent()).unwrap()
}

fn hook(model: &Model) -> HookPoint {
    HookPoint {
        layer: model.info().layers / 2,
        site: HookSite::MlpPost,
    }
}

/// A sparse direction that is the same on every run.
fn direction(model: &Model) -> Vec<f32> {
    let width = model.width(hook(model)).unwrap();
    let mut out = vec![0.0; width];
    for i in 0..15usize {
        out[(i * 97 + 11) % width] = if i % 3 == 0 { -0.5 } else { 1.0 };
    }
    out
}

fn request(model: &Model, strength: Strength) -> SteerRequest {
    SteerRequest {
        terms: vec![direction_term(model, hook(model), &direction(model), 1.0).unwrap()],
        strength,
        negative: false,
        positions: Positions::All,
        mode: Mode::Add,
        prompts: vec!["I think that".to_owned()],
        samples: 2,
        sampling: Sampling {
            max_tokens: 8,
            ..Sampling::default()
        },
        bos: BosRule::Auto,
    }
}

#[test]
#[ignore = "needs real weights: MLPEEK_TEST_MODEL names a GGUF file"]
fn kl_rises_with_small_strengths_and_meets_its_targets() {
    let model = open();
    let ctx = TaskCtx::silent();
    let intervention = Arc::new(
        Intervention::new(&request(&model, Strength::Alpha(0.0)).terms, Mode::Add).unwrap(),
    );
    let prompt = model
        .tokenizer()
        .encode("I think that", BosRule::Auto)
        .unwrap();
    let alphas = [0.0, 0.25, 0.5, 1.0, 2.0];
    let prompts = std::slice::from_ref(&prompt);
    let logits = last_logits(
        &model,
        &intervention,
        prompts,
        &alphas,
        Positions::All,
        &ctx,
    )
    .unwrap()
    .remove(0);
    let kls: Vec<f64> = logits[1..].iter().map(|row| kl(&logits[0], row)).collect();
    assert!(kls[0] < 1e-9, "α = 0 changes nothing: {kls:?}");
    assert!(kls.windows(2).all(|pair| pair[0] < pair[1]), "{kls:?}");
    for negative in [false, true] {
        let targets = [0.025, 0.05, 0.1, 0.15, 0.25, 0.35, 0.5];
        let signed = [SignedIntervention {
            intervention: intervention.clone(),
            negative,
        }];
        let all = calibrate(&model, &signed, prompts, &targets, Positions::All, &ctx).unwrap();
        for (found, target) in all.into_iter().flatten().zip(targets) {
            assert!(found.reached, "{target}: {found:?}");
            assert!((found.kl - target).abs() < tolerance(target));
            let sign = if negative { -1.0 } else { 1.0 };
            let alphas = [sign * found.alpha];
            let again = last_logits(
                &model,
                &intervention,
                prompts,
                &alphas,
                Positions::All,
                &ctx,
            )
            .unwrap()
            .remove(0);
            assert!(
                (kl(&again[0], &again[1]) - found.kl).abs() < 0.1 * tolerance(target),
                "{found:?}"
            );
        }
    }
}

#[test]
#[ignore = "needs real weights: MLPEEK_TEST_MODEL names a GGUF file"]
fn strengths_that_are_searched_together_are_those_of_each_alone() {
    let model = open();
    let ctx = TaskCtx::silent();
    let prompts: Vec<Vec<u32>> = ["I think that", "The other day, she", "It"]
        .iter()
        .map(|text| model.tokenizer().encode(text, BosRule::Auto).unwrap())
        .collect();
    let intervention = Arc::new(
        Intervention::new(&request(&model, Strength::Alpha(0.0)).terms, Mode::Add).unwrap(),
    );
    let above = HookPoint {
        layer: hook(&model).layer + 3,
        site: HookSite::ResidPost,
    };
    let direction: Vec<f32> = (0..model.width(above).unwrap())
        .map(|i| if i % 5 == 0 { 1.0 } else { 0.0 })
        .collect();
    let other = Arc::new(
        Intervention::new(
            &[direction_term(&model, above, &direction, 1.0).unwrap()],
            Mode::Add,
        )
        .unwrap(),
    );
    let signed = [&intervention, &other].map(|intervention| {
        [false, true].map(|negative| SignedIntervention {
            intervention: intervention.clone(),
            negative,
        })
    });
    let signed = signed.concat();
    let targets = [0.1, 0.5];
    let together = calibrate(&model, &signed, &prompts, &targets, Positions::All, &ctx).unwrap();
    for (signed, found) in signed.iter().zip(together) {
        let alone = calibrate(
            &model,
            std::slice::from_ref(signed),
            &prompts,
            &targets,
            Positions::All,
            &ctx,
        )
        .unwrap();
        assert_eq!(alone, [found]);
    }
}

#[test]
#[ignore = "needs real weights: MLPEEK_TEST_MODEL names a GGUF file"]
fn baseline_and_steered_rows_have_the_same_draws() {
    let model = open();
    let ctx = TaskCtx::silent();
    // Draws that matter: a wide nucleus makes every sample another text.
    let sampling = Sampling {
        top_p: 1.0,
        max_tokens: 12,
        ..Sampling::default()
    };
    let still = SteerRequest {
        sampling,
        ..request(&model, Strength::Alpha(0.0))
    };
    let run = steer(&model, &still, &mut |_| {}, &ctx).unwrap();
    assert_eq!(run.baseline, run.steered, "α = 0 is the baseline");
    assert_ne!(run.baseline[0], run.baseline[1], "samples differ");

    let moved = SteerRequest {
        strength: Strength::Kl(0.5),
        negative: true,
        ..still
    };
    let mut events = Vec::new();
    let steered = steer(&model, &moved, &mut |e| events.push(e), &ctx).unwrap();
    assert_eq!(
        steered.baseline, run.baseline,
        "steering leaves the baseline rows alone"
    );
    assert_ne!(steered.steered, steered.baseline);
    assert!(
        steered.info.alpha < 0.0 && (steered.info.kl - 0.5).abs() < 0.01,
        "{:?}",
        steered.info
    );
    let (risen, fallen) = (&steered.info.risen, &steered.info.fallen);
    assert_eq!((risen.len(), fallen.len()), (10, 10));
    // Log-probabilities cannot all rise.
    assert!(
        risen[0].value > 0.0 && fallen[0].value < 0.0,
        "{risen:?} {fallen:?}"
    );
    assert_eq!(events[0], SteerEvent::Info(steered.info.clone()));
    let streamed: String = events
        .iter()
        .filter_map(|e| match e {
            SteerEvent::Text {
                sample: 1,
                steered: true,
                text,
            } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(streamed, steered.steered[1]);
}

#[test]
#[ignore = "needs real weights: MLPEEK_TEST_MODEL names a GGUF file"]
fn the_steered_hook_follows_the_configuration() {
    let model = open();
    let hook = hook(&model);
    let width = model.width(hook).unwrap();
    let mut one = vec![0.0; width];
    one[7] = 2.0;
    let fit = factors(columns(width, &[one]), 1, vec![0.0]);
    let term = feature_term(&model, hook, &fit, 0, 1.0).unwrap();
    if model.decoder().config().norms_mlp_output() {
        assert_eq!(term.hook.site, HookSite::MlpOut);
        assert_eq!(term.direction.len(), model.info().d_model);
    } else {
        assert_eq!((term.hook, term.direction[7]), (hook, 1.0));
    }
    let wrong = direction_term(&model, hook, &[1.0], 1.0).unwrap_err();
    assert_eq!(wrong.exit_code(), 2);
}

#[test]
#[ignore = "needs real weights: MLPEEK_TEST_MODEL names a GGUF file"]
fn a_direction_and_its_opposite_swap_what_they_promote() {
    let model = open();
    let forward = direction(&model);
    let back: Vec<f32> = forward.iter().map(|v| -3.0 * v).collect();
    let zeros = vec![0.0; forward.len()];
    let found = lens::promoted_tokens(&model, hook(&model), &[forward, back, zeros], 20).unwrap();
    // Root-mean-square norms are odd functions and forget the length.
    let ids =
        |tokens: &[crate::analysis::ScoredToken]| tokens.iter().map(|t| t.id).collect::<Vec<_>>();
    assert_eq!(ids(&found[0].0), ids(&found[1].1));
    assert_eq!(ids(&found[0].1), ids(&found[1].0));
    assert_eq!(found[0].0.len(), 20);
    assert!(found[0].0.windows(2).all(|w| w[0].value >= w[1].value));
    assert_eq!(found[2], (Vec::new(), Vec::new()));
}

#[test]
#[ignore = "needs real weights: MLPEEK_TEST_MODEL names a GGUF file"]
fn a_trace_covers_every_token_but_bos() {
    let model = open();
    let hook = hook(&model);
    let width = model.width(hook).unwrap();
    // Every neuron of one sign as a feature would explain all that is positive; a few explain a
    // little.
    let dense: Vec<Vec<f32>> = (0..32)
        .map(|j| {
            let mut column = vec![0.0; width];
            column[j * 37 % width] = if j % 2 == 0 { 1.0 } else { -1.0 };
            column
        })
        .collect();
    let fit = factors(columns(width, &dense), 1, vec![0.0; 32]);
    let encoder = Encoder::new(fit.features.clone());
    let encode = |rows: &Block<'_>, ctx: &TaskCtx| encoder.encode(rows, ctx);
    let ctx = TaskCtx::silent();
    let text = "The meeting is on Monday, not on Tuesday.";
    let trace = lens::trace(&model, hook, &encode, &fit, text, BosRule::Auto, &ctx).unwrap();
    let bare = model.tokenizer().encode(text, BosRule::Never).unwrap();
    assert_eq!(trace.tokens.len(), bare.len());
    assert_eq!(trace.unexplained.len(), bare.len());
    assert!(
        trace
            .unexplained
            .iter()
            .all(|&u| u > 0.0 && u <= 1.0 + 1e-6)
    );
    assert!(!trace.features.is_empty());
    let empty = lens::trace(&model, hook, &encode, &fit, "", BosRule::Auto, &ctx).unwrap();
    assert!(empty.tokens.is_empty() && empty.features.is_empty());
}
