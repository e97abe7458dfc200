//! What the list is sorted by: the orders, each with the most telling first.

use std::cmp::Ordering;

use crate::analysis::FeatureRow;

/// What the list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    /// Meanings first; without labels it is the share.
    #[default]
    Purity,
    Share,
    Density,
    Id,
    Neurons,
    Label,
    Name,
    Tokens,
    Rating,
}

impl Sort {
    pub const ALL: [Self; 9] = [
        Self::Purity,
        Self::Share,
        Self::Density,
        Self::Id,
        Self::Neurons,
        Self::Label,
        Self::Name,
        Self::Tokens,
        Self::Rating,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Share => "share",
            Self::Purity => "purity",
            Self::Density => "density",
            Self::Id => "id",
            Self::Neurons => "neurons",
            Self::Label => "label",
            Self::Name => "name",
            Self::Tokens => "tokens",
            Self::Rating => "rating",
        }
    }

    pub fn next(self) -> Self {
        let at = Self::ALL.iter().position(|s| *s == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// In the order that one reads the column: the most telling first.
    pub fn compare(self, a: &FeatureRow, b: &FeatureRow) -> Ordering {
        let purity = |r: &FeatureRow| r.purity.as_ref().map_or(-1.0, |p| p.share);
        match self {
            Self::Share => b.share.total_cmp(&a.share),
            Self::Purity => purity(b)
                .total_cmp(&purity(a))
                .then(b.share.total_cmp(&a.share)),
            Self::Density => b.density.total_cmp(&a.density),
            Self::Id => Ordering::Equal,
            Self::Neurons => b.neurons.cmp(&a.neurons),
            // Those that have one first, in its order; the purest of a label first.
            Self::Label => {
                let label = |r: &FeatureRow| r.purity.as_ref().map(|p| p.label.to_lowercase());
                named(label(a), label(b)).then(purity(b).total_cmp(&purity(a)))
            }
            Self::Name => {
                let name = |r: &FeatureRow| r.name.as_ref().map(|n| n.to_lowercase());
                named(name(a), name(b))
            }
            Self::Tokens => {
                let first = |r: &FeatureRow| r.top_tokens.first().map(|t| t.trim().to_lowercase());
                named(first(a), first(b))
            }
            Self::Rating => b.note.rating.cmp(&a.note.rating),
        }
        .then(a.id.cmp(&b.id))
    }
}

/// In the order of the alphabet, what has no name last.
fn named(a: Option<String>, b: Option<String>) -> Ordering {
    a.is_none().cmp(&b.is_none()).then(a.cmp(&b))
}
