//! Dense and sparse kernels of the factoriser.
