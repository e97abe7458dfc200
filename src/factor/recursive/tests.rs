use proptest::prelude::*;
use rand::{Rng, SeedableRng};

use super::*;
use crate::factor::{Init, Solver};

/// Twelve features in six pairs that share all but one neuron, the pairs in three groups: the
/// levels to find.
fn nested() -> SparseColumns {
    let d = 60;
    let mut out = SparseColumns {
        rows: d,
        offsets: vec![0],
        ..SparseColumns::default()
    };
    for f in 0..12u32 {
        let (pair, group) = (f / 2, f / 4);
        let mut entries = [
            (group, 0.5f32),
            (10 + pair * 2, 0.6),
            (11 + pair * 2, 0.6),
            (40 + f, 0.17),
        ];
        entries.sort_by_key(|e| e.0);
        let norm = entries.iter().map(|e| e.1 * e.1).sum::<f32>().sqrt();
        out.indices.extend(entries.iter().map(|e| e.0));
        out.values.extend(entries.iter().map(|e| e.1 / norm));
        out.offsets.push(out.indices.len());
    }
    out
}

fn config() -> FitConfig {
    FitConfig {
        features: 12,
        sparsity: Some(4.0 / 60.0),
        l1: 0.0,
        ..FitConfig::default()
    }
}

/// The relative error of the paper's updates in plain f64, the best of several random starts.
fn plain(z: &SparseColumns, k: usize, keep: usize) -> f64 {
    let (n, d) = (z.columns(), z.rows);
    let a: Vec<Vec<f64>> = (0..n)
        .map(|j| z.dense_column(j).into_iter().map(f64::from).collect())
        .collect();
    let square: f64 = a.iter().flatten().map(|v| v * v).sum();
    (0..8)
        .map(|seed| plain_from(&a, (n, d, k), keep, seed) / square)
        .fold(f64::INFINITY, f64::min)
}

fn plain_from(a: &[Vec<f64>], (n, d, k): (usize, usize, usize), keep: usize, seed: u64) -> f64 {
    let mut rng = rand_pcg::Pcg64::seed_from_u64(seed);
    let mut y: Vec<Vec<f64>> = (0..n)
        .map(|_| (0..k).map(|_| rng.random::<f64>() + 0.01).collect())
        .collect();
    let mut best = f64::INFINITY;
    for _ in 0..300 {
        // Z ← Aᵀ Y (YᵀY + εI)⁻¹ by Gauss–Jordan, then the `keep` largest of each column.
        let gram = |i: usize, j: usize| (0..n).map(|r| y[r][i] * y[r][j]).sum::<f64>();
        let mut system: Vec<Vec<f64>> = (0..k)
            .map(|i| {
                let mut line: Vec<f64> = (0..k)
                    .map(|j| gram(i, j) + if i == j { 1e-6 } else { 0.0 })
                    .collect();
                line.extend((0..d).map(|c| (0..n).map(|r| y[r][i] * a[r][c]).sum::<f64>()));
                line
            })
            .collect();
        for i in 0..k {
            let pivot = (i..k)
                .max_by(|&p, &q| system[p][i].abs().total_cmp(&system[q][i].abs()))
                .unwrap();
            system.swap(i, pivot);
            let scale = system[i][i];
            system[i].iter_mut().for_each(|v| *v /= scale);
            let line = system[i].clone();
            for (_, other) in system.iter_mut().enumerate().filter(|(r, _)| *r != i) {
                let factor = other[i];
                other
                    .iter_mut()
                    .zip(&line)
                    .for_each(|(o, l)| *o -= factor * l);
            }
        }
        let mut z: Vec<Vec<f64>> = system.iter().map(|line| line[k..].to_vec()).collect();
        for column in &mut z {
            let mut sizes: Vec<f64> = column.iter().map(|v| v.abs()).collect();
            sizes.sort_by(|a, b| b.total_cmp(a));
            let least = sizes[keep - 1];
            column
                .iter_mut()
                .filter(|v| v.abs() < least)
                .for_each(|v| *v = 0.0);
        }
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| a * b).sum::<f64>();
        for (row, line) in a.iter().zip(&mut y) {
            let old = line.clone();
            for j in 0..k {
                let p = dot(row, &z[j]);
                let (mut up, mut down) = (p.max(0.0), (-p).max(0.0) + 1e-6);
                for i in 0..k {
                    let q = dot(&z[i], &z[j]);
                    up += old[i] * (-q).max(0.0);
                    down += old[i] * q.max(0.0);
                }
                line[j] = old[j] * (up / down).sqrt();
            }
        }
        let error = a.iter().zip(&y).map(|(row, y)| {
            (0..d)
                .map(|c| (row[c] - (0..k).map(|j| y[j] * z[j][c]).sum::<f64>()).powi(2))
                .sum::<f64>()
        });
        best = best.min(error.sum());
    }
    best
}

#[test]
fn levels_are_no_worse_than_the_plain_formulas_and_find_the_groups() {
    let z = nested();
    let found = levels(&z, &[6, 3], Growth::Fixed, &config(), &TaskCtx::silent()).unwrap();
    let reference = plain(&z, 6, 4);
    assert!(
        found[0].relative_error <= reference + 1e-4,
        "{} against {reference}",
        found[0].relative_error
    );
    // Every pair is one coarser feature.
    let mut pairs: Vec<Vec<usize>> = (0..6)
        .map(|j| {
            let mut ids: Vec<usize> = found[0]
                .children(j, ChildRule::default())
                .into_iter()
                .map(|(i, _)| i)
                .collect();
            ids.sort_unstable();
            ids
        })
        .collect();
    pairs.sort();
    assert_eq!(
        pairs,
        (0..6).map(|p| vec![2 * p, 2 * p + 1]).collect::<Vec<_>>()
    );
    // With room for it, a level of three holds the groups.
    let grown = levels(&z, &[6, 3], Growth::Growing, &config(), &TaskCtx::silent()).unwrap();
    assert!((grown[1].sparsity - 16.0 / 60.0).abs() < 1e-12);
    assert!(grown[1].relative_error <= found[1].relative_error);
    let mut groups: Vec<Vec<usize>> = (0..3)
        .map(|j| {
            let column = weights(&grown, 1, j);
            let largest = column.iter().copied().fold(0.0, f32::max);
            (0..12)
                .filter(|&i| column[i] >= MIN_CHILD_SHARE * largest)
                .collect()
        })
        .collect();
    groups.sort();
    assert_eq!(
        groups,
        (0..3)
            .map(|g| (4 * g..4 * g + 4).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    );
}

#[test]
fn the_error_told_is_that_of_the_residual() {
    let z = nested();
    for level in levels(&z, &[5], Growth::Growing, &config(), &TaskCtx::silent()).unwrap() {
        let (mut error, mut square) = (0f64, 0f64);
        for i in 0..12 {
            let mut left: Vec<f64> = z.dense_column(i).into_iter().map(f64::from).collect();
            square += left.iter().map(|v| v * v).sum::<f64>();
            for j in 0..5 {
                let y = f64::from(level.column(j)[i]);
                left.iter_mut()
                    .zip(level.features.dense_column(j))
                    .for_each(|(l, v)| *l -= y * f64::from(v));
            }
            error += left.iter().map(|v| v * v).sum::<f64>();
        }
        assert!((level.relative_error - error / square).abs() < 1e-6);
        assert!(level.coefficients.iter().all(|&y| y >= 0.0));
    }
}

#[test]
fn levels_that_do_not_shrink_are_refused() {
    for counts in [&[12][..], &[0], &[6, 6], &[3, 6]] {
        let refused = levels(
            &nested(),
            counts,
            Growth::Fixed,
            &config(),
            &TaskCtx::silent(),
        );
        assert!(matches!(refused, Err(Error::Usage(_))), "{counts:?}");
    }
    let multiplicative = FitConfig {
        solver: Solver::Mu,
        init: Init::Random,
        ..config()
    };
    assert_eq!(
        levels(
            &nested(),
            &[3],
            Growth::Fixed,
            &multiplicative,
            &TaskCtx::silent()
        )
        .unwrap()
        .len(),
        1
    );
    assert!(
        levels(&nested(), &[], Growth::Fixed, &config(), &TaskCtx::silent())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn default_levels_halve_what_is_there() {
    assert_eq!(default_levels(400), [200, 100, 50]);
    assert_eq!(default_levels(5), [2]);
    assert!(default_levels(1).is_empty());
}

proptest! {
    #[test]
    fn weights_are_the_plain_product(
        y2 in proptest::collection::vec(0u8..5, 5 * 3), y3 in proptest::collection::vec(0u8..5, 3 * 2)
    ) {
        let level = |y: &[u8], k: usize| Level {
            features: SparseColumns { rows: 1, offsets: vec![0; k + 1], ..SparseColumns::default() },
            coefficients: y.iter().map(|&v| f32::from(v) * 0.5).collect(),
            sparsity: 1.0,
            relative_error: 0.0,
        };
        let both = [level(&y2, 3), level(&y3, 2)];
        for j in 0..2 {
            let plain: Vec<f32> = (0..5)
                .map(|i| (0..3).map(|m| f32::from(y2[m * 5 + i]) * f32::from(y3[j * 3 + m]) * 0.25).sum())
                .collect();
            prop_assert_eq!(weights(&both, 1, j), plain);
            let kept = both[1].children(j, ChildRule::default());
            let largest = both[1].column(j).iter().copied().fold(0.0, f32::max);
            // The paper's concept trees: up to four children, from 0.15 of the largest coefficient on.
            let papers = both[1].children(j, ChildRule { most: 4, share: 0.15 });
            let large = both[1].column(j).iter().filter(|&&v| v > 0.0 && v / largest >= 0.15);
            prop_assert_eq!(papers.len(), large.count().min(4));
            prop_assert!(papers.starts_with(&kept[..kept.len().min(papers.len())]));
            prop_assert!(kept.len() <= MAX_CHILDREN);
            prop_assert!(kept.iter().all(|&(i, s)| both[1].column(j)[i] >= MIN_CHILD_SHARE * largest && s <= 1.0));
            prop_assert_eq!(kept.is_empty(), largest == 0.0);
        }
    }
}
