//! How the levels look: a row a node with its coefficient, and what the node under the cursor is.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::LevelsView;
use crate::analysis::LevelNode;
use crate::engine::Job;
use crate::text;
use crate::ui::describe::distinct_tokens;
use crate::ui::draw::{put, put_at, put_selected, thin_bar};
use crate::ui::heat::Heat;
use crate::ui::layout::{split_left, split_top};
use crate::ui::list::scroll;
use crate::ui::pane::Cx;
use crate::ui::panes::draw_empty;
use crate::ui::theme::Ramp;

/// From this width on the node under the cursor stands beside the tree.
const BESIDE: u16 = 100;
/// Cells of a coefficient's bar.
const BAR: usize = 4;

impl LevelsView {
    pub(in super::super) fn draw(&self, cx: &Cx, buf: &mut Buffer) {
        if self.rows.is_empty() {
            return draw_empty(buf, cx, &self.empty_lines(cx));
        }
        let (tree, panel) = parts(cx.area);
        let height = usize::from(tree.height);
        let offset = scroll(self.offset, self.cursor, self.rows.len(), height);
        for (y, row) in (offset..self.rows.len()).take(height).enumerate() {
            let selected = row == self.cursor;
            let line = self.line(row, usize::from(tree.width), selected, cx);
            match selected {
                true => put_selected(buf, tree, y, line, cx.theme, cx.focused),
                false => put(buf, tree, y, &line),
            }
        }
        if let Some((area, beside)) = panel {
            self.panel(area, beside, cx, buf);
        }
    }

    fn empty_lines(&self, cx: &Cx) -> Vec<String> {
        if let Some(problem) = &self.problem {
            return vec![text::clean(problem)];
        }
        if self.open_request.is_some() || cx.world.job(Job::Levels).is_some() {
            return vec![
                "Factorising the features themselves, level by level…".to_owned(),
                "Each level has half as many features as the one below; a feature is made of those that it sums."
                    .to_owned(),
            ];
        }
        match &cx.world.features {
            Some(list) if !list.finished => {
                vec!["Levels are found once the fit has ended.".to_owned()]
            }
            Some(_) => vec!["This fit has too few features for levels.".to_owned()],
            None => vec!["Levels show what features are made of; they need a fit.".to_owned()],
        }
    }

    fn line(&self, row: usize, width: usize, selected: bool, cx: &Cx) -> Line<'static> {
        let theme = cx.theme;
        let (Some(node), Some(path)) = (self.node(row), self.rows.get(row)) else {
            return Line::default();
        };
        let mark = match node.level {
            0 => " ",
            _ if self.open.contains(path) => "▾",
            _ => "▸",
        };
        let mut spans = vec![
            Span::styled(if selected { "▌" } else { " " }, theme.accent()),
            Span::styled(self.branches(row), theme.dim()),
            Span::styled(format!("{mark} "), theme.accent()),
        ];
        if path.len() > 1 {
            let share = self.share(path);
            spans.push(Span::styled(thin_bar(share, 1.0, BAR), theme.bar()));
            spans.push(Span::styled(format!(" {share:.2} "), theme.dim()));
        }
        let name = cx
            .world
            .row(node.feature)
            .and_then(|r| r.name.clone())
            .filter(|_| node.level == 0);
        let number = if node.level == 0 {
            format!("#{} ", node.feature)
        } else {
            format!("{}.{} ", node.level, node.feature)
        };
        spans.push(Span::styled(number, theme.dim()));
        if let Some(name) = name {
            spans.push(Span::styled(
                format!("{} ", text::truncate(&text::clean(&name), 24)),
                theme.name(),
            ));
        }
        let tail = node.purity.as_ref().map(|p| {
            format!(
                "{} {:.0}%",
                text::label(&text::clean(&p.label), 14),
                p.share * 100.0
            )
        });
        let tail = tail.unwrap_or_default();
        let used: usize = spans.iter().map(|s| text::width(&s.content)).sum();
        let rest = width.saturating_sub(used);
        let tail_room = if rest >= 30 {
            text::width(&tail) + 3
        } else {
            0
        };
        spans.push(Span::styled(
            text::pad(&tokens(node, 8), rest.saturating_sub(tail_room)),
            theme.text(),
        ));
        if tail_room > 0 {
            let pure = node.purity.as_ref().is_some_and(|p| p.share >= 0.6);
            spans.push(Span::styled(
                format!("  {tail} "),
                if pure { theme.good() } else { theme.dim() },
            ));
        }
        Line::from(spans)
    }

    /// `│ ├`: whether more children of each ancestor follow.
    fn branches(&self, row: usize) -> String {
        let path = &self.rows[row];
        let follows = |depth: usize| {
            let siblings = |p: &&Vec<usize>| p.len() == depth + 1 && p[..depth] == path[..depth];
            let ends = |p: &&Vec<usize>| p.len() <= depth;
            self.rows[row + 1..]
                .iter()
                .take_while(|p| !ends(p))
                .any(|p| siblings(&p))
        };
        (1..path.len())
            .map(|depth| match (follows(depth), depth + 1 == path.len()) {
                (true, true) => "├ ",
                (false, true) => "└ ",
                (true, false) => "│ ",
                (false, false) => "  ",
            })
            .collect()
    }

    /// The coefficient of the last node of a path in its parent.
    fn share(&self, path: &[usize]) -> f32 {
        let &[.., parent, child] = path else {
            return 1.0;
        };
        let Some(node) = self.levels.as_ref().and_then(|l| l.nodes.get(parent)) else {
            return 0.0;
        };
        let at = node.children.iter().position(|c| *c == child);
        at.and_then(|at| node.shares.get(at))
            .copied()
            .unwrap_or(0.0)
    }

    fn panel(&self, area: Rect, beside: bool, cx: &Cx, buf: &mut Buffer) {
        let theme = cx.theme;
        let inner = frame(area, beside, cx, buf);
        let Some(node) = self.node(self.cursor) else {
            return;
        };
        let width = usize::from(inner.width);
        let mut lines = self.facts(node, width, cx);
        let (head, most) = (lines.len(), usize::from(inner.height));
        if head + 2 < most {
            lines.push(Line::default());
            lines.push(Line::styled("where it fires", theme.heading()));
        }
        let peak = node
            .contexts
            .iter()
            .filter_map(|c| c.values.get(c.peak))
            .copied()
            .fold(0.0, f32::max);
        for context in &node.contexts {
            let heat = Heat {
                tokens: &context.tokens,
                cut: context.cut,
                values: &context.values,
                max: peak,
                ramp: Ramp::Sequential,
                digits: cx.world.digits,
                cursor: None,
                theme,
            };
            lines.extend(heat.wrapped(width, context.peak, 2));
        }
        for (i, line) in lines.iter().take(most).enumerate() {
            put(buf, inner, i, line);
        }
    }

    fn facts(&self, node: &LevelNode, width: usize, cx: &Cx) -> Vec<Line<'static>> {
        let theme = cx.theme;
        let info = self.levels.as_ref().and_then(|l| l.levels.get(node.level));
        let title = match node.level {
            0 => format!("feature #{} of the fit", node.feature),
            level => format!("feature {} of level {level}", node.feature),
        };
        let error = info.map(|i| {
            format!(
                "{} neurons · level error {:.3}",
                text::count(node.neurons),
                i.relative_error
            )
        });
        let made = match node.children.len() {
            0 => String::new(),
            n => format!(
                "made of {n} · {} of the fit's features",
                node.features.len()
            ),
        };
        let mut lines = vec![
            Line::styled(text::truncate(&title, width), theme.heading()),
            Line::styled(
                text::truncate(&error.unwrap_or_default(), width),
                theme.dim(),
            ),
        ];
        if !made.is_empty() {
            lines.push(Line::styled(text::truncate(&made, width), theme.dim()));
        }
        if let Some((before, after)) = info.and_then(|i| i.joint) {
            let left = |v: f64| text::percent(v as f32);
            let tuned = format!(
                "activations left: {} ({} untuned)",
                left(after),
                left(before)
            );
            lines.push(Line::styled(text::truncate(&tuned, width), theme.dim()));
        }
        let promoted = match (node.level, cx.world.row(node.feature)) {
            (0, Some(row)) => &row.promoted,
            _ => &node.promoted,
        };
        if !promoted.is_empty() {
            let listed: Vec<String> = promoted.iter().map(|t| text::token(&t.token)).collect();
            lines.push(Line::from(vec![
                Span::styled("promotes ", theme.dim()),
                Span::styled(
                    text::truncate(&listed.join(" "), width.saturating_sub(9)),
                    theme.positive(),
                ),
            ]));
        }
        lines
    }
}

pub(super) fn tokens(node: &LevelNode, most: usize) -> String {
    distinct_tokens(&node.top_tokens, most)
}

/// The tree, and where the node under the cursor is described: beside it or below.
pub(super) fn parts(area: Rect) -> (Rect, Option<(Rect, bool)>) {
    if area.width >= BESIDE && area.height >= 8 {
        let width = (area.width * 2 / 5).clamp(36, 56);
        let (tree, panel) = split_left(area, area.width - width);
        return (tree, Some((panel, true)));
    }
    if area.height >= 12 {
        let height = if area.height >= 18 { 8 } else { 4 };
        let (tree, panel) = split_top(area, area.height - height);
        return (tree, Some((panel, false)));
    }
    (area, None)
}

/// Rules a panel off, and returns its inside.
pub(in super::super) fn frame(area: Rect, beside: bool, cx: &Cx, buf: &mut Buffer) -> Rect {
    let rule = cx.theme.rule(false);
    if beside {
        for y in 0..usize::from(area.height) {
            put_at(buf, area, 0, y, &Line::styled("│", rule));
        }
        return Rect {
            x: area.x + 2.min(area.width),
            width: area.width.saturating_sub(3),
            ..area
        };
    }
    put(
        buf,
        area,
        0,
        &Line::styled("─".repeat(usize::from(area.width)), rule),
    );
    Rect {
        x: area.x + 1,
        y: area.y + 1.min(area.height),
        width: area.width.saturating_sub(2),
        height: area.height.saturating_sub(1),
    }
}
