//! Moving about: panes, features, neurons, and the way back.

use super::{App, Effect, TrailEntry};
use crate::engine::{Command, Level, Request, SetKind};
use crate::ui::action::Action;
use crate::ui::pane_id::PaneId;

/// Steps kept of the way back.
const TRAIL: usize = 64;

impl App {
    fn current_entry(&self) -> TrailEntry {
        TrailEntry {
            pane: self.focus,
            feature: self.world.selected,
            neuron: self.world.open_neuron,
        }
    }

    fn push_trail(&mut self) {
        let entry = self.current_entry();
        if self.trail.last() != Some(&entry) {
            if self.trail.len() == TRAIL {
                self.trail.remove(0);
            }
            self.trail.push(entry);
        }
    }

    /// The breadcrumb: the features and neurons on the way here.
    pub(super) fn update_path(&mut self) {
        let mut path: Vec<String> = Vec::new();
        for entry in self.trail.iter().chain([&self.current_entry()]) {
            let name = match (entry.neuron, entry.feature) {
                (Some(neuron), _) => format!("neuron {neuron}"),
                (None, Some(feature)) => format!("#{feature}"),
                (None, None) => continue,
            };
            if path.last() != Some(&name) {
                path.push(name);
            }
        }
        self.world.path = path;
    }

    /// The cursor of the list moves to a feature.
    pub(super) fn select(&mut self, id: usize) -> Vec<Effect> {
        if self.world.selected == Some(id) && self.world.open_neuron.is_none() {
            return Vec::new();
        }
        self.world.selected = Some(id);
        self.world.open_neuron = None;
        self.update_path();
        let mut effects = self.request_card(id);
        effects.extend(self.after_select());
        effects
    }

    /// Tells every pane that the selection, or its place on the screen, changed.
    pub(super) fn after_select(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for id in PaneId::ALL {
            let steps = self.with(id, |pane, cx| pane.selection_changed(cx));
            effects.extend(self.carry_out(steps));
        }
        effects
    }

    /// Goes to a feature by a link; `back` returns.
    pub(super) fn visit(&mut self, id: usize) -> Vec<Effect> {
        if self.world.features.is_some() && self.world.row(id).is_none() {
            self.notify(
                Level::Warn,
                format!("there is no feature #{id} in this fit"),
            );
            return Vec::new();
        }
        self.push_trail();
        if !self.focus.is_column() {
            self.focus = PaneId::Contexts;
        }
        self.select(id)
    }

    /// Goes to a neuron; `back` returns.
    pub(super) fn visit_neuron(&mut self, index: usize) -> Vec<Effect> {
        self.push_trail();
        self.focus = PaneId::Feature;
        self.world.open_neuron = Some(index);
        self.update_path();
        vec![self.send(Command::Neuron(index))]
    }

    /// Goes to a pane; `back` returns.
    pub(crate) fn go_to(&mut self, pane: PaneId) -> Vec<Effect> {
        if self.focus == pane {
            return Vec::new();
        }
        self.push_trail();
        self.enter(pane)
    }

    /// Gives the focus to a pane, and tells it.
    pub(super) fn enter(&mut self, pane: PaneId) -> Vec<Effect> {
        self.focus = pane;
        let steps = self.with(pane, |p, cx| p.entered(cx));
        self.carry_out(steps)
    }

    /// To a tab: a fresh way, from which `back` leads to the list.
    pub(crate) fn open_tab(&mut self, tab: PaneId) -> Vec<Effect> {
        self.trail.clear();
        self.update_path();
        if self.focus == tab {
            Vec::new()
        } else {
            self.enter(tab)
        }
    }

    /// Goes one level back: out of the zoom, along the trail, to the list.
    pub(crate) fn back(&mut self) -> Vec<Effect> {
        if self.zoom {
            self.zoom = false;
            return self.after_select();
        }
        while let Some(entry) = self.trail.pop() {
            if entry == self.current_entry() {
                continue;
            }
            return self.return_to(entry);
        }
        if self.world.open_neuron.take().is_some() {
            self.update_path();
            return Vec::new();
        }
        match self.focus {
            PaneId::Features => {
                if !self.notes.is_empty() {
                    self.notes.clear();
                    return Vec::new();
                }
                if self.world.set().is_some_and(|set| set.fit.is_some()) {
                    return vec![self.send(Command::ShowSet(SetKind::FIT))];
                }
                let key = self.keymap.key(Action::Quit);
                self.toast(Level::Info, format!("{key} quits"));
                Vec::new()
            }
            _ => self.enter(PaneId::Features),
        }
    }

    fn return_to(&mut self, entry: TrailEntry) -> Vec<Effect> {
        self.focus = entry.pane;
        let mut effects = Vec::new();
        if let Some(id) = entry.feature {
            effects.extend(self.select(id));
        }
        self.world.open_neuron = entry.neuron;
        if let Some(index) = entry.neuron
            && self.world.open_neuron_card().is_none()
        {
            effects.push(self.send(Command::Neuron(index)));
        }
        self.update_path();
        effects
    }

    /// The neighbour pane: within the reading columns, else the next tab.
    pub(crate) fn neighbour(&mut self, forward: bool, wrap: bool) -> Vec<Effect> {
        let columns = PaneId::COLUMNS;
        if let Some(at) = columns.iter().position(|p| *p == self.focus) {
            let n = columns.len();
            let to = match (forward, wrap) {
                (true, true) => (at + 1) % n,
                (false, true) => (at + n - 1) % n,
                (true, false) => (at + 1).min(n - 1),
                (false, false) => at.saturating_sub(1),
            };
            return self.enter(columns[to]);
        }
        if !wrap {
            return Vec::new();
        }
        let mut tabs = Self::tabs();
        let refused =
            |tab| Action::to_pane(tab).is_some_and(|action| self.refusal(action).is_some());
        tabs.retain(|tab| *tab == self.focus.tab() || !refused(*tab));
        let at = tabs
            .iter()
            .position(|t| *t == self.focus.tab())
            .unwrap_or(0);
        let to = if forward {
            (at + 1) % tabs.len()
        } else {
            (at + tabs.len() - 1) % tabs.len()
        };
        self.open_tab(tabs[to])
    }

    /// The tabs, in the order of the table of panes.
    pub(crate) fn tabs() -> Vec<PaneId> {
        PaneId::ALL.into_iter().filter(|p| p.is_tab()).collect()
    }

    /// Saves and ends; a second call ends at once.
    pub(super) fn close(&mut self) -> Vec<Effect> {
        if self.closing.is_some() || self.world.gone {
            return vec![Effect::Quit];
        }
        self.closing = Some(self.world.now);
        self.dialog = None;
        let mut effects = self.send_unsaved();
        if self.world.study.is_some() {
            let session = self.session();
            effects.push(self.send(Command::SaveSession(session)));
        }
        effects.push(Effect::Send(Request::shutdown()));
        effects
    }
}
