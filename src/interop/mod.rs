//! Matrices from elsewhere and factors to elsewhere, one file a format.

pub mod card;
pub mod npy;
pub mod tensors;
