//! Two fits held beside each other, of one study or of two.

use std::sync::Arc;

use super::{Study, identity};
use crate::analysis::Notes;
use crate::analysis::matching::{self, FitComparison};
use crate::analysis::{FeatureRow, contexts};
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::model::{HookPoint, ModelInfo};

/// One of them.
#[derive(Debug, Clone)]
pub struct Side {
    /// The fit's name.
    pub name: String,
    /// What it is a fit of.
    pub hook: HookPoint,
    /// Its relative error.
    pub relative_error: Option<f64>,
    /// Its factors.
    pub factors: Arc<Factors>,
    /// The model that the activations came from; `None` for a matrix from elsewhere.
    model: Option<ModelInfo>,
    tokens: Arc<TokenTable>,
    notes: Notes,
}

impl Side {
    /// Its features as a list shows them.
    pub fn rows(&self) -> Vec<FeatureRow> {
        contexts::feature_rows(&self.factors, &self.tokens, &self.notes)
    }
}

impl Study {
    /// A fit to hold beside another; `None` is the newest.
    pub fn side(&self, fit: Option<&str>) -> Result<Side> {
        let (entry, factors) = self.load_fit(fit)?;
        Ok(Side {
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

/// Which features two fits have in common; fails where their neurons have nothing in common.
pub fn compare(a: &Side, b: &Side) -> Result<FitComparison> {
    let widths = (a.factors.features.rows, b.factors.features.rows);
    if widths.0 != widths.1 || a.hook != b.hook {
        return Err(Error::usage(format!(
            "'{}' is of {} ({} neurons) and '{}' of {} ({}): features compare within one hook of one model",
            a.name, a.hook, widths.0, b.name, b.hook, widths.1
        )));
    }
    if let Some(parts) = identity::models_differ(a.model.as_ref(), b.model.as_ref()) {
        let said = format!(
            "the two studies are of different models ({parts}): their neurons have nothing in common"
        );
        return Err(Error::usage(said));
    }
    Ok(matching::compare(
        (&a.name, &a.factors.features),
        (&b.name, &b.factors.features),
    ))
}
