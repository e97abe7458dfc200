//! What a pane is: the trait that every pane implements, what it may look at ([`Cx`]) and what it may
//! ask for ([`Step`]). Knows no pane and not the app.
//!
//! Invariant: a pane changes nothing but itself; what it wants done it returns as [`Step`]s.

use std::time::Duration;

use crossterm::event::KeyEvent;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::action::Action;
use super::keymap::Keymap;
use super::pane_id::PaneId;
use super::theme::Theme;
use super::world::World;
use crate::engine::{Command, Level, Mode, OpenRequest, Reply, Request, RequestCounter, SteerPart};

/// What a pane may look at.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    /// What the engine told.
    pub world: &'a World,
    /// The styles to draw with.
    pub theme: &'a Theme,
    /// Keys, for hints in empty panes.
    pub keymap: &'a Keymap,
    /// Where the pane is drawn, without its title line.
    pub area: Rect,
    /// Whether keys go to it.
    pub focused: bool,
    /// Whether the Contexts pane is on the screen.
    pub contexts_seen: bool,
    /// Numbers the requests of the pane.
    pub requests: &'a RequestCounter,
}

impl Cx<'_> {
    /// The key of an action, for a hint.
    pub fn key(&self, action: Action) -> String {
        self.keymap.key(action)
    }

    /// A request for [`Step::Request`]: its number tells its replies from those to others.
    pub fn request(&self, command: Command) -> Request {
        self.requests.request(command)
    }
}

/// What a pane asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// To the engine; the pane waits for nothing.
    Send(Command),
    /// To the engine; the pane knows the answer by the request's number.
    Request(Request),
    /// To the clipboard: the text, and what it is for the toast ("feature #17").
    Copy(String, String),
    /// To the clipboard, in the format that the user chooses.
    CopyAs(Box<CopyFormats>),
    /// The cursor of the feature list is on this feature.
    Select(usize),
    /// Go to a feature; `Back` returns.
    Visit(usize),
    /// Go to a neuron; `Back` returns.
    VisitNeuron(usize),
    /// Go to a pane; `Back` returns.
    Focus(PaneId),
    /// Ask for the name of a feature.
    Rename(usize),
    /// Hand something to another pane, and go there.
    HandOver(PaneId, Handover),
    /// A toast and a log line.
    Notify(Level, String),
}

impl Step {
    /// Takes whole features to the Steer pane with a weight of 1 each, in place of what is there when
    /// `replace`.
    pub fn steer(features: &[usize], negative: bool, replace: bool) -> Self {
        let handover = Handover::Steer {
            features: features.iter().map(|&id| (id, 1.0)).collect(),
            part: SteerPart::Whole,
            negative,
            replace,
        };
        Self::HandOver(PaneId::Steer, handover)
    }
}

/// What can be copied, in each of three formats.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyFormats {
    /// What it is, for the toast.
    pub what: String,
    /// As lines for a person.
    pub text: String,
    /// The same as JSON.
    pub json: serde_json::Value,
    /// For notes and papers.
    pub markdown: String,
}

/// What one pane hands to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Handover {
    /// To Steer: add these features with their weights, or replace the list when `replace`.
    Steer {
        /// Features with their weights.
        features: Vec<(usize, f32)>,
        /// Which of their neurons.
        part: SteerPart,
        /// Whether they are suppressed.
        negative: bool,
        /// Forget what was there.
        replace: bool,
    },
    /// To Steer: the features that come next are of this cluster.
    Cluster(Vec<usize>),
    /// To Steer: what is done along the features that are there.
    Mode(Mode),
    /// To Steer: run the feature in three ways, whole, core and own neurons.
    ThreeWays,
    /// To Live: look at the selected feature on this text.
    Text {
        /// The text.
        text: String,
        /// The byte at which the token begins that the cursor goes to.
        at: usize,
    },
    /// To Live: look at what is generated, as it comes.
    Follow {
        /// The prompt that both texts continue.
        prompt: String,
        /// The continuation without steering, so far.
        baseline: String,
        /// The continuation with it.
        steered: String,
    },
    /// To Start: begin from this request.
    Open(OpenRequest),
}

/// What every pane can do. Only its name, title, drawing and actions are its own to write; the rest
/// has a default that does nothing.
pub trait Pane {
    /// The pane's row in the table of panes.
    fn id(&self) -> PaneId;

    /// The title line's text: its name and a few facts.
    fn title(&self, cx: &Cx) -> Line<'static>;

    /// Draws into `cx.area` of `buf` (never empty, always inside the buffer).
    fn view(&self, cx: &Cx, buf: &mut Buffer);

    /// Does what an action says; `None` when it means nothing here.
    fn act(&mut self, action: Action, cx: &Cx) -> Option<Vec<Step>>;

    /// Why `action` cannot be done now, for hints and help; `None` when it can.
    fn refusal(&self, action: Action, cx: &Cx) -> Option<String> {
        let _ = (action, cx);
        None
    }

    /// Whether keys are text now.
    fn typing(&self) -> bool {
        false
    }

    /// The line that is typed at the pane's bottom, for `cells` rather than the pane's own width.
    fn typed_line(&self, cx: &Cx, cells: usize) -> Option<Line<'static>> {
        let _ = (cx, cells);
        None
    }

    /// The footer while [`Pane::typing`].
    fn typing_hints(&self) -> Vec<(&'static str, &'static str)> {
        vec![("enter", "keeps it"), ("esc", "leaves it")]
    }

    /// A key while [`Pane::typing`]; `None` hands it on to the key map (function keys, ctrl-…).
    fn key(&mut self, key: KeyEvent, cx: &Cx) -> Option<Vec<Step>> {
        let _ = (key, cx);
        None
    }

    /// Pasted text while [`Pane::typing`].
    fn paste(&mut self, text: &str, cx: &Cx) -> Vec<Step> {
        let _ = (text, cx);
        Vec::new()
    }

    /// The engine told something (the world knows it already).
    fn event(&mut self, reply: &Reply, cx: &Cx) -> Vec<Step> {
        let _ = (reply, cx);
        Vec::new()
    }

    /// A dialog over this pane has sent a request, whose replies are the pane's.
    fn request_sent(&mut self, request: &Request) {
        let _ = request;
    }

    /// Receives what another pane hands over.
    fn receive(&mut self, handover: &Handover, cx: &Cx) -> Vec<Step> {
        let _ = (handover, cx);
        Vec::new()
    }

    /// The selected feature changed.
    fn selection_changed(&mut self, cx: &Cx) -> Vec<Step> {
        let _ = cx;
        Vec::new()
    }

    /// The pane has got the focus.
    fn entered(&mut self, cx: &Cx) -> Vec<Step> {
        let _ = cx;
        Vec::new()
    }

    /// When [`Pane::tick`] is wanted.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// The deadline has come.
    fn tick(&mut self, cx: &Cx) -> Vec<Step> {
        let _ = cx;
        Vec::new()
    }

    /// A click at a cell of `cx.area` (absolute coordinates); `double` when it is the second in
    /// place.
    fn click(&mut self, column: u16, row: u16, double: bool, cx: &Cx) -> Vec<Step> {
        let _ = (column, row, double, cx);
        Vec::new()
    }

    /// What is saved in the study's session under the pane's title; null where there is nothing.
    fn session(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Restores what [`Pane::session`] saved; values that cannot be read are ignored.
    fn restore(&mut self, session: &serde_json::Value, cx: &Cx) {
        let _ = (session, cx);
    }
}
