//! The tables of `mlpeek eval steering`: scores at each KL and sign, and the rise of own words.

use super::{Output, free_text, measures, with_interval};
use crate::error::Result;
use crate::eval::steering::worded::NO_TARGET;
use crate::jobs::causal::Causal;

const NAMES: usize = 24;
const RISE: &str = "Where a label's own words, learnt from the sentences that chose nothing, stand among all tokens' changes as the \
    next token: 1 rises most, 0.5 is chance. It asks no judge and needs no texts (--samples 0).";

/// "22 labels, 6 not judged (animals, money, …)".
fn labels(found: &Causal) -> String {
    let names: Vec<&str> = found
        .not_judged
        .iter()
        .map(|(label, _)| label.as_str())
        .collect();
    let more = if names.is_empty() {
        String::new()
    } else {
        format!(", {} not judged ({})", names.len(), names.join(", "))
    };
    format!("{} labels{more}", found.labels.len())
}

pub(super) fn table(found: &Causal, out: &mut Output) -> Result<()> {
    if found.methods.iter().any(|r| r.texts > 0) {
        scores(found, out)?;
        free_text::table(found, out)?;
    }
    let Some(first) = found.rises.first() else {
        return Ok(());
    };
    out.line(&format!(
        "rise of the labels' own words, promoting, 0 to 1 [95 %]; {} minus each",
        first.method
    ))?;
    for r in &found.rises {
        let head = found.shown_at(&r.method, r.target);
        let less = r.first_minus.as_ref();
        let less = less.map_or_else(String::new, |d| {
            format!("  {:+.3} [{:+.3}, {:+.3}]", d.mean, d.low, d.high)
        });
        out.line(&format!(
            "{head:32}  {:>22}  {:>3} labels{less}",
            with_interval(Some(r.rise)),
            r.labels
        ))?;
    }
    out.line(RISE)?;
    out.line("")?;
    measures::table(found, out)
}

fn scores(found: &Causal, out: &mut Output) -> Result<()> {
    let mut targets: Vec<f64> = found
        .methods
        .iter()
        .flat_map(|r| r.cells.iter().map(|c| c.target))
        .collect();
    targets.sort_by(f64::total_cmp);
    targets.dedup();
    let heads: String = targets
        .iter()
        .map(|&t| match t {
            NO_TARGET => format!("{:>15}", "no KL sought"),
            t => format!("{:>15}", format!("KL {t}")),
        })
        .collect();
    let (first, best, promoting) = (
        "score 0 to 2 [95 %]",
        "best KL and sign",
        "best KL, promoting",
    );
    let names = found
        .methods
        .iter()
        .map(|r| found.shown(&r.method).chars().count())
        .max()
        .unwrap_or(0)
        .max(NAMES);
    out.line(&format!(
        "{first:names$}  {best:>22}  {promoting:>22}{heads}"
    ))?;
    for r in &found.methods {
        let cell = |target: &f64| {
            let score_of = |sign| {
                r.cells
                    .iter()
                    .find(|c| c.target == *target && c.sign == sign)
                    .map(|c| c.score.mean)
            };
            let text = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.2}"));
            format!(
                "{:>15}",
                format!("+{} −{}", text(score_of(1)), text(score_of(-1)))
            )
        };
        let cells: String = targets.iter().map(cell).collect();
        let (best, promoting) = (with_interval(r.best), with_interval(r.best_promoting));
        out.line(&format!(
            "{:names$}  {best:>22}  {promoting:>22}{cells}",
            found.shown(&r.method)
        ))?;
    }
    let base = found.unsteered.map_or_else(
        || format!("{:>22}", "-"),
        |u| {
            format!(
                "{:>22.3}  (concept {:.2}, fluency {:.2})",
                u.score, u.concept, u.fluency
            )
        },
    );
    out.line(&format!("{:names$}  {base}", "unsteered"))?;
    out.line("")?;
    out.line(&format!(
        "{}; best: chosen on one half of the prompts (of equal cells a promoting one, then the lowest KL), scored on the \
         other, both ways; intervals: bootstrap over labels, below 20 Student's t",
        labels(found)
    ))?;
    out.line(&found.meaning)?;
    if let Some(first) = found.compared.first() {
        out.line("")?;
        out.line(&format!(
            "best of {} minus that of (paired over labels):",
            first.method
        ))?;
    }
    for c in &found.compared {
        let d = &c.difference;
        out.line(&format!(
            "  {:names$}  {:+.3}  [{:+.3}, {:+.3}]",
            found.shown(&c.against),
            d.mean,
            d.low,
            d.high
        ))?;
    }
    out.line("")
}
