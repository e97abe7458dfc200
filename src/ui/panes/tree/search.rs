//! Searching the tree: the features found, and the way to them.

use std::collections::HashMap;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::TreePane;
use super::levels::Jump;
use super::plot::{Folds, Item};
use crate::analysis::FeatureRow;
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::put;
use crate::ui::input::LineInput;
use crate::ui::pane::{Cx, Step};

/// Whether every word of `query` is found in the row's id, name, tokens or label.
pub(super) fn matches_query(row: &FeatureRow, query: &str) -> bool {
    distance(row, query).is_some()
}

/// How far from the front the words of `query` are found: in the id or the name, then the tokens
/// from the strongest on, then the label; `None` where one is not.
fn distance(row: &FeatureRow, query: &str) -> Option<usize> {
    let mut fields = vec![format!("#{}", row.id)];
    fields.extend(row.name.iter().map(|n| n.to_lowercase()));
    fields.extend(
        row.top_tokens
            .iter()
            .chain(row.promoted.iter().map(|t| &t.token))
            .map(|t| t.to_lowercase()),
    );
    fields.extend(row.purity.iter().map(|p| p.label.to_lowercase()));
    let lowercase = query.to_lowercase();
    lowercase
        .split_whitespace()
        .map(|word| fields.iter().position(|field| field.contains(word)))
        .sum()
}

impl TreePane {
    /// Searching, in either view; `None` for other actions.
    pub(super) fn search_act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        match action {
            Action::Filter => self.typing = true,
            Action::NextMatch => return Some(self.jump(true, false, true, cx)),
            Action::PreviousMatch => return Some(self.jump(false, false, true, cx)),
            Action::Back if !self.query.text().is_empty() => self.query = LineInput::default(),
            _ => return None,
        }
        self.scroll_to_cursor(cx);
        Some(Vec::new())
    }

    /// Whether a line is taken by what is searched for.
    pub(super) fn is_searching(&self) -> bool {
        self.typing || !self.query.text().is_empty()
    }

    /// What the search line leaves to the levels.
    pub(super) fn above_search<'a>(&self, cx: &Cx<'a>) -> Cx<'a> {
        let taken =
            u16::from((self.is_searching() || self.cutting.is_some()) && cx.area.height > 1);
        Cx {
            area: Rect {
                height: cx.area.height - taken,
                ..cx.area
            },
            ..*cx
        }
    }

    /// The search line, or that of their sizes, under the levels.
    pub(super) fn draw_search(&self, cx: &Cx, buf: &mut Buffer) {
        if cx.area.height < 2 {
            return;
        }
        let (width, last) = (usize::from(cx.area.width), usize::from(cx.area.height) - 1);
        match &self.cutting {
            Some(input) => put(
                buf,
                cx.area,
                last,
                &self.levels.sizes_line(input, width, cx),
            ),
            None if self.is_searching() => put(buf, cx.area, last, &search_line(self, width, cx)),
            None => {}
        }
    }

    /// How many the search finds.
    fn count(&self, cx: &Cx) -> usize {
        if self.levels.on {
            self.levels.count(self.query.text(), cx)
        } else {
            self.found(cx).len()
        }
    }

    /// The features that the search finds, in leaf order.
    pub(super) fn found(&self, cx: &Cx) -> Vec<usize> {
        let query = self.query.text();
        if query.trim().is_empty() {
            return Vec::new();
        }
        let unfolded = Folds {
            height: f32::NEG_INFINITY,
            by_hand: HashMap::new(),
            alone_open: true,
        };
        let leaves = self
            .plot
            .rows(&unfolded)
            .into_iter()
            .filter_map(|row| match row.item {
                Item::Node(node) => Some(node),
                Item::Alone => None,
            });
        leaves
            .filter(|&leaf| {
                cx.world
                    .row(self.plot.feature(leaf))
                    .is_some_and(|row| matches_query(row, query))
            })
            .collect()
    }

    /// To the nearest find from the cursor on, unfolding what hides it when `reveal`.
    pub(super) fn jump(&mut self, forward: bool, stay: bool, reveal: bool, cx: &Cx) -> Vec<Step> {
        if self.levels.on {
            return self.levels.jump(
                self.query.text(),
                Jump {
                    forward,
                    stay,
                    reveal,
                },
                &self.above_search(cx),
            );
        }
        let found = self.found(cx);
        let current_row = self
            .cursor
            .map_or(0, |item| self.plot.row_of(item, &self.rows));
        let rank = |leaf: usize| self.plot.row_of(Item::Node(leaf), &self.rows);
        let on = |leaf: usize| self.cursor == Some(Item::Node(leaf));
        let hit = if forward {
            let after = found.iter().position(|&leaf| on(leaf));
            let start = match after {
                Some(at) if stay => at,
                Some(at) => at + 1,
                None => found
                    .iter()
                    .position(|&leaf| rank(leaf) >= current_row)
                    .unwrap_or(0),
            };
            found.get(start).or(found.first())
        } else {
            let before = found.iter().position(|&leaf| on(leaf));
            let end = before.unwrap_or_else(|| {
                found
                    .iter()
                    .position(|&l| rank(l) >= current_row)
                    .unwrap_or(found.len())
            });
            found[..end].last().or(found.last())
        };
        let Some(&leaf) = hit else { return Vec::new() };
        self.go_to_leaf(leaf, reveal, cx)
    }

    /// To the nearest to what is typed.
    pub(super) fn typed(&mut self, cx: &Cx) -> Vec<Step> {
        if self.levels.on {
            return self.jump(true, true, false, cx);
        }
        let query = self.query.text();
        let far = |&leaf: &usize| {
            cx.world
                .row(self.plot.feature(leaf))
                .and_then(|row| distance(row, query))
        };
        match self.found(cx).into_iter().min_by_key(far) {
            Some(leaf) => self.go_to_leaf(leaf, false, cx),
            None => Vec::new(),
        }
    }

    fn go_to_leaf(&mut self, leaf: usize, reveal: bool, cx: &Cx) -> Vec<Step> {
        self.found_leaf = Some(leaf);
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
                self.scroll_to_cursor(cx);
                Some(Vec::new())
            }
            KeyCode::Enter => {
                self.typing = false;
                match self
                    .found_leaf
                    .filter(|leaf| !self.levels.on && self.found(cx).contains(leaf))
                {
                    Some(leaf) => Some(self.go_to_leaf(leaf, true, cx)),
                    None => Some(self.jump(true, true, true, cx)),
                }
            }
            KeyCode::Down | KeyCode::Up => {
                Some(self.jump(key.code == KeyCode::Down, false, false, cx))
            }
            _ => self.query.key(key).then(|| self.typed(cx)),
        }
    }
}

/// What is searched for, and how much is found.
pub(super) fn search_line(pane: &TreePane, width: usize, cx: &Cx) -> Line<'static> {
    let theme = cx.theme;
    let n = pane.count(cx);
    let count = if n == 1 {
        "1 feature".to_owned()
    } else {
        format!("{n} features")
    };
    let room = width.saturating_sub(3 + count.len());
    let mut spans = vec![Span::styled("/ ", theme.accent())];
    if pane.typing {
        spans.extend(pane.query.line(theme, room.saturating_sub(2)).spans);
    } else {
        spans.push(Span::raw(text::truncate(
            &text::clean(pane.query.text()),
            room.saturating_sub(2),
        )));
    }
    spans.push(Span::styled(
        format!("  {count}"),
        if n == 0 { theme.warning() } else { theme.dim() },
    ));
    if !pane.typing {
        let keys = format!("  {} next, esc clears", cx.key(Action::NextMatch));
        spans.push(Span::styled(keys, theme.dim()));
    }
    Line::from(spans)
}
