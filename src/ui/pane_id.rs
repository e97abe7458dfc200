//! The names of the panes, in one table: what everything from the key table to the layout calls them
//! by. Knows no pane.
//!
//! Invariant: every pane has one row, and the row of a tab names itself as its tab.

/// Makes [`PaneId`] of the table: a pane, its title, the tab that shows it, and the action that goes
/// to it.
macro_rules! table {
    ($($(#[$doc:meta])* $pane:ident, $title:literal, $tab:ident, $action:expr;)*) => {
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

table! {
    /// The list of features, sorted and filtered.
    Features, "Features", Features, Some("explore");
    /// Contexts of the selected feature as a heat map.
    Contexts, "Contexts", Features, None;
    /// What the selected feature (or a neuron) is made of.
    Feature, "Feature", Features, None;
    /// Marked features side by side.
    Compare, "Compare", Features, Some("compare");
    /// Features against the corpus's labels as a heat map.
    Labels, "Labels", Features, Some("labels");
    /// What directions cause, judged.
    Evaluate, "Evaluate", Steer, Some("evaluate");
    /// Dendrogram of shared neurons.
    Tree, "Tree", Tree, Some("tree");
    /// Steered beside unsteered text.
    Steer, "Steer", Steer, Some("steer");
    /// Features on a text that is typed.
    Live, "Live", Live, Some("live");
    /// The fit and its error curve.
    Fit, "Fit", Fit, Some("fit");
    /// The form of what to open, and the recent studies.
    Start, "Start", Start, Some("start");
}

impl PaneId {
    /// By its title, as a session stores it.
    pub fn by_title(title: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.title() == title)
    }

    /// The pane that the action of this name goes to.
    pub fn by_action(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.action() == Some(name))
    }

    /// Whether it is a tab of its own.
    pub fn is_tab(self) -> bool {
        self.tab() == self
    }
}
