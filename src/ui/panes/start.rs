//! What to open: a model, a layer, a corpus and a fit, or a recent study, with what it will take.
//! Owns the request being put together; never looks at the disk itself.
//!
//! Invariant: the estimate on show belongs to the request on show, or is marked as being worked
//! out.

mod values;
mod view;

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::text::Line;

use crate::engine::{Command, Estimate, Event, Level, OpenRequest, Reply, RequestId};
use crate::ui::action::Action;
use crate::ui::form::Form;
use crate::ui::list::motion;
use crate::ui::pane::{Cx, Handover, Pane, Step};
use crate::ui::pane_id::PaneId;
use values::{Kind, Values};

/// How long the request must stand before an estimate is asked for.
const DEBOUNCE: Duration = Duration::from_millis(150);

/// A line that the cursor can stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Field(Kind),
    Study(usize),
    Model(usize),
}

/// The request that is being put together, and the lists below its form.
#[derive(Debug, Default)]
pub struct StartPane {
    /// Its cursor goes on over the recent studies and the models.
    form: Form<Values>,
    estimate: Option<Result<Estimate, String>>,
    /// When an estimate is requested; `None` where the request has not changed.
    estimate_due: Option<Duration>,
    /// The request for an estimate that is not answered yet.
    open_request: Option<RequestId>,
}

impl StartPane {
    fn items(&self, cx: &Cx) -> Vec<Item> {
        let studies = cx.world.studies.as_ref().map_or(0, Vec::len);
        let models = cx.world.models.as_ref().map_or(0, Vec::len);
        (Kind::ALL.into_iter().map(Item::Field))
            .chain((0..studies).map(Item::Study))
            .chain((0..models).map(Item::Model))
            .collect()
    }

    fn item(&self, cx: &Cx) -> Item {
        self.items(cx)
            .get(self.form.at())
            .copied()
            .unwrap_or(Item::Field(Kind::Model))
    }

    fn kind(&self, cx: &Cx) -> Option<Kind> {
        match self.item(cx) {
            Item::Field(kind) => Some(kind),
            _ => None,
        }
    }

    fn request_changed(&mut self, cx: &Cx) {
        self.estimate_due = Some(cx.world.now + DEBOUNCE);
    }

    fn run(&mut self, cx: &Cx) -> Vec<Step> {
        match self.item(cx) {
            Item::Study(i) => cx
                .world
                .studies
                .as_ref()
                .and_then(|s| s.get(i))
                .map(|s| {
                    vec![
                        Step::Send(Command::OpenStudy(s.dir.clone())),
                        Step::Focus(PaneId::Features),
                    ]
                })
                .unwrap_or_default(),
            Item::Model(i) => {
                let Some(model) = cx.world.models.as_ref().and_then(|m| m.get(i)) else {
                    return Vec::new();
                };
                if let Some(problem) = &model.problem {
                    return vec![Step::Notify(Level::Warn, problem.clone())];
                }
                let request = &mut self.form.values.request;
                (request.model, request.layer) = (Some(model.id.clone()), None);
                self.form.go(0);
                self.request_changed(cx);
                Vec::new()
            }
            Item::Field(_) => {
                if let Some(reason) = self.refusal_reason() {
                    return vec![Step::Notify(Level::Warn, reason)];
                }
                let request = OpenRequest {
                    study: None,
                    ..self.form.values.request.clone()
                };
                vec![
                    Step::Send(Command::Open(request)),
                    Step::Focus(PaneId::Features),
                ]
            }
        }
    }

    /// Why the request on show cannot run, as far as is known.
    fn refusal_reason(&self) -> Option<String> {
        if self.open_request.is_some() || self.estimate_due.is_some() {
            return None;
        }
        match self.estimate.as_ref()? {
            Ok(estimate) => estimate.refusal.clone(),
            Err(problem) => Some(problem.clone()),
        }
    }

    fn commit(&mut self, cx: &Cx) {
        self.form.commit(cx.world);
        if self.form.problem().is_none() {
            self.request_changed(cx);
        }
    }
}

impl Pane for StartPane {
    fn id(&self) -> PaneId {
        PaneId::Start
    }

    fn title(&self, _: &Cx) -> Line<'static> {
        Line::raw("Start")
    }

    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        match action {
            Action::Run if matches!(self.item(cx), Item::Field(_)) => self.refusal_reason(),
            Action::Edit if self.kind(cx).is_none() => {
                Some("only fields of the form can be typed".to_owned())
            }
            _ => None,
        }
    }

    fn typing(&self) -> bool {
        self.form.input().is_some()
    }

    fn key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        match key.code {
            KeyCode::Esc => self.form.leave(),
            KeyCode::Enter | KeyCode::Tab => self.commit(cx),
            _ if self.form.key(key) => {}
            _ => return None,
        }
        Some(Vec::new())
    }

    fn paste(&mut self, text: &str, _: &Cx) -> Vec<Step> {
        self.form.paste(text);
        Vec::new()
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        if let Some(to) = motion(
            action,
            self.form.at(),
            self.items(cx).len(),
            usize::from(cx.area.height),
        ) {
            self.form.go(to);
            return Some(Vec::new());
        }
        match (action, self.kind(cx)) {
            (Action::Left | Action::Right, Some(_)) => {
                self.form.step(action == Action::Right, cx.world);
                self.request_changed(cx);
            }
            (Action::Edit, Some(_)) => _ = self.form.edit(cx.world),
            (Action::Run, _) => return Some(self.run(cx)),
            _ => return None,
        }
        Some(Vec::new())
    }

    fn entered(&mut self, cx: &Cx) -> Vec<Step> {
        self.estimate_due = Some(cx.world.now);
        vec![
            Step::Send(Command::ListStudies),
            Step::Send(Command::ListModels),
        ]
    }

    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        match &reply.event {
            Event::Estimate(estimate) if reply.is_to(self.open_request) => {
                self.open_request = None;
                let known = estimate.as_ref().ok();
                self.form.values.layers = known.and_then(|e| e.layers);
                self.form.values.width = known.and_then(|e| e.width);
                self.estimate = Some(estimate.clone());
            }
            Event::Studies(_) | Event::Models(_) => {
                let last = self.items(cx).len().saturating_sub(1);
                if self.form.at() > last {
                    self.form.go(last);
                }
            }
            _ => {}
        }
        Vec::new()
    }

    fn receive(&mut self, handover: &Handover, cx: &Cx) -> Vec<Step> {
        if let Handover::Open(request) = handover {
            self.form.values.request = request.clone();
            let layer = Kind::ALL.iter().position(|kind| *kind == Kind::Layer);
            self.form.go(layer.unwrap_or(0));
            self.request_changed(cx);
        }
        Vec::new()
    }

    fn deadline(&self) -> Option<Duration> {
        self.estimate_due
    }

    fn tick(&mut self, cx: &Cx) -> Vec<Step> {
        if self.estimate_due.is_none_or(|at| cx.world.now < at) {
            return Vec::new();
        }
        self.estimate_due = None;
        let request = cx.request(Command::Estimate(self.form.values.request.clone()));
        self.open_request = Some(request.id);
        vec![Step::Request(request)]
    }

    fn click(&mut self, column: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        let Some(at) = self.item_at(column, row, cx) else {
            return Vec::new();
        };
        if self.form.input().is_some() {
            self.commit(cx);
        }
        self.form.go(at);
        if double { self.run(cx) } else { Vec::new() }
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        self.draw(cx, buf);
    }
}
