//! The α at which steered next-token distributions reach a given KL.
//!
//! Many strengths and directions share a forward pass: they differ only above the first layer that
//! is steered, so the layers below run once. Invariant: every pass holds the unsteered prompts too,
//! so that both sides of a KL are computed the same way.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use super::Positions;
use super::bisection::Bisection;
use super::change::mean_kls;
use super::intervention::{Intervention, Mode};
use super::search::{Calibration, Search};
use super::tap::{SteerTap, Steering, TokenSelection};
use crate::error::{Error, Result};
use crate::model::{LayerInput, Logits, Model, Portion};
use crate::task::{Progress, TaskCtx};

/// The most rows and tokens of one forward pass.
const PASS_ROWS: usize = 128;
const PASS_TOKENS: usize = 4096;

/// The prompts on which the KL of steering is measured, run once up to the first steered layer.
pub(super) struct CalibrationPrompts<'a> {
    model: &'a Model,
    /// The activations below the first steered layer.
    input: LayerInput,
    selection: TokenSelection,
    /// Whether a steering may overflow, whose KL is NaN then.
    tolerant: bool,
    /// The most rows of a pass.
    portion: Mutex<Portion>,
}

impl<'a> CalibrationPrompts<'a> {
    pub(super) fn read(
        model: &'a Model,
        prompts: &[Vec<u32>],
        interventions: &[&Arc<Intervention>],
        positions: Positions,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        let layer = interventions
            .iter()
            .flat_map(|p| p.hooks())
            .map(|h| h.layer)
            .min()
            .unwrap_or(0);
        Self::read_to(model, prompts, layer, positions, ctx)
    }

    /// The same for steerings that touch no layer below `layer`.
    pub(super) fn read_to(
        model: &'a Model,
        prompts: &[Vec<u32>],
        layer: usize,
        positions: Positions,
        ctx: &TaskCtx,
    ) -> Result<Self> {
        if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
            return Err(Error::usage(
                "steering cannot be measured on an empty prompt: give a text such as 'I think that'",
            ));
        }
        let selection = match positions {
            Positions::All => TokenSelection::All,
            Positions::Generated => TokenSelection::LastOfPrompt,
            Positions::Span { from, to } => TokenSelection::Span { from, to },
        };
        let input = model.layer_input(prompts, layer, ctx)?;
        let most = (PASS_TOKENS / input.tokens().max(1)).min(PASS_ROWS);
        Ok(Self {
            model,
            input,
            selection,
            tolerant: false,
            portion: Mutex::new(Portion::new(most)),
        })
    }

    /// Lets steerings overflow, for a search that tries how strong is too strong.
    pub(super) fn tolerant(self) -> Self {
        Self {
            tolerant: true,
            ..self
        }
    }

    /// Runs as many steerings at a time as fit into a forward pass, or one in several passes where not
    /// even all prompts do. `on_pass` takes the logits of the
    /// last tokens where the model computes: `[prompts, vocab]` unsteered, then `[steering · prompts,
    /// vocab]`, a steering after the other. Where it fails it must have kept nothing, as it is called
    /// again with fewer steerings where the device was full.
    pub(super) fn for_each_pass(
        &self,
        steerings: &[Steering],
        ctx: &TaskCtx,
        mut on_pass: impl FnMut(&Tensor, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let prompts = self.input.rows();
        let mut portion = self.portion.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rest = steerings;
        while !rest.is_empty() {
            let most = (portion.most() / prompts).saturating_sub(1);
            let (now, later) = rest.split_at(most.clamp(1, rest.len()));
            let at_once = (portion.most() / (now.len() + 1)).clamp(1, prompts);
            let outcome = self
                .logits(now, at_once, ctx)
                .and_then(|(base, steered)| on_pass(&base, &steered));
            match outcome {
                Ok(()) => rest = later,
                Err(error) => {
                    // A prompt without steering, and with one.
                    let taken = ((now.len() + 1) * at_once, 2);
                    portion.shrink(error, self.model.device(), taken, "rows")?;
                }
            }
        }
        Ok(())
    }

    /// The logits of the last tokens without steering and with each of `steerings`, from passes over
    /// `at_once` prompts. Only one steering is measured on prompts that are divided.
    fn logits(
        &self,
        steerings: &[Steering],
        at_once: usize,
        ctx: &TaskCtx,
    ) -> Result<(Tensor, Tensor)> {
        let prompts = self.input.rows();
        let parts = (0..prompts).step_by(at_once);
        let (mut base, mut steered): (Vec<Tensor>, Vec<Tensor>) = parts
            .map(|from| self.pass(steerings, from..prompts.min(from + at_once), ctx))
            .collect::<Result<_>>()?;
        if base.len() == 1 {
            return Ok((base.swap_remove(0), steered.swap_remove(0)));
        }
        Ok((Tensor::cat(&base, 0)?, Tensor::cat(&steered, 0)?))
    }

    fn pass(
        &self,
        steerings: &[Steering],
        prompts: Range<usize>,
        ctx: &TaskCtx,
    ) -> Result<(Tensor, Tensor)> {
        let all = std::iter::once(None).chain(steerings.iter().cloned().map(Some));
        let each = all
            .flat_map(|s| std::iter::repeat_n(s, prompts.len()))
            .collect::<Vec<_>>();
        let prompt_of_row: Vec<usize> = prompts.clone().cycle().take(each.len()).collect();
        let prompts = prompts.len();
        let mut tap = SteerTap::new(each, self.selection)?;
        if self.tolerant {
            tap = tap.tolerant();
        }
        let logits =
            self.model
                .forward_from(&self.input, &prompt_of_row, &mut tap, Logits::Last, ctx)?;
        let logits =
            logits.ok_or_else(|| Error::refused("the model gave no logits for the prompt"))?;
        let base = logits.narrow(0, 0, prompts)?;
        let steered = logits.narrow(0, prompts, logits.dim(0)? - prompts)?;
        Ok((base, steered))
    }

    /// The mean over the prompts of the KL of each steering.
    fn kls(&self, steerings: &[Steering], ctx: &TaskCtx) -> Result<Vec<f64>> {
        let mut kls: Vec<f64> = Vec::with_capacity(steerings.len());
        self.for_each_pass(steerings, ctx, |base, steered| {
            kls.extend(mean_kls(self.model, base, steered)?);
            Ok(())
        })?;
        Ok(kls)
    }
}

/// KL(base ‖ steered) at the last token of each steering, the mean over `prompts`.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt; what the model returns; [`Error::Cancelled`].
pub fn kls_of(
    model: &Model,
    steerings: &[Steering],
    prompts: &[Vec<u32>],
    positions: Positions,
    ctx: &TaskCtx,
) -> Result<Vec<f64>> {
    let interventions: Vec<&Arc<Intervention>> =
        steerings.iter().map(|s| &s.intervention).collect();
    CalibrationPrompts::read(model, prompts, &interventions, positions, ctx)?.kls(steerings, ctx)
}

/// An intervention with the sign of its α.
#[derive(Debug, Clone)]
pub struct SignedIntervention {
    /// The intervention, without its strength.
    pub intervention: Arc<Intervention>,
    /// Whether α is negative: suppress instead of promote.
    pub negative: bool,
}

/// How α is searched for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SearchMethod {
    /// By a curve through what was seen, whatever its shape ([`Search`]).
    #[default]
    Curve,
    /// As the paper does ([`Bisection`]).
    Bisection,
}

impl SearchMethod {
    fn start(self, targets: &[f64]) -> Result<Searcher> {
        Ok(match self {
            Self::Curve => Searcher::Curve(Search::new(targets)?),
            Self::Bisection => Searcher::Bisection(Bisection::new(targets)?),
        })
    }
}

enum Searcher {
    Curve(Search),
    Bisection(Bisection),
}

impl Searcher {
    fn propose(&mut self) -> Vec<f64> {
        match self {
            Self::Curve(search) => search.propose(),
            Self::Bisection(search) => search.propose(),
        }
    }

    fn observe(&mut self, alphas: &[f64], kls: &[f64]) {
        match self {
            Self::Curve(search) => search.observe(alphas, kls),
            Self::Bisection(search) => search.observe(alphas, kls),
        }
    }

    fn results(&self) -> Vec<Calibration> {
        match self {
            Self::Curve(search) => search.results(),
            Self::Bisection(search) => search.results(),
        }
    }
}

/// [`calibrate_by`] the curve.
///
/// # Errors
/// As [`calibrate_by`].
pub fn calibrate(
    model: &Model,
    signed: &[SignedIntervention],
    prompts: &[Vec<u32>],
    targets: &[f64],
    positions: Positions,
    ctx: &TaskCtx,
) -> Result<Vec<Vec<Calibration>>> {
    let by = SearchMethod::Curve;
    calibrate_by(by, model, signed, prompts, targets, positions, ctx)
}

/// Searches, for each signed intervention and target, the α at which the mean over `prompts` (token
/// ids each) of KL(base ‖ steered) at the last token reaches the target. The returned α are
/// unsigned: one list an intervention, in the order of the targets. The result of an intervention
/// does not depend on the others.
///
/// # Errors
/// [`Error::Usage`] for an empty prompt, a target that is no positive number, and for
/// [`Mode::Set`], whose KL does not begin at 0; what the model returns; [`Error::Cancelled`].
pub fn calibrate_by(
    by: SearchMethod,
    model: &Model,
    signed: &[SignedIntervention],
    prompts: &[Vec<u32>],
    targets: &[f64],
    positions: Positions,
    ctx: &TaskCtx,
) -> Result<Vec<Vec<Calibration>>> {
    if signed
        .iter()
        .any(|signed| signed.intervention.mode() == Mode::Set)
    {
        return Err(Error::usage(
            "setting a component has no KL to aim for, as α = 0 changes it too: give --alpha",
        ));
    }
    let interventions: Vec<&Arc<Intervention>> = signed.iter().map(|a| &a.intervention).collect();
    let read = CalibrationPrompts::read(model, prompts, &interventions, positions, ctx)?.tolerant();
    let mut searches = signed
        .iter()
        .map(|_| by.start(targets))
        .collect::<Result<Vec<_>>>()?;
    let mut tried = 0;
    loop {
        let proposed: Vec<Vec<f64>> = searches.iter_mut().map(Searcher::propose).collect();
        let steering = |(signed, alpha): (&SignedIntervention, f64)| Steering {
            intervention: signed.intervention.clone(),
            alpha: if signed.negative { -alpha } else { alpha },
        };
        let steerings: Vec<Steering> = signed
            .iter()
            .zip(&proposed)
            .flat_map(|(signed, alphas)| alphas.iter().map(move |&a| (signed, a)))
            .map(steering)
            .collect();
        if steerings.is_empty() {
            return Ok(searches.iter().map(Searcher::results).collect());
        }
        ctx.checkpoint(Progress::new("calibrating", tried, None, "strengths"))?;
        tried += steerings.len() as u64;
        let kls = read.kls(&steerings, ctx)?;
        let mut kls = &kls[..];
        for (search, alphas) in searches.iter_mut().zip(&proposed) {
            let (observed, rest) = kls.split_at(alphas.len());
            search.observe(alphas, observed);
            kls = rest;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
