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

/// The largest number of features of a neuron that is refitted. A neuron with more keeps the values
/// of the column steps, since the cost of its system grows with the cube of their number.
const MAX_SYSTEM: usize = 160;
/// The proximal weight of the joint refit, relative to the diagonal: it keeps nearly singular systems
/// solvable by pulling towards the present values, and never raises the error.
const PROXIMAL: f64 = 1e-5;
/// A norm within this distance of 1 counts as 1, so that rounding does not change a unit column.
const UNIT_TOLERANCE: f64 = 1e-6;
/// The share of non-zeros above which ZᵀZ is computed as a dense product.
const DENSE_SHARE: f64 = 0.2;

/// The entries of sparse columns, grouped by neuron.
pub(crate) struct EntriesByNeuron {
    /// Neuron i has the entries `offsets[i]..offsets[i + 1]`; length d + 1.
    offsets: Vec<usize>,
    /// The feature of each entry, and the entry's position in [`SparseColumns::values`].
    entries: Vec<(u32, u32)>,
}

impl EntriesByNeuron {
    /// Groups the entries of `columns` by a counting sort.
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

    /// The entries of neuron `i` in ascending order: the feature, and the position in
    /// [`SparseColumns::values`].
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

/// The first features for given coefficients: the `support_size` largest entries of each column of
/// the ridge solution AᵀY (YᵀY + `ridge`·I)⁻¹, for k features and d neurons.
pub(crate) fn first_support(
    sums: &PassSums,
    k: usize,
    d: usize,
    support_size: usize,
    ridge: f64,
) -> SparseColumns {
    let z = dense::solve_symmetric(&sums.gram, k, ridge, &sums.products, d);
    truncate(&z, d, support_size)
}

/// Makes sparse columns from dense ones (`[k][d]`): each keeps its `support_size` entries of
/// largest magnitude.
pub(crate) fn truncate(z: &[f32], d: usize, support_size: usize) -> SparseColumns {
    let k = z.len() / d;
    let mut indices = vec![0; k * support_size];
    indices
        .par_chunks_mut(support_size)
        .zip(z.par_chunks(d))
        .for_each_init(Vec::new, |scratch, (chosen, column)| {
            select::largest(column, support_size, &[], scratch, chosen);
        });
    let values = indices
        .chunks_exact(support_size)
        .zip(z.chunks_exact(d))
        .flat_map(|(i, z)| i.iter().map(|&i| z[i as usize]))
        .collect();
    SparseColumns {
        rows: d,
        offsets: (0..=k).map(|j| j * support_size).collect(),
        indices,
        values,
    }
}

/// One sweep of the penalised step over the columns on their present supports: z_j = r_j / ‖r_j‖.
/// `gram` is YᵀY, `products` holds AᵀY at each entry, and locked columns are not changed.
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

/// The value of AᵀY at each entry of `columns`, from the whole matrix `products` (`[k][d]`).
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

/// Refits all non-zeros except those of locked columns by least squares on their supports, one
/// small system for each neuron, or only for the neurons that `only` flags. `products` holds AᵀY at
/// each entry. Returns the values of all entries and the decrease of the squared error; a neuron
/// whose solution is not better keeps its values.
pub(crate) fn refit(
    columns: &SparseColumns,
    gram: &[f64],
    products: &[f32],
    rows: &EntriesByNeuron,
    locked: &[bool],
    only: Option<&[bool]>,
) -> (Vec<f32>, f64) {
    /// The number of neurons that one parallel task refits.
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
    /// The features that may change, with the positions of their entries; m of them.
    free: Vec<(u32, u32)>,
    /// G = YᵀY restricted to these features, m × m.
    matrix: Vec<f64>,
    /// The Cholesky factor of G with the proximal weight on the diagonal.
    factor: Vec<f64>,
    /// b: AᵀY at the entries, minus the contribution of locked features; m values.
    target: Vec<f64>,
    old: Vec<f64>,
    new: Vec<f64>,
}

impl NeuronSystem {
    /// Refits one neuron. If the new values are better, they are pushed to `out` with their
    /// positions. Returns the decrease of the squared error, or 0.
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
            let fixed = row.iter().filter(|(l, _)| locked[*l as usize]);
            let fixed: f64 = fixed.map(|&(l, p)| line[l as usize] * weight(p)).sum();
            self.target.push(f64::from(products[p as usize]) - fixed);
            self.old.push(weight(p));
        }
        // The proximal term adds w (z − z_old)² to the objective: w on the diagonal, w z_old on the
        // right.
        self.factor.clone_from(&self.matrix);
        self.new.clone_from(&self.target);
        for a in 0..m {
            let weight = PROXIMAL * self.matrix[a * m + a] + f64::MIN_POSITIVE;
            self.factor[a * m + a] += weight;
            self.new[a] += weight * self.old[a];
        }
        cholesky::factor(&mut self.factor, m, f64::MIN_POSITIVE);
        cholesky::solve(&self.factor, m, &mut self.new);
        // The comparison below must be of the values that will be stored, so the solution is
        // rounded to f32.
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
