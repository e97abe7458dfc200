//! Steps on the coefficients Y of one panel for a fixed Q = ZᵀZ and P = AZ: HALS coordinate descent
//! and the multiplicative update. Knows nothing of activations or features beyond Q and P.
//!
//! In a panel the values of one feature at consecutive rows are contiguous. The step of a row does
//! not depend on other rows, so a vector holds sixteen rows and every lane does the same work.

use super::panel::{PANEL, VECTORS, load_line, store_line};
use super::simd::{Vector, WIDTH, kernel};

/// Features in a tile of the dense coordinate descent: TILE × VECTORS = 24 sums of 512 bits leave
/// room in 32 registers for a line of Y and a broadcast entry of Q.
const TILE: usize = 6;
/// The share of non-zeros of Q above which it is stored in tiles, which load a line of Y once for
/// [`TILE`] features but multiply zeros too. The first value applies while a panel's coefficients
/// fit in the first-level cache, the second to larger panels, whose loads cost more.
const DENSE_SHARE: [f64; 2] = [0.6, 0.3];
/// The number of coefficients of a panel that fit in a first-level cache of 32 KiB.
const L1_COEFFICIENTS: usize = 8192;

/// Q = ZᵀZ in f32: sparse by rows without the diagonal, and in tiles where it is dense.
#[derive(Debug, Clone, Default)]
pub struct Gram {
    /// Row j holds the entries `offsets[j]..offsets[j + 1]`; length k + 1.
    pub offsets: Vec<usize>,
    /// Column of each entry, ascending within a row.
    pub columns: Vec<u32>,
    /// Value Q_jl of each entry.
    pub values: Vec<f32>,
    /// Q_jj, the squared norm of column j of Z; length k.
    pub diagonal: Vec<f32>,
    /// If Q is dense: for each tile of features, and within it for each feature l, the tile's
    /// entries of column l of Q, 0 on the diagonal; otherwise empty.
    tiles: Vec<[f32; TILE]>,
}

impl Gram {
    /// Stores a dense row-major k × k matrix; exact zeros are left out of the sparse form.
    pub fn from_dense(q: &[f64], k: usize) -> Self {
        let mut out = Self {
            offsets: vec![0],
            ..Self::default()
        };
        let count = q.iter().filter(|v| **v != 0.0).count();
        out.columns.reserve(count);
        out.values.reserve(count);
        for (j, row) in q.chunks_exact(k.max(1)).enumerate() {
            let entries = || {
                row.iter()
                    .enumerate()
                    .filter(move |&(l, v)| l != j && *v != 0.0)
            };
            out.columns.extend(entries().map(|(l, _)| l as u32));
            out.values.extend(entries().map(|(_, v)| *v as f32));
            out.diagonal.push(row[j] as f32);
            out.offsets.push(out.columns.len());
        }
        if out.values.len() as f64
            > DENSE_SHARE[usize::from(k * PANEL > L1_COEFFICIENTS)] * (k * k) as f64
        {
            for first in (0..k - k % TILE).step_by(TILE) {
                let value = |j: usize, l: usize| if j == l { 0.0 } else { q[j * k + l] as f32 };
                out.tiles
                    .extend((0..k).map(|l| std::array::from_fn(|t| value(first + t, l))));
            }
        }
        out
    }

    #[inline(always)]
    fn row(&self, j: usize) -> (&[u32], &[f32]) {
        let span = self.offsets[j]..self.offsets[j + 1];
        (&self.columns[span.clone()], &self.values[span])
    }

    /// `to -= factor · Q_j` for row j of Q without its diagonal; `to` has k values.
    pub fn subtract_row(&self, to: &mut [f32], j: usize, factor: f32) {
        let (columns, values) = self.row(j);
        for (&l, &q) in columns.iter().zip(values) {
            to[l as usize] -= factor * q;
        }
    }

    /// 1 / Q_jj, and 0 for a column of Z without norm, whose coefficients then become 0.
    fn inverse_diagonal(&self, j: usize) -> f32 {
        if self.diagonal[j] > f32::MIN_POSITIVE {
            1.0 / self.diagonal[j]
        } else {
            0.0
        }
    }
}

kernel! {
    /// One sweep of hierarchical alternating least squares (HALS: Cichocki, Phan 2009; Gillis,
    /// Glineur 2012) over the k features of a panel, in place and in ascending order:
    /// `x_j = (p_j − λ − Σ_{l≠j} Q_jl y_l) / Q_jj`, then `y_j ← max(0, y_j + ω (x_j − y_j))`. `y` and
    /// `p` are `[k][PANEL]`, λ is `penalty` and ω is `relaxation`: 1 is plain HALS, and for 0 < ω < 2
    /// no step raises ½ yᵀQy − pᵀy + λΣy (successive over-relaxation). With ω ≥ 1 a column of Z
    /// without norm gets the coefficient 0.
    pub fn hals_sweep(y: &mut [f32], p: &[f32], gram: &Gram, penalty: f32, relaxation: f32) = hals_sweep_body;
}

#[inline(always)]
fn hals_sweep_body<V: Vector>(
    y: &mut [f32],
    p: &[f32],
    gram: &Gram,
    penalty: f32,
    relaxation: f32,
) {
    let k = gram.diagonal.len();
    for (i, tile) in gram.tiles.chunks_exact(k.max(1)).enumerate() {
        // Rows are independent, so the split only decides how many sums are kept in registers: all
        // four vectors of rows with 32 registers of 512 bits, one vector otherwise.
        if V::TILE > 1 {
            hals_tile::<V, VECTORS>(y, p, gram, penalty, relaxation, i * TILE, tile, 0);
        } else {
            (0..VECTORS).for_each(|c| {
                hals_tile::<V, 1>(y, p, gram, penalty, relaxation, i * TILE, tile, c * WIDTH)
            });
        }
    }
    // The features after the last whole tile, or all features if Q is sparse.
    for j in gram.tiles.len() / k.max(1) * TILE..k {
        let mut r = load_line::<V>(p, j);
        for v in &mut r {
            *v = v.sub(V::splat(penalty));
        }
        let (columns, values) = gram.row(j);
        subtract_products(&mut r, y, columns, values);
        let old = load_line::<V>(y, j);
        store_line(
            y,
            j,
            relax_and_clip(r, old, gram.inverse_diagonal(j), relaxation),
        );
    }
}

/// `r -= Σ values · y[columns]`, in two independent sums for each vector, so that one fused
/// multiply-add does not wait for the result of the one before.
#[inline(always)]
fn subtract_products<V: Vector>(r: &mut [V; VECTORS], y: &[f32], columns: &[u32], values: &[f32]) {
    let mut second = [V::splat(0.0); VECTORS];
    let (pairs, pair_values) = (columns.chunks_exact(2), values.chunks_exact(2));
    if let ([l], [q]) = (pairs.remainder(), pair_values.remainder()) {
        let row = load_line::<V>(y, *l as usize);
        for c in 0..VECTORS {
            second[c] = second[c].add_product(row[c], V::splat(*q));
        }
    }
    for (l, q) in pairs.zip(pair_values) {
        let (a, b) = (
            load_line::<V>(y, l[0] as usize),
            load_line::<V>(y, l[1] as usize),
        );
        let (qa, qb) = (V::splat(q[0]), V::splat(q[1]));
        for c in 0..VECTORS {
            r[c] = r[c].sub_product(a[c], qa);
            second[c] = second[c].add_product(b[c], qb);
        }
    }
    for c in 0..VECTORS {
        r[c] = r[c].sub(second[c]);
    }
}

/// max(0, ω · scale · r − (ω − 1) · old): the relaxed step, where `r` times `scale` is the optimum.
#[inline(always)]
fn relax_and_clip<V: Vector, const C: usize>(
    mut r: [V; C],
    old: [V; C],
    scale: f32,
    relaxation: f32,
) -> [V; C] {
    let (scale, beyond) = (V::splat(scale * relaxation), V::splat(relaxation - 1.0));
    // A loop, because a closure given to `map` is compiled without the target features.
    for (v, old) in r.iter_mut().zip(old) {
        *v = v.mul(scale).sub_product(old, beyond).max(V::splat(0.0));
    }
    r
}

/// Updates the features `first..first + TILE` for C vectors of rows from `row` on. First Σ_l Q_jl y_l
/// is summed for the whole tile with the old values, so that a line of Y is loaded once for TILE
/// features. Then the features are updated in order, and each change is added to the sums of the
/// tile's later features, which gives the values of a sweep feature by feature.
#[inline(always)]
fn hals_tile<V: Vector, const C: usize>(
    y: &mut [f32],
    p: &[f32],
    gram: &Gram,
    penalty: f32,
    relaxation: f32,
    first: usize,
    tile: &[[f32; TILE]],
    row: usize,
) {
    let mut others = [[V::splat(0.0); C]; TILE];
    for (line, q) in y.chunks_exact(PANEL).zip(tile) {
        let mut rows = [V::splat(0.0); C];
        for c in 0..C {
            rows[c] = V::load(&line[row + c * WIDTH..]);
        }
        for t in 0..TILE {
            let q = V::splat(q[t]);
            for c in 0..C {
                others[t][c] = others[t][c].add_product(rows[c], q);
            }
        }
    }
    let own = &mut y[first * PANEL..(first + TILE) * PANEL];
    let p = &p[first * PANEL..(first + TILE) * PANEL];
    for t in 0..TILE {
        let at = |c: usize| t * PANEL + row + c * WIDTH;
        let (mut gradient, mut old) = ([V::splat(0.0); C], [V::splat(0.0); C]);
        for c in 0..C {
            gradient[c] = V::load(&p[at(c)..])
                .sub(V::splat(penalty))
                .sub(others[t][c]);
            old[c] = V::load(&own[at(c)..]);
        }
        let mut change =
            relax_and_clip(gradient, old, gram.inverse_diagonal(first + t), relaxation);
        for c in 0..C {
            change[c].store(&mut own[at(c)..]);
            change[c] = change[c].sub(old[c]);
        }
        for u in t + 1..TILE {
            let q = V::splat(tile[first + t][u]);
            for c in 0..C {
                others[u][c] = others[u][c].add_product(change[c], q);
            }
        }
    }
}

/// 2²³ times the smallest normal number. Adding and subtracting it rounds to multiples of the
/// smallest normal number, and so flushes denormals to zero. The multiplicative rule lets
/// coefficients decay towards zero without reaching it, and products with denormals take many times
/// as long. No value moves by more than 2⁻¹²⁷.
const FLUSH: f32 = f32::MIN_POSITIVE * 8_388_608.0;

kernel! {
    /// The multiplicative update of semi-NMF (Ding, Li, Jordan 2010) on a panel:
    /// `next ← y ∘ sqrt((p⁺ + y Q⁻) / (p⁻ + y Q⁺ + ε))` with X⁺ = (|X| + X)/2, X⁻ = (|X| − X)/2; all are
    /// `[k][PANEL]`. The diagonal of Q is never negative and so belongs to the denominator.
    pub fn multiplicative_step(next: &mut [f32], y: &[f32], p: &[f32], gram: &Gram, epsilon: f32) = multiplicative_step_body;
}

#[inline(always)]
fn multiplicative_step_body<V: Vector>(
    next: &mut [f32],
    y: &[f32],
    p: &[f32],
    gram: &Gram,
    epsilon: f32,
) {
    let zero = V::splat(0.0);
    for j in 0..gram.diagonal.len() {
        let own = load_line::<V>(y, j);
        let p = load_line::<V>(p, j);
        let (mut above, mut below) = (p, p);
        let (columns, values) = gram.row(j);
        for c in 0..VECTORS {
            above[c] = p[c].max(zero);
            below[c] = zero
                .sub(p[c])
                .max(zero)
                .add_product(own[c], V::splat(gram.diagonal[j]));
        }
        for (&l, &q) in columns.iter().zip(values) {
            let row = load_line::<V>(y, l as usize);
            let (side, q) = if q < 0.0 {
                (&mut above, V::splat(-q))
            } else {
                (&mut below, V::splat(q))
            };
            for c in 0..VECTORS {
                side[c] = side[c].add_product(row[c], q);
            }
        }
        let mut out = own;
        for c in 0..VECTORS {
            out[c] = own[c].mul(above[c].div(below[c].add(V::splat(epsilon))).sqrt());
            out[c] = out[c].add(V::splat(FLUSH)).sub(V::splat(FLUSH));
        }
        store_line(next, j, out);
    }
}

kernel! {
    /// The quadratic form yᵀQy of each row of the panel `y` `[k][PANEL]`; `rows` has PANEL values.
    pub fn quadratic_forms(rows: &mut [f32], y: &[f32], gram: &Gram) = quadratic_forms_body;
}

#[inline(always)]
fn quadratic_forms_body<V: Vector>(rows: &mut [f32], y: &[f32], gram: &Gram) {
    let mut total = [V::splat(0.0); VECTORS];
    for j in 0..gram.diagonal.len() {
        let own = load_line::<V>(y, j);
        let mut against = own;
        for v in &mut against {
            *v = v.mul(V::splat(gram.diagonal[j]));
        }
        let (columns, values) = gram.row(j);
        for (&l, &q) in columns.iter().zip(values) {
            let row = load_line::<V>(y, l as usize);
            for c in 0..VECTORS {
                against[c] = against[c].add_product(row[c], V::splat(q));
            }
        }
        for c in 0..VECTORS {
            total[c] = total[c].add_product(own[c], against[c]);
        }
    }
    store_line(rows, 0, total);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Q of k features, dense or with every third pair alone, and a panel of numbers.
    fn case(k: usize, dense: bool) -> (Vec<f64>, Vec<f32>, Vec<f32>) {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f64 / 1000.0 - 0.4;
        let mut q = vec![0.0; k * k];
        for i in 0..k {
            for j in 0..i {
                let v = if dense || (i + j) % 3 == 0 {
                    value(i * k + j) * 0.3
                } else {
                    0.0
                };
                (q[i * k + j], q[j * k + i]) = (v, v);
            }
            q[i * k + i] = 1.0;
        }
        let y = (0..k * PANEL)
            .map(|i| value(i + 7).max(0.0) as f32)
            .collect();
        let p = (0..k * PANEL).map(|i| value(3 * i + 1) as f32).collect();
        (q, y, p)
    }

    #[test]
    fn tiles_and_single_features_follow_the_formula() {
        for (k, dense, relaxation) in [
            (1, true, 1.0),
            (3, true, 1.4),
            (10, true, 1.0),
            (17, true, 1.4),
            (13, false, 1.4),
        ] {
            let (q, mut y, p) = case(k, dense);
            let gram = Gram::from_dense(&q, k);
            assert_eq!(!gram.tiles.is_empty(), dense && k >= 10);
            let mut want: Vec<f64> = y.iter().map(|&v| f64::from(v)).collect();
            for j in 0..k {
                for r in 0..PANEL {
                    let others: f64 = (0..k)
                        .filter(|&l| l != j)
                        .map(|l| q[j * k + l] * want[l * PANEL + r])
                        .sum();
                    let (own, target) = (
                        want[j * PANEL + r],
                        f64::from(p[j * PANEL + r]) - 0.05 - others,
                    );
                    want[j * PANEL + r] = (own + relaxation * (target - own)).max(0.0);
                }
            }
            hals_sweep(&mut y, &p, &gram, 0.05, relaxation as f32);
            for (computed, want) in y.iter().zip(&want) {
                assert!(
                    (f64::from(*computed) - want).abs() < 1e-5,
                    "k {k}: {computed} against {want}"
                );
            }
        }
    }

    #[test]
    fn the_baseline_agrees_with_the_chosen_instruction_set() {
        use crate::matrix::simd::Portable;
        for (k, dense) in [(18, true), (13, false)] {
            let (q, y, p) = case(k, dense);
            let gram = Gram::from_dense(&q, k);
            let close = |a: &[f32], b: &[f32]| {
                a.iter()
                    .zip(b)
                    .all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + a.abs()))
            };
            let (mut a, mut b) = (y.clone(), y.clone());
            hals_sweep(&mut a, &p, &gram, 0.02, 1.4);
            hals_sweep_body::<Portable>(&mut b, &p, &gram, 0.02, 1.4);
            assert!(close(&a, &b));
            multiplicative_step(&mut a, &y, &p, &gram, 1e-6);
            multiplicative_step_body::<Portable>(&mut b, &y, &p, &gram, 1e-6);
            assert!(close(&a, &b));
            quadratic_forms(&mut a[..PANEL], &y, &gram);
            quadratic_forms_body::<Portable>(&mut b[..PANEL], &y, &gram);
            assert!(close(&a[..PANEL], &b[..PANEL]));
        }
    }

    #[test]
    fn coefficients_that_decay_do_not_become_denormal() {
        let (q, y, p) = case(3, true);
        let gram = Gram::from_dense(&q, 3);
        let small: Vec<f32> = (0..y.len())
            .map(|i| f32::MIN_POSITIVE / (1 + i % 7) as f32)
            .collect();
        let mut next = small.clone();
        multiplicative_step(&mut next, &small, &p, &gram, 1e-6);
        assert!(
            next.iter().all(|v| *v == 0.0 || v.is_normal()) && next.contains(&0.0),
            "{next:?}"
        );
        // Values that are not tiny keep their bits.
        for v in [1.0f32, 3e-7, 1.5e-20, f32::MIN_POSITIVE * 3.0] {
            assert_eq!((v + FLUSH) - FLUSH, v);
        }
    }
}
