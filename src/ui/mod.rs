//! The explorer: an Elm-like shell on ratatui. Talks to the world only through [`crate::engine`]'s commands and events
//! and plain data; never sees a tensor, a store or a model.
//!
//! | room | owns |
//! | --- | --- |
//! | [`action`] · [`keymap`] | what keys can do, in one table · which key does it |
//! | [`app`] · [`world`] | `update`: messages to effects · what the engine has told |
//! | [`panes`] | one file a pane |
//! | [`layout`] · [`view`] | where things are · the frame around the panes |
//! | [`theme`] · [`text`] · [`input`] | colours by meaning · text made safe · a line being typed |
//! | [`terminal`] · [`clipboard`] | all I/O |

pub mod action;
pub mod app;
pub mod clipboard;
#[cfg(test)]
pub(crate) mod demo;
pub mod input;
pub mod keymap;
pub mod layout;
pub mod panes;
#[cfg(test)]
pub(crate) mod stage;
pub mod terminal;
pub mod text;
pub mod textbox;
pub mod theme;
pub mod view;
pub mod world;

use std::io::IsTerminal;

use crossbeam_channel::{Receiver, Sender};

use crate::engine::{Command, Event};
use app::{App, AppOptions};
use keymap::{KeyRow, Keymap};
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
}

/// Runs the explorer until the user quits. The engine behind the channels is told to shut down, and waited for.
pub fn run(options: UiOptions, commands: Sender<Command>, events: Receiver<Event>) -> anyhow::Result<()> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        anyhow::bail!("the explorer needs a terminal; `mlpeek --help` lists the commands that do not");
    }
    let profile = options.colour.unwrap_or_else(Profile::detect);
    let app = AppOptions {
        theme: Theme::new(profile, options.light.unwrap_or_else(theme::light_background)),
        keymap: Keymap::default(),
        initial: options.initial,
        show_start: options.show_start,
        notes: options.notes,
        fresh: options.fresh,
    };
    terminal::run(|size| App::new(app, size), &commands, &events)
}

/// The key reference, with the default keys.
pub fn key_table() -> Vec<KeyRow> {
    Keymap::default().table()
}
