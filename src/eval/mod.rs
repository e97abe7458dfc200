//! How good features are: held-out concept detection, reconstruction, purity and stability, compared
//! with controls.
//!
//! Owns the measures and their statistics; sees activations as rows
//! ([`crate::activations::ActivationSource`]), features as [`crate::directions::Directions`] and
//! labels through [`crate::corpus::TokenTable`]. Knows no terminal; a model only in [`recovered`],
//! [`steering`] and [`reuse`], which ask what directions do, and files only in the log of
//! [`steering`]. Invariant: what a measure reports on held-out sentences was chosen without them,
//! and the same input and seed give the same numbers on any number of threads.

pub mod bench;
pub mod bootstrap;
pub mod compared;
pub mod contexts;
pub mod detection;
pub mod hard_negatives;
pub mod judge;
pub mod phrases;
pub mod quality;
pub mod rank;
pub mod recovered;
pub mod report;
pub mod reuse;
pub mod score;
pub mod split;
pub mod steering;
pub mod sweep;
pub mod unseen;

#[cfg(test)]
mod tests;
