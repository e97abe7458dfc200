//! `mlpeek export`.

use std::path::Path;

use serde_json::{Value, json};

use super::features::lens_model;
use super::json::merged;
use super::{Output, check_target, model_of, open_study};
use crate::cli::{ExportArgs, ExportFormat};
use crate::directions::SetKind;
use crate::disk;
use crate::error::{Error, Result};
use crate::jobs::directions::{self, Reference};
use crate::jobs::export::sets::OpenSet;
use crate::jobs::export::{self, write};
use crate::jobs::steering::SteeredDirection;
use crate::model::{Model, source};
use crate::steering::{Intervention, Mode, SteerPart, SteerTerm};
use crate::study::Study;

pub(super) fn run(args: &ExportArgs, out: &mut Output) -> Result<()> {
    args.check()?;
    match args.format.ending() {
        Some(ending) => check_target(&args.out, &[ending])?,
        None => check_directory(&args.out)?,
    }
    check_free(args)?;
    check_outside(&args.study, &args.out, "the study")?;
    let (object, words) = match args.format {
        ExportFormat::Saelens => saelens(args, out)?,
        ExportFormat::ControlVector => control_vector(args, out)?,
        ExportFormat::Checkpoint => checkpoint(args, out)?,
        _ => set(args, out)?,
    };
    if out.is_json() {
        let about = json!({"event": "exported", "format": args.format.name(), "out": args.out.display().to_string()});
        out.object(&merged([about, object]))
    } else {
        out.line(&format!("{}: {words}", args.out.display()))
    }
}

/// Refuses to replace what is there unasked.
fn check_free(args: &ExportArgs) -> Result<()> {
    let path = &args.out;
    let is_free = match path.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => path.symlink_metadata().is_err(),
    };
    if is_free || args.overwrite {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{} is there already: name another, or pass --overwrite",
        path.display()
    )))
}

/// Refuses a path within `dir`, whose files are `whose` own.
fn check_outside(dir: &Path, path: &Path, whose: &str) -> Result<()> {
    let real = |path: &Path| path.canonicalize().ok();
    // What is not there yet lies where its parent does.
    let target = real(path).or_else(|| real(disk::parent(path)));
    match (real(dir), target) {
        (Some(dir), Some(target)) if target.starts_with(&dir) => Err(Error::usage(format!(
            "{} lies in {}, whose files are {whose}'s own: name another place",
            path.display(),
            dir.display()
        ))),
        _ => Ok(()),
    }
}

/// Refuses, before any work, a directory that could not be made.
fn check_directory(path: &Path) -> Result<()> {
    let (shown, parent) = (path.display(), disk::parent(path));
    if path.exists() && !path.is_dir() {
        return Err(Error::usage(format!(
            "{shown} is a file, and what is written is a directory"
        )));
    }
    if !parent.is_dir() {
        return Err(Error::usage(format!(
            "{shown} cannot be made: there is no directory {}",
            parent.display()
        )));
    }
    Ok(())
}

/// The formats that hold a whole set with what the study's rows express of it.
fn set(args: &ExportArgs, out: &mut Output) -> Result<(Value, String)> {
    let (ctx, kind) = (out.task(), args.set());
    let mut study = open_study(&args.study, out)?;
    let place = args.place.selection();
    place.check_effect(&study, [&kind])?;
    let model = match args.format == ExportFormat::Csv || kind.is_measured() {
        true => {
            let of = (args.model.model.as_deref(), &args.model.compute);
            lens_model(&mut study, of.0, of.1, out)?.ok()
        }
        false => None,
    };
    let set = directions::open_with(&study, &kind, &place, model.as_ref(), &ctx)?;
    let (set, hook) = (set.as_ref(), set.hook());
    let factors = set.factors_on(study.activations(hook)?.as_ref(), &ctx)?;
    let tokens = study.tokens()?;
    let open = OpenSet {
        study: &study,
        set,
        factors: &factors,
        notes: &directions::names(&study, set)?,
    };
    let rows = args.rows.then_some(&*tokens);
    match args.format {
        ExportFormat::Csv => write(&args.out, &open.list(&tokens, model.as_ref())?)?,
        ExportFormat::Contexts => write(&args.out, &open.contexts(&tokens, &ctx)?)?,
        format => open.arrays(&args.out, rows, format == ExportFormat::Npz)?,
    }
    let (d, k, n) = (
        factors.features.rows,
        factors.features.columns(),
        factors.coefficients.rows,
    );
    let fit = matches!(kind, SetKind::Fit(_)).then(|| set.name());
    let object = json!({
        "fit": fit, "set": set.name(), "hook": hook.to_string(), "z_shape": [d, k], "y_shape": [n, k],
    });
    let what = match args.format {
        ExportFormat::Csv => format!("{k} directions"),
        ExportFormat::Contexts => format!("contexts of {k} directions"),
        _ => format!("Z {d} × {k}, Y {n} × {k}"),
    };
    let whose = match fit {
        Some(name) => format!("fit '{name}'"),
        None => set.name().to_owned(),
    };
    Ok((object, format!("{what} of {whose} at {hook}")))
}

fn saelens(args: &ExportArgs, out: &mut Output) -> Result<(Value, String)> {
    let (ctx, kind) = (out.task(), args.set());
    let study = open_study(&args.study, out)?;
    let place = args.place.selection();
    place.check_effect(&study, [&kind])?;
    let done = export::saelens(&study, &kind, &place, &args.out, &ctx)?;
    let fvu = |fvu: Option<f64>| fvu.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"));
    let own = match &done.own {
        Some(own) => format!(" (the fit's own coefficients: {})", fvu(own.fvu)),
        None => String::new(),
    };
    let words = format!(
        "{} at {} as {} latents for SAELens, FVU {}{own}",
        done.set,
        done.hook,
        done.latents,
        fvu(done.written.fvu)
    );
    let object = json!({
        "set": done.set, "hook": done.hook.to_string(), "latent_count": done.latents,
        "fvu": done.written.fvu, "l0": done.written.l0, "own_fvu": done.own.and_then(|own| own.fvu),
    });
    Ok((object, words))
}

/// The model of the study and the directions that `--feature` names.
fn opened(args: &ExportArgs, out: &mut Output) -> Result<(Study, Model, Vec<SteeredDirection>)> {
    let ctx = out.task();
    let wanted = Reference::parse_list(args.feature.as_deref().unwrap_or_default())?;
    let mut study = open_study(&args.study, out)?;
    let place = args.place.selection();
    place.check_effect(&study, wanted.iter().map(|reference| &reference.kind))?;
    let model = model_of(&mut study, &args.model, None, out, &ctx)?;
    let whole = SteerPart::Whole;
    let directions =
        SteeredDirection::open_all(&study, &wanted, &place, &whole, Some(&model), &ctx)?;
    Ok((study, model, directions))
}

fn control_vector(args: &ExportArgs, out: &mut Output) -> Result<(Value, String)> {
    let (study, model, directions) = opened(args, out)?;
    let alpha = args.alpha.unwrap_or(1.0);
    let blocks = export::control_vector(&study, &model, &directions, alpha, &args.out)?;
    let names: Vec<String> = directions.iter().map(SteeredDirection::named).collect();
    let tensors: Vec<String> = blocks.iter().map(|k| format!("direction.{k}")).collect();
    let words = format!(
        "{} at α = {alpha} as {}: llama-cli --control-vector {}",
        names.join(", "),
        tensors.join(", "),
        args.out.display()
    );
    let object = json!({"steered_with": names, "alpha": alpha, "layers": blocks});
    Ok((object, words))
}

fn checkpoint(args: &ExportArgs, out: &mut Output) -> Result<(Value, String)> {
    let (study, model, directions) = opened(args, out)?;
    let (mode, alpha) = (args.mode(), args.alpha.unwrap_or(1.0));
    let terms: Vec<SteerTerm> = directions
        .iter()
        .map(|direction| direction.term(&model))
        .collect::<Result<_>>()?;
    let intervention = Intervention::new(&terms, mode)?;
    let place = match &args.model.model {
        Some(place) => place.clone(),
        None => study.own_model()?.id.clone(),
    };
    let files = source::resolve(Some(&place), &out.task())?;
    let done = export::checkpoint(&files, &intervention, alpha, &args.out)?;
    if done.added_bias {
        out.note("the MLPs have biases now, which config.json says by mlp_bias");
    }
    let names: Vec<String> = directions.iter().map(SteeredDirection::named).collect();
    let layers: Vec<String> = done.layers.iter().map(ToString::to_string).collect();
    let words = format!(
        "{} with {} {} at α = {alpha} in the down projection of layer {} ({})",
        files.id,
        names.join(", "),
        past(mode),
        layers.join(", "),
        done.dtype
    );
    let object = json!({
        "steered_with": names, "mode": mode, "alpha": alpha, "layers": done.layers, "dtype": done.dtype,
        "added_bias": done.added_bias,
    });
    Ok((object, words))
}

fn past(mode: Mode) -> &'static str {
    match mode {
        Mode::Add => "added",
        Mode::Set => "set",
        Mode::Ablate => "ablated",
    }
}
