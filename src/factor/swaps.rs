//! Swaps of support entries for a fit that minimises the error alone: a feature exchanges one neuron
//! of its support for another where that lowers the error after both neurons are refitted.
//!
//! The column step of [`super::supports`] chooses a support with the other features at a neuron held
//! fixed. Here they are refitted too: removing an entry raises the error by z²/(G⁻¹)_jj (the
//! saliency of the optimal brain surgeon: Hassibi, Stork 1993), and adding one lowers it by
//! r²/(G_jj − G_jS G_SS⁻¹ G_Sj), with G = YᵀY restricted to the features S of the neuron. The squared
//! error is a sum over neurons, so the gains of swaps that touch each neuron at most once add up
//! exactly. Invariant: followed by an exact refit, no swap raises the error.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use rayon::prelude::*;

use super::SparseColumns;
use super::columns::EntriesByNeuron;
use super::pass::PassSums;
use crate::matrix::residual::GramRows;
use crate::matrix::swap_gain::{
    self, Candidate, MAX_SUPPORT, MIN_SCHUR_SHARE, NEURONS_PER_BLOCK, NeuronSupport, SwapCriterion,
};

/// A swap must gain more than its cost by this share; a smaller difference may be rounding.
const MARGIN: f64 = 1e-3;
/// Added to the diagonal of G, relative to it, so that nearly equal features can be factored.
const RIDGE: f64 = 1e-9;

/// Swaps entries of the columns that are not locked. The values must be those of an exact refit;
/// `sums` hold all of AᵀY and `weights` are its YᵀY in f32. Returns a flag for each of the d neurons
/// that lost or gained an entry, which the caller has to refit, or `None` without a swap.
pub(crate) fn swap_entries(
    features: &mut SparseColumns,
    sums: &PassSums,
    weights: &GramRows,
    rows: &EntriesByNeuron,
    locked: &[bool],
) -> Option<Vec<bool>> {
    let d = features.rows;
    let (evaluator, costs) = SwapEvaluator::new(features, sums, rows, locked);
    // A candidate is useful only if its gain exceeds the cost of the cheapest entry of its column.
    // Few do, so the search for candidates uses that cost as its threshold.
    let columns: Vec<_> = features.offsets.windows(2).map(|w| w[0]..w[1]).collect();
    let least: Vec<f64> = columns
        .iter()
        .map(|c| {
            costs[c.clone()]
                .iter()
                .copied()
                .fold(f64::INFINITY, f64::min)
        })
        .collect();
    let mut gains = evaluator.gains(features, weights, &least);
    let mut touched = vec![false; d];
    let mut swaps = 0;
    for (j, (span, gains)) in columns.into_iter().zip(&mut gains).enumerate() {
        if gains.is_empty() {
            continue;
        }
        let mut cheapest: Vec<usize> = span.clone().filter(|&p| costs[p].is_finite()).collect();
        cheapest.sort_by(|&a, &b| costs[a].total_cmp(&costs[b]).then(a.cmp(&b)));
        let before = swaps;
        for position in cheapest {
            let old = features.indices[position] as usize;
            if touched[old] {
                continue;
            }
            let Some(SwapGain {
                gain,
                neuron: new,
                schur,
            }) = pop_untouched(gains, &touched)
            else {
                break;
            };
            // The search in f32 only proposes candidates; the decision uses the Schur complement in
            // f64.
            let gain = gain * f64::from(schur) / evaluator.schur_complement(j, new as usize);
            if gain <= costs[position] * (1.0 + MARGIN) {
                break;
            }
            (touched[old], touched[new as usize]) = (true, true);
            (features.indices[position], features.values[position]) = (new, 0.0);
            swaps += 1;
        }
        if swaps > before {
            sort_column(features, span);
        }
    }
    (swaps > 0).then_some(touched)
}

/// The decrease of the error from adding a neuron to a feature's support. The order is by that
/// gain, and of equal gains by descending neuron, so that a max-heap yields the lowest neuron
/// first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct SwapGain {
    gain: f64,
    neuron: u32,
    /// The Schur complement in f32 by which `gain` was divided.
    schur: f32,
}

impl Eq for SwapGain {}

impl PartialOrd for SwapGain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SwapGain {
    fn cmp(&self, other: &Self) -> Ordering {
        self.gain
            .total_cmp(&other.gain)
            .then(other.neuron.cmp(&self.neuron))
    }
}

/// Removes and returns the largest gain at a neuron that no swap has touched. A heap, since only the
/// first few of many gains are ever needed.
fn pop_untouched(gains: &mut BinaryHeap<SwapGain>, touched: &[bool]) -> Option<SwapGain> {
    std::iter::from_fn(|| gains.pop()).find(|g| !touched[g.neuron as usize])
}

/// Computes the cost of removing an entry and the gain of adding one, for all features and neurons.
struct SwapEvaluator<'s> {
    sums: &'s PassSums,
    rows: &'s EntriesByNeuron,
    /// Whether each feature is unlocked and used by some row.
    usable: Vec<bool>,
    /// The systems of the neurons, [`SYSTEMS_PER_CHUNK`] to an element.
    systems: Vec<NeuronSystems>,
}

/// The number of neurons whose systems are stored together and computed by one task.
const SYSTEMS_PER_CHUNK: usize = 64;

/// The systems of consecutive neurons: for each the features that may move with the positions of
/// their entries, and the Cholesky factor of G restricted to these features.
#[derive(Default)]
struct NeuronSystems {
    /// For each neuron the ends of its ranges in `free` and in `factors`.
    ends: Vec<(usize, usize)>,
    free: Vec<(u32, u32)>,
    /// L by rows with G_SS = LLᵀ, each row's diagonal inverted (for substitution).
    factors: Vec<f64>,
}

/// The system of one neuron of [`NeuronSystems`].
struct NeuronSystem<'s> {
    free: &'s [(u32, u32)],
    factor: &'s [f64],
}

/// The dot product over the shorter of the two lengths.
fn dot(l: &[f64], x: &[f64]) -> f64 {
    l.iter().zip(x).map(|(l, x)| l * x).sum()
}

impl NeuronSystems {
    /// Factors the systems of `neurons`. A neuron with more than [`MAX_SUPPORT`] usable features gets
    /// no complete factor, and [`Self::get`] returns `None` for it.
    fn new(
        neurons: Range<usize>,
        rows: &EntriesByNeuron,
        usable: &[bool],
        gram: impl Fn(u32, u32) -> f64,
    ) -> Self {
        let mut out = Self::default();
        for i in neurons {
            let start = out.free.len();
            out.free
                .extend(rows.neuron(i).iter().filter(|(j, _)| usable[*j as usize]));
            let factor = out.factors.len();
            for at in start..out.free.len().min(start + MAX_SUPPORT) {
                let (j, line) = (out.free[at].0, out.factors.len());
                let mut row = factor;
                for before in start..at {
                    let (x, m) = (gram(j, out.free[before].0), before - start);
                    let v = (x - dot(&out.factors[row..row + m], &out.factors[line..]))
                        * out.factors[row + m];
                    out.factors.push(v);
                    row += m + 1;
                }
                let own = &out.factors[line..];
                let pivot = gram(j, j) * (1.0 + RIDGE) - dot(own, own);
                out.factors
                    .push(pivot.max(f64::MIN_POSITIVE).sqrt().recip());
            }
            out.ends.push((out.free.len(), out.factors.len()));
        }
        out
    }

    /// The position of each entry, and the increase of the squared error if it is removed.
    fn costs(&self, values: &[f32]) -> Vec<(u32, f64)> {
        let mut found = Vec::with_capacity(self.free.len());
        for system in (0..self.ends.len()).filter_map(|at| self.get(at)) {
            for (at, &(_, position)) in system.free.iter().enumerate() {
                // (G⁻¹)_jj = ‖L⁻¹ e_j‖², whose components before j are 0.
                let mut inverse = 0.0;
                system.forward(
                    at,
                    |row| f64::from(u8::from(row == at)),
                    |x| inverse += x * x,
                );
                let z = f64::from(values[position as usize]);
                found.push((position, z * z / inverse.max(f64::MIN_POSITIVE)));
            }
        }
        found
    }

    /// The system of the `at`-th neuron; `None` if it has more than [`MAX_SUPPORT`] features.
    fn get(&self, at: usize) -> Option<NeuronSystem<'_>> {
        let (start, factor) = at.checked_sub(1).map_or((0, 0), |before| self.ends[before]);
        let (end, factor_end) = self.ends[at];
        (end - start <= MAX_SUPPORT).then(|| NeuronSystem {
            free: &self.free[start..end],
            factor: &self.factors[factor..factor_end],
        })
    }
}

impl NeuronSystem<'_> {
    /// Solves L x = b by forward substitution, where b is zero before row `from`, and calls `each` with
    /// the components of x in order.
    fn forward(&self, from: usize, b: impl Fn(usize) -> f64, mut each: impl FnMut(f64)) {
        let mut x = [0.0; MAX_SUPPORT];
        let mut row = from * (from + 1) / 2;
        for at in from..self.free.len() {
            x[at] = (b(at) - dot(&self.factor[row + from..row + at], &x[from..at]))
                * self.factor[row + at];
            each(x[at]);
            row += at + 1;
        }
    }
}

impl<'s> SwapEvaluator<'s> {
    /// Returns the evaluator and the cost of removing each entry, in the order of the columns' entries;
    /// infinite for an entry that may not be removed.
    fn new(
        features: &SparseColumns,
        sums: &'s PassSums,
        rows: &'s EntriesByNeuron,
        locked: &[bool],
    ) -> (Self, Vec<f64>) {
        let (k, d) = (features.columns(), features.rows);
        let usable: Vec<bool> = (0..k)
            .map(|j| !locked[j] && sums.gram[j * k + j] > f64::MIN_POSITIVE)
            .collect();
        let gram = |a: u32, b: u32| sums.gram[a as usize * k + b as usize];
        let build = |i: usize| {
            let systems = NeuronSystems::new(
                i * SYSTEMS_PER_CHUNK..d.min((i + 1) * SYSTEMS_PER_CHUNK),
                rows,
                &usable,
                gram,
            );
            let costs = systems.costs(&features.values);
            (systems, costs)
        };
        let (systems, found): (Vec<_>, Vec<_>) = (0..d.div_ceil(SYSTEMS_PER_CHUNK))
            .into_par_iter()
            .map(build)
            .unzip();
        let mut costs = vec![f64::INFINITY; features.indices.len()];
        found
            .into_iter()
            .flatten()
            .for_each(|(position, cost)| costs[position as usize] = cost);
        (
            Self {
                sums,
                rows,
                usable,
                systems,
            },
            costs,
        )
    }

    /// G_jj − G_jS G_SS⁻¹ G_Sj in f64 for feature j and the features S of `neuron`, at least
    /// [`MIN_SCHUR_SHARE`] of G_jj.
    fn schur_complement(&self, j: usize, neuron: usize) -> f64 {
        let line = &self.sums.gram[j * self.usable.len()..];
        let mut own = line[j];
        if let Some(system) =
            self.systems[neuron / SYSTEMS_PER_CHUNK].get(neuron % SYSTEMS_PER_CHUNK)
        {
            system.forward(0, |at| line[system.free[at].0 as usize], |x| own -= x * x);
        }
        own.max(MIN_SCHUR_SHARE * line[j])
    }

    /// For each feature j the neurons whose addition to its support would lower the error by more
    /// than `least[j]`.
    fn gains(
        &self,
        features: &SparseColumns,
        weights: &GramRows,
        least: &[f64],
    ) -> Vec<BinaryHeap<SwapGain>> {
        let d = features.rows;
        let least: Vec<f64> = least
            .iter()
            .zip(&self.usable)
            .map(|(l, u)| if *u { *l } else { f64::INFINITY })
            .collect();
        let criterion = SwapCriterion::new(weights, &least);
        let search_chunk = |(chunk, systems): (usize, &NeuronSystems)| {
            let mut lines = vec![0.0; NEURONS_PER_BLOCK * criterion.width()];
            let (mut of_neuron, mut found) = (Vec::new(), Vec::new());
            for first in (chunk * SYSTEMS_PER_CHUNK..d.min((chunk + 1) * SYSTEMS_PER_CHUNK))
                .step_by(NEURONS_PER_BLOCK)
            {
                swap_gain::transpose_neurons(&mut lines, &self.sums.products, d, first);
                for (i, r) in (first..d).zip(lines.chunks_exact(criterion.width())) {
                    let Some(system) = systems.get(i - chunk * SYSTEMS_PER_CHUNK) else {
                        continue;
                    };
                    let (entries, values) = (self.rows.neuron(i), &features.values[..]);
                    let neuron = NeuronSupport {
                        entries,
                        values,
                        support: system.free,
                        factor: system.factor,
                    };
                    swap_gain::find_candidates(&mut of_neuron, r, neuron, &criterion);
                    found.extend(of_neuron.drain(..).map(|candidate| (i as u32, candidate)));
                }
            }
            found
        };
        let found: Vec<Vec<(u32, Candidate)>> = self
            .systems
            .par_iter()
            .enumerate()
            .map(search_chunk)
            .collect();
        let count = found.iter().map(Vec::len).sum::<usize>();
        let mut gains: Vec<Vec<SwapGain>> = least
            .iter()
            .map(|_| Vec::with_capacity(2 * count / least.len()))
            .collect();
        for (
            neuron,
            Candidate {
                feature,
                residual,
                schur,
            },
        ) in found.into_iter().flatten()
        {
            let gain = f64::from(residual) * f64::from(residual) / f64::from(schur);
            gains[feature as usize].push(SwapGain {
                gain,
                neuron,
                schur,
            });
        }
        gains.into_iter().map(BinaryHeap::from).collect()
    }
}

/// Sorts a column's entries by neuron, the invariant of [`SparseColumns`].
fn sort_column(features: &mut SparseColumns, span: Range<usize>) {
    let mut entries: Vec<(u32, f32)> = span
        .clone()
        .map(|p| (features.indices[p], features.values[p]))
        .collect();
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
            let products = (0..k * d)
                .map(|e| sum(&|r| y[r * k + e / d] * a[r * d + e % d]) as f32)
                .collect();
            let gram: Vec<f64> = (0..k * k)
                .map(|e| sum(&|r| y[r * k + e / k] * y[r * k + e % k]))
                .collect();
            let sums = PassSums {
                products,
                gram,
                ..PassSums::default()
            };
            let mut locked = vec![false; k];
            locked[2] = true;
            let refit = |z: &mut SparseColumns, only: Option<&[bool]>| {
                let at = columns::at_entries(z, &sums.products);
                z.values =
                    columns::refit(z, &sums.gram, &at, &EntriesByNeuron::new(z), &locked, only).0;
            };
            let mut z = columns::first_support(&sums, k, d, keep, 1e-6);
            refit(&mut z, None);
            let (before, old) = (error(&a, &y, &z, n), z.clone());
            let rows = EntriesByNeuron::new(&z);
            let swapped =
                swap_entries(&mut z, &sums, &GramRows::new(&sums.gram, k), &rows, &locked);
            let swaps = swapped.iter().flatten().filter(|v| **v).count();
            refit(&mut z, swapped.as_deref());
            let after = error(&a, &y, &z, n);
            assert!(
                if swaps > 0 {
                    after < before
                } else {
                    z.indices == old.indices
                },
                "{swaps} neurons swapped: {before} → {after}"
            );
            assert_eq!(z.column(2), old.column(2), "a locked feature");
            assert!((0..k).all(|j| z.column(j).0.is_sorted()));
            total += swaps;
        }
        assert!(total > 0, "nothing was swapped in any of the cases");
    }
}
