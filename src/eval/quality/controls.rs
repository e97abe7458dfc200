//! The controls of a quality evaluation: every usual baseline of the table, made of the training rows.
//!
//! Knows no baseline by itself. Invariant: another row of the table is another control.

use std::time::Instant;

use super::{MethodJudge, QualityConfig, seeds};
use crate::activations::ActivationSource;
use crate::amounts::chosen_percent as percent;
use crate::directions::baselines::Count;
use crate::directions::{Baseline, Directions, support_size};
use crate::error::Result;
use crate::eval::bench::Candidate;
use crate::eval::detection::Choice;
use crate::eval::report::MethodKind;
use crate::factor::FitConfig;

/// Directions, and the seconds that they took to make.
type Made = Vec<(Directions, f64)>;

/// Makes and judges every usual baseline at the fits' numbers of features: a dense one whole and cut to
/// the fits' sparsities, a sparse one at each of them. Those without labels come first.
pub(super) fn judge(judge: &mut MethodJudge<'_>, config: &QualityConfig) -> Result<()> {
    let d = judge.bench.train().shape().1;
    let shapes: Vec<(usize, f64)> = config
        .fits
        .iter()
        .map(|fit| (fit.features, fit.sparsity_at(d)))
        .collect();
    let (supervised, others): (Vec<_>, Vec<_>) =
        (Baseline::ALL.into_iter().filter(|b| b.usual())).partition(|b| b.supervised());
    for baseline in others.into_iter().chain(supervised) {
        let has_no_labels = judge.bench.split().labels.is_empty();
        // A baseline that is another one cut is among the cuts of that one.
        if baseline.dense_baseline().is_some() || (baseline.supervised() && has_no_labels) {
            continue;
        }
        let is_counted = baseline.count() == Count::Features;
        let counts = distinct(shapes.iter().map(|&(k, _)| if is_counted { k } else { 0 }));
        for k in counts {
            let with_count = shapes.iter().filter(|shape| !is_counted || shape.0 == k);
            let shares = distinct(with_count.map(|&(_, p)| p));
            let name = match is_counted {
                true => format!("{} k {k}", baseline.title()),
                false => baseline.title().to_owned(),
            };
            one(judge, config, baseline, &name, k, &shares)?;
        }
    }
    Ok(())
}

/// One baseline with `k` directions, where their number is the fits', at the sparsities `shares`.
fn one(
    judge: &mut MethodJudge<'_>,
    config: &QualityConfig,
    baseline: Baseline,
    name: &str,
    k: usize,
    shares: &[f64],
) -> Result<()> {
    let d = judge.bench.train().shape().1;
    let make = |judge: &MethodJudge<'_>, p: f64| -> Result<Made> {
        // What is not drawn is the same for every seed.
        let count = match baseline.count() {
            Count::Features => config.seeds,
            Count::Labels | Count::Neurons => 1,
        };
        seeds(config.fits[0].seed, count)
            .map(|seed| {
                let like = FitConfig {
                    features: k,
                    sparsity: Some(p),
                    seed,
                    ..config.fits[0].clone()
                };
                let started = Instant::now();
                let bench = judge.bench;
                let directions = bench.baseline(baseline, config.hook, like, judge.ctx)?;
                Ok((directions, started.elapsed().as_secs_f64()))
            })
            .collect()
    };
    let first = make(judge, shares[0])?;
    match first.first().map(|(directions, _)| directions) {
        Some(Directions::Dense { .. }) => {
            for &p in shares.iter().filter(|p| support_size(**p, d) < d) {
                let cut = |(whole, seconds): &(Directions, f64)| {
                    (whole.cut(support_size(p, d)), *seconds)
                };
                let cut = first.iter().map(cut).collect();
                let name = format!("{name}, cut to {}", percent(p));
                add(judge, baseline, name, Some(p), cut)?;
            }
            add(judge, baseline, format!("{name}, dense"), None, first)
        }
        Some(Directions::Sparse(_)) => {
            let mut first = Some(first);
            for &p in shares {
                let made = match first.take() {
                    Some(made) => made,
                    None => make(judge, p)?,
                };
                let name = format!("{name}, {}", percent(p));
                add(judge, baseline, name, Some(p), made)?;
            }
            Ok(())
        }
        Some(Directions::Neurons(_)) => add(judge, baseline, name.to_owned(), None, first),
        None => Ok(()),
    }
}

fn add(
    judge: &mut MethodJudge<'_>,
    baseline: Baseline,
    name: String,
    sparsity: Option<f64>,
    made: Made,
) -> Result<()> {
    let (kind, choice) = match baseline.supervised() {
        true => (MethodKind::Supervised, Choice::Own),
        false => (MethodKind::Control, Choice::Best),
    };
    let candidates: Vec<Candidate> = made
        .into_iter()
        .map(|(directions, seconds)| Candidate {
            directions,
            choice,
            factors: None,
            seconds,
        })
        .collect();
    judge.add(name, kind, sparsity, None, &candidates)
}

/// The values, each once, in their order.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut out = Vec::new();
    for value in values {
        if !out.contains(&value) {
            out.push(value);
        }
    }
    out
}
