//! A mix pushes the residual stream as the pushes that it was weighted by.

use std::path::Path;

use candle_core::{Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;
use crate::model::config::Config;
use crate::model::weights::Weights;
use crate::model::{Decoder, HookPoint, HookSite};

/// Directions of a set, tokens of a vocabulary.
const COUNT: usize = 6;
const VOCAB: usize = 9;

fn decoder(family: &str) -> Decoder {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/families")
        .join(family);
    let weights = Weights::open_safetensors(&[dir.join("model.safetensors")]).unwrap();
    let config = Config::from_hf(&dir.join("config.json")).unwrap();
    Decoder::on_cpu(config, &weights, None, &TaskCtx::silent()).unwrap()
}

/// What each of the rows `z` pushes the residual stream by.
fn pushes(decoder: &Decoder, hook: HookPoint, z: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let rows = Tensor::from_vec(z.concat(), (z.len(), z[0].len()), &Device::Cpu).unwrap();
    let pushed = decoder.residual_direction(hook, &rows).unwrap();
    pushed.to_vec2().unwrap()
}

fn cos(a: &[f64], b: &[f32]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum();
    let square = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>();
    let norms = square(&mut a.iter().copied()) * square(&mut b.iter().map(|&v| f64::from(v)));
    dot / norms.sqrt()
}

/// (F + tr(F)/k·I) c = b by Gauss and Jordan, F from its definition.
fn plain_weights(base: &[f32], shifts: &[Vec<f32>], b: &[f64]) -> Vec<f64> {
    let p: Vec<f64> = base.iter().map(|l| f64::from(*l).exp()).collect();
    let mean = |j: &Vec<f32>| -> f64 { j.iter().zip(&p).map(|(s, p)| f64::from(*s) * p).sum() };
    let entry = |i: &Vec<f32>, j: &Vec<f32>| -> f64 {
        let (mi, mj) = (mean(i), mean(j));
        let each = i.iter().zip(j).zip(&p);
        each.map(|((x, y), p)| p * (f64::from(*x) - mi) * (f64::from(*y) - mj))
            .sum()
    };
    let k = shifts.len();
    let mut rows: Vec<Vec<f64>> = (0..k)
        .map(|i| (0..k).map(|j| entry(&shifts[i], &shifts[j])).collect())
        .collect();
    let ridge = (0..k).map(|i| rows[i][i]).sum::<f64>() / k as f64;
    for (i, row) in rows.iter_mut().enumerate() {
        row[i] += ridge;
        row.push(b[i]);
    }
    for i in 0..k {
        let pivot = rows[i][i];
        rows[i].iter_mut().for_each(|v| *v /= pivot);
        let own = rows[i].clone();
        for (other, row) in rows.iter_mut().enumerate() {
            let times = row[i];
            if other != i {
                row.iter_mut().zip(&own).for_each(|(v, o)| *v -= times * o);
            }
        }
    }
    rows.iter().map(|row| row[k]).collect()
}

#[test]
fn a_mix_pushes_by_the_weighted_pushes_also_where_the_mlps_output_is_normed() {
    for (family, is_normed) in [("gemma2", true), ("gemma3", true), ("llama", false)] {
        let decoder = decoder(family);
        let hook = HookPoint {
            layer: 1,
            site: HookSite::MlpPost,
        };
        let d = decoder.width(hook).unwrap();
        let mut rng = Pcg64Mcg::seed_from_u64(5);
        let mut random = |count: usize| -> Vec<f32> {
            (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
        };
        let z: Vec<Vec<f32>> = (0..COUNT)
            .map(|j| {
                // Directions of few neurons, whose outputs differ in length.
                let mut z = random(d);
                z[j + 1..].iter_mut().for_each(|v| *v *= 0.01);
                crate::steering::unit(&z).unwrap()
            })
            .collect();
        let pushed = pushes(&decoder, hook, &z);
        let rows = Tensor::from_vec(z.concat(), (COUNT, d), &Device::Cpu).unwrap();
        let scales = decoder.output_scales(hook, &rows).unwrap();
        assert_eq!(scales.iter().all(|&s| s == 1.0), !is_normed);
        let base = vec![-(VOCAB as f32).ln(); VOCAB];
        // What f16 holds exactly, as the study keeps it.
        let shifts: Vec<Vec<f32>> = (0..COUNT)
            .map(|_| {
                random(VOCAB)
                    .iter()
                    .map(|v| (v * 64.0).round() / 64.0)
                    .collect()
            })
            .collect();
        let alpha = |j: usize| 2.0 + j as f64;
        let each: Vec<_> = (0..COUNT)
            .map(|j| (alpha(j), scales[j], pushed[j].clone(), shifts[j].clone()))
            .collect();
        let effects = Effects::made(&base, &each);
        let g: Vec<f64> = random(pushed[0].len()).iter().map(|&v| v.into()).collect();
        let gradients = LabelGradients {
            residual: vec![g.clone()],
            by_hook: vec![vec![0.0; d]],
        };
        let recipes = weighted(Mix::All, &effects, &gradients, &TaskCtx::silent());
        let kind: SetKind = "mix".parse().unwrap();
        let columns = z.concat();
        let source = PlainSet::new("z", hook, Directions::Dense { d, columns }, Vec::new());
        let choosing = Choosing {
            labels: vec!["a".into()],
            sentences: Vec::new(),
        };
        let mixed = of_recipes(&kind, &source, &choosing, recipes.unwrap().unwrap());

        let b: Vec<f64> = (0..COUNT)
            .map(|j| {
                let along = pushed[j].iter().zip(&g);
                alpha(j) * along.map(|(u, g)| f64::from(*u) * g).sum::<f64>()
            })
            .collect();
        let c = plain_weights(&base, &shifts, &b);
        let mut wanted = vec![0.0f64; pushed[0].len()];
        for j in 0..COUNT {
            let part = wanted.iter_mut().zip(&pushed[j]);
            part.for_each(|(w, u)| *w += c[j] * alpha(j) * f64::from(*u));
        }
        let found = pushes(&decoder, hook, &[mixed.directions().column(0)]);
        assert!(cos(&wanted, &found[0]) > 1.0 - 1e-5, "{family}");
    }
}
