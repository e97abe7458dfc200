//! Reads a source of activations for a fit: in blocks of prepared rows, into memory that is reused.
//! Knows nothing of solvers.
//!
//! Invariant: the blocks follow from (n, d) alone, whatever the number of threads.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::SparseColumns;
use super::panels::Panels;
use super::pass::GroupSums;
use super::preprocessing::Preprocessing;
use crate::activations::{ActivationSource, Block};
use crate::error::Result;
use crate::matrix::aligned::AlignedVec;
use crate::matrix::dense;
use crate::matrix::panel::{self, PANEL};
use crate::task::TaskCtx;

/// The target size in bytes of a block of A.
const BLOCK_BYTES: usize = 16 << 20;
/// The smallest and largest number of rows of a block.
const BLOCK_ROWS: Range<usize> = 512..4096;

/// The memory in which one thread processes a panel.
#[derive(Default)]
pub(super) struct PanelScratch {
    pub(super) rows: AlignedVec,
    pub(super) panel: AlignedVec,
    pub(super) projected: AlignedVec,
    pub(super) y: AlignedVec,
    pub(super) packed: AlignedVec,
    pub(super) totals: AlignedVec,
}

/// A source, its preprocessing, and pools of memory that passes reuse.
pub(crate) struct Stream<'a> {
    pub(crate) source: &'a dyn ActivationSource,
    pub(crate) preprocessing: Preprocessing,
    /// The folder for the files of coefficients; `None`: they lie in memory.
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) n: usize,
    pub(crate) d: usize,
    block_rows: usize,
    scratch_pool: Mutex<Vec<PanelScratch>>,
    /// Memory of group sums that have been added already.
    pub(super) group_pool: Mutex<Vec<GroupSums>>,
    /// Memory for AᵀY in the form (whole, or at the entries of the supports) that the last pass did
    /// not use.
    pub(super) product_pool: Mutex<Vec<f32>>,
    /// Memory of a block that the source had to convert.
    block_pool: Mutex<Vec<f32>>,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(source: &'a dyn ActivationSource) -> Self {
        let (n, d) = source.shape();
        Self {
            source,
            preprocessing: Preprocessing::default(),
            scratch: None,
            n,
            d,
            block_rows: block_rows(d),
            scratch_pool: Mutex::default(),
            group_pool: Mutex::default(),
            product_pool: Mutex::default(),
            block_pool: Mutex::default(),
        }
    }

    /// Zero coefficients of `k` features at every row.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if they lie in a file and there is no space.
    pub(crate) fn zero_coefficients(&self, k: usize) -> Result<Panels> {
        Panels::zeros(k, self.n, self.scratch.as_deref())
    }

    /// A prepared block of A. A source that converts its values does so on all threads, into reused
    /// memory.
    ///
    /// # Errors
    /// Errors of the source.
    pub(crate) fn read_block(&self, range: Range<usize>) -> Result<Block<'_>> {
        self.source.advise_pass(range.clone());
        if self.preprocessing.is_plain() && self.is_borrowed(range.start)? {
            return self.source.rows(range);
        }
        let (rows, d) = (range.len(), self.d);
        let mut data = std::mem::take(&mut *lock_pool(&self.block_pool));
        data.resize(rows * d, 0.0);
        data.par_chunks_mut(PANEL * d)
            .enumerate()
            .try_for_each(|(i, to)| {
                let first = range.start + i * PANEL;
                self.source.read(first..first + to.len() / d, to)?;
                self.preprocessing.apply(to, first, d);
                Ok::<_, crate::Error>(())
            })?;
        Ok(Block {
            rows,
            cols: d,
            data: Cow::Owned(data),
        })
    }

    /// Whether the source lends its rows from `row` on instead of converting them.
    pub(super) fn is_borrowed(&self, row: usize) -> Result<bool> {
        Ok(matches!(
            self.source.rows(row..row + 1)?.data,
            Cow::Borrowed(_)
        ))
    }

    /// Returns a block's memory to the pool.
    pub(crate) fn release(&self, block: Block<'_>) {
        if let Cow::Owned(data) = block.data {
            *lock_pool(&self.block_pool) = data;
        }
    }

    /// Calls `f` for each block in order; checks for cancellation before each.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and errors of the source or of `f`.
    pub(crate) fn for_each_block(
        &self,
        ctx: &TaskCtx,
        mut f: impl FnMut(Range<usize>, &Block<'_>) -> Result<()>,
    ) -> Result<()> {
        for first in (0..self.n).step_by(self.block_rows) {
            ctx.check()?;
            let range = first..self.n.min(first + self.block_rows);
            let block = self.read_block(range.clone())?;
            f(range, &block)?;
            self.release(block);
        }
        Ok(())
    }

    /// One prepared row of A, d values.
    ///
    /// # Errors
    /// Errors of the source.
    pub(crate) fn row(&self, row: usize) -> Result<Vec<f32>> {
        let mut values = self.source.rows(row..row + 1)?.data.into_owned();
        self.preprocessing.apply(&mut values, row, self.d);
        Ok(values)
    }

    /// Runs `f` with a thread's scratch memory, which is kept for the next call: fresh memory would
    /// cost a page fault for each page.
    pub(super) fn with_scratch<R>(&self, k: usize, f: impl FnOnce(&mut PanelScratch) -> R) -> R {
        let mut scratch = lock_pool(&self.scratch_pool).pop().unwrap_or_default();
        scratch.projected.resize(k * PANEL);
        let result = f(&mut scratch);
        lock_pool(&self.scratch_pool).push(scratch);
        result
    }

    /// Calls `f` with the products of at most [`PANEL`] rows with dense columns (`[k][d]`), stored
    /// as `[k][PANEL]`.
    pub(crate) fn with_products<R>(
        &self,
        rows: &[f32],
        columns: &[f32],
        f: impl FnOnce(&[f32]) -> R,
    ) -> R {
        self.with_scratch(columns.len() / self.d, |s| {
            s.panel.resize(self.d * PANEL);
            panel::transpose(&mut s.panel, rows, self.d);
            dense::project(&mut s.projected, &s.panel, columns, self.d);
            f(&s.projected)
        })
    }
}

/// The number of rows in a block of A for d neurons, whole panels.
pub(crate) fn block_rows(d: usize) -> usize {
    (BLOCK_BYTES / (4 * d.max(1))).clamp(BLOCK_ROWS.start, BLOCK_ROWS.end) / PANEL * PANEL
}

/// Locks a pool of scratch memory. A panic of another thread does not matter: the content is
/// unspecified anyway.
pub(super) fn lock_pool<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sparse columns as dense ones, `[k][d]`.
pub(crate) fn densify(columns: &SparseColumns) -> Vec<f32> {
    let mut out = vec![0.0; columns.columns() * columns.rows];
    for (j, line) in out.chunks_exact_mut(columns.rows.max(1)).enumerate() {
        let (indices, values) = columns.column(j);
        for (&i, &v) in indices.iter().zip(values) {
            line[i as usize] = v;
        }
    }
    out
}
