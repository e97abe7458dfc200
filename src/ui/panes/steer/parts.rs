//! One feature steered with in three ways, side by side: with all of its neurons, with the core of its cluster alone, with
//! its own neurons alone. What the three promote tells what the neurons are for.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::SteerPane;
use super::run::{Run, State, departure, flow};
use crate::engine::{Mode, SteerPart};
use crate::ui::panes::{Cx, put, put_at};
use crate::ui::text;

/// From this width on each way has a column.
const COLUMNS: usize = 78;

/// The three runs, as far as they were begun.
fn runs(pane: &SteerPane) -> Vec<Option<&Run>> {
    let first = pane.three.unwrap_or(0);
    (0..3).map(|i| pane.runs.get(first + i)).collect()
}

pub(super) fn draw(pane: &SteerPane, area: Rect, cx: &Cx, buf: &mut Buffer) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let runs = runs(pane);
    let Some(first) = runs[0] else { return };
    let theme = cx.theme;
    let how = match first.ask.mode {
        Mode::Ablate => "  ablated in three ways, the same prompt",
        _ => "  three ways, the same prompt and KL",
    };
    let mut top = vec![Line::from(vec![
        Span::styled(text::fit(&first.features(), width / 2), theme.title(true)),
        Span::styled(text::fit(how, width / 2), theme.dim()),
    ])];
    let (baseline, _) = first.texts(0);
    top.push(Line::styled("baseline", theme.heading()));
    for pieces in flow(baseline, baseline.len(), width).into_iter().take((height / 5).max(1)) {
        let line: String = pieces.into_iter().map(|(piece, _)| piece).collect();
        top.push(Line::styled(line, theme.dim()));
    }
    top.push(Line::default());
    for (y, line) in top.iter().enumerate() {
        put(buf, area, y, line);
    }
    let from = top.len().min(height);
    if width >= COLUMNS {
        let cells = (width - 4) / 3;
        for (i, run) in runs.iter().enumerate() {
            let x = i * (cells + 2);
            for (y, line) in way(*run, i, cells, baseline, cx).iter().take(height - from).enumerate() {
                put_at(buf, area, x, from + y, line);
            }
            for y in from..height {
                if i > 0 {
                    put_at(buf, area, x - 2, y, &Line::styled("│", theme.rule(false)));
                }
            }
        }
        return;
    }
    // One below the other, each with its share of the rows.
    let rows = (height - from) / 3;
    for (i, run) in runs.iter().enumerate() {
        for (y, line) in way(*run, i, width, baseline, cx).iter().take(rows).enumerate() {
            put(buf, area, from + i * rows + y, line);
        }
    }
}

/// One way: what was asked, what α it took, which tokens rose, the text.
fn way(run: Option<&Run>, i: usize, width: usize, baseline: &str, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let name = match run.map(|r| &r.ask.part) {
        Some(SteerPart::Whole) => "whole feature",
        Some(SteerPart::CoreOf(_)) => "core alone",
        Some(SteerPart::ExclusiveOf(_)) => "own neurons alone",
        None => ["whole feature", "core alone", "own neurons alone"][i.min(2)],
    };
    let mut lines = vec![Line::styled(text::fit(name, width), theme.heading())];
    let Some(run) = run else {
        lines.push(Line::styled("waits", theme.dim()));
        return lines;
    };
    if let State::Failed(why) = &run.state {
        lines.extend(text::wrap(&text::clean(why), width).into_iter().map(|l| Line::styled(l, theme.warning())));
        return lines;
    }
    let Some(info) = &run.info else {
        let state = if run.is_active() { "searching α…" } else { "stopped" };
        lines.push(Line::styled(state, theme.dim()));
        return lines;
    };
    let strength = format!("α {}  KL {:.3}", text::number(info.alpha), info.kl);
    lines.push(Line::styled(text::fit(&strength, width), theme.dim()));
    let risen: Vec<String> = info.risen.iter().take(8).map(|t| text::token(&t.token)).collect();
    for (n, line) in text::wrap(&risen.join(" "), width.saturating_sub(2)).into_iter().take(2).enumerate() {
        let mark = if n == 0 { "↑ " } else { "  " };
        lines.push(Line::from(vec![Span::styled(mark, theme.dim()), Span::styled(line, theme.positive())]));
    }
    let (_, steered) = run.texts(0);
    let (_, at) = departure(baseline, steered);
    for pieces in flow(steered, at, width) {
        let span = |(piece, beyond): (String, bool)| {
            let rose = run.risen_words().iter().any(|w| piece.to_lowercase().contains(w.as_str()));
            Span::styled(piece, if beyond && rose { theme.positive() } else { theme.text() })
        };
        lines.push(Line::from(pieces.into_iter().map(span).collect::<Vec<_>>()));
    }
    lines
}
