//! mlpeek: what the MLP layers of a language model are made of, in a terminal.
pub mod activations;
pub mod analysis;
pub mod baselines;
pub mod corpus;
pub mod engine;
pub mod error;
pub mod eval;
pub mod factor;
pub mod interop;
pub mod matrix;
pub mod model;
pub mod steering;
pub mod study;
pub mod task;

pub use error::{Error, Result};
pub use task::{CancelToken, Progress, TaskCtx};
