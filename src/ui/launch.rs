//! From the command line to a running explorer: what it opens first, and the engine behind it.

use crate::cli::{Colour, Device, ExploreArgs};
use crate::engine::{self, Command, OpenRequest};
use crate::factor::FitConfig;
use crate::model;
use crate::study;

use super::theme::Profile;
use super::{UiOptions, run};

/// Opens the explorer. Whatever the user named is opened; with nothing named, the Start pane where there are studies,
/// else the default model and the bundled concepts at once.
pub fn explore(args: &ExploreArgs) -> anyhow::Result<()> {
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

fn first(args: &ExploreArgs) -> (Option<Command>, bool) {
    let named = args.model.is_some() || args.data.is_some() || args.layer.is_some();
    let anywhere = args.device == Device::Auto;
    match &args.study {
        Some(dir) if !named && anywhere && study::Study::is_at(dir) => (Some(Command::OpenStudy(dir.clone())), false),
        None if !named && !study::recent().is_empty() => (None, true),
        _ => (Some(Command::Open(request(args))), false),
    }
}

fn request(args: &ExploreArgs) -> OpenRequest {
    OpenRequest {
        model: args.model.clone(),
        layer: args.layer,
        hook: args.hook,
        corpus: args.data.clone(),
        study: args.study.clone(),
        fit: FitConfig { features: args.features, ..FitConfig::default() },
        device: args.device.into(),
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
