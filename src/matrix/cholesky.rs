//! Small symmetric positive definite systems in f64.

use super::simd::{Vector, kernel};

kernel! {
    /// Factors the leading m × m of row-major `a` (leading dimension m) in place, lower triangle: `a = L Lᵀ`. Pivots that
    /// are not positive are raised to `floor`, which keeps a singular system solvable.
    pub fn factor(a: &mut [f64], m: usize, floor: f64) = factor_body;
}

#[inline(always)]
fn factor_body<V: Vector>(a: &mut [f64], m: usize, floor: f64) {
    for i in 0..m {
        for j in 0..=i {
            let mut sum = a[i * m + j];
            let (row_i, row_j) = (&a[i * m..i * m + j], &a[j * m..j * m + j]);
            sum -= dot(row_i, row_j);
            a[i * m + j] = if i == j { sum.max(floor).sqrt() } else { sum / a[j * m + j] };
        }
    }
}

kernel! {
    /// Solves `L Lᵀ x = b` in place for the factor of [`factor`].
    pub fn solve(l: &[f64], m: usize, b: &mut [f64]) = solve_body;
}

#[inline(always)]
fn solve_body<V: Vector>(l: &[f64], m: usize, b: &mut [f64]) {
    for i in 0..m {
        let sum = b[i] - dot(&l[i * m..i * m + i], &b[..i]);
        b[i] = sum / l[i * m + i];
    }
    for i in (0..m).rev() {
        let x = b[i] / l[i * m + i];
        b[i] = x;
        for (v, &e) in b[..i].iter_mut().zip(&l[i * m..i * m + i]) {
            *v -= e * x;
        }
    }
}

/// A dot product in four fixed partial sums, which the compiler may vectorise.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut parts = [0.0; 8];
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a8.remainder().iter().zip(b8.remainder()).map(|(x, y)| x * y).sum();
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
        let mut b: Vec<f64> = (0..3).map(|i| (0..3).map(|j| a[i * 3 + j] * x[j]).sum()).collect();
        factor(&mut a, 3, 0.0);
        solve(&a, 3, &mut b);
        for (got, want) in b.iter().zip(x) {
            assert!((got - want).abs() < 1e-12);
        }
    }
}
