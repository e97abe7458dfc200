//! A feature's card for elsewhere: the JSON of `mlpeek feature --json`, and Markdown for notes and papers.

use serde_json::{Value, json};

use crate::analysis::{Context, FeatureCard, ScoredToken};

/// Contexts that a Markdown page shows.
const MARKDOWN_CONTEXTS: usize = 15;

/// One feature as a JSON object.
pub fn to_json(card: &FeatureCard, fit: &str) -> Value {
    json!({
        "id": card.row.id, "fit": fit, "name": card.row.name, "share": card.row.share, "density": card.row.density,
        "purity": card.row.purity, "top_tokens": card.row.top_tokens,
        "contexts": card.contexts.iter().map(context).collect::<Vec<_>>(),
        "quantiles": card.quantiles.iter().map(|(q, c)| json!({"quantile": q, "context": context(c)})).collect::<Vec<_>>(),
        "neurons": card.neurons, "promoted": logits(&card.promoted), "suppressed": logits(&card.suppressed),
        "lens_note": card.lens_note, "related": card.related, "labels": card.labels, "histogram": card.histogram,
        "peak": card.peak,
    })
}

fn context(c: &Context) -> Value {
    json!({"tokens": c.tokens, "values": c.values, "peak": c.peak, "label": c.label, "row": c.row, "sample": c.sample})
}

fn logits(tokens: &[ScoredToken]) -> Value {
    tokens.iter().map(|t| json!({"token": t.token, "id": t.id, "logit": t.value})).collect()
}

/// One feature as a Markdown page.
pub fn to_markdown(card: &FeatureCard, fit: &str) -> String {
    let row = &card.row;
    let title = row.name.as_ref().map_or(String::new(), |n| format!(": {n}"));
    let mut page = format!(
        "# Feature {}{title}\n\nFit `{fit}`, {} neurons, {:.2} % of all coefficients",
        row.id,
        row.neurons,
        row.share * 100.0
    );
    if let Some(p) = &row.purity {
        page += &format!(", {:.0} % {} (of all rows {:.0} %)", p.share * 100.0, p.label, p.base * 100.0);
    }
    page += ".\n\n## Contexts\n\n| coefficient | label | text |\n| ---: | --- | --- |\n";
    for c in card.contexts.iter().take(MARKDOWN_CONTEXTS) {
        let text: String =
            c.tokens.iter().enumerate().map(|(i, t)| if i == c.peak { emphasised(t) } else { cell(t) }).collect();
        page += &format!("| {:.2} | {} | {text} |\n", c.values[c.peak], cell(c.label.as_deref().unwrap_or("")));
    }
    let tokens = |tokens: &[ScoredToken]| {
        tokens.iter().map(|t| format!("`{}` {:.2}", cell(t.token.trim()), t.value)).collect::<Vec<_>>().join(", ")
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

/// Bold around the word itself, not around its leading space, which Markdown would not read as bold.
fn emphasised(token: &str) -> String {
    let word = token.trim();
    let (before, after) = token.split_once(word).unwrap_or(("", ""));
    if word.is_empty() { cell(token) } else { format!("{}**{}**{}", cell(before), cell(word), cell(after)) }
}

/// Text that cannot break a Markdown table or hide anything.
fn cell(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' => "⏎".to_owned(),
            '|' | '*' | '`' | '\\' | '<' | '_' => format!("\\{c}"),
            c if c.is_control() => c.escape_default().to_string(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_break_the_table() {
        assert_eq!(emphasised(" a|b\n"), " **a\\|b**⏎");
        assert_eq!(emphasised("\n"), "⏎");
        assert_eq!(cell("<b>"), "\\<b>");
    }
}
