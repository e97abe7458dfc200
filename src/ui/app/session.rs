//! What is remembered from one run to the next.

use serde_json::{Value, json};

use super::{App, Effect, TrailEntry};
use crate::engine::{Command, StudyInfo};
use crate::study::newest;
use crate::ui::pane_id::PaneId;

fn index(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|id| usize::try_from(id).ok())
}

impl App {
    /// Where the explorer stands: fit, pane, selected and marked features, the way here, and what
    /// each pane wants to remember.
    pub fn session(&self) -> Value {
        let panes: serde_json::Map<String, Value> = self
            .panes
            .iter()
            .map(|p| (p.id().title().to_owned(), p.session()))
            .filter(|(_, value)| !value.is_null())
            .collect();
        // The way and the neuron of a set of directions are not the fit's.
        let of_fit = self.world.set().is_none();
        let entry = |p: &TrailEntry| json!({ "pane": p.pane.title(), "feature": p.feature, "neuron": p.neuron });
        json!({
            "schema": 1,
            "fit": self.world.fit_of_ids,
            "pane": self.focus.title(),
            "feature": self.world.selected_of_fit(),
            "neuron": self.world.open_neuron.filter(|_| of_fit),
            "marked": self.world.marked_of_fit(),
            "trail": self.trail.iter().filter(|_| of_fit).map(entry).collect::<Vec<_>>(),
            "zoom": self.zoom,
            "digits": self.world.digits,
            "panes": panes,
        })
    }

    /// Goes back to where an earlier session stood; anything that cannot be read is left aside. Ids
    /// of features stay only where the fit that they are of is the one that comes on show.
    pub(super) fn restore(&mut self, session: &Value) {
        self.zoom = session["zoom"].as_bool().unwrap_or(self.zoom);
        self.world.digits = session["digits"].as_bool().unwrap_or(self.world.digits);
        for id in PaneId::ALL {
            let saved = &session["panes"][id.title()];
            if !saved.is_null() {
                self.with(id, |pane, cx| pane.restore(saved, cx));
            }
        }
        let known = |title: &Value| {
            title
                .as_str()
                .and_then(PaneId::by_title)
                .filter(|p| *p != PaneId::Start)
        };
        if let Some(pane) = known(&session["pane"]) {
            self.focus = pane;
        }
        self.world.fit_of_ids = session["fit"].as_str().map(str::to_owned);
        self.world.selected = index(&session["feature"]);
        self.world.open_neuron = index(&session["neuron"]);
        self.world.marked = session["marked"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(index)
            .collect();
        let entry = |value: &Value| {
            let (feature, neuron) = (index(&value["feature"]), index(&value["neuron"]));
            known(&value["pane"]).map(|pane| TrailEntry {
                pane,
                feature,
                neuron,
            })
        };
        self.trail = session["trail"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(entry)
            .collect();
        self.restoring = true;
        self.update_path();
    }

    /// The first features after a restored session: what it looked at can be asked for now.
    pub(super) fn request_restored(&mut self) -> Vec<Effect> {
        let neuron = self.world.open_neuron;
        let mut effects: Vec<Effect> = neuron
            .map(|index| self.send(Command::Neuron(index)))
            .into_iter()
            .collect();
        effects.extend(self.enter(self.focus));
        effects
    }

    /// The newest fit instead of the one that a session was left with.
    pub(super) fn newest_fit(&mut self, study: &StudyInfo, session: &Value) -> Option<Effect> {
        let newest = newest(&study.fits, |_| true)?;
        let other = session["fit"]
            .as_str()
            .is_some_and(|fit| fit != newest.name);
        other.then(|| self.send(Command::ShowFit(newest.name.clone())))
    }
}
