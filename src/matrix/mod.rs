//! Dense and sparse kernels of the factoriser and the decoder.
//!
//! Owns the arithmetic and its vectorised forms; knows nothing of tokens, features or files.
//! Invariant: every kernel adds its terms in an order that its arguments alone fix, never the
//! number of threads, so that a machine gives the same bits each time.

pub mod adam;
pub mod aligned;
pub mod cholesky;
mod coordinate;
pub mod cross_products;
pub mod dense;
pub mod gemm;
pub mod panel;
pub mod quantised;
pub mod residual;
pub mod rowwise;
pub mod select;
pub(crate) mod simd;
pub mod swap_gain;
mod transpose;
pub mod vector;
