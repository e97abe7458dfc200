//! Logit lens of features and neurons, and features on new text: the only room here that sees a model.

use super::{ScoredToken, Trace};
use crate::error::Result;
use crate::factor::Factors;
use crate::factor::encode::Encoder;
use crate::model::{BosRule, HookPoint, Model};
use crate::task::TaskCtx;

/// Top and bottom `count` tokens of each direction (each of the hook's width).
pub fn promoted(
    model: &Model,
    hook: HookPoint,
    directions: &[Vec<f32>],
    count: usize,
) -> Result<Vec<(Vec<ScoredToken>, Vec<ScoredToken>)>> {
    let _ = (model, hook, directions, count);
    unimplemented!()
}

/// Which features fire on `text`.
pub fn trace(
    model: &Model,
    hook: HookPoint,
    encoder: &Encoder,
    factors: &Factors,
    text: &str,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Trace> {
    let _ = (model, hook, encoder, factors, text, bos, ctx);
    unimplemented!()
}
