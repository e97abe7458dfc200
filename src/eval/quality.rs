//! The quality of fits compared with controls, every method on the same division of the same corpus.
//!
//! Every fit is made on the training sentences alone: one that has seen the held-out sentences
//! proves nothing about them.

use std::time::Instant;

use serde::Serialize;

use super::bench::{Bench, Candidate};
use super::compared::{MeasureInterval, MethodDifference, differences, intervals};
use super::detection::Choice;
use super::report::{DetectionReport, MethodKind, MethodReport};
use super::split::Holdout;
use crate::activations::ActivationSource;
use crate::amounts::chosen_percent as percent;
use crate::corpus::TokenTable;
use crate::directions::baselines::random;
use crate::directions::{Directions, support_size};
use crate::error::{Error, Result};
use crate::factor::{FitConfig, Init, Solver};
use crate::task::TaskCtx;

/// The cap that [`objectives`] tries: about as many features as the default penalty leaves at a
/// token.
const ROW_CAP: usize = 8;

const SINGLE_NEURONS: &str = "single neurons";

/// The configuration of a quality evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityConfig {
    /// The fits; the first of each number of features and sparsity is what others of the same are
    /// compared with.
    pub fits: Vec<FitConfig>,
    /// Fits of each, with seeds counting up from its own.
    pub seeds: usize,
    /// What is held out.
    pub holdout: Holdout,
    /// Whether the controls are made.
    pub controls: bool,
    /// Draws of the bootstrap.
    pub resamples: usize,
}

impl Default for QualityConfig {
    fn default() -> Self {
        let fits = vec![FitConfig::default()];
        Self {
            fits,
            seeds: 3,
            holdout: Holdout::default(),
            controls: true,
            resamples: 10_000,
        }
    }
}

/// How the corpus was divided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Division {
    /// Sentences to fit and to choose on.
    pub train_sentences: usize,
    /// Sentences to report on.
    pub held_out_sentences: usize,
    /// Rows of the former.
    pub train_tokens: usize,
    /// Rows of the latter.
    pub held_out_tokens: usize,
    /// Labels that are scored.
    pub labels: usize,
}

/// The results of a quality evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quality {
    /// How the corpus was divided.
    pub division: Division,
    /// The fits, then the controls.
    pub methods: Vec<MethodReport>,
    /// Detection of the first fit with the labels shuffled: what chance gives.
    pub shuffled: Option<DetectionReport>,
    /// Every measure of every method with its interval.
    pub intervals: Vec<MeasureInterval>,
    /// The first fit of each number of features and sparsity against every method of the same.
    pub differences: Vec<MethodDifference>,
    /// Remarks for the user, one sentence each.
    pub notes: Vec<String>,
}

/// Judges fits and controls; hands each method to `on_method` as soon as it is measured.
///
/// # Errors
/// [`Error::Usage`] without a fit or a seed, what [`Bench::new`] and the fits return,
/// [`Error::Cancelled`].
pub fn quality(
    source: &dyn ActivationSource,
    tokens: &TokenTable,
    config: &QualityConfig,
    ctx: &TaskCtx,
    on_method: &mut dyn FnMut(&MethodReport) -> Result<()>,
) -> Result<Quality> {
    if config.fits.is_empty() || config.seeds == 0 {
        return Err(Error::usage(
            "nothing to judge: give at least one fit and one seed",
        ));
    }
    let fits = for_width(&config.fits, source.shape().1);
    let config = &QualityConfig {
        fits,
        ..config.clone()
    };
    let bench = Bench::new(source, tokens, &config.holdout, ctx)?;
    let mut judge = MethodJudge {
        bench: &bench,
        tokens,
        ctx,
        on_method,
        methods: Vec::new(),
    };
    let mut first = None;
    for fit in &config.fits {
        let candidates = seeds(fit.seed, config.seeds)
            .map(|seed| {
                bench.fit(
                    &FitConfig {
                        seed,
                        ..fit.clone()
                    },
                    None,
                    ctx,
                )
            })
            .collect::<Result<Vec<_>>>()?;
        judge.add(fit_name(fit), MethodKind::Fit, None, Some(fit), &candidates)?;
        first.get_or_insert_with(|| candidates[0].directions.clone());
    }
    if config.controls {
        controls(&mut judge, config)?;
    }
    let methods = judge.methods;
    let shuffled = match &first {
        Some(directions) if config.controls => {
            bench.judge_shuffled(directions, config.fits[0].seed, ctx)?
        }
        _ => Vec::new(),
    };
    Ok(Quality {
        division: division(&bench),
        intervals: intervals(&methods, config.resamples, config.fits[0].seed),
        differences: differences(
            &methods,
            SINGLE_NEURONS,
            config.resamples,
            config.fits[0].seed,
        ),
        notes: notes(&bench, config),
        methods,
        shuffled: DetectionReport::new(&[shuffled], tokens),
    })
}

/// Measures candidates and collects the reports.
struct MethodJudge<'a> {
    bench: &'a Bench<'a>,
    tokens: &'a TokenTable,
    ctx: &'a TaskCtx,
    on_method: &'a mut dyn FnMut(&MethodReport) -> Result<()>,
    methods: Vec<MethodReport>,
}

impl MethodJudge<'_> {
    fn add(
        &mut self,
        name: String,
        kind: MethodKind,
        sparsity: Option<f64>,
        fit: Option<&FitConfig>,
        candidates: &[Candidate],
    ) -> Result<()> {
        let report = judged(
            self.bench,
            self.tokens,
            name,
            kind,
            sparsity,
            fit,
            candidates,
            self.ctx,
        )?;
        (self.on_method)(&report)?;
        self.methods.push(report);
        Ok(())
    }

    fn add_control(
        &mut self,
        name: String,
        sparsity: Option<f64>,
        made: Vec<(Directions, f64)>,
    ) -> Result<()> {
        let candidates: Vec<_> = made
            .into_iter()
            .map(|(d, seconds)| candidate(d, Choice::Best, seconds))
            .collect();
        self.add(name, MethodKind::Control, sparsity, None, &candidates)
    }
}

/// Measures the candidates of a method, one a seed, and reports their means.
pub(super) fn judged(
    bench: &Bench<'_>,
    tokens: &TokenTable,
    name: String,
    kind: MethodKind,
    sparsity: Option<f64>,
    fit: Option<&FitConfig>,
    candidates: &[Candidate],
    ctx: &TaskCtx,
) -> Result<MethodReport> {
    let measured = candidates
        .iter()
        .map(|c| bench.judge(c, ctx))
        .collect::<Result<Vec<_>>>()?;
    Ok(MethodReport::new(
        name,
        kind,
        sparsity,
        fit.cloned(),
        candidates,
        &measured,
        tokens,
    ))
}

fn candidate(directions: Directions, choice: Choice, seconds: f64) -> Candidate {
    Candidate {
        directions,
        choice,
        factors: None,
        seconds,
    }
}

/// The fits as they are for rows of d neurons.
pub(super) fn for_width(fits: &[FitConfig], d: usize) -> Vec<FitConfig> {
    fits.iter()
        .map(|fit| fit.clone().with_sparsity_at(d))
        .collect()
}

pub(super) fn seeds(first: u64, count: usize) -> impl Iterator<Item = u64> {
    (0..count as u64).map(move |i| first.wrapping_add(i))
}

/// k-means centroids, random directions, single neurons and differences in means, dense and at the
/// fits' sparsities.
fn controls(judge: &mut MethodJudge<'_>, config: &QualityConfig) -> Result<()> {
    let d = judge.bench.train().shape().1;
    let first = config.fits[0].seed;
    let distinct = |values: Vec<(usize, f64)>| {
        let mut out: Vec<(usize, f64)> = Vec::new();
        values.into_iter().for_each(|v| {
            if !out.contains(&v) {
                out.push(v)
            }
        });
        out
    };
    let shapes = distinct(
        config
            .fits
            .iter()
            .map(|f| (f.features, f.sparsity_at(d)))
            .collect(),
    );
    for (k, _) in distinct(shapes.iter().map(|s| (s.0, 0.0)).collect()) {
        let mut made = Vec::new();
        for seed in seeds(first, config.seeds) {
            let started = Instant::now();
            made.push((
                judge.bench.centroids(k, seed, judge.ctx)?,
                started.elapsed().as_secs_f64(),
            ));
        }
        for &(_, p) in shapes
            .iter()
            .filter(|s| s.0 == k && support_size(s.1, d) < d)
        {
            let cut = made
                .iter()
                .map(|(m, s)| (m.cut(support_size(p, d)), *s))
                .collect();
            judge.add_control(
                format!("k-means k {k}, cut to {}", percent(p)),
                Some(p),
                cut,
            )?;
        }
        judge.add_control(format!("k-means k {k}, dense"), None, made)?;
    }
    for &(k, p) in &shapes {
        let made = seeds(first, config.seeds)
            .map(|seed| (random::directions(d, k, support_size(p, d), seed), 0.0))
            .collect();
        judge.add_control(
            format!("random directions k {k}, {}", percent(p)),
            Some(p),
            made,
        )?;
    }
    judge.add_control(
        SINGLE_NEURONS.to_owned(),
        None,
        vec![(Directions::Neurons(d), 0.0)],
    )?;
    if judge.bench.split().labels.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    let means = judge.bench.differences_in_means(judge.ctx)?;
    let seconds = started.elapsed().as_secs_f64();
    for (_, p) in distinct(
        shapes
            .iter()
            .filter(|s| support_size(s.1, d) < d)
            .map(|s| (0, s.1))
            .collect(),
    ) {
        let cut = candidate(means.cut(support_size(p, d)), Choice::Own, seconds);
        judge.add(
            format!("DiffMean, cut to {}", percent(p)),
            MethodKind::Supervised,
            Some(p),
            None,
            &[cut],
        )?;
    }
    let dense = candidate(means, Choice::Own, seconds);
    judge.add(
        "DiffMean, dense".to_owned(),
        MethodKind::Supervised,
        None,
        None,
        &[dense],
    )
}

/// The objectives to compare at the k and p of `base`, which comes first: without penalty,
/// with the default one, with a cap, with scaled rows, with scaled neurons, with a centre, and the
/// paper's updates.
pub fn objectives(base: &FitConfig) -> Vec<FitConfig> {
    let bare = FitConfig {
        solver: Solver::Bcd,
        row_cap: None,
        ..base.clone()
    }
    .without_preprocessing();
    let l1 = FitConfig::default().l1;
    let others = [
        FitConfig {
            l1: 0.0,
            ..bare.clone()
        },
        FitConfig { l1, ..bare.clone() },
        FitConfig {
            l1: 0.0,
            row_cap: Some(ROW_CAP),
            scale_rows: true,
            centre: true,
            ..bare.clone()
        },
        FitConfig {
            l1,
            scale_rows: true,
            ..bare.clone()
        },
        FitConfig {
            l1,
            scale_neurons: true,
            ..bare.clone()
        },
        FitConfig {
            l1,
            centre: true,
            ..bare.clone()
        },
        FitConfig {
            l1,
            scale_rows: true,
            centre: true,
            ..bare.clone()
        },
        FitConfig {
            l1: 0.0,
            solver: Solver::Mu,
            ..bare
        },
    ];
    let mut out = vec![base.clone()];
    for config in others {
        if !out.contains(&config) {
            out.push(config);
        }
    }
    out
}

pub(super) fn division(bench: &Bench<'_>) -> Division {
    let held = bench
        .split()
        .sentences
        .iter()
        .filter(|s| s.held_out)
        .count();
    Division {
        train_sentences: bench.split().sentences.len() - held,
        held_out_sentences: held,
        train_tokens: bench.train().shape().0,
        held_out_tokens: bench.held_out().shape().0,
        labels: bench.split().labels.len(),
    }
}

fn notes(bench: &Bench<'_>, config: &QualityConfig) -> Vec<String> {
    let mut notes = Vec::new();
    if bench.split().labels.is_empty() {
        notes.push(format!(
            "no two labels have {} sentences or more: concept detection and DiffMean are left out",
            config.holdout.label_size
        ));
    }
    if config.seeds < 3 {
        notes.push("fewer than 3 seeds: stability and the means over seeds say little".to_owned());
    }
    if config.seeds > 1 && config.fits.iter().any(|f| f.init == Init::Svd) {
        notes.push(
            "an SVD start hardly depends on the seed: its stability is no evidence".to_owned(),
        );
    }
    notes
}

/// "bcd k 100, 1 %, λ 0.1".
pub fn fit_name(config: &FitConfig) -> String {
    let share = config
        .sparsity
        .map_or_else(|| "sparsity auto".to_owned(), percent);
    let solver = match config.solver {
        Solver::Bcd => format!("bcd k {}, {share}, λ {}", config.features, config.l1),
        Solver::Mu => format!("mu k {}, {share}", config.features),
    };
    let mut name = solver;
    if let Some(cap) = config.row_cap {
        name += &format!(", cap {cap}");
    }
    let options = [
        (config.scale_rows, ", scaled"),
        (config.scale_neurons, ", scaled neurons"),
        (config.centre, ", centred"),
        (config.init == Init::Random, ", random start"),
        (config.init == Init::Svd, ", SVD start"),
    ];
    options
        .iter()
        .filter(|(on, _)| *on)
        .for_each(|(_, words)| name += words);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_fits_apart() {
        let base = FitConfig {
            l1: 0.1,
            ..FitConfig::plain()
        }
        .with_sparsity_at(8192);
        assert_eq!(fit_name(&base), "bcd k 100, 1 %, λ 0.1");
        let mu = FitConfig {
            solver: Solver::Mu,
            init: Init::Random,
            sparsity: Some(0.07),
            ..base.clone()
        };
        assert_eq!(fit_name(&mu), "mu k 100, 7 %, random start");
        let capped = FitConfig {
            row_cap: Some(8),
            scale_rows: true,
            centre: true,
            ..base.clone()
        };
        assert_eq!(
            fit_name(&capped),
            "bcd k 100, 1 %, λ 0.1, cap 8, scaled, centred"
        );
        let all = objectives(&capped);
        assert_eq!((all.len(), &all[0]), (9, &capped));
        let names: std::collections::HashSet<String> = all.iter().map(fit_name).collect();
        assert_eq!(names.len(), 9, "every objective has a name of its own");
        assert_eq!(objectives(&FitConfig::default()).len(), 8);
    }
}
