//! A source of activations as the fits read it: in blocks, in a frame of its own, with memory that
//! is used again.
//!
//! Invariant: the blocks are fixed by (n, d) alone, whatever the number of threads.

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

/// Bytes of A in a block.
const BLOCK_BYTES: usize = 16 << 20;
const BLOCK_ROWS: Range<usize> = 512..4096;

/// A thread's memory for one panel.
#[derive(Default)]
pub(super) struct PanelScratch {
    pub(super) rows: AlignedVec,
    pub(super) panel: AlignedVec,
    pub(super) projected: AlignedVec,
    pub(super) y: AlignedVec,
    pub(super) packed: AlignedVec,
    pub(super) totals: AlignedVec,
}

/// A source and how it is cut into blocks.
pub(crate) struct Stream<'a> {
    pub(crate) source: &'a dyn ActivationSource,
    pub(crate) preprocessing: Preprocessing,
    /// The folder for coefficients that memory shall not hold.
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) n: usize,
    pub(crate) d: usize,
    block_rows: usize,
    scratch_pool: Mutex<Vec<PanelScratch>>,
    /// PassSums of groups of rows that are added up already.
    pub(super) group_pool: Mutex<Vec<GroupSums>>,
    /// Room for products of another size than the last pass's.
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

    /// Zeros for the coefficients of `k` features at every row.
    pub(crate) fn zero_coefficients(&self, k: usize) -> Result<Panels> {
        Panels::zeros(k, self.n, self.scratch.as_deref())
    }

    /// A block of A. A source that converts its values does so on all threads, into memory that is
    /// used again.
    pub(crate) fn fetch(&self, range: Range<usize>) -> Result<Block<'_>> {
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

    /// Whether the source holds a row as it is asked for.
    pub(super) fn is_borrowed(&self, row: usize) -> Result<bool> {
        Ok(matches!(
            self.source.rows(row..row + 1)?.data,
            Cow::Borrowed(_)
        ))
    }

    /// Takes a block's memory back for the next.
    pub(crate) fn release(&self, block: Block<'_>) {
        if let Cow::Owned(data) = block.data {
            *lock_pool(&self.block_pool) = data;
        }
    }

    /// Calls `f` for each block in order; tests for cancellation before each.
    pub(crate) fn blocks(
        &self,
        ctx: &TaskCtx,
        mut f: impl FnMut(Range<usize>, &Block<'_>) -> Result<()>,
    ) -> Result<()> {
        for first in (0..self.n).step_by(self.block_rows) {
            ctx.check()?;
            let range = first..self.n.min(first + self.block_rows);
            let block = self.fetch(range.clone())?;
            f(range, &block)?;
            self.release(block);
        }
        Ok(())
    }

    /// One row of A.
    pub(crate) fn row(&self, row: usize) -> Result<Vec<f32>> {
        let mut values = self.source.rows(row..row + 1)?.data.into_owned();
        self.preprocessing.apply(&mut values, row, self.d);
        Ok(values)
    }

    /// Runs `f` with scratch memory that outlives it, so that a pass does not fault in fresh pages
    /// for each panel.
    pub(super) fn with_scratch<R>(&self, k: usize, f: impl FnOnce(&mut PanelScratch) -> R) -> R {
        let mut scratch = lock_pool(&self.scratch_pool).pop().unwrap_or_default();
        scratch.projected.resize(k * PANEL);
        let result = f(&mut scratch);
        lock_pool(&self.scratch_pool).push(scratch);
        result
    }

    /// `f` on `columnsᵀ · rows` for at most [`PANEL`] rows and dense columns `[k][d]`.
    pub(crate) fn on_panel<R>(
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

/// Rows in a block of A of width d, whole panels.
pub(crate) fn block_rows(d: usize) -> usize {
    (BLOCK_BYTES / (4 * d.max(1))).clamp(BLOCK_ROWS.start, BLOCK_ROWS.end) / PANEL * PANEL
}

/// What a panic left behind is only scratch.
pub(super) fn lock_pool<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sparse columns as dense ones, `[k][d]`.
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
