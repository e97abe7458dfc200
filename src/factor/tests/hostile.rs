//! Input that cannot be fitted, and unusual input that can.

use super::*;

#[test]
fn bad_input_is_refused_and_odd_input_is_not() {
    let ctx = TaskCtx::silent();
    let error = |source: &InMemory, config: FitConfig| match Factoriser::start(source, config, &ctx)
    {
        Err(e) => e.to_string(),
        Ok(_) => panic!("accepted"),
    };
    let base = config(4, Solver::Bcd);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut data = vec![1.0; 200 * 7];
        data[150 * 7 + 3] = bad;
        let text = error(&InMemory::new(200, 7, data), base.clone());
        assert!(
            text.contains("row 150") && text.contains("neuron 3"),
            "{text}"
        );
    }
    let source = noise(20, 6, 2);
    assert!(
        error(
            &source,
            FitConfig {
                features: 21,
                ..base.clone()
            }
        )
        .contains("21 features for 20")
    );
    for sparsity in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(
            error(
                &source,
                FitConfig {
                    sparsity: Some(sparsity),
                    ..base.clone()
                }
            )
            .contains("sparsity")
        );
    }
    assert!(
        error(
            &source,
            FitConfig {
                l1: -1.0,
                ..base.clone()
            }
        )
        .contains("l1")
    );
    assert!(error(&InMemory::new(20, 6, vec![0.0; 120]), base.clone()).contains("zero"));
    let same = InMemory::new(50, 4, [1.1f32, 2.3, 3.7, 4.9].repeat(50));
    assert_eq!(
        fit(&same, config(2, Solver::Bcd), 3).1.explained_variance,
        0.0,
        "there is no variance to explain"
    );
    // More features than neurons, rows of zeros, a constant column, more sweeps than there is to
    // gain.
    let mut data = vec![0.0f32; 60 * 6];
    let mut rng = Pcg64::seed_from_u64(1);
    for (i, row) in data
        .chunks_exact_mut(6)
        .enumerate()
        .filter(|(i, _)| i % 3 != 0)
    {
        row.iter_mut().for_each(|v| *v = rng.sample(StandardNormal));
        row[2] = 1.0;
        row[3] = i as f32 * 0.0;
    }
    let odd = InMemory::new(60, 6, data);
    for solver in [Solver::Bcd, Solver::Mu] {
        for init in [Init::Random, Init::Kmeans, Init::Svd] {
            for l1 in [0.0, 0.1] {
                let config = FitConfig {
                    init,
                    sparsity: Some(0.01),
                    l1,
                    ..config(10, solver)
                };
                let (_, factors) = fit(&odd, config, 30);
                assert!(
                    factors.relative_error.is_finite() && factors.relative_error < 1.0,
                    "{solver:?} {init:?}"
                );
                for j in 0..10 {
                    let square: f32 = factors.features.column(j).1.iter().map(|v| v * v).sum();
                    assert!((square - 1.0).abs() < 1e-5);
                }
                assert!(
                    factors
                        .coefficients
                        .as_slice()
                        .iter()
                        .all(|v| v.is_finite() && *v >= 0.0)
                );
            }
        }
    }
}

#[test]
fn activations_whose_products_overflow_are_refused_by_row() {
    for solver in [Solver::Bcd, Solver::Mu] {
        let mut data: Vec<f32> = (0..40 * 12).map(|i| (i * 7 % 11) as f32).collect();
        data[17 * 12..18 * 12].fill(3e38);
        let source = InMemory::new(40, 12, data);
        let config = FitConfig {
            features: 3,
            solver,
            sparsity: Some(0.5),
            ..FitConfig::plain()
        };
        let ctx = TaskCtx::silent();
        let refused = Factoriser::start(&source, config, &ctx)
            .and_then(|mut fit| fit.step(&ctx))
            .unwrap_err();
        assert!(refused.to_string().contains("17"), "{refused}");
    }
}
