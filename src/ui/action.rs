//! Everything that a key can do, in one table: default keys, footer hints, `?` help, the `:`
//! palette, the names in the configuration and `mlpeek keys` all come from [`ACTIONS`].
//!
//! Invariant: every action has one row, every name is unique, and no two rows that can be live at
//! once share a key.

use crate::ui::pane_id::PaneId;
use PaneId::{
    Compare, Contexts, Evaluate, Feature, Features, Fit, Labels, Live, Start, Steer, Tree,
};

/// Something that a key can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each one's meaning is its `doc` in the table
pub enum Action {
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Back,
    NextPane,
    PreviousPane,
    Explore,
    Tree,
    Steer,
    Live,
    Fit,
    Start,
    OtherLayer,
    Filter,
    Sort,
    Reverse,
    Rename,
    NextFeature,
    PreviousFeature,
    Neurons,
    SteerWith,
    SuppressWith,
    Digits,
    Quantiles,
    Lines,
    Trace,
    Edit,
    Run,
    Refit,
    GoOn,
    More,
    Fewer,
    Pause,
    Copy,
    Zoom,
    Export,
    Cancel,
    Log,
    Mouse,
    Help,
    Palette,
    Redraw,
    Suspend,
    Quit,
    Fold,
    FoldMore,
    FoldLess,
    NextMatch,
    PreviousMatch,
    SteerCore,
    SteerExclusive,
    Remove,
    PreviousRun,
    NextRun,
    TreeKind,
    CutAt,
    Linkage,
    Mark,
    Compare,
    CompareFit,
    ShowFit,
    Undo,
    Labels,
    Evaluate,
    SteerThree,
    Ablate,
    AblateCore,
    AblateExclusive,
    AblateThree,
    Overlap,
    CompareStudy,
    ExportNotes,
    ImportNotes,
    Sets,
    Train,
    SweepK,
    Continue,
    ModelPlace,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct ActionInfo {
    /// The action.
    pub action: Action,
    /// Its name in the configuration: `next-pane`.
    pub name: &'static str,
    /// One or two words for the footer.
    pub hint: &'static str,
    /// What it does, in a line.
    pub doc: &'static str,
    /// Default keys.
    pub keys: &'static [&'static str],
    /// Panes where it lives; empty: everywhere.
    pub panes: &'static [PaneId],
    /// Place in the footer: low first, 0 never.
    pub rank: u8,
}

const EVERYWHERE: &[PaneId] = &[];
const READING: &[PaneId] = &[Features, Contexts, Feature];

const WITH_FEATURE: &[PaneId] = &[Features, Contexts, Feature, Compare, Tree, Steer, Live];
const EVALUATING: &[PaneId] = &[Features, Contexts, Feature, Labels, Steer];
/// Where another list may come under what is on the screen.
const CHOOSING: &[PaneId] = &[
    Features, Contexts, Feature, Labels, Steer, Live, Fit, Evaluate,
];
const NAMING: &[PaneId] = &[Features, Contexts, Feature, Tree];

const fn row(
    action: Action,
    name: &'static str,
    hint: &'static str,
    keys: &'static [&'static str],
    panes: &'static [PaneId],
    rank: u8,
    doc: &'static str,
) -> ActionInfo {
    ActionInfo {
        action,
        name,
        hint,
        doc,
        keys,
        panes,
        rank,
    }
}

/// The table.
#[rustfmt::skip]
pub const ACTIONS: &[ActionInfo] = &[
    row(Action::Up, "up", "up", &["up", "k"], EVERYWHERE, 0, "One up"),
    row(Action::Down, "down", "down", &["down", "j"], EVERYWHERE, 0, "One down"),
    row(Action::Left, "left", "left", &["left", "h"], EVERYWHERE, 0, "Left; in a form: the choice before"),
    row(Action::Right, "right", "right", &["right", "l"], EVERYWHERE, 0, "Right; in a form: the next choice"),
    row(Action::PageUp, "page-up", "page up", &["pageup", "ctrl-u"], EVERYWHERE, 0, "A screen up"),
    row(Action::PageDown, "page-down", "page down", &["pagedown", "ctrl-d"], EVERYWHERE, 0, "A screen down"),
    row(Action::First, "first", "first", &["g", "home"], EVERYWHERE, 0, "To the first"),
    row(Action::Last, "last", "last", &["G", "end"], EVERYWHERE, 0, "To the last"),
    row(Action::Run, "run", "run", &["enter", "ctrl-r"], &[Start, Steer, Evaluate], 10, "Start with what is chosen: load, collect and fit, steer, or evaluate"),
    row(Action::Edit, "edit", "edit", &["e", "i"], &[Start, Steer, Live, Evaluate], 20, "Type into the chosen field"),
    row(Action::Open, "open", "open", &["enter"], &[Features, Contexts, Feature, Compare, Labels, Tree, Live], 10, "Go into what is under the cursor"),
    row(Action::Back, "back", "back", &["esc", "backspace"], EVERYWHERE, 0, "Back one level"),
    row(Action::NextPane, "next-pane", "next pane", &["tab"], EVERYWHERE, 60, "To the pane at the right"),
    row(Action::PreviousPane, "previous-pane", "pane before", &["backtab"], EVERYWHERE, 0, "To the pane at the left"),
    row(Action::Filter, "filter", "filter", &["/"], &[Features, Contexts, Feature, Tree], 20, "Fuzzy filter over tokens, names, labels and contexts; in the tree: search"),
    row(Action::Sort, "sort", "sort", &["s"], &[Features, Live], 30, "Sort by the next column"),
    row(Action::Reverse, "reverse", "reverse", &["!"], &[Features], 0, "Turn the sort order round"),
    row(Action::Neurons, "neurons", "neurons", &["n"], READING, 40, "The neurons of the feature; enter on one: every feature that uses it"),
    row(Action::SteerWith, "steer-with", "steer", &["a"], WITH_FEATURE, 50, "Steer with this feature: to the Steer pane"),
    row(Action::SuppressWith, "suppress-with", "suppress", &["A"], WITH_FEATURE, 0, "Suppress this feature: to the Steer pane"),
    row(Action::Rename, "rename", "name", &["r"], NAMING, 55, "Name, tag, rate and annotate the feature; an empty line takes it all away"),
    row(Action::NextFeature, "next-feature", "next", &["]"], READING, 0, "The next feature of the list, from any column"),
    row(Action::PreviousFeature, "previous-feature", "before", &["["], READING, 0, "The feature before in the list"),
    row(Action::Quantiles, "quantiles", "quantiles", &["u"], &[Contexts], 20, "Contexts from lower quantiles, or the strongest"),
    row(Action::Lines, "lines", "lines", &["w"], &[Contexts], 30, "One line a context with the peaks aligned, or wrapped"),
    row(Action::Trace, "trace", "trace", &["t"], &[Contexts, Steer, Live], 45, "Look at this context's, or the generated, text in the Live pane; there: steered or baseline"),
    row(Action::Digits, "digits", "digits", &["v"], EVERYWHERE, 0, "A digit 0 to 9 behind every token that fires"),
    row(Action::Refit, "refit", "fit", &["f"], &[Fit], 10, "Fit again with the number of features shown"),
    row(Action::GoOn, "go-on", "go on", &["F"], &[Fit], 15, "Go on from the fit on show with that number of features, or with new rows; marked features stay as they are"),
    row(Action::More, "more", "more", &["+", "="], &[Fit], 20, "More features for the next fit"),
    row(Action::Fewer, "fewer", "fewer", &["-"], &[Fit], 30, "Fewer features for the next fit"),
    row(Action::Continue, "continue", "go on", &["R", "c"], EVERYWHERE, 5, "Go on with what was cut short: collecting, else the fit on show"),
    row(Action::ModelPlace, "model-place", "model's place", &["W"], EVERYWHERE, 6, "Say where the study's model lies, when it was not found or is another one"),
    row(Action::Pause, "pause", "pause", &["p"], EVERYWHERE, 0, "Hold the fit after its sweep; again: go on"),
    row(Action::Copy, "copy", "copy", &["y"], EVERYWHERE, 70, "Copy what the pane shows: as text, JSON or Markdown where it has them"),
    row(Action::Export, "export", "export", &["E"], NAMING, 0, "Write the feature on show to a Markdown file in the study; in the tree: the dendrogram as SVG, Newick and JSON with its clusters, or the levels as JSON"),
    row(Action::Zoom, "zoom", "zoom", &["z"], EVERYWHERE, 80, "This pane alone, or all of them"),
    row(Action::Explore, "explore", "explore", &["1"], EVERYWHERE, 0, "Features, their contexts and what they are made of"),
    row(Action::Tree, "tree", "tree", &["2"], EVERYWHERE, 0, "Dendrogram of shared neurons"),
    row(Action::Steer, "steer", "steer", &["3"], EVERYWHERE, 0, "Steered beside unsteered text"),
    row(Action::Live, "live", "live", &["4"], EVERYWHERE, 0, "Features on a text that you type"),
    row(Action::Fit, "fit", "fit", &["5"], EVERYWHERE, 0, "The fit: its error, its rate, another one"),
    row(Action::Start, "start", "open another", &["6", "o"], EVERYWHERE, 0, "Open another model, corpus or study"),
    row(Action::OtherLayer, "other-layer", "layer", &["L"], EVERYWHERE, 0, "The same corpus at another layer"),
    row(Action::Cancel, "cancel", "cancel", &["ctrl-c"], EVERYWHERE, 0, "Cancel the running job; again, or with none running: quit"),
    row(Action::Log, "log", "log", &["~"], EVERYWHERE, 0, "The log"),
    row(Action::Mouse, "mouse", "mouse", &["m"], EVERYWHERE, 0, "Mouse on or off (off: the terminal's own selection)"),
    row(Action::Help, "help", "help", &["?"], EVERYWHERE, 0, "All keys"),
    row(Action::Palette, "palette", "commands", &[":", "ctrl-p"], EVERYWHERE, 0, "Find a command by name"),
    row(Action::Redraw, "redraw", "redraw", &["ctrl-l"], EVERYWHERE, 0, "Draw the screen afresh"),
    row(Action::Suspend, "suspend", "suspend", &["ctrl-z"], EVERYWHERE, 0, "Back to the shell; `fg` returns"),
    row(Action::Fold, "fold", "fold", &["space"], &[Tree], 15, "Fold or unfold the cluster under the cursor"),
    row(Action::FoldMore, "fold-more", "fold all", &["<", ","], &[Tree], 17, "Fold every cluster up to a greater height"),
    row(Action::FoldLess, "fold-less", "unfold all", &[">", "."], &[Tree], 18, "Unfold every cluster down to a smaller height"),
    row(Action::TreeKind, "tree-kind", "levels", &["t"], &[Tree], 19, "The dendrogram of shared neurons, or levels of features of features"),
    row(Action::Linkage, "linkage", "linkage", &["K"], &[Tree], 0, "The next linkage of the dendrogram; of levels: p growing or fixed"),
    row(Action::Overlap, "overlap", "overlap", &["O"], &[Tree], 0, "The next overlap of the dendrogram: weighted Jaccard, Jaccard, cosine; of levels: tuned together or not"),
    row(Action::CutAt, "cut-at", "cut", &["H"], &[Tree], 0, "Cut the dendrogram at a height that is typed: the clusters below it; of levels: how many features each has"),
    row(Action::Mark, "mark", "mark", &["space"], READING, 56, "Mark the feature, to compare it with others; again: not"),
    row(Action::Compare, "compare", "compare", &["C"], WITH_FEATURE, 57, "Marked features side by side: neurons, cosines, coefficients over the same tokens"),
    row(Action::Train, "train", "autoencoder", &["T"], &[Fit], 22, "Train a sparse autoencoder (TopK) on the same activations, or go on with one that was stopped"),
    row(Action::SweepK, "sweep", "sweep over k", &["S"], &[Fit], 23, "Fit several numbers of features, with seeds: error, held-out error and stability against k"),
    row(Action::ShowFit, "show-fit", "show", &["enter"], &[Fit], 25, "Show the fit under the cursor"),
    row(Action::CompareFit, "compare-fit", "compare", &["c"], &[Fit], 26, "Match the features of the fit under the cursor with those on show"),
    row(Action::CompareStudy, "compare-study", "another study", &["C"], &[Fit], 31, "Match the features on show with those of another study of the same model"),
    row(Action::Sets, "directions", "directions", &["D"], CHOOSING, 62, "Another set of directions in place of the features: DiffMean, autoencoders, k-means, random, neurons; or back to the fit"),
    row(Action::Labels, "labels", "labels", &["M"], READING, 0, "Features against the corpus's labels as a heat map"),
    row(Action::Evaluate, "evaluate", "evaluate", &["V"], EVALUATING, 0, "What each kind of direction makes the model say, at equal KL, judged"),
    row(Action::Undo, "undo", "undo", &["U"], NAMING, 0, "Take back the last name or note"),
    row(Action::ExportNotes, "export-notes", "notes out", &[], NAMING, 0, "Write names and notes of this fit to a JSON file in the study"),
    row(Action::ImportNotes, "import-notes", "notes in", &[], NAMING, 0, "Take names and notes from a JSON file; other features keep theirs"),
    row(Action::NextMatch, "next-match", "next match", &["n"], &[Tree], 0, "The next that the search finds"),
    row(Action::PreviousMatch, "previous-match", "match before", &["N"], &[Tree], 0, "The one before that the search finds"),
    row(Action::SteerCore, "steer-core", "core", &["c"], &[Tree], 51, "Steer with the core neurons of the cluster alone"),
    row(Action::SteerExclusive, "steer-exclusive", "own part", &["x"], &[Tree], 52, "Steer with the neurons that the feature alone has in its cluster"),
    row(Action::SteerThree, "steer-three", "three ways", &["b"], &[Tree, Steer], 53, "The feature whole, the core of its cluster, its own neurons: steered with side by side"),
    row(Action::Ablate, "ablate", "ablate", &["d"], &[Tree], 54, "Ablate what is under the cursor: take what is along it out"),
    row(Action::AblateCore, "ablate-core", "ablate core", &["D"], &[Tree], 0, "Ablate with the core neurons of the cluster alone"),
    row(Action::AblateExclusive, "ablate-exclusive", "ablate own", &["X"], &[Tree], 0, "Ablate with the neurons that the feature alone has in its cluster"),
    row(Action::AblateThree, "ablate-three", "ablate three ways", &["B"], &[Tree, Steer], 0, "Ablate in three ways side by side: the feature whole, the core of its cluster, its own neurons"),
    row(Action::Remove, "remove", "remove", &["d", "delete"], &[Steer, Live], 35, "Take the feature out of the list; in Live: empty the text"),
    row(Action::PreviousRun, "previous-run", "run before", &["["], &[Steer], 40, "The run before this one"),
    row(Action::NextRun, "next-run", "next run", &["]"], &[Steer], 41, "The run after this one"),
    row(Action::Quit, "quit", "quit", &["q"], EVERYWHERE, 0, "Quit; what was computed is kept"),
];

impl Action {
    /// Its row of the table.
    pub fn info(self) -> &'static ActionInfo {
        // Every variant has a row (tested); the first stands in for none.
        ACTIONS
            .iter()
            .find(|info| info.action == self)
            .unwrap_or(&ACTIONS[0])
    }

    /// By its name in the configuration.
    pub fn by_name(name: &str) -> Option<Self> {
        ACTIONS
            .iter()
            .find(|info| info.name == name)
            .map(|info| info.action)
    }
}

impl ActionInfo {
    /// Whether it can be live in `pane`.
    pub fn lives_in(&self, pane: PaneId) -> bool {
        self.panes.is_empty() || self.panes.contains(&pane)
    }

    /// Where it lives, for a table: "everywhere", or the panes.
    pub fn place(&self) -> String {
        if self.panes.is_empty() {
            return "everywhere".to_owned();
        }
        self.panes
            .iter()
            .map(|p| p.title())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_every_row_is_found_by_its_action() {
        let mut names = HashSet::new();
        for info in ACTIONS {
            assert!(names.insert(info.name), "{} twice", info.name);
            assert_eq!(info.action.info().name, info.name);
            assert_eq!(Action::by_name(info.name), Some(info.action));
            assert!(!info.doc.is_empty() && !info.hint.is_empty());
        }
    }

    #[test]
    fn no_two_actions_share_a_key_in_one_pane() {
        for pane in PaneId::ALL {
            let mut taken = std::collections::HashMap::new();
            for info in ACTIONS.iter().filter(|i| i.lives_in(pane)) {
                for key in info.keys {
                    let scope = info.panes.is_empty();
                    if let Some((other, was)) = taken.insert(*key, (info.name, scope)) {
                        // A pane's own key may shadow a global one, never another of its own.
                        assert_ne!(scope, was, "{pane:?}: {key} is {other} and {}", info.name);
                    }
                }
            }
        }
    }
}
