//! A sweep over the number of features as a request: what is asked for, and the fits that it starts
//! from.

use serde::{Deserialize, Serialize};

use super::directions::HookSelection;
use crate::error::{Error, Result};
use crate::eval::sweep::{FEATURES, SEEDS};
use crate::factor::FitConfig;
use crate::model::HookPoint;
use crate::study::Study;

/// A sweep as the Fit pane asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepRequest {
    /// The fit whose settings it takes; `None`: the newest.
    pub fit: Option<String>,
    /// Numbers of features, in the order of fitting.
    pub features: Vec<usize>,
    /// Fits of each number, with different seeds.
    pub seeds: usize,
    /// Whether each makes its own start.
    pub cold: bool,
}

impl Default for SweepRequest {
    fn default() -> Self {
        Self {
            fit: None,
            features: FEATURES.to_vec(),
            seeds: SEEDS,
            cold: false,
        }
    }
}

/// A sweep that has begun: what its rows have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepBegun {
    /// The hook whose activations are fitted.
    pub hook: HookPoint,
    /// Its settings, with the first number of features and the first seed.
    pub config: FitConfig,
    /// The request that it carries out.
    pub request: SweepRequest,
}

/// The hook and the settings to start from: those of the named fits, else of the newest at the
/// wanted place, else the defaults.
///
/// # Errors
/// [`Error::Usage`] where there is no such fit, or fits of several hooks are named.
pub fn bases(
    study: &Study,
    names: &[String],
    place: &HookSelection,
) -> Result<(HookPoint, Vec<FitConfig>)> {
    let wanted = |h: &HookPoint| {
        place.layer.is_none_or(|l| h.layer == l) && place.site.is_none_or(|s| h.site == s)
    };
    let mut named = Vec::new();
    for name in names {
        named.push(study.fit_request(name)?);
    }
    if let Some((hook, _)) = named.first() {
        let hook = *hook;
        if let Some(at) = named.iter().position(|(h, _)| *h != hook) {
            return Err(Error::usage(format!(
                "fit '{}' is of {}, fit '{}' of {hook}: judge one hook at a time",
                names[at], named[at].0, names[0]
            )));
        }
        return if wanted(&hook) {
            Ok((hook, named.into_iter().map(|(_, config)| config).collect()))
        } else {
            Err(Error::usage(format!(
                "fit '{}' is of {hook}: leave out --layer and --hook",
                names[0]
            )))
        };
    }
    let (hook, fit) = place.resolve(study)?;
    Ok((hook, vec![fit.map(|f| f.config).unwrap_or_default()]))
}
