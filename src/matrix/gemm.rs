//! Products of dense matrices given as slices with strides, f32 or f64.
//!
//! Owns the bounds checks around the `gemm` crate, the only matrix multiplication here, and the
//! division of a result into strips for several threads. Knows nothing of what the matrices mean.

use std::marker::PhantomData;

use gemm::Parallelism;
use rayon::prelude::*;

/// A matrix in a slice: element (i, j) is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub struct View<'a, T = f32> {
    /// The slice that holds the matrix.
    pub data: &'a [T],
    /// Values from one row to the next.
    pub row: usize,
    /// Values from one column to the next.
    pub col: usize,
}

impl<'a, T> View<'a, T> {
    /// A row-major matrix whose rows are `row` values apart.
    pub fn rows(data: &'a [T], row: usize) -> Self {
        Self { data, row, col: 1 }
    }

    /// The transpose of the row-major matrix `data` whose rows are `row` values apart.
    pub fn transposed(data: &'a [T], row: usize) -> Self {
        Self {
            data,
            row: 1,
            col: row,
        }
    }

    /// Panics unless every element of an m × n matrix lies in the slice.
    fn check(&self, m: usize, n: usize, side: &str) {
        assert!(
            self.data.len() > last(m, self.row, n, self.col),
            "the {side} side is too short"
        );
    }
}

/// The offset of the last element of a non-empty m × n matrix.
fn last(m: usize, row: usize, n: usize, col: usize) -> usize {
    (m - 1) * row + (n - 1) * col
}

/// `f32` and `f64`, the types that are multiplied.
pub trait Scalar: Copy + Send + Sync + 'static {
    /// The number 0.
    const ZERO: Self;
    /// The number 1.
    const ONE: Self;
}

impl Scalar for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

impl Scalar for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
}

/// `out[m × n] = A[m × k] · B[k × n]`, all row-major, on one thread; m follows from the length of
/// `a`.
pub fn row_major_product(out: &mut [f32], a: &[f32], k: usize, b: &[f32], n: usize) {
    let m = a.len() / k.max(1);
    product(
        (m, k, n),
        View::rows(a, k),
        View::rows(b, n),
        out,
        n,
        false,
        false,
    );
}

/// `out[i * stride + j] = Σ_p a[i, p] b[p, j]` (`+=` when `add`) for i < m, j < n, p < k; on all
/// threads when `parallel`.
///
/// # Panics
/// If a view or `out` is too short for its shape.
#[allow(clippy::too_many_arguments)]
pub fn product<T: Scalar>(
    (m, k, n): (usize, usize, usize),
    a: View<'_, T>,
    b: View<'_, T>,
    out: &mut [T],
    stride: usize,
    add: bool,
    parallel: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        stride >= n && out.len() > last(m, stride, n, 1),
        "the result is too short"
    );
    // SAFETY: by the assert every element that is written lies in `out`, which is borrowed alone, and
    // its rows do not overlap.
    #[allow(unsafe_code)]
    unsafe {
        write_product((m, k, n), a, b, out.as_mut_ptr(), stride, add, parallel);
    }
}

/// The work of [`product`], for a result whose rows start at `out` and lie `stride` values apart.
///
/// # Safety
/// `out[i * stride + j]` must be writable by this thread alone for i < m, j < n, and `stride` ≥ n.
///
/// # Panics
/// If a view is too short for its shape.
#[allow(unsafe_code)]
unsafe fn write_product<T: Scalar>(
    (m, k, n): (usize, usize, usize),
    a: View<'_, T>,
    b: View<'_, T>,
    out: *mut T,
    stride: usize,
    add: bool,
    parallel: bool,
) {
    assert!(k > 0, "the sides have no common dimension");
    a.check(m, k, "left");
    b.check(k, n, "right");
    let parallelism = if parallel {
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    };
    // SAFETY: the checks above keep every index that the strides reach inside its slice; the caller
    // vouches for `out`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            if add { T::ONE } else { T::ZERO },
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The same consecutive columns of every row of a row-major matrix, which one task changes.
pub struct Strip<'m> {
    /// The element at the first row and the strip's first column.
    start: *mut f32,
    rows: usize,
    width: usize,
    /// Values from one row to the next.
    stride: usize,
    matrix: PhantomData<&'m mut [f32]>,
}

// SAFETY: a strip alone reaches its elements ([`for_each_strip`] gives each column to one strip), as a
// `&mut [f32]` does.
#[allow(unsafe_code)]
unsafe impl Send for Strip<'_> {}

impl Strip<'_> {
    /// The number of columns in this strip.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The strip's part of row `i`.
    ///
    /// # Panics
    /// If the matrix has no such row.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: row i is in the matrix, and these columns of it belong to this strip alone.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.width)
        }
    }

    /// Adds A·B to the strip, for `a` (rows × `k`) and `b` (`k` × width), on this thread.
    ///
    /// # Panics
    /// If a view is too short for its shape.
    pub fn add_product(&mut self, k: usize, a: View<'_>, b: View<'_>) {
        if self.rows == 0 {
            return;
        }
        // SAFETY: the strip's elements are this task's alone, and its width is at most the stride.
        #[allow(unsafe_code)]
        unsafe {
            write_product(
                (self.rows, k, self.width),
                a,
                b,
                self.start,
                self.stride,
                true,
                false,
            );
        }
    }
}

/// Calls `f(first column, strip)` in parallel, one task a strip, for strips of `width` columns of the
/// row-major matrix `out` with `columns` columns; the last strip may be narrower.
pub fn for_each_strip(
    out: &mut [f32],
    columns: usize,
    width: usize,
    f: impl Fn(usize, Strip<'_>) + Sync + Send,
) {
    struct Start(*mut f32);
    // SAFETY: the pointer is only taken apart into strips, of which no two share an element.
    #[allow(unsafe_code)]
    unsafe impl Sync for Start {}
    impl Start {
        fn strip<'m>(&self, first: usize, rows: usize, width: usize, stride: usize) -> Strip<'m> {
            Strip {
                start: self.0.wrapping_add(first),
                rows,
                width,
                stride,
                matrix: PhantomData,
            }
        }
    }
    let rows = out.len() / columns.max(1);
    let start = Start(out.as_mut_ptr());
    (0..columns.div_ceil(width))
        .into_par_iter()
        .with_max_len(1)
        .for_each(|i| {
            let first = i * width;
            f(
                first,
                start.strip(first, rows, width.min(columns - first), columns),
            );
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_cover_each_column_once_and_add_their_products() {
        for (rows, columns, width, k) in
            [(3, 10, 4, 5), (1, 1, 96, 1), (5, 96, 96, 7), (0, 4, 2, 3)]
        {
            let number = |i: usize| ((i * 7919) % 23) as f32 - 11.0;
            let a: Vec<f32> = (0..rows * k).map(number).collect();
            let b: Vec<f32> = (0..k * columns).map(number).collect();
            let mut out: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            for_each_strip(&mut out, columns, width, |first, mut strip| {
                assert_eq!(strip.width(), width.min(columns - first));
                if rows > 0 {
                    strip.row_mut(rows - 1)[0] += 0.5;
                    strip.add_product(k, View::rows(&a, k), View::rows(&b[first..], columns));
                }
            });
            for (i, computed) in out.iter().enumerate() {
                let (r, c) = (i / columns, i % columns);
                let sum: f32 = (0..k).map(|p| a[r * k + p] * b[p * columns + c]).sum();
                let first = if r == rows - 1 && c % width == 0 {
                    0.5
                } else {
                    0.0
                };
                assert_eq!(
                    *computed,
                    i as f32 + sum + first,
                    "{rows} × {columns}, element {i}"
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "row 2 of 2")]
    fn a_strip_refuses_a_row_beyond_its_matrix() {
        for_each_strip(&mut [0.0; 6], 3, 3, |_, mut strip| {
            strip.row_mut(2);
        });
    }
}
