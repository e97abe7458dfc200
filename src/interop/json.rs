//! What is read of a study as JSON objects, one shape each: the commands print them with `--json`,
//! the explorer copies and exports them.
//!
//! Owns the names of the fields, which `src/guide/json.md` documents. Knows no file and no study.
//! Invariant: a name has one type wherever it stands, and every field is there, `null` where there
//! is nothing to say.

use serde::Serialize;
use serde_json::{Value, json};

use super::dendrogram::leaf_label;
use crate::analysis::hierarchy;
use crate::analysis::{
    Context, FeatureCard, FeatureNote, FeatureRow, Levels, NeuronCard, Trace, Tree,
};
use crate::eval::judge::describe::Description;
use crate::eval::judge::score::Score;
use crate::eval::judge::sentences::{Sentence, Sentences};
use crate::model::HookPoint;

/// A line of the feature list; `set` is the fit or the other set of directions.
pub fn feature_row(row: &FeatureRow, set: &str, hook: Option<HookPoint>) -> Value {
    let purity = row
        .purity
        .as_ref()
        .map(|p| json!({"label": p.label, "share": shortest(p.share), "base": shortest(p.base)}));
    let mut object = json!({
        "feature": row.id, "set": set, "hook": hook.map(|hook| hook.to_string()), "share": shortest(row.share),
        "density": shortest(row.density), "neuron_count": row.neurons, "purity": purity,
        "top_tokens": row.top_tokens, "promoted": row.promoted,
        // What was measured of it, which who knows it adds.
        "raised": null, "lowered": null, "recipe": [],
    });
    add_note(&mut object, row.name.as_deref(), &row.note);
    object
}

/// The number with the fewest decimals that is still this one in single precision: a list is read by
/// people too.
fn shortest(value: f32) -> Option<f64> {
    value.to_string().parse().ok()
}

/// Adds what a person noted of a feature.
fn add_note(object: &mut Value, name: Option<&str>, note: &FeatureNote) {
    object["name"] = json!(name);
    object["tags"] = json!(note.tags);
    object["rating"] = json!(note.rating);
    object["note"] = json!(note.text);
    object["doubtful"] = json!(note.doubtful);
}

/// What is noted of a feature of a fit.
pub fn note(fit: &str, feature: usize, name: Option<&str>, note: &FeatureNote) -> Value {
    let mut object = json!({"fit": fit, "feature": feature, "unplaced": null});
    add_note(&mut object, name, note);
    object
}

/// A note whose feature is gone since a refit, as the line that a person typed.
pub fn unplaced_note(fit: &str, line: &str) -> Value {
    let mut object = json!({"fit": fit, "feature": null, "unplaced": line});
    add_note(&mut object, None, &FeatureNote::default());
    object
}

/// One feature whole: its line in the list, with more promoted tokens, and all that a card shows.
pub fn feature_card(
    card: &FeatureCard,
    set: &str,
    hook: Option<HookPoint>,
    described: Option<&Description>,
) -> Value {
    let mut object = feature_row(&card.row, set, hook);
    object["promoted"] = json!(card.promoted);
    object["suppressed"] = json!(card.suppressed);
    object["lens_note"] = json!(card.lens_note);
    object["contexts"] = card.contexts.iter().map(context).collect();
    object["quantiles"] = card
        .quantiles
        .iter()
        .map(|(quantile, c)| json!({"quantile": quantile, "context": context(c)}))
        .collect();
    object["neurons"] = card
        .neurons
        .iter()
        .map(|n| json!({"neuron": n.index, "weight": n.weight, "feature_count": n.used_by}))
        .collect();
    object["related"] = card
        .related
        .iter()
        .map(|r| json!({"feature": r.id, "overlap": r.overlap}))
        .collect();
    object["label_shares"] = card
        .labels
        .iter()
        .map(|l| json!({"label": l.label, "mass": l.mass, "context_share": l.contexts, "base": l.base}))
        .collect();
    object["histogram"] = json!(card.histogram);
    object["max_coefficient"] = json!(card.peak);
    object["description"] = described.map_or(Value::Null, description);
    object
}

fn context(c: &Context) -> Value {
    json!({"tokens": c.tokens, "values": c.values, "peak": c.peak, "label": c.label, "row": c.row, "sample": c.sample})
}

/// What a judge said of a feature, with its scores.
pub fn description(d: &Description) -> Value {
    json!({
        "input": d.input, "output": d.output, "detection_score": d.detection.as_ref().map(score),
        "fuzzing_score": d.fuzzing.as_ref().map(score), "input_sentences": d.input_sentences.as_ref().map(sentences),
        "output_sentences": d.output_sentences.as_ref().map(sentences), "judge": d.judge, "errors": d.errors,
        "is_checked": d.direction.is_some(),
    })
}

fn score(s: &Score) -> Value {
    json!({
        "balanced_accuracy": s.balanced_accuracy, "true_positive_rate": s.true_positive_rate,
        "true_negative_rate": s.true_negative_rate, "judged_count": s.judged, "missing_count": s.missing,
    })
}

fn sentences(s: &Sentences) -> Value {
    let list = |sentences: &[Sentence]| -> Value {
        sentences
            .iter()
            .map(|s| json!({"text": s.text, "score": s.score}))
            .collect()
    };
    json!({"activating": list(&s.activating), "neutral": list(&s.neutral), "s_cd": s.s_cd})
}

/// One neuron: the features of the set that use it, and where it is strongest.
pub fn neuron_card(card: &NeuronCard, set: &str) -> Value {
    let features: Vec<Value> = card
        .features
        .iter()
        .map(|(id, weight, token)| json!({"feature": id, "weight": weight, "top_token": token}))
        .collect();
    json!({
        "neuron": card.index, "set": set, "feature_weights": features, "promoted": card.promoted,
        "suppressed": card.suppressed, "contexts": card.contexts.iter().map(context).collect::<Vec<_>>(),
    })
}

/// Features of a fit on new text; `state` says how the fit ended.
pub fn trace(trace: &Trace, fit: &str, state: impl Serialize) -> Value {
    let coefficients: Vec<Value> = trace
        .features
        .iter()
        .map(|f| json!({"feature": f.id, "values": f.values}))
        .collect();
    json!({
        "fit": fit, "state": json!(state), "tokens": trace.tokens, "coefficients": coefficients,
        "unexplained": trace.unexplained,
    })
}

/// A dendrogram: leaves first, then merges in the order of height.
pub fn tree(tree: &Tree, fit: &str) -> Value {
    let nodes: Vec<Value> = tree
        .nodes
        .iter()
        .map(|n| json!({"node": n.id, "children": n.children, "height": n.height, "features": n.features}))
        .collect();
    json!({"fit": fit, "clustering": tree.measure, "nodes": nodes})
}

/// A dendrogram cut at a height: its clusters, with what its leaves are called.
pub fn clusters(tree: &Tree, height: f32, rows: &[FeatureRow], fit: &str) -> Value {
    let clusters: Vec<Value> = hierarchy::cut(tree, height)
        .into_iter()
        .map(|ids| {
            let labels: Vec<String> = ids.iter().map(|&id| leaf_label(&rows[id])).collect();
            json!({"features": ids, "leaf_labels": labels})
        })
        .collect();
    json!({"fit": fit, "clustering": tree.measure, "height": height, "clusters": clusters})
}

/// Levels of features of features; a node's height is its level.
pub fn levels(levels: &Levels, fit: &str) -> Value {
    let infos: Vec<Value> = levels
        .levels
        .iter()
        .map(|l| {
            let joint = l
                .joint
                .map(|(before, after)| json!({"before": before, "after": after}));
            json!({
                "feature_count": l.features, "sparsity": l.sparsity, "relative_error": l.relative_error,
                "joint": joint,
            })
        })
        .collect();
    let nodes: Vec<Value> = levels
        .nodes
        .iter()
        .map(|n| {
            json!({
                "node": n.id, "level": n.level, "height": n.level, "feature": n.feature, "children": n.children,
                "shares": n.shares, "features": n.features, "neuron_count": n.neurons,
                "top_tokens": n.top_tokens, "promoted": n.promoted, "purity": n.purity,
                "contexts": n.contexts.iter().map(context).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({"fit": fit, "growth": levels.growth, "levels": infos, "level_nodes": nodes})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_no_more_decimals_than_it_needs() {
        assert_eq!(json!(shortest(0.1)).to_string(), "0.1");
        assert_eq!(json!(f64::from(0.1f32)).to_string(), "0.10000000149011612");
        assert_eq!(json!(shortest(f32::NAN)), Value::Null);
    }
}
