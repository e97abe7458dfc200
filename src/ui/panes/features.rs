//! The feature list: one line a feature, sorted and filtered. Owns the sort, the filter and the
//! order that they give.
//!
//! Invariant: the selection is a feature id, so that a new snapshot, a sort or a filter never moves
//! it to another feature.

mod columns;
mod copied;
mod filter;
mod sort;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use nucleo_matcher::{Config, Matcher};
use ratatui::buffer::Buffer;
use ratatui::text::{Line, Span};
use serde_json::{Value, json};

use crate::analysis::FeatureRow;
use crate::engine::{Command, Event, Probe, Reply, RequestId};
use crate::text;
use crate::ui::action::Action;
use crate::ui::draw::{put, put_at, put_selected};
use crate::ui::input::LineInput;
use crate::ui::list::{motion, scroll};
use crate::ui::pane::{Cx, Pane, Step};
use crate::ui::pane_id::PaneId;
use columns::Columns;
use filter::Filter;
use sort::Sort;

/// A filter's probes are sent when it was not typed on for this long.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// The feature list: its order, its filter and the cursor.
#[derive(Debug, Default)]
pub struct FeaturesPane {
    sort: Sort,
    reversed: bool,
    query: LineInput,
    typing: bool,
    /// The cursor was moved or the feature under it looked into; until then it stays on the first
    /// line.
    cursor_moved: bool,
    /// Feature ids in the order shown.
    order: Vec<usize>,
    offset: usize,
    /// The scores that the engine gave to the filter's probes, for the snapshot `answered_snapshot`.
    answers: HashMap<Probe, Arc<Vec<f32>>>,
    requested: HashSet<Probe>,
    /// The requests that are not answered yet.
    waiting: HashMap<RequestId, Probe>,
    answered_snapshot: (String, usize),
    /// When the filter's probes are sent; `None` where all were.
    probes_due: Option<Duration>,
}

impl FeaturesPane {
    fn reorder(&mut self, cx: &Cx) {
        let rows = cx.world.rows();
        let filter = Filter::new(self.query.text());
        let mut matcher = Matcher::new(Config::DEFAULT);
        let answers = |probe: &Probe| self.answers.get(probe).map(|scores| &**scores);
        let score = |row| {
            filter
                .passes(row, &answers, &mut matcher)
                .map(|score| (score, row))
        };
        let mut kept: Vec<(f32, &FeatureRow)> = match filter.is_empty() {
            true => rows.iter().map(|row| (0.0, row)).collect(),
            false => rows.iter().filter_map(score).collect(),
        };
        // What answers a question best comes first.
        kept.sort_by(|a, b| {
            b.0.total_cmp(&a.0)
                .then_with(|| self.sort.compare(a.1, b.1))
        });
        if self.reversed {
            kept.reverse();
        }
        self.order = kept.into_iter().map(|(_, row)| row.id).collect();
        // A number that is typed is that feature's before it is a part of others'.
        let typed = self.query.text().trim();
        let exact = typed.strip_prefix('#').and_then(|id| id.parse().ok());
        let at = exact.and_then(|id: usize| self.order.iter().position(|other| *other == id));
        if let Some(at) = at {
            self.order[..=at].rotate_right(1);
        }
    }

    fn position(&self, cx: &Cx) -> Option<usize> {
        let selected = cx.world.selected?;
        self.order.iter().position(|id| *id == selected)
    }

    /// After the order changed: keeps the selection, or takes the first line when it is gone.
    fn keep_selection(&mut self, cx: &Cx) -> Vec<Step> {
        let height = list_height(self, cx);
        self.cursor_moved |= !cx.focused;
        match self.position(cx).filter(|at| self.cursor_moved || *at == 0) {
            Some(at) => {
                self.offset = scroll(self.offset, at, self.order.len(), height);
                Vec::new()
            }
            None => {
                self.offset = 0;
                self.order
                    .first()
                    .map(|id| Step::Select(*id))
                    .into_iter()
                    .collect()
            }
        }
    }

    fn move_to(&mut self, at: usize, cx: &Cx) -> Vec<Step> {
        let Some(id) = self.order.get(at) else {
            return Vec::new();
        };
        self.offset = scroll(self.offset, at, self.order.len(), list_height(self, cx));
        vec![Step::Select(*id)]
    }

    fn refilter(&mut self, cx: &Cx) -> Vec<Step> {
        let snapshot = cx
            .world
            .features
            .as_ref()
            .map(|list| (list.fit.clone(), list.sweep))
            .unwrap_or_default();
        if self.answered_snapshot != snapshot {
            self.answered_snapshot = snapshot;
            self.answers.clear();
            self.requested.clear();
            self.waiting.clear();
        }
        let open = Filter::new(self.query.text())
            .probes()
            .any(|probe| !self.requested.contains(probe));
        self.probes_due = open.then(|| cx.world.now + DEBOUNCE);
        self.reorder(cx);
        self.keep_selection(cx)
    }

    /// Sends the probes of the filter that were not sent yet.
    fn send_probes(&mut self, cx: &Cx) -> Vec<Step> {
        self.probes_due = None;
        let filter = Filter::new(self.query.text());
        let new: Vec<Probe> = filter
            .probes()
            .filter(|probe| !self.requested.contains(*probe))
            .cloned()
            .collect();
        self.requested.extend(new.iter().cloned());
        new.into_iter()
            .map(|probe| {
                let request = cx.request(Command::Find(probe.clone()));
                self.waiting.insert(request.id, probe);
                Step::Request(request)
            })
            .collect()
    }

    /// Removes the request that `reply` answers; false where it answers none of them.
    fn close_request(&mut self, reply: &Reply) -> bool {
        reply
            .to
            .is_some_and(|id| self.waiting.remove(&id).is_some())
    }

    /// Whether the list waits for an answer to its filter.
    fn is_waiting(&self) -> bool {
        self.probes_due.is_some()
            || Filter::new(self.query.text())
                .probes()
                .any(|probe| self.waiting.values().any(|open| open == probe))
    }

    /// Whether the list is sorted by how well features answer a question: the column that it is
    /// sorted by else decides between equals alone.
    fn is_asked(&self) -> bool {
        Filter::new(self.query.text()).has_question()
    }

    fn has_filter_line(&self) -> bool {
        self.typing || !self.query.text().is_empty()
    }

    /// The query has changed: where it asks something, what answers best is looked at.
    fn query_changed(&mut self, cx: &Cx) -> Vec<Step> {
        self.cursor_moved &= !Filter::new(self.query.text()).has_question();
        self.refilter(cx)
    }

    /// All features again; the cursor stays on the one that was found.
    fn clear_filter(&mut self, cx: &Cx) -> Vec<Step> {
        self.cursor_moved = true;
        self.query = LineInput::default();
        self.refilter(cx)
    }
}

/// Rows left for the list between its column heads and the filter line.
fn list_height(pane: &FeaturesPane, cx: &Cx) -> usize {
    usize::from(cx.area.height)
        .saturating_sub(1 + usize::from(pane.has_filter_line()))
        .max(1)
}

impl Pane for FeaturesPane {
    fn id(&self) -> PaneId {
        PaneId::Features
    }

    fn title(&self, cx: &Cx) -> Line<'static> {
        let total = cx.world.rows().len();
        let shown = self.order.len();
        if let Some(set) = cx.world.set() {
            let kind = text::clean(&set.kind.to_string());
            let count = if shown == total {
                total.to_string()
            } else {
                format!("{shown} of {total}")
            };
            let (layer, site) = (set.hook.layer, set.hook.site);
            let [whole, short, least] = [
                format!("{kind} {count} at {}", set.hook),
                format!("{kind} {count} at L{layer} {site}"),
                format!("{kind} {count} at L{layer}"),
            ];
            // The space is said in every width, in as many words as there is room for.
            let cells = usize::from(cx.area.width).saturating_sub(4);
            let fits = |title: &String| text::width(title) <= cells;
            return Line::raw([whole, short].into_iter().find(fits).unwrap_or(least));
        }
        // The head of a column tells the others.
        let by = match self.sort {
            _ if self.is_asked() => " by the answer ▾".to_owned(),
            Sort::Name | Sort::Tokens | Sort::Rating | Sort::Label => {
                format!(" by {}", self.sort.name())
            }
            _ => String::new(),
        };
        Line::raw(match total {
            0 => "Features".to_owned(),
            _ if shown == total => format!("Features {total}{by}"),
            _ => format!("Features {shown} of {total}{by}"),
        })
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        let needs = matches!(
            action,
            Action::Filter | Action::Sort | Action::Reverse | Action::Open
        );
        (needs && cx.world.rows().is_empty()).then(|| {
            format!(
                "no features yet: {} opens a model or a study",
                cx.key(Action::Start)
            )
        })
    }

    fn typing(&self) -> bool {
        self.typing
    }

    fn typed_line(&self, cx: &Cx, cells: usize) -> Option<Line<'static>> {
        self.typing.then(|| self.filter_line(cells, cx))
    }

    fn key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        match key.code {
            KeyCode::Esc => {
                self.typing = false;
                Some(self.clear_filter(cx))
            }
            KeyCode::Enter => {
                self.typing = false;
                Some(Vec::new())
            }
            KeyCode::Up | KeyCode::Down => {
                let action = if key.code == KeyCode::Up {
                    Action::Up
                } else {
                    Action::Down
                };
                self.act(action, cx)
            }
            _ => self.query.key(key).then(|| self.query_changed(cx)),
        }
    }

    fn paste(&mut self, pasted: &str, cx: &Cx) -> Vec<Step> {
        self.query.paste(pasted);
        self.query_changed(cx)
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        self.cursor_moved = true;
        let at = self.position(cx).unwrap_or(0);
        if let Some(to) = motion(action, at, self.order.len(), list_height(self, cx)) {
            return Some(self.move_to(to, cx));
        }
        Some(match action {
            Action::NextFeature => {
                self.move_to((at + 1).min(self.order.len().saturating_sub(1)), cx)
            }
            Action::PreviousFeature => self.move_to(at.saturating_sub(1), cx),
            Action::Open | Action::Right => vec![Step::Focus(PaneId::Contexts)],
            Action::Filter => {
                self.typing = true;
                Vec::new()
            }
            Action::Sort => {
                self.sort = self.sort.next();
                self.reversed = false;
                self.refilter(cx)
            }
            Action::Reverse => {
                self.reversed = !self.reversed;
                self.refilter(cx)
            }
            Action::Back if !self.query.text().is_empty() => self.clear_filter(cx),
            Action::Copy => self.copy(cx),
            _ => return None,
        })
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        match &reply.event {
            Event::Features(_) | Event::Study(_) | Event::Closed => self.refilter(cx),
            Event::Found(probe, scores) if self.close_request(reply) => {
                self.answers.insert(probe.clone(), scores.clone());
                self.refilter(cx)
            }
            // It was said why; nothing is to be waited for.
            Event::Refused(_) => {
                self.close_request(reply);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.probes_due
    }

    fn tick(&mut self, cx: &Cx) -> Vec<Step> {
        if self.probes_due.is_some_and(|at| at <= cx.world.now) {
            self.send_probes(cx)
        } else {
            Vec::new()
        }
    }

    fn selection_changed(&mut self, cx: &Cx) -> Vec<Step> {
        if let Some(at) = self.position(cx) {
            self.offset = scroll(self.offset, at, self.order.len(), list_height(self, cx));
        }
        Vec::new()
    }

    fn click(&mut self, _: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        self.cursor_moved = true;
        let Some(line) = usize::from(row.saturating_sub(cx.area.y)).checked_sub(1) else {
            return Vec::new();
        };
        if line >= list_height(self, cx) {
            return Vec::new();
        }
        let mut steps = self.move_to(self.offset + line, cx);
        if double {
            steps.push(Step::Focus(PaneId::Contexts));
        }
        steps
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        if cx.world.rows().is_empty() {
            return waiting::draw(cx, buf);
        }
        let columns = Columns::for_width(usize::from(cx.area.width), self.sort);
        let sorted = Some(self.sort).filter(|_| !self.is_asked());
        put(buf, cx.area, 0, &columns.head(sorted, self.reversed, cx));
        let height = list_height(self, cx);
        let at = self.position(cx);
        let offset = scroll(self.offset, at.unwrap_or(0), self.order.len(), height);
        let max = cx
            .world
            .rows()
            .iter()
            .map(|r| r.density)
            .fold(0.0, f32::max);
        for (line, id) in self.order.iter().skip(offset).take(height).enumerate() {
            let Some(row) = cx.world.row(*id) else {
                continue;
            };
            let selected = at == Some(offset + line);
            let shown = columns.line(row, selected, max, cx);
            match selected {
                true => put_selected(buf, cx.area, line + 1, shown, cx.theme, cx.focused),
                false => put(buf, cx.area, line + 1, &shown),
            }
        }
        if self.order.is_empty() {
            let more = if self.is_waiting() {
                ", contexts are being asked"
            } else {
                ""
            };
            let message = format!(
                "nothing matches '{}'{more}: esc clears",
                text::clean(self.query.text())
            );
            let message = match Filter::unknown_field(self.query.text()) {
                Some(field) => format!("no field {}: esc clears", text::clean(&field)),
                None => message,
            };
            let cells = usize::from(cx.area.width).saturating_sub(4);
            let lines = text::wrap(&message, cells)
                .into_iter()
                .chain([String::new()])
                .chain(text::wrap(filter::GRAMMAR, cells));
            for (i, line) in lines.enumerate() {
                put_at(buf, cx.area, 2, 2 + i, &Line::styled(line, cx.theme.dim()));
            }
        }
        if self.has_filter_line() {
            put(
                buf,
                cx.area,
                usize::from(cx.area.height).saturating_sub(1),
                &self.filter_line(usize::from(cx.area.width), cx),
            );
        }
    }

    fn session(&self) -> Value {
        json!({ "sort": self.sort.name(), "reversed": self.reversed, "filter": self.query.text() })
    }

    fn restore(&mut self, session: &Value, cx: &Cx) {
        if let Some(sort) = Sort::ALL.into_iter().find(|s| session["sort"] == s.name()) {
            self.sort = sort;
        }
        self.reversed = session["reversed"].as_bool().unwrap_or(self.reversed);
        self.query = LineInput::new(session["filter"].as_str().unwrap_or_default());
        self.cursor_moved = true;
        self.reorder(cx);
    }
}

impl FeaturesPane {
    fn filter_line(&self, width: usize, cx: &Cx) -> Line<'static> {
        let mut spans = vec![Span::styled("/ ", cx.theme.accent())];
        let asking = if self.is_waiting() { " asking…" } else { "" };
        let cells = width.saturating_sub(3 + text::width(asking));
        if self.typing {
            spans.extend(self.query.line(cx.theme, cells).spans);
            if self.query.text().is_empty() {
                let room = cells.saturating_sub(2);
                spans.push(Span::styled(
                    format!(" {}", text::truncate(filter::GRAMMAR, room)),
                    cx.theme.dim(),
                ));
            }
        } else {
            let shown = text::truncate(&text::clean(self.query.text()), cells.saturating_sub(12));
            spans.push(Span::raw(shown));
            spans.push(Span::styled("  esc clears", cx.theme.dim()));
        }
        spans.push(Span::styled(asking, cx.theme.accent()));
        Line::from(spans)
    }
}
