//! The list of what fires: its order, its cursor, and the whole of it as text.

use super::{LivePane, Shown, Sort, peak, view};
use crate::analysis::{Trace, TraceFeature};
use crate::interop::markdown::table;
use crate::pieces;
use crate::ui::action::Action;
use crate::ui::list::{motion, scroll};
use crate::ui::pane::{CopyFormats, Cx, Step};

/// The token that has this byte of the text.
fn token_of_byte(tokens: &[String], at: usize) -> usize {
    let mut end = 0;
    let ends = tokens.iter().map(|token| {
        end += token.len();
        end
    });
    ends.take_while(|end| *end <= at).count()
}

impl LivePane {
    pub(super) fn reorder(&mut self) {
        let Some(trace) = &self.trace else { return };
        let value = |i: &usize| {
            trace.features[*i]
                .values
                .get(self.token)
                .copied()
                .unwrap_or(0.0)
        };
        let peaks: Vec<f32> = trace.features.iter().map(peak).collect();
        self.order = (0..trace.features.len()).collect();
        let by_here = self.sort == Sort::Here;
        self.order.sort_by(|a, b| {
            let first = if by_here {
                value(b).total_cmp(&value(a))
            } else {
                std::cmp::Ordering::Equal
            };
            first.then(peaks[*b].total_cmp(&peaks[*a])).then(a.cmp(b))
        });
    }

    pub(super) fn show_trace(&mut self, trace: &Trace, cx: &Cx) {
        self.trace = Some(Box::new(trace.clone()));
        self.trace_list = super::list_on_show(cx);
        let last = trace.tokens.len().saturating_sub(1);
        if let Some(at) = self.token_at.take() {
            self.token = token_of_byte(&trace.tokens, at);
        }
        let follows = self.follow.as_ref().is_some_and(|follow| follow.tail);
        self.token = if self.typing || follows {
            last
        } else {
            self.token.min(last)
        };
        let is_there = |id: usize| trace.features.iter().any(|f| f.id == id);
        let kept = self.shown.filter(|shown| match shown {
            Shown::Feature(id) => is_there(*id),
            Shown::Unexplained => trace.unexplained.len() == trace.tokens.len(),
        });
        let selected = cx.world.selected.filter(|id| is_there(*id));
        let strongest = trace
            .features
            .iter()
            .max_by(|a, b| peak(a).total_cmp(&peak(b)))
            .map(|f| f.id);
        self.shown = kept.or(selected.or(strongest).map(Shown::Feature));
        self.reorder();
        match self.sort {
            Sort::Here => self.offset = 0,
            Sort::Peak => self.scroll_to_cursor(cx),
        }
    }

    /// The first line in sight of a list `height` lines high.
    pub(super) fn top(&self, height: usize) -> usize {
        self.offset.min(self.count().saturating_sub(height))
    }

    /// The feature on the heat map.
    pub(super) fn feature(&self) -> Option<&TraceFeature> {
        let Some(Shown::Feature(id)) = self.shown else {
            return None;
        };
        self.trace.as_ref()?.features.iter().find(|f| f.id == id)
    }

    /// Lines before the features: what is left unexplained, where that means something.
    fn leading_lines(&self) -> usize {
        usize::from(
            self.trace
                .as_ref()
                .is_some_and(|trace| trace.unexplained.len() == trace.tokens.len()),
        )
    }

    /// Lines of the list: what is left unexplained, then the features.
    pub(super) fn count(&self) -> usize {
        if self.trace.is_some() {
            self.order.len() + self.leading_lines()
        } else {
            0
        }
    }

    pub(super) fn line(&self, at: usize) -> Option<Shown> {
        let trace = self.trace.as_ref()?;
        match at.checked_sub(self.leading_lines()) {
            None => Some(Shown::Unexplained),
            Some(i) => self
                .order
                .get(i)
                .map(|&f| Shown::Feature(trace.features[f].id)),
        }
    }

    pub(super) fn position(&self) -> usize {
        (0..self.count())
            .find(|&at| self.line(at) == self.shown)
            .unwrap_or(0)
    }

    pub(super) fn scroll_to_cursor(&mut self, cx: &Cx) {
        self.offset = scroll(
            self.offset,
            self.position(),
            self.count(),
            view::list_height(self, cx),
        );
    }

    pub(super) fn go_token(&mut self, to: usize) {
        self.token = to.min(self.tokens().saturating_sub(1));
        if self.sort == Sort::Here {
            self.reorder();
            // What fires here is at the top of the list; the map stays on its feature.
            self.offset = 0;
        }
    }

    /// Where a step in the list begins: its cursor, or the first line in sight when that is out of
    /// it.
    pub(super) fn step(&self, action: Action, cx: &Cx) -> Option<usize> {
        let height = view::list_height(self, cx);
        let (at, top) = (self.position(), self.top(height));
        let from = if (top..top + height).contains(&at) {
            at
        } else {
            top
        };
        motion(action, from, self.count(), height)
    }

    pub(super) fn open(&self) -> Vec<Step> {
        match self.shown {
            Some(Shown::Feature(id)) => vec![Step::Visit(id)],
            _ => Vec::new(),
        }
    }

    /// Token by token: what fires, strongest first.
    pub(super) fn copy(&self) -> Option<Vec<Step>> {
        let trace = self.trace.as_ref()?;
        let lines: Vec<String> = (0..trace.tokens.len())
            .map(|t| {
                let mut firing: Vec<(usize, f32)> = trace
                    .features
                    .iter()
                    .filter_map(|f| f.values.get(t).filter(|v| **v > 0.0).map(|v| (f.id, *v)))
                    .collect();
                firing.sort_by(|a, b| b.1.total_cmp(&a.1));
                let listed: Vec<String> = firing
                    .iter()
                    .take(8)
                    .map(|(id, v)| format!("#{id} {v:.3}"))
                    .collect();
                let left = trace
                    .unexplained
                    .get(t)
                    .map_or_else(|| "-".to_owned(), |left| format!("{left:.3}"));
                format!(
                    "{}\t{left}\t{}",
                    pieces::token_name(&trace.tokens, t),
                    listed.join(", ")
                )
            })
            .collect();
        let cells: Vec<Vec<String>> = lines
            .iter()
            .map(|l| l.split('\t').map(str::to_owned).collect())
            .collect();
        Some(vec![Step::CopyAs(Box::new(CopyFormats {
            what: format!("{} tokens with their features", lines.len()),
            text: lines.join("\n"),
            json: serde_json::to_value(trace).unwrap_or_default(),
            markdown: table(&["token", "unexplained", "features"], &cells),
        }))])
    }
}

#[cfg(test)]
mod tests {
    use super::token_of_byte;

    #[test]
    fn a_byte_is_of_the_token_that_holds_it() {
        let tokens = [" By", "", " Sun", "day"].map(str::to_owned);
        let of = |at| token_of_byte(&tokens, at);
        assert_eq!([0, 2, 3, 6, 7, 99].map(of), [0, 0, 2, 2, 3, 4]);
    }
}
