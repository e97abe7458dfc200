//! The streaming pass: reads A block by block, updates the coefficients of each block and sums what the next step on
//! the features needs. Knows nothing of solvers; they hand it columns to project on and an update for a panel.
//!
//! Invariant: the blocks, panels and tiles are fixed by (n, d) alone and every sum is taken in their order, so the result
//! is the same to the bit on any number of threads.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use super::SparseColumns;
use super::columns::Rows;
use super::panels::{Packed, Panels};
use crate::activations::{ActivationSource, Block};
use crate::error::Result;
use crate::matrix::dense;
use crate::matrix::panel::{self, PANEL};
use crate::matrix::sparse::{self, ByNeuron};
use crate::task::TaskCtx;

/// Bytes of A in a block: small enough to stay in a shared cache between the two halves of a pass.
const BLOCK_BYTES: usize = 16 << 20;
const BLOCK_ROWS: Range<usize> = 512..4096;
/// Blocks in flight: the one under way and the one that is read ahead.
const SPARE_BUFFERS: usize = 2;
/// Panels a task takes where it sums on the supports: enough to spread the cost of its own sums.
const SUPPORT_PANELS: usize = 4;
/// Neurons of which a panel does not stay in a core's cache beside all else: where it is wanted only to project, it is not made.
const WIDE: usize = 4096;
/// Columns denser than this are projected on by a dense product.
const DENSE: f64 = 0.25;

/// What a pass projects on.
pub(crate) enum Columns<'c> {
    /// No projection: the update sees zeros.
    None,
    /// Sparse columns, by a dense product where they are dense.
    Sparse(&'c SparseColumns),
    /// Dense columns `[k][d]`.
    Dense(&'c [f32]),
}

/// Which part of AᵀY a pass sums.
#[derive(Clone, Copy)]
pub(crate) enum Gather<'c> {
    /// All of it.
    Dense,
    /// The entries on these supports.
    Support(&'c SparseColumns),
}

/// The sums of a pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sums {
    /// (AᵀY)ᵀ `[k][d]`; of [`Gather::Support`] one value an entry instead.
    pub(crate) products: Vec<f32>,
    /// YᵀY, k × k.
    pub(crate) gram: Vec<f64>,
    /// Σ P∘Y, where P is the projection the update saw.
    pub(crate) fit: f64,
    /// ΣY of each feature.
    pub(crate) totals: Vec<f64>,
    /// Σ_j P_ij Y_ij of each row.
    pub(crate) row_fit: Vec<f32>,
}

#[derive(Default)]
struct Scratch {
    panel: Vec<f32>,
    projected: Vec<f32>,
}

/// How a fit sees the rows: minus a centre, then each times a weight of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frame {
    pub(crate) centre: Option<Arc<Vec<f32>>>,
    /// 1/‖row‖, and 0 for a row of zeros.
    pub(crate) weights: Option<Vec<f32>>,
}

impl Frame {
    fn is_plain(&self) -> bool {
        self.centre.is_none() && self.weights.is_none()
    }

    /// Puts whole rows, the first of number `first`, into the frame.
    fn apply(&self, rows: &mut [f32], first: usize, d: usize) {
        for (i, row) in rows.chunks_exact_mut(d).enumerate() {
            if let Some(centre) = &self.centre {
                row.iter_mut().zip(centre.iter()).for_each(|(v, c)| *v -= c);
            }
            if let Some(weights) = &self.weights {
                let weight = weights[first + i];
                row.iter_mut().for_each(|v| *v *= weight);
            }
        }
    }
}

/// A source and how it is cut into blocks.
pub(crate) struct Stream<'a> {
    pub(crate) source: &'a dyn ActivationSource,
    pub(crate) frame: Frame,
    /// The folder for coefficients that memory shall not hold.
    pub(crate) scratch: Option<PathBuf>,
    pub(crate) n: usize,
    pub(crate) d: usize,
    block_rows: usize,
    pool: Mutex<Vec<Scratch>>,
    /// Buffers of blocks that the source had to convert.
    buffers: Mutex<Vec<Vec<f32>>>,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(source: &'a dyn ActivationSource) -> Self {
        let (n, d) = source.shape();
        Self {
            source,
            frame: Frame::default(),
            scratch: None,
            n,
            d,
            block_rows: block_rows(d),
            pool: Mutex::default(),
            buffers: Mutex::default(),
        }
    }

    /// Zeros for the coefficients of `k` features at every row.
    pub(crate) fn panels(&self, k: usize) -> Result<Panels> {
        Panels::zeros(k, self.n, self.scratch.as_deref())
    }

    /// A block of A. A source that converts its values does so on all threads, into memory that is used again.
    pub(crate) fn fetch(&self, range: Range<usize>) -> Result<Block<'_>> {
        self.source.pass_at(range.clone());
        if self.frame.is_plain() && self.borrows(range.start)? {
            return self.source.rows(range);
        }
        let (rows, d) = (range.len(), self.d);
        let mut data = lock(&self.buffers).pop().unwrap_or_default();
        data.resize(rows * d, 0.0);
        data.par_chunks_mut(PANEL * d).enumerate().try_for_each(|(i, to)| {
            let first = range.start + i * PANEL;
            self.source.read(first..first + to.len() / d, to)?;
            self.frame.apply(to, first, d);
            Ok::<_, crate::Error>(())
        })?;
        Ok(Block { rows, cols: d, data: Cow::Owned(data) })
    }

    /// Whether the source holds a row as it is asked for.
    fn borrows(&self, row: usize) -> Result<bool> {
        Ok(matches!(self.source.rows(row..row + 1)?.data, Cow::Borrowed(_)))
    }

    /// Takes a block's memory back, as much of it as blocks in flight can use: a source whose blocks span shards makes
    /// memory of its own each time.
    pub(crate) fn release(&self, block: Block<'_>) {
        if let Cow::Owned(data) = block.data {
            let mut buffers = lock(&self.buffers);
            if buffers.len() < SPARE_BUFFERS {
                buffers.push(data);
            }
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
        self.frame.apply(&mut values, row, self.d);
        Ok(values)
    }

    /// Runs `f` with scratch memory that outlives it, so that a pass does not fault in fresh pages for each panel.
    fn with_scratch<R>(&self, k: usize, f: impl FnOnce(&mut Scratch) -> R) -> R {
        let mut scratch = lock(&self.pool).pop().unwrap_or_default();
        scratch.projected.resize(k * PANEL, 0.0);
        let result = f(&mut scratch);
        lock(&self.pool).push(scratch);
        result
    }

    /// `f` on `columnsᵀ · rows` for at most [`PANEL`] rows and dense columns `[k][d]`.
    pub(crate) fn on_panel<R>(&self, rows: &[f32], columns: &[f32], f: impl FnOnce(&[f32]) -> R) -> R {
        self.with_scratch(columns.len() / self.d, |s| {
            s.panel.resize(self.d * PANEL, 0.0);
            panel::transpose(&mut s.panel, rows, self.d);
            dense::project(&mut s.projected, &s.panel, columns, self.d);
            f(&s.projected)
        })
    }

    /// One pass. For each panel `next` is first `y`, then `update(next, P)` changes it; the sums are of `next`.
    pub(crate) fn pass(
        &self,
        ctx: &TaskCtx,
        y: &Panels,
        next: &mut Panels,
        columns: &Columns<'_>,
        gather: Gather<'_>,
        sums: &mut Sums,
        update: &(impl Fn(&mut [f32], &[f32]) + Sync),
    ) -> Result<()> {
        let k = y.k;
        let dense = match columns {
            Columns::Sparse(c) if c.indices.len() as f64 > DENSE * (self.d * k) as f64 => Some(densify(c)),
            _ => None,
        };
        let by_neuron = match (columns, gather) {
            (Columns::Sparse(c), Gather::Dense) if self.d > WIDE => Some(Rows::of(c).by_neuron(c)),
            _ => None,
        };
        let projected = match (columns, &dense, &by_neuron) {
            (_, Some(dense), _) => Projected::Dense(dense),
            (_, _, Some(columns)) => Projected::Wide(columns),
            (Columns::None, ..) => Projected::None,
            (Columns::Sparse(c), ..) => Projected::Sparse(c),
            (Columns::Dense(c), ..) => Projected::Dense(c),
        };
        let visited = Visited { columns: projected, gather };
        sums.reset(self, k, gather);
        let Sums { products, gram, fit, totals, row_fit } = sums;
        let mut first = FirstHalf { totals, row_fit, fit, on_support: Vec::new() };
        let (mut packed, mut spare) = (Packed::default(), Packed::default());
        let mut waiting: Option<Block<'_>> = None;
        let (all_before, all_after) = (&y.data[..], &mut next.data[..]);
        // While one block's products are summed the next is read and updated, so that no thread waits for the other half.
        for begin in (0..self.n).step_by(self.block_rows) {
            let range = begin..self.n.min(begin + self.block_rows);
            let span = range.start * k..range.end.div_ceil(PANEL) * PANEL * k;
            let (before, after) = (&all_before[span.clone()], &mut all_after[span]);
            let ((), block) = rayon::join(
                || {
                    if let Some(block) = &waiting {
                        packed.accumulate(block, products_of(gather, products), gram, k);
                    }
                },
                || {
                    ctx.check()?;
                    let block = self.fetch(range.clone())?;
                    self.update_block(&block, range.start, before, after, &visited, &mut first, update);
                    spare.fill(after, k, first.totals);
                    Ok::<_, crate::Error>(block)
                },
            );
            if let Some(done) = waiting.replace(block?) {
                self.release(done);
            }
            std::mem::swap(&mut packed, &mut spare);
        }
        if let Some(block) = &waiting {
            packed.accumulate(block, products_of(gather, products), gram, k);
        }
        dense::mirror(gram, k);
        if matches!(gather, Gather::Support(_)) {
            *products = first.on_support;
        }
        Ok(())
    }

    /// The first half of a block: projects, updates the coefficients panel by panel, and sums on the supports.
    #[allow(clippy::too_many_arguments)]
    fn update_block(
        &self,
        block: &Block<'_>,
        first_row: usize,
        before: &[f32],
        after: &mut [f32],
        visited: &Visited<'_>,
        sums: &mut FirstHalf<'_>,
        update: &(impl Fn(&mut [f32], &[f32]) + Sync),
    ) {
        let (support, task) = match visited.gather {
            Gather::Support(c) => (c.indices.len(), SUPPORT_PANELS),
            Gather::Dense => (0, 1),
        };
        let k = sums.totals.len();
        let row_fit = &mut sums.row_fit[first_row..first_row + after.len() / k];
        let partial: Vec<Vec<f32>> = after
            .par_chunks_mut(task * PANEL * k)
            .zip(before.par_chunks(task * PANEL * k))
            .zip(row_fit.par_chunks_mut(task * PANEL))
            .enumerate()
            .with_max_len(1)
            .map(|(i, ((after, before), row_fit))| {
                let mut on_support = vec![0.0; support];
                after.copy_from_slice(before);
                let panels = after.chunks_exact_mut(PANEL * k).zip(row_fit.chunks_exact_mut(PANEL));
                for (t, (y, row_fit)) in panels.enumerate() {
                    let first = (i * task + t) * PANEL;
                    let a = &block.data[first * self.d..self.d * block.rows.min(first + PANEL)];
                    self.with_scratch(k, |s| self.visit(a, visited, s, y, row_fit, &mut on_support, update));
                }
                on_support
            })
            .collect();
        *sums.fit += row_fit.iter().map(|&v| f64::from(v)).sum::<f64>();
        sums.on_support.resize(support, 0.0);
        for part in &partial {
            sums.on_support.iter_mut().zip(part).for_each(|(total, v)| *total += v);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn visit(
        &self,
        a: &[f32],
        visited: &Visited<'_>,
        scratch: &mut Scratch,
        next: &mut [f32],
        row_fit: &mut [f32],
        on_support: &mut [f32],
        update: &(impl Fn(&mut [f32], &[f32]) + Sync),
    ) {
        let Scratch { panel, projected } = scratch;
        let turned = matches!(visited.columns, Projected::Sparse(_) | Projected::Dense(_));
        if turned || matches!(visited.gather, Gather::Support(_)) {
            panel.resize(self.d * PANEL, 0.0);
            panel::transpose(panel, a, self.d);
        }
        match &visited.columns {
            Projected::None => projected.fill(0.0),
            Projected::Sparse(c) => panel::project(projected, panel, &c.offsets, &c.indices, &c.values),
            Projected::Wide(c) => sparse::project(projected, a, c),
            Projected::Dense(c) => dense::project(projected, panel, c, self.d),
        }
        update(next, projected);
        if let Gather::Support(c) = visited.gather {
            panel::gather_products(on_support, panel, next, &c.offsets, &c.indices);
        }
        panel::products(row_fit, next, projected);
    }
}

/// Rows in a block of A of width d, whole panels.
pub(crate) fn block_rows(d: usize) -> usize {
    (BLOCK_BYTES / (4 * d.max(1))).clamp(BLOCK_ROWS.start, BLOCK_ROWS.end) / PANEL * PANEL
}

/// What a panic left behind is only scratch.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`Columns`] as the kernels take them.
enum Projected<'c> {
    None,
    Sparse(&'c SparseColumns),
    /// Of rows whose panel would not stay in a core's cache.
    Wide(&'c ByNeuron),
    Dense(&'c [f32]),
}

/// What a visit to a panel projects on and sums.
struct Visited<'c> {
    columns: Projected<'c>,
    gather: Gather<'c>,
}

impl Sums {
    pub(crate) fn reset(&mut self, stream: &Stream<'_>, k: usize, gather: Gather<'_>) {
        let products = match gather {
            Gather::Dense => k * stream.d,
            Gather::Support(c) => c.indices.len(),
        };
        self.products.clear();
        self.products.resize(products, 0.0);
        self.gram.clear();
        self.gram.resize(k * k, 0.0);
        self.totals.clear();
        self.totals.resize(k, 0.0);
        self.row_fit.resize(stream.n.div_ceil(PANEL) * PANEL, 0.0);
        self.fit = 0.0;
    }
}

/// Where the dense products go, when they are wanted.
fn products_of<'s>(gather: Gather<'_>, products: &'s mut [f32]) -> Option<&'s mut [f32]> {
    matches!(gather, Gather::Dense).then_some(products)
}

/// The sums of the first half of a block.
struct FirstHalf<'s> {
    totals: &'s mut [f64],
    row_fit: &'s mut [f32],
    fit: &'s mut f64,
    on_support: Vec<f32>,
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
