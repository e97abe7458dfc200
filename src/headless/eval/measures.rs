//! The rises of `mlpeek eval steering` beside what would have raised the words anyway.

use serde_json::json;

use super::super::json as values;
use super::Output;
use crate::error::Result;
use crate::eval::steering::measures::Measure;
use crate::jobs::causal::Causal;

const ANYWAY: &str = "Calibrated: minus where the words stand under random directions at the same KL. Own: minus where they stand \
    under the method's directions for other labels. New: calibrated, of the words that the sentences that chose lack. Nats: the \
    mean change of their log-probabilities. Differences: paired over labels, [95 %] by the bootstrap, below 20 labels by Student's t; *: holds beside all others \
    of its column (Holm, 0.05), of";

/// A line a measure.
pub(super) fn lines(found: &Causal, out: &mut Output) -> Result<()> {
    for m in &found.measures {
        let compared = m.compared.as_ref();
        out.object(&json!({
            "event": "measure", "method": m.method, "hook": found.hook_of(&m.method), "kl_target": m.target,
            "measure": m.measure, "value_interval": values::interval(m.value), "label_count": m.labels,
            "against": compared.map(|c| &c.against),
            "minus_against": compared.map(|c| values::difference(&c.difference)),
            "p": compared.map(|c| c.p), "adjusted_p": compared.map(|c| c.adjusted_p),
            "comparison_count": compared.map(|c| c.comparisons),
        }))?;
    }
    Ok(())
}

/// The rises beside what would have raised the words anyway.
pub(super) fn table(found: &Causal, out: &mut Output) -> Result<()> {
    let measured = |method: &str, target: f64, measure: Measure| {
        let mut all = found.measures.iter();
        all.find(|m| m.method == method && m.target == target && m.measure == measure)
    };
    let rows = || found.measures.iter().filter(|m| m.measure == Measure::Rise);
    let compared = |measure: Measure| {
        let of_measure = found.measures.iter().filter(move |m| m.measure == measure);
        of_measure.filter_map(|m| m.compared.as_ref()).next()
    };
    let Some(first) = compared(Measure::Rise) else {
        return Ok(());
    };
    let heads: String = [
        Measure::Calibrated,
        Measure::Own,
        Measure::New,
        Measure::Nats,
    ]
    .iter()
    .map(|m| format!("{:>11}", m.name()))
    .collect();
    out.line(&format!(
        "{:32}{heads}  {:>26}  {:>26}",
        "the same beside what rises anyway",
        format!("calibrated − {}", first.against),
        format!("own − {}", first.against),
    ))?;
    for row in rows() {
        let name = found.shown_at(&row.method, row.target);
        let cell = |measure| {
            let value = measured(&row.method, row.target, measure).map(|m| m.value.mean);
            value.map_or_else(|| format!("{:>11}", "-"), |v| format!("{v:>+11.3}"))
        };
        let values: String = [
            Measure::Calibrated,
            Measure::Own,
            Measure::New,
            Measure::Nats,
        ]
        .map(cell)
        .concat();
        let less = |measure| {
            let compared =
                measured(&row.method, row.target, measure).and_then(|m| m.compared.as_ref());
            let text = compared.map_or_else(String::new, |c| {
                let d = &c.difference;
                let holds = if c.adjusted_p < 0.05 { "*" } else { " " };
                format!("{:+.3} [{:+.3}, {:+.3}]{holds}", d.mean, d.low, d.high)
            });
            format!("{text:>26}")
        };
        let (calibrated, own) = (less(Measure::Calibrated), less(Measure::Own));
        out.line(&format!("{name:32}{values}  {calibrated}  {own}"))?;
    }
    out.line(&format!("{ANYWAY} {} comparisons.", first.comparisons))?;
    out.line("")
}
