//! What the rows of the action table name in the app: whether an action can be done now, and what
//! it does.
//!
//! Invariant: every action has one handler, in the order of the table.

use super::availability::{self as can, Available};
use super::{App, Effect, commands as run};
use crate::ui::action::{Action, action_table};
use crate::ui::pane_id::PaneId::*;

/// The functions of an action.
pub(super) struct Handler {
    /// Why the action cannot be done now, for a person.
    pub available: fn(&App) -> Available,
    /// What the action does where the focused pane has no meaning of its own for it.
    pub run: fn(&mut App) -> Vec<Effect>,
}

/// Makes [`HANDLERS`] of the rows.
macro_rules! collect {
    ($(
        $action:ident: $kind:ident, $name:literal, $hint:literal, [$($key:literal),*], $panes:expr,
        $rank:literal, $doc:literal, $available:expr, $run:expr;
    )*) => {
        const HANDLERS: &[Handler] = &[$(Handler { available: $available, run: $run },)*];
    };
}

action_table!(collect);

/// The handler of an action.
pub(super) fn handler(action: Action) -> &'static Handler {
    // The enum and the handlers are made of the same rows, in the same order.
    &HANDLERS[action as usize]
}
