//! Activations as rows of numbers, wherever they live.
//!
//! The factoriser and the analysis see activations only through [`ActivationSource`]: the mapped
//! cache of a study, an array in memory, an imported matrix. Nothing here knows of a model.

pub mod energy;
pub mod store;

use std::borrow::Cow;
use std::ops::Range;

use crate::error::Result;
use crate::matrix::aligned::AlignedVec;

/// Some whole rows of an activation matrix, row-major `[rows, cols]`, as f32.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    /// How many rows.
    pub rows: usize,
    /// Values a row.
    pub cols: usize,
    /// `rows * cols` values; borrowed where the source holds f32, widened where it holds f16 or
    /// bf16.
    pub data: Cow<'a, [f32]>,
}

impl Block<'_> {
    /// Row `i` of the block.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }
}

/// A matrix A\[n × d\] of activations, a row a token.
pub trait ActivationSource: Sync {
    /// (n, d): token rows and neurons.
    fn shape(&self) -> (usize, usize);

    /// The rows of `range` (which must lie inside the shape). A source may be larger than memory:
    /// ask for blocks.
    fn rows(&self, range: Range<usize>) -> Result<Block<'_>>;

    /// The same rows into `out`, which has their number of values: a source that converts needs no
    /// memory of its own.
    fn read(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.rows(range)?.data);
        Ok(())
    }

    /// A hint that a pass over all rows, in order, now asks for these: a source on disk may begin
    /// to read those that follow.
    fn advise_pass(&self, _: Range<usize>) {}

    /// How a person would name a row in an error ("row 17, token ' Monday' of sample 3").
    fn describe_row(&self, row: usize) -> String {
        format!("row {row}")
    }
}

/// A matrix in memory.
#[derive(Debug, Clone)]
pub struct InMemory {
    rows: usize,
    cols: usize,
    data: AlignedVec,
}

impl InMemory {
    /// A copy of row-major `data`; its length must be `rows * cols`.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        Self::from_aligned(rows, cols, data.into())
    }

    /// Wraps row-major `data`; its length must be `rows * cols`.
    pub fn from_aligned(rows: usize, cols: usize, data: AlignedVec) -> Self {
        assert_eq!(
            data.len(),
            rows * cols,
            "row-major data must have rows * cols values"
        );
        Self { rows, cols, data }
    }
}

impl ActivationSource for InMemory {
    fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    fn rows(&self, range: Range<usize>) -> Result<Block<'_>> {
        let data = &self.data[range.start * self.cols..range.end * self.cols];
        Ok(Block {
            rows: range.len(),
            cols: self.cols,
            data: Cow::Borrowed(data),
        })
    }
}
