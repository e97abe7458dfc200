//! The panes in one table: what everything from the key table to the layout calls them by, and the
//! type that each is.
//!
//! Knows no pane: [`pane_table`] gives its rows to the macro that is named, so that the types are
//! looked up where they are, in `panes/mod.rs`. Invariant: every pane has one row, and the row of a
//! tab names itself as its tab.

/// Gives the rows to the macro `$use`: a pane, its title, the tab that shows it, the action that goes
/// to it, its type.
macro_rules! pane_table {
    ($use:ident) => {
        $use! {
            /// The list of features, sorted and filtered.
            Features, "Features", Features, Some("explore"), features::FeaturesPane;
            /// Contexts of the selected feature as a heat map.
            Contexts, "Contexts", Features, None, contexts::ContextsPane;
            /// What the selected feature (or a neuron) is made of.
            Feature, "Feature", Features, None, feature::FeaturePane;
            /// Marked features side by side.
            Compare, "Compare", Features, Some("compare"), compare::ComparePane;
            /// Features against the corpus's labels as a heat map.
            Labels, "Labels", Features, Some("labels"), labels::LabelsPane;
            /// Dendrogram of shared neurons.
            Tree, "Tree", Tree, Some("tree"), tree::TreePane;
            /// Steered beside unsteered text.
            Steer, "Steer", Steer, Some("steer"), steer::SteerPane;
            /// Features on a text that is typed.
            Live, "Live", Live, Some("live"), live::LivePane;
            /// The fit and its error curve.
            Fit, "Fit", Fit, Some("fit"), fit::FitPane;
            /// The form of what to open, and the recent studies.
            Start, "Start", Start, Some("start"), start::StartPane;
            /// What directions cause, judged.
            Evaluate, "Evaluate", Evaluate, Some("evaluate"), evaluate::EvaluatePane;
        }
    };
}
pub(in crate::ui) use pane_table;

/// Makes [`PaneId`] of the rows.
macro_rules! declare {
    ($($(#[$doc:meta])* $pane:ident, $title:literal, $tab:ident, $action:expr, $module:ident::$type:ident;)*) => {
        /// Which pane it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum PaneId {
            $($(#[$doc])* $pane,)*
        }

        impl PaneId {
            /// All of them, in the order of the table.
            pub const ALL: [Self; [$(Self::$pane),*].len()] = [$(Self::$pane),*];

            /// Its name for a person, and in a session.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$pane => $title,)*
                }
            }

            /// The tab that shows it: the reading panes share one.
            pub fn tab(self) -> Self {
                match self {
                    $(Self::$pane => Self::$tab,)*
                }
            }

            /// The name of the action that goes to it; `None` where only a link or the focus does.
            pub fn action(self) -> Option<&'static str> {
                match self {
                    $(Self::$pane => $action,)*
                }
            }
        }
    };
}

pane_table!(declare);

impl PaneId {
    /// The panes that stand side by side where there is room, from left to right; every other pane
    /// has the whole body.
    pub const COLUMNS: [Self; 3] = [Self::Features, Self::Contexts, Self::Feature];

    /// Whether it is one of [`Self::COLUMNS`].
    pub fn is_column(self) -> bool {
        Self::COLUMNS.contains(&self)
    }

    /// By its title, as a session stores it.
    pub fn by_title(title: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.title() == title)
    }

    /// Whether it is a tab of its own.
    pub fn is_tab(self) -> bool {
        self.tab() == self
    }
}
