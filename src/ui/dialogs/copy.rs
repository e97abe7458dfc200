//! In which form something goes to the clipboard: text, JSON or Markdown.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::text;
use crate::ui::action::Action;
use crate::ui::dialog::{Answer, Dialog, DialogCx, centred};
use crate::ui::draw::put;
use crate::ui::keymap::{Key, Keymap};
use crate::ui::pane::CopyFormats;
use crate::ui::pane_id::PaneId;

/// In which form something is copied.
enum Form {
    Text,
    Json,
    Markdown,
}

/// The form that a key means; the key that copies, pressed again, means text.
fn form(key: KeyEvent, keymap: &Keymap) -> Option<Form> {
    match key.code {
        KeyCode::Enter | KeyCode::Char('t') => Some(Form::Text),
        KeyCode::Char('j') => Some(Form::Json),
        KeyCode::Char('m') => Some(Form::Markdown),
        _ => (keymap.action(Key::of(key), PaneId::Features) == Some(Action::Copy))
            .then_some(Form::Text),
    }
}

/// JSON to be read by a person too.
fn json(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// What can be copied, until a form is chosen.
#[derive(Debug)]
pub struct CopyDialog(CopyFormats);

impl CopyDialog {
    /// Asks for the form of `copies`.
    pub fn new(copies: CopyFormats) -> Self {
        Self(copies)
    }
}

impl Dialog for CopyDialog {
    fn title(&self, _: &DialogCx) -> String {
        "Copy".to_owned()
    }

    fn area(&self, cx: &DialogCx) -> Rect {
        centred(cx.screen, 52, 4)
    }

    fn key(&mut self, key: KeyEvent, cx: &DialogCx) -> Answer {
        let what = &self.0.what;
        match form(key, cx.keymap) {
            Some(Form::Text) => Answer::Copy(self.0.text.clone(), what.clone()),
            Some(Form::Json) => Answer::Copy(json(&self.0.json), format!("{what} as JSON")),
            Some(Form::Markdown) => {
                Answer::Copy(self.0.markdown.clone(), format!("{what} as Markdown"))
            }
            None => Answer::Stay,
        }
    }

    fn view(&self, inner: Rect, cx: &DialogCx, buf: &mut Buffer) {
        let what = text::truncate(&text::clean(&self.0.what), usize::from(inner.width));
        put(buf, inner, 0, &Line::raw(what));
        let forms = [
            ("t", " text   "),
            ("j", " JSON   "),
            ("m", " Markdown   "),
            ("esc", " leaves"),
        ];
        let spans = forms
            .into_iter()
            .flat_map(|(key, what)| [Span::styled(key, cx.theme.accent()), Span::raw(what)]);
        put(buf, inner, 1, &Line::from(spans.collect::<Vec<_>>()));
    }
}
