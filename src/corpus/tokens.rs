//! The token rows of a corpus as a model reads it, and the texts and labels that they come from.
//!
//! Knows no file. Invariant: the rows of one sample are contiguous and in order, so that a row's
//! neighbours in the table are its neighbours in the text.

use std::collections::HashMap;

/// The token of one row of activations, and where in the corpus it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRow {
    /// The token's id in the model's vocabulary.
    pub id: u32,
    /// Index into [`TokenTable::texts`].
    pub sample: u32,
    /// Position in the sample (BOS counted).
    pub position: u32,
}

/// All token rows of a study with their samples: what reading a feature needs besides the factors.
#[derive(Debug, Clone, Default)]
pub struct TokenTable {
    /// One entry a row of the cache. Rows of one sample are contiguous and in order.
    pub rows: Vec<TokenRow>,
    /// Display piece of each token id that occurs (see [`crate::model::Tokenizer::piece`]).
    pub pieces: HashMap<u32, String>,
    /// Text of each sample.
    pub texts: Vec<String>,
    /// Index into `labels` of each sample.
    pub sample_labels: Vec<Option<u32>>,
    /// The distinct labels, in the order of their first appearance.
    pub labels: Vec<String>,
}

impl TokenTable {
    /// The display piece of row `row`'s token.
    pub fn piece(&self, row: usize) -> &str {
        self.pieces
            .get(&self.rows[row].id)
            .map_or("", String::as_str)
    }

    /// The label of row `row`'s sample.
    pub fn label(&self, row: usize) -> Option<&str> {
        self.sample_labels[self.rows[row].sample as usize].map(|l| self.labels[l as usize].as_str())
    }

    /// "row 17, token ' Monday' of sample 3 ("Monday was …")": a row as a person finds it. Rows of
    /// an `imported` matrix have no more than their number.
    pub(crate) fn describe_row(&self, row: usize, imported: bool) -> String {
        match self.rows.get(row) {
            Some(at) if !imported => {
                let text: String = self.texts[at.sample as usize].chars().take(40).collect();
                format!(
                    "row {row}, token {:?} of sample {} ({text:?})",
                    self.piece(row),
                    at.sample
                )
            }
            _ => format!("row {row}"),
        }
    }

    /// The table of an imported matrix: every row is a sample of its own, of which only the number
    /// is known.
    pub fn of_matrix(rows: usize) -> Self {
        let name = |i: usize| format!("row {i}");
        let row = |i: usize| TokenRow {
            id: i as u32,
            sample: i as u32,
            position: 0,
        };
        Self {
            rows: (0..rows).map(row).collect(),
            pieces: (0..rows).map(|i| (i as u32, name(i))).collect(),
            texts: (0..rows).map(name).collect(),
            sample_labels: vec![None; rows],
            labels: Vec::new(),
        }
    }
}
