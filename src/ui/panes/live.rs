//! Features on a text that is typed or pasted. Owns the text, the token under the cursor and the
//! feature on show; the coefficients are the engine's.
//!
//! Invariant: the engine is asked only when the text has stood still for a moment, and the trace on
//! show is marked when it is not of the text on show.

mod follow;
mod list;
mod matrix;
mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod view;

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::text::Line;
use serde_json::{Value, json};

use crate::analysis::{Trace, TraceFeature};
use crate::engine::{Command, Event, Job, Level, Reply, RequestId};
use crate::text;
use crate::ui::action::Action;
use crate::ui::pane::{Cx, Handover, Pane, Step};
use crate::ui::pane_id::PaneId;
use crate::ui::textbox::TextBox;
use follow::Follow;

/// The text must stand this long.
const DEBOUNCE: Duration = Duration::from_millis(150);

/// How often the same text is traced again while the fit moves.
const REFRESH: Duration = Duration::from_secs(2);

/// The longest text, in bytes.
const MAX_TEXT: usize = 16 * 1024;

/// What the list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Sort {
    /// The token under the cursor.
    #[default]
    Here,
    /// The largest over the text.
    Peak,
}

/// What the heat map shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// A feature by its id.
    Feature(usize),
    /// What the features leave unexplained.
    Unexplained,
}

/// The text, its trace, and the cursor in it.
#[derive(Debug)]
pub struct LivePane {
    text: TextBox,
    typing: bool,
    trace_due: Option<Duration>,
    /// When the last request was sent, since the start.
    requested_at: Option<Duration>,
    /// The request that is not answered yet.
    open_request: Option<RequestId>,
    /// Why there is no trace.
    problem: Option<String>,
    trace: Option<Box<Trace>>,
    /// The list whose features the trace names by their ids.
    trace_list: Option<ListKey>,
    /// The list that was on show when the open request was sent.
    requested_list: Option<ListKey>,
    /// Places of the trace's features in the order of the list.
    order: Vec<usize>,
    sort: Sort,
    shown: Option<Shown>,
    token: usize,
    /// The byte of the text whose token the cursor goes to when the trace of it is there.
    token_at: Option<usize>,
    offset: usize,
    /// The generated text that is on show as it comes.
    follow: Option<Follow>,
    /// The text has grown, or the features have changed, since it was traced.
    outdated: bool,
}

impl Default for LivePane {
    fn default() -> Self {
        Self {
            text: TextBox::new(MAX_TEXT),
            typing: false,
            trace_due: None,
            requested_at: None,
            open_request: None,
            problem: None,
            trace: None,
            trace_list: None,
            requested_list: None,
            order: Vec::new(),
            sort: Sort::Here,
            shown: None,
            token: 0,
            token_at: None,
            offset: 0,
            follow: None,
            outdated: false,
        }
    }
}

/// Which features ids mean: those of a fit or a set by name, and whether they stay as they are.
type ListKey = (String, bool);

/// The list on show.
fn list_on_show(cx: &Cx) -> Option<ListKey> {
    let list = cx.world.features.as_ref()?;
    Some((list.fit.clone(), list.finished))
}

fn peak(feature: &TraceFeature) -> f32 {
    feature.values.iter().copied().fold(0.0, f32::max)
}

impl LivePane {
    fn tokens(&self) -> usize {
        self.trace.as_ref().map_or(0, |trace| trace.tokens.len())
    }

    /// The text is a person's own from now on.
    fn text_edited(&mut self, cx: &Cx) {
        self.follow = None;
        self.token_at = None;
        self.text_changed(cx);
    }

    fn text_changed(&mut self, cx: &Cx) {
        self.problem = None;
        if self.text.text().trim().is_empty() {
            self.trace = None;
            self.order.clear();
            self.trace_due = None;
            self.open_request = None;
        } else {
            self.trace_due = Some(cx.world.now + DEBOUNCE);
        }
    }

    /// Ids mean other features now: a trace that names them by the old ones must not stand beside
    /// their names.
    fn forget_trace(&mut self) {
        self.trace = None;
        self.trace_list = None;
        self.shown = None;
        self.order.clear();
        if let Some(follow) = &mut self.follow {
            follow.forget_traces();
        }
    }

    /// Whether the trace on show may not be of the text on show.
    fn is_stale(&self) -> bool {
        self.open_request.is_some() || self.trace_due.is_some()
    }

    fn schedule_trace(&mut self, cx: &Cx) {
        if !self.text.text().trim().is_empty() && self.trace_due.is_none() {
            let soonest = self.requested_at.map_or(Duration::ZERO, |at| at + REFRESH);
            self.trace_due = Some(soonest.max(cx.world.now));
        }
    }

    /// Why no text can be traced now.
    fn refusal_reason(&self, cx: &Cx) -> Option<String> {
        if cx.world.model.is_none() {
            return Some(match cx.world.job(Job::Load) {
                Some(_) => "the model is being loaded".to_owned(),
                None => format!("no model is open: {} opens one", cx.key(Action::Start)),
            });
        }
        cx.world
            .rows()
            .is_empty()
            .then(|| "there are no features yet".to_owned())
    }

    fn insert(&mut self, pasted: &str, cx: &Cx) -> Vec<Step> {
        let was_cut = self.text.paste(pasted);
        self.text_edited(cx);
        if !was_cut {
            return Vec::new();
        }
        let (kept, whole) = (
            text::bytes(self.text.text().len() as u64),
            text::bytes(pasted.len() as u64),
        );
        vec![Step::Notify(
            Level::Warn,
            format!("pasted {whole}, cut: the text holds {kept} at most"),
        )]
    }
}

impl Pane for LivePane {
    fn id(&self) -> PaneId {
        PaneId::Live
    }

    fn title(&self, cx: &Cx) -> Line<'static> {
        let mut title = "Live".to_owned();
        if let Some(follow) = &self.follow {
            title.push_str(&format!(" · {} text", follow.side()));
        }
        if self.tokens() > 0 {
            let n = text::count(self.tokens());
            title.push_str(&if n == "1" {
                " · 1 token".to_owned()
            } else {
                format!(" · {n} tokens")
            });
        }
        match self.shown {
            Some(Shown::Feature(id)) if cx.area.width >= 50 && self.trace.is_some() => {
                title.push_str(&format!(" · {}", cx.world.feature_label(id)));
            }
            Some(Shown::Unexplained) if cx.area.width >= 50 => title.push_str(" · unexplained"),
            _ => {}
        }
        Line::raw(title)
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        match action {
            Action::Open | Action::Sort if self.trace.is_none() => {
                Some("no text is traced yet".to_owned())
            }
            Action::Open if self.feature().is_none() => {
                Some("the cursor is on no feature".to_owned())
            }
            Action::Remove if self.text.text().is_empty() => Some("there is no text".to_owned()),
            Action::Copy if self.trace.is_none() => Some("no text is traced yet".to_owned()),
            Action::Trace if self.follow.is_none() => Some(format!(
                "no run is followed: {} in the Steer pane brings one here",
                cx.key(Action::Trace)
            )),
            _ => None,
        }
    }

    fn typing(&self) -> bool {
        self.typing
    }

    fn typing_hints(&self) -> Vec<(&'static str, &'static str)> {
        vec![("esc", "to the tokens"), ("enter", "new line")]
    }

    fn key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        match key.code {
            KeyCode::Esc => {
                self.typing = false;
                self.scroll_to_cursor(cx);
                Some(Vec::new())
            }
            KeyCode::Tab | KeyCode::BackTab => {
                self.typing = false;
                None
            }
            KeyCode::Enter => {
                self.text.paste("\n");
                self.text_edited(cx);
                Some(Vec::new())
            }
            _ => {
                let before = self.text.text().len();
                let edits = !matches!(
                    key.code,
                    KeyCode::Left
                        | KeyCode::Right
                        | KeyCode::Up
                        | KeyCode::Down
                        | KeyCode::Home
                        | KeyCode::End
                );
                self.text.key(key, view::text_cells(cx)).then(|| {
                    if edits || before != self.text.text().len() {
                        self.text_edited(cx);
                    }
                    Vec::new()
                })
            }
        }
    }

    fn paste(&mut self, pasted: &str, cx: &Cx) -> Vec<Step> {
        self.insert(pasted, cx)
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        match action {
            Action::Left | Action::Right => {
                self.go_token(if action == Action::Right {
                    self.token + 1
                } else {
                    self.token.saturating_sub(1)
                });
                self.update_tail();
            }
            Action::Edit => {
                self.typing = true;
                self.scroll_to_cursor(cx);
            }
            Action::Sort => {
                self.sort = if self.sort == Sort::Here {
                    Sort::Peak
                } else {
                    Sort::Here
                };
                self.reorder();
                self.scroll_to_cursor(cx);
            }
            Action::Remove => {
                self.text.set("");
                self.text_edited(cx);
                self.typing = true;
            }
            Action::Open => return Some(self.open()),
            Action::SteerWith | Action::SuppressWith => {
                let id = self.feature()?.id;
                let negative = action == Action::SuppressWith;
                return Some(vec![Step::steer(&[id], negative, false)]);
            }
            Action::Copy => return self.copy(),
            Action::Trace => self.switch_side(cx),
            _ => {
                let to = self.step(action, cx)?;
                self.shown = self.line(to).or(self.shown);
                self.scroll_to_cursor(cx);
            }
        }
        Some(Vec::new())
    }

    fn entered(&mut self, cx: &Cx) -> Vec<Step> {
        if self.trace.is_none() {
            self.schedule_trace(cx);
        }
        Vec::new()
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        self.follow_event(&reply.event, cx);
        if matches!(reply.event, Event::Features(_)) && self.trace_list != list_on_show(cx) {
            self.forget_trace();
        }
        match &reply.event {
            Event::Trace(trace) if reply.is_to(self.open_request) => {
                self.open_request = None;
                let is_of_list_before = self.requested_list != list_on_show(cx);
                if std::mem::take(&mut self.outdated) || is_of_list_before {
                    self.text_changed(cx);
                }
                if is_of_list_before {
                    return Vec::new();
                }
                self.problem = None;
                if !self.text.text().trim().is_empty() && self.receive_followed_trace(trace, cx) {
                    self.show_trace(trace, cx);
                }
            }
            Event::Failed(Job::Trace, why) | Event::Refused(why)
                if reply.is_to(self.open_request) =>
            {
                self.open_request = None;
                self.problem = Some(why.clone());
            }
            Event::Cancelled(Job::Trace) if reply.is_to(self.open_request) => {
                self.open_request = None
            }
            Event::Model(_) => self.schedule_trace(cx),
            // A question that every sweep asks anew is never answered.
            Event::Features(_) if self.open_request.is_some() => self.outdated = true,
            Event::Features(_) if cx.focused || self.trace.is_none() => self.schedule_trace(cx),
            Event::Study(_) | Event::Closed if cx.world.features.is_none() => {
                self.forget_trace();
            }
            _ => {}
        }
        Vec::new()
    }

    fn receive(&mut self, handover: &Handover, cx: &Cx) -> Vec<Step> {
        match handover {
            Handover::Text { text, at } => {
                self.text.set("");
                (self.token, self.shown) = (0, None);
                let steps = self.insert(text, cx);
                self.token_at = Some(*at);
                steps
            }
            Handover::Follow {
                prompt,
                baseline,
                steered,
            } => {
                self.follow(Follow::new(prompt, baseline, steered), cx);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn selection_changed(&mut self, cx: &Cx) -> Vec<Step> {
        self.scroll_to_cursor(cx);
        Vec::new()
    }

    fn deadline(&self) -> Option<Duration> {
        self.trace_due
    }

    fn tick(&mut self, cx: &Cx) -> Vec<Step> {
        if self.trace_due.is_none_or(|at| cx.world.now < at) {
            return Vec::new();
        }
        self.trace_due = None;
        if self.text.text().trim().is_empty() || self.refusal_reason(cx).is_some() {
            return Vec::new();
        }
        self.requested_at = Some(cx.world.now);
        self.outdated = false;
        let own = || self.text.text().to_owned();
        let text = self.follow.as_mut().map_or_else(own, Follow::next_text);
        let request = cx.request(Command::Trace(text));
        self.open_request = Some(request.id);
        self.requested_list = list_on_show(cx);
        vec![Step::Request(request)]
    }

    fn click(&mut self, column: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        if let Some(token) = view::token_at(self, column, row, cx) {
            self.go_token(token);
            self.update_tail();
        } else if let Some(line) = view::line_at(self, column, row, cx) {
            self.shown = self.line(line).or(self.shown);
            if double {
                return self.open();
            }
        } else if view::is_in_text(self, column, row, cx) {
            self.typing = true;
        }
        Vec::new()
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        view::draw(self, cx, buf);
    }

    fn session(&self) -> Value {
        let sort = if self.sort == Sort::Here {
            "here"
        } else {
            "peak"
        };
        json!({ "text": self.text.text(), "token": self.token, "sort": sort })
    }

    fn restore(&mut self, session: &Value, cx: &Cx) {
        if let Some(text) = session["text"].as_str() {
            self.text.set(text);
        }
        self.token = session["token"].as_u64().map_or(0, |t| t as usize);
        if session["sort"] == "peak" {
            self.sort = Sort::Peak;
        }
        self.schedule_trace(cx);
    }
}
