//! The `~` drawer: what the engine said, newest last, filtered by how grave it is.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::engine::Level;
use crate::text;
use crate::ui::action::Action;
use crate::ui::dialog::{Answer, Dialog, DialogCx};
use crate::ui::draw::put;
use crate::ui::keymap::Key;
use crate::ui::pane_id::PaneId;
use crate::ui::theme::Theme;
use crate::ui::world::LogLine;

/// Which lines of the log are shown.
#[derive(Debug, Default)]
pub struct LogDialog {
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

impl Dialog for LogDialog {
    fn title(&self, _: &DialogCx) -> String {
        let what = ["all", "warnings and errors", "errors"][usize::from(self.least.min(2))];
        format!("Log: {what}   / filters   esc closes")
    }

    fn area(&self, cx: &DialogCx) -> Rect {
        let height = (cx.screen.height / 2).max(8).min(cx.screen.height);
        Rect {
            y: cx.screen.bottom() - height,
            height,
            ..cx.screen
        }
    }

    fn key(&mut self, key: KeyEvent, cx: &DialogCx) -> Answer {
        let last = cx.world.log.len().saturating_sub(1);
        match cx.keymap.action(Key::of(key), PaneId::Features) {
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

    fn scroll(&mut self, down: bool, _: &DialogCx) {
        // The view stops at the first line.
        self.back = if down {
            self.back.saturating_sub(3)
        } else {
            self.back + 3
        };
    }

    fn view(&self, inner: Rect, cx: &DialogCx, buf: &mut Buffer) {
        let shown = cx.world.log.iter().filter(|l| grade(l.level) >= self.least);
        let lines: Vec<Line> = shown
            .flat_map(|line| lines_of(line, usize::from(inner.width), cx.theme))
            .collect();
        let rows = usize::from(inner.height);
        let end = lines.len() - self.back.min(lines.len().saturating_sub(rows));
        for (i, line) in lines[end.saturating_sub(rows)..end].iter().enumerate() {
            put(buf, inner, i, line);
        }
        if lines.is_empty() {
            put(buf, inner, 0, &Line::styled("nothing yet", cx.theme.dim()));
        }
    }
}

/// A log line in as many as it takes.
fn lines_of(line: &LogLine, width: usize, theme: &Theme) -> Vec<Line<'static>> {
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
