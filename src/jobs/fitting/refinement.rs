//! Fits that go on from earlier ones, and what fits are called.

use serde::{Deserialize, Serialize};

use super::Begin;
use crate::error::{Error, Result};
use crate::factor::FitConfig;
use crate::model::HookPoint;
use crate::study::{FitEntry, Study};

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
        let k = factors.features.columns() + self.add;
        let features = k
            .checked_sub(self.merge)
            .filter(|&k| k > 0)
            .ok_or_else(|| {
                Error::usage(format!(
                    "fit '{}' has {k} features: {} of them cannot be merged away",
                    entry.name, self.merge
                ))
            })?;
        let there = factors.features.columns();
        if let Some(id) = self.lock.iter().find(|id| **id >= there) {
            return Err(Error::usage(format!(
                "feature {id} cannot be locked: fit '{}' has 0 to {}",
                entry.name,
                there - 1
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

/// The name of a fit that goes on from `entry`: the same while its settings are, as with new rows.
///
/// # Errors
/// Fits of the study that cannot be read.
pub fn refined_name(study: &Study, entry: &FitEntry, config: &FitConfig) -> Result<String> {
    if config.same_fit(&entry.config) {
        Ok(entry.name.clone())
    } else {
        default_name(study, entry.hook, config)
    }
}

/// The name that a fit gets when the user gives none: `k100`, or `k100-2` … when that name holds
/// another configuration.
///
/// # Errors
/// Fits of the study that cannot be read.
pub fn default_name(study: &Study, hook: HookPoint, config: &FitConfig) -> Result<String> {
    let fits = study.fits()?;
    let base = format!(
        "{}k{}",
        if study.manifest().hooks.len() > 1 {
            format!("l{}-", hook.layer)
        } else {
            String::new()
        },
        config.features
    );
    let taken = |name: &str| fits.iter().find(|f| f.name == name);
    for attempt in 1.. {
        let name = if attempt == 1 {
            base.clone()
        } else {
            format!("{base}-{attempt}")
        };
        match taken(&name) {
            Some(fit) if fit.hook == hook && fit.config.same_fit(config) => return Ok(name),
            Some(_) => {}
            None => return Ok(name),
        }
    }
    Ok(base)
}
