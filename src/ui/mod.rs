//! The explorer: an Elm-like shell on ratatui. Talks to the world only through [`crate::engine`]'s
//! commands and events and plain data; never sees a tensor, a store or a model.
//!
//! | room | owns |
//! | --- | --- |
//! | [`action`] · [`keymap`] · [`config`] | what keys can do, in one table · which key does it · the user's file |
//! | [`app`] · [`world`] | `update`: messages to effects · what the engine has told |
//! | [`panes`] | one file a pane |
//! | [`layout`] · [`view`] | where things are · the frame around the panes |
//! | [`theme`] · [`text`] · [`heat`] · [`input`] | colours by meaning · text made safe · tokens as cells · a line being typed |
//! | [`terminal`] · [`clipboard`] | all I/O |

pub mod action;
pub mod app;
pub mod clipboard;
pub mod config;
#[cfg(test)]
pub(crate) mod demo;
mod edit;
pub mod heat;
pub mod input;
pub mod keymap;
mod launch;
pub mod layout;
pub mod panes;
#[cfg(test)]
pub(crate) mod stage;
pub mod terminal;
pub mod textbox;
pub mod theme;
pub mod view;
pub mod world;

pub use crate::text;

use std::io::{IsTerminal, Write};

use crossbeam_channel::{Receiver, Sender};

use crate::engine::{Command, Event};
use crate::warnings;
use app::{App, AppOptions};
use keymap::KeyRow;
pub use launch::explore;
use theme::{Profile, Theme};

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
    commands: Sender<Command>,
    events: Receiver<Event>,
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
        &commands,
        &events,
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

/// The key reference with the user's keys, and what is wrong with the configuration file, a line
/// each.
pub fn configured_key_table() -> (Vec<KeyRow>, Vec<String>) {
    let config = config::load();
    (config.keymap.table(), config.problems)
}

/// A key reference as a Markdown table.
pub fn key_table_markdown(rows: &[KeyRow]) -> String {
    let mut out =
        String::from("| key | action | where | what it does |\n| --- | --- | --- | --- |\n");
    for row in rows {
        let keys: Vec<String> = row
            .keys
            .iter()
            .map(|k| format!("`{}`", k.replace('|', "\\|")))
            .collect();
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            keys.join(" "),
            row.action,
            row.place,
            row.doc
        ));
    }
    out
}
