//! The list of what fires: a feature a line with its coefficient here and its peak.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::tokens::other_trace;
use super::view::Parts;
use super::{LivePane, Shown, Sort, peak};
use crate::pieces;
use crate::text;
use crate::ui::describe::feature_in_list;
use crate::ui::draw::{bar, put, put_selected};
use crate::ui::pane::Cx;

/// Cells of a number in the list.
const NUMBER: usize = 6;

/// Widths of the list's columns.
struct Columns {
    name: usize,
    bar: usize,
    /// What the same token of the other text has, where a run is followed.
    other: bool,
}

impl Columns {
    fn new(width: usize, other: bool) -> Self {
        let other = other && width >= 40;
        // marker, value, gap, peak; names come before bars
        let room = width
            .saturating_sub(1 + (2 + usize::from(other)) * NUMBER + 2 + usize::from(other) * 3);
        let bar = room.saturating_sub(22).clamp(6, 12).min(room / 3);
        Self {
            name: room - bar,
            bar,
            other,
        }
    }
}

pub(super) fn draw(pane: &LivePane, parts: &Parts, cx: &Cx, buf: &mut Buffer) {
    let theme = cx.theme;
    let Some(trace) = &pane.trace else { return };
    let inset = u16::from(parts.beside);
    if parts.beside {
        let whole = Rect {
            height: parts.list.bottom() - parts.head.y,
            ..parts.head
        };
        for y in 0..usize::from(whole.height) {
            put(buf, whole, y, &Line::styled("│", theme.rule(false)));
        }
    }
    let inner = |r: Rect| Rect {
        x: r.x + inset,
        width: r.width.saturating_sub(inset + 1),
        ..r
    };
    let (head, area) = (inner(parts.head), inner(parts.list));
    let columns = Columns::new(usize::from(area.width), other_trace(pane).is_some());
    let token = pieces::token_name(&trace.tokens, pane.token);
    let column = |name: &str, sort: Sort, cells: usize| {
        let style = if pane.sort == sort {
            theme.accent()
        } else {
            theme.dim()
        };
        let arrow = if pane.sort == sort { "▾" } else { "" };
        Span::styled(text::pad_left(&format!("{name}{arrow}"), cells), style)
    };
    let on = text::pad(&format!(" {} {token}", pane.token + 1), columns.name + 1);
    let mut heads = vec![
        Span::styled(on, theme.heading()),
        column("here", Sort::Here, NUMBER),
    ];
    if let (true, Some((name, _))) = (columns.other, other_trace(pane)) {
        heads.push(Span::styled(text::pad_left(name, NUMBER + 3), theme.dim()));
    }
    heads.extend([
        Span::raw(" ".repeat(columns.bar + 2)),
        column("peak", Sort::Peak, NUMBER),
    ]);
    put(buf, head, 0, &Line::from(heads));
    let height = usize::from(area.height);
    let at = pane.position();
    for (y, i) in (pane.top(height)..pane.count()).take(height).enumerate() {
        let selected = i == at;
        let line = entry(pane, i, selected, &columns, cx);
        match selected {
            true => put_selected(buf, area, y, line, theme, cx.focused && !pane.typing),
            false => put(buf, area, y, &line),
        }
    }
}

fn entry(pane: &LivePane, at: usize, selected: bool, columns: &Columns, cx: &Cx) -> Line<'static> {
    let theme = cx.theme;
    let marker = Span::styled(if selected { "▌" } else { " " }, theme.accent());
    let Some(trace) = &pane.trace else {
        return Line::default();
    };
    let Some(Shown::Feature(id)) = pane.line(at) else {
        let share = trace.unexplained.get(pane.token).copied().unwrap_or(0.0);
        let mean = trace.unexplained.iter().sum::<f32>() / trace.unexplained.len().max(1) as f32;
        let mut spans = vec![
            marker,
            Span::styled(text::pad("unexplained", columns.name), theme.dim()),
            Span::raw(text::pad_left(&text::percent(share), NUMBER)),
        ];
        if columns.other {
            let other = other_trace(pane).and_then(|(_, t)| t.unexplained.get(pane.token).copied());
            let shown = other.map_or_else(|| "–".to_owned(), text::percent);
            spans.push(Span::styled(
                text::pad_left(&shown, NUMBER + 3),
                theme.dim(),
            ));
        }
        spans.extend([
            Span::raw(" "),
            Span::styled(bar(share, 1.0, columns.bar), theme.warning()),
            Span::raw(" "),
            Span::styled(
                text::pad_left(&format!("⌀{}", text::percent(mean)), NUMBER),
                theme.dim(),
            ),
        ]);
        return Line::from(spans);
    };
    let feature = trace.features.iter().find(|f| f.id == id);
    let value = feature
        .and_then(|f| f.values.get(pane.token).copied())
        .unwrap_or(0.0);
    let peak_of = feature.map_or(0.0, peak);
    let largest = trace.features.iter().map(peak).fold(0.0, f32::max);
    let dim = value <= 0.0;
    let style: Style = if dim { theme.dim() } else { theme.text() };
    // One number of decimals for the whole column.
    let decimals = if largest >= 100.0 { 0 } else { 2 };
    let shown = if dim {
        "–".to_owned()
    } else {
        format!("{value:.decimals$}")
    };
    let mut spans = vec![
        marker,
        Span::styled(
            text::pad(&feature_in_list(id, 4, cx.world), columns.name),
            style,
        ),
        Span::styled(text::pad_left(&shown, NUMBER), style),
    ];
    if columns.other {
        let other = other_trace(pane).and_then(|(_, t)| t.features.iter().find(|f| f.id == id));
        let other = other
            .and_then(|f| f.values.get(pane.token).copied())
            .filter(|v| *v > 0.0);
        let shown = other.map_or_else(|| "–".to_owned(), |v| format!("{v:.decimals$}"));
        spans.push(Span::styled(
            text::pad_left(&shown, NUMBER + 3),
            theme.dim(),
        ));
    }
    spans.extend([
        Span::raw(" "),
        Span::styled(bar(value, largest, columns.bar), theme.bar()),
        Span::raw(" "),
        Span::styled(
            text::pad_left(&format!("{peak_of:.decimals$}"), NUMBER),
            theme.dim(),
        ),
    ]);
    Line::from(spans)
}
