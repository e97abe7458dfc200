//! Steering: a tap that adds α·v at a hook, sets a component or projects it out; calibration of α;
//! steered generation beside the baseline.
//!
//! Knows directions, not where they come from, except in [`terms`]. Invariant: baseline and steered
//! rows are rows of one batch with the same draws, so at α = 0 their texts are the same.

mod baked;
pub mod bisection;
pub mod calibrate;
pub mod change;
pub mod effects;
pub mod intervention;
#[cfg(test)]
mod real_model;
pub mod search;
pub mod tap;
pub mod terms;

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::analysis::ScoredToken;
use crate::analysis::lens::extreme_tokens;
use crate::error::{Error, Result};
use crate::model::generate::{
    Arithmetic, Continuation, GeneratedRow, NewToken, Sampling, generate,
};
use crate::model::{BosRule, HookPoint, Model, Portion};
use crate::task::{Progress, TaskCtx};
use calibrate::SignedIntervention;
use change::change_at;
use tap::{SteerTap, Steering, TokenSelection};

pub use baked::DownProjection;
pub use intervention::{Intervention, Mode};
pub use terms::{
    SteerPart, core_term, direction_term, feature_term, part_direction, part_term, unit,
};

/// How many tokens a run shows whose log-probability rose most, and how many whose fell most.
const SHIFTED: usize = 10;

/// One direction of an intervention with its share of the strength.
#[derive(Debug, Clone, PartialEq)]
pub struct SteerTerm {
    /// The hook at which it is added.
    pub hook: HookPoint,
    /// What α = 1 adds, of the hook's width: a unit vector, but for Gemma 2/3 from `mlp.hook_post`,
    /// where it is post_ffw_norm(W_outᵀ z) as it comes (method, section 4).
    pub direction: Vec<f32>,
    /// Multiplies α; 1 for a single feature, negative suppresses.
    pub weight: f32,
}

/// The strength of an intervention, given directly or by its effect.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// The strength α, unsigned.
    Alpha(f64),
    /// The KL(base ‖ steered) at the last token of the calibration prompts that α is searched for.
    Kl(f64),
}

/// Which tokens of the steered row are steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// Prompt and generated tokens.
    #[default]
    All,
    /// The generated tokens, not the prompt.
    Generated,
    /// Those at positions `from..to` of prompt and continuation; BOS, where there is one, is at 0.
    Span {
        /// Position of the first token.
        from: usize,
        /// The position after the last token.
        to: usize,
    },
}

impl FromStr for Positions {
    type Err = Error;

    /// `all`, `generated`, or `FROM..TO`.
    fn from_str(text: &str) -> Result<Self> {
        let span = || {
            let (from, to) = text.split_once("..")?;
            Some(Self::Span {
                from: from.parse().ok()?,
                to: to.parse().ok()?,
            })
        };
        match text {
            "all" => Ok(Self::All),
            "generated" => Ok(Self::Generated),
            _ => span().ok_or_else(|| {
                Error::usage(format!(
                    "'{}' names no tokens: use all, generated, or positions such as 3..7",
                    text.escape_debug()
                ))
            }),
        }
    }
}

/// The request of a steering run.
#[derive(Debug, Clone, PartialEq)]
pub struct SteerRequest {
    /// The directions with their shares of the strength.
    pub terms: Vec<SteerTerm>,
    /// What is done along them.
    pub mode: Mode,
    /// The strength, before the sign of `negative`.
    pub strength: Strength,
    /// Whether α is negative: suppress instead of promote.
    pub negative: bool,
    /// The tokens that are steered.
    pub positions: Positions,
    /// The texts to continue; α is calibrated on their mean KL.
    pub prompts: Vec<String>,
    /// Baseline and steered texts of each prompt.
    pub samples: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The study's BOS rule.
    pub bos: BosRule,
}

/// What calibration found, known before the first token is generated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SteerInfo {
    /// The signed α in use.
    pub alpha: f64,
    /// KL(base ‖ steered) at the last token of the prompt with that α, the mean over the prompts.
    pub kl: f64,
    /// A target that could not be reached, or was reached elsewhere on a curve that is not
    /// monotone, in words.
    pub note: Option<String>,
    /// Tokens whose log-probability rose most at the prompt's last token, with the difference in
    /// nats, the mean over the prompts: what all logits share has no part in it.
    pub risen: Vec<ScoredToken>,
    /// Tokens whose log-probability fell most.
    pub fallen: Vec<ScoredToken>,
}

/// An event of a steering run, in the order in which they happen.
#[derive(Debug, Clone, PartialEq)]
pub enum SteerEvent {
    /// Calibration has found α.
    Info(SteerInfo),
    /// A piece of text of sample `sample`, baseline or steered.
    Text {
        /// The sample: `samples` of the first prompt, then of the next.
        sample: usize,
        /// Whether it is the steered row.
        steered: bool,
        /// The text of the new token or tokens.
        text: String,
    },
}

/// The result of a steering run.
#[derive(Debug, Clone, PartialEq)]
pub struct SteerOutput {
    /// α, KL, shifted tokens.
    pub info: SteerInfo,
    /// Unsteered texts, one a sample, prompt after prompt.
    pub baseline: Vec<String>,
    /// Steered texts, one a sample.
    pub steered: Vec<String>,
}

/// Calibrates, then generates baseline and steered rows as one batch with the same draws, the tap
/// acting on the steered rows only. The samples of a prompt share its key-value cache: the prompt
/// runs once without and once with steering.
///
/// # Errors
/// [`Error::Usage`] for a request without terms, samples or tokens, with directions of another
/// width, or with a span or strength that cannot be; what the model returns; [`Error::Cancelled`].
pub fn steer(
    model: &Model,
    request: &SteerRequest,
    emit: &mut dyn FnMut(SteerEvent),
    ctx: &TaskCtx,
) -> Result<SteerOutput> {
    let intervention = Arc::new(check(model, request)?);
    let encode = |text: &String| model.tokenizer().encode(text, request.bos);
    let prompts = request
        .prompts
        .iter()
        .map(encode)
        .collect::<Result<Vec<_>>>()?;
    if prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
        return Err(Error::usage(
            "the prompt has no tokens: give a text such as 'I think that'",
        ));
    }
    check_span(request, &prompts)?;
    let info = steer_info(model, request, &intervention, &prompts, ctx)?;
    emit(SteerEvent::Info(info.clone()));

    let samples = request.samples;
    let selection = match request.positions {
        Positions::All => TokenSelection::All,
        Positions::Generated => TokenSelection::Generated,
        Positions::Span { from, to } => TokenSelection::Span { from, to },
    };
    // The rows of a prompt are its baseline rows, then the steered rows with the same draws.
    let sample_of_row = |row: usize| {
        (
            row / (2 * samples) * samples + row % samples,
            row / samples % 2 == 1,
        )
    };
    let rows = 2 * samples * prompts.len();
    let steering = |row| {
        sample_of_row(row).1.then(|| Steering {
            intervention: intervention.clone(),
            alpha: info.alpha,
        })
    };
    let mut tap = SteerTap::new((0..rows).map(steering).collect(), selection)?;
    let streams = |p: usize| (p * samples..(p + 1) * samples).map(|s| s as u64).collect();
    let continuations: Vec<Continuation> = prompts
        .iter()
        .enumerate()
        .flat_map(|(p, ids)| {
            std::iter::repeat_n(
                Continuation {
                    prompt: ids.clone(),
                    streams: streams(p),
                },
                2,
            )
        })
        .collect();
    // The longest text tells how far all are, for the rows of a batch grow together.
    let (mut lengths, mut longest) = (vec![0u64; rows], 0);
    let most = request.sampling.max_tokens as u64;
    let writing = |done| ctx.checkpoint(Progress::new("writing", done, most, "tokens"));
    writing(0)?;
    let mut on_token = |token: NewToken| {
        lengths[token.row] += 1;
        if lengths[token.row] > longest {
            longest = lengths[token.row];
            // The generation itself ends where it was cancelled.
            let _ = writing(longest);
        }
        if !token.text.is_empty() {
            let (sample, steered) = sample_of_row(token.row);
            emit(SteerEvent::Text {
                sample,
                steered,
                text: token.text,
            });
        }
    };
    let texts = generate(
        model,
        &continuations,
        &request.sampling,
        Arithmetic::Quick,
        &mut Portion::unlimited(),
        &mut tap,
        &mut on_token,
        ctx,
    )?;
    let (steered, baseline): (Vec<_>, Vec<_>) = texts
        .into_iter()
        .enumerate()
        .partition(|(row, _)| sample_of_row(*row).1);
    let text = |rows: Vec<(usize, _)>| {
        rows.into_iter()
            .map(|(_, new): (_, GeneratedRow)| new.text)
            .collect()
    };
    Ok(SteerOutput {
        info,
        baseline: text(baseline),
        steered: text(steered),
    })
}

/// Refuses a request that cannot be run, before any work is done.
fn check(model: &Model, request: &SteerRequest) -> Result<Intervention> {
    if request.terms.is_empty() {
        return Err(Error::usage(
            "there is nothing to steer with: name at least one feature",
        ));
    }
    if request.samples == 0 {
        return Err(Error::usage("steering needs at least one sample"));
    }
    for term in &request.terms {
        let (width, given) = (model.width(term.hook)?, term.direction.len());
        if width != given {
            return Err(Error::usage(format!(
                "the direction has {given} values, but {} is {width} wide",
                term.hook
            )));
        }
        if !term.weight.is_finite() || term.direction.iter().any(|v| !v.is_finite()) {
            return Err(Error::usage(format!(
                "the direction at {} holds a number that is not finite",
                term.hook
            )));
        }
    }
    if let Positions::Span { from, to } = request.positions
        && from >= to
    {
        return Err(Error::usage(format!(
            "no token lies at positions {from}..{to}: the end must be after the start"
        )));
    }
    request.sampling.check()?;
    Intervention::new(&request.terms, request.mode)
}

/// Refuses a span in which no token of a prompt or its continuation can lie; where a KL is the
/// target, in which no token of the prompt lies, since the KL is measured there.
fn check_span(request: &SteerRequest, prompts: &[Vec<u32>]) -> Result<()> {
    let Positions::Span { from, to } = request.positions else {
        return Ok(());
    };
    let measures_kl = matches!(request.strength, Strength::Kl(_));
    // The last new token is never read.
    let new = if measures_kl {
        0
    } else {
        request.sampling.max_tokens.saturating_sub(1)
    };
    let Some((at, ids)) = prompts
        .iter()
        .enumerate()
        .find(|(_, ids)| from >= ids.len() + new)
    else {
        return Ok(());
    };
    let which = if prompts.len() == 1 {
        "the prompt".to_owned()
    } else {
        format!("prompt {}", at + 1)
    };
    Err(Error::usage(match measures_kl {
        true => format!(
            "positions {from}..{to} lie beyond {which}, whose tokens are at 0 to {}: no KL can be measured there; give              --alpha, or earlier positions",
            ids.len() - 1
        ),
        false => {
            format!(
                "positions {from}..{to} lie beyond {which} and its new tokens, at 0 to {}",
                ids.len() + new - 1
            )
        }
    }))
}

/// Finds α, its KL, and the tokens that rise and fall most at the prompts' last tokens.
fn steer_info(
    model: &Model,
    request: &SteerRequest,
    intervention: &Arc<Intervention>,
    prompts: &[Vec<u32>],
    ctx: &TaskCtx,
) -> Result<SteerInfo> {
    let sign = if request.negative { -1.0 } else { 1.0 };
    let (alpha, note) = match request.strength {
        Strength::Alpha(alpha) => (sign * alpha, None),
        Strength::Kl(target) => {
            let signed = SignedIntervention {
                intervention: intervention.clone(),
                negative: request.negative,
            };
            let found =
                calibrate::calibrate(model, &[signed], prompts, &[target], request.positions, ctx)?;
            found
                .into_iter()
                .flatten()
                .next()
                .map_or((0.0, None), |found| (sign * found.alpha, found.note))
        }
    };
    let change = change_at(model, intervention, prompts, alpha, request.positions, ctx)?;
    let shifts: Vec<f32> = change.log_probs.iter().map(|&s| s as f32).collect();
    let (risen, fallen) = extreme_tokens(&shifts, SHIFTED, model.tokenizer());
    Ok(SteerInfo {
        alpha,
        kl: change.kl,
        note,
        risen,
        fallen,
    })
}
