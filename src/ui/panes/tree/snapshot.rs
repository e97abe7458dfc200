//! From a snapshot of the fit to its tree on show: asked for when it is needed, taken without
//! moving the cursor.

use std::time::Duration;

use super::TreePane;
use super::plot::{self, Item, Plot};
use crate::engine::{Command, Reply};
use crate::ui::pane::{Cx, Step};

/// How often the tree is asked for again while the fit runs.
const REFRESH: Duration = Duration::from_secs(3);

/// After this time an unanswered request counts as lost.
const TIMEOUT: Duration = Duration::from_secs(30);

impl TreePane {
    /// Asks for the tree of the newest snapshot, unless it is there, asked for, or too soon.
    pub(super) fn request_tree(&mut self, cx: &Cx) -> Vec<Step> {
        let Some(list) = &cx.world.features else {
            return Vec::new();
        };
        let now = cx.world.now;
        let newest = (list.fit.clone(), list.sweep);
        if self.snapshot.as_ref() == Some(&newest) || list.rows.is_empty() {
            return Vec::new();
        }
        let waiting = self.tree_request.is_some_and(|(_, at)| now < at + TIMEOUT);
        let soon =
            self.tree_due.is_some_and(|due| now < due) && !list.finished && !self.plot.is_empty();
        if waiting || soon {
            return Vec::new();
        }
        self.snapshot = Some(newest);
        let request = cx.request(Command::Tree(self.overlap, self.linkage));
        self.tree_request = Some((request.id, now));
        self.tree_due = Some(now + REFRESH);
        vec![Step::Request(request)]
    }

    /// Whether `reply` answers the open request for a tree.
    pub(super) fn is_open(&self, reply: &Reply) -> bool {
        reply.is_to(self.tree_request.map(|(request, _)| request))
    }

    pub(super) fn show_tree(&mut self, plot: Plot, cx: &Cx) -> Vec<Step> {
        let was = self.cursor.map(|item| match item {
            Item::Node(node) => (
                plot::key(&self.plot.features(item)),
                self.plot.is_leaf(node),
            ),
            Item::Alone => (0, false),
        });
        let scope = self.scope.map(|node| self.plot.key(node));
        // Heights of another measure are other heights, clusters of another fit other clusters.
        let fit = self.snapshot.as_ref().map(|(fit, _)| fit.clone());
        let other = self.folds_of != fit;
        let first = self.plot.is_empty() || other || self.plot.tree.measure != plot.tree.measure;
        self.folds_of = fit;
        self.plot = plot;
        self.shared.clear();
        self.shared_request = None;
        self.scope = scope
            .filter(|_| !other)
            .and_then(|key| self.plot.by_key(key));
        let mut left = None;
        if first {
            self.folds = self.plot.first_folds();
            left = self.restore_folds();
        }
        self.rows = self.plot.rows(&self.folds);
        let again = was
            .filter(|_| !other)
            .and_then(|(key, _)| self.plot.by_key(key))
            .map(Item::Node);
        let selected = cx
            .world
            .selected
            .and_then(|id| self.plot.leaf_of(id))
            .map(Item::Node);
        let first_row = self.rows.first().map(|r| r.item);
        self.cursor = None;
        let item = left.or(again).or(selected).or(first_row);
        item.map(|item| self.go(self.seen(item), cx))
            .unwrap_or_default()
    }

    /// The item, or the fold that hides it.
    pub(super) fn seen(&self, item: Item) -> Item {
        let at = self.plot.row_of(item, &self.rows);
        self.rows
            .get(at)
            .filter(|row| row.folded)
            .map_or(item, |row| row.item)
    }
}
