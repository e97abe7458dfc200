//! Max-activating contexts and quantiles: the feature list, the card of a feature, the card of a
//! neuron.
//!
//! Sees factors, token tables and an activation source, no model. Invariant: a feature's purity,
//! top tokens and label shares are computed from the same top contexts.

use rayon::prelude::*;

use super::labels::LabelBase;
use super::neurons::{self, NeuronIndex, Overlap};
use super::scan::{self, Peak};
use super::{Context, FeatureCard, FeatureRow, NeuronCard};
use super::{FeatureNote, Notes};
use crate::activations::ActivationSource;
use crate::corpus::TokenTable;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::pieces;

/// The number of contexts of a feature or neuron.
pub const TOP_CONTEXTS: usize = 25;
/// The number of tokens of a context on either side of its peak.
pub const CONTEXT_TOKENS: usize = 15;
/// The largest number of tokens that one character is split over: a character of UTF-8 has at most
/// four bytes.
const MAX_TOKENS_PER_CHARACTER: usize = 4;
/// The number of bins of a card's histogram.
pub const HISTOGRAM_BINS: usize = 24;
/// The quantiles of the non-zero coefficients at which a card shows a context.
pub const QUANTILES: [f32; 9] = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1];
/// The number of related features on a card.
pub const RELATED: usize = 10;
/// The number of distinct tokens in a row of the feature list.
const TOP_TOKENS: usize = 8;
/// A feature counts as active at a row where its coefficient exceeds this share of its maximum.
const DENSITY_THRESHOLD: f32 = 0.05;
/// The number of values of activations that are read at a time (16 MiB as f32).
const BLOCK_VALUES: usize = 4 << 20;

/// The feature list of a fit (without `promoted`: see [`super::lens`]). It is cheap enough for
/// every snapshot of a fit: two passes over each feature's coefficients, with features in parallel.
pub fn feature_rows(factors: &Factors, tokens: &TokenTable, notes: &Notes) -> Vec<FeatureRow> {
    let feature_reader = FeatureReader::new(factors, tokens);
    let scans: Vec<FeatureScan> = (0..factors.features.columns())
        .into_par_iter()
        .map(|id| feature_reader.scan(id))
        .collect();
    let total: f64 = scans.iter().map(|scan| scan.sum).sum();
    scans
        .iter()
        .enumerate()
        .map(|(id, scan)| feature_reader.row(id, scan, total, notes))
        .collect()
}

/// The card of a feature, without the logit lens. Its share of ΣY takes a pass over every feature;
/// [`card_of_row`] avoids that pass if the feature list is already loaded.
///
/// # Errors
/// [`Error::Usage`] with the range of ids for an unknown one.
pub fn feature_card(
    factors: &Factors,
    tokens: &TokenTable,
    notes: &Notes,
    id: usize,
) -> Result<FeatureCard> {
    check_id(factors, id)?;
    let feature_reader = FeatureReader::new(factors, tokens);
    // The sums are added in the order of features, so that the share has the same bits as in the
    // list.
    let sums: Vec<f64> = (0..factors.features.columns())
        .into_par_iter()
        .map(|j| scan::sum_and_max(factors.coefficients.feature(j)).0)
        .collect();
    let scan = feature_reader.scan(id);
    Ok(feature_reader.card(
        feature_reader.row(id, &scan, sums.iter().sum(), notes),
        &scan,
    ))
}

/// The card of a feature, without the logit lens, from its row in the feature list of the same fit.
/// Only the coefficients of that feature are read.
///
/// # Errors
/// [`Error::Usage`] with the range of ids for an unknown one.
pub fn card_of_row(row: FeatureRow, factors: &Factors, tokens: &TokenTable) -> Result<FeatureCard> {
    check_id(factors, row.id)?;
    let feature_reader = FeatureReader::new(factors, tokens);
    let scan = feature_reader.scan(row.id);
    Ok(feature_reader.card(row, &scan))
}

/// The largest coefficient of feature `id`.
pub fn peak_coefficient(factors: &Factors, id: usize) -> f32 {
    scan::sum_and_max(factors.coefficients.feature(id)).1
}

/// For each feature the share of its top contexts whose sample contains `text`, ignoring case.
pub fn context_shares(factors: &Factors, tokens: &TokenTable, text: &str) -> Vec<f32> {
    let text = text.to_lowercase();
    let contains: Vec<bool> = tokens
        .texts
        .par_iter()
        .map(|sample| sample.to_lowercase().contains(&text))
        .collect();
    let is_in_match = |row: usize| {
        tokens
            .rows
            .get(row)
            .and_then(|r| contains.get(r.sample as usize))
            .copied()
            .unwrap_or(false)
    };
    (0..factors.features.columns())
        .into_par_iter()
        .map(|id| {
            let coefficients = factors.coefficients.feature(id);
            let peaks = top_contexts(coefficients, peak_coefficient(factors, id), tokens);
            let hits = peaks.iter().filter(|p| is_in_match(p.row)).count();
            hits as f32 / peaks.len().max(1) as f32
        })
        .collect()
}

/// The card of a neuron, without the logit lens; its contexts need one pass over its column of the
/// activations. The activations of gated neurons have both signs, so its contexts are those of the
/// largest |activation| with their signed values: the positive peaks first, then the negative ones,
/// each strongest first.
///
/// # Errors
/// [`Error::Usage`] with the range of neurons for an unknown one; what reading the activations
/// returns.
pub fn neuron_card(
    factors: &Factors,
    tokens: &TokenTable,
    activations: &dyn ActivationSource,
    index: usize,
) -> Result<NeuronCard> {
    let (_, width) = activations.shape();
    if index >= width {
        return Err(Error::usage(format!(
            "neuron {index} does not exist: this hook has neurons 0 to {}",
            width - 1
        )));
    }
    let column = read_column(activations, index)?;
    let magnitudes: Vec<f32> = column.iter().map(|v| v.abs()).collect();
    let (_, peak) = scan::sum_and_max(&magnitudes);
    let mut contexts = top_contexts(&magnitudes, peak, tokens);
    contexts.sort_by_key(|p| column[p.row] < 0.0);
    let mut features: Vec<(usize, f32)> = (0..factors.features.columns())
        .flat_map(|j| {
            neurons::nonzeros(&factors.features, j)
                .filter(|(i, _)| *i == index)
                .map(move |(_, w)| (j, w))
        })
        .collect();
    features.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
    let strongest = |j: usize| {
        let top = scan::group_peaks(factors.coefficients.feature(j), 0.0, 1, |row| row);
        top.first()
            .map_or_else(String::new, |p| character(tokens, p.row))
    };
    Ok(NeuronCard {
        index,
        features: features
            .into_par_iter()
            .map(|(j, weight)| (j, weight, strongest(j)))
            .collect(),
        contexts: contexts
            .iter()
            .map(|p| context(tokens, &column, p.row))
            .collect(),
        promoted: Vec::new(),
        suppressed: Vec::new(),
    })
}

/// Writes the user's name and note of a feature into its row of the list.
pub fn apply_notes(row: &mut FeatureRow, notes: &Notes) {
    row.name = notes.names.get(&row.id).cloned();
    row.note = notes.details.get(&row.id).cloned().unwrap_or_default();
}

/// Checks that feature `id` is in the fit; the error says which ids there are.
pub(crate) fn check_id(factors: &Factors, id: usize) -> Result<()> {
    match factors.features.columns() {
        0 => Err(Error::usage(format!(
            "feature {id} does not exist: this fit has no features"
        ))),
        k if id >= k => Err(Error::usage(format!(
            "feature {id} does not exist: this fit has features 0 to {}",
            k - 1
        ))),
        _ => Ok(()),
    }
}

/// The result of one scan of a feature's coefficients.
struct FeatureScan {
    sum: f64,
    peak: f32,
    density: f32,
    contexts: Vec<Peak>,
}

/// Makes list rows and cards of the features of one fit over one corpus.
struct FeatureReader<'a> {
    factors: &'a Factors,
    tokens: &'a TokenTable,
    labels: LabelBase<'a>,
}

impl<'a> FeatureReader<'a> {
    fn new(factors: &'a Factors, tokens: &'a TokenTable) -> Self {
        Self {
            factors,
            tokens,
            labels: LabelBase::new(tokens, factors.coefficients.rows),
        }
    }

    fn scan(&self, id: usize) -> FeatureScan {
        let coefficients = self.factors.coefficients.feature(id);
        let (sum, peak) = scan::sum_and_max(coefficients);
        let density = scan::share_above(coefficients, peak * DENSITY_THRESHOLD);
        FeatureScan {
            sum,
            peak,
            density,
            contexts: top_contexts(coefficients, peak, self.tokens),
        }
    }

    fn row(&self, id: usize, scan: &FeatureScan, total: f64, notes: &Notes) -> FeatureRow {
        let rows: Vec<usize> = scan.contexts.iter().map(|p| p.row).collect();
        let mut row = FeatureRow {
            id,
            share: if total > 0.0 {
                (scan.sum / total) as f32
            } else {
                0.0
            },
            density: scan.density,
            neurons: neurons::nonzeros(&self.factors.features, id).count(),
            top_tokens: top_tokens(self.tokens, &rows),
            promoted: Vec::new(),
            purity: self.labels.purity(&rows),
            name: None,
            note: FeatureNote::default(),
        };
        apply_notes(&mut row, notes);
        row
    }

    fn card(&self, row: FeatureRow, scan: &FeatureScan) -> FeatureCard {
        let (id, features) = (row.id, &self.factors.features);
        let coefficients = self.factors.coefficients.feature(id);
        let index = NeuronIndex::new(features);
        let rows: Vec<usize> = scan.contexts.iter().map(|p| p.row).collect();
        let floor = scan::zero_threshold(scan.peak);
        let quantiles = scan::quantile_rows(coefficients, floor, &QUANTILES);
        FeatureCard {
            row,
            sweep: self.factors.sweep,
            contexts: rows
                .iter()
                .map(|&row| context(self.tokens, coefficients, row))
                .collect(),
            quantiles: quantiles
                .into_iter()
                .map(|(q, row)| (q, context(self.tokens, coefficients, row)))
                .collect(),
            neurons: neurons::weights_by_magnitude(features, &index, id),
            promoted: Vec::new(),
            suppressed: Vec::new(),
            lens_note: None,
            related: neurons::related(features, &index, id, Overlap::WeightedJaccard, RELATED),
            labels: self.labels.shares(coefficients, &rows),
            histogram: scan::histogram(coefficients, floor, scan.peak, HISTOGRAM_BINS),
            peak: scan.peak,
        }
    }
}

/// The strongest contexts: one per sample, because a second peak a few tokens later shows the same
/// text again. If fewer samples than contexts have a peak (few long texts), further windows of the
/// same samples are added that do not overlap those chosen.
pub(super) fn top_contexts(values: &[f32], peak: f32, tokens: &TokenTable) -> Vec<Peak> {
    let sample = |row: usize| tokens.rows.get(row).map_or(row, |r| r.sample as usize);
    let floor = scan::zero_threshold(peak);
    let mut peaks = scan::group_peaks(values, floor, TOP_CONTEXTS, sample);
    if peaks.len() < TOP_CONTEXTS {
        scan::spread_peaks(
            &mut peaks,
            values,
            floor,
            TOP_CONTEXTS,
            2 * CONTEXT_TOKENS,
            sample,
        );
    }
    peaks
}

/// The window around `row` within its sample, with its tokens and `values`.
pub(super) fn context(tokens: &TokenTable, values: &[f32], row: usize) -> Context {
    let sample = tokens.rows.get(row).map(|r| r.sample);
    // An imported matrix has no token table: each row is a sample of its own.
    let same = |r: &usize| sample.is_some() && tokens.rows.get(*r).map(|t| t.sample) == sample;
    let before = (0..row).rev().take(CONTEXT_TOKENS).take_while(same).count();
    let after = (row + 1..values.len())
        .take(CONTEXT_TOKENS)
        .take_while(same)
        .count();
    let (first, end) = (row - before, row + after + 1);
    // The window is extended so that it begins and ends with whole characters.
    let continues = |r: usize| same(&r) && pieces::is_continuation(tokens.piece(r));
    let earlier = (1..MAX_TOKENS_PER_CHARACTER)
        .take_while(|&n| n <= first && same(&(first - n)) && continues(first + 1 - n))
        .count();
    let later = (end..values.len())
        .take(MAX_TOKENS_PER_CHARACTER - 1)
        .take_while(|&r| continues(r))
        .count();
    let span = first - earlier..end + later;
    let shown: Vec<String> = span.clone().map(|r| piece(tokens, r)).collect();
    Context {
        row,
        sample: sample.map_or(row, |s| s as usize),
        tokens: pieces::join_characters(&shown),
        cut: [
            span.start > 0 && same(&(span.start - 1)),
            span.end < values.len() && same(&span.end),
        ],
        peak: row - span.start,
        values: values[span].to_vec(),
        label: sample.and_then(|s| label(tokens, s)),
    }
}

fn label(tokens: &TokenTable, sample: u32) -> Option<String> {
    let label = (*tokens.sample_labels.get(sample as usize)?)?;
    tokens.labels.get(label as usize).cloned()
}

/// A row's token as it is shown by itself: its piece, or the whole character if the token is only a
/// part of one.
fn character(tokens: &TokenTable, row: usize) -> String {
    let sample = tokens.rows.get(row).map(|r| r.sample);
    let continues = |r: usize| {
        tokens.rows.get(r).is_some_and(|t| Some(t.sample) == sample)
            && pieces::is_continuation(tokens.piece(r))
    };
    let first = (0..=row)
        .rev()
        .take(MAX_TOKENS_PER_CHARACTER)
        .find(|&r| !continues(r))
        .unwrap_or(row);
    let end = (row + 1..)
        .take(MAX_TOKENS_PER_CHARACTER)
        .find(|&r| !continues(r))
        .unwrap_or(row + 1);
    let whole =
        pieces::join_characters(&(first..end).map(|r| piece(tokens, r)).collect::<Vec<_>>());
    let at = pieces::shown_at(&whole, row - first);
    match whole[at].chars().last() {
        Some(character) if at < row - first => character.to_string(),
        _ => whole[at].clone(),
    }
}

/// The display piece of a row's token, or the row's number if it has no token.
fn piece(tokens: &TokenTable, row: usize) -> String {
    if row < tokens.rows.len() {
        tokens.piece(row).to_owned()
    } else {
        format!("#{row}")
    }
}

/// The distinct tokens of `rows` in their order; tokens that differ only by surrounding blanks
/// count once.
pub(super) fn top_tokens(tokens: &TokenTable, rows: &[usize]) -> Vec<String> {
    let mut found: Vec<String> = Vec::with_capacity(TOP_TOKENS);
    // A token that is only white space (a line break) is compared untrimmed.
    let key = |piece: &str| {
        if piece.trim().is_empty() {
            piece.to_owned()
        } else {
            piece.trim().to_owned()
        }
    };
    for piece in rows.iter().map(|&row| character(tokens, row)) {
        if found.len() == TOP_TOKENS {
            break;
        }
        if !found.iter().any(|f| key(f) == key(&piece)) {
            found.push(piece);
        }
    }
    found
}

/// Column `index` of the activations, read in blocks of whole rows.
fn read_column(activations: &dyn ActivationSource, index: usize) -> Result<Vec<f32>> {
    let (rows, width) = activations.shape();
    let step = (BLOCK_VALUES / width.max(1)).max(1);
    let mut column = vec![0f32; rows];
    column
        .par_chunks_mut(step)
        .enumerate()
        .try_for_each(|(i, out)| -> Result<()> {
            let block = activations.rows(i * step..i * step + out.len())?;
            for (r, value) in out.iter_mut().enumerate() {
                *value = block.row(r)[index];
            }
            Ok(())
        })?;
    Ok(column)
}

#[cfg(test)]
mod tests;
