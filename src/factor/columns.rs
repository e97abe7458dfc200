//! Steps on the features Z for fixed coefficients, from AᵀY and YᵀY alone, without the activations.
//!
//! With `r_j = (AᵀY)_j − Z (YᵀY)_j + z_j (YᵀY)_jj`, the optimum of one column under the constraint
//! of s non-zeros is the s largest |r_j|, divided by (YᵀY)_jj; under a penalty on Y the column has
//! unit norm and is top-s(r_j)/‖top-s(r_j)‖. For fixed supports all non-zeros of a neuron are refitted
//! together by least squares. Invariant: without a penalty no step raises the error.

use rayon::prelude::*;

use super::SparseColumns;
use super::pass::PassSums;
use super::stream::densify;
use crate::matrix::{cholesky, dense, select};

/// A neuron that more features use keeps the values of the column steps: the cost of its system grows
/// with the cube of their number.
const MAX_SYSTEM: usize = 160;
/// The proximal weight of the joint refit, relative to the diagonal: it keeps nearly singular systems
/// solvable by pulling towards the present values, and never raises the error.
const PROXIMAL: f64 = 1e-5;
/// A norm within this distance of 1 counts as 1, so that rounding does not change a unit column.
const UNIT_TOLERANCE: f64 = 1e-6;
/// The share of non-zeros above which ZᵀZ is taken by a dense product.
const DENSE_SHARE: f64 = 0.2;

/// The entries of sparse columns, grouped by neuron.
pub(crate) struct EntriesByNeuron {
    /// Neuron i has the entries `offsets[i]..offsets[i + 1]`; length d + 1.
    offsets: Vec<usize>,
    /// Feature, and position among the columns' entries.
    entries: Vec<(u32, u32)>,
}

impl EntriesByNeuron {
    pub(crate) fn new(columns: &SparseColumns) -> Self {
        let mut offsets = vec![0usize; columns.rows + 1];
        for &i in &columns.indices {
            offsets[i as usize + 1] += 1;
        }
        for i in 0..columns.rows {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let mut entries = vec![(0, 0); columns.indices.len()];
        for j in 0..columns.columns() {
            for position in columns.offsets[j]..columns.offsets[j + 1] {
                let slot = &mut next[columns.indices[position] as usize];
                entries[*slot] = (j as u32, position as u32);
                *slot += 1;
            }
        }
        Self { offsets, entries }
    }

    /// The entries of neuron `i`: feature, and position among the columns' entries, ascending.
    pub(crate) fn neuron(&self, i: usize) -> &[(u32, u32)] {
        &self.entries[self.offsets[i]..self.offsets[i + 1]]
    }
}

/// Q = ZᵀZ, k × k, row-major. Sparse columns are summed in f64; a dense product sums in f32.
pub(crate) fn gram(columns: &SparseColumns) -> Vec<f64> {
    let k = columns.columns();
    let mut q = vec![0.0; k * k];
    if columns.indices.len() as f64 > DENSE_SHARE * (k * columns.rows) as f64 {
        let lines = densify(columns);
        dense::accumulate_gram(
            &mut q,
            &mut Vec::new(),
            &lines,
            columns.rows,
            columns.rows,
            k,
        );
        dense::copy_upper_to_lower(&mut q, k);
        return q;
    }
    let rows = EntriesByNeuron::new(columns);
    q.par_chunks_mut(k.max(1))
        .enumerate()
        .for_each(|(j, line)| {
            let (indices, values) = columns.column(j);
            for (&i, &v) in indices.iter().zip(values) {
                for &(l, position) in rows.neuron(i as usize) {
                    line[l as usize] += f64::from(v) * f64::from(columns.values[position as usize]);
                }
            }
        });
    q
}

/// The first features for given coefficients: the `keep` largest entries of each column of the ridge
/// solution AᵀY (YᵀY + `ridge`·I)⁻¹, for k features and d neurons.
pub(crate) fn first_support(
    sums: &PassSums,
    k: usize,
    d: usize,
    keep: usize,
    ridge: f64,
) -> SparseColumns {
    let z = dense::solve_symmetric(&sums.gram, k, ridge, &sums.products, d);
    truncate(&z, d, keep)
}

/// Sparse columns of the `keep` entries of largest magnitude of each of the dense columns `[k][d]`.
pub(crate) fn truncate(z: &[f32], d: usize, keep: usize) -> SparseColumns {
    let k = z.len() / d;
    let mut indices = vec![0; k * keep];
    indices
        .par_chunks_mut(keep)
        .zip(z.par_chunks(d))
        .for_each_init(Vec::new, |scratch, (chosen, column)| {
            select::largest(column, keep, &[], scratch, chosen);
        });
    let values = indices
        .chunks_exact(keep)
        .zip(z.chunks_exact(d))
        .flat_map(|(i, z)| i.iter().map(|&i| z[i as usize]))
        .collect();
    SparseColumns {
        rows: d,
        offsets: (0..=k).map(|j| j * keep).collect(),
        indices,
        values,
    }
}

/// One sweep of the penalised step over the columns on their present supports: z_j = r_j / ‖r_j‖.
/// `gram` is YᵀY, `products` holds AᵀY at each entry, and locked columns stay.
pub(crate) fn support_sweep(
    columns: &mut SparseColumns,
    gram: &[f64],
    products: &[f32],
    rows: &EntriesByNeuron,
    locked: &[bool],
) {
    let k = columns.columns();
    for j in 0..k {
        if gram[j * k + j] <= f64::MIN_POSITIVE || locked[j] {
            continue;
        }
        let span = columns.offsets[j]..columns.offsets[j + 1];
        let r: Vec<f32> = span
            .clone()
            .map(|position| {
                let others: f64 = rows
                    .neuron(columns.indices[position] as usize)
                    .iter()
                    .filter(|(l, _)| *l as usize != j)
                    .map(|&(l, p)| gram[j * k + l as usize] * f64::from(columns.values[p as usize]))
                    .sum();
                (f64::from(products[position]) - others) as f32
            })
            .collect();
        let size = norm(r.iter().copied());
        if size > 0.0 {
            for (v, r) in columns.values[span].iter_mut().zip(r) {
                *v = (f64::from(r) / size) as f32;
            }
        }
    }
}

/// AᵀY at each entry of `columns`, taken from all of it (`products`, `[k][d]`).
pub(crate) fn at_entries(columns: &SparseColumns, products: &[f32]) -> Vec<f32> {
    let d = columns.rows;
    (0..columns.columns())
        .flat_map(|j| {
            columns
                .column(j)
                .0
                .iter()
                .map(move |&i| products[j * d + i as usize])
        })
        .collect()
}

/// Refits all non-zeros except those of locked columns by least squares on their supports, one small
/// system for each neuron, or only for the neurons that `only` flags. `products` holds AᵀY at each
/// entry. Returns the values of all entries and the fall of the squared error; a neuron whose solution
/// is not better keeps its values.
pub(crate) fn refit(
    columns: &SparseColumns,
    gram: &[f64],
    products: &[f32],
    rows: &EntriesByNeuron,
    locked: &[bool],
    only: Option<&[bool]>,
) -> (Vec<f32>, f64) {
    /// Neurons of a task.
    const NEURONS: usize = 32;
    let d = columns.rows;
    let solved: Vec<(Vec<(u32, f32)>, f64)> = (0..d.div_ceil(NEURONS))
        .into_par_iter()
        .map(|chunk| {
            let mut work = NeuronSystem::default();
            let (mut out, mut gain) = (Vec::new(), 0.0);
            let neurons = chunk * NEURONS..d.min((chunk + 1) * NEURONS);
            for i in neurons.filter(|&i| only.is_none_or(|only| only[i])) {
                gain += work.solve(rows.neuron(i), columns, gram, products, locked, &mut out);
            }
            (out, gain)
        })
        .collect();
    let mut values = columns.values.clone();
    let mut gain = 0.0;
    for (entries, fall) in solved {
        gain += fall;
        for (position, v) in entries {
            values[position as usize] = v;
        }
    }
    (values, gain)
}

/// The memory of one neuron's system, reused from neuron to neuron.
#[derive(Default)]
struct NeuronSystem {
    free: Vec<(u32, u32)>,
    matrix: Vec<f64>,
    factor: Vec<f64>,
    target: Vec<f64>,
    old: Vec<f64>,
    new: Vec<f64>,
}

impl NeuronSystem {
    /// Refits one neuron; pushes its new values, if they are better, and returns the fall of the
    /// squared error.
    fn solve(
        &mut self,
        row: &[(u32, u32)],
        columns: &SparseColumns,
        gram: &[f64],
        products: &[f32],
        locked: &[bool],
        out: &mut Vec<(u32, f32)>,
    ) -> f64 {
        let k = columns.columns();
        self.free.clear();
        self.free
            .extend(row.iter().filter(|(j, _)| !locked[*j as usize]));
        let m = self.free.len();
        if m == 0 || m > MAX_SYSTEM {
            return 0.0;
        }
        let weight = |p: u32| f64::from(columns.values[p as usize]);
        self.matrix.clear();
        self.target.clear();
        self.old.clear();
        for &(j, p) in &self.free {
            let line = &gram[j as usize * k..(j as usize + 1) * k];
            self.matrix
                .extend(self.free.iter().map(|&(l, _)| line[l as usize]));
            let held = row.iter().filter(|(l, _)| locked[*l as usize]);
            let held: f64 = held.map(|&(l, p)| line[l as usize] * weight(p)).sum();
            self.target.push(f64::from(products[p as usize]) - held);
            self.old.push(weight(p));
        }
        self.factor.clone_from(&self.matrix);
        self.new.clone_from(&self.target);
        for a in 0..m {
            let weight = PROXIMAL * self.matrix[a * m + a] + f64::MIN_POSITIVE;
            self.factor[a * m + a] += weight;
            self.new[a] += weight * self.old[a];
        }
        cholesky::factor(&mut self.factor, m, f64::MIN_POSITIVE);
        cholesky::solve(&self.factor, m, &mut self.new);
        // Compare what will be stored: the solution rounded to f32.
        for v in &mut self.new {
            *v = f64::from(*v as f32);
        }
        let fall = self.error(&self.old) - self.error(&self.new);
        if fall > 0.0 {
            out.extend(
                self.free
                    .iter()
                    .zip(&self.new)
                    .map(|(&(_, p), &v)| (p, v as f32)),
            );
            fall
        } else {
            0.0
        }
    }

    /// The neuron's part of the squared error up to a constant: zᵀGz − 2 bᵀz.
    fn error(&self, z: &[f64]) -> f64 {
        let m = z.len();
        z.iter()
            .enumerate()
            .map(|(a, &v)| {
                let line: f64 = self.matrix[a * m..(a + 1) * m]
                    .iter()
                    .zip(z)
                    .map(|(g, z)| g * z)
                    .sum();
                v * (line - 2.0 * self.target[a])
            })
            .sum()
    }
}

/// Scales each column to unit norm in place and returns the norms. A column of zeros, and one whose
/// norm is 1 up to rounding, keep their bits and return 1.
pub(crate) fn normalise(columns: &mut SparseColumns) -> Vec<f32> {
    (0..columns.columns())
        .map(|j| {
            let values = &mut columns.values[columns.offsets[j]..columns.offsets[j + 1]];
            let size = norm(values.iter().copied());
            if size > 0.0 && (size - 1.0).abs() > UNIT_TOLERANCE {
                for v in values {
                    *v = (f64::from(*v) / size) as f32;
                }
                size as f32
            } else {
                1.0
            }
        })
        .collect()
}

/// The Euclidean norm, summed in f64.
pub(crate) fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values
        .map(|v| f64::from(v) * f64::from(v))
        .sum::<f64>()
        .sqrt()
}
