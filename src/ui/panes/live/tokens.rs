//! The texts of the Live pane as cells: tokens wrapped at words, with the values of what is shown.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::{LivePane, Shown, peak};
use crate::analysis::Trace;
use crate::pieces::visible_spans;
use crate::text;
use crate::ui::draw::put;
use crate::ui::list::scroll;
use crate::ui::pane::Cx;
use crate::ui::theme::{Ramp, Theme};

/// What is seen of tokens `first..=last`, or a part of it where it is long, on a row.
pub(super) struct Cell {
    pub first: usize,
    last: usize,
    /// The strongest of their values.
    value: f32,
    pub text: String,
}

impl Cell {
    fn shows(&self, token: usize) -> bool {
        (self.first..=self.last).contains(&token)
    }
}

/// The trace of the other text of the run that is followed.
pub(super) fn other_trace(pane: &LivePane) -> Option<(&'static str, &Trace)> {
    let (name, trace) = pane.follow.as_ref()?.other();
    Some((name, trace?))
}

fn values_in<'a>(pane: &LivePane, trace: &'a Trace) -> &'a [f32] {
    match pane.shown {
        Some(Shown::Unexplained) => &trace.unexplained,
        Some(Shown::Feature(id)) => trace
            .features
            .iter()
            .find(|f| f.id == id)
            .map_or(&[], |f| &f.values),
        None => &[],
    }
}

/// The strongest of all features on the text, on both where a run is followed: the top of the one
/// scale that text and grid have.
pub(super) fn largest(pane: &LivePane) -> f32 {
    let traces = pane.trace.as_deref().into_iter();
    traces
        .chain(other_trace(pane).map(|(_, trace)| trace))
        .flat_map(|trace| &trace.features)
        .map(peak)
        .fold(0.0, f32::max)
}

/// The values on show, and the top of their scale.
pub(super) fn values(pane: &LivePane) -> (&[f32], f32) {
    let Some(trace) = &pane.trace else {
        return (&[], 0.0);
    };
    if pane.shown == Some(Shown::Unexplained) {
        return (&trace.unexplained, 1.0);
    }
    (values_in(pane, trace), largest(pane))
}

pub(super) fn rows(pane: &LivePane, cells: usize, cx: &Cx) -> Vec<Vec<Cell>> {
    let Some(trace) = &pane.trace else {
        return Vec::new();
    };
    let (values, max) = values(pane);
    wrapped(trace, values, max, cells, cx)
}

pub(super) fn other_rows(pane: &LivePane, cells: usize, cx: &Cx) -> Vec<Vec<Cell>> {
    let Some((_, trace)) = other_trace(pane) else {
        return Vec::new();
    };
    wrapped(trace, values_in(pane, trace), values(pane).1, cells, cx)
}

/// The tokens wrapped at words, each with its mark where colours cannot tell.
fn wrapped(trace: &Trace, values: &[f32], max: f32, cells: usize, cx: &Cx) -> Vec<Vec<Cell>> {
    let cells = cells.max(1);
    let mut rows: Vec<Vec<Cell>> = vec![Vec::new()];
    let mut used = 0;
    let mut word: Vec<Cell> = Vec::new();
    let mut word_cells = 0;
    let flush = |word: &mut Vec<Cell>,
                 word_cells: &mut usize,
                 rows: &mut Vec<Vec<Cell>>,
                 used: &mut usize| {
        if *used + *word_cells > cells && *used > 0 {
            rows.push(Vec::new());
            *used = 0;
        }
        for cell in word.drain(..) {
            let mut cell = cell;
            if *used + text::width(&cell.text) > cells && *used > 0 {
                rows.push(Vec::new());
                *used = 0;
            }
            // A line does not begin with the space of its first word, unless that is all there is.
            if *used == 0 && cell.text.len() > 1 && cell.text.starts_with(' ') {
                cell.text.remove(0);
            }
            *used += text::width(&cell.text);
            if let Some(row) = rows.last_mut() {
                row.push(cell);
            }
        }
        *word_cells = 0;
    };
    for seen in visible_spans(&trace.tokens) {
        let piece = &seen.text;
        if piece.starts_with(' ') {
            flush(&mut word, &mut word_cells, &mut rows, &mut used);
        }
        let mut shown = text::clean(piece);
        if shown.is_empty() {
            shown.push('∅');
        }
        let value = seen.value(values);
        let mark = match (cx.world.digits, cx.theme.marks()) {
            (true, _) => Theme::digit(value, max),
            (false, true) => Theme::mark(value, max),
            _ => None,
        };
        shown.extend(mark);
        for part in split(&shown, cells) {
            word_cells += text::width(&part);
            word.push(Cell {
                first: seen.first,
                last: seen.last,
                value,
                text: part,
            });
        }
        if piece.ends_with('\n') {
            flush(&mut word, &mut word_cells, &mut rows, &mut used);
            rows.push(Vec::new());
            used = 0;
        }
    }
    flush(&mut word, &mut word_cells, &mut rows, &mut used);
    if rows.len() > 1 && rows.last().is_some_and(Vec::is_empty) {
        rows.pop();
    }
    rows
}

/// Parts of at most `cells`.
fn split(shown: &str, cells: usize) -> Vec<String> {
    if text::width(shown) <= cells {
        return vec![shown.to_owned()];
    }
    use unicode_segmentation::UnicodeSegmentation;
    let mut parts = vec![String::new()];
    let mut used = 0;
    for grapheme in shown.graphemes(true) {
        let w = text::width(grapheme);
        if used + w > cells && used > 0 {
            parts.push(String::new());
            used = 0;
        }
        used += w;
        if let Some(part) = parts.last_mut() {
            part.push_str(grapheme);
        }
    }
    parts
}

/// The first row to show, so that the token under the cursor is seen.
pub(super) fn top(pane: &LivePane, rows: &[Vec<Cell>], height: usize) -> usize {
    let at = rows
        .iter()
        .position(|row| row.iter().any(|c| c.shows(pane.token)))
        .unwrap_or(0);
    scroll(at.saturating_sub(height / 2), at, rows.len(), height)
}

pub(super) fn texts(pane: &LivePane, rows: &[Vec<Cell>], area: Rect, cx: &Cx, buf: &mut Buffer) {
    let max = values(pane).1;
    let height = usize::from(area.height);
    let top = top(pane, rows, height);
    for (y, row) in rows.iter().skip(top).take(height).enumerate() {
        let spans: Vec<Span> = row
            .iter()
            .map(|cell| {
                let mut style = cx.theme.heat(Ramp::Sequential, cell.value, max);
                if cell.shows(pane.token) && !pane.typing {
                    style = match style == Style::new() {
                        true => cx.theme.cursor(),
                        false => style.add_modifier(Modifier::UNDERLINED | Modifier::BOLD),
                    };
                }
                Span::styled(cell.text.clone(), style)
            })
            .collect();
        put(buf, area, y, &Line::from(spans));
    }
}
