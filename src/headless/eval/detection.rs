//! `mlpeek eval detection`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::super::judge::{cell, line};
use super::super::open_study;
use super::{Output, split, with_interval};
use crate::cli::DetectionArgs;
use crate::directions::{Baseline, DirectionSet};
use crate::error::Result;
use crate::eval::bootstrap::{Difference, paired};
use crate::eval::detection::LabelDetection;
use crate::eval::hard::{HardNegatives, against_rivals, rivals};
use crate::eval::steering::report::{Mean, interval};
use crate::jobs::evaluation::{Offered, choose_all, shown, spaces_note, supervised};
use crate::model::HookPoint;

const NAMES: usize = 24;
const RESAMPLES: usize = 10_000;
const HEADS: [&str; 6] = [
    "AUROC [95 %]          ",
    "S_CD",
    "undef.",
    "above 0",
    "hard AUROC [95 %]     ",
    "hard accuracy",
];
const LEGEND: &str = "All on held-out sentences; the direction of a label is the best on the other ones (DiffMean: its own, made of \
    them). A sentence scores the largest cosine of its tokens. S_CD = ln(mean over the label's sentences / mean over the others), \
    undefined where a mean is not positive; above 0: share of labels whose sentences score higher on average, which is S_CD > 0 \
    where that is defined. Hard: against the sentences of the labels most like it; accuracy at the threshold that is best on the \
    other sentences. Intervals: bootstrap over labels. A fit and centroids were made of all sentences, without labels.";

/// A label under one method.
#[derive(Serialize)]
struct LabelRow {
    label: String,
    /// One a member: a line may be of several seeds, and its other values are their means.
    directions: Vec<usize>,
    train_auroc: f64,
    auroc: f64,
    s_cd: Option<f64>,
    s_cd_undefined: f64,
    above_0: f64,
    hard: Option<HardNegatives>,
}

/// The mean of what there is.
fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    (count > 0).then(|| sum / count as f64)
}

impl LabelRow {
    fn new(label: &str, members: &[(&LabelDetection, Option<HardNegatives>)]) -> Option<Self> {
        let over =
            |value: &dyn Fn(&LabelDetection) -> f64| mean(members.iter().map(|m| value(m.0)));
        let hard = |value: fn(&HardNegatives) -> f64| {
            mean(members.iter().filter_map(|m| m.1.as_ref().map(value)))
        };
        Some(Self {
            label: label.to_owned(),
            directions: members.iter().map(|m| m.0.feature).collect(),
            train_auroc: over(&|m| m.train_auroc)?,
            auroc: over(&|m| m.auroc)?,
            s_cd: mean(members.iter().filter_map(|m| m.0.s_cd())),
            s_cd_undefined: over(&|m| f64::from(m.s_cd().is_none()))?,
            above_0: over(&|m| f64::from(m.tells_apart()))?,
            hard: hard(|h| h.auroc)
                .zip(hard(|h| h.accuracy))
                .map(|(auroc, accuracy)| HardNegatives { auroc, accuracy }),
        })
    }
}

/// A method over all labels.
#[derive(Serialize)]
struct MethodRow {
    method: String,
    hook: String,
    auroc: Option<Mean>,
    s_cd: Option<f64>,
    s_cd_undefined: f64,
    above_0: f64,
    hard_auroc: Option<Mean>,
    hard_accuracy: Option<f64>,
    labels: Vec<LabelRow>,
}

pub(super) fn run(args: &DetectionArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let study = open_study(&args.common.study, out)?;
    let tokens = study.tokens()?;
    let split = split(&args.common, &tokens, out)?;
    let place = args.common.place.place();
    let choices = choose_all(
        &study,
        &args.common.methods,
        &place,
        &split,
        args.common.seed,
        &ctx,
    )?;
    let hooks = choices.hooks();
    let note = spaces_note(&hooks);
    if let Some(note) = &note {
        out.note(note);
    }
    let name = |name: &str, hook: &str| shown(name, hook, note.is_some());
    let widths = hooks
        .iter()
        .map(|(line, hook)| name(line, &hook.to_string()).chars().count());
    let names = widths.max().unwrap_or(0).max(NAMES);
    let means = supervised(
        &study,
        Baseline::DiffMean,
        None,
        &place,
        &split,
        &tokens,
        &ctx,
    )?;
    let rivals = rivals(means.directions(), args.rivals);
    if !out.is_json() {
        let at = if note.is_some() {
            String::new()
        } else {
            hooks[0].1.to_string()
        };
        out.line(&line(names, &HEADS, &at, &HEADS.map(str::to_owned)))?;
    }
    let mut rows = Vec::new();
    for (reported, (_, hook)) in choices.reported.iter().zip(&hooks) {
        let source = study.activations(*hook)?;
        let of = |member: &Offered| {
            let hard = against_rivals(
                source.as_ref(),
                &split,
                member.set.directions(),
                &member.found,
                &rivals,
                &ctx,
            )?;
            Ok(member.found.clone().into_iter().zip(hard).collect())
        };
        let members = choices
            .members(reported)
            .map(of)
            .collect::<Result<Vec<_>>>()?;
        let row = row(
            &reported.name,
            *hook,
            &members,
            &tokens.labels,
            args.common.seed,
        );
        match out.is_json() {
            true => out.object(&json!({"event": "method", "result": row}))?,
            false => out.line(&line(
                names,
                &HEADS,
                &name(&row.method, &row.hook),
                &cells(&row),
            ))?,
        }
        rows.push(row);
    }
    explain(&rows, args, split.labels.len(), names, out)
}

/// `members`: for each method of the line what was found for each label.
fn row(
    name: &str,
    hook: HookPoint,
    members: &[Vec<(LabelDetection, Option<HardNegatives>)>],
    names: &[String],
    seed: u64,
) -> MethodRow {
    let mut found: BTreeMap<u32, Vec<(&LabelDetection, Option<HardNegatives>)>> = BTreeMap::new();
    for (of, hard) in members.iter().flatten() {
        found.entry(of.label).or_default().push((of, *hard));
    }
    let labels: Vec<LabelRow> = found
        .iter()
        .filter_map(|(&label, members)| LabelRow::new(&names[label as usize], members))
        .collect();
    let values = |value: &dyn Fn(&LabelRow) -> Option<f64>| {
        labels.iter().filter_map(value).collect::<Vec<f64>>()
    };
    let over = |value: &dyn Fn(&LabelRow) -> Option<f64>| mean(labels.iter().filter_map(value));
    MethodRow {
        method: name.to_owned(),
        hook: hook.to_string(),
        auroc: interval(&values(&|l| Some(l.auroc)), seed),
        s_cd: over(&|l| l.s_cd),
        s_cd_undefined: over(&|l| Some(l.s_cd_undefined)).unwrap_or(0.0),
        above_0: over(&|l| Some(l.above_0)).unwrap_or(0.0),
        hard_auroc: interval(&values(&|l| l.hard.map(|h| h.auroc)), seed),
        hard_accuracy: over(&|l| l.hard.map(|h| h.accuracy)),
        labels,
    }
}

fn cells(row: &MethodRow) -> Vec<String> {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    vec![
        with_interval(row.auroc),
        cell(row.s_cd, 2),
        percent(row.s_cd_undefined),
        percent(row.above_0),
        with_interval(row.hard_auroc),
        cell(row.hard_accuracy, 3),
    ]
}

/// The first method's AUROC minus each other's.
fn differences(rows: &[MethodRow], seed: u64) -> Vec<(String, Difference)> {
    let Some((first, others)) = rows.split_first() else {
        return Vec::new();
    };
    let auroc = |row: &MethodRow, label: &str| {
        row.labels
            .iter()
            .find(|l| l.label == label)
            .map(|l| l.auroc)
    };
    let compared = |other: &MethodRow| {
        let pairs: Vec<(f64, f64)> = first
            .labels
            .iter()
            .filter_map(|l| Some((l.auroc, auroc(other, &l.label)?)))
            .collect();
        Some((other.method.clone(), paired(&pairs, RESAMPLES, seed)?))
    };
    others.iter().filter_map(compared).collect()
}

fn explain(
    rows: &[MethodRow],
    args: &DetectionArgs,
    labels: usize,
    names: usize,
    out: &mut Output,
) -> Result<()> {
    let found = differences(rows, args.common.seed);
    if out.is_json() {
        for (against, difference) in &found {
            out.object(
                &json!({"event": "difference", "method": rows[0].method, "against": against,
                "measure": "auroc", "difference": difference}),
            )?;
        }
        return out
            .object(&json!({"event": "detection", "methods": rows.len(), "labels": labels, "rivals": args.rivals,
            "holdout": args.common.holdout, "seed": args.common.seed}));
    }
    out.line("")?;
    if !found.is_empty() {
        out.line(&format!(
            "AUROC of {} minus that of (95 % interval, paired bootstrap over labels):",
            rows[0].method
        ))?;
    }
    for (against, d) in &found {
        out.line(&format!(
            "  {against:names$}  {:+.3}  [{:+.3}, {:+.3}]",
            d.mean, d.low, d.high
        ))?;
    }
    if args.labels {
        for row in rows {
            out.line("")?;
            out.line(&row.method)?;
            for l in &row.labels {
                let hard = cell(l.hard.map(|h| h.auroc), 3);
                let s_cd = cell(l.s_cd, 2);
                out.line(&format!(
                    "  {:24}  {:.3}  hard {hard}  S_CD {s_cd:>6}  direction {}",
                    l.label,
                    l.auroc,
                    l.directions
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                ))?;
            }
        }
    }
    out.line("")?;
    out.line(LEGEND)
}
