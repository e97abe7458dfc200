//! The panes. One file a pane, or a folder: its state, what it does at a key, its drawing and its
//! tests.

pub mod compare;
pub mod contexts;
mod empty;
pub mod evaluate;
pub mod feature;
pub mod features;
pub mod fit;
pub mod labels;
pub mod live;
#[cfg(test)]
mod snapshot_tests;
pub mod start;
pub mod steer;
pub mod tree;

use super::pane::Pane;

pub use compare::ComparePane;
pub use contexts::ContextsPane;
pub use empty::{draw_empty, no_features_lines};
pub use evaluate::EvaluatePane;
pub use feature::FeaturePane;
pub use features::FeaturesPane;
pub use fit::FitPane;
pub use labels::LabelsPane;
pub use live::LivePane;
pub use start::StartPane;
pub use steer::SteerPane;
pub use tree::TreePane;

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
