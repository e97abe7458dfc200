//! The dendrogram of shared neurons, as a thing to work in: fold, unfold, search, and steer with
//! what a cluster has in common or what one member has for itself. Owns the cursor and the folds;
//! the geometry is in [`plot`].
//!
//! Invariant: cursor and folds are kept by the members of a cluster, so that a new snapshot's tree
//! does not move them.

mod commands;
mod cut;
mod draw;
mod levels;
mod navigation;
mod panel;
mod plot;
mod search;
mod session;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use crossterm::event::KeyEvent;
use ratatui::buffer::Buffer;
use ratatui::text::Line;
use serde_json::Value;

use crate::analysis::SharedNeurons;
use crate::analysis::hierarchy::Linkage;
use crate::analysis::neurons::Overlap;
use crate::engine::{Command, Event, Job, Mode, Reply, RequestId};
use crate::text;
use crate::ui::action::Action;
use crate::ui::input::LineInput;
use crate::ui::list::scroll;
use crate::ui::pane::{Cx, Handover, Pane, Step};
use crate::ui::pane_id::PaneId;
use plot::{Folds, Item, Plot, Row};

/// The cursor must stand this long before its cluster's neurons are requested.
const DEBOUNCE: Duration = Duration::from_millis(80);

/// The dendrogram and the levels, what is folded, and the cursor.
#[derive(Debug, Default)]
pub struct TreePane {
    /// Shown instead of the dendrogram when it is on.
    levels: levels::LevelsView,
    overlap: Overlap,
    linkage: Linkage,
    plot: Plot,
    rows: Vec<Row>,
    folds: Folds,
    cursor: Option<Item>,
    /// The cluster that the cursor was on last: what a leaf's own neurons are told from.
    scope: Option<usize>,
    offset: usize,
    /// The snapshot that the tree belongs to: fit and sweep.
    snapshot: Option<(String, usize)>,
    /// The fit that folds and cursor are of.
    folds_of: Option<String>,
    /// The request for a tree that is not answered yet, and when it was sent.
    tree_request: Option<(RequestId, Duration)>,
    tree_due: Option<Duration>,
    /// Why there is no tree, for a person.
    problem: Option<String>,
    /// What clusters share, by [`plot::key`].
    shared: HashMap<u64, SharedNeurons>,
    shared_due: Option<Duration>,
    /// The request for such neurons that is not answered yet.
    shared_request: Option<RequestId>,
    /// The cursor of the panel, when it is in there.
    panel_cursor: Option<usize>,
    /// The height to cut at, or the levels' sizes, being typed.
    cutting: Option<LineInput>,
    query: LineInput,
    typing: bool,
    /// The leaf that the search went to last.
    found_leaf: Option<usize>,
    /// The folds and the cursor to begin with, from a session.
    saved: Option<Value>,
}

impl TreePane {
    /// The cluster whose neurons are on show: the one under the cursor, or the one that the leaf is
    /// seen in.
    fn cluster(&self) -> Option<usize> {
        match self.cursor? {
            Item::Alone => None,
            Item::Node(node) if !self.plot.is_leaf(node) => Some(node),
            Item::Node(leaf) => self
                .scope
                .filter(|&scope| self.plot.is_within(leaf, scope))
                .or_else(|| self.plot.parent(leaf)),
        }
    }

    fn shared(&self) -> Option<&SharedNeurons> {
        self.shared.get(&self.plot.key(self.cluster()?))
    }

    /// Puts the cursor on an item, which is seen.
    fn go(&mut self, item: Item, cx: &Cx) -> Vec<Step> {
        self.cursor = Some(item);
        self.panel_cursor = None;
        self.scroll_to_cursor(cx);
        let mut steps = Vec::new();
        if let Item::Node(node) = item {
            if self.plot.is_leaf(node) {
                let id = self.plot.feature(node);
                if cx.focused && cx.world.selected != Some(id) {
                    steps.push(Step::Select(id));
                }
            } else {
                self.scope = Some(node);
            }
        }
        let known = self
            .cluster()
            .is_none_or(|c| self.shared.contains_key(&self.plot.key(c)));
        self.shared_due = (!known).then(|| cx.world.now + DEBOUNCE);
        steps
    }

    fn scroll_to_cursor(&mut self, cx: &Cx) {
        let height = draw::tree_height(self, cx);
        if let Some(item) = self.cursor {
            let at = self.plot.row_of(item, &self.rows);
            self.offset = scroll(self.offset, at, self.rows.len(), height);
        }
    }

    /// After the folds changed: the cursor stays, or goes to what hides it.
    fn refold(&mut self, cx: &Cx) -> Vec<Step> {
        self.rows = self.plot.rows(&self.folds);
        let Some(item) = self.cursor else {
            return Vec::new();
        };
        self.go(self.seen(item), cx)
    }
}

/// Whether an action takes a part of a feature's neurons, told from a cluster.
fn uses_part(action: Action) -> bool {
    use Action::{AblateCore, AblateExclusive, AblateThree, SteerCore, SteerExclusive, SteerThree};
    let all = [
        SteerCore,
        SteerExclusive,
        SteerThree,
        AblateCore,
        AblateExclusive,
        AblateThree,
    ];
    all.contains(&action)
}

impl Pane for TreePane {
    fn id(&self) -> PaneId {
        PaneId::Tree
    }

    fn title(&self, cx: &Cx) -> Line<'static> {
        if self.levels.on {
            return Line::raw(self.levels.title(cx.area.width));
        }
        let measure = text::clean(&self.plot.tree.measure);
        if let (false, Some(cut)) = (self.plot.is_empty(), self.cut_description()) {
            return Line::raw(if cx.area.width < 72 {
                format!("Tree {cut}")
            } else {
                format!("Tree {cut} · {measure}")
            });
        }
        Line::raw(match self.plot.is_empty() {
            true => "Tree".to_owned(),
            false if cx.area.width < 72 => "Tree of shared neurons".to_owned(),
            false => format!("Tree of shared neurons · {measure}"),
        })
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        if self.levels.on {
            return self
                .levels
                .refusal(action, !self.query.text().is_empty(), cx);
        }
        let mine = matches!(
            action,
            Action::Fold
                | Action::FoldMore
                | Action::FoldLess
                | Action::Ablate
                | Action::CutAt
                | Action::Filter
                | Action::Open
                | Action::NextMatch
                | Action::PreviousMatch
        ) || uses_part(action);
        if !mine {
            return None;
        }
        if self.plot.is_empty() {
            return Some("no tree yet: it needs a fit".to_owned());
        }
        let on_leaf = matches!(self.cursor, Some(Item::Node(node)) if self.plot.is_leaf(node));
        match action {
            _ if uses_part(action) && self.cluster().is_none() => {
                Some("it shares no neurons with other features, so there is no core".to_owned())
            }
            _ if uses_part(action)
                && !matches!(action, Action::SteerCore | Action::AblateCore)
                && !on_leaf =>
            {
                Some("own neurons are one feature's: put the cursor on a feature".to_owned())
            }
            Action::NextMatch | Action::PreviousMatch if self.query.text().is_empty() => {
                Some("nothing is searched for".to_owned())
            }
            Action::FoldMore | Action::FoldLess | Action::CutAt if self.plot.roots.is_empty() => {
                Some("no features share neurons".to_owned())
            }
            _ => None,
        }
    }

    fn typing(&self) -> bool {
        self.typing || self.cutting.is_some()
    }

    fn typing_hints(&self) -> Vec<(&'static str, &'static str)> {
        if self.cutting.is_some() {
            let what = if self.levels.on {
                "finds the levels"
            } else {
                "cuts"
            };
            return vec![("enter", what), ("esc", "leaves it")];
        }
        vec![
            ("enter", "goes there"),
            ("down", "next"),
            ("esc", "leaves it"),
        ]
    }

    fn key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        if self.cutting.is_some() {
            self.cut_key(key, cx)
        } else {
            self.search_key(key, cx)
        }
    }

    fn paste(&mut self, pasted: &str, cx: &Cx) -> Vec<Step> {
        if let Some(input) = &mut self.cutting {
            input.paste(pasted);
            return Vec::new();
        }
        self.query.paste(pasted);
        self.typed(cx)
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        match action {
            Action::TreeKind => return Some(self.toggle_levels(cx)),
            Action::Linkage => return Some(self.next_linkage(cx)),
            Action::Overlap => return Some(self.next_overlap(cx)),
            Action::Export => return Some(self.export(cx)),
            Action::CutAt => {
                self.edit_cut(cx);
                self.scroll_to_cursor(cx);
                return Some(Vec::new());
            }
            Action::SteerWith | Action::SuppressWith | Action::Ablate if self.levels.on => {
                let negative = action == Action::SuppressWith;
                let mut steps = vec![Step::steer(&self.levels.features(), negative, true)];
                steps.extend(
                    (action == Action::Ablate)
                        .then_some(Step::HandOver(PaneId::Steer, Handover::Mode(Mode::Ablate))),
                );
                return Some(steps);
            }
            _ => {}
        }
        if let Some(steps) = self.search_act(action, cx) {
            return Some(steps);
        }
        if self.levels.on {
            return self.levels.act(action, &self.above_search(cx));
        }
        if self.plot.is_empty() {
            return None;
        }
        if let Some(steps) = self.walk_panel(action, cx) {
            return Some(steps);
        }
        match action {
            Action::Left => self.sideways(false, cx),
            Action::Right => self.sideways(true, cx),
            Action::Open => Some(self.open(cx)),
            Action::Fold => Some(self.toggle(cx)),
            Action::FoldMore => Some(self.fold_to(true, cx)),
            Action::FoldLess => Some(self.fold_to(false, cx)),
            Action::SteerWith | Action::SuppressWith | Action::Ablate => self.steer(action),
            _ if uses_part(action) => self.steer(action),
            Action::Copy => Some(self.copy(cx)),
            _ => self.vertical(action, cx),
        }
    }

    fn entered(&mut self, cx: &Cx) -> Vec<Step> {
        let selected = cx.world.selected.and_then(|id| self.plot.leaf_of(id));
        let mut steps = Vec::new();
        if let Some(leaf) = selected {
            let holds =
                matches!(self.cursor, Some(Item::Node(node)) if self.plot.is_within(leaf, node));
            if !holds {
                steps.extend(self.go(self.seen(Item::Node(leaf)), cx));
            }
        }
        steps.extend(self.request_tree(cx));
        steps.extend(self.levels.request_levels(cx));
        steps
    }

    fn selection_changed(&mut self, cx: &Cx) -> Vec<Step> {
        // The place on the screen may have changed too.
        self.scroll_to_cursor(cx);
        Vec::new()
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        match &reply.event {
            Event::Study(_) | Event::Closed if cx.world.features.is_none() => {
                let Self {
                    overlap, linkage, ..
                } = *self;
                let levels = std::mem::take(&mut self.levels).without_levels();
                let mut anew = Self {
                    overlap,
                    linkage,
                    levels,
                    ..Self::default()
                };
                // A session was restored before its study was told of.
                if matches!(reply.event, Event::Study(_)) {
                    (anew.saved, anew.query) = (self.saved.take(), std::mem::take(&mut self.query));
                }
                *self = anew;
                Vec::new()
            }
            Event::Features(_) if cx.focused => {
                let mut steps = self.request_tree(cx);
                steps.extend(self.levels.request_levels(cx));
                steps
            }
            Event::Levels(levels) if self.levels.is_open(reply) => {
                self.levels.show_levels(levels);
                Vec::new()
            }
            Event::Failed(Job::Levels, why) if self.levels.is_open(reply) => {
                self.levels.fail(why);
                Vec::new()
            }
            Event::Cancelled(Job::Levels) if self.levels.is_open(reply) => {
                self.levels.fail("Finding levels was cancelled.");
                Vec::new()
            }
            Event::Tree(tree) if self.is_open(reply) => {
                self.tree_request = None;
                self.problem = None;
                let mut steps = self.show_tree(Plot::new(tree.clone()), cx);
                if cx.focused {
                    steps.extend(self.request_tree(cx));
                }
                steps
            }
            Event::Shared(shared) if reply.is_to(self.shared_request) => {
                self.shared_request = None;
                self.shared
                    .insert(plot::key(&shared.features), (**shared).clone());
                Vec::new()
            }
            Event::Refused(why) if self.is_open(reply) => {
                self.tree_request = None;
                self.problem = Some(why.clone());
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.shared_due.into_iter().chain(self.tree_due).min()
    }

    fn tick(&mut self, cx: &Cx) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.shared_due.is_some_and(|at| at <= cx.world.now) {
            self.shared_due = None;
            if let Some(cluster) = self.cluster() {
                let features = self.plot.features(Item::Node(cluster));
                let request = cx.request(Command::Shared(features));
                self.shared_request = Some(request.id);
                steps.push(Step::Request(request));
            }
        }
        if self.tree_due.is_some_and(|at| at <= cx.world.now) {
            self.tree_due = None;
            if cx.focused {
                steps.extend(self.request_tree(cx));
            }
        }
        steps
    }

    fn click(&mut self, column: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        if self.levels.on {
            return self
                .levels
                .click(column, row, double, &self.above_search(cx));
        }
        let Some(item) = draw::item_at(self, column, row, cx) else {
            return Vec::new();
        };
        let mut steps = self.go(item, cx);
        if double {
            steps.extend(self.open(cx));
        }
        steps
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        if self.levels.on {
            self.levels.draw(&self.above_search(cx), buf);
            return self.draw_search(cx, buf);
        }
        draw::draw(self, cx, buf);
    }

    fn session(&self) -> Value {
        self.session_value()
    }

    fn restore(&mut self, session: &Value, _: &Cx) {
        self.restore_session(session);
    }
}
