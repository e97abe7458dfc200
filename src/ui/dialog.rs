//! What a dialog is: what lies over the panes and has every key to itself while it is open. The
//! trait, what a dialog may look at ([`DialogCx`]) and what it answers ([`Answer`]). Knows no dialog
//! and not the app.
//!
//! Invariant: `esc` closes every dialog; it never reaches [`Dialog::key`].

use std::fmt;

use crossterm::event::KeyEvent;
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::symbols::border;
use ratatui::text::Span;
use ratatui::widgets::{Block, Widget};

use super::action::Action;
use super::draw::clear;
use super::keymap::Keymap;
use super::theme::Theme;
use super::world::World;
use crate::engine::{Command, TypedNote};

/// What a dialog may look at.
#[derive(Clone, Copy)]
pub struct DialogCx<'a> {
    /// What the engine has told.
    pub world: &'a World,
    /// The styles to draw with.
    pub theme: &'a Theme,
    /// The keys as the user's file has them.
    pub keymap: &'a Keymap,
    /// Where dialogs are drawn: the screen but for its footer.
    pub screen: Rect,
    /// Why an action cannot be done now; `None` when it can.
    pub refusal: &'a dyn Fn(Action) -> Option<String>,
    /// How many notes were typed and are not on disk yet.
    pub unsaved_notes: usize,
}

/// What a dialog answers to a key or a click.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// The dialog stays open.
    Stay,
    /// The dialog closes, and nothing else is done.
    Close,
    /// It closes, and this is done.
    Do(Action),
    /// It closes, and this is sent.
    Send(Box<Command>),
    /// It closes, and this note is saved.
    Save(TypedNote),
    /// It closes, and this text goes to the clipboard: what it is comes second.
    Copy(String, String),
    /// The explorer saves and ends.
    Quit,
}

/// What lies over the panes.
pub trait Dialog: fmt::Debug {
    /// The words in its border.
    fn title(&self, cx: &DialogCx) -> String;

    /// The cells that it takes, its border among them.
    fn area(&self, cx: &DialogCx) -> Rect;

    /// Draws into `inner`, the cells inside its border.
    fn view(&self, inner: Rect, cx: &DialogCx, buf: &mut Buffer);

    /// Handles a key, and says whether the dialog stays open.
    fn key(&mut self, key: KeyEvent, cx: &DialogCx) -> Answer;

    /// Inserts pasted text, where the dialog takes text.
    fn paste(&mut self, text: &str, cx: &DialogCx) {
        let _ = (text, cx);
    }

    /// Takes one notch of the wheel.
    fn scroll(&mut self, down: bool, cx: &DialogCx) {
        let _ = (down, cx);
    }

    /// Takes a click: on a field or a line of a list it goes there, on the line that the cursor is
    /// on already it does what enter does.
    fn click(&mut self, at: Position, cx: &DialogCx) -> Answer {
        let _ = (at, cx);
        Answer::Stay
    }

    /// What the cancel key means while no job is there to be cancelled; `None` leaves it to the app.
    fn cancel(&self) -> Option<Answer> {
        None
    }
}

/// Draws a dialog with its border over what is there.
pub fn draw(dialog: &dyn Dialog, cx: &DialogCx, buf: &mut Buffer) {
    let area = dialog.area(cx).intersection(buf.area);
    clear(buf, area);
    let title = format!(" {} ", dialog.title(cx));
    Block::bordered()
        .border_set(border::ROUNDED)
        .border_style(cx.theme.accent())
        .title(Span::styled(title, cx.theme.title(true)))
        .render(area, buf);
    dialog.view(inside(area), cx, buf);
}

/// Cells of at most `width` × `height`, in the middle of the screen and nearer to its top.
pub fn centred(screen: Rect, width: u16, height: u16) -> Rect {
    let width = width.min(screen.width);
    let height = height.min(screen.height);
    Rect::new(
        screen.x + (screen.width - width) / 2,
        screen.y + (screen.height - height) / 3,
        width,
        height,
    )
}

/// The cells of a dialog's lines, where `area` is all of it.
pub fn inside(area: Rect) -> Rect {
    let inner = Block::bordered().inner(area);
    Rect {
        x: inner.x + u16::from(inner.width > 2),
        width: inner.width.saturating_sub(2),
        ..inner
    }
}
