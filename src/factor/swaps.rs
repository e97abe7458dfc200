//! Swaps of support entries for a fit that minimises the error alone: a feature gives one neuron up for another where that
//! lowers the error once both neurons are refitted.
//!
//! A column step chooses a support as if the other features at a neuron stood still. Here they do not: the rise from
//! taking an entry away is z²/(G⁻¹)_jj (optimal brain surgeon: Hassibi, Stork 1993), the fall from adding one is
//! r²/(G_jj − G_jS G_SS⁻¹ G_Sj), with G = YᵀY on the features S of the neuron. Neurons do not meet in the squared error,
//! so swaps that touch each neuron once add up exactly. Invariant: followed by an exact refit, no swap raises the error.

use std::ops::Range;

use rayon::prelude::*;

use super::SparseColumns;
use super::columns::Rows;
use super::stream::Sums;
use crate::matrix::cholesky::Updated;
use crate::matrix::residual;

/// A neuron of more features than this is left alone: its system costs the square of their number a feature.
const LARGEST_SYSTEM: usize = 24;
/// By this much more than it costs a swap must gain: less is rounding.
const MARGIN: f64 = 1e-3;
/// An entry of which no more than this share of G_jj is its own, beside S, is not looked at.
const OWN: f64 = 0.1;
/// Added to the diagonal, relative.
const RIDGE: f64 = 1e-9;

/// Swaps entries of the free columns, whose values are an exact refit's; `sums` hold all of AᵀY. Returns how many; the
/// values want a refit then.
pub(crate) fn swap(features: &mut SparseColumns, sums: &Sums, rows: &Rows, locked: &[bool]) -> usize {
    let d = features.rows;
    let worth = Worth::of(features, sums, rows, locked);
    let costs = worth.costs();
    // Most of the entries that there could be are worth less than every entry that there is.
    let columns: Vec<_> = features.offsets.windows(2).map(|w| w[0]..w[1]).collect();
    let least: Vec<f64> =
        columns.iter().map(|c| costs[c.clone()].iter().copied().fold(f64::INFINITY, f64::min)).collect();
    let mut gains = worth.gains(&least);
    let mut touched = vec![false; d];
    let mut swaps = 0;
    for (span, gains) in columns.into_iter().zip(&mut gains) {
        if gains.is_empty() {
            continue;
        }
        let mut cheapest: Vec<usize> = span.clone().filter(|&p| costs[p].is_finite()).collect();
        cheapest.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]).then(a.cmp(&b)));
        gains.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut wanted = gains.iter().copied();
        let before = swaps;
        for position in cheapest {
            let old = features.indices[position] as usize;
            if touched[old] {
                continue;
            }
            let Some((gain, new)) = wanted.find(|&(_, i)| !touched[i as usize]) else { break };
            if gain <= costs[position] * (1.0 + MARGIN) {
                break;
            }
            (touched[old], touched[new as usize]) = (true, true);
            (features.indices[position], features.values[position]) = (new, 0.0);
            swaps += 1;
        }
        if swaps > before {
            sort(features, span);
        }
    }
    swaps
}

/// What entries are worth, and what others would be.
struct Worth<'s> {
    features: &'s SparseColumns,
    sums: &'s Sums,
    rows: &'s Rows,
    usable: Vec<bool>,
}

/// The system of a neuron: the features that may move, their entries' positions, and G on them.
struct Neuron {
    free: Vec<(u32, u32)>,
    factor: Updated,
    column: Vec<f64>,
}

impl<'s> Worth<'s> {
    fn of(features: &'s SparseColumns, sums: &'s Sums, rows: &'s Rows, locked: &[bool]) -> Self {
        let k = features.columns();
        let usable = (0..k).map(|j| !locked[j] && sums.gram[j * k + j] > f64::MIN_POSITIVE).collect();
        Self { features, sums, rows, usable }
    }

    fn gram(&self, a: u32, b: u32) -> f64 {
        self.sums.gram[a as usize * self.usable.len() + b as usize]
    }

    /// Reads neuron `i`; whether its system is small enough to be looked at.
    fn read(&self, neuron: &mut Neuron, i: usize) -> bool {
        neuron.free.clear();
        neuron.free.extend(self.rows.row(i).iter().filter(|(j, _)| self.usable[*j as usize]));
        if neuron.free.len() > LARGEST_SYSTEM {
            return false;
        }
        neuron.factor.clear();
        for (at, &(j, _)) in neuron.free.iter().enumerate() {
            let before = neuron.free[..at].iter().map(|&(l, _)| self.gram(j, l));
            neuron.factor.push(before, self.gram(j, j) * (1.0 + RIDGE), f64::MIN_POSITIVE);
        }
        true
    }

    fn scratch() -> Neuron {
        Neuron { free: Vec::new(), factor: Updated::new(LARGEST_SYSTEM), column: Vec::new() }
    }

    /// By how much the error rises without each entry, in the order of the columns' entries; infinite where it stays.
    fn costs(&self) -> Vec<f64> {
        let mut costs = vec![f64::INFINITY; self.features.indices.len()];
        let of = |neuron: &mut Neuron, i| {
            if !self.read(neuron, i) {
                return Vec::new();
            }
            let Neuron { free, factor, column } = neuron;
            let cost = |(at, &(_, position)): (usize, &(u32, u32))| {
                column.clear();
                column.resize(free.len(), 0.0);
                column[at] = 1.0;
                factor.solve(column);
                let z = f64::from(self.features.values[position as usize]);
                (position, z * z / column[at].max(f64::MIN_POSITIVE))
            };
            free.iter().enumerate().map(cost).collect()
        };
        let found: Vec<Vec<(u32, f64)>> =
            (0..self.features.rows).into_par_iter().with_min_len(64).map_init(Self::scratch, of).collect();
        found.into_iter().flatten().for_each(|(position, cost)| costs[position as usize] = cost);
        costs
    }

    /// Of each feature the neurons that would lower the error by more than `least` says, and by how much.
    fn gains(&self, least: &[f64]) -> Vec<Vec<(f64, u32)>> {
        let (k, d) = (self.features.columns(), self.features.rows);
        let blocks = (0..k).step_by(residual::LINES).collect::<Vec<_>>();
        let of = |first: usize| {
            let block = first..k.min(first + residual::LINES);
            let mut r = self.sums.products[block.start * d..block.end * d].to_vec();
            let mut weights = vec![0.0; k * residual::LINES];
            for l in 0..k {
                for (w, j) in weights[l * residual::LINES..].iter_mut().zip(block.clone()) {
                    *w = self.sums.gram[j * k + l] as f32;
                }
            }
            let entries = (&self.features.offsets[..], &self.features.indices[..], &self.features.values[..]);
            residual::subtract(&mut r, d, &weights, entries, &mut Vec::new());
            let mut neuron = Self::scratch();
            block
                .zip(r.chunks_exact(d))
                .map(|(j, r)| self.gains_of(j as u32, r, least[j], &mut neuron))
                .collect::<Vec<_>>()
        };
        blocks.into_par_iter().map(of).collect::<Vec<_>>().into_iter().flatten().collect()
    }

    /// The same of one feature, `r` being what is left of its AᵀY.
    fn gains_of(&self, j: u32, r: &[f32], least: f64, neuron: &mut Neuron) -> Vec<(f64, u32)> {
        let whole = self.gram(j, j);
        if !self.usable[j as usize] || !least.is_finite() {
            return Vec::new();
        }
        // At its own entries nothing is left; elsewhere the gain is at most r² / (OWN · G_jj).
        let worthwhile = (least * OWN * whole).sqrt() as f32;
        let own = self.features.column(j as usize).0;
        let mut found = Vec::new();
        for (i, &r) in r.iter().enumerate().filter(|(_, r)| r.abs() > worthwhile) {
            if own.contains(&(i as u32)) || !self.read(neuron, i) {
                continue;
            }
            neuron.column.clear();
            neuron.column.extend(neuron.free.iter().map(|&(l, _)| self.gram(j, l)));
            neuron.factor.reduce(&mut neuron.column);
            let left = whole - neuron.column.iter().map(|v| v * v).sum::<f64>();
            let gained = f64::from(r) * f64::from(r);
            if left > OWN * whole && gained > least * left {
                found.push((gained / left, i as u32));
            }
        }
        found
    }
}

/// Puts a column's entries in the order of their neurons.
fn sort(features: &mut SparseColumns, span: Range<usize>) {
    let mut entries: Vec<(u32, f32)> = span.clone().map(|p| (features.indices[p], features.values[p])).collect();
    entries.sort_by_key(|e| e.0);
    for (p, (i, v)) in span.zip(entries) {
        (features.indices[p], features.values[p]) = (i, v);
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;
    use crate::factor::columns;

    /// ‖A − YZᵀ‖² in f64 from the matrices themselves; `a` is n × d and `y` n × k, by row.
    fn error(a: &[f64], y: &[f64], z: &SparseColumns, n: usize) -> f64 {
        let (k, d) = (z.columns(), z.rows);
        let mut rest = a.to_vec();
        for r in 0..n {
            for j in 0..k {
                let (indices, values) = z.column(j);
                for (&i, &v) in indices.iter().zip(values) {
                    rest[r * d + i as usize] -= y[r * k + j] * f64::from(v);
                }
            }
        }
        rest.iter().map(|v| v * v).sum()
    }

    #[test]
    fn swaps_lower_the_error_once_refitted_and_leave_locked_features() {
        let (n, d, k, keep) = (60, 30, 6, 4);
        let mut total = 0;
        for seed in 0..5 {
            let mut rng = Pcg64::seed_from_u64(seed);
            let a: Vec<f64> = (0..n * d).map(|_| rng.random_range(-1.0..2.0)).collect();
            let y: Vec<f64> = (0..n * k).map(|_| rng.random_range(0.0..1.0)).collect();
            let sum = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>();
            let products = (0..k * d).map(|e| sum(&|r| y[r * k + e / d] * a[r * d + e % d]) as f32).collect();
            let gram: Vec<f64> = (0..k * k).map(|e| sum(&|r| y[r * k + e / k] * y[r * k + e % k])).collect();
            let sums = Sums { products, gram, ..Sums::default() };
            let mut locked = vec![false; k];
            locked[2] = true;
            let refit = |z: &mut SparseColumns| {
                let at = columns::at_entries(z, &sums.products);
                z.values = columns::refit(z, &sums.gram, &at, &Rows::of(z), &locked).0;
            };
            let mut z = columns::first_support(&sums, k, d, keep, 1e-6);
            refit(&mut z);
            let (before, was) = (error(&a, &y, &z, n), z.clone());
            let rows = Rows::of(&z);
            let swaps = swap(&mut z, &sums, &rows, &locked);
            refit(&mut z);
            let after = error(&a, &y, &z, n);
            assert!(
                if swaps > 0 { after < before } else { z.indices == was.indices },
                "{swaps} swaps: {before} → {after}"
            );
            assert_eq!(z.column(2), was.column(2), "a locked feature");
            assert!((0..k).all(|j| z.column(j).0.is_sorted()));
            total += swaps;
        }
        assert!(total > 0, "nothing was swapped in any of the cases");
    }
}
