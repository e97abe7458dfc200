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

/// A neuron of more features than this is left alone: its system costs the square of their number a feature.
const LARGEST_SYSTEM: usize = 24;
/// By this much more than it costs a swap must gain: less is rounding.
const MARGIN: f64 = 1e-3;
/// What is left of G_jj beside S below this share is rounding.
const INDEPENDENT: f64 = 1e-3;
/// Added to the diagonal, relative.
const RIDGE: f64 = 1e-9;

/// Swaps entries of the free columns; `sums` hold all of AᵀY. Returns how many; the values want a refit then.
pub(crate) fn swap(features: &mut SparseColumns, sums: &Sums, rows: &Rows, locked: &[bool]) -> usize {
    let (k, d) = (features.columns(), features.rows);
    let worth = Worth::of(features, sums, rows, locked);
    let mut costs = vec![f64::INFINITY; features.indices.len()];
    worth
        .each_neuron(d, Worth::costs)
        .into_iter()
        .flatten()
        .for_each(|(position, cost)| costs[position as usize] = cost);
    // Most of the entries that there could be are worth less than every entry that there is.
    let columns: Vec<_> = features.offsets.windows(2).map(|w| w[0]..w[1]).collect();
    let least: Vec<f64> =
        columns.iter().map(|c| costs[c.clone()].iter().copied().fold(f64::INFINITY, f64::min)).collect();
    let found = worth.each_neuron(d, |worth, neuron, i| worth.gains(neuron, i, &least));
    let mut gains: Vec<Vec<(f64, u32)>> = vec![Vec::new(); k];
    for (i, found) in found.into_iter().enumerate() {
        found.into_iter().for_each(|(j, gain)| gains[j as usize].push((gain, i as u32)));
    }
    let mut touched = vec![false; d];
    let mut swaps = 0;
    for (span, gains) in columns.into_iter().zip(&mut gains) {
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

/// A neuron's small system, refitted.
struct Neuron {
    /// Features that may move and their entries' positions.
    free: Vec<(u32, u32)>,
    held: Vec<(u32, u32)>,
    factor: Updated,
    z: Vec<f64>,
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

    /// `f` of each neuron, in order.
    fn each_neuron<R: Send>(&self, d: usize, f: impl Fn(&Self, &mut Neuron, usize) -> Vec<R> + Sync) -> Vec<Vec<R>> {
        let scratch = || Neuron {
            free: Vec::new(),
            held: Vec::new(),
            factor: Updated::new(LARGEST_SYSTEM),
            z: Vec::new(),
            column: Vec::new(),
        };
        let of = |neuron: &mut Neuron, i| if self.refit(neuron, i) { f(self, neuron, i) } else { Vec::new() };
        (0..d).into_par_iter().with_min_len(32).map_init(scratch, of).collect()
    }

    /// AᵀY at neuron `i`, less what the features take away that do not move.
    fn left(&self, neuron: &Neuron, i: usize, j: u32) -> f64 {
        let weight = |p: u32| f64::from(self.features.values[p as usize]);
        let held: f64 = neuron.held.iter().map(|&(l, p)| self.gram(j, l) * weight(p)).sum();
        f64::from(self.sums.products[j as usize * self.features.rows + i]) - held
    }

    /// Whether the neuron's system is small enough to be looked at.
    fn refit(&self, neuron: &mut Neuron, i: usize) -> bool {
        (neuron.free, neuron.held) = self.rows.row(i).iter().partition(|(j, _)| self.usable[*j as usize]);
        if neuron.free.len() > LARGEST_SYSTEM {
            return false;
        }
        neuron.factor.clear();
        for (at, &(j, _)) in neuron.free.iter().enumerate() {
            let before = neuron.free[..at].iter().map(|&(l, _)| self.gram(j, l));
            neuron.factor.push(before, self.gram(j, j) * (1.0 + RIDGE), f64::MIN_POSITIVE);
        }
        neuron.z = neuron.free.iter().map(|&(j, _)| self.left(neuron, i, j)).collect();
        neuron.factor.solve(&mut neuron.z);
        true
    }

    /// By how much the error rises without each entry, by its position.
    fn costs(&self, neuron: &mut Neuron, _: usize) -> Vec<(u32, f64)> {
        let Neuron { free, factor, z, column, .. } = neuron;
        let cost = |(at, &(_, position)): (usize, &(u32, u32))| {
            column.clear();
            column.resize(free.len(), 0.0);
            column[at] = 1.0;
            factor.solve(column);
            (position, z[at] * z[at] / column[at].max(f64::MIN_POSITIVE))
        };
        free.iter().enumerate().map(cost).collect()
    }

    /// By how much it falls with an entry of each other feature, where that is more than `least`.
    fn gains(&self, neuron: &mut Neuron, i: usize, least: &[f64]) -> Vec<(u32, f64)> {
        let mut found = Vec::new();
        let others = (0..self.usable.len() as u32).filter(|&j| self.usable[j as usize]);
        for j in others {
            if neuron.free.iter().any(|&(l, _)| l == j) {
                continue;
            }
            let taken: f64 = neuron.free.iter().zip(&neuron.z).map(|(&(l, _), z)| self.gram(j, l) * z).sum();
            let gained = (self.left(neuron, i, j) - taken).powi(2);
            // The divisor is at most G_jj and at least a small share of it.
            if gained <= least[j as usize] * INDEPENDENT * self.gram(j, j) {
                continue;
            }
            neuron.column.clear();
            neuron.column.extend(neuron.free.iter().map(|&(l, _)| self.gram(j, l)));
            neuron.factor.reduce(&mut neuron.column);
            let own = self.gram(j, j) - neuron.column.iter().map(|v| v * v).sum::<f64>();
            if own > INDEPENDENT * self.gram(j, j) && gained > least[j as usize] * own {
                found.push((j, gained / own));
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
