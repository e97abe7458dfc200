//! The product X Wᵀ for weights whose rows are dequantised on demand, which the decoder needs for
//! prompts of many tokens.
//!
//! Owns packing, blocking, threads and the register tiles; knows nothing of how a weight row is
//! stored. Invariant: an element of the result is one sum over k in ascending order, split only at
//! fixed block edges, so that neither threads nor the other rows of a batch change a bit of it.
//!
//! The blocking is that of Goto and van de Geijn ("Anatomy of high-performance matrix
//! multiplication", 2008) with the weights as the packed panels: a task packs a few panels of [`NR`]
//! weight rows, transposed to `[k][NR]`, and multiplies every tile of [`MR`] rows of X with them, so
//! that each weight is dequantised once.

use std::cell::Cell;
use std::ops::Range;

use rayon::prelude::*;

/// The rows of X in a register tile: 12 × 2 sums of 512 bits leave registers for the panel's two
/// vectors.
const MR: usize = 12;
/// The weight rows in a panel: two vectors of 512 bits.
const NR: usize = 32;
/// The longest part of k that is summed in registers before the result is read and written.
const KC: usize = 768;
/// The number of values of a task's panels that fit in the second-level cache (384 KiB).
const L2_VALUES: usize = 96 << 10;

// Packing memory of each thread, reused from call to call.
thread_local! {
    static PANELS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static ROWS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static TILES: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// The result matrix; each task writes columns of its own.
#[derive(Clone, Copy)]
struct OutputColumns {
    out: *mut f32,
    stride: usize,
}

// SAFETY: every task writes columns that are its own, and the borrow of the result outlives the
// tasks.
#[allow(unsafe_code)]
unsafe impl Send for OutputColumns {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for OutputColumns {}

/// `out[i * stride + j] = ⟨x row i, weight row j⟩` for the rows of `x` (`k` values each) and `n`
/// weight rows, which `weights(rows, buffer)` writes as f32, row after row.
///
/// # Panics
/// If `x` does not hold whole rows of `k` values, or if `out` is shorter than the result.
pub fn product(
    x: &[f32],
    k: usize,
    n: usize,
    out: &mut [f32],
    stride: usize,
    weights: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    if x.is_empty() || n == 0 {
        return;
    }
    assert!(k > 0 && x.len().is_multiple_of(k), "x holds whole rows");
    let m = x.len() / k;
    assert!(
        stride >= n && out.len() >= (m - 1) * stride + n,
        "the result is too short"
    );
    let mut tiles = TILES.take();
    pack_tiles(x, k, &mut tiles);
    let target = OutputColumns {
        out: out.as_mut_ptr(),
        stride,
    };
    let panels = n.div_ceil(NR);
    let (threads, step) = (rayon::current_num_threads(), split_depth(k).1);
    let tasks = panels
        .div_ceil((L2_VALUES / (step * NR)).max(1))
        .next_multiple_of(threads)
        .min(panels);
    let run = |task: usize| {
        let (first, last) = (panels * task / tasks, panels * (task + 1) / tasks);
        let columns = first * NR..(last * NR).min(n);
        multiply_columns(&tiles, m, k, columns, target, &weights);
    };
    if m * n * k < 1 << 16 {
        (0..tasks).for_each(run);
    } else {
        (0..tasks).into_par_iter().for_each(run);
    }
    TILES.set(tiles);
}

/// The number and the length of the parts that k is divided into. They depend on k alone, so that
/// the order of each sum does too.
fn split_depth(k: usize) -> (usize, usize) {
    let count = k.div_ceil(KC);
    (count, k.div_ceil(count))
}

/// Packs X as `[tile][k][MR]`; rows beyond the last are zero.
fn pack_tiles(x: &[f32], k: usize, tiles: &mut Vec<f32>) {
    let m = x.len() / k;
    let len = m.div_ceil(MR) * MR * k;
    if tiles.len() < len {
        tiles.resize(len, 0.0);
    }
    let pack = |(rows, tile): (&[f32], &mut [f32])| {
        if rows.len() < MR * k {
            tile.fill(0.0);
        }
        for (i, row) in rows.chunks_exact(k).enumerate() {
            for (p, &v) in row.iter().enumerate() {
                tile[p * MR + i] = v;
            }
        }
    };
    if x.len() < 1 << 15 {
        x.chunks(MR * k)
            .zip(tiles.chunks_mut(MR * k))
            .for_each(pack);
    } else {
        x.par_chunks(MR * k)
            .zip(tiles.par_chunks_mut(MR * k))
            .for_each(pack);
    }
}

/// The work of one task: packs the panels of the weight rows `columns` and multiplies every tile of
/// X with them.
fn multiply_columns(
    tiles: &[f32],
    m: usize,
    k: usize,
    columns: Range<usize>,
    target: OutputColumns,
    weights: &impl Fn(Range<usize>, &mut [f32]),
) {
    let (mut panels, mut rows) = (PANELS.take(), ROWS.take());
    let count = columns.len().div_ceil(NR);
    panels.resize(panels.len().max(count * k * NR), 0.0);
    rows.resize(rows.len().max(NR * k), 0.0);
    for (i, panel) in panels.chunks_exact_mut(k * NR).take(count).enumerate() {
        let first = columns.start + i * NR;
        let panel_rows = first..(first + NR).min(columns.end);
        let rows = &mut rows[..panel_rows.len() * k];
        weights(panel_rows, rows);
        pack_panel(rows, k, panel);
    }
    let (runs, step) = split_depth(k);
    for run in 0..runs {
        let span = run * step..((run + 1) * step).min(k);
        for (t, tile) in tiles.chunks_exact(MR * k).take(m.div_ceil(MR)).enumerate() {
            let height = MR.min(m - t * MR);
            for (i, panel) in panels.chunks_exact(k * NR).take(count).enumerate() {
                let first = columns.start + i * NR;
                let width = NR.min(columns.end - first);
                let (a, b) = (
                    &tile[span.start * MR..span.end * MR],
                    &panel[span.start * NR..span.end * NR],
                );
                // SAFETY: `product` checked that rows t * MR.. + height and columns first.. + width
                // lie inside the result; no other task has these columns.
                #[allow(unsafe_code)]
                unsafe {
                    let out = target.out.add(t * MR * target.stride + first);
                    tile_product(a, b, out, target.stride, (height, width), run > 0);
                }
            }
        }
    }
    PANELS.set(panels);
    ROWS.set(rows);
}

/// Packs weight rows as `[k][NR]`; columns beyond the last are zero.
fn pack_panel(rows: &[f32], k: usize, panel: &mut [f32]) {
    if rows.len() < NR * k {
        panel.fill(0.0);
    }
    let (done_rows, done_k) = transpose_blocks(rows, k, panel);
    for (j, row) in rows.chunks_exact(k).enumerate() {
        let from = if j < done_rows { done_k } else { 0 };
        for (p, &v) in row.iter().enumerate().skip(from) {
            panel[p * NR + j] = v;
        }
    }
}

/// Packs whole 8 × 8 blocks if the processor has AVX2. Returns how many rows, and how many values
/// of each, it packed.
#[cfg(target_arch = "x86_64")]
fn transpose_blocks(rows: &[f32], k: usize, panel: &mut [f32]) -> (usize, usize) {
    if !is_x86_feature_detected!("avx2") {
        return (0, 0);
    }
    let whole = (rows.len() / k / 8 * 8, k / 8 * 8);
    // SAFETY: the feature was just found; the panel has k lines of NR, the rows k values each.
    #[allow(unsafe_code)]
    unsafe {
        x86::transpose(rows, k, panel, whole.0, whole.1);
    }
    whole
}

#[cfg(not(target_arch = "x86_64"))]
fn transpose_blocks(_: &[f32], _: usize, _: &mut [f32]) -> (usize, usize) {
    (0, 0)
}

/// `out[i * stride + j] (+)= Σ_p a[p][i] b[p][j]` for i < height, j < width.
///
/// # Safety
/// `out` must be valid for those elements.
#[allow(unsafe_code)]
unsafe fn tile_product(
    a: &[f32],
    b: &[f32],
    out: *mut f32,
    stride: usize,
    size: (usize, usize),
    add: bool,
) {
    debug_assert_eq!(a.len() / MR, b.len() / NR);
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the feature was just found; the caller vouches for `out`.
            return unsafe {
                match size.0 {
                    1 => x86::tile_512::<1>(a, b, out, stride, size, add),
                    2 => x86::tile_512::<2>(a, b, out, stride, size, add),
                    3 | 4 => x86::tile_512::<4>(a, b, out, stride, size, add),
                    5..=8 => x86::tile_512::<8>(a, b, out, stride, size, add),
                    _ => x86::tile_512::<MR>(a, b, out, stride, size, add),
                }
            };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { x86::tile_256(a, b, out, stride, size, add) };
        }
    }
    let mut sums = [[0.0f32; NR]; MR];
    for (a, b) in a.chunks_exact(MR).zip(b.chunks_exact(NR)) {
        for (sums, &a) in sums.iter_mut().zip(a) {
            for (s, &b) in sums.iter_mut().zip(b) {
                *s += a * b;
            }
        }
    }
    for (i, sums) in sums.iter().enumerate().take(size.0) {
        for (j, s) in sums.iter().enumerate().take(size.1) {
            // SAFETY: the caller vouches for these elements.
            let to = unsafe { &mut *out.add(i * stride + j) };
            *to = if add { *to + s } else { *s };
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86;

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| {
                ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 40_503) >> 8) % 2000) as f32
                    / 1000.0
                    - 1.0
            })
            .collect()
    }

    fn check(m: usize, k: usize, n: usize, margin: usize) {
        let (x, w) = (values(m * k, 1), values(n * k, 2));
        let stride = n + margin;
        let mut out = vec![9.0; m * stride];
        product(
            &x,
            k,
            n,
            &mut out[..(m - 1) * stride + n],
            stride,
            |rows, to| {
                to.copy_from_slice(&w[rows.start * k..rows.end * k]);
            },
        );
        for i in 0..m {
            for j in 0..n {
                let exact: f64 = (0..k)
                    .map(|p| f64::from(x[i * k + p]) * f64::from(w[j * k + p]))
                    .sum();
                let computed = f64::from(out[i * stride + j]);
                assert!(
                    (computed - exact).abs() < 1e-4 * (k as f64).sqrt(),
                    "({i}, {j}) of {m}x{k}x{n}: {computed}, not {exact}"
                );
            }
            let beyond = (i * stride + n).min(out.len())..((i + 1) * stride).min(out.len());
            assert!(
                out[beyond].iter().all(|&v| v == 9.0),
                "columns beyond the result were written"
            );
        }
    }

    #[test]
    fn products_equal_the_definition_at_the_edges_of_tiles() {
        for (m, k, n) in [
            (1, 1, 1),
            (12, 32, 32),
            (13, 33, 31),
            (5, 769, 70),
            (25, 1536, 97),
            (1, 576, 64),
            (64, 64, 960),
        ] {
            check(m, k, n, 0);
            check(m, k, n, 5);
        }
    }

    #[test]
    fn a_row_is_the_same_bits_alone_and_in_a_batch() {
        let (k, n) = (800, 100);
        let (x, w) = (values(30 * k, 3), values(n * k, 4));
        let fill = |rows: Range<usize>, to: &mut [f32]| {
            to.copy_from_slice(&w[rows.start * k..rows.end * k])
        };
        let mut all = vec![0.0; 30 * n];
        product(&x, k, n, &mut all, n, fill);
        for row in [0, 11, 12, 29] {
            let mut one = vec![0.0; n];
            product(&x[row * k..(row + 1) * k], k, n, &mut one, n, fill);
            assert_eq!(one, all[row * n..(row + 1) * n]);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn both_instruction_sets_agree() {
        if !(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2")) {
            return;
        }
        let (a, b) = (values(MR * 50, 5), values(NR * 50, 6));
        for size in [(12, 32), (7, 17), (1, 3), (4, 32)] {
            let (mut wide, mut narrow) = (vec![1.0; MR * NR], vec![1.0; MR * NR]);
            for (out, is_wide) in [(&mut wide, true), (&mut narrow, false)] {
                // SAFETY: the features were just found; the result holds MR rows of NR.
                #[allow(unsafe_code)]
                unsafe {
                    if is_wide {
                        x86::tile_512::<MR>(&a, &b, out.as_mut_ptr(), NR, size, true);
                    } else {
                        x86::tile_256(&a, &b, out.as_mut_ptr(), NR, size, true);
                    }
                }
            }
            assert!(wide.iter().zip(&narrow).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }
}
