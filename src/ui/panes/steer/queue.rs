//! From the request to runs: one after another, a new one taking the place of the one that runs.

use super::run::{Run, State};
use super::{MAX_RUNS, SteerPane, unknown};
use crate::engine::{Command, Job, Level, SteerSettings};
use crate::ui::action::Action;
use crate::ui::pane::{Cx, Step};

impl SteerPane {
    /// Why nothing can be run now.
    pub(super) fn refusal_reason(&self, cx: &Cx) -> Option<String> {
        if cx.world.model.is_none() {
            return Some(match cx.world.job(Job::Load) {
                Some(_) => "the model is being loaded".to_owned(),
                None => format!("no model is open: {} opens one", cx.key(Action::Start)),
            });
        }
        if self.form.values.features.is_empty() {
            return Some(format!(
                "no feature to steer with: {} adds the selected one",
                cx.key(Action::SteerWith)
            ));
        }
        if let Some((id, _)) = self
            .form
            .values
            .features
            .iter()
            .find(|(id, _)| unknown(*id, cx))
        {
            return Some(format!(
                "there is no feature #{id} in this fit: {} removes it",
                cx.key(Action::Remove)
            ));
        }
        self.prompt
            .text()
            .is_empty()
            .then(|| format!("the prompt is empty: {} types one", cx.key(Action::Edit)))
    }

    pub(super) fn run(&mut self, cx: &Cx) -> Vec<Step> {
        self.typing = false;
        if let Some(reason) = self.refusal_reason(cx) {
            return vec![Step::Notify(Level::Warn, reason)];
        }
        self.three = None;
        self.queue = [self.form.values.settings(self.prompt.text())].into();
        self.go_on(cx)
    }

    /// The feature in three ways, one after the other: whole, the core of its cluster, its own
    /// neurons.
    pub(super) fn run_three(&mut self, cx: &Cx) -> Vec<Step> {
        self.typing = false;
        if let Some(reason) = self
            .refusal_reason(cx)
            .or_else(|| self.form.values.refused_three())
        {
            return vec![Step::Notify(Level::Warn, reason)];
        }
        self.queue = self.form.values.three(self.prompt.text()).into();
        // Runs that drop out of the history make room first.
        let active = usize::from(self.active().is_some());
        while self.runs.len() + 3 > MAX_RUNS && self.runs.len() > active {
            self.runs.remove(0);
        }
        self.three = Some(self.runs.len());
        self.go_on(cx)
    }

    /// Begins with the queue, stopping what runs.
    pub(super) fn go_on(&mut self, cx: &Cx) -> Vec<Step> {
        if self.active().is_some() {
            self.replacing = true;
            return vec![Step::Send(Command::Cancel(Job::Steer))];
        }
        self.queue
            .pop_front()
            .map(|settings| self.start(settings, cx))
            .unwrap_or_default()
    }

    pub(super) fn start(&mut self, settings: SteerSettings, cx: &Cx) -> Vec<Step> {
        if self.runs.len() == MAX_RUNS {
            self.runs.remove(0);
        }
        let request = cx.request(Command::Steer(settings.clone()));
        self.runs.push(Run {
            request: Some(request.id),
            set: self.lists.set.clone(),
            ..Run::new(settings)
        });
        self.shown = self.runs.len() - 1;
        self.scroll = 0;
        vec![Step::Request(request)]
    }

    pub(super) fn end(&mut self, state: State, cx: &Cx) -> Vec<Step> {
        if let Some(run) = self.active() {
            run.state = state;
        }
        self.replacing = false;
        self.queue
            .pop_front()
            .map(|settings| self.start(settings, cx))
            .unwrap_or_default()
    }
}
