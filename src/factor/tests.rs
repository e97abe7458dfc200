//! The engine against plain references: a float64 loop of the formulas, brute force, planted features, other thread
//! counts, broken files.

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use rand_pcg::Pcg64;

use super::encode::Encoder;
use super::*;
use crate::activations::{ActivationSource, Block, InMemory};
use crate::error::Error;
use crate::task::{CancelToken, TaskCtx};

fn noise(n: usize, d: usize, seed: u64) -> InMemory {
    let mut rng = Pcg64::seed_from_u64(seed);
    InMemory::new(n, d, (0..n * d).map(|_| rng.sample::<f32, _>(StandardNormal)).collect())
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
            row.iter_mut().zip(&features[j]).for_each(|(v, f)| *v += c * f);
        }
        row.iter_mut().for_each(|v| *v += level * rng.sample::<f32, _>(StandardNormal));
    }
    (InMemory::new(n, d, data), features)
}

fn config(features: usize, solver: Solver) -> FitConfig {
    FitConfig { features, solver, sparsity: 0.2, l1: 0.0, threads: Some(2), ..FitConfig::default() }
}

fn fit(source: &dyn ActivationSource, config: FitConfig, sweeps: usize) -> (Vec<f64>, std::sync::Arc<Factors>) {
    let ctx = TaskCtx::silent();
    let mut fit = Factoriser::start(source, config, &ctx).unwrap();
    let errors = (0..sweeps).map(|_| fit.step(&ctx).unwrap().relative_error).collect();
    (errors, fit.finish(&ctx).unwrap())
}

fn bits(factors: &Factors) -> (Vec<u32>, Vec<u32>, Vec<u32>, u64) {
    let z = factors.features.values.iter().map(|v| v.to_bits()).collect();
    let y = factors.coefficients.as_slice().iter().map(|v| v.to_bits()).collect();
    (factors.features.indices.clone(), z, y, factors.relative_error.to_bits())
}

/// The paper's iteration in float64, written out, from coefficients `y` (n × k, row-major); returns its squared errors.
fn reference_updates(a: &InMemory, mut y: Vec<f64>, k: usize, keep: usize, iterations: usize) -> Vec<f64> {
    let (n, d) = a.shape();
    let block = a.rows(0..n).unwrap();
    let a = |i: usize, c: usize| f64::from(block.data[i * d + c]);
    let mut losses = Vec::new();
    for _ in 0..iterations {
        let mut gram: Vec<Vec<f64>> =
            (0..k).map(|j| (0..k).map(|l| (0..n).map(|i| y[i * k + j] * y[i * k + l]).sum()).collect()).collect();
        let norms: Vec<f64> = (0..k).map(|j| gram[j][j].sqrt()).collect();
        for (j, row) in gram.iter_mut().enumerate() {
            row[j] += 1e-6;
        }
        let mut z: Vec<Vec<f64>> = (0..d)
            .map(|c| solve(&gram, (0..k).map(|j| (0..n).map(|i| a(i, c) * y[i * k + j]).sum()).collect()))
            .collect();
        for j in 0..k {
            let mut sizes: Vec<f64> = z.iter().map(|row| row[j].abs()).collect();
            sizes.sort_by(|p, q| q.total_cmp(p));
            for row in &mut z {
                row[j] = if row[j].abs() >= sizes[keep - 1] { row[j] * norms[j] } else { 0.0 };
            }
        }
        y.chunks_exact_mut(k).for_each(|row| row.iter_mut().zip(&norms).for_each(|(v, s)| *v /= s));
        let q = |j: usize, l: usize| z.iter().map(|row| row[j] * row[l]).sum::<f64>();
        let gram_z: Vec<Vec<f64>> = (0..k).map(|j| (0..k).map(|l| q(j, l)).collect()).collect();
        let before = y.clone();
        for i in 0..n {
            for j in 0..k {
                let p: f64 = (0..d).map(|c| a(i, c) * z[c][j]).sum();
                let side = |sign: f64| (0..k).map(|l| before[i * k + l] * (sign * gram_z[l][j]).max(0.0)).sum::<f64>();
                y[i * k + j] *= ((p.max(0.0) + side(-1.0)) / ((-p).max(0.0) + side(1.0) + 1e-6)).sqrt();
            }
        }
        let fitted = |i: usize, c: usize| (0..k).map(|j| y[i * k + j] * z[c][j]).sum::<f64>();
        losses.push((0..n).map(|i| (0..d).map(|c| (a(i, c) - fitted(i, c)).powi(2)).sum::<f64>()).sum());
    }
    losses
}

/// Gaussian elimination with pivoting.
fn solve(matrix: &[Vec<f64>], mut b: Vec<f64>) -> Vec<f64> {
    let k = b.len();
    let mut m = matrix.to_vec();
    for c in 0..k {
        let pivot = (c..k).max_by(|&p, &q| m[p][c].abs().total_cmp(&m[q][c].abs())).unwrap();
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

#[test]
fn multiplicative_updates_follow_the_formulas() {
    let (source, _) = planted(90, 24, 6, 5, 0.3);
    let (n, d) = source.shape();
    for init in [Init::Random, Init::Kmeans, Init::Svd] {
        let config = FitConfig { init, ..config(5, Solver::Mu) };
        let ctx = TaskCtx::silent();
        let start = Factoriser::start(&source, config.clone(), &ctx).unwrap().snapshot();
        let y = (0..n * 5).map(|i| f64::from(start.coefficients.feature(i % 5)[i / 5])).collect();
        let want = reference_updates(&source, y, 5, (0.2 * d as f64).ceil() as usize, 8);
        let (got, _) = fit(&source, config, 8);
        let block = source.rows(0..n).unwrap();
        let square: f64 = block.data.iter().map(|&v| f64::from(v).powi(2)).sum();
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let want = want / square;
            assert!((got - want).abs() < 2e-4 * want, "{init:?} iteration {i}: {got} against {want}");
        }
    }
}

#[test]
fn a_bcd_sweep_never_raises_the_error() {
    for (init, sparsity, k) in
        [(Init::Kmeans, 0.05, 12), (Init::Random, 0.2, 12), (Init::Svd, 1.0, 12), (Init::Kmeans, 0.1, 60)]
    {
        let (source, _) = planted(700, 40, 20, 4, 0.4);
        let config = FitConfig { init, sparsity, ..config(k, Solver::Bcd) };
        let (errors, factors) = fit(&source, config, 25);
        for pair in errors.windows(2) {
            assert!(pair[1] <= pair[0] + 1e-7, "{init:?} p {sparsity} k {k}: {errors:?}");
        }
        assert!((factors.relative_error - errors[24]).abs() < 1e-5, "identity and residual differ");
    }
}

#[test]
fn a_penalised_sweep_never_raises_the_objective_and_makes_coefficients_sparse() {
    let (source, _) = planted(700, 40, 20, 4, 0.4);
    let density = |l1: f64| {
        let ctx = TaskCtx::silent();
        let mut fit = Factoriser::start(&source, FitConfig { l1, ..config(16, Solver::Bcd) }, &ctx).unwrap();
        let mut last = f64::INFINITY;
        for _ in 0..20 {
            fit.step(&ctx).unwrap();
            let now = fit.objective();
            assert!(now <= last * (1.0 + 1e-6), "{now} after {last}");
            last = now;
        }
        let y = fit.snapshot();
        y.coefficients.as_slice().iter().filter(|v| **v > 0.0).count()
    };
    assert!(density(0.2) < density(0.0) * 7 / 10);
}

#[test]
fn planted_features_are_found() {
    let (source, truth) = planted(1500, 64, 10, 4, 0.05);
    // Without a penalty spare features share a planted one between them; with it they do not.
    let config = FitConfig { sparsity: 4.0 / 64.0, l1: 0.05, ..config(14, Solver::Bcd) };
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
    for (solver, init, l1) in
        [(Solver::Bcd, Init::Kmeans, 0.0), (Solver::Bcd, Init::Svd, 0.1), (Solver::Mu, Init::Random, 0.0)]
    {
        let run = |threads| {
            let config = FitConfig { init, l1, threads: Some(threads), ..config(9, solver) };
            bits(&fit(&source, config, 6).1)
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{solver:?} {init:?}");
    }
}

#[test]
fn a_resumed_fit_goes_on_bit_for_bit() {
    let (source, _) = planted(600, 30, 20, 4, 0.5);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let ctx = TaskCtx::silent();
    for solver in [Solver::Bcd, Solver::Mu] {
        for at in [0, 1, 3, 4] {
            let config = FitConfig { max_sweeps: Some(7), ..config(9, solver) };
            let mut whole = Factoriser::start(&source, config.clone(), &ctx).unwrap();
            for _ in 0..at {
                whole.step(&ctx).unwrap();
            }
            whole.checkpoint(&path).unwrap();
            let mut resumed = Factoriser::resume(&source, config, &path, &ctx).unwrap();
            for _ in at..7 {
                let (a, b) = (whole.step(&ctx).unwrap(), resumed.step(&ctx).unwrap());
                assert_eq!(
                    (a.sweep, a.relative_error.to_bits(), a.stop),
                    (b.sweep, b.relative_error.to_bits(), b.stop)
                );
            }
            assert_eq!(bits(&whole.snapshot()), bits(&resumed.snapshot()));
        }
    }
}

#[test]
fn a_foreign_checkpoint_is_refused_by_name() {
    let (source, _) = planted(300, 30, 20, 4, 0.5);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    let ctx = TaskCtx::silent();
    let base = config(9, Solver::Bcd);
    let mut fit = Factoriser::start(&source, base.clone(), &ctx).unwrap();
    fit.step(&ctx).unwrap();
    fit.checkpoint(&path).unwrap();
    let refusal = |source: &InMemory, config: FitConfig| match Factoriser::resume(source, config, &path, &ctx) {
        Err(e @ Error::File { .. }) => e.to_string(),
        Err(e) => panic!("{e:?}"),
        Ok(_) => panic!("accepted"),
    };
    assert!(refusal(&noise(300, 30, 1), base.clone()).contains("other activations"));
    assert!(refusal(&noise(301, 30, 1), base.clone()).contains("300 × 30"));
    assert!(refusal(&source, FitConfig { seed: 1, ..base.clone() }).contains("other settings"));
    assert!(refusal(&source, FitConfig { features: 8, ..base.clone() }).contains("other settings"));
    let longer = FitConfig { max_sweeps: Some(9), threads: Some(1), ..base };
    assert!(Factoriser::resume(&source, longer, &path, &ctx).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn broken_checkpoints_are_refused(cut in 0usize..6000, at in 0usize..6000, flip in 1u8..=255, extra in 0usize..9) {
        let source = noise(70, 12, 5);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let ctx = TaskCtx::silent();
        let base = FitConfig { threads: Some(1), ..config(4, Solver::Bcd) };
        let mut fit = Factoriser::start(&source, base.clone(), &ctx).unwrap();
        fit.step(&ctx).unwrap();
        fit.checkpoint(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Factoriser::resume(&source, base.clone(), &path, &ctx).is_err()
        };
        prop_assert!(refused(&good[..cut.min(good.len() - 1)]));
        let mut flipped = good.clone();
        let at = at % good.len();
        flipped[at] ^= flip;
        prop_assert!(refused(&flipped));
        let mut longer = good.clone();
        longer.extend(std::iter::repeat_n(flip, extra + 1));
        prop_assert!(refused(&longer));
        let junk: Vec<u8> = good.iter().map(|b| b.wrapping_mul(flip).wrapping_add(1)).collect();
        prop_assert!(refused(&junk));
    }
}

#[test]
fn the_best_so_far_is_what_is_shown() {
    // The multiplicative rule with truncation rises now and then; what is shown must not.
    let source = noise(200, 40, 9);
    let ctx = TaskCtx::silent();
    let config = FitConfig { sparsity: 0.05, init: Init::Random, ..config(12, Solver::Mu) };
    let mut fit = Factoriser::start(&source, config, &ctx).unwrap();
    let (mut best, mut rose) = (f64::INFINITY, false);
    for _ in 0..60 {
        let now = fit.step(&ctx).unwrap().relative_error;
        rose |= now > best;
        best = best.min(now);
        assert!((fit.snapshot().relative_error - best).abs() < 1e-6);
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
    let source = Cancelling { inner: &inner, token: token.clone(), left };
    let ctx = TaskCtx::silent();
    for solver in [Solver::Bcd, Solver::Mu] {
        let mut fit = Factoriser::start(&source, config(9, solver), &ctx).unwrap();
        fit.step(&ctx).unwrap();
        let before = bits(&fit.snapshot());
        source.left.store(1, std::sync::atomic::Ordering::Relaxed);
        let cancelled = CancelToken::default();
        let watched = TaskCtx::new(token.clone(), |_| {});
        assert!(matches!(fit.step(&watched), Err(Error::Cancelled)));
        drop(cancelled);
        assert_eq!(before, bits(&fit.snapshot()));
        let mut fresh = Factoriser::start(&inner, config(9, solver), &ctx).unwrap();
        fresh.step(&ctx).unwrap();
        let (a, b) = (fit.step(&ctx).unwrap(), fresh.step(&ctx).unwrap());
        assert_eq!(a.relative_error.to_bits(), b.relative_error.to_bits());
    }
}

#[test]
fn bad_input_is_refused_and_odd_input_is_not() {
    let ctx = TaskCtx::silent();
    let error = |source: &InMemory, config: FitConfig| match Factoriser::start(source, config, &ctx) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("accepted"),
    };
    let base = config(4, Solver::Bcd);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut data = vec![1.0; 200 * 7];
        data[150 * 7 + 3] = bad;
        let text = error(&InMemory::new(200, 7, data), base.clone());
        assert!(text.contains("row 150") && text.contains("neuron 3"), "{text}");
    }
    let source = noise(20, 6, 2);
    assert!(error(&source, FitConfig { features: 21, ..base.clone() }).contains("21 features for 20"));
    for sparsity in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(error(&source, FitConfig { sparsity, ..base.clone() }).contains("sparsity"));
    }
    assert!(error(&source, FitConfig { l1: -1.0, ..base.clone() }).contains("l1"));
    assert!(error(&InMemory::new(20, 6, vec![0.0; 120]), base.clone()).contains("zero"));
    // More features than neurons, rows of zeros, a constant column, more sweeps than there is to gain.
    let mut data = vec![0.0f32; 60 * 6];
    let mut rng = Pcg64::seed_from_u64(1);
    for (i, row) in data.chunks_exact_mut(6).enumerate().filter(|(i, _)| i % 3 != 0) {
        row.iter_mut().for_each(|v| *v = rng.sample(StandardNormal));
        row[2] = 1.0;
        row[3] = i as f32 * 0.0;
    }
    let odd = InMemory::new(60, 6, data);
    for solver in [Solver::Bcd, Solver::Mu] {
        for init in [Init::Random, Init::Kmeans, Init::Svd] {
            for l1 in [0.0, 0.1] {
                let config = FitConfig { init, sparsity: 0.01, l1, ..config(10, solver) };
                let (_, factors) = fit(&odd, config, 30);
                assert!(factors.relative_error.is_finite() && factors.relative_error < 1.0, "{solver:?} {init:?}");
                for j in 0..10 {
                    let square: f32 = factors.features.column(j).1.iter().map(|v| v * v).sum();
                    assert!((square - 1.0).abs() < 1e-5);
                }
                assert!(factors.coefficients.as_slice().iter().all(|v| v.is_finite() && *v >= 0.0));
            }
        }
    }
}

/// Non-negative least squares by trying every support.
fn brute_force(q: &[Vec<f64>], p: &[f64]) -> f64 {
    let k = p.len();
    let mut best = 0.0f64;
    for set in 1u32..1 << k {
        let members: Vec<usize> = (0..k).filter(|j| set >> j & 1 == 1).collect();
        let matrix: Vec<Vec<f64>> = members
            .iter()
            .map(|&a| members.iter().map(|&b| q[a][b] + if a == b { 1e-13 } else { 0.0 }).collect())
            .collect();
        let x = solve(&matrix, members.iter().map(|&j| p[j]).collect());
        if x.iter().all(|v| v.is_finite() && *v >= 0.0) {
            best = best.min(-members.iter().zip(&x).map(|(&j, v)| p[j] * v).sum::<f64>());
        }
    }
    best
}

#[test]
fn encoding_is_the_non_negative_least_squares_optimum() {
    let mut rng = Pcg64::seed_from_u64(4);
    for (k, d, keep) in [(1, 5, 2), (6, 9, 4), (8, 6, 3), (9, 30, 12)] {
        let mut columns = SparseColumns { rows: d, offsets: vec![0], ..SparseColumns::default() };
        for _ in 0..k {
            let mut chosen = rand::seq::index::sample(&mut rng, d, keep).into_vec();
            chosen.sort_unstable();
            let values: Vec<f32> = (0..keep).map(|_| rng.sample(StandardNormal)).collect();
            let size = values.iter().map(|v| v * v).sum::<f32>().sqrt();
            columns.indices.extend(chosen.iter().map(|&i| i as u32));
            columns.values.extend(values.iter().map(|v| v / size));
            columns.offsets.push(columns.indices.len());
        }
        let source = noise(130, d, k as u64);
        let block = source.rows(0..130).unwrap();
        let y = Encoder::new(columns.clone()).encode(&block, &TaskCtx::silent()).unwrap();
        let dense: Vec<Vec<f64>> =
            (0..k).map(|j| columns.dense_column(j).iter().map(|&v| f64::from(v)).collect()).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let q: Vec<Vec<f64>> = dense.iter().map(|a| dense.iter().map(|b| dot(a, b)).collect()).collect();
        for (r, y) in y.chunks_exact(k).enumerate() {
            let a: Vec<f64> = block.row(r).iter().map(|&v| f64::from(v)).collect();
            let p: Vec<f64> = dense.iter().map(|z| dot(z, &a)).collect();
            assert!(y.iter().all(|v| *v >= 0.0));
            let y: Vec<f64> = y.iter().map(|&v| f64::from(v)).collect();
            let got: f64 = (0..k).map(|j| y[j] * (dot(&q[j], &y) - 2.0 * p[j])).sum();
            let want = brute_force(&q, &p);
            assert!(got - want <= 1e-6 * dot(&a, &a), "k {k} row {r}: {got} against {want}");
        }
    }
}

#[test]
fn encoding_refuses_other_widths_and_takes_many_features() {
    let (source, _) = planted(400, 50, 20, 4, 0.3);
    let (_, factors) = fit(&source, config(80, Solver::Bcd), 15);
    let block = source.rows(0..400).unwrap();
    let encoder = Encoder::new(factors.features.clone());
    let y = encoder.encode(&block, &TaskCtx::silent()).unwrap();
    // The exact codes explain each row at least as well as the fit's own.
    let error = |codes: &dyn Fn(usize, usize) -> f32| -> f64 {
        let mut total = 0.0;
        for r in 0..400 {
            let mut residual = block.row(r).to_vec();
            for j in 0..80 {
                let (indices, values) = factors.features.column(j);
                indices.iter().zip(values).for_each(|(&i, v)| residual[i as usize] -= codes(r, j) * v);
            }
            total += residual.iter().map(|v| f64::from(v * v)).sum::<f64>();
        }
        total
    };
    let own = error(&|r, j| factors.coefficients.feature(j)[r]);
    assert!(error(&|r, j| y[r * 80 + j]) <= own * (1.0 + 1e-5));
    let narrow = noise(3, 49, 1);
    assert!(matches!(encoder.encode(&narrow.rows(0..3).unwrap(), &TaskCtx::silent()), Err(Error::Usage(_))));
}

/// The first `count` rows.
fn first_rows(source: &InMemory, count: usize) -> InMemory {
    let d = source.shape().1;
    InMemory::new(count, d, source.rows(0..count).unwrap().data.to_vec())
}

#[test]
fn a_warm_start_keeps_what_was_reached_and_folds_new_rows_in() {
    let (source, _) = planted(900, 40, 20, 4, 0.4);
    let part = first_rows(&source, 600);
    let ctx = TaskCtx::silent();
    let (_, factors) = fit(&part, config(12, Solver::Bcd), 30);
    let mut same = Factoriser::warm(&part, config(12, Solver::Bcd), &factors, &ctx).unwrap();
    assert!(same.snapshot().relative_error <= factors.relative_error + 1e-6);
    assert!(same.step(&ctx).unwrap().relative_error <= factors.relative_error + 1e-6);

    let mut longer = Factoriser::warm(&source, config(12, Solver::Bcd), &factors, &ctx).unwrap();
    let begun = longer.snapshot();
    assert_eq!(begun.features.indices, factors.features.indices);
    let last = begun.coefficients.feature(0).len();
    assert_eq!(last, 900);
    let errors: Vec<f64> = (0..20).map(|_| longer.step(&ctx).unwrap().relative_error).collect();
    assert!(errors[0] <= begun.relative_error + 1e-7 && errors.windows(2).all(|p| p[1] <= p[0] + 1e-7));
    // What a cold fit of the whole reaches, within a little.
    let cold = fit(&source, config(12, Solver::Bcd), 20).0[19];
    assert!(errors[19] < cold * 1.05 && begun.relative_error < cold * 1.3, "{} {cold}", begun.relative_error);
}

#[test]
fn added_features_lower_the_error_and_leave_the_rest() {
    let (source, _) = planted(900, 40, 20, 4, 0.2);
    let ctx = TaskCtx::silent();
    let mut fit = Factoriser::start(&source, config(8, Solver::Bcd), &ctx).unwrap();
    for _ in 0..6 {
        fit.step(&ctx).unwrap();
    }
    let before = fit.snapshot();
    fit.add_features(6, &ctx).unwrap();
    assert_eq!(fit.config().features, 14);
    let grown = fit.snapshot();
    assert_eq!(grown.features.columns(), 14);
    assert!(grown.relative_error <= before.relative_error + 1e-6);
    assert_eq!(grown.features.indices[..8 * 8], before.features.indices[..]);
    let errors: Vec<f64> = (0..12).map(|_| fit.step(&ctx).unwrap().relative_error).collect();
    assert!(errors.windows(2).all(|p| p[1] <= p[0] + 1e-7));
    assert!(errors[11] < before.relative_error * 0.8, "{} after {}", errors[11], before.relative_error);
    let after = fit.snapshot();
    assert!((0..14).all(|j| after.coefficients.feature(j).iter().any(|v| *v > 0.0)));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint");
    fit.checkpoint(&path).unwrap();
    assert!(Factoriser::resume(&source, fit.config().clone(), &path, &ctx).is_ok());
    assert!(fit.add_features(900, &ctx).is_err());
}

#[test]
fn a_warm_start_refuses_what_does_not_fit() {
    let (source, _) = planted(300, 40, 20, 4, 0.4);
    let ctx = TaskCtx::silent();
    let (_, factors) = fit(&source, config(8, Solver::Bcd), 3);
    let refused = |source: &InMemory, config: FitConfig| {
        matches!(Factoriser::warm(source, config, &factors, &ctx), Err(Error::Usage(_)))
    };
    assert!(refused(&first_rows(&source, 299), config(8, Solver::Bcd)));
    assert!(refused(&noise(300, 41, 1), config(8, Solver::Bcd)));
    assert!(refused(&source, config(7, Solver::Bcd)));
    assert!(refused(&source, config(8, Solver::Mu)));
    // Another sparsity is legitimate: columns are cut or widened.
    for sparsity in [0.03, 0.5] {
        let config = FitConfig { sparsity, ..config(10, Solver::Bcd) };
        let mut fit = Factoriser::warm(&source, config, &factors, &ctx).unwrap();
        assert!(fit.step(&ctx).unwrap().relative_error < 1.0);
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
        Ok(Block { data: block.data.into_owned().into(), ..block })
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
    let source = InMemory::new(n, d, data);
    let config = FitConfig { init: Init::Svd, ..config(3, Solver::Bcd) };
    let start = Factoriser::start(&source, config, &TaskCtx::silent()).unwrap().snapshot();
    for (j, sigma) in [9.0f32, 4.0, 1.0].into_iter().enumerate() {
        for (r, &y) in start.coefficients.feature(j).iter().enumerate() {
            let want = if r / 100 == j { 0.1 * sigma.sqrt() } else { 0.0 };
            assert!((y - want).abs() < 1e-3 * sigma.sqrt(), "pair {j} row {r}: {y} against {want}");
        }
    }
}

#[test]
fn a_locked_feature_stays() {
    let (source, _) = planted(900, 40, 20, 4, 0.4);
    let ctx = TaskCtx::silent();
    for l1 in [0.0, 0.1] {
        let mut fit = Factoriser::start(&source, FitConfig { l1, ..config(10, Solver::Bcd) }, &ctx).unwrap();
        assert!(fit.lock(&[1]).is_err());
        for _ in 0..3 {
            fit.step(&ctx).unwrap();
        }
        assert!(fit.lock(&[10]).is_err());
        fit.lock(&[2, 7]).unwrap();
        let (before, mut last) = (fit.snapshot(), fit.objective());
        for _ in 0..9 {
            fit.step(&ctx).unwrap();
            assert!(fit.objective() <= last * (1.0 + 1e-6));
            last = fit.objective();
        }
        let after = fit.snapshot();
        for j in 0..10 {
            let same = before.features.column(j).0 == after.features.column(j).0
                && before
                    .features
                    .column(j)
                    .1
                    .iter()
                    .zip(after.features.column(j).1)
                    .all(|(a, b)| (a - b).abs() < 1e-6);
            assert_eq!(same, j == 2 || j == 7, "feature {j} at l1 {l1}");
        }
        fit.lock(&[]).unwrap();
        fit.step(&ctx).unwrap();
    }
}
