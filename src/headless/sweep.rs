//! `mlpeek sweep`.

use serde_json::{Value, json};

use super::grid::{Subject, cell, division, line};
use super::layers::{self, LayerScore};
use super::{Output, json};
use crate::amounts::chosen_percent;
use crate::cli::{GridArgs, SweepArgs};
use crate::error::{Error, Result};
use crate::eval::quality::Division;
use crate::eval::steering::report::MeanInterval;
use crate::eval::sweep::{SweepConfig, SweepRow, sweep};
use crate::jobs::kept;

const FIRST: usize = 22;
const HEADS: [&str; 10] = [
    "error", "held-out", "AUROC", "± s.e.", "active", "dead", "dupl.", "stable", "sweeps",
    "seconds",
];
/// Cells of the longest bar.
const BAR: f64 = 40.0;

pub(super) fn run(args: &SweepArgs, out: &mut Output) -> Result<()> {
    if args.cold && args.features.len() == 1 {
        return Err(Error::usage(
            "--cold has no effect on one number of features, which always has a start of its own",
        ));
    }
    layers::each_of(&args.grid, out, &mut |grid, out| at_layer(args, grid, out))
}

fn at_layer(args: &SweepArgs, grid: &GridArgs, out: &mut Output) -> Result<Vec<LayerScore>> {
    let ctx = out.task();
    let subject = Subject::open(grid, &args.features, out, &ctx)?;
    let (fits, seeds) = (subject.fits, grid.seeds);
    let config = SweepConfig {
        fits,
        seeds,
        holdout: subject.holdout,
        cold: args.cold,
    };
    let kept = (args.grid.layer.len() > 1)
        .then(|| kept::sweep(&subject.study, subject.hook, &config))
        .transpose()?;
    let known: Option<(Division, Vec<SweepRow>)> = layers::kept_of(kept.as_ref(), out)?;
    let mut has_head = false;
    let mut seen = |row: &SweepRow| {
        if out.is_json() {
            return out.object(&event(row));
        }
        if !std::mem::replace(&mut has_head, true) {
            let heads = HEADS.map(str::to_owned);
            out.line(&line(FIRST, &HEADS, &subject.hook.to_string(), &heads))?;
        }
        out.line(&line(FIRST, &HEADS, &name(row), &cells(row)))
    };
    let found = match known {
        Some(known) => {
            known.1.iter().try_for_each(&mut seen)?;
            known
        }
        None => {
            let (source, tokens) = (subject.source.as_ref(), &subject.tokens);
            let found = sweep(source, tokens, &config, &ctx, &mut seen)?;
            layers::keep(kept.as_ref(), &found, out)?;
            found
        }
    };
    let (parts, rows) = found;
    let scores = rows.iter().flat_map(scores).collect();
    if out.is_json() {
        out.object(
            &json!({"event": "swept", "hook": subject.hook.to_string(), "setting_count": rows.len(),
            "division": json::division(&parts)}),
        )?;
        return Ok(scores);
    }
    out.line("")?;
    out.line(&division(&parts))?;
    if rows.iter().any(|row| row.warm) {
        out.line("↑ went on from the fit above it, with more features: sweeps and seconds are those beyond it (--cold: each its own start)")?;
    }
    curve(&rows, out)?;
    Ok(scores)
}

/// What is told of a row against layer: AUROC with 1.96 standard errors either way, held-out error.
fn scores(row: &SweepRow) -> Vec<LayerScore> {
    let name = name(row);
    let auroc = row.auroc.map(|mean| {
        let half = 1.96 * row.auroc_error.unwrap_or(0.0);
        let (low, high) = (mean - half, mean + half);
        LayerScore::new(&name, "AUROC", MeanInterval { mean, low, high })
    });
    let held_out = row.held_out_error;
    let held_out = held_out.map(|error| LayerScore::of_number(&name, "held-out error", error));
    auroc.into_iter().chain(held_out).collect()
}

fn event(row: &SweepRow) -> Value {
    json!({
        "event": "row", "feature_count": row.features, "sparsity": row.sparsity, "l1": row.l1,
        "row_cap": row.row_cap, "warm": row.warm, "relative_error": row.relative_error,
        "held_out_error": row.held_out_error, "active_count": row.active, "dead_count": row.dead,
        "duplicate_count": row.duplicates, "stability": row.stability, "found_again": row.found_again,
        "auroc": row.auroc, "auroc_standard_error": row.auroc_error, "sweep_count": row.sweeps,
        "elapsed_s": row.seconds,
    })
}

fn name(row: &SweepRow) -> String {
    let cap = row
        .row_cap
        .map_or_else(String::new, |cap| format!(", cap {cap}"));
    let warm = if row.warm { " ↑" } else { "" };
    format!(
        "k {}, {}, λ {}{cap}{warm}",
        row.features,
        chosen_percent(row.sparsity),
        row.l1
    )
}

fn cells(row: &SweepRow) -> Vec<String> {
    vec![
        cell(row.relative_error, 4),
        cell(row.held_out_error, 4),
        cell(row.auroc, 3),
        cell(row.auroc_error, 3),
        cell(row.active, 1),
        cell(row.dead, 0),
        cell(Some(row.duplicates), 0),
        cell(row.stability, 2),
        cell(row.sweeps, 0),
        cell(Some(row.seconds), 1),
    ]
}

/// The held-out error as bars.
fn curve(rows: &[SweepRow], out: &mut Output) -> Result<()> {
    let most = rows
        .iter()
        .filter_map(|r| r.held_out_error)
        .fold(0.0, f64::max);
    if rows.len() < 2 || most <= 0.0 {
        return Ok(());
    }
    out.line("")?;
    out.line("held-out error")?;
    for row in rows {
        if let Some(error) = row.held_out_error {
            let bar = "█".repeat((BAR * error / most).round() as usize);
            out.line(&format!("{:FIRST$}  {bar} {error:.4}", name(row)))?;
        }
    }
    Ok(())
}
