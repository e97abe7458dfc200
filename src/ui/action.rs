//! Everything that a key can do, in one table: a row holds an action's name, keys, words, whether it
//! can be done now, and what it does. Footer hints, the `?` help, the `:` palette, the names in the
//! configuration and `mlpeek keys` all come from [`ACTIONS`]; adding a command to the explorer is a
//! row here and a function in `app/commands.rs`.
//!
//! Knows nothing of the app: [`action_table`] gives its rows to the macro that is named, so that the
//! functions are looked up where they are, in `app/handlers.rs`. Invariant: every action has one
//! row, every name is unique, and no two rows that can be available at once share a key.

use crate::ui::pane_id::PaneId;
use PaneId::{
    Compare, Contexts, Evaluate, Feature, Features, Fit, Labels, Live, Start, Steer, Tree,
};

/// How an action is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionKind {
    /// By its key alone: nobody looks up a motion by its name.
    Keyed,
    /// By its key, or by its name in the palette.
    Named,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct ActionInfo {
    /// The action of this row.
    pub action: Action,
    /// Whether the palette lists it.
    pub kind: ActionKind,
    /// Its name in the configuration: `next-pane`.
    pub name: &'static str,
    /// One or two words for the footer.
    pub hint: &'static str,
    /// What it does, in a line.
    pub doc: &'static str,
    /// Its keys where the configuration names no others.
    pub keys: &'static [&'static str],
    /// Panes in which it is available; empty: all of them.
    pub panes: &'static [PaneId],
    /// Place in the footer: low first, 0 never.
    pub rank: u8,
}

const EVERYWHERE: &[PaneId] = &[];
const READING: &[PaneId] = &[Features, Contexts, Feature];

const WITH_FEATURE: &[PaneId] = &[Features, Contexts, Feature, Compare, Tree, Steer, Live];
/// Where another list may come under what is on the screen.
const CHOOSING: &[PaneId] = &[
    Features, Contexts, Feature, Labels, Steer, Live, Fit, Evaluate,
];
const NAMING: &[PaneId] = &[Features, Contexts, Feature, Tree];

/// Gives the rows to the macro `$use`. Of each: how it is asked for, name, footer hint, keys, panes,
/// rank, what it does, availability, handler. The last two are the app's: why the action cannot be
/// done now (the focused pane may add reasons of its own, [`super::pane::Pane::refusal`]), and what
/// it does where the focused pane has no meaning of its own for it ([`super::pane::Pane::act`]).
#[rustfmt::skip]
macro_rules! action_table {
    ($use:ident) => { $use! {
    Up: Keyed, "up", "up", ["up", "k"], EVERYWHERE, 0,
        "One up", can::always, run::in_pane;
    Down: Keyed, "down", "down", ["down", "j"], EVERYWHERE, 0,
        "One down", can::always, run::in_pane;
    Left: Keyed, "left", "left", ["left", "h"], EVERYWHERE, 0,
        "Left; in a form: the choice before", can::always, |app| app.neighbour(false, false);
    Right: Keyed, "right", "right", ["right", "l"], EVERYWHERE, 0,
        "Right; in a form: the next choice", can::always, |app| app.neighbour(true, false);
    PageUp: Keyed, "page-up", "page up", ["pageup", "ctrl-u"], EVERYWHERE, 0,
        "A screen up", can::always, run::in_pane;
    PageDown: Keyed, "page-down", "page down", ["pagedown", "ctrl-d"], EVERYWHERE, 0,
        "A screen down", can::always, run::in_pane;
    First: Keyed, "first", "first", ["g", "home"], EVERYWHERE, 0,
        "To the first", can::always, run::in_pane;
    Last: Keyed, "last", "last", ["G", "end"], EVERYWHERE, 0,
        "To the last", can::always, run::in_pane;
    Run: Named, "run", "run", ["enter", "ctrl-r"], &[Start, Steer, Evaluate], 10,
        "Start with what is chosen: load, collect and fit, steer, or evaluate", can::always, run::in_pane;
    Edit: Named, "edit", "edit", ["e", "i"], &[Start, Steer, Live, Evaluate], 20,
        "Type into the chosen field", can::always, run::in_pane;
    Open: Keyed, "open", "open", ["enter"], &[Features, Contexts, Feature, Compare, Labels, Tree, Live], 10,
        "Go into what is under the cursor", can::always, run::in_pane;
    Back: Named, "back", "back", ["esc", "backspace"], EVERYWHERE, 0,
        "Back one level", can::always, App::back;
    NextPane: Named, "next-pane", "next pane", ["tab"], EVERYWHERE, 60,
        "To the pane at the right", can::always, |app| app.neighbour(true, true);
    PreviousPane: Named, "previous-pane", "pane before", ["backtab"], EVERYWHERE, 0,
        "To the pane at the left", can::always, |app| app.neighbour(false, true);
    Filter: Named, "filter", "filter", ["/"], &[Features, Contexts, Feature, Tree], 20,
        "Fuzzy filter over tokens, names, labels and contexts; in the tree: search", can::always, |app| app.act_in(Features, Action::Filter);
    Sort: Named, "sort", "sort", ["s"], &[Features, Live], 30,
        "Sort by the next column", can::always, run::in_pane;
    Reverse: Named, "reverse", "reverse", ["!"], &[Features], 0,
        "Turn the sort order round", can::always, run::in_pane;
    Neurons: Named, "neurons", "neurons", ["n"], READING, 40,
        "The neurons of the feature; enter on one: every feature that uses it", can::a_feature_is_selected, |app| app.act_in(Feature, Action::Neurons);
    SteerWith: Named, "steer-with", "steer", ["a"], WITH_FEATURE, 50,
        "Steer with this feature: to the Steer pane", can::a_feature_is_selected, |app| run::steer_with(app, false);
    SuppressWith: Named, "suppress-with", "suppress", ["A"], WITH_FEATURE, 0,
        "Suppress this feature: to the Steer pane", can::a_feature_is_selected, |app| run::steer_with(app, true);
    Rename: Named, "rename", "name", ["r"], NAMING, 55,
        "Name, tag, rate and annotate the feature; an empty line takes it all away", can::a_feature_of_a_fit_is_selected, run::rename;
    NextFeature: Named, "next-feature", "next", ["]"], READING, 0,
        "The next feature of the list, from any column", can::a_feature_is_selected, |app| app.act_of(Features, Action::NextFeature);
    PreviousFeature: Named, "previous-feature", "before", ["["], READING, 0,
        "The feature before in the list", can::a_feature_is_selected, |app| app.act_of(Features, Action::PreviousFeature);
    Quantiles: Named, "quantiles", "quantiles", ["u"], &[Contexts], 20,
        "Contexts from lower quantiles, or the strongest", can::always, run::in_pane;
    Lines: Named, "lines", "lines", ["w"], &[Contexts], 30,
        "One line a context with the peaks aligned, or wrapped", can::always, run::in_pane;
    Trace: Named, "trace", "trace", ["t"], &[Contexts, Steer, Live], 45,
        "Look at this context's, or the generated, text in the Live pane; there: steered or baseline", can::always, run::in_pane;
    Digits: Named, "digits", "digits", ["v"], EVERYWHERE, 0,
        "A digit 0 to 9 behind every token that fires", can::always, run::digits;
    Refit: Named, "refit", "fit", ["f"], &[Fit], 10,
        "Fit again with the number of features shown", can::always, run::in_pane;
    GoOn: Named, "go-on", "go on", ["F"], &[Fit], 15,
        "Go on from the fit on show with that number of features, or with new rows; marked features stay as they are", can::always, run::in_pane;
    More: Named, "more", "more", ["+", "="], &[Fit], 20,
        "More features for the next fit", can::always, run::in_pane;
    Fewer: Named, "fewer", "fewer", ["-"], &[Fit], 30,
        "Fewer features for the next fit", can::always, run::in_pane;
    Continue: Named, "continue", "go on", ["R", "c"], EVERYWHERE, 5,
        "Go on with what was cut short: collecting, else the fit on show", can::something_was_cut_short, run::go_on;
    ModelPlace: Named, "model-place", "model's place", ["W"], EVERYWHERE, 6,
        "Say where the study's model lies, when it was not found or is another one", can::the_model_is_missing, run::model_place;
    Pause: Named, "pause", "pause", ["p"], EVERYWHERE, 0,
        "Hold the fit after its sweep; again: go on", can::a_fit_runs, run::pause;
    Copy: Named, "copy", "copy", ["y"], EVERYWHERE, 70,
        "Copy what the pane shows: as text, JSON or Markdown where it has them", can::always, run::in_pane;
    Export: Named, "export", "export", ["E"], NAMING, 0,
        "Write the feature on show to a Markdown file in the study; in the tree: the dendrogram as SVG, Newick and JSON with its clusters, or the levels as JSON", can::a_feature_is_selected, run::export;
    Zoom: Named, "zoom", "zoom", ["z"], EVERYWHERE, 80,
        "This pane alone, or all of them", can::always, run::zoom;
    Explore: Named, "explore", "explore", ["1"], EVERYWHERE, 0,
        "Features, their contexts and what they are made of", can::always, |app| app.open_tab(Features);
    Tree: Named, "tree", "tree", ["2"], EVERYWHERE, 0,
        "Dendrogram of shared neurons", can::no_set_is_on_show, |app| app.open_tab(Tree);
    Steer: Named, "steer", "steer", ["3"], EVERYWHERE, 0,
        "Steered beside unsteered text", can::always, |app| app.open_tab(Steer);
    Live: Named, "live", "live", ["4"], EVERYWHERE, 0,
        "Features on a text that you type", can::always, |app| app.open_tab(Live);
    Fit: Named, "fit", "fit", ["5"], EVERYWHERE, 0,
        "The fit: its error, its rate, another one", can::always, |app| app.open_tab(Fit);
    Start: Named, "start", "open another", ["6", "o"], EVERYWHERE, 0,
        "Open another model, corpus or study", can::always, |app| app.open_tab(Start);
    OtherLayer: Named, "other-layer", "layer", ["L"], EVERYWHERE, 0,
        "The same corpus at another layer", can::a_study_is_open, run::other_layer;
    Cancel: Named, "cancel", "cancel", ["ctrl-c"], EVERYWHERE, 0,
        "Cancel the running job; again, or with none running: quit", can::always, App::cancel;
    Log: Named, "log", "log", ["~"], EVERYWHERE, 0,
        "The log", can::always, run::log;
    Mouse: Named, "mouse", "mouse", ["m"], EVERYWHERE, 0,
        "Mouse on or off (off: the terminal's own selection)", can::always, run::mouse;
    Help: Named, "help", "help", ["?"], EVERYWHERE, 0,
        "All keys", can::always, run::help;
    Palette: Keyed, "palette", "commands", [":", "ctrl-p"], EVERYWHERE, 0,
        "Find a command by name", can::always, run::palette;
    Redraw: Named, "redraw", "redraw", ["ctrl-l"], EVERYWHERE, 0,
        "Draw the screen afresh", can::always, |_| vec![Effect::Redraw];
    Suspend: Named, "suspend", "suspend", ["ctrl-z"], EVERYWHERE, 0,
        "Back to the shell; `fg` returns", can::always, |_| vec![Effect::Suspend];
    Fold: Named, "fold", "fold", ["space"], &[Tree], 15,
        "Fold or unfold the cluster under the cursor", can::always, run::in_pane;
    FoldMore: Named, "fold-more", "fold all", ["<", ","], &[Tree], 17,
        "Fold every cluster up to a greater height", can::always, run::in_pane;
    FoldLess: Named, "fold-less", "unfold all", [">", "."], &[Tree], 18,
        "Unfold every cluster down to a smaller height", can::always, run::in_pane;
    TreeKind: Named, "tree-kind", "levels", ["t"], &[Tree], 19,
        "The dendrogram of shared neurons, or levels of features of features", can::always, run::in_pane;
    Linkage: Named, "linkage", "linkage", ["K"], &[Tree], 0,
        "The next linkage of the dendrogram; of levels: p growing or fixed", can::always, run::in_pane;
    Overlap: Named, "overlap", "overlap", ["O"], &[Tree], 0,
        "The next overlap of the dendrogram: weighted Jaccard, Jaccard, cosine; of levels: tuned together or not", can::always, run::in_pane;
    CutAt: Named, "cut-at", "cut", ["H"], &[Tree], 0,
        "Cut the dendrogram at a height that is typed: the clusters below it; of levels: how many features each has", can::always, run::in_pane;
    Mark: Named, "mark", "mark", ["space"], READING, 56,
        "Mark the feature, to compare it with others; again: not", can::a_feature_is_selected, run::mark;
    Compare: Named, "compare", "compare", ["C"], WITH_FEATURE, 57,
        "Marked features side by side: neurons, cosines, coefficients over the same tokens", can::features_are_marked, |app| app.go_to(Compare);
    Train: Named, "train", "autoencoder", ["T"], &[Fit], 22,
        "Train a sparse autoencoder (TopK) on the same activations, or go on with one that was stopped", can::always, run::train;
    SweepK: Named, "sweep", "sweep over k", ["S"], &[Fit], 23,
        "Fit several numbers of features, with seeds: error, held-out error and stability against k", can::always, run::sweep;
    ShowFit: Named, "show-fit", "show", ["enter"], &[Fit], 25,
        "Show the fit under the cursor", can::always, run::in_pane;
    CompareFit: Named, "compare-fit", "compare", ["c"], &[Fit], 26,
        "Match the features of the fit under the cursor with those on show", can::always, run::in_pane;
    CompareStudy: Named, "compare-study", "another study", ["C"], &[Fit], 31,
        "Match the features on show with those of another study of the same model", can::a_feature_of_a_fit_is_selected, run::compare_study;
    Sets: Named, "directions", "directions", ["D"], CHOOSING, 62,
        "Another set of directions in place of the features: DiffMean, autoencoders, k-means, random, neurons; or back to the fit", can::sets_can_be_read, run::sets;
    Labels: Named, "labels", "labels", ["M"], READING, 0,
        "Features against the corpus's labels as a heat map", can::a_feature_is_selected, |app| app.go_to(Labels);
    Evaluate: Named, "evaluate", "evaluate", ["7", "V"], EVERYWHERE, 0,
        "What each kind of direction makes the model say, at equal KL, judged", can::always, |app| app.open_tab(Evaluate);
    Undo: Named, "undo", "undo", ["U"], NAMING, 0,
        "Take back the last name or note", can::a_feature_of_a_fit_is_selected, run::undo;
    ExportNotes: Named, "export-notes", "notes out", [], NAMING, 0,
        "Write names and notes of this fit to a JSON file in the study", can::a_feature_of_a_fit_is_selected, run::export_notes;
    ImportNotes: Named, "import-notes", "notes in", [], NAMING, 0,
        "Take names and notes from a JSON file; other features keep theirs", can::a_feature_of_a_fit_is_selected, run::import_notes;
    NextMatch: Named, "next-match", "next match", ["n"], &[Tree], 0,
        "The next that the search finds", can::always, run::in_pane;
    PreviousMatch: Named, "previous-match", "match before", ["N"], &[Tree], 0,
        "The one before that the search finds", can::always, run::in_pane;
    SteerCore: Named, "steer-core", "core", ["c"], &[Tree], 51,
        "Steer with the core neurons of the cluster alone", can::always, run::in_pane;
    SteerExclusive: Named, "steer-exclusive", "own part", ["x"], &[Tree], 52,
        "Steer with the neurons that the feature alone has in its cluster", can::always, run::in_pane;
    SteerThree: Named, "steer-three", "three ways", ["b"], &[Tree, Steer], 53,
        "The feature whole, the core of its cluster, its own neurons: steered with side by side", can::always, run::in_pane;
    Ablate: Named, "ablate", "ablate", ["d"], &[Tree], 54,
        "Ablate what is under the cursor: take what is along it out", can::always, run::in_pane;
    AblateCore: Named, "ablate-core", "ablate core", ["D"], &[Tree], 0,
        "Ablate with the core neurons of the cluster alone", can::always, run::in_pane;
    AblateExclusive: Named, "ablate-exclusive", "ablate own", ["X"], &[Tree], 0,
        "Ablate with the neurons that the feature alone has in its cluster", can::always, run::in_pane;
    AblateThree: Named, "ablate-three", "ablate three ways", ["B"], &[Tree, Steer], 0,
        "Ablate in three ways side by side: the feature whole, the core of its cluster, its own neurons", can::always, run::in_pane;
    Remove: Named, "remove", "remove", ["d", "delete"], &[Steer, Live], 35,
        "Take the feature out of the list; in Live: empty the text", can::always, run::in_pane;
    PreviousRun: Named, "previous-run", "run before", ["["], &[Steer, Evaluate], 40,
        "The run before this one; the evaluation that the study kept before", can::always, run::in_pane;
    NextRun: Named, "next-run", "next run", ["]"], &[Steer, Evaluate], 41,
        "The run after this one; the evaluation after", can::always, run::in_pane;
    Quit: Named, "quit", "quit", ["q"], EVERYWHERE, 0,
        "Quit; what was computed is kept", can::always, App::quit;
    } };
}
pub(in crate::ui) use action_table;

/// Makes [`Action`] and [`ACTIONS`] of the rows.
macro_rules! declare {
    ($(
        $action:ident: $kind:ident, $name:literal, $hint:literal, [$($key:literal),*], $panes:expr,
        $rank:literal, $doc:literal, $available:expr, $run:expr;
    )*) => {
        /// Something that a key can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $(#[doc = $doc] $action,)*
        }

        /// The table, in the order of help and palette.
        pub const ACTIONS: &[ActionInfo] = &[$(ActionInfo {
            action: Action::$action,
            kind: ActionKind::$kind,
            name: $name,
            hint: $hint,
            doc: $doc,
            keys: &[$($key),*],
            panes: $panes,
            rank: $rank,
        },)*];
    };
}

action_table!(declare);

impl Action {
    /// Its row of the table.
    pub fn info(self) -> &'static ActionInfo {
        // The enum and the table are made of the same rows, in the same order.
        &ACTIONS[self as usize]
    }

    /// The action that goes to `pane`; `None` where a link or the focus does alone.
    pub fn to_pane(pane: PaneId) -> Option<Self> {
        pane.action().and_then(Self::by_name)
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
    /// Whether it can be available in `pane`.
    pub fn lives_in(&self, pane: PaneId) -> bool {
        self.panes.is_empty() || self.panes.contains(&pane)
    }

    /// Where it is available, for a table: "everywhere", or the panes.
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
    fn a_tab_names_itself_and_a_pane_names_an_action_that_there_is() {
        for pane in PaneId::ALL {
            assert_eq!(pane.tab().tab(), pane.tab());
            let named = pane.action().is_some();
            assert_eq!(named, Action::to_pane(pane).is_some(), "{pane:?}");
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
