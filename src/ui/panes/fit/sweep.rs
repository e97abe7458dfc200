//! A sweep over the number of features in the Fit pane: how it stands in words, its curves, its
//! numbers.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use serde_json::json;

use super::points::{self, Series};
use super::view::facts_line;
use crate::engine::{Job, SweepBegun, SweepRow};
use crate::text;
use crate::ui::action::Action;
use crate::ui::describe::{seeds, settings};
use crate::ui::draw::put;
use crate::ui::pane::{CopyFormats, Cx};

/// Columns of the table: a head and what stands below it.
type Column = (&'static str, fn(&SweepRow) -> String);
const COLUMNS: [Column; 8] = [
    ("k", |r| text::count(r.features)),
    ("error", |r| number(r.relative_error, 4)),
    ("held-out", |r| number(r.held_out_error, 4)),
    ("stable", |r| number(r.stability, 2)),
    ("AUROC", |r| number(r.auroc, 3)),
    ("active", |r| number(r.active, 1)),
    ("sweeps", |r| number(r.sweeps, 0)),
    ("seconds", |r| number(Some(r.seconds), 1)),
];
/// Cells of a column.
const CELL: usize = 9;
/// Columns that are always there.
const FEWEST: usize = 4;
/// Cells that a plot needs beside the table, and at best has.
const PLOT: usize = 32;

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
}

/// "λ 0.1, 5% of 1,536 neurons, seeds 42 to 44, warm".
fn label(begun: &SweepBegun, cx: &Cx) -> String {
    let width = cx.world.study.as_ref().map_or(0, |study| study.width);
    let start = if begun.request.cold {
        "each its own start"
    } else {
        "warm"
    };
    format!(
        "{}, {}, {start}",
        settings(&begun.config, width),
        seeds(begun.config.seed, begun.request.seeds)
    )
}

/// Where the sweep stands, what it is of, what can be done.
pub(super) fn summary(
    begun: &SweepBegun,
    rows: &[SweepRow],
    width: usize,
    cx: &Cx,
) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let job = cx.world.job(Job::Sweep);
    let mut facts = vec![(
        "sweep over k",
        format!("{} of {}", rows.len(), begun.request.features.len()),
    )];
    if let Some(job) = job {
        let next = begun.request.features.get(rows.len());
        facts.extend(next.map(|k| ("fitting", format!("{} features", text::count(*k)))));
        facts.extend(job.eta.map(|eta| ("left", text::duration(eta))));
    }
    let first = facts_line(facts, width, theme);
    let key = |a| Span::styled(cx.key(a), theme.accent());
    let hint = |t: &'static str| Span::styled(t, theme.dim());
    let next = match job {
        Some(_) => vec![
            Span::raw(" "),
            key(Action::Cancel),
            hint(" stops, the rows that are there stay"),
        ],
        None => vec![
            Span::raw(" "),
            key(Action::SweepK),
            hint(" sweeps again   "),
            key(Action::Copy),
            hint(" copies the table"),
        ],
    };
    vec![
        Line::from(first),
        Line::styled(
            text::truncate(&format!(" {}", label(begun, cx)), width),
            theme.dim(),
        ),
        Line::from(next),
    ]
}

/// The curves beside the table, or the table alone where there is room for one.
pub(super) fn view(area: Rect, cx: &Cx, buf: &mut Buffer) {
    let Some((_, rows)) = &cx.world.k_sweep else {
        return;
    };
    if rows.is_empty() {
        return put(
            buf,
            area,
            1,
            &Line::styled(
                " the curves appear with the first number of features",
                cx.theme.dim(),
            ),
        );
    }
    let width = usize::from(area.width);
    let columns = (width.saturating_sub(PLOT) / CELL).clamp(FEWEST, COLUMNS.len());
    let beside = width >= columns * CELL + PLOT && rows.len() > 1 && area.height >= 6;
    let columns = if beside {
        columns
    } else {
        (width / CELL).clamp(1, COLUMNS.len())
    };
    let table = (columns * CELL) as u16;
    if beside {
        let plot = Rect {
            width: area.width - table - 1,
            ..area
        };
        let series_of = |name: &str, value: fn(&SweepRow) -> Option<f64>| Series {
            name: name.to_owned(),
            points: rows
                .iter()
                .filter_map(|r| Some((r.features as f64, value(r)?)))
                .collect(),
        };
        let mut series = [
            series_of("error", |r| r.relative_error),
            series_of("held-out", |r| r.held_out_error),
            series_of("stability", |r| r.stability),
        ];
        points::draw("against k", &mut series, cx, plot, buf);
    }
    let at = if beside { area.width - table } else { 0 };
    let place = Rect {
        x: area.x + at,
        width: table.min(area.width),
        ..area
    };
    let line = |cell: &dyn Fn(&Column) -> String| {
        COLUMNS
            .iter()
            .take(columns)
            .map(|c| text::pad_left(&cell(c), CELL))
            .collect::<String>()
    };
    put(
        buf,
        place,
        0,
        &Line::styled(line(&|c| c.0.to_owned()), cx.theme.heading()),
    );
    // The newest stay in sight.
    let height = usize::from(area.height).saturating_sub(1);
    let from = rows.len().saturating_sub(height);
    for (y, row) in rows[from..].iter().enumerate() {
        put(buf, place, y + 1, &Line::raw(line(&|c| c.1(row))));
    }
}

/// The table to take along.
pub(super) fn copy_formats(begun: &SweepBegun, rows: &[SweepRow], cx: &Cx) -> CopyFormats {
    let label = label(begun, cx);
    let joined = |between: &str, cell: &dyn Fn(&Column) -> String| {
        COLUMNS.iter().map(cell).collect::<Vec<_>>().join(between)
    };
    let mut plain = vec![joined("\t", &|c| c.0.to_owned())];
    plain.extend(rows.iter().map(|row| joined("\t", &|c| c.1(row))));
    let mut markdown = vec![
        format!("Sweep over k at {}: {label}", begun.hook),
        String::new(),
    ];
    markdown.push(format!("| {} |", joined(" | ", &|c| c.0.to_owned())));
    markdown.push(format!("| {} |", joined(" | ", &|_| "---:".to_owned())));
    markdown.extend(
        rows.iter()
            .map(|row| format!("| {} |", joined(" | ", &|c| c.1(row)))),
    );
    CopyFormats {
        what: format!("the sweep over {} numbers of features", rows.len()),
        text: plain.join("\n"),
        json: json!({"hook": begun.hook, "settings": label, "rows": rows}),
        markdown: markdown.join("\n"),
    }
}
