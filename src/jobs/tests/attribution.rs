//! What makes the next token what it is, held to passes over the whole text and to sums that must
//! come out.

use std::path::Path;

use candle_core::{DType, Tensor};

use super::*;
use crate::factor::{Coding, Coefficients};
use crate::jobs::attribution::{Attribution, AttributionRequest, Part, PartEffect, attribute};
use crate::model::{Batch, Logits, Pass, Phase, Tap, host};

/// A fixture of a family with a tokenizer of a token a byte, of which ids below 96 have embeddings.
fn family(name: &str, dir: &Path) -> Model {
    let ctx = TaskCtx::silent();
    let made = support::tiny_model(dir);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(name).join(file), made.join(file)).unwrap();
    }
    let files = source::resolve(made.to_str(), &ctx).unwrap();
    Model::open(&files, &LoadOptions::default(), &ctx).unwrap()
}

/// Three features and a mean row.
fn factors(width: usize) -> Factors {
    let column = |j: usize| -> Vec<f32> {
        let raw: Vec<f32> = (0..width)
            .map(|i| match (i + j) % 3 {
                0 => ((i * 7 + j * 5) % 11) as f32 - 4.0,
                _ => 0.0,
            })
            .collect();
        let norm = raw.iter().map(|v| v * v).sum::<f32>().sqrt();
        raw.iter().map(|v| v / norm).collect()
    };
    let columns: Vec<Vec<f32>> = (0..3).map(column).collect();
    Factors {
        features: crate::analysis::tests::columns(width, &columns),
        coefficients: Coefficients::owned(1, vec![0.0; 3]),
        coding: Coding {
            centre: Some(Arc::new(
                (0..width).map(|i| 0.01 * (i % 5) as f32).collect(),
            )),
            ..Coding::default()
        },
        relative_error: 0.5,
        weighted_error: None,
        explained_variance: 0.5,
        sweep: 1,
        seconds: 0.0,
    }
}

/// Takes a vector away at one position, and keeps what it sees there.
struct Without {
    hooks: Vec<HookPoint>,
    position: usize,
    part: Option<Vec<f32>>,
    seen: Vec<(HookPoint, Vec<f32>)>,
}

impl Tap for Without {
    fn hooks(&self) -> &[HookPoint] {
        &self.hooks
    }

    fn intercept(&mut self, _: &Pass<'_>, hook: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        let (rows, tokens, width) = x.dims3()?;
        let mut all = host::values(&x.flatten_all()?)?;
        let own = &mut all[self.position * width..(self.position + 1) * width];
        self.seen.push((hook, own.to_vec()));
        let Some(part) = self.part.as_ref().filter(|_| hook == self.hooks[0]) else {
            return Ok(None);
        };
        own.iter_mut().zip(part).for_each(|(x, v)| *x -= v);
        Ok(Some(Tensor::from_vec(
            all,
            (rows, tokens, width),
            x.device(),
        )?))
    }
}

/// ln p of `target` after the first `end` tokens, from a pass over all of them, and what was seen.
fn pass(
    model: &Model,
    hooks: &[HookPoint],
    ids: &[u32],
    part: Option<Vec<f32>>,
    target: u32,
) -> (f64, Vec<(HookPoint, Vec<f32>)>) {
    let mut tap = Without {
        hooks: hooks.to_vec(),
        position: ids.len() - 1,
        part,
        seen: Vec::new(),
    };
    let batch = Batch {
        rows: vec![ids.to_vec()],
        samples: vec![0],
    };
    let ctx = TaskCtx::silent();
    let logits = model
        .forward(&batch, Phase::Prompt, None, &mut tap, Logits::Last, &ctx)
        .unwrap()
        .unwrap();
    let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
    let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    (f64::from(logits[target as usize]) - sum.ln(), tap.seen)
}

fn values_of(factors: &Factors, row: &[f32], found: &Attribution, part: Part) -> Vec<f32> {
    let centre = factors.coding.centre.as_ref().unwrap().to_vec();
    let scaled = |id: usize, coefficient: f32| -> Vec<f32> {
        let column = factors.features.dense_column(id);
        column.into_iter().map(|v| v * coefficient).collect()
    };
    match part {
        Part::Feature { id, coefficient } => scaled(id, coefficient),
        Part::Centre => centre,
        Part::Unexplained => {
            let mut left: Vec<f32> = row.iter().zip(&centre).map(|(a, c)| a - c).collect();
            for other in &found.parts {
                if let Part::Feature { id, coefficient } = other.part {
                    let values = scaled(id, coefficient);
                    left.iter_mut().zip(values).for_each(|(l, v)| *l -= v);
                }
            }
            left
        }
    }
}

#[test]
fn effects_are_those_of_passes_over_the_whole_text() {
    let ctx = TaskCtx::silent();
    let mut features = 0;
    for (name, layer, site) in [
        ("llama", 1, HookSite::MlpPost),
        ("llama", 2, HookSite::ResidPost),
        ("gpt2", 1, HookSite::MlpPost),
        ("gemma2", 2, HookSite::MlpPost),
        ("gemma2", 1, HookSite::MlpOut),
        ("gemma3", 3, HookSite::MlpPost),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let model = family(name, dir.path());
        let hook = HookPoint { layer, site };
        let factors = factors(model.width(hook).unwrap());
        for (text, at, target) in [("MAY 1940", None, Some("9")), ("RED", Some(0), None)] {
            let request = AttributionRequest {
                text,
                at,
                target,
                bos: BosRule::Never,
            };
            let found = attribute(&model, hook, &factors, &request, &ctx).unwrap();
            let ids = &text.as_bytes()[..at.map_or(text.len(), |at| at + 1)];
            let ids: Vec<u32> = ids.iter().map(|&b| u32::from(b)).collect();
            let wanted = target.map_or(b'E', |t| t.as_bytes()[0]);
            assert_eq!(found.target.id, u32::from(wanted), "{name}");
            let last = HookPoint {
                layer: model.info().layers - 1,
                site: HookSite::ResidPost,
            };
            let out = HookPoint {
                layer,
                site: HookSite::MlpOut,
            };
            let run = |hooks: &[HookPoint], part| pass(&model, hooks, &ids, part, found.target.id);
            let (whole, seen) = run(&[hook, out, last], None);
            let row = |at: HookPoint| &seen.iter().find(|(hook, _)| *hook == at).unwrap().1;
            assert!((found.target.probability - whole.exp()).abs() < 1e-6);
            let mut all = vec![0.0; row(hook).len()];
            for PartEffect { part, effect, .. } in &found.parts {
                let values = values_of(&factors, row(hook), &found, *part);
                if matches!(part, Part::Feature { .. }) {
                    all.iter_mut().zip(&values).for_each(|(a, v)| *a += v);
                }
                let (without, _) = run(&[hook], Some(values));
                let gap = (effect - (whole - without)).abs();
                assert!(gap < 2e-5, "{name} {hook} {part:?}: {gap}");
            }
            let (without, _) = run(&[hook], Some(all));
            assert!((found.together - (whole - without)).abs() < 2e-5);
            let sizes = found.parts.iter().map(|p| -p.effect.abs());
            assert!(sizes.is_sorted());
            features += found.parts.len() - 2;

            // The straight ways of all parts are that of what the hook adds to the residual stream.
            let direct: f64 = found.parts.iter().map(|p| p.direct).sum();
            assert!((direct + found.rest - found.logit).abs() < 1e-9);
            let tensor = |row: &[f32]| {
                Tensor::from_vec(row.to_vec(), (1, row.len()), model.device()).unwrap()
            };
            let added = match site {
                // Without the bias of the output projection, which is no part of the activations.
                HookSite::MlpPost if !model.decoder().config().norms_mlp_output() => {
                    let x = model.residual_direction(hook, &tensor(row(hook))).unwrap();
                    host::values(&x.flatten_all().unwrap()).unwrap()
                }
                HookSite::ResidPost => row(hook).clone(),
                _ => row(out).clone(),
            };
            let norm = model.decoder().config().norm;
            let rms = |x: &[f32]| {
                let n = x.len() as f64;
                let mean = match name {
                    "gpt2" => x.iter().map(|&v| f64::from(v)).sum::<f64>() / n,
                    _ => 0.0,
                };
                let squares = x
                    .iter()
                    .map(|&v| (f64::from(v) - mean).powi(2))
                    .sum::<f64>();
                (squares / n + norm.eps).sqrt()
            };
            let lens = |x: &[f32]| {
                let all = model.logit_lens(&tensor(x)).unwrap();
                let all: Vec<Vec<f32>> = all.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
                f64::from(all[0][found.target.id as usize])
            };
            let wanted = lens(&added) * rms(&added) / rms(row(last));
            assert!((direct - wanted).abs() < 2e-4, "{name}: {direct} {wanted}");
            assert!((found.logit - lens(row(last))).abs() < 1e-5);
        }
    }
    assert!(features >= 8, "{features} features were active");
}

#[test]
fn what_cannot_be_asked_is_said() {
    let lab = Laboratory::new();
    let factors = lab.fit("k4", &small());
    let ask = |text, at, target| {
        let request = AttributionRequest {
            text,
            at,
            target,
            bos: BosRule::Auto,
        };
        let found = attribute(&lab.model, HOOKS[0], &factors, &request, &TaskCtx::silent());
        found.map_err(|error| error.to_string())
    };
    let long = "tide".repeat(80);
    let refused = |text, at, target| ask(text, at, target).unwrap_err();
    assert!(refused("tide", Some(4), None).contains("tokens 0 to 3"));
    assert!(refused("tide", None, Some("ab")).contains("2 tokens (\"a\", \"b\")"));
    assert!(refused(&long, None, None).contains("context 256"));
    let found = ask("tide", None, None).unwrap();
    assert_eq!(found.tokens.concat(), "tide");
    assert_eq!(found.target, found.likeliest[0]);
    // A token within the text is asked about what follows it.
    let found = ask("tide", Some(1), None).unwrap();
    assert_eq!(
        (found.tokens.concat(), &*found.target.token),
        ("ti".to_owned(), "d")
    );
    assert_eq!(ask("tide", None, Some("s")).unwrap().target.token, "s");
    // The whole text is no longer than the context up to the token.
    assert!(ask(&long, Some(200), None).is_ok());
}
