//! Interventions: a tap that adds α·v at a hook; calibration of α; steered generation beside the baseline.
//!
//! Knows directions, not where they come from, except in [`terms`]. Invariant: baseline and steered rows are rows of one
//! batch with the same draws, so at α = 0 their texts are the same.

pub mod calibrate;
#[cfg(test)]
mod real_model;
pub mod tap;
pub mod terms;

use serde::{Deserialize, Serialize};

use crate::analysis::ScoredToken;
use crate::analysis::lens::extremes;
use crate::error::{Error, Result};
use crate::model::generate::{NewToken, Sampling, generate_streams};
use crate::model::{BosRule, HookPoint, Model};
use crate::task::TaskCtx;
use calibrate::{kl, last_logits};
use tap::{SteerTap, Touch};

pub use terms::{SteerPart, core_term, direction_term, feature_term, part_term};

/// Risen and fallen tokens that a run shows.
const SHIFTED: usize = 10;

/// One direction of an intervention with its share of the strength.
#[derive(Debug, Clone, PartialEq)]
pub struct SteerTerm {
    /// The hook at which it is added.
    pub hook: HookPoint,
    /// What α = 1 adds, of the hook's width: a unit vector, but for Gemma 2/3 from `mlp.hook_post`, where it is
    /// post_ffw_norm(W_outᵀ z) as it comes (method, section 4).
    pub direction: Vec<f32>,
    /// Multiplies α; 1 for a single feature, negative suppresses.
    pub weight: f32,
}

/// How strong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// α itself.
    Alpha(f64),
    /// The KL(base ‖ steered) at the last token of the calibration prompts that α is searched for.
    Kl(f64),
}

/// Which tokens of the steered row are touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// Prompt and generated tokens.
    #[default]
    All,
    /// Generated tokens alone.
    Generated,
}

/// A steering run as asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct SteerRequest {
    /// What is added.
    pub terms: Vec<SteerTerm>,
    /// How strong, before `negative`.
    pub strength: Strength,
    /// Suppress instead of promote.
    pub negative: bool,
    /// Where.
    pub positions: Positions,
    /// The text to continue.
    pub prompt: String,
    /// Baseline and steered texts each.
    pub samples: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The study's BOS rule.
    pub bos: BosRule,
}

/// What is known before the first token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SteerInfo {
    /// The signed α in use.
    pub alpha: f64,
    /// KL(base ‖ steered) at the last token of the prompt with that α.
    pub kl: f64,
    /// A target that could not be reached, or was reached elsewhere on a curve that is not monotone, in words.
    pub note: Option<String>,
    /// Logits that rose most at the prompt's last token (a shift that all logits share is left in).
    pub risen: Vec<ScoredToken>,
    /// Logits that fell most.
    pub fallen: Vec<ScoredToken>,
}

/// A steering run's progress.
#[derive(Debug, Clone, PartialEq)]
pub enum SteerEvent {
    /// α was found.
    Info(SteerInfo),
    /// A piece of text of sample `sample`, baseline or steered.
    Text {
        /// The sample.
        sample: usize,
        /// Whether it is the steered row.
        steered: bool,
        /// The new text.
        text: String,
    },
}

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Steered {
    /// α, KL, shifted tokens.
    pub info: SteerInfo,
    /// Unsteered texts, one a sample.
    pub baseline: Vec<String>,
    /// Steered texts, one a sample.
    pub steered: Vec<String>,
}

/// Calibrates, then generates baseline and steered rows as one batch with the same draws, the tap touching the steered
/// rows only. Row 2i is sample i's baseline, row 2i + 1 its steered twin.
pub fn steer(
    model: &Model,
    request: &SteerRequest,
    emit: &mut dyn FnMut(SteerEvent),
    ctx: &TaskCtx,
) -> Result<Steered> {
    check(model, request)?;
    let prompt = model.tokenizer().encode(&request.prompt, request.bos)?;
    if prompt.is_empty() {
        return Err(Error::usage("the prompt has no tokens: give a text such as 'I think that'"));
    }
    let info = inform(model, request, &prompt, ctx)?;
    emit(SteerEvent::Info(info.clone()));

    let rows = 2 * request.samples;
    let strengths = (0..rows).map(|row| if row % 2 == 1 { info.alpha } else { 0.0 }).collect();
    let touch = match request.positions {
        Positions::All => Touch::All,
        Positions::Generated => Touch::Generated,
    };
    let mut tap = SteerTap::new(&request.terms, strengths, touch)?;
    let mut on_token = |token: NewToken| {
        if !token.text.is_empty() {
            emit(SteerEvent::Text { sample: token.row / 2, steered: token.row % 2 == 1, text: token.text });
        }
    };
    let streams: Vec<u64> = (0..rows).map(|row| row as u64 / 2).collect();
    let prompts = vec![prompt; rows];
    let texts = generate_streams(model, &prompts, &streams, &request.sampling, &mut tap, &mut on_token, ctx)?;
    let (steered, baseline): (Vec<_>, Vec<_>) = texts.into_iter().enumerate().partition(|(row, _)| row % 2 == 1);
    let text = |rows: Vec<(usize, String)>| rows.into_iter().map(|(_, text)| text).collect();
    Ok(Steered { info, baseline: text(baseline), steered: text(steered) })
}

/// Refuses what cannot be run before any work is done.
fn check(model: &Model, request: &SteerRequest) -> Result<()> {
    if request.terms.is_empty() {
        return Err(Error::usage("there is nothing to steer with: name at least one feature"));
    }
    if request.samples == 0 {
        return Err(Error::usage("steering needs at least one sample"));
    }
    for term in &request.terms {
        let (width, given) = (model.width(term.hook)?, term.direction.len());
        if width != given {
            return Err(Error::usage(format!("the direction has {given} values, but {} is {width} wide", term.hook)));
        }
        if !term.weight.is_finite() || term.direction.iter().any(|v| !v.is_finite()) {
            return Err(Error::usage(format!("the direction at {} holds a number that is not finite", term.hook)));
        }
    }
    Ok(())
}

/// Finds α and what it does at the prompt's last token.
fn inform(model: &Model, request: &SteerRequest, prompt: &[u32], ctx: &TaskCtx) -> Result<SteerInfo> {
    let sign = if request.negative { -1.0 } else { 1.0 };
    let (alpha, note) = match request.strength {
        Strength::Alpha(alpha) => (sign * alpha, None),
        Strength::Kl(target) => {
            let prompts = [prompt.to_vec()];
            let (terms, negative, positions) = (&request.terms, request.negative, request.positions);
            let found = calibrate::calibrate(model, terms, &prompts, target, negative, positions, ctx)?;
            (sign * found.alpha, found.note)
        }
    };
    let logits = last_logits(model, &request.terms, prompt, &[alpha], request.positions, ctx)?;
    let (base, steered) = (&logits[0], &logits[1]);
    let shifts: Vec<f32> = steered.iter().zip(base).map(|(s, b)| s - b).collect();
    let (risen, fallen) = extremes(&shifts, SHIFTED, model.tokenizer());
    Ok(SteerInfo { alpha, kl: kl(base, steered), note, risen, fallen })
}
