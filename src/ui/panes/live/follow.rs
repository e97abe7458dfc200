//! Generated text as it comes: which features fire on the steered, or on the unsteered, continuation of a prompt.

use super::LivePane;
use crate::engine::{Event, Job};
use crate::ui::panes::Cx;

/// A run that the pane follows.
#[derive(Debug, Default)]
pub(super) struct Follow {
    prompt: String,
    /// The continuation without and with steering.
    texts: [String; 2],
    steered: bool,
}

impl Follow {
    pub fn new(prompt: &str, baseline: &str, steered: &str) -> Self {
        Self { prompt: prompt.to_owned(), texts: [baseline.to_owned(), steered.to_owned()], steered: true }
    }

    /// Which of the two texts is on show.
    pub fn side(&self) -> &'static str {
        if self.steered { "steered" } else { "baseline" }
    }

    fn text(&self) -> String {
        format!("{}{}", self.prompt, self.texts[usize::from(self.steered)])
    }
}

impl LivePane {
    /// Follows a run from now on.
    pub(super) fn follow(&mut self, follow: Follow, cx: &Cx) {
        self.follow = Some(follow);
        self.typing = false;
        self.token = 0;
        self.show_followed(cx);
    }

    /// The other of the two texts.
    pub(super) fn other_side(&mut self, cx: &Cx) {
        if let Some(follow) = &mut self.follow {
            follow.steered = !follow.steered;
        }
        self.show_followed(cx);
    }

    /// Takes what a run tells.
    pub(super) fn follow_event(&mut self, event: &Event, cx: &Cx) {
        let Some(follow) = &mut self.follow else { return };
        match event {
            Event::Started(Job::Steer) => follow.texts = [String::new(), String::new()],
            Event::SteerText { sample: 0, steered, text } => {
                follow.texts[usize::from(*steered)].push_str(text);
                if *steered != follow.steered {
                    return;
                }
            }
            _ => return,
        }
        self.show_followed(cx);
    }

    fn show_followed(&mut self, cx: &Cx) {
        let Some(text) = self.follow.as_ref().map(Follow::text) else { return };
        self.text.set(&text);
        // Pieces come faster than they can be traced: a question that waits already will see the newest text.
        if self.ask_at.is_none() && !self.waiting {
            self.changed(cx);
        }
        self.behind = true;
    }
}
