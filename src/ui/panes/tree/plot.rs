//! A dendrogram made ready to be drawn: parents, the order of children, what shares nothing, the
//! span of the heights. Owns the geometry; knows no key and no colour.
//!
//! Invariant: whatever the engine sends, every child has a smaller index than its parent, so that
//! every walk ends.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::analysis::Tree;

/// From this height on two clusters have no neuron in common.
const UNSHARED: f32 = 1.0 - 1e-4;

/// Rows that a tree may take before clusters are folded at first.
const FIRST_ROWS: usize = 48;

/// What a row, or the cursor, stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Item {
    /// A node: a leaf or a cluster.
    Node(usize),
    /// The features that share nothing.
    Alone,
}

/// A row on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub item: Item,
    /// A cluster drawn as one line.
    pub folded: bool,
}

/// Which clusters are drawn as one line.
#[derive(Debug, Clone, Default)]
pub(super) struct Folds {
    /// Clusters that join at this height or below.
    pub height: f32,
    /// What was folded (true) or unfolded by hand, by [`Plot::key`].
    pub by_hand: HashMap<u64, bool>,
    /// The features that share nothing are listed.
    pub alone_open: bool,
}

/// A dendrogram with what drawing needs of each node, by its index.
#[derive(Debug, Clone, Default)]
pub(super) struct Plot {
    pub tree: Arc<Tree>,
    parent: Vec<Option<usize>>,
    /// The children of each node, the one with the lowest merge first.
    children: Vec<Vec<usize>>,
    key: Vec<u64>,
    /// Clusters that share nothing with one another, tightest first.
    pub roots: Vec<usize>,
    /// Leaves that share nothing with any.
    pub alone: Vec<usize>,
    /// The heights of the first and the last merge that share anything.
    pub low: f32,
    pub high: f32,
}

impl Plot {
    pub fn new(tree: Arc<Tree>) -> Self {
        let n = tree.nodes.len();
        let mut parent = vec![None; n];
        let mut children: Vec<Vec<usize>> = Vec::with_capacity(n);
        let mut tight = vec![f32::INFINITY; n];
        for (id, node) in tree.nodes.iter().enumerate() {
            let mut own: Vec<usize> = node.children.iter().copied().filter(|&c| c < id).collect();
            own.retain(|&c| parent[c].is_none());
            for &child in &own {
                parent[child] = Some(id);
            }
            if !own.is_empty() {
                tight[id] = own.iter().map(|&c| tight[c]).fold(node.height, f32::min);
            }
            own.sort_by(|&a, &b| tight[a].total_cmp(&tight[b]).then(a.cmp(&b)));
            children.push(own);
        }
        let mut plot = Self {
            parent,
            children,
            low: f32::INFINITY,
            high: 0.0,
            ..Self::default()
        };
        plot.key = tree.nodes.iter().map(|node| key(&node.features)).collect();
        plot.tree = tree;
        for id in 0..n {
            let leaf = plot.is_leaf(id);
            let height = plot.height(id);
            if !leaf && height >= UNSHARED {
                continue;
            }
            if !leaf {
                (plot.low, plot.high) = (plot.low.min(height), plot.high.max(height));
            }
            if plot.parent(id).is_none() {
                if leaf {
                    plot.alone.push(id)
                } else {
                    plot.roots.push(id)
                }
            }
        }
        if plot.high < plot.low {
            (plot.low, plot.high) = (0.0, 1.0);
        }
        plot.roots
            .sort_by(|&a, &b| tight[a].total_cmp(&tight[b]).then(a.cmp(&b)));
        plot
    }

    pub fn is_empty(&self) -> bool {
        self.tree.nodes.is_empty()
    }

    pub fn is_leaf(&self, node: usize) -> bool {
        self.children.get(node).is_none_or(Vec::is_empty)
    }

    pub fn height(&self, node: usize) -> f32 {
        self.tree.nodes.get(node).map_or(0.0, |n| n.height)
    }

    pub fn features(&self, item: Item) -> Vec<usize> {
        match item {
            Item::Node(node) => self
                .tree
                .nodes
                .get(node)
                .map(|n| n.features.clone())
                .unwrap_or_default(),
            Item::Alone => self.alone.iter().map(|&leaf| self.feature(leaf)).collect(),
        }
    }

    /// The feature of a leaf.
    pub fn feature(&self, leaf: usize) -> usize {
        self.tree
            .nodes
            .get(leaf)
            .and_then(|n| n.features.first().copied())
            .unwrap_or(leaf)
    }

    /// Names a cluster by its members, so that it is found again in another tree.
    pub fn key(&self, node: usize) -> u64 {
        self.key.get(node).copied().unwrap_or(0)
    }

    /// The cluster with these members, in any order.
    pub fn by_key(&self, key: u64) -> Option<usize> {
        self.key.iter().position(|k| *k == key)
    }

    pub fn leaf_of(&self, feature: usize) -> Option<usize> {
        (0..self.tree.nodes.len()).find(|&id| self.is_leaf(id) && self.feature(id) == feature)
    }

    /// The cluster that a node is part of, unless the two sides share nothing.
    pub fn parent(&self, node: usize) -> Option<usize> {
        self.parent
            .get(node)
            .copied()
            .flatten()
            .filter(|&p| self.height(p) < UNSHARED)
    }

    pub fn children(&self, node: usize) -> &[usize] {
        self.children.get(node).map_or(&[], Vec::as_slice)
    }

    /// Whether `node` is `ancestor` or below it.
    pub fn is_within(&self, node: usize, ancestor: usize) -> bool {
        let mut at = Some(node);
        while let Some(n) = at {
            if n == ancestor {
                return true;
            }
            at = self.parent.get(n).copied().flatten();
        }
        false
    }

    /// `node` and everything below it.
    pub fn descendants(&self, node: usize) -> Vec<usize> {
        let mut all = vec![node];
        let mut at = 0;
        while at < all.len() {
            all.extend_from_slice(self.children(all[at]));
            at += 1;
        }
        all
    }

    /// The folds that a tree begins with: none when it is small, else up to the least height at
    /// which it is.
    pub fn first_folds(&self) -> Folds {
        let mut folds = Folds {
            height: f32::NEG_INFINITY,
            ..Folds::default()
        };
        if self.rows(&folds).len() > FIRST_ROWS {
            folds.height = self.high;
            for height in self.heights() {
                let tried = Folds {
                    height,
                    ..Folds::default()
                };
                if self.rows(&tried).len() <= FIRST_ROWS {
                    folds.height = height;
                    break;
                }
            }
        }
        // With nothing else to see, they are the tree.
        folds.alone_open = self.roots.is_empty();
        folds
    }

    /// The distinct heights of the merges, ascending.
    pub fn heights(&self) -> Vec<f32> {
        let merges = (0..self.tree.nodes.len())
            .filter(|&id| !self.is_leaf(id))
            .map(|id| self.height(id));
        let mut heights: Vec<f32> = merges.filter(|h| *h < UNSHARED).collect();
        heights.sort_by(f32::total_cmp);
        heights.dedup();
        heights
    }

    pub fn is_folded(&self, node: usize, folds: &Folds) -> bool {
        let by_height = self.height(node) <= folds.height;
        !self.is_leaf(node)
            && folds
                .by_hand
                .get(&self.key(node))
                .copied()
                .unwrap_or(by_height)
    }

    /// The rows from top to bottom.
    pub fn rows(&self, folds: &Folds) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut open: Vec<usize> = self.roots.iter().rev().copied().collect();
        while let Some(node) = open.pop() {
            let folded = self.is_folded(node, folds);
            if folded || self.is_leaf(node) {
                rows.push(Row {
                    item: Item::Node(node),
                    folded,
                });
            } else {
                open.extend(self.children(node).iter().rev());
            }
        }
        if !self.alone.is_empty() {
            rows.push(Row {
                item: Item::Alone,
                folded: !folds.alone_open,
            });
            if folds.alone_open {
                rows.extend(self.alone.iter().map(|&leaf| Row {
                    item: Item::Node(leaf),
                    folded: false,
                }));
            }
        }
        rows
    }

    /// The row on which an item is seen: its own, that of the fold that hides it, or the middle of
    /// its branches.
    pub fn row_of(&self, item: Item, rows: &[Row]) -> usize {
        if let Some(at) = rows.iter().position(|r| r.item == item) {
            return at;
        }
        let Item::Node(node) = item else { return 0 };
        if self.alone.contains(&node) {
            return self.row_of(Item::Alone, rows);
        }
        let hidden =
            |r: &Row| matches!(r.item, Item::Node(n) if r.folded && self.is_within(node, n));
        if let Some(at) = rows.iter().position(hidden) {
            return at;
        }
        let (first, last) = self.span(node, rows);
        usize::midpoint(first, last)
    }

    /// The first and the last row below a node.
    pub fn span(&self, node: usize, rows: &[Row]) -> (usize, usize) {
        let inside = |r: &Row| matches!(r.item, Item::Node(n) if self.is_within(n, node));
        let first = rows.iter().position(inside).unwrap_or(0);
        let last = rows.iter().rposition(inside).unwrap_or(first);
        (first, last)
    }

    /// The column of a height in a picture `cells` wide: the last merge left, the first right,
    /// leaves at the edge.
    pub fn column(&self, height: f32, cells: usize) -> usize {
        // A stem before the first and a branch behind the last.
        let room = cells.saturating_sub(5);
        let span = self.high - self.low;
        let share = if span > 0.0 {
            ((self.high - height) / span).clamp(0.0, 1.0)
        } else {
            0.5
        };
        1 + (share * room as f32).round() as usize
    }
}

/// FNV-1a over the sorted members.
pub(super) fn key(features: &[usize]) -> u64 {
    let mut sorted = features.to_vec();
    sorted.sort_unstable();
    sorted.iter().fold(0xcbf2_9ce4_8422_2325, |hash, f| {
        (hash ^ *f as u64).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(super) const LEFT: u8 = 1;
pub(super) const RIGHT: u8 = 2;
pub(super) const UP: u8 = 4;
pub(super) const DOWN: u8 = 8;

/// The branches of some rows, a cell each.
pub(super) struct Grid {
    cells: usize,
    top: usize,
    /// Where a line leaves the cell.
    pub lines: Vec<u8>,
    /// Belongs to what the cursor is on.
    pub chosen: Vec<bool>,
}

impl Grid {
    fn add(&mut self, row: usize, column: usize, lines: u8, chosen: bool) {
        let height = self.lines.len() / self.cells.max(1);
        if row >= self.top && row < self.top + height && column < self.cells {
            let at = (row - self.top) * self.cells + column;
            self.lines[at] |= lines;
            self.chosen[at] |= chosen;
        }
    }

    fn horizontal(&mut self, row: usize, from: usize, to: usize, chosen: bool) {
        for column in from..=to {
            let ends =
                (if column > from { LEFT } else { 0 }) | (if column < to { RIGHT } else { 0 });
            self.add(row, column, ends, chosen);
        }
    }

    fn vertical(&mut self, column: usize, from: usize, to: usize, chosen: bool) {
        for row in from..=to {
            let ends = (if row > from { UP } else { 0 }) | (if row < to { DOWN } else { 0 });
            self.add(row, column, ends, chosen);
        }
    }
}

impl Plot {
    /// The branches of rows `top..top + height` in a picture `cells` wide; what lies under `chosen`
    /// is marked.
    pub fn grid(
        &self,
        rows: &[Row],
        top: usize,
        height: usize,
        cells: usize,
        chosen: Item,
    ) -> Grid {
        let size = height * cells;
        let mut grid = Grid {
            cells,
            top,
            lines: vec![0; size],
            chosen: vec![false; size],
        };
        let edge = cells.saturating_sub(1);
        let mut at: HashMap<usize, usize> = HashMap::new();
        for (y, row) in rows.iter().enumerate() {
            if let Item::Node(node) = row.item {
                at.insert(node, y);
            }
        }
        let roots: HashSet<usize> = self.roots.iter().copied().collect();
        // Children come before parents, so every open cluster finds its children placed.
        for node in 0..self.tree.nodes.len() {
            if self.is_leaf(node) || at.contains_key(&node) || self.height(node) >= UNSHARED {
                continue;
            }
            let places: Vec<(usize, usize)> = self
                .children(node)
                .iter()
                .filter_map(|&child| at.get(&child).map(|&y| (child, y)))
                .collect();
            let (Some(first), Some(last)) = (
                places.iter().map(|p| p.1).min(),
                places.iter().map(|p| p.1).max(),
            ) else {
                continue;
            };
            let x = self.column(self.height(node), cells);
            let within = matches!(chosen, Item::Node(c) if self.is_within(node, c));
            grid.vertical(x, first, last, within);
            for &(child, y) in &places {
                let open = !rows.get(y).is_some_and(|r| r.item == Item::Node(child));
                let to = if open {
                    self.column(self.height(child), cells)
                } else {
                    edge
                };
                let lit = within || chosen == Item::Node(child);
                grid.horizontal(y, x, to, lit);
                if !open {
                    grid.add(y, edge, LEFT | RIGHT, lit);
                }
            }
            let middle = usize::midpoint(first, last);
            at.insert(node, middle);
            if roots.contains(&node) {
                let lit = chosen == Item::Node(node);
                grid.horizontal(middle, x.saturating_sub(1), x, lit);
                grid.add(middle, x.saturating_sub(1), LEFT | RIGHT, lit);
            }
        }
        for &top in &self.roots {
            if rows.iter().any(|r| r.item == Item::Node(top)) {
                let x = self.column(self.height(top), cells);
                grid.horizontal(
                    at[&top],
                    x.saturating_sub(1),
                    edge,
                    chosen == Item::Node(top),
                );
            }
        }
        grid
    }
}

/// The box-drawing character whose lines leave the cell on these sides.
pub(super) fn glyph(lines: u8) -> char {
    const GLYPHS: [char; 16] = [
        ' ', '╴', '╶', '─', '╵', '┘', '└', '┴', '╷', '┐', '┌', '┬', '│', '┤', '├', '┼',
    ];
    GLYPHS[usize::from(lines & 15)]
}

/// The same in heavy lines.
pub(super) fn heavy(lines: u8) -> char {
    const GLYPHS: [char; 16] = [
        ' ', '╸', '╺', '━', '╹', '┛', '┗', '┻', '╻', '┓', '┏', '┳', '┃', '┫', '┣', '╋',
    ];
    GLYPHS[usize::from(lines & 15)]
}
