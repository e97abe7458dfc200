//! `mlpeek compare`: which features two fits have in common.

use std::path::Path;

use serde_json::json;

use super::features::words;
use super::{Output, open_study};
use crate::analysis::FeatureRow;
use crate::analysis::matching::{Match, Unmatched};
use crate::cli::CompareArgs;
use crate::error::Result;
use crate::jobs::comparing;
use crate::text;

/// Lines of each list for a person; `--json` gives all.
const LINES: usize = 40;

pub(super) fn run(args: &CompareArgs, out: &mut Output) -> Result<()> {
    let side = |dir: &Path, fit: &str| open_study(dir, out)?.compared_fit(Some(fit));
    let a = side(&args.study, &args.a)?;
    let b = side(args.other.as_ref().unwrap_or(&args.study), &args.b)?;
    let found = comparing::compare(&a, &b)?;
    if out.is_json() {
        let matched = |m: &Match| json!({"feature_a": m.a, "feature_b": m.b, "cosine": m.cosine});
        let alone = |a: &Unmatched| json!({"feature": a.id, "nearest_cosine": a.nearest});
        return out.object(&json!({
            "event": "compared", "fit_a": found.a, "fit_b": found.b,
            "feature_count_a": a.factors.features.columns(), "feature_count_b": b.factors.features.columns(),
            "relative_error_a": a.relative_error, "relative_error_b": b.relative_error,
            "stability": found.stability, "found_again": found.found_again,
            "matched": found.matched.iter().map(matched).collect::<Vec<_>>(),
            "lost": found.lost.iter().map(alone).collect::<Vec<_>>(),
            "appeared": found.appeared.iter().map(alone).collect::<Vec<_>>(),
        }));
    }
    let (rows_a, rows_b) = (a.rows(), b.rows());
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
    out.line("")?;
    out.line("matched")?;
    out.line(&format!(
        "{:>6} {:>5} {:>5}",
        "cosine",
        a.name.chars().take(5).collect::<String>(),
        "other"
    ))?;
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
    for (title, list, rows) in [
        ("lost", &found.lost, &rows_a),
        ("appeared", &found.appeared, &rows_b),
    ] {
        out.line("")?;
        out.line(&format!("{title} (the nearest cosine, the feature)"))?;
        for alone in list.iter().take(LINES) {
            out.line(&format!(
                "{:>6.3} {:>5}  {}",
                alone.nearest,
                alone.id,
                what(&rows[alone.id])
            ))?;
        }
        more(list.len(), out)?;
    }
    Ok(())
}

fn more(count: usize, out: &mut Output) -> Result<()> {
    if count > LINES {
        out.line(&format!(
            "       and {} more (--json gives all)",
            count - LINES
        ))
    } else {
        Ok(())
    }
}

fn what(row: &FeatureRow) -> String {
    text::truncate(
        &row.name
            .as_deref()
            .map_or_else(|| words(&row.top_tokens), text::clean),
        36,
    )
}
