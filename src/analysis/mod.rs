//! The analysis of features: contexts, logit lens, neurons, labels, shared neurons. Its results are
//! plain data, for any shell.
//!
//! Sees factors and token tables; sees a model only in [`lens`].

pub mod compare;
pub mod contexts;
pub mod hierarchy;
pub mod labels;
pub mod lens;
pub mod levels;
pub mod matching;
pub mod neurons;
mod notes;
mod scan;

use serde::{Deserialize, Serialize};

pub use notes::{FeatureNote, Notes};

/// A token with a number: a logit, or the change of a log-probability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredToken {
    /// Its number in the vocabulary.
    #[serde(rename = "token_id")]
    pub id: u32,
    /// The token as it is shown, with its blanks.
    pub token: String,
    /// The logit that a direction gives it, or the change of its log-probability.
    pub value: f32,
}

/// The share of a feature's top contexts that have one label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Purity {
    /// The label with the largest share.
    pub label: String,
    /// Its share of the top contexts (25).
    pub share: f32,
    /// The label's share of all rows.
    pub base: f32,
}

/// A row of the feature list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureRow {
    /// Its number in the fit.
    pub id: usize,
    /// Its share of ΣY.
    pub share: f32,
    /// The share of rows where it exceeds 5 % of its own maximum.
    pub density: f32,
    /// How many neurons its column uses.
    pub neurons: usize,
    /// Distinct tokens of its top contexts' peaks, strongest first, at most 8.
    pub top_tokens: Vec<String>,
    /// Tokens it promotes most (empty until the lens has run).
    pub promoted: Vec<ScoredToken>,
    /// The label purity; `None` if no top context has a label.
    pub purity: Option<Purity>,
    /// The user's name for it.
    pub name: Option<String>,
    /// The user's note on it.
    #[serde(default)]
    pub note: FeatureNote,
}

/// A window of tokens around a peak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Context {
    /// The cache row of the peak.
    pub row: usize,
    /// The sample it comes from.
    pub sample: usize,
    /// The tokens as they are displayed.
    pub tokens: Vec<String>,
    /// Whether the text continues before the first of them, and after the last.
    #[serde(default)]
    pub cut: [bool; 2],
    /// The feature's coefficient at each token.
    pub values: Vec<f32>,
    /// Index of the peak in `tokens`.
    pub peak: usize,
    /// The label of the sample; `None` if the corpus gives it none.
    pub label: Option<String>,
}

/// A neuron of a feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NeuronWeight {
    /// Its index in the hook's width.
    pub index: usize,
    /// Its weight in the unit column.
    pub weight: f32,
    /// How many features of the fit use it, this one included.
    pub used_by: usize,
}

/// Another feature with shared neurons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Related {
    /// The number of the feature in the fit.
    pub id: usize,
    /// Weighted Jaccard of same-sign weights, 0 to 1.
    pub overlap: f32,
}

/// A share of a feature's mass on one label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelShare {
    /// The label as the corpus calls it.
    pub label: String,
    /// Its share of the feature's ΣY.
    pub mass: f32,
    /// Its share of the feature's top contexts.
    pub contexts: f32,
    /// Its share of all rows.
    pub base: f32,
}

/// The share of every feature on every label.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LabelMatrix {
    /// The labels of the corpus.
    pub labels: Vec<String>,
    /// Each label's share of all rows.
    pub base: Vec<f32>,
    /// For each feature, by id, the share of its ΣY on each label.
    pub shares: Vec<Vec<f32>>,
}

/// The card of a feature: everything that is known about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureCard {
    /// Its line in the list.
    pub row: FeatureRow,
    /// The sweep of the fit after which the card was made.
    #[serde(default)]
    pub sweep: usize,
    /// The strongest contexts, at most 25, one per sample (in corpora of few long texts: windows
    /// that do not overlap).
    pub contexts: Vec<Context>,
    /// Contexts at lower quantiles of the non-zero coefficients: (quantile, context).
    pub quantiles: Vec<(f32, Context)>,
    /// Neurons by |weight|, largest first.
    pub neurons: Vec<NeuronWeight>,
    /// Logit lens, top tokens (empty when no model is open: see `lens_note`).
    pub promoted: Vec<ScoredToken>,
    /// Logit lens, bottom tokens.
    pub suppressed: Vec<ScoredToken>,
    /// The reason why there is no logit lens; `None` if there is one.
    pub lens_note: Option<String>,
    /// Features with shared neurons, largest overlap first.
    pub related: Vec<Related>,
    /// The labels with their shares, largest mass first.
    pub labels: Vec<LabelShare>,
    /// Counts of coefficients in `histogram.len()` equal bins from 0 to `peak`; zeros are not
    /// counted.
    pub histogram: Vec<u32>,
    /// The feature's largest coefficient over all rows, the upper end of `histogram`.
    pub peak: f32,
}

/// The card of a neuron: the features that use it, its contexts, its logit lens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NeuronCard {
    /// Its index in the hook's width.
    pub index: usize,
    /// Every feature that uses it, by |weight|: (feature, weight, the feature's strongest token).
    pub features: Vec<(usize, f32, String)>,
    /// The rows where |activation| is largest, one per sample, with the activation as value:
    /// positive peaks first, then negative ones, each strongest first.
    pub contexts: Vec<Context>,
    /// Logit lens of its own output direction.
    pub promoted: Vec<ScoredToken>,
    /// Logit lens, bottom tokens.
    pub suppressed: Vec<ScoredToken>,
}

/// A node of a dendrogram; leaves come first (`0..k`, id = feature).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TreeNode {
    /// Its index in [`Tree::nodes`].
    pub id: usize,
    /// The two children of a merge; empty for a leaf.
    pub children: Vec<usize>,
    /// Dissimilarity of the merge, 0 for a leaf.
    pub height: f32,
    /// Every feature below it.
    pub features: Vec<usize>,
}

/// Features clustered by the neurons they share.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tree {
    /// Leaves first, then merges in the order of height; the last is the root.
    pub nodes: Vec<TreeNode>,
    /// The overlap and the linkage in words: "weighted Jaccard, average linkage". A height is 1 −
    /// overlap.
    pub measure: String,
}

/// A window of the corpus with the coefficients of several features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparedText {
    /// The tokens as they are displayed.
    pub tokens: Vec<String>,
    /// Whether the text continues before the first of them, and after the last.
    #[serde(default)]
    pub cut: [bool; 2],
    /// The label of the sample; `None` if the corpus gives it none.
    pub label: Option<String>,
    /// The token that the window is about.
    pub peak: usize,
    /// For each compared feature its coefficient at each token.
    pub values: Vec<Vec<f32>>,
}

/// The comparison of m features. Matrices are m × m, row-major, in the order of `features`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// The ids of the features that are compared.
    pub features: Vec<usize>,
    /// Core and exclusive neurons.
    pub shared: SharedNeurons,
    /// Every neuron that any of the features uses, with its weight in each: sorted by the number of
    /// features that use it, then by Σ|weight|.
    pub neurons: Vec<(usize, Vec<f32>)>,
    /// Cosines of the columns of Z.
    pub cosines: Vec<f32>,
    /// Cosines of the directions in the residual stream; `None` if no model was loaded.
    pub residual: Option<Vec<f32>>,
    /// Cosines of the coefficients over all token rows: whether they fire on the same tokens.
    pub together: Vec<f32>,
    /// Each feature's largest coefficient.
    pub peaks: Vec<f32>,
    /// The same tokens with every feature's coefficients.
    pub texts: Vec<ComparedText>,
}

/// One level of a recursive semi-NMF: features of the features below.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelInfo {
    /// How many features it has.
    pub features: usize,
    /// The share of neurons that each may use.
    pub sparsity: f64,
    /// The relative error on the level below, ‖Z_{l−1}ᵀ − Y_l Z_lᵀ‖² / ‖Z_{l−1}‖²; for the fit
    /// itself its own error.
    pub relative_error: f64,
    /// The relative error on the activations, ‖A − Y₁ ⋯ Y_l Z_lᵀ‖² / ‖A‖², before and after the
    /// levels were tuned together; `None` if they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joint: Option<(f64, f64)>,
}

/// A feature of some level.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LevelNode {
    /// Its index in [`Levels::nodes`].
    pub id: usize,
    /// 0 for a feature of the fit.
    pub level: usize,
    /// Its number in its level.
    pub feature: usize,
    /// The finer nodes that it is made of, strongest first. A node can be a child of several.
    pub children: Vec<usize>,
    /// The coefficient of each child as a share of the largest.
    pub shares: Vec<f32>,
    /// Every feature of the fit below it, ascending.
    pub features: Vec<usize>,
    /// How many neurons its column uses.
    pub neurons: usize,
    /// Distinct tokens where the product of the coefficients is largest and at least 0.3 of its
    /// maximum.
    pub top_tokens: Vec<String>,
    /// Tokens it promotes most (empty if no model was loaded).
    pub promoted: Vec<ScoredToken>,
    /// Label purity of its strongest contexts.
    pub purity: Option<Purity>,
    /// A few of its strongest contexts.
    pub contexts: Vec<Context>,
}

/// Features of features: levels of recursive semi-NMF.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Levels {
    /// The fit itself first, then each level above it.
    pub levels: Vec<LevelInfo>,
    /// The fit's features first (id = feature), then level by level.
    pub nodes: Vec<LevelNode>,
    /// How p changes from level to level: "growing" or "fixed".
    pub growth: String,
}

/// The neurons that the members of a cluster share, and those of each member alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SharedNeurons {
    /// The ids of the members.
    pub features: Vec<usize>,
    /// Neurons in more than half of the members' supports: (neuron, mean weight over the members
    /// that have it, how many members).
    pub core: Vec<(usize, f32, usize)>,
    /// For each member the neurons that no other member has: (feature, neurons with weights).
    pub exclusive: Vec<(usize, Vec<(usize, f32)>)>,
}

/// The features that fire on a new text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// The tokens as they are displayed, BOS left out.
    pub tokens: Vec<String>,
    /// The features that fire at any token, strongest first, with a coefficient per token.
    pub features: Vec<TraceFeature>,
    /// ‖a − Zy‖ / ‖a‖ of each token: the share that the features do not explain.
    pub unexplained: Vec<f32>,
}

/// A feature that fires on a new text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceFeature {
    /// The number of the feature in the fit.
    pub id: usize,
    /// Its coefficient at each token.
    pub values: Vec<f32>,
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::corpus::{TokenRow, TokenTable};
    use crate::factor::{Coefficients, Factors, SparseColumns};

    /// Sparse columns of dense ones.
    pub(crate) fn columns(rows: usize, dense: &[Vec<f32>]) -> SparseColumns {
        let mut out = SparseColumns {
            rows,
            offsets: vec![0],
            ..SparseColumns::default()
        };
        for column in dense {
            for (i, &value) in column.iter().enumerate().filter(|(_, v)| **v != 0.0) {
                out.indices.push(i as u32);
                out.values.push(value);
            }
            out.offsets.push(out.indices.len());
        }
        out
    }

    /// Factors with the coefficients given by feature.
    pub(crate) fn factors(features: SparseColumns, rows: usize, by_feature: Vec<f32>) -> Factors {
        let coefficients = Coefficients::owned(rows, by_feature);
        Factors {
            features,
            coefficients,
            coding: Default::default(),
            relative_error: 0.5,
            weighted_error: None,
            explained_variance: 0.4,
            sweep: 1,
            seconds: 0.0,
        }
    }

    /// A token table of (pieces, label) samples.
    pub(crate) fn table(samples: &[(&[&str], Option<&str>)]) -> TokenTable {
        let mut table = TokenTable::default();
        let mut ids = std::collections::HashMap::new();
        for (sample, (pieces, label)) in samples.iter().enumerate() {
            for (position, piece) in pieces.iter().enumerate() {
                let next = ids.len() as u32;
                let id = *ids.entry(*piece).or_insert(next);
                table.pieces.insert(id, (*piece).to_owned());
                table.rows.push(TokenRow {
                    id,
                    sample: sample as u32,
                    position: position as u32 + 1,
                });
            }
            table.texts.push(pieces.concat());
            table.sample_labels.push(label.map(|label| {
                let known = table.labels.iter().position(|l| l == label);
                known.unwrap_or_else(|| {
                    table.labels.push(label.to_owned());
                    table.labels.len() - 1
                }) as u32
            }));
        }
        table
    }
}
