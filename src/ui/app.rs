//! The explorer without a terminal: its state and [`App::update`], from messages to effects. Owns
//! where the user stands; leaves drawing to `view`, the world's data to the engine's events, and
//! each pane's own state to the pane.
//!
//! Invariant: `update` does no I/O and reads no clock; the same messages give the same state and
//! effects.

mod availability;
mod cards;
mod commands;
mod dialogs;
mod dispatch;
mod handlers;
mod messages;
mod mouse;
mod nav;
mod session;
mod toasts;
mod unsaved;

use std::path::PathBuf;
use std::time::Duration;

use crossterm::event::{KeyEventKind, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

use super::dialog::Dialog;
use super::dialogs::CopyDialog;
use super::keymap::Keymap;
use super::layout::{Layout, LayoutInput};
use super::panes;
use super::theme::Theme;
use super::world::World;
use crate::engine::{Command, Event, Job, Level, Reply, RequestCounter};
use crate::text;
use crate::ui::pane::{Cx, Handover, Pane, Step};
use crate::ui::pane_id::PaneId;
pub use messages::{AppOptions, Effect, Msg};
pub use toasts::Toast;

/// Where the user stands, for the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrailEntry {
    pane: PaneId,
    feature: Option<usize>,
    neuron: Option<usize>,
}

/// The explorer's state: what was told, where the user stands, the panes and what lies over them.
pub struct App {
    pub(crate) world: World,
    pub(crate) theme: Theme,
    pub(crate) keymap: Keymap,
    /// In the order of [`PaneId::ALL`].
    panes: Vec<Box<dyn Pane>>,
    focus: PaneId,
    trail: Vec<TrailEntry>,
    size: (u16, u16),
    zoom: bool,
    pub(crate) dialog: Option<Box<dyn Dialog>>,
    pub(crate) toasts: Vec<Toast>,
    pub(crate) notes: Vec<String>,
    cards: cards::CardRequests,
    unsaved: unsaved::Unsaved,
    requests: RequestCounter,
    initial: Option<Command>,
    fresh: bool,
    /// The study whose session was restored.
    restored: Option<PathBuf>,
    /// A session was restored, and the features that it speaks of are not there yet.
    restoring: bool,
    mouse: bool,
    closing: Option<Duration>,
    cancelled_at: Option<Duration>,
    last_click: Option<(u16, u16, Duration)>,
    dirty: bool,
}

impl App {
    /// An app that knows nothing yet, on a terminal of `size`.
    pub fn new(options: AppOptions, size: (u16, u16)) -> Self {
        let mut world = World::default();
        for note in options.notes.iter().chain(&options.problems) {
            world.add_log_line(Level::Warn, note.clone());
        }
        let until = Duration::from_secs(15);
        let toast = |text: String| Toast {
            level: Level::Warn,
            text,
            since: until,
            until,
        };
        let toasts = options.problems.into_iter().take(3).map(toast).collect();
        Self {
            world,
            theme: options.theme,
            keymap: options.keymap,
            panes: panes::all(),
            focus: if options.show_start {
                PaneId::Start
            } else {
                PaneId::Features
            },
            trail: Vec::new(),
            size,
            zoom: false,
            dialog: None,
            toasts,
            notes: options.notes,
            cards: cards::CardRequests::default(),
            unsaved: unsaved::Unsaved::default(),
            requests: RequestCounter::default(),
            initial: options.initial,
            fresh: options.fresh,
            restored: None,
            restoring: false,
            mouse: options.mouse,
            closing: None,
            cancelled_at: None,
            last_click: None,
            dirty: true,
        }
    }

    /// What to do at the very start.
    pub fn begin(&mut self) -> Vec<Effect> {
        let mut effects: Vec<Effect> = self
            .initial
            .take()
            .map(|command| self.send(command))
            .into_iter()
            .collect();
        effects.extend(self.enter(self.focus));
        effects
    }

    /// Changes the state as a message demands, and returns what is to be done outside.
    pub fn update(&mut self, msg: Msg) -> Vec<Effect> {
        let moved = |m: &MouseEvent| {
            matches!(
                m.kind,
                MouseEventKind::Moved | MouseEventKind::Drag(_) | MouseEventKind::Up(_)
            )
        };
        match &msg {
            Msg::Tick(_) => {}
            Msg::Mouse(mouse) if moved(mouse) => return Vec::new(),
            _ => self.dirty = true,
        }
        match msg {
            Msg::Tick(now) => self.tick(now),
            Msg::Key(key) if key.kind == KeyEventKind::Release => Vec::new(),
            Msg::Key(key) => {
                self.clear_toasts();
                self.key(key)
            }
            Msg::Mouse(mouse) => self.mouse_event(mouse),
            Msg::Paste(text) => self.paste(&text),
            Msg::Resize(width, height) => {
                self.size = (width, height);
                self.after_select()
            }
            Msg::Engine(reply) => self.engine(&reply),
            Msg::EngineGone => self.engine_gone(),
            Msg::Stderr(line) => {
                let level = if line.starts_with("warning: ") {
                    Level::Warn
                } else {
                    Level::Info
                };
                self.world.add_log_line(level, line);
                Vec::new()
            }
            // The engine is saving already.
            Msg::Terminate if self.closing.is_some() => Vec::new(),
            Msg::Terminate => self.close(),
            Msg::Outcome(Ok(what)) => {
                self.notify(Level::Info, what);
                Vec::new()
            }
            Msg::Outcome(Err(problem)) => {
                self.notify(Level::Warn, problem);
                Vec::new()
            }
        }
    }

    /// Whether anything changed since the last call: whether to draw.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Whether there is something to draw.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// When the app wants a [`Msg::Tick`].
    pub fn deadline(&self) -> Option<Duration> {
        let panes = self.panes.iter().filter_map(|p| p.deadline());
        let toasts = self.toasts.iter().map(|t| t.until);
        panes
            .chain(toasts)
            .chain(self.cards.deadline())
            .chain(self.unsaved.deadline())
            .min()
    }

    fn tick(&mut self, now: Duration) -> Vec<Effect> {
        self.world.now = now;
        let before = self.toasts.len();
        self.toasts.retain(|t| t.until > now);
        self.dirty |= before != self.toasts.len();
        let mut effects = self.refresh_card();
        effects.extend(self.retry_notes());
        for id in PaneId::ALL {
            if self.pane(id).deadline().is_some_and(|at| at <= now) {
                self.dirty = true;
                let steps = self.with(id, |pane, cx| pane.tick(cx));
                effects.extend(self.carry_out(steps));
            }
        }
        effects
    }

    fn engine(&mut self, reply: &Reply) -> Vec<Effect> {
        let event = &reply.event;
        if matches!(event, Event::Card(_)) {
            if !self.cards.is_open(reply) {
                // Of the study before.
                return Vec::new();
            }
            let list = self.world.features.as_ref().map(|list| list.fit.as_str());
            if !self.cards.is_of(list) {
                // Its id is of the list before: there it was another feature.
                return self.card_event(reply);
            }
        }
        let first_study =
            matches!(event, Event::Study(study) if self.restored.as_ref() != Some(&study.dir));
        let before = self.world.features.as_ref().map(|list| list.fit.clone());
        if matches!(event, Event::Features(list) if before.is_none() && self.world.is_other_fit(&list.fit))
        {
            self.trail.clear();
        }
        self.world.apply(event);
        let mut effects = Vec::new();
        if let Event::Noted(note, problem) = event {
            self.note_answered(note, problem.as_deref());
        }
        if matches!(event, Event::Closed) {
            // Coming back restores where it stood.
            self.restored = None;
            self.trail.clear();
        }
        if let (Event::Study(study), true) = (event, first_study) {
            self.restored = Some(study.dir.clone());
            self.cards = cards::CardRequests::default();
            match &study.session {
                Some(session) if !self.fresh => self.restore(session),
                // The engine opens the fit that the session was left with.
                Some(session) => effects.extend(self.newest_fit(study, session)),
                None => {}
            }
        }
        let other =
            matches!((event, before), (Event::Features(list), Some(before)) if list.fit != before);
        if other {
            // The way here went over features of the list before.
            self.trail.clear();
        }
        for id in PaneId::ALL {
            let steps = self.with(id, |pane, cx| pane.event(reply, cx));
            effects.extend(self.carry_out(steps));
        }
        if other {
            effects.extend(self.after_select());
        }
        effects.extend(self.card_event(reply));
        if matches!(event, Event::Features(_)) && std::mem::take(&mut self.restoring) {
            effects.extend(self.request_restored());
        }
        match event {
            // A result that shows itself needs no words.
            Event::Done(_, text) if text.is_empty() => {}
            Event::Done(job, text) => {
                self.toast(Level::Info, format!("{} done: {text}", job.label()))
            }
            Event::Cancelled(job) => {
                self.toasts.retain(|t| !t.text.starts_with("cancelling"));
                if *job != Job::Trace {
                    self.toast(Level::Info, format!("{} cancelled", job.label()));
                }
            }
            Event::Failed(job, text) => {
                self.toast(Level::Error, format!("{} failed: {text}", job.label()))
            }
            Event::Refused(text) => self.toast(Level::Warn, text.clone()),
            Event::NoModel(_) if self.dialog.is_none() && self.closing.is_none() => {
                self.open_model_dialog()
            }
            Event::Exported(path) => self.toast(Level::Info, format!("wrote {}", path.display())),
            Event::Log(Level::Error, text) => self.toast(Level::Error, text.clone()),
            _ => {}
        }
        effects
    }

    fn engine_gone(&mut self) -> Vec<Effect> {
        self.world.gone = true;
        self.world.jobs.clear();
        if self.closing.is_some() {
            return vec![Effect::Quit];
        }
        self.notify(
            Level::Error,
            "the engine has ended unexpectedly; what was saved is safe: quit and start again"
                .to_owned(),
        );
        Vec::new()
    }

    /// Runs `f` on a pane with what it may look at.
    fn with<R>(&mut self, id: PaneId, f: impl FnOnce(&mut dyn Pane, &Cx) -> R) -> R {
        let area = self.pane_area(id);
        let focused = self.focus == id;
        let contexts_seen = self.contexts_seen();
        let Self {
            world,
            theme,
            keymap,
            panes,
            requests,
            ..
        } = self;
        f(
            panes[id as usize].as_mut(),
            &Cx {
                world,
                theme,
                keymap,
                area,
                focused,
                contexts_seen,
                requests,
            },
        )
    }

    /// What a pane may look at, for drawing and hints.
    pub(crate) fn cx(&self, id: PaneId) -> Cx<'_> {
        Cx {
            world: &self.world,
            theme: &self.theme,
            keymap: &self.keymap,
            area: self.pane_area(id),
            focused: self.focus == id && self.dialog.is_none(),
            contexts_seen: self.contexts_seen(),
            requests: &self.requests,
        }
    }

    fn contexts_seen(&self) -> bool {
        self.layout().pane(PaneId::Contexts).is_some()
    }

    /// The pane of this name.
    pub(crate) fn pane(&self, id: PaneId) -> &dyn Pane {
        self.panes[id as usize].as_ref()
    }

    /// The pane that keys go to.
    pub(crate) fn focus(&self) -> PaneId {
        self.focus
    }

    /// Whether quitting waits for the engine.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    fn pane_area(&self, id: PaneId) -> Rect {
        let layout = self.layout();
        // A pane that is not on the screen scrolls as if it had the body to itself.
        layout.pane(id).map_or_else(
            || {
                let alone = Layout::new(
                    self.size.0,
                    self.size.1,
                    LayoutInput {
                        pane: id,
                        ..self.layout_input()
                    },
                );
                alone.pane(id).map_or(Rect::ZERO, |p| p.inner)
            },
            |p| p.inner,
        )
    }

    fn layout_input(&self) -> LayoutInput {
        LayoutInput {
            pane: self.focus,
            zoom: self.zoom,
            notice: self.notice().len() as u16,
            progress: !self.world.jobs.is_empty(),
            waiting: self.world.rows().is_empty(),
        }
    }

    /// The first note, in the lines that it takes.
    pub(crate) fn notice(&self) -> Vec<String> {
        let Some(note) = self
            .unsaved_notice()
            .or_else(|| self.notes.first().cloned())
        else {
            return Vec::new();
        };
        let width = usize::from(self.size.0).saturating_sub(4);
        let lines = text::wrap(&text::clean(&note), width);
        lines
            .into_iter()
            .take(2)
            .enumerate()
            .map(|(i, l)| format!("{}{l}", if i == 0 { " ! " } else { "   " }))
            .collect()
    }

    /// Where everything is now.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(self.size.0, self.size.1, self.layout_input())
    }

    /// Whether the mouse is captured.
    pub fn mouse(&self) -> bool {
        self.mouse
    }

    /// The size that the app believes the terminal has.
    pub fn size(&self) -> (u16, u16) {
        self.size
    }

    fn carry_out(&mut self, steps: Vec<Step>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for step in steps {
            match step {
                Step::Send(command) => {
                    if matches!(command, Command::Open(_) | Command::OpenStudy(_))
                        && self.world.study.is_some()
                    {
                        let session = self.session();
                        effects.push(self.send(Command::SaveSession(session)));
                    }
                    effects.push(self.send(command));
                }
                Step::Request(request) => effects.push(Effect::Send(request)),
                Step::CopyAs(formats) => self.open_dialog(CopyDialog::new(*formats)),
                Step::Copy(text, what) => effects.push(Effect::Copy(text, what)),
                Step::Select(id) => effects.extend(self.select(id)),
                Step::Visit(id) => effects.extend(self.visit(id)),
                Step::VisitNeuron(index) => effects.extend(self.visit_neuron(index)),
                Step::Focus(pane) => effects.extend(self.go_to(pane)),
                Step::Rename(id) => self.open_name_dialog(id),
                Step::HandOver(pane, handover) => effects.extend(self.hand_over(pane, &handover)),
                Step::Notify(level, text) => self.notify(level, text),
            }
        }
        effects
    }

    fn send(&mut self, command: Command) -> Effect {
        if let Command::Open(request) = &command {
            self.world.opening = Some(request.clone());
        }
        Effect::Send(self.requests.request(command))
    }

    fn hand_over(&mut self, pane: PaneId, handover: &Handover) -> Vec<Effect> {
        let mut effects = self.go_to(pane);
        let steps = self.with(pane, |p, cx| p.receive(handover, cx));
        effects.extend(self.carry_out(steps));
        effects
    }
}

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;
