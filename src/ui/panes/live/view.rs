//! How the Live pane looks: the text as a heat map of one feature, a list of the features that
//! fire.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::text::{Line, Span};

use super::tokens::{other_rows, other_trace, rows, texts, top, values};
use super::{LivePane, Shown, matrix, table};
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at};
use crate::ui::layout::{split_left, split_top};
use crate::ui::pane::Cx;
use crate::ui::panes::draw_empty;
use crate::ui::theme::Ramp;

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
    let (left, right) = if beside {
        split_left(area, width)
    } else {
        let height = (area.height / 2).max(area.height.min(2));
        split_top(area, area.height - height)
    };
    let typed = if pane.typing {
        let most = (usize::from(left.height) / 3).clamp(1, 6);
        pane.text.height(text_cells(cx)).min(most) as u16 + u16::from(left.height >= 6)
    } else {
        0
    };
    let (text, left) = split_top(left, typed);
    let (legend, left) = split_top(left, 1);
    let mut heat = Rect {
        x: left.x + 1,
        width: left.width.saturating_sub(2),
        ..left
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
    let (head, list) = split_top(right, 1);
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
        _ => format!("{} of all features", text::number(f64::from(max))),
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
