//! Activations as rows of numbers, wherever they are stored.
//!
//! The factoriser and the analysis see activations only through [`ActivationSource`]: the mapped
//! cache of a study, an array in memory, an imported matrix. Nothing here knows of a model.

pub mod energy;
pub mod store;

use std::borrow::Cow;
use std::ops::Range;

use crate::error::Result;
use crate::matrix::aligned::AlignedVec;
use store::CacheDtype;

/// Consecutive rows of an activation matrix, row-major `[rows, cols]`, as f32.
#[derive(Debug, Clone)]
pub struct Block<'a> {
    /// The number of rows.
    pub rows: usize,
    /// d, the number of values in a row.
    pub cols: usize,
    /// `rows * cols` values: borrowed if the source holds f32, converted if it holds f16 or bf16.
    pub data: Cow<'a, [f32]>,
}

impl Block<'_> {
    /// Row `i` of the block, `cols` values.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }
}

/// Consecutive rows as their source stores them.
#[derive(Debug, Clone, Copy)]
pub struct StoredRows<'a> {
    /// The number of rows.
    pub rows: usize,
    /// The type of the values.
    pub dtype: CacheDtype,
    /// The values, row-major and little-endian.
    pub bytes: &'a [u8],
}

/// A matrix A\[n × d\] of activations with a row for each token.
pub trait ActivationSource: Sync {
    /// (n, d): the numbers of token rows and of neurons.
    fn shape(&self) -> (usize, usize);

    /// The rows of `range`, which must lie inside the shape. A source may be larger than memory, so
    /// callers read it in blocks.
    ///
    /// # Errors
    /// The source returns an error for a file that is damaged or cannot be read, and for a range
    /// outside the shape.
    fn rows(&self, range: Range<usize>) -> Result<Block<'_>>;

    /// Copies the rows of `range` into `out`, whose length must be their number of values. A source
    /// that converts its values then needs no memory of its own.
    ///
    /// # Errors
    /// What [`Self::rows`] returns.
    fn read(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(&self.rows(range)?.data);
        Ok(())
    }

    /// The type in which [`Self::for_each_stored`] gives the values.
    fn stored_dtype(&self) -> CacheDtype {
        CacheDtype::F32
    }

    /// Calls `f` with the rows of `range` as they are stored, in order and in pieces of whole rows,
    /// so that 2-byte values can be copied to a device without a copy in f32.
    ///
    /// # Errors
    /// What [`Self::rows`] and `f` return.
    fn for_each_stored(
        &self,
        range: Range<usize>,
        f: &mut dyn FnMut(StoredRows<'_>) -> Result<()>,
    ) -> Result<()> {
        let block = self.rows(range)?;
        f(StoredRows {
            rows: block.rows,
            dtype: CacheDtype::F32,
            bytes: bytemuck::cast_slice(&block.data),
        })
    }

    /// Tells the source that a pass over all rows in order has come to those of `range`, so that a
    /// source on disk can start to read the rows after them.
    fn advise_pass(&self, _: Range<usize>) {}

    /// The name of a row in an error message ("row 17, token ' Monday' of sample 3").
    fn describe_row(&self, row: usize) -> String {
        format!("row {row}")
    }
}

/// An activation matrix in memory, row-major.
#[derive(Debug, Clone)]
pub struct InMemory {
    rows: usize,
    cols: usize,
    data: AlignedVec,
}

impl InMemory {
    /// Copies row-major `data` onto cache lines.
    ///
    /// # Panics
    /// If the length of `data` is not `rows * cols`.
    pub fn new(rows: usize, cols: usize, data: Vec<f32>) -> Self {
        Self::from_aligned(rows, cols, data.into())
    }

    /// Wraps row-major `data`.
    ///
    /// # Panics
    /// If the length of `data` is not `rows * cols`.
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
