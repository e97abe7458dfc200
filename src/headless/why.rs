//! `mlpeek why`.

use serde_json::{Value, json};

use super::{Output, model_of, open_fit};
use crate::analysis::{FeatureRow, contexts};
use crate::cli::WhyArgs;
use crate::error::Result;
use crate::interop::dendrogram::leaf_label;
use crate::jobs::attribution::{
    Attribution, AttributionRequest, NextToken, Part, PartEffect, attribute,
};
use crate::text;

/// Cells of the column of names, and of the longest bar to either side.
const NAME: usize = 34;
const BAR: usize = 14;

pub(super) fn run(args: &WhyArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let (mut study, entry, factors) = open_fit(&args.study, args.fit.as_deref(), out)?;
    let model = model_of(&mut study, &args.model, None, out, &ctx)?;
    let request = AttributionRequest {
        text: &args.text,
        at: args.at,
        target: args.token.as_deref(),
        bos: study.manifest().bos,
    };
    let found = attribute(&model, entry.hook, &factors, &request, &ctx)?;
    let shown = &found.parts[..found.parts.len().min(args.limit.get())];
    if out.is_json() {
        return out.object(&to_json(&found, shown, &entry.name));
    }
    let rows = contexts::feature_rows(&factors, &*study.tokens()?, &study.notes(&entry.name)?);
    print(&found, shown, &rows, out)
}

fn print(
    found: &Attribution,
    shown: &[PartEffect],
    rows: &[FeatureRow],
    out: &mut Output,
) -> Result<()> {
    let end = &found.tokens[found.tokens.len().saturating_sub(8)..];
    let named = |next: &NextToken| format!("{:?} {:.1} %", next.token, 100.0 * next.probability);
    let likeliest: Vec<String> = found.likeliest.iter().map(named).collect();
    out.line(&format!(
        "after {:?}: {}; the likeliest are {}",
        end.concat(),
        named(&found.target),
        likeliest.join(", ")
    ))?;
    out.line(&format!(
        "Each part of the activations at this token, taken away alone: how many nats of log-probability {:?} loses (+: the part \
         makes it likelier), and what the part adds to its logit by the direct path.",
        found.target.token
    ))?;
    out.line(&format!(
        "{} coefficient    nats   logit",
        text::pad("part", NAME)
    ))?;
    let most = shown.iter().map(|p| p.effect.abs()).fold(0.0, f64::max);
    for part in shown {
        let (name, coefficient) = match part.part {
            Part::Feature { id, coefficient } => {
                (leaf_label(&rows[id]), format!("{coefficient:.2}"))
            }
            Part::Centre => ("the mean row".to_owned(), String::new()),
            Part::Unexplained => ("what no feature explains".to_owned(), String::new()),
        };
        out.line(&format!(
            "{} {coefficient:>11} {:>+7.3} {:>+7.3}  {}",
            text::pad(&text::truncate(&name, NAME), NAME),
            part.effect,
            part.direct,
            bar(part.effect, most)
        ))?;
    }
    let (all, sum) = (found.parts.len(), found.sum());
    if shown.len() < all {
        let rest: f64 = found.parts[shown.len()..].iter().map(|p| p.effect).sum();
        out.line(&format!(
            "{} more parts, whose effects sum to {rest:+.3}: --limit {all} shows them",
            all - shown.len()
        ))?;
    }
    out.line(&format!(
        "All features taken away at once: {:+.3} nats. Alone they sum to {sum:+.3}; the difference, {:+.3}, is how they act together. \
         What no feature explains is not counted here.",
        found.together,
        found.together - sum
    ))?;
    let direct: f64 = found.parts.iter().map(|p| p.direct).sum();
    out.line(&format!(
        "Direct path: all parts add {direct:+.3} to the logit of {:.3}; the other layers and attention add {:+.3}.",
        found.logit, found.rest
    ))
}

/// A bar to the left of a middle line for what is below 0, to the right for what is above.
fn bar(value: f64, most: f64) -> String {
    let cells = match most > 0.0 {
        true => (value.abs() / most * BAR as f64).round() as usize,
        false => 0,
    };
    let filled = "█".repeat(cells.min(BAR));
    match value < 0.0 {
        true => format!("{}{filled}│", " ".repeat(BAR - cells.min(BAR))),
        false => format!("{}│{filled}", " ".repeat(BAR)),
    }
}

fn to_json(found: &Attribution, shown: &[PartEffect], fit: &str) -> Value {
    let next = |next: &NextToken| json!({"token_id": next.id, "token": next.token, "probability": next.probability});
    let part = |part: &PartEffect| {
        let (kind, feature, coefficient) = match part.part {
            Part::Feature { id, coefficient } => ("feature", Some(id), Some(coefficient)),
            Part::Centre => ("centre", None, None),
            Part::Unexplained => ("unexplained", None, None),
        };
        json!({"part": kind, "feature": feature, "coefficient": coefficient, "effect": part.effect, "direct": part.direct})
    };
    json!({
        "fit": fit, "tokens": found.tokens, "target": next(&found.target),
        "likeliest": found.likeliest.iter().map(next).collect::<Vec<_>>(),
        "part_count": found.parts.len(), "parts": shown.iter().map(part).collect::<Vec<_>>(),
        "together": found.together, "sum": found.sum(), "logit": found.logit, "rest": found.rest,
    })
}
