//! The streaming pass: reads A once, updates the coefficients of every row, and computes the sums
//! that the next step on the features needs. Knows nothing of solvers, which give it columns to
//! project on and an update for a panel.
//!
//! A panel goes through all steps before the next one begins, so that its rows are read from memory
//! once; the rows of the next panel are prefetched meanwhile. Invariant: the panels and the groups
//! of panels that are summed separately follow from n alone, and every sum is taken in their order,
//! so the result has the same bits on any number of threads.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::SparseColumns;
use super::panels::Panels;
use super::stream::{PanelScratch, Stream, densify, lock_pool};
use crate::error::Result;
use crate::matrix::aligned::AlignedVec;
use crate::matrix::cross_products;
use crate::matrix::dense;
use crate::matrix::panel::{self, PANEL};
use crate::task::TaskCtx;

/// The largest number of panels in a group. Within a group sums are taken in f32, so a larger group
/// would lose digits; files are also read ahead by groups.
const MAX_GROUP_PANELS: usize = 32;
/// The share of non-zeros above which the projection on sparse columns is computed as a dense
/// product.
const DENSE_SHARE: f64 = 0.25;

/// The columns on which a pass projects.
pub(crate) enum Columns<'c> {
    /// No projection: the update gets zeros.
    None,
    /// Sparse columns; those with many non-zeros are multiplied as dense ones.
    Sparse(&'c SparseColumns),
    /// Dense columns `[k][d]`.
    Dense(&'c [f32]),
}

/// The entries of AᵀY that a pass sums.
#[derive(Clone, Copy)]
pub(crate) enum Gather<'c> {
    /// All k × d entries.
    Dense,
    /// The entries on these supports.
    Support(&'c SparseColumns),
}

/// The sums of a pass over all rows, for the updated Y.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PassSums {
    /// AᵀY by feature, `[k][d]`; with [`Gather::Support`] one value for each entry of the supports.
    pub(crate) products: Vec<f32>,
    /// YᵀY, k × k.
    pub(crate) gram: Vec<f64>,
    /// Σ P∘Y, where P is the projection that the update got.
    pub(crate) fit: f64,
    /// Σ_i Y_ij of each feature j.
    pub(crate) totals: Vec<f64>,
    /// Σ_j P_ij Y_ij of each row i.
    pub(crate) row_fit: Vec<f32>,
}

/// [`Columns`] in the form that the kernels take.
enum Projection<'c> {
    None,
    Sparse(&'c SparseColumns),
    Dense(&'c [f32]),
}

impl<'c> Projection<'c> {
    /// The projection on `columns`; `dense` are the same columns `[k][d]` if they are to be multiplied
    /// as dense ones.
    fn new(columns: &Columns<'c>, dense: Option<&'c [f32]>) -> Self {
        match (columns, dense) {
            (_, Some(dense)) => Self::Dense(dense),
            (Columns::None, None) => Self::None,
            (Columns::Sparse(c), None) => Self::Sparse(c),
            (Columns::Dense(c), None) => Self::Dense(c),
        }
    }
}

/// What a pass does with each panel: the columns to project on and the entries of AᵀY to sum.
struct PanelWork<'c> {
    columns: Projection<'c>,
    gather: Gather<'c>,
}

/// The sums of a group of panels, in f32 except the totals.
#[derive(Default)]
pub(super) struct GroupSums {
    /// AᵀY in the layout of [`cross_products::accumulate`], or its entries on the supports.
    products: AlignedVec,
    /// The entries of YᵀY on and above the diagonal, in the same layout.
    gram: AlignedVec,
    totals: Vec<f64>,
    /// Whether the sums are still empty, so that the next panel overwrites their memory.
    overwrite: bool,
}

/// The totals over groups. Groups are added in their order, whichever is ready first.
#[derive(Default)]
struct OrderedTotals {
    /// The sum of AᵀY over the groups; the other fields are unused.
    whole: GroupSums,
    /// YᵀY in f64, on and below the diagonal.
    gram: Vec<f64>,
    totals: Vec<f64>,
    /// Memory for some lines of a group's YᵀY.
    lines: AlignedVec,
    /// Sums of groups that wait for those of earlier groups.
    ready: BTreeMap<usize, GroupSums>,
    /// The index of the group to add next.
    next: usize,
}

/// The number of panels in a group for n rows. It makes about as many groups as there are panels in
/// a group, and a multiple of four groups, which two or four threads can share evenly.
fn group_panels(n: usize) -> usize {
    let panels = n.div_ceil(PANEL);
    let groups = (panels as f64).sqrt().ceil() as usize;
    panels
        .div_ceil(groups.next_multiple_of(4).max(1))
        .clamp(1, MAX_GROUP_PANELS)
}

impl Stream<'_> {
    /// One pass over A. For each panel the coefficients `next` start as those of `y`, then
    /// `update(next, P)` changes them; `sums` become those of `next`.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`], and errors of the source.
    pub(crate) fn pass(
        &self,
        ctx: &TaskCtx,
        y: &Panels,
        next: &mut Panels,
        columns: &Columns<'_>,
        gather: Gather<'_>,
        sums: &mut PassSums,
        update: &(impl Fn(&mut [f32], &[f32]) + Sync),
    ) -> Result<()> {
        let k = y.k;
        sums.reset(self, k, gather);
        if k == 0 {
            return Ok(());
        }
        let dense = match columns {
            Columns::Sparse(c) if c.indices.len() as f64 > DENSE_SHARE * (self.d * k) as f64 => {
                Some(densify(c))
            }
            _ => None,
        };
        let work = PanelWork {
            columns: Projection::new(columns, dense.as_deref()),
            gather,
        };
        let group = group_panels(self.n) * PANEL;
        let ordered = Mutex::new(OrderedTotals {
            whole: self.empty_group_sums(k, gather),
            gram: std::mem::take(&mut sums.gram),
            totals: std::mem::take(&mut sums.totals),
            ..OrderedTotals::default()
        });
        // Groups are started in order, so that reads of a file are close together and few sums wait
        // for those of earlier groups.
        let groups = next
            .data
            .chunks_mut(group * k)
            .zip(y.data.chunks(group * k))
            .zip(sums.row_fit.chunks_mut(group));
        groups
            .enumerate()
            .par_bridge()
            .try_for_each(|(i, ((after, before), row_fit))| {
                let rows = i * group..self.n.min((i + 1) * group);
                let mut group_sums = self.empty_group_sums(k, gather);
                self.with_scratch(k, |s| {
                    self.process_group(
                        ctx,
                        rows,
                        (before, after),
                        row_fit,
                        &work,
                        s,
                        &mut group_sums,
                        update,
                    )
                })?;
                self.add_group(i, group_sums, &mut lock_pool(&ordered));
                Ok::<_, crate::Error>(())
            })?;
        let ordered = ordered.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.store_totals(ordered, gather, sums);
        Ok(())
    }

    /// Moves the totals over all groups into `sums`, in whose layout AᵀY is stored by feature and YᵀY
    /// is complete.
    fn store_totals(&self, ordered: OrderedTotals, gather: Gather<'_>, sums: &mut PassSums) {
        match gather {
            Gather::Support(_) => sums.products.copy_from_slice(&ordered.whole.products),
            Gather::Dense => {
                let features = cross_products::UNPACKED_FEATURES;
                let lines = sums.products.par_chunks_mut((features * self.d).max(1));
                lines.enumerate().for_each(|(i, lines)| {
                    let packed = &ordered.whole.products;
                    cross_products::unpack_by_feature(lines, packed, self.d, i * features);
                });
            }
        }
        lock_pool(&self.group_pool).push(ordered.whole);
        sums.fit = sums.row_fit.iter().map(|&v| f64::from(v)).sum();
        (sums.gram, sums.totals) = (ordered.gram, ordered.totals);
        dense::copy_lower_to_upper(&mut sums.gram, sums.totals.len());
    }

    /// Empty sums, in memory of an earlier group if there is some.
    fn empty_group_sums(&self, k: usize, gather: Gather<'_>) -> GroupSums {
        let mut group_sums = lock_pool(&self.group_pool).pop().unwrap_or_default();
        match gather {
            Gather::Dense => group_sums
                .products
                .resize_for_overwrite(self.d * cross_products::padded_width(k)),
            Gather::Support(c) => {
                group_sums.products.resize_for_overwrite(c.indices.len());
                group_sums.products.fill(0.0);
            }
        }
        group_sums
            .gram
            .resize_for_overwrite(k * cross_products::padded_width(k));
        group_sums.totals.clear();
        group_sums.totals.resize(k, 0.0);
        group_sums.overwrite = true;
        group_sums
    }

    /// Adds the sums of group `i` to the totals if all groups before are added, and then those of
    /// the groups that waited for it.
    fn add_group(&self, i: usize, group_sums: GroupSums, ordered: &mut OrderedTotals) {
        ordered.ready.insert(i, group_sums);
        while let Some(mut group_sums) = ordered.ready.remove(&ordered.next) {
            if ordered.next == 0 {
                std::mem::swap(&mut ordered.whole.products, &mut group_sums.products);
            } else {
                ordered
                    .whole
                    .products
                    .iter_mut()
                    .zip(group_sums.products.iter())
                    .for_each(|(total, v)| *total += v);
            }
            let k = ordered.totals.len();
            ordered.lines.resize(cross_products::UNPACKED_FEATURES * k);
            for (i, to) in ordered
                .gram
                .chunks_mut(cross_products::UNPACKED_FEATURES * k)
                .enumerate()
            {
                let lines = &mut ordered.lines[..to.len()];
                cross_products::unpack_by_feature(
                    lines,
                    &group_sums.gram,
                    k,
                    i * cross_products::UNPACKED_FEATURES,
                );
                // Of the line of feature j only the entries up to j are valid: the entries on and
                // above the diagonal, transposed.
                for (j, (to, from)) in to
                    .chunks_exact_mut(k)
                    .zip(lines.chunks_exact(k))
                    .enumerate()
                {
                    let known = i * cross_products::UNPACKED_FEATURES + j + 1;
                    to[..known]
                        .iter_mut()
                        .zip(&from[..known])
                        .for_each(|(total, v)| *total += f64::from(*v));
                }
            }
            ordered
                .totals
                .iter_mut()
                .zip(&group_sums.totals)
                .for_each(|(total, v)| *total += v);
            lock_pool(&self.group_pool).push(group_sums);
            ordered.next += 1;
        }
    }

    /// Processes the rows of a group, panel by panel.
    fn process_group(
        &self,
        ctx: &TaskCtx,
        rows: Range<usize>,
        (before, after): (&[f32], &mut [f32]),
        row_fit: &mut [f32],
        work: &PanelWork<'_>,
        scratch: &mut PanelScratch,
        group_sums: &mut GroupSums,
        update: &(impl Fn(&mut [f32], &[f32]) + Sync),
    ) -> Result<()> {
        self.source.advise_pass(rows.clone());
        let k = group_sums.totals.len();
        let is_borrowed = self.preprocessing.is_plain() && self.is_borrowed(rows.start)?;
        let mut buffer = std::mem::take(&mut scratch.rows);
        let coefficients = before
            .chunks_exact(PANEL * k)
            .zip(after.chunks_exact_mut(PANEL * k));
        let panels = rows
            .clone()
            .step_by(PANEL)
            .zip(coefficients)
            .zip(row_fit.chunks_exact_mut(PANEL));
        for ((begin, coefficients), row_fit) in panels {
            ctx.check()?;
            let range = begin..rows.end.min(begin + PANEL);
            if is_borrowed {
                let following = self
                    .source
                    .rows(range.end..rows.end.min(range.end + PANEL))?;
                let block = self.source.rows(range)?;
                // A source that converts its values has just written these rows, so there is
                // nothing to prefetch.
                let ahead = if matches!(following.data, Cow::Borrowed(_)) {
                    &following.data[..]
                } else {
                    &[]
                };
                self.process_panel(
                    &block.data,
                    ahead,
                    coefficients,
                    work,
                    scratch,
                    row_fit,
                    group_sums,
                    update,
                );
            } else {
                buffer.resize(range.len() * self.d);
                self.source.read(range, &mut buffer)?;
                self.preprocessing.apply(&mut buffer, begin, self.d);
                self.process_panel(
                    &buffer,
                    &[],
                    coefficients,
                    work,
                    scratch,
                    row_fit,
                    group_sums,
                    update,
                );
            }
        }
        scratch.rows = buffer;
        Ok(())
    }

    /// Processes the rows `a` of one panel with its coefficients; the rows `ahead` follow and are
    /// prefetched.
    fn process_panel(
        &self,
        a: &[f32],
        ahead: &[f32],
        (before, after): (&[f32], &mut [f32]),
        work: &PanelWork<'_>,
        scratch: &mut PanelScratch,
        row_fit: &mut [f32],
        group_sums: &mut GroupSums,
        update: &(impl Fn(&mut [f32], &[f32]) + Sync),
    ) {
        let PanelScratch {
            panel,
            projected,
            y: next,
            packed,
            totals,
            ..
        } = scratch;
        let (d, k) = (self.d, group_sums.totals.len());
        panel.resize(d * PANEL);
        panel::transpose(panel, a, d);
        panel::prefetch(before);
        panel::prefetch(after);
        match &work.columns {
            Projection::None => projected.fill(0.0),
            Projection::Sparse(c) => {
                panel::project(projected, panel, &c.offsets, &c.indices, &c.values)
            }
            Projection::Dense(c) => dense::project(projected, panel, c, d),
        }
        next.resize(PANEL * k);
        next.copy_from_slice(before);
        update(next, projected);
        after.copy_from_slice(next);
        panel::row_dots(row_fit, next, projected);
        packed.resize(cross_products::padded_width(k) * PANEL);
        cross_products::pack_coefficients(packed, next);
        match work.gather {
            Gather::Support(c) => panel::gather_products(
                &mut group_sums.products,
                panel,
                next,
                &c.offsets,
                &c.indices,
            ),
            Gather::Dense => cross_products::accumulate(
                &mut group_sums.products,
                panel,
                packed,
                group_sums.overwrite,
                false,
                ahead,
            ),
        }
        cross_products::accumulate(
            &mut group_sums.gram,
            next,
            packed,
            group_sums.overwrite,
            true,
            &[],
        );
        totals.resize(k);
        panel::line_sums(totals, next);
        group_sums
            .totals
            .iter_mut()
            .zip(totals.iter())
            .for_each(|(total, v)| *total += f64::from(*v));
        group_sums.overwrite = false;
    }
}

impl PassSums {
    /// Prepares the memory for the sums of a pass. All are zeroed except the products, which are
    /// overwritten at the end of the pass.
    pub(crate) fn reset(&mut self, stream: &Stream<'_>, k: usize, gather: Gather<'_>) {
        let products = match gather {
            Gather::Dense => k * stream.d,
            Gather::Support(c) => c.indices.len(),
        };
        if self.products.len() != products {
            // Passes alternate between all of AᵀY and its entries on the supports: each keeps
            // memory of its own size, since a resize would zero it each time.
            std::mem::swap(&mut self.products, &mut lock_pool(&stream.product_pool));
            self.products.resize(products, 0.0);
        }
        self.gram.clear();
        self.gram.resize(k * k, 0.0);
        self.totals.clear();
        self.totals.resize(k, 0.0);
        self.row_fit.resize(stream.n.div_ceil(PANEL) * PANEL, 0.0);
        self.fit = 0.0;
    }
}
