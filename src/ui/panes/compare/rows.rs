//! The lines of a comparison: who is compared, cosines, neurons, the same tokens; and the whole of
//! it as Markdown.

use ratatui::text::{Line, Span};

use super::{CELL, Link, Row, unlinked};
use crate::analysis::{ComparedText, Comparison};
use crate::interop::markdown::table;
use crate::text;
use crate::ui::describe::feature_in_list;
use crate::ui::draw::line_cells;
use crate::ui::heat::Heat;
use crate::ui::pane::Cx;
use crate::ui::theme::Ramp;

/// The style of a feature's number, so that it is found again in every part.
fn head(found: &Comparison, i: usize, cx: &Cx) -> Span<'static> {
    let id = found.features.get(i).copied().unwrap_or(0);
    Span::styled(
        text::pad_left(&format!("#{id}"), CELL - 1) + " ",
        cx.theme.accent(),
    )
}

fn signed(value: f32, cx: &Cx) -> Span<'static> {
    let style = match value {
        v if v.abs() < 0.005 => cx.theme.dim(),
        v if v > 0.0 => cx.theme.positive(),
        _ => cx.theme.negative(),
    };
    let shown = if value == 0.0 {
        "·".to_owned()
    } else {
        format!("{value:+.2}")
    };
    Span::styled(text::pad_left(&shown, CELL), style)
}

/// Who is compared, and the cosines of every two.
pub(super) fn summary(found: &Comparison, width: usize, cx: &Cx) -> Vec<Row> {
    let theme = cx.theme;
    let mut lines = Vec::new();
    for (i, &id) in found.features.iter().enumerate() {
        let row = cx.world.row(id);
        let what = feature_in_list(id, 6, cx.world);
        let what = what.split_once(' ').map_or("", |(_, rest)| rest).to_owned();
        let label = row
            .and_then(|r| r.purity.as_ref())
            .map(|p| format!("{} {:.0}%", text::clean(&p.label), p.share * 100.0));
        let label = label.unwrap_or_default();
        let room = width.saturating_sub(CELL + text::width(&label) + 2);
        let line = Line::from(vec![
            head(found, i, cx),
            Span::styled(text::pad(&what, room), theme.text()),
            Span::styled(format!("  {label}"), theme.dim()),
        ]);
        lines.push((line, Some(Link::Feature(id))));
    }
    let matrices = [
        (
            "cosine of neurons",
            "cosine of neurons",
            Some(&found.cosines),
        ),
        (
            "cosine in the residual stream",
            "residual stream",
            found.residual.as_ref(),
        ),
        (
            "fire on the same tokens (cosine)",
            "same tokens",
            Some(&found.together),
        ),
    ];
    let blocks: Vec<Vec<Line<'static>>> =
        matrices.into_iter().map(|m| matrix(found, m, cx)).collect();
    // Side by side, as many as there is room for.
    let cells = blocks.iter().flatten().map(line_cells).max().unwrap_or(0) + 2;
    for some in blocks.chunks(((width + 2) / cells.max(1)).max(1)) {
        lines.push(unlinked(Line::default()));
        for y in 0..some.iter().map(Vec::len).max().unwrap_or(0) {
            let mut spans = Vec::new();
            for block in some {
                let own = block.get(y).cloned().unwrap_or_default();
                let rest = cells.saturating_sub(line_cells(&own));
                spans.extend(
                    own.spans
                        .into_iter()
                        .map(|span| span.patch_style(own.style)),
                );
                spans.push(Span::raw(" ".repeat(rest)));
            }
            lines.push(unlinked(Line::from(spans)));
        }
    }
    lines
}

/// The values of every two, under a title of which the short one is taken where the long one would
/// widen it.
fn matrix(
    found: &Comparison,
    (long, short, values): (&str, &str, Option<&Vec<f32>>),
    cx: &Cx,
) -> Vec<Line<'static>> {
    let (theme, m) = (cx.theme, found.features.len());
    let wide = (m + 1) * CELL;
    if m == 2 {
        let value = values.map(|v| signed(v.get(1).copied().unwrap_or(0.0), cx));
        let value = value.unwrap_or_else(|| Span::styled("  needs the model", theme.dim()));
        return vec![Line::from(vec![
            Span::styled(short.to_owned(), theme.heading()),
            value,
        ])];
    }
    let title = if text::width(long) <= wide {
        long
    } else {
        short
    };
    let mut lines = vec![Line::styled(title.to_owned(), theme.heading())];
    let Some(values) = values else {
        lines.push(Line::styled("needs the study's model", theme.dim()));
        return lines;
    };
    let mut heads = vec![Span::raw(" ".repeat(CELL))];
    heads.extend((0..m).map(|j| head(found, j, cx)));
    lines.push(Line::from(heads));
    for i in 0..m {
        let mut spans = vec![head(found, i, cx)];
        spans.extend((0..m).map(|j| match values.get(i * m + j) {
            Some(_) if i == j => Span::styled(text::pad_left("1", CELL), theme.dim()),
            value => signed(value.copied().unwrap_or(0.0), cx),
        }));
        lines.push(Line::from(spans));
    }
    lines
}

/// Each neuron with its weight in every feature: those of all first, a feature's own last.
pub(super) fn neurons(found: &Comparison, width: usize, cx: &Cx) -> Vec<Row> {
    let (theme, m) = (cx.theme, found.features.len());
    let member_count = |n: &(usize, Vec<f32>)| n.1.iter().filter(|w| **w != 0.0).count();
    let all = found
        .neurons
        .iter()
        .filter(|n| member_count(n) == m)
        .count();
    let core = found.shared.core.len();
    let alone = found
        .neurons
        .iter()
        .filter(|n| member_count(n) == 1)
        .count();
    let title = format!("neurons: {all} in all, {core} core (in most), {alone} of one alone");
    let mut heads = vec![Span::raw(" ".repeat(CELL + 1))];
    heads.extend((0..m).map(|j| head(found, j, cx)));
    let title = Line::styled(text::truncate(&title, width), theme.heading());
    let mut lines: Vec<Row> = [Line::default(), title, Line::from(heads)]
        .into_iter()
        .map(unlinked)
        .collect();
    let mut before = m + 1;
    for neuron in &found.neurons {
        let members = member_count(neuron);
        let word = match members {
            _ if members == before => "",
            n if n == m => "  in all",
            1 => "  its own",
            _ if 2 * members > m => "  core",
            _ => "  shared",
        };
        before = members;
        let mut spans = vec![Span::styled(
            text::pad(&format!(" n{}", neuron.0), CELL + 1),
            theme.text(),
        )];
        spans.extend(neuron.1.iter().map(|&w| signed(w, cx)));
        spans.push(Span::styled(word, theme.dim()));
        lines.push((Line::from(spans), Some(Link::Neuron(neuron.0))));
    }
    lines
}

/// The same tokens, once a feature.
pub(super) fn texts(found: &Comparison, width: usize, cx: &Cx) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let mut lines = vec![Line::styled(
        "coefficients over the same tokens",
        theme.heading(),
    )];
    for shown in &found.texts {
        let label = shown.label.as_deref().map(text::clean).unwrap_or_default();
        lines.push(Line::styled(text::pad_left(&label, width), theme.dim()));
        for i in 0..found.features.len() {
            lines.push(text_line(found, shown, i, width, cx));
        }
    }
    lines
}

fn text_line(
    found: &Comparison,
    shown: &ComparedText,
    i: usize,
    width: usize,
    cx: &Cx,
) -> Line<'static> {
    let values = shown.values.get(i).map_or(&[][..], Vec::as_slice);
    let max = found.peaks.get(i).copied().unwrap_or(0.0);
    let heat = Heat {
        tokens: &shown.tokens,
        cut: shown.cut,
        values,
        max,
        ramp: Ramp::Sequential,
        digits: cx.world.digits,
        cursor: None,
        theme: cx.theme,
    };
    let peak = values.get(shown.peak).copied().unwrap_or(0.0);
    let room = width.saturating_sub(2 * CELL + 1);
    let mut spans = vec![head(found, i, cx)];
    let number = if peak > 0.0 {
        text::number(f64::from(peak))
    } else {
        "·".to_owned()
    };
    spans.push(Span::styled(
        text::pad_left(&number, CELL - 1) + " ",
        cx.theme.dim(),
    ));
    spans.extend(heat.aligned(room, shown.peak, room * 2 / 5).spans);
    Line::from(spans)
}

/// The cosines of every two, then the neurons with their weights.
pub(super) fn markdown(found: &Comparison, cx: &Cx) -> String {
    let names: Vec<String> = found
        .features
        .iter()
        .map(|&id| cx.world.feature_label(id))
        .collect();
    let m = names.len();
    let residual = |at: usize| found.residual.as_ref().and_then(|r| r.get(at));
    let number = |value: Option<&f32>| value.map_or("–".to_owned(), |v| format!("{v:+.3}"));
    let mut pairs = Vec::new();
    for (i, a) in names.iter().enumerate() {
        for (j, b) in names.iter().enumerate().skip(i + 1) {
            let at = i * m + j;
            let values = [found.cosines.get(at), residual(at), found.together.get(at)].map(number);
            pairs.push([a.clone(), b.clone()].into_iter().chain(values).collect());
        }
    }
    let mut out = table(
        &[
            "a",
            "b",
            "cosine of neurons",
            "in the residual stream",
            "fire together",
        ],
        &pairs,
    );
    let heads: Vec<&str> = std::iter::once("neuron")
        .chain(names.iter().map(String::as_str))
        .collect();
    let weights = |w: &f32| {
        if *w == 0.0 {
            String::new()
        } else {
            format!("{w:+.3}")
        }
    };
    let rows = found.neurons.iter().map(|(index, ws)| {
        std::iter::once(index.to_string())
            .chain(ws.iter().map(weights))
            .collect::<Vec<String>>()
    });
    out += "\n";
    out + &table(&heads, &rows.collect::<Vec<_>>())
}
