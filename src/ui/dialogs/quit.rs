//! The question before quitting while jobs run or notes are not on disk.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::engine::Job;
use crate::text;
use crate::ui::action::Action;
use crate::ui::dialog::{Answer, Dialog, DialogCx, centred};
use crate::ui::draw::put;
use crate::ui::keymap::Key;
use crate::ui::pane_id::PaneId;

/// Whether to quit although these jobs run.
#[derive(Debug)]
pub struct QuitDialog {
    jobs: Vec<Job>,
}

impl QuitDialog {
    /// Asks while `jobs` run.
    pub fn new(jobs: Vec<Job>) -> Self {
        Self { jobs }
    }
}

impl Dialog for QuitDialog {
    fn title(&self, _: &DialogCx) -> String {
        "Quit?".to_owned()
    }

    fn area(&self, cx: &DialogCx) -> Rect {
        centred(cx.screen, 60, 5)
    }

    fn key(&mut self, key: KeyEvent, cx: &DialogCx) -> Answer {
        match key.code {
            KeyCode::Enter | KeyCode::Char('y' | 'q') if key.modifiers == KeyModifiers::NONE => {
                Answer::Quit
            }
            KeyCode::Char('n') => Answer::Close,
            _ if cx.keymap.action(Key::of(key), PaneId::Features) == Some(Action::Quit) => {
                Answer::Quit
            }
            _ => Answer::Stay,
        }
    }

    fn cancel(&self) -> Option<Answer> {
        Some(Answer::Quit)
    }

    fn view(&self, inner: Rect, cx: &DialogCx, buf: &mut Buffer) {
        let running: Vec<&str> = self.jobs.iter().map(|job| job.label()).collect();
        let running = running.join(" and ");
        let lines = match (cx.unsaved_notes, running.is_empty()) {
            (0, _) => [
                format!("Still {running}. It stops at the next checkpoint;"),
                "what was saved stays, and the next run goes on.".to_owned(),
            ],
            (notes, is_idle) => [
                format!("Notes not kept yet: {notes}. Tried once more, then lost."),
                if is_idle {
                    String::new()
                } else {
                    format!("Still {running}; what was saved stays.")
                },
            ],
        };
        for (i, line) in lines.iter().enumerate() {
            let line = text::truncate(line, usize::from(inner.width));
            put(buf, inner, i, &Line::raw(line));
        }
        let accent = cx.theme.accent();
        let keys = Line::from(vec![
            Span::styled("enter", accent),
            Span::raw(" quits   "),
            Span::styled("esc", accent),
            Span::raw(" stays"),
        ]);
        put(buf, inner, 2, &keys);
    }
}
