//! Features and their contexts as CSV (RFC 4180), a line each. Lists within a cell are JSON, so that
//! tokens come back exactly, with blanks, commas and line ends.

use csv::Writer;
use serde_json::json;

use crate::analysis::{Context, FeatureCard, FeatureRow};
use crate::error::{Error, Result};

/// The columns of [`features`].
const FEATURES: [&str; 14] = [
    "set",
    "hook",
    "feature",
    "name",
    "share",
    "density",
    "neurons",
    "top_tokens",
    "promoted",
    "purity_label",
    "purity_share",
    "rating",
    "tags",
    "note",
];

/// The columns of [`contexts`].
const CONTEXTS: [&str; 13] = [
    "set",
    "hook",
    "feature",
    "name",
    "rank",
    "quantile",
    "sample",
    "row",
    "label",
    "peak_token",
    "peak_value",
    "tokens",
    "values",
];

/// The list of features of `set` at `hook`.
///
/// # Errors
/// None that a table in memory could have.
pub fn features(set: &str, hook: &str, rows: &[FeatureRow]) -> Result<String> {
    let lines = rows.iter().map(|row| {
        let promoted: Vec<&str> = row.promoted.iter().map(|t| t.token.as_str()).collect();
        let purity = row.purity.as_ref();
        [
            set.to_owned(),
            hook.to_owned(),
            row.id.to_string(),
            row.name.clone().unwrap_or_default(),
            row.share.to_string(),
            row.density.to_string(),
            row.neurons.to_string(),
            json!(row.top_tokens).to_string(),
            json!(promoted).to_string(),
            purity.map_or_else(String::new, |p| p.label.clone()),
            purity.map_or_else(String::new, |p| p.share.to_string()),
            row.note.rating.map_or_else(String::new, |r| r.to_string()),
            json!(row.note.tags).to_string(),
            row.note.text.clone(),
        ]
    });
    table(FEATURES, lines)
}

/// The contexts of each card: the strongest by rank from 1, then those at lower quantiles.
///
/// # Errors
/// None that a table in memory could have.
pub fn contexts(set: &str, hook: &str, cards: &[FeatureCard]) -> Result<String> {
    let line = |card: &FeatureCard, rank: String, quantile: String, context: &Context| {
        [
            set.to_owned(),
            hook.to_owned(),
            card.row.id.to_string(),
            card.row.name.clone().unwrap_or_default(),
            rank,
            quantile,
            context.sample.to_string(),
            context.row.to_string(),
            context.label.clone().unwrap_or_default(),
            context.tokens[context.peak].clone(),
            context.values[context.peak].to_string(),
            json!(context.tokens).to_string(),
            json!(context.values).to_string(),
        ]
    };
    let lines = cards.iter().flat_map(|card| {
        let strongest = card.contexts.iter().enumerate();
        let strongest =
            strongest.map(move |(i, c)| line(card, (i + 1).to_string(), String::new(), c));
        let lower = card
            .quantiles
            .iter()
            .map(move |(q, c)| line(card, String::new(), q.to_string(), c));
        strongest.chain(lower)
    });
    table(CONTEXTS, lines)
}

fn table<const N: usize>(
    head: [&str; N],
    lines: impl Iterator<Item = [String; N]>,
) -> Result<String> {
    let broken = |problem: String| Error::refused(format!("a table cannot be written: {problem}"));
    let mut out = Writer::from_writer(Vec::new());
    out.write_record(head).map_err(|e| broken(e.to_string()))?;
    for line in lines {
        out.write_record(line).map_err(|e| broken(e.to_string()))?;
    }
    let bytes = out.into_inner().map_err(|e| broken(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| broken(e.to_string()))
}
