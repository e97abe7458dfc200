//! Encoding of new rows on fixed features against brute force.

use super::*;
use crate::error::Error;
use crate::factor::encode::Encoder;

/// Non-negative least squares by trying every support.
fn brute_force(q: &[Vec<f64>], p: &[f64]) -> f64 {
    let k = p.len();
    let mut best = 0.0f64;
    for set in 1u32..1 << k {
        let members: Vec<usize> = (0..k).filter(|j| set >> j & 1 == 1).collect();
        let matrix: Vec<Vec<f64>> = members
            .iter()
            .map(|&a| {
                members
                    .iter()
                    .map(|&b| q[a][b] + if a == b { 1e-13 } else { 0.0 })
                    .collect()
            })
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
        let mut columns = SparseColumns {
            rows: d,
            offsets: vec![0],
            ..SparseColumns::default()
        };
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
        let y = Encoder::new(columns.clone())
            .encode(&block, &TaskCtx::silent())
            .unwrap();
        let dense: Vec<Vec<f64>> = (0..k)
            .map(|j| {
                columns
                    .dense_column(j)
                    .iter()
                    .map(|&v| f64::from(v))
                    .collect()
            })
            .collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let q: Vec<Vec<f64>> = dense
            .iter()
            .map(|a| dense.iter().map(|b| dot(a, b)).collect())
            .collect();
        for (r, y) in y.chunks_exact(k).enumerate() {
            let a: Vec<f64> = block.row(r).iter().map(|&v| f64::from(v)).collect();
            let p: Vec<f64> = dense.iter().map(|z| dot(z, &a)).collect();
            assert!(y.iter().all(|v| *v >= 0.0));
            let y: Vec<f64> = y.iter().map(|&v| f64::from(v)).collect();
            let computed: f64 = (0..k).map(|j| y[j] * (dot(&q[j], &y) - 2.0 * p[j])).sum();
            let expected = brute_force(&q, &p);
            assert!(
                computed - expected <= 1e-6 * dot(&a, &a),
                "k {k} row {r}: {computed} against {expected}"
            );
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
                indices
                    .iter()
                    .zip(values)
                    .for_each(|(&i, v)| residual[i as usize] -= codes(r, j) * v);
            }
            total += residual.iter().map(|v| f64::from(v * v)).sum::<f64>();
        }
        total
    };
    let own = error(&|r, j| factors.coefficients.feature(j)[r]);
    assert!(error(&|r, j| y[r * 80 + j]) <= own * (1.0 + 1e-5));
    let narrow = noise(3, 49, 1);
    assert!(matches!(
        encoder.encode(&narrow.rows(0..3).unwrap(), &TaskCtx::silent()),
        Err(Error::Usage(_))
    ));
}

#[test]
fn a_cap_keeps_the_features_that_matter_and_a_centre_is_taken_away() {
    let (source, planted) = planted(200, 60, 12, 6, 0.0);
    let columns = dense(&planted);
    let block = source.rows(0..200).unwrap();
    let exact = Encoder::new(columns.clone())
        .encode(&block, &TaskCtx::silent())
        .unwrap();
    // Every row is three features: a cap of three loses nothing, one of two keeps two.
    let coding = |row_cap| Coding {
        row_cap,
        ..Default::default()
    };
    let three = Encoder::with_coding(columns.clone(), &coding(Some(3)))
        .encode(&block, &TaskCtx::silent())
        .unwrap();
    let two = Encoder::with_coding(columns.clone(), &coding(Some(2)))
        .encode(&block, &TaskCtx::silent())
        .unwrap();
    let mut same = 0;
    for ((e, three), two) in exact
        .chunks_exact(12)
        .zip(three.chunks_exact(12))
        .zip(two.chunks_exact(12))
    {
        assert!(
            three.iter().filter(|v| **v > 0.0).count() <= 3
                && two.iter().filter(|v| **v > 0.0).count() <= 2
        );
        same += usize::from(e.iter().zip(three).all(|(a, b)| (a - b).abs() < 1e-3));
    }
    assert!(
        same > 190,
        "greedy pursuit finds the three features of {same} rows of 200"
    );

    let centre = std::sync::Arc::new(
        (0..60)
            .map(|i| (i as f32 * 0.37).sin() * 3.0)
            .collect::<Vec<_>>(),
    );
    let mut shifted = block.data.to_vec();
    shifted
        .chunks_exact_mut(60)
        .for_each(|row| row.iter_mut().zip(centre.iter()).for_each(|(v, c)| *v += c));
    let shifted = InMemory::new(200, 60, shifted);
    let coding = Coding {
        centre: Some(centre),
        row_cap: None,
        ..Default::default()
    };
    let encoder = Encoder::with_coding(columns, &coding);
    let y = encoder
        .encode(&shifted.rows(0..200).unwrap(), &TaskCtx::silent())
        .unwrap();
    assert!(y.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 1e-4));
}

/// Sparse columns of dense ones.
fn dense(columns: &[Vec<f32>]) -> SparseColumns {
    crate::analysis::tests::columns(columns[0].len(), columns)
}
