//! Cholesky factors of small symmetric positive definite systems, in f64.
//!
//! Owns factoring, solving, and the update of a factor when rows are added or removed. Knows nothing
//! of what the systems mean. The kernels take no vectors themselves; [`kernel`] compiles them for
//! each instruction set, so that the compiler vectorises the dot products.

use super::simd::{Vector, kernel};

kernel! {
    /// Factors the row-major m × m matrix `a` in place: its lower triangle becomes L with `a = L Lᵀ`,
    /// and its strict upper triangle is ignored. Pivots below `floor` are raised to it, which keeps a
    /// singular system solvable.
    pub fn factor(a: &mut [f64], m: usize, floor: f64) = factor_body;
}

#[inline(always)]
fn factor_body<V: Vector>(a: &mut [f64], m: usize, floor: f64) {
    for i in 0..m {
        for j in 0..=i {
            let mut sum = a[i * m + j];
            let (row_i, row_j) = (&a[i * m..i * m + j], &a[j * m..j * m + j]);
            sum -= dot(row_i, row_j);
            a[i * m + j] = if i == j {
                sum.max(floor).sqrt()
            } else {
                sum / a[j * m + j]
            };
        }
    }
}

kernel! {
    /// Solves `L Lᵀ x = b` in place for a factor L of `b.len()` rows, `stride` values apart.
    pub fn solve(l: &[f64], stride: usize, b: &mut [f64]) = solve_body;
}

#[inline(always)]
fn solve_body<V: Vector>(l: &[f64], stride: usize, b: &mut [f64]) {
    solve_lower_rows_body::<V>(l, stride, b);
    for i in (0..b.len()).rev() {
        let row = &l[i * stride..=i * stride + i];
        let x = b[i] / row[i];
        b[i] = x;
        for (v, &e) in b[..i].iter_mut().zip(row) {
            *v -= e * x;
        }
    }
}

kernel! {
    /// Writes column `j` of L⁻¹ into `out` (m values, zero above row j), for a factor L of m rows.
    pub fn invert_column(l: &[f64], m: usize, j: usize, out: &mut [f64]) = invert_column_body;
}

#[inline(always)]
fn invert_column_body<V: Vector>(l: &[f64], m: usize, j: usize, out: &mut [f64]) {
    out[..j].fill(0.0);
    out[j] = l[j * m + j].recip();
    for i in j + 1..m {
        let row = &l[i * m..=i * m + i];
        out[i] = -dot(&row[j..i], &out[j..i]) / row[i];
    }
}

kernel! {
    /// Solves `L x = b` in place by forward substitution.
    fn solve_lower_rows(l: &[f64], stride: usize, b: &mut [f64]) = solve_lower_rows_body;
}

#[inline(always)]
fn solve_lower_rows_body<V: Vector>(l: &[f64], stride: usize, b: &mut [f64]) {
    for i in 0..b.len() {
        let row = &l[i * stride..=i * stride + i];
        b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
    }
}

/// The Cholesky factor of a symmetric matrix to which rows (with their columns) are added and from
/// which they are removed. Each change takes O(m²) operations; a new factor would take O(m³).
#[derive(Debug, Clone)]
pub struct UpdatableCholesky {
    /// L by rows, `stride` values apart.
    l: Vec<f64>,
    stride: usize,
    /// m, the number of rows.
    size: usize,
    /// Cosine and sine of the Givens rotations of a removal.
    rotations: Vec<(f64, f64)>,
}

impl UpdatableCholesky {
    /// An empty factor with capacity for `capacity` rows.
    pub fn new(capacity: usize) -> Self {
        // After a removal a row has one value beyond the diagonal until it is rotated away.
        let stride = capacity + 1;
        Self {
            l: vec![0.0; capacity * stride],
            stride,
            size: 0,
            rotations: Vec::new(),
        }
    }

    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.size = 0;
    }

    /// Adds a last row and column to the matrix: `entries` are its entries before the diagonal,
    /// `diagonal` the one on it. A pivot below `floor` is raised to it.
    ///
    /// # Panics
    /// If there are fewer entries than rows.
    pub fn push(&mut self, entries: impl Iterator<Item = f64>, diagonal: f64, floor: f64) {
        let (m, start) = (self.size, self.size * self.stride);
        let (before, row) = self.l.split_at_mut(start);
        let mut count = 0;
        for (to, entry) in row[..m].iter_mut().zip(entries) {
            *to = entry;
            count += 1;
        }
        assert_eq!(count, m, "an entry with each row before it");
        solve_lower_rows(before, self.stride, &mut row[..m]);
        row[m] = (diagonal - dot(&row[..m], &row[..m])).max(floor).sqrt();
        self.size += 1;
    }

    /// Removes row and column `at`; Givens rotations make the remaining rows triangular again (Golub,
    /// Van Loan, "Matrix Computations", section 6.5).
    pub fn remove(&mut self, at: usize) {
        let stride = self.stride;
        self.size -= 1;
        self.rotations.clear();
        for i in at..self.size {
            self.l
                .copy_within((i + 1) * stride..(i + 1) * stride + i + 2, i * stride);
            let row = &mut self.l[i * stride..i * stride + i + 2];
            for (c, &(cos, sin)) in (at..i).zip(&self.rotations) {
                (row[c], row[c + 1]) = (
                    cos * row[c] + sin * row[c + 1],
                    cos * row[c + 1] - sin * row[c],
                );
            }
            let size = row[i].hypot(row[i + 1]).max(f64::MIN_POSITIVE);
            self.rotations.push((row[i] / size, row[i + 1] / size));
            row[i] = size;
        }
    }

    /// Solves `L x = b` in place; the squared norm of the result is bᵀA⁻¹b.
    ///
    /// # Panics
    /// If the length of `b` is not the number of rows.
    pub fn solve_lower(&self, b: &mut [f64]) {
        assert_eq!(b.len(), self.size, "a value for each row");
        solve_lower_rows(&self.l, self.stride, b);
    }

    /// Solves `L Lᵀ x = b` in place.
    ///
    /// # Panics
    /// If the length of `b` is not the number of rows.
    pub fn solve(&self, b: &mut [f64]) {
        assert_eq!(b.len(), self.size, "a value for each row");
        solve(&self.l, self.stride, b);
    }
}

/// A dot product in eight partial sums of fixed order: independent sums let the compiler vectorise
/// it without changing the order of additions, which would change the bits. Below eight values the
/// plain sum is as fast.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    if a.len() < 8 {
        return a.iter().zip(b).map(|(x, y)| x * y).sum();
    }
    let mut parts = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a8
        .remainder()
        .iter()
        .zip(b8.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a8.zip(b8) {
        for (p, (x, y)) in parts.iter_mut().zip(x.iter().zip(y)) {
            *p += x * y;
        }
    }
    parts.iter().sum::<f64>() + tail
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solves_a_known_system() {
        let mut a = vec![4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let x = [1.0, -2.0, 0.5];
        let mut b: Vec<f64> = (0..3)
            .map(|i| (0..3).map(|j| a[i * 3 + j] * x[j]).sum())
            .collect();
        factor(&mut a, 3, 0.0);
        solve(&a, 3, &mut b);
        for (computed, expected) in b.iter().zip(x) {
            assert!((computed - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_factor_after_pushes_and_removals_solves_the_system_of_the_remaining_rows() {
        const N: usize = 12;
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f64 / 1000.0 - 0.5;
        let entry = |a: usize, b: usize| {
            (0..20)
                .map(|r| value(a * 20 + r) * value(b * 20 + r))
                .sum::<f64>()
                + f64::from(u8::from(a == b))
        };
        let (mut factor, mut rows): (UpdatableCholesky, Vec<usize>) =
            (UpdatableCholesky::new(N), Vec::new());
        let check = |factor: &UpdatableCholesky, rows: &[usize]| {
            let x: Vec<f64> = (0..rows.len()).map(|i| 1.0 - i as f64 * 0.3).collect();
            let mut b: Vec<f64> = rows
                .iter()
                .map(|&a| rows.iter().zip(&x).map(|(&c, x)| entry(a, c) * x).sum())
                .collect();
            factor.solve(&mut b);
            assert!(
                b.iter()
                    .zip(&x)
                    .all(|(computed, expected)| (computed - expected).abs() < 1e-9),
                "{rows:?}: {b:?}"
            );
        };
        for (add, take) in [(5, 0), (4, 7), (3, 2), (0, 0), (4, 5), (0, 7), (0, 0)] {
            for _ in 0..add {
                let new = (0..N).find(|j| !rows.contains(j)).unwrap();
                factor.push(rows.iter().map(|&a| entry(a, new)), entry(new, new), 0.0);
                rows.push(new);
                check(&factor, &rows);
            }
            rows.remove(take);
            factor.remove(take);
            check(&factor, &rows);
        }
    }
}
