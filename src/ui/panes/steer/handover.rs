//! What comes to the Steer pane from elsewhere: another list, another study, what other panes ask
//! to steer with.

use super::SteerPane;
use crate::engine::{FeatureList, Level, Mode, SteerPart};
use crate::ui::pane::{Handover, Step};

impl SteerPane {
    /// What another list calls by the same ids are other directions.
    pub(super) fn change_list(&mut self, list: &FeatureList) -> Vec<Step> {
        let (had, was_set) = (
            !self.form.values.features.is_empty(),
            self.lists.set.is_some(),
        );
        if !self.lists.change_list(list, &mut self.form.values) {
            // The list may have fewer fields; what is being typed stays.
            if self.form.at() >= self.form.values.kinds().len() {
                self.go(self.form.at());
            }
            return Vec::new();
        }
        self.stop_queue();
        if !had || was_set || list.set.is_some() || !self.form.values.features.is_empty() {
            return Vec::new();
        }
        let message = "another fit is on show: the features of the one before were taken out of the Steer pane";
        vec![Step::Notify(Level::Info, message.to_owned())]
    }

    /// Takes everything out that names a feature.
    pub(super) fn clear_features(&mut self) {
        self.form.values.features.clear();
        self.form.values.cluster.clear();
        self.stop_queue();
    }

    /// Stops what was under way with the features of the form.
    pub(super) fn stop_queue(&mut self) {
        self.queue.clear();
        self.three = None;
        self.go(0);
    }

    pub(super) fn add_features(&mut self, handover: &Handover) {
        let Handover::Steer {
            features,
            part,
            negative,
            replace,
        } = handover
        else {
            return;
        };
        if *replace {
            self.form.values.features.clear();
        }
        if self.form.values.features.is_empty() {
            self.form.values.negative = *negative;
            self.form.values.mode = Mode::Add;
        }
        let sign = if self.form.values.negative == *negative {
            1.0
        } else {
            -1.0
        };
        for (id, weight) in features {
            self.form.values.add(*id, weight * sign);
        }
        if *replace || *part != SteerPart::Whole {
            self.form.values.set_part(part);
        }
        let last = features
            .last()
            .and_then(|(id, _)| self.form.values.features.iter().position(|(f, _)| f == id));
        self.form.go(1 + last.unwrap_or(0));
        self.typing = false;
    }
}
