//! Generated text as it comes: which features fire on the steered, or on the unsteered,
//! continuation of a prompt, and on the other one beside it.
//!
//! Invariant: one text is traced at a time, and its trace is kept with its side.

use super::LivePane;
use crate::analysis::Trace;
use crate::engine::{Event, Job};
use crate::ui::pane::Cx;

/// A run that the pane follows.
#[derive(Debug, Default)]
pub(super) struct Follow {
    prompt: String,
    /// The continuation without and with steering.
    sides: [Side; 2],
    steered: bool,
    /// The side whose text was sent to be traced last.
    traced_side: usize,
    /// The token under the cursor is the newest one.
    pub tail: bool,
}

#[derive(Debug, Default)]
struct Side {
    text: String,
    /// The text that was traced, or is being traced.
    traced: Option<String>,
    trace: Option<Box<Trace>>,
}

impl Follow {
    pub fn new(prompt: &str, baseline: &str, steered: &str) -> Self {
        let side = |text: &str| Side {
            text: text.to_owned(),
            ..Side::default()
        };
        let sides = [side(baseline), side(steered)];
        Self {
            prompt: prompt.to_owned(),
            sides,
            steered: true,
            traced_side: 1,
            tail: true,
        }
    }

    fn name(steered: bool) -> &'static str {
        if steered { "steered" } else { "baseline" }
    }

    /// Which of the two texts is on show.
    pub fn side(&self) -> &'static str {
        Self::name(self.steered)
    }

    /// The other of the two: its name, and its trace where it is there.
    pub fn other(&self) -> (&'static str, Option<&Trace>) {
        (
            Self::name(!self.steered),
            self.sides[usize::from(!self.steered)].trace.as_deref(),
        )
    }

    /// Both texts are to be traced anew.
    pub fn forget_traces(&mut self) {
        for side in &mut self.sides {
            (side.traced, side.trace) = (None, None);
        }
    }

    fn text(&self, side: usize) -> String {
        format!("{}{}", self.prompt, self.sides[side].text)
    }

    /// The side whose newest text was not sent to be traced yet; the one on show first.
    fn outdated_side(&self) -> Option<usize> {
        let on_show = usize::from(self.steered);
        [on_show, 1 - on_show]
            .into_iter()
            .find(|&side| self.sides[side].traced.as_ref() != Some(&self.text(side)))
    }

    /// The text to ask about now: of the side that is behind, else of the one on show again.
    pub fn next_text(&mut self) -> String {
        self.traced_side = self.outdated_side().unwrap_or(usize::from(self.steered));
        let text = self.text(self.traced_side);
        self.sides[self.traced_side].traced = Some(text.clone());
        text
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

    /// The other of the two texts, at once where it was traced.
    pub(super) fn switch_side(&mut self, cx: &Cx) {
        if let Some(follow) = &mut self.follow {
            follow.steered = !follow.steered;
            if let Some(trace) = follow.sides[usize::from(follow.steered)].trace.clone() {
                self.show_trace(&trace, cx);
            }
        }
        self.show_followed(cx);
    }

    /// Takes what a run tells.
    pub(super) fn follow_event(&mut self, event: &Event, cx: &Cx) {
        let Some(follow) = &mut self.follow else {
            return;
        };
        match event {
            Event::Started(Job::Steer) => {
                follow.sides = Default::default();
                follow.tail = true;
            }
            Event::SteerText {
                sample: 0,
                steered,
                text,
            } => follow.sides[usize::from(*steered)].text.push_str(text),
            // Other features fire now.
            Event::Features(_) => {
                for side in &mut follow.sides {
                    side.traced = None;
                }
                return;
            }
            _ => return,
        }
        self.show_followed(cx);
    }

    /// Takes the trace of a followed text; whether it is the one on show.
    pub(super) fn receive_followed_trace(&mut self, trace: &Trace, cx: &Cx) -> bool {
        let Some(follow) = &mut self.follow else {
            return true;
        };
        follow.sides[follow.traced_side].trace = Some(Box::new(trace.clone()));
        let on_show = follow.traced_side == usize::from(follow.steered);
        if follow.outdated_side().is_some() && self.trace_due.is_none() {
            self.text_changed(cx);
        }
        on_show
    }

    /// The cursor goes with the newest token until it is moved away, and again when it is moved
    /// there.
    pub(super) fn update_tail(&mut self) {
        let last = self.token + 1 >= self.tokens();
        if let Some(follow) = &mut self.follow {
            follow.tail = last;
        }
    }

    fn show_followed(&mut self, cx: &Cx) {
        let Some(text) = self
            .follow
            .as_ref()
            .map(|follow| follow.text(usize::from(follow.steered)))
        else {
            return;
        };
        self.text.set(&text);
        // Pieces come faster than they can be traced: a question that waits already will see the
        // newest text.
        if self.trace_due.is_none() && self.open_request.is_none() {
            self.text_changed(cx);
        }
    }
}
