//! Levels of features of features, from a fit to what is shown of them.

use crate::activations::ActivationSource;
use crate::analysis::{Levels, levels as described};
use crate::corpus::TokenTable;
use crate::error::Result;
use crate::factor::recursive::{self, ChildRule, Growth, joint};
use crate::factor::{Factors, FitConfig};
use crate::model::{HookPoint, Model};
use crate::task::TaskCtx;

/// What levels are wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LevelsRequest {
    /// How many features each level has, finest first; none means half of those below, as long as
    /// there are two, three times at most.
    pub counts: Vec<usize>,
    /// How the share of neurons goes from level to level.
    pub growth: Growth,
    /// Which finer features are children of a coarser one.
    pub children: ChildRule,
}

/// The fit that levels are of.
pub struct LevelsFit<'a> {
    /// Its factors Y and Z.
    pub factors: &'a Factors,
    /// Its settings, which the levels take over but for k and p.
    pub config: &'a FitConfig,
    /// The hook whose activations it explains.
    pub hook: HookPoint,
    /// The tokens of the rows, with their labels.
    pub tokens: &'a TokenTable,
    /// The activations that it explains, where all levels are to be tuned together to leave less of
    /// them.
    pub tune_on: Option<&'a dyn ActivationSource>,
}

/// Finds the levels, tunes them where there is something to tune them on, and reads what their
/// features promote where a model is at hand.
///
/// # Errors
/// [`crate::Error::Usage`] for levels that are empty or do not shrink, [`crate::Error::Cancelled`],
/// activations that cannot be read.
pub fn levels(
    fit: &LevelsFit<'_>,
    request: &LevelsRequest,
    model: Option<&Model>,
    ctx: &TaskCtx,
) -> Result<Levels> {
    let LevelsFit {
        factors,
        config,
        hook,
        tokens,
        tune_on,
    } = *fit;
    let usual;
    let counts = match request.counts.as_slice() {
        [] => {
            usual = recursive::default_levels(factors.features.columns());
            &usual
        }
        counts => counts,
    };
    let mut found = recursive::levels(&factors.features, counts, request.growth, config, ctx)?;
    let tuned = match tune_on.filter(|_| !found.is_empty()) {
        Some(source) => joint::tune(factors, source, &mut found, ctx)?,
        None => Vec::new(),
    };
    let share = config.sparsity_at(factors.features.rows);
    let mut levels = described::describe(
        factors,
        &found,
        request.growth,
        share,
        &tuned,
        request.children,
        tokens,
    );
    if let Some(model) = model {
        described::promote(&mut levels, &found, model, hook)?;
    }
    Ok(levels)
}
