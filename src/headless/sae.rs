//! `mlpeek sae load`, `train`, `list`, `compare`.

use std::time::{Duration, Instant};

use serde_json::json;

use super::grid::{cell, line};
use super::json::{self, merged};
use super::{Output, model_of, note_unfinished, open_study};
use crate::cli::{SaeCommand, SaeCompareArgs, SaeListArgs, SaeLoadArgs, SaeTrainArgs};
use crate::directions::reconstruction::ReconstructionMetrics;
use crate::directions::sae::Sae;
use crate::engine::TrainConfig;
use crate::error::{Error, Result};
use crate::eval::recovered::Recovered;
use crate::interop;
use crate::jobs::directions::HookSelection;
use crate::jobs::fitting::Resume;
use crate::jobs::reconstructions::{self, ReconstructionRequest, Subject, SubjectKind};
use crate::jobs::saes::{self, SaeOverrides};
use crate::jobs::training::{self, TrainObserver, TrainPoint, TrainRun};
use crate::model::{HookPoint, HookSite, source};
use crate::study::{SaeEntry, Study};

/// How often a training says how it stands.
const NOTE_EVERY: Duration = Duration::from_secs(5);
const NAMES: usize = 28;
const HEADS: [&str; 8] = [
    "units", "L0", "dead", "FVU", "error", "CE", "CE kept", "KL kept",
];

pub(super) fn run(command: &SaeCommand, out: &mut Output) -> Result<()> {
    match command {
        SaeCommand::Load(args) => load(args, out),
        SaeCommand::Train(args) => train(args, out),
        SaeCommand::List(args) => list(args, out),
        SaeCommand::Compare(args) => compare(args, out),
    }
}

/// A layer and a site as they were named, without a fit.
fn place(layer: Option<usize>, site: Option<HookSite>) -> HookSelection {
    HookSelection {
        fit: None,
        layer,
        site,
    }
}

fn load(args: &SaeLoadArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let study = Study::open(&args.study)?;
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| saes::name_for(&args.sae));
    // Before anything is fetched.
    if !args.fresh {
        saes::check_free(&study, &name)?;
    }
    let path = source::resolve_folder(&args.sae, &interop::sae::FILES, &ctx)?;
    let found = interop::sae::open(&path, &args.sae)?;
    let overrides = SaeOverrides {
        layer: args.layer,
        site: args.hook,
        force: args.force,
    };
    let (hook, notes) = saes::place(&study, &found, overrides)?;
    notes.iter().for_each(|note| out.note(note));
    let entry = saes::register(&study, &name, hook, &found, &args.sae, &ctx)?;
    if let Some(note) = entry.figures.as_ref().and_then(|f| saes::misfit(&name, f)) {
        out.note(&note);
        if found.model.is_none() {
            out.note("its files name no model, so that nothing else could tell");
        }
    }
    print_entry("loaded", &entry, None, out)
}

fn train(args: &SaeTrainArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let study = Study::open(&args.study)?;
    let hook = place(args.layer, args.hook).only_hook(&study)?;
    note_unfinished(&study, out)?;
    let config = args.config();
    let layer = if study.manifest().hooks.len() > 1 {
        format!("l{}-", hook.layer)
    } else {
        String::new()
    };
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| format!("{layer}topk{}", config.latents));
    if !(args.resume || args.fresh) {
        saes::check_free(&study, &name)?;
    }
    let place = TrainRun::new(
        &study,
        &name,
        hook,
        &config,
        if args.resume {
            Resume::Must
        } else {
            Resume::Never
        },
    )?;
    let keep = |entry: &SaeEntry, sae: Option<&Sae>| {
        sae.map_or_else(|| study.start_sae(entry), |sae| study.save_sae(entry, sae))
    };
    let source = study.activations(hook)?;
    let mut lines = Lines {
        out,
        config: &config,
        last_note: None,
    };
    let (entry, seconds) = training::run(source.as_ref(), &place, &keep, &mut lines, &ctx)?;
    print_entry("trained", &entry, Some(seconds), out)
}

/// A JSON object a pass, or a remark now and then.
struct Lines<'a> {
    out: &'a mut Output,
    config: &'a TrainConfig,
    last_note: Option<Instant>,
}

impl TrainObserver for Lines<'_> {
    fn started(&mut self, _: &SaeEntry, before: &[TrainPoint]) {
        if let Some(last) = before.last() {
            self.out.note(&format!(
                "going on from the checkpoint after {} of {} steps",
                last.step, last.total
            ));
        }
    }

    fn point(&mut self, point: TrainPoint) -> Result<()> {
        let TrainPoint {
            epoch,
            step,
            fvu,
            dead,
            seconds,
            ..
        } = point;
        if self.out.is_json() {
            return match point.pass {
                Some(fvu) => self.out.object(
                    &json!({"event": "progress", "epoch": epoch, "epoch_count": self.config.epochs,
                    "step": step, "fvu": fvu, "dead_count": dead, "elapsed_s": seconds}),
                ),
                None => Ok(()),
            };
        }
        if self
            .last_note
            .is_none_or(|last_note| last_note.elapsed() >= NOTE_EVERY)
        {
            self.last_note = Some(Instant::now());
            let dead = 100.0 * dead as f64 / self.config.latents.max(1) as f64;
            self.out.note(&format!(
                "pass {epoch} of {}: FVU {fvu:.4}, dead {dead:.1} %",
                self.config.epochs
            ));
        }
        Ok(())
    }
}

fn list(args: &SaeListArgs, out: &mut Output) -> Result<()> {
    let all = Study::open_read_only(&args.study)?.saes()?;
    if all.is_empty() && !out.is_json() {
        out.note(&format!(
            "no SAE yet: mlpeek sae train {0}, or mlpeek sae load {0} PATH",
            args.study.display()
        ));
    }
    all.iter()
        .try_for_each(|entry| print_entry("sae", entry, None, out))
}

fn print_entry(
    event: &str,
    entry: &SaeEntry,
    seconds: Option<f64>,
    out: &mut Output,
) -> Result<()> {
    let figures = entry.figures;
    if out.is_json() {
        let about = json!({
            "event": event, "sae": entry.name, "hook": entry.hook.to_string(), "source": entry.source,
            "format": entry.format, "architecture": entry.architecture, "latent_count": entry.latents,
            "training": entry.trained.as_ref().map(json::training), "resumable": entry.resumable,
            "elapsed_s": seconds,
        });
        return out.object(&merged([about, json::figures(figures.as_ref())]));
    }
    let numbers = figures.map_or_else(
        || "not yet trained (--resume goes on)".to_owned(),
        |f| {
            let (fvu, rows) = (cell(f.fvu, 4), super::output::thousands(f.rows as u64));
            format!(
                "FVU {fvu}, L0 {:.1}, dead {:.1} % over {rows} tokens",
                f.l0,
                100.0 * f.dead
            )
        },
    );
    let took = seconds.map_or_else(String::new, |s| format!(", {s:.1} s"));
    out.line(&format!(
        "SAE '{}' ({} {}, {} latents) of {}: {numbers}{took}",
        entry.name, entry.format, entry.architecture, entry.latents, entry.hook
    ))
}

fn compare(args: &SaeCompareArgs, out: &mut Output) -> Result<()> {
    let ctx = out.task();
    let of_the_model = [
        ("--device", args.model.compute.device.is_some()),
        ("--dtype", args.model.compute.dtype.is_some()),
        ("--model", args.model.model.is_some()),
    ];
    if let Some((option, _)) = of_the_model
        .iter()
        .find(|(_, given)| args.predict == 0 && *given)
    {
        return Err(Error::usage(format!(
            "{option} has no effect with --predict 0, which leaves the model out: leave one of them out"
        )));
    }
    let study = open_study(&args.study, out)?;
    let request = ReconstructionRequest {
        saes: args.sae.clone(),
        fits: args.fit.clone(),
        place: place(args.layer, args.hook),
    };
    let (hook, subjects) = request.open(&study)?;
    let mut rows = match &args.on {
        Some(dir) => other_rows(&study, dir, out)?,
        None => Study::open_read_only(&args.study)?,
    };
    let source = rows.activations(hook)?;
    if !out.is_json() {
        out.line(&line(
            NAMES,
            &HEADS,
            &hook.to_string(),
            &HEADS.map(str::to_owned),
        ))?;
    }
    let measured = reconstructions::measure(source.as_ref(), &subjects, &ctx)?;
    let predicted = match (args.predict, rows.manifest().model.is_none()) {
        (0, _) => Vec::new(),
        (_, true) => {
            out.note("the study was imported without a model: nothing is predicted");
            Vec::new()
        }
        (most, false) => {
            let model = model_of(&mut rows, &args.model, None, out, &ctx)?;
            reconstructions::predict(&rows, &model, hook, &subjects, most, &ctx)?
        }
    };
    for (i, (subject, figures)) in subjects.iter().zip(&measured).enumerate() {
        show(subject, hook, figures, predicted.get(i), out)?;
        if let Some(note) =
            saes::misfit(&subject.name, figures).filter(|_| subject.kind == SubjectKind::Sae)
        {
            out.note(&note);
        }
    }
    if !out.is_json() {
        explain(predicted.first(), out)?;
    }
    Ok(())
}

/// A study of the same model, for its rows.
fn other_rows(study: &Study, dir: &std::path::Path, out: &Output) -> Result<Study> {
    let other = open_study(dir, out)?;
    study.check_same_model(&other)?;
    Ok(other)
}

fn show(
    subject: &Subject,
    hook: HookPoint,
    figures: &ReconstructionMetrics,
    kept: Option<&Recovered>,
    out: &mut Output,
) -> Result<()> {
    if out.is_json() {
        let about = json!({
            "event": "compared", "kind": subject.kind.name(), "set": subject.set(), "hook": hook.to_string(),
            "predictions": kept.map(|k| json!({
                "prediction_count": k.predictions, "ce_original": k.ce_original,
                "ce_reconstructed": k.ce_reconstructed, "ce_zero": k.ce_zero, "ce_recovered": k.ce_recovered,
                "kl_reconstructed": k.kl_reconstructed, "kl_zero": k.kl_zero, "kl_recovered": k.kl_recovered,
            })),
        });
        return out.object(&merged([about, json::figures(Some(figures))]));
    }
    let cells = [
        figures.units.to_string(),
        format!("{:.1}", figures.l0),
        format!("{:.0} %", 100.0 * figures.dead),
        cell(figures.fvu, 4),
        cell(figures.relative_error, 4),
        cell(kept.map(|k| k.ce_reconstructed), 3),
        cell(kept.and_then(|k| k.ce_recovered), 3),
        cell(kept.and_then(|k| k.kl_recovered), 3),
    ];
    out.line(&line(
        NAMES,
        &HEADS,
        &format!("{} {}", subject.kind.name(), subject.name),
        &cells,
    ))
}

fn explain(kept: Option<&Recovered>, out: &mut Output) -> Result<()> {
    out.line("")?;
    out.line(
        "FVU: squared error over the variance around the mean row · error: over the squared rows · L0: units above 0 a token \
         (SNMF: the best y ≥ 0) · dead: units that no token uses",
    )?;
    let Some(kept) = kept else { return Ok(()) };
    out.line(&format!(
        "CE kept: (CE_zero − CE) / (CE_zero − CE_model) over {} predictions; the model's own CE is {:.3}, with zero in the \
         activation's place {:.3}; KL kept likewise",
        super::output::thousands(kept.predictions as u64),
        kept.ce_original,
        kept.ce_zero
    ))
}
