//! Levels of features of features as a tree to walk: what a coarse feature is made of, down to the features of the fit.
//! Owns the folds and the cursor; the numbers come from the engine.
//!
//! Invariant: a row is named by its path, because a feature can be a child of several.

use std::collections::HashSet;
use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use crate::analysis::{LevelNode, Levels};
use crate::engine::{Command, Job};
use crate::factor::recursive::Growth;
use crate::ui::action::Action;
use crate::ui::heat::Heat;
use crate::ui::panes::features::thin_bar;
use crate::ui::panes::{Cx, Step, empty, motion, put, put_at, scroll};
use crate::ui::text;
use crate::ui::theme::Ramp;

/// From this width on the node under the cursor stands beside the tree.
const BESIDE: u16 = 100;
/// Cells of a coefficient's bar.
const BAR: usize = 4;

/// The levels view of the Tree pane.
#[derive(Debug, Default)]
pub(super) struct LevelsView {
    /// It is what the pane shows.
    pub on: bool,
    growth: Growth,
    levels: Option<Arc<Levels>>,
    /// The snapshot they are of: fit and sweep.
    of: Option<(String, usize)>,
    asked: bool,
    problem: Option<String>,
    rows: Vec<Vec<usize>>,
    open: HashSet<Vec<usize>>,
    cursor: usize,
    offset: usize,
}

/// Roots in the order of a reader's interest: meaning first.
fn roots(levels: &Levels) -> Vec<usize> {
    let top = levels.levels.len().saturating_sub(1);
    let mut roots: Vec<&LevelNode> = levels.nodes.iter().filter(|n| n.level == top).collect();
    let purity = |n: &LevelNode| n.purity.as_ref().map_or(0.0, |p| p.share);
    roots.sort_by(|a, b| purity(b).total_cmp(&purity(a)).then(a.id.cmp(&b.id)));
    roots.into_iter().map(|n| n.id).collect()
}

impl LevelsView {
    /// Asks for the levels of the fit on show unless they are there or asked for.
    pub fn want(&mut self, cx: &Cx) -> Vec<Step> {
        let Some(list) = cx.world.features.as_ref().filter(|list| list.finished) else { return Vec::new() };
        let newest = (list.fit.clone(), list.sweep);
        if !self.on || self.of.as_ref() == Some(&newest) {
            return Vec::new();
        }
        *self = Self { on: true, growth: self.growth, of: Some(newest), asked: true, ..Self::default() };
        vec![Step::Send(Command::Levels(self.growth))]
    }

    /// The other rule for p.
    pub fn turn(&mut self, cx: &Cx) -> Vec<Step> {
        self.growth = if self.growth == Growth::Growing { Growth::Fixed } else { Growth::Growing };
        self.of = None;
        self.want(cx)
    }

    pub fn take(&mut self, levels: &Arc<Levels>) {
        self.asked = false;
        self.problem = None;
        self.levels = Some(levels.clone());
        self.open.clear();
        if let Some(&first) = roots(levels).first() {
            self.open.insert(vec![first]);
        }
        (self.cursor, self.offset) = (0, 0);
        self.lay_out();
    }

    pub fn fail(&mut self, problem: &str) {
        self.asked = false;
        self.problem = Some(problem.to_owned());
    }

    fn lay_out(&mut self) {
        let Some(levels) = &self.levels else { return };
        let mut rows = Vec::new();
        let mut stack: Vec<Vec<usize>> = roots(levels).into_iter().rev().map(|id| vec![id]).collect();
        while let Some(path) = stack.pop() {
            if self.open.contains(&path)
                && let Some(node) = path.last().and_then(|&id| levels.nodes.get(id))
            {
                // Children lie below their parent, so that every path ends.
                let below = node.children.iter().rev().filter(|&&c| c < node.id);
                stack.extend(below.map(|&c| [&path[..], &[c]].concat()));
            }
            rows.push(path);
        }
        self.rows = rows;
        self.cursor = self.cursor.min(self.rows.len().saturating_sub(1));
    }

    /// Whether there is nothing to walk.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn node(&self, row: usize) -> Option<&LevelNode> {
        self.levels.as_ref()?.nodes.get(*self.rows.get(row)?.last()?)
    }

    /// The feature of the fit under the cursor.
    pub fn feature(&self) -> Option<usize> {
        self.node(self.cursor).filter(|n| n.level == 0).map(|n| n.feature)
    }

    /// The features of the fit below the cursor.
    pub fn features(&self) -> Vec<usize> {
        self.node(self.cursor).map(|n| n.features.clone()).unwrap_or_default()
    }

    fn fold(&mut self, open: Option<bool>) {
        let Some(path) = self.rows.get(self.cursor).cloned() else { return };
        let now = self.open.contains(&path);
        if open.unwrap_or(!now) {
            self.open.insert(path);
        } else {
            self.open.remove(&path);
        }
        self.lay_out();
    }

    pub fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let height = usize::from(parts(cx.area).0.height).max(1);
        if let Some(to) = motion(action, self.cursor, self.rows.len(), height) {
            self.cursor = to;
            self.offset = scroll(self.offset, to, self.rows.len(), height);
            return Some(
                self.feature().filter(|id| cx.world.selected != Some(*id)).map(Step::Select).into_iter().collect(),
            );
        }
        let leaf = self.feature();
        let path = self.rows.get(self.cursor).cloned().unwrap_or_default();
        match action {
            Action::Open | Action::Right if leaf.is_some() => return Some(leaf.map(Step::Visit).into_iter().collect()),
            Action::Open | Action::Fold => self.fold(None),
            Action::Right => self.fold(Some(true)),
            Action::Left if self.open.contains(&path) => self.fold(Some(false)),
            Action::Left => {
                let parent = &path[..path.len().saturating_sub(1)];
                self.cursor = self.rows.iter().position(|p| p == parent).unwrap_or(self.cursor);
            }
            Action::FoldMore => {
                self.open.clear();
                self.lay_out();
            }
            Action::FoldLess => {
                self.open.extend(self.rows.iter().cloned());
                self.lay_out();
            }
            Action::Copy => {
                let lines: Vec<String> = (0..self.rows.len()).map(|row| self.plain(row)).collect();
                return Some(vec![Step::Copy(lines.join("\n"), format!("{} rows of the levels", lines.len()))]);
            }
            _ => return None,
        }
        self.offset = scroll(self.offset, self.cursor, self.rows.len(), height);
        Some(Vec::new())
    }

    pub fn click(&mut self, column: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        let (tree, _) = parts(cx.area);
        if !tree.contains(ratatui::layout::Position::new(column, row)) {
            return Vec::new();
        }
        let at = self.offset + usize::from(row - tree.y);
        if at >= self.rows.len() {
            return Vec::new();
        }
        self.cursor = at;
        if double { self.act(Action::Open, cx).unwrap_or_default() } else { Vec::new() }
    }

    pub fn title(&self, width: u16) -> String {
        let Some(levels) = &self.levels else { return "Levels of features".to_owned() };
        let counts: Vec<String> = levels.levels.iter().map(|l| l.features.to_string()).collect();
        let shares: Vec<String> = levels.levels.iter().map(|l| text::percent(l.sparsity as f32)).collect();
        let short = format!("Levels {}", counts.join(" → "));
        if width < 72 { short } else { format!("{short} · p {} ({})", shares.join(" → "), levels.growth) }
    }

    fn plain(&self, row: usize) -> String {
        let Some(node) = self.node(row) else { return String::new() };
        let depth = self.rows[row].len() - 1;
        format!("{}{}.{} {}", "  ".repeat(depth), node.level, node.feature, tokens(node, 8))
    }

    pub fn draw(&self, cx: &Cx, buf: &mut Buffer) {
        if self.rows.is_empty() {
            return empty(buf, cx, &self.nothing(cx));
        }
        let (tree, panel) = parts(cx.area);
        let height = usize::from(tree.height);
        let offset = scroll(self.offset, self.cursor, self.rows.len(), height);
        for (y, row) in (offset..self.rows.len()).take(height).enumerate() {
            let selected = row == self.cursor;
            if selected {
                let line = Rect::new(tree.x, tree.y + y as u16, tree.width, 1);
                buf.set_style(line.intersection(buf.area), cx.theme.selected(cx.focused));
            }
            put(buf, tree, y, &self.line(row, usize::from(tree.width), selected, cx));
        }
        if let Some((area, beside)) = panel {
            self.panel(area, beside, cx, buf);
        }
    }

    fn nothing(&self, cx: &Cx) -> Vec<String> {
        if let Some(problem) = &self.problem {
            return vec![text::clean(problem)];
        }
        if self.asked || cx.world.job(Job::Levels).is_some() {
            return vec![
                "Factorising the features themselves, level by level…".to_owned(),
                "Each level has half as many features as the one below; a feature is made of those that it sums."
                    .to_owned(),
            ];
        }
        match &cx.world.features {
            Some(list) if !list.finished => vec!["Levels are found once the fit has ended.".to_owned()],
            Some(_) => vec!["This fit has too few features for levels.".to_owned()],
            None => vec!["Levels show what features are made of; they need a fit.".to_owned()],
        }
    }

    fn line(&self, row: usize, width: usize, selected: bool, cx: &Cx) -> Line<'static> {
        let theme = cx.theme;
        let (Some(node), Some(path)) = (self.node(row), self.rows.get(row)) else { return Line::default() };
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
        let name = cx.world.row(node.feature).and_then(|r| r.name.clone()).filter(|_| node.level == 0);
        let number =
            if node.level == 0 { format!("#{} ", node.feature) } else { format!("{}.{} ", node.level, node.feature) };
        spans.push(Span::styled(number, theme.dim()));
        if let Some(name) = name {
            spans.push(Span::styled(format!("{} ", text::fit(&text::clean(&name), 24)), theme.name()));
        }
        let tail =
            node.purity.as_ref().map(|p| format!("{} {:.0}%", text::fit(&text::clean(&p.label), 14), p.share * 100.0));
        let tail = tail.unwrap_or_default();
        let used: usize = spans.iter().map(|s| text::width(&s.content)).sum();
        let rest = width.saturating_sub(used);
        let tail_room = if rest >= 30 { text::width(&tail) + 3 } else { 0 };
        spans.push(Span::styled(text::pad(&tokens(node, 8), rest.saturating_sub(tail_room)), theme.text()));
        if tail_room > 0 {
            let pure = node.purity.as_ref().is_some_and(|p| p.share >= 0.6);
            spans.push(Span::styled(format!("  {tail} "), if pure { theme.good() } else { theme.dim() }));
        }
        Line::from(spans)
    }

    /// `│ ├`: whether more children of each ancestor follow.
    fn branches(&self, row: usize) -> String {
        let path = &self.rows[row];
        let follows = |depth: usize| {
            let siblings = |p: &&Vec<usize>| p.len() == depth + 1 && p[..depth] == path[..depth];
            let ends = |p: &&Vec<usize>| p.len() <= depth;
            self.rows[row + 1..].iter().take_while(|p| !ends(p)).any(|p| siblings(&p))
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
        let &[.., parent, child] = path else { return 1.0 };
        let Some(node) = self.levels.as_ref().and_then(|l| l.nodes.get(parent)) else { return 0.0 };
        let at = node.children.iter().position(|c| *c == child);
        at.and_then(|at| node.shares.get(at)).copied().unwrap_or(0.0)
    }

    fn panel(&self, area: Rect, beside: bool, cx: &Cx, buf: &mut Buffer) {
        let theme = cx.theme;
        let inner = frame(area, beside, cx, buf);
        let Some(node) = self.node(self.cursor) else { return };
        let width = usize::from(inner.width);
        let mut lines = self.facts(node, width, cx);
        let (head, most) = (lines.len(), usize::from(inner.height));
        if head + 2 < most {
            lines.push(Line::default());
            lines.push(Line::styled("where it fires", theme.heading()));
        }
        let peak = node.contexts.iter().filter_map(|c| c.values.get(c.peak)).copied().fold(0.0, f32::max);
        for context in &node.contexts {
            let heat = Heat {
                tokens: &context.tokens,
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
        let error =
            info.map(|i| format!("{} neurons · level error {:.3}", text::count(node.neurons), i.relative_error));
        let made = match node.children.len() {
            0 => String::new(),
            n => format!("made of {n} · {} of the fit's features", node.features.len()),
        };
        let mut lines = vec![
            Line::styled(text::fit(&title, width), theme.heading()),
            Line::styled(text::fit(&error.unwrap_or_default(), width), theme.dim()),
        ];
        if !made.is_empty() {
            lines.push(Line::styled(text::fit(&made, width), theme.dim()));
        }
        let promoted = match (node.level, cx.world.row(node.feature)) {
            (0, Some(row)) => &row.promoted,
            _ => &node.promoted,
        };
        if !promoted.is_empty() {
            let listed: Vec<String> = promoted.iter().map(|t| text::token(t)).collect();
            lines.push(Line::from(vec![
                Span::styled("promotes ", theme.dim()),
                Span::styled(text::fit(&listed.join(" "), width.saturating_sub(9)), theme.positive()),
            ]));
        }
        lines
    }
}

fn tokens(node: &LevelNode, most: usize) -> String {
    super::draw::distinct(&node.top_tokens, most)
}

/// The tree, and where the node under the cursor is told of: beside it or below.
fn parts(area: Rect) -> (Rect, Option<(Rect, bool)>) {
    let mut tree = area;
    if area.width >= BESIDE && area.height >= 8 {
        let width = (area.width * 2 / 5).clamp(36, 56);
        tree.width = area.width - width;
        return (tree, Some((Rect { x: area.x + tree.width, width, ..area }, true)));
    }
    if area.height >= 12 {
        let height = if area.height >= 18 { 8 } else { 4 };
        tree.height = area.height - height;
        return (tree, Some((Rect { y: area.y + tree.height, height, ..area }, false)));
    }
    (tree, None)
}

/// Rules a panel off, and returns its inside.
pub(super) fn frame(area: Rect, beside: bool, cx: &Cx, buf: &mut Buffer) -> Rect {
    let rule = cx.theme.rule(false);
    if beside {
        for y in 0..usize::from(area.height) {
            put_at(buf, area, 0, y, &Line::styled("│", rule));
        }
        return Rect { x: area.x + 2.min(area.width), width: area.width.saturating_sub(3), ..area };
    }
    put(buf, area, 0, &Line::styled("─".repeat(usize::from(area.width)), rule));
    Rect {
        x: area.x + 1,
        y: area.y + 1.min(area.height),
        width: area.width.saturating_sub(2),
        height: area.height.saturating_sub(1),
    }
}
