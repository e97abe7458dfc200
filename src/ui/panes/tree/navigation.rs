//! Moving about in the tree, folding and unfolding.

use super::panel::{self, Link};
use super::plot::Item;
use super::{TreePane, draw};
use crate::ui::action::Action;
use crate::ui::list::motion;
use crate::ui::pane::{Cx, Step};

impl TreePane {
    /// Into the panel and about in it; `None` for what is the tree's.
    pub(super) fn walk_panel(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let links = if draw::has_panel(self, cx) {
            panel::links(self, cx)
        } else {
            Vec::new()
        };
        let Some(at) = self
            .panel_cursor
            .map(|at| at.min(links.len().saturating_sub(1)))
        else {
            let goes = action == Action::NextPane && !links.is_empty();
            self.panel_cursor = goes.then_some(0);
            return goes.then(Vec::new);
        };
        if let Some(to) = motion(action, at, links.len(), 6) {
            self.panel_cursor = Some(to);
            return Some(Vec::new());
        }
        match action {
            Action::Open | Action::Right => Some(match links.get(at) {
                Some(Link::Neuron(index)) => vec![Step::VisitNeuron(*index)],
                Some(Link::Feature(id)) => vec![Step::Visit(*id)],
                None => Vec::new(),
            }),
            Action::Back | Action::Left | Action::PreviousPane => {
                self.panel_cursor = None;
                Some(Vec::new())
            }
            Action::NextPane => {
                self.panel_cursor = None;
                None
            }
            _ => None,
        }
    }

    pub(super) fn fold(&mut self, node: usize, folded: bool, cx: &Cx) -> Vec<Step> {
        if folded {
            self.folds.by_hand.insert(self.plot.key(node), true);
        } else {
            for below in self.plot.descendants(node) {
                self.folds.by_hand.insert(self.plot.key(below), false);
            }
        }
        self.refold(cx)
    }

    pub(super) fn toggle(&mut self, cx: &Cx) -> Vec<Step> {
        match self.cursor {
            Some(Item::Alone) => {
                self.folds.alone_open = !self.folds.alone_open;
                self.refold(cx)
            }
            Some(Item::Node(node)) if !self.plot.is_leaf(node) => {
                let folded = self.plot.is_folded(node, &self.folds);
                self.fold(node, !folded, cx)
            }
            // On a leaf: the cluster around it.
            Some(Item::Node(leaf)) => match self.plot.parent(leaf) {
                Some(parent) => self.fold(parent, true, cx),
                None => Vec::new(),
            },
            None => Vec::new(),
        }
    }

    /// Folds up to the next height at which the picture changes.
    pub(super) fn fold_to(&mut self, more: bool, cx: &Cx) -> Vec<Step> {
        let mut heights = self.plot.heights();
        heights.insert(0, f32::NEG_INFINITY);
        let now = self.folds.height;
        let by_hand = !self.folds.by_hand.is_empty();
        self.folds.by_hand.clear();
        let before = if by_hand { usize::MAX } else { self.rows.len() };
        let candidates: Vec<f32> = if more {
            heights.into_iter().filter(|h| *h > now).collect()
        } else {
            heights.into_iter().rev().filter(|h| *h < now).collect()
        };
        // A step of the picture, not of the data: hundreds of merges lie close together. A step is
        // seen when the axis moves or about a fifth of the rows come or go.
        let least = (self.plot.high - self.plot.low) / 24.0;
        for height in candidates {
            self.folds.height = height;
            let far = !now.is_finite() || !height.is_finite() || (height - now).abs() >= least;
            let rows = self.plot.rows(&self.folds).len();
            if rows != before && (far || rows.abs_diff(before) > before / 5) {
                break;
            }
        }
        self.refold(cx)
    }

    pub(super) fn vertical(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let item = self.cursor?;
        let mut at = self.plot.row_of(item, &self.rows);
        // From branches, a step leaves them.
        if self.rows.get(at).is_none_or(|row| row.item != item)
            && let Item::Node(node) = item
        {
            let (first, last) = self.plot.span(node, &self.rows);
            at = match action {
                Action::Up => first,
                Action::Down => last,
                _ => at,
            };
        }
        let to = motion(action, at, self.rows.len(), draw::tree_height(self, cx))?;
        let row = self.rows.get(to)?.item;
        Some(self.go(row, cx))
    }

    pub(super) fn sideways(&mut self, forward: bool, cx: &Cx) -> Option<Vec<Step>> {
        let item = self.cursor?;
        let Item::Node(node) = item else {
            if self.folds.alone_open == forward {
                return if forward {
                    self.vertical(Action::Down, cx)
                } else {
                    Some(Vec::new())
                };
            }
            return Some(self.toggle(cx));
        };
        if !forward {
            if self.plot.alone.contains(&node) {
                return Some(self.go(Item::Alone, cx));
            }
            return Some(
                self.plot
                    .parent(node)
                    .map(|p| self.go(Item::Node(p), cx))
                    .unwrap_or_default(),
            );
        }
        if self.plot.is_leaf(node) {
            return Some(vec![Step::Visit(self.plot.feature(node))]);
        }
        if self.plot.is_folded(node, &self.folds) {
            return Some(self.fold(node, false, cx));
        }
        // Going in keeps the cluster that one looks into: its members' own neurons are told from
        // the whole of it.
        let scope = self.scope.filter(|&scope| self.plot.is_within(node, scope));
        let child = self.plot.children(node).first().copied()?;
        let steps = self.go(Item::Node(child), cx);
        self.scope = scope.or(self.scope);
        Some(steps)
    }

    pub(super) fn open(&mut self, cx: &Cx) -> Vec<Step> {
        match self.cursor {
            Some(Item::Node(node)) if self.plot.is_leaf(node) => {
                vec![Step::Visit(self.plot.feature(node))]
            }
            _ => self.toggle(cx),
        }
    }
}
