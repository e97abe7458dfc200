//! `mlpeek trace`.

use std::sync::Arc;

use super::{Output, model_of, open_fit};
use crate::analysis::contexts;
use crate::cli::TraceArgs;
use crate::error::Result;
use crate::factor::encode::Encoder;
use crate::interop::json;
use crate::jobs::reading::{self, Reader};
use crate::pieces;
use crate::text;

/// Cells of the column of tokens.
const TOKEN: usize = 16;

pub(super) fn run(args: &TraceArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let (mut study, entry, factors) = open_fit(&args.study, args.fit.as_deref(), out)?;
    let layers = Some(entry.hook.layer + 1);
    let model = model_of(&mut study, &args.model, layers, out, &ctx)?;
    let trace = reading::trace(
        &model,
        entry.hook,
        &Reader::Fit(Arc::new(Encoder::from_factors(&factors))),
        &factors,
        &args.text,
        study.manifest().bos,
        &ctx,
    )?;
    if out.is_json() {
        return out.object(&json::trace(&trace, &entry.name, entry.state));
    }
    let rows = contexts::feature_rows(&factors, &*study.tokens()?, &study.notes(&entry.name)?);
    for i in 0..trace.tokens.len() {
        let token = pieces::token_name(&trace.tokens, i);
        let mut strongest: Vec<_> = trace
            .features
            .iter()
            .map(|f| (f.values[i], f.id))
            .filter(|f| f.0 > 0.0)
            .collect();
        strongest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let shown: Vec<_> = strongest
            .iter()
            .take(4)
            .map(|(v, id)| {
                format!(
                    "{id} {v:.2} ({})",
                    rows[*id]
                        .top_tokens
                        .first()
                        .map_or(String::new(), |t| text::token(t))
                )
            })
            .collect();
        out.line(&format!(
            "{token}{} {:>4.0} % unexplained  {}",
            " ".repeat(TOKEN.saturating_sub(text::width(&token))),
            trace.unexplained[i] * 100.0,
            shown.join("  ")
        ))?;
    }
    Ok(())
}
