//! Levels of features of features as a tree to walk: what a coarse feature is made of, down to the
//! features of the fit. Owns the folds and the cursor; the numbers come from the engine.
//!
//! Invariant: a row is named by its path, because a feature can be a child of several.

mod search;
mod sizes;
mod view;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::uses_part;
use crate::analysis::{LevelNode, Levels};
use crate::engine::{Command, Reply, RequestId};
use crate::factor::recursive::Growth;
use crate::text;
use crate::ui::action::Action;
use crate::ui::list::{motion, scroll};
use crate::ui::pane::{Cx, Step};
pub(super) use search::Jump;
pub(super) use view::frame;
use view::{parts, tokens};

/// The levels view of the Tree pane.
#[derive(Debug, Default)]
pub(super) struct LevelsView {
    /// It is what the pane shows.
    pub on: bool,
    growth: Growth,
    /// Whether all levels are tuned together.
    joint: bool,
    /// Features of each level, as they were typed; empty: by halves.
    sizes: Vec<usize>,
    levels: Option<Arc<Levels>>,
    /// The snapshot they are of: fit and sweep.
    snapshot: Option<(String, usize)>,
    /// The request that is not answered yet.
    open_request: Option<RequestId>,
    problem: Option<String>,
    rows: Vec<Vec<usize>>,
    open: HashSet<Vec<usize>>,
    cursor: usize,
    offset: usize,
    /// Where a session left it, until the levels are there.
    saved: Option<SavedPosition>,
}

/// What was open and where the cursor was, in the levels of a fit.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SavedPosition {
    fit: String,
    open: BTreeSet<Vec<usize>>,
    cursor: Vec<usize>,
}

/// Roots in the order of a reader's interest: meaning first.
fn roots(levels: &Levels) -> Vec<usize> {
    let top = levels.levels.len().saturating_sub(1);
    let mut roots: Vec<&LevelNode> = levels.nodes.iter().filter(|n| n.level == top).collect();
    let purity = |n: &LevelNode| n.purity.as_ref().map_or(0.0, |p| p.share);
    roots.sort_by(|a, b| purity(b).total_cmp(&purity(a)).then(a.id.cmp(&b.id)));
    roots.into_iter().map(|n| n.id).collect()
}

/// The paths from the roots down, parents before their children, into what `is_open`.
fn paths(levels: &Levels, is_open: impl Fn(&[usize]) -> bool) -> Vec<Vec<usize>> {
    let mut out = Vec::new();
    let mut stack: Vec<Vec<usize>> = roots(levels).into_iter().rev().map(|id| vec![id]).collect();
    while let Some(path) = stack.pop() {
        if is_open(&path)
            && let Some(node) = path.last().and_then(|&id| levels.nodes.get(id))
        {
            // Children lie below their parent, so that every path ends.
            let below = node.children.iter().rev().filter(|&&c| c < node.id);
            stack.extend(below.map(|&c| [&path[..], &[c]].concat()));
        }
        out.push(path);
    }
    out
}

impl LevelsView {
    /// As it was chosen to be, with nothing on show: for another study.
    pub fn without_levels(self) -> Self {
        let Self {
            on,
            growth,
            joint,
            sizes,
            saved,
            ..
        } = self;
        Self {
            on,
            growth,
            joint,
            sizes,
            saved,
            ..Self::default()
        }
    }

    /// What is remembered from one run to the next.
    pub fn session(&self) -> Value {
        let now = self.snapshot.as_ref().filter(|_| self.levels.is_some());
        let saved = now.map(|(fit, _)| SavedPosition {
            fit: fit.clone(),
            open: self.open.iter().cloned().collect(),
            cursor: self.rows.get(self.cursor).cloned().unwrap_or_default(),
        });
        let saved = saved.as_ref().or(self.saved.as_ref());
        json!({ "on": self.on, "growth": self.growth, "together": self.joint, "sizes": self.sizes, "left": saved })
    }

    pub fn restore(&mut self, session: &Value) {
        self.on = session["on"].as_bool().unwrap_or(self.on);
        self.growth = serde_json::from_value(session["growth"].clone()).unwrap_or(self.growth);
        self.joint = session["together"].as_bool().unwrap_or(self.joint);
        self.sizes = serde_json::from_value(session["sizes"].clone()).unwrap_or_default();
        self.saved = serde_json::from_value(session["left"].clone()).ok();
    }

    /// Asks for the levels of the fit on show unless they are there or asked for.
    pub fn request_levels(&mut self, cx: &Cx) -> Vec<Step> {
        let Some(list) = cx.world.features.as_ref().filter(|list| list.finished) else {
            return Vec::new();
        };
        let newest = (list.fit.clone(), list.sweep);
        if !self.on || self.snapshot.as_ref() == Some(&newest) {
            return Vec::new();
        }
        let snapshot = Some(newest);
        let sizes = self.fitting_sizes(cx);
        let request = cx.request(Command::Levels(self.growth, self.joint, sizes));
        *self = Self {
            on: true,
            snapshot,
            open_request: Some(request.id),
            ..std::mem::take(self).without_levels()
        };
        vec![Step::Request(request)]
    }

    /// Whether `reply` answers the open request.
    pub fn is_open(&self, reply: &Reply) -> bool {
        reply.is_to(self.open_request)
    }

    /// Takes the other rule for the sparsity p of a level.
    pub fn next_growth(&mut self, cx: &Cx) -> Vec<Step> {
        self.growth = if self.growth == Growth::Growing {
            Growth::Fixed
        } else {
            Growth::Growing
        };
        self.snapshot = None;
        self.request_levels(cx)
    }

    /// Tunes all levels together, or leaves each as it was found from the one below.
    pub fn toggle_together(&mut self, cx: &Cx) -> Vec<Step> {
        (self.joint, self.snapshot) = (!self.joint, None);
        self.request_levels(cx)
    }

    pub fn show_levels(&mut self, levels: &Arc<Levels>) {
        self.open_request = None;
        self.problem = None;
        self.levels = Some(levels.clone());
        self.open.clear();
        if let Some(&first) = roots(levels).first() {
            self.open.insert(vec![first]);
        }
        (self.cursor, self.offset) = (0, 0);
        let saved = self.saved.take().filter(|saved| {
            self.snapshot
                .as_ref()
                .is_some_and(|(fit, _)| *fit == saved.fit)
        });
        if let Some(saved) = &saved {
            self.open = saved.open.iter().cloned().collect();
        }
        self.update_rows();
        if let Some(saved) = saved {
            self.cursor = self
                .rows
                .iter()
                .position(|path| *path == saved.cursor)
                .unwrap_or(0);
        }
    }

    pub fn fail(&mut self, problem: &str) {
        self.open_request = None;
        self.problem = Some(problem.to_owned());
    }

    fn update_rows(&mut self) {
        let Some(levels) = &self.levels else { return };
        self.rows = paths(levels, |path| self.open.contains(path));
        self.cursor = self.cursor.min(self.rows.len().saturating_sub(1));
    }

    /// Whether there is nothing to walk.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn node(&self, row: usize) -> Option<&LevelNode> {
        self.levels
            .as_ref()?
            .nodes
            .get(*self.rows.get(row)?.last()?)
    }

    /// The feature of the fit under the cursor.
    pub fn feature(&self) -> Option<usize> {
        self.node(self.cursor)
            .filter(|n| n.level == 0)
            .map(|n| n.feature)
    }

    /// The features of the fit below the cursor.
    pub fn features(&self) -> Vec<usize> {
        self.node(self.cursor)
            .map(|n| n.features.clone())
            .unwrap_or_default()
    }

    fn fold(&mut self, open: Option<bool>) {
        let Some(path) = self.rows.get(self.cursor).cloned() else {
            return;
        };
        let now = self.open.contains(&path);
        if open.unwrap_or(!now) {
            self.open.insert(path);
        } else {
            self.open.remove(&path);
        }
        self.update_rows();
    }

    /// How many rows are in sight.
    fn height(&self, cx: &Cx) -> usize {
        usize::from(parts(cx.area).0.height).max(1)
    }

    /// Why an action cannot be done while levels are on show; `searching`: something is searched
    /// for.
    pub fn refusal(&self, action: Action, searching: bool, cx: &Cx) -> Option<String> {
        let walk = matches!(
            action,
            Action::Fold | Action::FoldMore | Action::FoldLess | Action::Open | Action::Filter
        );
        let search = matches!(action, Action::NextMatch | Action::PreviousMatch);
        let ended = || cx.world.features.as_ref().is_some_and(|list| list.finished);
        match () {
            () if uses_part(action) => Some(format!(
                "that is for the dendrogram: {} shows it",
                cx.key(Action::TreeKind)
            )),
            () if action == Action::CutAt && !ended() => {
                Some("levels are found once the fit has ended".to_owned())
            }
            () if walk && self.is_empty() => Some("no levels yet".to_owned()),
            () if search && !searching => Some("nothing is searched for".to_owned()),
            () => None,
        }
    }

    pub fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let height = self.height(cx);
        if let Some(to) = motion(action, self.cursor, self.rows.len(), height) {
            self.cursor = to;
            self.offset = scroll(self.offset, to, self.rows.len(), height);
            return Some(
                self.feature()
                    .filter(|id| cx.world.selected != Some(*id))
                    .map(Step::Select)
                    .into_iter()
                    .collect(),
            );
        }
        let leaf = self.feature();
        let path = self.rows.get(self.cursor).cloned().unwrap_or_default();
        match action {
            Action::Open | Action::Right if leaf.is_some() => {
                return Some(leaf.map(Step::Visit).into_iter().collect());
            }
            Action::Open | Action::Fold => self.fold(None),
            Action::Right => self.fold(Some(true)),
            Action::Left if self.open.contains(&path) => self.fold(Some(false)),
            Action::Left => {
                let parent = &path[..path.len().saturating_sub(1)];
                self.cursor = self
                    .rows
                    .iter()
                    .position(|p| p == parent)
                    .unwrap_or(self.cursor);
            }
            Action::FoldMore => {
                self.open.clear();
                self.update_rows();
            }
            Action::FoldLess => {
                self.open.extend(self.rows.iter().cloned());
                self.update_rows();
            }
            Action::Copy => {
                let lines: Vec<String> = (0..self.rows.len()).map(|row| self.plain(row)).collect();
                return Some(vec![Step::Copy(
                    lines.join("\n"),
                    format!("{} rows of the levels", lines.len()),
                )]);
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
        if double {
            self.act(Action::Open, cx).unwrap_or_default()
        } else {
            Vec::new()
        }
    }

    pub fn title(&self, width: u16) -> String {
        let Some(levels) = &self.levels else {
            return "Levels of features".to_owned();
        };
        let counts: Vec<String> = levels
            .levels
            .iter()
            .map(|l| l.features.to_string())
            .collect();
        let shares: Vec<String> = levels
            .levels
            .iter()
            .map(|l| text::percent(l.sparsity as f32))
            .collect();
        let short = format!("Levels {}", counts.join(" → "));
        let tuned = if levels.levels.iter().any(|l| l.joint.is_some()) {
            " · tuned"
        } else {
            ""
        };
        if width < 72 {
            return format!("{short}{tuned}");
        }
        format!(
            "{short} · p {} ({}){tuned}",
            shares.join(" → "),
            levels.growth
        )
    }

    fn plain(&self, row: usize) -> String {
        let Some(node) = self.node(row) else {
            return String::new();
        };
        let depth = self.rows[row].len() - 1;
        format!(
            "{}{}.{} {}",
            "  ".repeat(depth),
            node.level,
            node.feature,
            tokens(node, 8)
        )
    }
}
