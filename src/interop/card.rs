//! A feature's and a neuron's card as Markdown, for notes and papers.
//!
//! Knows no file. Invariant: what a token or a label holds cannot end a cell or begin a heading.

use super::markdown::{cell, emphasised, table};
use crate::analysis::{FeatureCard, NeuronCard, ScoredToken};
use crate::pieces::{VisibleSpan, visible_spans};

/// Contexts that a Markdown page shows.
const MARKDOWN_CONTEXTS: usize = 15;

/// One feature as a Markdown page.
pub fn to_markdown(card: &FeatureCard, fit: &str) -> String {
    let row = &card.row;
    let title = row
        .name
        .as_ref()
        .map_or(String::new(), |n| format!(": {}", cell(n)));
    let mut page = format!(
        "# Feature {}{title}\n\nFit `{fit}`, {} neurons, {:.2} % of all coefficients",
        row.id,
        row.neurons,
        row.share * 100.0
    );
    if let Some(p) = &row.purity {
        page += &format!(
            ", {:.0} % {} (of all rows {:.0} %)",
            p.share * 100.0,
            cell(&p.label),
            p.base * 100.0
        );
    }
    page += ".\n\n## Contexts\n\n| coefficient | label | text |\n| ---: | --- | --- |\n";
    for c in card.contexts.iter().take(MARKDOWN_CONTEXTS) {
        let shown = |s: VisibleSpan| {
            if s.shows(c.peak) {
                emphasised(&s.text)
            } else {
                cell(&s.text)
            }
        };
        let text: String = visible_spans(&c.tokens).into_iter().map(shown).collect();
        page += &format!(
            "| {:.2} | {} | {text} |\n",
            c.values[c.peak],
            cell(c.label.as_deref().unwrap_or(""))
        );
    }
    let tokens = |tokens: &[ScoredToken]| {
        tokens
            .iter()
            .map(|t| format!("`{}` {:.2}", cell(t.token.trim()), t.value))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match &card.lens_note {
        Some(note) => page += &format!("\nNo logit lens: {note}\n"),
        None => {
            page += &format!(
                "\n## Logit lens\n\nPromotes {}\n\nSuppresses {}\n",
                tokens(&card.promoted),
                tokens(&card.suppressed)
            )
        }
    }
    page += "\n## Neurons\n\n| neuron | weight | features that use it |\n| ---: | ---: | ---: |\n";
    for n in &card.neurons {
        page += &format!("| {} | {:+.3} | {} |\n", n.index, n.weight, n.used_by);
    }
    page
}

/// One neuron as a Markdown page.
pub fn neuron_to_markdown(card: &NeuronCard, fit: &str) -> String {
    let tokens = |tokens: &[ScoredToken]| {
        tokens
            .iter()
            .map(|t| format!("`{}` {:.2}", cell(t.token.trim()), t.value))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let features: Vec<Vec<String>> = card
        .features
        .iter()
        .map(|(id, w, token)| vec![id.to_string(), format!("{w:+.3}"), token.clone()])
        .collect();
    let mut page = format!(
        "# Neuron {}\n\nFit `{fit}`, used by {} features.\n",
        card.index,
        card.features.len()
    );
    if !card.promoted.is_empty() {
        page += &format!(
            "\nPromotes {}\n\nSuppresses {}\n",
            tokens(&card.promoted),
            tokens(&card.suppressed)
        );
    }
    page + "\n" + &table(&["feature", "weight", "strongest token"], &features)
}
