//! What the cluster or the feature under the cursor is made of: members, core neurons, each
//! member's own. Its lines can be walked and followed.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::TreePane;
use super::draw::common_label;
use super::plot::Item;
use crate::analysis::{ScoredToken, SharedNeurons};
use crate::text;
use crate::ui::action::Action;
use crate::ui::describe::strongest_words;
use crate::ui::draw::bar;
use crate::ui::draw::{put, shaded};
use crate::ui::pane::Cx;

/// Where a line leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Neuron(usize),
    Feature(usize),
}

struct Row {
    line: Line<'static>,
    link: Option<Link>,
}

impl Row {
    fn plain(line: Line<'static>) -> Self {
        Self { line, link: None }
    }
}

/// Draws it; `beside` the tree with a rule at its left, else below with a rule above.
pub(super) fn draw(pane: &TreePane, area: Rect, beside: bool, cx: &Cx, buf: &mut Buffer) {
    let theme = cx.theme;
    let (who, facts) = heading(pane, cx);
    if beside {
        let inner = super::levels::frame(area, true, cx, buf);
        let width = usize::from(inner.width);
        let mut lines = vec![Line::styled(text::truncate(&who, width), theme.heading())];
        lines.extend(
            text::wrap(&facts, width)
                .into_iter()
                .map(|l| Line::styled(l, theme.dim())),
        );
        lines.extend(lens(pane, width, cx));
        lines.push(Line::default());
        let height = usize::from(inner.height);
        let keys = hints(pane, width, cx);
        let left = height.saturating_sub(lines.len() + keys.len() + 1);
        let (members, core) = (members(pane, width, cx), core(pane, width, cx));
        let at = places(pane, &members);
        // Each has what the other leaves, and half at least.
        let below = core
            .len()
            .min((left / 2).max(left.saturating_sub(members.len() + 1)));
        lines.extend(cut(members, left.saturating_sub(below + 1), at[0], cx));
        lines.push(Line::default());
        lines.extend(cut(core, below, at[1], cx));
        lines.truncate(height.saturating_sub(keys.len()));
        for (y, line) in lines.iter().enumerate() {
            put(buf, inner, y, line);
        }
        for (i, line) in keys.iter().enumerate() {
            put(buf, inner, height - keys.len() + i, line);
        }
        return;
    }
    let width = usize::from(area.width);
    let who = text::truncate(&who, width.saturating_sub(8));
    let room = width.saturating_sub(text::width(&who) + 8);
    let facts = text::truncate(&facts, room);
    let rest = room.saturating_sub(text::width(&facts));
    let rule = Line::from(vec![
        Span::styled("── ", theme.rule(false)),
        Span::styled(who, theme.heading()),
        Span::raw("  "),
        Span::styled(facts, theme.dim()),
        Span::styled(format!(" {}", "─".repeat(rest + 2)), theme.rule(false)),
    ]);
    put(buf, area, 0, &rule);
    let height = usize::from(area.height).saturating_sub(1);
    let half = width / 2;
    let members = members(pane, half.saturating_sub(3), cx);
    let at = places(pane, &members);
    let core = core(pane, (width - half).saturating_sub(1), cx);
    let columns = [
        (0, cut(members, height, at[0], cx)),
        (half, cut(core, height, at[1], cx)),
    ];
    for (x, lines) in columns {
        for (y, line) in lines.iter().take(height).enumerate() {
            crate::ui::draw::put_at(buf, area, x + 1, y + 1, line);
        }
    }
}

/// Who is under the cursor, and a few facts.
fn heading(pane: &TreePane, cx: &Cx) -> (String, String) {
    match pane.cursor {
        None => (String::new(), String::new()),
        Some(Item::Alone) => {
            let n = pane.plot.alone.len();
            (
                format!("{n} on their own"),
                "no neuron of theirs is in another feature".to_owned(),
            )
        }
        Some(Item::Node(node)) if pane.plot.is_leaf(node) => {
            let id = pane.plot.feature(node);
            let mut facts = Vec::new();
            if let Some(row) = cx.world.row(id) {
                facts.push(format!("{} neurons", text::count(row.neurons)));
            }
            match pane.plot.parent(node) {
                Some(parent) => facts.push(format!("joins at {:.2}", pane.plot.height(parent))),
                None => facts.push("shares none".to_owned()),
            }
            if let Some(cluster) = pane.cluster() {
                let n = pane.plot.features(Item::Node(cluster)).len();
                facts.push(format!("seen in a cluster of {n}"));
            }
            (cx.world.feature_label(id), facts.join(" · "))
        }
        Some(Item::Node(node)) => {
            let features = pane.plot.features(Item::Node(node));
            let height = pane.plot.height(node);
            let label = common_label(&features, cx)
                .map(|(label, n)| format!(" · {label} {n}/{}", features.len()));
            let facts = format!(
                "join at {height:.2}: overlap {:.2}{}",
                1.0 - height,
                label.unwrap_or_default()
            );
            (format!("{} features", features.len()), facts)
        }
    }
}

/// Of a feature what it promotes and suppresses, when its card is there.
fn lens(pane: &TreePane, width: usize, cx: &Cx) -> Vec<Line<'static>> {
    let Some(Item::Node(node)) = pane
        .cursor
        .filter(|item| matches!(item, Item::Node(n) if pane.plot.is_leaf(*n)))
    else {
        return Vec::new();
    };
    let id = pane.plot.feature(node);
    let Some(card) = cx.world.selected_card().filter(|card| card.row.id == id) else {
        return Vec::new();
    };
    let line = |what: &str, tokens: &[ScoredToken], style: Style| {
        let listed: Vec<String> = tokens
            .iter()
            .take(12)
            .map(|t| text::token(&t.token))
            .collect();
        Line::from(vec![
            Span::styled(text::pad(what, 11), cx.theme.dim()),
            Span::styled(
                text::truncate(&listed.join(" "), width.saturating_sub(11)),
                style,
            ),
        ])
    };
    if card.promoted.is_empty() {
        return Vec::new();
    }
    vec![
        line("promotes", &card.promoted, cx.theme.positive()),
        line("suppresses", &card.suppressed, cx.theme.negative()),
    ]
}

fn own(shared: Option<&SharedNeurons>, id: usize) -> Option<&Vec<(usize, f32)>> {
    shared?
        .exclusive
        .iter()
        .find(|(feature, _)| *feature == id)
        .map(|(_, neurons)| neurons)
}

/// Where the panel's cursor is: in the first list or in the second.
fn places(pane: &TreePane, members: &[Row]) -> [Option<usize>; 2] {
    let n = members.iter().filter(|row| row.link.is_some()).count();
    match pane.panel_cursor {
        Some(at) if at < n => [Some(at), None],
        Some(at) => [None, Some(at - n)],
        None => [None, None],
    }
}

/// Everything in the panel that leads somewhere, in the order of its cursor.
pub(super) fn links(pane: &TreePane, cx: &Cx) -> Vec<Link> {
    let rows = members(pane, 40, cx).into_iter().chain(core(pane, 40, cx));
    rows.filter_map(|row| row.link).collect()
}

/// Of a cluster its members; of a leaf the neurons that it alone has.
fn members(pane: &TreePane, width: usize, cx: &Cx) -> Vec<Row> {
    let theme = cx.theme;
    let Some(cursor) = pane.cursor else {
        return Vec::new();
    };
    let shared = pane.shared();
    if let Item::Node(leaf) = cursor
        && pane.plot.is_leaf(leaf)
    {
        let id = pane.plot.feature(leaf);
        if pane.cluster().is_none() {
            let tokens = cx
                .world
                .row(id)
                .map(|row| strongest_words(row, 8))
                .unwrap_or_default();
            return vec![Row::plain(Line::raw(text::truncate(&tokens, width)))];
        }
        let Some(neurons) = own(shared, id) else {
            return waiting(cx);
        };
        let title = format!("Its own: {}", count(neurons.len(), "neuron"));
        let rest = text::truncate(
            " that no other has",
            width.saturating_sub(text::width(&title)),
        );
        let head = Line::from(vec![
            Span::styled(title, theme.heading()),
            Span::styled(rest, theme.dim()),
        ]);
        let largest = neurons.iter().map(|n| n.1.abs()).fold(0.0, f32::max);
        let rows = neurons
            .iter()
            .map(|(index, weight)| neuron(*index, *weight, largest, String::new(), width, cx));
        return std::iter::once(Row::plain(head)).chain(rows).collect();
    }
    let ids = pane.plot.features(cursor);
    let n = ids.len();
    let own_column = if shared.is_some() { "own" } else { "" };
    let mut rows = vec![Row::plain(Line::from(vec![
        Span::styled(
            text::pad(&count(n, "member"), width.saturating_sub(4)),
            theme.heading(),
        ),
        Span::styled(text::pad_left(own_column, 4), theme.dim()),
    ]))];
    for id in ids {
        let own = own(shared, id)
            .map(|n| n.len().to_string())
            .unwrap_or_default();
        let head = format!("#{id} ");
        let row = cx.world.row(id);
        let name = row.and_then(|r| r.name.as_deref()).map(text::clean);
        let style = if name.is_some() {
            theme.name()
        } else {
            theme.text()
        };
        let what = name
            .or_else(|| row.map(|r| strongest_words(r, 6)))
            .unwrap_or_default();
        let room = width.saturating_sub(text::width(&head) + 4);
        let line = Line::from(vec![
            Span::styled(head, theme.dim()),
            Span::styled(text::pad(&what, room), style),
            Span::raw(text::pad_left(&own, 4)),
        ]);
        rows.push(Row {
            line,
            link: Some(Link::Feature(id)),
        });
    }
    rows
}

/// The neurons in more than half of the cluster's members.
fn core(pane: &TreePane, width: usize, cx: &Cx) -> Vec<Row> {
    let theme = cx.theme;
    if pane.cluster().is_none() {
        return Vec::new();
    }
    let Some(shared) = pane.shared() else {
        return vec![Row::plain(Line::styled("Core neurons", theme.heading()))];
    };
    let n = shared.features.len();
    let (title, rest) = match (shared.core.len(), n) {
        (0, _) => (
            "No core".to_owned(),
            ": no neuron is in more than half".to_string(),
        ),
        (c, 2) => (
            format!("Core: {}", count(c, "neuron")),
            " that both have".to_owned(),
        ),
        (c, _) => (
            format!("Core: {}", count(c, "neuron")),
            format!(" in most of the {n}"),
        ),
    };
    let rest = text::truncate(&rest, width.saturating_sub(text::width(&title)));
    let head = Line::from(vec![
        Span::styled(title, theme.heading()),
        Span::styled(rest, theme.dim()),
    ]);
    let mut rows = vec![Row::plain(head)];
    let largest = shared.core.iter().map(|n| n.1.abs()).fold(0.0, f32::max);
    for (index, weight, members) in &shared.core {
        rows.push(neuron(
            *index,
            *weight,
            largest,
            format!("{members}/{n}"),
            width,
            cx,
        ));
    }
    rows
}

fn waiting(cx: &Cx) -> Vec<Row> {
    vec![Row::plain(Line::styled(
        "comparing neurons…",
        cx.theme.dim(),
    ))]
}

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{} {what}s", text::count(n))
    }
}

/// `n843  +0.41 ▇▇▇▇   5/5`.
fn neuron(index: usize, weight: f32, largest: f32, tail: String, width: usize, cx: &Cx) -> Row {
    let style: Style = if weight < 0.0 {
        cx.theme.negative()
    } else {
        cx.theme.positive()
    };
    let cells = width.saturating_sub(15 + tail.len() + 1).min(16);
    let line = Line::from(vec![
        Span::styled(text::pad(&format!("n{index}"), 7), cx.theme.text()),
        Span::styled(text::pad_left(&format!("{weight:+.2}"), 6), style),
        Span::raw(" "),
        Span::styled(bar(weight.abs(), largest, cells), style),
        Span::styled(format!(" {tail}"), cx.theme.dim()),
    ]);
    Row {
        line,
        link: Some(Link::Neuron(index)),
    }
}

/// At most `most` lines, the last telling how many more; with a cursor `at` one of those that lead
/// somewhere, the window about it.
fn cut(rows: Vec<Row>, most: usize, at: Option<usize>, cx: &Cx) -> Vec<Line<'static>> {
    let cursor = at
        .and_then(|at| {
            rows.iter()
                .enumerate()
                .filter(|(_, r)| r.link.is_some())
                .nth(at)
        })
        .map(|(i, _)| i);
    let n = rows.len();
    let mut lines: Vec<Line<'static>> = rows.into_iter().map(|row| row.line).collect();
    if let Some(cursor) = cursor {
        let line = shaded(std::mem::take(&mut lines[cursor]), cx.theme);
        lines[cursor] = line.patch_style(cx.theme.selected(true));
        // The head stays, and a line tells what is below.
        let room = most
            .saturating_sub(1 + usize::from(n > most && most >= 5))
            .max(1);
        let from = cursor.saturating_sub(room).min(n - 1);
        lines.drain(1..=from);
    }
    if most < 5 {
        lines.truncate(most);
    } else if lines.len() > most {
        let more = lines.len() - most + 1;
        lines.truncate(most - 1);
        let how = if at.is_none() {
            format!(": {}", cx.key(Action::NextPane))
        } else {
            String::new()
        };
        lines.push(Line::styled(
            format!("and {more} more{how}"),
            cx.theme.dim(),
        ));
    }
    lines
}

/// The keys that steer with or ablate what is under the cursor.
fn hints(pane: &TreePane, width: usize, cx: &Cx) -> Vec<Line<'static>> {
    if pane.cursor == Some(Item::Alone) {
        return Vec::new();
    }
    let on_leaf = matches!(pane.cursor, Some(Item::Node(node)) if pane.plot.is_leaf(node));
    let whole = if on_leaf {
        "the whole feature"
    } else {
        "all of them"
    };
    let mut rows = vec![(Action::SteerWith, Action::Ablate, whole)];
    if pane.cluster().is_some() {
        rows.push((Action::SteerCore, Action::AblateCore, "the core alone"));
    }
    if on_leaf && pane.cluster().is_some() {
        rows.push((
            Action::SteerExclusive,
            Action::AblateExclusive,
            "its own neurons alone",
        ));
        rows.push((
            Action::SteerThree,
            Action::AblateThree,
            "all three side by side",
        ));
    }
    let line = |keys: [&str; 2], what: &str, style: Style| {
        Line::from(vec![
            Span::styled(text::pad(keys[0], 6), style),
            Span::styled(text::pad(keys[1], 7), style),
            Span::styled(
                text::truncate(what, width.saturating_sub(13)),
                cx.theme.dim(),
            ),
        ])
    };
    let mut lines = vec![line(["steer", "ablate"], "with", cx.theme.dim())];
    let keys =
        |(steer, ablate, what)| line([&cx.key(steer), &cx.key(ablate)], what, cx.theme.accent());
    lines.extend(rows.into_iter().map(keys));
    lines
}
