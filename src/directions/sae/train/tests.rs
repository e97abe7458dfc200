use super::*;
use crate::activations::InMemory;

/// Rows that are sparse sums of `atoms` directions, with noise.
fn rows(n: usize, d: usize, atoms: usize, seed: u64) -> InMemory {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let mut dictionary: Vec<f32> = (0..atoms * d).map(|_| rng.sample(StandardNormal)).collect();
    dictionary.chunks_exact_mut(d).for_each(normalise);
    let mut data = Vec::with_capacity(n * d);
    for _ in 0..n {
        let mut row: Vec<f32> = (0..d)
            .map(|_| 0.3 + 0.01 * rng.sample::<f32, _>(StandardNormal))
            .collect();
        for _ in 0..2 {
            let (j, size) = (rng.random_range(0..atoms), rng.random_range(1.0f32..3.0));
            row.iter_mut()
                .zip(&dictionary[j * d..])
                .for_each(|(v, a)| *v += size * a);
        }
        data.extend(row);
    }
    InMemory::new(n, d, data)
}

/// The loss of a batch in f64 by the formulas of the module's head, with the active latents and e
/// held fixed.
fn loss(sae: &Sae, batch: &[f32], top_k: usize, dead: &[u32], fixed: &Sae) -> f64 {
    let (d, k) = (sae.width, sae.latents());
    let f = f64::from;
    let pre = |sae: &Sae, x: &[f32], j: usize| -> f64 {
        let products =
            (0..d).map(|c| (f(x[c]) - f(sae.decoder_bias[c])) * f(sae.encoder[j * d + c]));
        products.sum::<f64>() + f(sae.encoder_bias[j])
    };
    let chosen = |x: &[f32], among: &[u32], count: usize| -> Vec<usize> {
        let mut all: Vec<usize> = among
            .iter()
            .map(|&j| j as usize)
            .filter(|&j| pre(fixed, x, j) > 0.0)
            .collect();
        all.sort_by(|&a, &b| pre(fixed, x, b).total_cmp(&pre(fixed, x, a)));
        all.truncate(count);
        all
    };
    let sum = |sae: &Sae, x: &[f32], latents: &[usize], c: usize| -> f64 {
        latents
            .iter()
            .map(|&j| pre(sae, x, j) * f(sae.decoder[j * d + c]))
            .sum()
    };
    let every: Vec<u32> = (0..k as u32).collect();
    let mean: Vec<f64> = (0..d)
        .map(|c| batch.chunks_exact(d).map(|x| f(x[c])).sum::<f64>() / (batch.len() / d) as f64)
        .collect();
    let (mut main, mut aux, mut variance) = (0.0, 0.0, 0.0);
    let aux_k = (d / 2).max(1);
    for x in batch.chunks_exact(d) {
        let (active, silent) = (chosen(x, &every, top_k), chosen(x, dead, aux_k));
        for c in 0..d {
            main += (f(x[c]) - sum(sae, x, &active, c) - f(sae.decoder_bias[c])).powi(2);
            let left = f(x[c]) - sum(fixed, x, &active, c) - f(fixed.decoder_bias[c]);
            aux += (left - sum(sae, x, &silent, c)).powi(2);
            variance += (f(x[c]) - mean[c]).powi(2);
        }
    }
    let share = (dead.len() as f64 / aux_k as f64).min(1.0);
    (main
        + if dead.is_empty() {
            0.0
        } else {
            f64::from(AUX) * share * aux
        })
        / variance
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    let source = rows(12, 10, 6, 5);
    let config = TrainConfig {
        latents: 14,
        top_k: 3,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::start(&source, config, &TaskCtx::silent()).unwrap();
    let mut rng = Pcg64Mcg::seed_from_u64(9);
    let sae = &mut trainer.state.sae;
    sae.encoder_bias
        .iter_mut()
        .for_each(|b| *b = 0.2 * rng.sample::<f32, _>(StandardNormal));
    sae.encoder
        .iter_mut()
        .for_each(|w| *w += 0.2 * rng.sample::<f32, _>(StandardNormal));
    let sae = sae.clone();
    let (batch, _) = trainer.batches.next().unwrap();
    for dead in [vec![], vec![1, 4, 5, 11]] {
        let mut gradient = Gradient::new(0.0);
        gradient.compute(&sae, &batch, 3, &dead);
        let difference = |part: fn(&mut Sae) -> &mut Vec<f32>, at: usize| {
            let h = 1e-3f32;
            let moved = |by: f32| {
                let mut other = sae.clone();
                part(&mut other)[at] += by;
                loss(&other, &batch, 3, &dead, &sae)
            };
            (moved(h) - moved(-h)) / f64::from(2.0 * h)
        };
        let near = |computed: f32, expected: f64, what: &str| {
            assert!(
                (f64::from(computed) - expected).abs() <= 2e-4 * (1.0 + expected.abs()),
                "{what}: {computed} and {expected}"
            );
        };
        let (d, mut ge, mut gd) = (10, vec![0.0; 10], vec![0.0; 10]);
        let mut moved = 0.0;
        for j in 0..14 {
            let row = &sae.decoder[j * d..(j + 1) * d];
            gradient.gradient_of_latent(j, row, &mut ge, &mut gd);
            let raw: Vec<f64> = (0..d)
                .map(|c| difference(|s| &mut s.decoder, j * d + c))
                .collect();
            let along: f64 = raw.iter().zip(row).map(|(g, w)| g * f64::from(*w)).sum();
            for c in 0..d {
                near(ge[c], difference(|s| &mut s.encoder, j * d + c), "encoder");
                near(gd[c], raw[c] - along * f64::from(row[c]), "decoder");
                moved += gd[c].abs();
            }
            near(
                gradient.encoder_bias[j],
                difference(|s| &mut s.encoder_bias, j),
                "b_enc",
            );
        }
        (0..d).for_each(|c| {
            near(
                gradient.decoder_bias[c],
                difference(|s| &mut s.decoder_bias, c),
                "b_dec",
            )
        });
        assert!(moved > 0.1, "nothing was compared");
    }
}

fn train(source: &InMemory, config: &TrainConfig) -> (Sae, Epoch, Epoch) {
    let ctx = TaskCtx::silent();
    let mut trainer = Trainer::start(source, config.clone(), &ctx).unwrap();
    let mut epochs = Vec::new();
    while !trainer.is_done() {
        epochs.extend(trainer.step(&ctx).unwrap());
    }
    assert_eq!(
        (epochs.len(), trainer.steps()),
        (config.epochs, trainer.total_steps())
    );
    (trainer.sae(), epochs[0], epochs[epochs.len() - 1])
}

fn small() -> TrainConfig {
    TrainConfig {
        latents: 24,
        top_k: 2,
        epochs: 40,
        batch: 64,
        learning_rate: Some(5e-3),
        seed: 1,
    }
}

#[test]
fn training_recovers_the_directions_of_sparse_rows() {
    let source = rows(800, 16, 12, 2);
    let (sae, first, last) = train(&source, &small());
    assert!(
        last.fvu < 0.5 * first.fvu && last.fvu < 0.15,
        "{first:?} to {last:?}"
    );
    assert!(
        sae.decoder
            .chunks_exact(16)
            .all(|row| (row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-4)
    );
    // The autoencoder that is handed out reads rows in their own units.
    let block = source.rows(0..800).unwrap();
    let latents = sae.encode(&block).unwrap();
    let error: f32 = sae
        .decode(&latents)
        .iter()
        .zip(block.data.iter())
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    let whole = gradient_variance(&block.data);
    assert!(f64::from(error) < 0.15 * whole, "{error} of {whole}");
}

fn gradient_variance(data: &[f32]) -> f64 {
    let mean: Vec<f64> = (0..16)
        .map(|c| data.chunks_exact(16).map(|r| f64::from(r[c])).sum::<f64>() / 800.0)
        .collect();
    data.chunks_exact(16)
        .flat_map(|r| {
            r.iter()
                .zip(&mean)
                .map(|(v, m)| (f64::from(*v) - m).powi(2))
        })
        .sum()
}

#[test]
fn an_interrupted_training_ends_the_same() {
    let source = rows(300, 16, 12, 3);
    let config = TrainConfig {
        epochs: 6,
        ..small()
    };
    let (whole, ..) = train(&source, &config);
    let (dir, ctx) = (tempfile::tempdir().unwrap(), TaskCtx::silent());
    let path = dir.path().join("checkpoint");
    let mut trainer = Trainer::start(&source, config.clone(), &ctx).unwrap();
    while !trainer.is_done() {
        trainer.step(&ctx).unwrap();
        trainer.checkpoint(&path, 1.0).unwrap();
        trainer = Trainer::resume(&source, config.clone(), &path, &ctx).unwrap();
    }
    assert_eq!(trainer.sae(), whole);
    assert_eq!(trainer.earlier_seconds(), trainer.steps() as f64);
}

#[test]
fn a_foreign_or_damaged_checkpoint_is_refused() {
    let source = rows(100, 16, 12, 3);
    let (dir, ctx) = (tempfile::tempdir().unwrap(), TaskCtx::silent());
    let path = dir.path().join("checkpoint");
    let mut trainer = Trainer::start(&source, small(), &ctx).unwrap();
    trainer.step(&ctx).unwrap();
    trainer.checkpoint(&path, 0.0).unwrap();
    let says = |source: &InMemory, config: TrainConfig, wanted: &str| {
        let message = Trainer::resume(source, config, &path, &ctx)
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains(wanted) && !message.contains('\n'),
            "{message}"
        );
    };
    says(&rows(100, 16, 12, 4), small(), "other activations");
    says(
        &source,
        TrainConfig {
            top_k: 3,
            ..small()
        },
        "other settings",
    );
    let whole = std::fs::read(&path).unwrap();
    for keep in [0, 7, 20, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..keep]).unwrap();
        says(&source, small(), "truncated or damaged");
    }
    let mut flipped = whole;
    flipped[200] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    says(&source, small(), "truncated or damaged");
}

#[test]
fn too_large_steps_end_the_training_with_what_to_do() {
    let config = TrainConfig {
        learning_rate: Some(1e300),
        ..small()
    };
    let source = rows(200, 8, 12, 5);
    let ctx = TaskCtx::silent();
    let mut trainer = Trainer::start(&source, config, &ctx).unwrap();
    let error = loop {
        match trainer.step(&ctx) {
            Err(error) => break error.to_string(),
            Ok(_) => assert!(!trainer.is_done(), "it ended as if it were well"),
        }
    };
    assert!(error.contains("lower --learning-rate"), "{error}");
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let start = |source: &InMemory, config| {
        Trainer::start(source, config, &TaskCtx::silent())
            .err()
            .unwrap()
            .to_string()
    };
    let source = rows(100, 16, 12, 3);
    assert!(
        start(
            &source,
            TrainConfig {
                top_k: 25,
                ..small()
            }
        )
        .contains("--top-k")
    );
    assert!(
        start(
            &source,
            TrainConfig {
                latents: 0,
                ..small()
            }
        )
        .contains("--latents")
    );
    assert!(
        start(
            &source,
            TrainConfig {
                learning_rate: Some(f64::NAN),
                ..small()
            }
        )
        .contains("--learning-rate")
    );
    assert!(start(&InMemory::new(1, 2, vec![1.0; 2]), small()).contains("too few"));
    assert!(start(&InMemory::new(2, 2, vec![0.0; 4]), small()).contains("zero"));
    assert!(
        start(&InMemory::new(2, 1, vec![1.0, f32::INFINITY]), small())
            .contains("row 1 is not finite")
    );
}

#[test]
fn rows_times_any_number_have_the_same_autoencoder() {
    let source = rows(300, 12, 8, 2);
    let config = TrainConfig {
        epochs: 2,
        batch: 64,
        ..small()
    };
    let times = |by: f32| {
        InMemory::new(
            300,
            12,
            source
                .rows(0..300)
                .unwrap()
                .data
                .iter()
                .map(|v| v * by)
                .collect(),
        )
    };
    let (one, _, last) = train(&source, &config);
    for by in [2f32.powi(-13), 2f32.powi(13), 2f32.powi(-60), 2f32.powi(60)] {
        let (other, _, other_last) = train(&times(by), &config);
        assert_eq!(
            (&one.encoder, &one.decoder, last.fvu),
            (&other.encoder, &other.decoder, other_last.fvu),
            "times {by}"
        );
        assert!(
            one.decoder_bias
                .iter()
                .zip(&other.decoder_bias)
                .all(|(a, b)| a * by == *b),
            "times {by}"
        );
    }
    for by in [1e-42, 1e35] {
        let (other, _, last) = train(&times(by), &config);
        assert!(
            last.fvu.is_finite()
                && other
                    .encoder
                    .iter()
                    .chain(&other.encoder_bias)
                    .all(|v| v.is_finite())
        );
    }
}

#[test]
fn a_last_batch_of_one_row_and_rows_that_are_alike_stay_numbers() {
    let source = rows(257, 12, 8, 2);
    let alike = InMemory::new(257, 12, source.rows(0..1).unwrap().data.repeat(257));
    for source in [&source, &alike] {
        let (sae, _, last) = train(
            source,
            &TrainConfig {
                epochs: 3,
                batch: 64,
                ..small()
            },
        );
        assert!(
            sae.encoder
                .iter()
                .chain(&sae.decoder)
                .chain(&sae.decoder_bias)
                .all(|v| v.is_finite())
        );
        assert!(last.fvu.is_finite(), "{last:?}");
    }
}
