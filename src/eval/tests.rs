//! The whole way, on a corpus with planted concepts.

use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::bootstrap::Verdict;
use super::compared::{ContextOrder, Measure, MethodDifference};
use super::quality::{Quality, QualityConfig, quality};
use super::split::{Split, tests::table};
use super::sweep::{SweepConfig, grid, sweep};
use crate::activations::InMemory;
use crate::corpus::TokenTable;
use crate::error::Error;
use crate::factor::FitConfig;
use crate::task::TaskCtx;

const LABELS: u32 = 6;
const ROWS: usize = 5;
const NEURONS: usize = 120;

fn concept(label: usize) -> Range<usize> {
    6 * label..6 * label + 4
}

/// 12 sentences a label; two of a sentence's rows carry its label's pattern (four neurons, signs
/// mixed) at varying strength, every row some of a pattern that all share, and noise.
fn planted() -> (Vec<f32>, TokenTable) {
    let samples: Vec<_> = (0..12 * LABELS).map(|i| (ROWS, Some(i % LABELS))).collect();
    let mut rng = Pcg64::seed_from_u64(11);
    let mut data = Vec::new();
    for sentence in 0..samples.len() {
        for row in 0..ROWS {
            let mut line: Vec<f32> = (0..NEURONS).map(|_| rng.random_range(-0.3..0.3)).collect();
            let shared = rng.random_range(0.2..1.0);
            (36..40).for_each(|i| line[i] += shared);
            if row % 3 == 1 {
                let strength = rng.random_range(0.8..1.6);
                for i in concept(sentence % LABELS as usize) {
                    line[i] += if i % 2 == 0 { strength } else { -strength };
                }
            }
            data.extend(line);
        }
    }
    (data, table(&samples))
}

fn config() -> QualityConfig {
    let fit = FitConfig {
        features: 9,
        sparsity: Some(0.04),
        l1: 0.1,
        seed: 3,
        ..FitConfig::plain()
    };
    QualityConfig {
        fits: vec![fit],
        resamples: 1000,
        ..QualityConfig::default()
    }
}

fn run(data: &[f32], tokens: &TokenTable, threads: usize) -> Quality {
    let source = InMemory::new(tokens.rows.len(), NEURONS, data.to_vec());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    let mut found = pool
        .install(|| {
            quality(&source, tokens, &config(), &TaskCtx::silent(), &mut |_| {
                Ok(())
            })
        })
        .unwrap();
    found.methods.iter_mut().for_each(|m| m.seconds = 0.0);
    found
}

fn verdict(found: &Quality, against: &str) -> Verdict {
    of(found, Measure::Auroc, against).difference.verdict
}

fn of<'a>(found: &'a Quality, measure: Measure, against: &str) -> &'a MethodDifference {
    found
        .differences
        .iter()
        .find(|d| d.measure == measure && d.against.starts_with(against))
        .unwrap()
}

#[test]
fn planted_concepts_are_found_on_sentences_that_the_fit_never_saw() {
    let (data, tokens) = planted();
    let found = run(&data, &tokens, 2);
    let fit = &found.methods[0];
    let detection = fit.detection.as_ref().unwrap();
    assert!(detection.auroc > 0.97, "{detection:?}");
    // One seed of three may end with two concepts in one feature.
    assert!(
        detection.labels.len() == 6 && detection.above_0 > 0.9,
        "{detection:?}"
    );
    assert!(
        fit.held_out_error.unwrap() < 0.8 && fit.relative_error.unwrap() < 0.8,
        "{fit:?}"
    );
    assert!(
        fit.stability.unwrap().found_again > 0.6,
        "{:?}",
        fit.stability
    );
    // 25 contexts of a feature that only 10 training sentences express.
    assert!(fit.coefficient_contexts.unwrap().label.unwrap() > 0.3);
    assert_eq!(verdict(&found, "random"), Verdict::Higher);
    assert_eq!(verdict(&found, "DiffMean, dense"), Verdict::NoDifference);
    // A random direction's contexts are any sentences: six labels, 25 contexts.
    let purity = of(&found, Measure::LabelPurity, "random");
    assert_eq!(
        (purity.difference.verdict, purity.by),
        (Verdict::Higher, Some(ContextOrder::Cosines))
    );
    assert_eq!(of(&found, Measure::SCd, "random").by, None);
    for (measure, mean) in [
        (Measure::Auroc, detection.auroc),
        (
            Measure::LabelPurity,
            fit.coefficient_contexts.unwrap().label.unwrap(),
        ),
        (
            Measure::TokenPurity,
            fit.coefficient_contexts.unwrap().token,
        ),
    ] {
        let found = found
            .intervals
            .iter()
            .find(|i| i.method == fit.name && i.measure == measure)
            .unwrap()
            .mean;
        // A mean over seeds of means over features, or over all of them: seeds may have features
        // without contexts.
        assert!(
            (found.mean - mean).abs() < 0.02 && found.low <= found.mean && found.mean <= found.high,
            "{found:?}"
        );
    }
    let shuffled = found.shuffled.unwrap();
    assert!(
        (shuffled.auroc - 0.5).abs() < 0.2 && shuffled.train_auroc > 0.55,
        "{shuffled:?}"
    );
}

#[test]
fn threads_do_not_change_a_number() {
    let (data, tokens) = planted();
    assert_eq!(run(&data, &tokens, 1), run(&data, &tokens, 3));
}

#[test]
fn nothing_held_out_reaches_a_fit_or_a_choice() {
    let (mut data, tokens) = planted();
    let before = run(&data, &tokens, 2);
    for rows in Split::new(&tokens, &config().holdout).unwrap().rows(true) {
        data[rows.start * NEURONS..rows.end * NEURONS].reverse();
    }
    let after = run(&data, &tokens, 2);
    for (a, b) in before.methods.iter().zip(&after.methods) {
        assert_eq!(
            (a.relative_error, a.contexts, a.stability),
            (b.relative_error, b.contexts, b.stability)
        );
        let (a, b) = (a.detection.as_ref().unwrap(), b.detection.as_ref().unwrap());
        assert_eq!(a.train_auroc, b.train_auroc);
        assert!(
            a.labels
                .iter()
                .zip(&b.labels)
                .all(|(a, b)| a.feature == b.feature)
        );
    }
    assert_ne!(
        before.methods[0].held_out_error,
        after.methods[0].held_out_error
    );
}

#[test]
fn a_corpus_without_labels_is_judged_by_what_is_left() {
    let (data, mut tokens) = planted();
    tokens.labels.clear();
    tokens.sample_labels.fill(None);
    let found = run(&data, &tokens, 2);
    assert!(found.methods[0].detection.is_none() && found.shuffled.is_none());
    assert!(
        !found.differences.is_empty()
            && found
                .differences
                .iter()
                .all(|d| d.measure == Measure::TokenPurity)
    );
    assert!(
        found
            .intervals
            .iter()
            .all(|i| i.measure == Measure::TokenPurity)
    );
    assert!(found.methods[0].held_out_error.is_some() && found.notes[0].contains("no two labels"));
    assert!(
        found
            .methods
            .iter()
            .all(|m| !m.name.starts_with("DiffMean"))
    );
}

#[test]
fn a_sweep_shows_that_more_features_explain_more_until_they_are_enough() {
    let (data, tokens) = planted();
    let source = InMemory::new(tokens.rows.len(), NEURONS, data);
    let base = FitConfig {
        seed: 3,
        ..FitConfig::plain()
    };
    let fits = grid(&base, &[1, 3, 7, 12], &[Some(0.04)], &[0.0], &[None]);
    for cold in [false, true] {
        let config = SweepConfig {
            fits: fits.clone(),
            seeds: 2,
            holdout: config().holdout,
            cold,
        };
        let mut seen = 0;
        let (division, rows) = sweep(&source, &tokens, &config, &TaskCtx::silent(), &mut |_| {
            seen += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!((seen, division.labels), (4, 6));
        let errors: Vec<f64> = rows.iter().map(|r| r.held_out_error.unwrap()).collect();
        assert!(
            errors[0] > errors[1] + 0.02 && errors[1] > errors[2] + 0.02,
            "{errors:?}"
        );
        assert!(
            errors[2] - errors[3] < 0.5 * (errors[1] - errors[2]),
            "seven patterns are there: {errors:?}"
        );
        assert!(
            rows.iter()
                .all(|r| r.stability.is_some() && r.auroc.is_some())
        );
        assert_eq!(
            rows.iter().map(|r| r.warm).collect::<Vec<_>>(),
            [false, !cold, !cold, !cold]
        );
    }
    // What cannot be fitted is refused before what can is.
    let config = SweepConfig {
        fits: grid(&base, &[1, 1_000_000], &[Some(0.04)], &[0.0], &[None]),
        seeds: 1,
        holdout: config().holdout,
        cold: true,
    };
    let mut seen = 0;
    let refused = sweep(&source, &tokens, &config, &TaskCtx::silent(), &mut |_| {
        seen += 1;
        Ok(())
    });
    assert!(matches!(refused, Err(Error::Usage(_))) && seen == 0);
}
