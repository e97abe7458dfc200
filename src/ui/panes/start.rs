//! What to open: a model, a layer, a corpus and a fit, or a recent study, with what it will take.
//! Owns the request being put together; never looks at the disk itself.
//!
//! Invariant: the estimate on show belongs to the request on show, or is marked as being worked
//! out.

mod field;
mod view;

use std::path::PathBuf;
use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::text::Line;

use crate::engine::{Command, Estimate, Event, Level, OpenRequest, Reply, RequestId};
use crate::model::{Cards, DeviceChoice, HookSite};
use crate::ui::action::Action;
use crate::ui::input::LineInput;
use crate::ui::list::motion;
use crate::ui::pane::{Cx, Handover, Pane, Step};
use crate::ui::pane_id::PaneId;
use field::Field;

/// How long the request must stand before an estimate is asked for.
const DEBOUNCE: Duration = Duration::from_millis(150);

/// A line that the cursor can stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Field(Field),
    Study(usize),
    Model(usize),
}

/// The request that is being put together.
#[derive(Debug, Default)]
pub struct StartPane {
    request: OpenRequest,
    cursor: usize,
    editing: Option<LineInput>,
    problem: Option<String>,
    estimate: Option<Result<Estimate, String>>,
    /// When an estimate is requested; `None` where the request has not changed.
    estimate_due: Option<Duration>,
    /// The request for an estimate that is not answered yet.
    open_request: Option<RequestId>,
}

fn cycle<T: PartialEq + Clone>(choices: &[T], now: &T, forward: bool) -> T {
    let n = choices.len();
    let at = choices.iter().position(|c| c == now);
    let to = match (at, forward) {
        (Some(i), true) => (i + 1) % n,
        (Some(i), false) => (i + n - 1) % n,
        (None, _) => 0,
    };
    choices.get(to).cloned().unwrap_or_else(|| now.clone())
}

impl StartPane {
    fn items(&self, cx: &Cx) -> Vec<Item> {
        let studies = cx.world.studies.as_ref().map_or(0, Vec::len);
        let models = cx.world.models.as_ref().map_or(0, Vec::len);
        (Field::ALL.into_iter().map(Item::Field))
            .chain((0..studies).map(Item::Study))
            .chain((0..models).map(Item::Model))
            .collect()
    }

    fn item(&self, cx: &Cx) -> Item {
        self.items(cx)
            .get(self.cursor)
            .copied()
            .unwrap_or(Item::Field(Field::Model))
    }

    fn field(&self, cx: &Cx) -> Option<Field> {
        match self.item(cx) {
            Item::Field(field) => Some(field),
            _ => None,
        }
    }

    /// The layers of the model, when the estimate told.
    fn layers(&self) -> Option<usize> {
        self.estimate
            .as_ref()
            .and_then(|e| e.as_ref().ok())
            .and_then(|e| e.layers)
    }

    /// Neurons a row, when the estimate told.
    fn width(&self) -> Option<usize> {
        self.estimate
            .as_ref()
            .and_then(|e| e.as_ref().ok())
            .and_then(|e| e.width)
    }

    fn request_changed(&mut self, cx: &Cx) {
        self.problem = None;
        self.estimate_due = Some(cx.world.now + DEBOUNCE);
    }

    /// The value of a field as one would type it.
    fn typed(&self, field: Field) -> String {
        let request = &self.request;
        match field {
            Field::Model => request.model.clone().unwrap_or_default(),
            Field::Layer => request.layer.map(|l| l.to_string()).unwrap_or_default(),
            Field::Hook => request.hook.name().to_owned(),
            Field::Corpus => request
                .corpus
                .as_ref()
                .map(|p| p.display().to_string())
                .unwrap_or_default(),
            Field::Features => request.fit.features.to_string(),
            Field::Sparsity => request
                .fit
                .sparsity
                .map_or_else(|| "auto".to_owned(), |p| p.to_string()),
            Field::Penalty => request.fit.l1.to_string(),
            Field::Device => request.device.to_string(),
        }
    }

    /// Takes what was typed into a field, or says what is wrong with it.
    fn set(&mut self, field: Field, typed: &str) -> Result<(), String> {
        let typed = typed.trim();
        let request = &mut self.request;
        let number = |low: f64, high: f64| match typed.parse::<f64>() {
            Ok(v) if v.is_finite() && v >= low && v <= high => Ok(v),
            _ => Err(format!(
                "{} is a number from {low} to {high}, not '{typed}'",
                field.name()
            )),
        };
        match field {
            Field::Model => request.model = (!typed.is_empty()).then(|| typed.to_owned()),
            Field::Layer if typed.is_empty() => request.layer = None,
            Field::Layer => {
                request.layer = Some(
                    typed
                        .parse()
                        .map_err(|_| format!("a layer is a whole number from 0, not '{typed}'"))?,
                );
            }
            Field::Hook => request.hook = typed.parse().map_err(|e: crate::Error| e.to_string())?,
            Field::Corpus => request.corpus = (!typed.is_empty()).then(|| PathBuf::from(typed)),
            Field::Features => match typed.parse() {
                Ok(k) if k > 0 => request.fit.features = k,
                _ => return Err(format!("features is a whole number from 1, not '{typed}'")),
            },
            Field::Sparsity if matches!(typed, "" | "auto") => request.fit.sparsity = None,
            Field::Sparsity => match number(0.0, 1.0)? {
                p if p > 0.0 => request.fit.sparsity = Some(p),
                _ => {
                    return Err(
                        "sparsity is above 0: 0.01 keeps one neuron in a hundred".to_owned()
                    );
                }
            },
            Field::Penalty => request.fit.l1 = number(0.0, 1e6)?,
            Field::Device => {
                request.device = typed.parse().map_err(|e: crate::Error| e.to_string())?;
            }
        }
        Ok(())
    }

    /// The next or the previous choice of a field.
    fn step(&mut self, field: Field, forward: bool, cx: &Cx) {
        let layers = self.layers();
        let request = &mut self.request;
        match field {
            Field::Model => {
                let known = cx
                    .world
                    .models
                    .iter()
                    .flatten()
                    .filter(|m| m.problem.is_none());
                let choices: Vec<Option<String>> = std::iter::once(None)
                    .chain(known.map(|m| Some(m.id.clone())))
                    .collect();
                request.model = cycle(&choices, &request.model, forward);
                request.layer = None;
            }
            Field::Layer => {
                let middle = layers.map_or(0, |l| l / 2);
                let last = layers.map_or(usize::MAX, |l| l.saturating_sub(1));
                let now = request.layer.unwrap_or(middle);
                request.layer = Some(if forward {
                    (now + 1).min(last)
                } else {
                    now.saturating_sub(1)
                });
            }
            Field::Hook => request.hook = cycle(&HookSite::ALL, &request.hook, forward),
            Field::Corpus => {}
            Field::Features => {
                request.fit.features = step(&FEATURES, request.fit.features, forward)
            }
            Field::Sparsity => {
                request.fit.sparsity = step(&SPARSITIES, request.fit.sparsity, forward)
            }
            Field::Penalty => request.fit.l1 = step(&PENALTIES, request.fit.l1, forward),
            Field::Device => request.device = cycle(&DEVICES, &request.device, forward),
        }
        self.request_changed(cx);
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
                self.request.model = Some(model.id.clone());
                self.request.layer = None;
                self.cursor = 0;
                self.request_changed(cx);
                Vec::new()
            }
            Item::Field(_) => {
                if let Some(reason) = self.refusal_reason() {
                    return vec![Step::Notify(Level::Warn, reason)];
                }
                let request = OpenRequest {
                    study: None,
                    ..self.request.clone()
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
        let (Some(input), Some(field)) = (self.editing.take(), self.field(cx)) else {
            return;
        };
        match self.set(field, input.text()) {
            Ok(()) => self.request_changed(cx),
            Err(problem) => {
                self.problem = Some(problem);
                self.editing = Some(input);
            }
        }
    }
}

const FEATURES: [usize; 8] = [10, 25, 50, 100, 200, 300, 400, 800];
const SPARSITIES: [Option<f64>; 8] = [
    None,
    Some(0.002),
    Some(0.005),
    Some(0.01),
    Some(0.02),
    Some(0.05),
    Some(0.1),
    Some(1.0),
];
const PENALTIES: [f64; 5] = [0.0, 0.05, 0.1, 0.2, 0.5];
const DEVICES: [DeviceChoice; 4] = [
    DeviceChoice::Auto,
    DeviceChoice::Cpu,
    DeviceChoice::Cuda(Cards::FIRST),
    DeviceChoice::Metal,
];

/// The next larger or smaller of some ascending choices.
fn step<T: PartialOrd + Copy>(choices: &[T], now: T, forward: bool) -> T {
    let found = if forward {
        choices.iter().find(|c| **c > now)
    } else {
        choices.iter().rev().find(|c| **c < now)
    };
    found.copied().unwrap_or(now)
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
            Action::Edit if self.field(cx).is_none() => {
                Some("only fields of the form can be typed".to_owned())
            }
            _ => None,
        }
    }

    fn typing(&self) -> bool {
        self.editing.is_some()
    }

    fn key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        match key.code {
            KeyCode::Esc => {
                self.editing = None;
                self.problem = None;
            }
            KeyCode::Enter | KeyCode::Tab => self.commit(cx),
            _ if self.editing.as_mut().is_some_and(|input| input.key(key)) => {}
            _ => return None,
        }
        Some(Vec::new())
    }

    fn paste(&mut self, text: &str, _: &Cx) -> Vec<Step> {
        if let Some(input) = &mut self.editing {
            input.paste(text);
        }
        Vec::new()
    }

    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>> {
        if let Some(to) = motion(
            action,
            self.cursor,
            self.items(cx).len(),
            usize::from(cx.area.height),
        ) {
            self.cursor = to;
            return Some(Vec::new());
        }
        match (action, self.field(cx)) {
            (Action::Left, Some(field)) => self.step(field, false, cx),
            (Action::Right, Some(field)) => self.step(field, true, cx),
            (Action::Edit, Some(field)) => self.editing = Some(LineInput::new(&self.typed(field))),
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
                self.estimate = Some(estimate.clone());
            }
            Event::Studies(_) | Event::Models(_) => {
                self.cursor = self.cursor.min(self.items(cx).len().saturating_sub(1));
            }
            _ => {}
        }
        Vec::new()
    }

    fn receive(&mut self, handover: &Handover, cx: &Cx) -> Vec<Step> {
        if let Handover::Open(request) = handover {
            self.request = request.clone();
            self.cursor = Field::ALL
                .iter()
                .position(|f| *f == Field::Layer)
                .unwrap_or(0);
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
        let request = cx.request(Command::Estimate(self.request.clone()));
        self.open_request = Some(request.id);
        vec![Step::Request(request)]
    }

    fn click(&mut self, column: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        let Some(at) = self.item_at(column, row, cx) else {
            return Vec::new();
        };
        if self.editing.is_some() {
            self.commit(cx);
        }
        self.cursor = at;
        if double { self.run(cx) } else { Vec::new() }
    }

    fn view(&self, cx: &Cx, buf: &mut Buffer) {
        self.draw(cx, buf);
    }
}
