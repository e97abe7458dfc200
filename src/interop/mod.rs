//! Matrices from elsewhere and factors to elsewhere, one file a format.

pub mod npy;
pub mod tensors;
