//! `mlpeek compare`: which features two fits have in common.

use serde_json::json;

use super::features::{fit, words};
use super::{Output, open_fit};
use crate::analysis::{FeatureRow, contexts, matching};
use crate::cli::CompareArgs;
use crate::error::{Error, Result};

/// Lines of each list for a person; `--json` gives all.
const LINES: usize = 40;

pub(super) fn run(args: &CompareArgs, out: &mut Output) -> Result<()> {
    let other = args.other.as_ref().unwrap_or(&args.study);
    let (study_a, a, factors_a) = open_fit(&args.study, Some(&args.a))?;
    let (study_b, b, factors_b) = open_fit(other, Some(&args.b))?;
    let widths = (factors_a.features.rows, factors_b.features.rows);
    if widths.0 != widths.1 || a.hook != b.hook {
        return Err(Error::usage(format!(
            "'{}' is of {} ({} neurons) and '{}' of {} ({}): features compare within one hook of one model",
            a.name, a.hook, widths.0, b.name, b.hook, widths.1
        )));
    }
    let (model_a, model_b) = (&study_a.manifest().model, &study_b.manifest().model);
    if model_a.as_ref().map(|m| &m.weights_sha256) != model_b.as_ref().map(|m| &m.weights_sha256) {
        return Err(Error::usage("the two studies are of different models: their neurons have nothing in common"));
    }
    let found = matching::compare((&a.name, &factors_a.features), (&b.name, &factors_b.features));
    if out.is_json() {
        return out.object(&json!({
            "event": "compared", "a": found.a, "b": found.b, "features": [factors_a.features.columns(), factors_b.features.columns()],
            "errors": [a.relative_error, b.relative_error], "stability": found.stability, "found_again": found.found_again,
            "matched": found.matched, "lost": found.lost, "appeared": found.appeared,
        }));
    }
    let rows_a = contexts::feature_rows(&factors_a, &*study_a.tokens()?, &study_a.notes(&a.name)?);
    let rows_b = contexts::feature_rows(&factors_b, &*study_b.tokens()?, &study_b.notes(&b.name)?);
    out.line(&format!(
        "{} ({} features) and {} ({}): {} matched from cosine 0.7 on, mean cosine {:.3}, {:.0} % found again",
        a.name,
        rows_a.len(),
        b.name,
        rows_b.len(),
        found.matched.len(),
        found.stability,
        found.found_again * 100.0
    ))?;
    out.line(&format!("\nmatched\n{:>6} {:>5} {:>5}", "cosine", a.name.chars().take(5).collect::<String>(), "other"))?;
    for m in found.matched.iter().take(LINES) {
        out.line(&format!(
            "{:>6.3} {:>5} {:>5}  {:<36} {}",
            m.cosine,
            m.a,
            m.b,
            what(&rows_a[m.a]),
            what(&rows_b[m.b])
        ))?;
    }
    more(found.matched.len(), out)?;
    for (title, list, rows) in [("lost", &found.lost, &rows_a), ("appeared", &found.appeared, &rows_b)] {
        out.line(&format!("\n{title} (the nearest cosine, the feature)"))?;
        for alone in list.iter().take(LINES) {
            out.line(&format!("{:>6.3} {:>5}  {}", alone.nearest, alone.id, what(&rows[alone.id])))?;
        }
        more(list.len(), out)?;
    }
    Ok(())
}

fn more(count: usize, out: &mut Output) -> Result<()> {
    if count > LINES { out.line(&format!("       and {} more (--json gives all)", count - LINES)) } else { Ok(()) }
}

fn what(row: &FeatureRow) -> String {
    fit(&row.name.clone().unwrap_or_else(|| words(&row.top_tokens)), 36)
}
