//! What the list shows before there are features: how far the way to them is, and what can be done
//! with them then.

use ratatui::buffer::Buffer;
use ratatui::text::{Line, Span};

use crate::engine::Job;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::put_at;
use crate::ui::pane::Cx;
use crate::ui::panes::{draw_empty, no_features_lines};

/// What to do with a feature, for the time until there is one.
const THEN: [(Action, &str); 6] = [
    (Action::Open, "where a feature fires, token by token"),
    (Action::Neurons, "its neurons, and what else uses them"),
    (Action::SteerWith, "what the model says with it turned up"),
    (Action::Tree, "which features share neurons"),
    (Action::Live, "features on a text of your own"),
    (Action::Help, "all keys"),
];

/// Cells of a stage's name.
const NAME: usize = 13;

/// A stage of the way.
enum Stage {
    Done(String),
    Now(String),
    Ahead(String),
}

pub(super) fn draw(cx: &Cx, buf: &mut Buffer) {
    if cx.world.jobs.is_empty() {
        return draw_empty(
            buf,
            cx,
            &no_features_lines(cx, "Here features are listed, the most telling first.", ""),
        );
    }
    let cells = usize::from(cx.area.width).saturating_sub(3);
    let lines = lines(cx, cells);
    let height = usize::from(cx.area.height);
    let top = height.saturating_sub(lines.len()).min(height / 6);
    for (i, line) in lines.iter().enumerate() {
        put_at(buf, cx.area, 2, top + i, line);
    }
}

fn lines(cx: &Cx, cells: usize) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let mut lines = Vec::new();
    for (name, stage) in stages(cx) {
        let (mark, style, words) = match stage {
            Stage::Done(words) => ("✓", theme.good(), words),
            Stage::Now(words) => ("▸", theme.accent(), words),
            Stage::Ahead(words) => (" ", theme.dim(), words),
        };
        lines.push(Line::from(vec![
            Span::styled(format!("{mark} "), style),
            Span::styled(
                text::pad(name, NAME),
                if mark == " " {
                    theme.dim()
                } else {
                    theme.heading()
                },
            ),
            Span::styled(
                text::truncate(&words, cells.saturating_sub(NAME + 2)),
                if mark == "▸" {
                    theme.text()
                } else {
                    theme.dim()
                },
            ),
        ]));
    }
    lines.push(Line::default());
    lines.push(Line::styled("Then:", theme.dim()));
    lines.extend(THEN.iter().map(|(action, what)| {
        let key = text::pad_left(&cx.key(*action), 7);
        Line::from(vec![
            Span::styled(key, theme.accent()),
            Span::styled(format!("  {what}"), theme.dim()),
        ])
    }));
    lines
}

fn stages(cx: &Cx) -> [(&'static str, Stage); 3] {
    let world = cx.world;
    let running = |job: Job| world.job(job).map(|running| &running.progress);
    let going = |job: Job| running(job).map(|p| Stage::Now(format!("{}…", text::clean(&p.stage))));
    let model = match &world.model {
        Some(m) => Stage::Done(format!(
            "{}, {} layers of {} neurons",
            m.family,
            m.layers,
            text::count(m.d_mlp)
        )),
        None => going(Job::Load)
            .unwrap_or_else(|| Stage::Ahead("is opened when it is needed".to_owned())),
    };
    let opened = world
        .study
        .as_ref()
        .map(|s| [s.hook.to_string(), text::clean(&s.corpus)]);
    let source = world
        .opening_facts()
        .or(opened)
        .map(|[at, corpus]| format!("{corpus} at {at}"))
        .unwrap_or_default();
    let rows = world.study.as_ref().map_or(0, |s| s.rows);
    let activations = match running(Job::Collect) {
        Some(p) => Stage::Now(format!("{} {source}", text::clean(&p.stage))),
        None if rows > 0 => Stage::Done(format!("{} tokens", text::count(rows))),
        None => Stage::Ahead(source),
    };
    let features = going(Job::Fit)
        .unwrap_or_else(|| Stage::Ahead("are listed here from the first sweep on".to_owned()));
    [
        ("model", model),
        ("activations", activations),
        ("features", features),
    ]
}
