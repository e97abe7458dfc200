//! From the command line to a running explorer: what it opens first, and the engine behind it.

use crate::cli::{Colour, Device, ExploreArgs};
use crate::engine::{self, Command, OpenRequest};
use crate::error::{Error, Result};
use crate::factor::FitConfig;
use crate::model;
use crate::study::{self, Study};

use super::theme::Profile;
use super::{UiOptions, run};

/// Opens the explorer. Whatever the user named is opened; with nothing named, the Start pane where there are studies,
/// else the default model and the bundled concepts at once. Returns the exit code.
///
/// # Errors
/// Where there is no terminal, or the system refuses a thread.
pub fn explore(args: &ExploreArgs) -> anyhow::Result<u8> {
    check(args)?;
    super::check_terminal()?;
    let (initial, show_start) = first(args);
    let mut notes: Vec<String> = model::unused_gpu().into_iter().collect();
    if let Some(dir) = args.study.as_ref().filter(|dir| dir.join("study.json").exists()) {
        let problem = study::remember(dir).err();
        notes.extend(problem.map(|e| format!("this study will not be listed as a recent one: {e}")));
    }
    let (commands, events) = engine::start()?;
    let options = UiOptions {
        initial,
        show_start,
        notes,
        colour: profile(args.color),
        fresh: args.fresh,
        ..UiOptions::default()
    };
    run(options, commands, events)
}

/// Whether the study that is named is there.
fn is_there(args: &ExploreArgs) -> bool {
    args.study.as_ref().is_some_and(|dir| dir.join("study.json").exists())
}

/// Whether what a study is collected of is named.
fn is_named(args: &ExploreArgs) -> bool {
    args.model.is_some() || args.data.is_some() || args.layer.is_some()
}

/// Refuses what would be ignored, and what could not be opened.
fn check(args: &ExploreArgs) -> Result<()> {
    if let Some(data) = args.data.as_ref().filter(|data| !data.exists()) {
        return Err(Error::usage(format!("there is no corpus {}", data.display())));
    }
    let Some(dir) = &args.study else { return Ok(()) };
    if !is_there(args) {
        return Study::check_place(dir);
    }
    // Where a model lies says nothing of what is fitted.
    let fits = args.data.is_some() || args.layer.is_some();
    let more = [
        ("--features", args.features.is_some() && !fits),
        ("--hook", args.hook.is_some() && !fits),
        ("--device", args.device.is_some() && !is_named(args)),
    ];
    match more.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Error::usage(format!(
            "{option} has no effect on {0}, which is a study already: leave it out, and fit anew in the Fit pane or by mlpeek \
             fit {0}",
            dir.display()
        ))),
        None => Ok(()),
    }
}

fn first(args: &ExploreArgs) -> (Option<Command>, bool) {
    let chosen = is_named(args) || args.features.is_some() || args.hook.is_some() || args.device.is_some();
    match &args.study {
        Some(dir) if is_there(args) && !is_named(args) => (Some(Command::OpenStudy(dir.clone())), false),
        None if !chosen && !study::recent().is_empty() => (None, true),
        _ => (Some(Command::Open(request(args))), false),
    }
}

fn request(args: &ExploreArgs) -> OpenRequest {
    OpenRequest {
        model: args.model.clone(),
        layer: args.layer,
        hook: args.hook.unwrap_or_default(),
        corpus: args.data.clone(),
        study: args.study.clone(),
        fit: FitConfig { features: args.features.unwrap_or(FitConfig::default().features), ..FitConfig::default() },
        device: args.device.unwrap_or(Device::Auto).into(),
    }
}

fn profile(colour: Colour) -> Option<Profile> {
    match colour {
        Colour::Auto => None,
        Colour::Truecolor => Some(Profile::TrueColour),
        Colour::Ansi256 => Some(Profile::Indexed),
        Colour::Ansi16 => Some(Profile::Ansi),
        Colour::Never => Some(Profile::Mono),
    }
}
