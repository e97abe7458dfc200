//! The `~` drawer: what the engine said, newest last, filtered by how grave it is.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::{Answer, frame};
use crate::engine::Level;
use crate::text;
use crate::ui::action::Action;
use crate::ui::app::App;
use crate::ui::draw::put;
use crate::ui::keymap::{Key, Keymap};
use crate::ui::pane_id::PaneId;
use crate::ui::theme::Theme;
use crate::ui::world::{LogLine, World};

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
        self.back = if down {
            self.back.saturating_sub(3)
        } else {
            self.back + 3
        };
    }

    pub(super) fn view(&self, app: &App, screen: Rect, buf: &mut Buffer) {
        let height = (screen.height / 2).max(8).min(screen.height);
        let area = Rect {
            y: screen.bottom() - height,
            height,
            ..screen
        };
        let what = ["all", "warnings and errors", "errors"][usize::from(self.least.min(2))];
        let title = format!("Log: {what}   / filters   esc closes");
        let inner = frame(&title, area, &app.theme, buf);
        let shown = app
            .world
            .log
            .iter()
            .filter(|l| grade(l.level) >= self.least);
        let lines: Vec<Line> = shown
            .flat_map(|line| told(line, usize::from(inner.width), &app.theme))
            .collect();
        let rows = usize::from(inner.height);
        let end = lines.len() - self.back.min(lines.len().saturating_sub(rows));
        for (i, line) in lines[end.saturating_sub(rows)..end].iter().enumerate() {
            put(buf, inner, i, line);
        }
        if lines.is_empty() {
            put(buf, inner, 0, &Line::styled("nothing yet", app.theme.dim()));
        }
    }
}

/// A log line in as many as it takes.
fn told(line: &LogLine, width: usize, theme: &Theme) -> Vec<Line<'static>> {
    let (mark, style) = match line.level {
        Level::Info => (" ", theme.text()),
        Level::Warn => ("!", theme.warning()),
        Level::Error => ("✗", theme.error()),
    };
    let at = format!("{:>8.1}s {mark} ", line.at.as_secs_f64());
    let blank = " ".repeat(text::width(&at));
    let wrapped = text::wrap(&text::clean(&line.text), width.saturating_sub(blank.len()))
        .into_iter()
        .enumerate();
    wrapped
        .map(|(i, part)| {
            let at = if i == 0 { at.clone() } else { blank.clone() };
            Line::from(vec![
                Span::styled(at, theme.dim()),
                Span::styled(part, style),
            ])
        })
        .collect()
}
