//! Max-activating contexts and quantiles of a feature, one scan of its coefficients.

use super::{FeatureCard, FeatureRow, NeuronCard};
use crate::activations::ActivationSource;
use crate::error::Result;
use crate::factor::Factors;
use crate::study::{Notes, TokenTable};

/// The feature list of a fit (without `promoted`: see [`super::lens`]). Cheap enough for every snapshot.
pub fn feature_rows(factors: &Factors, tokens: &TokenTable, notes: &Notes) -> Vec<FeatureRow> {
    let _ = (factors, tokens, notes);
    unimplemented!()
}

/// One feature whole, without the logit lens. [`crate::Error::Usage`] names the range for an unknown id.
pub fn feature_card(factors: &Factors, tokens: &TokenTable, notes: &Notes, id: usize) -> Result<FeatureCard> {
    let _ = (factors, tokens, notes, id);
    unimplemented!()
}

/// A neuron, without the logit lens; its contexts need one pass over its column of the activations.
pub fn neuron_card(
    factors: &Factors,
    tokens: &TokenTable,
    activations: &dyn ActivationSource,
    index: usize,
) -> Result<NeuronCard> {
    let _ = (factors, tokens, activations, index);
    unimplemented!()
}
