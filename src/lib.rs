//! mlpeek shows what the MLP layers of a language model are made of, in a terminal.
//!
//! The crate's map; imports point down only.
//!
//! | layer | modules |
//! | --- | --- |
//! | shells | `ui` (the explorer, behind the feature `tui`) · [`headless`] (a pane's twin as a command) · [`cli`] |
//! | application | [`engine`] (worker threads; `Command` in, `Event` out) |
//! | jobs | [`jobs`] (what a command does: a function from a study, a model and a request to data) |
//! | study | [`study`] (the directory on disk) |
//! | domain | [`model`] · [`corpus`] · [`activations`] · [`factor`] · [`analysis`] · [`steering`] · [`eval`] · [`directions`] · [`interop`] |
//! | foundations | [`guide`] · [`error`] · [`task`] · [`amounts`] · [`text`] · [`pieces`] · [`disk`] · [`lfs`] · [`memory`] · [`matrix`] · [`plot`] · [`warnings`] · [`panics`] |
//!
//! Within a layer no two modules import each other in a circle either; `tests/layers.rs` reads this
//! table and holds the sources to it.
//!
//! The factoriser and the analysis see activations only through [`activations::ActivationSource`];
//! reading and changing a model's activations has one seam, [`model::Tap`]; the explorer talks to
//! nothing but the engine. The library builds without any terminal crate (`cargo check --lib
//! --no-default-features`).

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::panic,
        clippy::print_stdout,
        clippy::print_stderr,
        clippy::dbg_macro
    )
)]

// The unit tests share the tests' support, which speaks of this crate by its name.
#[cfg(test)]
extern crate self as mlpeek;

pub mod activations;
pub mod amounts;
pub mod analysis;
pub mod cli;
pub mod corpus;
pub mod directions;
pub mod disk;
pub mod engine;
pub mod error;
pub mod eval;
pub mod factor;
pub mod guide;
pub mod headless;
pub mod interop;
pub mod jobs;
mod lfs;
pub mod matrix;
pub mod memory;
pub mod model;
pub mod panics;
pub mod pieces;
pub mod plot;
pub mod steering;
pub mod study;
pub mod task;
pub mod text;
#[cfg(feature = "tui")]
pub mod ui;
pub mod warnings;

pub use error::{Error, Result};
pub use task::{CancelToken, Progress, TaskCtx};
