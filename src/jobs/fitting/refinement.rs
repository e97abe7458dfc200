//! Fits that go on from earlier ones, and what fits are called.

use serde::{Deserialize, Serialize};

use super::Begin;
use crate::error::{Error, Result};
use crate::factor::FitConfig;
use crate::model::HookPoint;
use crate::study::{FitEntry, FitState, Study};

/// How a fit goes on from an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refinement {
    /// The earlier fit; `None`: the newest.
    pub fit: Option<String>,
    /// Features to add, where rows are explained worst.
    pub add: usize,
    /// Features to take away, by merging those most alike.
    pub merge: usize,
    /// Features of the earlier fit that stay as they are.
    pub lock: Vec<usize>,
}

impl Refinement {
    /// The earlier fit with its settings for the new number of features, and what to begin with.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is no such fit, for features that it does not have, and where
    /// none would be left.
    pub fn plan(&self, study: &Study) -> Result<(FitEntry, FitConfig, Begin)> {
        let (entry, factors) = study.load_fit(self.fit.as_deref())?;
        let before = factors.features.columns();
        let k = before.checked_add(self.add).ok_or_else(|| {
            Error::usage(format!(
                "fit '{}' has {before} features: {} more are too many",
                entry.name, self.add
            ))
        })?;
        let features = k
            .checked_sub(self.merge)
            .filter(|&k| k > 0)
            .ok_or_else(|| {
                Error::usage(format!(
                    "fit '{}' has {k} features: {} of them cannot be merged away",
                    entry.name, self.merge
                ))
            })?;
        let count = factors.features.columns();
        if let Some(id) = self.lock.iter().find(|id| **id >= count) {
            return Err(Error::usage(format!(
                "feature {id} cannot be locked: fit '{}' has 0 to {}",
                entry.name,
                count - 1
            )));
        }
        let config = FitConfig {
            features,
            ..entry.config.clone()
        };
        Ok((
            entry,
            config,
            Begin::Factors {
                factors,
                locked: self.lock.clone(),
            },
        ))
    }
}

/// The name of a fit that goes on from `entry`: the same while its settings are, as with new rows;
/// else one that tells where it comes from and that no fit has, `k60-from-k40`. Its configuration
/// does not say what it began with, so a fit of the same configuration may be another.
///
/// # Errors
/// Fits of the study that cannot be read.
pub fn refined_name(study: &Study, entry: &FitEntry, config: &FitConfig) -> Result<String> {
    if config.same_fit(&entry.config) {
        return Ok(entry.name.clone());
    }
    // Where the earlier fit goes on from another itself, the names do not grow.
    let root = entry.name.split(FROM).next().unwrap_or_default();
    let base = format!("{}{FROM}{root}", base_name(study, entry.hook, config));
    free_name(study, &base, |_| false)
}

/// What stands in a name between a fit and the one that it goes on from.
const FROM: &str = "-from-";

/// The name that a fit gets when the user gives none: `k100`, or `k100-2` … when that name holds
/// another configuration.
///
/// # Errors
/// Fits of the study that cannot be read.
pub fn default_name(study: &Study, hook: HookPoint, config: &FitConfig) -> Result<String> {
    free_name(study, &base_name(study, hook, config), |fit| {
        fit.hook == hook && fit.config.same_fit(config)
    })
}

/// The name of a first look where the user gives none: that of a fit with the same configuration,
/// unless that fit has converged, for a first look is less.
///
/// # Errors
/// Fits of the study that cannot be read.
pub fn first_look_name(study: &Study, hook: HookPoint, config: &FitConfig) -> Result<String> {
    free_name(study, &base_name(study, hook, config), |fit| {
        fit.hook == hook && fit.config.same_fit(config) && !has_converged(fit)
    })
}

fn has_converged(fit: &FitEntry) -> bool {
    fit.has_factors() && fit.state == FitState::Converged
}

/// `k100`, with the layer before it where the study has several hooks.
fn base_name(study: &Study, hook: HookPoint, config: &FitConfig) -> String {
    let k = config.features;
    match study.manifest().hooks.len() {
        0 | 1 => format!("k{k}"),
        _ => format!("l{}-k{k}", hook.layer),
    }
}

/// `base`, or with a number behind it: the first that no fit has but one that may be replaced.
fn free_name(study: &Study, base: &str, is_replaced: impl Fn(&FitEntry) -> bool) -> Result<String> {
    let fits = study.fits()?;
    let names = (2..).map(|number| format!("{base}-{number}"));
    let free = std::iter::once(base.to_owned()).chain(names).find(|name| {
        let existing = fits.iter().find(|fit| fit.name == *name);
        existing.is_none_or(&is_replaced)
    });
    Ok(free.unwrap_or_else(|| base.to_owned()))
}

/// Refuses a first look under the name of a fit that has converged.
///
/// # Errors
/// [`Error::Usage`] that names the fit; fits of the study that cannot be read.
pub fn check_is_not_converged(study: &Study, name: &str) -> Result<()> {
    let fits = study.fits()?;
    match fits.iter().find(|fit| fit.name == name) {
        Some(fit) if has_converged(fit) => Err(Error::usage(format!(
            "fit '{name}' has converged, and a first look would replace it by less: give another --name, or replace it by --fresh"
        ))),
        _ => Ok(()),
    }
}

/// Refuses a name that a person gave where a fit of other settings, or one that came of another
/// fit, would be lost under it.
///
/// # Errors
/// [`Error::Usage`] that names the fit; fits of the study that cannot be read.
pub fn check_name_is_free(
    study: &Study,
    name: &str,
    hook: HookPoint,
    config: &FitConfig,
    from: Option<&str>,
) -> Result<()> {
    let fits = study.fits()?;
    let existing = fits.iter().find(|fit| fit.name == name);
    let Some(existing) = existing.filter(|fit| fit.relative_error.is_some()) else {
        return Ok(());
    };
    let is_its_own = from.is_none_or(|from| from == name);
    if is_its_own && existing.hook == hook && existing.config.same_fit(config) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "fit '{name}' is there, made by other settings: give another --name, or replace it by --fresh"
    )))
}
