//! Tokens as a heat map: wrapped at words, or on one line about the peak. Owns how tokens become
//! cells; shared by every pane that shows tokens with values.
//!
//! A character that is split over tokens stands with the first of them and has the strongest of
//! their values. Invariant: no line is wider than asked for, and the peak's token is always on one
//! of them.

use ratatui::style::Style;
use ratatui::text::{Line, Span};
use unicode_segmentation::UnicodeSegmentation;

use super::theme::{FLOOR, Ramp, Theme};
use crate::pieces::{VisibleSpan, visible_spans};
use crate::text;

/// Tokens with a value each, and how to show them.
#[derive(Clone, Copy)]
pub struct Heat<'a> {
    /// The tokens as they are displayed.
    pub tokens: &'a [String],
    /// Whether the text goes on before the first token, and after the last.
    pub cut: [bool; 2],
    /// A value a token (missing ones count as 0).
    pub values: &'a [f32],
    /// The top of the scale.
    pub max: f32,
    /// The ramp that values are coloured by.
    pub ramp: Ramp,
    /// A digit behind every token that fires.
    pub digits: bool,
    /// A token to underline: the cursor.
    pub cursor: Option<usize>,
    /// The styles to draw with.
    pub theme: &'a Theme,
}

/// A token made ready.
struct Cell {
    seen: VisibleSpan,
    text: String,
    width: usize,
    style: Style,
    /// A line may break before it.
    breaks: bool,
}

impl Heat<'_> {
    /// Style of what is seen of a token.
    fn style(&self, seen: &VisibleSpan, value: f32) -> Style {
        let style = self.theme.heat(self.ramp, value, self.max);
        if self.cursor.is_some_and(|token| seen.shows(token)) {
            style
                .add_modifier(ratatui::style::Modifier::UNDERLINED | ratatui::style::Modifier::BOLD)
        } else {
            style
        }
    }

    fn cells(&self) -> Vec<Cell> {
        visible_spans(self.tokens)
            .into_iter()
            .map(|seen| self.cell(seen))
            .collect()
    }

    fn cell(&self, seen: VisibleSpan) -> Cell {
        let piece = seen.text.as_str();
        let (space, body) = match piece.strip_prefix(' ') {
            Some(rest) => (" ", rest),
            None => ("", piece),
        };
        let value = seen.value(self.values);
        let mut text = space.to_owned();
        let shown = value.abs() >= self.ramp.floor() * self.max;
        if self.theme.marks() && !self.digits && shown {
            // No colour tells the sign.
            text.extend((self.ramp == Ramp::Diverging && value < 0.0).then_some('-'));
            text.extend(Theme::mark(value, self.max));
        }
        text.push_str(&text::clean(body));
        if self.digits && shown {
            if value < 0.0 {
                text.push('⁻');
            }
            text.extend(Theme::digit(value, self.max));
        }
        let breaks =
            !space.is_empty() || piece.starts_with(char::is_whitespace) || is_ideographic(piece);
        Cell {
            width: text::width(&text),
            text,
            style: self.style(&seen, value),
            breaks,
            seen,
        }
    }

    fn ellipsis(&self, breaks: bool) -> Cell {
        let seen = VisibleSpan {
            first: usize::MAX,
            last: usize::MAX,
            text: String::new(),
        };
        Cell {
            seen,
            text: "…".to_owned(),
            width: 1,
            style: self.theme.dim(),
            breaks,
        }
    }

    /// Wrapped at words to lines of `width` cells; with `most` lines, as much about `peak` as fits
    /// them.
    pub fn wrapped(&self, width: usize, peak: usize, most: usize) -> Vec<Line<'static>> {
        let cells = self.cells();
        let n = cells.len();
        if n == 0 || width == 0 || most == 0 {
            return Vec::new();
        }
        let all = self.window(&cells, 0, n, width);
        if all.len() <= most {
            return all;
        }
        // Grow a window about the peak while it fits.
        let peak = index_of_token(&cells, peak);
        let (mut from, mut to) = (peak, peak + 1);
        let mut best = wrapped_lines(&[&cells[peak]], width);
        best.truncate(most);
        loop {
            let mut grown = false;
            for left in [true, false] {
                let (f, t) = if left {
                    (from.saturating_sub(1), to)
                } else {
                    (from, (to + 1).min(n))
                };
                if (f, t) == (from, to) {
                    continue;
                }
                let lines = self.window(&cells, f, t, width);
                if lines.len() <= most {
                    (from, to, best, grown) = (f, t, lines, true);
                }
            }
            if !grown {
                return best;
            }
        }
    }

    fn window(&self, cells: &[Cell], from: usize, to: usize, width: usize) -> Vec<Line<'static>> {
        let (head, tail) = (self.ellipsis(true), self.ellipsis(false));
        let mut shown: Vec<&Cell> = Vec::with_capacity(to - from + 2);
        shown.extend((from > 0 || self.cut[0]).then_some(&head));
        shown.extend(&cells[from..to]);
        shown.extend((to < cells.len() || self.cut[1]).then_some(&tail));
        wrapped_lines(&shown, width)
    }

    /// On one line of `width` cells with the peak's token beginning at column `column`.
    pub fn aligned(&self, width: usize, peak: usize, column: usize) -> Line<'static> {
        let mut cells = self.cells();
        if cells.is_empty() || width == 0 {
            return Line::default();
        }
        let peak = index_of_token(&cells, peak);
        let column = column.min(width - 1);
        let mut head: Vec<Span> = Vec::new();
        let after = cells.split_off(peak);
        let before: usize = cells.iter().map(|cell| cell.width).sum();
        // What does not fit is told of, and takes a cell for that.
        let cut = (before > column || self.cut[0]) && column > 1;
        let mut room = column - usize::from(cut);
        for cell in cells.into_iter().rev() {
            if cell.width > room {
                let kept = tail_of(&cell.text, room);
                room -= text::width(&kept);
                head.push(Span::styled(kept, cell.style));
                break;
            }
            room -= cell.width;
            head.push(Span::styled(cell.text, cell.style));
        }
        if cut {
            head.push(Span::styled("…", self.theme.dim()));
        }
        head.push(Span::raw(" ".repeat(room)));
        head.reverse();
        let mut room = width - column;
        for cell in after {
            if cell.width >= room {
                head.push(Span::styled(text::truncate(&cell.text, room), cell.style));
                return Line::from(head);
            }
            room -= cell.width;
            head.push(Span::styled(cell.text, cell.style));
        }
        head.extend(self.cut[1].then(|| Span::styled("…", self.theme.dim())));
        Line::from(head)
    }

    /// The token whose cells cover (`column`, `row`) of [`Heat::wrapped`] with all its lines.
    pub fn token_at(&self, width: usize, column: usize, row: usize) -> Option<usize> {
        let cells = self.cells();
        let refs: Vec<&Cell> = cells.iter().collect();
        let line = wrap_cells(&refs, width).into_iter().nth(row)?;
        let mut x = 0;
        line.into_iter().find_map(|(cell, text)| {
            x += text::width(&text);
            (column < x).then_some(cell.seen.first)
        })
    }

    /// Which line of [`Heat::wrapped`] (with all its lines) a token begins on.
    pub fn line_of(&self, width: usize, token: usize) -> usize {
        let cells = self.cells();
        let refs: Vec<&Cell> = cells.iter().collect();
        wrap_cells(&refs, width)
            .iter()
            .position(|line| line.iter().any(|(c, _)| c.seen.shows(token)))
            .unwrap_or(0)
    }
}

/// Which of the cells shows a token; the last one that shows a part of it.
fn index_of_token(cells: &[Cell], token: usize) -> usize {
    cells
        .iter()
        .rposition(|cell| cell.seen.first <= token)
        .unwrap_or(0)
}

/// Scripts that break between any two characters.
fn is_ideographic(piece: &str) -> bool {
    piece
        .chars()
        .next()
        .is_some_and(|c| matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'))
}

fn tail_of(s: &str, cells: usize) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut used = 0;
    for grapheme in s.graphemes(true).rev() {
        used += text::width(grapheme);
        if used > cells {
            break;
        }
        kept.push(grapheme);
    }
    kept.into_iter().rev().collect()
}

/// Cells by line, each with the text that is left of it there.
fn wrap_cells<'a>(cells: &[&'a Cell], width: usize) -> Vec<Vec<(&'a Cell, String)>> {
    let width = width.max(1);
    let mut lines: Vec<Vec<(&Cell, String)>> = vec![Vec::new()];
    let mut used = 0;
    let mut i = 0;
    while i < cells.len() {
        // A word: a cell and all that follow without a place to break.
        let end = (i + 1..cells.len())
            .find(|&j| cells[j].breaks)
            .unwrap_or(cells.len());
        let word: usize = cells[i..end].iter().map(|c| c.width).sum();
        if used > 0 && used + word > width {
            lines.push(Vec::new());
            used = 0;
        }
        for cell in &cells[i..end] {
            let mut rest = cell.text.as_str();
            // A line does not begin with the space of its first word, unless that is all there is.
            if used == 0 && lines.len() > 1 && rest.len() > 1 {
                rest = rest.strip_prefix(' ').unwrap_or(rest);
            }
            for piece in split(rest, width, used) {
                let w = text::width(&piece);
                if used > 0 && used + w > width {
                    lines.push(Vec::new());
                    used = 0;
                }
                used += w;
                if let Some(line) = lines.last_mut() {
                    line.push((cell, piece));
                }
            }
        }
        i = end;
    }
    lines
}

/// A text in pieces, the first fitting behind `used` cells of a line and the others on lines of
/// their own.
fn split(s: &str, width: usize, used: usize) -> Vec<String> {
    if used + text::width(s) <= width {
        return vec![s.to_owned()];
    }
    let mut pieces = vec![String::new()];
    let mut x = used;
    for grapheme in s.graphemes(true) {
        let w = text::width(grapheme);
        // Signs without end make a character that no line holds.
        let (grapheme, w) = if w > width { ("…", 1) } else { (grapheme, w) };
        if x + w > width && x > 0 {
            pieces.push(String::new());
            x = 0;
        }
        x += w;
        if let Some(last) = pieces.last_mut() {
            last.push_str(grapheme);
        }
    }
    pieces.retain(|p| !p.is_empty());
    pieces
}

fn wrapped_lines(cells: &[&Cell], width: usize) -> Vec<Line<'static>> {
    wrap_cells(cells, width)
        .into_iter()
        .map(|line| {
            Line::from(
                line.into_iter()
                    .map(|(cell, text)| Span::styled(text, cell.style))
                    .collect::<Vec<_>>(),
            )
        })
        .collect()
}

/// The scale in words and colours: `0.42 ▇▇▇▇ 8.31`.
pub fn legend(theme: &Theme, ramp: Ramp, max: f32, digits: bool) -> Line<'static> {
    let low = if ramp == Ramp::Diverging {
        -max
    } else {
        max * FLOOR
    };
    let mut spans = vec![Span::styled(
        format!("{} ", text::number(f64::from(low))),
        theme.dim(),
    )];
    if digits {
        spans.push(Span::styled("⁰¹²³⁴⁵⁶⁷⁸⁹", theme.text()));
    } else if theme.marks() {
        spans.push(Span::styled(
            if ramp == Ramp::Diverging {
                "-█▓▒░·░▒▓█"
            } else {
                "·░▒▓█"
            },
            theme.text(),
        ));
    } else {
        spans.extend(
            theme
                .steps(ramp)
                .iter()
                .map(|style| Span::styled(" ", *style)),
        );
    }
    spans.push(Span::styled(
        format!(" {}", text::number(f64::from(max))),
        theme.dim(),
    ));
    Line::from(spans)
}

#[cfg(test)]
mod tests;
