//! Products of dense f32 matrices given as slices with strides.
//!
//! Owns the bounds checks around the `gemm` crate; knows nothing of what the matrices mean.

use gemm::Parallelism;

/// A matrix in a slice: element (i, j) is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The slice that holds the matrix.
    pub data: &'a [f32],
    /// Values from one row to the next.
    pub row: usize,
    /// Values from one column to the next.
    pub col: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix whose rows are `row` values apart.
    pub fn rows(data: &'a [f32], row: usize) -> Self {
        Self { data, row, col: 1 }
    }

    /// The transpose of the row-major matrix `data` whose rows are `row` values apart.
    pub fn transposed(data: &'a [f32], row: usize) -> Self {
        Self {
            data,
            row: 1,
            col: row,
        }
    }
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
pub fn product(
    (m, k, n): (usize, usize, usize),
    a: View<'_>,
    b: View<'_>,
    out: &mut [f32],
    stride: usize,
    add: bool,
    parallel: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    let last =
        |rows: usize, row: usize, cols: usize, col: usize| (rows - 1) * row + (cols - 1) * col;
    assert!(
        stride >= n && out.len() > last(m, stride, n, 1),
        "the result is too short"
    );
    assert!(
        k > 0 && a.data.len() > last(m, a.row, k, a.col),
        "the left side is too short"
    );
    assert!(
        b.data.len() > last(k, b.row, n, b.col),
        "the right side is too short"
    );
    let parallelism = if parallel {
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    };
    // SAFETY: the asserts above keep every index that the strides reach inside its slice; `out` is
    // borrowed alone and its rows do not overlap.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            add,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            if add { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
