//! The names of the panes: what everything from the key table to the layout calls them by. Knows no
//! pane.

/// Which pane it is.
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
    /// The fit and its error curve.
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
