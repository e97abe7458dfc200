//! `mlpeek quality`.

use serde_json::{Value, json};

use super::grid::{Subject, cell, division, line};
use super::json::merged;
use super::layers::{self, LayerScore};
use super::{Output, json};
use crate::cli::{GridArgs, QualityArgs};
use crate::error::Result;
use crate::eval::bootstrap::Verdict;
use crate::eval::compared::{MEASURES, Measure, MeasureInterval, MethodDifference};
use crate::eval::contexts::ContextPurity;
use crate::eval::quality::{Quality, QualityConfig, objectives, quality};
use crate::eval::report::MethodReport;
use crate::eval::steering::report::MeanInterval;
use crate::jobs::kept;
use crate::model::HookPoint;

const NAMES: usize = 34;
const HEADS: [&str; 13] = [
    "AUROC", "± s.e.", "S_CD", "undef.", "error", "held-out", "active", "label", "token", "dead",
    "dupl.", "stable", "seconds",
];

const LEGEND: &str = "AUROC, S_CD: held-out sentences, by the direction that is best on the training ones · error, held-out: of the activations as they are, on \
    training tokens and on the others · \
    active: features above 5 % of their maximum at a token · label, token: purity of the 25 strongest sentences · stable: mean |cos| \
    of features matched over seeds";

pub(super) fn run(args: &QualityArgs, out: &mut Output) -> Result<()> {
    layers::each_of(&args.grid, out, &mut |grid, out| at_layer(args, grid, out))
}

fn at_layer(args: &QualityArgs, grid: &GridArgs, out: &mut Output) -> Result<Vec<LayerScore>> {
    let ctx = out.task();
    let subject = Subject::open(grid, &args.features, out, &ctx)?;
    let config = QualityConfig {
        fits: match args.every_objective {
            true => subject.fits.iter().flat_map(objectives).collect(),
            false => subject.fits,
        },
        seeds: grid.seeds,
        holdout: subject.holdout,
        hook: subject.hook,
        controls: !args.no_controls,
        ..QualityConfig::default()
    };
    if !out.is_json() {
        out.line(&line(
            NAMES,
            &HEADS,
            &subject.hook.to_string(),
            &HEADS.map(str::to_owned),
        ))?;
    }
    let kept = (args.grid.layer.len() > 1).then(|| kept::quality(&subject.study, &config));
    let kept = kept.transpose()?;
    let known: Option<Quality> = layers::kept_of(kept.as_ref(), out)?;
    let mut seen = |method: &MethodReport| match out.is_json() {
        true => out.object(&event(method, subject.hook)),
        false => out.line(&line(NAMES, &HEADS, &method.name, &cells(method))),
    };
    let found = match known {
        Some(known) => {
            known.methods.iter().try_for_each(&mut seen)?;
            known
        }
        None => {
            let (rows, tokens) = (subject.source.as_ref(), &subject.tokens);
            let found = quality(rows, tokens, &config, &ctx, &mut seen)?;
            layers::keep(kept.as_ref(), &found, out)?;
            found
        }
    };
    found.notes.iter().for_each(|note| out.note(note));
    if out.is_json() {
        for i in &found.intervals {
            let about =
                json!({"event": "interval", "method": i.method, "measure": i.measure, "by": i.by});
            out.object(&merged([about, json::interval(i.mean)]))?;
        }
        for d in &found.differences {
            let about = json!({
                "event": "difference", "method": d.method, "against": d.against, "measure": d.measure, "by": d.by,
            });
            out.object(&merged([about, json::difference(&d.difference)]))?;
        }
        out.object(&json!({
            "event": "quality", "hook": subject.hook.to_string(), "method_count": found.methods.len(),
            "division": json::division(&found.division),
            "shuffled": found.shuffled.as_ref().map(json::detection),
            "concentrated": json::concentrations(&subject.concentrated),
        }))?;
    } else {
        explain(&found, args, out)?;
    }
    let score = |i: &MeasureInterval| {
        let measure = words(i.measure).0;
        LayerScore::new(&i.method, measure, i.mean)
    };
    Ok(found.intervals.iter().map(score).collect())
}

/// A method with all that was measured of it.
fn event(method: &MethodReport, hook: HookPoint) -> Value {
    let purity = |purity: ContextPurity| json!({"label_share": purity.label, "token_share": purity.token, "feature_count": purity.features});
    json!({
        "event": "method", "method": method.name, "hook": hook.to_string(), "kind": method.kind,
        "feature_count": method.features, "sparsity": method.sparsity,
        "settings": method.config.as_ref().map(json::settings), "seed_count": method.seeds,
        "relative_error": method.relative_error, "held_out_error": method.held_out_error,
        "active_count": method.active, "dead_count": method.dead, "duplicate_count": method.duplicates,
        "detection": method.detection.as_ref().map(json::detection),
        "context_purity": method.contexts.map(purity),
        "coefficient_context_purity": method.coefficient_contexts.map(purity),
        "stability": method.stability.map(|s| s.mean), "found_again": method.stability.map(|s| s.found_again),
        "pair_count": method.stability.map(|s| s.pairs), "sweep_count": method.sweeps,
        "elapsed_s": method.seconds,
    })
}

fn cells(method: &MethodReport) -> Vec<String> {
    let detection = method.detection.as_ref();
    let contexts = method.coefficient_contexts.or(method.contexts);
    vec![
        cell(detection.map(|d| d.auroc), 3),
        cell(detection.map(|d| d.standard_error), 3),
        cell(detection.and_then(|d| d.s_cd), 2),
        detection.map_or_else(
            || "-".to_owned(),
            |d| format!("{:.0} %", 100.0 * d.s_cd_undefined),
        ),
        cell(method.relative_error, 4),
        cell(method.held_out_error, 4),
        cell(method.active, 1),
        cell(contexts.and_then(|c| c.label), 2),
        cell(contexts.map(|c| c.token), 2),
        cell(method.dead, 0),
        cell(Some(method.duplicates), 0),
        cell(method.stability.map(|s| s.mean), 2),
        cell(Some(method.seconds), 1),
    ]
}

fn explain(found: &Quality, args: &QualityArgs, out: &mut Output) -> Result<()> {
    out.line("")?;
    out.line(&division(&found.division))?;
    out.line(LEGEND)?;
    if let Some(shuffled) = &found.shuffled {
        out.line(&format!(
            "with the labels dealt out anew, the first method's AUROC is {:.3} (½ is chance)",
            shuffled.auroc
        ))?;
    }
    intervals(found, out)?;
    for group in found
        .differences
        .chunk_by(|a, b| a.method == b.method && a.measure == b.measure)
    {
        out.line("")?;
        let (what, over) = words(group[0].measure);
        let method = &group[0].method;
        out.line(&format!(
            "{what} of {method} minus that of (95 % interval, {over}):"
        ))?;
        group
            .iter()
            .try_for_each(|difference| out.line(&verdict(difference)))?;
    }
    if args.labels {
        labels(found, out)?;
    }
    Ok(())
}

/// A measure's name, and how the interval of a difference is found.
fn words(measure: Measure) -> (&'static str, &'static str) {
    let labels = "paired bootstrap over labels";
    let features = "bootstrap over features, by coefficients between fits and else by cosines";
    match measure {
        Measure::Auroc => ("AUROC", labels),
        Measure::SCd => ("S_CD", labels),
        Measure::LabelPurity => ("label purity", features),
        Measure::TokenPurity => ("token purity", features),
    }
}

fn intervals(found: &Quality, out: &mut Output) -> Result<()> {
    const CELL: usize = 24;
    out.line("")?;
    let heads: String = MEASURES
        .iter()
        .map(|&m| format!("  {:<CELL$}", words(m).0))
        .collect();
    out.line(&format!("{:NAMES$}{heads}", "95 % intervals"))?;
    for method in &found.methods {
        let cells = MEASURES.map(|measure| {
            let interval = found
                .intervals
                .iter()
                .find(|i| i.method == method.name && i.measure == measure);
            let text = interval.map_or_else(|| "-".to_owned(), |i| with_interval(i.mean));
            format!("  {text:<CELL$}")
        });
        out.line(format!("{:NAMES$}{}", method.name, cells.concat()).trim_end())?;
    }
    Ok(())
}

fn with_interval(mean: MeanInterval) -> String {
    format!("{:.3} [{:.3}, {:.3}]", mean.mean, mean.low, mean.high)
}

fn verdict(compared: &MethodDifference) -> String {
    let d = &compared.difference;
    let says = match d.verdict {
        Verdict::NoDifference => "no difference",
        Verdict::Higher => "higher",
        Verdict::Lower => "lower",
    };
    format!(
        "  {:NAMES$}  {:+.3}  [{:+.3}, {:+.3}]  {says}",
        compared.against, d.mean, d.low, d.high
    )
}

fn labels(found: &Quality, out: &mut Output) -> Result<()> {
    for method in &found.methods {
        let Some(detection) = &method.detection else {
            continue;
        };
        out.line("")?;
        out.line(&method.name)?;
        for l in &detection.labels {
            out.line(&format!(
                "  {:32}  {:.3}  (training {:.3}, direction {}, S_CD {})",
                l.label,
                l.auroc,
                l.train_auroc,
                l.feature,
                cell(l.s_cd, 2)
            ))?;
        }
    }
    Ok(())
}
