//! Text with a cursor, and what editing keys do to it. Owns both; knows neither where lines wrap
//! nor what may be typed.
//!
//! Invariant: the cursor stands on a grapheme boundary.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use unicode_segmentation::UnicodeSegmentation;

/// The text and its cursor, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Edit {
    pub text: String,
    pub cursor: usize,
}

impl Edit {
    /// Inserts text at the cursor.
    pub fn insert(&mut self, text: &str) {
        self.text.insert_str(self.cursor, text);
        self.cursor += text.len();
        self.settle();
    }

    /// A character that joined the one before it may have moved the boundary.
    fn settle(&mut self) {
        let at = self.cursor;
        if at < self.text.len() && !self.text.grapheme_indices(true).any(|(i, _)| i == at) {
            self.cursor = self
                .text
                .grapheme_indices(true)
                .map(|(i, _)| i)
                .find(|&i| i > at)
                .unwrap_or(self.text.len());
        }
    }

    /// The boundary before the cursor.
    pub fn before(&self) -> usize {
        self.text[..self.cursor]
            .grapheme_indices(true)
            .next_back()
            .map_or(0, |(i, _)| i)
    }

    /// The boundary behind the cursor.
    pub fn after(&self) -> usize {
        self.text[self.cursor..]
            .graphemes(true)
            .next()
            .map_or(self.cursor, |g| self.cursor + g.len())
    }

    fn cut(&mut self, from: usize, to: usize) {
        self.text.replace_range(from..to, "");
        self.cursor = from;
        self.settle();
    }

    fn line_start(&self) -> usize {
        self.text[..self.cursor].rfind('\n').map_or(0, |i| i + 1)
    }

    fn line_end(&self) -> usize {
        self.text[self.cursor..]
            .find('\n')
            .map_or(self.text.len(), |i| self.cursor + i)
    }

    /// Takes a key that moves the cursor or takes text away; false for any other.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        if key.modifiers.contains(KeyModifiers::ALT) {
            return false;
        }
        match key.code {
            KeyCode::Char(c) if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return self.control(c);
            }
            KeyCode::Backspace => self.cut(self.before(), self.cursor),
            KeyCode::Delete => {
                let (from, to) = (self.cursor, self.after());
                self.cut(from, to);
            }
            KeyCode::Left => self.cursor = self.before(),
            KeyCode::Right => self.cursor = self.after(),
            KeyCode::Home => self.cursor = self.line_start(),
            KeyCode::End => self.cursor = self.line_end(),
            _ => return false,
        }
        true
    }

    fn control(&mut self, c: char) -> bool {
        match c {
            'u' => self.cut(self.line_start(), self.cursor),
            'k' => self.cut(self.cursor, self.line_end()),
            'w' => {
                let head = self.text[..self.cursor].trim_end();
                let space = head.char_indices().rev().find(|(_, c)| c.is_whitespace());
                self.cut(space.map_or(0, |(i, c)| i + c.len_utf8()), self.cursor);
            }
            'a' => self.cursor = self.line_start(),
            'e' => self.cursor = self.line_end(),
            _ => return false,
        }
        true
    }
}
