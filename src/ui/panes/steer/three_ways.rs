//! One feature steered with in three ways, side by side: with all of its neurons, with the core of
//! its cluster alone, with its own neurons alone. What the three promote tells what the neurons are
//! for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::SteerPane;
use super::run::{Run, State, departure, flow};
use crate::engine::{Mode, SteerPart};
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at};
use crate::ui::pane::Cx;

/// From this height on parts have headings and blank lines of their own.
const ROOMY: usize = 16;

/// From this width on each way has a column.
const COLUMNS: usize = 78;

/// The three runs, as far as they were begun.
fn runs(pane: &SteerPane) -> Vec<Option<&Run>> {
    let first = pane.three.unwrap_or(0);
    (0..3).map(|i| pane.runs.get(first + i)).collect()
}

/// What the ways have in common: the feature, and the text without it.
fn top(first: &Run, width: usize, height: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let how = match first.settings.mode {
        Mode::Ablate => "  ablated in three ways, the same prompt",
        _ => "  three ways, the same prompt and KL",
    };
    let mut top = vec![Line::from(vec![
        Span::styled(
            text::truncate(&first.features(), width / 2),
            theme.title(true),
        ),
        Span::styled(
            text::truncate(how, width.saturating_sub(text::width(&first.features()))),
            theme.dim(),
        ),
    ])];
    let (baseline, _) = first.texts(0);
    if height >= ROOMY {
        top.push(Line::styled("baseline", theme.heading()));
    }
    // All of it: what differs may come late, and the rows below scroll.
    let name = if height < ROOMY { "baseline: " } else { "" };
    let cells = width.saturating_sub(name.len()).max(1);
    for (y, pieces) in flow(baseline, baseline.len(), cells)
        .into_iter()
        .enumerate()
    {
        let line: String = pieces.into_iter().map(|(piece, _)| piece).collect();
        let head = if y == 0 { name } else { "" };
        top.push(Line::from(vec![
            Span::styled(text::pad(head, name.len()), theme.heading()),
            Span::styled(line, theme.dim()),
        ]));
    }
    if height >= ROOMY {
        top.push(Line::default());
    }
    top
}

pub(super) fn draw(pane: &SteerPane, area: Rect, cx: &Cx, buf: &mut Buffer) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let runs = runs(pane);
    let Some(first) = runs[0] else { return };
    let theme = cx.theme;
    if width >= COLUMNS {
        let (top, ways) = beside(&runs, first, width, height, cx);
        let cells = (width - 4) / 3;
        let rows = beside_rows(&top, &ways);
        let scroll = pane.scroll.min(rows.saturating_sub(height));
        for y in 0..height {
            let row = scroll + y;
            if let Some(line) = top.get(row) {
                put(buf, area, y, line);
                continue;
            }
            for (i, lines) in ways.iter().enumerate() {
                let x = i * (cells + 2);
                if let Some(line) = lines.get(row - top.len()) {
                    put_at(buf, area, x, y, line);
                }
                if i > 0 {
                    put_at(buf, area, x - 2, y, &Line::styled("│", theme.rule(false)));
                }
            }
        }
        return more(rows.saturating_sub(scroll + height), area, cx, buf);
    }
    // One below the other, all of it in one column that scrolls.
    let lines = stacked(pane, width, height, cx);
    let from = pane.scroll.min(lines.len().saturating_sub(height));
    for (y, line) in lines.iter().skip(from).take(height).enumerate() {
        put(buf, area, y, line);
    }
    more(lines.len().saturating_sub(from + height), area, cx, buf);
}

/// What is over the columns, and the lines of each of the three.
fn beside(
    runs: &[Option<&Run>],
    first: &Run,
    width: usize,
    height: usize,
    cx: &Cx,
) -> (Vec<Line<'static>>, Vec<Vec<Line<'static>>>) {
    let (cells, (baseline, _)) = ((width - 4) / 3, first.texts(0));
    let way = |(i, run): (usize, &Option<&Run>)| lines_of_way(*run, i, cells, baseline, cx);
    let ways = runs.iter().enumerate().map(way).collect();
    (top(first, width, height, cx), ways)
}

fn beside_rows(top: &[Line], ways: &[Vec<Line>]) -> usize {
    top.len() + ways.iter().map(Vec::len).max().unwrap_or(0)
}

/// How many rows are below, over the end of the last one.
fn more(hidden: usize, area: Rect, cx: &Cx, buf: &mut Buffer) {
    if hidden > 0 && area.height > 0 {
        let hint = format!(" {hidden} rows below: {} ", cx.key(Action::PageDown));
        let x = usize::from(area.width).saturating_sub(text::width(&hint));
        put_at(
            buf,
            area,
            x,
            usize::from(area.height) - 1,
            &Line::styled(hint, cx.theme.accent()),
        );
    }
}

/// The lines of the three ways below each other.
fn stacked(pane: &SteerPane, width: usize, height: usize, cx: &Cx) -> Vec<Line<'static>> {
    let runs = runs(pane);
    let Some(first) = runs[0] else {
        return Vec::new();
    };
    let mut lines = top(first, width, height, cx);
    let (baseline, _) = first.texts(0);
    for (i, run) in runs.iter().enumerate() {
        lines.extend(lines_of_way(*run, i, width, baseline, cx));
        if i < 2 && height >= ROOMY {
            lines.push(Line::default());
        }
    }
    lines
}

/// Rows that are above the screen at most.
pub(super) fn last_scroll(pane: &SteerPane, area: Rect, cx: &Cx) -> usize {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    if width < COLUMNS {
        return stacked(pane, width, height, cx)
            .len()
            .saturating_sub(height);
    }
    let runs = runs(pane);
    let Some(first) = runs[0] else { return 0 };
    let (top, ways) = beside(&runs, first, width, height, cx);
    beside_rows(&top, &ways).saturating_sub(height)
}

/// One way: what was asked, what α it took, which tokens rose, the text.
fn lines_of_way(
    run: Option<&Run>,
    i: usize,
    width: usize,
    baseline: &str,
    cx: &Cx,
) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let name = match run.map(|r| &r.settings.part) {
        Some(SteerPart::Whole) => "whole feature",
        Some(SteerPart::CoreOf(_)) => "core alone",
        Some(SteerPart::ExclusiveOf(_)) => "own neurons alone",
        None => ["whole feature", "core alone", "own neurons alone"][i.min(2)],
    };
    let mut lines = vec![Line::styled(text::truncate(name, width), theme.heading())];
    // In a line of its own only where ways stand beside each other.
    let stacked = width >= 40;
    let Some(run) = run else {
        lines.push(Line::styled("waits", theme.dim()));
        return lines;
    };
    if let State::Failed(why) = &run.state {
        lines.extend(
            text::wrap(&text::clean(why), width)
                .into_iter()
                .map(|l| Line::styled(l, theme.warning())),
        );
        return lines;
    }
    let Some(info) = &run.info else {
        let state = if run.is_active() {
            "searching α…"
        } else {
            "stopped"
        };
        lines.push(Line::styled(state, theme.dim()));
        return lines;
    };
    let strength = format!("α {}  KL {:.3}", text::number(info.alpha), info.kl);
    if stacked {
        lines[0].spans = vec![
            Span::raw(name),
            Span::styled(format!("  {strength}"), theme.dim()),
        ];
    } else {
        lines.push(Line::styled(text::truncate(&strength, width), theme.dim()));
    }
    let risen: Vec<String> = info
        .risen
        .iter()
        .take(8)
        .map(|t| text::token(&t.token))
        .collect();
    for (n, line) in text::wrap(&risen.join(" "), width.saturating_sub(2))
        .into_iter()
        .take(2)
        .enumerate()
    {
        let mark = if n == 0 { "↑ " } else { "  " };
        lines.push(Line::from(vec![
            Span::styled(mark, theme.dim()),
            Span::styled(line, theme.positive()),
        ]));
    }
    let (_, steered) = run.texts(0);
    let (_, at) = departure(baseline, steered);
    for pieces in flow(steered, at, width) {
        let span = |(piece, beyond): (String, bool)| {
            let rose = run
                .risen_words()
                .iter()
                .any(|w| piece.to_lowercase().contains(w.as_str()));
            Span::styled(
                piece,
                if beyond && rose {
                    theme.positive()
                } else {
                    theme.text()
                },
            )
        };
        lines.push(Line::from(pieces.into_iter().map(span).collect::<Vec<_>>()));
    }
    lines
}
