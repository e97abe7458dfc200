//! From what the Steer pane or the command asks to what `steering` needs.

use super::request::SteerAsk;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::model::{BosRule, HookPoint, Model};
use crate::steering::{self, SteerRequest};

/// Builds the request: a term for each feature, of the part of its neurons that was asked for.
pub fn request(
    model: &Model,
    hook: HookPoint,
    factors: &Factors,
    ask: &SteerAsk,
    bos: BosRule,
) -> Result<SteerRequest> {
    if ask.features.is_empty() {
        return Err(Error::usage(
            "nothing to steer with: choose at least one feature",
        ));
    }
    let terms = ask
        .features
        .iter()
        .map(|&(id, weight)| steering::part_term(model, hook, factors, id, &ask.part, weight))
        .collect::<Result<Vec<_>>>()?;
    Ok(SteerRequest {
        terms,
        strength: ask.strength,
        negative: ask.negative,
        positions: ask.positions,
        mode: ask.mode,
        prompts: vec![ask.prompt.clone()],
        samples: ask.samples,
        sampling: ask.sampling,
        bos,
    })
}
