//! Steps on the coefficients of one panel for a fixed Q = ZᵀZ: coordinate descent and the
//! multiplicative rule.

use super::panel::{PANEL, VECTORS, load_line, store_line};
use super::simd::{Vector, WIDTH, kernel};

/// Features in a tile of the dense coordinate descent.
const TILE: usize = 6;
/// A Q denser than this is taken by tiles: while a panel's coefficients stay in the first cache,
/// and beyond.
const DENSE_SHARE: [f64; 2] = [0.6, 0.3];
/// Coefficients of a panel that stay in the first cache.
const L1_COEFFICIENTS: usize = 8192;

/// Q = ZᵀZ, laid out for the kernels.
#[derive(Debug, Clone, Default)]
pub struct Gram {
    /// Row j of the sparse form holds entries `offsets[j]..offsets[j + 1]`, without the diagonal.
    pub offsets: Vec<usize>,
    /// Column of each entry, ascending in a row.
    pub columns: Vec<u32>,
    /// Value of each entry.
    pub values: Vec<f32>,
    /// The diagonal.
    pub diagonal: Vec<f32>,
    /// Where Q is dense: for each tile of features and each feature l the tile's values of Q's
    /// column l, without the diagonal.
    tiles: Vec<[f32; TILE]>,
}

impl Gram {
    /// From a dense row-major k × k matrix; exact zeros are left out.
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

    /// `to -= factor · Q_j`, the diagonal left out.
    pub fn subtract_row(&self, to: &mut [f32], j: usize, factor: f32) {
        let (columns, values) = self.row(j);
        for (&l, &q) in columns.iter().zip(values) {
            to[l as usize] -= factor * q;
        }
    }

    fn inverse_diagonal(&self, j: usize) -> f32 {
        if self.diagonal[j] > f32::MIN_POSITIVE {
            1.0 / self.diagonal[j]
        } else {
            0.0
        }
    }
}

kernel! {
    /// One sweep of hierarchical alternating least squares over the features of a panel, in place
    /// and in order: `x_j = (p_j − λ − Σ_{l≠j} Q_jl y_l) / Q_jj`, `y_j ← max(0, y_j + ω (x_j −
    /// y_j))` with the relaxation ω (1: Cichocki et al. 2007; from 0 to 2 no step raises the
    /// objective); with ω ≥ 1 a column of no norm gives zero.
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
        // Rows do not meet: as many of them together as the registers hold sums for.
        if V::TILE > 1 {
            hals_tile::<V, VECTORS>(y, p, gram, penalty, relaxation, i * TILE, tile, 0);
        } else {
            (0..VECTORS).for_each(|c| {
                hals_tile::<V, 1>(y, p, gram, penalty, relaxation, i * TILE, tile, c * WIDTH)
            });
        }
    }
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

/// `r -= Σ values · y[columns]`, in two sums a vector, which hide the latency of the products.
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

#[inline(always)]
fn relax_and_clip<V: Vector, const C: usize>(
    mut r: [V; C],
    old: [V; C],
    scale: f32,
    relaxation: f32,
) -> [V; C] {
    let (scale, beyond) = (V::splat(scale * relaxation), V::splat(relaxation - 1.0));
    // A loop and not `map`: closures do not carry the instruction set with them.
    for (v, old) in r.iter_mut().zip(old) {
        *v = v.mul(scale).sub_product(old, beyond).max(V::splat(0.0));
    }
    r
}

/// The features `first..first + TILE` together, for C vectors of rows from `row` on: what all take
/// away is summed for the whole tile at once, so that a line of Y is loaded once for each of its
/// features; what changes among their own is then corrected in order.
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
        let (mut left, mut old) = ([V::splat(0.0); C], [V::splat(0.0); C]);
        for c in 0..C {
            left[c] = V::load(&p[at(c)..])
                .sub(V::splat(penalty))
                .sub(others[t][c]);
            old[c] = V::load(&own[at(c)..]);
        }
        let mut change = relax_and_clip(left, old, gram.inverse_diagonal(first + t), relaxation);
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

/// Adding and taking away this rounds to multiples of the least normal number. Coefficients that
/// decay would else become denormal, with which a product takes many times as long; it moves
/// nothing by more than 2⁻¹²⁷.
const FLUSH: f32 = f32::MIN_POSITIVE * 8_388_608.0;

kernel! {
    /// The paper's multiplicative step on a panel: `next ← y ∘ sqrt((p⁺ + y Q⁻) / (p⁻ + y Q⁺ +
    /// ε))`.
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
    /// For each row of a panel yᵀQy.
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
            for (got, want) in y.iter().zip(&want) {
                assert!(
                    (f64::from(*got) - want).abs() < 1e-5,
                    "k {k}: {got} against {want}"
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
        // What is not tiny stays as it is, to the bit.
        for v in [1.0f32, 3e-7, 1.5e-20, f32::MIN_POSITIVE * 3.0] {
            assert_eq!((v + FLUSH) - FLUSH, v);
        }
    }
}
