//! A dialog that is a form: a request is typed, what comes of it stands below, and enter sends it.
//! Every key is text or motion, for the field under the cursor is always being typed.

use std::fmt::Debug;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use crate::engine::Command;
use crate::text;
use crate::ui::dialog::{Answer, Dialog, DialogCx, centred, inside};
use crate::ui::draw::put;
use crate::ui::form::{Field, Fields, Form};
use crate::ui::world::World;

/// Cells of a field's name.
const NAME: usize = 10;

/// A request that is put together in a form.
pub trait RequestForm: Fields + Debug {
    /// What the dialog is called.
    const TITLE: &'static str;
    /// Cells of the dialog, its border among them.
    const WIDTH: u16;
    /// Cells of a value.
    const VALUE: usize;
    /// What enter does, as a verb for the hint: "sweeps".
    const VERB: &'static str;

    /// The command as it is typed.
    ///
    /// # Errors
    /// What is wrong with it.
    fn command(&self, world: &World) -> Result<Command, String>;

    /// What comes of it, in a line.
    ///
    /// # Errors
    /// What is wrong with it.
    fn outlook(&self, world: &World) -> Result<String, String>;

    /// The settings that are not asked for, in a line.
    fn settings(&self, world: &World) -> Option<String> {
        let _ = world;
        None
    }
}

/// The form of a request over the panes.
#[derive(Debug)]
pub struct FormDialog<R> {
    form: Form<R>,
}

impl<R: RequestForm> FormDialog<R> {
    /// Begins with `request`, in its first field.
    pub fn new(request: R, world: &World) -> Self {
        let mut form = Form::new(request);
        form.edit(world);
        Self { form }
    }

    fn go(&mut self, at: usize, world: &World) {
        if at != self.form.at() {
            self.form.go(at);
            self.form.edit(world);
        }
    }
}

impl<R: RequestForm> Dialog for FormDialog<R> {
    fn title(&self, cx: &DialogCx) -> String {
        let study = cx.world.study.as_ref();
        let hook = study.map_or_else(String::new, |study| format!(" at {}", study.hook));
        format!("{}{hook}", R::TITLE)
    }

    fn area(&self, cx: &DialogCx) -> Rect {
        // A blank line, what comes of it, and the keys stand below the fields.
        let below = 3 + u16::from(self.form.values.settings(cx.world).is_some());
        let fields = self.form.count(cx.world) as u16;
        centred(cx.screen, R::WIDTH, fields + below + 2)
    }

    fn key(&mut self, key: KeyEvent, cx: &DialogCx) -> Answer {
        let (at, count) = (self.form.at(), self.form.count(cx.world));
        match key.code {
            KeyCode::Up | KeyCode::BackTab => self.go((at + count - 1) % count, cx.world),
            KeyCode::Down | KeyCode::Tab => self.go((at + 1) % count, cx.world),
            KeyCode::Enter => {
                // What is wrong stands below the fields already.
                if let Ok(command) = self.form.values.command(cx.world) {
                    return Answer::Send(Box::new(command));
                }
            }
            KeyCode::Left | KeyCode::Right | KeyCode::Char(' ') if self.form.input().is_none() => {
                self.form.step(key.code != KeyCode::Left, cx.world);
            }
            _ => {
                self.form.key(key);
                self.form.store(cx.world);
            }
        }
        Answer::Stay
    }

    fn paste(&mut self, text: &str, cx: &DialogCx) {
        self.form.paste(text);
        self.form.store(cx.world);
    }

    /// The wheel goes from field to field.
    fn scroll(&mut self, down: bool, cx: &DialogCx) {
        let at = self.form.at();
        let to = if down {
            (at + 1).min(self.form.count(cx.world) - 1)
        } else {
            at.saturating_sub(1)
        };
        self.go(to, cx.world);
    }

    /// A click goes to a field, and takes the next choice of one that is not typed.
    fn click(&mut self, at: Position, cx: &DialogCx) -> Answer {
        let inner = inside(self.area(cx));
        let hit = usize::from(at.y.wrapping_sub(inner.y));
        if hit < self.form.count(cx.world) && hit < usize::from(inner.height) {
            self.go(hit, cx.world);
            if self.form.input().is_none() {
                self.form.step(true, cx.world);
            }
        }
        Answer::Stay
    }

    fn view(&self, inner: Rect, cx: &DialogCx, buf: &mut Buffer) {
        let (theme, world, width) = (cx.theme, cx.world, usize::from(inner.width));
        let fields = self.form.values.fields(world);
        for (i, field) in fields.iter().enumerate() {
            let mut spans = self.value(i, field, cx);
            let used: usize = spans.iter().map(Span::width).sum();
            let room = NAME + R::VALUE + 2;
            spans.push(Span::raw(" ".repeat(room.saturating_sub(used))));
            let help = text::truncate(&field.help, width.saturating_sub(room));
            spans.push(Span::styled(help, theme.dim()));
            put(buf, inner, i, &Line::from(spans));
        }
        let outlook = match self.form.values.outlook(world) {
            Ok(outlook) => (outlook, theme.text()),
            Err(problem) => (problem, theme.warning()),
        };
        let settings = self.form.values.settings(world);
        let keys = format!("enter {}, up and down go, esc leaves", R::VERB);
        let below = [outlook]
            .into_iter()
            .chain(settings.map(|settings| (settings, theme.dim())))
            .chain([(keys, theme.dim())]);
        for (i, (line, style)) in below.enumerate() {
            let line = Line::styled(text::truncate(&line, width), style);
            put(buf, inner, fields.len() + 1 + i, &line);
        }
    }
}

impl<R: RequestForm> FormDialog<R> {
    /// The name of field `i` and its value.
    fn value(&self, i: usize, field: &Field, cx: &DialogCx) -> Vec<Span<'static>> {
        let (theme, is_current) = (cx.theme, i == self.form.at());
        let mut spans = vec![
            Span::styled(if is_current { "▌" } else { " " }, theme.accent()),
            Span::styled(text::pad(&field.name, NAME - 1), theme.dim()),
        ];
        match (self.form.input().filter(|_| is_current), &field.typed) {
            (Some(input), _) => spans.extend(input.line(theme, R::VALUE).spans),
            (None, None) if is_current => {
                spans.push(Span::styled(
                    format!("◂ {} ▸", field.shown),
                    theme.selected(true),
                ));
            }
            _ => spans.push(Span::styled(
                text::truncate(&field.shown, R::VALUE),
                theme.heading(),
            )),
        }
        spans
    }
}
