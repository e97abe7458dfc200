//! `mlpeek eval detection`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::grid::{cell, line};
use super::super::json::{self, merged};
use super::super::layers::{self, LayerScore};
use super::super::open_study;
use super::{Output, check_place, divide, holdout, with_interval};
use crate::cli::DetectionArgs;
use crate::error::Result;
use crate::eval::unseen::Divided;
use crate::jobs::detection::{
    DetectedLabel, DetectedMethod, Detection, DetectionRequest, differences,
};
use crate::jobs::evaluation::shown;
use crate::jobs::kept;

const NAMES: usize = 24;
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
    other sentences. Intervals: bootstrap over labels, below 20 labels Student's t. A fit and centroids were made of all sentences, without labels.";

pub(super) fn run(args: &DetectionArgs, out: &mut Output) -> Result<()> {
    let (place, mut asked) = (&args.common.place, args.clone());
    let study = &args.common.study;
    layers::each(
        study,
        &place.layer,
        args.svg.as_deref(),
        out,
        &mut |layer, out| {
            asked.common = layers::asked_at(&args.common, layer)?;
            at_layer(&asked, place.layer.len() > 1, out)
        },
    )
}

/// What one layer came to.
#[derive(Serialize, Deserialize)]
struct Rows {
    /// What a person is told where methods do not live in one space.
    note: Option<String>,
    rows: Vec<DetectedMethod>,
}

/// A layer that an earlier run has evaluated, or one whose directions are chosen.
enum Layer<'a> {
    Known(Rows),
    Prepared(Box<Detection<'a>>),
}

impl Layer<'_> {
    fn note(&self) -> Option<String> {
        match self {
            Self::Known(known) => known.note.clone(),
            Self::Prepared(detection) => detection.spaces_note(),
        }
    }

    /// The lines of the table, with their hooks.
    fn lines(&self) -> Vec<(String, String)> {
        match self {
            Self::Known(known) => {
                let rows = known.rows.iter();
                rows.map(|r| (r.method.clone(), r.hook.clone())).collect()
            }
            Self::Prepared(detection) => {
                let hooks = detection.hooks().into_iter();
                hooks.map(|(line, hook)| (line, hook.to_string())).collect()
            }
        }
    }
}

/// Evaluates at one layer; `keeps`: it is one of several, whose results are kept.
fn at_layer(args: &DetectionArgs, keeps: bool, out: &mut Output) -> Result<Vec<LayerScore>> {
    let ctx = out.task();
    let study = open_study(&args.common.study, out)?;
    check_place(&args.common, &study)?;
    let tokens = study.tokens()?;
    let divided = divide(&args.common, &tokens, out)?;
    let request = DetectionRequest {
        methods: args.common.methods.clone(),
        place: args.common.place.selection(),
        rivals: args.rivals,
        seed: args.common.seed,
    };
    let (holdout, unseen) = (holdout(&args.common), args.common.unseen);
    let kept = keeps.then(|| kept::detection(&study, &request, &holdout, unseen));
    let kept = kept.transpose()?;
    let layer = match layers::kept_of(kept.as_ref(), out)? {
        Some(known) => Layer::Known(known),
        None => Layer::Prepared(Box::new(Detection::prepare(
            &study, &divided, &request, &ctx,
        )?)),
    };
    let note = layer.note();
    if let Some(note) = &note {
        out.note(note);
    }
    let name = |name: &str, hook: &str| shown(name, hook, note.is_some());
    let hooks = layer.lines();
    let widths = hooks
        .iter()
        .map(|(line, hook)| name(line, hook).chars().count());
    let names = widths.max().unwrap_or(0).max(NAMES);
    if !out.is_json() {
        let at = match (&note, hooks.first()) {
            (None, Some((_, hook))) => hook.clone(),
            _ => String::new(),
        };
        out.line(&line(names, &HEADS, &at, &HEADS.map(str::to_owned)))?;
    }
    let mut seen = |row: &DetectedMethod| match out.is_json() {
        true => out.object(&event(row)),
        false => out.line(&line(
            names,
            &HEADS,
            &name(&row.method, &row.hook),
            &cells(row),
        )),
    };
    let rows = match layer {
        Layer::Known(known) => {
            known.rows.iter().try_for_each(&mut seen)?;
            known.rows
        }
        Layer::Prepared(detection) => {
            let rows = detection.run(&study, &mut seen, &ctx)?;
            let note = note.clone();
            let found = Rows { note, rows };
            layers::keep(kept.as_ref(), &found, out)?;
            found.rows
        }
    };
    explain(&rows, args, &divided, names, out)?;
    let measured = |row: &DetectedMethod| {
        let auroc = row
            .auroc
            .map(|value| LayerScore::new(&row.method, "AUROC", value));
        let s_cd = row
            .s_cd
            .map(|s| LayerScore::of_number(&row.method, "S_CD", s));
        [auroc, s_cd].into_iter().flatten().collect::<Vec<_>>()
    };
    Ok(rows.iter().flat_map(measured).collect())
}

/// A method with its labels.
fn event(row: &DetectedMethod) -> Value {
    let label = |l: &DetectedLabel| {
        json!({
            "label": l.label, "features": l.directions, "train_auroc": l.train_auroc, "auroc": l.auroc,
            "s_cd": l.s_cd, "s_cd_undefined": l.s_cd_undefined, "above_0": l.above_0,
            "hard_auroc": l.hard.map(|h| h.auroc), "hard_accuracy": l.hard.map(|h| h.accuracy),
        })
    };
    json!({
        "event": "method", "method": row.method, "hook": row.hook,
        "auroc_interval": row.auroc.map(json::interval), "s_cd": row.s_cd,
        "s_cd_undefined": row.s_cd_undefined, "above_0": row.above_0,
        "hard_auroc_interval": row.hard_auroc.map(json::interval), "hard_accuracy": row.hard_accuracy,
        "labels": row.labels.iter().map(label).collect::<Vec<_>>(),
    })
}

fn cells(row: &DetectedMethod) -> Vec<String> {
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

fn explain(
    rows: &[DetectedMethod],
    args: &DetectionArgs,
    divided: &Divided<'_>,
    names: usize,
    out: &mut Output,
) -> Result<()> {
    let found = differences(rows, args.common.seed);
    if out.is_json() {
        for (against, difference) in &found {
            let about = json!({
                "event": "difference", "method": rows[0].method, "against": against, "measure": "auroc", "by": null,
            });
            out.object(&merged([about, json::difference(difference)]))?;
        }
        return out.object(&json!({
            "event": "detection", "method_count": rows.len(), "label_count": divided.split.labels.len(), "rival_count": args.rivals,
            "held_out_share": holdout(&args.common).share, "unseen_members": divided.unseen, "seed": args.common.seed,
        }));
    }
    out.line("")?;
    if !found.is_empty() {
        out.line(&format!(
            "AUROC of {} minus that of (95 % interval, paired over labels):",
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
