//! A device that is full in the middle of what asks the model: it is given less at once, and the
//! results are the same.

use super::*;
use crate::activations::Block;
use crate::directions::reconstruction::{Reconstruct, Reconstruction};
use crate::eval::recovered::{Windows, recovered};
use crate::eval::steering::perplexity::mean_nll;
use crate::factor::SparseColumns;
use crate::jobs::measured::{Choosing, LabelGradients};
use crate::model::decoder::full::with_room;
use crate::steering::calibrate::{SignedIntervention, calibrate};
use crate::steering::effects::EffectPass;
use crate::steering::{Intervention, Mode, Positions, SteerTerm};

/// What pushes one neuron.
fn term(neuron: usize) -> SteerTerm {
    let mut direction = vec![0.0; WIDTHS[0]];
    direction[neuron] = 1.0;
    SteerTerm {
        hook: HOOKS[0],
        direction,
        weight: 1.0,
    }
}

/// Two prompts of five tokens.
fn prompts() -> Vec<Vec<u32>> {
    vec![vec![256, 105, 110, 32, 77], vec![256, 97, 32, 98, 99]]
}

#[test]
fn a_search_for_a_kl_tries_fewer_strengths_at_once() {
    let lab = Laboratory::new();
    let signed = [3, 11, 40].map(|neuron| SignedIntervention {
        intervention: Arc::new(Intervention::new(&[term(neuron)], Mode::Add).unwrap()),
        negative: false,
    });
    let search = || {
        let ctx = TaskCtx::silent();
        let targets = [0.05, 0.2];
        calibrate(
            &lab.model,
            &signed,
            &prompts(),
            &targets,
            Positions::All,
            &ctx,
        )
    };
    let whole = search().unwrap();
    // A pass of both prompts without steering and at two strengths, or at one; of one prompt.
    for room in [30, 20, 19, 10] {
        assert_eq!(with_room(room, search).unwrap(), whole);
    }
    for room in [9, 4] {
        let error = with_room(room, search).unwrap_err();
        assert!(error.is_device_full(), "{error}");
    }
    let error = with_room(9, search).unwrap_err();
    assert!(error.to_string().contains("no more than 2 rows"), "{error}");
}

#[test]
fn effects_are_measured_of_fewer_directions_at_once() {
    let lab = Laboratory::new();
    let terms: Vec<SteerTerm> = [3, 11, 40, 50].map(term).to_vec();
    let measure = || {
        let ctx = TaskCtx::silent();
        let pass = EffectPass::new(&lab.model, &prompts(), &terms[..2], 0.1, &ctx)?;
        let pushes = pass.pushes(&terms)?;
        pass.measure(&terms, &pushes, &ctx)
    };
    let whole = measure().unwrap();
    assert!(whole.iter().any(Option::is_some));
    for room in [20, 10] {
        assert_eq!(with_room(room, measure).unwrap(), whole);
    }
    assert!(with_room(9, measure).unwrap_err().is_device_full());
}

#[test]
fn the_likelihood_of_texts_is_asked_of_fewer_at_once() {
    let lab = Laboratory::new();
    let new: Vec<Vec<u32>> = (0..7).map(|i| vec![100 + i; 4]).collect();
    let prompts = prompts();
    let rows: Vec<(&[u32], &[u32])> = new.iter().map(|n| (&prompts[0][..], &n[..])).collect();
    let ask = || mean_nll(&lab.model, &rows, &TaskCtx::silent());
    let whole = ask().unwrap();
    for room in [9, 20] {
        assert_eq!(with_room(room, ask).unwrap(), whole);
    }
    assert!(with_room(8, ask).unwrap_err().is_device_full());
}

/// Gives back half of each value.
struct Half;

impl Reconstruct for Half {
    fn shape(&self) -> (usize, usize) {
        (1, WIDTHS[0])
    }
    fn reconstruct(&self, block: &Block<'_>, _: &TaskCtx) -> Result<Reconstruction> {
        Ok(Reconstruction {
            codes: SparseColumns::default(),
            values: block.data.iter().map(|v| 0.5 * v).collect(),
        })
    }
}

#[test]
fn what_is_predicted_with_replaced_activations_is_asked_of_fewer_tokens_at_once() {
    let lab = Laboratory::new();
    let tokens = lab.study.tokens().unwrap();
    let windows = Windows::of(&tokens, Some(256), 256, 400);
    let ask = || recovered(&lab.model, HOOKS[0], &[&Half], &windows, &TaskCtx::silent());
    let whole = &ask().unwrap()[0];
    let longest = tokens.rows.iter().map(|r| r.position as usize + 1).max();
    let longest = longest.unwrap();
    let made = &with_room(longest, ask).unwrap()[0];
    assert_eq!(made.predictions, whole.predictions);
    for (a, b) in [
        (made.ce_original, whole.ce_original),
        (made.ce_reconstructed, whole.ce_reconstructed),
        (made.ce_zero, whole.ce_zero),
        (made.kl_reconstructed, whole.kl_reconstructed),
        (made.kl_zero, whole.kl_zero),
    ] {
        // Sums of other batches have another order.
        assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{a} {b}");
    }
    assert!(with_room(1, ask).unwrap_err().is_device_full());
}

#[test]
fn gradients_are_asked_of_fewer_sentences_at_once() {
    // What was asked is kept in the study: each asks for itself.
    let ask = |room: usize| {
        let lab = Laboratory::new();
        let choosing = Choosing::whole(&lab.study.tokens().unwrap());
        let model = Some(&lab.model);
        let ctx = TaskCtx::silent();
        with_room(room, || {
            LabelGradients::of(&lab.study, HOOKS[0], &choosing, model, &ctx)
        })
    };
    let whole = ask(usize::MAX).unwrap();
    let made = ask(64).unwrap();
    for (a, b) in made.residual.iter().zip(&whole.residual) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    assert!(whole.residual.iter().flatten().any(|v| v.abs() > 0.1));
    assert!(ask(2).unwrap_err().is_device_full());
}
