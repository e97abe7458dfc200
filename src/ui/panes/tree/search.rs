//! Searching the tree: the features found, and the way to them.

use std::collections::HashMap;

use crossterm::event::{KeyCode, KeyEvent};

use super::TreePane;
use super::plot::{Folds, Item};
use crate::analysis::FeatureRow;
use crate::ui::input::LineInput;
use crate::ui::panes::{Cx, Step};

/// Whether every word of `query` is found in the row's id, name, label or tokens.
pub(super) fn finds(row: &FeatureRow, query: &str) -> bool {
    let mut fields = vec![format!("#{}", row.id)];
    fields.extend(row.name.iter().map(|n| n.to_lowercase()));
    fields.extend(row.purity.iter().map(|p| p.label.to_lowercase()));
    fields.extend(row.top_tokens.iter().chain(&row.promoted).map(|t| t.to_lowercase()));
    query.to_lowercase().split_whitespace().all(|word| fields.iter().any(|field| field.contains(word)))
}

impl TreePane {
    /// The features that the search finds, in leaf order.
    pub(super) fn found(&self, cx: &Cx) -> Vec<usize> {
        let query = self.query.text();
        if query.trim().is_empty() {
            return Vec::new();
        }
        let unfolded = Folds { height: f32::NEG_INFINITY, by_hand: HashMap::new(), alone_open: true };
        let leaves = self.plot.rows(&unfolded).into_iter().filter_map(|row| match row.item {
            Item::Node(node) => Some(node),
            Item::Alone => None,
        });
        leaves.filter(|&leaf| cx.world.row(self.plot.feature(leaf)).is_some_and(|row| finds(row, query))).collect()
    }

    /// To the nearest find from the cursor on, unfolding what hides it when `reveal`.
    pub(super) fn jump(&mut self, forward: bool, stay: bool, reveal: bool, cx: &Cx) -> Vec<Step> {
        let found = self.found(cx);
        let here = self.cursor.map_or(0, |item| self.plot.row_of(item, &self.rows));
        let rank = |leaf: usize| self.plot.row_of(Item::Node(leaf), &self.rows);
        let on = |leaf: usize| self.cursor == Some(Item::Node(leaf));
        let hit = if forward {
            let after = found.iter().position(|&leaf| on(leaf));
            let start = match after {
                Some(at) if stay => at,
                Some(at) => at + 1,
                None => found.iter().position(|&leaf| rank(leaf) >= here).unwrap_or(0),
            };
            found.get(start).or(found.first())
        } else {
            let before = found.iter().position(|&leaf| on(leaf));
            let end = before.unwrap_or_else(|| found.iter().position(|&l| rank(l) >= here).unwrap_or(found.len()));
            found[..end].last().or(found.last())
        };
        let Some(&leaf) = hit else { return Vec::new() };
        if reveal {
            self.reveal(leaf);
        }
        // What it shares is told from its nearest relatives, not from where the search began.
        self.scope = None;
        self.go(self.seen(Item::Node(leaf)), cx)
    }

    pub(super) fn reveal(&mut self, leaf: usize) {
        let mut at = self.plot.parent(leaf);
        while let Some(node) = at {
            if self.plot.is_folded(node, &self.folds) {
                self.folds.by_hand.insert(self.plot.key(node), false);
            }
            at = self.plot.parent(node);
        }
        self.folds.alone_open |= self.plot.alone.contains(&leaf);
        self.rows = self.plot.rows(&self.folds);
    }

    pub(super) fn search_key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        match key.code {
            KeyCode::Esc => {
                self.typing = false;
                self.query = LineInput::default();
                self.settle(cx);
                Some(Vec::new())
            }
            KeyCode::Enter => {
                self.typing = false;
                Some(self.jump(true, true, true, cx))
            }
            KeyCode::Down | KeyCode::Up => Some(self.jump(key.code == KeyCode::Down, false, false, cx)),
            _ => self.query.key(key).then(|| self.jump(true, true, false, cx)),
        }
    }
}
