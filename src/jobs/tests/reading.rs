//! Cards, traces, levels, raw tensors and the model's own test.

use super::*;
use crate::analysis::contexts;
use crate::factor::encode::Encoder;
use crate::factor::recursive::Growth;
use crate::jobs::forward::forward;
use crate::jobs::levels::{LevelsFit, LevelsRequest, levels};
use crate::jobs::reading::{LIST_PROMOTED, Reader, add_lens, card_lens, promoted, trace};
use crate::jobs::self_test;

#[test]
fn a_list_promotes_what_a_card_does_and_a_card_is_whole_without_a_model() {
    let lab = Laboratory::new();
    let factors = lab.fit("k4", &small());
    let (model, hook) = (&lab.model, HOOKS[0]);
    let listed = promoted(model, hook, &factors, 0..4).unwrap();
    assert_eq!(listed.len(), 4);
    for (id, tokens) in listed.iter().enumerate() {
        let column = factors.features.dense_column(id);
        let (up, down) = card_lens(model, hook, column).unwrap();
        assert_eq!(tokens[..], up[..LIST_PROMOTED], "feature {id}");
        assert!(up.is_sorted_by(|a, b| a.value >= b.value));
        assert!(down[0].value < up[0].value);
    }
    let tokens = lab.study.tokens().unwrap();
    let notes = lab.study.notes("k4").unwrap();
    let card = || contexts::feature_card(&factors, &tokens, &notes, 2).unwrap();
    let mut with = card();
    add_lens(&mut with, hook, &factors, Ok(model));
    assert_eq!(with.row.promoted, listed[2]);
    let mut without = card();
    add_lens(&mut without, hook, &factors, Err("no model".to_owned()));
    assert_eq!(without.lens_note.as_deref(), Some("no model"));
    assert_eq!(without.contexts, with.contexts);
}

#[test]
fn a_text_of_the_corpus_is_traced_by_the_coefficients_of_its_rows() {
    let lab = Laboratory::new();
    let factors = lab.fit("k4", &small());
    let reader = Reader::Fit(Arc::new(Encoder::from_factors(&factors)));
    let text = "blue river";
    let ctx = TaskCtx::silent();
    let found = trace(
        &lab.model,
        HOOKS[0],
        &reader,
        &factors,
        text,
        BosRule::Auto,
        &ctx,
    )
    .unwrap();
    // A token a byte.
    assert_eq!(found.tokens.concat(), text);
    assert_eq!(found.unexplained.len(), text.len());
    assert!(found.unexplained.iter().all(|u| (0.0..=1.0001).contains(u)));
    for feature in &found.features {
        assert_eq!(feature.values.len(), text.len());
        assert!(feature.values.iter().all(|&v| v >= 0.0));
        assert!(
            feature.values.iter().any(|&v| v > 0.0),
            "it fires somewhere"
        );
    }
}

#[test]
fn the_tensors_of_a_text_are_what_was_collected_of_it() {
    let lab = Laboratory::new();
    let tokens = lab.study.tokens().unwrap();
    let corpus = Corpus::open(&lab.path("corpus.json")).unwrap();
    let text = &corpus.samples[0].text;
    let ids = lab.model.tokenizer().encode(text, BosRule::Auto).unwrap();
    let hooks = [HOOKS[1], HOOKS[0], HOOKS[1]];
    let ctx = TaskCtx::silent();
    let found = forward(lab.model.decoder(), &ids, &hooks, &ctx).unwrap();
    let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    let (first, second) = (HOOKS[0].to_string(), HOOKS[1].to_string());
    assert_eq!(names, [&first, &second, "logits"]);
    assert_eq!(found[2].1, [ids.len(), 258]);
    let rows = tokens.rows.iter().filter(|row| row.sample == 0).count();
    for (at, hook) in HOOKS.into_iter().enumerate() {
        let (collected, d) = lab.rows(hook);
        assert_eq!(found[at].1, [ids.len(), d]);
        // BOS is no row of a study.
        let skipped = (ids.len() - rows) * d;
        for (a, b) in found[at].2[skipped..].iter().zip(&collected) {
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{hook}: {a} {b}");
        }
    }
    let refused = forward(lab.model.decoder(), &[], &hooks, &ctx).unwrap_err();
    assert!(refused.to_string().contains("no token to run"), "{refused}");
}

#[test]
fn every_level_has_the_features_that_were_asked_for() {
    let lab = Laboratory::new();
    let config = FitConfig {
        features: 8,
        ..small()
    };
    let factors = lab.fit("k8", &config);
    let tokens = lab.study.tokens().unwrap();
    let fit = LevelsFit {
        factors: &factors,
        config: &config,
        hook: HOOKS[0],
        tokens: &tokens,
        tune_on: None,
    };
    let ctx = TaskCtx::silent();
    let ask = |counts: &[usize]| {
        let request = LevelsRequest {
            counts: counts.to_vec(),
            growth: Growth::Growing,
            ..LevelsRequest::default()
        };
        levels(&fit, &request, Some(&lab.model), &ctx)
    };
    let found = ask(&[4, 2]).unwrap();
    let counts: Vec<usize> = found.levels.iter().map(|level| level.features).collect();
    assert_eq!(counts, [8, 4, 2]);
    assert_eq!(found.nodes.len(), 14);
    for node in &found.nodes {
        assert_eq!(node.children.len(), node.shares.len());
        assert!(node.children.iter().all(|&child| child < node.id));
        // The features of the fit have their own list.
        assert_eq!(node.promoted.is_empty(), node.level == 0);
    }
    assert_eq!(found, ask(&[4, 2]).unwrap());
    // The paper's concept trees have up to four children, from 0.15 of the largest coefficient on.
    let request = LevelsRequest {
        counts: vec![4, 2],
        children: crate::factor::recursive::ChildRule {
            most: 4,
            share: 0.15,
        },
        ..LevelsRequest::default()
    };
    let wider = levels(&fit, &request, Some(&lab.model), &ctx).unwrap();
    for (node, usual) in wider.nodes.iter().zip(&found.nodes) {
        assert!(node.children.len() <= 4 && node.shares.iter().all(|&s| s >= 0.15));
        assert!(node.children.starts_with(&usual.children), "{node:?}");
    }
    assert!(ask(&[9]).is_err(), "more than there are below");
}

#[test]
fn a_model_passes_its_own_test_and_one_of_no_language_is_not_sound() {
    let lab = Laboratory::new();
    let test = self_test::run(&lab.model, &TaskCtx::silent()).unwrap();
    assert!(test.is_text_back && test.is_finite, "{test:?}");
    // A token a byte: the paragraph is longer than this model can read, and is cut.
    assert!(test.text_tokens > test.tokens, "{test:?}");
    assert_eq!((test.tokens, test.logits), (256, 256 * 258));
    for difference in [test.cached, test.batched, test.generated] {
        assert!(difference.is_equal(), "{test:?}");
    }
    assert!(!test.is_sound(), "its weights are random: {test:?}");
}
