//! Every pane's twin as a command: JSON lines or text on standard output, progress on standard
//! error.
//!
//! Owns what a command says; what it computes is a function of [`crate::jobs`]. Knows no terminal:
//! text leaves by [`Output`] alone. The table in [`crate::cli`] says which function runs a command.

mod collect;
mod compare;
mod describe;
mod doctor;
mod effects;
mod encoder;
mod eval;
mod export;
mod features;
mod fit;
mod forward;
mod grid;
mod guide;
mod info;
mod json;
mod layers;

mod man;
mod matrices;
mod notes;
mod output;
mod quality;
mod sae;
mod steer;
mod sweep;
mod trace;
mod tree;
mod why;

use std::path::Path;
use std::sync::Arc;

use crate::cli::{Command, StudyModelArgs};
use crate::disk;
use crate::error::{Error, Result};
use crate::factor::Factors;
use crate::model::{LoadOptions, Model, ModelFiles, ModelInfo, source};
use crate::study::{FitEntry, Study};
use crate::task::TaskCtx;

pub use output::Output;

/// Makes the call of each row of the table of commands.
macro_rules! command_calls {
    ($($(#[$about:meta])* $name:ident($args:ty) => $module:ident::$function:ident, $json:ident;)*) => {
        /// Runs one command. Ctrl-C and SIGTERM cancel it: what was saved stays.
        ///
        /// # Errors
        /// What the command returns: wrong usage, a refusal, a file that cannot be read or
        /// written, [`Error::Cancelled`].
        pub fn run(command: &Command, out: &mut Output) -> Result<()> {
            match command {
                $(Command::$name(args) => $module::$function(args, out),)*
            }
        }
    };
}
crate::cli::commands!(command_calls);

/// Opens a study for reading, and says where collecting it was cut short.
fn open_study(dir: &Path, out: &Output) -> Result<Study> {
    let study = Study::open_read_only(dir)?;
    note_unfinished(&study, out)?;
    Ok(study)
}

/// Says on standard error that the study does not have all of its rows, and how to go on.
fn note_unfinished(study: &Study, out: &Output) -> Result<()> {
    let state = study.collected()?;
    if !state.is_complete() {
        let dir = study.dir().display();
        out.note(&format!(
            "{dir} is {state}, and these rows alone are read: {} goes on",
            study.collect_command()
        ));
    }
    Ok(())
}

/// Refuses, before any work, a file that could not be written in the end, or whose name says
/// another format than the `endings` that it would have.
fn check_target(path: &Path, endings: &[&str]) -> Result<()> {
    let shown = path.display();
    if path.is_dir() {
        return Err(Error::usage(format!("{shown} is a directory: name a file")));
    }
    let parent = disk::parent(path);
    if !parent.is_dir() {
        return Err(Error::usage(format!(
            "{shown} cannot be written: there is no directory {}",
            parent.display()
        )));
    }
    disk::check_replaceable(path)?;
    let ending = path
        .extension()
        .map(|e| e.to_string_lossy().to_ascii_lowercase());
    match ending {
        Some(ending) if !endings.is_empty() && !endings.contains(&&*ending) => {
            Err(Error::usage(format!(
                "{shown} is named .{ending}, and what is written is .{}: name it so",
                endings.join(" or .")
            )))
        }
        _ => Ok(()),
    }
}

/// Refuses a layer that the model does not have, before its weights are read.
fn check_layers(asked: &[usize], count: usize) -> Result<()> {
    let beyond = asked.iter().find(|layer| **layer >= count);
    beyond.map_or(Ok(()), |layer| {
        Err(Error::usage(format!(
            "layer {layer} does not exist: this model has layers 0 to {}",
            count.saturating_sub(1)
        )))
    })
}

/// Opens a study for reading and loads one of its fits, the newest where `fit` names none.
fn open_fit(
    study: &Path,
    fit: Option<&str>,
    out: &Output,
) -> Result<(Study, FitEntry, Arc<Factors>)> {
    let study = open_study(study, out)?;
    let (entry, factors) = study.load_fit(fit)?;
    Ok((study, entry, factors))
}

fn open_model(
    spec: Option<&str>,
    options: &LoadOptions,
    out: &Output,
    ctx: &TaskCtx,
) -> Result<Model> {
    open_files(&source::resolve(spec, ctx)?, options, out, ctx)
}

fn open_files(
    files: &ModelFiles,
    options: &LoadOptions,
    out: &Output,
    ctx: &TaskCtx,
) -> Result<Model> {
    let model = Model::open(files, options, ctx)?;
    note_model(model.info(), out);
    Ok(model)
}

fn note_model(info: &ModelInfo, out: &Output) {
    out.note(&format!(
        "{} from {}, on {} ({})",
        info.id, info.origin, info.device, info.weights_dtype
    ));
    info.notes.iter().for_each(|note| out.note(note));
}

/// The first `layers` layers, or all, of the model that a study was collected with, from where
/// `args` say that it lies now, else from where the study says so. Another one is refused; a new
/// place is kept.
fn model_of(
    study: &mut Study,
    args: &StudyModelArgs,
    layers: Option<usize>,
    out: &Output,
    ctx: &TaskCtx,
) -> Result<Model> {
    let place = args.model.as_deref();
    let model = unchecked_model_of(study, place, &args.compute.options(layers), out, ctx)?;
    study
        .adopt_model(model.info(), place.is_some())?
        .iter()
        .chain(&study.unrecorded_configuration())
        .for_each(|words| out.note(words));
    Ok(model)
}

/// [`model_of`] before it is held against the study.
fn unchecked_model_of(
    study: &Study,
    place: Option<&str>,
    options: &LoadOptions,
    out: &Output,
    ctx: &TaskCtx,
) -> Result<Model> {
    let own = study.own_model()?;
    match place {
        Some(place) => open_model(Some(place), options, out, ctx),
        None => open_model(Some(&own.id), options, out, ctx).map_err(|e| match e {
            Error::Cancelled => e,
            e => Error::refused(format!(
                "{}: say where it is now by --model (a directory, a GGUF file or a Hub id)",
                study.model_not_found(&e)
            )),
        }),
    }
}
