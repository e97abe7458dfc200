//! Dense and sparse kernels of the factoriser.

pub mod gemm;
pub mod quantised;
pub mod rowwise;
