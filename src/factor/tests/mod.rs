//! The factoriser against plain references: the formulas in float64, brute force, planted features,
//! other numbers of threads, broken files.

mod changes;
mod checkpoint;
mod device;
mod encode;
mod hostile;
mod neurons;
mod objective;
mod scale;
mod scratch;
mod solvers;

use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64;

use super::*;
use crate::activations::{ActivationSource, InMemory};
use crate::task::TaskCtx;

fn noise(n: usize, d: usize, seed: u64) -> InMemory {
    let mut rng = Pcg64::seed_from_u64(seed);
    InMemory::new(
        n,
        d,
        (0..n * d)
            .map(|_| rng.sample::<f32, _>(StandardNormal))
            .collect(),
    )
}

/// Rows made of sparse signed features with sparse coefficients; returns the features too.
fn planted(n: usize, d: usize, k: usize, keep: usize, level: f32) -> (InMemory, Vec<Vec<f32>>) {
    let mut rng = Pcg64::seed_from_u64(11);
    let mut features = vec![vec![0.0f32; d]; k];
    for feature in &mut features {
        for i in rand::seq::index::sample(&mut rng, d, keep) {
            feature[i] = if rng.random() { 1.0 } else { -1.0 } / (keep as f32).sqrt();
        }
    }
    let mut data = vec![0.0f32; n * d];
    for row in data.chunks_exact_mut(d) {
        for j in rand::seq::index::sample(&mut rng, k, 3) {
            let c: f32 = rng.random_range(1.0..4.0);
            row.iter_mut()
                .zip(&features[j])
                .for_each(|(v, f)| *v += c * f);
        }
        row.iter_mut()
            .for_each(|v| *v += level * rng.sample::<f32, _>(StandardNormal));
    }
    (InMemory::new(n, d, data), features)
}

fn config(features: usize, solver: Solver) -> FitConfig {
    FitConfig {
        features,
        solver,
        sparsity: Some(0.2),
        threads: Some(2),
        ..FitConfig::plain()
    }
}

fn fit(
    source: &dyn ActivationSource,
    config: FitConfig,
    sweeps: usize,
) -> (Vec<f64>, std::sync::Arc<Factors>) {
    let ctx = TaskCtx::silent();
    let mut fit = Factoriser::start(source, config, &ctx).unwrap();
    let errors = (0..sweeps)
        .map(|_| fit.step(&ctx).unwrap().relative_error)
        .collect();
    (errors, fit.finish(&ctx).unwrap())
}

fn bits(factors: &Factors) -> (Vec<u32>, Vec<u32>, Vec<u32>, u64) {
    let z = factors
        .features
        .values
        .iter()
        .map(|v| v.to_bits())
        .collect();
    let y = factors
        .coefficients
        .as_slice()
        .iter()
        .map(|v| v.to_bits())
        .collect();
    (
        factors.features.indices.clone(),
        z,
        y,
        factors.relative_error.to_bits(),
    )
}

/// The first `count` rows.
fn first_rows(source: &InMemory, count: usize) -> InMemory {
    let d = source.shape().1;
    InMemory::new(count, d, source.rows(0..count).unwrap().data.to_vec())
}

/// Gaussian elimination with pivoting.
fn solve(matrix: &[Vec<f64>], mut b: Vec<f64>) -> Vec<f64> {
    let k = b.len();
    let mut m = matrix.to_vec();
    for c in 0..k {
        let pivot = (c..k)
            .max_by(|&p, &q| m[p][c].abs().total_cmp(&m[q][c].abs()))
            .unwrap();
        m.swap(c, pivot);
        b.swap(c, pivot);
        for r in c + 1..k {
            let f = m[r][c] / m[c][c];
            let top = m[c].clone();
            m[r].iter_mut().zip(&top).for_each(|(v, t)| *v -= f * t);
            b[r] -= f * b[c];
        }
    }
    for c in (0..k).rev() {
        b[c] = (b[c] - (c + 1..k).map(|l| m[c][l] * b[l]).sum::<f64>()) / m[c][c];
    }
    b
}
