//! What is counted in the texts of `mlpeek eval steering`, whoever judges them.

use serde_json::json;

use super::super::json as values;
use super::{Output, with_interval};
use crate::error::Result;
use crate::eval::steering::UNSTEERED;
use crate::jobs::causal::Causal;

const LEGEND: &str = "Own word: share of the texts, promoting, in which one of the label's own words stands (those that stand out \
    most in sentences that chose nothing); perplexity: of the texts under the unsteered model. Neither asks a judge.";

/// A line a method and KL.
pub(super) fn lines(found: &Causal, out: &mut Output) -> Result<()> {
    for f in &found.free_texts {
        out.object(&json!({
            "event": "free_text", "method": f.method, "hook": found.hook_of(&f.method), "kl_target": f.target,
            "own_word_interval": values::interval(f.own_word), "perplexity": f.perplexity,
            "label_count": f.labels, "text_count": f.texts,
            "minus_against": f.minus.as_ref().map(values::difference),
        }))?;
    }
    Ok(())
}

/// The same for a person.
pub(super) fn table(found: &Causal, out: &mut Output) -> Result<()> {
    let Some(first) = found.free_texts.first() else {
        return Ok(());
    };
    // All measures are compared with one line.
    let against = found.measures.iter().find_map(|m| m.compared.as_ref());
    let against = against.map_or_else(String::new, |c| format!("minus {}", c.against));
    out.line(&format!(
        "{:32}  {:>22}  {:>10}  {against}",
        "texts, promoting", "own word [95 %]", "perplexity"
    ))?;
    for f in &found.free_texts {
        let name = match f.method == UNSTEERED {
            true => UNSTEERED.to_owned(),
            false => found.shown_at(&f.method, f.target),
        };
        let perplexity = f.perplexity.map_or("-".to_owned(), |p| format!("{p:.1}"));
        let minus = f.minus.as_ref().map_or_else(String::new, |d| {
            format!("  {:+.3} [{:+.3}, {:+.3}]", d.mean, d.low, d.high)
        });
        out.line(&format!(
            "{name:32}  {:>22}  {perplexity:>10}{minus}",
            with_interval(Some(f.own_word))
        ))?;
    }
    out.line(&format!("{LEGEND} {} labels.", first.labels))?;
    out.line("")
}
