//! Steered beside unsteered text. Owns the request being put together and the runs that were;
//! generating is the engine's.
//!
//! Invariant: one run is active at a time, and every piece of text goes to it.

mod handover;
mod history;
mod lists;
mod queue;
mod result;
mod run;
#[cfg(test)]
mod tests;
mod three_ways;
mod values;
mod view;

use std::collections::VecDeque;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::text::Line;
use serde_json::{Value, json};

use crate::engine::{Event, Job, Level, Mode, Reply, SteerSettings};
use crate::ui::action::Action;
use crate::ui::form::Form;
use crate::ui::pane::{Cx, Handover, Pane, Step};
use crate::ui::pane_id::PaneId;
use crate::ui::textbox::TextBox;
use lists::Lists;
use run::{Run, State};
use values::{FIRST_PROMPT, Kind, Values};

/// The longest prompt, in bytes.
const MAX_PROMPT: usize = 16 * 1024;

/// How many runs are kept.
const MAX_RUNS: usize = 50;

/// Runs that a session remembers.
const SAVED_RUNS: usize = 8;

/// The form, the runs, and which of them is shown.
#[derive(Debug)]
pub struct SteerPane {
    form: Form<Values>,
    lists: Lists,
    prompt: TextBox,
    /// The prompt is being typed.
    typing: bool,
    runs: Vec<Run>,
    /// The run on show.
    shown: usize,
    /// Rows of its texts that are above the screen.
    scroll: usize,
    /// To run when the active run has ended.
    queue: VecDeque<SteerSettings>,
    /// The active run was stopped to make room for the queue.
    replacing: bool,
    /// The first of three runs that are on show side by side.
    three: Option<usize>,
}

impl Default for SteerPane {
    fn default() -> Self {
        let mut prompt = TextBox::new(MAX_PROMPT);
        prompt.set(FIRST_PROMPT);
        Self {
            form: Form::default(),
            lists: Lists::default(),
            prompt,
            typing: false,
            runs: Vec::new(),
            shown: 0,
            scroll: 0,
            queue: VecDeque::new(),
            replacing: false,
            three: None,
        }
    }
}

impl SteerPane {
    /// Which value the field under the cursor is of.
    fn kind(&self) -> Kind {
        let kinds = self.form.values.kinds();
        kinds.get(self.form.at()).copied().unwrap_or(Kind::Prompt)
    }

    fn active(&mut self) -> Option<&mut Run> {
        self.runs.last_mut().filter(|run| run.is_active())
    }

    fn browse(&mut self, forward: bool) {
        let last = self.runs.len().saturating_sub(1);
        self.three = None;
        self.shown = if forward {
            (self.shown + 1).min(last)
        } else {
            self.shown.saturating_sub(1)
        };
        self.scroll = 0;
    }

    fn go(&mut self, at: usize) {
        self.form.go(at.min(self.form.values.kinds().len() - 1));
    }

    fn edit(&mut self, cx: &Cx) {
        if self.kind() == Kind::Prompt {
            self.typing = true;
        } else {
            self.form.edit(cx.world);
        }
    }

    fn remove(&mut self) {
        if let Kind::Term(i) = self.kind()
            && i < self.form.values.features.len()
        {
            self.form.values.features.remove(i);
            self.go(self.form.at().min(self.form.values.features.len().max(1)));
        }
    }

    fn prompt_key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        match key.code {
            KeyCode::Esc => self.typing = false,
            KeyCode::Enter if key.modifiers.is_empty() => return Some(self.run(cx)),
            KeyCode::Tab | KeyCode::BackTab => {
                self.typing = false;
                return None;
            }
            _ if self.prompt.key(key, view::prompt_cells(cx)) => {}
            _ => return None,
        }
        Some(Vec::new())
    }
}

/// Whether a feature is not of the fit on show.
fn unknown(id: usize, cx: &Cx) -> bool {
    !cx.world.rows().is_empty() && cx.world.row(id).is_none()
}

impl Pane for SteerPane {
    fn id(&self) -> PaneId {
        PaneId::Steer
    }

    fn title(&self, cx: &Cx) -> Line<'static> {
        Line::raw(if cx.area.width < 50 {
            "Steer"
        } else {
            "Steer: the same prompt with and without"
        })
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        match action {
            Action::Run => self.refusal_reason(cx),
            Action::SteerThree | Action::AblateThree => self
                .refusal_reason(cx)
                .or_else(|| self.form.values.refused_three()),
            Action::Edit if !Values::is_typed(self.kind()) => {
                Some("left and right choose its value".to_owned())
            }
            Action::Remove if !matches!(self.kind(), Kind::Term(i) if i < self.form.values.features.len()) => {
                Some("the cursor is on no feature".to_owned())
            }
            Action::PreviousRun if self.shown == 0 => Some("there is no run before".to_owned()),
            Action::NextRun if self.shown + 1 >= self.runs.len() => {
                Some("this is the last run".to_owned())
            }
            Action::Copy | Action::Trace if self.runs.is_empty() => {
                Some("nothing was run yet".to_owned())
            }
            _ => None,
        }
    }

    fn typing(&self) -> bool {
        self.typing || self.form.input().is_some()
    }

    fn typing_hints(&self) -> Vec<(&'static str, &'static str)> {
        if self.typing {
            return vec![
                ("enter", "runs"),
                ("ctrl-j", "new line"),
                ("esc", "leaves it"),
            ];
        }
        vec![("enter", "keeps it"), ("esc", "leaves it")]
    }

    fn key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        if self.typing {
            return self.prompt_key(key, cx);
        }
        match key.code {
            KeyCode::Esc => self.form.leave(),
            KeyCode::Enter | KeyCode::Tab => self.form.commit(cx.world),
            _ if self.form.key(key) => {}
            _ => return None,
        }
        Some(Vec::new())
    }

    fn paste(&mut self, text: &str, _: &Cx) -> Vec<Step> {
        if self.form.input().is_some() {
            self.form.paste(text);
        } else if self.prompt.paste(text) {
            let kept = self.prompt.text().len();
            return vec![Step::Notify(
                Level::Warn,
                format!("a prompt holds {MAX_PROMPT} bytes: cut at {kept}"),
            )];
        }
        Vec::new()
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        let last = self.form.values.kinds().len() - 1;
        match action {
            // No field is seen: the keys scroll.
            Action::Up if view::three_alone(self, cx) => {
                self.scroll = self.scroll.saturating_sub(1)
            }
            Action::Down if view::three_alone(self, cx) => {
                self.scroll = (self.scroll + 1).min(view::last_scroll(self, cx));
            }
            Action::Up => self.go(self.form.at().saturating_sub(1)),
            Action::Down => self.go(self.form.at() + 1),
            Action::First => self.go(0),
            Action::Last => self.go(last),
            Action::PageUp => self.scroll = self.scroll.saturating_sub(view::page(self, cx)),
            Action::PageDown => {
                self.scroll = (self.scroll + view::page(self, cx)).min(view::last_scroll(self, cx))
            }
            Action::Left | Action::Right => self.form.step(action == Action::Right, cx.world),
            Action::Edit => self.edit(cx),
            Action::Run if self.three.is_some() && self.active().is_some() => {
                let message = format!(
                    "three ways are being steered; {} goes back to the request",
                    cx.key(Action::Back)
                );
                return Some(vec![Step::Notify(Level::Info, message)]);
            }
            Action::Run => {
                self.form.leave();
                return Some(self.run(cx));
            }
            Action::SteerThree => return Some(self.run_three(cx)),
            Action::AblateThree => {
                self.form.values.mode = Mode::Ablate;
                return Some(self.run_three(cx));
            }
            Action::Trace => {
                let run = self.runs.get(self.shown)?;
                let (baseline, steered) = run.texts(0);
                let prompt = run.settings.prompt.clone();
                let handover = Handover::Follow {
                    prompt,
                    baseline: baseline.to_owned(),
                    steered: steered.to_owned(),
                };
                return Some(vec![Step::HandOver(PaneId::Live, handover)]);
            }
            Action::Back if self.three.is_some() => self.three = None,
            Action::Remove => self.remove(),
            Action::PreviousRun => self.browse(false),
            Action::NextRun => self.browse(true),
            Action::Copy => {
                let run = self.runs.get(self.shown)?;
                return Some(vec![Step::Copy(
                    run.to_text(),
                    format!("run {} with its texts", self.shown + 1),
                )]);
            }
            _ => return None,
        }
        Some(Vec::new())
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        match &reply.event {
            Event::Features(list) => return self.change_list(list),
            Event::Closed => {
                // Runs are kept with the study that they were made in.
                self.clear_features();
                self.lists.clear();
                self.runs.clear();
                (self.shown, self.scroll) = (0, 0);
            }
            // What comes of a run that another has taken the place of, or of another's question.
            _ if !self.active().is_some_and(|run| reply.is_to(run.request)) => {}
            Event::Started(Job::Steer) => {
                if let Some(run) = self.active() {
                    run.state = State::Running;
                }
            }
            Event::SteerInfo(info) => {
                if let Some(run) = self.active() {
                    run.state = State::Running;
                    run.info = Some((**info).clone());
                }
            }
            Event::SteerText {
                sample,
                steered,
                text,
            } => {
                if let Some(run) = self.active() {
                    run.push(*sample, *steered, text);
                }
            }
            Event::Done(Job::Steer, _) => return self.end(State::Done, cx),
            Event::Cancelled(Job::Steer) => {
                if !self.replacing {
                    self.queue.clear();
                }
                return self.end(State::Cancelled, cx);
            }
            Event::Failed(Job::Steer, why) | Event::Refused(why) => {
                return self.end(State::Failed(why.clone()), cx);
            }
            _ => {}
        }
        Vec::new()
    }

    fn receive(&mut self, handover: &Handover, cx: &Cx) -> Vec<Step> {
        match handover {
            Handover::ThreeWays => return self.run_three(cx),
            Handover::Mode(mode) => self.form.values.mode = *mode,
            Handover::Cluster(cluster) => self.form.values.cluster.clone_from(cluster),
            handover => self.add_features(handover),
        }
        Vec::new()
    }

    fn click(&mut self, column: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        if let Some(at) = view::field_at(self, column, row, cx) {
            if self.form.input().is_some() {
                self.form.commit(cx.world);
            }
            self.typing = false;
            self.go(at);
            if double {
                self.edit(cx);
            }
        }
        Vec::new()
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        view::draw(self, cx, buf);
    }

    fn session(&self) -> Value {
        let done: Vec<&Run> = self.runs.iter().filter(|run| !run.is_active()).collect();
        let first = done.len().saturating_sub(SAVED_RUNS);
        let (fit, form) = (self.lists.fit(), self.lists.of_fit(&self.form.values));
        json!({ "fit": fit, "form": form, "prompt": self.prompt.text(), "runs": &done[first..] })
    }

    fn restore(&mut self, session: &Value, _: &Cx) {
        if let Ok(values) = serde_json::from_value::<Values>(session["form"].clone()) {
            self.form.values = values;
        }
        self.lists.restore(session["fit"].as_str());
        if let Some(prompt) = session["prompt"].as_str() {
            self.prompt.set(prompt);
        }
        if self.runs.is_empty() {
            let runs = session["runs"].as_array().into_iter().flatten();
            self.runs = runs
                .filter_map(|run| serde_json::from_value(run.clone()).ok())
                .collect();
            self.shown = self.runs.len().saturating_sub(1);
        }
        self.go(0);
    }
}
