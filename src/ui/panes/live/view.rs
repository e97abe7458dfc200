//! How the Live pane looks: the text as a heat map of one feature, a list of the features that
//! fire.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::{LivePane, Shown, matrix, table};
use crate::analysis::Trace;
use crate::pieces::visible_spans;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at};
use crate::ui::list::scroll;
use crate::ui::pane::Cx;
use crate::ui::panes::draw_empty;
use crate::ui::theme::{Ramp, Theme};

/// From this width on the list stands beside the text.
const BESIDE: u16 = 68;

/// Where the parts are.
pub(super) struct Parts {
    /// The text while it is typed.
    text: Rect,
    legend: Rect,
    heat: Rect,
    /// The other text of a run that is followed.
    other: Rect,
    /// Features by tokens, where there is room.
    matrix: Rect,
    pub(super) head: Rect,
    pub(super) list: Rect,
    pub(super) beside: bool,
}

fn left_width(area: Rect) -> u16 {
    if area.width < BESIDE {
        area.width
    } else {
        area.width - (area.width * 9 / 20).clamp(32, 54)
    }
}

/// Cells that the text is typed in.
pub(super) fn text_cells(cx: &Cx) -> usize {
    usize::from(left_width(cx.area)).saturating_sub(3).max(4)
}

fn parts(pane: &LivePane, cx: &Cx) -> Parts {
    let area = cx.area;
    let width = left_width(area);
    let beside = width < area.width;
    let mut left = Rect { width, ..area };
    let right = if beside {
        Rect {
            x: area.x + width,
            width: area.width - width,
            ..area
        }
    } else {
        let height = (area.height / 2).max(area.height.min(2));
        left.height = area.height - height;
        Rect {
            y: area.y + left.height,
            height,
            ..area
        }
    };
    let typed = if pane.typing {
        let most = (usize::from(left.height) / 3).clamp(1, 6);
        pane.text.height(text_cells(cx)).min(most) as u16 + u16::from(left.height >= 6)
    } else {
        0
    };
    let text = Rect {
        height: typed.min(left.height),
        ..left
    };
    left.y += text.height;
    left.height -= text.height;
    let legend = Rect {
        height: left.height.min(1),
        ..left
    };
    let mut heat = Rect {
        x: left.x + 1,
        y: left.y + legend.height,
        width: left.width.saturating_sub(2),
        height: left.height - legend.height,
    };
    let mut other = Rect { height: 0, ..heat };
    if beside && heat.height >= 6 && other_trace(pane).is_some() {
        // Both are as long as each other, as a rule.
        let wanted = rows(pane, usize::from(heat.width), cx)
            .len()
            .max(other_rows(pane, usize::from(heat.width), cx).len());
        let height = (wanted as u16 + 1).min(heat.height / 2);
        other = Rect {
            y: heat.bottom() - height,
            height,
            ..heat
        };
        heat.height -= height;
    }
    let mut matrix = Rect { height: 0, ..heat };
    if beside && pane.trace.is_some() {
        // What the text leaves, and half of the room at most for a long one.
        let wanted = rows(pane, usize::from(heat.width), cx).len() as u16 + 1;
        let kept =
            wanted.min((heat.height / 2).max(heat.height.saturating_sub(pane.count() as u16 + 1)));
        if heat.height - kept >= 4 {
            matrix = Rect {
                y: heat.y + kept,
                height: heat.height - kept,
                ..heat
            };
            heat.height = kept;
            // The texts stand together, the map below both.
            let below = other.height;
            other.y = heat.bottom();
            matrix.y += below;
        }
    }
    let head = Rect {
        height: right.height.min(1),
        ..right
    };
    let list = Rect {
        y: right.y + head.height,
        height: right.height - head.height,
        ..right
    };
    Parts {
        text,
        legend,
        heat,
        other,
        matrix,
        head,
        list,
        beside,
    }
}

pub(super) fn list_height(pane: &LivePane, cx: &Cx) -> usize {
    usize::from(parts(pane, cx).list.height).max(1)
}

pub(super) fn is_in_text(pane: &LivePane, column: u16, row: u16, cx: &Cx) -> bool {
    let parts = parts(pane, cx);
    let at = Position::new(column, row);
    parts.text.contains(at) || (pane.trace.is_none() && cx.area.contains(at))
}

pub(super) fn line_at(pane: &LivePane, column: u16, row: u16, cx: &Cx) -> Option<usize> {
    let list = parts(pane, cx).list;
    let at = pane.top(usize::from(list.height)) + usize::from(row.checked_sub(list.y)?);
    (list.contains(Position::new(column, row)) && at < pane.count()).then_some(at)
}

pub(super) fn token_at(pane: &LivePane, column: u16, row: u16, cx: &Cx) -> Option<usize> {
    let Parts { heat, matrix, .. } = parts(pane, cx);
    if matrix.contains(Position::new(column, row)) {
        return matrix::token_at(pane, matrix, column);
    }
    if !heat.contains(Position::new(column, row)) {
        return None;
    }
    let rows = rows(pane, usize::from(heat.width), cx);
    let top = top(pane, &rows, usize::from(heat.height));
    let line = rows.get(top + usize::from(row - heat.y))?;
    let mut x = usize::from(column - heat.x);
    line.iter().find_map(|cell| {
        let w = text::width(&cell.text);
        if x < w {
            return Some(cell.first);
        }
        x -= w;
        None
    })
}

/// What is seen of tokens `first..=last`, or a part of it where it is long, on a row.
struct Cell {
    first: usize,
    last: usize,
    /// The strongest of their values.
    value: f32,
    text: String,
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

/// The values on show, and the top of their scale: that of both texts where a run is followed.
fn values(pane: &LivePane) -> (&[f32], f32) {
    let Some(trace) = &pane.trace else {
        return (&[], 0.0);
    };
    if pane.shown == Some(Shown::Unexplained) {
        return (&trace.unexplained, 1.0);
    }
    let there = other_trace(pane).map_or(&[][..], |(_, trace)| values_in(pane, trace));
    let values = values_in(pane, trace);
    (
        values,
        values.iter().chain(there).copied().fold(0.0, f32::max),
    )
}

fn rows(pane: &LivePane, cells: usize, cx: &Cx) -> Vec<Vec<Cell>> {
    let Some(trace) = &pane.trace else {
        return Vec::new();
    };
    let (values, max) = values(pane);
    wrapped(trace, values, max, cells, cx)
}

fn other_rows(pane: &LivePane, cells: usize, cx: &Cx) -> Vec<Vec<Cell>> {
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
fn top(pane: &LivePane, rows: &[Vec<Cell>], height: usize) -> usize {
    let at = rows
        .iter()
        .position(|row| row.iter().any(|c| c.shows(pane.token)))
        .unwrap_or(0);
    scroll(at.saturating_sub(height / 2), at, rows.len(), height)
}

pub(super) fn draw(pane: &LivePane, cx: &Cx, buf: &mut Buffer) {
    let parts = parts(pane, cx);
    if pane.typing {
        typed(pane, &parts, cx, buf);
    }
    if pane.trace.is_none() {
        let below = Rect {
            y: parts.legend.y,
            height: cx.area.bottom() - parts.legend.y,
            ..cx.area
        };
        return draw_empty(buf, &Cx { area: below, ..*cx }, &empty_lines(pane, cx));
    }
    legend(pane, &parts, cx, buf);
    heat(pane, parts.heat, cx, buf);
    if !parts.other.is_empty() {
        other(pane, parts.other, cx, buf);
    }
    if !parts.matrix.is_empty() {
        matrix::draw(pane, parts.matrix, cx, buf);
    }
    table::draw(pane, &parts, cx, buf);
}

/// What an empty pane says: what is going on, or what to press.
fn empty_lines(pane: &LivePane, cx: &Cx) -> Vec<String> {
    if let Some(problem) = &pane.problem {
        return vec![text::clean(problem)];
    }
    let what = "See which features fire on a text of your own, token by token.".to_owned();
    if let Some(reason) = pane.refusal_reason(cx) {
        return vec![what, reason];
    }
    match (pane.typing, pane.text.text().trim().is_empty()) {
        (_, false) => vec!["Reading the text…".to_owned()],
        (true, true) => vec![what, "Type, or paste.".to_owned()],
        (false, true) => vec![
            what,
            format!("{} types or takes a paste.", cx.key(Action::Edit)),
        ],
    }
}

fn typed(pane: &LivePane, parts: &Parts, cx: &Cx, buf: &mut Buffer) {
    let area = parts.text;
    let ruled = area.height > 1;
    let height = usize::from(area.height) - usize::from(ruled);
    for (y, line) in pane
        .text
        .lines(cx.theme, text_cells(cx), height, true)
        .iter()
        .enumerate()
    {
        put(buf, area, y, &Line::styled("▌", cx.theme.accent()));
        put_at(buf, area, 2, y, line);
    }
    if ruled {
        put(
            buf,
            area,
            height,
            &Line::styled("─".repeat(usize::from(area.width)), cx.theme.rule(false)),
        );
    }
}

/// The scale with its numbers, and what it is of.
fn legend(pane: &LivePane, parts: &Parts, cx: &Cx, buf: &mut Buffer) {
    let theme = cx.theme;
    let (_, max) = values(pane);
    let mut spans = vec![Span::styled(" 0 ", theme.dim())];
    if theme.marks() {
        spans.push(Span::raw("·░▒▓█"));
    } else {
        spans.extend(
            theme
                .steps(Ramp::Sequential)
                .iter()
                .map(|style| Span::styled(" ", *style)),
        );
    }
    let top = match pane.shown {
        Some(Shown::Unexplained) => "100%".to_owned(),
        _ => text::number(f64::from(max)),
    };
    spans.push(Span::styled(format!(" {top}"), theme.dim()));
    let what = match pane.shown {
        Some(Shown::Feature(id)) => cx.world.feature_label(id),
        _ => "unexplained".to_owned(),
    };
    let note = match () {
        () if pane.problem.is_some() => {
            pane.problem.as_deref().map(text::clean).unwrap_or_default()
        }
        () if pane.is_stale() => "reading…".to_owned(),
        () => String::new(),
    };
    let used: usize = spans.iter().map(|s| text::width(&s.content)).sum();
    let room = usize::from(parts.legend.width).saturating_sub(used + 3);
    let note = text::truncate(&note, room);
    spans.push(Span::raw("  "));
    spans.push(Span::raw(text::truncate(
        &what,
        room.saturating_sub(text::width(&note) + 2),
    )));
    spans.push(Span::styled(format!("  {note}"), theme.warning()));
    put(buf, parts.legend, 0, &Line::from(spans));
}

/// The other text of the run, on the same scale, about the same place.
fn other(pane: &LivePane, area: Rect, cx: &Cx, buf: &mut Buffer) {
    let Some((name, _)) = other_trace(pane) else {
        return;
    };
    let width = usize::from(area.width);
    let key = format!("{name}: {} shows it above ", cx.key(Action::Trace));
    let rule = format!(
        "{}{}",
        text::truncate(&key, width),
        "─".repeat(width.saturating_sub(text::width(&key)))
    );
    put(buf, area, 0, &Line::styled(rule, cx.theme.dim()));
    let area = Rect {
        y: area.y + 1,
        height: area.height - 1,
        ..area
    };
    texts(pane, &other_rows(pane, width, cx), area, cx, buf);
}

fn heat(pane: &LivePane, area: Rect, cx: &Cx, buf: &mut Buffer) {
    texts(
        pane,
        &rows(pane, usize::from(area.width), cx),
        area,
        cx,
        buf,
    );
}

fn texts(pane: &LivePane, rows: &[Vec<Cell>], area: Rect, cx: &Cx, buf: &mut Buffer) {
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
