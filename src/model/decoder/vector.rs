//! Elementwise loops of the CPU path, compiled for the best instruction set that the machine has.
//!
//! Owns plain arithmetic on slices; knows nothing of tensors. Invariant: a row's result depends on
//! that row alone, so that batching never changes a number.

use rayon::prelude::*;

use crate::matrix::simd::vectorised;
use crate::model::config::{Activation, NormKind};

/// Values below which a loop stays on one thread.
const SERIAL: usize = 1 << 15;

/// Runs `f` over rows of `width` values, on all threads when it is worth it.
pub(super) fn for_each_row(data: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if data.len() < SERIAL {
        data.chunks_exact_mut(width)
            .enumerate()
            .for_each(|(i, row)| f(i, row));
    } else {
        let rows = (SERIAL / 2 / width).max(1);
        data.par_chunks_mut(width * rows)
            .enumerate()
            .for_each(|(c, chunk)| {
                chunk
                    .chunks_exact_mut(width)
                    .enumerate()
                    .for_each(|(i, row)| f(c * rows + i, row));
            });
    }
}

/// e^x to within 2 ulp, without branches (Cephes' expf: range reduction by ln 2, a polynomial of
/// degree 6).
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.336_54, 88.722_83);
    let n = (x * std::f32::consts::LOG2_E + 12_582_912.0) - 12_582_912.0;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.000_000_3e-1;
    let y = p * r * r + r + 1.0;
    // 2^n in two factors: n reaches 128, whose power alone overflows.
    let half = (n * 0.5) as i32;
    let rest = n as i32 - half;
    y * f32::from_bits(((half + 127) << 23) as u32) * f32::from_bits(((rest + 127) << 23) as u32)
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// erf by Abramowitz and Stegun 7.1.26 would be good to 1.5e-7; this is the C library's to the last
/// bit but one.
#[inline(always)]
fn erf(x: f32) -> f32 {
    candle_core::cpu::erf::erf_f32(x)
}

#[inline(always)]
fn act(kind: Activation, x: f32) -> f32 {
    match kind {
        Activation::Silu => x / (1.0 + exp(-x)),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => 0.5 * x * (1.0 + tanh(0.797_884_6 * (x + 0.044_715 * x * x * x))),
        Activation::Relu => x.max(0.0),
        Activation::Relu2 => x.max(0.0) * x.max(0.0),
        Activation::QuickGelu => x / (1.0 + exp(-1.702 * x)),
    }
}

#[inline(always)]
fn map_rows(out: &mut [f32], input: &[f32], gated: bool, f: impl Fn(f32) -> f32) {
    if gated {
        let (gate, up) = input.split_at(out.len());
        for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
            *o = f(g) * u;
        }
    } else {
        for (o, &x) in out.iter_mut().zip(input) {
            *o = f(x);
        }
    }
}

/// act(gate) ∘ up for rows `[gate | up]`, or act(x) when not gated; `width` is the width of the
/// result.
pub(super) fn activate(kind: Activation, gated: bool, input: &[f32], width: usize) -> Vec<f32> {
    let stride = if gated { 2 * width } else { width };
    let mut out = vec![0.0; input.len() / stride * width];
    for_each_row(&mut out, width, |i, row| {
        let input = &input[i * stride..(i + 1) * stride];
        // One loop for each function, so that each is compiled to vectors.
        vectorised(|| match kind {
            Activation::Silu => map_rows(row, input, gated, |x| act(Activation::Silu, x)),
            Activation::GeluTanh => map_rows(row, input, gated, |x| act(Activation::GeluTanh, x)),
            Activation::Gelu => map_rows(row, input, gated, |x| act(Activation::Gelu, x)),
            Activation::Relu => map_rows(row, input, gated, |x| act(Activation::Relu, x)),
            Activation::Relu2 => map_rows(row, input, gated, |x| act(Activation::Relu2, x)),
            Activation::QuickGelu => map_rows(row, input, gated, |x| act(Activation::QuickGelu, x)),
        });
    });
    out
}

/// Σ f(v), in sixteen running sums so that it vectorises.
#[inline(always)]
fn sum_by(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let chunks = x.chunks_exact(16);
    let mut tail = 0.0;
    for &v in chunks.remainder() {
        tail += f(v);
    }
    for chunk in chunks {
        for (s, &v) in sums.iter_mut().zip(chunk) {
            *s += f(v);
        }
    }
    tail + sums.iter().sum::<f32>()
}

/// The inner product ⟨a, b⟩, in sixteen running sums so that it vectorises.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (ca, cb) = (a.chunks_exact(16), b.chunks_exact(16));
    let mut tail = 0.0;
    for (&x, &y) in ca.remainder().iter().zip(cb.remainder()) {
        tail += x * y;
    }
    for (x, y) in ca.zip(cb) {
        for ((s, &x), &y) in sums.iter_mut().zip(x).zip(y) {
            *s += x * y;
        }
    }
    tail + sums.iter().sum::<f32>()
}

/// Normalises one row: x / rms(x) ∘ w, or (x − mean) / std ∘ w + b.
#[inline(always)]
pub(super) fn norm_row(
    kind: NormKind,
    eps: f32,
    weight: &[f32],
    bias: Option<&[f32]>,
    x: &[f32],
    out: &mut [f32],
) {
    let n = x.len() as f32;
    match kind {
        NormKind::Rms => {
            let scale = 1.0 / (sum_by(x, |v| v * v) / n + eps).sqrt();
            for ((o, &v), &w) in out.iter_mut().zip(x).zip(weight) {
                *o = v * scale * w;
            }
        }
        NormKind::Layer => {
            let mean = sum_by(x, |v| v) / n;
            let scale = 1.0 / (sum_by(x, |v| (v - mean) * (v - mean)) / n + eps).sqrt();
            for ((o, &v), &w) in out.iter_mut().zip(x).zip(weight) {
                *o = (v - mean) * scale * w;
            }
        }
    }
    if let Some(bias) = bias {
        for (o, &b) in out.iter_mut().zip(bias) {
            *o += b;
        }
    }
}

/// Normalises rows of `weight.len()` values.
pub(super) fn norm(
    kind: NormKind,
    eps: f64,
    weight: &[f32],
    bias: Option<&[f32]>,
    x: &[f32],
) -> Vec<f32> {
    let width = weight.len();
    let mut out = vec![0.0; x.len()];
    for_each_row(&mut out, width, |i, row| {
        let x = &x[i * width..(i + 1) * width];
        vectorised(|| norm_row(kind, eps as f32, weight, bias, x, row));
    });
    out
}

/// Rotates one head in place: pairs (i, i + half), or (2i, 2i + 1) when interleaved.
#[inline(always)]
pub(super) fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], interleaved: bool) {
    let half = cos.len();
    if interleaved {
        for ((pair, &c), &s) in head[..2 * half].chunks_exact_mut(2).zip(cos).zip(sin) {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * c - b * s;
            pair[1] = a * s + b * c;
        }
    } else {
        let (low, high) = head[..2 * half].split_at_mut(half);
        for (((a, b), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let (x, y) = (*a, *b);
            *a = x * c - y * s;
            *b = x * s + y * c;
        }
    }
}

/// `scores ← softmax(cap(scores · scale))`.
#[inline(always)]
pub(super) fn softmax(scores: &mut [f32], scale: f32, cap: Option<f32>) {
    for s in scores.iter_mut() {
        *s *= scale;
    }
    if let Some(cap) = cap {
        for s in scores.iter_mut() {
            *s = cap * tanh(*s / cap);
        }
    }
    let mut most = [f32::NEG_INFINITY; 16];
    let chunks = scores.chunks_exact(16);
    let mut top = chunks
        .remainder()
        .iter()
        .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m });
    for chunk in chunks {
        for (m, &v) in most.iter_mut().zip(chunk) {
            *m = if v > *m { v } else { *m };
        }
    }
    for m in most {
        top = if m > top { m } else { top };
    }
    for s in scores.iter_mut() {
        *s = exp(*s - top);
    }
    let scale = 1.0 / sum_by(scores, |v| v);
    for s in scores.iter_mut() {
        *s *= scale;
    }
}

/// `out += w · x`
#[inline(always)]
pub(super) fn axpy(out: &mut [f32], w: f32, x: &[f32]) {
    for (o, &v) in out.iter_mut().zip(x) {
        *o += w * v;
    }
}

/// The elementwise sum of two slices of one length.
pub(super) fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut out = a.to_vec();
    rows_mut_flat(&mut out, |at, part| {
        let b = &b[at..at + part.len()];
        vectorised(|| {
            for (o, &v) in part.iter_mut().zip(b) {
                *o += v;
            }
        });
    });
    out
}

/// Whether every value is finite.
pub(super) fn all_finite(x: &[f32]) -> bool {
    // A sum of x · 0 is NaN as soon as one value is NaN or infinite, and vectorises where a search
    // would not.
    vectorised(|| sum_by(x, |v| v * 0.0)) == 0.0
}

fn rows_mut_flat(data: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    if data.len() < SERIAL {
        f(0, data);
    } else {
        data.par_chunks_mut(SERIAL)
            .enumerate()
            .for_each(|(i, part)| f(i * SERIAL, part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_library_over_its_range() {
        for i in -8700..8870 {
            let x = i as f32 / 100.0;
            let (ours, theirs) = (exp(x), x.exp());
            assert!(
                (ours - theirs).abs() <= 3e-7 * theirs,
                "e^{x}: {ours} against {theirs}"
            );
        }
        assert_eq!(exp(-1e4), exp(-88.0));
    }

    #[test]
    fn softmax_of_a_masked_row_sums_to_one_and_survives_large_scores() {
        let mut s: Vec<f32> = (0..37).map(|i| i as f32 * 100.0).collect();
        softmax(&mut s, 1.0, None);
        assert!((s.iter().sum::<f32>() - 1.0).abs() < 1e-6 && s[36] > 0.999);
    }

    #[test]
    fn rotation_by_pairs_equals_rotation_by_halves_on_permuted_values() {
        let x: Vec<f32> = (0..8).map(|i| (i as f32).sin()).collect();
        let (cos, sin): (Vec<f32>, Vec<f32>) =
            (0..4).map(|i| ((i as f32).cos(), (i as f32).sin())).unzip();
        let mut halves = x.clone();
        rotate(&mut halves, &cos, &sin, false);
        let mut pairs: Vec<f32> = (0..4).flat_map(|i| [x[i], x[i + 4]]).collect();
        rotate(&mut pairs, &cos, &sin, true);
        for i in 0..4 {
            assert_eq!((halves[i], halves[i + 4]), (pairs[2 * i], pairs[2 * i + 1]));
        }
    }

    #[test]
    fn one_bad_value_is_found() {
        let mut x = vec![1.0; 100];
        assert!(all_finite(&x));
        x[63] = f32::INFINITY;
        assert!(!all_finite(&x));
    }
}
