//! From a snapshot of the fit to its tree on show: asked for when it is needed, taken without moving the cursor.

use std::time::Duration;

use serde_json::Value;

use super::TreePane;
use super::plot::{self, Item, Plot};
use crate::engine::Command;
use crate::ui::panes::{Cx, Step};

/// How often the tree is asked for again while the fit runs.
const REFRESH: Duration = Duration::from_secs(3);

/// After this a question counts as lost.
const LOST: Duration = Duration::from_secs(30);

impl TreePane {
    /// Asks for the tree of the newest snapshot, unless it is there, asked for, or too soon.
    pub(super) fn want_tree(&mut self, cx: &Cx) -> Vec<Step> {
        let Some(list) = &cx.world.features else { return Vec::new() };
        let now = cx.world.now;
        let newest = (list.fit.clone(), list.sweep);
        if self.of.as_ref() == Some(&newest) || list.rows.is_empty() {
            return Vec::new();
        }
        let waiting = self.asked.is_some_and(|at| now < at + LOST);
        let soon = self.ask_at.is_some_and(|due| now < due) && !list.finished && !self.plot.is_empty();
        if waiting || soon {
            return Vec::new();
        }
        self.of = Some(newest);
        self.asked = Some(now);
        self.ask_at = Some(now + REFRESH);
        vec![Step::Send(Command::Tree(self.overlap, self.linkage))]
    }

    pub(super) fn take(&mut self, plot: Plot, cx: &Cx) -> Vec<Step> {
        let was = self.cursor.map(|item| match item {
            Item::Node(node) => (plot::key(&self.plot.features(item)), self.plot.is_leaf(node)),
            Item::Alone => (0, false),
        });
        let scope = self.scope.map(|node| self.plot.key(node));
        // Heights of another measure are other heights.
        let first = self.plot.is_empty() || self.plot.tree.measure != plot.tree.measure;
        self.plot = plot;
        self.shared.clear();
        self.scope = scope.and_then(|key| self.plot.by_key(key));
        if first {
            self.folds = self.plot.first_folds();
            self.recall();
        }
        self.rows = self.plot.rows(&self.folds);
        let again = was.and_then(|(key, _)| self.plot.by_key(key)).map(Item::Node);
        let selected = cx.world.selected.and_then(|id| self.plot.leaf_of(id)).map(Item::Node);
        let first_row = self.rows.first().map(|r| r.item);
        self.cursor = None;
        let item = again.or(selected).or(first_row);
        item.map(|item| self.go(self.seen(item), cx)).unwrap_or_default()
    }

    /// The item, or the fold that hides it.
    pub(super) fn seen(&self, item: Item) -> Item {
        let at = self.plot.row_of(item, &self.rows);
        self.rows.get(at).filter(|row| row.folded).map_or(item, |row| row.item)
    }

    /// Takes up what a session saved.
    pub(super) fn recall(&mut self) {
        let Some(saved) = self.saved.take() else { return };
        self.folds.height = saved["fold_height"].as_f64().map_or(f32::NEG_INFINITY, |height| height as f32);
        self.folds.alone_open = saved["alone_open"].as_bool().unwrap_or(self.folds.alone_open);
        for (name, folded) in [("folded", true), ("unfolded", false)] {
            let keys = saved[name].as_array().into_iter().flatten().filter_map(Value::as_u64);
            self.folds.by_hand.extend(keys.map(|key| (key, folded)));
        }
    }
}
