//! From the command line to a running explorer: what it opens first, and the engine behind it.

use std::io::{IsTerminal, Write};
use std::path::Path;

use crossbeam_channel::{Receiver, Sender};

use crate::cli::{Colour, ExploreArgs};
use crate::engine::{self, Command, OpenRequest, Reply, Request};
use crate::error::{Error, Result};
use crate::factor::FitConfig;
use crate::model::{self, HookPoint, HookSite};
use crate::study::{self, Study};

use super::app::{App, AppOptions};
use super::theme::{Profile, Theme};
use super::{config, terminal, theme};
use crate::warnings;

/// Opens the explorer. Whatever the user named is opened; with nothing named, the Start pane where
/// there are studies, else the default model and the bundled concepts at once. Returns the exit
/// code.
///
/// # Errors
/// Where there is no terminal, or the system refuses a thread.
pub fn explore(args: &ExploreArgs) -> anyhow::Result<u8> {
    check(args)?;
    check_terminal()?;
    let (initial, show_start) = first(args);
    let mut notes: Vec<String> = model::unused_gpu().into_iter().collect();
    if let Some(dir) = args
        .study
        .as_ref()
        .filter(|dir| dir.join("study.json").exists())
    {
        let problem = study::remember(dir).err();
        notes
            .extend(problem.map(|e| format!("this study will not be listed as a recent one: {e}")));
    }
    let (requests, replies) = engine::start()?;
    let options = UiOptions {
        initial,
        show_start,
        notes,
        colour: profile(args.color),
        fresh: args.fresh,
        ..UiOptions::default()
    };
    run(options, requests, replies)
}

/// Whether the study that is named is there.
fn is_there(args: &ExploreArgs) -> bool {
    args.study
        .as_ref()
        .is_some_and(|dir| dir.join("study.json").exists())
}

/// Whether what a study is collected of is named.
fn is_named(args: &ExploreArgs) -> bool {
    args.model.is_some() || args.data.is_some() || args.layer.is_some()
}

/// Refuses what would be ignored, and what could not be opened.
fn check(args: &ExploreArgs) -> Result<()> {
    if let Some(data) = args.data.as_ref().filter(|data| !data.exists()) {
        return Err(Error::usage(format!(
            "there is no corpus {}",
            data.display()
        )));
    }
    let Some(dir) = &args.study else {
        return Ok(());
    };
    if !is_there(args) {
        return Study::check_can_create(dir);
    }
    check_hook(args, dir)?;
    check_layer(args, dir)?;
    check_features(args, dir)?;
    // Where a model lies says nothing of what is fitted.
    let fits = args.data.is_some() || args.layer.is_some();
    let more = [
        ("--features", args.features.is_some() && !fits),
        ("--hook", args.hook.is_some() && !fits),
        ("--dtype", args.compute.dtype.is_some() && !is_named(args)),
        ("--device", args.compute.device.is_some() && !is_named(args)),
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

/// Refuses a place in the layer without a layer, where a corpus is named: the study's first hook
/// would be taken.
fn check_hook(args: &ExploreArgs, dir: &Path) -> Result<()> {
    if args.hook.is_some() && args.layer.is_none() && args.data.is_some() {
        return Err(Error::usage(format!(
            "--hook has no effect on {} without --layer, for it is a study already: give --layer too, or leave it out",
            dir.display()
        )));
    }
    Ok(())
}

/// Refuses a layer that the study does not have, where no corpus is named to collect it from: nothing
/// could be shown.
fn check_layer(args: &ExploreArgs, dir: &Path) -> Result<()> {
    let (Some(layer), None) = (args.layer, &args.data) else {
        return Ok(());
    };
    let site = args.hook.unwrap_or_default();
    let hook = HookPoint { layer, site };
    let study = Study::open_read_only(dir)?;
    let manifest = study.manifest();
    if manifest.hooks.contains(&hook) {
        return Ok(());
    }
    let has: Vec<String> = manifest.hooks.iter().map(ToString::to_string).collect();
    let layers: Vec<String> = manifest
        .hooks
        .iter()
        .map(|hook| match hook.site == HookSite::default() {
            true => format!("--layer {}", hook.layer),
            false => format!("--layer {} --hook {}", hook.layer, hook.site),
        })
        .collect();
    let collect = match &manifest.model {
        Some(model) => format!(
            ", or collect that layer into another study: mlpeek collect --model {} --layer {layer}{} --data CORPUS --out STUDY",
            model.id,
            match site == HookSite::default() {
                true => String::new(),
                false => format!(" --hook {site}"),
            }
        ),
        None => String::new(),
    };
    Err(Error::usage(format!(
        "{} has {}, not {hook}: open it with {}{collect}",
        dir.display(),
        has.join(", "),
        layers.join(" or ")
    )))
}

/// Refuses a number of features for a layer of a study that shows what it has: other fits, or that
/// it is not collected yet.
fn check_features(args: &ExploreArgs, dir: &Path) -> Result<()> {
    let (Some(features), Some(layer), None) = (args.features, args.layer, &args.data) else {
        return Ok(());
    };
    let hook = HookPoint {
        layer,
        site: args.hook.unwrap_or_default(),
    };
    let study = Study::open_read_only(dir)?;
    let state = study.collected()?;
    let fits: Vec<_> = study
        .fits()?
        .into_iter()
        .filter(|fit| fit.hook == hook)
        .collect();
    let (what, remedy) = if fits.iter().any(|fit| fit.config.features != features) {
        let names: Vec<&str> = fits.iter().map(|fit| fit.name.as_str()).collect();
        let remedy = format!(
            "fit anew in the Fit pane or by mlpeek fit {} --layer {layer} -k {features}",
            dir.display()
        );
        (
            format!("has {} of {hook} already", names.join(", ")),
            remedy,
        )
    } else if fits.is_empty() && !state.is_complete() {
        (
            format!("is {state}"),
            "fit in the Fit pane once all is collected".to_owned(),
        )
    } else {
        return Ok(());
    };
    Err(Error::usage(format!(
        "--features has no effect on {}, which {what}: leave it out, and {remedy}",
        dir.display()
    )))
}

fn first(args: &ExploreArgs) -> (Option<Command>, bool) {
    let chosen = is_named(args)
        || args.features.is_some()
        || args.hook.is_some()
        || args.compute.device.is_some()
        || args.compute.dtype.is_some();
    match &args.study {
        Some(dir) if is_there(args) && !is_named(args) => {
            (Some(Command::OpenStudy(dir.clone())), false)
        }
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
        fit: FitConfig {
            features: args.features.unwrap_or(FitConfig::default().features),
            ..FitConfig::default()
        },
        device: args.compute.device.unwrap_or_default(),
        dtype: args.compute.dtype.map(Into::into),
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

/// How the explorer starts.
#[derive(Debug, Clone, Default)]
pub struct UiOptions {
    /// Sent to the engine right after the first frame.
    pub initial: Option<Command>,
    /// Begin in the Start pane rather than with the features.
    pub show_start: bool,
    /// Lines that stay in the header: a GPU that this build does not use.
    pub notes: Vec<String>,
    /// Colours; `None` asks the environment.
    pub colour: Option<Profile>,
    /// For a light background; `None` asks `COLORFGBG`, else dark.
    pub light: Option<bool>,
    /// Do not go back to where the last session stood.
    pub fresh: bool,
    /// Panics on the UI thread after the first frame: for the test that the terminal is given back.
    #[doc(hidden)]
    pub debug_panic: bool,
}

/// Runs the explorer until the user quits, and returns the exit code: 0, or that of a signal. The
/// engine behind the channels is told to shut down, and waited for.
///
/// # Errors
/// Where there is no terminal, or it cannot be taken over.
pub fn run(
    options: UiOptions,
    requests: Sender<Request>,
    replies: Receiver<Reply>,
) -> anyhow::Result<u8> {
    check_terminal()?;
    let config = config::load();
    let profile = options
        .colour
        .or(config.colour)
        .unwrap_or_else(Profile::detect);
    let light = options
        .light
        .or(config.light)
        .unwrap_or_else(theme::light_background);
    let mut theme = Theme::new(profile, light);
    theme.ascii = config.ascii.unwrap_or_else(theme::ascii_locale);
    let app = AppOptions {
        theme,
        keymap: config.keymap,
        mouse: config.mouse.unwrap_or(true),
        problems: config.problems,
        initial: options.initial,
        show_start: options.show_start,
        notes: options.notes,
        fresh: options.fresh,
    };
    // Standard error is the log drawer's while the explorer is open.
    warnings::install(|line| _ = writeln!(std::io::stderr(), "warning: {line}"));
    terminal::run(
        |size| App::new(app, size),
        &requests,
        &replies,
        options.debug_panic,
    )
}

/// Fails where there is nothing to draw on.
fn check_terminal() -> anyhow::Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        anyhow::bail!(
            "the explorer needs a terminal; `mlpeek --help` lists the commands that do not"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExploreArgs,
    }

    #[test]
    fn an_option_without_effect_on_a_study_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let hook = HookPoint {
            layer: 2,
            site: HookSite::MlpPost,
        };
        let data: Vec<f32> = (0..40 * 8).map(|i| (i * 37 % 23) as f32).collect();
        let study = Study::import(dir.path(), "x.npy", hook, 40, 8, &data).unwrap();
        let told = |words: &[&str]| {
            let named = ["mlpeek", dir.path().to_str().unwrap()];
            let line = Line::try_parse_from(named.iter().chain(words)).unwrap();
            check(&line.args).err().map(|e| e.to_string())
        };
        assert_eq!(
            told(&["--layer", "2", "-k", "3"]),
            None,
            "it is made: there is no fit yet"
        );
        let config = FitConfig {
            features: 4,
            ..FitConfig::default()
        }
        .with_sparsity_at(8);
        study.start_fit("k4", hook, &config).unwrap();
        std::fs::write(study.checkpoint_path("k4").unwrap(), "begun").unwrap();
        assert_eq!(told(&["--layer", "2", "-k", "4"]), None);
        assert_eq!(told(&["--layer", "2"]), None);
        let refused = told(&["--layer", "2", "-k", "3"]).unwrap_or_default();
        assert!(
            refused.contains("which has k4 of blocks.2.mlp.hook_post already"),
            "{refused}"
        );
        let refused = told(&["--layer", "5"]).unwrap_or_default();
        assert!(
            refused.contains(
                "has blocks.2.mlp.hook_post, not blocks.5.mlp.hook_post: open it with --layer 2"
            ) && !refused.contains('\n'),
            "{refused}"
        );
        let corpus = dir.path().join("study.json");
        let with_data = [
            "--data",
            corpus.to_str().unwrap(),
            "--hook",
            "hook_resid_post",
        ];
        let refused = told(&with_data).unwrap_or_default();
        assert!(refused.contains("without --layer"), "{refused}");
    }
}
