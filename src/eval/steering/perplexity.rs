//! How likely a text is to the unsteered model, and how much it repeats itself.

use std::collections::HashSet;

use candle_core::IndexOp;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::model::{Batch, Logits, Model, NoTap, Phase, Portion, host, likelihood};
use crate::steering::change::log_sum_exp;
use crate::task::TaskCtx;

/// Logits in flight at a time (256 MiB as f32).
const LOGITS: usize = 64 << 20;
/// Tokens of a run that counts as repeated.
const RUN: usize = 3;

/// Mean negative log-likelihood of the second ids of each pair after the first, nats a token, in
/// f64; 0 where there are none. exp of it is the perplexity.
///
/// # Errors
/// What the model returns; [`Error::Cancelled`].
pub fn mean_nll(model: &Model, rows: &[(&[u32], &[u32])], ctx: &TaskCtx) -> Result<Vec<f64>> {
    let longest = rows
        .iter()
        .map(|(a, b)| a.len() + b.len())
        .max()
        .unwrap_or(0);
    let mut portion = Portion::new(LOGITS / (longest * model.info().vocab).max(1));
    let mut out = Vec::with_capacity(rows.len());
    let mut rest = rows;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(portion.most().min(rest.len()));
        match nll_of(model, now, ctx) {
            Ok(found) => {
                out.extend(found);
                rest = later;
            }
            Err(error) => portion.shrink(error, model.device(), (now.len(), 1), "texts")?,
        }
    }
    Ok(out)
}

/// [`mean_nll`] in one pass.
fn nll_of(model: &Model, rows: &[(&[u32], &[u32])], ctx: &TaskCtx) -> Result<Vec<f64>> {
    let batch = Batch {
        rows: rows.iter().map(|(a, b)| [*a, *b].concat()).collect(),
        samples: Vec::new(),
    };
    let logits = model.forward(&batch, Phase::Prompt, None, &mut NoTap, Logits::All, ctx)?;
    let logits = logits.ok_or_else(|| Error::refused("the model gave no logits for the text"))?;
    let mut out = Vec::with_capacity(rows.len());
    for (r, (prompt, new)) in rows.iter().enumerate() {
        let Some(first) = prompt.len().checked_sub(1).filter(|_| !new.is_empty()) else {
            out.push(0.0);
            continue;
        };
        let rows = logits.i((r, first..first + new.len()))?;
        if !model.decoder().is_mapped() {
            let each = likelihood::log_likelihoods(&likelihood::log_softmax(&rows)?, new)?;
            out.push(-each.iter().sum::<f64>() / new.len() as f64);
            continue;
        }
        let rows = host::rows(&rows)?;
        let nll = |(line, &id): (&Vec<f32>, &u32)| log_sum_exp(line) - f64::from(line[id as usize]);
        // Summed in the order of the tokens, whatever the threads.
        let each: Vec<f64> = rows.par_iter().zip(new.par_iter()).map(nll).collect();
        out.push(each.iter().sum::<f64>() / new.len() as f64);
    }
    Ok(out)
}

/// Distinct runs of three tokens among all; 1 for a text too short to have two.
pub fn distinct_share(ids: &[u32]) -> f64 {
    let all = ids.windows(RUN).count();
    let distinct: HashSet<&[u32]> = ids.windows(RUN).collect();
    if all < 2 {
        1.0
    } else {
        distinct.len() as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_has_few_distinct_runs() {
        assert_eq!(distinct_share(&[1, 2, 1, 2, 1, 2, 1, 2]), 2.0 / 6.0);
        assert_eq!(distinct_share(&[1, 2, 3, 4, 5]), 1.0);
        assert_eq!(
            (distinct_share(&[]), distinct_share(&[1, 1, 1])),
            (1.0, 1.0)
        );
    }
}
