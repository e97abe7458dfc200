//! Interventions: a tap that adds α·v, sets or ablates a direction at a hook; calibration of α; steered generation beside
//! the baseline.

pub mod calibrate;

use serde::{Deserialize, Serialize};

use crate::analysis::ScoredToken;
use crate::error::Result;
use crate::factor::Factors;
use crate::model::generate::Sampling;
use crate::model::{BosRule, HookPoint, Model};
use crate::task::TaskCtx;

/// One direction of an intervention with its share of the strength.
#[derive(Debug, Clone, PartialEq)]
pub struct SteerTerm {
    /// The hook at which it is added.
    pub hook: HookPoint,
    /// Unit vector of the hook's width.
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
    /// Logits that rose most at the prompt's last token.
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

/// The term that steers with feature `id`: z_j at `mlp.hook_post`; for Gemma 2/3, post_ffw_norm(W_outᵀ z) at
/// `hook_mlp_out` (method, section 4).
pub fn feature_term(model: &Model, hook: HookPoint, factors: &Factors, id: usize, weight: f32) -> Result<SteerTerm> {
    let _ = (model, hook, factors, id, weight);
    unimplemented!()
}

/// Calibrates, then generates baseline and steered rows as one batch with the same draws, the tap touching the steered
/// rows only.
pub fn steer(
    model: &Model,
    request: &SteerRequest,
    emit: &mut dyn FnMut(SteerEvent),
    ctx: &TaskCtx,
) -> Result<Steered> {
    let _ = (model, request, emit, ctx);
    unimplemented!()
}
