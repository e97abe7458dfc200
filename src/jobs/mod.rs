//! What a command does, as functions from a study, a model and a request to data.
//!
//! Knows neither threads nor a terminal: both shells call these functions, the explorer through the
//! engine. Invariant: a command's meaning stands here once.

pub mod attribution;
mod budget;
pub mod causal;
pub mod choice;
pub mod collect;
pub mod comparing;
mod curve;
pub mod described;
pub mod describing;
pub mod detection;
pub mod device_test;
pub mod directions;
pub mod estimate;
pub mod evaluation;
pub mod export;
pub mod family;
pub mod fitting;
pub mod forward;
pub mod gpu;
pub mod kept;
pub mod levels;
pub mod measured;
pub mod reading;
pub mod reconstructions;
pub mod request;
pub mod saes;
pub mod self_test;
pub mod steering;
pub mod sweeping;
pub mod training;

#[cfg(test)]
mod tests;
