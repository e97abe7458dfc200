//! The `~` drawer: what the engine said, newest last, filtered by how grave it is.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::overlay::{Answer, frame};
use super::{PaneId, put};
use crate::engine::Level;
use crate::ui::action::Action;
use crate::ui::app::App;
use crate::ui::keymap::{Key, Keymap};
use crate::ui::text;
use crate::ui::world::World;

/// Its state.
#[derive(Debug, Default)]
pub struct LogDrawer {
    /// Lines back from the end.
    back: usize,
    /// The least grave that is shown: 0 all, 1 warnings, 2 errors.
    least: u8,
}

fn grade(level: Level) -> u8 {
    match level {
        Level::Info => 0,
        Level::Warn => 1,
        Level::Error => 2,
    }
}

impl LogDrawer {
    pub(super) fn key(&mut self, key: KeyEvent, world: &World, keymap: &Keymap) -> Answer {
        let last = world.log.len().saturating_sub(1);
        match keymap.action(Key::of(key), PaneId::Features) {
            Some(Action::Log | Action::Quit) => return Answer::Close,
            Some(Action::Up) => self.back = (self.back + 1).min(last),
            Some(Action::Down) => self.back = self.back.saturating_sub(1),
            Some(Action::PageUp) => self.back = (self.back + 10).min(last),
            Some(Action::PageDown) => self.back = self.back.saturating_sub(10),
            Some(Action::First) => self.back = last,
            Some(Action::Last) => self.back = 0,
            Some(Action::Filter) => (self.least, self.back) = ((self.least + 1) % 3, 0),
            _ if key.code == KeyCode::Enter => return Answer::Close,
            _ => {}
        }
        Answer::Stay
    }

    pub(super) fn scroll(&mut self, down: bool) {
        // The view stops at the first line.
        self.back = if down { self.back.saturating_sub(3) } else { self.back + 3 };
    }

    pub(super) fn view(&self, app: &App, screen: Rect, buf: &mut Buffer) {
        let height = (screen.height / 2).max(8).min(screen.height);
        let area = Rect { y: screen.bottom() - height, height, ..screen };
        let what = ["all", "warnings and errors", "errors"][usize::from(self.least.min(2))];
        let title = format!("Log: {what}   / filters   esc closes");
        let inner = frame(&title, area, &app.theme, buf);
        let shown: Vec<_> = app.world.log.iter().filter(|l| grade(l.level) >= self.least).collect();
        let rows = usize::from(inner.height);
        let end = shown.len() - self.back.min(shown.len().saturating_sub(rows));
        for (i, line) in shown[end.saturating_sub(rows)..end].iter().enumerate() {
            let (mark, style) = match line.level {
                Level::Info => (" ", app.theme.text()),
                Level::Warn => ("!", app.theme.warning()),
                Level::Error => ("✗", app.theme.error()),
            };
            let at = format!("{:>8.1}s {mark} ", line.at.as_secs_f64());
            let room = usize::from(inner.width).saturating_sub(text::width(&at));
            let said = Span::styled(text::fit(&text::clean(&line.text), room), style);
            put(buf, inner, i, &Line::from(vec![Span::styled(at, app.theme.dim()), said]));
        }
        if shown.is_empty() {
            put(buf, inner, 0, &Line::styled("nothing yet", app.theme.dim()));
        }
    }
}
