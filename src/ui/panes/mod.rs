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
use super::pane_id::pane_table;

pub use empty::{draw_empty, no_features_lines};

/// Makes [`all`] of the table of panes.
macro_rules! make {
    ($($(#[$doc:meta])* $pane:ident, $title:literal, $tab:ident, $action:expr, $module:ident::$type:ident;)*) => {
        /// Every pane as it is at the start, in the order of [`super::pane_id::PaneId::ALL`].
        pub fn all() -> Vec<Box<dyn Pane>> {
            vec![$(Box::new($module::$type::default())),*]
        }
    };
}

pane_table!(make);

#[cfg(test)]
mod tests {
    use crate::ui::pane_id::PaneId;

    #[test]
    fn every_row_names_its_own_pane() {
        let ids: Vec<PaneId> = super::all().iter().map(|pane| pane.id()).collect();
        assert_eq!(ids, PaneId::ALL);
    }
}
