//! The explorer: an Elm-like shell on ratatui. Talks to the world only through [`crate::engine`]'s
//! commands and events and plain data; never sees a tensor, a store or a model.
//!
//! Imports point down this table, as they do down the crate's, and `tests/layers.rs` holds the
//! sources to it.
//!
//! | layer | modules |
//! | --- | --- |
//! | start | `launch` (the options) · `key_table` (the key reference) |
//! | terminal | [`terminal`] (all I/O of the screen) · [`clipboard`] |
//! | app | [`app`] (`update`: messages to effects) · [`view`] (the frame around the panes) |
//! | what is on the screen | [`panes`] (one file a pane) · [`dialogs`] (one file a dialog) |
//! | contract | [`pane`] (what a pane is) · [`dialog`] (what a dialog is) · [`layout`] (where panes are) |
//! | shared by panes | [`list`] (motion) · [`describe`] (words) · [`heat`] (tokens as cells) · [`draw`] (lines and bars) · [`form`] (fields) · [`input`] and [`textbox`] (text being typed) · `edit` |
//! | what is known | [`world`] (what the engine has told) · [`config`] (the user's file) · [`keymap`] (which key does what) |
//! | names | [`action`] (what keys can do, in one table) · [`pane_id`] · [`theme`] (colours by meaning) |

pub mod action;
pub mod app;
pub mod clipboard;
pub mod config;
pub mod describe;
pub mod dialog;
pub mod dialogs;
pub mod draw;
mod edit;
#[cfg(test)]
pub(crate) mod fake_engine;
pub mod form;
#[cfg(test)]
pub(crate) mod harness;
pub mod heat;
pub mod input;
mod key_table;
pub mod keymap;
mod launch;
pub mod layout;
pub mod list;
pub mod pane;
pub mod pane_id;
pub mod panes;
pub mod terminal;
pub mod textbox;
pub mod theme;
pub mod view;
pub mod world;

pub use key_table::{configured_key_table, key_table_markdown};
pub use launch::{UiOptions, explore, run};
