//! Reading directions: the logit lens of a list and of a card, and new text read with a fit or
//! another set.
//!
//! Knows no study on disk. Invariant: without a model a card says why it has no logit lens, and is
//! whole in all else.

use std::ops::Range;
use std::sync::Arc;

use crate::activations::Block;
use crate::analysis::{FeatureCard, ScoredToken, Trace, lens};
use crate::directions::DirectionSet;
use crate::error::Result;
use crate::factor::Factors;
use crate::factor::encode::Encoder;
use crate::model::{BosRule, HookPoint, Model};
use crate::task::TaskCtx;

/// How many promoted tokens a line of the list shows.
pub const LIST_PROMOTED: usize = 6;
/// How many tokens a card shows, promoted and suppressed each.
const CARD_PROMOTED: usize = 25;

/// The tokens that the features `ids` promote most, as a list shows them.
///
/// # Errors
/// What [`lens::promoted_tokens`] returns.
pub fn promoted(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    ids: Range<usize>,
) -> Result<Vec<Vec<ScoredToken>>> {
    let directions: Vec<_> = ids.map(|j| factors.features.dense_column(j)).collect();
    let lens = lens::promoted_tokens(model, hook, &directions, LIST_PROMOTED)?;
    Ok(lens.into_iter().map(|(top, _)| top).collect())
}

/// The tokens that a direction promotes and those that it suppresses, strongest first, as a card
/// shows them.
///
/// # Errors
/// What [`lens::promoted_tokens`] returns.
pub fn card_lens(
    model: &Model,
    hook: HookPoint,
    direction: Vec<f32>,
) -> Result<(Vec<ScoredToken>, Vec<ScoredToken>)> {
    let both = lens::promoted_tokens(model, hook, &[direction], CARD_PROMOTED)?.pop();
    Ok(both.unwrap_or_default())
}

/// Adds to a card of `factors` what the logit lens says; `model` is the reason where there is none.
pub fn add_lens(
    card: &mut FeatureCard,
    hook: HookPoint,
    factors: &Factors,
    model: Result<&Model, String>,
) {
    let direction = factors.features.dense_column(card.row.id);
    let lens = model
        .and_then(|model| card_lens(model, hook, direction).map_err(|error| error.to_string()));
    match lens {
        Ok((promoted, suppressed)) => {
            card.row.promoted = promoted.iter().take(LIST_PROMOTED).cloned().collect();
            (card.promoted, card.suppressed) = (promoted, suppressed);
        }
        Err(why) => card.lens_note = Some(why),
    }
}

/// What says how strongly new rows express directions: a fit by the coefficients that explain a row
/// best, another set in its own way.
#[derive(Clone)]
pub enum Reader {
    /// A fit, by its encoder.
    Fit(Arc<Encoder>),
    /// Another set of directions.
    Set(Arc<dyn DirectionSet>),
}

impl Reader {
    /// `[rows][k]`, row-major.
    ///
    /// # Errors
    /// Rows of another width, [`crate::Error::Cancelled`].
    pub fn encode(&self, rows: &Block<'_>, ctx: &TaskCtx) -> Result<Vec<f32>> {
        match self {
            Self::Fit(encoder) => encoder.encode(rows, ctx),
            Self::Set(set) => set.scores(rows, ctx),
        }
    }
}

/// Which directions fire on `text`, whose factors are `factors`. What they leave unexplained is told
/// of a fit alone: other directions were not made to explain rows together.
///
/// # Errors
/// What [`lens::trace`] returns.
pub fn trace(
    model: &Model,
    hook: HookPoint,
    reader: &Reader,
    factors: &Factors,
    text: &str,
    bos: BosRule,
    ctx: &TaskCtx,
) -> Result<Trace> {
    let encode = |rows: &Block<'_>, ctx: &TaskCtx| reader.encode(rows, ctx);
    let mut trace = lens::trace(model, hook, &encode, factors, text, bos, ctx)?;
    if matches!(reader, Reader::Set(_)) {
        trace.unexplained.clear();
    }
    Ok(trace)
}
