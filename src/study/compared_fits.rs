//! Compares two fits of one study or of two studies.

use std::sync::Arc;

use super::{Study, identity};
use crate::analysis::Notes;
use crate::analysis::matching::{self, FitComparison};
use crate::analysis::{FeatureRow, contexts};
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::model::{HookPoint, ModelInfo};

/// A fit with everything that a comparison needs.
#[derive(Debug, Clone)]
pub struct ComparedFit {
    /// The name of the fit.
    pub name: String,
    /// The hook that it factorises.
    pub hook: HookPoint,
    /// The relative error ‖A − YZᵀ‖² / ‖A‖².
    pub relative_error: Option<f64>,
    /// The factors Z and Y.
    pub factors: Arc<Factors>,
    /// The model that the activations came from; `None` for a matrix from elsewhere.
    model: Option<ModelInfo>,
    tokens: Arc<TokenTable>,
    notes: Notes,
}

impl ComparedFit {
    /// The rows of its feature list.
    pub fn rows(&self) -> Vec<FeatureRow> {
        contexts::feature_rows(&self.factors, &self.tokens, &self.notes)
    }
}

impl Study {
    /// Loads a fit for a comparison; `None` is the newest.
    ///
    /// # Errors
    /// What [`Self::load_fit`] returns; tokens or notes that cannot be read.
    pub fn compared_fit(&self, fit: Option<&str>) -> Result<ComparedFit> {
        let (entry, factors) = self.load_fit(fit)?;
        Ok(ComparedFit {
            hook: entry.hook,
            relative_error: entry.relative_error,
            factors,
            model: self.manifest().model.clone(),
            tokens: self.tokens()?,
            notes: self.notes(&entry.name)?,
            name: entry.name,
        })
    }
}

/// Finds the features that two fits have in common.
///
/// # Errors
/// [`Error::Usage`] for fits of different hooks, widths or models.
pub fn compare(a: &ComparedFit, b: &ComparedFit) -> Result<FitComparison> {
    let widths = (a.factors.features.rows, b.factors.features.rows);
    if widths.0 != widths.1 || a.hook != b.hook {
        return Err(Error::usage(format!(
            "'{}' is of {} ({} neurons) and '{}' of {} ({}): features compare within one hook of one model",
            a.name, a.hook, widths.0, b.name, b.hook, widths.1
        )));
    }
    if let Some(parts) = identity::models_differ(a.model.as_ref(), b.model.as_ref()) {
        let message = format!(
            "the two studies are of different models ({parts}): their neurons have nothing in common"
        );
        return Err(Error::usage(message));
    }
    Ok(matching::compare(
        (&a.name, &a.factors.features),
        (&b.name, &b.factors.features),
    ))
}
