//! The fits of the study: a list with a cursor, the error against the number of features, and two
//! fits compared.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::points::{self, Series};
use crate::analysis::matching::{FitComparison, Unmatched};
use crate::study::FitEntry;
use crate::text;
use crate::ui::describe::settings;
use crate::ui::draw::put;
use crate::ui::pane::Cx;

/// From this cosine on two features of different fits are the same one, where neither has a nearer
/// match.
const MATCHED_FROM: f32 = 0.7;

/// The fits of the hook on show, newest first.
pub(super) fn listed<'a>(cx: &Cx<'a>) -> Vec<&'a FitEntry> {
    let Some(study) = cx.world.study.as_ref() else {
        return Vec::new();
    };
    study
        .fits
        .iter()
        .rev()
        .filter(|f| f.hook == study.hook)
        .collect()
}

/// Whether a fit is the one on show.
pub(super) fn is_shown(fit: &FitEntry, cx: &Cx) -> bool {
    cx.world
        .features
        .as_ref()
        .is_some_and(|list| list.set.is_none() && list.fit == fit.name)
}

/// A line a fit; the cursor's is marked.
pub(super) fn line(fit: &FitEntry, selected: bool, width: usize, cx: &Cx) -> Line<'static> {
    let theme = cx.theme;
    let error = fit
        .relative_error
        .map_or_else(String::new, |e| format!("error {e:.4}  "));
    let shown = is_shown(fit, cx);
    let facts = format!(
        "{} features  {error}",
        text::pad_left(&text::count(fit.config.features), 5),
    );
    let took = match fit.is_finished() {
        true => format!("{} sweeps in {}", fit.sweeps, text::duration(fit.seconds)),
        false => fit.status().to_string(),
    };
    let room = width.saturating_sub(19);
    let (facts, took) = (
        text::truncate(&facts, room),
        text::truncate(&took, room.saturating_sub(text::width(&facts))),
    );
    Line::from(vec![
        Span::styled(if selected { "▌" } else { " " }, theme.accent()),
        Span::styled(if shown { "▸ " } else { "  " }, theme.good()),
        Span::styled(
            text::pad(&text::clean(&fit.name), 16),
            if shown { theme.heading() } else { theme.text() },
        ),
        Span::raw(facts),
        Span::styled(
            took,
            if fit.is_finished() {
                theme.text()
            } else {
                theme.warning()
            },
        ),
    ])
}

/// Relative error of every finished fit against its number of features. A line joins fits that
/// differ in that number alone (and in their seed): of fits with other settings the error says
/// something else.
pub(super) fn against_k(cx: &Cx, area: Rect, buf: &mut Buffer) {
    let width = cx.world.study.as_ref().map_or(0, |study| study.width);
    let mut series: Vec<Series> = Vec::new();
    for fit in listed(cx) {
        let Some(error) = fit.relative_error.filter(|e| e.is_finite()) else {
            continue;
        };
        let name = settings(&fit.config, width);
        let point = (fit.config.features as f64, error);
        match series.iter_mut().find(|s| s.name == name) {
            Some(one) => one.points.push(point),
            None => series.push(Series {
                name,
                points: vec![point],
            }),
        }
    }
    points::draw("error against features", &mut series, cx, area, buf);
}

/// Two fits compared: what is the same, what one has alone.
pub(super) fn compared(
    found: &FitComparison,
    scrolled: usize,
    area: Rect,
    cx: &Cx,
    buf: &mut Buffer,
) {
    let width = usize::from(area.width);
    let lines = compared_lines(found, width, cx);
    let height = usize::from(area.height);
    let from = scrolled.min(lines.len().saturating_sub(height));
    for (y, line) in lines.iter().skip(from).take(height).enumerate() {
        put(buf, area, y, line);
    }
    if lines.len() > from + height && height > 1 {
        let more = format!(
            "… {} more, pagedown scrolls",
            lines.len() - from - height + 1
        );
        put(
            buf,
            area,
            height - 1,
            &Line::styled(text::pad(&more, width), cx.theme.dim()),
        );
    }
}

pub(super) fn compared_lines(found: &FitComparison, width: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let (a, b) = (text::clean(&found.a), text::clean(&found.b));
    let summary = format!(
        "{} matched from cosine {MATCHED_FROM} on: {} of the smaller fit, mean cosine {:.2}",
        found.matched.len(),
        text::percent(found.found_again as f32),
        found.stability
    );
    let mut lines = vec![
        Line::styled(
            text::truncate(&format!("{a} and {b}"), width),
            theme.heading(),
        ),
        Line::raw(text::truncate(&summary, width)),
    ];
    let shown = |id: usize| {
        text::truncate(
            &crate::ui::describe::feature_in_list(id, 5, cx.world),
            width.saturating_sub(22),
        )
    };
    let other = |id: usize| {
        let words = found
            .b_words
            .get(id)
            .map(|words| text::clean(words.trim()))
            .unwrap_or_default();
        text::truncate(&format!("#{id} {words}"), width.saturating_sub(22))
    };
    // Names and tokens are those of the fit on show.
    let on_show = cx
        .world
        .features
        .as_ref()
        .map_or("", |list| list.fit.as_str());
    let first = on_show != found.b;
    let named =
        |id: usize, of_first: bool| match on_show == if of_first { &found.a } else { &found.b } {
            true => shown(id),
            false if !of_first => other(id),
            false => format!("#{id}"),
        };
    let alone =
        |title: String, list: &[Unmatched], of_first: bool, lines: &mut Vec<Line<'static>>| {
            lines.push(Line::default());
            lines.push(Line::styled(title, theme.heading()));
            for one in list {
                lines.push(Line::from(vec![
                    Span::styled(
                        // Each matches one at most: its nearest is the match of another.
                        match one.nearest >= MATCHED_FROM {
                            true => format!("  taken   {:.2}  ", one.nearest),
                            false => format!("  nearest {:.2}  ", one.nearest),
                        },
                        theme.dim(),
                    ),
                    Span::raw(named(one.id, of_first)),
                ]));
            }
        };
    alone(
        format!("{} only in {a}", found.lost.len()),
        &found.lost,
        true,
        &mut lines,
    );
    alone(
        format!("{} only in {b}", found.appeared.len()),
        &found.appeared,
        false,
        &mut lines,
    );
    lines.push(Line::default());
    lines.push(Line::styled(
        format!("{} in both", found.matched.len()),
        theme.heading(),
    ));
    for m in &found.matched {
        let (own, other) = if first { (m.a, m.b) } else { (m.b, m.a) };
        lines.push(Line::from(vec![
            Span::styled(format!("  {:.2}  ", m.cosine), theme.dim()),
            Span::raw(text::pad(&named(own, first), width.saturating_sub(22))),
            Span::styled(format!("  #{other}"), theme.dim()),
        ]));
    }
    lines
}
