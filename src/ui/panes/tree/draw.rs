//! How the Tree pane looks: an axis of heights, branches to scale, a label a row.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::plot::{self, Item, Row};
use super::search::search_line;
use super::{TreePane, panel};
use crate::analysis::FeatureRow;
use crate::text;
use crate::ui::describe::strongest_words;
use crate::ui::draw::{put, put_at};
use crate::ui::layout::{split_left, split_top};
use crate::ui::list::scroll;
use crate::ui::pane::Cx;
use crate::ui::panes::{draw_empty, no_features_lines};

/// From this width on the cluster under the cursor stands beside the tree.
const BESIDE: u16 = 100;

/// Where the parts of the pane are.
struct Parts {
    axis: Rect,
    tree: Rect,
    search: Option<Rect>,
    panel: Option<(Rect, bool)>,
    /// Cells of the branches.
    cells: usize,
}

fn parts(pane: &TreePane, area: Rect) -> Parts {
    let (above, panel) = if area.width >= BESIDE && area.height >= 8 {
        let width = (area.width * 2 / 5).clamp(36, 52);
        let (tree, panel) = split_left(area, area.width - width);
        (tree, Some((panel, true)))
    } else if area.height >= 11 {
        let height = if area.height >= 18 { 7 } else { 4 };
        let (tree, panel) = split_top(area, area.height - height);
        (tree, Some((panel, false)))
    } else {
        (area, None)
    };
    let (axis, mut tree) = split_top(above, 1);
    let searching = (pane.is_searching() || pane.cutting.is_some()) && tree.height > 1;
    let search = searching.then(|| {
        tree.height -= 1;
        Rect {
            y: tree.y + tree.height,
            height: 1,
            ..tree
        }
    });
    let cells = (usize::from(tree.width) * 9 / 20).clamp(8, 48);
    Parts {
        axis,
        tree,
        search,
        panel,
        cells,
    }
}

/// How many rows there are for branches.
pub(super) fn tree_height(pane: &TreePane, cx: &Cx) -> usize {
    usize::from(parts(pane, cx.area).tree.height).max(1)
}

/// Whether what the cursor is on is also described.
pub(super) fn has_panel(pane: &TreePane, cx: &Cx) -> bool {
    parts(pane, cx.area).panel.is_some()
}

pub(super) fn item_at(pane: &TreePane, column: u16, row: u16, cx: &Cx) -> Option<Item> {
    let parts = parts(pane, cx.area);
    let tree = parts.tree;
    if !tree.contains(ratatui::layout::Position::new(column, row)) {
        return None;
    }
    let offset = offset(pane, usize::from(tree.height));
    pane.rows
        .get(offset + usize::from(row - tree.y))
        .map(|r| r.item)
}

fn offset(pane: &TreePane, height: usize) -> usize {
    let at = pane
        .cursor
        .map_or(0, |item| pane.plot.row_of(item, &pane.rows));
    scroll(pane.offset, at, pane.rows.len(), height)
}

pub(super) fn draw(pane: &TreePane, cx: &Cx, buf: &mut Buffer) {
    if pane.plot.is_empty() {
        return draw_empty(buf, cx, &empty_lines(pane, cx));
    }
    let parts = parts(pane, cx.area);
    axis(pane, &parts, cx, buf);
    branches(pane, &parts, cx, buf);
    if let Some(search) = parts.search {
        let width = usize::from(search.width);
        let line = match &pane.cutting {
            Some(input) => pane.cut_line(input, width, cx),
            None => search_line(pane, width, cx),
        };
        put(buf, search, 0, &line);
    }
    if let Some((area, beside)) = parts.panel {
        panel::draw(pane, area, beside, cx, buf);
    }
}

/// What an empty pane says: what is going on, or what to press.
fn empty_lines(pane: &TreePane, cx: &Cx) -> Vec<String> {
    if let Some(problem) = &pane.problem {
        return vec![text::clean(problem)];
    }
    if pane.tree_request.is_some() {
        return vec!["Comparing the neurons of every two features…".to_owned()];
    }
    no_features_lines(
        cx,
        "The tree shows which features are made of the same neurons.",
        "The tree of shared neurons appears with the first sweep of the fit.",
    )
}

/// Ticks at even heights, as many as fit.
fn ticks(low: f32, high: f32, cells: usize) -> Vec<f32> {
    let most = (cells / 7).max(2) as f32;
    let step = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
        .into_iter()
        .find(|s| (high - low) / s <= most)
        .unwrap_or(1.0);
    let first = (low / step).ceil() as i32;
    let ticks: Vec<f32> = (first..)
        .map(|i| i as f32 * step)
        .take_while(|t| *t <= high + step * 1e-3)
        .collect();
    if ticks.is_empty() { vec![high] } else { ticks }
}

fn axis(pane: &TreePane, parts: &Parts, cx: &Cx, buf: &mut Buffer) {
    let (theme, plot) = (cx.theme, &pane.plot);
    if plot.roots.is_empty() {
        let line = Line::styled(" no two features share a neuron", theme.dim());
        return put(buf, parts.axis, 0, &line);
    }
    let folded_at =
        (pane.folds.height >= plot.low).then(|| plot.column(pane.folds.height, parts.cells));
    for tick in ticks(plot.low, plot.high, parts.cells).into_iter().rev() {
        let column = plot.column(tick, parts.cells);
        // The fold's mark and a tick do not stand in each other's number.
        if folded_at.is_some_and(|at| column.abs_diff(at) < 6) {
            continue;
        }
        let digits = if (tick * 100.0).fract().abs() > 0.01 && (tick * 100.0).fract().abs() < 0.99 {
            3
        } else {
            2
        };
        put_at(
            buf,
            parts.axis,
            column,
            0,
            &Line::styled(format!("╷{tick:.digits$}"), theme.dim()),
        );
    }
    if let Some(column) = folded_at {
        let mark = format!("▼{:.2}", pane.folds.height);
        put_at(
            buf,
            parts.axis,
            column,
            0,
            &Line::styled(mark, theme.accent()),
        );
    }
    let room = usize::from(parts.axis.width).saturating_sub(parts.cells + 2);
    let what = if room >= 34 {
        "height = 1 − overlap of neurons"
    } else {
        "1 − overlap"
    };
    put_at(
        buf,
        parts.axis,
        parts.cells + 2,
        0,
        &Line::styled(text::truncate(what, room), theme.dim()),
    );
}

fn branches(pane: &TreePane, parts: &Parts, cx: &Cx, buf: &mut Buffer) {
    let (theme, plot, cells) = (cx.theme, &pane.plot, parts.cells);
    let height = usize::from(parts.tree.height);
    let offset = offset(pane, height);
    let chosen = pane.cursor.unwrap_or(Item::Alone);
    let grid = plot.grid(&pane.rows, offset, height, cells, chosen);
    for (y, row) in pane.rows.iter().skip(offset).take(height).enumerate() {
        let selected = pane.cursor == Some(row.item);
        if selected {
            let x = parts.tree.x + cells as u16;
            let line = Rect::new(
                x,
                parts.tree.y + y as u16,
                parts.tree.width.saturating_sub(cells as u16),
                1,
            );
            buf.set_style(line.intersection(buf.area), theme.selected(cx.focused));
        }
        let lit =
            matches!((row.item, chosen), (Item::Node(n), Item::Node(c)) if plot.is_within(n, c));
        let mut spans: Vec<Span> = Vec::with_capacity(8);
        let bar = match row.item {
            Item::Node(node) if row.folded => plot.column(plot.height(node), cells)..cells,
            _ => cells..cells,
        };
        for x in 0..cells {
            let at = y * cells + x;
            let (glyph, style) = match row.item {
                // Without colours, lines that are not chosen are thin.
                _ if bar.contains(&x) && theme.marks() && !lit => ('─', theme.bar()),
                _ if bar.contains(&x) && x == bar.start => {
                    ('╼', if lit { theme.accent() } else { theme.bar() })
                }
                _ if bar.contains(&x) => ('━', if lit { theme.accent() } else { theme.bar() }),
                Item::Node(node) if x + 2 >= cells && plot.alone.contains(&node) => {
                    ('╶', theme.dim())
                }
                _ if grid.chosen[at] && theme.marks() => {
                    (plot::heavy(grid.lines[at]), theme.accent())
                }
                _ if grid.chosen[at] => (plot::glyph(grid.lines[at]), theme.accent()),
                _ => (plot::glyph(grid.lines[at]), theme.dim()),
            };
            match spans.last_mut() {
                Some(last) if last.style == style => last.content.to_mut().push(glyph),
                _ => spans.push(Span::styled(glyph.to_string(), style)),
            }
        }
        let room = usize::from(parts.tree.width).saturating_sub(cells + 1);
        spans.push(Span::styled(
            if selected { "▌" } else { " " },
            theme.accent(),
        ));
        spans.extend(label(pane, *row, room.saturating_sub(1), cx));
        put(buf, parts.tree, y, &Line::from(spans));
    }
    junction(pane, parts, offset, cx, buf);
}

/// A mark where the branches under the cursor join.
fn junction(pane: &TreePane, parts: &Parts, offset: usize, cx: &Cx, buf: &mut Buffer) {
    let Some(Item::Node(node)) = pane.cursor else {
        return;
    };
    let at = pane.plot.row_of(Item::Node(node), &pane.rows);
    let own_row = pane
        .rows
        .get(at)
        .is_some_and(|row| row.item == Item::Node(node));
    if !own_row && at >= offset && at < offset + usize::from(parts.tree.height) {
        let column = pane.plot.column(pane.plot.height(node), parts.cells);
        put_at(
            buf,
            parts.tree,
            column,
            at - offset,
            &Line::styled("◆", cx.theme.title(true)),
        );
    }
}

/// The label that most of some features are about, and how many.
pub(super) fn common_label(features: &[usize], cx: &Cx) -> Option<(String, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for purity in features
        .iter()
        .filter_map(|id| cx.world.row(*id)?.purity.as_ref())
    {
        match counts.iter_mut().find(|(label, _)| *label == purity.label) {
            Some((_, n)) => *n += 1,
            None => counts.push((&purity.label, 1)),
        }
    }
    let (label, n) = counts.into_iter().max_by_key(|(_, n)| *n)?;
    (2 * n > features.len()).then(|| (text::clean(label), n))
}

fn label(pane: &TreePane, row: Row, room: usize, cx: &Cx) -> Vec<Span<'static>> {
    let theme = cx.theme;
    let features = pane.plot.features(row.item);
    let (head, mut middle, tail) = match row.item {
        Item::Alone => {
            let mark = if row.folded { "▸" } else { "▾" };
            let n = features.len();
            let what = if n == 1 {
                "feature shares"
            } else {
                "features share"
            };
            (
                vec![Span::styled(format!("{mark} {n} "), theme.accent())],
                format!("{what} no neurons"),
                String::new(),
            )
        }
        Item::Node(_) if row.folded => {
            let mut names: Vec<String> = Vec::new();
            for name in features.iter().map(|id| name(*id, cx)) {
                if names.len() < 12 && !names.contains(&name) {
                    names.push(name);
                }
            }
            let found = features
                .iter()
                .filter(|id| is_found(pane, **id, cx))
                .count();
            let tail = match common_label(&features, cx) {
                _ if found > 0 => format!("{found} found"),
                Some((label, n)) => format!("{label} {n}/{}", features.len()),
                None => String::new(),
            };
            (
                vec![Span::styled(
                    format!("▸ {} ", features.len()),
                    theme.accent(),
                )],
                names.join(" · "),
                tail,
            )
        }
        Item::Node(leaf) => {
            let id = pane.plot.feature(leaf);
            let mut head = vec![Span::styled(format!("#{id} "), theme.dim())];
            let row = cx.world.row(id);
            if let Some(name) = row.and_then(|r| r.name.as_ref()) {
                head.push(Span::styled(
                    format!("{} ", text::truncate(&text::clean(name), room / 2)),
                    theme.name(),
                ));
            }
            let purity = row.and_then(|r| r.purity.as_ref());
            let tail = purity.map(|p| {
                format!(
                    "{} {:.0}%",
                    text::label(&text::clean(&p.label), 12),
                    p.share * 100.0
                )
            });
            (
                head,
                row.map(|r| strongest_words(r, 8)).unwrap_or_default(),
                tail.unwrap_or_default(),
            )
        }
    };
    let used: usize = head.iter().map(|s| text::width(&s.content)).sum();
    let tail_room = if room >= 30 {
        text::width(&tail) + usize::from(!tail.is_empty()) * 2
    } else {
        0
    };
    middle = text::pad(&middle, room.saturating_sub(used + tail_room));
    let found = matches!(row.item, Item::Node(leaf) if !row.folded && is_found(pane, pane.plot.feature(leaf), cx));
    let mut spans = head;
    spans.push(Span::styled(
        middle,
        if found { theme.found() } else { theme.text() },
    ));
    if tail_room > 0 {
        spans.push(Span::styled(format!("  {tail}"), theme.dim()));
    }
    spans
}

fn is_found(pane: &TreePane, id: usize, cx: &Cx) -> bool {
    !pane.query.text().trim().is_empty()
        && cx
            .world
            .row(id)
            .is_some_and(|row| super::search::matches_query(row, pane.query.text()))
}

/// A feature by a short name: its name, or its strongest token.
fn name(id: usize, cx: &Cx) -> String {
    match cx.world.row(id) {
        Some(FeatureRow {
            name: Some(name), ..
        }) => text::clean(name),
        Some(row) if !row.top_tokens.is_empty() => strongest_words(row, 1),
        _ => format!("#{id}"),
    }
}

/// A row as text: its height, indented label.
pub(super) fn plain(pane: &TreePane, row: usize, cx: &Cx) -> String {
    let Some(row) = pane.rows.get(row).copied() else {
        return String::new();
    };
    let mut depth = 0;
    let mut joins = None;
    if let Item::Node(node) = row.item {
        joins = pane.plot.parent(node).map(|p| pane.plot.height(p));
        let mut at = pane.plot.parent(node);
        while let Some(n) = at {
            depth += 1;
            at = pane.plot.parent(n);
        }
    }
    let spans = label(pane, row, 72, cx);
    let text: String = spans.iter().map(|s| s.content.as_ref()).collect();
    let height = joins.map_or_else(|| "     ".to_owned(), |h| format!("{h:.3}"));
    format!(
        "{height} {}{}",
        "  ".repeat(depth),
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    )
}
