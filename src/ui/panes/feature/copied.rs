//! A feature's and a neuron's card for the clipboard.

use std::fmt::Write as _;

use crate::analysis::{FeatureCard, NeuronCard, ScoredToken};
use crate::interop::{card, json};
use crate::model::HookPoint;
use crate::text;
use crate::ui::pane::{CopyFormats, Cx, Step};

/// The fit on show, or the other set of directions.
fn set<'a>(cx: &Cx<'a>) -> &'a str {
    cx.world.features.as_ref().map_or("", |list| &list.fit)
}

/// The space of the directions on show.
fn hook(cx: &Cx) -> Option<HookPoint> {
    let features = cx.world.features.as_ref();
    let set = features.and_then(|list| list.set.as_ref());
    set.map(|set| set.hook)
        .or(cx.world.study.as_ref().map(|study| study.hook))
}

pub(super) fn copy_card(shown: &FeatureCard, cx: &Cx) -> Step {
    Step::CopyAs(Box::new(CopyFormats {
        what: format!("feature #{}", shown.row.id),
        text: text_of_card(shown),
        json: json::feature_card(shown, set(cx), hook(cx), None),
        markdown: card::to_markdown(shown, set(cx)),
    }))
}

pub(super) fn copy_neuron(shown: &NeuronCard, cx: &Cx) -> Step {
    Step::CopyAs(Box::new(CopyFormats {
        what: format!("neuron {}", shown.index),
        text: neuron_text(shown),
        json: json::neuron_card(shown, set(cx)),
        markdown: card::neuron_to_markdown(shown, set(cx)),
    }))
}

fn tokens(list: &[ScoredToken]) -> String {
    list.iter()
        .map(|t| format!("{} {:+.2}", text::token(&t.token), t.value))
        .collect::<Vec<_>>()
        .join(", ")
}

fn text_of_card(card: &FeatureCard) -> String {
    let row = &card.row;
    let mut out = format!("feature #{}", row.id);
    if let Some(name) = &row.name {
        let _ = write!(out, " {}", text::clean(name));
    }
    let _ = write!(out, "\nshare {:.4}, density {:.4}", row.share, row.density);
    if let Some(p) = &row.purity {
        let _ = write!(
            out,
            ", {} {:.2} (base {:.2})",
            text::clean(&p.label),
            p.share,
            p.base
        );
    }
    let _ = write!(
        out,
        "\npromotes: {}\nsuppresses: {}\nneurons: ",
        tokens(&card.promoted),
        tokens(&card.suppressed)
    );
    let neurons: Vec<String> = card
        .neurons
        .iter()
        .map(|n| format!("{} {:+.3}", n.index, n.weight))
        .collect();
    out.push_str(&neurons.join(", "));
    for context in &card.contexts {
        let value = context.values.get(context.peak).copied().unwrap_or(0.0);
        let _ = write!(
            out,
            "\n{value:.3}\t{}",
            text::clean(&context.tokens.concat())
        );
    }
    out
}

fn neuron_text(card: &NeuronCard) -> String {
    let features: Vec<String> = card
        .features
        .iter()
        .map(|(id, w, _)| format!("#{id} {w:+.3}"))
        .collect();
    format!(
        "neuron {}\nfeatures: {}\npromotes: {}\nsuppresses: {}",
        card.index,
        features.join(", "),
        tokens(&card.promoted),
        tokens(&card.suppressed)
    )
}
