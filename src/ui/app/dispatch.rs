//! From keys to actions, and from an action to the focused pane or to the handler in its row.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::handlers::handler;
use super::{App, Effect};
use crate::engine::{Command, Job, Level};
use crate::ui::action::Action;
use crate::ui::dialog::{Answer, Dialog};
use crate::ui::dialogs::{Question, QuestionDialog, QuitDialog};
use crate::ui::keymap::Key;
use crate::ui::pane_id::PaneId;

/// A second cancel key within this quits.
const CANCEL_AGAIN: Duration = Duration::from_secs(3);

impl App {
    pub(super) fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let action = self.keymap.action(Key::of(key), self.focus);
        if action == Some(Action::Cancel) {
            return self.cancel();
        }
        if self.closing.is_some() {
            return if action == Some(Action::Quit) {
                vec![Effect::Quit]
            } else {
                Vec::new()
            };
        }
        let alt = key.modifiers.contains(KeyModifiers::ALT) && action.is_none();
        if self.dialog.is_some() && alt {
            return self.esc_then(key);
        }
        let answer = self.with_dialog(|dialog, cx| match key.code {
            KeyCode::Esc => Answer::Close,
            _ => dialog.key(key, cx),
        });
        if let Some(answer) = answer {
            return self.answer(answer);
        }
        let focus = self.focus;
        if self.pane(focus).typing()
            && let Some(steps) = self.with(focus, |pane, cx| pane.key(key, cx))
        {
            return self.carry_out(steps);
        }
        if alt {
            return self.esc_then(key);
        }
        // While text is typed, only keys that are no text may be commands.
        if self.pane(focus).typing() && !Key::of(key).is_command() {
            return Vec::new();
        }
        action
            .map(|action| self.perform(action))
            .unwrap_or_default()
    }

    /// Esc and a key in quick succession arrive as alt and the key.
    fn esc_then(&mut self, key: KeyEvent) -> Vec<Effect> {
        let mut effects = self.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        effects.extend(self.key(KeyEvent::new(key.code, key.modifiers - KeyModifiers::ALT)));
        effects
    }

    /// Why an action cannot be done now; `None` when it can.
    pub(crate) fn refusal(&self, action: Action) -> Option<String> {
        let of_pane = || self.pane(self.focus).refusal(action, &self.cx(self.focus));
        (handler(action).available)(self).err().or_else(of_pane)
    }

    /// Does what an action says: the focused pane's meaning of it first, else that of its row.
    pub(super) fn perform(&mut self, action: Action) -> Vec<Effect> {
        if let Some(reason) = self.refusal(action) {
            self.toast(Level::Warn, reason);
            return Vec::new();
        }
        let focus = self.focus;
        match self.with(focus, |pane, cx| pane.act(action, cx)) {
            Some(steps) => self.carry_out(steps),
            None => (handler(action).run)(self),
        }
    }

    /// What an action means in `pane`, wherever the focus is.
    pub(crate) fn act_of(&mut self, pane: PaneId, action: Action) -> Vec<Effect> {
        let steps = self.with(pane, |pane, cx| pane.act(action, cx));
        steps.map(|steps| self.carry_out(steps)).unwrap_or_default()
    }

    /// Goes to `pane` and does what an action means there.
    pub(crate) fn act_in(&mut self, pane: PaneId, action: Action) -> Vec<Effect> {
        let mut effects = self.go_to(pane);
        effects.extend(self.act_of(pane, action));
        effects
    }

    /// Asks where the study's model lies.
    pub(super) fn open_model_dialog(&mut self) {
        let Some(study) = &self.world.study else {
            return;
        };
        let why = self.world.no_model.clone().unwrap_or_default();
        let now = study.model.clone().unwrap_or_default();
        self.open_dialog(QuestionDialog::new(Question::Model(why), &now));
    }

    pub(super) fn show(&mut self, dialog: impl Dialog + 'static) -> Vec<Effect> {
        self.open_dialog(dialog);
        Vec::new()
    }

    /// Cancels the newest job; asked for again, or where none runs, it quits.
    pub(crate) fn cancel(&mut self) -> Vec<Effect> {
        let now = self.world.now;
        let again = self.cancelled_at.is_some_and(|at| now < at + CANCEL_AGAIN);
        match self.world.cancellable() {
            Some(job) if !again && self.closing.is_none() => {
                self.cancelled_at = Some(now);
                for running in self.world.jobs.iter_mut().filter(|r| r.job == job) {
                    running.cancelling = true;
                }
                let key = self.keymap.key(Action::Cancel);
                self.toast(
                    Level::Info,
                    format!("cancelling {}; {key} again quits", job.label()),
                );
                vec![self.send(Command::Cancel(job))]
            }
            _ => match self.dialog.as_ref().and_then(|dialog| dialog.cancel()) {
                Some(answer) => self.answer(answer),
                None if self.unsaved_notes() > 0 && self.closing.is_none() => self.quit(),
                None => self.close(),
            },
        }
    }

    /// Ends the explorer, after a question where something would be cut short.
    pub(crate) fn quit(&mut self) -> Vec<Effect> {
        let jobs: Vec<Job> = self
            .world
            .jobs
            .iter()
            .map(|r| r.job)
            .filter(|j| *j != Job::Trace)
            .collect();
        if jobs.is_empty() && self.unsaved_notes() == 0 {
            return self.close();
        }
        self.open_dialog(QuitDialog::new(jobs));
        Vec::new()
    }
}
