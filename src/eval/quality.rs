//! The quality of fits compared with controls, every method on the same division of the same corpus.
//!
//! Every fit is made on the training sentences alone: one that has seen the held-out sentences
//! proves nothing about them.

use serde::{Deserialize, Serialize};

use super::bench::{Bench, Candidate};
use super::compared::{MeasureInterval, MethodDifference, differences, intervals};
use super::report::{DetectionReport, MethodKind, MethodReport};
use super::split::Holdout;
use crate::activations::ActivationSource;
use crate::corpus::TokenTable;
use crate::directions::Baseline;
use crate::error::{Error, Result};
use crate::factor::{FitConfig, Init};
use crate::model::{HookPoint, HookSite};
use crate::task::TaskCtx;

mod controls;
mod objectives;

pub use objectives::{fit_name, objectives};

/// The configuration of a quality evaluation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QualityConfig {
    /// The fits; the first of each number of features and sparsity is what others of the same are
    /// compared with.
    pub fits: Vec<FitConfig>,
    /// Fits of each, with seeds counting up from its own.
    pub seeds: usize,
    /// What is held out.
    pub holdout: Holdout,
    /// The hook that the rows are activations of.
    pub hook: HookPoint,
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
            hook: HookPoint {
                layer: 0,
                site: HookSite::MlpPost,
            },
            controls: true,
            resamples: 10_000,
        }
    }
}

/// How the corpus was divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    bench.check(&config.fits)?;
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
        controls::judge(&mut judge, config)?;
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
            Baseline::Neuron.title(),
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

/// The fits as they are for rows of d neurons.
pub(super) fn for_width(fits: &[FitConfig], d: usize) -> Vec<FitConfig> {
    fits.iter()
        .map(|fit| fit.clone().with_sparsity_at(d))
        .collect()
}

pub(super) fn seeds(first: u64, count: usize) -> impl Iterator<Item = u64> {
    (0..count as u64).map(move |i| first.wrapping_add(i))
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
