//! What goes into the app and comes out of it, and how it begins. Plain data.

use std::time::Duration;

use crossterm::event::{KeyEvent, MouseEvent};

use crate::engine::{Command, Reply, Request};
use crate::ui::keymap::Keymap;
use crate::ui::theme::Theme;

/// What happens to the app.
#[derive(Debug, Clone)]
pub enum Msg {
    /// The time since the start; comes before every other message.
    Tick(Duration),
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse was clicked or its wheel turned.
    Mouse(MouseEvent),
    /// Text that the terminal pasted, as a whole.
    Paste(String),
    /// The terminal has a new size: columns, rows.
    Resize(u16, u16),
    /// What the engine replied or told.
    Engine(Box<Reply>),
    /// The engine has ended.
    EngineGone,
    /// A line that something in this process wrote to standard error.
    Stderr(String),
    /// SIGTERM or SIGHUP: save and end.
    Terminate,
    /// How an effect went: what was done, for a person, or why it was not.
    Outcome(Result<String, String>),
}

/// What the app wants done.
#[derive(Debug, Clone, PartialEq)]
// Most effects are requests, and there are a few a key press.
#[allow(clippy::large_enum_variant)]
pub enum Effect {
    /// A request to the engine.
    Send(Request),
    /// To the clipboard: the text and what it is.
    Copy(String, String),
    /// Mouse capture on or off.
    Mouse(bool),
    /// Clear and draw afresh.
    Redraw,
    /// Stop the process, as the shell's ctrl-z does.
    Suspend,
    /// End the program now.
    Quit,
}

/// How an app begins.
#[derive(Debug, Clone)]
pub struct AppOptions {
    /// The styles to draw with.
    pub theme: Theme,
    /// Which key does what.
    pub keymap: Keymap,
    /// The first command to the engine; `None` where the user chooses in the Start pane.
    pub initial: Option<Command>,
    /// Begin in the Start pane.
    pub show_start: bool,
    /// Notes that stay in the header until a key is pressed on them.
    pub notes: Vec<String>,
    /// Do not restore where an earlier session stood.
    pub fresh: bool,
    /// Mouse capture at the start.
    pub mouse: bool,
    /// What is wrong with the configuration.
    pub problems: Vec<String>,
}
