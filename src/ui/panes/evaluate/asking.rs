//! The form of an evaluation on the screen: its cursor, what is typed, how it looks.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::form::{Field, Form};
use crate::jobs::causal::CausalRequest;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at};
use crate::ui::input::LineInput;
use crate::ui::list::{motion, scroll};
use crate::ui::pane::Cx;

/// Lines over the fields, and under them.
const ABOVE: usize = 2;
const BELOW: usize = 3;

/// The form and where it stands.
#[derive(Debug, Default)]
pub(super) struct Asking {
    form: Form,
    cursor: usize,
    editing: Option<LineInput>,
    problem: Option<String>,
}

impl Asking {
    pub fn ask(&self, cx: &Cx) -> Result<CausalRequest, String> {
        self.form.ask(cx)
    }

    pub fn typing(&self) -> bool {
        self.editing.is_some()
    }

    fn field(&self, cx: &Cx) -> Option<Field> {
        self.form.fields(cx).get(self.cursor).cloned()
    }

    /// Keys while a value is typed.
    pub fn key(&mut self, key: KeyEvent, cx: &Cx) -> bool {
        match key.code {
            KeyCode::Esc => (self.editing, self.problem) = (None, None),
            KeyCode::Enter | KeyCode::Tab => self.commit(cx),
            _ => return self.editing.as_mut().is_some_and(|input| input.key(key)),
        }
        true
    }

    pub fn paste(&mut self, pasted: &str) {
        if let Some(input) = &mut self.editing {
            input.paste(pasted);
        }
    }

    fn commit(&mut self, cx: &Cx) {
        let (Some(input), Some(field)) = (self.editing.take(), self.field(cx)) else {
            return;
        };
        self.problem = self.form.set(&field, input.text()).err();
        if self.problem.is_some() {
            self.editing = Some(input);
        }
    }

    /// Moves, turns or edits; `None` for other actions.
    pub fn act(&mut self, action: Action, cx: &Cx) -> Option<()> {
        let field = self.field(cx)?;
        match action {
            Action::Left | Action::Right => self.form.turn(&field, action == Action::Right),
            Action::Edit if Form::is_typed(&field) => {
                self.editing = Some(LineInput::new(&self.form.typed(&field)))
            }
            Action::Edit => self.form.turn(&field, true),
            _ => self.cursor = motion(action, self.cursor, self.form.fields(cx).len(), rows(cx))?,
        }
        self.problem = None;
        Some(())
    }

    pub fn click(&mut self, row: u16, double: bool, cx: &Cx) {
        let fields = self.form.fields(cx).len();
        let Some(line) = usize::from(row.saturating_sub(cx.area.y)).checked_sub(ABOVE) else {
            return;
        };
        let at = scroll(0, self.cursor, fields, rows(cx)) + line;
        if line < rows(cx) && at < fields && self.editing.is_none() {
            self.cursor = at;
            if double {
                self.act(Action::Edit, cx);
            }
        }
    }

    pub fn view(&self, cx: &Cx, buf: &mut Buffer) {
        let (theme, area, width) = (cx.theme, cx.area, usize::from(cx.area.width));
        let line = |t: &str, style| Line::styled(text::truncate(t, width.saturating_sub(2)), style);
        put_at(
            buf,
            area,
            1,
            0,
            &line(
                "Do features make the model speak of what they stand for?",
                theme.text(),
            ),
        );
        let fields = self.form.fields(cx);
        let names = fields
            .iter()
            .map(|f| text::width(&Form::name(f, cx)))
            .max()
            .unwrap_or(0)
            .clamp(10, (width / 3).max(10));
        let offset = scroll(0, self.cursor, fields.len(), rows(cx));
        for (y, (i, field)) in fields
            .iter()
            .enumerate()
            .skip(offset)
            .take(rows(cx))
            .enumerate()
        {
            let here = i == self.cursor;
            if here {
                let row = Rect {
                    y: area.y + (ABOVE + y) as u16,
                    height: 1,
                    ..area
                };
                buf.set_style(row.intersection(buf.area), theme.selected(cx.focused));
            }
            let dim = self.form.is_off(field);
            let mut spans = vec![
                Span::styled(if here { "▌" } else { " " }, theme.accent()),
                Span::styled(
                    text::pad(&Form::name(field, cx), names),
                    if dim { theme.dim() } else { theme.name() },
                ),
                Span::raw(" "),
            ];
            let room = width.saturating_sub(names + 6);
            match (&self.editing, here) {
                (Some(input), true) => spans.extend(input.line(theme, room).spans),
                _ => {
                    let (left, right) = if here && cx.focused {
                        ("‹", "›")
                    } else {
                        (" ", " ")
                    };
                    let style = if dim { theme.dim() } else { theme.text() };
                    spans.push(Span::styled(left, theme.accent()));
                    spans.push(Span::styled(
                        text::truncate(&self.form.shown(field, cx), room),
                        style,
                    ));
                    spans.push(Span::styled(right, theme.accent()));
                }
            }
            put(buf, area, ABOVE + y, &Line::from(spans));
        }
        let shown = fields.len().saturating_sub(offset).min(rows(cx));
        // A line between where there is room for one.
        let under = ABOVE + shown + usize::from(rows(cx) > shown);
        let help = fields
            .get(self.cursor)
            .map(|field| Form::help(field, cx))
            .unwrap_or_default();
        match &self.problem {
            Some(problem) => put_at(
                buf,
                area,
                1,
                under,
                &line(&text::clean(problem), theme.warning()),
            ),
            None => put_at(buf, area, 1, under, &line(&help, theme.dim())),
        }
        let (said, style) = match self.form.ask(cx) {
            Ok(_) => {
                let texts = text::count(self.form.texts(cx));
                (
                    format!(
                        "{} begins: at most {texts} texts, judged offline; stopped, it goes on",
                        cx.key(Action::Run)
                    ),
                    theme.text(),
                )
            }
            Err(problem) => (problem, theme.warning()),
        };
        put_at(buf, area, 1, under + 1, &line(&said, style));
    }
}

/// Rows for fields.
fn rows(cx: &Cx) -> usize {
    usize::from(cx.area.height)
        .saturating_sub(ABOVE + BELOW)
        .max(1)
}
