use std::sync::Arc;

use rand::{Rng, SeedableRng};

use super::super::{Growth, levels};
use super::*;
use crate::activations::InMemory;
use crate::factor::{Factoriser, FitConfig};

const ROWS: usize = 60;
const WIDTH: usize = 24;

/// Sums of few sparse directions and noise, a fit of them, and two levels over it.
fn made(centre: bool) -> (InMemory, Arc<Factors>, Vec<Level>) {
    let mut rng = rand_pcg::Pcg64::seed_from_u64(3);
    let mut data = vec![0f32; ROWS * WIDTH];
    for row in data.chunks_exact_mut(WIDTH) {
        row.iter_mut()
            .for_each(|v| *v = rng.random::<f32>() * 0.2 + 0.1);
        let at = rng.random_range(0..WIDTH / 3) * 3;
        row[at..at + 3]
            .iter_mut()
            .for_each(|v| *v += 1.0 + rng.random::<f32>());
    }
    let source = InMemory::new(ROWS, WIDTH, data);
    let config = FitConfig {
        features: 8,
        sparsity: Some(0.2),
        centre,
        ..FitConfig::default()
    };
    let silent = TaskCtx::silent();
    let mut fit = Factoriser::start(&source, config.clone(), &silent).unwrap();
    while fit.step(&silent).unwrap().stop.is_none() {}
    let factors = fit.finish(&silent).unwrap();
    let found = levels(
        &factors.features,
        &[4, 2],
        Growth::Growing,
        &config,
        &silent,
    )
    .unwrap();
    (source, factors, found)
}

/// E_l by the formula, in f64: every product and the residual written out.
fn plain(source: &InMemory, fit: &Factors, depths: &[LevelState]) -> Vec<f64> {
    let k = fit.features.columns();
    let mut w: Vec<Vec<f64>> = (0..k)
        .map(|i| (0..k).map(|j| f64::from(i == j)).collect())
        .collect();
    let mut errors = Vec::new();
    for depth in depths {
        let finer = w.len();
        let line = |j: usize| {
            let y = |i: usize| f64::from(depth.y[j * finer + i]);
            (0..k)
                .map(|m| (0..finer).map(|i| y(i) * w[i][m]).sum())
                .collect()
        };
        w = (0..depth.z.columns()).map(line).collect();
        let (mut left, mut whole) = (0.0, 0.0);
        let z: Vec<Vec<f32>> = (0..w.len()).map(|j| depth.z.dense_column(j)).collect();
        for row in 0..ROWS {
            let y: Vec<f64> = w
                .iter()
                .map(|w| {
                    (0..k)
                        .map(|m| w[m] * f64::from(fit.coefficients.feature(m)[row]))
                        .sum()
                })
                .collect();
            for (c, &a) in source.rows(row..row + 1).unwrap().row(0).iter().enumerate() {
                let centre = fit.coding.centre.as_ref().map_or(0.0, |m| f64::from(m[c]));
                let fitted: f64 = y.iter().zip(&z).map(|(y, z)| y * f64::from(z[c])).sum();
                left += (f64::from(a) - centre - fitted).powi(2);
                whole += f64::from(a).powi(2);
            }
        }
        errors.push(left / whole);
    }
    errors
}

#[test]
fn tuning_together_leaves_less_of_the_activations_by_the_plain_formula() {
    for centre in [false, true] {
        let (source, fit, mut found) = made(centre);
        let plain_before = plain(&source, &fit, &level_states(&found));
        let told = tune(&fit, &source, &mut found, &TaskCtx::silent()).unwrap();
        let plain_after = plain(&source, &fit, &level_states(&found));
        for (l, (before, after)) in told.iter().enumerate() {
            assert!(
                (before - plain_before[l]).abs() < 1e-4 * before.max(1.0),
                "{before} told, {} is",
                plain_before[l]
            );
            assert!(
                (after - plain_after[l]).abs() < 1e-4 * after.max(1.0),
                "{after} told, {} is",
                plain_after[l]
            );
        }
        let sum = |errors: &[f64]| errors.iter().sum::<f64>();
        assert!(
            sum(&plain_after) < sum(&plain_before),
            "{plain_before:?} to {plain_after:?}"
        );
        for level in &found {
            assert!(level.coefficients.iter().all(|&y| y >= 0.0));
            for j in 0..level.features.columns() {
                assert!((squared_norm(level.features.column(j).1) - 1.0).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn the_gradient_is_that_of_the_plain_formula() {
    const STEP: f32 = 1e-2;
    let (source, fit, found) = made(true);
    let target = FitProducts::read(&fit, &source, &TaskCtx::silent()).unwrap();
    let mut depths = level_states(&found);
    let (gradients, _) = gradients(&mut depths, &target);
    // The error is a polynomial of degree four in any one number at most: the central difference is
    // nearly exact.
    let mut check = |l: usize, i: usize, of_y: bool| {
        let mut at = |by: f32| {
            let value = if of_y {
                &mut depths[l].y[i]
            } else {
                &mut depths[l].z.values[i]
            };
            *value += by;
            plain(&source, &fit, &depths).iter().sum::<f64>()
        };
        let difference = (at(STEP) - at(-2.0 * STEP)) / f64::from(2.0 * STEP);
        at(STEP);
        let gradient = if of_y {
            gradients[l].y[i]
        } else {
            gradients[l].z[i]
        };
        let gradient = f64::from(gradient) / target.k as f64;
        assert!(
            (gradient - difference).abs() < 1e-4 + 1e-2 * difference.abs(),
            "{l} {i} {of_y}: {gradient} {difference}"
        );
    };
    for l in 0..2 {
        (0..found[l].coefficients.len())
            .step_by(3)
            .for_each(|i| check(l, i, true));
        (0..found[l].features.values.len())
            .step_by(2)
            .for_each(|i| check(l, i, false));
    }
}

#[test]
fn activations_of_another_width_or_fewer_rows_are_refused() {
    let (_, fit, mut found) = made(false);
    for (rows, width) in [(ROWS - 1, WIDTH), (ROWS, WIDTH + 1)] {
        let other = InMemory::new(rows, width, vec![1.0; rows * width]);
        assert!(tune(&fit, &other, &mut found, &TaskCtx::silent()).is_err());
    }
}
