//! The dendrogram cut at a height that is typed; the same line takes the levels' sizes.

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::text::{Line, Span};

use super::TreePane;
use super::plot::{Folds, Item};
use crate::engine::Level;
use crate::text;
use crate::ui::input::LineInput;
use crate::ui::pane::{Cx, Step};

/// How many clusters of two or more there are below a height, and how many features are by
/// themselves.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    clusters: usize,
    single: usize,
}

impl TreePane {
    /// Begins to ask for the height, with the one that it is cut at now.
    pub(super) fn edit_cut(&mut self, cx: &Cx) {
        if self.levels.on {
            self.cutting = Some(self.levels.sizes_input(cx));
            return;
        }
        let now = Some(self.folds.height).filter(|h| h.is_finite());
        let now = now.map_or_else(String::new, |height| self.short_height(height));
        self.cutting = Some(LineInput::new(&now));
    }

    /// A height in the fewest digits that cut the tree where it is cut now.
    fn short_height(&self, height: f32) -> String {
        let now = self.cut_at(height);
        let same = |typed: &String| typed.parse().is_ok_and(|typed| self.cut_at(typed) == now);
        (2..8)
            .map(|digits| format!("{height:.digits$}"))
            .find(same)
            .unwrap_or_else(|| height.to_string())
    }

    fn typed_height(&self) -> Option<f32> {
        let typed = self.cutting.as_ref()?.text().trim().parse::<f32>().ok()?;
        (typed.is_finite() && (0.0..=1.0).contains(&typed)).then_some(typed)
    }

    pub(super) fn cut_key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        match key.code {
            KeyCode::Esc => self.cutting = None,
            KeyCode::Enter if self.levels.on => {
                let typed = self.cutting.as_ref()?.text().to_owned();
                return Some(match self.levels.set_sizes(&typed, cx) {
                    Ok(steps) => {
                        self.cutting = None;
                        steps
                    }
                    Err(problem) => vec![Step::Notify(Level::Warn, problem)],
                });
            }
            KeyCode::Enter => {
                let Some(height) = self.typed_height() else {
                    let message = "a height is a number from 0 to 1, such as 0.85".to_owned();
                    return Some(vec![Step::Notify(Level::Warn, message)]);
                };
                self.cutting = None;
                self.folds.by_hand.clear();
                self.folds.height = height;
                return Some(self.refold(cx));
            }
            _ => {
                let input = self.cutting.as_mut()?;
                return input.key(key).then(Vec::new);
            }
        }
        self.scroll_to_cursor(cx);
        Some(Vec::new())
    }

    fn cut_at(&self, height: f32) -> Cut {
        let rows = self.plot.rows(&Folds {
            height,
            ..Folds::default()
        });
        let clusters = rows
            .iter()
            .filter(|row| row.folded && row.item != Item::Alone)
            .count();
        let leaves = rows
            .iter()
            .filter(|row| matches!(row.item, Item::Node(node) if self.plot.is_leaf(node)))
            .count();
        Cut {
            clusters,
            single: leaves + self.plot.alone.len(),
        }
    }

    /// What the tree is cut at, in words for a title; nothing where it is whole or folded by hand.
    pub(super) fn cut_description(&self) -> Option<String> {
        let height =
            Some(self.folds.height).filter(|h| h.is_finite() && self.folds.by_hand.is_empty())?;
        let Cut { clusters, single } = self.cut_at(height);
        Some(format!(
            "cut at {height:.2}: {clusters} clusters, {single} single"
        ))
    }

    /// The line in which the height is typed.
    pub(super) fn cut_line(&self, input: &LineInput, width: usize, cx: &Cx) -> Line<'static> {
        let theme = cx.theme;
        let summary = match self.typed_height().map(|height| self.cut_at(height)) {
            Some(Cut { clusters, single }) => {
                format!("  {clusters} clusters, {single} features by themselves")
            }
            None => "  a number from 0 to 1".to_owned(),
        };
        let mut spans = vec![Span::styled("cut at height ", theme.accent())];
        spans.extend(input.line(theme, 8).spans);
        let used: usize = spans.iter().map(|s| text::width(&s.content)).sum();
        spans.push(Span::styled(
            text::truncate(&summary, width.saturating_sub(used)),
            theme.dim(),
        ));
        Line::from(spans)
    }
}
