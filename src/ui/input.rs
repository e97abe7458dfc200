//! A line of text being typed: filters, names, form fields. Owns the text and the cursor; knows no
//! pane.
//!
//! Invariant: the cursor stands on a grapheme boundary and the text holds no line break.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::text::{Line, Span};

use super::edit::Edit;
use super::theme::Theme;
use crate::text;

/// Most bytes that a line takes, so that a paste of megabytes costs nothing.
const MAX_BYTES: usize = 4096;

/// A single line with a cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineInput {
    edit: Edit,
}

impl LineInput {
    /// An input that holds `text`, with the cursor after it.
    pub fn new(text: &str) -> Self {
        let mut input = Self::default();
        input.paste(text);
        input
    }

    /// The text as it stands now.
    pub fn text(&self) -> &str {
        &self.edit.text
    }

    /// Inserts text; line breaks become spaces.
    pub fn paste(&mut self, pasted: &str) {
        let room = MAX_BYTES.saturating_sub(self.edit.text.len());
        let mut kept = String::new();
        for c in pasted.chars() {
            if kept.len() + c.len_utf8() > room {
                break;
            }
            kept.push(if matches!(c, '\n' | '\r' | '\t') {
                ' '
            } else {
                c
            });
        }
        self.edit.insert(&kept);
    }

    /// Takes a key; false when it means nothing to a line of text.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        match key.code {
            KeyCode::Char(c)
                if !key
                    .modifiers
                    .intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
            {
                self.paste(c.encode_utf8(&mut [0; 4]));
                true
            }
            _ => self.edit.key(key),
        }
    }

    /// The line in at most `cells`, scrolled so that the cursor is seen.
    pub fn line(&self, theme: &Theme, cells: usize) -> Line<'static> {
        let head = text::clean(&self.edit.text[..self.edit.cursor]);
        let under = text::clean(&self.edit.text[self.edit.cursor..self.edit.after()]);
        let under = if under.is_empty() {
            " ".to_owned()
        } else {
            under
        };
        let room = cells.saturating_sub(text::width(&under));
        let head = text::truncate_start(&head, room.max(1));
        let tail = text::truncate(
            &text::clean(&self.edit.text[self.edit.after()..]),
            room.saturating_sub(text::width(&head)),
        );
        Line::from(vec![
            Span::raw(head),
            Span::styled(under, theme.cursor()),
            Span::raw(tail),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn press(input: &mut LineInput, code: KeyCode) {
        input.key(KeyEvent::new(code, KeyModifiers::NONE));
    }

    #[test]
    fn editing_moves_by_what_a_reader_sees_as_one_character() {
        let mut input = LineInput::new("a👨‍👩‍👧b");
        press(&mut input, KeyCode::Left);
        press(&mut input, KeyCode::Backspace);
        assert_eq!(input.text(), "ab");
        press(&mut input, KeyCode::Delete);
        assert_eq!(input.text(), "a");
    }

    #[test]
    fn a_paste_of_lines_stays_one_line_and_bounded() {
        let mut input = LineInput::default();
        input.paste(&"one\ntwo ".repeat(1_000_000 / 8));
        assert!(input.text().len() <= MAX_BYTES && !input.text().contains('\n'));
    }

    proptest! {
        #[test]
        fn any_keys_keep_the_cursor_on_a_boundary(
            start in ".{0,20}", keys in proptest::collection::vec((0u8..9, any::<char>()), 0..40)
        ) {
            let mut input = LineInput::new(&start);
            for (kind, c) in keys {
                let ctrl = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
                let plain = |code| KeyEvent::new(code, KeyModifiers::NONE);
                input.key(match kind {
                    0 => plain(KeyCode::Left), 1 => plain(KeyCode::Right), 2 => plain(KeyCode::Backspace),
                    3 => plain(KeyCode::Delete), 4 => ctrl('w'), 5 => ctrl('k'), 6 => plain(KeyCode::Home),
                    7 => ctrl('u'), _ => plain(KeyCode::Char(c)),
                });
                prop_assert!(input.text().is_char_boundary(input.edit.cursor));
                let _ = input.line(&Theme::new(crate::ui::theme::Profile::Mono, false), 10);
            }
        }
    }
}
