//! New rows on a fixed basis: min_{y ≥ 0} ‖a − Zy‖² for each row a.

use crate::activations::Block;
use crate::error::Result;
use crate::factor::SparseColumns;
use crate::task::TaskCtx;

/// Encodes rows on fixed features; holds ZᵀZ and what else can be computed once.
pub struct Encoder {
    features: SparseColumns,
}

impl Encoder {
    /// Prepares ZᵀZ of unit columns.
    pub fn new(features: SparseColumns) -> Self {
        Self { features }
    }

    /// Coefficients of each row, row-major `[rows, k]`: the exact non-negative least squares solution to `1e-6`
    /// relative.
    pub fn encode(&self, block: &Block<'_>, ctx: &TaskCtx) -> Result<Vec<f32>> {
        let _ = (block, ctx, &self.features);
        unimplemented!()
    }
}
