//! Purity over labels.
