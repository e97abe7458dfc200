//! Both solvers against their formulas; initialisation, threads, cancelling.

use super::*;
use crate::activations::Block;
use crate::error::Error;
use crate::task::CancelToken;

/// The paper's iteration in float64, written out, on A scaled to unit root mean square, from
/// coefficients `y` (n × k, row-major); returns the squared errors in the units of A.
fn reference_updates(
    a: &InMemory,
    mut y: Vec<f64>,
    k: usize,
    keep: usize,
    iterations: usize,
) -> Vec<f64> {
    let (n, d) = a.shape();
    let block = a.rows(0..n).unwrap();
    let square: f64 = block.data.iter().map(|&v| f64::from(v).powi(2)).sum();
    let rms = (square / (n * d) as f64).sqrt();
    let a = |i: usize, c: usize| f64::from(block.data[i * d + c]) / rms;
    let mut losses = Vec::new();
    for _ in 0..iterations {
        let mut gram: Vec<Vec<f64>> = (0..k)
            .map(|j| {
                (0..k)
                    .map(|l| (0..n).map(|i| y[i * k + j] * y[i * k + l]).sum())
                    .collect()
            })
            .collect();
        let norms: Vec<f64> = (0..k).map(|j| gram[j][j].sqrt()).collect();
        for (j, row) in gram.iter_mut().enumerate() {
            row[j] += 1e-6;
        }
        let mut z: Vec<Vec<f64>> = (0..d)
            .map(|c| {
                solve(
                    &gram,
                    (0..k)
                        .map(|j| (0..n).map(|i| a(i, c) * y[i * k + j]).sum())
                        .collect(),
                )
            })
            .collect();
        for j in 0..k {
            let mut sizes: Vec<f64> = z.iter().map(|row| row[j].abs()).collect();
            sizes.sort_by(|p, q| q.total_cmp(p));
            for row in &mut z {
                row[j] = if row[j].abs() >= sizes[keep - 1] {
                    row[j] * norms[j]
                } else {
                    0.0
                };
            }
        }
        y.chunks_exact_mut(k)
            .for_each(|row| row.iter_mut().zip(&norms).for_each(|(v, s)| *v /= s));
        let q = |j: usize, l: usize| z.iter().map(|row| row[j] * row[l]).sum::<f64>();
        let gram_z: Vec<Vec<f64>> = (0..k).map(|j| (0..k).map(|l| q(j, l)).collect()).collect();
        let before = y.clone();
        for i in 0..n {
            for j in 0..k {
                let p: f64 = (0..d).map(|c| a(i, c) * z[c][j]).sum();
                let side = |sign: f64| {
                    (0..k)
                        .map(|l| before[i * k + l] * (sign * gram_z[l][j]).max(0.0))
                        .sum::<f64>()
                };
                y[i * k + j] *=
                    ((p.max(0.0) + side(-1.0)) / ((-p).max(0.0) + side(1.0) + 1e-6)).sqrt();
            }
        }
        let fitted = |i: usize, c: usize| (0..k).map(|j| y[i * k + j] * z[c][j]).sum::<f64>();
        let loss: f64 = (0..n)
            .map(|i| {
                (0..d)
                    .map(|c| (a(i, c) - fitted(i, c)).powi(2))
                    .sum::<f64>()
            })
            .sum();
        losses.push(loss * rms * rms);
    }
    losses
}

#[test]
fn multiplicative_updates_follow_the_formulas() {
    let (source, _) = planted(90, 24, 6, 5, 0.3);
    // The values are so small that an unscaled ε would dominate.
    let data = source
        .rows(0..90)
        .unwrap()
        .data
        .iter()
        .map(|v| v * 1e-4)
        .collect();
    let source = InMemory::new(90, 24, data);
    let (n, d) = source.shape();
    for init in [Init::Random, Init::Kmeans, Init::Svd] {
        let config = FitConfig {
            init,
            ..config(5, Solver::Mu)
        };
        let ctx = TaskCtx::silent();
        let start = Factoriser::start(&source, config.clone(), &ctx)
            .unwrap()
            .snapshot()
            .unwrap();
        let y = (0..n * 5)
            .map(|i| f64::from(start.coefficients.feature(i % 5)[i / 5]))
            .collect();
        let want = reference_updates(&source, y, 5, (0.2 * d as f64).ceil() as usize, 8);
        let (computed, _) = fit(&source, config, 8);
        let block = source.rows(0..n).unwrap();
        let square: f64 = block.data.iter().map(|&v| f64::from(v).powi(2)).sum();
        for (i, (computed, want)) in computed.iter().zip(&want).enumerate() {
            let want = want / square;
            assert!(
                (computed - want).abs() < 2e-4 * want,
                "{init:?} iteration {i}: {computed} against {want}"
            );
        }
    }
}

#[test]
fn a_bcd_sweep_never_raises_the_error() {
    for (init, sparsity, k) in [
        (Init::Kmeans, 0.05, 12),
        (Init::Random, 0.2, 12),
        (Init::Svd, 1.0, 12),
        (Init::Kmeans, 0.1, 60),
    ] {
        let (source, _) = planted(700, 40, 20, 4, 0.4);
        let config = FitConfig {
            init,
            sparsity: Some(sparsity),
            ..config(k, Solver::Bcd)
        };
        let (errors, factors) = fit(&source, config, 25);
        for pair in errors.windows(2) {
            assert!(
                pair[1] <= pair[0] + 1e-7,
                "{init:?} p {sparsity} k {k}: {errors:?}"
            );
        }
        assert!(
            (factors.relative_error - errors[24]).abs() < 1e-5,
            "identity and residual differ"
        );
    }
}

#[test]
fn a_penalised_sweep_never_raises_the_objective_and_makes_coefficients_sparse() {
    let (source, _) = planted(700, 40, 20, 4, 0.4);
    let density = |l1: f64| {
        let ctx = TaskCtx::silent();
        let mut fit = Factoriser::start(
            &source,
            FitConfig {
                l1,
                ..config(16, Solver::Bcd)
            },
            &ctx,
        )
        .unwrap();
        let mut last = f64::INFINITY;
        for _ in 0..20 {
            fit.step(&ctx).unwrap();
            let now = fit.objective();
            assert!(now <= last * (1.0 + 1e-6), "{now} after {last}");
            last = now;
        }
        let y = fit.snapshot().unwrap();
        y.coefficients
            .as_slice()
            .iter()
            .filter(|v| **v > 0.0)
            .count()
    };
    assert!(density(0.2) < density(0.0) * 7 / 10);
}

#[test]
fn planted_features_are_found() {
    let (source, truth) = planted(1500, 64, 10, 4, 0.05);
    // Without a penalty spare features share a planted one between them; with it they do not.
    let config = FitConfig {
        sparsity: Some(4.0 / 64.0),
        l1: 0.05,
        ..config(14, Solver::Bcd)
    };
    let (_, factors) = fit(&source, config, 60);
    let found = truth.iter().filter(|feature| {
        (0..14).any(|j| {
            let column = factors.features.dense_column(j);
            column.iter().zip(*feature).map(|(a, b)| a * b).sum::<f32>() > 0.97
        })
    });
    assert_eq!(found.count(), 10);
    assert!(factors.relative_error < 0.1, "{}", factors.relative_error);
}

#[test]
fn threads_do_not_change_a_bit() {
    let (source, _) = planted(9000, 30, 20, 4, 0.5);
    for (solver, init, l1) in [
        (Solver::Bcd, Init::Kmeans, 0.0),
        (Solver::Bcd, Init::Svd, 0.1),
        (Solver::Mu, Init::Random, 0.0),
    ] {
        let run = |threads| {
            let config = FitConfig {
                init,
                l1,
                threads: Some(threads),
                ..config(9, solver)
            };
            bits(&fit(&source, config, 6).1)
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{solver:?} {init:?}");
    }
}

#[test]
fn the_best_so_far_is_what_is_shown() {
    // The multiplicative rule with truncation rises now and then; what is shown must not.
    let source = noise(200, 40, 9);
    let ctx = TaskCtx::silent();
    let config = FitConfig {
        sparsity: Some(0.05),
        init: Init::Random,
        ..config(12, Solver::Mu)
    };
    let mut fit = Factoriser::start(&source, config, &ctx).unwrap();
    let (mut best, mut rose) = (f64::INFINITY, false);
    for _ in 0..60 {
        let now = fit.step(&ctx).unwrap().relative_error;
        rose |= now > best;
        best = best.min(now);
        assert!((fit.snapshot().unwrap().relative_error - best).abs() < 1e-6);
    }
    assert!(rose, "the case does not test what it should");
    let finished = fit.finish(&ctx).unwrap();
    assert!((finished.relative_error - best).abs() < 1e-5);
}

/// Cancels after a number of blocks.
struct Cancelling<'a> {
    inner: &'a InMemory,
    token: CancelToken,
    left: std::sync::atomic::AtomicIsize,
}

impl ActivationSource for Cancelling<'_> {
    fn shape(&self) -> (usize, usize) {
        self.inner.shape()
    }

    fn rows(&self, range: std::ops::Range<usize>) -> crate::Result<Block<'_>> {
        if self.left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            self.token.cancel();
        }
        self.inner.rows(range)
    }
}

#[test]
fn a_cancelled_sweep_changes_nothing() {
    let (inner, _) = planted(9000, 30, 20, 4, 0.5);
    let token = CancelToken::default();
    let left = std::sync::atomic::AtomicIsize::new(isize::MAX);
    let source = Cancelling {
        inner: &inner,
        token: token.clone(),
        left,
    };
    let ctx = TaskCtx::silent();
    for solver in [Solver::Bcd, Solver::Mu] {
        let mut fit = Factoriser::start(&source, config(9, solver), &ctx).unwrap();
        fit.step(&ctx).unwrap();
        let before = bits(&fit.snapshot().unwrap());
        source.left.store(1, std::sync::atomic::Ordering::Relaxed);
        let cancelled = CancelToken::default();
        let watched = TaskCtx::new(token.clone(), |_| {});
        assert!(matches!(fit.step(&watched), Err(Error::Cancelled)));
        drop(cancelled);
        assert_eq!(before, bits(&fit.snapshot().unwrap()));
        let mut fresh = Factoriser::start(&inner, config(9, solver), &ctx).unwrap();
        fresh.step(&ctx).unwrap();
        let (a, b) = (fit.step(&ctx).unwrap(), fresh.step(&ctx).unwrap());
        assert_eq!(a.relative_error.to_bits(), b.relative_error.to_bits());
    }
}

/// A source that hands out converted copies, as a half precision cache does.
struct Converting(InMemory);

impl ActivationSource for Converting {
    fn shape(&self) -> (usize, usize) {
        self.0.shape()
    }

    fn rows(&self, range: std::ops::Range<usize>) -> crate::Result<Block<'_>> {
        let block = self.0.rows(range)?;
        Ok(Block {
            data: block.data.into_owned().into(),
            ..block
        })
    }
}

#[test]
fn a_converting_source_gives_the_same_bits() {
    let (source, _) = planted(9000, 30, 20, 4, 0.5);
    let plain = bits(&fit(&source, config(9, Solver::Bcd), 5).1);
    assert!(plain == bits(&fit(&Converting(source), config(9, Solver::Bcd), 5).1));
}

#[test]
fn the_svd_start_finds_the_singular_pairs() {
    // Three orthogonal pairs, the left vectors of one sign on rows of their own.
    let (n, d) = (300, 20);
    let mut data = vec![0.0f32; n * d];
    for (j, sigma) in [9.0f32, 4.0, 1.0].into_iter().enumerate() {
        for r in 0..100 {
            for c in 0..5 {
                // u = 1/10 on a hundred rows, v = ±1/√5 on five neurons.
                let v = if (c + j) % 2 == 0 { 1.0 } else { -1.0 } / 5f32.sqrt();
                data[(j * 100 + r) * d + j * 5 + c] = sigma * 0.1 * v;
            }
        }
    }
    let square: f64 = data.iter().map(|&v| f64::from(v).powi(2)).sum();
    let rms = (square / (n * d) as f64).sqrt() as f32;
    let source = InMemory::new(n, d, data);
    let config = FitConfig {
        init: Init::Svd,
        ..config(3, Solver::Bcd)
    };
    let start = Factoriser::start(&source, config, &TaskCtx::silent())
        .unwrap()
        .snapshot()
        .unwrap();
    for (j, sigma) in [9.0f32, 4.0, 1.0].into_iter().enumerate() {
        for (r, &y) in start.coefficients.feature(j).iter().enumerate() {
            let want = if r / 100 == j {
                0.1 * (sigma / rms).sqrt()
            } else {
                0.0
            };
            assert!(
                (y - want).abs() < 1e-3 * (sigma / rms).sqrt(),
                "pair {j} row {r}: {y} against {want}"
            );
        }
    }
}

#[test]
fn wide_rows_are_fitted_with_a_thousandth_of_the_neurons() {
    // ⌈0.001 · 5001⌉ = 6 entries a feature; the width is no multiple of anything.
    let (source, planted) = planted(333, 5001, 6, 6, 0.01);
    let fits = [1, 2].map(|threads| {
        let config = FitConfig {
            sparsity: Some(0.001),
            threads: Some(threads),
            ..config(6, Solver::Bcd)
        };
        fit(&source, config, 40)
    });
    assert_eq!(bits(&fits[0].1), bits(&fits[1].1), "one thread and two");
    let (errors, factors) = &fits[0];
    // At the end they differ by rounding alone.
    assert!(errors.windows(2).all(|w| w[1] <= w[0] + 1e-6), "{errors:?}");
    assert!(
        (errors[39] - factors.relative_error).abs() < 1e-5,
        "{} against the residual",
        errors[39]
    );
    assert!(
        factors
            .features
            .offsets
            .windows(2)
            .all(|w| w[1] - w[0] == 6)
    );
    let found = |truth: &Vec<f32>| {
        (0..6).any(|j| {
            let column = factors.features.dense_column(j);
            column
                .iter()
                .zip(truth)
                .map(|(a, b)| a * b)
                .sum::<f32>()
                .abs()
                > 0.95
        })
    };
    assert!(
        planted.iter().filter(|truth| found(truth)).count() >= 4,
        "planted features"
    );
}
