//! Searching the levels: every node, at whatever depth, and the way to it.

use std::collections::HashSet;

use super::{LevelsView, paths};
use crate::analysis::LevelNode;
use crate::ui::list::scroll;
use crate::ui::pane::{Cx, Step};
use crate::ui::panes::tree::search::matches_query;

/// Where a search goes.
#[derive(Debug, Clone, Copy)]
pub(in crate::ui::panes::tree) struct Jump {
    /// Down, rather than up.
    pub forward: bool,
    /// What is under the cursor counts.
    pub stay: bool,
    /// Unfold what hides it; else to the fold.
    pub reveal: bool,
}

/// Whether every word of `query` is found in the node's tokens or label, or in all that is known of
/// a feature of the fit.
fn node_matches(node: &LevelNode, query: &str, cx: &Cx) -> bool {
    if let (0, Some(row)) = (node.level, cx.world.row(node.feature)) {
        return matches_query(row, query);
    }
    let mut fields: Vec<String> = node
        .top_tokens
        .iter()
        .chain(node.promoted.iter().map(|t| &t.token))
        .map(|t| t.to_lowercase())
        .collect();
    fields.extend(node.purity.iter().map(|p| p.label.to_lowercase()));
    query
        .to_lowercase()
        .split_whitespace()
        .all(|word| fields.iter().any(|field| field.contains(word)))
}

impl LevelsView {
    fn found(&self, query: &str, cx: &Cx) -> HashSet<usize> {
        let nodes = self.levels.iter().flat_map(|levels| &levels.nodes);
        let asked = !query.trim().is_empty();
        nodes
            .filter(|node| asked && node_matches(node, query, cx))
            .map(|node| node.id)
            .collect()
    }

    /// How many nodes the search finds.
    pub fn count(&self, query: &str, cx: &Cx) -> usize {
        self.found(query, cx).len()
    }

    /// To the next find, round the end.
    pub fn jump(&mut self, query: &str, jump: Jump, cx: &Cx) -> Vec<Step> {
        let Some(levels) = &self.levels else {
            return Vec::new();
        };
        let (found, all) = (self.found(query, cx), paths(levels, |_| true));
        let current = self
            .rows
            .get(self.cursor)
            .and_then(|path| all.iter().position(|p| p == path))
            .unwrap_or(0);
        let n = all.len();
        let hit = (usize::from(!jump.stay)..=n)
            .map(|step| {
                if jump.forward {
                    (current + step) % n
                } else {
                    (current + n - step % n) % n
                }
            })
            .find(|&at| all[at].last().is_some_and(|id| found.contains(id)));
        let Some(path) = hit.map(|at| all[at].clone()) else {
            return Vec::new();
        };
        if jump.reveal {
            self.open
                .extend((1..path.len()).map(|depth| path[..depth].to_vec()));
            self.update_rows();
        }
        let seen = (1..=path.len())
            .rev()
            .find_map(|depth| self.rows.iter().position(|p| *p == path[..depth]));
        self.cursor = seen.unwrap_or(self.cursor);
        self.offset = scroll(self.offset, self.cursor, self.rows.len(), self.height(cx));
        self.feature()
            .filter(|id| cx.world.selected != Some(*id))
            .map(Step::Select)
            .into_iter()
            .collect()
    }
}
