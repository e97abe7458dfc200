//! Matrices from elsewhere and factors to elsewhere, one file a format.
//!
//! Knows no study and no model. Invariant: a file that claims more than it holds is an error that
//! names it, and a file that is written appears under its name whole or not at all.

pub mod archive;
pub mod card;
pub mod checkpoint;
pub mod control_vector;
pub mod dendrogram;
pub mod direction_file;
pub mod explanations;
pub mod factor_arrays;
mod floats;
pub mod json;
pub mod markdown;
pub mod matrix;
pub mod npy;
pub mod npz;
pub mod overlap;
pub mod sae;
pub mod tables;
pub mod tensors;
mod torch;
