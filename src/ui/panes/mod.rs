//! The panes, and what a pane is. One file a pane: its state, its `update` (as [`Pane::act`] and
//! friends), its drawing and its tests. To add one: write the file, add it to [`all`], give it a
//! [`PaneId`] and its keys rows in the action table.
//!
//! Invariant: a pane changes nothing but itself; what it wants done it returns as [`Step`]s.

pub mod compare;
pub mod contexts;
mod drawing;
pub mod evaluate;
pub mod feature;
pub mod features;
pub mod fit;
pub mod help;
pub mod labels;
mod lines;
pub mod live;
pub mod log;
#[cfg(test)]
mod looks;
pub mod overlay;
pub mod palette;
pub mod sets;
pub mod start;
pub mod steer;
pub mod sweep;
pub mod train;
pub mod tree;

use std::time::Duration;

use crossterm::event::KeyEvent;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;

use super::action::Action;
use super::keymap::Keymap;
use super::theme::Theme;
use super::world::World;
use crate::engine::{Command, Event, Level, Mode, OpenRequest, SteerPart};

pub use compare::ComparePane;
pub use contexts::ContextsPane;
pub use drawing::{empty, line_cells, nothing_yet, put, put_at};
pub use evaluate::EvaluatePane;
pub use feature::FeaturePane;
pub use features::FeaturesPane;
pub use fit::FitPane;
pub use labels::LabelsPane;
pub use lines::{fit_line, shaded};
pub use live::LivePane;
pub use start::StartPane;
pub use steer::SteerPane;
pub use tree::TreePane;

/// A pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaneId {
    /// The feature list.
    Features,
    /// Contexts of the selected feature as a heat map.
    Contexts,
    /// What the selected feature (or a neuron) is made of.
    Feature,
    /// Marked features side by side.
    Compare,
    /// Features against labels.
    Labels,
    /// What directions cause, judged.
    Evaluate,
    /// Dendrogram of shared neurons.
    Tree,
    /// Steered beside unsteered text.
    Steer,
    /// Features on a text that is typed.
    Live,
    /// The fit.
    Fit,
    /// What to open.
    Start,
}

impl PaneId {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Features,
        Self::Contexts,
        Self::Feature,
        Self::Compare,
        Self::Labels,
        Self::Evaluate,
        Self::Tree,
        Self::Steer,
        Self::Live,
        Self::Fit,
        Self::Start,
    ];

    /// Its name for a person.
    pub fn title(self) -> &'static str {
        match self {
            Self::Features => "Features",
            Self::Contexts => "Contexts",
            Self::Feature => "Feature",
            Self::Compare => "Compare",
            Self::Labels => "Labels",
            Self::Evaluate => "Evaluate",
            Self::Tree => "Tree",
            Self::Steer => "Steer",
            Self::Live => "Live",
            Self::Fit => "Fit",
            Self::Start => "Start",
        }
    }

    /// By its title, as a session stores it.
    pub fn by_title(title: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.title() == title)
    }

    /// The tab that shows it: the reading panes share one.
    pub fn tab(self) -> Self {
        match self {
            Self::Contexts | Self::Feature | Self::Compare | Self::Labels => Self::Features,
            Self::Evaluate => Self::Steer,
            other => other,
        }
    }
}

/// What a pane may look at.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    /// What the engine told.
    pub world: &'a World,
    /// Styles.
    pub theme: &'a Theme,
    /// Keys, for hints in empty panes.
    pub keymap: &'a Keymap,
    /// Where the pane is drawn, without its title line.
    pub area: Rect,
    /// Whether keys go to it.
    pub focused: bool,
    /// Whether contexts are on the screen, beside it or as itself.
    pub contexts_seen: bool,
}

impl Cx<'_> {
    /// The key of an action, for a hint.
    pub fn key(&self, action: Action) -> String {
        self.keymap.key(action)
    }
}

/// What a pane asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// To the engine.
    Send(Command),
    /// To the clipboard: the text, and what it is for the toast ("feature #17").
    Copy(String, String),
    /// To the clipboard, in the form that is chosen.
    Offer(Box<Copies>),
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
    /// Tell another pane something, and go there.
    Tell(PaneId, Note),
    /// A toast and a log line.
    Say(Level, String),
}

/// What can be copied in one of three forms.
#[derive(Debug, Clone, PartialEq)]
pub struct Copies {
    /// What it is, for the toast.
    pub what: String,
    /// As lines for a person.
    pub text: String,
    /// As data.
    pub json: serde_json::Value,
    /// For notes and papers.
    pub markdown: String,
}

/// What panes tell each other.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// To Steer: add these features with their weights, or replace the list when `replace`.
    Steer {
        /// Features with their weights.
        features: Vec<(usize, f32)>,
        /// Which of their neurons.
        part: SteerPart,
        /// Suppress.
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
    /// To Live: look at this text.
    Text(String),
    /// To Live: look at what is generated, as it comes.
    Follow {
        /// What is continued.
        prompt: String,
        /// The continuation without steering, so far.
        baseline: String,
        /// The continuation with it.
        steered: String,
    },
    /// To Start: begin from this request.
    Open(OpenRequest),
}

/// A pane.
pub trait Pane {
    /// Which it is.
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
    fn event(&mut self, event: &Event, cx: &Cx) -> Vec<Step> {
        let _ = (event, cx);
        Vec::new()
    }

    /// Another pane told something.
    fn note(&mut self, note: &Note, cx: &Cx) -> Vec<Step> {
        let _ = (note, cx);
        Vec::new()
    }

    /// The selected feature changed.
    fn selected(&mut self, cx: &Cx) -> Vec<Step> {
        let _ = cx;
        Vec::new()
    }

    /// The pane was entered.
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

    /// What to remember.
    fn session(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// What was remembered; anything unreadable is left aside.
    fn restore(&mut self, session: &serde_json::Value, cx: &Cx) {
        let _ = (session, cx);
    }
}

/// Every pane, in the order of the tabs.
pub fn all() -> Vec<Box<dyn Pane>> {
    vec![
        Box::new(FeaturesPane::default()),
        Box::new(ContextsPane::default()),
        Box::new(FeaturePane::default()),
        Box::new(ComparePane::default()),
        Box::new(LabelsPane::default()),
        Box::new(EvaluatePane::default()),
        Box::new(FitPane::default()),
        Box::new(TreePane::default()),
        Box::new(SteerPane::default()),
        Box::new(LivePane::default()),
        Box::new(StartPane::default()),
    ]
}

/// The first row to show so that `selected` of `count` rows is seen in `height`, near where
/// `offset` was.
pub fn scroll(offset: usize, selected: usize, count: usize, height: usize) -> usize {
    let height = height.max(1);
    let last = count.saturating_sub(height);
    let low = (selected + 1).saturating_sub(height);
    offset.clamp(low, selected.max(low)).min(last)
}

/// Moves a cursor of a list of `count` by a motion; `None` for other actions.
pub fn motion(action: Action, at: usize, count: usize, page: usize) -> Option<usize> {
    let last = count.saturating_sub(1);
    let page = page.max(2) - 1;
    Some(match action {
        Action::Up => at.saturating_sub(1),
        Action::Down => (at + 1).min(last),
        Action::PageUp => at.saturating_sub(page),
        Action::PageDown => (at + page).min(last),
        Action::First => 0,
        Action::Last => last,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_selected_row_is_always_seen(
            offset in 0usize..500, count in 1usize..400, selected in 0usize..400, height in 1usize..60
        ) {
            let selected = selected.min(count - 1);
            let top = scroll(offset, selected, count, height);
            prop_assert!(top <= selected && selected < top + height);
            prop_assert!(top + height <= count.max(height));
        }
    }
}
