//! Several lines of text being typed: a prompt, a text to trace. Owns the text, the cursor and
//! where lines wrap; knows no pane.
//!
//! Invariant: the text is never longer than its limit, the cursor stands on a grapheme boundary,
//! and what is drawn is clean.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;

use super::edit::Edit;
use super::theme::Theme;
use crate::text;

/// A box of text with a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextBox {
    edit: Edit,
    limit: usize,
}

/// A row as it wraps: bytes `from..to` of the text, without the line feed.
type Row = (usize, usize);

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn cells_of(grapheme: &str) -> usize {
    if grapheme == "\n" {
        0
    } else {
        text::width(&text::clean(grapheme))
    }
}

impl TextBox {
    /// Empty, taking at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            edit: Edit::default(),
            limit,
        }
    }

    /// The text as it stands now.
    pub fn text(&self) -> &str {
        &self.edit.text
    }

    /// Replaces everything; true when it had to be cut.
    pub fn set(&mut self, text: &str) -> bool {
        self.edit = Edit::default();
        self.paste(text)
    }

    /// Inserts text, line ends as line feeds; true when it had to be cut.
    pub fn paste(&mut self, pasted: &str) -> bool {
        let room = self.limit.saturating_sub(self.edit.text.len());
        // Carriage returns only make it shorter, so a little more than fits is enough to look at.
        let head = &pasted[..floor(pasted, room.saturating_mul(2).saturating_add(1))];
        let lines = head.replace("\r\n", "\n").replace('\r', "\n");
        let kept = &lines[..floor(&lines, room)];
        self.edit.insert(kept);
        kept.len() < lines.len() || head.len() < pasted.len()
    }

    /// Takes a key in a box `cells` wide; false when it means nothing to a text. Enter is the
    /// pane's; ctrl-j and alt-enter break the line.
    pub fn key(&mut self, key: KeyEvent, cells: usize) -> bool {
        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Enter if alt => {
                self.paste("\n");
            }
            _ if alt => return false,
            KeyCode::Char('j') if ctrl => {
                self.paste("\n");
            }
            KeyCode::Char(c) if !ctrl => {
                self.paste(c.encode_utf8(&mut [0; 4]));
            }
            KeyCode::Up => self.vertical(false, cells),
            KeyCode::Down => self.vertical(true, cells),
            _ => return self.edit.key(key),
        }
        true
    }

    fn vertical(&mut self, down: bool, cells: usize) {
        let rows = self.rows(cells.saturating_sub(1));
        let at = self.cursor_row(&rows);
        let to = if down { at + 1 } else { at.wrapping_sub(1) };
        let Some(&(from, end)) = rows.get(to) else {
            self.edit.cursor = if down { self.edit.text.len() } else { 0 };
            return;
        };
        let column: usize = self.edit.text[rows[at].0..self.edit.cursor]
            .graphemes(true)
            .map(cells_of)
            .sum();
        let mut used = 0;
        self.edit.cursor = end;
        for (i, grapheme) in self.edit.text[from..end].grapheme_indices(true) {
            if used >= column {
                self.edit.cursor = from + i;
                break;
            }
            used += cells_of(grapheme);
        }
        // The end of a wrapped row is the start of the next.
        if rows
            .get(to + 1)
            .is_some_and(|next| next.0 == self.edit.cursor)
        {
            self.edit.cursor = self.edit.before().max(from);
        }
    }

    /// Where lines wrap in `cells`: at spaces where there are some. Never empty.
    fn rows(&self, cells: usize) -> Vec<Row> {
        let cells = cells.max(1);
        let mut rows = Vec::new();
        let (mut start, mut used, mut gap) = (0, 0, None);
        for (i, grapheme) in self.edit.text.grapheme_indices(true) {
            if grapheme == "\n" {
                rows.push((start, i));
                (start, used, gap) = (i + 1, 0, None);
                continue;
            }
            let w = cells_of(grapheme);
            if used + w > cells && used > 0 {
                let cut = gap.take().filter(|&at| at > start).unwrap_or(i);
                rows.push((start, cut));
                used = self.edit.text[cut..i].graphemes(true).map(cells_of).sum();
                start = cut;
            }
            used += w;
            if grapheme == " " {
                gap = Some(i + 1);
            }
        }
        rows.push((start, self.edit.text.len()));
        rows
    }

    fn cursor_row(&self, rows: &[Row]) -> usize {
        rows.iter()
            .rposition(|(from, _)| *from <= self.edit.cursor)
            .unwrap_or(0)
    }

    /// Rows that it takes in `cells`.
    pub fn height(&self, cells: usize) -> usize {
        self.rows(cells.saturating_sub(1)).len()
    }

    /// At most `height` rows of `cells`, near the cursor, which is shown while `typing`.
    pub fn lines(
        &self,
        theme: &Theme,
        cells: usize,
        height: usize,
        typing: bool,
    ) -> Vec<Line<'static>> {
        // One cell stays for the cursor behind a full row.
        let rows = self.rows(cells.saturating_sub(1));
        let at = self.cursor_row(&rows);
        let top = if typing {
            (at + 1).saturating_sub(height)
        } else {
            0
        };
        let shown = rows.iter().enumerate().skip(top).take(height);
        shown
            .map(|(i, &(from, to))| {
                if !typing || i != at {
                    return Line::raw(text::clean(&self.edit.text[from..to]));
                }
                let after = self.edit.after().min(to).max(self.edit.cursor);
                let under = text::clean(&self.edit.text[self.edit.cursor..after]);
                Line::from(vec![
                    Span::raw(text::clean(&self.edit.text[from..self.edit.cursor])),
                    Span::styled(
                        if under.is_empty() {
                            " ".to_owned()
                        } else {
                            under
                        },
                        theme.cursor(),
                    ),
                    Span::raw(text::clean(&self.edit.text[after..to])),
                ])
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::theme::Profile;
    use proptest::prelude::*;

    fn press(text: &mut TextBox, code: KeyCode) {
        text.key(KeyEvent::new(code, KeyModifiers::NONE), 12);
    }

    fn shown(text: &TextBox, cells: usize) -> Vec<String> {
        text.lines(&Theme::new(Profile::Mono, false), cells, 99, false)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn text_wraps_at_spaces_and_keeps_line_feeds() {
        let mut text = TextBox::new(100);
        text.set("the tide turned\r\nearly");
        assert_eq!(shown(&text, 12), ["the tide ", "turned", "early"]);
        press(&mut text, KeyCode::Up);
        press(&mut text, KeyCode::Up);
        press(&mut text, KeyCode::Backspace);
        assert_eq!(text.text(), "the ide turned\nearly");
    }

    #[test]
    fn megabytes_are_cut_and_said_to_be() {
        let mut text = TextBox::new(64);
        assert!(text.set(&"é\r\n".repeat(1_000_000)));
        assert!(text.text().len() <= 64 && !text.text().contains('\r'));
        assert!(!TextBox::new(64).set("short"));
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_drawn() {
        let mut text = TextBox::new(64);
        text.set("a\u{1b}[2Jb\u{202e}c\td");
        assert!(
            shown(&text, 60)
                .iter()
                .all(|l| !l.chars().any(char::is_control))
        );
    }

    proptest! {
        #[test]
        fn any_keys_keep_the_cursor_on_a_boundary(
            start in "(.|\n){0,30}", cells in 1usize..20, keys in proptest::collection::vec((0u8..12, any::<char>()), 0..40)
        ) {
            let mut text = TextBox::new(80);
            text.set(&start);
            for (kind, c) in keys {
                let ctrl = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
                let plain = |code| KeyEvent::new(code, KeyModifiers::NONE);
                text.key(match kind {
                    0 => plain(KeyCode::Left), 1 => plain(KeyCode::Right), 2 => plain(KeyCode::Backspace),
                    3 => plain(KeyCode::Delete), 4 => ctrl('w'), 5 => ctrl('k'), 6 => plain(KeyCode::Home),
                    7 => ctrl('u'), 8 => plain(KeyCode::Up), 9 => plain(KeyCode::Down), 10 => ctrl('j'),
                    _ => plain(KeyCode::Char(c)),
                }, cells);
                prop_assert!(text.text().len() <= 80 && text.text().is_char_boundary(text.edit.cursor));
                let lines = text.lines(&Theme::new(Profile::Mono, false), cells, 5, true);
                prop_assert!(!lines.is_empty() && lines.len() <= 5);
            }
        }
    }
}
