//! The streaming pass: reads A once, updates the coefficients of every row and sums what the next
//! step on the features needs. Knows nothing of solvers; they hand it columns to project on and an
//! update for a panel.
//!
//! A panel goes through all of it before the next is touched: its rows come from memory once, and
//! are asked for while the one before is still in work. Invariant: panels and the groups of them
//! that are summed apart are fixed by n alone and every sum is taken in their order, so the result
//! is the same to the bit on any number of threads.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;

use super::SparseColumns;
use super::panels::Panels;
use super::stream::{Scratch, Stream, densify, lock};
use crate::error::Result;
use crate::matrix::aligned::Aligned;
use crate::matrix::cross;
use crate::matrix::dense;
use crate::matrix::panel::{self, PANEL};
use crate::task::TaskCtx;

/// Panels of a group at most: the sums within it are in f32, and disks are read ahead by it.
const MOST_PANELS: usize = 32;
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

/// [`Columns`] as the kernels take them.
enum Projected<'c> {
    None,
    Sparse(&'c SparseColumns),
    Dense(&'c [f32]),
}

/// What a visit to a panel projects on and sums.
struct Visited<'c> {
    columns: Projected<'c>,
    gather: Gather<'c>,
}

/// The sums of a group of rows.
#[derive(Default)]
pub(super) struct Part {
    /// AᵀY as [`cross::add`] sums it, or its entries on the supports.
    products: Aligned,
    /// YᵀY, the same, on and above the diagonal.
    gram: Aligned,
    totals: Vec<f64>,
    /// Whether there is nothing in the sums yet, and what they hold does not count.
    fresh: bool,
}

/// Sums of groups, added in the order of the groups whichever is ready first.
#[derive(Default)]
struct Merged {
    /// Its products are those of the groups so far.
    whole: Part,
    /// YᵀY, on and below the diagonal.
    gram: Vec<f64>,
    totals: Vec<f64>,
    /// Of some features, on the way to YᵀY.
    lines: Aligned,
    ready: BTreeMap<usize, Part>,
    next: usize,
}

/// Panels of a group: about as many as there are groups, in a number that two, four and more
/// threads can share.
fn group_panels(n: usize) -> usize {
    let panels = n.div_ceil(PANEL);
    let groups = (panels as f64).sqrt().ceil() as usize;
    panels
        .div_ceil(groups.next_multiple_of(4).max(1))
        .clamp(1, MOST_PANELS)
}

impl Stream<'_> {
    /// One pass. For each panel `next` is first `y`, then `update(next, P)` changes it; the sums
    /// are of `next`.
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
        sums.reset(self, k, gather);
        if k == 0 {
            return Ok(());
        }
        let dense = match columns {
            Columns::Sparse(c) if c.indices.len() as f64 > DENSE * (self.d * k) as f64 => {
                Some(densify(c))
            }
            _ => None,
        };
        let projected = match (columns, &dense) {
            (_, Some(dense)) => Projected::Dense(dense),
            (Columns::None, _) => Projected::None,
            (Columns::Sparse(c), _) => Projected::Sparse(c),
            (Columns::Dense(c), _) => Projected::Dense(c),
        };
        let visited = Visited {
            columns: projected,
            gather,
        };
        let group = group_panels(self.n) * PANEL;
        let Sums {
            products,
            gram,
            fit,
            totals,
            row_fit,
        } = sums;
        let merged = Mutex::new(Merged {
            whole: self.fresh_part(k, gather),
            gram: std::mem::take(gram),
            totals: std::mem::take(totals),
            ..Merged::default()
        });
        // Groups are begun in order, so that what is read of a file lies close together and few
        // sums wait for others.
        let groups = next
            .data
            .chunks_mut(group * k)
            .zip(y.data.chunks(group * k))
            .zip(row_fit.chunks_mut(group));
        groups
            .enumerate()
            .par_bridge()
            .try_for_each(|(i, ((after, before), row_fit))| {
                let rows = i * group..self.n.min((i + 1) * group);
                let mut part = self.fresh_part(k, gather);
                self.with_scratch(k, |s| {
                    self.group(
                        ctx,
                        rows,
                        (before, after),
                        row_fit,
                        &visited,
                        s,
                        &mut part,
                        update,
                    )
                })?;
                self.merge(i, part, &mut lock(&merged));
                Ok::<_, crate::Error>(())
            })?;
        *fit = row_fit.iter().map(|&v| f64::from(v)).sum();
        let merged = merged
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match gather {
            Gather::Support(_) => products.copy_from_slice(&merged.whole.products),
            Gather::Dense => {
                let lines = products
                    .par_chunks_mut((cross::FEATURES * self.d).max(1))
                    .enumerate();
                lines.for_each(|(i, lines)| {
                    cross::by_feature(lines, &merged.whole.products, self.d, i * cross::FEATURES);
                });
            }
        }
        lock(&self.parts).push(merged.whole);
        (*gram, *totals) = (merged.gram, merged.totals);
        dense::mirror_up(gram, k);
        Ok(())
    }

    /// Sums with nothing in them, in memory that was used before where there is some.
    fn fresh_part(&self, k: usize, gather: Gather<'_>) -> Part {
        let mut part = lock(&self.parts).pop().unwrap_or_default();
        match gather {
            Gather::Dense => part.products.reuse(self.d * cross::width(k)),
            Gather::Support(c) => {
                part.products.reuse(c.indices.len());
                part.products.fill(0.0);
            }
        }
        part.gram.reuse(k * cross::width(k));
        part.totals.clear();
        part.totals.resize(k, 0.0);
        part.fresh = true;
        part
    }

    /// Adds the sums of group `i`, and of those after it that waited for it.
    fn merge(&self, i: usize, part: Part, merged: &mut Merged) {
        merged.ready.insert(i, part);
        while let Some(mut part) = merged.ready.remove(&merged.next) {
            if merged.next == 0 {
                std::mem::swap(&mut merged.whole.products, &mut part.products);
            } else {
                merged
                    .whole
                    .products
                    .iter_mut()
                    .zip(part.products.iter())
                    .for_each(|(total, v)| *total += v);
            }
            let k = merged.totals.len();
            merged.lines.resize(cross::FEATURES * k);
            for (i, to) in merged.gram.chunks_mut(cross::FEATURES * k).enumerate() {
                let lines = &mut merged.lines[..to.len()];
                cross::by_feature(lines, &part.gram, k, i * cross::FEATURES);
                // Of line j the values up to j: those on and above the diagonal, turned.
                for (j, (to, from)) in to
                    .chunks_exact_mut(k)
                    .zip(lines.chunks_exact(k))
                    .enumerate()
                {
                    let known = i * cross::FEATURES + j + 1;
                    to[..known]
                        .iter_mut()
                        .zip(&from[..known])
                        .for_each(|(total, v)| *total += f64::from(*v));
                }
            }
            merged
                .totals
                .iter_mut()
                .zip(&part.totals)
                .for_each(|(total, v)| *total += v);
            lock(&self.parts).push(part);
            merged.next += 1;
        }
    }

    /// The rows of a group, panel by panel.
    fn group(
        &self,
        ctx: &TaskCtx,
        rows: Range<usize>,
        (before, after): (&[f32], &mut [f32]),
        row_fit: &mut [f32],
        visited: &Visited<'_>,
        scratch: &mut Scratch,
        part: &mut Part,
        update: &(impl Fn(&mut [f32], &[f32]) + Sync),
    ) -> Result<()> {
        self.source.advise_pass(rows.clone());
        let k = part.totals.len();
        let borrows = self.frame.is_plain() && self.borrows(rows.start)?;
        let mut read = std::mem::take(&mut scratch.rows);
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
            if borrows {
                let following = self
                    .source
                    .rows(range.end..rows.end.min(range.end + PANEL))?;
                let block = self.source.rows(range)?;
                // What a source had to make is here already.
                let ahead = if matches!(following.data, Cow::Borrowed(_)) {
                    &following.data[..]
                } else {
                    &[]
                };
                self.visit(
                    &block.data,
                    ahead,
                    coefficients,
                    visited,
                    scratch,
                    row_fit,
                    part,
                    update,
                );
            } else {
                read.resize(range.len() * self.d);
                self.source.read(range, &mut read)?;
                self.frame.apply(&mut read, begin, self.d);
                self.visit(
                    &read,
                    &[],
                    coefficients,
                    visited,
                    scratch,
                    row_fit,
                    part,
                    update,
                );
            }
        }
        scratch.rows = read;
        Ok(())
    }

    /// The rows `a` of one panel and its coefficients; the rows `ahead` are wanted next.
    fn visit(
        &self,
        a: &[f32],
        ahead: &[f32],
        (before, after): (&[f32], &mut [f32]),
        visited: &Visited<'_>,
        scratch: &mut Scratch,
        row_fit: &mut [f32],
        part: &mut Part,
        update: &(impl Fn(&mut [f32], &[f32]) + Sync),
    ) {
        let Scratch {
            panel,
            projected,
            y: next,
            turned,
            totals,
            ..
        } = scratch;
        let (d, k) = (self.d, part.totals.len());
        panel.resize(d * PANEL);
        panel::transpose(panel, a, d);
        panel::ask(before);
        panel::ask(after);
        match &visited.columns {
            Projected::None => projected.fill(0.0),
            Projected::Sparse(c) => {
                panel::project(projected, panel, &c.offsets, &c.indices, &c.values)
            }
            Projected::Dense(c) => dense::project(projected, panel, c, d),
        }
        next.resize(PANEL * k);
        next.copy_from_slice(before);
        update(next, projected);
        after.copy_from_slice(next);
        panel::products(row_fit, next, projected);
        turned.resize(cross::width(k) * PANEL);
        cross::turn(turned, next);
        match visited.gather {
            Gather::Support(c) => {
                panel::gather_products(&mut part.products, panel, next, &c.offsets, &c.indices)
            }
            Gather::Dense => {
                cross::add(&mut part.products, panel, turned, part.fresh, false, ahead)
            }
        }
        cross::add(&mut part.gram, next, turned, part.fresh, true, &[]);
        totals.resize(k);
        panel::totals(totals, next);
        part.totals
            .iter_mut()
            .zip(totals.iter())
            .for_each(|(total, v)| *total += f64::from(*v));
        part.fresh = false;
    }
}

impl Sums {
    /// Room for the sums of a pass, which are zero but for the products: those are written whole at
    /// its end.
    pub(crate) fn reset(&mut self, stream: &Stream<'_>, k: usize, gather: Gather<'_>) {
        let products = match gather {
            Gather::Dense => k * stream.d,
            Gather::Support(c) => c.indices.len(),
        };
        if self.products.len() != products {
            // All of AᵀY and its entries alone take turns: each in room of its own, or a pass would
            // begin with zeroing it.
            std::mem::swap(&mut self.products, &mut lock(&stream.products));
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
