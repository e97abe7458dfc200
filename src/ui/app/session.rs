//! What is remembered from one run to the next.

use serde_json::{Value, json};

use super::{App, Effect};
use crate::ui::panes::PaneId;

impl App {
    /// Where the explorer stands: pane, selected feature, and what each pane wants to remember.
    pub fn session(&self) -> Value {
        let panes: serde_json::Map<String, Value> = self
            .panes
            .iter()
            .map(|p| (p.id().title().to_owned(), p.session()))
            .filter(|(_, value)| !value.is_null())
            .collect();
        json!({
            "schema": 1,
            "pane": self.place.title(),
            "feature": self.world.selected_of_fit(),
            "zoom": self.zoom,
            "digits": self.world.digits,
            "panes": panes,
        })
    }

    /// Goes back to where an earlier session stood; anything that cannot be read is left aside.
    pub(super) fn restore(&mut self, session: &Value) -> Vec<Effect> {
        self.zoom = session["zoom"].as_bool().unwrap_or(self.zoom);
        self.world.digits = session["digits"].as_bool().unwrap_or(self.world.digits);
        for id in PaneId::ALL {
            let saved = &session["panes"][id.title()];
            if !saved.is_null() {
                self.with(id, |pane, cx| pane.restore(saved, cx));
            }
        }
        let pane = session["pane"].as_str().and_then(PaneId::by_title);
        if let Some(pane) = pane.filter(|p| *p != PaneId::Start && self.pane(*p).is_some()) {
            self.place = pane;
        }
        match session["feature"].as_u64().and_then(|id| usize::try_from(id).ok()) {
            Some(id) => {
                self.world.selected = Some(id);
                Vec::new()
            }
            None => Vec::new(),
        }
    }
}
