//! safetensors in and out.

use std::path::Path;

use crate::error::Result;
use crate::factor::Factors;

/// Reads the one two-dimensional tensor of a file (or the one named `name`) as row-major f32: (rows, cols, data).
pub fn read_matrix(path: &Path, name: Option<&str>) -> Result<(usize, usize, Vec<f32>)> {
    let _ = (path, name);
    unimplemented!()
}

/// Writes `Z` d × k and `Y` n × k, f32, atomically.
pub fn write_factors(path: &Path, factors: &Factors) -> Result<()> {
    let _ = (path, factors);
    unimplemented!()
}

/// Writes named f32 tensors (name, shape, row-major data), atomically.
pub fn write_named(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<()> {
    let _ = (path, tensors);
    unimplemented!()
}
