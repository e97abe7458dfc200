//! Kernels over a panel: [`PANEL`] token rows with the rows running fastest, so that one neuron (or one feature) of all
//! of them is one short contiguous run.
//!
//! A panel of activations is `[d][PANEL]`, of coefficients or projections `[k][PANEL]`; rows that do not exist are zero.

pub use super::transpose::transpose;

use super::simd::{Lanes, WIDTH, kernel};

/// Token rows in a panel.
pub const PANEL: usize = 64;

const VECTORS: usize = PANEL / WIDTH;

/// Sparse rows of a k × k matrix (Q = ZᵀZ without its diagonal).
#[derive(Debug, Clone, Default)]
pub struct Gram {
    /// Row j holds entries `offsets[j]..offsets[j + 1]`.
    pub offsets: Vec<usize>,
    /// Column of each entry, ascending in a row.
    pub columns: Vec<u32>,
    /// Value of each entry.
    pub values: Vec<f32>,
    /// The diagonal.
    pub diagonal: Vec<f32>,
}

impl Gram {
    /// From a dense row-major k × k matrix; exact zeros are left out.
    pub fn from_dense(q: &[f64], k: usize) -> Self {
        let mut out = Self { offsets: vec![0], ..Self::default() };
        for (j, row) in q.chunks_exact(k).enumerate() {
            for (l, &v) in row.iter().enumerate() {
                if l != j && v != 0.0 {
                    out.columns.push(l as u32);
                    out.values.push(v as f32);
                }
            }
            out.diagonal.push(row[j] as f32);
            out.offsets.push(out.columns.len());
        }
        out
    }
}

kernel! {
    /// `out[j] = Σ_q values[j][q] · panel[indices[j][q]]` for each sparse column j: P = A Z on one panel.
    pub fn project(out: &mut [f32], panel: &[f32], offsets: &[usize], indices: &[u32], values: &[f32]) = project_body;
}

#[inline(always)]
fn project_body<const FUSED: bool>(out: &mut [f32], panel: &[f32], offsets: &[usize], indices: &[u32], values: &[f32]) {
    for (line, span) in out.chunks_exact_mut(PANEL).zip(offsets.windows(2)) {
        let mut sum = [Lanes::splat(0.0); VECTORS];
        for (&i, &v) in indices[span[0]..span[1]].iter().zip(&values[span[0]..span[1]]) {
            let row = &panel[i as usize * PANEL..i as usize * PANEL + PANEL];
            let v = Lanes::splat(v);
            for (c, s) in sum.iter_mut().enumerate() {
                *s = s.add_product::<FUSED>(Lanes::load(&row[c * WIDTH..]), v);
            }
        }
        for (c, s) in sum.iter().enumerate() {
            s.store(&mut line[c * WIDTH..]);
        }
    }
}

kernel! {
    /// `out[j][q] += Σ_rows panel[indices[j][q]] · y[j]`: the entries of AᵀY on the supports alone.
    pub fn gather_products(
        out: &mut [f32], panel: &[f32], y: &[f32], offsets: &[usize], indices: &[u32],
    ) = gather_products_body;
}

#[inline(always)]
fn gather_products_body<const FUSED: bool>(
    out: &mut [f32],
    panel: &[f32],
    y: &[f32],
    offsets: &[usize],
    indices: &[u32],
) {
    for (line, span) in y.chunks_exact(PANEL).zip(offsets.windows(2)) {
        let mut coefficient = [Lanes::splat(0.0); VECTORS];
        for (c, v) in coefficient.iter_mut().enumerate() {
            *v = Lanes::load(&line[c * WIDTH..]);
        }
        for (&i, o) in indices[span[0]..span[1]].iter().zip(&mut out[span[0]..span[1]]) {
            let row = &panel[i as usize * PANEL..i as usize * PANEL + PANEL];
            let mut sum = Lanes::splat(0.0);
            for (c, v) in coefficient.iter().enumerate() {
                sum = sum.add_product::<FUSED>(Lanes::load(&row[c * WIDTH..]), *v);
            }
            *o += sum.sum();
        }
    }
}

kernel! {
    /// One sweep of hierarchical alternating least squares over the features of a panel, in place and in order:
    /// `y_j ← max(0, (p_j − λ − Σ_{l≠j} Q_jl y_l) / Q_jj)` (Cichocki et al. 2007); a column of no norm gives zero.
    pub fn hals(y: &mut [f32], p: &[f32], gram: &Gram, penalty: f32) = hals_body;
}

#[inline(always)]
fn hals_body<const FUSED: bool>(y: &mut [f32], p: &[f32], gram: &Gram, penalty: f32) {
    for j in 0..gram.diagonal.len() {
        let mut r = [Lanes::splat(0.0); VECTORS];
        for (c, v) in r.iter_mut().enumerate() {
            *v = Lanes::load(&p[j * PANEL + c * WIDTH..]).map(|x| x - penalty);
        }
        let span = gram.offsets[j]..gram.offsets[j + 1];
        for (&l, &q) in gram.columns[span.clone()].iter().zip(&gram.values[span]) {
            let row = &y[l as usize * PANEL..l as usize * PANEL + PANEL];
            let q = Lanes::splat(-q);
            for (c, v) in r.iter_mut().enumerate() {
                *v = v.add_product::<FUSED>(Lanes::load(&row[c * WIDTH..]), q);
            }
        }
        let diagonal = gram.diagonal[j];
        let scale = if diagonal > f32::MIN_POSITIVE { 1.0 / diagonal } else { 0.0 };
        for (c, v) in r.iter().enumerate() {
            v.map(|x| if x > 0.0 { x * scale } else { 0.0 }).store(&mut y[j * PANEL + c * WIDTH..]);
        }
    }
}

kernel! {
    /// The paper's multiplicative step on a panel: `next ← y ∘ sqrt((p⁺ + y Q⁻) / (p⁻ + y Q⁺ + ε))`.
    pub fn multiply(next: &mut [f32], y: &[f32], p: &[f32], gram: &Gram, epsilon: f32) = multiply_body;
}

#[inline(always)]
fn multiply_body<const FUSED: bool>(next: &mut [f32], y: &[f32], p: &[f32], gram: &Gram, epsilon: f32) {
    for j in 0..gram.diagonal.len() {
        let line = &y[j * PANEL..j * PANEL + PANEL];
        let mut above = [Lanes::splat(0.0); VECTORS];
        let mut below = [Lanes::splat(0.0); VECTORS];
        let diagonal = Lanes::splat(gram.diagonal[j]);
        for c in 0..VECTORS {
            let p = Lanes::load(&p[j * PANEL + c * WIDTH..]);
            above[c] = p.map(|x| x.max(0.0));
            below[c] = p.map(|x| (-x).max(0.0)).add_product::<FUSED>(Lanes::load(&line[c * WIDTH..]), diagonal);
        }
        let span = gram.offsets[j]..gram.offsets[j + 1];
        for (&l, &q) in gram.columns[span.clone()].iter().zip(&gram.values[span]) {
            let row = &y[l as usize * PANEL..l as usize * PANEL + PANEL];
            let (side, q) = if q < 0.0 { (&mut above, Lanes::splat(-q)) } else { (&mut below, Lanes::splat(q)) };
            for (c, v) in side.iter_mut().enumerate() {
                *v = v.add_product::<FUSED>(Lanes::load(&row[c * WIDTH..]), q);
            }
        }
        for c in 0..VECTORS {
            let ratio = above[c].zip(below[c], |a, b| (a / (b + epsilon)).sqrt());
            ratio.zip(Lanes::load(&line[c * WIDTH..]), |r, y| r * y).store(&mut next[j * PANEL + c * WIDTH..]);
        }
    }
}

kernel! {
    /// For each row of a panel Σ_j y_j p_j.
    pub fn products(rows: &mut [f32], y: &[f32], p: &[f32]) = products_body;
}

#[inline(always)]
fn products_body<const FUSED: bool>(rows: &mut [f32], y: &[f32], p: &[f32]) {
    let mut sum = [Lanes::splat(0.0); VECTORS];
    for (y, p) in y.chunks_exact(PANEL).zip(p.chunks_exact(PANEL)) {
        for (c, s) in sum.iter_mut().enumerate() {
            *s = s.add_product::<FUSED>(Lanes::load(&y[c * WIDTH..]), Lanes::load(&p[c * WIDTH..]));
        }
    }
    for (c, s) in sum.iter().enumerate() {
        s.store(&mut rows[c * WIDTH..]);
    }
}

kernel! {
    /// For each row of a panel yᵀQy.
    pub fn quadratic(rows: &mut [f32], y: &[f32], gram: &Gram) = quadratic_body;
}

#[inline(always)]
fn quadratic_body<const FUSED: bool>(rows: &mut [f32], y: &[f32], gram: &Gram) {
    let mut total = [Lanes::splat(0.0); VECTORS];
    for j in 0..gram.diagonal.len() {
        let own = &y[j * PANEL..j * PANEL + PANEL];
        let mut line = [Lanes::splat(0.0); VECTORS];
        let diagonal = Lanes::splat(gram.diagonal[j]);
        for (c, v) in line.iter_mut().enumerate() {
            *v = v.add_product::<FUSED>(Lanes::load(&own[c * WIDTH..]), diagonal);
        }
        let span = gram.offsets[j]..gram.offsets[j + 1];
        for (&l, &q) in gram.columns[span.clone()].iter().zip(&gram.values[span]) {
            let row = &y[l as usize * PANEL..l as usize * PANEL + PANEL];
            for (c, v) in line.iter_mut().enumerate() {
                *v = v.add_product::<FUSED>(Lanes::load(&row[c * WIDTH..]), Lanes::splat(q));
            }
        }
        for (c, t) in total.iter_mut().enumerate() {
            *t = t.add_product::<FUSED>(Lanes::load(&own[c * WIDTH..]), line[c]);
        }
    }
    for (c, t) in total.iter().enumerate() {
        t.store(&mut rows[c * WIDTH..]);
    }
}

/// Multiplies line j of a panel by `factors[j]`.
pub fn scale(lines: &mut [f32], factors: &[f32]) {
    for (line, &f) in lines.chunks_exact_mut(PANEL).zip(factors) {
        if f != 1.0 {
            for v in line {
                *v *= f;
            }
        }
    }
}
